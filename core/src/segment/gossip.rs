//! Filling holes from other segments of the group (protocol: gossip).

use alloc::vec::Vec;

use super::{Reply, Segment};
use crate::effect::{SegmentEffect, SegmentWrite};
use crate::id::Position;
use crate::image::SegmentImage;
use crate::lsn::Lsn;
use crate::message::{Peer, Pull, Pulled, ToSegment};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

impl<R: Rules> Segment<R> {
    /// Asks the segment at `from` for what this one lacks.
    pub(super) fn pull(&self, from: Position, effects: &mut Vec<SegmentEffect>) {
        let log = &self.durable.log;
        let scl = log.scl();
        let batch = self.durable.geometry.limits().batch_records_max as usize;
        let pull = Pull {
            group: self.durable.group,
            history: self.durable.history.epoch(),
            scl,
            base: self.hydration.map_or(Lsn::ZERO, |hydration| hydration.base),
            through: self.hydration.map_or(Lsn::ZERO, |hydration| hydration.through),
            beyond: log.above(scl.lsn()).iter().take(batch).map(|record| record.lsn).collect(),
        };
        effects.push(SegmentEffect::SendSegment { to: from, message: ToSegment::Pull(pull) });
    }

    pub(super) fn receive_pull(&self, from: Peer, pull: &Pull, effects: &mut Vec<SegmentEffect>) {
        let Peer::Segment(to) = from else { return };
        let group = self.durable.group;
        let history = self.durable.history.epoch();
        if pull.group != group {
            return;
        }
        let batch = self.durable.geometry.limits().batch_records_max as usize;
        if pull.beyond.len() > batch {
            // Each record above the SCL is compared with all of them.
            effects.push(SegmentEffect::Unusable(Refusal::Oversized));
            return;
        }
        if pull.history > history
            && !self.rules.has(Bug::GossipWithoutHistory)
            && !self.rules.has(Bug::GossipAnyHistory)
        {
            effects.push(SegmentEffect::SendSegment {
                to,
                message: ToSegment::Behind { group, history },
            });
            return;
        }
        let (after, base) = self.answer_from(pull);
        let mut records: Vec<Record> = self
            .durable
            .log
            .above(after)
            .iter()
            .filter(|record| !pull.beyond.contains(&record.lsn))
            .take(batch)
            .copied()
            .collect();
        if self.rules.has(Bug::CplLostInGossip) {
            records.iter_mut().for_each(|record| record.cpl = false);
        }
        let SegmentImage { history, membership, end, aside, vdl, .. } = &self.durable;
        let (history, membership) = (history.clone(), *membership);
        let (end, tip, vdl) = (*end, aside.as_ref().and_then(|aside| aside.tip), *vdl);
        // Where nothing has to be taken over, what was asked says where the answer begins.
        let after = if base == Lsn::ZERO { Lsn::ZERO } else { after };
        let pulled = Pulled { group, history, end, tip, membership, vdl, base, after, records };
        effects.push(SegmentEffect::SendSegment { to, message: ToSegment::Pulled(pulled) });
    }

    pub(super) fn receive_pulled(
        &mut self,
        pulled: Pulled,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if pulled.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        self.check_pulled(&pulled)?;
        let epoch = pulled.history.epoch();
        let own = self.durable.history.epoch();
        let is_newer = epoch > own || (epoch < own && self.rules.has(Bug::GossipAnyHistory));
        let ignores_history = self.rules.has(Bug::GossipWithoutHistory);
        let base = self.hydrate(&pulled);
        let mut records = pulled.records;
        records.retain(|record| {
            !self.is_known(record) && (ignores_history || !pulled.history.annuls(record))
        });
        let vdl = self.durable.vdl.max(pulled.vdl);
        let membership = self
            .durable
            .membership
            .yields_to(self.rules, &pulled.membership)
            .then_some(pulled.membership);
        let is_base_new = base > Lsn::ZERO;
        if records.is_empty() && !is_newer && membership.is_none() && !is_base_new {
            self.durable.vdl = vdl;
            return Ok(());
        }
        let limits = self.durable.geometry.limits();
        if self.pending.len() >= limits.pending_writes_max as usize {
            return Err(Refusal::Overloaded);
        }
        if self.would_overfill(records.len()) {
            return Err(Refusal::Full);
        }
        if ignores_history {
            let promised = self.durable.promised;
            let write = SegmentWrite { promised, vdl, records, base, ..SegmentWrite::default() };
            self.persist(write, Reply::Ack(promised), effects);
            return Ok(());
        }
        // Promise, history and the records that survive it in one step (edge 71).
        self.heard = self.heard.max(epoch);
        let history = is_newer.then_some(pulled.history);
        let promised = if self.rules.has(Bug::GossipBelowPromise) {
            self.durable.promised.max(epoch)
        } else {
            epoch
        };
        let (end, tip, floor) = (pulled.end, pulled.tip, None);
        let write =
            SegmentWrite { promised, history, membership, end, tip, floor, vdl, records, base };
        self.persist(write, Reply::Ack(epoch), effects);
        Ok(())
    }

