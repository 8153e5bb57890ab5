//! The bytes of a segment's log.
//!
//! A log is one space of bytes that only grows at its end. It begins with a header, made whole or
//! not at all, and goes on with frames, one for each atomic write of the segment. Beside them, out
//! of that space, it keeps *notes*. All integers are little-endian:
//!
//! ```text
//! header   0  magic "QUORLOG\n"
//!          8  format version, 32 bits
//!         12  CRC-32C of bytes 0 to 12; laid out so in every version
//!         16  length of the identity, 32 bits
//!         20  CRC-32C of the length and the identity
//!         24  the identity: volume, group, position, geometry, incarnation, salt
//! frame    0  magic "QRTFRAME"
//!          8  number of the frame, from zero, 64 bits
//!         16  note: length of the log that was durable when the frame was made, 64 bits
//!         24        SCL of the segment at that time, 64 bits
//!         32        promised epoch at that time: counter and instance, 64 bits each
//!         48        epoch of the history at that time: counter and instance, 64 bits each
//!         64        epoch of the membership at that time: the proposer's counter and instance, and
//!                   the number of the step, 64 bits each
//!         88  length of the envelope, 32 bits
//!         92  length of the payload, 32 bits
//!         96  CRC-32C of the salt, of where the frame begins in the log, and of bytes 0 to 96
//!        100  CRC-32C of the salt, the number and the envelope
//!        104  the envelope: the write with its records; then their payloads, one after the other
//! slot     0  magic "QRTNOTES"
//!          8  how many slots were written before this one, or, in the log's own space, where it
//!             begins there; 64 bits
//!         16  note, as in a frame
//!         88  CRC-32C of the salt and of bytes 0 to 88
//! ```
//!
//! Payload bytes are covered by the checksum of their record, over group, page, LSN and bytes,
//! which is part of the envelope. The salt is random, one a log, and in every checksum: bytes that
//! a user stores in a page can't be taken for a frame.
//!
//! A log has a *checkpoint* (`node/src/store.rs`): the segment's state after the frames before some
//! place, in a database of its own. A start goes on from there; the space before it is needed only
//! as far as payloads are in it that the database doesn't have. What is not needed is *trimmed*:
//! files of it become those of the log's end, with the bytes that they have. So behind the last
//! frame there is anything; but where a frame or a slot begins is part of its checksum, and no
//! place of the log is used a second time but for the end of one that a crash has left torn, which
//! the next start makes zero as far as anything there decodes. Nothing of an earlier use is ever
//! taken for something of this one.
//!
//! On a real disk the log is a sequence of files, `segment.000000.log` and so on, each of a fixed
//! size, which the number of the file gives. The first one stays for ever. All but the last
//! [`SLOTS_BYTES`] of a file are its part of the log; a frame may lie in two files or more. Those
//! last bytes are two slots, a block each, written in turn, and both once before the file gets its
//! name.
//!
//! Frames are written in groups, each with one write of whole blocks, since what a sync costs is
//! the number of places that the disk has to go to. The last bytes of its last block are a slot
//! with the note: the frames that follow take its place. One of the two slots at the end of the
//! file is written as well now and then, when a segment gets idle, and when there is no room
//! behind the frames: far from them, for a disk that loses a whole region.
//!
//! Notes tell a torn tail from rot. A crash can lose or tear any of the bytes that were written
//! since the last sync, also out of order. A note speaks only of what syncs *before* it made
//! durable, so that it is true whatever a crash leaves of the bytes around it. If a frame is bad
//! and a whole note, in a slot or in a frame's header behind it, says that the log was durable
//! beyond it, then it was good once: that is corruption. Otherwise it and all behind it were never
//! counted as durable, and are cut off. A damaged header of a frame can't hide that frames were
//! durable, since slots lie in other sectors, and those at the end of a file far away.
//!
//! What a damaged segment may have said is what the newest notes say. If a file that may have held
//! them is gone, shorter than its size, or has no whole slot, they may be lost: then nothing is
//! known of what it acknowledged or promised last, and the log is not served.

