//! What machines say to each other. Machines never import one another; they meet here.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::consistency::{GarbageFloor, ReadPoint, Scl, Vdl};
use crate::epoch::VolumeEpoch;
use crate::geometry::{Added, VolumeGeometry};
use crate::id::{Incarnation, PageId, PgId, Position, Positions, ReaderId, Ticket};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::truncation::History;

/// Who sent a message to a segment, or who is to get one from it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Peer {
    /// A reader.
    Reader(ReaderId),
    /// The segment at this position of the same group.
    Segment(Position),
    /// The writer of this epoch.
    Writer(VolumeEpoch),
}

/// A batch of one group's records (protocol: write path).
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Append {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// The group.
    pub group: PgId,
    /// The writer's VDL when it sent this.
    pub vdl: Vdl,
    /// The writer's garbage floor when it sent this: never above its VDL. It holds in this epoch
    /// (edge 46).
    pub floor: GarbageFloor,
    /// The records, by rising LSN; none when only the VDL is told.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
}

/// A demand to promise an epoch and to report (protocol: recovery, seal).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Seal {
    /// The epoch to promise.
    pub epoch: VolumeEpoch,
    /// The group.
    pub group: PgId,
    /// A point under the VDL that the segment has reported, to which the volume has gone back
    /// without it: asked again, it reports what it has there.
    pub at: Option<Lsn>,
}

/// The history that a recovery decided on, and the group's membership under the same epoch: the one
/// that the recovery adopted, or the next step of the open writer (protocol: recovery, install; and
/// membership).
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Install {
    /// The group.
    pub group: PgId,
    /// The history; its epoch is the writer's.
    pub history: History,
    /// The group's last record at or under the recovery point, zero for none.
    pub end: Lsn,
    /// The group's last record of the branch that the newest range sets aside, if it is a
    /// backtrack.
    pub tip: Option<Lsn>,
    /// The membership; its volume epoch is the writer's. Taken in the same atomic step (edge 67).
    pub membership: Membership,
}

/// A question what the group's log ends with at a consistency point (protocol: backtrack).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Locate {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// The group.
    pub group: PgId,
    /// Echoed by the answer.
    pub ticket: Ticket,
    /// The point.
    pub target: Lsn,
    /// The group's last LSN at or under the VDL: what the segment must hold.
    pub needed: Lsn,
}

/// What a group's log ends with at a point.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Place {
    /// The last record at or under the point, zero for none.
    pub end: Lsn,
    /// The last consistency point among the records at or under it, zero for none.
    pub cpl: Lsn,
    /// The group's last record of the branch that a backtrack set aside, if there is one.
    pub tip: Option<Lsn>,
}

/// A read of one page at a read point (protocol: reads).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Read {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// The group.
    pub group: PgId,
    /// Echoed by the answer.
    pub ticket: Ticket,
    /// The page.
    pub page: PageId,
    /// The read point.
    pub read_point: ReadPoint,
    /// The group's last LSN at or under the read point: what the segment must hold (edge 42).
    pub needed: Lsn,
}

/// A question whether a higher epoch has been promised (protocol: strict reads).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Confirm {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// The group.
    pub group: PgId,
    /// Echoed by the answer.
    pub ticket: Ticket,
}

/// A segment's request for what it lacks (protocol: gossip).
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Pull {
    /// The group.
    pub group: PgId,
    /// Epoch of the asking segment's history.
    pub history: VolumeEpoch,
    /// What the asking segment holds every record up to.
    pub scl: Scl,
    /// While it takes over a base page by page: that base, zero otherwise.
    pub base: Lsn,
    /// While it takes over a base: what it has of it, every version at or under this LSN.
    pub through: Lsn,
    /// The first records above its SCL that it holds nevertheless; a list longer than a batch is
    /// refused.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub beyond: Vec<Lsn>,
}

/// A segment's answer to [`Pull`]: records, and with them the history that they survive.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Pulled {
    /// The group.
    pub group: PgId,
    /// The answering segment's history.
    pub history: History,
    /// The group's last record that the newest range of that history keeps, zero for none.
    pub end: Lsn,
    /// The group's last record of the branch that a backtrack set aside, if the answering segment
    /// knows one.
    pub tip: Option<Lsn>,
    /// The answering segment's membership, of the history's epoch.
    pub membership: Membership,
    /// The highest VDL that the answering segment knows.
    pub vdl: Vdl,
    /// The answering segment's base, if it is above the asking one's SCL, zero otherwise: at or
    /// under it, `records` are the newest versions of their pages, and superseded ones are gone.
    pub base: Lsn,
    /// Where `base` is not zero, the records begin above this LSN.
    pub after: Lsn,
    /// Records that the asking segment lacks, by rising LSN.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
}

/// A message to a segment.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ToSegment {
    /// A batch of records from a writer.
    Append(Append),
    /// Another segment's history is older than ours: the answer to our pull is no.
    Behind {
        /// The group.
        group: PgId,
        /// Epoch of that segment's history.
        history: VolumeEpoch,
    },
    /// A writer asks whether it is still the highest.
    Confirm(Confirm),
    /// A writer installs its history.
    Install(Install),
    /// A writer asks what the group's log ends with at a point.
    Locate(Locate),
    /// Another segment asks for what it lacks.
    Pull(Pull),
    /// Another segment answers our pull.
    Pulled(Pulled),
    /// A writer reads a page.
    Read(Read),
    /// A recovery seals.
    Seal(Seal),
}

