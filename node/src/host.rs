//! One segment with its log: the machine's inputs on one side, its effects on the other.

use std::collections::VecDeque;

use quorate_core::effect::{SegmentEffect, SegmentInput, SegmentWrite};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{Position, WriteId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::rules::{Rules, Sound};
use quorate_core::segment::Segment;

use crate::addresses::LogTag;
use crate::disk::{ReadError, SegmentLog};
use crate::env::{Event, LogFile};
use crate::payload;
use crate::store::Checkpointed;
use crate::wire::{self, Envelope, Status, WireError};

/// Why a segment has to stop.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its disk has lost or changed something.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It made a message or a write above every bound.
    #[error("the segment made a message or a write that no frame carries: {0}")]
    Wire(#[from] WireError),
}

/// A frame that a segment wants to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outgoing {
    /// A question to another segment.
    Ask {
        /// Its position.
        to: Position,
        /// The frame.
        frame: Vec<u8>,
    },
    /// The answer to the segment or the reader whose message was just received.
    Answer {
        /// The frame.
        frame: Vec<u8>,
    },
    /// A message to the writer of an epoch.
    Tell {
        /// The epoch.
        to: VolumeEpoch,
        /// The frame.
        frame: Vec<u8>,
    },
}

/// A segment's machine with its log.
#[derive(Debug)]
pub struct SegmentHost<L, R: Rules = Sound> {
    segment: Segment<R>,
    log: SegmentLog<L>,
    /// Writes under way: the log's name of each, and the machine's.
    writes: VecDeque<(u64, WriteId)>,
    effects: Vec<SegmentEffect>,
}

impl<L: LogFile> SegmentHost<L> {
    /// Returns the host of the segment that was found as `image` in `log`.
    pub fn new(image: SegmentImage, log: SegmentLog<L>) -> Self {
        Self::new_under(Sound, image, log)
    }
}

impl<L: LogFile, R: Rules> SegmentHost<L, R> {
    /// [`SegmentHost::new`] under `rules`.
    pub fn new_under(rules: R, image: SegmentImage, log: SegmentLog<L>) -> Self {
        let segment = Segment::recover_under(rules, image);
        Self { segment, log, writes: VecDeque::new(), effects: Vec::new() }
    }

    /// Gives a message to the segment, with the payloads of its records.
    ///
    /// # Errors
    /// [`HostError`] when the segment has to stop.
    pub fn receive(
        &mut self,
        from: Peer,
        message: ToSegment,
        payload: &[u8],
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), HostError> {
        let records = match &message {
            ToSegment::Append(append) => append.records.clone(),
            ToSegment::Pulled(pulled) => pulled.records.clone(),
            ToSegment::Behind { .. }
            | ToSegment::Confirm(_)
            | ToSegment::Install(_)
            | ToSegment::Locate(_)
            | ToSegment::Pull(_)
            | ToSegment::Read(_)
            | ToSegment::Seal(_) => Vec::new(),
        };
        let payloads = Payloads::of(&records, payload);
        self.step(SegmentInput::Receive { from, message }, &payloads, outgoing)
    }

    /// Makes the segment ask the one at `from` for what it lacks.
    ///
    /// # Errors
    /// [`HostError`] when the segment has to stop.
    pub fn pull(&mut self, from: Position, outgoing: &mut Vec<Outgoing>) -> Result<(), HostError> {
        self.step(SegmentInput::Pull { from }, &Payloads::default(), outgoing)
    }

    /// Makes the segment discard what its garbage floor allows.
    ///
    /// # Errors
    /// [`HostError`] when the segment has to stop.
    pub fn collect(&mut self, outgoing: &mut Vec<Outgoing>) -> Result<(), HostError> {
        self.step(SegmentInput::Collect, &Payloads::default(), outgoing)
    }

