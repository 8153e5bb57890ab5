//! Readers: their registrations, their streams, and the garbage floor (protocol: reads).

use alloc::vec::Vec;

use super::{Phase, Writer, refused};
use crate::consistency::ReadPoint;
use crate::effect::WriterEffect;
use crate::hold::Holds;
use crate::id::ReaderId;
use crate::message::{FromReader, Redo, Start, ToReader};
use crate::record::Record;
use crate::rules::{Bug, Rules};

/// The most readers that one writer registers: each costs a message for every mini-transaction.
const READERS_MAX: usize = 64;

/// A reader that the garbage floor doesn't pass.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Registration {
    /// The lowest read point that is live.
    pub(super) floor: ReadPoint,
    session: u64,
    /// The number of the stream's next message.
    next: u64,
}

impl<R: Rules> Writer<R> {
    pub(super) fn receive_reader(
        &mut self,
        from: ReaderId,
        message: FromReader,
        effects: &mut Vec<WriterEffect>,
    ) {
        match message {
            FromReader::Attach { floor } => self.attach(from, floor, effects),
            FromReader::Detach => self.expel(from, effects),
            FromReader::Release { epoch, floor } => {
                if epoch == self.epoch {
                    self.release(from, floor);
                }
            }
        }
    }

    /// Registers a reader and begins its stream. The registration is in force before the reader
    /// hears of it, and it reads nothing before (edge 44).
    fn attach(
        &mut self,
        reader: ReaderId,
        asked: Option<ReadPoint>,
        effects: &mut Vec<WriterEffect>,
    ) {
        let (rules, epoch) = (self.rules, self.epoch);
        let batch_max = self.geometry.limits().batch_records_max.max(1) as usize;
        let added = self.geometry.added();
        // Whoever asks too early or too late asks again: the driver repeats.
        let Phase::Open(open) = &mut self.phase else { return };
        let known = open.readers.get(&reader).map(|registration| registration.floor);
        if known.is_none() && open.readers.len() >= READERS_MAX {
            return;
        }
        let current = ReadPoint::at(open.vdl());
        // A point under this writer's floor may be gone everywhere, and one under its recovery
        // point may be gone where an older writer's floor passed it (edge 45).
        let lowest = open.floor().lsn().max(open.history.after());
        let is_kept = |asked: &ReadPoint| {
            asked.lsn() >= lowest && *asked <= current || rules.has(Bug::ExpelWithoutRefusal)
        };
        let floor = known.or(asked.filter(is_kept)).unwrap_or(current);
        let session = open.sessions;
        open.sessions = open.sessions.wrapping_add(1);
        open.readers.insert(reader, Registration { floor, session, next: 0 });
        let start = Start { epoch, session, vdl: open.vdl(), floor, ends: open.ends() };
        effects.push(WriterEffect::SendReader { to: reader, message: ToReader::Start(start) });
        // What is above the VDL has been sent to others, and comes in no later message.
        let pending: Vec<Record> = open.partial.iter().chain(&open.unresolved).copied().collect();
        let vdl = open.vdl();
        let Some(registration) = open.readers.get_mut(&reader) else { return };
        for records in pending.chunks(batch_max) {
            let number = registration.next;
            registration.next = registration.next.wrapping_add(1);
            let redo = Redo { epoch, session, number, vdl, added, records: records.to_vec() };
            effects.push(WriterEffect::SendReader { to: reader, message: ToReader::Redo(redo) });
        }
    }

    fn release(&mut self, reader: ReaderId, floor: ReadPoint) {
        let rules = self.rules;
        let Phase::Open(open) = &mut self.phase else { return };
        let current = ReadPoint::at(open.vdl());
        if let Some(registration) = open.readers.get_mut(&reader) {
            registration.floor = registration.floor.max(floor.min(current));
            open.advance_floor(rules);
        }
    }

    /// Ends a registration. The floor may pass the reader from now on; its reads below are refused
    /// by the segments (edge 45).
    pub(super) fn expel(&mut self, reader: ReaderId, effects: &mut Vec<WriterEffect>) {
        let (rules, not_open) = (self.rules, self.not_open());
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        open.readers.remove(&reader);
        open.advance_floor(rules);
    }

    pub(super) fn hold(&mut self, holds: Holds, effects: &mut Vec<WriterEffect>) {
        let (rules, not_open) = (self.rules, self.not_open());
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        open.holds = Some(holds);
        open.advance_floor(rules);
    }

    /// Sends every reader the next message of its stream: redo as it is written, and the VDL as it
    /// advances.
    pub(super) fn stream(&mut self, records: &[Record], effects: &mut Vec<WriterEffect>) {
        let epoch = self.epoch;
        let batch_max = self.geometry.limits().batch_records_max.max(1) as usize;
        let added = self.geometry.added();
        let Phase::Open(open) = &mut self.phase else { return };
        let vdl = open.vdl();
        for (reader, registration) in &mut open.readers {
            let session = registration.session;
            let mut rest = records;
            loop {
                let (batch, more) = rest.split_at(batch_max.min(rest.len()));
                let number = registration.next;
                registration.next = registration.next.wrapping_add(1);
                let redo = Redo { epoch, session, number, vdl, added, records: batch.to_vec() };
                let message = ToReader::Redo(redo);
                effects.push(WriterEffect::SendReader { to: *reader, message });
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
        }
    }

    /// Tells every reader what each segment holds, so that it asks one that can answer.
    pub(super) fn brief(&self, effects: &mut Vec<WriterEffect>) {
        let Phase::Open(open) = &self.phase else {
            effects.push(refused(self.not_open()));
            return;
        };
        for (reader, _) in open.readers() {
            for group in self.geometry.groups() {
                let scls = open.held_by(group);
                let message = ToReader::Standing { epoch: self.epoch, group, scls };
                effects.push(WriterEffect::SendReader { to: reader, message });
            }
        }
    }
}
