//! Why a node can't start or has to stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use quorate_core::id::SegmentId;

use crate::config::ConfigError;
use crate::disk::{OpenError, ReadError, Replaced};
use crate::env::{LogFileError, is_full};
use crate::format;
use crate::host::HostError;
use crate::store::StoreError;
use crate::wire::WireError;

/// Why a node can't start or has to stop. The text says what happened, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration can't be served.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The segment can't go on.
    #[error(
        "the segment in {} stops: {error}. Its other copies go on. {}",
        .directory.display(),
        host_remedy(.error)
    )]
    Host {
        /// Where the segment is.
        directory: PathBuf,
        /// Why.
        error: HostError,
    },
    /// Nobody can be listened to at the address.
    #[error(
        "cannot listen at {address}: {error}. Set another address under `listen` in the \
         configuration, and for the other nodes under `peers`, or end the process that has this one"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The log can't be opened.
    #[error(
        "cannot use the directory {}: {error}. {}",
        .directory.display(),
        log_remedy(.error)
    )]
    Log {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: LogFileError,
    },
    /// A write or a sync of the log failed.
    #[error(
        "the segment in {} stops: writing its log failed ({error}). {}",
        .directory.display(),
        failure_remedy(*.error)
    )]
    LogFailed {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: io::ErrorKind,
    },
    /// The log can't be served.
    #[error("cannot serve the log in {}: {error}. {}", .directory.display(), remedy(.error))]
    Open {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The log is a new one, where there was another one under the same name.
    #[error(
        "the directory {} holds a new log, but its peers have met another one under the name of \
         {segment}: without what that one had promised and held, this node must not take its \
         place. If the directory is the wrong one, or is not mounted, correct that and start the \
         node again; if its disk is lost, replace the node with `quorate repair`",
        .directory.display(),
    )]
    OtherLog {
        /// Where the segment is.
        directory: PathBuf,
        /// The name.
        segment: SegmentId,
    },
    /// A checkpoint can't be made.
    #[error(
        "the segment in {} stops: its checkpoint failed: {error}. Its other copies go on. {}",
        .directory.display(),
        store_remedy(.error)
    )]
    Store {
        /// Where the segment is.
        directory: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// The operating system can't wait for events or has no randomness.
    #[error("the operating system failed this process: {0}. Start the node again")]
    System(#[from] io::Error),
    /// A message that this node made can't be encoded.
    #[error("this node made a message that no frame carries: {0}. This is a bug; please report it")]
    Wire(#[from] WireError),
}

/// Returns the warning of a node whose disk has no space for the log's next file.
pub(super) fn cramped(directory: &Path, error: io::ErrorKind) -> String {
    format!(
        "the log in {} cannot grow ({error}): free some space on its disk, or the segment \
         stops when the space that it has is used up",
        directory.display()
    )
}

/// Returns what a node says whose log was damaged, and was replaced by what was left of it.
pub(super) fn replaced(directory: &Path, replaced: &Replaced, has_vote: bool) -> String {
    let Replaced { damage, aside } = replaced;
    let consequence = if has_vote {
        "holds all that it acknowledged nevertheless, and keeps its vote"
    } else {
        "has no vote until its peers have repaired it"
    };
    format!(
        "the log in {} was damaged at byte {} ({}): its files are set aside there as {aside}.*, \
         and the segment goes on with the {} frames before the damage and {consequence}",
        directory.display(),
        damage.offset,
        damage.reason,
        damage.frames,
    )
}

/// Returns what a node says whose log was damaged before an earlier start.
pub(super) fn impaired(directory: &Path) -> String {
    format!(
        "the segment in {} lacks something that it may have acknowledged before its log was \
         damaged, and has no vote until its peers have repaired it",
        directory.display()
    )
}

/// Returns what a node says once its segment has again what a damaged log had lost.
pub(super) fn repaired(directory: &Path) -> String {
    format!(
        "the segment in {} is repaired: it holds again all that it may have acknowledged, and has \
         its vote back",
        directory.display()
    )
}

fn host_remedy(error: &HostError) -> &'static str {
    match error {
        HostError::Read(ReadError::Lost { .. }) => DISK_LOST,
        HostError::Read(ReadError::Store(error)) => store_remedy(error),
        HostError::Read(
            ReadError::Damaged { .. } | ReadError::Io(_) | ReadError::Unknown { .. },
        )
        | HostError::Wire(_) => {
            "Start it again: it sets a damaged log aside, and they repair it. If its disk is lost, \
             replace the node with `quorate repair`: in an empty directory it would forget what it \
             has promised"
        }
    }
}

/// What is to be done when a start would find no more than the last one did.
const DISK_LOST: &str = "This disk counts as lost, as far as it can be told: leave the node down, \
    and replace it with `quorate repair`; the other copies have its records. Nothing was changed \
    in the directory";

fn store_remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Failed(error) if is_full(*error) => {
            "The disk is full: free some space, then start the node"
        }
        StoreError::Failed(_) => "Check the disk and the permissions, then start the node",
        StoreError::OtherLog => "Put the segment's own pages.redb beside its log",
        StoreError::Copy { .. }
        | StoreError::Damaged
        | StoreError::Gone
        | StoreError::Image(_)
        | StoreError::Payload { .. } => DISK_LOST,
    }
}

fn failure_remedy(error: io::ErrorKind) -> &'static str {
    if is_full(error) {
        "The disk is full. Nothing that was acknowledged is lost: free some space on the disk of \
         that directory, then start the node"
    } else {
        "What of it is durable is unknown until it is read again: check the disk, then start the \
         node"
    }
}

fn log_remedy(error: &LogFileError) -> &'static str {
    match error {
        LogFileError::Io(error) if is_full(error.kind()) => {
            "The disk is full: free some space, then start the node"
        }
        LogFileError::Io(_) => "Give a directory that this process may write to",
        LogFileError::FirstFileGone | LogFileError::Gone => {
            "A segment that forgets what it acknowledged must not come back: put the log back, or \
             replace the node with `quorate repair`; the other copies have its records"
        }
        LogFileError::Locked => "End that process, or give this node a directory of its own",
    }
}

fn remedy(error: &OpenError) -> &'static str {
    match error {
        OpenError::Corrupt(_) => {
            "No damage of a disk explains that: leave the node down, keep its log, and report it; \
             the other copies have its records"
        }
        OpenError::Header(format::HeaderError::Corrupt) => {
            "Leave the node down and keep its log for examination: the other copies have its \
             records. An emptied directory must not come back under its old name: replace the \
             node with `quorate repair`"
        }
        OpenError::Header(format::HeaderError::NotALog) => "Give the directory of a segment",
        OpenError::Header(format::HeaderError::UnsupportedVersion { .. }) => {
            "Start the version of this program that wrote it"
        }
        OpenError::PayloadsLost { .. } => DISK_LOST,
        OpenError::Store(error) => store_remedy(error),
        OpenError::NotesLost => {
            "This disk counts as lost: leave the node down, or replace the segment; its other \
             copies have its records. Nothing was changed in the directory"
        }
        OpenError::Io(error) if is_full(error.kind()) => {
            "The disk is full: free some space, then start the node"
        }
        OpenError::Io(_) => "Check the disk and the permissions",
        OpenError::OtherSegment { .. } => {
            "Set the node's own `directory`, or correct `volume`, `group`, `position` and \
             `incarnation`"
        }
        OpenError::OtherGeometry { .. } => "Set `groups` to the number that the volume has",
    }
}
