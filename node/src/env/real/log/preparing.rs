//! The thread that prepares a log's next file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Reports;
use super::directory::Directory;
use super::files::{Supply, name};
use super::layout::Layout;
use super::making::{Blank, Ready, Stock};
use crate::env::{Event, is_full};

/// How long after it found no space for a file the thread looks again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Debug)]
enum Answer<F> {
    /// The disk is full. The thread goes on trying.
    Full(io::Error),
    /// No file will come any more.
    Failed(io::Error),
    /// The file with this number is there.
    Ready(u32, Ready<F>),
}

/// What the thread is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Prepare the file with this number.
    Prepare(u32),
    /// The files before the one with this number are superfluous, but for the first one of all.
    Trim(u32),
}

/// The files of a log, with the next one in preparation.
#[derive(Debug)]
pub(super) struct Preparing<D: Directory> {
    directory: D,
    requests: Option<mpsc::Sender<Job>>,
    answers: mpsc::Receiver<Answer<D::File>>,
    /// The highest number requested and not taken.
    requested: Option<u32>,
    /// The last answer that was looked at and not taken.
    answer: Option<Answer<D::File>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Directory> Preparing<D> {
    /// Starts the thread.
    pub(super) fn start(
        directory: D,
        layout: Layout,
        blank: Blank<'static>,
        reports: Reports,
    ) -> io::Result<Self> {
        let (requests, incoming) = mpsc::channel();
        let (outgoing, answers) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let preparer = Preparer {
            stock: Stock::new(directory.clone(), layout, blank),
            requests: incoming,
            answers: outgoing,
            is_over: Arc::clone(&is_over),
            reports,
        };
        let thread = thread::Builder::new().name("log-next".into()).spawn(|| preparer.run())?;
        let requests = Some(requests);
        Ok(Self {
            directory,
            requests,
            answers,
            requested: None,
            answer: None,
            is_over,
            thread: Some(thread),
        })
    }

    fn ask(&self, index: u32) {
        if let Some(requests) = &self.requests {
            // A thread that is gone has said why.
            let _ = requests.send(Job::Prepare(index));
        }
    }

    /// Returns what tells the thread that files are superfluous. It has to be gone before this is.
    pub(super) fn trims(&self) -> Option<mpsc::Sender<Job>> {
        self.requests.clone()
    }
}

impl<D: Directory> Supply<D::File> for Preparing<D> {
    fn request(&mut self, index: u32) {
        // A file that has its name is whole: it was made in an earlier life of this log.
        let is_there = self.directory.open(&name(index)).is_ok_and(|file| file.is_some());
        if self.requested.is_none() && !is_there {
            self.requested = Some(index);
            self.ask(index);
        }
    }

    fn is_ready(&mut self, index: u32) -> bool {
        if self.requested != Some(index) {
            return self.directory.open(&name(index)).is_ok_and(|file| file.is_some());
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.answer = Some(answer);
        }
        matches!(&self.answer, Some(Answer::Ready(ready, _)) if *ready == index)
    }

    fn take(&mut self, index: u32) -> io::Result<Ready<D::File>> {
        if self.requested != Some(index) {
            if let Some(file) = self.directory.open(&name(index))? {
                return Ok(Ready { file, is_recycled: false });
            }
            self.requested = Some(index);
            self.ask(index);
        }
        // The file may have its name before that is durable: only the answer counts.
        let mut has_asked_again = false;
        loop {
            match self.answer.take().map_or_else(|| self.answers.recv(), Ok) {
                Ok(Answer::Ready(ready, file)) if ready == index => {
                    self.requested = None;
                    return Ok(file);
                }
                Ok(Answer::Ready(..)) => {}
                // That may be long ago: some space may be free by now.
                Ok(Answer::Full(_)) if !has_asked_again => {
                    has_asked_again = true;
                    self.ask(index);
                }
                Ok(Answer::Full(error) | Answer::Failed(error)) => return Err(error),
                Err(mpsc::RecvError) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

impl<D: Directory> Drop for Preparing<D> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Preparer<D: Directory> {
    stock: Stock<D>,
    requests: mpsc::Receiver<Job>,
    answers: mpsc::Sender<Answer<D::File>>,
    is_over: Arc<AtomicBool>,
    reports: Reports,
}

impl<D: Directory> Preparer<D> {
    /// Prepares what is requested. Each request gets one answer; while the disk is full, a file
    /// that can be made after all is one answer more.
    fn run(mut self) {
        let mut request = self.next_after(None);
        while let Some(index) = request {
            request = match self.prepare(index) {
                Ok(file) => {
                    let _ = self.answers.send(Answer::Ready(index, file));
                    self.next_after(Some(index))
                }
                Err(error) if is_full(error.kind()) => {
                    self.reports.send(Event::LogCramped { error: error.kind() });
                    let _ = self.answers.send(Answer::Full(error));
                    self.retry(index)
                }
                Err(error) => {
                    self.fail(error);
                    return;
                }
            };
        }
    }

    /// Tries again and again, until it succeeds or somebody asks.
    fn retry(&mut self, index: u32) -> Option<u32> {
        loop {
            match self.requests.recv_timeout(RETRY_AFTER) {
                Ok(Job::Prepare(asked)) => return Some(asked),
                Ok(Job::Trim(first)) => self.trim(first)?,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.prepare(index) {
                Ok(file) => {
                    let _ = self.answers.send(Answer::Ready(index, file));
                    return self.next_after(Some(index));
                }
                Err(error) if is_full(error.kind()) => {}
                Err(error) => {
                    self.fail(error);
                    return None;
                }
            }
        }
    }

    /// Waits for a request of another file: one that was just made may be asked for once more, by
    /// whoever had heard only that the disk is full.
    fn next_after(&mut self, done: Option<u32>) -> Option<u32> {
        loop {
            match self.requests.recv().ok()? {
                Job::Prepare(asked) if Some(asked) != done => return Some(asked),
                Job::Prepare(_) => {}
                Job::Trim(first) => self.trim(first)?,
            }
        }
    }

    fn prepare(&mut self, index: u32) -> io::Result<Ready<D::File>> {
        let is_over = || self.is_over.load(Ordering::Relaxed);
        self.stock.prepare(index, &is_over)
    }

    /// Returns `None` when nothing can be done any more.
    fn trim(&mut self, first: u32) -> Option<()> {
        self.stock.trim(first).map_err(|error| self.fail(error)).ok()
    }

    /// A sync that fails says that something is wrong with the disk, whatever it was to sync.
    fn fail(&self, error: io::Error) {
        if !self.is_over.load(Ordering::Relaxed) {
            self.reports.fail(&error);
        }
        let _ = self.answers.send(Answer::Failed(error));
    }
}
