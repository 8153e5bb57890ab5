//! What clients and a writer process say to each other.
//!
//! A client asks under a ticket of its own choice and gets one reply to each; replies come in any
//! order. Pages travel as they are in the frame's payload, each with a checksum in the envelope.

use quorate_core::consistency::{ReadPoint, Vcl, Vdl};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PageId, PgId, Position, SEGMENTS_MAX, Ticket};
use quorate_core::list;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Step;
use serde::{Deserialize, Serialize};

use super::members::{Stepped, VolumeMembers};
use crate::addresses::Place;
use crate::payload::{PAGE_BYTES_MAX, PayloadError};
use crate::volume::{Committed, Consistency, PointError, VolumeError};

/// The most pages of one write through a writer process: with their bytes they fit into a frame.
pub const WRITE_PAGES_MAX: usize = 1024;

/// The most protection groups of a volume.
const GROUPS_MAX: usize = quorate_core::geometry::GROUPS_MAX as usize;

const _: () = assert!(WRITE_PAGES_MAX * PAGE_BYTES_MAX <= super::PAYLOAD_BYTES_MAX);

/// A page whose bytes are part of the frame's payload.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PageSum {
    /// The page.
    pub page: PageId,
    /// How many bytes it has.
    pub length: u32,
    /// The CRC-32C over the page's number and its bytes.
    pub checksum: u32,
}

impl PageSum {
    /// Returns the description of `bytes` as the contents of `page`, or `None` when there are more
    /// than [`PAGE_BYTES_MAX`].
    #[must_use]
    pub fn describe(page: PageId, bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PAGE_BYTES_MAX {
            return None;
        }
        let length = u32::try_from(bytes.len()).ok()?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&page.get().to_le_bytes()), bytes);
        Some(Self { page, length, checksum })
    }
}

/// Checks that `bytes` are exactly those of `pages`, in order.
///
/// # Errors
/// [`PayloadError`] says what is wrong with them.
pub(super) fn check(pages: &[PageSum], bytes: &[u8]) -> Result<(), PayloadError> {
    let announced: u64 = pages.iter().map(|page| u64::from(page.length)).sum();
    let found = bytes.len() as u64;
    if announced != found {
        return Err(PayloadError::Length { announced, found });
    }
    for (page, own) in cut(pages, bytes) {
        if PageSum::describe(page.page, own) != Some(*page) {
            return Err(PayloadError::Page { page: page.page });
        }
    }
    Ok(())
}

/// Cuts `bytes`, which came with a frame, into those of `pages`.
pub fn cut<'a>(
    pages: &'a [PageSum],
    bytes: &'a [u8],
) -> impl Iterator<Item = (&'a PageSum, &'a [u8])> {
    pages.iter().scan(bytes, |rest, page| {
        let length = usize::try_from(page.length).unwrap_or(usize::MAX);
        let (own, others) = rest.split_at_checked(length)?;
        *rest = others;
        Some((page, own))
    })
}

/// What a client asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientRequest {
    /// The client's name for the request, echoed by the reply.
    pub ticket: Ticket,
    /// What is asked.
    pub question: Question,
}

/// What a client can ask.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Question {
    /// A page.
    Read {
        /// Which.
        page: PageId,
        /// What the read may assume.
        consistency: Consistency,
    },
    /// How the writer is.
    Status,
    /// Pages to be written as one mini-transaction; the reply comes when it is durable for good.
    Write {
        /// The pages.
        #[serde(deserialize_with = "list::deserialize")]
        pages: Vec<PageSum>,
    },
    /// Who the members of the volume's groups are, and which change is under way.
    Members,
    /// A step of a membership change.
    Step {
        /// The group.
        group: PgId,
        /// The step.
        step: Step,
        /// Where the segment that joins by it is.
        place: Option<Place>,
    },
    /// Go back to this consistency point, or forward again.
    Backtrack {
        /// The point.
        target: Lsn,
    },
}

/// The answer to one request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientReply {
    /// The request's ticket.
    pub ticket: Ticket,
    /// The answer.
    pub answer: Answer,
}

/// What a client is answered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    /// The page that was asked for.
    Page {
        /// The page and its bytes; without bytes if it was never written.
        page: PageSum,
        /// It is as all commits at or under this point left it.
        read_point: ReadPoint,
        /// The LSN of its last record, `None` for a page never written.
        lsn: Option<Lsn>,
    },
    /// How the reader is, if it is one that was asked.
    Reader(ReaderStatus),
    /// The request is refused.
    Refused(ClientRefusal),
    /// How the writer is.
    Status(Box<WriterStatus>),
    /// The write is durable for good.
    Written(Committed),
    /// The members of the volume's groups.
    Members(VolumeMembers),
    /// What became of a step.
    Stepped(Stepped),
    /// The volume is open where it was to go.
    Opened {
        /// The epoch.
        epoch: VolumeEpoch,
        /// The point.
        recovery_point: Vdl,
    },
}

