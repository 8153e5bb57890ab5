//! A cluster on this machine: a process for each segment of one protection group, two in each of
//! three zones, and a writer process if one is wanted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use quorate_core::id::{PgId, Position, Positions};
use quorate_core::rules::Bug;

use crate::client::ClientError;
use crate::clock::{Clock, Moment};
use crate::config::file::{ConfigFileError, NodeFile, WriterFile};
use crate::config::{self, ConfigError, VolumeId};
use crate::env::real::{LOG_NAME, random};
use crate::status::{self, StatusError};
use crate::wire::Status;

mod address;
mod error;
mod file;
mod lock;
mod member;
pub(crate) mod process;
mod repair;
mod request;
pub(crate) mod seat;
mod starting;

pub use error::ClusterError;
use error::doing;
pub use file::{CLUSTER_FILE, ClusterFile, Member};
use lock::ClusterLock;
pub use lock::{Stopped, running, stop};
use member::NodeSeat;
use process::{Running, last_words};
pub use request::{Answered, LocalHands};

/// How long a process may take to answer its first question.
const READY_MAX: Duration = Duration::from_secs(20);

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// How often other ports are tried when somebody else takes one first.
const STARTS_MAX: u32 = 5;

/// How long the processes of a cluster that was killed may take to end.
const STALE_MAX: Duration = Duration::from_secs(3);

/// The nodes by position, with the zones that they stand for.
pub const NAMES: [(&str, &str); 6] =
    [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c"), ("c2", "c")];

/// The name of the writer and of its directory.
pub const WRITER: &str = "writer";

/// A process that has ended by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The end of what it wrote.
    pub words: String,
    /// The arguments of the program that start it again.
    pub again: String,
}

/// A node that doesn't run although its cluster was started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Why, in words.
    pub why: String,
}

/// Which nodes a cluster can't do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    All,
    /// So many that the volume can be written.
    Quorum,
}

/// A process that listens somewhere else than it did before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// Where it listened.
    pub from: SocketAddr,
    /// Where it listens.
    pub to: SocketAddr,
}

/// Node processes of one protection group on loopback, six unless one is being replaced, and
/// perhaps a writer process.
///
/// They end with this value, and with this process however it ends.
#[derive(Debug)]
pub struct Cluster {
    executable: PathBuf,
    directory: PathBuf,
    mutant: Option<Bug>,
    volume: VolumeId,
    /// Rises whenever the nodes move to other addresses.
    revision: u32,
    /// The highest incarnation that a disk of each position has had.
    disks: Positions<u32>,
    nodes: Vec<NodeSeat>,
    /// Of the nodes, in that order.
    addresses: Vec<SocketAddr>,
    writer_address: SocketAddr,
    moved: Vec<Moved>,
    need: Need,
    absent: Vec<Absent>,
    impaired: Vec<String>,
    writer: Option<Running>,
    _lock: ClusterLock,
}

/// One of the processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Node(Position),
    Writer,
}

impl Who {
    const fn kind(self) -> &'static str {
        match self {
            Self::Node(_) => "node",
            Self::Writer => "writer",
        }
    }
}

impl Cluster {
    /// Starts a node of `executable` for each segment of the volume in `directory`, of a new one if
    /// there is none, and waits until all answer.
    ///
    /// # Errors
    /// [`ClusterError`] says which process isn't there and what it said.
    pub fn start(executable: &Path, directory: &Path) -> Result<Self, ClusterError> {
        Self::start_as(executable, directory, Need::All, false, None)
    }

    /// [`Cluster::start`] with a writer process, which has opened the volume when this returns.
    ///
    /// # Errors
    /// [`ClusterError`] says which process isn't there and what it said.
    pub fn start_with_writer(executable: &Path, directory: &Path) -> Result<Self, ClusterError> {
        Self::start_as(executable, directory, Need::All, true, None)
    }

    /// [`Cluster::start_with_writer`], but without the nodes that don't start if four do:
    /// [`Cluster::absent`] names them.
    ///
    /// # Errors
    /// [`ClusterError`] says which process isn't there and what it said.
    pub fn start_with_quorum(executable: &Path, directory: &Path) -> Result<Self, ClusterError> {
        Self::start_as(executable, directory, Need::Quorum, true, None)
    }

