//! A group is added to the volume by the open writer (protocol: geometry; edge 55).
//!
//! First the new group's own segments get the history and promise the epoch, as in an install. Once
//! a write quorum of them has, so that whoever finds the group can complete it, the membership of
//! the volume's first group takes a step that counts it: known to a write quorum there, every later
//! recovery finds it. Only then is its first record allocated.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::open::{GroupProgress, Open};
use super::{FIRST, Phase, Writer, refused};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::id::{Permutation, PgId, Position, SegmentSet};
use crate::membership::{Membership, Step, StepRefusal};
use crate::message::{Install, ToSegment};
use crate::rules::{Bug, Rules};

/// A group that is being added.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Growing {
    group: PgId,
    membership: Membership,
    /// Its segments that have the history.
    founders: SegmentSet,
}

impl Growing {
    pub(super) const fn group(&self) -> PgId {
        self.group
    }

    pub(super) const fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(super) fn is_founder(&self, position: Position) -> bool {
        self.founders.contains(position)
    }

    pub(super) fn permute(&mut self, permutation: &Permutation) {
        self.founders = permutation.of_set(self.founders);
    }

    /// Returns whether a write quorum of the group has the history.
    fn is_founded<R: Rules>(&self, rules: R) -> bool {
        let short = super::short_writes(rules);
        rules.has(Bug::GrowthBeforeOwnQuorum)
            || self.membership.quorums().writes(self.founders, short)
    }
}

impl Open {
    pub(super) fn growing_in(&self, group: PgId) -> Option<&Growing> {
        self.growing.as_deref().filter(|growing| growing.group == group)
    }

    pub(super) fn growing_in_mut(&mut self, group: PgId) -> Option<&mut Growing> {
        self.growing.as_deref_mut().filter(|growing| growing.group == group)
    }
}

impl<R: Rules> Writer<R> {
    /// Begins to add the next group.
    pub(super) fn grow(&mut self, effects: &mut Vec<WriterEffect>) {
        let (not_open, epoch) = (self.not_open(), self.epoch);
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        let added = self.geometry.added().next().filter(|added| self.geometry.can_have(*added));
        let refusal = match added {
            None => Some(StepRefusal::Nothing),
            Some(_) if open.growing.is_some() => Some(StepRefusal::Unsettled),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            effects.push(refused(CommandRefusal::Step(refusal)));
            return;
        }
        let group = PgId::new(self.geometry.groups_count());
        let membership = Membership::genesis(self.geometry.quorums()).adopted_by(epoch);
        let history = open.history().clone();
        let founders = SegmentSet::EMPTY;
        open.growing = Some(Box::new(Growing { group, membership, founders }));
        let (end, tip) = (open.end(group), open.tip(group));
        let install = Install { group, history, end, tip, membership };
        self.send_all(group, ToSegment::Install(install), effects);
        self.count_group(effects);
    }

    /// Takes the acknowledgement of a segment of the group that is being added.
    pub(super) fn receive_founded(
        &mut self,
        group: PgId,
        from: Position,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(growing) = open.growing_in_mut(group) else { return };
        growing.founders.insert(from);
        self.count_group(effects);
    }

    /// Proposes the membership of the first group that counts the new one, once a write quorum of
    /// that one's own has the history, and no other step is under way.
    pub(super) fn count_group(&mut self, effects: &mut Vec<WriterEffect>) {
        let (rules, epoch) = (self.rules, self.epoch);
        let Phase::Open(open) = &self.phase else { return };
        if !open.growing.as_ref().is_some_and(|growing| growing.is_founded(rules)) {
            return;
        }
        let Some(first) = open.groups.first() else { return };
        let is_proposed = first.membership.added() > self.geometry.added();
        if is_proposed || !first.is_idle(rules) {
            return;
        }
        let Ok(next) = first.membership.after(rules, epoch, Step::Grow) else { return };
        if rules.has(Bug::GrowthBeforeFirstGroup) {
            self.add_group(&next, effects);
        }
        self.propose(FIRST, next, effects);
    }

    /// Gives the volume the group that `first`, a durable membership of the first group, counts.
    pub(super) fn add_group(&mut self, first: &Membership, effects: &mut Vec<WriterEffect>) {
        let Phase::Open(open) = &mut self.phase else { return };
        if first.added() <= self.geometry.added() {
            return;
        }
        let Some(growing) = open.growing.take() else { return };
        let Growing { group, membership, founders: _ } = *growing;
        open.groups.push(GroupProgress::of_new(membership));
        self.geometry = self.geometry.grown(first.added());
        effects.push(WriterEffect::Report(Report::Grown { group }));
        // Readers hear of the group before its first record.
        self.stream(&[], effects);
    }
}
