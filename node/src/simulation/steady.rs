//! A simulated cluster for tests that choose their faults themselves: six nodes, one writer
//! process.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, PageId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::quorum::QuorumSet;

use crate::answer::{Answer, Outcome, answer};
use crate::config::{CHECKPOINT_BYTES, NodeConfig, VolumeId};
use crate::driver::{Node, NodeError};
use crate::env::simulated::random::nanoseconds;
use crate::env::simulated::{Advance, Crash, ProcessId, SimulatedEnvironment, World, address};
use crate::mailbox::Mailbox;
use crate::volume::driver::VolumeDriver;
use crate::volume::{
    BACKTRACK_WINDOW_RECORDS, Command, Committed, Consistency, Opened, PageImage, PageVersion,
    VolumeConfig, VolumeError,
};

pub(super) const NODES: usize = 6;

/// The machine of the writer process, in the zone of the first two nodes.
pub(super) const WRITER: usize = NODES;

const VOLUME: VolumeId = VolumeId::new(0x51);

/// How long anything may take in simulated time.
const BOUND: Duration = Duration::from_secs(60);

/// A cluster.
#[derive(Debug)]
pub(super) struct Steady {
    pub(super) world: World,
    /// Those that have power, by machine.
    pub(super) nodes: BTreeMap<usize, (ProcessId, Node<SimulatedEnvironment>)>,
    /// Nodes that ended by themselves, and why.
    pub(super) ended: Vec<(usize, NodeError)>,
    pub(super) writer: ProcessId,
    pub(super) volume: VolumeDriver<SimulatedEnvironment>,
    /// A writer process beside it, if one was started.
    pub(super) other: Option<(ProcessId, VolumeDriver<SimulatedEnvironment>)>,
    commands: Arc<Mailbox<Command>>,
    /// Held open: a writer process ends when this side is gone.
    others: Vec<Arc<Mailbox<Command>>>,
    alarms: u64,
}

/// What a request will come to.
pub(super) type Pending<T> = Answer<Result<T, VolumeError>>;

fn start_node(world: &World, node: usize) -> (ProcessId, Node<SimulatedEnvironment>) {
    let (process, environment) = world.spawn(node);
    let config = NodeConfig {
        directory: PathBuf::from(format!("node-{node}")),
        listen: address(node),
        peers: (0..NODES).map(address).collect(),
        volume: VOLUME,
        group: PgId::new(0),
        position: Position::new(node).unwrap(),
        joined: Vec::new(),
        incarnation: Incarnation::new(0),
        geometry: VolumeGeometry::new(1, QuorumSet::AURORA, Limits::DEFAULT).unwrap(),
        checkpoint_bytes: CHECKPOINT_BYTES,
    };
    (process, Node::start(environment, config).unwrap().0)
}

impl Steady {
    /// Returns a cluster whose writer process has opened the volume.
    pub(super) fn start(seed: u64) -> Self {
        Self::start_with(seed, BACKTRACK_WINDOW_RECORDS)
    }

    /// [`Steady::start`] with a volume that can go back so many records.
    pub(super) fn start_with(seed: u64, backtrack_window: u64) -> Self {
        let world = World::new(seed, &[0, 0, 1, 1, 2, 2, 0]);
        let segments: Vec<SocketAddr> = (0..NODES).map(address).collect();
        let nodes = (0..NODES).map(|node| (node, start_node(&world, node))).collect();
        let (writer, environment) = world.spawn(WRITER);
        let commands = Arc::new(Mailbox::new(1 << 12));
        let (reply, opening) = answer();
        let config = VolumeConfig::new(VOLUME, vec![segments], BOUND);
        let config = VolumeConfig { backtrack_window, ..config };
        let volume =
            VolumeDriver::start(environment, config, Arc::clone(&commands), reply).unwrap();
        let mut steady = Self {
            world,
            nodes,
            ended: Vec::new(),
            writer,
            volume,
            other: None,
            commands,
            others: Vec::new(),
            alarms: 0,
        };
        steady.run_until(BOUND, |_| matches!(opening.take(), Outcome::Given(Ok(_))));
        steady
    }

