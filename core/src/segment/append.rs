//! Records from the writer (protocol: write path).

use alloc::vec::Vec;

use super::{Reply, Segment};
use crate::effect::{SegmentEffect, SegmentWrite};
use crate::lsn::Lsn;
use crate::message::Append;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

impl<R: Rules> Segment<R> {
    pub(super) fn receive_append(
        &mut self,
        append: Append,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if append.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        if self.rules.has(Bug::FloorOfOldWriter) {
            self.floor = self.floor.max(append.floor);
        }
        self.check_epoch(append.epoch)?;
        self.check_batch(&append)?;
        // Knowledge, not a promise: a VDL that a crash forgets is learned again.
        self.durable.vdl = self.durable.vdl.max(append.vdl);
        self.floor = self.floor.max(append.floor);

        let (new, is_waiting) = self.sift(append.records)?;
        if new.is_empty() {
            if !is_waiting {
                self.acknowledge(append.epoch, effects);
            }
            return Ok(());
        }
        let limits = self.durable.geometry.limits();
        if self.pending.len() >= limits.pending_writes_max as usize {
            return Err(Refusal::Overloaded);
        }
        if self.would_overfill(new.len()) {
            return Err(Refusal::Full);
        }
        let write = SegmentWrite {
            promised: self.durable.promised,
            history: None,
            membership: None,
            end: Lsn::ZERO,
            tip: None,
            floor: None,
            vdl: self.durable.vdl,
            records: new,
            base: Lsn::ZERO,
        };
        self.persist(write, Reply::Ack(append.epoch), effects);
        if self.rules.has(Bug::AckBeforeDurable) {
            self.acknowledge_unsynced(append.epoch, effects);
        }
        Ok(())
    }

    fn check_batch(&self, append: &Append) -> Result<(), Refusal> {
        let limits = self.durable.geometry.limits();
        if append.records.len() > limits.batch_records_max as usize {
            return Err(Refusal::Oversized);
        }
        // A floor above the VDL would let a segment discard what a recovery may still need.
        if append.floor.lsn() > append.vdl.lsn() && !self.is_lenient() {
            return Err(Refusal::Malformed);
        }
        // What the writer may have allocated when it sent this; a recovery's range covers it.
        let through = self.durable.history.through();
        let known = append.vdl.max(self.durable.vdl).lsn();
        let limit = known.max(through).plus(limits.allocation_max).unwrap_or(Lsn::new(u64::MAX));
        let mut last = Lsn::ZERO;
        for record in &append.records {
            if !record.is_well_formed() || record.epoch != append.epoch || record.lsn <= last {
                return Err(Refusal::Malformed);
            }
            if record.group != self.durable.group {
                return Err(Refusal::WrongGroup);
            }
            if record.lsn <= through && !self.is_lenient() {
                return Err(Refusal::Annulled { lsn: record.lsn });
            }
            if record.lsn > limit && !self.is_lenient() {
                return Err(Refusal::BeyondLimit { lsn: record.lsn, limit });
            }
            last = record.lsn;
        }
        Ok(())
    }

    /// Returns the records that are neither durable nor on their way, and whether any is on its
    /// way.
    fn sift(&self, mut records: Vec<Record>) -> Result<(Vec<Record>, bool), Refusal> {
        // LSNs rise, so that from the first on that is above all that there is, all are new.
        let highest = self.durable.log.highest().max(self.highest_submitted());
        let known = records.iter().take_while(|record| record.lsn <= highest).count();
        if known == 0 {
            return Ok((records, false));
        }
        let rest = records.split_off(known);
        let mut new = Vec::new();
        let mut is_waiting = false;
        for record in records {
            match (self.durable.log.get(record.lsn), self.submitted(record.lsn)) {
                (Some(known), _) | (None, Some(known)) if *known != record => {
                    return Err(Refusal::Conflict { lsn: record.lsn });
                }
                (Some(_), _) => {}
                (None, Some(_)) => is_waiting = true,
                (None, None) if record.lsn <= self.durable.log.base() => {}
                // Every record at or under the SCL is held: another one would break the chain.
                (None, None) if record.lsn <= self.durable.scl().lsn() && !self.is_lenient() => {
                    return Err(Refusal::Conflict { lsn: record.lsn });
                }
                (None, None) => new.push(record),
            }
        }
        new.extend(rest);
        Ok((new, is_waiting))
    }

    /// The bugs that are about what a writer may send need a segment that doesn't notice.
    fn is_lenient(&self) -> bool {
        self.rules.has(Bug::AllocateBeyondLimit)
            || self.rules.has(Bug::NoFence)
            || self.rules.has(Bug::LsnReuse)
            || self.rules.has(Bug::AppendWithoutHistory)
    }
}
