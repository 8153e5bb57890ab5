//! What the reader's machine wants done.

use quorate_core::id::{PageId, PgId, Position, Ticket};
use quorate_core::message::{FromReader, ToSegment};
use quorate_core::reader::{Reader, ReaderEffect, ReaderInput, ReaderReport};
use quorate_core::rules::Rules;

use super::{PAGES_MAX, ReaderDriver, send};
use crate::env::Environment;
use crate::wire::Envelope;

impl<E: Environment, R: Rules> ReaderDriver<E, R> {
    pub(super) fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                ReaderEffect::Discard { lsn } => {
                    self.payloads.remove(&lsn);
                }
                ReaderEffect::Report(report) => self.take_report(report),
                ReaderEffect::SendSegment { group, to, message } => self.ask(group, to, message),
                ReaderEffect::SendWriter(message) => self.tell_writer(message),
            }
        }
        self.effects = effects;
    }

    fn take_report(&mut self, report: ReaderReport) {
        let now = self.env.now();
        match report {
            ReaderReport::Attached { .. } => {
                self.is_cut_off = false;
                self.streams = self.streams.saturating_add(1);
                if self.machine.as_ref().is_some_and(|machine| machine.pages_count() == 0) {
                    self.cached.clear();
                }
            }
            ReaderReport::Lost => self.attach = now,
            ReaderReport::Read { ticket, page, read_point, version } => {
                self.answer(ticket, page, read_point, version);
            }
            ReaderReport::ReadRefused { ticket, .. } | ReaderReport::Refused { ticket, .. } => {
                self.reads.refused(ticket, now);
            }
            // Who has the volume now makes itself heard; reads go on when its VDL is known.
            ReaderReport::Advanced { .. } | ReaderReport::Overtaken { .. } => {}
        }
    }

    fn ask(&mut self, group: PgId, to: Position, message: ToSegment) {
        let now = self.env.now();
        if let ToSegment::Read(read) = &message {
            self.reads.asked(read.ticket, (group, to), read.read_point, now);
        }
        let is_it = |segment: &&mut super::Segment<E::Stream>| {
            segment.group == group && segment.position == to
        };
        if let Some(segment) = self.segments.iter_mut().find(is_it) {
            send(&mut segment.link, &Envelope::ToSegment(message));
        }
    }

    fn tell_writer(&mut self, message: FromReader) {
        let feed = match message {
            FromReader::Attach { .. } => self.newest(),
            FromReader::Detach => {
                let epoch = self.machine.as_ref().and_then(Reader::epoch);
                self.feeds.iter_mut().find(|feed| feed.epoch.is_some() && feed.epoch == epoch)
            }
            FromReader::Release { epoch, .. } => {
                self.feeds.iter_mut().find(|feed| feed.epoch == Some(epoch))
            }
        };
        if let Some(feed) = feed {
            send(&mut feed.link, &Envelope::FromReader(message));
        }
    }

    /// Tells the writer that this reader reads no more.
    pub(in crate::reader) fn detach(&mut self) {
        self.tell_writer(FromReader::Detach);
        self.flush();
    }

    /// Tries the reads that can be answered now.
    pub(super) fn issue_reads(&mut self) {
        let now = self.env.now();
        let Some(vdl) = self.vdl() else { return };
        for (ticket, page, at_least) in self.reads.due(vdl, now) {
            let Some(group) = self.geometry().map(|geometry| geometry.group_of(page)) else {
                return;
            };
            let from = if self.is_cached(page) {
                // It is answered from memory, whoever would have to be asked.
                Position::first(1).next()
            } else {
                let readable = self.readable(group);
                self.reads.choose(ticket, &readable, now)
            };
            let Some(from) = from else { continue };
            self.step(ReaderInput::Read { ticket, page, read_point: None, at_least, from });
        }
    }

    fn is_cached(&self, page: PageId) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.page(page).is_some())
    }

    /// Returns the segments of `group` that can be asked for a page now.
    fn readable(&self, group: PgId) -> Vec<Position> {
        let Some(machine) = &self.machine else { return Vec::new() };
        let complete = machine.complete(group);
        let up = self.segments.iter().filter(|of| of.group == group && of.link.is_up());
        up.map(|of| of.position).filter(|position| complete.contains(*position)).collect()
    }

    /// Remembers that a page is in memory now, and forgets the oldest if there are too many.
    pub(super) fn note_cached(&mut self, page: PageId) {
        self.cached.push_back(page);
        while self.cached.len() > PAGES_MAX {
            let Some(page) = self.cached.pop_front() else { return };
            self.step(ReaderInput::Evict { page });
        }
    }

    /// Returns whether a page is in memory that wasn't noted.
    pub(super) fn is_newly_cached(&self, ticket: Ticket, page: PageId) -> bool {
        self.reads.has_asked(ticket) && self.is_cached(page)
    }
}
