//! The processes of a simulated cluster and who takes the next turn.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, PageId, PgId, Position, SegmentId};
use quorate_core::quorum::QuorumSet;
use quorate_core::rules::Rules;

use super::client::{Client, Told};
use super::faults::Undo;
use super::oracle::{Objection, Oracle};
use super::repair::Rebuilding;
use super::round::Phase;
use super::{Failure, Mutant, Options, Report, seconds};
use crate::addresses::{Place, Seat};
use crate::config::{NodeConfig, VolumeId};
use crate::driver::{Node, NodeError};
use crate::env::simulated::random::{Random, mix, nanoseconds};
use crate::env::simulated::{Advance, Crash, ProcessId, SimulatedEnvironment, World, address};
use crate::volume::Consistency;

/// The nodes of the volume's one group, two in each of three zones.
pub(super) const NODES: usize = 6;

/// The machines of the writers, and the zone of every machine.
pub(super) const ZONES: [usize; NODES + 4] = [0, 0, 1, 1, 2, 2, 0, 1, 2, 0];

/// The pages that are written and read.
pub(super) const PAGES: u64 = 24;

/// The most pages of one write.
const WRITE_PAGES_MAX: u64 = 4;

/// The time after which users think of something again.
const WORK_MIN: Duration = Duration::from_millis(1);
const WORK_MAX: Duration = Duration::from_millis(4);

/// How many lines of the story are kept.
const STORY_MAX: usize = 60;

/// Small enough that a run crosses many checkpoints, and starts after them.
const CHECKPOINT_BYTES: u64 = 16 << 10;

/// Small enough that batches, back-pressure and overload come up.
const LIMITS: Limits = Limits {
    allocation_max: 128,
    batch_records_max: 16,
    log_records_max: 1 << 24,
    history_ranges_max: 1 << 12,
    pending_writes_max: 24,
};

/// Alarms below this number are fixed; others name what is to be undone.
pub(super) const UNDO_FIRST: u64 = 16;

/// The alarm of the users.
pub(super) const WORK: u64 = 0;

/// The alarm of the next fault.
pub(super) const FAULT: u64 = 1;

/// The alarm that looks how far a round is.
pub(super) const LOOK: u64 = 2;

/// A storage node, up or not.
#[derive(Debug)]
pub(super) struct Slot<R: Rules> {
    pub(super) up: Option<(ProcessId, Box<Node<SimulatedEnvironment, R>>)>,
    /// Whether a sync of it is going to fail.
    pub(super) is_failing: bool,
    /// Which segment it serves.
    pub(super) id: SegmentId,
}

/// A simulated cluster.
#[derive(Debug)]
pub(super) struct Cluster<R: Rules> {
    rules: R,
    seed: u64,
    pub(super) end: u64,
    pub(super) world: World,
    pub(super) random: Random,
    pub(super) nodes: Vec<Slot<R>>,
    pub(super) clients: Vec<Client<R>>,
    pub(super) oracle: Oracle,
    pub(super) phase: Phase,
    pub(super) rounds: u64,
    pub(super) has_blackouts: bool,
    /// The longest time between two faults of this round.
    pub(super) pause_max: Duration,
    pub(super) undos: BTreeMap<u64, Undo>,
    pub(super) next_undo: u64,
    /// How many faults each node suffers from.
    pub(super) impaired: [u32; NODES],
    /// The node whose log was damaged, until it is known to be repaired.
    pub(super) rotten: Option<usize>,
    /// Whether it has not started since.
    pub(super) is_rot_unread: bool,
    /// The disk that is to take the place of a lost one.
    pub(super) rebuilding: Option<Rebuilding>,
    /// How many disks were lost.
    pub(super) disks: u32,
    /// Where those are that have joined: what whoever starts a writer knows.
    pub(super) joined: Vec<Seat>,
    takeovers: u64,
    story: VecDeque<String>,
}

