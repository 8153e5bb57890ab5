//! Faults of processes and networks, under load, with a book of acknowledgements kept outside.
//!
//! A cycle writes a number of pages through a writer process. Somewhere in the middle something
//! goes wrong: processes are killed or stopped, links are cut, writers are overtaken and come back.
//! Then everything heals, and every page of the cycle is read back, strictly, and compared with the
//! book. Whatever was acknowledged must be there; what an overtaken writer tried must not.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use quorate_core::id::{PageId, Position};
use quorate_core::rules::Bug;
use serde::{Deserialize, Serialize};

pub mod book;
mod fault;
mod field;
pub mod ledger;
pub(crate) mod load;
pub mod proxy;

pub use fault::{Fault, Fired};

use crate::clock::Clock;
use crate::cluster::{ClusterError, NAMES};
use crate::config::file::ConfigFileError;
use book::{Book, Violation};
use field::{End, Field, Slot};
use load::{Session, Step};
use proxy::{Condition, Way};

/// Pages are written one after the other, and again from the first one on.
const PAGES: u64 = 1 << 18;

/// How many writes an overtaken writer is asked for.
const ZOMBIE_WRITES: usize = 8;

/// How many cycles one volume lives: a log only grows, and each restart reads all of it.
const CYCLES_PER_VOLUME: u64 = 40;

/// The longest delay of a link, in milliseconds.
const DELAY_MAX: u64 = 20;

/// What a torture is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes and writers.
    pub executable: PathBuf,
    /// Where to work; what is left there is of the last volume.
    pub directory: PathBuf,
    /// How many cycles.
    pub cycles: u64,
    /// Acknowledged writes of a cycle.
    pub writes: u64,
    /// Writes under way.
    pub in_flight: usize,
    /// What everything random follows from, but for the timing of processes.
    pub seed: u64,
    /// The kinds of faults, in turns; all of them, [`Fault::ALL`], unless it is about some.
    pub faults: Vec<Fault>,
    /// A seeded bug in every process, to show that it is noticed.
    pub mutant: Option<Bug>,
}

/// Why a torture ended early: what it was looking for, or that it can't be carried out.
#[derive(Debug, thiserror::Error)]
pub enum TortureError {
    /// No addresses.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A configuration can't be written.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// Something is wrong in a cycle.
    #[error("cycle {cycle}, with {fault:?}: {cause}\n{state}")]
    Cycle {
        /// Which cycle.
        cycle: u64,
        /// What went wrong in it on purpose.
        fault: Fault,
        /// What went wrong.
        cause: Box<Self>,
        /// How the processes are.
        state: String,
    },
    /// A writer answered something that nobody asked.
    #[error("a writer answered something that was not asked")]
    Confused,
    /// A process ended by itself.
    #[error("{name} ended by itself ({status}). It said: {words}")]
    Ended {
        /// Its name.
        name: String,
        /// How.
        status: ExitStatus,
        /// The end of what it wrote.
        words: String,
    },
    /// There is no such process.
    #[error("there is no such process")]
    NoSeat,
    /// A process doesn't get ready.
    #[error("{name} does not get ready")]
    NotReady {
        /// Its name.
        name: String,
    },
    /// No answer, although a quorum can be reached.
    #[error("{doing} got stuck although a quorum can be reached")]
    Stuck {
        /// What got stuck.
        doing: &'static str,
    },
    /// The operating system.
    #[error("{0}")]
    System(io::Error),
    /// What must never happen.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// A writer is gone that nobody ended.
    #[error("the writer is gone, and nobody ended it")]
    WriterGone,
}

/// What a torture did and found.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Findings {
    /// Cycles that were completed.
    pub cycles: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were found again by a strict read.
    pub verified: u64,
    /// Writes that overtaken writers were asked for, none of them acknowledged.
    pub refused: u64,
    /// How often each kind of fault happened.
    pub faults: Fired,
    /// Of each takeover, milliseconds from the decision to the first durable write of the new
    /// writer, its start as a process included.
    pub takeovers_ms: BTreeMap<Fault, Vec<f64>>,
    /// Wall time.
    pub seconds: f64,
}

