//! Seal and choose: the first half of a recovery (protocol: recovery, steps 1 and 2).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::installing::Installing;
use super::{Phase, Writer};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::geometry::{Limits, VolumeGeometry};
use crate::id::{Permutation, PgId, Position, Positions};
use crate::message::{Install, SealAnswer, ToSegment};
use crate::recovery::{choose_under, next_history};
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

/// The answers given under this epoch so far.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Sealing {
    /// By group, by position. Only a segment that has durably promised this epoch has an answer.
    answers: Vec<Positions<Option<SealAnswer>>>,
}

impl Sealing {
    pub(super) fn new(geometry: &VolumeGeometry) -> Self {
        Self { answers: geometry.groups().map(|_| Positions::default()).collect() }
    }

    fn answered(&self, group: PgId) -> usize {
        self.answers
            .get(group.get() as usize)
            .map_or(0, |answers| answers.iter().filter(|(_, answer)| answer.is_some()).count())
    }

    fn all(&self) -> Vec<(PgId, &SealAnswer)> {
        let numbered = (0..).map(PgId::new).zip(&self.answers);
        numbered
            .flat_map(|(group, answers)| {
                answers.iter().filter_map(move |(_, answer)| Some((group, answer.as_ref()?)))
            })
            .collect()
    }

    pub(super) fn permute(&self, group: PgId, permutation: &Permutation) -> Self {
        let mut renamed = self.clone();
        if let Some(answers) = renamed.answers.get_mut(group.get() as usize) {
            *answers = answers.permute(permutation);
        }
        renamed
    }

    pub(super) fn hash_column<H: Hasher>(&self, group: PgId, position: Position, state: &mut H) {
        let Self { answers } = self;
        answers.get(group.get() as usize).map(|answers| answers.at(position)).hash(state);
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        self.answers.len().hash(state);
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
        let Some(answers) = sealing.answers.get_mut(group.get() as usize) else { return };
        *answers.at_mut(from) = Some(answer);
        self.choose_if_sealed(effects);
    }

    /// Decides, once a read quorum of every group has answered: an older epoch can then complete
    /// no write quorum, in no group (edge 54).
    fn choose_if_sealed(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Sealing(sealing) = &self.phase else { return };
        let read = self.geometry.quorums().read();
        let needed =
            if self.rules.has(Bug::ReadQuorumTooSmall) { read.saturating_sub(1) } else { read };
        let mut groups = self.geometry.groups();
        let is_sealed = if self.rules.has(Bug::IdleGroupIgnored) {
            groups.any(|group| sealing.answered(group) >= needed)
        } else {
            groups.all(|group| sealing.answered(group) >= needed)
        };
        if !is_sealed {
            return;
        }
        let answers = sealing.all();
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
        let mut installing = Installing::new(&self.geometry, history.clone(), choice);
        if self.rules.has(Bug::CompletionCountsSeals) {
            installing.count_seals(sealing.answers.iter());
        }
        self.phase = Phase::Installing(installing);
        for (group, end) in self.geometry.groups().zip(ends) {
            let install = Install { group, history: history.clone(), end };
            self.send_all(group, ToSegment::Install(install), effects);
        }
    }
}
