//! What goes wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A kind of fault. Each is within what the protocol claims to bear.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// One or two nodes, or a zone, end by SIGKILL.
    KillNodes,
    /// The writer ends by SIGKILL, and another one takes over.
    KillWriter,
    /// The writer and a zone end by SIGKILL together.
    KillWriterAndZone,
    /// One or two nodes, or a zone, are stopped by SIGSTOP.
    StopNodes,
    /// The writer is stopped, another one takes over, and the first one goes on.
    StopWriter,
    /// The writer is cut off from all nodes, another one takes over, and the network heals.
    CutWriter,
    /// A zone is cut off from everybody.
    CutZone,
    /// One or two nodes are reached in one direction only.
    CutOneWay,
    /// Some links are slow.
    Delay,
    /// Some connections end.
    Reset,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::KillNodes,
        Self::KillWriter,
        Self::KillWriterAndZone,
        Self::StopNodes,
        Self::StopWriter,
        Self::CutWriter,
        Self::CutZone,
        Self::CutOneWay,
        Self::Delay,
        Self::Reset,
    ];

    /// Returns whether another writer takes over.
    #[must_use]
    pub const fn takes_over(self) -> bool {
        match self {
            Self::KillWriter | Self::KillWriterAndZone | Self::StopWriter | Self::CutWriter => true,
            Self::KillNodes
            | Self::StopNodes
            | Self::CutZone
            | Self::CutOneWay
            | Self::Delay
            | Self::Reset => false,
        }
    }

    /// Returns whether links between processes are at fault.
    #[must_use]
    pub const fn is_of_links(self) -> bool {
        match self {
            Self::CutWriter | Self::CutZone | Self::CutOneWay | Self::Delay | Self::Reset => true,
            Self::KillNodes
            | Self::KillWriter
            | Self::KillWriterAndZone
            | Self::StopNodes
            | Self::StopWriter => false,
        }
    }
}

/// How often each kind of fault happened.
pub type Fired = BTreeMap<Fault, u64>;