/// Runs the cycles; calls `tell` after each.
///
/// # Errors
/// [`TortureError`] at the first thing that must not happen.
pub fn run(
    options: &Options,
    mut tell: impl FnMut(&Findings) -> io::Result<()>,
) -> Result<Findings, TortureError> {
    let clock = Clock::start();
    let start = clock.now();
    let mut findings = Findings::default();
    let mut random = fastrand::Rng::with_seed(options.seed);
    while findings.cycles < options.cycles {
        if options.directory.exists() {
            std::fs::remove_dir_all(&options.directory)?;
        }
        let mut torture = Torture::start(options, &mut random)?;
        for _ in 0..CYCLES_PER_VOLUME.min(options.cycles - findings.cycles) {
            torture.cycle(findings.cycles, &mut findings)?;
            findings.cycles += 1;
            findings.seconds = clock.now().since(start).as_secs_f64();
            tell(&findings)?;
        }
    }
    std::fs::remove_dir_all(&options.directory)?;
    Ok(findings)
}

/// One volume under torture.
struct Torture<'a> {
    options: &'a Options,
    random: &'a mut fastrand::Rng,
    field: Field,
    slot: Slot,
    session: Session,
    book: Book,
    clock: Clock,
    page: u64,
    /// Kinds of faults that are still to come in this round.
    coming: Vec<Fault>,
}

impl<'a> Torture<'a> {
    fn start(options: &'a Options, random: &'a mut fastrand::Rng) -> Result<Self, TortureError> {
        let mut field = Field::start(options)?;
        let slot = Slot::One;
        let session = Session::new(field.open(slot)?);
        Ok(Self {
            options,
            random,
            field,
            slot,
            session,
            book: Book::default(),
            clock: Clock::start(),
            page: 0,
            coming: Vec::new(),
        })
    }

    fn cycle(&mut self, cycle: u64, findings: &mut Findings) -> Result<(), TortureError> {
        if self.coming.is_empty() {
            self.coming.clone_from(&self.options.faults);
            self.random.shuffle(&mut self.coming);
        }
        let fault = self.coming.pop().unwrap_or(Fault::KillNodes);
        let (acknowledged, verified) = (self.book.acknowledged, self.book.verified);
        if let Err(cause) = self.suffer(fault, findings) {
            let state = self.field.describe();
            return Err(TortureError::Cycle { cycle, fault, cause: Box::new(cause), state });
        }
        findings.acknowledged += self.book.acknowledged - acknowledged;
        findings.verified += self.book.verified - verified;
        *findings.faults.entry(fault).or_default() += 1;
        Ok(())
    }

    fn suffer(&mut self, fault: Fault, findings: &mut Findings) -> Result<(), TortureError> {
        let strike_at = self.random.u64(0..self.options.writes);
        let mut has_struck = false;
        let mut acknowledged = 0;
        while acknowledged < self.options.writes {
            if !has_struck && acknowledged >= strike_at {
                has_struck = true;
                self.strike(fault, findings)?;
            }
            self.fill();
            match self.session.step(&mut self.book)? {
                Step::Acknowledged => acknowledged += 1,
                Step::Gone | Step::Refused(_) | Step::Told { .. } => {
                    self.field.check_alive()?;
                    return Err(TortureError::WriterGone);
                }
            }
        }
        while self.session.under_way() > 0 {
            if self.session.step(&mut self.book)? != Step::Acknowledged {
                return Err(TortureError::WriterGone);
            }
        }
        self.field.heal()?;
        let pages = self.book.unread();
        if !self.session.verify(&mut self.book, &pages, self.options.in_flight)? {
            return Err(TortureError::WriterGone);
        }
        self.field.check_alive()
    }

    /// Keeps as many writes under way as there should be.
    fn fill(&mut self) {
        while self.session.under_way() < self.options.in_flight {
            let page = self.next_page();
            if !self.session.write(&mut self.book, page) {
                return;
            }
        }
    }

    fn next_page(&mut self) -> PageId {
        self.page = (self.page + 1) % PAGES;
        PageId::new(self.page)
    }

