//! The volume client: a process that writes and reads a volume.
//!
//! [`Volume::open`] recovers the volume and takes it over: whoever had it open before is overtaken
//! and finds out at its next write. The protocol's writer and the connections run in a loop of
//! their own ([`driver`]); a [`Volume`] hands it commands and waits for the answers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PageId, PgId};
use quorate_core::lsn::Lsn;
use serde::{Deserialize, Serialize};

use crate::addresses::Seat;
use crate::answer::{Answer, Outcome, answer};
use crate::config::VolumeId;
use crate::env::real::{RealEnvironment, RealWaker};
use crate::env::{Environment, Waker};
use crate::frontier::Frontier;
use crate::mailbox::Mailbox;
use crate::wire::HelloRefusal;

mod backlog;
mod bounds;
pub(crate) mod callers;
mod check;
pub mod driver;
mod flow;
mod gathered;
mod latency;
mod points;
mod reads;
mod recovery;
pub(crate) mod reply;

use driver::VolumeDriver;
pub use points::PointError;
pub use reply::Waiter;

/// The most commands that wait to be taken; above that, callers wait.
const COMMANDS_MAX: usize = 1024;

/// Which volume to open, and where its segments are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeConfig {
    /// The volume.
    pub volume: VolumeId,
    /// The addresses of its first segments: by group, by position.
    pub segments: Vec<Vec<SocketAddr>>,
    /// Segments that have joined since, or have moved.
    pub joined: Vec<(PgId, Seat)>,
    /// Where to keep what is learned of the segments' addresses; nowhere if `None`.
    pub home: Option<PathBuf>,
    /// How long the recovery may take.
    pub patience: Duration,
    /// How far below the VDL the volume can go back, in records (LSNs).
    pub backtrack_window: u64,
}

/// How far below the VDL a volume can go back unless its writer is told otherwise, in records: at
/// 8 KiB each, 2 GiB of its log, which all segments of a group keep.
pub const BACKTRACK_WINDOW_RECORDS: u64 = 1 << 18;

impl VolumeConfig {
    /// Returns the configuration of a client that keeps nothing, of a volume whose segments have
    /// never changed.
    #[must_use]
    pub const fn new(volume: VolumeId, segments: Vec<Vec<SocketAddr>>, patience: Duration) -> Self {
        let backtrack_window = BACKTRACK_WINDOW_RECORDS;
        Self { volume, segments, joined: Vec::new(), home: None, patience, backtrack_window }
    }
}

/// What a recovery came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The epoch of this writer.
    pub epoch: VolumeEpoch,
    /// The recovery point: every commit at or under it is in the volume, no other is.
    pub recovery_point: Vdl,
    /// The volume's shape and bounds.
    pub geometry: VolumeGeometry,
    /// How many epochs were tried; more than one when other writers were recovering too.
    pub attempts: u32,
}

/// A page to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageImage {
    /// The page.
    pub page: PageId,
    /// Its contents from now on, up to [`crate::payload::PAGE_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// A page that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageVersion {
    /// The page.
    pub page: PageId,
    /// The read point: the page is as all commits at or under it left it.
    pub read_point: ReadPoint,
    /// The LSN of the page's last record, `None` for a page never written.
    pub lsn: Option<Lsn>,
    /// The page's contents; empty for a page never written.
    pub bytes: Vec<u8>,
}

/// A mini-transaction that is durable for good.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Committed {
    /// The LSN of its first record.
    pub first: Lsn,
    /// The LSN of its last record, its consistency point.
    pub cpl: Lsn,
}

/// What a read may assume.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Consistency {
    /// The page as of this consistency point, which has to be one that this writer knows: its
    /// recovery point, or one of its own commits that are not too long ago.
    At(Lsn),
    /// The page as of some point at or after this LSN; waited for if the VDL isn't there yet.
    AtLeast(Lsn),
    /// The page as of some point at or after this writer's last commit. A writer that has been
    /// overtaken and doesn't know it yet answers as of its own end.
    Snapshot,
    /// Linearizable: a read quorum has confirmed, after the read was asked for, that no newer
    /// writer is open.
    Strict,
}