    fn check_pulled(&self, pulled: &Pulled) -> Result<(), Refusal> {
        let limits = self.durable.geometry.limits();
        let epoch = pulled.history.epoch();
        if pulled.records.len() > limits.batch_records_max as usize
            || pulled.history.ranges().len() > limits.history_ranges_max as usize
        {
            return Err(Refusal::Oversized);
        }
        let is_end_kept = pulled.end <= pulled.history.after() || size_of::<R>() != 0;
        if !is_end_kept {
            return Err(Refusal::Malformed);
        }
        if !pulled.history.is_well_formed() && !self.rules.has(Bug::MergeHistories) {
            return Err(Refusal::Malformed);
        }
        // History and membership of one epoch belong together; a relayed membership of another one
        // would pass by the fence.
        let is_proposed = pulled.membership.epoch().volume == epoch || size_of::<R>() != 0;
        if !is_proposed || !self.may_count(&pulled.membership) {
            return Err(Refusal::Malformed);
        }
        if self.rules.has(Bug::GossipWithoutHistory) {
            return Ok(());
        }
        // Below the promise the history may be that of a dead recovery, and it would drop what a
        // newer one counts on (edge 71).
        let adopts_any = self.rules.has(Bug::GossipAnyHistory);
        if epoch < self.heard && !adopts_any && !self.rules.has(Bug::GossipBelowPromise) {
            return Err(Refusal::Fenced { promised: self.heard });
        }
        if epoch < self.durable.history.epoch() && !adopts_any {
            return Err(Refusal::Behind { history: epoch });
        }
        self.check_reach(epoch)?;
        self.check_base(&pulled.history)?;
        let vdl = pulled.history.lowered(pulled.vdl.lsn(), self.durable.history.epoch());
        if pulled.base > vdl && !self.rules.has(Bug::CollectAboveVdl) {
            return Err(Refusal::Malformed);
        }
        let known = pulled.vdl.lsn().max(pulled.history.through());
        let limit = known.plus(limits.allocation_max).unwrap_or(Lsn::new(u64::MAX));
        let mut last = Lsn::ZERO;
        for record in &pulled.records {
            if !record.is_well_formed() || record.epoch > epoch || record.lsn <= last {
                return Err(Refusal::Malformed);
            }
            if record.group != self.durable.group {
                return Err(Refusal::WrongGroup);
            }
            if record.lsn > limit && !self.rules.has(Bug::AllocateBeyondLimit) {
                return Err(Refusal::BeyondLimit { lsn: record.lsn, limit });
            }
            if size_of::<R>() == 0 {
                self.check_against_own(record, &pulled.history)?;
            }
            last = record.lsn;
        }
        Ok(())
    }

    /// Checks that `record` contradicts nothing that this segment has or has under way and that
    /// survives `history`.
    fn check_against_own(&self, record: &Record, history: &History) -> Result<(), Refusal> {
        let conflict = Refusal::Conflict { lsn: record.lsn };
        let own = self.durable.log.get(record.lsn).or_else(|| self.submitted(record.lsn));
        match own {
            Some(own) if own != record && !history.annuls(own) => Err(conflict),
            Some(_) => Ok(()),
            None => {
                // Every record at or under the SCL is held, unless the history takes some away.
                let is_whole = history.epoch() == self.durable.history.epoch();
                let is_collected = record.lsn <= self.durable.base();
                if is_whole && !is_collected && record.lsn <= self.durable.scl().lsn() {
                    return Err(conflict);
                }
                Ok(())
            }
        }
    }
}
