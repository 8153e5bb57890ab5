//! The state of a simulated world: its queue of events, and what each one does.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock::LocalClock;
use super::disk::Disk;
use super::network::Network;
use super::random::{Random, mix};
use super::trace::{Fault, Happening, Trace, What};
use super::{EndState, Parcel, Side};
use crate::clock::Moment;
use crate::env::{Event, Token};

mod connections;
mod disks;

/// The most parts per million by which a clock is wrong.
const DRIFT_MAX: u64 = 500;

/// The most turns of one process without any time passing: above that, it spins.
const TURNS_MAX: u32 = 20_000;

/// Names a process; never used twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct ProcessId(pub(super) usize);

impl ProcessId {
    /// No process.
    pub(crate) const NOBODY: Self = Self(usize::MAX);

    pub(crate) const fn number(self) -> usize {
        self.0
    }
}

/// How a process ends against its will.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crash {
    /// The process alone: the kernel closes its connections and keeps its page cache.
    Kill,
    /// The whole machine, without a word to anybody.
    Power,
}

/// What the world has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Advance {
    /// It is the time of an alarm.
    Alarm(u64),
    /// Something happened to a process, or nothing to anybody.
    Event,
    /// Nothing will ever happen again.
    Idle,
}

#[derive(Debug)]
struct Machine {
    clock: LocalClock,
    disk: Disk,
    is_refusing: bool,
}

#[derive(Debug)]
struct Process {
    machine: usize,
    inbox: Vec<Event>,
    woken: Arc<AtomicBool>,
    deadline: Option<Moment>,
    /// The earliest timer in the queue.
    timer: Option<u64>,
    is_alive: bool,
    is_frozen: bool,
    /// Whether it is in the list of those that have something to do.
    is_ready: bool,
    turned: u64,
    turns: u32,
}

/// Something that will happen.
#[derive(Debug)]
enum Pending {
    Alarm(u64),
    Answer { connection: usize },
    Arrive { connection: usize, to: Side, parcel: Parcel },
    Call { connection: usize },
    Checkpoint { machine: usize, process: ProcessId, generation: u64 },
    Refuse { connection: usize },
    Room { connection: usize, side: Side },
    Sync { machine: usize, process: ProcessId, generation: u64 },
    Timer { process: ProcessId },
}

#[derive(Debug)]
struct Entry {
    at: u64,
    sequence: u64,
    pending: Pending,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Order {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Entry {}

/// Everything that simulated processes share.
#[derive(Debug)]
pub(crate) struct State {
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    random: Random,
    pub(super) network: Network,
    machines: Vec<Machine>,
    processes: Vec<Process>,
    ready: VecDeque<ProcessId>,
    tokens: usize,
    spinning: Option<ProcessId>,
    pub(crate) trace: Trace,
}

impl State {
    pub(super) fn new(seed: u64, zones: &[usize]) -> Self {
        let mut random = Random::new(mix(seed));
        let drift = i64::try_from(DRIFT_MAX).unwrap_or(0);
        let machines = zones.iter().map(|_| {
            let drift = i64::try_from(random.between(0, 2 * DRIFT_MAX)).unwrap_or(0) - drift;
            Machine { clock: LocalClock::new(drift), disk: Disk::default(), is_refusing: false }
        });
        Self {
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            machines: machines.collect(),
            random,
            network: Network::new(zones),
            processes: Vec::new(),
            ready: VecDeque::new(),
            tokens: 0,
            spinning: None,
            trace: Trace::new(seed),
        }
    }

    /// Returns the nanoseconds since the start.
    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) const fn bits(&mut self) -> u64 {
        self.random.bits()
    }

    pub(super) const fn token(&mut self) -> Token {
        self.tokens = self.tokens.saturating_add(1);
        Token::new(self.tokens)
    }

    pub(super) fn local_time(&self, machine: usize) -> Moment {
        let machine = self.machines.get(machine);
        machine.map_or_else(Moment::default, |machine| machine.clock.read(self.now))
    }

    fn push(&mut self, at: u64, pending: Pending) {
        self.sequence = self.sequence.saturating_add(1);
        self.queue.push(Reverse(Entry { at, sequence: self.sequence, pending }));
    }

    fn note(&mut self, what: What, machine: usize, subject: usize, content: &[u8]) {
        let (subject, bytes) = (subject as u64, content.len() as u64);
        let happening = Happening { at: self.now, what, machine, subject, bytes };
        self.trace.add(happening, content);
    }
}

/// Processes and their turns.
impl State {
    pub(super) fn spawn(&mut self, machine: usize, woken: Arc<AtomicBool>) -> ProcessId {
        let process = ProcessId(self.processes.len());
        self.processes.push(Process {
            machine,
            inbox: Vec::new(),
            woken,
            deadline: None,
            timer: None,
            is_alive: true,
            is_frozen: false,
            is_ready: false,
            turned: 0,
            turns: 0,
        });
        self.rouse(process);
        process
    }