/// Why a volume can't be opened, written or read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VolumeError {
    /// The segments take no write of this size, which their volume's limits allow. Never seen
    /// unless they are of another version.
    #[error("the segments refuse a write of this size; its outcome is unknown")]
    BatchRefused,
    /// The client has been closed.
    #[error("the volume has been closed by this process")]
    Closed,
    /// A mini-transaction without changes.
    #[error("a write needs at least one page")]
    Empty,
    /// The volume's history has as many ranges as its limits allow. Who has the volume open keeps
    /// it.
    #[error(
        "the volume has been opened as often as its limits allow and cannot be opened again; a \
         writer that has it open goes on. Copy it into a new volume through that one"
    )]
    HistoryFull,
    /// The segments' logs hold as many records as the volume's limits allow.
    #[error(
        "the volume is full: its segments hold as many records as its limits allow. The outcome \
         of the write is unknown; reads go on. Copy the volume into a new one"
    )]
    LogFull,
    /// Too few segments have told in time what there is at a point.
    #[error(
        "too few segments told in time what there is at that LSN, so the volume stays where it is. \
         Going back takes four of every group; going forward takes one that was there when the \
         volume went back. Start those that are down, and ask again"
    )]
    NotLocated,
    /// There is no consistency point to go to.
    #[error(
        "no mini-transaction ends at that LSN: the nearest consistency point under it is {nearest}"
    )]
    NoPoint {
        /// The nearest one under it.
        nearest: Lsn,
    },
    /// The segments don't agree with the configuration about the volume's shape.
    #[error(
        "the volume has {found} protection groups and the configuration lists {expected}: list \
         the addresses of all its groups"
    )]
    OtherGeometry {
        /// How many the configuration lists.
        expected: usize,
        /// How many there are.
        found: u32,
    },
    /// The number space is used up.
    #[error("the volume's log has no positions left: copy it into a new volume")]
    OutOfLsns,
    /// A newer writer has taken the volume over.
    #[error(
        "overtaken: the writer of epoch {by} has the volume now. Open it again to take it back"
    )]
    Overtaken {
        /// Its epoch.
        by: VolumeEpoch,
    },
    /// A page above its bound, or more pages than one mini-transaction can have.
    #[error(
        "a page has at most 8192 bytes, and a write at most as many pages as the volume's limit"
    )]
    Oversized,
    /// A point above the end, and not on a branch that was left.
    #[error(
        "no record at that LSN is part of the volume: it is above the end, between two epochs, or \
         on a branch that was left and is out of reach, since a volume goes forward again only \
         until something is written"
    )]
    PointAhead,
    /// A point under the garbage floor.
    #[error(
        "what was at that LSN is discarded: the volume goes back to LSN {floor} at most, where its \
         backtrack window begins (`backtrack_window_records` of its writer)"
    )]
    PointDiscarded {
        /// The lowest point that there still is.
        floor: Lsn,
    },
    /// The read point isn't one.
    #[error(transparent)]
    Point(#[from] PointError),
    /// The operating system failed this process.
    #[error("the operating system failed this process: {0}")]
    System(io::ErrorKind),
    /// No answer in time. A write may or may not take effect later.
    #[error("no quorum answered in time; the outcome is unknown. Start the missing nodes")]
    TimedOut,
    /// Too few segments can be reached to open the volume.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// The volume has gone to another point of its log meanwhile, or is about to.
    #[error(
        "the volume goes to another point of its log; a write under way may or may not be part of \
         it. Read what is there, and ask again"
    )]
    WentElsewhere,
}

/// What of a volume can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unavailable {
    /// How many segments answered.
    pub reached: usize,
    /// How many of them have no vote: their logs were damaged, and aren't repaired yet.
    pub impaired: usize,
    /// How many others don't count: they hold other logs than their peers have met.
    pub strangers: usize,
    /// How many there are.
    pub segments: usize,
    /// A segment that turned this process away, and why.
    pub refusal: Option<(SocketAddr, HelloRefusal)>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reached, impaired, strangers, segments, refusal } = self;
        write!(
            out,
            "the volume cannot be opened: {reached} of {segments} segments answered, and opening \
             takes four of every group"
        )?;
        if *impaired > 0 {
            write!(
                out,
                ". {impaired} of them said that they are impaired: damage to their logs has cost \
                 them their vote until their peers have repaired them, and three of every group \
                 need theirs"
            )?;
        }
        if *strangers > 0 {
            write!(
                out,
                ". {strangers} others do not count: they hold other logs than their peers have met \
                 under their names, as after a loss of their disks"
            )?;
        }
        match refusal {
            None => write!(out, ". Start the missing nodes"),
            Some((address, refusal)) => {
                write!(out, ". {address} turned this process away: {refusal}. Correct its address")
            }
        }
    }
}

/// What a [`Volume`] asks of its loop.
#[derive(Debug)]
pub enum Command {
    /// Go back to a consistency point, or forward again.
    Backtrack {
        /// The point.
        target: Lsn,
        /// Where the answer goes once the volume is open there.
        reply: Waiter<Opened>,
    },
    /// Read a page.
    Read {
        /// The page.
        page: PageId,
        /// What the read may assume.
        consistency: Consistency,
        /// Where the answer goes.
        reply: Waiter<PageVersion>,
    },
    /// Write pages as one mini-transaction.
    Write {
        /// The pages.
        pages: Vec<PageImage>,
        /// Where the answer goes once the write is durable.
        reply: Waiter<Committed>,
    },
}

/// A volume that this process has opened.
#[derive(Debug)]
pub struct Volume {
    commands: Arc<Mailbox<Command>>,
    frontier: Arc<Frontier>,
    opened: Opened,
    thread: Option<JoinHandle<()>>,
    waker: RealWaker,
}

