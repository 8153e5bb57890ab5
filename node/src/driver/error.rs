//! Why a node can't start or has to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::disk::OpenError;
use crate::env::LogFileError;
use crate::format;
use crate::host::HostError;
use crate::wire::WireError;

/// Why a node can't start or has to stop. The text says what happened, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration can't be served.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The segment can't go on.
    #[error(
        "the segment in {} stops: {error}. Its other copies go on; check this disk, and give the \
         node an empty directory only if the disk's contents are lost",
        .directory.display()
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
        "the segment in {} stops: writing its log failed ({error}). What of it is durable is \
         unknown until it is read again: check the disk and its free space, then start the node",
        .directory.display()
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
    /// The operating system can't wait for events or has no randomness.
    #[error("the operating system failed this process: {0}. Start the node again")]
    System(#[from] io::Error),
    /// A message that this node made can't be encoded.
    #[error("this node made a message that no frame carries: {0}. This is a bug; please report it")]
    Wire(#[from] WireError),
}

fn log_remedy(error: &LogFileError) -> &'static str {
    match error {
        LogFileError::Io(_) => "Give a directory that this process may write to",
        LogFileError::Locked => "End that process, or give this node a directory of its own",
    }
}

fn remedy(error: &OpenError) -> &'static str {
    match error {
        OpenError::Corrupt { .. } | OpenError::Header(format::HeaderError::Corrupt) => {
            "Keep it for examination and replace the segment: the other copies have its records"
        }
        OpenError::Header(format::HeaderError::NotALog) => "Give the directory of a segment",
        OpenError::Header(format::HeaderError::UnsupportedVersion { .. }) => {
            "Start the version of this program that wrote it"
        }
        OpenError::Io(_) => "Check the disk and the permissions",
        OpenError::OtherSegment { .. } => {
            "Set the node's own `directory`, or correct `volume`, `group` and `position`"
        }
        OpenError::OtherGeometry { .. } => "Set `groups` to the number that the volume has",
    }
}
