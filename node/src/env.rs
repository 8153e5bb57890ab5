//! What a node needs of the world: network, disk, clock and randomness behind one trait.
//!
//! The loops of [`crate::driver`] and [`crate::volume`] are generic over [`Environment`] and meet
//! the world nowhere else, so that a simulated network, disk and clock can stand in for the real
//! one: [`real`] is the machine, [`simulated`] a world that a seed decides.
//!
//! Readiness is told by edges: after an event for a connection its owner reads, or writes, until
//! the stream would block, and remembers what it leaves undone.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use quorate_core::record::Record;

use crate::clock::Moment;
use crate::format::Note;
use crate::store::{Checkpointed, Snapshot, StoreError, Stored};

pub mod real;
pub mod simulated;

/// Names a connection or a listener in events. Never used twice by one environment.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token(usize);

impl Token {
    /// Returns the name with this number.
    #[must_use]
    pub const fn new(value: usize) -> Self {
        Self(value)
    }

    /// Returns the number of this name.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Something has happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A checkpoint is durable.
    Checkpointed(Checkpointed),
    /// A checkpoint can't be made: the segment has to stop.
    CheckpointFailed {
        /// Why.
        error: StoreError,
    },
    /// Every frame submitted to the log with a number up to `through` is durable.
    Durable {
        /// The number.
        through: u64,
    },
    /// There is no space on the disk to prepare the log's next file. It is tried again; the segment
    /// goes on until what it has is full, and then comes [`Event::LogFailed`].
    LogCramped {
        /// What the operating system said.
        error: io::ErrorKind,
    },
    /// A write or a sync of the log failed. What is durable is unknown from now on: the segment
    /// has to stop, and must not try again (a second sync may succeed without the bytes).
    LogFailed {
        /// What the operating system said.
        error: io::ErrorKind,
    },
    /// A connection or a listener may be read from, or written to.
    Ready {
        /// Which.
        token: Token,
        /// Bytes, a caller, or the end may be there.
        readable: bool,
        /// There may be room, or the connection may have come about or failed.
        writable: bool,
    },
    /// Somebody used a [`Waker`].
    Woken,
}

/// A stream of bytes to another process. TLS would be another implementation.
pub trait Stream {
    /// Reads some bytes; zero at the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none are there yet, anything else when the stream failed.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is no room, or no connection yet, anything else
    /// when the stream failed.
    fn write(&mut self, from: &[&[u8]]) -> io::Result<usize>;
}

/// An append-only log, locked to this process: one space of bytes, with notes and a page store
/// beside it.
///
/// A byte that was never written reads as anything that was written before to another place.
pub trait LogFile {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Returns the length of the log when it was opened or cut: at first, no byte at or behind it
    /// is anything but zero. The last bytes written may be zeros too, and lie behind it; and bytes
    /// of an earlier use may lie before it, that nobody wrote there.
    fn length(&self) -> u64;

    /// Opens the page store beside the log that has this salt; makes one if there is none and all
    /// of the log is there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open_store(&mut self, salt: u64) -> Result<(), StoreError>;

    /// Returns the newest checkpoint, `None` if none was ever made.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed then.
    fn stored(&self) -> Result<Option<Stored>, StoreError>;

    /// Returns the payload of a record from the store, checked.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read_stored(&self, record: &Record) -> Result<Vec<u8>, StoreError>;

    /// Returns whether all of the log from `kept` to `at` has files, and whole ones, as far as can
    /// be told without reading them. What lies before `kept` is not needed any more.
    fn holds(&mut self, kept: u64, at: u64) -> bool;

    /// Begins to make a checkpoint; [`Event::Checkpointed`] or [`Event::CheckpointFailed`] follows,
    /// and until then no other one is begun. A crash leaves the one before it, or this one.
    fn checkpoint(&mut self, snapshot: Snapshot);

    /// Says that no byte before `kept` will be read any more, but for the log's header: a durable
    /// checkpoint says so. The space is used again.
    fn trim(&mut self, kept: u64);

    /// Returns the notes beside the log that were whole when it was opened, in any order. What they
    /// say was durable was, and once a log has been marked as idle (see [`LogFile::submit`]) one
    /// of them says all that was durable then.
    fn notes(&self) -> &[Note];

    /// Returns whether the place beside the log where its newest note was kept is whole, if the log
    /// had so many durable bytes. If it isn't, [`LogFile::notes`] may say less than was said: what
    /// the segment acknowledged or promised last is unknown then.
    fn has_newest_note(&self, durable: u64) -> bool;

