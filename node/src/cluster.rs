//! A cluster on this machine: one process for each segment of one protection group.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use quorate_core::id::{PgId, Position};

use crate::clock::Clock;
use crate::config::{self, ConfigError, VolumeId};
use crate::env::real::random;
use crate::status::{self, StatusError};
use crate::wire::Status;

/// How long a node may take to answer its first question.
const READY_MAX: Duration = Duration::from_secs(20);

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Ports are taken from here: below those that systems give to outgoing connections, so that
/// nobody takes a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How often other ports are tried when somebody else takes one first.
const STARTS_MAX: u32 = 5;

/// The most bytes of a node's own words that an error repeats.
const WORDS_MAX: u64 = 2_048;

/// Why a cluster can't be started, or doesn't come to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The shape can't be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node ended by itself.
    #[error("node {position} ended by itself ({status}). It said: {words}")]
    Ended {
        /// Which.
        position: Position,
        /// How.
        status: ExitStatus,
        /// The end of what it wrote.
        words: String,
    },
    /// The operating system refuses.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        error: io::Error,
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
    /// The nodes didn't come level.
    #[error("the nodes are not level after {waited:?}")]
    NotLevel {
        /// How long it was waited for.
        waited: Duration,
    },
    /// There is no such node.
    #[error("the cluster has no node {position}")]
    Unknown {
        /// Which.
        position: Position,
    },
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |error| ClusterError::Io { doing, error }
}

/// Six node processes of one protection group on loopback.
///
/// They end with this value, and with this process however it ends: each of them holds the other
/// end of a pipe and ends when the pipe closes.
#[derive(Debug)]
pub struct Cluster {
    executable: PathBuf,
    directory: PathBuf,
    volume: VolumeId,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<Running>>,
}

/// A running node.
#[derive(Debug)]
struct Running {
    child: Child,
    /// Held open: the node ends when it closes.
    _leash: Option<ChildStdin>,
}

