//! Where a volume can go back to, or forward again (protocol: backtrack).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::open::GroupProgress;
use super::{Phase, Writer, refused};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::id::{Permutation, PgId, Position, SegmentSet, Ticket};
use crate::lsn::Lsn;
use crate::message::{Locate, Place, ToSegment};
use crate::recovery::Backtrack;
use crate::rules::{Bug, Rules};

/// A question, under way, what the groups' logs end with at a point.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Locating {
    ticket: Ticket,
    target: Lsn,
    /// By group. Whoever lacks anything gives no answer, so that all say the same.
    places: Vec<Located>,
}

/// What the segments of a group have answered.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
struct Located {
    place: Place,
    by: SegmentSet,
}

impl Locating {
    pub(super) fn forget(&mut self, group: PgId, positions: SegmentSet) {
        if let Some(located) = self.places.get_mut(group.get() as usize) {
            located.by = located.by.without(positions);
        }
    }

    pub(super) fn permute(&mut self, group: PgId, permutation: &Permutation) {
        if let Some(located) = self.places.get_mut(group.get() as usize) {
            located.by = permutation.of_set(located.by);
        }
    }

    pub(super) fn has_answered(&self, group: PgId, position: Position) -> bool {
        let located = self.places.get(group.get() as usize);
        located.is_some_and(|located| located.by.contains(position))
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        let Self { ticket, target, places } = self;
        (ticket, target).hash(state);
        places.iter().for_each(|located| located.place.hash(state));
    }
}

impl<R: Rules> Writer<R> {
    pub(super) fn locate(&mut self, ticket: Ticket, target: Lsn, effects: &mut Vec<WriterEffect>) {
        let not_open = self.not_open();
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        // Onto a branch that was left only as long as nothing was written, durable or not.
        let history = open.history();
        let after = history.after();
        let is_left = after < target && target <= history.through();
        let tip = history.branch().map(|branch| branch.tip());
        let reaches = |tip| open.tail() == after && target <= tip;
        if (is_left || target > open.vdl().lsn()) && !tip.is_some_and(reaches) {
            effects.push(refused(CommandRefusal::TargetAhead));
            return;
        }
        let floor = open.floor().lsn();
        if target < floor {
            effects.push(refused(CommandRefusal::Collected { floor }));
            return;
        }
        let places = self.geometry.groups().map(|_| Located::default()).collect();
        open.locating = Some(Locating { ticket, target, places });
        let needed: Vec<Lsn> = open
            .groups
            .iter()
            .zip(self.geometry.groups())
            .filter_map(|(_, group)| open.durable(group))
            .collect();
        let epoch = self.epoch;
        for (group, needed) in self.geometry.groups().zip(needed) {
            let locate = Locate { epoch, group, ticket, target, needed };
            self.send_all(group, ToSegment::Locate(locate), effects);
        }
    }

    pub(super) fn receive_located(
        &mut self,
        group: PgId,
        from: Position,
        ticket: Ticket,
        place: Place,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Open(open) = &mut self.phase else { return };
        let vdl = open.vdl().lsn();
        let Some(locating) = &mut open.locating else { return };
        if locating.ticket != ticket {
            return;
        }
        let Some(known) = locating.places.get_mut(group.get() as usize) else { return };
        known.by.insert(from);
        known.place = Place { tip: place.tip.or(known.place.tip), ..place };
        // To go back, a write quorum of each group must still have all versions there, or nobody
        // could complete the recovery; of what was set aside one copy is enough.
        let goes_forward = locating.target > vdl;
        let has_answered = |(located, progress): (&Located, &GroupProgress)| {
            let GroupProgress { membership, .. } = progress;
            let has_quorum = membership.quorums().writes(located.by, 0)
                && membership.before().writes(located.by, 0);
            has_quorum || (goes_forward && !located.by.is_empty())
        };
        if !locating.places.iter().zip(&open.groups).all(has_answered) {
            return;
        }
        let places: Vec<Place> = locating.places.iter().map(|located| located.place).collect();
        let target = locating.target;
        open.locating = None;
        let nearest = places.iter().map(|place| place.cpl).max().unwrap_or(Lsn::ZERO);
        let is_anywhere =
            self.rules.has(Bug::BacktrackAnywhere) || self.rules.has(Bug::CloneAnywhere);
        if nearest != target && !is_anywhere {
            effects.push(refused(CommandRefusal::NotConsistent { nearest }));
            return;
        }
        let backtrack = Backtrack {
            under: self.epoch,
            target,
            ends: places.iter().map(|place| place.end).collect(),
            tips: places.iter().map(|place| place.tip).collect(),
        };
        effects.push(WriterEffect::Report(Report::Located { ticket, backtrack }));
    }
}
