//! Bytes between processes: frames, envelopes and their codec.
//!
//! A frame is a header of twenty bytes, an envelope (a small value, encoded) and payload bytes,
//! raw. All integers are little-endian:
//!
//! ```text
//!   0  magic "QRT\x01"
//!   4  protocol version, 16 bits
//!   6  zero, 16 bits
//!   8  length of the envelope, 32 bits
//!  12  length of the payload, 32 bits
//!  16  CRC-32C of bytes 0 to 16 and of the envelope
//!  20  the envelope, then the payload
//! ```
//!
//! Payload bytes are covered by the checksums of the records, or of a client's pages, in the
//! envelope. Both lengths have a bound, checked before anything is kept: a hostile length makes
//! nobody allocate.
//!
//! This is the only file that names the codec, bincode. It ends at version 2.0.1, and its limit
//! does not bound what serde reserves for a collection, so every list of an envelope is decoded by
//! [`quorate_core::list`], and integers of fixed width keep a decoded record at about the size of
//! its encoding. Decoding a frame allocates at most twice the frame's length, and for a list whose
//! length lies at most about three times what did come, in all less than two of the longest frames:
//! `node/tests/hostile.rs` counts for each kind of envelope.

use quorate_core::consistency::{GarbageFloor, Scl, Vdl};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, InstanceId, PgId, Position, ReaderId};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{FromReader, ToReader, ToSegment, ToWriter};
use quorate_core::record::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::addresses::Seats;
use crate::config::VolumeId;
use crate::payload::{self, PAGE_BYTES_MAX, PayloadError};

pub mod client;
pub mod members;

use client::{Answer, ClientReply, ClientRequest, ClientWelcome, PageSum, Question};

/// The version of this protocol, in every frame.
pub const PROTOCOL_VERSION: u16 = 4;

/// The longest envelope: above a seal answer of a volume with the default limits.
pub const ENVELOPE_BYTES_MAX: usize = 4 << 20;

/// The longest payload: above a full batch of the default limits.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// The length of a frame's header.
pub const HEADER_BYTES: usize = 20;

const MAGIC: [u8; 4] = *b"QRT\x01";

/// An encoded record, with every field at its full width.
const RECORD_BYTES: usize = 8 + 16 + 8 + 8 + 4 + 8 + 1 + 8;

/// An encoded truncation range.
const RANGE_BYTES: usize = 16 + 8 + 8;

const _: () = assert!(carries(&Limits::DEFAULT));

/// Returns whether every message of a volume with these limits fits into a frame.
///
/// The longest are a seal answer, whose records lie within two allocation limits of the VDL that
/// its segment knows, and a batch with its payloads.
#[must_use]
pub const fn carries(limits: &Limits) -> bool {
    let ranges = (limits.history_ranges_max as usize).saturating_mul(RANGE_BYTES);
    let records = limits.allocation_max.saturating_add(1).saturating_mul(2);
    let answer = records.saturating_mul(RECORD_BYTES as u64).saturating_add(ranges as u64);
    let batch = limits.batch_records_max as usize;
    let fixed = 1024;
    answer.saturating_add(fixed) <= ENVELOPE_BYTES_MAX as u64
        && batch.saturating_mul(PAGE_BYTES_MAX) <= PAYLOAD_BYTES_MAX
}

/// The first message of whoever connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub struct Hello {
    /// The volume that the caller means.
    pub volume: VolumeId,
    /// The group that the caller believes to have reached; the first one for a client.
    pub group: PgId,
    /// The position that the caller believes to have reached; the first one for a client.
    pub position: Position,
    /// Who calls.
    pub role: Role,
}

/// Who calls a segment or a writer process.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub enum Role {
    /// Someone who only asks for the status.
    Observer,
    /// Another segment of the group.
    Segment {
        /// Its position.
        position: Position,
    },
    /// A writer. Its epochs are told by its messages; all of them carry this instance.
    Writer {
        /// The writer process.
        instance: InstanceId,
    },
    /// A client of a writer process or of a reader process.
    Client,
    /// A reader.
    Reader {
        /// The reader process.
        reader: ReaderId,
    },
}

