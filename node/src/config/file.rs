//! Configurations as files in TOML: read, checked, and written for clusters on this machine.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::id::{Incarnation, PgId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CHECKPOINT_BYTES, ConfigError, NodeConfig, VolumeId, geometry, position};
use crate::addresses::{Place, Seat};
use crate::reader::ReaderConfig;
use crate::volume::{BACKTRACK_WINDOW_RECORDS, VolumeConfig};

/// How long a recovery may take unless the configuration says otherwise.
const PATIENCE_SECONDS: u64 = 60;

/// The longest patience that makes sense: an hour.
const PATIENCE_SECONDS_MAX: u64 = 3_600;

/// The most writer processes that a reader looks for.
const WRITERS_MAX: usize = 16;

/// Why a configuration file can't be used. The text names the file, the key and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// A key has a value that can't be, by itself or beside another one.
    #[error("{}: `{key}` {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The file can't be read.
    #[error(
        "cannot read {}: {error}. Give the path of a configuration; `quorate up` writes some",
        .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It isn't TOML, or a key is missing, unknown, or of another type.
    #[error(
        "{}: {error}Add, remove or correct that key; the keys are in README.md",
        .path.display()
    )]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
    /// The file can't be written.
    #[error("cannot write {}: {error}. Check the disk and the permissions", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Reads a file of the form of `T`.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigFileError::Read { path: path.to_path_buf(), error })?;
    toml::from_str(&text).map_err(|error| {
        let error = Box::new(error);
        ConfigFileError::Toml { path: path.to_path_buf(), error }
    })
}

/// Writes a file with a comment above it: whole, or not at all.
pub(crate) fn write<T: Serialize>(
    path: &Path,
    comment: &str,
    contents: &T,
) -> Result<(), ConfigFileError> {
    let at = |error| ConfigFileError::Write { path: path.to_path_buf(), error };
    let text = toml::to_string(contents).map_err(|error| at(io::Error::other(error)))?;
    let draft = path.with_extension("toml.new");
    let write = || {
        std::fs::write(&draft, format!("# {comment}\n\n{text}"))?;
        std::fs::File::open(&draft)?.sync_all()?;
        std::fs::rename(&draft, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(at)
}

/// A segment that has joined its group after the first six, or has moved.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedMember {
    /// The protection group of the segment, from zero.
    #[serde(default)]
    pub group: u32,
    /// The position of the segment in its group, 0 to 7.
    pub position: usize,
    /// Which disk of its position it is: one more than that of the disk before.
    #[serde(default)]
    pub incarnation: u32,
    /// How often this disk has moved to another address.
    #[serde(default)]
    pub revision: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

impl JoinedMember {
    fn seat(&self, path: &Path) -> Result<Seat, ConfigFileError> {
        let position =
            position(self.position).map_err(|error| key_error(path, "members", said(error)))?;
        let Self { incarnation, revision, address, .. } = *self;
        let incarnation = Incarnation::new(incarnation);
        Ok(Seat { position, place: Place { incarnation, revision, address } })
    }
}

/// `node.toml`: what a storage node is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The volume, up to sixteen hexadecimal digits.
    pub volume: String,
    /// The number of the volume's protection groups.
    pub groups: u32,
    /// The protection group of the segment, from zero.
    pub group: u32,
    /// The position of the segment in its group, 0 to 7.
    pub position: usize,
    /// Which disk of its position it is: one more than that of the disk before.
    #[serde(default)]
    pub incarnation: u32,
    /// The directory of the segment's log, from that of this file.
    pub directory: PathBuf,
    /// The address to listen at.
    pub listen: SocketAddr,
    /// The addresses of the group's first six segments by position; none if all are in `members`.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// The group's segments that have joined since, this one included, or have moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<JoinedMember>,
}

impl NodeFile {
    /// Reads and checks the configuration of a node.
    ///
    /// # Errors
    /// [`ConfigFileError`] names what can't be served.
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigFileError> {
        let file: Self = read(path)?;
        let wrong = |key, problem: String| key_error(path, key, problem);
        let config = NodeConfig {
            directory: beside(path, &file.directory),
            listen: file.listen,
            volume: volume(path, &file.volume)?,
            group: PgId::new(file.group),
            geometry: geometry(file.groups).map_err(|error| wrong("groups", said(error)))?,
            position: position(file.position).map_err(|error| wrong("position", said(error)))?,
            incarnation: Incarnation::new(file.incarnation),
            peers: file.peers,
            joined: file.members.iter().map(|it| it.seat(path)).collect::<Result<_, _>>()?,
            checkpoint_bytes: CHECKPOINT_BYTES,
        };
        config.check().map_err(|error| wrong(key_of(&error), said(error)))?;
        distinct(path, "peers", &config.peers)?;
        let own = config.book().place(config.position).map(|place| place.address);
        let is_own = |own: &SocketAddr| {
            own.port() == config.listen.port()
                && (config.listen.ip().is_unspecified() || own.ip() == config.listen.ip())
        };
        match own {
            Some(own) if !is_own(&own) => {
                let (listen, position) = (config.listen, config.position.index());
                let problem = format!(
                    "is {listen}, but `peers` has {own} at `position` {position}, where the others \
                     look for this node: make them agree"
                );
                Err(wrong("listen", problem))
            }
            Some(_) | None => Ok(config),
        }
    }
}

/// `writer.toml`: what a writer process is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WriterFile {
    /// The volume, up to sixteen hexadecimal digits.
    pub volume: String,
    /// The address to listen at for clients.
    pub listen: SocketAddr,
    /// How long the recovery may take.
    #[serde(default = "default_patience")]
    pub patience_seconds: u64,
    /// How far below its end the volume can go back, in records; the segments keep that much of
    /// their logs.
    #[serde(default = "default_window")]
    pub backtrack_window_records: u64,
    /// The addresses of the volume's first segments: by group, by position.
    pub segments: Vec<Vec<SocketAddr>>,
    /// The segments that have joined since, or have moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<JoinedMember>,
}

