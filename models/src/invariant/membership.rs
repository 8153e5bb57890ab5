//! P8, membership: every step of a membership change can be completed, and taken back while it is
//! joint, by any later writer; P1 to P4 hold throughout.
//!
//! TLA+: none, `tla/Volume.tla` has one membership. Evaluated on one state in [`ONE_IN`], by its
//! fingerprint: a new writer of the core recovers from there with everybody awake, ends the change
//! both ways, and must settle with all that clients were told. In every state P1, P3 and P9 are
//! judged for each seal that can hold, on whatever membership it holds.

use quorate_core::effect::{Report, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::formula::Half;
use quorate_core::geometry::Added;
use quorate_core::id::{Incarnation, InstanceId, PgId, Position, SegmentSet};
use quorate_core::membership::{Membership, Step};
use quorate_core::recovery::{Answers, added, newest, sealed};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::Writer;

use super::{Property, Seal};
use crate::intern::combine;
use crate::machine::{from_segment, request_of, writer_message};
use crate::witness::Witness;
use crate::world::{NO_VOTE, State, World};

/// Of how many states one is followed to the end of its change.
const ONE_IN: u64 = 64;

/// Returns the answers that vote in every seal of a group that can hold in `state`.
pub(crate) fn answers<'a, R: Rules>(
    world: &'a World<R>,
    state: &State,
    group: usize,
) -> Vec<Seal<'a>> {
    let id = (0..).map(PgId::new).nth(group).unwrap_or_default();
    let report = |position: Position| {
        let slot = world.slot(state, world.slot_index(group, position.index()));
        (id, world.reports.get(slot.report))
    };
    let seals = seals(world, state, group).into_iter();
    seals
        .map(|(voters, added)| Seal { answers: voters.iter().map(report).collect(), added })
        .collect()
}

/// Returns who votes in every seal of a group that can hold in `state`: of the sets at whose last
/// answer it comes to hold, as far as a recovery gets to know whom to ask. With them comes how many
/// groups a recovery adds to those that the volume began with, if the group is the first.
pub(crate) fn seals<R: Rules>(
    world: &World<R>,
    state: &State,
    group: usize,
) -> Vec<(SegmentSet, Added)> {
    let rules = world.rules;
    let known = Membership::genesis(world.configuration.quorums);
    let report = |position: usize| world.slot(state, world.slot_index(group, position)).report;
    let answers_of = |set: SegmentSet| {
        let mut answers = Answers::default();
        for position in set.iter() {
            *answers.at_mut(position) = Some(world.reports.get(report(position.index())));
        }
        answers
    };
    let seal = |set: SegmentSet| sealed(rules, &known, &answers_of(set));
    let mut found: Vec<(Vec<u32>, Added)> = Vec::new();
    let mut seals = Vec::new();
    for bits in 0..=u8::MAX {
        let set = SegmentSet::from_bits(bits);
        // A damaged segment answers no seal.
        let is_silent = |position: Position| {
            position.index() >= world.members() || report(position.index()) == NO_VOTE
        };
        if set.iter().any(is_silent) {
            continue;
        }
        let Some((membership, voters)) = seal(set) else { continue };
        let is_last = |last| seal(set.without(SegmentSet::only(last))).is_none();
        if !set.iter().any(is_last) || !is_asked(rules, &known, set, &answers_of(set)) {
            continue;
        }
        let is_extended = !membership.everyone().is_within(known.everyone());
        world.witnesses.saw_if(is_extended, Witness::SealExtended);
        world.witnesses.saw_if(!membership.is_settled(), Witness::AdoptedUnsettled);
        let mut reports: Vec<u32> = voters.iter().map(|voter| report(voter.index())).collect();
        reports.sort_unstable();
        let added = added(rules, &known, &answers_of(set));
        let seal = (reports, added);
        if !found.contains(&seal) {
            found.push(seal);
            seals.push((voters, added));
        }
    }
    seals
}

/// Returns whether a recovery that begins with `known` comes to ask everybody in `set`, by what the
/// others in it answer.
fn is_asked<R: Rules>(
    rules: R,
    known: &Membership,
    set: SegmentSet,
    answers: &Answers<'_>,
) -> bool {
    let mut asked = known.everyone();
    loop {
        let mut heard = *answers;
        for silent in set.without(asked).iter() {
            *heard.at_mut(silent) = None;
        }
        let more = asked.or(newest(rules, known, &heard).everyone());
        if more == asked {
            return set.is_within(asked);
        }
        asked = more;
    }
}