/// The answer to a [`Hello`] that reached whom it meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub struct Welcome {
    /// The volume's shape and bounds, as they were when the segment was created.
    pub geometry: VolumeGeometry,
    /// How the segment is.
    pub status: Status,
}

/// How a segment is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub struct Status {
    /// The segment's group.
    pub group: PgId,
    /// The segment's position in its group.
    pub position: Position,
    /// Which disk of its position it is.
    pub incarnation: Incarnation,
    /// The membership that it has, or had last.
    pub membership: Membership,
    /// What it holds every record up to.
    pub scl: Scl,
    /// The highest VDL that it knows.
    pub vdl: Vdl,
    /// The highest epoch that it has heard of.
    pub heard: VolumeEpoch,
    /// The highest epoch that it has durably promised.
    pub promised: VolumeEpoch,
    /// The epoch of its history.
    pub history: VolumeEpoch,
    /// The ranges of its history.
    pub history_ranges: u64,
    /// At or under it, only the newest version of each page is left.
    pub base: Lsn,
    /// The garbage floor that its writer has told since it started.
    pub floor: GarbageFloor,
    /// The records that it holds.
    pub records: u64,
    /// The bytes of its log.
    pub log_bytes: u64,
    /// Whether its log was damaged and it lacks something that it may have acknowledged: it has no
    /// vote until its peers have repaired it.
    pub impaired: bool,
}

/// The answer to a [`Hello`] that is turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize, thiserror::Error)]
pub enum HelloRefusal {
    /// Too many connections.
    #[error("it has as many connections as it takes: try again later")]
    Full,
    /// The caller speaks another version of the protocol.
    #[error("the node speaks another version of the protocol")]
    OtherVersion,
    /// This address is another segment's.
    #[error("segment {position} of {group} answers there")]
    WrongSegment {
        /// The group served here.
        group: PgId,
        /// The position served here.
        position: Position,
    },
    /// This address serves another volume.
    #[error("volume {volume} is served there")]
    WrongVolume {
        /// The volume served here.
        volume: VolumeId,
    },
    /// A segment, a writer or an observer has reached a writer process.
    #[error("a writer process answers there, not a segment")]
    NoSegment,
    /// A client has reached a segment.
    #[error("a segment answers there, not a writer process")]
    NoWriter,
}

/// Everything that processes say to each other.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub enum Envelope {
    /// The caller's first message.
    Hello(Hello),
    /// The caller is turned away; the connection ends.
    Refused(HelloRefusal),
    /// The answer to a request for the status.
    Status(Status),
    /// A request for the status.
    StatusRequest,
    /// A message between machines, to a segment.
    ToSegment(ToSegment),
    /// A message between machines, to a writer.
    ToWriter(ToWriter),
    /// The caller is at the right place.
    Welcome(Welcome),
    /// A client is at the right place.
    ClientWelcome(ClientWelcome),
    /// A request of a client.
    FromClient(ClientRequest),
    /// The answer to a request of a client.
    ToClient(ClientReply),
    /// A message between machines, to a reader.
    ToReader(ToReader),
    /// A message between machines, of a reader to the writer that it follows.
    FromReader(FromReader),
    /// Where the segments of a group are, as far as the sender knows.
    Seats(Seats),
}

