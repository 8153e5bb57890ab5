//! What a segment whose log is damaged may have promised and acknowledged.

use serde::{Deserialize, Serialize};

use crate::epoch::VolumeEpoch;
use crate::image::SegmentImage;
use crate::lsn::Lsn;
use crate::membership::MembershipEpoch;
use crate::truncation::History;

/// The most that a segment may have said before its log was damaged, as far as anything tells that
/// can be read. Until it holds all of it again that the history in force keeps, the segment counts
/// in no read quorum.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Floor {
    /// The highest SCL that it may have acknowledged.
    pub scl: Lsn,
    /// The highest epoch that it may have promised.
    pub promised: VolumeEpoch,
    /// The highest epoch of a history that it may have had.
    pub history: VolumeEpoch,
    /// The version of the newest membership that it may have acknowledged: a recovery finds that
    /// step by the segments that hold it, and by no others.
    pub membership: MembershipEpoch,
}

impl Floor {
    /// Returns what a segment with this durable state may have said. If it is impaired, that
    /// includes what it may have said before.
    #[must_use]
    pub fn of(image: &SegmentImage) -> Self {
        let own = Self {
            scl: image.scl().lsn(),
            promised: image.promised(),
            history: image.history().epoch(),
            membership: image.membership().epoch(),
        };
        image.floor().map_or(own, |floor| own.join(&floor))
    }

    /// Returns the floor that is at or above both, in every part.
    ///
    /// A part of one may belong to a history that the other one's replaced. What the newer history
    /// annuls of it is not asked for: see [`Floor::needed`].
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        Self {
            scl: self.scl.max(other.scl),
            promised: self.promised.max(other.promised),
            history: self.history.max(other.history),
            membership: self.membership.max(other.membership),
        }
    }

    /// Returns the SCL at which nothing is lacking that `history`, at or above this floor's, keeps;
    /// the group's last record that its newest range keeps is `end`.
    ///
    /// A record at or under that range's end is older than the history: above `end`, none is kept.
    /// One above it was written under that history, or in a region that was left behind.
    #[must_use]
    pub fn needed(&self, history: &History, end: Lsn) -> Lsn {
        let is_left_behind = self.history.region() < history.epoch().region();
        if self.scl > history.through() && !is_left_behind { self.scl } else { self.scl.min(end) }
    }
}
