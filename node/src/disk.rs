//! A segment's log: opened, replayed, appended to, and read from.

use std::collections::BTreeMap;
use std::io;

use quorate_core::effect::SegmentWrite;
use quorate_core::floor::Floor;
use quorate_core::image::{CorruptImage, SegmentImage};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;

use crate::env::{Event, KeepNote, LogFile};
use crate::format::{self, HEADER_BYTES, HeaderError, IDENTITY_BYTES_MAX, LogIdentity, Note};
use crate::payload;
use crate::store::{Checkpointed, Snapshot, StoreError};
use crate::wire::WireError;

mod replay;

use replay::{Replayed, Replaying};

/// Why a log can't be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A frame is bad although it was durable, or it contradicts those before it.
    #[error("the log is corrupt at byte {}: {}", .0.offset, .0.reason)]
    Corrupt(Box<Damage>),
    /// The header can't be used.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the segment acknowledged or promised last can't be found out: the end of the newest
    /// file, which is damaged or gone, said it.
    #[error(
        "the end of the log is damaged or gone: nothing tells what the segment acknowledged or \
         promised last"
    )]
    NotesLost,
    /// A file of the log that holds payloads, and no frame from which a start goes on, is damaged
    /// or gone.
    #[error(
        "a part of the log is gone, with payloads that nothing else on this disk has: the log \
         from byte {kept} to byte {at}"
    )]
    PayloadsLost {
        /// Where the part of the log begins that is needed.
        kept: u64,
        /// Where frames begin that came after the checkpoint.
        at: u64,
    },
    /// The page store can't be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The log is another volume's or another segment's.
    #[error(
        "the log belongs to segment {}{} of {} of volume {}",
        .found.position, .found.incarnation, .found.group, .found.volume
    )]
    OtherSegment {
        /// Whose it is.
        found: LogIdentity,
    },
    /// The log was made for a volume of another shape, or with other limits.
    #[error("the log was created for a volume of another shape or with other limits")]
    OtherGeometry {
        /// Whose it is.
        found: LogIdentity,
    },
}

/// A log of which durable bytes are damaged, and what is left of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// Where the first bad frame begins.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: Corruption,
    /// The most that the segment may have said, as far as anything tells that can be read. Until it
    /// has all of it again, it must not answer a recovery.
    pub floor: Floor,
    /// How many frames lie before the damage; each of them is whole.
    pub frames: u64,
    /// The segment's state after those frames.
    pub usable: SegmentImage,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Corruption {
    /// It is damaged, and a note shows that it was durable.
    #[error("a frame is damaged, and a note shows that {durable} bytes were durable")]
    Damaged {
        /// The length of the log that was durable.
        durable: u64,
    },
    /// It is whole, but no segment in that state has written it.
    #[error("{0}")]
    Image(CorruptImage),
    /// It is whole, but frames before it are missing.
    #[error("frame {expected} is missing, frame {found} is in its place")]
    Missing {
        /// The number that should be there.
        expected: u64,
        /// The number that is.
        found: u64,
    },
}

impl Corruption {
    /// Returns whether bytes that changed or vanished explain it.
    const fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => true,
            Self::Image(_) => false,
        }
    }
}

/// A frame on its way to the disk.
#[derive(Debug)]
struct WaitingFrame {
    /// Where it ends.
    end: u64,
    /// Its payloads. A record may come twice, by append and by gossip: until the second frame is
    /// durable, its bytes are read from the first.
    payloads: Vec<(Lsn, Extent)>,
}

/// Where a payload is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Extent {
    offset: u64,
    length: usize,
}

/// Bytes of a payload that can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes don't match the record's checksum: the disk has changed them.
    #[error("the payload of the record with LSN {lsn} is damaged on disk")]
    Damaged {
        /// The record.
        lsn: Lsn,
    },
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes don't match the record's checksum, and they lie before the frames that a start
    /// replays: it finds the damage as little as the last one did.
    #[error(
        "the payload of the record with LSN {lsn} is damaged on disk, below the log's checkpoint"
    )]
    Lost {
        /// The record.
        lsn: Lsn,
    },
    /// The page store can't be read from.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The record isn't in the log.
    #[error("the log holds no payload for the record with LSN {lsn}")]
    Unknown {
        /// The record.
        lsn: Lsn,
    },
}

/// A damaged log that a new one has taken the place of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// What was wrong with it.
    pub damage: Damage,
    /// What the names of its files, which stay beside the new log, begin with.
    pub aside: String,
}

