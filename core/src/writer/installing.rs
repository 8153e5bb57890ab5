//! Install and complete: the second half of a recovery (protocol: recovery, steps 3 to 5).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::open::Open;
use super::{Phase, Writer};
use crate::consistency::Scl;
use crate::effect::{Report, WriterEffect};
use crate::geometry::VolumeGeometry;
use crate::id::{Permutation, PgId, Position, Positions};
use crate::lsn::Lsn;
use crate::message::SealAnswer;
use crate::recovery::Choice;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// A decided recovery that is not yet on its write quorums.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Installing {
    history: History,
    choice: Choice,
    /// By group, by position: the SCL acknowledged under `history`; `None` before that. Seal
    /// answers and older epochs never count here (edge 71).
    installed: Vec<Positions<Option<Scl>>>,
}

impl Installing {
    pub(super) fn new(geometry: &VolumeGeometry, history: History, choice: Choice) -> Self {
        let installed = geometry.groups().map(|_| Positions::default()).collect();
        Self { history, choice, installed }
    }

    /// Seeded bug: takes what segments reported to the seal for what they hold now.
    pub(super) fn count_seals<'a>(
        &mut self,
        answers: impl Iterator<Item = &'a Positions<Option<SealAnswer>>>,
    ) {
        for (installed, answers) in self.installed.iter_mut().zip(answers) {
            for (position, answer) in answers.iter() {
                *installed.at_mut(position) = answer.as_ref().map(|answer| answer.scl);
            }
        }
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    /// Returns how many segments of a group hold the history and every record up to `end`.
    fn completed(&self, group: usize, end: Lsn) -> usize {
        let Some(installed) = self.installed.get(group) else { return 0 };
        installed.iter().filter(|(_, scl)| scl.is_some_and(|scl| scl.lsn() >= end)).count()
    }

    fn is_complete<R: Rules>(&self, rules: R, geometry: &VolumeGeometry) -> bool {
        let mut needed = super::write_quorum(rules, geometry);
        if rules.has(Bug::CompleteOnReadQuorum) {
            needed = geometry.quorums().read();
        }
        let mut groups = self.choice.ends.iter().enumerate();
        let is_complete = |(group, end): (usize, &Lsn)| {
            let end = if rules.has(Bug::OpenBeforeComplete) { Lsn::ZERO } else { *end };
            self.completed(group, end) >= needed
        };
        if rules.has(Bug::IdleGroupIgnored) {
            groups.any(is_complete)
        } else {
            groups.all(is_complete)
        }
    }

    pub(super) fn permute(&self, group: PgId, permutation: &Permutation) -> Self {
        let mut renamed = self.clone();
        if let Some(installed) = renamed.installed.get_mut(group.get() as usize) {
            *installed = installed.permute(permutation);
        }
        renamed
    }

    pub(super) fn hash_column<H: Hasher>(&self, group: PgId, position: Position, state: &mut H) {
        self.installed.get(group.get() as usize).map(|scls| scls.at(position)).hash(state);
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        let Self { history, choice, installed } = self;
        (history, choice, installed.len()).hash(state);
    }
}

impl<R: Rules> Writer<R> {
    pub(super) fn receive_ack(
        &mut self,
        group: PgId,
        from: Position,
        scl: Scl,
        effects: &mut Vec<WriterEffect>,
    ) {
        match &mut self.phase {
            Phase::Fenced { .. } | Phase::Sealing(_) => {}
            Phase::Installing(installing) => {
                let Some(installed) = installing.installed.get_mut(group.get() as usize) else {
                    return;
                };
                let known = installed.at_mut(from);
                *known = (*known).max(Some(scl));
                self.open_if_complete(effects);
            }
            Phase::Open(open) => {
                let from = if self.rules.has(Bug::DuplicateAckCounted) {
                    open.next_uncounted(group, from, scl)
                } else {
                    from
                };
                if open.acknowledge(self.rules, &self.geometry, group, from, scl) {
                    effects.push(WriterEffect::Report(Report::Durable { vdl: open.vdl() }));
                    self.stream(&[], effects);
                }
            }
        }
    }

    /// Declares the recovery point durable, once a write quorum of every group holds the history
    /// and every record at or under it. Before, losing one more segment could lose what a read
    /// has shown (edge 7).
    fn open_if_complete(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Installing(installing) = &self.phase else { return };
        if !installing.is_complete(self.rules, &self.geometry) {
            return;
        }
        let Installing { history, choice, installed } = installing.clone();
        let through = history.through();
        let vdl = choice.recovery_point;
        self.phase =
            Phase::Open(Open::new(self.rules, &self.geometry, history, &choice, &installed));
        effects.push(WriterEffect::Report(Report::Opened { vdl, through }));
    }
}