    /// [`Cluster::start_with_writer`] with a seeded bug in every process, to show what notices it.
    ///
    /// # Errors
    /// As there.
    pub fn start_mutant(
        executable: &Path,
        directory: &Path,
        mutant: Option<Bug>,
    ) -> Result<Self, ClusterError> {
        Self::start_as(executable, directory, Need::All, true, mutant)
    }

    fn start_as(
        executable: &Path,
        directory: &Path,
        need: Need,
        has_writer: bool,
        mutant: Option<Bug>,
    ) -> Result<Self, ClusterError> {
        std::fs::create_dir_all(directory).map_err(doing("creating the cluster's directory"))?;
        let lock =
            ClusterLock::take(directory).map_err(doing("locking the cluster's directory"))?;
        let Some(lock) = lock else {
            return Err(ClusterError::Live { directory: directory.to_path_buf() });
        };
        let earlier = ClusterFile::load(directory)?;
        let volume = match &earlier {
            Some(earlier) => earlier.volume(),
            None => new_volume(directory)?,
        };
        let mut nodes = member::seats(earlier.as_ref(), directory);
        member::wait_until_ended(directory, &mut nodes)?;
        let revision = earlier.as_ref().map_or(0, |file| file.revision);
        let disks = member::disks(earlier.as_ref());
        let mut cluster = Self {
            executable: executable.to_path_buf(),
            directory: directory.to_path_buf(),
            mutant,
            volume,
            revision,
            disks,
            nodes,
            addresses: Vec::new(),
            writer_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            moved: Vec::new(),
            need,
            absent: Vec::new(),
            impaired: Vec::new(),
            writer: None,
            _lock: lock,
        };
        let started = cluster.start_on(earlier.as_ref(), has_writer);
        if let (Err(_), Some(earlier)) = (&started, earlier) {
            // Who has those addresses keeps them for the next start.
            cluster.moved_back(earlier).save(directory)?;
        }
        started.map(|()| cluster)
    }

    /// Chooses addresses, and writes them and the volume's name down before anybody uses them.
    fn settle(&mut self, earlier: &[SocketAddr]) -> Result<(), ClusterError> {
        let is_held = |node: &NodeSeat| node.is_elsewhere;
        let held: Vec<bool> = self.nodes.iter().map(is_held).chain([false]).collect();
        let mut chosen = address::choose(earlier, &held)?;
        self.moved = self
            .everybody()
            .zip(earlier.iter().zip(&chosen))
            .filter(|(_, (from, to))| from != to)
            .map(|(who, (from, to))| Moved { name: self.name(who), from: *from, to: *to })
            .collect();
        self.writer_address = chosen.pop().ok_or(ClusterError::NoPorts)?;
        if self.moved.iter().any(|moved| moved.name != WRITER) {
            self.revision = self.revision.saturating_add(1);
        }
        for (node, address) in self.nodes.iter_mut().zip(&chosen) {
            if node.place.address != *address {
                node.place.address = *address;
                node.place.revision = self.revision;
            }
        }
        self.addresses = chosen;
        self.record()?;
        self.everybody().try_for_each(|who| self.configure(who))
    }

    /// Writes down what the cluster consists of, for whoever wants to find it.
    fn record(&self) -> Result<(), ClusterError> {
        let file = ClusterFile {
            volume: self.volume.to_string(),
            revision: self.revision,
            disks: self.disks.to_array().to_vec(),
            writer: Member::writer(self.writer_address, self.writer.as_ref().map(Running::id)),
            nodes: self.nodes.iter().map(NodeSeat::recorded).collect(),
        };
        file.save(&self.directory)?;
        Ok(())
    }

