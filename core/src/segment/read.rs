//! Reads and the confirmation of strict reads (protocol: reads).

use alloc::vec::Vec;

use super::Segment;
use crate::effect::SegmentEffect;
use crate::message::{Confirm, Read, ToWriter};
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

impl<R: Rules> Segment<R> {
    pub(super) fn receive_read(
        &self,
        read: Read,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if read.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        if !self.rules.has(Bug::ReadWithoutEpoch) {
            self.check_epoch(read.epoch)?;
        }
        let scl = self.durable.scl();
        if scl.lsn() < read.needed && !self.rules.has(Bug::ReadIncomplete) {
            return Err(Refusal::Incomplete { scl });
        }
        let version = self.durable.version(read.page, read.read_point.lsn()).copied();
        let message = ToWriter::Read {
            epoch: read.epoch,
            ticket: read.ticket,
            page: read.page,
            read_point: read.read_point,
            version,
        };
        effects.push(SegmentEffect::SendWriter { to: read.epoch, message });
        Ok(())
    }

    pub(super) fn receive_confirm(
        &self,
        confirm: Confirm,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if confirm.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        if !self.rules.has(Bug::ConfirmWhenFenced) {
            self.check_epoch(confirm.epoch)?;
        }
        self.check_vote()?;
        let message = ToWriter::Confirmed {
            epoch: confirm.epoch,
            incarnation: self.durable.incarnation,
            ticket: confirm.ticket,
        };
        effects.push(SegmentEffect::SendWriter { to: confirm.epoch, message });
        Ok(())
    }
}