impl<R: Rules> Cluster<R> {
    pub(super) fn new(rules: R, options: &Options) -> Self {
        let world = World::new(options.seed, &ZONES);
        if options.mutant == Some(Mutant::LyingDisk) {
            world.with(|state| state.lie());
        }
        Self {
            rules,
            seed: options.seed,
            end: nanoseconds(options.duration),
            world,
            random: Random::new(mix(!options.seed)),
            nodes: Position::first(NODES)
                .map(|position| SegmentId { position, incarnation: Incarnation::new(0) })
                .map(|id| Slot { up: None, is_failing: false, id })
                .collect(),
            clients: Vec::new(),
            oracle: Oracle::default(),
            phase: Phase::default(),
            rounds: 0,
            has_blackouts: options.has_blackouts,
            pause_max: Duration::ZERO,
            undos: BTreeMap::new(),
            next_undo: UNDO_FIRST,
            impaired: [0; NODES],
            rotten: None,
            is_rot_unread: false,
            rebuilding: None,
            disks: 0,
            joined: Vec::new(),
            takeovers: 0,
            story: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Report, Box<Failure>> {
        match self.run_to_end() {
            Ok(()) => Ok(self.report()),
            Err(violation) => Err(Box::new(Failure {
                violation,
                at_ns: self.now(),
                story: self.story.iter().cloned().collect(),
                last: self
                    .world
                    .with(|state| state.trace.last().map(ToString::to_string).collect()),
                report: self.report(),
            })),
        }
    }

    fn run_to_end(&mut self) -> Result<(), Objection> {
        for node in 0..NODES {
            self.start_node(node)?;
        }
        self.begin_round();
        self.world.with(|state| {
            state.set_alarm(0, WORK);
            state.set_alarm(0, LOOK);
            state.set_alarm(0, FAULT);
        });
        loop {
            while let Some(process) = self.world.with(|state| state.next_ready()) {
                self.turn(process)?;
                if self.world.with(|state| state.spinning().is_some()) {
                    return Err(format!("{} takes turns without end", self.name(process)));
                }
            }
            match self.world.with(|state| state.advance()) {
                Advance::Alarm(WORK) => self.work()?,
                Advance::Alarm(FAULT) => self.fault()?,
                Advance::Alarm(LOOK) => {
                    if self.look()? {
                        return Ok(());
                    }
                }
                Advance::Alarm(undo) => self.undo(undo)?,
                Advance::Event => {}
                Advance::Idle => return Err("nobody has anything to do any more".into()),
            }
        }
    }

    fn report(&self) -> Report {
        self.world.with(|state| Report {
            seed: self.seed,
            simulated_ns: state.now(),
            events: state.trace.events(),
            commits: self.oracle.commits,
            snapshot_reads: self.oracle.snapshot_reads,
            strict_reads: self.oracle.strict_reads,
            takeovers: self.takeovers,
            rounds: self.rounds,
            faults: state.trace.fired().map(|(fault, count)| (fault.name(), count)).collect(),
            trace_hash: format!("{:016x}", state.trace.hash()),
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.world.with(|state| state.now())
    }

    /// Adds a line to the story.
    pub(super) fn tell(&mut self, line: &str) {
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(format!("{} {line}", seconds(self.now())));
    }

    fn name(&self, process: ProcessId) -> String {
        let nodes = self.nodes.iter().enumerate();
        let node = nodes
            .filter(|(_, slot)| slot.up.as_ref().is_some_and(|(own, _)| *own == process))
            .map(|(node, _)| format!("node {node}"))
            .next();
        node.unwrap_or_else(|| format!("writer process {}", process.number()))
    }
}

/// Processes.
impl<R: Rules> Cluster<R> {
    fn turn(&mut self, process: ProcessId) -> Result<(), Objection> {
        let node = self
            .nodes
            .iter()
            .position(|slot| slot.up.as_ref().is_some_and(|(own, _)| *own == process));
        if let Some(node) = node {
            return self.turn_node(node);
        }
        let index = self.clients.iter().position(|client| client.process == process);
        let Some(client) = index.and_then(|index| self.clients.get_mut(index)) else {
            return Ok(());
        };
        let told = catch_unwind(AssertUnwindSafe(|| client.turn()));
        let told = told.map_err(|panic| panicked("a writer", &*panic))?;
        told.into_iter().try_for_each(|told| self.take_told(process, told))
    }

    fn turn_node(&mut self, node: usize) -> Result<(), Objection> {
        let Some(slot) = self.nodes.get_mut(node) else { return Ok(()) };
        let Some((process, running)) = &mut slot.up else { return Ok(()) };
        let process = *process;
        let outcome = catch_unwind(AssertUnwindSafe(|| running.turn()));
        match outcome.map_err(|panic| panicked(&format!("node {node}"), &*panic))? {
            Ok(()) => Ok(()),
            Err(NodeError::LogFailed { .. }) if slot.is_failing => {
                slot.is_failing = false;
                slot.up = None;
                self.world.with(|state| state.crash(process, Crash::Kill));
                self.tell(&format!("node {node} stops because a sync has failed"));
                self.restart_later(node);
                Ok(())
            }
            Err(error) => Err(format!("node {node} stops: {error}")),
        }
    }

    fn take_told(&mut self, process: ProcessId, told: Told) -> Result<(), Objection> {
        match told {
            Told::Committed(id, committed) => self.oracle.committed(id, &committed),
            Told::Opened(opened) => {
                let client = self.clients.iter().find(|client| client.process == process);
                let tail = client.map_or(0, Client::allocated);
                let (epoch, point) = (opened.epoch, opened.recovery_point.lsn());
                self.tell(&format!(
                    "writer process {} opens epoch {epoch} at {point}, after {} attempts",
                    process.number(),
                    opened.attempts
                ));
                self.takeovers = self.takeovers.saturating_add(1);
                self.oracle.opened(&opened, tail)
            }
            Told::Over(error) => {
                self.tell(&format!("writer process {} ends: {error}", process.number()));
                self.end_client(process, Crash::Kill);
                Ok(())
            }
            Told::Read(asked, version) => self.oracle.answered(&asked, &version),
        }
    }

    /// Starts a node on what its disk holds.
    pub(super) fn start_node(&mut self, node: usize) -> Result<(), Objection> {
        let unsound = |what: &str| format!("node {node} can't start: {what}");
        let id = self.nodes.get(node).map(|slot| slot.id);
        let SegmentId { position, incarnation } = id.ok_or_else(|| unsound("no such position"))?;
        let own = Place { incarnation, revision: 0, address: address(node) };
        let geometry = VolumeGeometry::new(1, QuorumSet::AURORA, LIMITS)
            .map_err(|_| unsound("no such geometry"))?;
        self.world.with(|state| state.power_on(node));
        let (process, environment) = self.world.spawn(node);
        let config = NodeConfig {
            directory: PathBuf::from(format!("node-{node}")),
            listen: address(node),
            peers: segments(),
            volume: volume(),
            group: PgId::new(0),
            position,
            joined: vec![Seat { position, place: own }],
            incarnation,
            geometry,
            checkpoint_bytes: CHECKPOINT_BYTES,
        };
        let rules = self.rules;
        let start = || Node::start_under(rules, environment, config);
        let started = catch_unwind(AssertUnwindSafe(start));
        let started = started.map_err(|panic| panicked(&format!("node {node}"), &*panic))?;
        let (running, replay) = started.map_err(|error| unsound(&error.to_string()))?;
        self.check_rot(node, &replay)?;
        let status = running.status();
        self.tell(&format!(
            "node {node} starts with {} frames{}, {} torn bytes cut off, complete up to {}{}",
            replay.frames,
            if replay.checkpoint > 0 { " after a checkpoint" } else { "" },
            replay.cut_bytes,
            status.scl,
            if status.impaired { ", without a vote" } else { "" }
        ));
        if let Some(slot) = self.nodes.get_mut(node) {
            slot.up = Some((process, Box::new(running)));
        }
        Ok(())
    }

    /// Starts a writer process on some machine of a writer; returns it.
    pub(super) fn start_client(&mut self) -> Result<ProcessId, Objection> {
        let machine = NODES.saturating_add(self.random.index(ZONES.len() - NODES));
        let client = Client::start(
            self.rules,
            &self.world,
            machine,
            volume(),
            vec![segments()],
            &self.joined,
        )
        .map_err(|error| format!("a writer can't start: {error}"))?;
        let process = client.process;
        self.tell(&format!("writer process {} starts on machine {machine}", process.number()));
        self.clients.push(client);
        Ok(process)
    }

    /// Ends a writer process.
    pub(super) fn end_client(&mut self, process: ProcessId, how: Crash) {
        self.world.with(|state| state.crash(process, how));
        self.clients.retain(|client| client.process != process);
    }

    /// Ends a node.
    pub(super) fn end_node(&mut self, node: usize, how: Crash) {
        let Some(slot) = self.nodes.get_mut(node) else { return };
        let was_failing = std::mem::take(&mut slot.is_failing);
        let Some((process, running)) = slot.up.take() else { return };
        self.world.with(|state| state.crash(process, how));
        drop(running);
        if was_failing {
            self.repair(&[node]);
        }
    }
}

/// Users.
impl<R: Rules> Cluster<R> {
    fn work(&mut self) -> Result<(), Objection> {
        if self.phase.is_faulty() && self.clients.is_empty() {
            self.start_client()?;
        }
        let pause = self.random.span(WORK_MIN, WORK_MAX);
        self.world.with(|state| state.set_alarm(pause, WORK));
        if self.phase.is_faulty() {
            for index in 0..self.clients.len() {
                if self.random.chance(700) {
                    self.write(index)?;
                }
                if self.random.chance(600) {
                    let page = PageId::new(self.random.below(PAGES));
                    let is_strict = self.random.chance(400);
                    self.read(index, page, is_strict);
                }
            }
        }
        Ok(())
    }

    /// Makes the user of a writer write some pages; returns whether there was room for that.
    pub(super) fn write(&mut self, index: usize) -> Result<bool, Objection> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(false) };
        let Some(epoch) = client.epoch else { return Ok(false) };
        if client.is_frozen || !client.has_room_to_write() {
            return Ok(false);
        }
        let first = self.random.below(PAGES);
        let count = self.random.between(1, WRITE_PAGES_MAX);
        let pages: Vec<PageId> =
            (0..count).map(|more| PageId::new((first + more * 5) % PAGES)).collect();
        let (id, images) = self.oracle.write(epoch, &pages)?;
        client.write(id, images);
        let process = client.process;
        self.world.with(|state| state.rouse(process));
        Ok(true)
    }

    /// Makes the user of a writer read a page; returns whether there was room for that.
    pub(super) fn read(&mut self, index: usize, page: PageId, is_strict: bool) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        let Some(epoch) = client.epoch else { return false };
        if client.is_frozen || !client.has_room_to_read() {
            return false;
        }
        let consistency = if is_strict { Consistency::Strict } else { Consistency::Snapshot };
        client.read(self.oracle.asked(epoch, page, consistency));
        let process = client.process;
        self.world.with(|state| state.rouse(process));
        true
    }
}

fn segments() -> Vec<SocketAddr> {
    (0..NODES).map(address).collect()
}

fn volume() -> VolumeId {
    VolumeId::new(0x51)
}

/// Returns what a panic said.
fn panicked(who: &str, panic: &(dyn std::any::Any + Send)) -> Objection {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("{who} panics: {}", text.unwrap_or("without a word"))
}
