//! Seals and installs: how a segment changes its writer (protocol: recovery, steps 1 and 3).

use alloc::vec::Vec;

use super::{Reply, Segment, refuse};
use crate::consistency::Vdl;
use crate::effect::{SegmentEffect, SegmentWrite};
use crate::epoch::VolumeEpoch;
use crate::lsn::Lsn;
use crate::message::{Install, Seal, SealAnswer, ToWriter};
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

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
        if self.rules.has(Bug::ReadThenFence) {
            self.send_seal_answer(seal.epoch, effects);
            return Ok(());
        }
        // From this moment nothing is acknowledged to an older epoch, not even an append that the
        // disk already has (edge 64).
        self.heard = self.heard.max(seal.epoch);
        if self.durable.promised >= seal.epoch {
            self.answer_seal(seal.epoch, effects);
        } else if !self.is_pending(Reply::Sealed(seal.epoch)) {
            self.check_room_to_fence()?;
            let write = SegmentWrite {
                promised: seal.epoch,
                history: None,
                vdl: Vdl::ZERO,
                records: Vec::new(),
                base: Lsn::ZERO,
            };
            self.persist(write, Reply::Sealed(seal.epoch), effects);
            if self.rules.has(Bug::PromiseNotDurable) {
                self.send_seal_answer(seal.epoch, effects);
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
        if epoch == VolumeEpoch::ZERO
            || (!install.history.is_well_formed() && !self.rules.has(Bug::MergeHistories))
        {
            return Err(Refusal::Malformed);
        }
        self.check_fence(epoch)?;
        self.heard = self.heard.max(epoch);
        if self.durable.history.epoch() == epoch {
            self.acknowledge(epoch, effects);
        } else if !self.is_pending(Reply::Ack(epoch)) {
            self.check_room_to_fence()?;
            let write = SegmentWrite {
                promised: epoch,
                history: Some(install.history),
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

    /// Appends alone can't keep a recovery out: fencing has as much room again as they have.
    fn check_room_to_fence(&self) -> Result<(), Refusal> {
        let bound = self.durable.geometry.limits().pending_writes_max as usize;
        if self.pending.len() >= bound.saturating_mul(2) {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }

    /// Answers the seal of `epoch`, whose promise is durable now.
    pub(super) fn answer_seal(&self, epoch: VolumeEpoch, effects: &mut Vec<SegmentEffect>) {
        if self.heard > epoch && !self.rules.has(Bug::CounterOnlyEpochs) {
            refuse(epoch, None, Refusal::Fenced { promised: self.heard }, effects);
        } else {
            self.send_seal_answer(epoch, effects);
        }
    }

    fn send_seal_answer(&self, epoch: VolumeEpoch, effects: &mut Vec<SegmentEffect>) {
        let message = ToWriter::Sealed { epoch, answer: self.seal_answer() };
        effects.push(SegmentEffect::SendWriter { to: epoch, message });
    }

    /// Returns the report, from durable records only: those above the known VDL, and the last one
    /// at or under it, which names the group's end when nothing lies above.
    pub(super) fn seal_answer(&self) -> SealAnswer {
        let log = &self.durable.log;
        let vdl = self.durable.vdl;
        let anchor = log.last_at_or_under(vdl.lsn());
        SealAnswer {
            geometry: self.durable.geometry,
            history: self.durable.history.clone(),
            scl: log.scl(),
            vdl,
            records: anchor.into_iter().chain(log.above(vdl.lsn())).copied().collect(),
        }
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
        let message = ToWriter::Ack { epoch, scl: image.scl() };
        effects.push(SegmentEffect::SendWriter { to: epoch, message });
    }
}