/// Why a writer process can't do what a client asks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum ClientRefusal {
    /// The segments take no write of this size.
    #[error("the segments refuse a write of this size; its outcome is unknown")]
    BatchRefused,
    /// A write without pages.
    #[error("a write needs at least one page")]
    Empty,
    /// The segments' logs hold as many records as the volume's limits allow.
    #[error(
        "the volume is full: its segments hold as many records as its limits allow. The outcome \
         of the write is unknown; reads go on. Copy the volume into a new one"
    )]
    LogFull,
    /// Too few segments have told in time what there is at a point.
    #[error(
        "too few segments told in time what there is at that LSN, so the volume stays where it is. \
         Going back takes four of every group; going forward takes one that was there when the \
         volume went back. Start those that are down, and ask again"
    )]
    NotLocated,
    /// There is no consistency point to go to.
    #[error(
        "no mini-transaction ends at that LSN: the nearest consistency point under it is {nearest}"
    )]
    NoPoint {
        /// The nearest one under it.
        nearest: Lsn,
    },
    /// The number space is used up.
    #[error("the volume's log has no positions left: copy it into a new volume")]
    OutOfLsns,
    /// A newer writer has the volume. A write under way may or may not be part of it.
    #[error(
        "overtaken by {by}: another writer has the volume now, and this one ends. Ask the new \
         writer, or start this one again to take the volume back"
    )]
    Overtaken {
        /// The epoch of the newer writer.
        by: VolumeEpoch,
    },
    /// A page above its bound, or too many pages.
    #[error("a page has at most 8192 bytes, and a write at most 1024 pages: write less at once")]
    Oversized,
    /// The read point isn't one.
    #[error(transparent)]
    Point(#[from] PointError),
    /// A point above the end, and not on a branch that was left.
    #[error(
        "no record at that LSN is part of the volume: it is above the end, between two epochs, or \
         on a branch that was left and is out of reach, since a volume goes forward again only \
         until something is written"
    )]
    PointAhead,
    /// A point under the garbage floor.
    #[error(
        "what was at that LSN is discarded: the volume goes back to LSN {floor} at most, where its \
         backtrack window begins (`backtrack_window_records` of its writer)"
    )]
    PointDiscarded {
        /// The lowest point that there still is.
        floor: Lsn,
    },
    /// A reader was asked for what only the writer does.
    #[error(
        "this is a reader: it reads as of its own point, or of an LSN that it waits for (`--min`). \
         Ask the writer for anything else"
    )]
    Reader,
    /// The writer is ending. A write under way may or may not take effect.
    #[error("the writer is ending; the outcome of writes under way is unknown. Start it again")]
    Stopped,
    /// No segment could answer a read in time.
    #[error(
        "no segment could answer in time: those that have the page are down, or have discarded \
         versions that this reader needs since its writer took it for dead. Ask again"
    )]
    Unanswered,
    /// The volume has gone to another point of its log meanwhile, or is about to.
    #[error(
        "the volume goes to another point of its log; a write under way may or may not be part of \
         it. Read what is there, and ask again"
    )]
    WentElsewhere,
}

impl From<VolumeError> for ClientRefusal {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::BatchRefused => Self::BatchRefused,
            VolumeError::Empty => Self::Empty,
            VolumeError::LogFull => Self::LogFull,
            VolumeError::NoPoint { nearest } => Self::NoPoint { nearest },
            VolumeError::NotLocated => Self::NotLocated,
            VolumeError::PointAhead => Self::PointAhead,
            VolumeError::PointDiscarded { floor } => Self::PointDiscarded { floor },
            VolumeError::WentElsewhere => Self::WentElsewhere,
            VolumeError::OutOfLsns => Self::OutOfLsns,
            VolumeError::Overtaken { by } => Self::Overtaken { by },
            VolumeError::Oversized => Self::Oversized,
            VolumeError::Point(point) => Self::Point(point),
            VolumeError::Closed
            | VolumeError::HistoryFull
            | VolumeError::OtherGeometry { .. }
            | VolumeError::System(_)
            | VolumeError::TimedOut
            | VolumeError::Unavailable(_) => Self::Stopped,
        }
    }
}

/// The first message of a writer process to a client.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClientWelcome {
    /// The volume's shape and bounds.
    pub geometry: VolumeGeometry,
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
}