    /// Returns the nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.world.with(|state| state.now())
    }

    /// Lets `span` go by.
    pub(super) fn run_for(&mut self, span: Duration) {
        self.run(span, |_| false);
    }

    /// Goes on until `is_so`, and fails when that takes longer than `most`.
    pub(super) fn run_until(&mut self, most: Duration, is_so: impl FnMut(&Self) -> bool) {
        assert!(self.run(most, is_so), "not within {most:?} of simulated time");
    }

    fn run(&mut self, most: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        self.alarms += 1;
        let (own, most) = (self.alarms, nanoseconds(most));
        self.world.with(|state| state.set_alarm(most, own));
        loop {
            while let Some(process) = self.world.with(|state| state.next_ready()) {
                self.turn(process);
                let spinning = self.world.with(|state| state.spinning());
                assert_eq!(spinning, None, "a process takes turns without end");
            }
            if is_so(self) {
                return true;
            }
            match self.world.with(|state| state.advance()) {
                Advance::Alarm(alarm) if alarm == own => return false,
                Advance::Alarm(_) | Advance::Event => {}
                Advance::Idle => panic!("nobody has anything to do any more"),
            }
        }
    }

    fn turn(&mut self, process: ProcessId) {
        if process == self.writer {
            assert!(self.volume.turn());
        }
        if let Some((own, other)) = &mut self.other
            && process == *own
        {
            assert!(other.turn());
        }
        let mut nodes = self.nodes.iter_mut();
        if let Some((&index, (_, node))) = nodes.find(|(_, (own, _))| *own == process)
            && let Err(error) = node.turn()
        {
            self.world.with(|state| state.crash(process, Crash::Kill));
            self.nodes.remove(&index);
            self.ended.push((index, error));
        }
    }

    /// Takes the power from a node's machine.
    pub(super) fn power_off(&mut self, node: usize) {
        let (process, _) = self.nodes.remove(&node).unwrap();
        self.world.with(|state| state.crash(process, Crash::Power));
    }

    /// Starts the node on a machine without power again, on what its disk holds.
    pub(super) fn power_on(&mut self, node: usize) {
        self.world.with(|state| state.power_on(node));
        self.nodes.insert(node, start_node(&self.world, node));
    }

    /// Begins or ends a partition between machines, in both directions.
    pub(super) fn part(&mut self, from: usize, to: &[usize], is_on: bool) {
        let links: Vec<(usize, usize)> =
            to.iter().flat_map(|to| [(from, *to), (*to, from)]).collect();
        self.world.with(|state| state.block(&links, is_on));
    }

    /// Starts another writer process, and goes on until it has opened the volume.
    pub(super) fn take_over(&mut self) {
        let opening = self.begin_to_take_over();
        self.run_until(BOUND, |_| matches!(opening.take(), Outcome::Given(Ok(_))));
    }

    /// Starts another writer process.
    pub(super) fn begin_to_take_over(&mut self) -> Pending<Opened> {
        let (process, environment) = self.world.spawn(WRITER);
        let (reply, opening) = answer();
        let segments = (0..NODES).map(address).collect();
        let config = VolumeConfig::new(VOLUME, vec![segments], BOUND);
        // Nobody has commands for it.
        let commands = Arc::new(Mailbox::new(1));
        self.others.push(Arc::clone(&commands));
        let volume = VolumeDriver::start(environment, config, commands, reply).unwrap();
        self.other = Some((process, volume));
        opening
    }

    /// Asks for the volume to go to `target`.
    pub(super) fn backtrack(&mut self, target: Lsn) -> Pending<Opened> {
        let (reply, answer) = answer();
        self.ask(Command::Backtrack { target, reply });
        answer
    }

    /// Writes a page.
    pub(super) fn write(&mut self, page: u64, bytes: &[u8]) -> Pending<Committed> {
        self.write_all(&[page], bytes)
    }

    /// Writes pages as one mini-transaction.
    pub(super) fn write_all(&mut self, pages: &[u64], bytes: &[u8]) -> Pending<Committed> {
        let (reply, answer) = answer();
        let image = |page: &u64| PageImage { page: PageId::new(*page), bytes: bytes.to_vec() };
        self.ask(Command::Write { pages: pages.iter().map(image).collect(), reply });
        answer
    }

    /// Reads a page.
    pub(super) fn read(&mut self, page: u64, consistency: Consistency) -> Pending<PageVersion> {
        let (reply, answer) = answer();
        self.ask(Command::Read { page: PageId::new(page), consistency, reply });
        answer
    }

    fn ask(&mut self, command: Command) {
        self.commands.post(command).unwrap();
        let writer = self.writer;
        self.world.with(|state| state.rouse(writer));
    }

    /// Goes on until every segment has everything that was written.
    pub(super) fn level(&mut self) {
        self.run_until(BOUND, |steady| {
            let tail = steady.volume.allocated();
            let complete = steady.nodes.values().map(|(_, node)| node.status().scl.lsn());
            steady.volume.is_idle() && complete.min() == Some(tail)
        });
    }
}
