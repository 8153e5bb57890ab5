//! Seals and installs: how a segment changes its writer (protocol: recovery, steps 1 and 3).

use alloc::vec::Vec;

use super::{Pending, Reply, Segment, refuse};
use crate::consistency::{Scl, Vdl};
use crate::effect::{SegmentEffect, SegmentWrite};
use crate::epoch::VolumeEpoch;
use crate::geometry::Added;
use crate::id::PgId;
use crate::image::SetAside;
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Aside, Install, Seal, SealAnswer, ToWriter};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

impl<R: Rules> Segment<R> {
    pub(super) fn receive_seal(
        &mut self,
        seal: Seal,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if seal.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        self.check_fence(seal.epoch)?;
        self.check_vote()?;
        self.check_reach(seal.epoch)?;
        self.check_room_for_range(seal.epoch)?;
        if self.rules.has(Bug::ReadThenFence) {
            self.send_seal_answer(seal.epoch, seal.at, effects);
            return Ok(());
        }
        // From this moment nothing is acknowledged to an older epoch, not even an append that the
        // disk already has (edge 64).
        self.heard = self.heard.max(seal.epoch);
        if self.durable.promised >= seal.epoch {
            self.answer_seal(seal.epoch, seal.at, effects);
        } else if !self.is_pending(Reply::Sealed(seal.epoch)) {
            self.check_room_to_fence()?;
            let write = SegmentWrite {
                promised: seal.epoch,
                history: None,
                membership: None,
                end: Lsn::ZERO,
                tip: None,
                floor: None,
                vdl: Vdl::ZERO,
                records: Vec::new(),
                base: Lsn::ZERO,
            };
            self.persist(write, Reply::Sealed(seal.epoch), effects);
            if self.rules.has(Bug::PromiseNotDurable) {
                self.send_seal_answer(seal.epoch, seal.at, effects);
            }
        }
        Ok(())
    }

    pub(super) fn receive_install(
        &mut self,
        install: Install,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if install.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        let epoch = install.history.epoch();
        let limits = self.durable.geometry.limits();
        if install.history.ranges().len() > limits.history_ranges_max as usize {
            return Err(Refusal::Oversized);
        }
        // A seeded bug may link to a record above the recovery point, and is to get that far.
        let is_end_kept = install.end <= install.history.after() || size_of::<R>() != 0;
        let is_proposed = install.membership.epoch().volume == epoch
            || self.rules.has(Bug::AdoptWithoutRepropose);
        if epoch == VolumeEpoch::ZERO
            || !is_end_kept
            || !is_proposed
            || !self.may_count(&install.membership)
            || (!install.history.is_well_formed() && !self.rules.has(Bug::MergeHistories))
        {
            return Err(Refusal::Malformed);
        }
        // A membership obeys the same fence as a write (edge 70).
        if self.rules.has(Bug::MembershipNotFenced) && epoch < self.heard {
            self.take_unfenced(install, effects);
            return Ok(());
        }
        self.check_fence(epoch)?;
        self.check_reach(epoch)?;
        self.check_base(&install.history)?;
        self.heard = self.heard.max(epoch);
        let has_history = self.durable.history.epoch() == epoch;
        let has_membership = !self.durable.membership.yields_to(self.rules, &install.membership);
        let is_on_its_way = |pending: &Pending| {
            let is_newest = |known: &Membership| !known.yields_to(self.rules, &install.membership);
            pending.reply == Reply::Ack(epoch)
                && pending.write.membership.as_ref().is_some_and(is_newest)
        };
        if has_history && has_membership {
            self.acknowledge(epoch, effects);
        } else if !self.pending.iter().any(is_on_its_way) {
            self.check_room_to_fence()?;
            let write = SegmentWrite {
                promised: epoch,
                history: (!has_history).then_some(install.history),
                membership: Some(install.membership),
                end: install.end,
                tip: install.tip,
                floor: None,
                vdl: self.durable.vdl,
                records: Vec::new(),
                base: Lsn::ZERO,
            };
            self.persist(write, Reply::Ack(epoch), effects);
            if self.rules.has(Bug::InstallAckedEarly) {
                self.acknowledge_unsynced(epoch, effects);
            }
        }
        Ok(())
    }

    /// Returns whether `membership` counts groups that the volume can have, and only in its first
    /// group.
    pub(super) fn may_count(&self, membership: &Membership) -> bool {
        let added = membership.added();
        let is_first = self.durable.group == PgId::new(0);
        added == Added::NONE || (is_first && self.durable.geometry.can_have(added))
    }

    /// Seeded bug: an overtaken writer's membership is taken and acknowledged.
    fn take_unfenced(&mut self, install: Install, effects: &mut Vec<SegmentEffect>) {
        let epoch = install.history.epoch();
        self.durable.membership =
            if self.durable.membership.yields_to(self.rules, &install.membership) {
                install.membership
            } else {
                self.durable.membership
            };
        self.send_ack(epoch, self.durable.scl(), effects);
    }

