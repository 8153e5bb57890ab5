//! Who has connected to a node.

use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, Position, ReaderId};
use quorate_core::message::ToSegment;
use quorate_core::rules::Rules;

use crate::clock::Moment;
use crate::connection::Connection;
use crate::env::{LogFile, Stream};
use crate::host::SegmentHost;

/// Above so many bytes on their way to the disk, a node stops reading what would add to them.
const WAITING_BYTES_MAX: u64 = 32 << 20;

/// Above so many bytes that a caller doesn't fetch, a node stops taking its questions.
const BACKLOG_BYTES_MAX: usize = 32 << 20;

/// How long a caller may take to say who it is.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long a caller may neither say nor take anything. Links ask how the other side is long
/// before, so that whoever is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Somebody who has connected to this node.
#[derive(Debug)]
pub(super) struct Caller<S> {
    pub(super) connection: Connection<S>,
    pub(super) role: CallerRole,
    pub(super) since: Moment,
    /// How many bytes had moved when it was last looked at, and since when there are so many.
    moved: (u64, Moment),
}

impl<S: Stream> Caller<S> {
    pub(super) const fn new(connection: Connection<S>, since: Moment) -> Self {
        Self { connection, role: CallerRole::Unknown, since, moved: (0, since) }
    }

    /// Returns whether the connection is worth keeping.
    pub(super) fn is_alive(&mut self, waits_for_disk: bool, now: Moment) -> bool {
        let moved = self.connection.moved();
        // Who isn't read from can't be heard.
        if waits_for_disk || moved != self.moved.0 {
            self.moved = (moved, now);
        }
        let is_greeted = !matches!(self.role, CallerRole::Unknown);
        let is_late = !is_greeted && now.since(self.since) >= GREETING_MAX;
        !is_late && now.since(self.moved.1) < SILENCE_MAX
    }
}

/// Who a caller is.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallerRole {
    Observer,
    Reader(ReaderId),
    Segment(Position),
    Unknown,
    /// A writer, with the epoch of its last message.
    Writer {
        instance: InstanceId,
        epoch: VolumeEpoch,
    },
}

impl CallerRole {
    pub(super) const fn epoch(self) -> Option<VolumeEpoch> {
        match self {
            Self::Observer | Self::Reader(_) | Self::Segment(_) | Self::Unknown => None,
            Self::Writer { epoch, .. } => Some(epoch),
        }
    }
}

/// Returns whether a node reads from nobody, because of its disk.
pub(super) fn waits_for_disk<L: LogFile, R: Rules>(host: &SegmentHost<L, R>) -> bool {
    host.waiting_bytes() > WAITING_BYTES_MAX
}

/// Returns whether a caller has to wait: for the disk, or until it takes what it asked for.
pub(super) fn is_paused<L: LogFile, R: Rules, S: Stream>(
    host: &SegmentHost<L, R>,
    caller: &Caller<S>,
) -> bool {
    waits_for_disk(host) || caller.connection.backlog() > BACKLOG_BYTES_MAX
}

/// Returns whether a pull lists more records than a batch has: no segment does, and looking each up
/// would take the node's time from everybody else.
pub(super) fn asks_too_much(message: &ToSegment, batch_records_max: u32) -> bool {
    let most = usize::try_from(batch_records_max).unwrap_or(usize::MAX);
    matches!(message, ToSegment::Pull(pull) if pull.beyond.len() > most)
}

/// Returns the epoch of a writer's message, or `None` for a message that writers don't send.
pub(super) fn epoch_of(message: &ToSegment) -> Option<VolumeEpoch> {
    match message {
        ToSegment::Append(append) => Some(append.epoch),
        ToSegment::Confirm(confirm) => Some(confirm.epoch),
        ToSegment::Install(install) => Some(install.history.epoch()),
        ToSegment::Locate(locate) => Some(locate.epoch),
        ToSegment::Read(read) => Some(read.epoch),
        ToSegment::Seal(seal) => Some(seal.epoch),
        ToSegment::Behind { .. } | ToSegment::Pull(_) | ToSegment::Pulled(_) => None,
    }
}
