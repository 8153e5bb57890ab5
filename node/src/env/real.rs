//! The machine itself: sockets and readiness by mio, files, a monotonic clock, the operating
//! system's randomness.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use rustix::net::sockopt;

use super::{Environment, Event, LogFileError, Stream, Token, Waker};
use crate::clock::{Clock, Moment};
use crate::mailbox::Mailbox;

mod log;
mod pages;

pub use log::RealLog;
pub(crate) use log::{LOCK_NAME, LOG_NAME};

/// The most buffers that one write takes.
const SLICES_MAX: usize = 64;

/// The most reports of logs that wait for the loop: above that, a log waits.
const REPORTS_MAX: usize = 1024;

/// The most events taken from the operating system at once.
const EVENTS_MAX: usize = 256;

/// How many random bytes are asked for at once: what the operating system gives in one piece.
const RANDOM_BYTES: usize = 256;

/// The real environment of one loop.
#[derive(Debug)]
pub struct RealEnvironment {
    clock: Clock,
    events: mio::Events,
    next: usize,
    poll: mio::Poll,
    /// What the threads of logs report.
    reports: Arc<Mailbox<Event>>,
    reported: VecDeque<Event>,
    /// Random bits that nobody has had yet.
    random: Vec<u64>,
    waker: Arc<mio::Waker>,
}

impl RealEnvironment {
    /// Returns an environment with nothing open.
    ///
    /// # Errors
    /// When the operating system has no readiness queue left.
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            clock: Clock::start(),
            events: mio::Events::with_capacity(EVENTS_MAX),
            next: WAKER.0.saturating_add(1),
            poll,
            reports: Arc::new(Mailbox::new(REPORTS_MAX)),
            reported: VecDeque::new(),
            random: Vec::new(),
            waker,
        })
    }

    fn token(&mut self) -> mio::Token {
        let token = mio::Token(self.next);
        self.next = self.next.saturating_add(1);
        token
    }
}

/// After so long without a byte the operating system asks the other end.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(30);

const WAKER: mio::Token = mio::Token(0);

impl Environment for RealEnvironment {
    type Listener = TcpListener;
    type Log = RealLog;
    type Stream = RealStream;
    type Waker = RealWaker;

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn random(&mut self) -> io::Result<u64> {
        if self.random.is_empty() {
            // One call for many turns.
            let mut bytes = [0; RANDOM_BYTES];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            let (words, _) = bytes.as_chunks::<8>();
            self.random.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        }
        self.random.pop().ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(Token, TcpListener)> {
        let mut listener = TcpListener::bind(address)?;
        let token = self.token();
        self.poll.registry().register(&mut listener, token, mio::Interest::READABLE)?;
        Ok((Token::new(token.0), listener))
    }

    fn accept(&mut self, listener: &mut TcpListener) -> io::Result<(Token, RealStream)> {
        let (stream, _) = listener.accept()?;
        self.register(stream)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<(Token, RealStream)> {
        self.register(TcpStream::connect(address)?)
    }

    fn open_log(&mut self, directory: &Path, header: &[u8]) -> Result<RealLog, LogFileError> {
        RealLog::open(directory, header, Arc::clone(&self.reports), self.waker())
    }

    fn keep(&mut self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let draft = directory.join(format!("{name}.new"));
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, directory.join(name))?;
        std::fs::File::open(directory)?.sync_all()
    }

    fn kept(&mut self, directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(directory.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn say(&self, words: &str) {
        eprintln!("quorate: {words}");
    }

    fn waker(&self) -> RealWaker {
        RealWaker(Arc::clone(&self.waker))
    }

    fn rest(&self) -> bool {
        std::thread::yield_now();
        true
    }

    fn wait(&mut self, deadline: Option<Moment>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = deadline.map(|deadline| deadline.since(self.now()));
        if !self.reports.doze() {
            timeout = Some(Duration::ZERO);
        }
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            events.push(if event.token() == WAKER {
                Event::Woken
            } else {
                Event::Ready {
                    token: Token::new(event.token().0),
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable() || event.is_error(),
                }
            });
        }
        self.reports.take(REPORTS_MAX, &mut self.reported);
        events.extend(self.reported.drain(..));
        Ok(())
    }
}

impl Drop for RealEnvironment {
    /// A log's thread must not wait for a loop that has ended.
    fn drop(&mut self) {
        self.reports.abandon();
    }
}

impl RealEnvironment {
    fn register(&mut self, mut stream: TcpStream) -> io::Result<(Token, RealStream)> {
        let token = self.token();
        let _ = keep_alive(&stream);
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, interests)?;
        Ok((Token::new(token.0), RealStream { stream, is_prompt: false }))
    }
}

/// Makes the operating system find out that the machine at the other end is gone: for whoever has
/// nothing to say for long, and may.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_AFTER / 6)?;
    sockopt::set_tcp_keepcnt(stream, 3)
}

/// A TCP connection.
#[derive(Debug)]
pub struct RealStream {
    stream: TcpStream,
    /// Whether small writes leave at once. Set with the first write: before, a connection may not
    /// have come about.
    is_prompt: bool,
}

impl Stream for RealStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        retry(|| self.stream.read(into))
    }

    fn write(&mut self, from: &[&[u8]]) -> io::Result<usize> {
        if !self.is_prompt {
            // Frames are gathered by their sender; waiting for more would only add latency.
            self.is_prompt = self.stream.set_nodelay(true).is_ok();
        }
        let slices: Vec<IoSlice<'_>> =
            from.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
        let written = retry(|| self.stream.write_vectored(&slices));
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other,
        }
    }
}

fn retry(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Wakes a [`RealEnvironment`].
#[derive(Clone, Debug)]
pub struct RealWaker(Arc<mio::Waker>);

impl Waker for RealWaker {
    fn wake(&self) {
        // It fails only when the queue is full, and then the loop is awake.
        let _ = self.0.wake();
    }
}

/// Returns random bits of the operating system.
///
/// # Errors
/// When it has none.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(bytes))
}
