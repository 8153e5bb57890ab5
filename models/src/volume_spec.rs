//! The abstract volume: what the protocol promises, as one sequential object.
//!
//! It knows nothing of segments, quorums or messages. Every step of the core that a model explores
//! is checked against it: a writer's reports must be steps that this volume can take too. Each way
//! in which they can't be is a [`Flaw`], and each flaw belongs to a property.

use std::collections::BTreeMap;

use quorate_core::id::{PageId, PgId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;

use crate::invariant::monotone;

/// What one writer has done, as its clients saw it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct EpochLog {
    /// The recovery point at which this epoch opened; `None` before that.
    pub base: Option<Lsn>,
    /// The highest VDL that clients of this epoch were told.
    pub told: Lsn,
    /// The log that this epoch extends: what it adopted, then what it wrote.
    pub log: Vec<Record>,
    /// Where this epoch is to open instead of at the log's end.
    pub target: Option<Lsn>,
    /// What the history that it opened with took back: by which epoch, and down to where.
    pub backtracks: Vec<Taken>,
}

/// A backtrack: the number of its epoch, and the point that it went to.
pub type Taken = (usize, Lsn);

/// Returns whether what the epoch number `told_by` told was taken back by one of `backtracks`.
#[must_use]
pub fn is_taken_back(backtracks: &[Taken], told_by: usize, told: Lsn) -> bool {
    backtracks.iter().any(|(epoch, after)| told_by < *epoch && told > *after)
}

/// A step that a writer reports.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// A strict read arrived.
    Asked(Ticket),
    /// The recovery of this epoch starts, to open at this point.
    Backtracking(Lsn),
    /// That strict read may be answered at this read point.
    Confirmed(Ticket, Lsn),
    /// Commits at or under this LSN are acknowledged.
    Durable(Lsn),
    /// The epoch opened at this recovery point, with a history that contains these backtracks.
    Opened(Lsn, Vec<Taken>),
    /// A mini-transaction has its LSNs.
    Written(Vec<Record>),
}

/// A step that the abstract volume can't take.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Flaw {
    /// P1: a recovery opens without something that a lower epoch acknowledged.
    Lost,
    /// P2: an LSN is used twice, or a record doesn't follow the last one of its epoch's log.
    LsnReused,
    /// P4: a strict read is answered below what clients had been told when it arrived.
    StaleRead,
    /// P2: a commit is acknowledged that a higher, open epoch's log doesn't contain.
    StaleAck,
    /// P3: a recovery point, or an acknowledged point, is not a consistency point of the log.
    NotAPrefix,
    /// P5: a writer's VDL goes back, or it acts before it has opened.
    WentBack,
}

/// The abstract volume: one log for each epoch that has opened, lowest epoch first.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Volume {
    /// By the order of epochs.
    pub epochs: Vec<EpochLog>,
    /// By the writer that they came to: the last strict read, and what clients had been told when
    /// it arrived. A later one takes the place of the one before, which is never answered.
    pub asked: BTreeMap<usize, (Ticket, Lsn)>,
}

impl Volume {
    /// Returns the volume after the writer number `epoch` (by the order of epochs) took a step.
    ///
    /// # Errors
    /// The [`Flaw`] that makes the step impossible.
    pub fn step(&self, epoch: usize, event: &Event) -> Result<Self, Flaw> {
        let mut next = self.clone();
        if next.epochs.len() <= epoch {
            next.epochs.resize_with(epoch.saturating_add(1), EpochLog::default);
        }
        match event {
            Event::Asked(ticket) => {
                let told = next.told();
                next.asked.insert(epoch, (*ticket, told));
            }
            Event::Confirmed(ticket, read_point) => match next.asked.remove(&epoch) {
                Some((asked, told)) if asked == *ticket && told <= *read_point => {}
                Some(_) | None => return Err(Flaw::StaleRead),
            },
            Event::Durable(vdl) => next.acknowledge(epoch, *vdl)?,
            Event::Backtracking(target) => {
                if let Some(own) = next.epochs.get_mut(epoch) {
                    own.target = Some(*target);
                }
            }
            Event::Opened(base, backtracks) => next.open(epoch, *base, backtracks)?,
            Event::Written(records) => next.write(epoch, records)?,
        }
        Ok(next)
    }

    fn open(&mut self, epoch: usize, base: Lsn, backtracks: &[Taken]) -> Result<(), Flaw> {
        let log = self.log_through(epoch, base).ok_or(Flaw::NotAPrefix)?;
        let lower = self.epochs.get(..epoch).unwrap_or(&[]);
        for (told_by, told) in lower.iter().map(|lower| lower.told).enumerate() {
            let is_kept = told == Lsn::ZERO || log.iter().any(|record| record.lsn == told);
            if !is_kept && !is_taken_back(backtracks, told_by, told) {
                return Err(Flaw::Lost);
            }
        }
        if !self.continues(epoch, base) {
            return Err(Flaw::NotAPrefix);
        }
        let Some(opening) = self.epochs.get_mut(epoch) else { return Err(Flaw::WentBack) };
        if !monotone::may_open(opening) {
            return Err(Flaw::WentBack);
        }
        let backtracks = backtracks.to_vec();
        let target = opening.target;
        *opening = EpochLog { base: Some(base), told: base, log, target, backtracks };
        self.check_told(epoch, base)
    }