/// How a reader is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReaderStatus {
    /// The epoch of the writer that registered it.
    pub epoch: VolumeEpoch,
    /// Its reads see every commit at or under this point.
    pub vdl: Vdl,
    /// The lowest point at which it still reads.
    pub floor: ReadPoint,
    /// Whether a stream goes on without a gap, as far as it knows.
    pub is_following: bool,
    /// How many streams have begun.
    pub streams: u64,
    /// How many pages it has in memory.
    pub pages: u64,
    /// Reads without an answer.
    pub reads_under_way: u64,
}

/// How a writer is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WriterStatus {
    /// Its epoch.
    pub epoch: VolumeEpoch,
    /// Where it opened: every commit at or under this point is in the volume, no other is.
    pub recovery_point: Vdl,
    /// At or under it every record is on its write quorum.
    pub vcl: Vcl,
    /// At or under it commits are acknowledged.
    pub vdl: Vdl,
    /// The last LSN allocated.
    pub tail: Lsn,
    /// How many more LSNs may be allocated before the VDL advances.
    pub allowance: u64,
    /// The protection groups, by number.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, GROUPS_MAX>")]
    pub groups: Vec<GroupStatus>,
    /// How many clients are connected.
    pub connections: u64,
    /// Writes that are not durable yet.
    pub writes_under_way: u64,
    /// Writes that wait for room.
    pub writes_waiting: u64,
    /// Reads without an answer.
    pub reads_under_way: u64,
    /// Reads that were asked of a second segment because the first one took long.
    pub reads_hedged: u64,
    /// Reads that were asked of a slow segment too, to see whether it still is.
    pub reads_probed: u64,
    /// Payload bytes that are not durable yet.
    pub bytes_under_way: u64,
}

/// How a protection group is, as its writer sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GroupStatus {
    /// The group.
    pub group: PgId,
    /// At or under it the group has met its write quorum.
    pub pgcl: Lsn,
    /// The segments, by position.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, SEGMENTS_MAX>")]
    pub segments: Vec<SegmentView>,
}

/// A segment as its writer sees it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SegmentView {
    /// Its position.
    pub position: Position,
    /// Whether there is a connection to it.
    pub is_up: bool,
    /// The SCL that it has acknowledged to this writer.
    pub scl: Option<Lsn>,
    /// How many LSNs its SCL is behind the group's PGCL.
    pub behind: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::{Envelope, WireError, decode, encode};

    fn write(pages: &[(u64, &[u8])]) -> Envelope {
        let pages = pages
            .iter()
            .map(|(page, bytes)| PageSum::describe(PageId::new(*page), bytes).unwrap())
            .collect();
        let question = Question::Write { pages };
        Envelope::FromClient(ClientRequest { ticket: Ticket::new(1), question })
    }

    /// Bytes that got lost, changed or swapped on the way must not become a page.
    #[test]
    fn pages_are_taken_only_with_their_own_bytes() {
        let write = write(&[(1, b"one"), (2, b"two")]);
        let carried = |bytes: &[&[u8]]| decode(&encode(&write, bytes).unwrap()).map(|_| ());
        assert_eq!(carried(&[b"one", b"two"]), Ok(()));
        let page = |page| Err(WireError::Payload(PayloadError::Page { page: PageId::new(page) }));
        assert_eq!(carried(&[b"one", b"twO"]), page(2));
        assert_eq!(carried(&[b"two", b"one"]), page(1));
        let length = PayloadError::Length { announced: 6, found: 5 };
        assert_eq!(carried(&[b"one", b"tw"]), Err(length.into()));
    }

    /// The bytes of a version are fixed: clients and writers of it must understand each other.
    #[test]
    fn the_bytes_of_a_request_are_as_they_were() {
        assert_eq!(crate::wire::PROTOCOL_VERSION, 4);
        let bytes = encode(&write(&[(7, b"redo")]), &[b"redo"]).unwrap();
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex, GOLDEN_WRITE);
    }

    const GOLDEN_WRITE: &str = "\
        515254010400000028000000040000006584d47808000000010000000000000002000000010000000000\
        000007000000000000000400000028e6c87b7265646f";

    /// A page above its bound must be refused before anybody keeps it.
    #[test]
    fn a_page_above_its_bound_has_no_sum() {
        assert!(PageSum::describe(PageId::new(0), &[0; PAGE_BYTES_MAX]).is_some());
        assert_eq!(PageSum::describe(PageId::new(0), &[0; PAGE_BYTES_MAX + 1]), None);
    }
}
