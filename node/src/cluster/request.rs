//! What another process asks of the one that runs a cluster: a file in the cluster's directory, a
//! signal, and a file with the answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use quorate_core::id::{Incarnation, Position, SegmentId};
use serde::{Deserialize, Serialize};

use super::lock::{self, StewardLock};
use super::{Cluster, ClusterError, ClusterFile, POLL, doing};
use crate::addresses::Place;
use crate::client::{Client, ClientError};
use crate::clock::{Clock, Moment};
use crate::config::file;
use crate::env::real::random;
use crate::steward::{Hands, StewardError};

const REQUEST_FILE: &str = "request.toml";
const ANSWER_FILE: &str = "answer.toml";

/// How long the process that runs the cluster may take to answer: longer than a node may take to
/// get ready.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A disk of a position.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Disk {
    position: usize,
    incarnation: u32,
}

impl From<SegmentId> for Disk {
    fn from(id: SegmentId) -> Self {
        Self { position: id.position.index(), incarnation: id.incarnation.get() }
    }
}

impl Disk {
    fn id(self) -> Option<SegmentId> {
        let incarnation = Incarnation::new(self.incarnation);
        Some(SegmentId { position: Position::new(self.position)?, incarnation })
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Random; the answer repeats it.
    name: String,
    /// In whose place a node is to be provided, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Disk>,
    /// All that stay, if others are to be retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<Vec<Disk>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(default)]
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What a request has led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answered {
    /// Nothing new.
    Nothing,
    /// It isn't one, because of this.
    Unreadable(String),
    /// A node with this name runs now that wasn't there before.
    Provided(String),
    /// These nodes are no part of the cluster any more.
    Retired(Vec<String>),
}

impl Cluster {
    /// Does what another process asks for, if one does, and answers it.
    ///
    /// # Errors
    /// [`ClusterError`] when that can't be told.
    pub fn answer(&mut self) -> Result<Answered, ClusterError> {
        let path = self.directory.join(REQUEST_FILE);
        if !path.exists() {
            return Ok(Answered::Nothing);
        }
        let request: Request = match file::read(&path) {
            Ok(request) => request,
            // The cluster goes on, whatever is in that file.
            Err(error) => return Ok(Answered::Unreadable(error.to_string())),
        };
        std::fs::remove_file(&path).map_err(doing("removing a request"))?;
        let mut answer = Answer { name: request.name.clone(), ..Answer::default() };
        let answered = match self.carry_out(&request, &mut answer) {
            Ok(answered) => answered,
            Err(ClusterError::DiskLost { name }) => {
                answer.lost = Some(name);
                Answered::Nothing
            }
            Err(error) => {
                answer.problem = Some(error.to_string());
                Answered::Nothing
            }
        };
        file::write(&self.directory.join(ANSWER_FILE), "Written by `quorate up`.", &answer)?;
        Ok(answered)
    }

    fn carry_out(
        &mut self,
        request: &Request,
        answer: &mut Answer,
    ) -> Result<Answered, ClusterError> {
        if let Some(keep) = &request.keep {
            let keep: Vec<SegmentId> = keep.iter().filter_map(|disk| disk.id()).collect();
            let names = self.retire(&keep)?;
            return Ok(if names.is_empty() { Answered::Nothing } else { Answered::Retired(names) });
        }
        let old = request.old.and_then(Position::new);
        let new = request.new.and_then(Disk::id);
        let Some((old, new)) = old.zip(new) else { return Ok(Answered::Nothing) };
        let is_new = self.incarnation(new.position) != Some(new.incarnation);
        let place = self.provide(old, new)?;
        answer.address = Some(place.address);
        answer.revision = place.revision;
        let name = self.name(super::Who::Node(new.position));
        Ok(if is_new { Answered::Provided(name) } else { Answered::Nothing })
    }
}

/// The hands of a steward for a cluster on this machine that another process runs.
#[derive(Debug)]
pub struct LocalHands {
    directory: PathBuf,
    patience: Duration,
    _lock: StewardLock,
}

impl LocalHands {
    /// Returns the hands for the cluster in `directory`, whose writer may take `patience` for an
    /// answer.
    ///
    /// # Errors
    /// [`ClusterError::OtherSteward`] when another process has them: what one has seen would be old
    /// when the other one has acted.
    pub fn new(directory: &Path, patience: Duration) -> Result<Self, ClusterError> {
        let lock = StewardLock::take(directory).map_err(doing("taking the steward's lock"))?;
        let Some(lock) = lock else {
            return Err(ClusterError::OtherSteward { directory: directory.to_path_buf() });
        };
        Ok(Self { directory: directory.to_path_buf(), patience, _lock: lock })
    }

    fn ask(&self, request: &Request) -> Result<Answer, ClusterError> {
        let path = self.directory.join(ANSWER_FILE);
        file::write(&self.directory.join(REQUEST_FILE), "Written by `quorate repair`.", request)?;
        let not_running = || ClusterError::NotRunning { directory: self.directory.clone() };
        if !lock::call(&self.directory).map_err(doing("asking for a node"))? {
            return Err(not_running());
        }
        let clock = Clock::start();
        while clock.now() < Moment::new(ANSWER_MAX) {
            if path.exists()
                && let Ok(answer) = file::read::<Answer>(&path)
                && answer.name == request.name
            {
                return match (&answer.lost, &answer.problem) {
                    (Some(name), _) => Err(ClusterError::DiskLost { name: name.clone() }),
                    (None, Some(problem)) => Err(ClusterError::Said { words: problem.clone() }),
                    (None, None) => Ok(answer),
                };
            }
            thread::sleep(POLL);
        }
        Err(not_running())
    }

    fn request() -> Result<Request, ClusterError> {
        let name = random().map_err(doing("asking for randomness"))?;
        Ok(Request { name: format!("{name:016x}"), old: None, new: None, keep: None })
    }
}

impl Hands for LocalHands {
    fn connect(&mut self) -> Result<Client, ClientError> {
        let file = ClusterFile::load(&self.directory).ok().flatten();
        let file = file.ok_or(ClientError::Unexpected)?;
        Client::connect(file.writer.address, file.volume(), self.patience)
    }

    fn provide(&mut self, old: Position, new: SegmentId) -> Result<Place, StewardError> {
        let (old, disk) = (Some(old.index()), Some(new.into()));
        let answer = self.ask(&Request { old, new: disk, ..Self::request()? })?;
        let address = answer.address.ok_or(ClusterError::NoPorts)?;
        Ok(Place { incarnation: new.incarnation, revision: answer.revision, address })
    }

    fn retire(&mut self, keep: &[SegmentId]) -> Result<(), StewardError> {
        let keep = Some(keep.iter().map(|id| (*id).into()).collect());
        self.ask(&Request { keep, ..Self::request()? })?;
        Ok(())
    }
}
