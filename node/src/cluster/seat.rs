//! A writer process that somebody may freeze, resume, end, and watch end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use super::error::doing;
use super::process::{Running, last_words};
use super::{Cluster, ClusterError, READY_MAX, WRITER, Who, free_addresses, is_temporary, member};
use crate::client::Client;
use crate::clock::{Clock, Moment};
use crate::config::file::WriterFile;
use crate::config::{self, VolumeId};

/// The time between two looks at something that is waited for: short beside what a takeover takes.
const POLL: Duration = Duration::from_millis(1);

impl Cluster {
    /// Gives the writer that this cluster started away, with its process: who holds it may freeze
    /// it, resume it, and watch it end. `None` when there is none any more.
    pub(crate) fn give_writer(&mut self) -> Option<WriterSeat> {
        let process = self.writer.take()?;
        let words = self.words(Who::Writer);
        Some(WriterSeat::new(WRITER, self.writer_address, self.volume, words, process))
    }

    /// Starts another writer process, called `name`, which takes the volume over.
    ///
    /// # Errors
    /// [`ClusterError`] when it can't be started; whether it opens, [`WriterSeat::connect`] says.
    pub(crate) fn another_writer(&self, name: &str) -> Result<WriterSeat, ClusterError> {
        let address = free_addresses(1)?.pop().ok_or(ClusterError::NoPorts)?;
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory).map_err(doing("creating a process's directory"))?;
        let config = directory.join("writer.toml");
        let (peers, members) = member::listed(&self.nodes);
        let file = WriterFile::new(self.volume, address, vec![peers]);
        let file = WriterFile { members, ..file };
        config::file::write(&config, "Written by `quorate`.", &file)?;
        let words = directory.join("messages.txt");
        let process = Running::start(&self.executable, "writer", &config, &words, self.mutant);
        let process = process.map_err(doing("starting a process"))?;
        Ok(WriterSeat::new(name, address, self.volume, words, process))
    }
}

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
    fn new(
        name: &str,
        address: SocketAddr,
        volume: VolumeId,
        words: PathBuf,
        process: Running,
    ) -> Self {
        Self { name: name.to_owned(), address, volume, words, process }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
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