    fn configure(&self, who: Who) -> Result<(), ClusterError> {
        if let Who::Node(position) = who
            && self.seat(position)?.has_lost_log(&self.directory)
        {
            // Nobody is to start it from what would be written there.
            return Ok(());
        }
        let directory = self.directory.join(self.name(who));
        std::fs::create_dir_all(&directory).map_err(doing("creating a process's directory"))?;
        let comment = "Written by `quorate up` at every start: changes are lost.";
        let path = self.config(who);
        let (peers, members) = member::listed(&self.nodes);
        match who {
            Who::Node(position) => {
                let seat = self.seat(position)?;
                let node = NodeFile {
                    volume: self.volume.to_string(),
                    groups: 1,
                    group: 0,
                    position: position.index(),
                    incarnation: seat.place.incarnation.get(),
                    directory: ".".into(),
                    listen: seat.place.address,
                    peers,
                    members,
                };
                config::file::write(&path, comment, &node)?;
            }
            Who::Writer => {
                let writer = WriterFile::new(self.volume, self.writer_address, vec![peers]);
                config::file::write(&path, comment, &WriterFile { members, ..writer })?;
            }
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
        let directory = self.directory.clone();
        let seat = self.seat_mut(position)?;
        seat.look(&directory);
        if seat.is_lost {
            return Err(ClusterError::DiskLost { name: seat.name.clone() });
        }
        self.spawn(Who::Node(position))?;
        let status = self.wait_ready(position)?;
        self.record()?;
        Ok(status)
    }

    /// Ends the node at `position` at once, by SIGKILL: it gets no chance to write anything more.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node or it can't be ended.
    pub fn kill(&mut self, position: Position) -> Result<(), ClusterError> {
        match self.seat_mut(position)?.running.take() {
            Some(mut running) => running.kill().map_err(doing("ending a node")),
            None => Ok(()),
        }
    }

    /// Asks all processes to end, the writer first, and waits for it; those that haven't ended
    /// after `patience` are killed, and their names returned.
    ///
    /// # Errors
    /// [`ClusterError::Io`] when the operating system can't tell.
    pub fn end(mut self, patience: Duration) -> Result<Vec<String>, ClusterError> {
        let clock = Clock::start();
        let mut stubborn = Vec::new();
        let writer = self.writer.take().map(|writer| vec![(WRITER.to_string(), writer)]);
        let nodes = self.nodes.iter_mut();
        let nodes = nodes.filter_map(|node| Some((node.name.clone(), node.running.take()?)));
        let nodes = nodes.collect();
        for mut processes in [writer.unwrap_or_default(), nodes] {
            processes.iter_mut().for_each(|(_, process)| process.ask_to_end());
            while !processes.is_empty() {
                let mut left = Vec::new();
                for (name, mut process) in processes {
                    if process.ended().map_err(doing("looking at a process"))?.is_some() {
                        continue;
                    }
                    if clock.now() > Moment::new(patience) {
                        process.kill().map_err(doing("ending a process"))?;
                        stubborn.push(name);
                    } else {
                        left.push((name, process));
                    }
                }
                processes = left;
                thread::sleep(if processes.is_empty() { Duration::ZERO } else { POLL });
            }
        }
        self.record()?;
        Ok(stubborn)
    }

    /// Asks the node at `position` how it is.
    ///
    /// # Errors
    /// [`StatusError`] when it doesn't answer.
    pub fn status(&self, position: Position) -> Result<Status, StatusError> {
        let address = self.seat(position).map_err(|_| StatusError::TimedOut)?.place.address;
        status::ask(address, self.volume, PgId::new(0), position, ANSWER_MAX)
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
            let waited = clock.now().since(Moment::default());
            if waited > patience {
                return Err(ClusterError::NotLevel { waited });
            }
            thread::sleep(POLL);
        }
    }

    fn spawn(&mut self, who: Who) -> Result<(), ClusterError> {
        let (config, words) = (self.config(who), self.words(who));
        let running = Running::start(&self.executable, who.kind(), &config, &words, self.mutant)
            .map_err(doing("starting a process"))?;
        match who {
            Who::Node(position) => self.seat_mut(position)?.running = Some(running),
            Who::Writer => self.writer = Some(running),
        }
        Ok(())
    }

    fn wait_ready(&mut self, position: Position) -> Result<Status, ClusterError> {
        let clock = Clock::start();
        loop {
            self.check_node(position)?;
            match self.status(position) {
                Ok(status) => {
                    self.seat_mut(position)?.has_started = true;
                    self.record()?;
                    return Ok(status);
                }
                Err(error) => {
                    let waited = clock.now().since(Moment::default());
                    if waited > READY_MAX {
                        return Err(ClusterError::NotReady { position, waited, error });
                    }
                }
            }
            thread::sleep(POLL);
        }
    }

