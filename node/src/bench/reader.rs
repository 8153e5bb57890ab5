//! How soon a reader sees what the writer has acknowledged, at half of the rate that the writer
//! can do; and that a read which names a commit is never stale.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quorate_core::id::PageId;
use quorate_core::lsn::Lsn;
use serde::Serialize;

use super::BenchError;
use crate::client::{Client, ClientError, Outcome};
use crate::clock::{Clock, Moment};
use crate::cluster::{Cluster, free_addresses, is_temporary};
use crate::config::VolumeId;
use crate::config::file::{self, ReaderFile, WriterFile};
use crate::volume::{Consistency, PageImage};

/// Pages that are written in turn; all of them are in the reader's memory after the first turn.
const PAGES: u64 = 64;

/// Writes under way when the greatest rate is measured.
const IN_FLIGHT: usize = 64;

/// How long a process may take to get ready, and a client to be answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// What a benchmark of a reader is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes, writer and reader.
    pub executable: PathBuf,
    /// Where to work; its contents are removed afterwards.
    pub directory: PathBuf,
    /// The length of a write in bytes, at least eight.
    pub bytes: usize,
    /// How long the greatest rate is measured.
    pub span: Duration,
    /// How many commits are read back from the reader.
    pub trials: u64,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Durable writes a second with 64 under way.
    pub rate_max: f64,
    /// Durable writes a second while the reader was measured; half of it was asked for.
    pub rate: f64,
    /// Commits that were read back.
    pub trials: u64,
    /// Reads that named a commit and returned less: none, or the benchmark fails.
    pub stale: u64,
    /// From the acknowledgement of a commit to the reader's answer to a read that names it: half
    /// took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// Runs the benchmark.
///
/// # Errors
/// [`BenchError`] at the first thing that goes wrong, a stale read included.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let cluster = Cluster::start(&options.executable, &options.directory.join("nodes"))?;
    let (volume, segments) = (cluster.volume(), vec![cluster.addresses().to_vec()]);
    let at = |index: usize, all: &[SocketAddr]| {
        all.get(index).copied().ok_or(BenchError::Reader(ReaderTrouble::Confused))
    };
    let addresses = free_addresses(2)?;
    let (writer, reader) = (at(0, &addresses)?, at(1, &addresses)?);
    let config = WriterFile::new(volume, writer, segments.clone());
    let _writer = start(options, "writer", &config)?;
    let mut writing = connect(writer, volume)?;
    let volume_name = volume.to_string();
    let config =
        ReaderFile { volume: volume_name, listen: reader, writers: vec![writer], segments };
    let _reader = start(options, "reader", &config)?;
    let reading = connect(reader, volume)?;
    let rate_max = greatest_rate(&mut writing, options)?;
    let interval = Duration::try_from_secs_f64(2.0 / rate_max).unwrap_or(POLL);
    let clock = Clock::start();
    let (commits, told) = mpsc::channel();
    let (outcome, looked) = thread::scope(|scope| {
        let looking = scope.spawn(move || look(reading, &told, clock));
        let outcome = pace(&mut writing, options, interval, clock, commits);
        (outcome, looking.join())
    });
    let elapsed = outcome?;
    let looked = looked.map_err(|_| BenchError::Reader(ReaderTrouble::Confused))??;
    let rate = options.trials as f64 / elapsed.as_secs_f64();
    Report::of(rate_max, rate, &looked).ok_or(BenchError::Reader(ReaderTrouble::Confused))
}

impl Report {
    fn of(rate_max: f64, rate: f64, times: &[Duration]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        // The nearest rank: the least value that so many of 100 don't exceed.
        let at = |share: usize| {
            let rank = sorted.len().saturating_mul(share).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).map(|took| took.as_secs_f64() * 1000.0)
        };
        let trials = sorted.len() as u64;
        let (p50_ms, p99_ms, max_ms) = (at(50)?, at(99)?, at(100)?);
        Some(Self { rate_max, rate, trials, stale: 0, p50_ms, p99_ms, max_ms })
    }
}

/// What only a reader can do wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReaderTrouble {
    /// Something else was answered than was asked for.
    #[error("something else was answered than was asked for")]
    Confused,
    /// A read that named a commit didn't see it.
    #[error("a read of {page} that named the commit at LSN {named} saw LSN {seen}: it is stale")]
    Stale {
        /// The page.
        page: PageId,
        /// The commit.
        named: Lsn,
        /// What was read.
        seen: Lsn,
    },
}

/// A commit that the writer has acknowledged.
struct Commit {
    page: PageId,
    cpl: Lsn,
    acknowledged: Moment,
}

fn image(page: u64, number: u64, bytes: usize) -> PageImage {
    let mut own = number.to_le_bytes().to_vec();
    own.resize(bytes.max(own.len()), 0x5a);
    PageImage { page: PageId::new(page), bytes: own }
}

/// Measures the greatest rate, and brings every page into the volume.
fn greatest_rate(writing: &mut Client, options: &Options) -> Result<f64, BenchError> {
    let clock = Clock::start();
    let (mut issued, mut done) = (0u64, 0u64);
    loop {
        let is_over = clock.now().since(Moment::default()) >= options.span && issued >= PAGES;
        while !is_over && issued.saturating_sub(done) < IN_FLIGHT as u64 {
            writing.write(&[image(issued % PAGES, issued, options.bytes)])?;
            issued = issued.saturating_add(1);
        }
        if issued == done {
            let elapsed = clock.now().since(Moment::default());
            return Ok(done as f64 / elapsed.as_secs_f64());
        }
        written(writing)?;
        done = done.saturating_add(1);
    }
}

