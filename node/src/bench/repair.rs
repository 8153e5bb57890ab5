//! How a volume goes on while a lost disk is replaced: node after node under load, each killed and
//! emptied, with another process that dies in the middle of it.
//!
//! Every acknowledged write is read back, strictly. No write may fail but those that were under way
//! when their writer was killed.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_core::id::{PageId, PgId, Position, SegmentId};
use serde::Serialize;

use crate::addresses::Place;
use crate::client::{Client, ClientError, Outcome as Answer};
use crate::clock::{Clock, Moment};
use crate::cluster::seat::WriterSeat;
use crate::cluster::{Cluster, ClusterError};
use crate::steward::{self, Goal, Hands, Progress, StewardError, Task};
use crate::torture::TortureError;
use crate::torture::book::Book;
use crate::torture::load::{Session, Step};
use crate::volume::PageImage;

/// Writes under way.
const IN_FLIGHT: usize = 8;

/// How long the load goes on before a node is killed.
const BEFORE: Duration = Duration::from_millis(500);

/// The longest time from the beginning of a replacement to what goes wrong in it.
const FAULT_MAX_MS: u64 = 700;

/// How long a killed member that keeps its disk is away.
const AWAY: Duration = Duration::from_millis(200);

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long one replacement may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pages that are written again and again lie below this number; those loaded before, above.
const PAGES: u64 = 1 << 16;

/// The length of a page that is loaded before.
const PAGE_BYTES: usize = 8192;

/// How many pages one write loads.
const LOAD_PAGES: u64 = 64;

/// What is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes and writers.
    pub executable: PathBuf,
    /// Where to work.
    pub directory: PathBuf,
    /// How many replacements.
    pub cycles: u64,
    /// How much is in the volume before, in units of 2^20 bytes.
    pub megabytes: u64,
    /// Whether only the node to be replaced dies.
    pub is_quiet: bool,
    /// What everything random follows from, but for the timing of processes.
    pub seed: u64,
}

/// What is killed (SIGKILL) while a node is being replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    None,
    /// The writer; another one takes over.
    Writer,
    /// The node that joins; it is started again.
    Newcomer,
    /// Another member, which comes back soon.
    Member,
}

