//! The floor: the least that any program does which makes a write durable on four of six disks.
//!
//! A plain program without checksums, epochs, recovery or reads: it can't lose less time and keeps
//! nothing that could be read back. A floor node is one blocking loop, so that no thread waits for
//! another: it takes all that has come, writes it with one call to a file that was written before,
//! syncs once, and acknowledges all of it with one number. The coordinator is one loop that sends
//! what was issued in a turn with one call to each node, and counts.
//!
//! Nothing that keeps what it is given gets away with that: the floor overwrites its few megabytes
//! again and again, and bytes that go to new space cost the file system a change of its own, or
//! have to be written twice. So there is a second program, the *keeper*: the same, but that it
//! never overwrites anything. Its space is reserved ahead, which is cheaper where much is written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{Load, Samples};
use crate::clock::{Clock, Moment};

/// A message's number, its length, and four bytes of nothing; then its bytes.
const HEADER_BYTES: usize = 16;

/// The most bytes taken from the socket, and so written and synced, at once.
const READ_BYTES: usize = 1 << 20;

/// The file's length. The floor writes it round and round: it never has to be made longer.
const FILE_BYTES: u64 = 32 << 20;

/// The length of the keeper's files, those of a segment's log.
const KEPT_FILE_BYTES: u64 = 64 << 20;

/// How many acknowledgements make a write durable.
const WRITE_QUORUM: usize = 4;

/// How long the coordinator waits for anything at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a node of the floor writes.
#[derive(Debug)]
struct Space {
    directory: PathBuf,
    file: File,
    tail: u64,
    /// How many files there were; none but the first unless everything is kept.
    count: u64,
    keeps: bool,
}

impl Space {
    fn new(directory: &Path, keeps: bool) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.to_path_buf();
        let file = if keeps { reserve(&directory, 0)? } else { overwrite(&directory)? };
        Ok(Self { directory, file, tail: 0, count: 1, keeps })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = if self.keeps { KEPT_FILE_BYTES } else { FILE_BYTES };
        if self.tail.saturating_add(bytes.len() as u64) > length {
            self.tail = 0;
            if self.keeps {
                self.file = reserve(&self.directory, self.count)?;
                self.count = self.count.saturating_add(1);
            }
        }
        self.file.write_all_at(bytes, self.tail)?;
        self.file.sync_data()?;
        self.tail = self.tail.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    let path = directory.join(format!("floor.{number}.log"));
    OpenOptions::new().create(true).truncate(true).write(true).read(true).open(path)
}

/// Returns a file that was written before.
fn overwrite(directory: &Path) -> io::Result<File> {
    let file = create(directory, 0)?;
    let zeros = vec![0; READ_BYTES];
    for place in 0..FILE_BYTES.div_ceil(READ_BYTES as u64) {
        file.write_all_at(&zeros, place.saturating_mul(READ_BYTES as u64))?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Returns a file whose space is taken and was not written before.
fn reserve(directory: &Path, number: u64) -> io::Result<File> {
    let file = create(directory, number)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, KEPT_FILE_BYTES)?;
    #[cfg(not(target_os = "linux"))]
    file.set_len(KEPT_FILE_BYTES)?;
    file.sync_all()?;
    Ok(file)
}

/// Serves one connection after the other, for ever: the floor, or what `keeps` everything.
///
/// # Errors
/// As the operating system reports them.
pub fn serve(directory: &Path, address: SocketAddr, keeps: bool) -> io::Result<()> {
    let mut space = Space::new(directory, keeps)?;
    let listener = TcpListener::bind(address)?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        match serve_one(&mut space, &mut stream) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
    }
}

