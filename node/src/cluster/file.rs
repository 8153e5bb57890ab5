//! `cluster.toml`: what a cluster on this machine consists of, for whoever wants to find it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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
}

/// What a cluster consists of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The volume, sixteen hexadecimal digits.
    pub volume: String,
    /// Whether its nodes have ever been up: from then on one without a log has lost it.
    #[serde(default)]
    pub has_started: bool,
    /// The writer.
    pub writer: Member,
    /// The nodes, by position.
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
        let expected = super::NAMES.iter().map(|(name, _)| *name);
        if self.nodes.iter().map(|node| node.name.as_str()).eq(expected) {
            return Ok(());
        }
        Err(ConfigFileError::Key {
            path: path.to_path_buf(),
            key: "nodes",
            problem: "has to list a1, a2, b1, b2, c1, c2: restore the file".into(),
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