impl Cluster {
    /// Starts a node of `executable` for each segment of a new volume, with their logs under
    /// `directory`, and waits until all answer.
    ///
    /// # Errors
    /// [`ClusterError`] says which node isn't there and what it said.
    pub fn start(executable: &Path, directory: &Path) -> Result<Self, ClusterError> {
        let volume = VolumeId::new(random().map_err(doing("asking for randomness"))?);
        let members = config::geometry(1)?.quorums().members();
        std::fs::create_dir_all(directory).map_err(doing("creating the cluster's directory"))?;
        let mut attempt = 1;
        loop {
            let mut cluster = Self {
                executable: executable.to_path_buf(),
                directory: directory.to_path_buf(),
                volume,
                addresses: free_addresses(members)?,
                nodes: (0..members).map(|_| None).collect(),
            };
            match cluster.start_all() {
                Ok(()) => return Ok(cluster),
                // Somebody may have taken a port between the look at it and its use.
                Err(ClusterError::Ended { .. }) if attempt < STARTS_MAX => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn start_all(&mut self) -> Result<(), ClusterError> {
        for position in self.positions() {
            self.spawn(position)?;
        }
        for position in self.positions() {
            self.wait_ready(position)?;
        }
        Ok(())
    }

    /// Starts the node at `position` again, on what its directory holds, and waits until it
    /// answers.
    ///
    /// # Errors
    /// [`ClusterError`] when it doesn't.
    pub fn restart(&mut self, position: Position) -> Result<Status, ClusterError> {
        self.kill(position)?;
        self.spawn(position)?;
        self.wait_ready(position)
    }

    /// Ends the node at `position` at once, by SIGKILL: it gets no chance to write anything more.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node or it can't be ended.
    pub fn kill(&mut self, position: Position) -> Result<(), ClusterError> {
        let slot = self.nodes.get_mut(position.index());
        let slot = slot.ok_or(ClusterError::Unknown { position })?;
        if let Some(mut running) = slot.take() {
            running.child.kill().map_err(doing("ending a node"))?;
            running.child.wait().map_err(doing("waiting for a node's end"))?;
        }
        Ok(())
    }

    /// Asks the node at `position` how it is.
    ///
    /// # Errors
    /// [`StatusError`] when it doesn't answer.
    pub fn status(&self, position: Position) -> Result<Status, StatusError> {
        let address = self.addresses.get(position.index()).ok_or(StatusError::TimedOut)?;
        status::ask(*address, self.volume, PgId::new(0), position, ANSWER_MAX)
    }

    /// Waits until all nodes hold all records up to the same LSN, at least up to `lsn`, under the
    /// same history.
    ///
    /// # Errors
    /// [`ClusterError::NotLevel`] when that takes longer than `patience`.
    pub fn wait_level(
        &mut self,
        lsn: quorate_core::lsn::Lsn,
        patience: Duration,
    ) -> Result<Vec<Status>, ClusterError> {
        let clock = Clock::start();
        loop {
            self.check_alive()?;
            let statuses: Result<Vec<Status>, StatusError> =
                self.positions().map(|position| self.status(position)).collect();
            if let Ok(statuses) = statuses
                && statuses.iter().all(|status| status.scl.lsn() >= lsn)
                && statuses.windows(2).all(|pair| match pair {
                    [left, right] => {
                        (left.scl, left.history, left.records)
                            == (right.scl, right.history, right.records)
                    }
                    _ => false,
                })
            {
                return Ok(statuses);
            }
            let waited = clock.now().since(crate::clock::Moment::default());
            if waited > patience {
                return Err(ClusterError::NotLevel { waited });
            }
            thread::sleep(POLL);
        }
    }

    fn spawn(&mut self, position: Position) -> Result<(), ClusterError> {
        let unknown = ClusterError::Unknown { position };
        let address = self.addresses.get(position.index()).ok_or(unknown)?;
        let peers: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let words = File::create(self.words(position)).map_err(doing("creating a node's log"))?;
        let mut child = Command::new(&self.executable)
            .arg("node")
            .arg("--dir")
            .arg(self.node_directory(position))
            .args(["--listen", &address.to_string()])
            .args(["--peers", &peers.join(",")])
            .args(["--volume", &self.volume.to_string()])
            .args(["--group", "0"])
            .args(["--position", &position.index().to_string()])
            .arg("--leashed")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(words)
            .spawn()
            .map_err(doing("starting a node"))?;
        let leash = child.stdin.take();
        if let Some(slot) = self.nodes.get_mut(position.index()) {
            *slot = Some(Running { child, _leash: leash });
        }
        Ok(())
    }

    fn wait_ready(&mut self, position: Position) -> Result<Status, ClusterError> {
        let clock = Clock::start();
        loop {
            self.check_alive()?;
            match self.status(position) {
                Ok(status) => return Ok(status),
                Err(error) => {
                    let waited = clock.now().since(crate::clock::Moment::default());
                    if waited > READY_MAX {
                        return Err(ClusterError::NotReady { position, waited, error });
                    }
                }
            }
            thread::sleep(POLL);
        }
    }

    /// Checks that every node that was started and not killed is running.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] with what the node said.
    pub fn check_alive(&mut self) -> Result<(), ClusterError> {
        for position in self.positions() {
            let running = self.nodes.get_mut(position.index()).and_then(Option::as_mut);
            let Some(running) = running else { continue };
            let ended = running.child.try_wait().map_err(doing("looking at a node"))?;
            if let Some(status) = ended {
                let words = last_words(&self.words(position));
                return Err(ClusterError::Ended { position, status, words });
            }
        }
        Ok(())
    }

    /// Returns the positions of the nodes.
    pub fn positions(&self) -> impl Iterator<Item = Position> + Clone + use<> {
        Position::first(self.addresses.len())
    }

    /// Returns the addresses of the nodes, by position.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the volume that the nodes serve.
    #[must_use]
    pub const fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Returns the directory of the node at `position`.
    #[must_use]
    pub fn node_directory(&self, position: Position) -> PathBuf {
        self.directory.join(format!("node-{position}"))
    }

    fn words(&self, position: Position) -> PathBuf {
        self.directory.join(format!("node-{position}.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.nodes.iter_mut().filter_map(Option::take) {
            let mut child = running.child;
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns addresses on loopback that nobody listens at now.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, ClusterError> {
    let start = random().map_err(doing("asking for randomness"))?;
    let span = PORTS.len() as u64;
    let offset = start.checked_rem(span).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.unwrap_or(0);
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for port in PORTS.skip(offset).chain(PORTS.take(offset)) {
        if held.len() == count {
            break;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(listener) = TcpListener::bind(address) {
            held.push((address, listener));
        }
    }
    if held.len() < count {
        return Err(ClusterError::NoPorts);
    }
    Ok(held.into_iter().map(|(address, _)| address).collect())
}

/// Returns the end of what a node wrote.
fn last_words(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WORDS_MAX)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_string())
    };
    read().unwrap_or_default()
}
