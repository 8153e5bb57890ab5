//! A log read from its checkpoint to its end, and what its end means.

use std::collections::BTreeMap;

use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::floor::Floor;
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, MembershipEpoch};
use quorate_core::record::Record;
use quorate_core::truncation::History;

use super::{Corruption, Damage, Extent, OpenError, cap, extents, said_at_most};
use crate::env::LogFile;
use crate::format::{
    self, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, LogIdentity, Note, SLOT_BYTES, SLOT_MAGIC,
};
use crate::payload;
use crate::store::{Checkpointed, StoreError, Stored};

const _: () = assert!(SLOT_BYTES <= FRAME_HEADER_BYTES);

/// How much of a log is read at once while whole frames behind a bad one are looked for.
const SCAN_BYTES: usize = 1 << 20;

/// What a log holds.
pub(super) struct Replayed {
    pub(super) image: SegmentImage,
    /// Where the payload of each record is.
    pub(super) payloads: BTreeMap<Lsn, Extent>,
    /// The checkpoint that it began with.
    pub(super) checkpoint: Checkpointed,
    /// The number of the next frame.
    pub(super) next: u64,
    /// Where it begins.
    pub(super) at: u64,
    /// No note says of the bytes from here on that they were durable.
    pub(super) doubtful: u64,
    /// Where the last thing behind the frames ends that can be told from bytes of an earlier use.
    pub(super) torn: u64,
}

/// Where a replay begins.
pub(super) struct Begin {
    image: SegmentImage,
    payloads: BTreeMap<Lsn, Extent>,
    pub(super) checkpoint: Checkpointed,
}

/// Returns where the replay of `file` begins: at its newest checkpoint, or at its first frame.
pub(super) fn begin<L: LogFile>(
    file: &L,
    identity: &LogIdentity,
    first: u64,
) -> Result<Begin, OpenError> {
    let LogIdentity { group, geometry, incarnation, .. } = *identity;
    let Some(stored) = file.stored()? else {
        let image = SegmentImage::join(group, geometry, incarnation)
            .ok_or(OpenError::OtherSegment { found: *identity })?;
        let checkpoint = Checkpointed { base: Lsn::ZERO, frames: 0, at: first, kept: 0 };
        return Ok(Begin { image, payloads: BTreeMap::new(), checkpoint });
    };
    let Stored { image, frames, at, kept, payloads } = stored;
    let own = (image.group(), *image.geometry(), image.incarnation());
    if own != (group, geometry, incarnation) {
        return Err(StoreError::OtherLog.into());
    }
    let aside = image.aside().map(|aside| aside.records.as_slice()).unwrap_or_default();
    let record_at = |lsn: Lsn| {
        let find = |records: &[Record]| {
            let at = records.binary_search_by_key(&lsn, |record| record.lsn).ok();
            at.and_then(|at| records.get(at)).copied()
        };
        find(image.records()).or_else(|| find(aside))
    };
    let extent = |(lsn, offset): (Lsn, u64)| {
        let length = payload::length(&record_at(lsn)?);
        Some((lsn, Extent { offset, length }))
    };
    let payloads = payloads.into_iter().filter_map(extent).collect();
    let checkpoint = Checkpointed { base: image.base(), frames, at, kept };
    Ok(Begin { image, payloads, checkpoint })
}

/// A replay under way.
pub(super) struct Replaying<'a, L> {
    file: &'a L,
    identity: LogIdentity,
    /// Where the log's first frame begins.
    first: u64,
    /// Frames from this number on are left unread.
    frames_max: u64,
    done: Replayed,
}

/// What the bytes from a bad frame on tell.
struct Behind {
    /// The length of the log that was durable, as far as any note says.
    durable: u64,
    /// What may have been acknowledged.
    floor: Floor,
    /// Where the last of them ends.
    end: u64,
}

