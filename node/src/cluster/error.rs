//! Why a cluster can't be started, or doesn't come to where it should be.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use quorate_core::id::Position;

use super::{Absent, CLUSTER_FILE, ConfigError, ConfigFileError};
use crate::client::ClientError;
use crate::status::StatusError;

/// Why a cluster can't be started, or doesn't come to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The shape can't be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log of a node is gone.
    #[error(
        "the log of node {name} is gone: it must not come back under its old name. Put the log \
         back, or replace the node with `quorate repair`"
    )]
    DiskLost {
        /// The node.
        name: String,
    },
    /// A process ended by itself.
    #[error("{name} ended by itself ({status}). It said: {words}")]
    Ended {
        /// Its name.
        name: String,
        /// How.
        status: ExitStatus,
        /// The end of what it wrote.
        words: String,
    },
    /// Fewer nodes start than a volume needs.
    #[error(
        "{left} of {} nodes start, and a volume needs four to be written:{}",
        super::NAMES.len(),
        listed(.absent)
    )]
    TooFew {
        /// How many do.
        left: usize,
        /// Those that don't.
        absent: Vec<Absent>,
    },
    /// A configuration can't be read or written.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// The operating system refuses.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
    /// Another process runs the cluster.
    #[error(
        "a cluster runs in {0} already. Use it, end it with `quorate down --dir {0}`, or give \
         another directory with --dir",
        .directory.display()
    )]
    Live {
        /// Where.
        directory: PathBuf,
    },
    /// There are logs, and nothing says of which volume.
    #[error(
        "{} holds logs of nodes but no {CLUSTER_FILE}, which names their volume: restore that \
         file, or give another directory with --dir",
        .directory.display()
    )]
    Lost {
        /// Where.
        directory: PathBuf,
    },
    /// No ports are free.
    #[error("no free ports on 127.0.0.1 between 20000 and 32000: end some other processes")]
    NoPorts,
    /// A node didn't get ready.
    #[error("node {position} does not answer after {waited:?}: {error}")]
    NotReady {
        /// Which.
        position: Position,
        /// How long it was waited for.
        waited: Duration,
        /// What it did instead of answering.
        error: StatusError,
    },
    /// Another process replaces nodes already.
    #[error(
        "another `quorate repair` is at work in {}: wait until it is through, or end it; what is \
         under way goes on when it is run again",
        .directory.display()
    )]
    OtherSteward {
        /// Where.
        directory: PathBuf,
    },
    /// The nodes didn't come level.
    #[error("the nodes are not level after {waited:?}")]
    NotLevel {
        /// How long it was waited for.
        waited: Duration,
    },
    /// Nobody runs the cluster, or whoever does doesn't answer.
    #[error(
        "whoever runs the cluster in {} does not answer: is it there? Start it with `quorate up`",
        .directory.display()
    )]
    NotRunning {
        /// Where.
        directory: PathBuf,
    },
    /// Whoever runs the cluster could not do what it was asked for.
    #[error("the process that runs the cluster says: {words}")]
    Said {
        /// What it says.
        words: String,
    },
    /// The writer didn't open the volume.
    #[error("the writer does not answer after {waited:?}: {error}")]
    NoWriter {
        /// How long it was waited for.
        waited: Duration,
        /// What it did instead of answering.
        error: ClientError,
    },
    /// There is no such node.
    #[error("the cluster has no node {position}")]
    Unknown {
        /// Which.
        position: Position,
    },
}

pub(super) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |error| ClusterError::Io { doing, error }
}

fn listed(absent: &[Absent]) -> String {
    absent.iter().map(|Absent { name, why }| format!("\n{name}: {why}")).collect()
}