impl Envelope {
    /// Returns the records whose payloads travel with this envelope, in order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        match self {
            Self::ToSegment(ToSegment::Append(append)) => &append.records,
            Self::ToSegment(ToSegment::Pulled(pulled)) => &pulled.records,
            Self::ToWriter(ToWriter::Read { version, .. })
            | Self::ToReader(ToReader::Read { version, .. }) => version.as_slice(),
            Self::ToReader(ToReader::Redo(redo)) => &redo.records,
            Self::Hello(_)
            | Self::Refused(_)
            | Self::Status(_)
            | Self::StatusRequest
            | Self::ToSegment(
                ToSegment::Behind { .. }
                | ToSegment::Confirm(_)
                | ToSegment::Install(_)
                | ToSegment::Locate(_)
                | ToSegment::Pull(_)
                | ToSegment::Read(_)
                | ToSegment::Seal(_),
            )
            | Self::ToWriter(
                ToWriter::Ack { .. }
                | ToWriter::Confirmed { .. }
                | ToWriter::Located { .. }
                | ToWriter::Refused { .. }
                | ToWriter::Sealed { .. },
            )
            | Self::Welcome(_)
            | Self::ClientWelcome(_)
            | Self::FromClient(_)
            | Self::FromReader(_)
            | Self::Seats(_)
            | Self::ToClient(_)
            | Self::ToReader(
                ToReader::Refused { .. } | ToReader::Standing { .. } | ToReader::Start(_),
            ) => &[],
        }
    }

    /// Returns the pages whose bytes travel with this envelope, in order; no envelope carries both
    /// records and pages.
    #[must_use]
    pub fn pages(&self) -> &[PageSum] {
        match self {
            Self::FromClient(ClientRequest { question: Question::Write { pages }, .. }) => pages,
            Self::ToClient(ClientReply { answer: Answer::Page { page, .. }, .. }) => {
                std::slice::from_ref(page)
            }
            Self::FromClient(_)
            | Self::ToClient(_)
            | Self::ClientWelcome(_)
            | Self::FromReader(_)
            | Self::Hello(_)
            | Self::Refused(_)
            | Self::Status(_)
            | Self::StatusRequest
            | Self::ToReader(_)
            | Self::ToSegment(_)
            | Self::ToWriter(_)
            | Self::Welcome(_)
            | Self::Seats(_) => &[],
        }
    }

    /// Checks that `payload` is what this envelope announces.
    fn check(&self, payload: &[u8]) -> Result<(), PayloadError> {
        match self.pages() {
            [] => payload::check(self.records(), payload),
            pages => client::check(pages, payload),
        }
    }
}

/// One frame, taken apart. The payload's bytes have been checked against the records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The message.
    pub envelope: Envelope,
    /// The payloads of its records, one after the other.
    pub payload: Vec<u8>,
}

/// Bytes that are no frame of this protocol. The connection that brought them is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The header's or the envelope's checksum doesn't match.
    #[error("a frame does not match its checksum")]
    Checksum,
    /// The envelope can't be decoded, or bytes of it are left over.
    #[error("an envelope cannot be decoded")]
    Malformed,
    /// The frame doesn't begin like one.
    #[error("the other side does not speak this protocol")]
    NotQuorate,
    /// A length is above its bound.
    #[error("a frame announces more bytes than any message has")]
    Oversized,
    /// The payload isn't the records'.
    #[error("a frame carries a wrong payload: {0}")]
    Payload(#[from] PayloadError),
    /// The other side speaks another version.
    #[error("the other side speaks version {found} of the protocol, this one version {supported}")]
    UnsupportedVersion {
        /// The version found.
        found: u16,
        /// The version of this process.
        supported: u16,
    },
}

/// Returns the bytes of a frame.
///
/// # Errors
/// [`WireError::Oversized`] when it is above the bounds.
pub fn encode(envelope: &Envelope, payloads: &[&[u8]]) -> Result<Vec<u8>, WireError> {
    let encoded = encode_value(envelope)?;
    let payload_bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
    if encoded.len() > ENVELOPE_BYTES_MAX || payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(WireError::Oversized);
    }
    let envelope_length = u32::try_from(encoded.len()).map_err(|_| WireError::Oversized)?;
    let payload_length = u32::try_from(payload_bytes).map_err(|_| WireError::Oversized)?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + encoded.len() + payload_bytes);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    frame.extend_from_slice(&0u16.to_le_bytes());
    frame.extend_from_slice(&envelope_length.to_le_bytes());
    frame.extend_from_slice(&payload_length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame), &encoded);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&encoded);
    for payload in payloads {
        frame.extend_from_slice(payload);
    }
    Ok(frame)
}