fn serve_one(space: &mut Space, stream: &mut std::net::TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut held = 0;
    loop {
        let room = buffer.get_mut(held..).unwrap_or_default();
        match stream.read(room)? {
            0 => return Ok(()),
            count => held += count,
        }
        let (whole, last) = whole_messages(buffer.get(..held).unwrap_or_default());
        let Some(last) = last else { continue };
        space.append(buffer.get(..whole).unwrap_or_default())?;
        stream.write_all(&last.to_le_bytes())?;
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}

/// Returns how many bytes whole messages take, and the number of the last one.
fn whole_messages(bytes: &[u8]) -> (usize, Option<u64>) {
    let (mut at, mut last) = (0, None);
    while let Some(rest) = bytes.get(at..)
        && let Some(([n0, n1, n2, n3, n4, n5, n6, n7, l0, l1, l2, l3, ..], _)) =
            rest.split_first_chunk::<HEADER_BYTES>()
    {
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        let length = HEADER_BYTES + usize::try_from(length).unwrap_or(usize::MAX - HEADER_BYTES);
        if rest.len() < length {
            break;
        }
        at += length;
        last = Some(u64::from_le_bytes([*n0, *n1, *n2, *n3, *n4, *n5, *n6, *n7]));
    }
    (at, last)
}

/// A connection of the coordinator to a floor node.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    /// Buffers shared by all peers, the first of them written up to `written`.
    outbound: VecDeque<Arc<Vec<u8>>>,
    written: usize,
    inbound: Vec<u8>,
    acknowledged: u64,
}

impl Peer {
    fn flush(&mut self) -> io::Result<()> {
        while let Some(first) = self.outbound.front() {
            match self.stream.write(first.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.written == first.len() {
                self.outbound.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }

    fn take_acknowledgements(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.inbound.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let whole = self.inbound.len() / 8 * 8;
        if let Some(last) = self.inbound.get(..whole).and_then(|bytes| bytes.last_chunk::<8>()) {
            self.acknowledged = u64::from_le_bytes(*last);
            self.inbound.drain(..whole);
        }
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}

/// The coordinator of the floor.
#[derive(Debug)]
pub struct Floor {
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
    clock: Clock,
    /// The number of the last message issued.
    issued: u64,
    /// The number of the last message that a write quorum has acknowledged.
    durable: u64,
    /// When the messages after `durable` were issued.
    times: VecDeque<Moment>,
}

impl Floor {
    /// Connects to the floor nodes at `addresses`.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn connect(addresses: &[SocketAddr]) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut peers = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let interests = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), interests)?;
            peers.push(Peer {
                stream,
                outbound: VecDeque::new(),
                written: 0,
                inbound: Vec::new(),
                acknowledged: 0,
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(64),
            peers,
            clock: Clock::start(),
            issued: 0,
            durable: 0,
            times: VecDeque::new(),
        })
    }

    fn issue(&mut self, count: usize, bytes: &[u8]) -> io::Result<()> {
        let now = self.clock.now();
        let mut out = Vec::with_capacity(count * (HEADER_BYTES + bytes.len()));
        for _ in 0..count {
            self.issued += 1;
            self.times.push_back(now);
            out.extend_from_slice(&self.issued.to_le_bytes());
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(bytes);
        }
        let out = Arc::new(out);
        for peer in &mut self.peers {
            peer.outbound.push_back(Arc::clone(&out));
            peer.flush()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.events.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &self.events {
            let Some(peer) = self.peers.get_mut(event.token().0) else { continue };
            peer.flush()?;
            peer.take_acknowledgements()?;
        }
        let mut acknowledged: Vec<u64> = self.peers.iter().map(|peer| peer.acknowledged).collect();
        acknowledged.sort_unstable_by(|left, right| right.cmp(left));
        let durable = acknowledged.get(WRITE_QUORUM - 1).copied().unwrap_or(0);
        self.durable = self.durable.max(durable);
        Ok(())
    }
}

impl Load for Floor {
    type Error = io::Error;

    fn drive(
        &mut self,
        in_flight: usize,
        bytes: &[u8],
        span: Duration,
    ) -> Result<Samples, io::Error> {
        let start = self.clock.now();
        let mut samples = Samples::default();
        loop {
            let now = self.clock.now();
            let is_over = now.since(start) >= span;
            let under_way = self.times.len();
            if is_over && under_way == 0 {
                samples.elapsed = now.since(start);
                return Ok(samples);
            }
            if !is_over && under_way < in_flight {
                self.issue(in_flight - under_way, bytes)?;
            }
            let before = self.durable;
            self.wait()?;
            let now = self.clock.now();
            for _ in before..self.durable {
                if let Some(since) = self.times.pop_front() {
                    samples.latencies.push(now.since(since));
                }
            }
        }
    }
}