/// Writes a page every `interval`, as well as answers can be waited for in between, and tells
/// `commits` what is acknowledged. Returns how long it took.
fn pace(
    writing: &mut Client,
    options: &Options,
    interval: Duration,
    clock: Clock,
    commits: mpsc::Sender<Commit>,
) -> Result<Duration, BenchError> {
    let start = clock.now();
    let mut under_way = BTreeMap::new();
    let mut issued = 0u64;
    while issued < options.trials || !under_way.is_empty() {
        let nth = u32::try_from(issued).unwrap_or(u32::MAX);
        let is_due = clock.now().since(start) >= interval.saturating_mul(nth);
        let has_room = under_way.len() < IN_FLIGHT;
        if issued < options.trials && (is_due || under_way.is_empty()) && has_room {
            let early = interval.saturating_mul(nth).saturating_sub(clock.now().since(start));
            thread::sleep(early);
            let page = issued % PAGES;
            let ticket = writing.write(&[image(page, issued, options.bytes)])?;
            under_way.insert(ticket, PageId::new(page));
            issued = issued.saturating_add(1);
            continue;
        }
        let (ticket, cpl) = written(writing)?;
        let acknowledged = clock.now();
        if let Some(page) = under_way.remove(&ticket) {
            // Whoever looks may have found something wrong, and says so itself.
            let _ = commits.send(Commit { page, cpl, acknowledged });
        }
    }
    Ok(clock.now().since(start))
}

/// Reads every commit back from the reader, and returns how long after its acknowledgement each
/// was there.
fn look(
    mut reading: Client,
    told: &mpsc::Receiver<Commit>,
    clock: Clock,
) -> Result<Vec<Duration>, BenchError> {
    let mut took = Vec::new();
    let mut under_way = BTreeMap::new();
    loop {
        let next = if under_way.is_empty() {
            told.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
        } else {
            told.try_recv()
        };
        match next {
            Ok(commit) => {
                let ticket = reading.read(commit.page, Consistency::AtLeast(commit.cpl))?;
                under_way.insert(ticket, commit);
                continue;
            }
            Err(mpsc::TryRecvError::Disconnected) if under_way.is_empty() => return Ok(took),
            Err(mpsc::TryRecvError::Disconnected | mpsc::TryRecvError::Empty) => {}
        }
        match reading.receive()? {
            (ticket, Outcome::Page(version)) => {
                let Some(commit) = under_way.remove(&ticket) else {
                    return Err(BenchError::Reader(ReaderTrouble::Confused));
                };
                let (page, named) = (commit.page, commit.cpl);
                let seen = version.lsn.unwrap_or(Lsn::ZERO);
                if version.page != page || seen < named || version.read_point.lsn() < named {
                    return Err(BenchError::Reader(ReaderTrouble::Stale { page, named, seen }));
                }
                took.push(clock.now().since(commit.acknowledged));
            }
            (_, Outcome::Refused(refusal)) => return Err(ClientError::from(refusal).into()),
            (
                _,
                Outcome::Members(_)
                | Outcome::Stepped(_)
                | Outcome::Opened(..)
                | Outcome::Reader(_)
                | Outcome::Status(_)
                | Outcome::Written(_),
            ) => {
                return Err(BenchError::Reader(ReaderTrouble::Confused));
            }
        }
    }
}

/// Waits for the next acknowledgement.
fn written(writing: &mut Client) -> Result<(quorate_core::id::Ticket, Lsn), BenchError> {
    match writing.receive()? {
        (ticket, Outcome::Written(committed)) => Ok((ticket, committed.cpl)),
        (_, Outcome::Refused(refusal)) => Err(ClientError::from(refusal).into()),
        (
            _,
            Outcome::Members(_)
            | Outcome::Stepped(_)
            | Outcome::Opened(..)
            | Outcome::Page(_)
            | Outcome::Reader(_)
            | Outcome::Status(_),
        ) => Err(BenchError::Reader(ReaderTrouble::Confused)),
    }
}

/// A process that ends with this value.
struct Leashed(Child);

impl Drop for Leashed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start<T: Serialize>(options: &Options, kind: &str, config: &T) -> Result<Leashed, BenchError> {
    let path: &Path = &options.directory.join(format!("{kind}.toml"));
    file::write(path, "Written by `quorate bench reader`.", config)
        .map_err(std::io::Error::other)?;
    let mut command = Command::new(&options.executable);
    command.args([kind, "--leashed", "--config"]).arg(path).stdin(Stdio::piped());
    let words = std::fs::File::create(options.directory.join(format!("{kind}.txt")))?;
    Ok(Leashed(command.stdout(Stdio::null()).stderr(words).spawn()?))
}

/// Connects to a process as soon as it serves clients.
fn connect(address: SocketAddr, volume: VolumeId) -> Result<Client, BenchError> {
    let clock = Clock::start();
    loop {
        match Client::connect(address, volume, PATIENCE) {
            Ok(client) => return Ok(client),
            Err(error) if is_temporary(&error) && clock.now() < Moment::new(PATIENCE) => {
                thread::sleep(POLL);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A percentile of the wrong rank would flatter.
    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let report = Report::of(10.0, 5.0, &times).unwrap();
        let Report { trials, p50_ms, p99_ms, max_ms, .. } = report;
        assert_eq!((trials, p50_ms, p99_ms, max_ms), (200, 100.0, 198.0, 200.0));
        assert_eq!(Report::of(10.0, 5.0, &[]), None);
    }
}