    /// Checks that the node at `position` has not ended: others are none of its business.
    fn check_node(&mut self, position: Position) -> Result<(), ClusterError> {
        let name = self.name(Who::Node(position));
        match self.look(false)?.into_iter().find(|ended| ended.name == name) {
            None => Ok(()),
            Some(Ended { name, status, words, .. }) => {
                Err(ClusterError::Ended { name, status, words })
            }
        }
    }

    /// Checks that every process that was started and not killed is running.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] with what the process said.
    pub fn check_alive(&mut self) -> Result<(), ClusterError> {
        match self.look(false)?.into_iter().next() {
            None => Ok(()),
            Some(Ended { name, status, words, .. }) => {
                Err(ClusterError::Ended { name, status, words })
            }
        }
    }

    /// Returns the processes that have ended since this was last asked.
    ///
    /// # Errors
    /// [`ClusterError::Io`] when the operating system can't tell.
    pub fn take_ended(&mut self) -> Result<Vec<Ended>, ClusterError> {
        let ended = self.look(true)?;
        if !ended.is_empty() {
            self.record()?;
        }
        Ok(ended)
    }

    fn look(&mut self, is_taking: bool) -> Result<Vec<Ended>, ClusterError> {
        let mut all = Vec::new();
        for who in self.everybody() {
            let slot = match who {
                Who::Node(position) => &mut self.seat_mut(position)?.running,
                Who::Writer => &mut self.writer,
            };
            let Some(running) = slot.as_mut() else { continue };
            let ended = running.ended().map_err(doing("looking at a process"))?;
            let Some(status) = ended else { continue };
            if is_taking {
                *slot = None;
            }
            let words = last_words(&self.words(who));
            let again = format!("{} --config {}", who.kind(), self.config(who).display());
            all.push(Ended { name: self.name(who), status, words, again });
        }
        Ok(all)
    }

    fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        self.positions().map(Who::Node).chain([Who::Writer])
    }

    /// Returns the positions of the nodes.
    pub fn positions(&self) -> impl Iterator<Item = Position> + Clone + use<> {
        let positions: Vec<Position> = self.nodes.iter().map(|node| node.position).collect();
        positions.into_iter()
    }

    /// Returns the addresses of the nodes; by position, unless some have been replaced.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns where the writer listens, or would.
    #[must_use]
    pub const fn writer_address(&self) -> SocketAddr {
        self.writer_address
    }

    /// Returns the processes that listen somewhere else than at the former start: another process
    /// has the port that they had.
    #[must_use]
    pub fn moved(&self) -> &[Moved] {
        &self.moved
    }

    /// Returns the nodes that didn't start; there are some only after
    /// [`Cluster::start_with_quorum`].
    #[must_use]
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Returns the names of the nodes that another process runs.
    pub fn elsewhere(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.is_elsewhere).map(|node| node.name.as_str())
    }

    /// Returns the names of the nodes that had no vote when they started, because of damage to
    /// their logs: their peers repair them.
    #[must_use]
    pub fn impaired(&self) -> &[String] {
        &self.impaired
    }

    /// Returns the volume that the nodes serve.
    #[must_use]
    pub const fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Returns the directory of the node at `position`.
    #[must_use]
    pub fn node_directory(&self, position: Position) -> PathBuf {
        self.directory.join(self.name(Who::Node(position)))
    }

    fn config(&self, who: Who) -> PathBuf {
        self.directory.join(self.name(who)).join(format!("{}.toml", who.kind()))
    }

    fn words(&self, who: Who) -> PathBuf {
        self.directory.join(self.name(who)).join("messages.txt")
    }
}

/// Returns whether the writer may let a client in a little later.
pub(crate) const fn is_temporary(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Connection(_) | ClientError::TimedOut(_) => true,
        ClientError::Hello(_)
        | ClientError::Oversized { .. }
        | ClientError::Refused(_)
        | ClientError::Unexpected => false,
    }
}

/// Returns addresses on loopback that nobody listens at now.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, ClusterError> {
    address::choose(&[], &vec![false; count])
}

/// Returns a name for the volume of a directory in which there is none.
fn new_volume(directory: &Path) -> Result<VolumeId, ClusterError> {
    let has_log = |(name, _): &(&str, &str)| directory.join(name).join(LOG_NAME).exists();
    if NAMES.iter().any(has_log) {
        return Err(ClusterError::Lost { directory: directory.to_path_buf() });
    }
    Ok(VolumeId::new(random().map_err(doing("asking for randomness"))?))
}
