//! Mini-transactions get their LSNs (protocol: write path, and recovery step 5).

use alloc::vec::Vec;

use super::open::Open;
use super::{Phase, Writer, refused};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::epoch::VolumeEpoch;
use crate::geometry::VolumeGeometry;
use crate::lsn::Lsn;
use crate::message::{Append, ToSegment};
use crate::record::{Change, Record};
use crate::rules::{Bug, Rules};

impl Open {
    /// Returns how many LSNs may be allocated now: never beyond `max(VDL, T) + LAL`, which is what
    /// lets a recovery know the end of what a dead writer can have left behind (edge 18).
    pub(super) fn allowance<R: Rules>(&self, rules: R, geometry: &VolumeGeometry) -> u64 {
        let allocation_max = geometry.limits().allocation_max;
        if rules.has(Bug::AllocateBeyondLimit) {
            return allocation_max.saturating_mul(2);
        }
        let base = self.vdl().lsn().max(self.history.through());
        let end = base.plus(allocation_max).and_then(|limit| limit.plus(1));
        end.unwrap_or(Lsn::new(u64::MAX)).since(self.next)
    }

    /// Allocates one record for each change, the last of them a consistency point.
    fn allocate(
        &mut self,
        epoch: VolumeEpoch,
        geometry: &VolumeGeometry,
        changes: &[Change],
    ) -> Vec<Record> {
        let mut records = Vec::with_capacity(changes.len());
        let last = changes.len().saturating_sub(1);
        for (index, change) in changes.iter().enumerate() {
            let group = geometry.group_of(change.page);
            let Some(progress) = self.groups.get_mut(group.get() as usize) else { continue };
            let record = Record {
                lsn: self.next,
                epoch,
                prev_volume: self.tail,
                prev_group: progress.tail,
                group,
                page: change.page,
                cpl: index == last,
                payload: change.payload,
            };
            progress.tail = record.lsn;
            self.tail = record.lsn;
            self.next = record.lsn.plus(1).unwrap_or(record.lsn);
            self.unresolved.push_back(record);
            records.push(record);
        }
        records
    }
}

impl<R: Rules> Writer<R> {
    pub(super) fn write(&mut self, changes: &[Change], effects: &mut Vec<WriterEffect>) {
        if let Some(refusal) = self.refuse_write(changes) {
            effects.push(refused(refusal));
            return;
        }
        let (epoch, geometry) = (self.epoch, self.geometry);
        let Phase::Open(open) = &mut self.phase else { return };
        let (vdl, floor) = (open.vdl(), open.floor());
        let records = open.allocate(epoch, &geometry, changes);
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        let report = Report::Written { first: first.lsn, cpl: last.lsn };
        effects.push(WriterEffect::Report(report));
        let batch_max = geometry.limits().batch_records_max.max(1) as usize;
        for group in geometry.groups() {
            let of_group: Vec<Record> =
                records.iter().filter(|record| record.group == group).copied().collect();
            for batch in of_group.chunks(batch_max) {
                let append = Append { epoch, group, vdl, floor, records: batch.to_vec() };
                self.send_all(group, ToSegment::Append(append), effects);
            }
        }
        self.stream(&records, effects);
    }

    /// Tells every segment the VDL, so that idle groups learn it too.
    pub(super) fn publish(&self, effects: &mut Vec<WriterEffect>) {
        let Phase::Open(open) = &self.phase else {
            effects.push(refused(self.not_open()));
            return;
        };
        for group in self.geometry.groups() {
            let (epoch, vdl, floor) = (self.epoch, open.vdl(), open.floor());
            let append = Append { epoch, group, vdl, floor, records: Vec::new() };
            self.send_all(group, ToSegment::Append(append), effects);
        }
    }

    /// LSNs of a mini-transaction are reserved as a whole: it is never split (edge 63).
    fn refuse_write(&self, changes: &[Change]) -> Option<CommandRefusal> {
        let Phase::Open(open) = &self.phase else { return Some(self.not_open()) };
        let count = changes.len() as u64;
        if count == 0 {
            return Some(CommandRefusal::Empty);
        }
        if let Some(change) = changes.iter().find(|it| !self.geometry.has_page(it.page)) {
            return Some(CommandRefusal::BeyondVolume { page: change.page });
        }
        if count > self.geometry.limits().allocation_max {
            return Some(CommandRefusal::Oversized);
        }
        if open.next.plus(count).is_none() {
            return Some(CommandRefusal::OutOfLsns);
        }
        (count > open.allowance(self.rules, &self.geometry)).then_some(CommandRefusal::Throttled)
    }

    pub(super) const fn not_open(&self) -> CommandRefusal {
        match self.phase {
            Phase::Fenced { by } => CommandRefusal::Fenced { by },
            Phase::Installing(_) | Phase::Open(_) | Phase::Sealing(_) => CommandRefusal::NotOpen,
        }
    }
}
