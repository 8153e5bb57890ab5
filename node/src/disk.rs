//! A segment's log: opened, replayed, appended to, and read from.

use std::collections::BTreeMap;
use std::io;

use quorate_core::effect::SegmentWrite;
use quorate_core::image::{CorruptImage, SegmentImage};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;

use crate::env::LogFile;
use crate::format::{
    self, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, HEADER_BYTES, HeaderError,
    IDENTITY_BYTES_MAX, LogIdentity,
};
use crate::payload;
use crate::wire::WireError;

/// How much of a log is read at once while a whole frame behind a bad one is looked for.
const SCAN_BYTES: usize = 1 << 20;

/// Why a log can't be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A frame is bad although it was durable, or it contradicts those before it.
    #[error("the log is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// Where the bad frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: Corruption,
    },
    /// The header can't be used.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The log is another volume's or another segment's.
    #[error(
        "the log belongs to segment {} of {} of volume {}",
        .found.position, .found.group, .found.volume
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

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Corruption {
    /// It is damaged, and a whole frame behind it shows that it was durable.
    #[error("a frame is damaged, and frame {behind} behind it shows that it was durable")]
    Damaged {
        /// The number of the whole frame.
        behind: u64,
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
    /// The record isn't in the log.
    #[error("the log holds no payload for the record with LSN {lsn}")]
    Unknown {
        /// The record.
        lsn: Lsn,
    },
}

/// What a start found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Replay {
    /// The frames applied.
    pub frames: u64,
    /// The bytes of a torn tail that were cut off: a crash left them, nobody ever counted on them.
    pub cut_bytes: u64,
}