const fn default_patience() -> u64 {
    PATIENCE_SECONDS
}

const fn default_window() -> u64 {
    BACKTRACK_WINDOW_RECORDS
}

impl WriterFile {
    /// Returns a configuration with the default patience and window.
    #[must_use]
    pub fn new(volume: VolumeId, listen: SocketAddr, segments: Vec<Vec<SocketAddr>>) -> Self {
        let (volume, patience_seconds) = (volume.to_string(), PATIENCE_SECONDS);
        let backtrack_window_records = BACKTRACK_WINDOW_RECORDS;
        let members = Vec::new();
        Self { volume, listen, patience_seconds, backtrack_window_records, segments, members }
    }

    /// Reads and checks the configuration of a writer process: the volume, and where to listen.
    ///
    /// # Errors
    /// [`ConfigFileError`] names what can't be served.
    pub fn load(path: &Path) -> Result<(VolumeConfig, SocketAddr), ConfigFileError> {
        let file: Self = read(path)?;
        let wrong = |key, problem: String| key_error(path, key, problem);
        let volume = volume(path, &file.volume)?;
        check_segments(path, &file.segments, &file.members, file.listen)?;
        if file.patience_seconds == 0 || file.patience_seconds > PATIENCE_SECONDS_MAX {
            let problem = format!("has to be 1 to {PATIENCE_SECONDS_MAX}: give another number");
            return Err(wrong("patience_seconds", problem));
        }
        let patience = Duration::from_secs(file.patience_seconds);
        let joined = file.members.iter();
        let joined = joined.map(|it| Ok((PgId::new(it.group), it.seat(path)?)));
        let joined = joined.collect::<Result<_, ConfigFileError>>()?;
        let home = Some(beside(path, Path::new(".")));
        let (segments, backtrack_window) = (file.segments, file.backtrack_window_records);
        let config = VolumeConfig { volume, segments, joined, home, patience, backtrack_window };
        Ok((config, file.listen))
    }
}

/// `reader.toml`: what a reader process is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderFile {
    /// The volume, up to sixteen hexadecimal digits.
    pub volume: String,
    /// The address to listen at for clients.
    pub listen: SocketAddr,
    /// The addresses of the volume's writer processes: all that there are, or may be later.
    pub writers: Vec<SocketAddr>,
    /// The addresses of the volume's segments: by group, by position.
    pub segments: Vec<Vec<SocketAddr>>,
}

impl ReaderFile {
    /// Reads and checks the configuration of a reader process: the volume, and where to listen.
    ///
    /// # Errors
    /// [`ConfigFileError`] names what can't be served.
    pub fn load(path: &Path) -> Result<(ReaderConfig, SocketAddr), ConfigFileError> {
        let Self { volume: name, listen, writers, segments } = read(path)?;
        let volume = volume(path, &name)?;
        check_segments(path, &segments, &[], listen)?;
        distinct(path, "writers", &writers)?;
        if writers.is_empty() || writers.len() > WRITERS_MAX {
            let problem = format!("has to list 1 to {WRITERS_MAX} addresses of writer processes");
            return Err(key_error(path, "writers", problem));
        }
        if writers.contains(&listen) {
            let problem = format!(
                "is {listen}, which `writers` lists too: give the reader an address of its own"
            );
            return Err(key_error(path, "listen", problem));
        }
        Ok((ReaderConfig { volume, segments, writers }, listen))
    }
}

/// Checks that whole groups are listed, or none of a group whose members have all `joined`, without
/// the address that the process itself listens at.
fn check_segments(
    path: &Path,
    segments: &[Vec<SocketAddr>],
    joined: &[JoinedMember],
    listen: SocketAddr,
) -> Result<(), ConfigFileError> {
    let wrong = |key, problem: String| key_error(path, key, problem);
    let groups = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    let shape = geometry(groups).map_err(|error| wrong("segments", said(error)))?;
    let members = shape.quorums().members();
    let is_listed =
        |index: usize| joined.iter().any(|member| usize::try_from(member.group) == Ok(index));
    let is_odd = |(index, group): &(usize, &Vec<SocketAddr>)| {
        group.len() != members && !(group.is_empty() && is_listed(*index))
    };
    if let Some((_, odd)) = segments.iter().enumerate().find(is_odd) {
        let problem = format!(
            "lists a group of {} addresses, but a group has {members} segments: list them all, \
             by position",
            odd.len()
        );
        return Err(wrong("segments", problem));
    }
    let all: Vec<SocketAddr> = segments.iter().flatten().copied().collect();
    distinct(path, "segments", &all)?;
    if all.contains(&listen) {
        let problem = format!(
            "is {listen}, which `segments` lists too: give this process an address of its own"
        );
        return Err(wrong("listen", problem));
    }
    Ok(())
}