/// Returns the most that a segment may have said once `write` was durable, as far as it tells.
///
/// Its last record counts though one before it may be missing: a write that filled the hole may
/// have been lost since.
fn said_with(write: &SegmentWrite) -> Floor {
    let annuls =
        |record: &&Record| write.history.as_ref().is_some_and(|history| history.annuls(record));
    let kept = write.records.iter().filter(|record| !annuls(record));
    let own = Floor {
        scl: kept.map(|record| record.lsn).max().unwrap_or(Lsn::ZERO),
        promised: write.promised,
        history: write.history.as_ref().map_or(VolumeEpoch::ZERO, History::epoch),
        membership: write
            .membership
            .as_ref()
            .map_or_else(MembershipEpoch::default, Membership::epoch),
    };
    write.floor.map_or(own, |floor| own.join(&floor))
}

impl Behind {
    fn hear(&mut self, note: &Note) {
        self.durable = self.durable.max(note.durable);
        self.floor = self.floor.join(&note.floor);
    }

    fn reach(&mut self, at: u64, length: usize) {
        self.end = self.end.max(at.saturating_add(length as u64));
    }
}

/// Returns where in `bytes` the first one is that a frame and a slot begin with.
fn first_of_magic(bytes: &[u8]) -> Option<usize> {
    const { assert!(FRAME_MAGIC[0] == SLOT_MAGIC[0]) };
    let [first, ..] = FRAME_MAGIC;
    bytes.iter().position(|byte| *byte == first)
}

impl<'a, L: LogFile> Replaying<'a, L> {
    /// Begins the replay of `file`, whose frames begin at `first`, with `begin`.
    pub(super) fn new(file: &'a L, identity: LogIdentity, first: u64, begin: Begin) -> Self {
        let Begin { image, payloads, checkpoint } = begin;
        let Checkpointed { frames, at, .. } = checkpoint;
        let (next, doubtful, torn) = (frames, at, at);
        let done = Replayed { image, payloads, checkpoint, next, at, doubtful, torn };
        Self { file, identity, first, frames_max: u64::MAX, done }
    }

    /// Applies frame after frame, up to the end or to the first bad one that may be torn.
    pub(super) fn run(mut self) -> Result<Replayed, OpenError> {
        if let Some(reason) = self.apply_all()? {
            let frames = self.done.next;
            let before = self.again(frames)?;
            let behind = before.look_behind()?;
            return Err(before.refuse(reason, &behind));
        }
        let behind = self.look_behind()?;
        if !self.is_known(&behind) {
            return Err(OpenError::NotesLost);
        }
        if behind.durable > self.done.at {
            let reason = Corruption::Damaged { durable: behind.durable };
            return Err(self.refuse(reason, &behind));
        }
        self.done.doubtful = self.done.doubtful.max(behind.durable);
        self.done.torn = behind.end;
        Ok(self.done)
    }

    /// Applies frame after frame, up to the first bad one; says what is wrong with it if it is
    /// whole. A part of it may have been applied then.
    fn apply_all(&mut self) -> Result<Option<Corruption>, OpenError> {
        while self.done.next < self.frames_max
            && let Some((header, write)) = self.read_frame(self.done.at)?
        {
            let done = &mut self.done;
            if header.number != done.next {
                let (expected, found) = (done.next, header.number);
                return Ok(Some(Corruption::Missing { expected, found }));
            }
            if let Err(error) = done.image.apply(&write) {
                return Ok(Some(Corruption::Image(error)));
            }
            let frame_end = done.at.saturating_add(header.frame_bytes() as u64);
            done.payloads.extend(extents(&write.records, frame_end));
            done.next = done.next.saturating_add(1);
            done.at = frame_end;
            done.doubtful = done.doubtful.max(header.note.durable);
        }
        Ok(None)
    }

    /// Returns the replay after `frames` frames, which were applied before without a flaw.
    fn again(self, frames: u64) -> Result<Self, OpenError> {
        let Self { file, identity, first, .. } = self;
        let begin = begin(file, &identity, first)?;
        let mut again = Self { frames_max: frames, ..Self::new(file, identity, first, begin) };
        again.apply_all()?;
        Ok(again)
    }

    /// Returns whether the notes say all that was said.
    fn is_known(&self, behind: &Behind) -> bool {
        self.file.has_newest_note(behind.durable.max(self.done.at))
    }