    fn strike(&mut self, fault: Fault, findings: &mut Findings) -> Result<(), TortureError> {
        match fault {
            Fault::KillNodes => {
                for victim in self.some_nodes() {
                    self.field.kill(End::Node(victim))?;
                }
            }
            Fault::StopNodes => {
                for victim in self.some_nodes() {
                    self.field.stop(End::Node(victim))?;
                }
            }
            Fault::CutZone => {
                let cut = Condition { there: Way::Cut, back: Way::Cut };
                for victim in self.zone() {
                    self.set_around(victim, cut);
                }
            }
            Fault::CutOneWay => {
                for victim in self.some_nodes() {
                    let (there, back) = (Way::Cut, Way::Open);
                    let one_way = if self.random.bool() {
                        Condition { there, back }
                    } else {
                        Condition { there: back, back: there }
                    };
                    self.set_around(victim, one_way);
                }
            }
            Fault::Delay => {
                for (from, to) in self.pairs() {
                    if self.random.bool() {
                        let delay = Duration::from_millis(self.random.u64(0..=DELAY_MAX));
                        let (there, back) = (Way::Delayed(delay), Way::Delayed(delay));
                        self.field.set(from, to, Condition { there, back });
                    }
                }
            }
            Fault::Reset => {
                for (from, to) in self.pairs() {
                    if self.random.bool() {
                        self.field.reset(from, to);
                    }
                }
            }
            Fault::KillWriter | Fault::KillWriterAndZone | Fault::StopWriter | Fault::CutWriter => {
                self.overtake(fault, findings)?;
            }
        }
        Ok(())
    }

    /// Takes the writer away, lets another one take over, and brings the first one back if it is
    /// still there.
    fn overtake(&mut self, fault: Fault, findings: &mut Findings) -> Result<(), TortureError> {
        let victim = End::Writer(self.slot);
        if fault == Fault::KillWriterAndZone {
            for node in self.zone() {
                self.field.kill(End::Node(node))?;
            }
        }
        let start = self.clock.now();
        if fault == Fault::CutWriter {
            self.set_from(victim, Way::Cut);
        } else if fault == Fault::StopWriter {
            self.field.stop(victim)?;
        } else {
            self.field.kill(victim)?;
        }
        self.slot = self.slot.other();
        let successor = Session::new(self.field.open(self.slot)?);
        let mut zombie = std::mem::replace(&mut self.session, successor);
        self.fill();
        if self.session.step(&mut self.book)? != Step::Acknowledged {
            return Err(TortureError::WriterGone);
        }
        let took = self.clock.now().since(start).as_secs_f64() * 1e3;
        findings.takeovers_ms.entry(fault).or_default().push(took);
        if matches!(fault, Fault::KillWriter | Fault::KillWriterAndZone) {
            // What it had said before may still be on its way to the client.
            return zombie.drain(&mut self.book);
        }
        for _ in 0..ZOMBIE_WRITES {
            let page = self.next_page();
            if zombie.write_overtaken(&mut self.book, page) {
                findings.refused += 1;
            }
        }
        if fault == Fault::CutWriter {
            self.set_from(victim, Way::Open);
        } else {
            self.field.resume(victim)?;
        }
        let pages = [self.next_page(), self.next_page()];
        zombie.exhaust(&mut self.book, &mut self.session, pages, |step| step.map(|_| true))?;
        self.field.kill(victim)
    }

    fn set_from(&mut self, end: End, way: Way) {
        for node in nodes() {
            self.field.set(end, node, Condition { there: way, back: way });
        }
    }

    /// Sets every link from and to a node.
    fn set_around(&mut self, node: Position, condition: Condition) {
        for (from, to) in self.pairs() {
            if to == node {
                self.field.set(from, to, condition);
            } else if from == End::Node(node) {
                let Condition { there, back } = condition;
                self.field.set(from, to, Condition { there: back, back: there });
            }
        }
    }

    /// Returns who reaches whom.
    fn pairs(&self) -> Vec<(End, Position)> {
        let ends = nodes().map(End::Node).chain([End::Writer(self.slot)]);
        let pairs = ends.flat_map(|from| nodes().map(move |to| (from, to)));
        pairs.filter(|(from, to)| *from != End::Node(*to)).collect()
    }

    /// Returns a node, two nodes, or a zone.
    fn some_nodes(&mut self) -> Vec<Position> {
        if self.random.bool() {
            return self.zone();
        }
        let mut all: Vec<Position> = nodes().collect();
        self.random.shuffle(&mut all);
        all.truncate(self.random.usize(1..=2));
        all
    }

    fn zone(&mut self) -> Vec<Position> {
        let zone = self.random.usize(0..NAMES.len()) / 2;
        nodes().filter(|node| node.index() / 2 == zone).collect()
    }
}

fn nodes() -> impl Iterator<Item = Position> {
    Position::first(NAMES.len())
}