    /// Checks that the segment has all that it may have said: a damaged one has no vote until it is
    /// repaired.
    pub(super) fn check_vote(&self) -> Result<(), Refusal> {
        match self.durable.floor {
            Some(_) if !self.rules.has(Bug::ImpairedVotes) => Err(Refusal::Impaired),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that `history` goes back to nothing whose versions this segment has discarded.
    pub(super) fn check_base(&self, history: &History) -> Result<(), Refusal> {
        let under_way = self.pending.iter().map(|pending| pending.write.base);
        let base = under_way.fold(self.durable.base(), Lsn::max);
        let own = self.durable.history.epoch();
        let vdl = self.durable.vdl.lsn().max(base);
        if history.lowered(vdl, own) < base {
            return Err(Refusal::Collected { base });
        }
        Ok(())
    }

    /// Checks that the history, as it is or is about to be, takes the range of another recovery.
    ///
    /// Before anything is promised or heard: a recovery that can't be installed must not cost the
    /// volume the writer that it has.
    fn check_room_for_range(&self, epoch: VolumeEpoch) -> Result<(), Refusal> {
        let ranges_max = self.durable.geometry.limits().history_ranges_max as usize;
        let under_way = self.pending.iter().filter_map(|pending| pending.write.history.as_ref());
        let mut histories = under_way.chain([&self.durable.history]);
        let is_full = histories.any(|history| history.ranges().len() >= ranges_max);
        if is_full && epoch > self.heard && !self.rules.has(Bug::SealWhenFull) {
            return Err(Refusal::HistoryFull);
        }
        Ok(())
    }

    /// Appends alone can't keep a recovery out: fencing has as much room again as they have.
    fn check_room_to_fence(&self) -> Result<(), Refusal> {
        let bound = self.durable.geometry.limits().pending_writes_max as usize;
        if self.pending.len() >= bound.saturating_mul(2) {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Answers the seal of `epoch`, whose promise is durable now.
    pub(super) fn answer_seal(
        &self,
        epoch: VolumeEpoch,
        at: Option<Lsn>,
        effects: &mut Vec<SegmentEffect>,
    ) {
        if self.heard > epoch && !self.rules.has(Bug::CounterOnlyEpochs) {
            refuse(epoch, None, Refusal::Fenced { promised: self.heard }, effects);
        } else {
            self.send_seal_answer(epoch, at, effects);
        }
    }

    fn send_seal_answer(
        &self,
        epoch: VolumeEpoch,
        at: Option<Lsn>,
        effects: &mut Vec<SegmentEffect>,
    ) {
        let message = ToWriter::Sealed { epoch, answer: self.seal_answer(at) };
        effects.push(SegmentEffect::SendWriter { to: epoch, message });
    }

    /// Returns the report, from durable records only: those above the known VDL, and the last one
    /// at or under it, which names the group's end when nothing lies above. With it comes what the
    /// segment has `at` a point below.
    pub(super) fn seal_answer(&self, at: Option<Lsn>) -> SealAnswer {
        let log = &self.durable.log;
        let vdl = self.durable.vdl;
        let anchor = log.last_at_or_under(vdl.lsn());
        let all = self.with_aside();
        let chain = all.as_deref().unwrap_or(log.records());
        SealAnswer {
            geometry: self.durable.geometry,
            history: self.durable.history.clone(),
            incarnation: self.durable.incarnation,
            membership: self.durable.membership,
            scl: log.scl(),
            vdl,
            records: anchor.into_iter().chain(log.above(vdl.lsn())).copied().collect(),
            anchor: at.map(|at| (at, chain_end(chain, log.base(), at))),
            aside: self.aside_answer(all.as_deref()),
        }
    }

    /// Returns the log with what a backtrack has set aside, if there is anything.
    fn with_aside(&self) -> Option<Vec<Record>> {
        let aside = self.durable.aside.as_ref()?;
        let own = self.durable.log.records().iter();
        let mut all: Vec<Record> = own.chain(&aside.records).copied().collect();
        all.sort_unstable_by_key(|record| record.lsn);
        Some(all)
    }

    /// Returns the report as if the last backtrack had not been, given all records.
    fn aside_answer(&self, all: Option<&[Record]>) -> Option<Aside> {
        let (SetAside { vdl, .. }, all) = (self.durable.aside.as_ref()?, all?);
        if self.rules.has(Bug::AsideNotReported) {
            return None;
        }
        let base = self.durable.log.base();
        let scl = Scl::of_chain(chain_end(all, base, Lsn::new(u64::MAX)));
        let known = all.partition_point(|record| record.lsn <= vdl.lsn());
        let records = all.get(known.saturating_sub(1)..).unwrap_or(&[]).to_vec();
        Some(Aside { scl, vdl: *vdl, records })
    }

    /// Seeded bugs: acknowledges as if everything under way were durable.
    pub(super) fn acknowledge_unsynced(
        &self,
        epoch: VolumeEpoch,
        effects: &mut Vec<SegmentEffect>,
    ) {
        let mut image = self.durable.clone();
        for pending in &self.pending {
            if image.apply_under(self.rules, &pending.write).is_err() {
                return;
            }
        }
        self.send_ack(epoch, image.scl(), effects);
    }
}

/// Returns the last record at or under `at` of the unbroken chain that begins `records`; at or
/// under `base`, all that is left is part of it.
fn chain_end(records: &[Record], base: Lsn, at: Lsn) -> Lsn {
    let mut end = Lsn::ZERO;
    for record in records {
        let is_linked = record.lsn <= base || record.prev_group == end;
        if !is_linked || record.lsn > at {
            break;
        }
        end = record.lsn;
    }
    end
}
