//! A segment's log in a directory: its writes and syncs run on a thread of their own, and on
//! another one the next file is prepared before it is needed.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use self::directory::{Directory, RealDirectory};
use self::files::{Reader, Supply, Writer, is_log};
use self::layout::Layout;
use self::preparing::Preparing;
use super::RealWaker;
use crate::env::{Event, LogFile, LogFileError, Waker};
use crate::format::Note;
use crate::handover::Handover;
use crate::mailbox::Mailbox;

mod directory;
mod files;
mod layout;
mod preparing;

/// The name of the log\'s first file.
pub(crate) const LOG_NAME: &str = "segment.000000.log";

/// The name of the file that is locked while a process has the directory.
pub(crate) const LOCK_NAME: &str = "lock";

/// What the locked file says once there is a log beside it.
const HAS_LOG: &[u8] = b"There is, or was, a log in this directory.\n";

/// What is kept of the memory of a group for another one.
const GROUP_BYTES_KEPT: usize = 1 << 20;

/// A log in a directory that this process has locked.
#[derive(Debug)]
pub struct RealLog {
    reader: Reader<RealDirectory>,
    directory: RealDirectory,
    /// Held open: the lock ends with it, or with the process.
    _lock: File,
    submissions: Option<Arc<Handover<Last>>>,
    thread: Option<JoinHandle<()>>,
    reports: Reports,
}

/// What is said of the last frame that was submitted.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    note: Note,
}

/// Where a log's threads report to.
#[derive(Clone, Debug)]
struct Reports {
    events: Arc<Mailbox<Event>>,
    waker: RealWaker,
}

impl Reports {
    /// Reports `event`; says whether anybody is there to hear it.
    fn send(&self, event: Event) -> bool {
        let posted = self.events.post(event);
        if posted == Ok(true) {
            self.waker.wake();
        }
        posted.is_ok()
    }

    fn fail(&self, error: &io::Error) {
        self.send(Event::LogFailed { error: error.kind() });
    }
}

impl RealLog {
    pub(super) fn open(
        directory: &Path,
        header: &[u8],
        events: Arc<Mailbox<Event>>,
        waker: RealWaker,
    ) -> Result<Self, LogFileError> {
        let directory = RealDirectory::create(directory)?;
        let lock = directory.lock(LOCK_NAME)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogFileError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // A segment that forgets what it has acknowledged must not come back as if it were new.
        let has_log = directory.names()?.iter().any(|name| is_log(name));
        if !has_log && lock.metadata()?.len() > 0 {
            return Err(LogFileError::Gone);
        }
        let reader = Reader::open(directory.clone(), Layout::STANDARD, header)?;
        if lock.metadata()?.len() == 0 {
            (&lock).write_all(HAS_LOG)?;
            lock.sync_all()?;
        }
        let reports = Reports { events, waker };
        Ok(Self { reader, directory, _lock: lock, submissions: None, thread: None, reports })
    }

    /// Starts the threads that write and prepare.
    fn start(&mut self) -> io::Result<Arc<Handover<Last>>> {
        let supply =
            Preparing::start(self.directory.clone(), Layout::STANDARD, self.reports.clone())?;
        let writer = self.reader.writer(supply);
        let reports = self.reports.clone();
        let submissions = Arc::new(Handover::new());
        let handed = Arc::clone(&submissions);
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = write_all(writer, &handed, &reports) {
                reports.fail(&error);
            }
        })?;
        self.thread = Some(thread);
        Ok(submissions)
    }
}

impl LogFile for RealLog {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reader.read_at(offset, into)
    }

    fn length(&self) -> u64 {
        self.reader.length()
    }

    fn notes(&self) -> &[Note] {
        self.reader.notes()
    }

    fn settle(&mut self, doubtful: u64, length: u64) -> io::Result<()> {
        self.reader.settle(doubtful, length)
    }

    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note) {
        if self.submissions.is_none() {
            match self.start() {
                Ok(submissions) => self.submissions = Some(submissions),
                Err(error) => {
                    self.reports.fail(&error);
                    return;
                }
            }
        }
        if let Some(submissions) = &self.submissions {
            // A thread that is gone has reported its failure.
            submissions.add(&frame, Last { number, note });
        }
    }
}

impl Drop for RealLog {
    fn drop(&mut self) {
        if let Some(submissions) = self.submissions.take() {
            submissions.close();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes what is submitted, and syncs once for all that has come meanwhile (group commit).
fn write_all<S: Supply<File>>(
    mut writer: Writer<RealDirectory, S>,
    submissions: &Handover<Last>,
    reports: &Reports,
) -> io::Result<()> {
    let mut group = Vec::new();
    while let Some(Last { number: through, note }) = submissions.exchange(&mut group) {
        writer.append(&group, &note)?;
        group.shrink_to(GROUP_BYTES_KEPT);
        if !reports.send(Event::Durable { through }) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