/// One replacement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which, from one on.
    pub cycle: u64,
    /// What was killed in its middle.
    pub fault: Fault,
    /// Who went.
    pub old: String,
    /// Who came.
    pub new: String,
    /// From the order to replace it to the settled end.
    pub seconds: f64,
    /// From the first step until the new one had all that it had to have.
    pub hydration_seconds: f64,
    /// What the new one's log held when it had.
    pub log_bytes: u64,
    /// Writes that became durable meanwhile.
    pub commits: u64,
    /// Writes that were answered with an error; none may be.
    pub failed: u64,
    /// Writes that were under way when their writer was killed: nobody knows of them.
    pub in_doubt: u64,
    /// Acknowledged writes that were read back.
    pub verified: u64,
    /// How long writes took before a node was killed, in milliseconds.
    pub before_p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub before_p99_ms: f64,
    /// The same from the death of the node to the end.
    pub during_p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub during_p99_ms: f64,
    /// None took longer.
    pub during_max_ms: f64,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A write failed.
    #[error("a write failed while {old} was replaced, with {fault:?} killed")]
    Failed {
        /// Who was replaced.
        old: Position,
        /// What else was killed.
        fault: Fault,
    },
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What must never happen, or a writer that is gone.
    #[error(transparent)]
    Load(#[from] TortureError),
    /// The steward.
    #[error(transparent)]
    Steward(#[from] StewardError),
    /// The steward panicked.
    #[error("the steward panicked")]
    Panicked,
}

/// Runs the replacements; calls `tell` after each.
///
/// # Errors
/// [`RepairError`] at the first thing that must not happen.
pub fn run(
    options: &Options,
    mut tell: impl FnMut(&Row) -> io::Result<()>,
) -> Result<Vec<Row>, RepairError> {
    let mut bench = Bench::start(options)?;
    let mut rows = Vec::new();
    for cycle in 1..=options.cycles {
        let row = bench.cycle(cycle, options.is_quiet)?;
        tell(&row)?;
        rows.push(row);
    }
    Ok(rows)
}

/// The processes, which the load and the steward share.
struct Processes {
    cluster: Cluster,
    writer: Option<WriterSeat>,
}

type Shared = Arc<Mutex<Processes>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Processes> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hands of the steward, in this process.
struct SharedHands(Shared);

impl Hands for SharedHands {
    fn connect(&mut self) -> Result<Client, ClientError> {
        let (address, volume) = {
            let processes = lock(&self.0);
            let writer = processes.writer.as_ref().ok_or(ClientError::TimedOut(Duration::ZERO))?;
            (writer.address(), processes.cluster.volume())
        };
        Client::connect(address, volume, ANSWER_MAX)
    }

    fn provide(&mut self, old: Position, new: SegmentId) -> Result<Place, StewardError> {
        Ok(lock(&self.0).cluster.provide(old, new)?)
    }

    fn retire(&mut self, keep: &[SegmentId]) -> Result<(), StewardError> {
        lock(&self.0).cluster.retire(keep)?;
        Ok(())
    }
}

/// Writes with the time that each has taken.
#[derive(Default)]
struct Times {
    sent: VecDeque<Moment>,
    took: Vec<Duration>,
}

impl Times {
    /// Returns, in milliseconds, what a share of 100 of the writes took at most.
    fn quantile(&mut self, share: usize) -> f64 {
        self.took.sort_unstable();
        let rank = self.took.len().saturating_mul(share).div_ceil(100).saturating_sub(1);
        self.took.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

struct Bench {
    shared: Shared,
    session: Session,
    book: Book,
    clock: Clock,
    random: fastrand::Rng,
    page: u64,
    times: Times,
    writers: u32,
    in_doubt: u64,
}

/// A member that is away, and comes back.
type Away = JoinHandle<Result<(), ClusterError>>;

type Stewarding = JoinHandle<Result<steward::Outcome, StewardError>>;

impl Bench {
    fn start(options: &Options) -> Result<Self, RepairError> {
        let mut cluster = Cluster::start_with_writer(&options.executable, &options.directory)?;
        let mut writer = cluster.give_writer();
        let seat = writer.as_mut().ok_or(ClientError::Unexpected)?;
        load(&mut seat.connect(ANSWER_MAX)?, options.megabytes)?;
        let session = Session::new(seat.connect(ANSWER_MAX)?);
        Ok(Self {
            shared: Arc::new(Mutex::new(Processes { cluster, writer })),
            session,
            book: Book::default(),
            clock: Clock::start(),
            random: fastrand::Rng::with_seed(options.seed),
            page: 0,
            times: Times::default(),
            writers: 1,
            in_doubt: 0,
        })
    }

    fn cycle(&mut self, cycle: u64, is_quiet: bool) -> Result<Row, RepairError> {
        let faults = [Fault::None, Fault::Writer, Fault::Newcomer, Fault::Member];
        let turn = usize::try_from(cycle.saturating_sub(1)).unwrap_or(0) % faults.len();
        let fault =
            if is_quiet { Fault::None } else { faults.get(turn).copied().unwrap_or(Fault::None) };
        let verified = self.book.verified;
        self.in_doubt = 0;

        let until = self.clock.now().after(BEFORE);
        self.times = Times::default();
        while self.clock.now() < until {
            self.write(fault, None)?;
        }
        let mut before = std::mem::take(&mut self.times);
        self.times.sent = std::mem::take(&mut before.sent);

        let old = self.lose_a_node()?;
        let start = self.clock.now();
        let stewarding = self.begin(old);
        let strike = start.after(Duration::from_millis(self.random.u64(0..FAULT_MAX_MS)));
        let mut pending = fault != Fault::None;
        let mut away = None;
        while !stewarding.is_finished() {
            self.write(fault, Some(old))?;
            if pending && self.clock.now() >= strike {
                pending = !self.strike(fault, old, &mut away)?;
            }
        }
        let outcome = stewarding.join().map_err(|_| RepairError::Panicked)??;
        if let Some(away) = away {
            away.join().map_err(|_| RepairError::Panicked)??;
        }
        let commits = self.times.took.len() as u64;
        while self.session.under_way() > 0 {
            self.take(fault, Some(old))?;
        }
        let pages = self.book.unread();
        if !self.session.verify(&mut self.book, &pages, IN_FLIGHT)? {
            return Err(TortureError::WriterGone.into());
        }
        lock(&self.shared).cluster.check_alive()?;
        let change = outcome.change.ok_or(RepairError::Panicked)?;
        // It may have been killed when it was a member already, and nobody looked after it then.
        lock(&self.shared).cluster.provide(change.old.position, change.new)?;
        let status = lock(&self.shared).cluster.status(change.new.position);
        Ok(Row {
            cycle,
            fault,
            old: change.old.to_string(),
            new: change.new.to_string(),
            seconds: outcome.took.as_secs_f64(),
            hydration_seconds: outcome.hydrated.unwrap_or_default().as_secs_f64(),
            log_bytes: status.map_or(0, |status| status.log_bytes),
            commits,
            failed: 0,
            in_doubt: self.in_doubt,
            verified: self.book.verified.saturating_sub(verified),
            before_p50_ms: before.quantile(50),
            before_p99_ms: before.quantile(99),
            during_p50_ms: self.times.quantile(50),
            during_p99_ms: self.times.quantile(99),
            during_max_ms: self.times.quantile(100),
        })
    }

    /// Keeps writes under way, and takes one answer.
    fn write(&mut self, fault: Fault, old: Option<Position>) -> Result<(), RepairError> {
        while self.session.under_way() < IN_FLIGHT {
            self.page = self.page.wrapping_add(1) % PAGES;
            self.times.sent.push_back(self.clock.now());
            if !self.session.write(&mut self.book, PageId::new(self.page)) {
                return Err(TortureError::WriterGone.into());
            }
        }
        self.take(fault, old)
    }

    fn take(&mut self, fault: Fault, old: Option<Position>) -> Result<(), RepairError> {
        match self.session.step(&mut self.book)? {
            Step::Acknowledged => {
                // Writes of one client become durable in their order.
                if let Some(sent) = self.times.sent.pop_front() {
                    self.times.took.push(self.clock.now().since(sent));
                }
                Ok(())
            }
            Step::Gone | Step::Refused(_) | Step::Told { .. } => match old {
                Some(old) => Err(RepairError::Failed { old, fault }),
                None => Err(TortureError::WriterGone.into()),
            },
        }
    }

    /// Kills a member and removes all that it had.
    fn lose_a_node(&mut self) -> Result<Position, RepairError> {
        let mut processes = lock(&self.shared);
        let members: Vec<Position> = processes.cluster.positions().collect();
        let old = members.get(self.random.usize(0..members.len())).copied();
        let old = old.ok_or(RepairError::Panicked)?;
        processes.cluster.kill(old)?;
        std::fs::remove_dir_all(processes.cluster.node_directory(old))?;
        Ok(old)
    }

    fn begin(&self, old: Position) -> Stewarding {
        let mut hands = SharedHands(Arc::clone(&self.shared));
        let goal = Goal::Replace(Some(old));
        let task = Task { group: PgId::new(0), goal, patience: PATIENCE };
        thread::spawn(move || steward::run(&mut hands, task, &mut |_: Progress| {}))
    }

    /// Kills something; returns whether it was there.
    fn strike(
        &mut self,
        fault: Fault,
        old: Position,
        away: &mut Option<Away>,
    ) -> Result<bool, RepairError> {
        match fault {
            Fault::None => Ok(true),
            Fault::Writer => self.take_over().map(|()| true),
            Fault::Newcomer => {
                let mut processes = lock(&self.shared);
                let newcomer = newcomer(&processes.cluster, old);
                let Some(newcomer) = newcomer else { return Ok(false) };
                processes.cluster.kill(newcomer)?;
                Ok(true)
            }
            Fault::Member => {
                let mut processes = lock(&self.shared);
                let new = newcomer(&processes.cluster, old);
                let others = processes.cluster.positions();
                let others: Vec<Position> =
                    others.filter(|node| *node != old && Some(*node) != new).collect();
                let victim = others.get(self.random.usize(0..others.len().max(1))).copied();
                let Some(victim) = victim else { return Ok(false) };
                processes.cluster.kill(victim)?;
                let shared = Arc::clone(&self.shared);
                // By somebody else: the load must not wait for it, nor it for the load.
                *away = Some(thread::spawn(move || {
                    thread::sleep(AWAY);
                    lock(&shared).cluster.restart(victim).map(|_| ())
                }));
                Ok(true)
            }
        }
    }

    /// Kills the writer, and lets another one take over.
    fn take_over(&mut self) -> Result<(), RepairError> {
        self.writers = self.writers.saturating_add(1);
        let name = format!("writer-{}", self.writers);
        let mut successor = {
            let mut processes = lock(&self.shared);
            // It ends with its seat.
            processes.writer = None;
            processes.cluster.another_writer(&name)?
        };
        let session = Session::new(successor.connect(ANSWER_MAX)?);
        lock(&self.shared).writer = Some(successor);
        let before = std::mem::replace(&mut self.session, session);
        self.in_doubt = self.in_doubt.saturating_add(before.under_way() as u64);
        // What it had said before may still be on its way.
        before.drain(&mut self.book)?;
        self.times.sent.clear();
        Ok(())
    }
}

/// Returns the node that is about to take the place of `old`, if it has been started.
fn newcomer(cluster: &Cluster, old: Position) -> Option<Position> {
    let positions: Vec<Position> = cluster.positions().collect();
    let has_seven = positions.len() > 6;
    positions.last().copied().filter(|last| has_seven && *last != old)
}

/// Fills the volume.
fn load(client: &mut Client, megabytes: u64) -> Result<(), RepairError> {
    let pages = (megabytes << 20) / PAGE_BYTES as u64;
    let mut random = fastrand::Rng::with_seed(megabytes);
    let mut under_way = 0u32;
    let wait = |client: &mut Client| match client.receive()?.1 {
        Answer::Written(_) => Ok(()),
        Answer::Refused(refusal) => Err(RepairError::from(ClientError::from(refusal))),
        Answer::Opened(..)
        | Answer::Reader(_)
        | Answer::Members(_)
        | Answer::Page(_)
        | Answer::Status(_)
        | Answer::Stepped(_) => Err(ClientError::Unexpected.into()),
    };
    let mut first = 0;
    while first < pages {
        let last = pages.min(first.saturating_add(LOAD_PAGES));
        let page = |number: u64| {
            let bytes = (0..PAGE_BYTES).map(|_| random.u8(..)).collect();
            PageImage { page: PageId::new(PAGES.saturating_add(number)), bytes }
        };
        let images: Vec<PageImage> = (first..last).map(page).collect();
        client.write(&images)?;
        under_way = under_way.saturating_add(1);
        if under_way > 4 {
            wait(client)?;
            under_way = under_way.saturating_sub(1);
        }
        first = last;
    }
    (0..under_way).try_for_each(|_| wait(client))
}