    fn refuse(self, reason: Corruption, behind: &Behind) -> OpenError {
        if reason.is_of_the_disk() && !self.is_known(behind) {
            return OpenError::NotesLost;
        }
        let Replayed { image, next, at, .. } = self.done;
        OpenError::Corrupt(Box::new(Damage {
            identity: self.identity,
            offset: at,
            reason,
            floor: behind.floor,
            frames: next,
            usable: image,
        }))
    }

    /// Collects what the notes tell, and the whole headers and frames from here on. All else may be
    /// bytes of an earlier use of the space.
    fn look_behind(&self) -> Result<Behind, OpenError> {
        let end = self.file.length();
        let floor = said_at_most(&self.done.image);
        let mut behind = Behind { durable: 0, floor, end: self.done.at };
        let mut at = self.done.at;
        while at < end {
            let length = cap(end.saturating_sub(at), SCAN_BYTES);
            // A header may begin with the last byte that is looked at. Whatever a page repeats that
            // looks like one costs no more than a checksum.
            let mut window = vec![0; length.saturating_add(FRAME_HEADER_BYTES - 1)];
            self.file.read_at(at, &mut window)?;
            let mut from = 0;
            while let Some(next) = window.get(from..length).and_then(first_of_magic) {
                let within = from.saturating_add(next);
                from = within.saturating_add(1);
                let candidate = at.saturating_add(within as u64);
                let bytes = window.get(within..).unwrap_or_default();
                if let Some(note) = self.note_in(candidate, bytes) {
                    behind.hear(&note);
                    behind.reach(candidate, SLOT_BYTES);
                } else if let Some(header) = self.header_in(candidate, bytes) {
                    // A header counts though its frame is bad: it has a checksum of its own.
                    behind.hear(&header.note);
                    behind.reach(candidate, header.frame_bytes());
                    if let Some((_, write)) = self.read_frame(candidate)? {
                        behind.floor = behind.floor.join(&said_with(&write));
                    }
                }
            }
            at = at.saturating_add(length as u64);
        }
        self.file.notes().iter().for_each(|note| behind.hear(note));
        Ok(behind)
    }

    /// Returns the note in the slot that `bytes` begin with, which are at `offset` of the log.
    fn note_in(&self, offset: u64, bytes: &[u8]) -> Option<Note> {
        let slot =
            bytes.first_chunk::<SLOT_BYTES>().filter(|slot| slot.starts_with(&SLOT_MAGIC))?;
        let (at, note) = format::decode_slot(self.identity.salt, slot)?;
        (at == offset).then_some(note)
    }

    /// Returns the header that `bytes` begin with, which are at `offset` of the log.
    fn header_in(&self, offset: u64, bytes: &[u8]) -> Option<FrameHeader> {
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let is_one = header.starts_with(&FRAME_MAGIC);
        is_one.then(|| FrameHeader::decode(self.identity.salt, offset, header)).flatten()
    }

    fn read_header(&self, offset: u64) -> Result<Option<FrameHeader>, OpenError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.file.read_at(offset, &mut bytes)?;
        Ok(FrameHeader::decode(self.identity.salt, offset, &bytes))
    }

    /// Reads the frame at `offset`, or `None` when there is no whole one.
    fn read_frame(&self, offset: u64) -> Result<Option<(FrameHeader, SegmentWrite)>, OpenError> {
        let Some(header) = self.read_header(offset)? else { return Ok(None) };
        let at = offset.saturating_add(FRAME_HEADER_BYTES as u64);
        let mut envelope = vec![0; header.envelope_bytes];
        self.file.read_at(at, &mut envelope)?;
        let write = header.decode_envelope(self.identity.salt, &envelope);
        // The envelope goes before the payloads come: memory for one of them is enough.
        drop(envelope);
        let Some(write) = write else { return Ok(None) };
        let mut payloads = vec![0; header.payload_bytes];
        self.file.read_at(at.saturating_add(header.envelope_bytes as u64), &mut payloads)?;
        Ok(payload::check(&write.records, &payloads).is_ok().then_some((header, write)))
    }
}
