//! L3, copies: a group that lost segments returns to as many full copies as it had. While a write
//! quorum lives, new disks take the places of those that never come back, one after the other, each
//! to its settled mark, and a change that was under way ends; with a read quorum only, that happens
//! once somebody is back; if nobody ever is, an operator forces the volume open on the survivors,
//! and leads it back from there.
//!
//! TLA+: none, the specification has one membership. Evaluated from every state, after the writer
//! of L1, of L2, or the one that is forced to open, has opened.

use quorate_core::effect::WriterInput;
use quorate_core::formula::{Half, Term};
use quorate_core::id::{Incarnation, PgId, Position, SEGMENTS_MAX, SegmentId, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::membership::{Membership, Step};
use quorate_core::quorum::QuorumSet;
use quorate_core::rules::Rules;

use super::schedule::{Fair, Waiting};
use super::{live_members, opening, writes};
use crate::step::as_u8;

/// Steps after which a group that isn't whole goes in circles.
const STEPS_MAX: usize = 16;

/// Runs until every group has as many members as it is to have, all of which hold everything, by
/// steps of the last writer, which is open. By group, disks at `burnt` places are dead.
pub(super) fn restore<R: Rules>(
    fair: &mut Fair<'_, R>,
    burnt: &[SegmentSet],
) -> Result<(), Waiting> {
    for group in 0..fair.world.groups() {
        let burnt = burnt.get(group).copied().unwrap_or(SegmentSet::EMPTY);
        restore_group(fair, group, burnt)?;
    }
    writes::write(fair)?;
    opening::converge(fair)?;
    let is_whole = (0..fair.world.groups()).all(|group| is_whole(fair, group));
    if is_whole { Ok(()) } else { Err("a copy is missing") }
}

fn restore_group<R: Rules>(
    fair: &mut Fair<'_, R>,
    group: usize,
    burnt: SegmentSet,
) -> Result<(), Waiting> {
    for _ in 0..STEPS_MAX {
        // Whoever joins, or comes back, may have promised more than this writer knew of.
        fair.until("no writer opens again", Fair::is_open)?;
        fair.until("a step is never settled", |fair| {
            is_idle(fair, group) || fair.machine().is_some_and(|it| it.overtaken_by().is_some())
        })?;
        if !fair.is_open() {
            continue;
        }
        if is_whole(fair, group) {
            return Ok(());
        }
        // Those who join get what they lack before they count.
        fair.quiesce()?;
        let Some(before) = membership(fair, group).filter(|_| fair.is_open()) else { continue };
        let mut steps = steps(fair, group, &before, burnt);
        let is_taken = steps.iter_mut().any(|step| {
            let what = code(step) | (group as u64) << 3;
            fair.tell(what, WriterInput::Step { group: id(group), step: *step });
            membership(fair, group).is_some_and(|after| after.epoch() != before.epoch())
        });
        if !fair.is_open() {
            continue;
        }
        if !is_taken {
            return Err(match before.quorums().as_single() {
                None => "a joint membership can be neither finished nor taken back",
                Some(_) if steps.is_empty() => "there is no place for a new disk",
                Some(_) => "no change of the members can begin",
            });
        }
        seat(fair, group, &before);
    }
    Err("a membership change has no end")
}

fn id(group: usize) -> PgId {
    (0..).map(PgId::new).nth(group).unwrap_or_default()
}

fn membership<R: Rules>(fair: &Fair<'_, R>, group: usize) -> Option<Membership> {
    fair.machine().and_then(|machine| machine.membership(id(group))).copied()
}

fn is_idle<R: Rules>(fair: &Fair<'_, R>, group: usize) -> bool {
    let standing = fair.machine().and_then(|machine| machine.standing(id(group)));
    standing.is_some_and(|standing| standing.is_settled)
}

/// Returns whether the group has as many members as it is to have, all there.
fn is_whole<R: Rules>(fair: &Fair<'_, R>, group: usize) -> bool {
    let Some(membership) = membership(fair, group) else { return false };
    let Some(term) = membership.quorums().as_single() else { return false };
    let wanted = fair.world.configuration.quorums.members();
    is_idle(fair, group)
        && term.members().len() as usize >= wanted
        && term.members() == live_members(fair, group)
}

/// Returns the steps to try, in this order.
fn steps<R: Rules>(
    fair: &Fair<'_, R>,
    group: usize,
    membership: &Membership,
    burnt: SegmentSet,
) -> Vec<Step> {
    let Some(term) = membership.quorums().as_single() else {
        return vec![
            Step::Finish(Half::Newer),
            Step::Finish(Half::Older),
            Step::Revert(Half::Newer),
            Step::Revert(Half::Older),
        ];
    };
    let dead = term.members().without(live_members(fair, group));
    let replace = |old: Position| {
        let new = free(fair, group, membership)?;
        Some(Step::Replace { old, new })
    };
    let replaced = dead.iter().next().and_then(replace);
    replaced.or_else(|| reshape(fair, group, membership, term, burnt)).into_iter().collect()
}

/// Returns a place without a member, and a name for a new disk there.
fn free<R: Rules>(fair: &Fair<'_, R>, group: usize, membership: &Membership) -> Option<SegmentId> {
    let places = Position::first(SEGMENTS_MAX);
    let position = places.into_iter().find(|place| !membership.everyone().contains(*place))?;
    let known = membership.incarnation(position).max(last_there(fair, group, position));
    let incarnation = Incarnation::new(known.get().saturating_add(1));
    Some(SegmentId { position, incarnation })
}

/// Returns the name of the disk that lies at `position`, reachable or not.
fn last_there<R: Rules>(fair: &Fair<'_, R>, group: usize, position: Position) -> Incarnation {
    let slot = fair.slot(as_u8(group), as_u8(position.index()));
    let is_there = slot != u32::MAX;
    let there = is_there.then(|| fair.world.slots.get(slot).slot.segment.durable().incarnation());
    there.unwrap_or_default()
}

/// Returns the step from a shape with fewer members to the one that the group is to have.
fn reshape<R: Rules>(
    fair: &Fair<'_, R>,
    group: usize,
    membership: &Membership,
    term: &Term,
    burnt: SegmentSet,
) -> Option<Step> {
    let quorums = fair.world.configuration.quorums;
    if quorums != QuorumSet::AURORA {
        return Some(Step::Reshape(Term::of(quorums)));
    }
    let mut members = term.members();
    let is_back = |position: &Position| {
        let is_last = last_there(fair, group, *position) == membership.incarnation(*position);
        fair.reachable(group).contains(*position) && is_last
    };
    let is_new = |position: &Position| {
        fair.slot(as_u8(group), as_u8(position.index())) == u32::MAX
            && membership.incarnation(*position) == Incarnation::default()
    };
    let places = || Position::first(SEGMENTS_MAX);
    let back = places().filter(is_back).chain(burnt.iter()).chain(places().filter(is_new));
    for position in back {
        if (members.len() as usize) < quorums.members() {
            members.insert(position);
        }
    }
    Term::six(members).ok().map(Step::Reshape)
}

/// Puts an empty disk wherever the step that was just taken lets a new one join.
fn seat<R: Rules>(fair: &mut Fair<'_, R>, group: usize, before: &Membership) {
    let Some(after) = membership(fair, group) else { return };
    for position in after.everyone().without(before.everyone()).iter() {
        let wanted = after.incarnation(position);
        let is_there = fair.reachable(group).contains(position)
            && fair.slot(as_u8(group), as_u8(position.index())) != u32::MAX
            && last_there(fair, group, position) == wanted;
        let geometry = fair.world.configuration.geometry();
        let image = SegmentImage::join(id(group), geometry, wanted);
        if let (false, Some(image)) = (is_there, image) {
            fair.seat(as_u8(group), as_u8(position.index()), image);
        }
    }
}

/// Tells the steps of one writer apart.
fn code(step: &Step) -> u64 {
    let half = |half: &Half| u64::from(matches!(half, Half::Newer));
    match step {
        Step::Finish(of) => 1 << 10 | half(of),
        Step::Revert(of) => 1 << 11 | half(of),
        Step::Replace { old, new } => {
            let places = (old.index() as u64) << 3 | new.position.index() as u64;
            1 << 12 | places << 16 | u64::from(new.incarnation.get()) << 22
        }
        Step::Grow => 1 << 14,
        Step::Reshape(term) => 1 << 13 | u64::from(term.members().bits()) << 16,
    }
}
