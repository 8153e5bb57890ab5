//! A segment's log in a directory: it is written by the loop while the disk is fast, and by a
//! thread of its own while it isn't; on another one the next file is prepared before it is needed.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_core::record::Record;

use self::directory::{Directory, RealDirectory};
use self::files::{Keep, Reader, Writer, is_first, is_log};
use self::layout::Layout;
use self::making::Blank;
use self::opened::Files;
use self::preparing::{Job, Preparing};
use super::RealWaker;
use super::pages::Pages;
use crate::clock::{Clock, Moment};
use crate::env::{Event, KeepNote, LogFile, LogFileError, NOTE_AFTER, Waker, is_full};
use crate::format::Note;
use crate::handover::{Claim, Handover};
use crate::mailbox::Mailbox;
use crate::store::{Snapshot, StoreError, Stored};

mod blocks;
mod directory;
mod files;
mod layout;
mod making;
mod opened;
mod preparing;
mod replacing;

/// The name of the log\'s first file.
pub(crate) const LOG_NAME: &str = "segment.000000.log";

/// The name of the file that is locked while a process has the directory.
pub(crate) const LOCK_NAME: &str = "lock";

/// What the locked file says once there is a log beside it.
const HAS_LOG: &[u8] = b"There is, or was, a log in this directory.\n";

/// How long a write of the loop's own may take before the next ones are left to the thread: longer
/// than disks take that are well, and short beside all timeouts of a volume.
const OWN_WRITE_MAX: Duration = Duration::from_millis(25);

/// How long after a checkpoint found the disk full it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many groups are left to the thread before the loop tries again.
const OTHERS_WRITES: u32 = 64;

/// A log in a directory that this process has locked.
#[derive(Debug)]
pub struct RealLog {
    reader: Reader<RealDirectory>,
    directory: RealDirectory,
    /// Held open: the lock ends with it, or with the process.
    _lock: File,
    /// Open from [`LogFile::open_store`] on.
    pages: Option<Arc<Pages>>,
    checkpointing: Option<Checkpointing>,
    writing: Option<Writing>,
    reports: Reports,
}

/// A checkpoint under way, or the last one.
#[derive(Debug)]
struct Checkpointing {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What there is once something has been submitted.
///
/// The loop writes by itself as long as the disk answers at once: handing bytes to a thread and
/// hearing of it again costs as much as a good disk takes, and what comes meanwhile waits in the
/// sockets and makes a group. A disk that makes it wait gets a thread, so that reads, seals and
/// gossip go on.
#[derive(Debug)]
struct Writing {
    submissions: Arc<Handover<Last>>,
    appender: Arc<Mutex<Appender>>,
    thread: Option<JoinHandle<()>>,
    group: Vec<Vec<u8>>,
    clock: Clock,
    /// So many groups go to the thread before the loop tries again.
    others: u32,
    /// Tells the thread that prepares files which ones are superfluous.
    trims: Option<mpsc::Sender<Job>>,
}

/// What writes groups of frames, whoever calls it.
#[derive(Debug)]
struct Appender {
    writer: Writer<RealDirectory, Preparing<RealDirectory>>,
    clock: Clock,
    /// When a note was last kept far from its frames.
    noted: Option<Moment>,
    /// Nothing is tried again after an error: what is durable is unknown.
    has_failed: bool,
}

impl Appender {
    fn append(&mut self, group: &[Vec<u8>], last: &Last) -> io::Result<()> {
        if std::mem::replace(&mut self.has_failed, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let now = self.clock.now();
        let is_recent = self.noted.is_some_and(|noted| now.since(noted) < NOTE_AFTER);
        let keep = match last.keep {
            KeepNote::NowAndThen if is_recent => Keep::Near,
            KeepNote::Always | KeepNote::NowAndThen => Keep::NearAndFar,
        };
        self.writer.append(group, &last.note, keep)?;
        if keep == Keep::NearAndFar {
            self.noted = Some(now);
        }
        self.has_failed = false;
        Ok(())
    }
}

/// What is said of the last frame that was submitted.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    note: Note,
    keep: KeepNote,
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
        if !directory.names()?.iter().any(|name| is_first(name)) {
            return Err(LogFileError::FirstFileGone);
        }
        if lock.metadata()?.len() == 0 {
            (&lock).write_all(HAS_LOG)?;
            lock.sync_all()?;
        }
        let reports = Reports { events, waker };
        let (pages, checkpointing, writing) = (None, None, None);
        Ok(Self { reader, directory, _lock: lock, pages, checkpointing, writing, reports })
    }

    /// Makes a checkpoint on a thread of its own, which reads the log by itself.
    fn start_checkpoint(&mut self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.end_checkpoint();
        let pages = Arc::clone(self.pages.as_ref().ok_or(StoreError::Gone)?);
        let files = Files::new(self.directory.clone(), Layout::STANDARD);
        let (salt, reports) = (self.reader.salt(), self.reports.clone());
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let job = move || {
            let read = |at, into: &mut [u8]| {
                if ends.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                files.read_at(at, into)
            };
            loop {
                match pages.write(salt, &snapshot, &read) {
                    Ok(made) => {
                        reports.send(Event::Checkpointed(made));
                    }
                    Err(_) if ends.load(Ordering::Relaxed) => {}
                    Err(StoreError::Failed(error)) if is_full(error) && pages.reopen().is_ok() => {
                        // The log goes on without it as long as it has space.
                        reports.send(Event::LogCramped { error });
                        thread::park_timeout(RETRY_AFTER);
                        continue;
                    }
                    Err(error) => {
                        reports.send(Event::CheckpointFailed { error });
                    }
                }
                return;
            }
        };
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(job)?;
        self.checkpointing = Some(Checkpointing { is_over, thread });
        Ok(())
    }