/// What a start found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Replay {
    /// The frames that the checkpoint stands for: they were not read.
    pub checkpoint: u64,
    /// The frames applied after those.
    pub frames: u64,
    /// The bytes of a torn tail that were cut off: a crash left them, nobody ever counted on them.
    pub cut_bytes: u64,
    /// The damaged log that this one has just replaced.
    pub replaced: Option<Box<Replaced>>,
}

/// The log of one segment.
#[derive(Debug)]
pub struct SegmentLog<L> {
    file: L,
    identity: LogIdentity,
    /// Where the payload of each durable record is. LSNs are never reused, so that an annulled
    /// record's entry misleads nobody. Those at or under the checkpoint's base are in the store.
    payloads: BTreeMap<Lsn, Extent>,
    /// The newest durable checkpoint.
    checkpoint: Checkpointed,
    /// Where the payloads of durable records are that came since the last snapshot.
    added: Vec<(Lsn, u64)>,
    /// Whether a checkpoint is under way.
    is_checkpointing: bool,
    /// The number of the next frame.
    next: u64,
    /// The length of the file with everything that has been submitted.
    tail: u64,
    /// The length of the file that is durable.
    durable: u64,
    /// The most that the segment may acknowledge.
    floor: Floor,
    /// The submitted frames that aren't known to be durable, by number.
    waiting: BTreeMap<u64, WaitingFrame>,
}

impl<L: LogFile> SegmentLog<L> {
    /// Opens the log in `file`, which has to be `expected`'s but for the salt, and rebuilds the
    /// segment's state from it. A torn tail is cut off.
    ///
    /// # Errors
    /// [`OpenError`] when the log is another's, of another version, or corrupt.
    pub fn open(
        file: L,
        expected: &LogIdentity,
    ) -> Result<(Self, SegmentImage, Replay), OpenError> {
        Self::try_open(file, expected).map_err(|(error, _)| error)
    }

