//! `cluster.toml`: what a cluster on this machine consists of, for whoever wants to find it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use quorate_core::id::Position;
use serde::{Deserialize, Serialize};

use crate::config::VolumeId;
use crate::config::file::{self, ConfigFileError};

/// The file's name in the cluster's directory.
pub const CLUSTER_FILE: &str = "cluster.toml";

const COMMENT: &str = "Written by `quorate up` at every start. The numbers of processes are for \
                       people; who runs, the lock says.";

/// A process of a cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, which is that of its directory too.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The zone that it stands for; a writer is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The number of its process while it ran under `quorate up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The position of a node in its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Which disk of its position it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub incarnation: u32,
    /// At which revision it got its address.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u32,
    /// Whether it has ever run: its directory holds a log since.
    #[serde(default)]
    pub has_started: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What a cluster consists of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The volume, sixteen hexadecimal digits.
    pub volume: String,
    /// Rises whenever nodes move to other addresses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u32,
    /// By position: the highest incarnation that a disk has had. None comes back under its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<u32>,
    /// The writer.
    pub writer: Member,
    /// The nodes; by position, unless some were replaced.
    pub nodes: Vec<Member>,
}

impl ClusterFile {
    /// Reads the file of the cluster in `directory`; `None` when there is none.
    ///
    /// # Errors
    /// [`ConfigFileError`] when there is one that can't be used.
    pub fn load(directory: &Path) -> Result<Option<Self>, ConfigFileError> {
        let path = Self::path(directory);
        match file::read::<Self>(&path) {
            Err(ConfigFileError::Read { error, .. })
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(cluster) => {
                cluster.check(&path)?;
                Ok(Some(cluster))
            }
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigFileError> {
        file::volume(path, &self.volume)?;
        let first = super::NAMES.iter().map(|(name, _)| *name);
        let has_names = self.nodes.iter().map(|node| node.name.as_str()).eq(first);
        let positions: BTreeSet<usize> =
            self.nodes.iter().filter_map(|node| node.position).collect();
        let has_positions = positions.len() == self.nodes.len()
            && positions.len() >= super::NAMES.len() - 1
            && positions.iter().all(|index| Position::new(*index).is_some());
        if has_positions || (positions.is_empty() && has_names) {
            return Ok(());
        }
        Err(ConfigFileError::Key {
            path: path.to_path_buf(),
            key: "nodes",
            problem:
                "has to list the cluster's nodes, each with a position of its own: restore the \
                      file"
                    .into(),
        })
    }

    /// Writes the file of the cluster in `directory`.
    ///
    /// # Errors
    /// [`ConfigFileError::Write`].
    pub fn save(&self, directory: &Path) -> Result<(), ConfigFileError> {
        file::write(&Self::path(directory), COMMENT, self)
    }

    fn path(directory: &Path) -> PathBuf {
        directory.join(CLUSTER_FILE)
    }

    /// Returns the volume.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        // It was checked when it was read.
        self.volume.parse().unwrap_or(VolumeId::new(0))
    }
}