/// A segment's report to the recovery that sealed it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SealAnswer {
    /// The volume's shape and bounds.
    pub geometry: VolumeGeometry,
    /// The history that the segment has.
    pub history: History,
    /// Which disk of its position the segment is.
    pub incarnation: Incarnation,
    /// The membership that the segment has, or had last.
    pub membership: Membership,
    /// What the segment holds every record up to, under that history.
    pub scl: Scl,
    /// The highest VDL that the segment knows.
    pub vdl: Vdl,
    /// The records that the segment holds above `vdl`, and the last one at or under it; by LSN.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
    /// The point that was asked about, and the last record of the segment's chain at or under it.
    pub anchor: Option<(Lsn, Lsn)>,
    /// What the segment would report had it not taken part in the last backtrack, as long as that
    /// can be undone.
    pub aside: Option<Aside>,
}

/// A segment's report as if it had not gone back: a backtrack that wasn't finished may be none, and
/// then what rests on this segment counts.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Aside {
    /// What the segment holds every record up to.
    pub scl: Scl,
    /// The highest VDL that it knew.
    pub vdl: Vdl,
    /// The records that it holds above `vdl`, and the last one at or under it; by LSN.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
}

/// A message to a writer. The driver says which segment of which group sent it.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each message")]
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ToWriter {
    /// Everything up to `scl` is durable, under the history of `epoch`.
    Ack {
        /// The epoch whose history the segment has and has promised (edge 28).
        epoch: VolumeEpoch,
        /// Which disk of its position the segment is (edge 29).
        incarnation: Incarnation,
        /// The number, under `epoch`, of the membership that the segment has.
        number: u32,
        /// The segment complete LSN.
        scl: Scl,
    },
    /// No higher epoch than `epoch` has been promised.
    Confirmed {
        /// The epoch asked about.
        epoch: VolumeEpoch,
        /// Which disk of its position the segment is.
        incarnation: Incarnation,
        /// The question's ticket.
        ticket: Ticket,
    },
    /// What the group's log ends with at a point.
    Located {
        /// The epoch that asked.
        epoch: VolumeEpoch,
        /// The question's ticket.
        ticket: Ticket,
        /// The answer.
        place: Place,
    },
    /// The page's last record at or under the read point, `None` for a page never written.
    Read {
        /// The epoch of the read.
        epoch: VolumeEpoch,
        /// The read's ticket.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point.
        read_point: ReadPoint,
        /// The record, whose payload the driver sends along.
        version: Option<Record>,
    },
    /// The request is refused.
    Refused {
        /// The epoch of the request.
        epoch: VolumeEpoch,
        /// The request's ticket, if it had one.
        ticket: Option<Ticket>,
        /// Why.
        refusal: Refusal,
    },
    /// The segment has promised `epoch` and reports.
    Sealed {
        /// The epoch promised.
        epoch: VolumeEpoch,
        /// What the segment has.
        answer: SealAnswer,
    },
}

/// A message to a reader, from the writer that it follows or from a segment that it reads.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ToReader {
    /// A segment's answer: the page's last record at or under the read point.
    Read {
        /// The epoch of the read.
        epoch: VolumeEpoch,
        /// The read's ticket.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point.
        read_point: ReadPoint,
        /// The record, whose payload the driver sends along; `None` for a page never written.
        version: Option<Record>,
    },
    /// The writer's redo, and its VDL.
    Redo(Redo),
    /// A segment's refusal of a read.
    Refused {
        /// The epoch of the read.
        epoch: VolumeEpoch,
        /// The read's ticket.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// What each segment of a group holds. Advice: whoever is asked says so itself.
    Standing {
        /// The writer's epoch.
        epoch: VolumeEpoch,
        /// The group.
        group: PgId,
        /// By position: the SCL of each segment as far as the writer knows; `None` for who is in
        /// no membership that counts.
        scls: Positions<Option<Lsn>>,
    },
    /// The writer begins a stream to this reader, and has registered it.
    Start(Start),
}

/// The beginning of a stream: the acknowledgement of a registration (edge 44).
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Start {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// Names the stream: sessions of one writer rise.
    pub session: u64,
    /// The VDL at which the stream begins.
    pub vdl: Vdl,
    /// No version is discarded that a read at or above this point needs.
    pub floor: ReadPoint,
    /// By group: its last record at or under `vdl` (edge 42).
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub ends: Vec<Lsn>,
}

/// One message of a stream (edge 50).
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Redo {
    /// The writer's epoch.
    pub epoch: VolumeEpoch,
    /// The stream.
    pub session: u64,
    /// The number of this message in its stream, from zero, without a gap.
    pub number: u64,
    /// The writer's VDL.
    pub vdl: Vdl,
    /// How many groups the volume has got since it was created: a new one is told before its first
    /// record.
    pub added: Added,
    /// The records that follow those of the message before; they may be above the VDL.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
}

/// A message of a reader to the writer that it follows. The driver says who sent it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum FromReader {
    /// Registers the reader, and asks for a stream from its beginning.
    Attach {
        /// The lowest point at which it would like to go on reading; `None` if it never read.
        floor: Option<ReadPoint>,
    },
    /// The reader reads no more.
    Detach,
    /// No read below `floor` is live any more.
    Release {
        /// The epoch of the writer that registered the reader.
        epoch: VolumeEpoch,
        /// The lowest live read point.
        floor: ReadPoint,
    },
}