impl Volume {
    /// Recovers the volume, takes it over, and returns it once it is open.
    ///
    /// # Errors
    /// [`VolumeError`] when too few segments answer in time, or another writer took it over.
    pub fn open(config: VolumeConfig) -> Result<Self, VolumeError> {
        let system = |error: io::Error| VolumeError::System(error.kind());
        let environment = RealEnvironment::new().map_err(system)?;
        let waker = environment.waker();
        let commands = Arc::new(Mailbox::new(COMMANDS_MAX));
        let (opening, opened) = answer();
        let mut driver = VolumeDriver::start(environment, config, Arc::clone(&commands), opening)
            .map_err(system)?;
        let frontier = driver.frontier();
        let thread = thread::Builder::new()
            .name("volume".into())
            .spawn(move || while driver.turn() {})
            .map_err(system)?;
        // The loop gives up by itself when the recovery takes longer than it may.
        match wait(&opened, Duration::MAX) {
            Ok(opened) => Ok(Self { commands, frontier, opened, thread: Some(thread), waker }),
            Err(error) => {
                commands.close();
                waker.wake();
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// Writes pages: all of them take effect together, or none.
    ///
    /// Returns at once unless too much is under way; [`Commit::wait`] tells when the write is
    /// durable.
    ///
    /// # Errors
    /// [`VolumeError::Closed`] when the loop has ended.
    pub fn write(&self, pages: Vec<PageImage>) -> Result<Commit, VolumeError> {
        let (reply, answer) = answer();
        self.ask(Command::Write { pages, reply })?;
        Ok(Commit { answer })
    }

    /// Reads a page.
    ///
    /// Returns at once unless too much is under way; [`PageRead::wait`] has the page.
    ///
    /// # Errors
    /// [`VolumeError::Closed`] when the loop has ended.
    pub fn read(&self, page: PageId, consistency: Consistency) -> Result<PageRead, VolumeError> {
        let (reply, answer) = answer();
        self.ask(Command::Read { page, consistency, reply })?;
        Ok(PageRead { answer })
    }

    /// Returns the VDL, without asking the loop: every commit at or under it is durable for good.
    #[must_use]
    pub fn vdl(&self) -> Lsn {
        self.frontier.vdl()
    }

    /// Returns whether a newer writer is known to have the volume, without asking the loop. `false`
    /// is no promise: see [`Frontier::is_overtaken`].
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.frontier.is_overtaken()
    }

    /// Returns what the recovery came to.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    fn ask(&self, command: Command) -> Result<(), VolumeError> {
        let is_asleep = self.commands.post(command).map_err(|_| VolumeError::Closed)?;
        if is_asleep {
            self.waker.wake();
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.commands.close();
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A write under way: a future, for whoever has tasks, and something to wait for, for a thread.
#[derive(Debug)]
pub struct Commit {
    answer: Answer<Result<Committed, VolumeError>>,
}

impl Commit {
    /// Waits until the write is durable for good.
    ///
    /// # Errors
    /// [`VolumeError::Overtaken`] when a newer writer has the volume: the write may or may not be
    /// part of it. [`VolumeError::TimedOut`] after `patience`: it may or may not become durable.
    pub fn wait(&self, patience: Duration) -> Result<Committed, VolumeError> {
        wait(&self.answer, patience)
    }
}

impl Future for Commit {
    type Output = Result<Committed, VolumeError>;

    /// Ends as [`Commit::wait`] does, without a bound on the time.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll(&self.answer, context)
    }
}

/// A read under way: a future, for whoever has tasks, and something to wait for, for a thread.
#[derive(Debug)]
pub struct PageRead {
    answer: Answer<Result<PageVersion, VolumeError>>,
}

impl PageRead {
    /// Waits for the page.
    ///
    /// # Errors
    /// [`VolumeError::Overtaken`] when a newer writer has the volume, [`VolumeError::TimedOut`]
    /// after `patience`.
    pub fn wait(&self, patience: Duration) -> Result<PageVersion, VolumeError> {
        wait(&self.answer, patience)
    }
}

impl Future for PageRead {
    type Output = Result<PageVersion, VolumeError>;

    /// Ends as [`PageRead::wait`] does, without a bound on the time.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        poll(&self.answer, context)
    }
}

fn poll<T>(
    answer: &Answer<Result<T, VolumeError>>,
    context: &Context<'_>,
) -> Poll<Result<T, VolumeError>> {
    answer.poll(context).map(|outcome| match outcome {
        Outcome::Given(outcome) => outcome,
        Outcome::Never | Outcome::NotYet => Err(VolumeError::Closed),
    })
}

fn wait<T>(answer: &Answer<Result<T, VolumeError>>, patience: Duration) -> Result<T, VolumeError> {
    match answer.wait(patience) {
        Outcome::Given(outcome) => outcome,
        Outcome::NotYet => Err(VolumeError::TimedOut),
        Outcome::Never => Err(VolumeError::Closed),
    }
}
