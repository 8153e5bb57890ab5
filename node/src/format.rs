//! The bytes of a segment's log.
//!
//! A log is one file that only grows. It begins with a header, made whole or not at all, and goes
//! on with frames, one for each atomic write of the segment. All integers are little-endian:
//!
//! ```text
//! header   0  magic "QUORLOG\n"
//!          8  format version, 32 bits
//!         12  CRC-32C of bytes 0 to 12; laid out so in every version
//!         16  length of the identity, 32 bits
//!         20  CRC-32C of the length and the identity
//!         24  the identity: volume, group, position, geometry, salt
//! frame    0  magic "QRTFRAME"
//!          8  number of the frame, from zero, 64 bits
//!         16  length of the file that was durable when the frame was made, 64 bits
//!         24  length of the envelope, 32 bits
//!         28  length of the payload, 32 bits
//!         32  CRC-32C of the salt and of bytes 0 to 32
//!         36  CRC-32C of the salt, the number and the envelope
//!         40  the envelope: the write with its records; then their payloads, one after the other
//! ```
//!
//! Payload bytes are covered by the checksum of their record, over group, page, LSN and bytes,
//! which is part of the envelope. The salt is random, one a file, and in every checksum: bytes that
//! a user stores in a page can't be taken for a frame.
//!
//! The durable length tells a torn tail from rot. A crash can lose or tear any of the frames that
//! were written since the last sync, also out of order. If a frame is bad and some whole frame
//! behind it says that the file was durable beyond it, then it was good once: that is corruption.
//! Otherwise it and all behind it were never counted as durable, and are cut off.

use quorate_core::effect::SegmentWrite;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PgId, Position};
use serde::{Deserialize, Serialize};

use crate::config::VolumeId;
use crate::payload;
use crate::wire::{self, ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// The version of this format.
pub const FORMAT_VERSION: u32 = 1;

/// The length of the part of the header that is the same in every version.
pub const PRELUDE_BYTES: usize = 16;

/// The length of the header without the identity.
pub const HEADER_BYTES: usize = 24;

/// The longest identity: above what any geometry takes.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// The length of a frame without envelope and payload.
pub const FRAME_HEADER_BYTES: usize = 40;

/// What a frame begins with.
pub const FRAME_MAGIC: [u8; 8] = *b"QRTFRAME";

const FILE_MAGIC: [u8; 8] = *b"QUORLOG\n";

/// Whose log a file is.
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
    /// Random, different in every file.
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

/// The header of a frame whose checksum has been found right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    /// The frame's number.
    pub number: u64,
    /// The length of the file that was durable when the frame was made.
    pub durable: u64,
    /// The length of the envelope.
    pub envelope_bytes: usize,
    /// The length of the payload.
    pub payload_bytes: usize,
    envelope_checksum: u32,
}

impl FrameHeader {
    /// Returns the header that `bytes` are, or `None` when they aren't one of this file.
    #[must_use]
    pub fn decode(salt: u64, bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (durable, rest) = rest.split_first_chunk::<8>()?;
        let (envelope, rest) = rest.split_first_chunk::<4>()?;
        let (payload, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let (envelope_checksum, _) = rest.split_first_chunk::<4>()?;
        let covered = bytes.get(..32)?;
        let is_right = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), covered)
            == u32::from_le_bytes(*checksum);
        if *magic != FRAME_MAGIC || !is_right {
            return None;
        }
        let length = |bytes: [u8; 4], max| {
            usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|length| *length <= max)
        };
        Some(Self {
            number: u64::from_le_bytes(*number),
            durable: u64::from_le_bytes(*durable),
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

    /// Returns the write in a frame's bytes behind its header, or `None` when a bit of them, or of
    /// a payload, is wrong.
    #[must_use]
    pub fn decode_body(&self, salt: u64, body: &[u8]) -> Option<SegmentWrite> {
        let (envelope, payloads) = body.split_at_checked(self.envelope_bytes)?;
        if payloads.len() != self.payload_bytes
            || envelope_checksum(salt, self.number, envelope) != self.envelope_checksum
        {
            return None;
        }
        let write: SegmentWrite = wire::decode_value(envelope).ok()?;
        payload::check(&write.records, payloads).ok()?;
        Some(write)
    }
}

/// Returns the bytes of a frame.
///
/// # Errors
/// [`wire::WireError::Oversized`] when the write is above the bounds of the wire.
pub fn encode_frame(
    salt: u64,
    number: u64,
    durable: u64,
    write: &SegmentWrite,
    payloads: &[&[u8]],
) -> Result<Vec<u8>, wire::WireError> {
    let envelope = wire::encode_value(write)?;
    let payload_bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
    if envelope.len() > ENVELOPE_BYTES_MAX || payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(wire::WireError::Oversized);
    }
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| wire::WireError::Oversized);
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + envelope.len() + payload_bytes);
    frame.extend_from_slice(&FRAME_MAGIC);
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&durable.to_le_bytes());
    frame.extend_from_slice(&length(envelope.len())?.to_le_bytes());
    frame.extend_from_slice(&length(payload_bytes)?.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&envelope_checksum(salt, number, &envelope).to_le_bytes());
    frame.extend_from_slice(&envelope);
    for payload in payloads {
        frame.extend_from_slice(payload);
    }
    Ok(frame)
}

fn envelope_checksum(salt: u64, number: u64, envelope: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &number.to_le_bytes()), envelope)
}