pub(crate) fn volume(path: &Path, text: &str) -> Result<VolumeId, ConfigFileError> {
    text.parse().map_err(|error| {
        key_error(path, "volume", format!("is \"{text}\", but {error}: copy it from another node"))
    })
}

fn key_error(path: &Path, key: &'static str, problem: String) -> ConfigFileError {
    ConfigFileError::Key { path: path.to_path_buf(), key, problem }
}

fn said(error: ConfigError) -> String {
    format!("cannot be: {error}")
}

const fn key_of(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Groups { .. } | ConfigError::Limits => "groups",
        ConfigError::Peers { .. } => "peers",
        ConfigError::Position { .. } => "position",
        ConfigError::Unlisted { .. } => "members",
        ConfigError::UnknownGroup { .. } => "group",
    }
}

fn distinct(
    path: &Path,
    key: &'static str,
    addresses: &[SocketAddr],
) -> Result<(), ConfigFileError> {
    let mut seen = BTreeSet::new();
    match addresses.iter().find(|address| !seen.insert(**address)) {
        None => Ok(()),
        Some(twice) => {
            let problem = format!("lists {twice} twice: each segment has an address of its own");
            Err(key_error(path, key, problem))
        }
    }
}

/// Returns `directory` as seen from the file at `path`.
fn beside(path: &Path, directory: &Path) -> PathBuf {
    path.parent().map_or_else(|| directory.to_path_buf(), |parent| parent.join(directory))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NODE: &str = r#"
        volume = "a1"
        groups = 1
        group = 0
        position = 1
        directory = "."
        listen = "127.0.0.1:2"
        peers = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5",
            "127.0.0.1:6"]
    "#;

    const WRITER: &str = r#"
        volume = "a1"
        listen = "127.0.0.1:7"
        segments = [["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5",
            "127.0.0.1:6"]]
    "#;

    fn file(name: &str, text: &str) -> PathBuf {
        let name = format!("quorate-config-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn node(name: &str, from: &str, to: &str) -> Result<NodeConfig, String> {
        assert!(NODE.contains(from), "{from}");
        let path = file(name, &NODE.replacen(from, to, 1));
        let loaded = NodeFile::load(&path).map_err(|error| error.to_string());
        std::fs::remove_file(path).unwrap();
        loaded
    }

    /// A key that is wrong has to be named: whoever wrote it looks for it.
    #[test]
    fn a_wrong_key_of_a_node_is_named() {
        let right = node("right", "", "").unwrap();
        assert_eq!((right.volume, right.position.index()), (VolumeId::new(0xa1), 1));
        assert_eq!(right.directory, std::env::temp_dir().join("."));
        for (from, to, key) in [
            ("volume = \"a1\"", "", "missing field `volume`"),
            ("groups = 1", "groups = 1\ncolour = 3", "unknown field `colour`"),
            ("volume = \"a1\"", "volume = \"xyz\"", "`volume` is \"xyz\""),
            ("groups = 1", "groups = 0", "`groups`"),
            ("group = 0", "group = 1", "`group`"),
            ("position = 1", "position = 6", "`position`"),
            ("position = 1", "position = 0", "`listen` is 127.0.0.1:2, but `peers`"),
            ("\"127.0.0.1:1\", ", "", "`peers`"),
            ("\"127.0.0.1:6\"", "\"127.0.0.1:5\"", "`peers` lists 127.0.0.1:5 twice"),
            ("\"127.0.0.1:6\"", "\"nowhere\"", "peers"),
        ] {
            let said = node(key, from, to).unwrap_err();
            assert!(said.contains(key), "nothing about {key} in: {said}");
        }
    }

    #[test]
    fn a_wrong_key_of_a_writer_is_named() {
        for (from, to, key) in [
            ("volume = \"a1\"", "", "missing field `volume`"),
            ("127.0.0.1:7", "127.0.0.1:6", "`listen` is 127.0.0.1:6, which `segments`"),
            ("\"127.0.0.1:1\", ", "", "`segments` lists a group of 5"),
            ("listen", "patience_seconds = 0\nlisten", "`patience_seconds` has to be"),
        ] {
            let path = file("writer", &WRITER.replacen(from, to, 1));
            let said = WriterFile::load(&path).unwrap_err().to_string();
            std::fs::remove_file(path).unwrap();
            assert!(said.contains(key), "nothing about {key} in: {said}");
        }
    }
}
