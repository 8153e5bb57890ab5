//! What goes into a machine and what comes out.
//!
//! The contract, for every machine: call `step` with one input; execute the effects in any order,
//! any time later, or never (a crash); report each finished durable write once, in any order; late
//! or duplicate messages are always safe. Timers and retries are the driver's: it repeats a command
//! or asks for one to be repeated, and no machine counts time.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::consistency::{ReadPoint, Vdl};
use crate::epoch::VolumeEpoch;
use crate::floor::Floor;
use crate::hold::Holds;
use crate::id::{PageId, PgId, Position, ReaderId, SegmentSet, Ticket, WriteId};
use crate::lsn::Lsn;
use crate::membership::{Membership, Step, StepRefusal};
use crate::message::{FromReader, Peer, ToReader, ToSegment, ToWriter};
use crate::record::{Change, Record};
use crate::recovery::Backtrack;
use crate::refusal::Refusal;
use crate::truncation::History;

/// An input of a segment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken at once, and never kept")]
pub enum SegmentInput {
    /// Discard what the garbage floor allows. The driver chooses when it is worth a write.
    Collect,
    /// The write `0` and everything in it survives a crash from now on.
    Durable(WriteId),
    /// The driver chose a peer to ask for what is missing.
    Pull {
        /// The peer.
        from: Position,
    },
    /// A message arrived.
    Receive {
        /// From whom.
        from: Peer,
        /// What.
        message: ToSegment,
    },
}

/// One atomic change of a segment's durable state. Applied whole or not at all.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SegmentWrite {
    /// Raise the promise to this epoch, if it is lower.
    pub promised: VolumeEpoch,
    /// Replace the history by this one, if it is older; drop what it annuls.
    pub history: Option<History>,
    /// Replace the membership by this one, if it is older.
    pub membership: Option<Membership>,
    /// The group's last record that the newest range of that history keeps.
    pub end: Lsn,
    /// The group's last record of the branch that the newest range of that history sets aside, if
    /// it is a backtrack.
    pub tip: Option<Lsn>,
    /// The segment's log was damaged: it counts in no read quorum until it has all of this again.
    pub floor: Option<Floor>,
    /// Raise the known VDL to this, if it is lower.
    pub vdl: Vdl,
    /// Add these records, except for annulled ones.
    #[serde(deserialize_with = "crate::list::deserialize")]
    pub records: Vec<Record>,
    /// Then raise the base to this LSN, if it is lower: discard what newer versions at or under it
    /// supersede. The SCL is never below the last record at or under the base.
    pub base: Lsn,
}

/// An effect of a segment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SegmentEffect {
    /// Make `write` durable, after all earlier ones, then report `id` as durable.
    Persist {
        /// The write's name.
        id: WriteId,
        /// What is to be durable. Payload bytes of its records are those that came with the
        /// message just received.
        write: SegmentWrite,
    },
    /// Send a message to a reader, if it is connected.
    SendReader {
        /// To whom.
        to: ReaderId,
        /// What.
        message: ToReader,
    },
    /// Send a message to another segment of the group.
    SendSegment {
        /// To whom.
        to: Position,
        /// What.
        message: ToSegment,
    },
    /// Send a message to the writer of an epoch, if it is connected.
    SendWriter {
        /// To whom.
        to: VolumeEpoch,
        /// What.
        message: ToWriter,
    },
    /// A gossip message was refused; nothing changed.
    Unusable(Refusal),
}

/// An input of a writer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken at once, and never kept")]
pub enum WriterInput {
    /// Tell every reader what each segment holds.
    Brief,
    /// Ask a read quorum whether this writer is still the highest, for a strict read.
    Confirm {
        /// Names this question; tickets of a writer rise.
        ticket: Ticket,
    },
    /// A reader has vanished: its registration ends, and the garbage floor may pass it (edge 45).
    Expel {
        /// The reader.
        reader: ReaderId,
    },
    /// Keep what these named floors keep, instead of those told before. The garbage floor of a
    /// writer doesn't move before the first.
    Hold {
        /// All of them.
        holds: Holds,
    },
    /// Find out what every group's log ends with at `target`, a consistency point to which the
    /// volume is to go back, or forward again.
    Locate {
        /// Names this question; a later one takes the place of the one before.
        ticket: Ticket,
        /// The consistency point.
        target: Lsn,
    },
    /// Tell every segment the VDL.
    Publish,
    /// Read a page from one segment.
    Read {
        /// Names this read.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point; `None` for the VDL.
        read_point: Option<ReadPoint>,
        /// The segment to ask; see [`crate::writer::Writer::complete`].
        from: Position,
    },
    /// A message arrived.
    Receive {
        /// The sender's group.
        group: PgId,
        /// The sender's position.
        from: Position,
        /// What.
        message: ToWriter,
    },
    /// A message of a reader arrived.
    ReceiveReader {
        /// The reader.
        from: ReaderId,
        /// What.
        message: FromReader,
    },
    /// The connection to a segment is new: send it again what it may lack.
    Resend {
        /// The segment's group.
        group: PgId,
        /// The segment's position.
        to: Position,
    },
    /// Take a step of a membership change, or let the volume grow.
    Step {
        /// The group.
        group: PgId,
        /// The step.
        step: Step,
    },
    /// Write one mini-transaction: all changes take effect together.
    Write {
        /// The changes, in order.
        changes: Vec<Change>,
    },
}

