//! Every way to say no to a peer.

use serde::{Deserialize, Serialize};

use crate::consistency::Scl;
use crate::epoch::VolumeEpoch;
use crate::lsn::Lsn;

/// A segment's no to a writer or to another segment. A value, never an error: whoever gets it acts
/// on what it carries.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Refusal {
    /// A record lies in a range that the history annuls or that no writer of this epoch can use.
    Annulled {
        /// The record.
        lsn: Lsn,
    },
    /// The segment's history is older than the request's epoch: send it the history first.
    Behind {
        /// Epoch of the history that the segment has.
        history: VolumeEpoch,
    },
    /// A record lies further beyond the VDL than the volume's allocation limit.
    BeyondLimit {
        /// The record.
        lsn: Lsn,
        /// The highest LSN that could have been accepted.
        limit: Lsn,
    },
    /// The read point is under what the segment keeps every version of.
    Collected {
        /// The segment's base: at or under it only the newest version of each page is left.
        base: Lsn,
    },
    /// Another record has this LSN. Never seen unless a peer is broken.
    Conflict {
        /// The LSN.
        lsn: Lsn,
    },
    /// The epoch is further above the highest heard of than recoveries can go:
    /// [`crate::epoch::EPOCH_STEP_MAX`]. Never seen unless a peer is broken.
    EpochAhead {
        /// The highest epoch heard of.
        heard: VolumeEpoch,
    },
    /// A higher epoch has been promised.
    Fenced {
        /// The highest epoch heard of.
        promised: VolumeEpoch,
    },
    /// The segment's log has reached the volume's bound.
    Full,
    /// The segment's history has as many ranges as the volume's limits allow: it takes no further
    /// recovery, and promises nothing to one. The writer that is open goes on.
    HistoryFull,
    /// The segment's log was damaged, and it doesn't have again all that it may have acknowledged:
    /// it has no vote until then.
    Impaired,
    /// The segment doesn't hold all records that the read needs.
    Incomplete {
        /// What the segment holds every record up to.
        scl: Scl,
    },
    /// The request breaks the protocol's form: its epochs or backlinks contradict each other.
    Malformed,
    /// More records or ranges than the volume's limits allow in one message.
    Oversized,
    /// The segment has too many durable writes under way; repeat later.
    Overloaded,
    /// The request names a group that the receiver doesn't serve.
    WrongGroup,
}

impl Refusal {
    /// The names of all refusals, in alphabetical order; a test walks them.
    pub const NAMES: [&'static str; 15] = [
        "Annulled",
        "Behind",
        "BeyondLimit",
        "Collected",
        "Conflict",
        "EpochAhead",
        "Fenced",
        "Full",
        "HistoryFull",
        "Impaired",
        "Incomplete",
        "Malformed",
        "Oversized",
        "Overloaded",
        "WrongGroup",
    ];

    /// Returns this refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Annulled { .. } => "Annulled",
            Self::Behind { .. } => "Behind",
            Self::BeyondLimit { .. } => "BeyondLimit",
            Self::Collected { .. } => "Collected",
            Self::Conflict { .. } => "Conflict",
            Self::EpochAhead { .. } => "EpochAhead",
            Self::Fenced { .. } => "Fenced",
            Self::Full => "Full",
            Self::HistoryFull => "HistoryFull",
            Self::Impaired => "Impaired",
            Self::Incomplete { .. } => "Incomplete",
            Self::Malformed => "Malformed",
            Self::Oversized => "Oversized",
            Self::Overloaded => "Overloaded",
            Self::WrongGroup => "WrongGroup",
        }
    }
}