/// What the first bytes of a stream are.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken at once, and never kept")]
pub enum Decoded {
    /// A whole frame.
    Frame {
        /// The frame.
        frame: Frame,
        /// Its length.
        length: usize,
    },
    /// The beginning of a frame: nothing more can be told before so many bytes are there.
    Missing {
        /// The bytes needed, with those that are there.
        needed: usize,
    },
}

/// Takes the first frame off `bytes`.
///
/// # Errors
/// [`WireError`] as soon as it is certain that no frame will come of these bytes.
pub fn decode(bytes: &[u8]) -> Result<Decoded, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Missing { needed: HEADER_BYTES });
    };
    let header = Header::read(header)?;
    let Some((encoded, rest)) = rest.split_at_checked(header.envelope_bytes) else {
        return Ok(Decoded::Missing { needed: HEADER_BYTES + header.envelope_bytes });
    };
    // An envelope is judged as soon as it is there: a wrong length makes nobody wait for a payload
    // that never comes.
    if crc32c::crc32c_append(header.checksum_start, encoded) != header.checksum {
        return Err(WireError::Checksum);
    }
    let length = HEADER_BYTES + header.envelope_bytes + header.payload_bytes;
    let Some((payload, _)) = rest.split_at_checked(header.payload_bytes) else {
        return Ok(Decoded::Missing { needed: length });
    };
    let envelope: Envelope = decode_value(encoded)?;
    envelope.check(payload)?;
    Ok(Decoded::Frame { frame: Frame { envelope, payload: payload.to_vec() }, length })
}

struct Header {
    envelope_bytes: usize,
    payload_bytes: usize,
    checksum: u32,
    checksum_start: u32,
}

impl Header {
    fn read(header: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let [m0, m1, m2, m3, v0, v1, z0, z1, e0, e1, e2, e3, p0, p1, p2, p3, c0, c1, c2, c3] =
            *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(WireError::NotQuorate);
        }
        let found = u16::from_le_bytes([v0, v1]);
        if found != PROTOCOL_VERSION {
            return Err(WireError::UnsupportedVersion { found, supported: PROTOCOL_VERSION });
        }
        if [z0, z1] != [0, 0] {
            return Err(WireError::Malformed);
        }
        let length = |bytes: [u8; 4], max: usize| match usize::try_from(u32::from_le_bytes(bytes)) {
            Ok(length) if length <= max => Ok(length),
            Ok(_) | Err(_) => Err(WireError::Oversized),
        };
        let (start, _) = header.split_at(HEADER_BYTES - 4);
        Ok(Self {
            envelope_bytes: length([e0, e1, e2, e3], ENVELOPE_BYTES_MAX)?,
            payload_bytes: length([p0, p1, p2, p3], PAYLOAD_BYTES_MAX)?,
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
            checksum_start: crc32c::crc32c(start),
        })
    }
}

/// Returns the encoding of a small value, without a header. The log on disk uses it too, under a
/// version of its own.
///
/// # Errors
/// [`WireError::Oversized`] when it is longer than any envelope.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    bincode::serde::encode_to_vec(value, codec()).map_err(|_| WireError::Oversized)
}

/// Returns the value that `bytes`, all of them, encode.
///
/// # Errors
/// [`WireError::Malformed`] when they encode none, or more.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(WireError::Oversized);
    }
    let decoded = bincode::serde::decode_from_slice::<T, _>(bytes, codec());
    let (value, consumed) = decoded.map_err(|_| WireError::Malformed)?;
    if consumed == bytes.len() { Ok(value) } else { Err(WireError::Malformed) }
}

/// Little-endian integers of fixed width: what is decoded is never much larger than its encoding.
fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<ENVELOPE_BYTES_MAX>()
}

#[cfg(test)]
mod tests;