/// Why a writer doesn't carry out a command.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CommandRefusal {
    /// A page that the volume doesn't have: it would have to grow.
    BeyondVolume {
        /// The page.
        page: PageId,
    },
    /// A point under the garbage floor: what was there is discarded.
    Collected {
        /// The floor.
        floor: Lsn,
    },
    /// A mini-transaction without changes.
    Empty,
    /// A higher epoch is known to exist.
    Fenced {
        /// That epoch.
        by: VolumeEpoch,
    },
    /// The volume's history takes no further recovery.
    HistoryFull,
    /// No mini-transaction ends at the LSN that was asked for.
    NotConsistent {
        /// The highest consistency point at or under it.
        nearest: Lsn,
    },
    /// The writer has not finished its recovery.
    NotOpen,
    /// The number space is used up.
    OutOfLsns,
    /// More changes than a batch, or than the allocation limit, can ever hold.
    Oversized,
    /// A read point above the VDL.
    ReadPointAhead,
    /// The volume opened at its end, not where it was to go back to: somebody else has opened it
    /// since that point was located.
    Superseded,
    /// A step of a membership change that can't be taken, or not yet.
    Step(StepRefusal),
    /// A point above the end of the log that no branch set aside reaches, or can any more.
    TargetAhead,
    /// Too far beyond the VDL: wait for it to advance (LAL back-pressure).
    Throttled,
    /// No such segment.
    UnknownSegment,
}

/// What a writer has to say to its driver.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Report {
    /// A question of [`WriterInput::Confirm`] is answered: no higher epoch was open when the last
    /// answer was given. A read at `read_point` or later is linearizable.
    Confirmed {
        /// The question's ticket.
        ticket: Ticket,
        /// The VDL when the question was asked.
        read_point: ReadPoint,
    },
    /// Every commit at or under `vdl` is durable: tell the clients.
    Durable {
        /// The volume durable LSN.
        vdl: Vdl,
    },
    /// The volume has a group more, known to every later recovery: its pages can be written.
    Grown {
        /// The group.
        group: PgId,
    },
    /// What was asked for by [`WriterInput::Locate`]: a writer that opens with it goes there.
    Located {
        /// The question's ticket.
        ticket: Ticket,
        /// Where the volume can go.
        backtrack: Backtrack,
    },
    /// The recovery is finished; the volume is open.
    Opened {
        /// The recovery point, the VDL now.
        vdl: Vdl,
        /// The LSNs at or under this one are used up.
        through: Lsn,
    },
    /// A higher epoch exists: this writer has stopped for ever.
    Overtaken {
        /// That epoch.
        by: VolumeEpoch,
    },
    /// A page was read.
    Read {
        /// The read's ticket.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point.
        read_point: ReadPoint,
        /// The page's last record, `None` for a page never written.
        version: Option<Record>,
    },
    /// A read was refused by the segment asked; ask another.
    ReadRefused {
        /// The read's ticket.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// A command is not carried out.
    Refused(CommandRefusal),
    /// A step of a membership change is durable, and a write quorum knows it: the next may be
    /// taken.
    Settled {
        /// The group.
        group: PgId,
        /// The membership, settled.
        membership: Membership,
    },
    /// A segment refused something because a bound of the volume is reached, or for a reason that
    /// only a fault can bring about.
    Rejected {
        /// The segment's group.
        group: PgId,
        /// The segment's position.
        from: Position,
        /// Why.
        refusal: Refusal,
    },
    /// A mini-transaction has its LSNs; it is committed once the VDL reaches `cpl`.
    Written {
        /// The first record's LSN.
        first: Lsn,
        /// The last record's LSN, the consistency point.
        cpl: Lsn,
    },
}

/// An effect of a writer. A writer has no durable state: there is no write among them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum WriterEffect {
    /// Tell the driver.
    Report(Report),
    /// Send a message to a reader, if it is connected.
    SendReader {
        /// To whom.
        to: ReaderId,
        /// What.
        message: ToReader,
    },
    /// Send a message to segments of a group.
    Send {
        /// The group.
        group: PgId,
        /// The segments.
        to: SegmentSet,
        /// What.
        message: ToSegment,
    },
}