    /// Takes the report that the log's frames up to number `through` are durable.
    ///
    /// # Errors
    /// [`HostError`] when the segment has to stop.
    pub fn settle(&mut self, through: u64, outgoing: &mut Vec<Outgoing>) -> Result<(), HostError> {
        self.log.settle(through);
        let base = self.segment.durable().base();
        while let Some((_, id)) = self.writes.pop_front_if(|(number, _)| *number <= through) {
            self.segment.step(SegmentInput::Durable(id), &mut self.effects);
        }
        self.log.note(self.segment.durable());
        if self.segment.durable().base() > base {
            let durable = self.segment.durable();
            self.log.forget(durable.base(), |lsn| durable.holds(lsn));
        }
        keep_last_acks(&mut self.effects);
        self.carry_out(&Payloads::default(), outgoing)
    }

    /// Begins to make durable what was submitted; see [`LogFile::commit`].
    pub fn commit(&mut self) -> Option<Event> {
        self.log.commit()
    }

    /// Appends a frame that changes nothing: it shows a later start that everything before it was
    /// durable, so that damage to it can't pass for a torn tail.
    ///
    /// # Errors
    /// [`HostError`] never in practice: the frame is small.
    pub fn mark(&mut self) -> Result<(), HostError> {
        let durable = self.segment.durable();
        let write = SegmentWrite {
            promised: durable.promised(),
            vdl: durable.vdl(),
            ..SegmentWrite::default()
        };
        self.log.mark(&write)?;
        Ok(())
    }

    /// Begins a checkpoint of all that is durable if so many bytes of it came after the last one,
    /// and none is under way.
    pub fn checkpoint(&mut self, after_bytes: u64) {
        if self.log.since_checkpoint().is_some_and(|since| since >= after_bytes) {
            self.log.checkpoint(self.segment.durable());
        }
    }

    /// Takes the report that a checkpoint is durable.
    pub fn checkpointed(&mut self, checkpoint: Checkpointed) {
        self.log.checkpointed(checkpoint);
    }

    fn step(
        &mut self,
        input: SegmentInput,
        payloads: &Payloads<'_>,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), HostError> {
        self.segment.step(input, &mut self.effects);
        self.carry_out(payloads, outgoing)
    }