    /// Cuts the log: makes every byte from `length` to `until`, and some more, zero, and that, and
    /// all bytes before it, durable. Those at or behind `doubtful` are written once more: after a
    /// sync that failed they may be in memory alone, and a second sync would not notice. Only
    /// before the first [`LogFile::submit`], which appends at `length`.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn settle(&mut self, doubtful: u64, length: u64, until: u64) -> io::Result<()>;

    /// Replaces the log by a new one: its first `kept` bytes, but for those that were trimmed, then
    /// `frame`, with `note` beside it, all durable. Its page store stays. The files that it had are
    /// set aside under names that begin with what is returned, and nothing touches them again. A
    /// crash at any time leaves the log as it was or the new one. Only before [`LogFile::settle`].
    ///
    /// # Errors
    /// As the operating system reports them.
    fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String>;

    /// Appends `frame` after all earlier ones, keeps `note`, and makes both durable, some time
    /// after the next [`LogFile::commit`]. Then comes [`Event::Durable`] with `number` or a higher
    /// one; numbers rise. Until then a crash may leave any part of the frame, the note, both or
    /// none; of the notes before it, at least the newest durable one stays whole.
    ///
    /// A note is kept in the log's own space, behind the frames submitted together with this one,
    /// and beside the log where `keep` says so of the last of them.
    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note, keep: KeepNote);

    /// Begins to make durable what was submitted, and returns what has become of it if that is
    /// known already. A loop calls this before it waits for events.
    fn commit(&mut self) -> Option<Event>;
}

/// When a note is kept beside the log, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeepNote {
    /// In any case: what follows may be a long silence.
    Always,
    /// If none was kept there for [`NOTE_AFTER`].
    NowAndThen,
}

/// How long a log goes without a note beside it while frames are written.
pub const NOTE_AFTER: Duration = Duration::from_millis(50);

/// Wakes a loop from another thread.
pub trait Waker: Clone + Send + 'static {
    /// Makes [`Environment::wait`] return with [`Event::Woken`].
    fn wake(&self);
}

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Some of the log's files are there, and the first one, which says whose log it is, isn't.
    #[error("its first file, segment.000000.log, is gone, although others of its log are there")]
    FirstFileGone,
    /// There was a log in the directory, and there is none.
    #[error("its log is gone, although this directory held one")]
    Gone,
    /// Another process has it.
    #[error("another process has it open")]
    Locked,
}

/// Returns whether the operating system means that the disk, or this user's part of it, is full.
#[must_use]
pub const fn is_full(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The world of one process.
pub trait Environment {
    /// A listener.
    type Listener;
    /// A log file.
    type Log: LogFile;
    /// A stream.
    type Stream: Stream;
    /// What wakes the loop.
    type Waker: Waker;

    /// Returns the time.
    fn now(&self) -> Moment;

    /// Returns random bits.
    ///
    /// # Errors
    /// When the operating system has none.
    fn random(&mut self) -> io::Result<u64>;

    /// Takes connections at `address`.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn listen(&mut self, address: SocketAddr) -> io::Result<(Token, Self::Listener)>;

    /// Takes the next waiting connection.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Token, Self::Stream)>;

    /// Starts to connect to `address`; the stream becomes writable when that has come about.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn connect(&mut self, address: SocketAddr) -> io::Result<(Token, Self::Stream)>;

    /// Opens and locks the log in `directory`; creates it if there is none, with the bytes of
    /// `header` in it, whole or not at all.
    ///
    /// # Errors
    /// [`LogFileError`].
    fn open_log(&mut self, directory: &Path, header: &[u8]) -> Result<Self::Log, LogFileError>;

    /// Makes `bytes` the contents of the small file `name` in `directory`, durably: whole or, after
    /// a crash, not at all.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn keep(&mut self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Returns the contents of a file that was kept; `None` when there is none.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn kept(&mut self, directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Says something to whoever runs this process.
    fn say(&self, words: &str);

    /// Returns what wakes this environment's loop.
    fn waker(&self) -> Self::Waker;

    /// Lets the other threads of this process go on for a moment. Returns whether there may be any.
    fn rest(&self) -> bool;

    /// Waits until something has happened, or until `deadline`, and appends what has to `events`.
    ///
    /// # Errors
    /// When the operating system can't tell.
    fn wait(&mut self, deadline: Option<Moment>, events: &mut Vec<Event>) -> io::Result<()>;
}