    /// Puts a process on the list of those that have something to do.
    pub(crate) fn rouse(&mut self, process: ProcessId) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        if slot.is_alive && !slot.is_frozen && !slot.is_ready {
            slot.is_ready = true;
            self.ready.push_back(process);
        }
    }

    /// Returns the next process that has something to do.
    pub(crate) fn next_ready(&mut self) -> Option<ProcessId> {
        if self.ready.is_empty() {
            let is_woken = |slot: &Process| slot.woken.load(Ordering::SeqCst);
            let slots = self.processes.iter().enumerate();
            let woken: Vec<usize> = slots
                .filter(|(_, slot)| slot.is_alive && !slot.is_frozen && is_woken(slot))
                .map(|(index, _)| index)
                .collect();
            woken.into_iter().for_each(|index| self.rouse(ProcessId(index)));
        }
        while let Some(process) = self.ready.pop_front() {
            let Some(slot) = self.processes.get_mut(process.0) else { continue };
            slot.is_ready = false;
            if !slot.is_alive || slot.is_frozen {
                continue;
            }
            slot.turns = if slot.turned == self.now { slot.turns.saturating_add(1) } else { 0 };
            slot.turned = self.now;
            if slot.turns > TURNS_MAX {
                self.spinning = Some(process);
            }
            return Some(process);
        }
        None
    }

    /// Returns a process that took turn after turn without any time passing.
    pub(crate) const fn spinning(&self) -> Option<ProcessId> {
        self.spinning
    }

    pub(super) fn wait(
        &mut self,
        process: ProcessId,
        deadline: Option<Moment>,
        events: &mut Vec<Event>,
    ) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        events.append(&mut slot.inbox);
        if slot.woken.swap(false, Ordering::SeqCst) {
            events.push(Event::Woken);
        }
        slot.deadline = deadline;
        if events.is_empty() {
            self.sleep(process);
        } else {
            self.rouse(process);
        }
    }

    /// Makes a process go on at its deadline, at once if that has come.
    fn sleep(&mut self, process: ProcessId) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        let Some(deadline) = slot.deadline else { return };
        let Some(machine) = self.machines.get(slot.machine) else { return };
        if machine.clock.read(self.now) >= deadline {
            return self.rouse(process);
        }
        let at = machine.clock.when(deadline).max(self.now.saturating_add(1));
        if slot.timer.is_none_or(|timer| at < timer) {
            slot.timer = Some(at);
            self.push(at, Pending::Timer { process });
        }
    }

    fn tell(&mut self, process: ProcessId, event: Event) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        if !slot.is_alive {
            return;
        }
        if let Event::Ready { token: of, readable, writable } = event {
            let known = slot.inbox.iter_mut().find_map(|event| match event {
                Event::Ready { token, readable, writable } if *token == of => {
                    Some((readable, writable))
                }
                Event::Checkpointed(_)
                | Event::CheckpointFailed { .. }
                | Event::Durable { .. }
                | Event::LogCramped { .. }
                | Event::LogFailed { .. }
                | Event::Ready { .. }
                | Event::Woken => None,
            });
            if let Some((is_readable, is_writable)) = known {
                *is_readable |= readable;
                *is_writable |= writable;
                return;
            }
        }
        slot.inbox.push(event);
        self.rouse(process);
    }

    /// Tells an end of a connection that it may read or write.
    fn tell_end(&mut self, connection: usize, side: Side, readable: bool, writable: bool) {
        let Some(pair) = self.network.get(connection) else { return };
        let end = pair.end(side);
        if end.state == EndState::Open {
            let (process, token) = (ProcessId(end.process), end.token);
            self.tell(process, Event::Ready { token, readable, writable });
        }
    }

    /// Ends a process. Its owner drops it afterwards.
    pub(crate) fn crash(&mut self, process: ProcessId, how: Crash) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        slot.is_alive = false;
        slot.inbox.clear();
        let index = slot.machine;
        let Some(machine) = self.machines.get_mut(index) else { return };
        machine.disk.is_failing = false;
        match how {
            Crash::Kill => machine.disk.kill(&mut self.random, &mut self.trace),
            Crash::Power => {
                machine.disk.lose_power(&mut self.random, &mut self.trace);
                if let Some(is_dark) = self.network.dark.get_mut(index) {
                    *is_dark = true;
                }
                for connection in 0..self.network.count() {
                    self.cut(connection, index);
                }
            }
        }
    }

    fn cut(&mut self, connection: usize, machine: usize) {
        let Some(pair) = self.network.get(connection) else { return };
        for (side, unheard) in [(Side::Caller, true), (Side::Callee, false)] {
            let end = pair.end(side);
            let is_there =
                end.state == EndState::Open || (unheard && end.state == EndState::Connecting);
            if end.machine == machine && is_there {
                end.state = EndState::Cut;
            }
        }
    }

    /// Gives a machine its power back.
    pub(crate) fn power_on(&mut self, machine: usize) {
        if let Some(is_dark) = self.network.dark.get_mut(machine) {
            *is_dark = false;
        }
        self.release();
    }

    /// Stops a process, with the clock of its machine or without.
    pub(crate) fn freeze(&mut self, process: ProcessId, with_clock: bool) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        slot.is_frozen = true;
        if with_clock && let Some(machine) = self.machines.get_mut(slot.machine) {
            machine.clock.stop(self.now);
        }
    }

    pub(crate) fn thaw(&mut self, process: ProcessId) {
        let now = self.now;
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        slot.is_frozen = false;
        if let Some(machine) = self.machines.get_mut(slot.machine) {
            machine.clock.go_on(now);
        }
        self.rouse(process);
    }
}

