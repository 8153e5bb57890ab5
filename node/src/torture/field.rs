//! The processes under torture, and the network between them.
//!
//! Every node and every writer reaches every node through a link of its own, so that each pair can
//! be cut off by itself. Clients reach writers directly.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use quorate_core::id::{PgId, Position};
use quorate_core::rules::Bug;

use super::proxy::{Condition, LinkId, Proxy};
use super::{Options, TortureError};
use crate::client::Client;
use crate::clock::Clock;
use crate::cluster::process::{Running, last_words};
use crate::cluster::{NAMES, free_addresses};
use crate::config::VolumeId;
use crate::config::file::{self, NodeFile, WriterFile};
use crate::env::real::random;
use crate::status;

/// How long a process may take to answer.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a client waits for a reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(2);

/// Which writer process: they take turns.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Slot {
    One,
    Two,
}

impl Slot {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::One => "writer-1",
            Self::Two => "writer-2",
        }
    }
}

/// Who reaches nodes over links.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum End {
    Node(Position),
    Writer(Slot),
}

#[derive(Debug)]
struct Seat {
    name: String,
    listen: SocketAddr,
    config: PathBuf,
    words: PathBuf,
    process: Option<Running>,
    is_stopped: bool,
}

/// A cluster whose processes can be killed and stopped, and whose links can be cut.
#[derive(Debug)]
pub(super) struct Field {
    executable: PathBuf,
    mutant: Option<Bug>,
    volume: VolumeId,
    proxy: Proxy,
    seats: BTreeMap<End, Seat>,
    links: BTreeMap<(End, Position), LinkId>,
}

impl Field {
    /// Starts six nodes of a new volume, with their logs in the options' directory. Without faults
    /// of links there are none: everybody reaches the nodes directly.
    pub(super) fn start(options: &Options) -> Result<Self, TortureError> {
        let has_links = options.faults.iter().any(|fault| fault.is_of_links());
        let volume = VolumeId::new(random()?);
        let positions: Vec<Position> = Position::first(NAMES.len()).collect();
        let ends = positions.iter().map(|position| End::Node(*position));
        let ends: Vec<End> = ends.chain([Slot::One, Slot::Two].map(End::Writer)).collect();
        let addresses = free_addresses(ends.len())?;
        let mut field = Self {
            executable: options.executable.clone(),
            mutant: options.mutant,
            volume,
            seats: BTreeMap::new(),
            links: BTreeMap::new(),
            proxy: Proxy::start()?,
        };
        for (end, listen) in ends.iter().zip(&addresses) {
            let mut reached = Vec::new();
            for (position, address) in positions.iter().zip(&addresses) {
                if !has_links || *end == End::Node(*position) {
                    reached.push(*address);
                    continue;
                }
                let (link, through) = field.proxy.link(*address)?;
                field.links.insert((*end, *position), link);
                reached.push(through);
            }
            field.sit(*end, *listen, reached, &options.directory)?;
        }
        for position in &positions {
            field.start_process(End::Node(*position))?;
        }
        for position in &positions {
            field.wait_for_node(*position)?;
        }
        Ok(field)
    }

    /// Writes the configuration of one process.
    fn sit(
        &mut self,
        end: End,
        listen: SocketAddr,
        reached: Vec<SocketAddr>,
        directory: &Path,
    ) -> Result<(), TortureError> {
        let comment = "Written by `quorate torture`.";
        let (name, kind) = match end {
            End::Node(position) => {
                let name = NAMES.get(position.index()).map_or("?", |(name, _)| name);
                (name.to_owned(), "node")
            }
            End::Writer(slot) => (slot.name().to_owned(), "writer"),
        };
        let home = directory.join(&name);
        std::fs::create_dir_all(&home)?;
        let config = home.join(format!("{kind}.toml"));
        match end {
            End::Node(position) => {
                let node = NodeFile {
                    volume: self.volume.to_string(),
                    groups: 1,
                    group: 0,
                    position: position.index(),
                    incarnation: 0,
                    directory: ".".into(),
                    listen,
                    peers: reached,
                    members: Vec::new(),
                };
                file::write(&config, comment, &node)?;
            }
            End::Writer(_) => {
                let writer = WriterFile::new(self.volume, listen, vec![reached]);
                file::write(&config, comment, &writer)?;
            }
        }
        let words = home.join("words.log");
        let seat = Seat { name, listen, config, words, process: None, is_stopped: false };
        self.seats.insert(end, seat);
        Ok(())
    }

    fn seat(&mut self, end: End) -> Result<&mut Seat, TortureError> {
        self.seats.get_mut(&end).ok_or(TortureError::NoSeat)
    }

    fn start_process(&mut self, end: End) -> Result<(), TortureError> {
        let (executable, mutant) = (self.executable.clone(), self.mutant);
        let seat = self.seat(end)?;
        let kind = match end {
            End::Node(_) => "node",
            End::Writer(_) => "writer",
        };
        seat.process = Some(Running::start(&executable, kind, &seat.config, &seat.words, mutant)?);
        seat.is_stopped = false;
        Ok(())
    }

