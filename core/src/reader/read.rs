//! Reads at a point that the reader has reached (protocol: reads; edges 42 and 44).

use alloc::vec::Vec;

use super::{Asked, ReadRefusal, Reader, ReaderEffect, ReaderReport, View};
use crate::consistency::ReadPoint;
use crate::epoch::VolumeEpoch;
use crate::id::{PageId, Position, Ticket};
use crate::lsn::Lsn;
use crate::message::{Read, ToSegment};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules};

/// The most reads that wait for segments; above that, the driver waits.
const ASKED_MAX: usize = 4096;

impl<R: Rules> Reader<R> {
    pub(super) fn read(
        &mut self,
        ticket: Ticket,
        page: PageId,
        (read_point, at_least): (Option<ReadPoint>, Lsn),
        from: Position,
        effects: &mut Vec<ReaderEffect>,
    ) {
        let outcome = self.try_read(ticket, page, (read_point, at_least), from);
        effects.push(match outcome {
            Ok(effect) => effect,
            Err(refusal) => ReaderEffect::Report(ReaderReport::Refused { ticket, refusal }),
        });
    }

    fn try_read(
        &mut self,
        ticket: Ticket,
        page: PageId,
        (read_point, at_least): (Option<ReadPoint>, Lsn),
        from: Position,
    ) -> Result<ReaderEffect, ReadRefusal> {
        let (rules, geometry) = (self.rules, self.geometry);
        let Some(view) = &mut self.view else { return Err(ReadRefusal::NotAttached) };
        let current = ReadPoint::at(view.vdl);
        let read_point = read_point.unwrap_or(current);
        if read_point > current {
            return Err(ReadRefusal::Ahead);
        }
        if read_point.lsn() < at_least && !rules.has(Bug::ReaderIgnoresMinimum) {
            return Err(ReadRefusal::NotYet { vdl: view.vdl });
        }
        if read_point < view.floor {
            return Err(ReadRefusal::UnderFloor { floor: view.floor });
        }
        // The newest version at the VDL is the newest at an earlier point, if it is that old.
        if let Some(version) = view.pages.get(&page).copied()
            && version.is_none_or(|version| version.lsn <= read_point.lsn())
        {
            let report = ReaderReport::Read { ticket, page, read_point, version };
            return Ok(ReaderEffect::Report(report));
        }
        let group = geometry.group_of(page);
        if !geometry.has(group) && !rules.has(Bug::ReaderIgnoresGrowth) {
            return Err(ReadRefusal::BeyondVolume);
        }
        let is_member = view.members(group, &geometry).contains(from);
        if !is_member || view.asked.len() >= ASKED_MAX {
            return Err(ReadRefusal::UnknownSegment);
        }
        let mut needed = view.ends.get(group.get() as usize).copied().unwrap_or_default();
        if rules.has(Bug::ReaderNeedsNothing) {
            needed = Lsn::ZERO;
        }
        let is_current = read_point == current;
        view.asked.insert(ticket, Asked { page, read_point, is_current });
        // What is needed now is enough for any earlier read point too.
        let epoch = view.epoch;
        let message = ToSegment::Read(Read { epoch, group, ticket, page, read_point, needed });
        Ok(ReaderEffect::SendSegment { group, to: from, message })
    }

    pub(super) fn receive_read(
        &mut self,
        ticket: Ticket,
        page: PageId,
        read_point: ReadPoint,
        version: Option<Record>,
        effects: &mut Vec<ReaderEffect>,
    ) {
        let rules = self.rules;
        let Some(view) = &mut self.view else { return };
        let is_answer = |asked: &Asked| asked.page == page && asked.read_point == read_point;
        let Some(asked) = view.asked.get(&ticket).copied().filter(is_answer) else { return };
        view.asked.remove(&ticket);
        if asked.is_current || rules.has(Bug::ReaderCachesStalePage) {
            view.cache(page, version);
        }
        let report = ReaderReport::Read { ticket, page, read_point, version };
        effects.push(ReaderEffect::Report(report));
    }

    pub(super) fn receive_refused(
        &mut self,
        epoch: VolumeEpoch,
        ticket: Ticket,
        refusal: Refusal,
        effects: &mut Vec<ReaderEffect>,
    ) {
        let rules = self.rules;
        let Some(view) = &mut self.view else { return };
        if view.asked.remove(&ticket).is_none() {
            return;
        }
        effects.push(ReaderEffect::Report(ReaderReport::ReadRefused { ticket, refusal }));
        if let Refusal::Fenced { promised } = refusal
            && epoch == view.epoch
            && promised > epoch
        {
            effects.push(ReaderEffect::Report(ReaderReport::Overtaken { by: promised }));
            if rules.has(Bug::RegistrationNotAwaited) {
                view.epoch = promised;
            }
        }
    }
}

impl View {
    fn cache(&mut self, page: PageId, version: Option<Record>) {
        self.pages.entry(page).or_insert(version);
    }
}
