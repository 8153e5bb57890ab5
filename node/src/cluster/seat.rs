//! A writer process that somebody may freeze, resume, end, and watch end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use super::error::doing;
use super::process::{Running, last_words};
use super::{ClusterError, READY_MAX, is_temporary};
use crate::client::Client;
use crate::clock::{Clock, Moment};
use crate::config::VolumeId;

/// The time between two looks at something that is waited for: short beside what a takeover takes.
const POLL: Duration = Duration::from_millis(1);

/// A writer process. It ends with this value.
#[derive(Debug)]
pub(crate) struct WriterSeat {
    name: String,
    address: SocketAddr,
    volume: VolumeId,
    words: PathBuf,
    process: Running,
}

impl WriterSeat {
    pub(super) fn new(
        name: &str,
        address: SocketAddr,
        volume: VolumeId,
        words: PathBuf,
        process: Running,
    ) -> Self {
        Self { name: name.to_owned(), address, volume, words, process }
    }

    /// Connects as soon as the volume is open; the client then waits for `patience` at most for
    /// each answer.
    pub(crate) fn connect(&mut self, patience: Duration) -> Result<Client, ClusterError> {
        let clock = Clock::start();
        loop {
            // It lets nobody in before the volume is open.
            match Client::connect(self.address, self.volume, patience) {
                Ok(client) => return Ok(client),
                Err(error) => {
                    let waited = clock.now().since(Moment::default());
                    if waited > READY_MAX || !is_temporary(&error) {
                        return Err(ClusterError::NoWriter { waited, error });
                    }
                }
            }
            if let Some(status) = self.ended()? {
                let (name, words) = (self.name.clone(), last_words(&self.words));
                return Err(ClusterError::Ended { name, status, words });
            }
            thread::sleep(POLL);
        }
    }

    /// Freezes the process by SIGSTOP: it keeps its memory and its sockets, and does nothing.
    pub(crate) fn freeze(&self) -> Result<(), ClusterError> {
        self.process.stop().map_err(doing("freezing a process"))
    }

    /// Lets a frozen process go on, by SIGCONT.
    pub(crate) fn resume(&self) -> Result<(), ClusterError> {
        self.process.resume().map_err(doing("resuming a process"))
    }

    /// Returns how the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ClusterError> {
        self.process.ended().map_err(doing("looking at a process"))
    }

    /// Waits until the process has ended by itself; `None` when it hasn't after `patience`.
    pub(crate) fn wait_ended(
        &mut self,
        patience: Duration,
    ) -> Result<Option<ExitStatus>, ClusterError> {
        let clock = Clock::start();
        loop {
            match self.ended()? {
                None if clock.now() < Moment::new(patience) => thread::sleep(POLL),
                ended => return Ok(ended),
            }
        }
    }

    /// Returns the end of what the process wrote.
    pub(crate) fn words(&self) -> String {
        last_words(&self.words)
    }
}