    /// Returns whether an opening of `epoch` at `base` continues the log of the highest open epoch
    /// below it, or goes where a recovery since was to go.
    fn continues(&self, epoch: usize, base: Lsn) -> bool {
        let lower = self.epochs.iter().take(epoch);
        let Some(at) = lower.clone().rposition(|lower| lower.base.is_some()) else { return true };
        let is_of = |lower: &EpochLog| lower.log.iter().any(|record| record.lsn == base);
        let is_of_newest = self.epochs.get(at).is_some_and(is_of);
        base == Lsn::ZERO || is_of_newest || self.has_gone(at, base)
    }

    /// Returns whether a recovery after the epoch number `at`, the highest that is open, can have
    /// led to `found` since it was to go elsewhere: back, or forward on what was set aside. Of
    /// that, whatever was never acknowledged may be lost on the way.
    #[must_use]
    pub fn has_gone(&self, at: usize, found: Lsn) -> bool {
        let Some(newest) = self.epochs.get(at) else { return false };
        let targets = self.epochs.iter().skip(at.saturating_add(1));
        targets
            .filter_map(|epoch| epoch.target)
            .any(|target| found == target || (newest.told <= found && found <= target))
    }

    fn write(&mut self, epoch: usize, records: &[Record]) -> Result<(), Flaw> {
        for record in records {
            let is_used = |log: &EpochLog| log.log.iter().any(|known| known.lsn >= record.lsn);
            let lower = self.epochs.get(..=epoch).unwrap_or(&[]);
            let is_taken = |log: &EpochLog| log.log.iter().any(|known| known.lsn == record.lsn);
            if lower.iter().any(is_used) || self.epochs.iter().any(is_taken) {
                return Err(Flaw::LsnReused);
            }
            let Some(own) = self.epochs.get_mut(epoch) else { return Err(Flaw::WentBack) };
            if !monotone::may_write(own) {
                return Err(Flaw::WentBack);
            }
            let last = |group: Option<PgId>| {
                let is_of = |known: &&Record| group.is_none_or(|group| known.group == group);
                own.log.iter().rev().find(is_of).map_or(Lsn::ZERO, |known| known.lsn)
            };
            if record.prev_volume != last(None) || record.prev_group != last(Some(record.group)) {
                return Err(Flaw::LsnReused);
            }
            own.log.push(*record);
        }
        let closes = records.iter().rev().map(|record| record.cpl);
        if !closes.eq((0..records.len()).map(|index| index == 0)) {
            return Err(Flaw::NotAPrefix);
        }
        Ok(())
    }

    fn acknowledge(&mut self, epoch: usize, vdl: Lsn) -> Result<(), Flaw> {
        let Some(own) = self.epochs.get_mut(epoch) else { return Err(Flaw::WentBack) };
        if !monotone::may_tell(own, vdl) {
            return Err(Flaw::WentBack);
        }
        if !own.log.iter().any(|record| record.lsn == vdl && record.cpl) {
            return Err(Flaw::NotAPrefix);
        }
        own.told = vdl;
        self.check_told(epoch, vdl)
    }

    /// Checks that what `epoch` tells is in the log of every higher epoch that is open, at or
    /// under the point at which it opened.
    fn check_told(&self, epoch: usize, vdl: Lsn) -> Result<(), Flaw> {
        for higher in self.epochs.iter().skip(epoch.saturating_add(1)) {
            let Some(base) = higher.base else { continue };
            let is_kept = vdl == Lsn::ZERO || higher.log.iter().any(|record| record.lsn == vdl);
            let is_taken_back = is_taken_back(&higher.backtracks, epoch, vdl);
            if (vdl > base || !is_kept) && !is_taken_back {
                return Err(Flaw::StaleAck);
            }
        }
        Ok(())
    }

    /// Returns the log up to the consistency point `through`, as the writers below `epoch` wrote
    /// it; `None` if none of them has such a point.
    #[must_use]
    pub fn log_through(&self, epoch: usize, through: Lsn) -> Option<Vec<Record>> {
        if through == Lsn::ZERO {
            return Some(Vec::new());
        }
        self.epochs.iter().take(epoch).rev().find_map(|lower| {
            let at = lower.log.iter().position(|r| r.lsn == through && r.cpl)?;
            lower.log.get(..=at).map(<[Record]>::to_vec)
        })
    }

    /// Returns the highest LSN that any client was told, with the log of the epoch that told it.
    #[must_use]
    pub fn told(&self) -> Lsn {
        self.epochs.iter().map(|epoch| epoch.told).max().unwrap_or(Lsn::ZERO)
    }

    /// Returns the record that a read of `page` at `read_point` in epoch number `epoch` must see.
    #[must_use]
    pub fn version(&self, epoch: usize, page: PageId, read_point: Lsn) -> Option<Record> {
        let log = &self.epochs.get(epoch)?.log;
        log.iter().rev().find(|record| record.page == page && record.lsn <= read_point).copied()
    }
}