    /// Starts a node again on what its directory holds, and waits until it answers.
    pub(super) fn restart(&mut self, position: Position) -> Result<(), TortureError> {
        self.start_process(End::Node(position))?;
        self.wait_for_node(position)
    }

    fn wait_for_node(&mut self, position: Position) -> Result<(), TortureError> {
        let volume = self.volume;
        let listen = self.seat(End::Node(position))?.listen;
        self.wait(End::Node(position), || {
            status::ask(listen, volume, PgId::new(0), position, ANSWER_MAX).ok()
        })?;
        Ok(())
    }

    /// Starts a writer, which takes the volume over, and connects to it once it is open.
    pub(super) fn open(&mut self, slot: Slot) -> Result<Client, TortureError> {
        self.start_process(End::Writer(slot))?;
        let volume = self.volume;
        let listen = self.seat(End::Writer(slot))?.listen;
        self.wait(End::Writer(slot), || Client::connect(listen, volume, PATIENCE).ok())
    }

    fn wait<T>(
        &mut self,
        end: End,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, TortureError> {
        let clock = Clock::start();
        let start = clock.now();
        loop {
            if let Some(done) = attempt() {
                return Ok(done);
            }
            self.check_alive()?;
            if clock.now().since(start) > READY_MAX {
                let name = self.seat(end)?.name.clone();
                return Err(TortureError::NotReady { name });
            }
            thread::sleep(POLL);
        }
    }

    /// Ends a process by SIGKILL.
    pub(super) fn kill(&mut self, end: End) -> Result<(), TortureError> {
        if let Some(mut process) = self.seat(end)?.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Stops a process by SIGSTOP: it keeps its sockets and its memory.
    pub(super) fn stop(&mut self, end: End) -> Result<(), TortureError> {
        let seat = self.seat(end)?;
        if let Some(process) = &seat.process {
            process.stop()?;
            seat.is_stopped = true;
        }
        Ok(())
    }

    /// Lets a stopped process go on by SIGCONT.
    pub(super) fn resume(&mut self, end: End) -> Result<(), TortureError> {
        let seat = self.seat(end)?;
        if let Some(process) = &seat.process {
            process.resume()?;
            seat.is_stopped = false;
        }
        Ok(())
    }

    /// Changes a link.
    pub(super) fn set(&self, from: End, to: Position, condition: Condition) {
        if let Some(link) = self.links.get(&(from, to)) {
            self.proxy.set(*link, condition);
        }
    }

    /// Ends the connections of a link.
    pub(super) fn reset(&self, from: End, to: Position) {
        if let Some(link) = self.links.get(&(from, to)) {
            self.proxy.reset(*link);
        }
    }

    /// Lets every link pass everything, every node run, and every stopped process go on.
    pub(super) fn heal(&mut self) -> Result<(), TortureError> {
        for link in self.links.values() {
            self.proxy.set(*link, Condition::default());
        }
        let ends: Vec<End> = self.seats.keys().copied().collect();
        for end in ends {
            if self.seat(end)?.is_stopped {
                self.resume(end)?;
            }
            if let End::Node(position) = end
                && self.seat(end)?.process.is_none()
            {
                self.restart(position)?;
            }
        }
        Ok(())
    }

    /// Says how every process is, for whoever has to find out what happened.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (end, seat) in &self.seats {
            let how = match (end, &seat.process) {
                (_, None) => "not running".to_owned(),
                (_, Some(_)) if seat.is_stopped => "stopped".to_owned(),
                (End::Node(position), Some(_)) => {
                    let group = PgId::new(0);
                    match status::ask(seat.listen, self.volume, group, *position, ANSWER_MAX) {
                        Ok(status) => format!("{status:?}"),
                        Err(error) => error.to_string(),
                    }
                }
                (End::Writer(_), Some(_)) => {
                    let connected = Client::connect(seat.listen, self.volume, ANSWER_MAX);
                    match connected.and_then(|mut client| client.status()) {
                        Ok(status) => format!("{status:?}"),
                        Err(error) => error.to_string(),
                    }
                }
            };
            text += &format!("{}: {how}\n{}\n", seat.name, last_words(&seat.words));
        }
        text
    }

    /// Checks that no process has ended by itself but a writer, which may have been overtaken.
    pub(super) fn check_alive(&mut self) -> Result<(), TortureError> {
        for (end, seat) in &mut self.seats {
            let Some(process) = &mut seat.process else { continue };
            let Some(status) = process.ended()? else { continue };
            let words = last_words(&seat.words);
            if matches!(end, End::Writer(_)) && words.contains("overtaken") {
                seat.process = None;
                continue;
            }
            return Err(TortureError::Ended { name: seat.name.clone(), status, words });
        }
        Ok(())
    }
}

impl From<io::Error> for TortureError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
