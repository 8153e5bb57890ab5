//! Seal and choose: the first half of a recovery (protocol: recovery, steps 1 and 2).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::installing::Installing;
use super::{Phase, Writer};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::geometry::Limits;
use crate::id::{Permutation, PgId, Position, Positions, SegmentSet};
use crate::membership::Membership;
use crate::message::{Install, Seal, SealAnswer, ToSegment};
use crate::recovery::{Answers, choose_under, newest, next_history, sealed};
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

/// The answers given under this epoch so far.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Sealing {
    groups: Vec<GroupSeal>,
}

/// What is known of one group.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct GroupSeal {
    /// Whom this writer asked first.
    known: Membership,
    /// Members of `known` that an operator says are gone for ever: all others must answer.
    lost: SegmentSet,
    /// By position. Only a segment that has durably promised this epoch has an answer.
    answers: Positions<Option<SealAnswer>>,
}

impl GroupSeal {
    pub(super) fn new(known: Membership, lost: SegmentSet) -> Self {
        Self { known, lost, answers: Positions::default() }
    }

    fn answers(&self) -> Answers<'_> {
        self.answers.map(Option::as_ref)
    }

    /// Returns the newest membership, and whose answers count if they are enough.
    fn sealed<R: Rules>(&self, rules: R) -> Option<(Membership, SegmentSet)> {
        let (membership, voters) = sealed(rules, &self.known, &self.answers())?;
        let lost = self.lost_in(rules, &membership);
        if lost.is_empty() {
            return Some((membership, voters));
        }
        // Every survivor has to hold everything, and each may be the only one to have something.
        let survivors = membership.quorums().reading().members().without(lost);
        survivors.is_within(voters).then_some((membership, survivors))
    }

    /// Returns the members of `found` that an operator says are gone: the disks that were known
    /// then. Said again, it must not burn those that have come in their places (edge 27).
    fn lost_in<R: Rules>(&self, rules: R, found: &Membership) -> SegmentSet {
        let mut lost = SegmentSet::EMPTY;
        for position in self.lost.and(found.everyone()).iter() {
            let disk = self.known.incarnation(position);
            if found.knows(position, disk) || rules.has(Bug::ForcedByPlace) {
                lost.insert(position);
            }
        }
        lost
    }

    fn everyone<R: Rules>(&self, rules: R) -> SegmentSet {
        newest(rules, &self.known, &self.answers()).everyone()
    }
}

impl Sealing {
    pub(super) const fn new(groups: Vec<GroupSeal>) -> Self {
        Self { groups }
    }

    /// Returns whom this writer has asked, or asks now, in `group`.
    pub(super) fn everyone<R: Rules>(&self, rules: R, group: PgId) -> SegmentSet {
        let of_group = |group: &GroupSeal| group.known.everyone().or(group.everyone(rules));
        self.groups.get(group.get() as usize).map_or(SegmentSet::EMPTY, of_group)
    }

    pub(super) fn permute(&self, group: PgId, permutation: &Permutation) -> Self {
        let mut renamed = self.clone();
        if let Some(of_group) = renamed.groups.get_mut(group.get() as usize) {
            of_group.answers = of_group.answers.permute(permutation);
            of_group.lost = permutation.of_set(of_group.lost);
        }
        renamed
    }

    pub(super) fn hash_column<H: Hasher>(&self, group: PgId, position: Position, state: &mut H) {
        let Self { groups } = self;
        if let Some(GroupSeal { known: _, lost, answers }) = groups.get(group.get() as usize) {
            (lost.contains(position), answers.at(position)).hash(state);
        }
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        self.groups.len().hash(state);
        for GroupSeal { known, lost: _, answers: _ } in &self.groups {
            known.hash(state);
        }
    }
}