/// Faults of links and disks.
impl State {
    /// Begins or ends a partition of these directions.
    pub(crate) fn block(&mut self, links: &[(usize, usize)], is_on: bool) {
        for (from, to) in links {
            self.network.block(*from, *to, is_on);
        }
        if !is_on {
            self.release();
        }
    }

    pub(crate) fn slow_down(&mut self, from: usize, to: usize, is_on: bool) {
        self.network.slow_down(from, to, is_on);
    }

    pub(crate) fn refuse(&mut self, machine: usize, is_on: bool) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.is_refusing = is_on;
        }
    }

    pub(crate) fn slow_disk(&mut self, machine: usize, is_on: bool) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.disk.is_slow = is_on;
        }
    }

    pub(crate) fn fail_sync(&mut self, machine: usize, is_on: bool) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.disk.is_failing = is_on;
        }
    }

    /// Makes every disk report syncs that it hasn't done.
    pub(crate) fn lie(&mut self) {
        self.machines.iter_mut().for_each(|machine| machine.disk.is_lying = true);
    }

    /// Resets one of the connections of a machine.
    pub(crate) fn reset_one(&mut self, machine: usize) {
        let open = self.network.open_at(machine);
        let chosen = self.random.index(open.len());
        if let Some(connection) = open.get(chosen) {
            self.trace.fire(Fault::ConnectionReset);
            for side in [Side::Caller, Side::Callee] {
                self.send(*connection, side, Parcel::Reset);
            }
        }
    }

    fn release(&mut self) {
        let sent = self.network.release(self.now, &mut self.random, &mut self.trace);
        sent.into_iter().for_each(|sent| self.push_sent(sent));
    }
}

/// Time.
impl State {
    /// Sets an alarm for whoever runs the world.
    pub(crate) fn set_alarm(&mut self, after: u64, alarm: u64) {
        self.push(self.now.saturating_add(after), Pending::Alarm(alarm));
    }

    /// Goes on to the next event.
    pub(crate) fn advance(&mut self) -> Advance {
        let Some(Reverse(Entry { at, pending, .. })) = self.queue.pop() else {
            return Advance::Idle;
        };
        assert!(at >= self.now, "time goes back");
        self.now = at;
        match pending {
            Pending::Alarm(alarm) => {
                let subject = usize::try_from(alarm).unwrap_or(usize::MAX);
                self.note(What::Alarm, 0, subject, &[]);
                return Advance::Alarm(alarm);
            }
            Pending::Answer { connection } => self.take_answer(connection),
            Pending::Arrive { connection, to, parcel } => self.arrive(connection, to, parcel),
            Pending::Call { connection } => self.answer_call(connection),
            Pending::Refuse { connection } => self.take_refusal(connection),
            Pending::Room { connection, side } => {
                let machine = self.network.get(connection).map_or(0, |pair| pair.end(side).machine);
                self.note(What::Room, machine, connection, &[]);
                self.tell_end(connection, side, false, true);
            }
            Pending::Checkpoint { machine, process, generation } => {
                self.end_checkpoint(machine, process, generation);
            }
            Pending::Sync { machine, process, generation } => {
                self.end_sync(machine, process, generation);
            }
            Pending::Timer { process } => self.ring(process),
        }
        Advance::Event
    }

    /// Takes the time of a timer, which may have been set for an earlier deadline.
    fn ring(&mut self, process: ProcessId) {
        let Some(slot) = self.processes.get_mut(process.0) else { return };
        if slot.timer != Some(self.now) {
            return;
        }
        slot.timer = None;
        if !slot.is_alive || slot.is_frozen || slot.is_ready {
            return;
        }
        let (machine, deadline) = (slot.machine, slot.deadline);
        let shown = self.local_time(machine);
        if deadline.is_some_and(|deadline| shown >= deadline) {
            self.note(What::Timer, machine, process.0, &[]);
            self.rouse(process);
        } else {
            self.sleep(process);
        }
    }
}
