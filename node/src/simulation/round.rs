//! The rounds of a run: some time with faults, then everything has to come right.

use std::time::Duration;

use quorate_core::id::PageId;
use quorate_core::rules::Rules;

use super::cluster::{Cluster, LOOK, NODES, PAGES};
use super::faults::PAUSES_MAX;
use super::oracle::Objection;
use crate::env::simulated::random::nanoseconds;
use crate::env::simulated::{Crash, ProcessId};

/// How long the faults of a round go on.
const FAULTY_MIN: Duration = Duration::from_millis(800);
const FAULTY_MAX: Duration = Duration::from_millis(3000);

/// How long a healed cluster may take until it is open, has written, and is level: a connection may
/// take five seconds to find out that it is dead, a silent segment one second more.
const HEAL_MAX: Duration = Duration::from_secs(15);

/// How often to look.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// How many writes of the audit have to be acknowledged.
const AUDIT_WRITES: u32 = 20;

/// Where a round is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Faulty { until: u64 },
    Healing { since: u64, auditor: ProcessId, writes: u32, pages: u64 },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Faulty { until: 0 }
    }
}

impl Phase {
    pub(super) const fn is_faulty(self) -> bool {
        matches!(self, Self::Faulty { .. })
    }
}

impl<R: Rules> Cluster<R> {
    pub(super) fn begin_round(&mut self) {
        let time = self.random.span(FAULTY_MIN, FAULTY_MAX);
        let chosen = self.random.index(PAUSES_MAX.len());
        self.pause_max = PAUSES_MAX.get(chosen).copied().unwrap_or(FAULTY_MIN);
        self.phase = Phase::Faulty { until: self.now().saturating_add(time) };
    }

    /// Looks how far the round is; returns whether the run is over.
    pub(super) fn look(&mut self) -> Result<bool, Objection> {
        self.world.with(|state| state.set_alarm(nanoseconds(LOOK_AFTER), LOOK));
        self.tend();
        let now = self.now();
        match self.phase {
            Phase::Faulty { until } if now < until => Ok(false),
            Phase::Faulty { .. } => {
                self.heal()?;
                Ok(false)
            }
            Phase::Healing { since, auditor, writes, pages } => {
                if now.saturating_sub(since) > nanoseconds(HEAL_MAX) {
                    return Err(self.complain(auditor, writes, pages));
                }
                if !self.audit(since, auditor, writes, pages)? {
                    return Ok(false);
                }
                self.tell("all segments are level");
                self.rounds = self.rounds.saturating_add(1);
                self.begin_round();
                Ok(now >= self.end)
            }
        }
    }

    /// Undoes every fault and starts a writer that has to find everything.
    fn heal(&mut self) -> Result<(), Objection> {
        self.tell("everything is healed");
        self.undo_all()?;
        // Whoever is about to open would overtake the audit.
        let opening = self.clients.iter().filter(|client| client.epoch.is_none());
        let opening: Vec<ProcessId> = opening.map(|client| client.process).collect();
        opening.into_iter().for_each(|process| self.end_client(process, Crash::Kill));
        let auditor = self.start_client()?;
        self.phase = Phase::Healing { since: self.now(), auditor, writes: 0, pages: 0 };
        Ok(())
    }

    /// Goes on with the audit; returns whether it is done and all segments are level.
    fn audit(
        &mut self,
        since: u64,
        auditor: ProcessId,
        mut writes: u32,
        mut pages: u64,
    ) -> Result<bool, Objection> {
        let index = self.clients.iter().position(|client| client.process == auditor);
        let Some(index) = index else {
            // The seal of a writer that is gone may have been on its way.
            let auditor = self.start_client()?;
            self.phase = Phase::Healing { since, auditor, writes: 0, pages: 0 };
            return Ok(false);
        };
        while writes < AUDIT_WRITES && self.write(index)? {
            writes = writes.saturating_add(1);
        }
        while writes == AUDIT_WRITES && pages < PAGES && self.read(index, PageId::new(pages), true)
        {
            pages = pages.saturating_add(1);
        }
        self.phase = Phase::Healing { since, auditor, writes, pages };
        let is_done = writes == AUDIT_WRITES && pages == PAGES;
        let is_idle = self.clients.get(index).is_some_and(super::client::Client::is_idle);
        Ok(is_done && is_idle && self.is_whole() && self.laggards(index).is_empty())
    }

    /// Returns the nodes that lack something of what the writer has written.
    fn laggards(&self, index: usize) -> Vec<String> {
        let client = self.clients.get(index);
        let Some((epoch, tail)) =
            client.and_then(|client| Some((client.epoch?, client.allocated())))
        else {
            return Vec::new();
        };
        let mut laggards = Vec::new();
        for (node, slot) in self.nodes.iter().enumerate().take(NODES) {
            let Some((_, running)) = &slot.up else {
                laggards.push(format!("node {node} is down"));
                continue;
            };
            let status = running.status();
            if status.scl.lsn().get() != tail || status.history != epoch {
                laggards.push(format!(
                    "node {node} is complete up to {} of {tail}, with the history of {}",
                    status.scl, status.history
                ));
            } else if status.impaired {
                laggards.push(format!("node {node} has no vote"));
            }
        }
        laggards
    }

    fn complain(&self, auditor: ProcessId, writes: u32, pages: u64) -> Objection {
        let bound = HEAL_MAX.as_secs();
        let index = self.clients.iter().position(|client| client.process == auditor);
        let Some((index, client)) = index.and_then(|at| Some((at, self.clients.get(at)?))) else {
            return format!("{bound} s after all was healed, no writer is left");
        };
        match client.epoch {
            None => format!("{bound} s after all was healed, no writer could open"),
            Some(epoch) if writes < AUDIT_WRITES || pages < PAGES || !client.is_idle() => format!(
                "{bound} s after all was healed, the writer of {epoch} still waits: {writes} \
                 writes begun, {pages} pages asked for"
            ),
            Some(_) => format!(
                "{bound} s after all was healed, not all segments are level: {}",
                self.laggards(index).join("; ")
            ),
        }
    }
}