    /// [`SegmentLog::open`], but a log of which durable bytes are damaged is replaced: by one with
    /// the frames before the damage, and behind them all that the segment may have said. It has no
    /// vote until it holds that again.
    ///
    /// # Errors
    /// [`OpenError`] as there, and when the new log can't be written. [`OpenError::Corrupt`] only
    /// when a whole frame contradicts those before it: no damage explains that.
    pub fn open_or_replace(
        file: L,
        expected: &LogIdentity,
    ) -> Result<(Self, SegmentImage, Replay), OpenError> {
        match Self::try_open(file, expected) {
            Ok(opened) => Ok(opened),
            Err((OpenError::Corrupt(damage), mut file)) if damage.reason.is_of_the_disk() => {
                let aside = replace(&mut file, &damage)?;
                let (log, image, replay) = Self::open(file, expected)?;
                let replaced = Some(Box::new(Replaced { damage: *damage, aside }));
                Ok((log, image, Replay { replaced, ..replay }))
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Opens the log, or returns the file with the error.
    fn try_open(
        mut file: L,
        expected: &LogIdentity,
    ) -> Result<(Self, SegmentImage, Replay), (OpenError, L)> {
        match Self::replay(&mut file, expected) {
            Ok((identity, replayed, replay)) => {
                let Replayed { image, payloads, checkpoint, next, at, .. } = replayed;
                let is_new = |(_, extent): &(&Lsn, &Extent)| extent.offset >= checkpoint.at;
                let added = payloads.iter().filter(is_new);
                let added = added.map(|(lsn, extent)| (*lsn, extent.offset)).collect();
                let log = Self {
                    file,
                    identity,
                    payloads,
                    checkpoint,
                    added,
                    is_checkpointing: false,
                    next,
                    tail: at,
                    durable: at,
                    floor: said_at_most(&image),
                    waiting: BTreeMap::new(),
                };
                Ok((log, image, replay))
            }
            Err(error) => Err((error, file)),
        }
    }

    /// Reads the log and cuts off its torn tail.
    fn replay(
        file: &mut L,
        expected: &LogIdentity,
    ) -> Result<(LogIdentity, Replayed, Replay), OpenError> {
        let mut start = [0; HEADER_BYTES + IDENTITY_BYTES_MAX];
        file.read_at(0, &mut start)?;
        let (identity, header_bytes) = format::decode_header(&start)?;
        check_identity(&identity, expected)?;
        file.open_store(identity.salt)?;
        let begin = replay::begin(file, &identity, header_bytes as u64)?;
        let (kept, from) = (begin.checkpoint.kept, begin.checkpoint.at);
        if !file.holds(kept, from) {
            return Err(OpenError::PayloadsLost { kept, at: from });
        }
        let replayed = Replaying::new(file, identity, header_bytes as u64, begin).run()?;
        let Replayed { checkpoint: Checkpointed { frames: checkpoint, .. }, .. } = replayed;
        let Replayed { next, at, doubtful, torn, .. } = replayed;
        let cut_bytes = torn.min(file.length()).saturating_sub(at);
        // What was read may be in memory only; from here on it counts as durable.
        file.settle(doubtful.min(at), at, torn)?;
        let frames = next.saturating_sub(checkpoint);
        Ok((identity, replayed, Replay { checkpoint, frames, cut_bytes, replaced: None }))
    }

    /// Appends `write`, whose records have `payloads`, in their order, and returns the number that
    /// the environment will report as durable.
    ///
    /// # Errors
    /// [`WireError::Oversized`] when the write is above every bound.
    pub fn append(&mut self, write: &SegmentWrite, payloads: &[&[u8]]) -> Result<u64, WireError> {
        self.submit(write, payloads, KeepNote::NowAndThen)
    }

    /// Appends `write`, which changes nothing, and with it a note of all that is durable now, far
    /// from all frames: a later start finds damage to any of them.
    ///
    /// # Errors
    /// [`WireError::Oversized`] never in practice: the frame is small.
    pub fn mark(&mut self, write: &SegmentWrite) -> Result<u64, WireError> {
        self.submit(write, &[], KeepNote::Always)
    }

    fn submit(
        &mut self,
        write: &SegmentWrite,
        payloads: &[&[u8]],
        keep: KeepNote,
    ) -> Result<u64, WireError> {
        assert_eq!(write.records.len(), payloads.len());
        let number = self.next;
        let note = Note { durable: self.durable, floor: self.floor };
        let salt = self.identity.salt;
        let frame = format::encode_frame(salt, self.tail, number, &note, write, payloads)?;
        let end = self.tail.saturating_add(frame.len() as u64);
        let payloads = extents(&write.records, end);
        self.next = number.saturating_add(1);
        self.tail = end;
        self.waiting.insert(number, WaitingFrame { end, payloads });
        self.file.submit(number, frame, note, keep);
        Ok(number)
    }

    /// Begins to make durable what was appended; see [`LogFile::commit`].
    pub fn commit(&mut self) -> Option<Event> {
        self.file.commit()
    }

    /// Takes the report that all frames up to number `through` are durable.
    pub fn settle(&mut self, through: u64) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= through
        {
            let WaitingFrame { end, payloads } = first.remove();
            self.durable = end;
            self.added.extend(payloads.iter().map(|(lsn, extent)| (*lsn, extent.offset)));
            self.payloads.extend(payloads);
        }
        assert!(self.durable <= self.tail);
    }

    /// Forgets where the payloads of records at or under `base` are, but for those that `is_held`
    /// names. Their bytes stay in the log.
    pub fn forget(&mut self, base: Lsn, is_held: impl Fn(Lsn) -> bool) {
        let kept = self.payloads.split_off(&base.plus(1).unwrap_or(base));
        self.payloads.retain(|lsn, _| is_held(*lsn));
        self.payloads.extend(kept);
    }

    /// Begins to make `image`, which is the segment's state with all that is durable, a checkpoint
    /// from which the next start goes on. None may be under way.
    pub fn checkpoint(&mut self, image: &SegmentImage) {
        assert!(!self.is_checkpointing);
        self.is_checkpointing = true;
        let mut added = std::mem::take(&mut self.added);
        // Of a record that came twice, either place will do.
        added.sort_unstable();
        added.dedup_by_key(|(lsn, _)| *lsn);
        self.file.checkpoint(Snapshot {
            state: image.checkpoint(),
            records: image.records().to_vec(),
            aside: image.aside().map(|aside| aside.records.clone()).unwrap_or_default(),
            frames: self.settled(),
            at: self.durable,
            added,
        });
    }

    /// Takes the report that a checkpoint is durable: what it has made superfluous is forgotten.
    pub fn checkpointed(&mut self, checkpoint: Checkpointed) {
        assert!(self.is_checkpointing);
        self.is_checkpointing = false;
        self.checkpoint = checkpoint;
        let base = checkpoint.base;
        self.payloads = self.payloads.split_off(&base.plus(1).unwrap_or(base));
        self.file.trim(checkpoint.kept);
    }

    /// Returns how many durable bytes came after the newest checkpoint, `None` while another one is
    /// under way.
    #[must_use]
    pub const fn since_checkpoint(&self) -> Option<u64> {
        if self.is_checkpointing {
            return None;
        }
        Some(self.durable.saturating_sub(self.checkpoint.at))
    }

    /// Takes what the segment holds now, and so may acknowledge. Later frames say so.
    ///
    /// It must be durable: after [`SegmentLog::settle`], and nothing of what is on its way.
    pub fn note(&mut self, durable: &SegmentImage) {
        self.floor = said_at_most(durable);
    }

    /// Returns the payload of `record`, checked.
    ///
    /// # Errors
    /// [`ReadError`] when it can't be had; a segment that finds its disk wrong has to stop.
    pub fn read(&self, record: &Record) -> Result<Vec<u8>, ReadError> {
        let lsn = record.lsn;
        if lsn <= self.checkpoint.base {
            return Ok(self.file.read_stored(record)?);
        }
        let extent = self.payloads.get(&lsn).ok_or(ReadError::Unknown { lsn })?;
        let mut bytes = vec![0; extent.length];
        self.file.read_at(extent.offset, &mut bytes)?;
        if !payload::belongs(record, &bytes) {
            let is_replayed = extent.offset >= self.checkpoint.at;
            return Err(if is_replayed {
                ReadError::Damaged { lsn }
            } else {
                ReadError::Lost { lsn }
            });
        }
        Ok(bytes)
    }

    /// Returns whose log this is.
    #[must_use]
    pub const fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    /// Returns the length of the file with everything that has been submitted.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.tail
    }

    /// Returns how many frames have been submitted, ever.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.next
    }