    /// Waits for the thread that makes checkpoints, and makes it give up.
    fn end_checkpoint(&mut self) {
        if let Some(Checkpointing { is_over, thread }) = self.checkpointing.take() {
            is_over.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }

    /// Starts the threads that write and prepare.
    fn start(&self) -> io::Result<Writing> {
        let blank = Blank { header: &[], salt: self.reader.salt() };
        let (directory, reports) = (self.directory.clone(), self.reports.clone());
        let supply = Preparing::start(directory, Layout::STANDARD, blank, reports)?;
        let trims = supply.trims();
        if let Some(trims) = &trims {
            // What was superfluous when the last life of this log ended, and still is.
            let _ = trims.send(Job::Trim(self.reader.first()));
        }
        let writer = self.reader.writer(supply)?;
        let appender = Appender { writer, clock: Clock::start(), noted: None, has_failed: false };
        let appender = Arc::new(Mutex::new(appender));
        let submissions = Arc::new(Handover::new());
        let reports = self.reports.clone();
        let (theirs, handed) = (Arc::clone(&appender), Arc::clone(&submissions));
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = write_all(&theirs, &handed, &reports) {
                reports.fail(&error);
            }
        })?;
        Ok(Writing {
            submissions,
            appender,
            thread: Some(thread),
            group: Vec::new(),
            clock: Clock::start(),
            others: 0,
            trims,
        })
    }
}

impl Writing {
    fn commit(&mut self) -> Option<io::Result<u64>> {
        if self.others > 0 {
            if self.submissions.length() > 0 {
                self.others = self.others.saturating_sub(1);
                self.submissions.offer();
            }
            return None;
        }
        let Ok(mut appender) = self.appender.try_lock() else {
            self.submissions.offer();
            return None;
        };
        if !appender.writer.is_ready(self.submissions.length()) {
            self.submissions.offer();
            return None;
        }
        let Claim::Mine(last) = self.submissions.claim(&mut self.group) else {
            return None;
        };
        let begun = self.clock.now();
        let appended = appender.append(&self.group, &last);
        if self.clock.now().since(begun) > OWN_WRITE_MAX {
            self.others = OTHERS_WRITES;
        }
        self.group.clear();
        self.submissions.release();
        Some(appended.map(|()| last.number))
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

    fn has_newest_note(&self, durable: u64) -> bool {
        self.reader.has_newest_note(durable)
    }

    fn settle(&mut self, doubtful: u64, length: u64, until: u64) -> io::Result<()> {
        self.reader.settle(doubtful, length, until)
    }

    fn open_store(&mut self, salt: u64) -> Result<(), StoreError> {
        debug_assert_eq!(salt, self.reader.salt());
        if self.pages.is_some() {
            return Ok(());
        }
        let path = self.directory.path();
        let pages = match Pages::open(path)? {
            Some(pages) => pages,
            None if self.reader.is_trimmed() => return Err(StoreError::Gone),
            None => Pages::create(path)?,
        };
        self.pages = Some(Arc::new(pages));
        Ok(())
    }

    fn stored(&self) -> Result<Option<Stored>, StoreError> {
        self.pages.as_ref().ok_or(StoreError::Gone)?.load(self.reader.salt())
    }

    fn read_stored(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        self.pages.as_ref().ok_or(StoreError::Gone)?.read(record)
    }

    fn holds(&mut self, kept: u64, at: u64) -> bool {
        self.reader.holds(kept, at)
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        if let Err(error) = self.start_checkpoint(snapshot) {
            self.reports.send(Event::CheckpointFailed { error });
        }
    }

    fn trim(&mut self, kept: u64) {
        let first = self.reader.trim(kept);
        if let Some(trims) = self.writing.as_ref().and_then(|writing| writing.trims.as_ref()) {
            // A thread that is gone has reported why.
            let _ = trims.send(Job::Trim(first));
        }
    }

    fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String> {
        self.reader.replace(kept, frame, note)
    }

    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note, keep: KeepNote) {
        if self.writing.is_none() {
            match self.start() {
                Ok(writing) => self.writing = Some(writing),
                Err(error) => {
                    self.reports.fail(&error);
                    return;
                }
            }
        }
        if let Some(writing) = &self.writing {
            // A thread that is gone has reported its failure.
            writing.submissions.add(frame, Last { number, note, keep });
        }
    }

    fn commit(&mut self) -> Option<Event> {
        Some(match self.writing.as_mut()?.commit()? {
            Ok(through) => Event::Durable { through },
            Err(error) => Event::LogFailed { error: error.kind() },
        })
    }
}

impl Drop for RealLog {
    fn drop(&mut self) {
        self.end_checkpoint();
        if let Some(mut writing) = self.writing.take() {
            writing.submissions.close();
            writing.trims = None;
            if let Some(thread) = writing.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Writes what is offered, and syncs once for all that has come meanwhile.
fn write_all(
    appender: &Mutex<Appender>,
    submissions: &Handover<Last>,
    reports: &Reports,
) -> io::Result<()> {
    let mut group = Vec::new();
    while let Some(last) = submissions.exchange(&mut group) {
        appender.lock().unwrap_or_else(PoisonError::into_inner).append(&group, &last)?;
        group.clear();
        submissions.release();
        if !reports.send(Event::Durable { through: last.number }) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
