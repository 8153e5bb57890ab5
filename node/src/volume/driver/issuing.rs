//! Writes and reads that can go to the segments now.

use quorate_core::effect::WriterInput;
use quorate_core::id::{PgId, Position};
use quorate_core::record::Change;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::{Committed, PageImage, VolumeError};
use super::{FLYING_BYTES_MAX, VolumeDriver};
use crate::clock::Moment;
use crate::env::Environment;
use crate::payload;

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// Gives LSNs to as many waiting writes as there is room for.
    pub(super) fn issue_writes(&mut self) {
        while let Some(write) = self.writes.first() {
            let Some(writer) = &self.writer else { return };
            let pages = write.pages.len() as u64;
            if pages > writer.geometry().limits().allocation_max {
                if let Some(reply) = self.writes.take() {
                    reply.send(Err(VolumeError::Oversized), &mut self.outbox);
                }
                continue;
            }
            let has_room = self.flying_bytes == 0
                || self.flying_bytes.saturating_add(write.bytes()) <= FLYING_BYTES_MAX;
            // Above the allowance it would be throttled: the VDL has to advance first.
            if !has_room || writer.allowance().is_none_or(|most| most < pages) {
                return;
            }
            if self.issue_write().is_none() {
                return self.give_up(VolumeError::OutOfLsns);
            }
        }
    }

    /// Carries out the first waiting write; `None` when there are no LSNs left.
    pub(super) fn issue_write(&mut self) -> Option<()> {
        let writer = self.writer.as_ref()?;
        let geometry = *writer.geometry();
        // A checksum covers the LSN, so the driver has to know what the writer will allocate.
        let mut lsn = writer.tail().unwrap_or_default().max(self.used);
        let first = lsn.plus(1)?;
        let pages = &mut self.writes.first_mut()?.pages;
        let mut changes = Vec::with_capacity(pages.len());
        for PageImage { page, bytes } in pages.drain(..) {
            lsn = lsn.plus(1)?;
            let payload = payload::describe(geometry.group_of(page), page, lsn, &bytes)?;
            changes.push(Change { page, payload });
            self.flying_bytes = self.flying_bytes.saturating_add(bytes.len());
            self.payloads.insert(lsn, bytes.into());
        }
        // The writer has to have another LSN to go on to.
        lsn.plus(1)?;
        let before = self.commits.len();
        self.step(WriterInput::Write { changes });
        let written = self.commits.back().map(|(committed, _)| *committed);
        assert!(self.commits.len() == before.saturating_add(1));
        assert!(written == Some(Committed { first, cpl: lsn }));
        Some(())
    }

    pub(super) fn issue_reads(&mut self, now: Moment) {
        if let Some(ticket) = self.reads.confirm(now) {
            self.step(WriterInput::Confirm { ticket });
        }
        let vdl = self.writer.as_ref().and_then(Writer::vdl).unwrap_or_default();
        self.reads.expire(vdl, now, &mut self.outbox);
        for (ticket, page, read_point) in self.reads.due(now) {
            let Some(group) = self.writer.as_ref().map(|writer| writer.geometry().group_of(page))
            else {
                return;
            };
            let complete = self.readable(group);
            for from in self.reads.choose(ticket, group, &complete, now) {
                self.step(WriterInput::Read { ticket, page, read_point, from });
            }
        }
    }

    /// Returns the segments of `group` that can be asked for a page now.
    pub(super) fn readable(&self, group: PgId) -> Vec<Position> {
        let Some(writer) = &self.writer else { return Vec::new() };
        let complete = writer.complete(group);
        self.peers
            .iter()
            .filter(|peer| peer.group == group && peer.link.is_up())
            .map(|peer| peer.position)
            .filter(|position| complete.contains(*position))
            .collect()
    }
}