use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::floor::Floor;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{Incarnation, InstanceId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::membership::MembershipEpoch;
use serde::{Deserialize, Serialize};

use crate::config::VolumeId;
use crate::wire::{self, ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// The version of this format.
pub const FORMAT_VERSION: u32 = 6;

/// The length of the part of the header that is the same in every version.
pub const PRELUDE_BYTES: usize = 16;

/// The length of the header without the identity.
pub const HEADER_BYTES: usize = 24;

/// The longest identity: above what any geometry takes.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// The length of a frame without envelope and payload.
pub const FRAME_HEADER_BYTES: usize = 104;

/// What a frame begins with.
pub const FRAME_MAGIC: [u8; 8] = *b"QRTFRAME";

/// What a slot begins with.
pub const SLOT_MAGIC: [u8; 8] = *b"QRTNOTES";

/// The length of a slot.
pub const SLOT_BYTES: usize = 92;

/// The length of the blocks in which a log is written.
pub const BLOCK_BYTES: usize = 4096;

/// The distance of the slots of a file: more than a disk tears at once.
pub const SLOT_STRIDE: u64 = 4096;

/// How many slots a file has: one stays whole while the other one is written.
pub const SLOTS: u64 = 2;

/// The length of the end of a file that holds slots.
pub const SLOTS_BYTES: u64 = SLOTS * SLOT_STRIDE;

/// The length of the first file: small, since most volumes of a first hour are.
pub const FILE_BYTES_FIRST: u64 = 1 << 20;

/// The length of the longest files. Each is twice as long as the one before, up to this: what is
/// prepared ahead stays in proportion to what is written.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

const FILE_MAGIC: [u8; 8] = *b"QUORLOG\n";

/// The length of a magic, a number and a note: frames and slots begin with them.
const STATEMENT_BYTES: usize = 88;

/// Where the checksum of a frame's header is.
const FRAME_COVERED_BYTES: usize = FRAME_HEADER_BYTES - 8;

/// Whose log it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogIdentity {
    /// The volume.
    pub volume: VolumeId,
    /// The segment's group.
    pub group: PgId,
    /// The segment's position in its group.
    pub position: Position,
    /// The volume's shape and bounds.
    pub geometry: VolumeGeometry,
    /// Which disk of its position the segment is.
    pub incarnation: Incarnation,
    /// Random, different in every log.
    pub salt: u64,
}

/// A header that isn't one of this version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// Bytes of the header are wrong or missing.
    #[error("the header of the log is damaged")]
    Corrupt,
    /// The file doesn't begin like a log.
    #[error("the file is not a segment's log")]
    NotALog,
    /// Another version of the format.
    #[error("the log has format version {found}; this program reads version {supported}")]
    UnsupportedVersion {
        /// The version found.
        found: u32,
        /// The version that this program reads.
        supported: u32,
    },
}

/// Returns the header of a log.
///
/// # Errors
/// [`wire::WireError::Oversized`] never for a geometry that could be built.
pub fn encode_header(identity: &LogIdentity) -> Result<Vec<u8>, wire::WireError> {
    let body = wire::encode_value(identity)?;
    if body.len() > IDENTITY_BYTES_MAX {
        return Err(wire::WireError::Oversized);
    }
    let length = u32::try_from(body.len()).map_err(|_| wire::WireError::Oversized)?.to_le_bytes();
    let mut header = Vec::with_capacity(HEADER_BYTES + body.len());
    header.extend_from_slice(&FILE_MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header.extend_from_slice(&length);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &body);
    header.extend_from_slice(&checksum.to_le_bytes());
    header.extend_from_slice(&body);
    Ok(header)
}