    fn carry_out(
        &mut self,
        payloads: &Payloads<'_>,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), HostError> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                SegmentEffect::Persist { id, write } => self.persist(id, &write, payloads)?,
                SegmentEffect::SendReader { to: _, message } => {
                    let frame = self.frame(&Envelope::ToReader(message))?;
                    outgoing.push(Outgoing::Answer { frame });
                }
                SegmentEffect::SendSegment { to, message } => {
                    let is_question = matches!(message, ToSegment::Pull(_));
                    let frame = self.frame(&Envelope::ToSegment(message))?;
                    outgoing.push(if is_question {
                        Outgoing::Ask { to, frame }
                    } else {
                        Outgoing::Answer { frame }
                    });
                }
                SegmentEffect::SendWriter { to, message } => {
                    let frame = self.frame(&Envelope::ToWriter(message))?;
                    outgoing.push(Outgoing::Tell { to, frame });
                }
                // A refused gossip answer changes nothing, and the next round asks again.
                SegmentEffect::Unusable(_) => {}
            }
        }
        self.effects = effects;
        Ok(())
    }

    fn persist(
        &mut self,
        id: WriteId,
        write: &SegmentWrite,
        payloads: &Payloads<'_>,
    ) -> Result<(), HostError> {
        // The records of a write are some of those of the message that brought it about.
        let payload = |record: &Record| {
            let lsn = record.lsn;
            payloads.get(lsn).ok_or(ReadError::Unknown { lsn })
        };
        let payloads: Vec<&[u8]> =
            write.records.iter().map(payload).collect::<Result<_, ReadError>>()?;
        let number = self.log.append(write, &payloads)?;
        self.writes.push_back((number, id));
        Ok(())
    }

    /// Returns the frame of a message, with the payloads of its records from the log.
    fn frame(&self, envelope: &Envelope) -> Result<Vec<u8>, HostError> {
        let payloads: Vec<Vec<u8>> = envelope
            .records()
            .iter()
            .map(|record| self.log.read(record))
            .collect::<Result<_, ReadError>>()?;
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        Ok(wire::encode(envelope, &slices)?)
    }

    /// Returns how the segment is.
    #[must_use]
    pub fn status(&self) -> Status {
        let durable = self.segment.durable();
        Status {
            group: durable.group(),
            position: self.log.identity().position,
            incarnation: durable.incarnation(),
            log: LogTag::of(self.log.identity().salt),
            membership: *durable.membership(),
            scl: durable.scl(),
            vdl: durable.vdl(),
            heard: self.segment.heard(),
            promised: durable.promised(),
            history: durable.history().epoch(),
            history_ranges: durable.history().ranges().len() as u64,
            base: durable.base(),
            floor: self.segment.floor(),
            records: durable.records().len() as u64,
            log_bytes: self.log.bytes(),
            impaired: !self.segment.has_vote(),
        }
    }

    /// Returns the durable state.
    #[must_use]
    pub const fn durable(&self) -> &SegmentImage {
        self.segment.durable()
    }

    /// Returns whether nothing has ever been promised to anybody, or taken.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let durable = self.segment.durable();
        durable.promised() == VolumeEpoch::ZERO && durable.records().is_empty()
    }

    /// Returns whether the segment counts in read quorums: it doesn't while it lacks something that
    /// it may have acknowledged before its log was damaged.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        self.segment.has_vote()
    }

    /// Returns how far the garbage floor is above the segment's base, in LSNs.
    #[must_use]
    pub fn garbage(&self) -> u64 {
        self.segment.floor().lsn().since(self.segment.durable().base())
    }

    /// Returns whether records are missing below one that is there.
    #[must_use]
    pub fn has_hole(&self) -> bool {
        let durable = self.segment.durable();
        durable.records().last().is_some_and(|last| last.lsn > durable.scl().lsn())
    }

    /// Returns how many writes the segment has made, ever.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.log.submitted()
    }

    /// Returns how many of them are durable.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.log.settled()
    }

    /// Returns how many bytes are on their way to the disk.
    #[must_use]
    pub const fn waiting_bytes(&self) -> u64 {
        self.log.waiting_bytes()
    }
}

/// The payloads of the records of one message, by LSN.
#[derive(Debug, Default)]
struct Payloads<'a>(Vec<(Lsn, &'a [u8])>);

impl<'a> Payloads<'a> {
    fn of(records: &[Record], bytes: &'a [u8]) -> Self {
        let mut payloads = Vec::with_capacity(records.len());
        let mut rest = bytes;
        for record in records {
            let Some((own, others)) = rest.split_at_checked(payload::length(record)) else { break };
            payloads.push((record.lsn, own));
            rest = others;
        }
        // Records rise by LSN, but for those of a broken peer, which the segment refuses.
        payloads.sort_by_key(|(lsn, _)| *lsn);
        Self(payloads)
    }

    fn get(&self, lsn: Lsn) -> Option<&'a [u8]> {
        let at = self.0.binary_search_by_key(&lsn, |(lsn, _)| *lsn).ok()?;
        self.0.get(at).map(|(_, bytes)| *bytes)
    }
}

/// Keeps the last acknowledgement to each epoch: it covers those before it.
fn keep_last_acks(effects: &mut Vec<SegmentEffect>) {
    let mut acknowledged: Option<VolumeEpoch> = None;
    let mut keep = vec![true; effects.len()];
    for (effect, keep) in effects.iter().zip(&mut keep).rev() {
        if let SegmentEffect::SendWriter { to, message: ToWriter::Ack { .. } } = effect {
            *keep = acknowledged != Some(*to);
            acknowledged = Some(*to);
        }
    }
    let mut keep = keep.into_iter();
    effects.retain(|_| keep.next().unwrap_or(true));
}

#[cfg(test)]
mod tests;