impl<R: Rules> Writer<R> {
    pub(super) fn receive_sealed(
        &mut self,
        group: PgId,
        from: Position,
        answer: SealAnswer,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Sealing(sealing) = &mut self.phase else { return };
        // A volume whose segments disagree about its shape is not one that this process may
        // write to.
        if answer.geometry != self.geometry {
            let refusal = Refusal::Malformed;
            effects.push(WriterEffect::Report(Report::Rejected { group, from, refusal }));
            return;
        }
        let Some(of_group) = sealing.groups.get_mut(group.get() as usize) else { return };
        let asked = of_group.known.everyone().or(of_group.everyone(self.rules));
        *of_group.answers.at_mut(from) = Some(answer);
        // A newer membership: the seal is extended until it holds there.
        let more = of_group.everyone(self.rules).without(asked);
        if !more.is_empty() {
            let message = ToSegment::Seal(Seal { epoch: self.epoch, group });
            effects.push(WriterEffect::Send { group, to: more, message });
        }
        self.choose_if_sealed(effects);
    }

    /// Decides, once a read quorum of every group has answered: an older epoch can then complete
    /// no write quorum, in no group (edge 54).
    fn choose_if_sealed(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Sealing(sealing) = &self.phase else { return };
        let sealed: Vec<_> = sealing.groups.iter().map(|group| group.sealed(self.rules)).collect();
        let is_sealed = if self.rules.has(Bug::IdleGroupIgnored) {
            sealed.iter().any(Option::is_some)
        } else {
            sealed.iter().all(Option::is_some)
        };
        if !is_sealed {
            return;
        }
        let mut answers = Vec::new();
        let mut memberships = Vec::new();
        for ((id, group), sealed) in (0..).map(PgId::new).zip(&sealing.groups).zip(sealed) {
            let all = group.answers();
            let (membership, voters) = sealed
                .unwrap_or_else(|| (newest(self.rules, &group.known, &all), SegmentSet::EMPTY));
            let voting = all.iter().filter(|(position, _)| voters.contains(*position));
            answers.extend(voting.filter_map(|(_, answer)| Some((id, (*answer)?))));
            let lost = group.lost_in(self.rules, &membership);
            let Some(membership) = self.adopt(&membership, lost, effects) else { return };
            memberships.push(membership);
        }
        let choice = choose_under(self.rules, &self.geometry, &answers);
        let Limits { allocation_max, history_ranges_max, .. } = self.geometry.limits();
        if choice.found.ranges().len() >= history_ranges_max as usize {
            // No segment would take it.
            effects.push(super::refused(CommandRefusal::HistoryFull));
            return;
        }
        let Some(history) = next_history(self.rules, self.epoch, &choice, allocation_max) else {
            effects.push(super::refused(CommandRefusal::OutOfLsns));
            return;
        };
        let ends = choice.ends.clone();
        let mut installing = Installing::new(history.clone(), memberships.clone(), choice);
        if self.rules.has(Bug::CompletionCountsSeals) {
            installing.count_seals(sealing.groups.iter().map(|group| &group.answers));
        }
        self.phase = Phase::Installing(installing);
        for ((group, end), membership) in self.geometry.groups().zip(ends).zip(memberships) {
            let install = Install { group, history: history.clone(), end, membership };
            self.send_all(group, ToSegment::Install(install), effects);
        }
    }

    /// Returns the membership to install: the newest one found, under this epoch, whether it looks
    /// finished or not (edges 65 and 67), or what is left of it after a disaster.
    fn adopt(
        &self,
        found: &Membership,
        lost: SegmentSet,
        effects: &mut Vec<WriterEffect>,
    ) -> Option<Membership> {
        let adopted = if self.rules.has(Bug::AdoptWithoutRepropose) {
            *found
        } else {
            found.adopted_by(self.epoch)
        };
        if lost.is_empty() {
            return Some(adopted);
        }
        match adopted.forced(self.rules, lost) {
            Ok(forced) => Some(forced),
            Err(refusal) => {
                effects.push(super::refused(CommandRefusal::Step(refusal)));
                None
            }
        }
    }
}