/// Returns the identity in the header that `bytes` begin with, and the header's length.
///
/// # Errors
/// [`HeaderError`] tells another file, another version and damage apart.
pub fn decode_header(bytes: &[u8]) -> Result<(LogIdentity, usize), HeaderError> {
    let Some((prelude, rest)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else {
        return Err(HeaderError::Corrupt);
    };
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, c0, c1, c2, c3] = *prelude;
    let (covered, _) = prelude.split_at(PRELUDE_BYTES - 4);
    let is_whole = crc32c::crc32c(covered) == u32::from_le_bytes([c0, c1, c2, c3]);
    if [m0, m1, m2, m3, m4, m5, m6, m7] != FILE_MAGIC {
        return Err(if is_whole { HeaderError::NotALog } else { HeaderError::Corrupt });
    }
    if !is_whole {
        return Err(HeaderError::Corrupt);
    }
    let found = u32::from_le_bytes([v0, v1, v2, v3]);
    if found != FORMAT_VERSION {
        return Err(HeaderError::UnsupportedVersion { found, supported: FORMAT_VERSION });
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(HeaderError::Corrupt)?;
    let (checksum, rest) = rest.split_first_chunk::<4>().ok_or(HeaderError::Corrupt)?;
    let body_bytes = usize::try_from(u32::from_le_bytes(*length))
        .ok()
        .filter(|bytes| *bytes <= IDENTITY_BYTES_MAX)
        .ok_or(HeaderError::Corrupt)?;
    let body = rest.get(..body_bytes).ok_or(HeaderError::Corrupt)?;
    if crc32c::crc32c_append(crc32c::crc32c(length), body) != u32::from_le_bytes(*checksum) {
        return Err(HeaderError::Corrupt);
    }
    let identity = wire::decode_value(body).map_err(|_| HeaderError::Corrupt)?;
    Ok((identity, HEADER_BYTES + body_bytes))
}

/// What a log says of itself: made durable by the syncs before the note was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Note {
    /// So many bytes of the log were durable.
    pub durable: u64,
    /// The most that could be acknowledged.
    pub floor: Floor,
}

