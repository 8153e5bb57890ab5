//! An append-only file whose writes and syncs run on a thread of their own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::RealWaker;
use crate::env::{Event, LogFile, LogFileError, Waker};

/// The log's name in its directory.
pub(crate) const LOG_NAME: &str = "segment.log";

/// The name of a log whose header isn't durable yet.
const UNFINISHED_NAME: &str = "segment.log.new";

/// The name of the file that is locked while a process has the directory.
pub(crate) const LOCK_NAME: &str = "lock";

/// The most bytes written before one sync: what waits longer than that waits for the disk, not for
/// company.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// A file in a directory that this process has locked.
#[derive(Debug)]
pub struct RealLog {
    file: File,
    length: u64,
    /// Held open: the lock ends with it, or with the process.
    _lock: File,
    submissions: Option<mpsc::Sender<Submission>>,
    thread: Option<JoinHandle<()>>,
    events: mpsc::Sender<Event>,
    waker: RealWaker,
}

#[derive(Debug)]
struct Submission {
    number: u64,
    bytes: Vec<u8>,
}

impl RealLog {
    pub(super) fn open(
        directory: &Path,
        header: &[u8],
        events: mpsc::Sender<Event>,
        waker: RealWaker,
    ) -> Result<Self, LogFileError> {
        std::fs::create_dir_all(directory)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogFileError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = directory.join(LOG_NAME);
        if !path.try_exists()? {
            create(directory, header)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, _lock: lock, submissions: None, thread: None, events, waker })
    }

    /// Starts the thread that writes and syncs.
    fn start(&mut self) -> io::Result<mpsc::Sender<Submission>> {
        let file = self.file.try_clone()?;
        let (sender, submissions) = mpsc::channel();
        let (events, waker, tail) = (self.events.clone(), self.waker.clone(), self.length);
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = write_all(&file, tail, &submissions, &events, &waker) {
                let _ = events.send(Event::LogFailed { error: error.kind() });
                waker.wake();
            }
        })?;
        self.thread = Some(thread);
        Ok(sender)
    }
}

impl LogFile for RealLog {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn settle(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            self.file.set_len(length)?;
        }
        self.length = length;
        self.file.sync_all()
    }

    fn submit(&mut self, number: u64, bytes: Vec<u8>) {
        if self.submissions.is_none() {
            match self.start() {
                Ok(sender) => self.submissions = Some(sender),
                Err(error) => {
                    let _ = self.events.send(Event::LogFailed { error: error.kind() });
                    self.waker.wake();
                    return;
                }
            }
        }
        if let Some(submissions) = &self.submissions {
            // A thread that is gone has reported its failure.
            let _ = submissions.send(Submission { number, bytes });
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

/// Creates the log with its header: under another name first, so that no crash leaves half of one.
fn create(directory: &Path, header: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED_NAME);
    let mut file = File::create(&unfinished)?;
    file.write_all(header)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, directory.join(LOG_NAME))?;
    File::open(directory)?.sync_all()?;
    // The directory itself is an entry of its parent.
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes what is submitted, and syncs once for all that has come meanwhile (group commit).
fn write_all(
    file: &File,
    mut tail: u64,
    submissions: &mpsc::Receiver<Submission>,
    events: &mpsc::Sender<Event>,
    waker: &RealWaker,
) -> io::Result<()> {
    while let Ok(first) = submissions.recv() {
        let mut next = Some(first);
        let mut through = 0;
        let mut grouped = 0;
        while let Some(Submission { number, bytes }) = next {
            file.write_all_at(&bytes, tail)?;
            let overflow = || io::Error::from(io::ErrorKind::FileTooLarge);
            tail = tail.checked_add(bytes.len() as u64).ok_or_else(overflow)?;
            grouped += bytes.len();
            through = number;
            next = if grouped < GROUP_BYTES_MAX { submissions.try_recv().ok() } else { None };
        }
        file.sync_data()?;
        if events.send(Event::Durable { through }).is_err() {
            return Ok(());
        }
        waker.wake();
    }
    Ok(())
}
