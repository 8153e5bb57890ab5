//! Readers that follow this writer: their leases, their streams, and what they keep alive.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::effect::WriterInput;
use quorate_core::hold::{HoldName, Holds};
use quorate_core::id::ReaderId;
use quorate_core::lsn::Lsn;
use quorate_core::message::{FromReader, ToReader};
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::check::encode;
use super::VolumeDriver;
use crate::clock::Moment;
use crate::env::Environment;
use crate::wire::Envelope;

/// How long a reader may be silent before it is taken for dead. It says something every second.
const LEASE: Duration = Duration::from_secs(10);

/// How often readers are told what each segment holds, and holds are looked at.
const BRIEF_EVERY: Duration = Duration::from_secs(1);

/// The readers that are registered, and when each was last heard.
#[derive(Debug)]
pub(super) struct Leases {
    heard: BTreeMap<ReaderId, Moment>,
    brief: Moment,
    /// What the writer was last told to keep, for reads and for a backtrack.
    held: Option<(Lsn, Lsn)>,
}

impl Leases {
    pub(super) const fn new(now: Moment) -> Self {
        Self { heard: BTreeMap::new(), brief: now, held: None }
    }

    /// Returns the readers that are registered.
    pub(super) fn readers(&self) -> Vec<ReaderId> {
        self.heard.keys().copied().collect()
    }

    /// Returns when something is to be done next, if ever.
    pub(super) fn deadline(&self) -> Option<Moment> {
        (!self.heard.is_empty()).then_some(self.brief)
    }
}

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// Takes what a reader says.
    pub(super) fn take_from_reader(&mut self, reader: ReaderId, message: FromReader) {
        let now = self.env.now();
        match message {
            FromReader::Attach { .. } => {
                self.leases.heard.insert(reader, now);
                self.tell_seats(reader);
            }
            FromReader::Detach => {
                self.leases.heard.remove(&reader);
            }
            FromReader::Release { .. } => {
                if let Some(heard) = self.leases.heard.get_mut(&reader) {
                    *heard = now;
                }
            }
        }
        self.step(WriterInput::ReceiveReader { from: reader, message });
    }

    /// Sends a message to a reader if it is connected. One that takes too little misses some, sees
    /// the gap, and begins anew.
    pub(super) fn send_reader(&mut self, to: ReaderId, message: ToReader) {
        if let Some(frame) = encode(&Envelope::ToReader(message), &self.payloads) {
            self.callers.send_reader(to, &frame);
        }
    }

    /// Ends the registrations of readers that are silent, and tells the others how the segments
    /// are.
    pub(super) fn tick_readers(&mut self, now: Moment) {
        if self.leases.brief > now {
            return;
        }
        self.leases.brief = now.after(BRIEF_EVERY);
        let is_silent = |_: &ReaderId, heard: &mut Moment| now.since(*heard) >= LEASE;
        let silent: Vec<ReaderId> =
            self.leases.heard.extract_if(.., is_silent).map(|(reader, _)| reader).collect();
        for reader in silent {
            self.callers.hang_up_on(reader);
            self.step(WriterInput::Expel { reader });
        }
        if !self.leases.heard.is_empty() {
            self.step(WriterInput::Brief);
        }
        self.hold();
    }

    /// Tells the writer the lowest point at which this process may still read, and the lowest to
    /// which the volume can go back. Reads as of an LSN go back to the oldest consistency point
    /// that is remembered: that is in the window, or it is the newest one.
    pub(super) fn hold(&mut self) {
        let Some(vdl) = self.writer.as_ref().and_then(Writer::vdl) else { return };
        let window = vdl.lsn().get().saturating_sub(self.config.backtrack_window);
        let window = Lsn::new(window);
        self.points.forget_below(window);
        let lowest = self.points.oldest().into_iter().chain(self.reads.lowest()).min();
        if let Some(lowest) = lowest
            && self.leases.held != Some((lowest, window))
        {
            self.leases.held = Some((lowest, window));
            let holds =
                Holds::new().with(HoldName::Writer, lowest).with(HoldName::Backtrack, window);
            self.step(WriterInput::Hold { holds });
        }
    }
}
