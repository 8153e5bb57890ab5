//! Discarding what no live read point can need (protocol: reads, garbage).

use alloc::vec::Vec;

use super::{Hydration, Reply, Segment};
use crate::effect::{SegmentEffect, SegmentWrite};
use crate::lsn::Lsn;
use crate::message::{Pull, Pulled};
use crate::record::Record;
use crate::rules::{Bug, Rules};

impl<R: Rules> Segment<R> {
    /// Discards superseded versions at or under the garbage floor, in one durable write.
    ///
    /// What is left answers a seal as before: the records above the known VDL, and the last one at
    /// or under it, which is the newest version of its page. So no recovery can tell, or need, what
    /// was discarded.
    pub(super) fn collect(&mut self, effects: &mut Vec<SegmentEffect>) {
        let target = self.collectable();
        let bound = self.durable.geometry.limits().pending_writes_max as usize;
        if target <= self.durable.base() || self.pending.len() >= bound {
            return;
        }
        // A history on its way may take back what the floor rests on.
        let is_in_the_way = |write: &SegmentWrite| write.base >= target || write.history.is_some();
        if self.pending.iter().any(|pending| is_in_the_way(&pending.write)) {
            return;
        }
        let (promised, vdl) = (self.durable.promised, self.durable.vdl);
        let write = SegmentWrite { promised, vdl, base: target, ..SegmentWrite::default() };
        self.persist(write, Reply::Nothing, effects);
    }

    /// Returns how far this segment may discard: to the garbage floor, never above the VDL that it
    /// knows (edge 23) nor above what it has whole.
    fn collectable(&self) -> Lsn {
        let scl = self.durable.scl().lsn();
        if self.rules.has(Bug::CollectAboveVdl) {
            return scl;
        }
        self.floor.lsn().min(self.durable.vdl.lsn()).min(scl)
    }

    /// Returns where the answer to `pull` begins, and the base that the asking segment has to take
    /// over, zero if it has no need to.
    pub(super) fn answer_from(&self, pull: &Pull) -> (Lsn, Lsn) {
        let (base, scl) = (self.durable.base(), pull.scl.lsn());
        if base <= scl {
            return (scl, Lsn::ZERO);
        }
        // What has come of a lower base is part of this one; of a higher one it is not.
        let resumes = pull.base <= base && pull.through > scl;
        (if resumes { pull.through } else { scl }, base)
    }

    /// Takes in what a peer's answer brings of its base. Returns the base to take over in the same
    /// write as the answer's records: zero unless all of it is there by then (edge 39).
    pub(super) fn hydrate(&mut self, pulled: &Pulled) -> Lsn {
        let scl = self.durable.scl().lsn();
        if pulled.base <= scl {
            return Lsn::ZERO;
        }
        let resumes = |known: Hydration| known.base <= pulled.base && pulled.after <= known.through;
        if pulled.after > scl && !self.hydration.is_some_and(resumes) {
            // The answer to a question of another time.
            return Lsn::ZERO;
        }
        let batch = self.durable.geometry.limits().batch_records_max as usize;
        let last = pulled.records.last().map_or(pulled.after, |record| record.lsn);
        if last >= pulled.base || pulled.records.len() < batch || self.rules.has(Bug::SclBeforeBase)
        {
            return pulled.base;
        }
        self.hydration = Some(Hydration { base: pulled.base, through: last });
        Lsn::ZERO
    }

    /// Returns whether a record that came is one that this segment has, or has discarded.
    pub(super) fn is_known(&self, record: &Record) -> bool {
        record.lsn <= self.durable.base()
            || self.durable.log.get(record.lsn).is_some()
            || self.submitted(record.lsn).is_some()
    }
}
