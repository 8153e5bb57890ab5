//! A segment's log in a directory: its writes and syncs run on a thread of their own, and on
//! another one the next file is prepared before it is needed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use self::directory::RealDirectory;
use self::files::{Reader, Supply, Writer};
use self::layout::Layout;
use self::preparing::Preparing;
use super::RealWaker;
use crate::env::{Event, LogFile, LogFileError, Waker};
use crate::format::Note;

mod directory;
mod files;
mod layout;
mod preparing;

/// The name of the log\'s first file.
pub(crate) const LOG_NAME: &str = "segment.000000.log";

/// The name of the file that is locked while a process has the directory.
pub(crate) const LOCK_NAME: &str = "lock";

/// The most bytes written before one sync: what waits longer than that waits for the disk, not for
/// company.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What is kept of the memory of a group for the next one.
const GROUP_BYTES_KEPT: usize = 1 << 20;

/// A log in a directory that this process has locked.
#[derive(Debug)]
pub struct RealLog {
    reader: Reader<RealDirectory>,
    directory: RealDirectory,
    /// Held open: the lock ends with it, or with the process.
    _lock: File,
    submissions: Option<mpsc::Sender<Submission>>,
    thread: Option<JoinHandle<()>>,
    reports: Reports,
}

#[derive(Debug)]
struct Submission {
    number: u64,
    frame: Vec<u8>,
    note: Note,
}

/// Where a log's threads report to.
#[derive(Clone, Debug)]
struct Reports {
    events: mpsc::Sender<Event>,
    waker: RealWaker,
}

impl Reports {
    /// Reports `event`; says whether anybody is there to hear it.
    fn send(&self, event: Event) -> bool {
        let is_heard = self.events.send(event).is_ok();
        self.waker.wake();
        is_heard
    }

    fn fail(&self, error: &io::Error) {
        self.send(Event::LogFailed { error: error.kind() });
    }
}

impl RealLog {
    pub(super) fn open(
        directory: &Path,
        header: &[u8],
        events: mpsc::Sender<Event>,
        waker: RealWaker,
    ) -> Result<Self, LogFileError> {
        let directory = RealDirectory::create(directory)?;
        let lock = directory.lock(LOCK_NAME)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogFileError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let reader = Reader::open(directory.clone(), Layout::STANDARD, header)?;
        let reports = Reports { events, waker };
        Ok(Self { reader, directory, _lock: lock, submissions: None, thread: None, reports })
    }

    /// Starts the threads that write and prepare.
    fn start(&mut self) -> io::Result<mpsc::Sender<Submission>> {
        let supply =
            Preparing::start(self.directory.clone(), Layout::STANDARD, self.reports.clone())?;
        let writer = self.reader.writer(supply);
        let reports = self.reports.clone();
        let (sender, submissions) = mpsc::channel();
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = write_all(writer, &submissions, &reports) {
                reports.fail(&error);
            }
        })?;
        self.thread = Some(thread);
        Ok(sender)
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
                Ok(sender) => self.submissions = Some(sender),
                Err(error) => {
                    self.reports.fail(&error);
                    return;
                }
            }
        }
        if let Some(submissions) = &self.submissions {
            // A thread that is gone has reported its failure.
            let _ = submissions.send(Submission { number, frame, note });
        }
    }
}

impl Drop for RealLog {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes what is submitted, and syncs once for all that has come meanwhile (group commit).
fn write_all<S: Supply<File>>(
    mut writer: Writer<RealDirectory, S>,
    submissions: &mpsc::Receiver<Submission>,
    reports: &Reports,
) -> io::Result<()> {
    let mut group = Vec::new();
    while let Ok(first) = submissions.recv() {
        let Submission { number: mut through, frame: first, mut note } = first;
        // One write for all. A frame that is alone needs no copy.
        group.clear();
        while first.len().saturating_add(group.len()) < GROUP_BYTES_MAX
            && let Ok(next) = submissions.try_recv()
        {
            if group.is_empty() {
                group.extend_from_slice(&first);
            }
            group.extend_from_slice(&next.frame);
            (through, note) = (next.number, next.note);
        }
        writer.append(if group.is_empty() { &first } else { &group }, &note)?;
        group.shrink_to(GROUP_BYTES_KEPT);
        if !reports.send(Event::Durable { through }) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
