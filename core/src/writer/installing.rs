//! Install and complete: the second half of a recovery (protocol: recovery, steps 3 to 5).

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::open::{Acknowledged, Open};
use super::{Phase, Writer};
use crate::consistency::Scl;
use crate::effect::{Report, WriterEffect};
use crate::id::{Permutation, PgId, Position, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::SealAnswer;
use crate::recovery::Choice;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// A decided recovery that is not yet on its write quorums.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Installing {
    history: History,
    /// By group: what is installed with the history.
    memberships: Vec<Membership>,
    choice: Choice,
    /// By group, by position: the SCL acknowledged under `history`; `None` before that. Seal
    /// answers and older epochs never count here (edge 71).
    installed: Vec<Positions<Option<Scl>>>,
}

impl Installing {
    pub(super) fn new(history: History, memberships: Vec<Membership>, choice: Choice) -> Self {
        let installed = memberships.iter().map(|_| Positions::default()).collect();
        Self { history, memberships, choice, installed }
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

    pub(super) fn membership(&self, group: PgId) -> Option<&Membership> {
        self.memberships.get(group.get() as usize)
    }

    /// Returns the last record of `group` at or under the recovery point.
    pub(super) fn end(&self, group: PgId) -> Lsn {
        self.choice.ends.get(group.get() as usize).copied().unwrap_or_default()
    }

    /// Returns the last record of `group` on the branch that a backtrack leaves.
    pub(super) fn tip(&self, group: PgId) -> Option<Lsn> {
        self.choice.tips.get(group.get() as usize).copied().flatten()
    }

    /// Returns whether a write quorum of a group's membership holds the history and every record up
    /// to `end`, and one of the membership before it the history: what was found may never have
    /// been durable, unless a settled mark says so (edge 65).
    fn is_group_complete<R: Rules>(&self, rules: R, group: usize, end: Lsn) -> bool {
        let Some(membership) = self.memberships.get(group) else { return false };
        let Some(installed) = self.installed.get(group) else { return false };
        let holders = |end: Lsn| {
            let mut holders = SegmentSet::EMPTY;
            for (position, scl) in installed.iter() {
                if scl.is_some_and(|scl| scl.lsn() >= end) {
                    holders.insert(position);
                }
            }
            holders
        };
        let short = super::short_writes(rules);
        if rules.has(Bug::CompleteOnReadQuorum) {
            return membership.quorums().reads(holders(end), 0);
        }
        let is_installed = rules.has(Bug::InstallOnNewOnly)
            || membership.before().writes(holders(Lsn::ZERO), short);
        is_installed && membership.quorums().writes(holders(end), short)
    }

    fn is_complete<R: Rules>(&self, rules: R) -> bool {
        let mut groups = self.choice.ends.iter().enumerate();
        let is_complete = |(group, end): (usize, &Lsn)| {
            let end = if rules.has(Bug::OpenBeforeComplete) { Lsn::ZERO } else { *end };
            self.is_group_complete(rules, group, end)
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
        let Self { history, memberships, choice, installed } = self;
        (history, memberships, choice, installed.len()).hash(state);
    }
}

impl<R: Rules> Writer<R> {
    pub(super) fn receive_ack(
        &mut self,
        group: PgId,
        from: Position,
        ack: Acknowledged,
        effects: &mut Vec<WriterEffect>,
    ) {
        match &mut self.phase {
            Phase::Fenced { .. } | Phase::Sealing(_) => {}
            Phase::Installing(installing) => {
                let Some(installed) = installing.installed.get_mut(group.get() as usize) else {
                    return;
                };
                let known = installed.at_mut(from);
                *known = (*known).max(Some(ack.scl));
                self.open_if_complete(effects);
            }
            Phase::Open(open) if open.growing_in(group).is_some() => {
                self.receive_founded(group, from, effects);
            }
            Phase::Open(open) => {
                let is_repeated = self.rules.has(Bug::DuplicateAckCounted);
                let from = if is_repeated || open.is_evicted(self.rules, group, from) {
                    open.next_uncounted(group, from, ack.scl)
                } else {
                    from
                };
                let progress = open.acknowledge(self.rules, group, from, ack);
                if progress.has_advanced {
                    effects.push(WriterEffect::Report(Report::Durable { vdl: open.vdl() }));
                    self.stream(&[], effects);
                }
                if progress.has_news_of_step {
                    self.settle(group, effects);
                }
            }
        }
    }

    /// Declares the recovery point durable, once a write quorum of every group holds the history
    /// and every record at or under it. Before, losing one more segment could lose what a read
    /// has shown (edge 7).
    fn open_if_complete(&mut self, effects: &mut Vec<WriterEffect>) {
        let Phase::Installing(installing) = &self.phase else { return };
        if !installing.is_complete(self.rules) {
            return;
        }
        let Installing { history, memberships, choice, installed } = installing.clone();
        let through = history.through();
        let vdl = choice.recovery_point;
        let open = Open::new(self.rules, history, &memberships, &choice, &installed);
        self.phase = Phase::Open(open);
        effects.push(WriterEffect::Report(Report::Opened { vdl, through }));
        // What was adopted is durable now: the install needed both quorums.
        for group in self.geometry.groups() {
            self.settle(group, effects);
        }
    }
}
