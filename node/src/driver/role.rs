//! Who has connected to a node.

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, Position};
use quorate_core::message::ToSegment;

/// Who a caller is.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallerRole {
    Observer,
    Segment(Position),
    Unknown,
    /// A writer, with the epoch of its last message.
    Writer {
        instance: InstanceId,
        epoch: VolumeEpoch,
    },
}

impl CallerRole {
    /// Returns the epoch of a writer's last message.
    pub(super) const fn epoch(self) -> Option<VolumeEpoch> {
        match self {
            Self::Observer | Self::Segment(_) | Self::Unknown => None,
            Self::Writer { epoch, .. } => Some(epoch),
        }
    }
}

/// Returns the epoch of a writer's message, or `None` for a message that writers don't send.
pub(super) fn epoch_of(message: &ToSegment) -> Option<VolumeEpoch> {
    match message {
        ToSegment::Append(append) => Some(append.epoch),
        ToSegment::Confirm(confirm) => Some(confirm.epoch),
        ToSegment::Install(install) => Some(install.history.epoch()),
        ToSegment::Read(read) => Some(read.epoch),
        ToSegment::Seal(seal) => Some(seal.epoch),
        ToSegment::Behind { .. } | ToSegment::Pull(_) | ToSegment::Pulled(_) => None,
    }
}