/// Follows one state in [`ONE_IN`] to the end of its change, both ways.
pub(crate) fn broken<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    let can_change = world.configuration.has_changes() || world.configuration.growing > 0;
    if !can_change || !state.canonical.is_multiple_of(ONE_IN) {
        return None;
    }
    let mut key = combine(world.seed ^ 8, u64::from(state.volume));
    for index in 0..world.slots_count() {
        key = combine(key, u64::from(state.slot(index)));
    }
    world.memos.quorums.get_or(key, || {
        let ends = [Step::Finish(Half::Older), Step::Revert(Half::Older)];
        let can_end =
            ends.into_iter().all(|step| Sequel::of(world, state).ends(world, state, step));
        (!can_end).then_some(Property::Membership)
    })
}

/// What happens next if everybody is awake and one new writer recovers.
struct Sequel<R: Rules> {
    segments: Vec<Segment<R>>,
    writer: Writer<R>,
    effects: Vec<WriterEffect>,
    settled: Option<Membership>,
    is_open: bool,
}

impl<R: Rules> Sequel<R> {
    fn of(world: &World<R>, state: &State) -> Self {
        let slot = |index| world.slot(state, index).slot.segment.clone();
        let segments: Vec<Segment<R>> = (0..world.slots_count()).map(slot).collect();
        let counter = segments.iter().map(|segment| segment.heard().counter()).max();
        let last = counter.unwrap_or(0).max(u64::from(state.budget.writers)).saturating_add(1);
        let epoch = VolumeEpoch::new(last, InstanceId::new(u64::MAX));
        let mut effects = Vec::new();
        let geometry = world.configuration.geometry();
        let forced = SegmentSet::from_bits(world.configuration.forced);
        // Until anybody knows that those disks are burnt, only an operator can open.
        let counts_on_lost = |segment: &Segment<R>| {
            let membership = segment.durable().membership();
            forced.iter().all(|lost| membership.knows(lost, Incarnation::new(0)))
        };
        let writer = if !forced.is_empty() && segments.iter().all(counts_on_lost) {
            world.open_forced(epoch, &mut effects)
        } else {
            Writer::open_under(world.rules, epoch, geometry, &mut effects)
        };
        Self { segments, writer, effects, settled: None, is_open: false }
    }

    /// Returns whether the change under way, if any, ends by steps like `step`, with all that any
    /// client was told at or under the recovery point.
    fn ends(mut self, world: &World<R>, state: &State, step: Step) -> bool {
        // Each round tells everything, lets everybody pull, and takes a step.
        for _ in 0..12 {
            self.tell(world);
            self.gossip(world);
            let group = PgId::new(0);
            let membership = self.writer.membership(group).copied();
            if let Some(membership) = membership
                && self.is_open
                && membership.is_settled()
            {
                if membership.quorums().as_single().is_some() {
                    let told = world.volumes.get(state.volume).told();
                    // A backtrack takes back what was told: that is for P1.
                    let goes_back = world.configuration.backtracks > 0;
                    return self.writer.vdl().is_some_and(|vdl| goes_back || vdl.lsn() >= told);
                }
                self.writer.step(WriterInput::Step { group, step }, &mut self.effects);
            }
        }
        false
    }

    fn tell(&mut self, world: &World<R>) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    WriterEffect::Report(Report::Opened { .. }) => self.is_open = true,
                    WriterEffect::Report(Report::Settled { membership, .. }) => {
                        self.settled = Some(membership);
                    }
                    WriterEffect::Report(_) | WriterEffect::SendReader { .. } => {}
                    WriterEffect::Send { group, to, message } => {
                        for position in to.iter() {
                            self.give(world, (group, position), writer_message(&message));
                        }
                    }
                }
            }
        }
    }

    fn gossip(&mut self, world: &World<R>) {
        for _ in 0..2 {
            for group in world.configuration.groups() {
                for into in Position::first(world.members()) {
                    for from in Position::first(world.members()) {
                        self.pull(world, group, into, from);
                    }
                }
            }
        }
        self.tell(world);
    }

    fn pull(&mut self, world: &World<R>, group: PgId, into: Position, from: Position) {
        let index = |position: Position| world.slot_index(group.get() as usize, position.index());
        let asks = self.segments.get(index(into)).and_then(request_of);
        let (Some(request), Some(answering)) = (asks, self.segments.get(index(from))) else {
            return;
        };
        let mut answering = answering.clone();
        let answer = world.run_segment(&mut answering, from_segment(request)).1.pop();
        if let Some(answer) = answer {
            self.give(world, (group, into), from_segment(answer));
        }
    }

    fn give(&mut self, world: &World<R>, to: (PgId, Position), input: SegmentInput) {
        let (group, from) = to;
        let index = world.slot_index(group.get() as usize, from.index());
        let Some(segment) = self.segments.get_mut(index) else { return };
        for (_, message) in world.run_segment(segment, input).0 {
            let input = WriterInput::Receive { group, from, message };
            self.writer.step(input, &mut self.effects);
        }
    }
}