/// The log of one segment.
#[derive(Debug)]
pub struct SegmentLog<L> {
    file: L,
    identity: LogIdentity,
    /// Where the payload of each durable record is. LSNs are never reused, so that an annulled
    /// record's entry misleads nobody.
    payloads: BTreeMap<Lsn, Extent>,
    /// The number of the next frame.
    next: u64,
    /// The length of the file with everything that has been submitted.
    tail: u64,
    /// The length of the file that is durable.
    durable: u64,
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
        mut file: L,
        expected: &LogIdentity,
    ) -> Result<(Self, SegmentImage, Replay), OpenError> {
        let mut start = vec![0; cap(file.length(), HEADER_BYTES + IDENTITY_BYTES_MAX)];
        file.read_at(0, &mut start)?;
        let (identity, header_bytes) = format::decode_header(&start)?;
        check_identity(&identity, expected)?;
        let image = SegmentImage::create(identity.group, identity.geometry)
            .ok_or(OpenError::OtherSegment { found: identity })?;
        let mut replaying = Replaying {
            image,
            salt: identity.salt,
            payloads: BTreeMap::new(),
            next: 0,
            at: header_bytes as u64,
        };
        replaying.run(&file)?;
        let Replaying { image, payloads, next, at, .. } = replaying;
        let replay = Replay { frames: next, cut_bytes: file.length().saturating_sub(at) };
        // What was read may be in memory only; from here on it counts as durable.
        file.settle(at)?;
        let log = Self {
            file,
            identity,
            payloads,
            next,
            tail: at,
            durable: at,
            waiting: BTreeMap::new(),
        };
        Ok((log, image, replay))
    }

    /// Appends `write`, whose records have `payloads`, in their order, and returns the number that
    /// the environment will report as durable.
    ///
    /// # Errors
    /// [`WireError::Oversized`] when the write is above every bound.
    pub fn append(&mut self, write: &SegmentWrite, payloads: &[&[u8]]) -> Result<u64, WireError> {
        assert_eq!(write.records.len(), payloads.len());
        let number = self.next;
        let frame =
            format::encode_frame(self.identity.salt, number, self.durable, write, payloads)?;
        let end = self.tail.saturating_add(frame.len() as u64);
        let payloads = extents(&write.records, end);
        self.next = number.saturating_add(1);
        self.tail = end;
        self.waiting.insert(number, WaitingFrame { end, payloads });
        self.file.submit(number, frame);
        Ok(number)
    }

    /// Takes the report that all frames up to number `through` are durable.
    pub fn settle(&mut self, through: u64) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= through
        {
            let WaitingFrame { end, payloads } = first.remove();
            self.durable = end;
            self.payloads.extend(payloads);
        }
        assert!(self.durable <= self.tail);
    }

    /// Returns the payload of `record`, checked.
    ///
    /// # Errors
    /// [`ReadError`] when it can't be had; a segment that finds its disk wrong has to stop.
    pub fn read(&self, record: &Record) -> Result<Vec<u8>, ReadError> {
        let lsn = record.lsn;
        let extent = self.payloads.get(&lsn).ok_or(ReadError::Unknown { lsn })?;
        let mut bytes = vec![0; extent.length];
        self.file.read_at(extent.offset, &mut bytes)?;
        if !payload::belongs(record, &bytes) {
            return Err(ReadError::Damaged { lsn });
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
        && found.position == expected.position;
    if !is_ours {
        return Err(OpenError::OtherSegment { found: *found });
    }
    if found.geometry != expected.geometry {
        return Err(OpenError::OtherGeometry { found: *found });
    }
    Ok(())
}

/// A replay under way.
struct Replaying {
    image: SegmentImage,
    salt: u64,
    payloads: BTreeMap<Lsn, Extent>,
    /// The number that the next frame has to have.
    next: u64,
    /// Where it begins.
    at: u64,
}

impl Replaying {
    /// Applies frame after frame, up to the end or to the first bad one that may be torn.
    fn run<L: LogFile>(&mut self, file: &L) -> Result<(), OpenError> {
        let end = file.length();
        while self.at < end {
            let corrupt = |reason| OpenError::Corrupt { offset: self.at, reason };
            let Some((header, write)) = read_frame(file, self.salt, self.at)? else {
                return match self.find_proof(file)? {
                    Some(behind) => Err(corrupt(Corruption::Damaged { behind })),
                    None => Ok(()),
                };
            };
            if header.number != self.next {
                let (expected, found) = (self.next, header.number);
                return Err(corrupt(Corruption::Missing { expected, found }));
            }
            self.image.apply(&write).map_err(|error| corrupt(Corruption::Image(error)))?;
            let frame_end = self.at.saturating_add(header.frame_bytes() as u64);
            self.payloads.extend(extents(&write.records, frame_end));
            self.next = self.next.saturating_add(1);
            self.at = frame_end;
        }
        Ok(())
    }

    /// Looks behind the bad frame for a whole one that was made when the bad one was durable, and
    /// returns its number.
    fn find_proof<L: LogFile>(&self, file: &L) -> Result<Option<u64>, OpenError> {
        let end = file.length();
        let mut at = self.at.saturating_add(1);
        while at < end {
            let mut window = vec![0; cap(end.saturating_sub(at), SCAN_BYTES)];
            file.read_at(at, &mut window)?;
            for (place, bytes) in window.windows(FRAME_MAGIC.len()).enumerate() {
                if bytes != FRAME_MAGIC {
                    continue;
                }
                let candidate = at.saturating_add(place as u64);
                if let Some((header, _)) = read_frame(file, self.salt, candidate)?
                    && header.durable > self.at
                {
                    return Ok(Some(header.number));
                }
            }
            // Windows overlap, so that no magic is missed between two of them.
            let step = window.len().saturating_sub(FRAME_MAGIC.len()).saturating_add(1);
            at = at.saturating_add(step as u64);
        }
        Ok(None)
    }
}

/// Reads the frame at `offset`, or `None` when there is no whole one.
fn read_frame<L: LogFile>(
    file: &L,
    salt: u64,
    offset: u64,
) -> Result<Option<(FrameHeader, SegmentWrite)>, OpenError> {
    let left = file.length().saturating_sub(offset);
    let mut bytes = [0; FRAME_HEADER_BYTES];
    if left < FRAME_HEADER_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(offset, &mut bytes)?;
    let Some(header) = FrameHeader::decode(salt, &bytes) else { return Ok(None) };
    if left < header.frame_bytes() as u64 {
        return Ok(None);
    }
    let mut body = vec![0; header.envelope_bytes + header.payload_bytes];
    file.read_at(offset.saturating_add(FRAME_HEADER_BYTES as u64), &mut body)?;
    Ok(header.decode_body(salt, &body).map(|write| (header, write)))
}

/// Returns `length`, at most `max`.
fn cap(length: u64, max: usize) -> usize {
    usize::try_from(length).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests;
