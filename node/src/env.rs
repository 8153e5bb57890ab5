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

use crate::clock::Moment;

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
    /// Every frame submitted to the log with a number up to `through` is durable.
    Durable {
        /// The number.
        through: u64,
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

/// An append-only file, locked to this process.
pub trait LogFile {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As the operating system reports them; too few bytes are an error too.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Returns the length of the file when it was opened or cut.
    fn length(&self) -> u64;

    /// Cuts the file to `length` bytes and makes that, and all that is left, durable. Only before
    /// the first [`LogFile::submit`].
    ///
    /// # Errors
    /// As the operating system reports them.
    fn settle(&mut self, length: u64) -> io::Result<()>;

    /// Appends `bytes` after all earlier ones and makes them durable, some time later. Then comes
    /// [`Event::Durable`] with `number` or a higher one; numbers rise.
    fn submit(&mut self, number: u64, bytes: Vec<u8>);
}

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
    /// Another process has it.
    #[error("another process has it open")]
    Locked,
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

    /// Returns what wakes this environment's loop.
    fn waker(&self) -> Self::Waker;

    /// Waits until something has happened, or until `deadline`, and appends what has to `events`.
    ///
    /// # Errors
    /// When the operating system can't tell.
    fn wait(&mut self, deadline: Option<Moment>, events: &mut Vec<Event>) -> io::Result<()>;
}