/// Returns the bytes that a frame's header and a slot begin with.
fn encode_statement(magic: [u8; 8], number: u64, note: &Note) -> Vec<u8> {
    let Note { durable, floor: Floor { scl, promised, history, membership } } = *note;
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
    bytes.extend_from_slice(&magic);
    let epochs = [promised, history, membership.volume];
    let epochs = epochs.map(|epoch| [epoch.counter(), epoch.instance().get()]);
    let values = [number, durable, scl.get()].into_iter().chain(epochs.into_iter().flatten());
    for value in values.chain([u64::from(membership.number)]) {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Returns the number and the note of bytes that begin with `magic`.
fn decode_statement(magic: [u8; 8], bytes: &[u8]) -> Option<(u64, Note)> {
    let (found, rest) = bytes.get(..STATEMENT_BYTES)?.split_first_chunk::<8>()?;
    if *found != magic {
        return None;
    }
    let (chunks, _) = rest.as_chunks::<8>();
    let [number, durable, scl, promised, promiser, history, installer, membership @ ..] = chunks
    else {
        return None;
    };
    let [proposed, proposer, step] = membership else { return None };
    let value = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let epoch =
        |counter, instance| VolumeEpoch::new(value(counter), InstanceId::new(value(instance)));
    let floor = Floor {
        scl: Lsn::new(value(scl)),
        promised: epoch(promised, promiser),
        history: epoch(history, installer),
        membership: MembershipEpoch {
            volume: epoch(proposed, proposer),
            number: u32::try_from(value(step)).ok()?,
        },
    };
    Some((value(number), Note { durable: value(durable), floor }))
}

/// Returns the bytes of the slot that is written after `sequence` others, or that begins there in
/// the log's own space.
#[must_use]
pub fn encode_slot(salt: u64, sequence: u64, note: &Note) -> Vec<u8> {
    let mut slot = encode_statement(SLOT_MAGIC, sequence, note);
    let checksum = salted(salt, &slot);
    slot.extend_from_slice(&checksum.to_le_bytes());
    slot
}

/// Returns how many slots were written before this one, or where it begins, and its note; `None`
/// for bytes that are not a whole slot of this log.
#[must_use]
pub fn decode_slot(salt: u64, bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Note)> {
    let (covered, checksum) = bytes.split_last_chunk::<4>()?;
    if salted(salt, covered) != u32::from_le_bytes(*checksum) {
        return None;
    }
    decode_statement(SLOT_MAGIC, covered)
}

/// The header of a frame whose checksum has been found right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    /// The frame's number.
    pub number: u64,
    /// What was so when the frame was made.
    pub note: Note,
    /// The length of the envelope.
    pub envelope_bytes: usize,
    /// The length of the payload.
    pub payload_bytes: usize,
    envelope_checksum: u32,
}

impl FrameHeader {
    /// Returns the header that `bytes` are, which begin at `at`, or `None` when they aren't one of
    /// this log, or were one elsewhere.
    #[must_use]
    pub fn decode(salt: u64, at: u64, bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let (covered, checksums) = bytes.split_at_checked(FRAME_COVERED_BYTES)?;
        let (checksum, checksums) = checksums.split_first_chunk::<4>()?;
        let (envelope_checksum, _) = checksums.split_first_chunk::<4>()?;
        if placed(salt, at, covered) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (number, note) = decode_statement(FRAME_MAGIC, covered)?;
        let (_, lengths) = covered.split_at_checked(STATEMENT_BYTES)?;
        let (envelope, lengths) = lengths.split_first_chunk::<4>()?;
        let (payload, _) = lengths.split_first_chunk::<4>()?;
        let length = |bytes: [u8; 4], max| {
            usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|length| *length <= max)
        };
        Some(Self {
            number,
            note,
            envelope_bytes: length(*envelope, ENVELOPE_BYTES_MAX)?,
            payload_bytes: length(*payload, PAYLOAD_BYTES_MAX)?,
            envelope_checksum: u32::from_le_bytes(*envelope_checksum),
        })
    }

    /// Returns the length of the whole frame.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.envelope_bytes + self.payload_bytes
    }

    /// Returns the write in a frame's envelope, or `None` when a bit of it is wrong.
    #[must_use]
    pub fn decode_envelope(&self, salt: u64, envelope: &[u8]) -> Option<SegmentWrite> {
        if envelope_checksum(salt, self.number, envelope) != self.envelope_checksum {
            return None;
        }
        wire::decode_value(envelope).ok()
    }
}

/// Returns the bytes of a frame that begins at `at`.
///
/// # Errors
/// [`wire::WireError::Oversized`] when the write is above the bounds of the wire.
pub fn encode_frame(
    salt: u64,
    at: u64,
    number: u64,
    note: &Note,
    write: &SegmentWrite,
    payloads: &[&[u8]],
) -> Result<Vec<u8>, wire::WireError> {
    let envelope = wire::encode_value(write)?;
    let payload_bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
    if envelope.len() > ENVELOPE_BYTES_MAX || payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(wire::WireError::Oversized);
    }
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| wire::WireError::Oversized);
    let mut frame = encode_statement(FRAME_MAGIC, number, note);
    frame.reserve_exact(FRAME_HEADER_BYTES - frame.len() + envelope.len() + payload_bytes);
    frame.extend_from_slice(&length(envelope.len())?.to_le_bytes());
    frame.extend_from_slice(&length(payload_bytes)?.to_le_bytes());
    let checksum = placed(salt, at, &frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&envelope_checksum(salt, number, &envelope).to_le_bytes());
    frame.extend_from_slice(&envelope);
    for payload in payloads {
        frame.extend_from_slice(payload);
    }
    Ok(frame)
}

fn salted(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

/// The checksum of bytes that mean something at one place alone.
fn placed(salt: u64, at: u64, bytes: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &at.to_le_bytes());
    crc32c::crc32c_append(sum, bytes)
}

fn envelope_checksum(salt: u64, number: u64, envelope: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &number.to_le_bytes()), envelope)
}