    /// Returns how many frames are known to be durable.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.waiting.first_key_value().map_or(self.next, |(number, _)| *number)
    }

    /// Returns how many bytes are submitted and not known to be durable.
    #[must_use]
    pub const fn waiting_bytes(&self) -> u64 {
        self.tail.saturating_sub(self.durable)
    }
}

/// Returns the most that a segment with this durable state may say, now or soon.
///
/// That is all that it holds, above a hole too: the write that fills it may be acknowledged before
/// any note tells of it, and say nothing of those records itself.
fn said_at_most(image: &SegmentImage) -> Floor {
    let floor = Floor::of(image);
    let last = image.records().last().map_or(Lsn::ZERO, |record| record.lsn);
    Floor { scl: floor.scl.max(last), ..floor }
}

/// Replaces the damaged log in `file` by one that says what its segment owes.
fn replace<L: LogFile>(file: &mut L, damage: &Damage) -> Result<String, OpenError> {
    let write = SegmentWrite { floor: Some(damage.floor), ..SegmentWrite::default() };
    let before = Note { durable: damage.offset, floor: damage.floor };
    let (salt, at) = (damage.identity.salt, damage.offset);
    let frame = format::encode_frame(salt, at, damage.frames, &before, &write, &[])
        .map_err(io::Error::other)?;
    let note = Note { durable: damage.offset.saturating_add(frame.len() as u64), ..before };
    Ok(file.replace(damage.offset, &frame, note)?)
}

/// Returns where the payloads of a frame's records are, given where the frame ends.
fn extents(records: &[Record], end: u64) -> Vec<(Lsn, Extent)> {
    let backwards = records.iter().rev().scan(end, |at, record| {
        let length = payload::length(record);
        *at = at.saturating_sub(length as u64);
        Some((record.lsn, Extent { offset: *at, length }))
    });
    backwards.collect()
}

fn check_identity(found: &LogIdentity, expected: &LogIdentity) -> Result<(), OpenError> {
    let is_ours = found.volume == expected.volume
        && found.group == expected.group
        && found.position == expected.position
        && found.incarnation == expected.incarnation;
    if !is_ours {
        return Err(OpenError::OtherSegment { found: *found });
    }
    if found.geometry != expected.geometry {
        return Err(OpenError::OtherGeometry { found: *found });
    }
    Ok(())
}

/// Returns `length`, at most `max`.
fn cap(length: u64, max: usize) -> usize {
    usize::try_from(length).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests;
