//! Seal and choose: the first half of a recovery (protocol: recovery, steps 1 and 2).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::installing::Installing;
use super::{FIRST, Phase, Writer};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::geometry::{Added, Limits, VolumeGeometry};
use crate::id::{Permutation, PgId, Position, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Install, Seal, SealAnswer, ToSegment};
use crate::recovery::{
    Answers, Backtrack, added, choose_under, find_history, lacks_anchor, newest, next_history,
    sealed,
};
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

/// The answers given under this epoch so far.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Sealing {
    /// Of every group that was asked; those that the volume has come first.
    groups: Vec<GroupSeal>,
    /// Where the volume is to go, instead of its end.
    backtrack: Option<Backtrack>,
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
    pub(super) const fn new(groups: Vec<GroupSeal>, backtrack: Option<Backtrack>) -> Self {
        Self { groups, backtrack }
    }

    /// Returns whether this writer has asked `group`.
    pub(super) fn has_asked(&self, group: PgId) -> bool {
        self.groups.get(group.get() as usize).is_some()
    }

    /// Returns how many groups the volume has got, by what was answered so far.
    fn added<R: Rules>(&self, rules: R) -> Added {
        let of_first = |first: &GroupSeal| added(rules, &first.known, &first.answers());
        self.groups.first().map(of_first).unwrap_or_default()
    }

    /// Returns the groups whose seals count. Another one that was asked is of a growth that came to
    /// nothing.
    fn counting(&self, geometry: &VolumeGeometry) -> impl Iterator<Item = (PgId, &GroupSeal)> {
        geometry.groups().zip(&self.groups)
    }

    /// Returns whom this writer has asked, or asks now, in `group`.
    pub(super) fn everyone<R: Rules>(&self, rules: R, group: PgId) -> SegmentSet {
        let of_group = |group: &GroupSeal| group.known.everyone().or(group.everyone(rules));
        self.groups.get(group.get() as usize).map_or(SegmentSet::EMPTY, of_group)
    }

    /// Returns the answers, of those that count, from which it doesn't follow what their segments
    /// have where the volume has gone back to without them, each with that point (edge 57).
    fn lacking<R: Rules>(&self, rules: R, geometry: &VolumeGeometry) -> Vec<(PgId, Position, Lsn)> {
        if rules.has(Bug::PointNotAsked) {
            return Vec::new();
        }
        let mut voting = Vec::new();
        for (id, group) in self.counting(geometry) {
            let voters = group.sealed(rules).map_or(SegmentSet::EMPTY, |(_, voters)| voters);
            let answers = group.answers.iter().filter(|(position, _)| voters.contains(*position));
            voting.extend(answers.filter_map(|(at, answer)| Some((id, at, answer.as_ref()?))));
        }
        let answers: Vec<_> = voting.iter().map(|(group, _, answer)| (*group, *answer)).collect();
        let found = find_history(rules, &answers);
        let lacking = |(group, position, answer): &(PgId, Position, &SealAnswer)| {
            Some((*group, *position, lacks_anchor(&found, answer)?))
        };
        voting.iter().filter_map(lacking).collect()
    }

    /// Returns the point that a segment is to be asked about, if the others have answered already.
    pub(super) fn asked_at<R: Rules>(
        &self,
        rules: R,
        geometry: &VolumeGeometry,
        group: PgId,
        of: Position,
    ) -> Option<Lsn> {
        let lacking = self.lacking(rules, geometry);
        lacking.iter().find(|(id, at, _)| (*id, *at) == (group, of)).map(|(_, _, at)| *at)
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
        let Self { groups, backtrack: _ } = self;
        if let Some(GroupSeal { known: _, lost, answers }) = groups.get(group.get() as usize) {
            (lost.contains(position), answers.at(position)).hash(state);
        }
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        self.groups.len().hash(state);
        self.backtrack.hash(state);
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
        let is_same = answer.geometry.grown(Added::NONE) == self.geometry.grown(Added::NONE);
        if !is_same || !self.geometry.can_have(answer.membership.added()) {
            let refusal = Refusal::Malformed;
            effects.push(WriterEffect::Report(Report::Rejected { group, from, refusal }));
            return;
        }
        let Some(of_group) = sealing.groups.get_mut(group.get() as usize) else { return };
        let asked = of_group.known.everyone().or(of_group.everyone(self.rules));
        let known = of_group.answers.at_mut(from);
        // An answer to a question about a point isn't forgotten for one that was late.
        if answer.anchor.is_some() || known.as_ref().is_none_or(|known| known.anchor.is_none()) {
            *known = Some(answer);
        }
        // A newer membership: the seal is extended until it holds there.
        let more = of_group.everyone(self.rules).without(asked);
        if !more.is_empty() {
            let message = ToSegment::Seal(Seal { epoch: self.epoch, group, at: None });
            effects.push(WriterEffect::Send { group, to: more, message });
        }
        if group == FIRST {
            self.extend(effects);
        }
        self.choose_if_sealed(effects);
    }

    /// Asks the groups that the volume has got, as far as they weren't asked yet: the seal has to
    /// hold in each of them (edge 55).
    fn extend(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Sealing(sealing) = &mut self.phase else { return };
        self.geometry = self.geometry.grown(sealing.added(self.rules));
        let asked = sealing.groups.len();
        let first = Membership::genesis(self.geometry.quorums());
        for group in self.geometry.groups().skip(asked) {
            let Phase::Sealing(sealing) = &mut self.phase else { return };
            sealing.groups.push(GroupSeal::new(first, SegmentSet::EMPTY));
            let seal = Seal { epoch: self.epoch, group, at: None };
            self.send_all(group, ToSegment::Seal(seal), effects);
        }
    }

    /// Decides, once a read quorum of every group has answered: an older epoch can then complete
    /// no write quorum, in no group (edge 54).
    fn choose_if_sealed(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Sealing(sealing) = &self.phase else { return };
        let counting = sealing.counting(&self.geometry);
        let sealed: Vec<_> = counting.map(|(_, group)| group.sealed(self.rules)).collect();
        let is_sealed = if self.rules.has(Bug::IdleGroupIgnored) {
            sealed.iter().any(Option::is_some)
        } else {
            sealed.iter().all(Option::is_some)
        };
        if !is_sealed {
            return;
        }
        let lacking = sealing.lacking(self.rules, &self.geometry);
        if !lacking.is_empty() {
            for (group, to, at) in lacking {
                let seal = Seal { epoch: self.epoch, group, at: Some(at) };
                let to = SegmentSet::only(to);
                effects.push(WriterEffect::Send { group, to, message: ToSegment::Seal(seal) });
            }
            return;
        }
        let mut answers = Vec::new();
        let mut memberships = Vec::new();
        for ((id, group), sealed) in sealing.counting(&self.geometry).zip(sealed) {
            let all = group.answers();
            let (membership, voters) = sealed
                .unwrap_or_else(|| (newest(self.rules, &group.known, &all), SegmentSet::EMPTY));
            let voting = all.iter().filter(|(position, _)| voters.contains(*position));
            answers.extend(voting.filter_map(|(_, answer)| Some((id, (*answer)?))));
            let lost = group.lost_in(self.rules, &membership);
            let Some(membership) = self.adopt(&membership, lost, effects) else { return };
            memberships.push(if id == FIRST { self.with_groups(membership) } else { membership });
        }
        let mut choice = choose_under(self.rules, &self.geometry, &answers);
        if let Some(backtrack) = &sealing.backtrack {
            match backtrack.apply(self.rules, &choice) {
                Some(moved) => choice = moved,
                None => effects.push(super::refused(CommandRefusal::Superseded)),
            }
        }
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
        let tips = choice.tips.clone();
        let mut installing = Installing::new(history.clone(), memberships.clone(), choice);
        if self.rules.has(Bug::CompletionCountsSeals) {
            installing.count_seals(sealing.groups.iter().map(|group| &group.answers));
        }
        self.phase = Phase::Installing(installing);
        let tips = tips.into_iter().chain(core::iter::repeat(None));
        let of_groups = self.geometry.groups().zip(ends).zip(tips).zip(memberships);
        for (((group, end), tip), membership) in of_groups {
            let install = Install { group, history: history.clone(), end, tip, membership };
            self.send_all(group, ToSegment::Install(install), effects);
        }
    }

    /// Returns the membership of the first group as it tells how many groups there are: as it was
    /// found, but for seeded bugs.
    fn with_groups(&self, adopted: Membership) -> Membership {
        let Phase::Sealing(sealing) = &self.phase else { return adopted };
        let known = sealing.groups.first().map(|first| first.known.added());
        if self.rules.has(Bug::GrowthNotReproposed) {
            return adopted.grown(known.unwrap_or_default());
        }
        adopted.grown(self.geometry.added())
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
