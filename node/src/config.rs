//! What a storage node and a volume client are told when they start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, PgId, Position};
use quorate_core::quorum::QuorumSet;
use serde::{Deserialize, Serialize};

use crate::addresses::{AddressBook, Seat};
use crate::format::FILE_BYTES_MAX;
use crate::wire;

pub mod file;

/// Names a volume. Nothing of one volume is ever taken for another's.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct VolumeId(u64);

impl VolumeId {
    /// Returns the name with this number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number of this name.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// A text that doesn't name a volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a volume is named by one to sixteen hexadecimal digits")]
pub struct VolumeIdError;

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, VolumeIdError> {
        let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hexadecimal || text.len() > 16 {
            return Err(VolumeIdError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| VolumeIdError)
    }
}

/// What one storage node serves, and where. Each node of this version serves one segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeConfig {
    /// Where the segment's log is.
    pub directory: PathBuf,
    /// Where the node takes connections.
    pub listen: SocketAddr,
    /// The group's first segments by position, this one included if it is one of them.
    pub peers: Vec<SocketAddr>,
    /// Segments that have joined the group since, or have moved.
    pub joined: Vec<Seat>,
    /// The volume.
    pub volume: VolumeId,
    /// The segment's group.
    pub group: PgId,
    /// The segment's position.
    pub position: Position,
    /// Which disk of its position the segment is; zero for one of the group's first.
    pub incarnation: Incarnation,
    /// The volume's shape and bounds; durable with the segment from its first start on.
    pub geometry: VolumeGeometry,
    /// How many bytes its log grows before it makes a checkpoint; [`CHECKPOINT_BYTES`] but in a
    /// simulation.
    pub checkpoint_bytes: u64,
}

/// How many bytes a log grows before its segment makes a checkpoint: a file of it, so that each
/// checkpoint sets one free.
pub const CHECKPOINT_BYTES: u64 = FILE_BYTES_MAX;

/// Why a configuration can't be served.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The volume's number of groups is out of range.
    #[error("a volume has 1 to 64 protection groups, not {groups}: give another number of groups")]
    Groups {
        /// The number given.
        groups: u32,
    },
    /// Messages of such a volume would be longer than a frame.
    #[error("the volume's limits allow messages that no frame carries: lower its limits")]
    Limits,
    /// The list of peers doesn't name every segment of the group.
    #[error(
        "a group has {expected} segments, but {found} peers are given: list the addresses of all \
         segments of the group in the order of their positions, this node's own included"
    )]
    Peers {
        /// How many there are.
        expected: usize,
        /// How many are given.
        found: usize,
    },
    /// The group has no such position.
    #[error("a group's positions are 0 to 7, not {position}: give another position")]
    Position {
        /// The position given.
        position: usize,
    },
    /// The node isn't among the segments that it is told of.
    #[error(
        "segment {position}{incarnation} is this node itself, but `members` and `peers` name none \
         or another disk there: list it under `members` with its `incarnation`"
    )]
    Unlisted {
        /// The position.
        position: Position,
        /// The disk.
        incarnation: Incarnation,
    },
    /// The volume has no such group.
    #[error("the volume has {groups} groups and no {group}: groups are numbered from zero")]
    UnknownGroup {
        /// The group given.
        group: PgId,
        /// How many there are.
        groups: u32,
    },
}

/// Returns the geometry of a volume of `groups` groups of six segments with the default limits.
///
/// # Errors
/// [`ConfigError::Groups`] when their number is out of range.
pub fn geometry(groups: u32) -> Result<VolumeGeometry, ConfigError> {
    VolumeGeometry::new(groups, QuorumSet::AURORA, Limits::DEFAULT)
        .map_err(|_| ConfigError::Groups { groups })
}

/// Returns the position with this index.
///
/// # Errors
/// [`ConfigError::Position`] when there is none.
pub fn position(index: usize) -> Result<Position, ConfigError> {
    Position::new(index).ok_or(ConfigError::Position { position: index })
}

impl NodeConfig {
    /// Returns where the group's segments are, as far as this says.
    #[must_use]
    pub fn book(&self) -> AddressBook {
        AddressBook::new(self.group, &self.peers, &self.joined)
    }

    /// Checks that a node can serve this.
    ///
    /// # Errors
    /// [`ConfigError`] names what can't be served.
    pub fn check(&self) -> Result<(), ConfigError> {
        let quorums = self.geometry.quorums();
        if !self.geometry.has(self.group) {
            let groups = self.geometry.groups_count();
            return Err(ConfigError::UnknownGroup { group: self.group, groups });
        }
        let (expected, found) = (quorums.members(), self.peers.len());
        if expected != found && (found > 0 || self.joined.is_empty()) {
            return Err(ConfigError::Peers { expected, found });
        }
        let own = self.book().place(self.position);
        if own.is_none_or(|own| own.incarnation != self.incarnation) {
            return Err(ConfigError::Unlisted {
                position: self.position,
                incarnation: self.incarnation,
            });
        }
        if !wire::carries(&self.geometry.limits()) {
            return Err(ConfigError::Limits);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_by_hexadecimal_digits() {
        assert_eq!("2a".parse(), Ok(VolumeId::new(42)));
        let shown = VolumeId::new(0xfeed_beef).to_string();
        assert_eq!(shown.parse(), Ok(VolumeId::new(0xfeed_beef)));
        for wrong in ["", "+1", "xyz", "11112222333344445"] {
            assert_eq!(wrong.parse::<VolumeId>(), Err(VolumeIdError));
        }
    }
}
