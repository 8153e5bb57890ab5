//! Connections between simulated machines.
//!
//! Bytes of one connection keep their order; connections overtake each other. What a partition
//! holds up comes after it, as a retransmission would, unless the connection is reset then.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::random::Random;
use super::trace::{Fault, Trace};
use crate::env::Token;

/// The most bytes of one connection on their way in one direction, read or not.
const WINDOW_BYTES: usize = 256 << 10;

/// The most bytes that arrive at once.
const PARCEL_BYTES_MAX: usize = 64 << 10;

/// How long bytes take within a zone, and between zones.
const NEAR: Duration = Duration::from_micros(80);
const FAR: Duration = Duration::from_micros(400);

/// The longest that bytes take now and then, and on a slow link.
const TAIL: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(80);

/// How many machines a network has at most.
pub(crate) const MACHINES_MAX: usize = 16;

/// What travels on a connection.
#[derive(Debug)]
pub(super) enum Parcel {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// How far one end is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndState {
    /// The callee's end before it is accepted, the caller's before it is answered.
    Connecting,
    Open,
    /// Its process is done with it.
    Closed,
    /// Its machine lost power: the other end doesn't know.
    Cut,
}

/// What the other end said last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    End,
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) machine: usize,
    pub(super) process: usize,
    pub(super) token: Token,
    pub(super) state: EndState,
    pub(super) ending: Option<Ending>,
    inbound: Vec<u8>,
    start: usize,
    /// Bytes sent to this end and not read by it.
    unread: usize,
    /// What a partition holds up on its way to this end.
    held: VecDeque<Parcel>,
    /// When the last parcel to this end arrives.
    last: u64,
    /// Whether this end waits for room to write.
    is_blocked: bool,
}

impl End {
    const fn new(machine: usize, process: usize, token: Token) -> Self {
        Self {
            machine,
            process,
            token,
            state: EndState::Connecting,
            ending: None,
            inbound: Vec::new(),
            start: 0,
            unread: 0,
            held: VecDeque::new(),
            last: 0,
            is_blocked: false,
        }
    }

    /// Returns how many bytes can be read.
    pub(super) const fn available(&self) -> usize {
        self.inbound.len().saturating_sub(self.start)
    }

    pub(super) fn arrive(&mut self, bytes: &[u8]) {
        if self.start == self.inbound.len() {
            self.inbound.clear();
            self.start = 0;
        }
        self.inbound.extend_from_slice(bytes);
    }

    /// Makes what is sent to this end arrive after `at`.
    pub(super) fn await_until(&mut self, at: u64) {
        self.last = self.last.max(at);
    }

    /// Takes a reset: what wasn't read is gone.
    pub(super) fn reset(&mut self) {
        self.inbound.clear();
        self.start = 0;
        self.ending = Some(Ending::Reset);
    }

    /// Moves bytes to `into`; returns how many.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let rest = self.inbound.get(self.start..).unwrap_or(&[]);
        let count = rest.len().min(into.len());
        for (to, from) in into.chunks_mut(count.max(1)).zip(rest.chunks(count.max(1))).take(1) {
            to.copy_from_slice(from.get(..to.len()).unwrap_or(from));
        }
        self.start = self.start.saturating_add(count);
        self.unread = self.unread.saturating_sub(count);
        count
    }

    /// Returns whether the other end may write again, and was waiting for that.
    pub(super) const fn has_room(&self) -> bool {
        self.unread <= WINDOW_BYTES / 2
    }
}

/// A connection: the caller's end, then the callee's.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) ends: [End; 2],
    /// How often the call was tried.
    pub(super) calls: u32,
}

impl Connection {
    pub(super) const fn end(&mut self, side: Side) -> &mut End {
        let [caller, callee] = &mut self.ends;
        match side {
            Side::Caller => caller,
            Side::Callee => callee,
        }
    }
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Callee,
    Caller,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Callee => Self::Caller,
            Self::Caller => Self::Callee,
        }
    }
}

/// Somebody who takes calls.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) process: usize,
    pub(super) token: Token,
    pub(super) waiting: VecDeque<usize>,
}

/// A parcel with the time at which it arrives.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: u64,
    pub(super) connection: usize,
    pub(super) to: Side,
    pub(super) parcel: Parcel,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    connections: Vec<Connection>,
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    /// How many partitions cover a direction, by sender and receiver.
    blocked: Vec<u32>,
    slow: Vec<bool>,
    /// Machines without power.
    pub(super) dark: Vec<bool>,
    zones: Vec<usize>,
}

impl Network {
    pub(super) fn new(zones: &[usize]) -> Self {
        assert!(zones.len() <= MACHINES_MAX);
        let links = zones.len().saturating_mul(zones.len());
        Self {
            connections: Vec::new(),
            listeners: BTreeMap::new(),
            blocked: vec![0; links],
            slow: vec![false; links],
            dark: vec![false; zones.len()],
            zones: zones.to_vec(),
        }
    }

    const fn link(&self, from: usize, to: usize) -> usize {
        from.saturating_mul(self.zones.len()).saturating_add(to)
    }

    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        let is_dark = |machine: usize| self.dark.get(machine).is_some_and(|is_dark| *is_dark);
        let is_cut = self.blocked.get(self.link(from, to)).is_some_and(|count| *count > 0);
        is_cut || is_dark(from) || is_dark(to)
    }

    /// Adds or takes away a partition of one direction.
    pub(super) fn block(&mut self, from: usize, to: usize, is_on: bool) {
        let link = self.link(from, to);
        if let Some(count) = self.blocked.get_mut(link) {
            *count = if is_on { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
    }

    pub(super) fn slow_down(&mut self, from: usize, to: usize, is_on: bool) {
        let link = self.link(from, to);
        if let Some(is_slow) = self.slow.get_mut(link) {
            *is_slow = is_on;
        }
    }

    /// Returns how long a message of `bytes` takes.
    pub(super) fn latency(
        &self,
        from: usize,
        to: usize,
        bytes: usize,
        random: &mut Random,
        trace: &mut Trace,
    ) -> u64 {
        let is_near = self.zones.get(from) == self.zones.get(to);
        let base = if is_near { NEAR } else { FAR };
        let mut time = random.span(base, base.saturating_mul(2)).saturating_add(bytes as u64);
        if random.chance(5) {
            time = time.saturating_add(random.span(Duration::ZERO, TAIL));
        }
        if self.slow.get(self.link(from, to)).is_some_and(|is_slow| *is_slow) {
            trace.fire(Fault::SlowLink);
            time = time.saturating_add(random.span(Duration::ZERO, SLOW));
        }
        time
    }

    pub(super) fn get(&mut self, connection: usize) -> Option<&mut Connection> {
        self.connections.get_mut(connection)
    }

    pub(super) const fn count(&self) -> usize {
        self.connections.len()
    }

    /// Begins a call from a process to an address; the callee is known by the machine there.
    pub(super) fn call(
        &mut self,
        address: SocketAddr,
        caller: (usize, usize, Token),
        callee: usize,
    ) -> usize {
        let (machine, process, token) = caller;
        let ends = [End::new(machine, process, token), End::new(callee, 0, Token::new(0))];
        self.connections.push(Connection { address, ends, calls: 0 });
        self.connections.len().saturating_sub(1)
    }

    /// Takes bytes to be sent from one end; zero when there is no room, and then the end is told
    /// when there is.
    pub(super) fn write(
        &mut self,
        connection: usize,
        side: Side,
        from: &[&[u8]],
        random: &mut Random,
        trace: &mut Trace,
    ) -> Vec<u8> {
        let Some(pair) = self.connections.get_mut(connection) else { return Vec::new() };
        let room = WINDOW_BYTES.saturating_sub(pair.end(side.other()).unread);
        let total: usize = from.iter().map(|bytes| bytes.len()).sum();
        let mut most = room.min(PARCEL_BYTES_MAX);
        if total > 1 && random.chance(10) {
            trace.fire(Fault::ShortWrite);
            most = most.min(random.index(total).max(1));
        }
        let mut bytes = Vec::with_capacity(total.min(most));
        for part in from {
            let left = most.saturating_sub(bytes.len());
            bytes.extend_from_slice(part.get(..left.min(part.len())).unwrap_or(part));
        }
        if bytes.is_empty() {
            pair.end(side).is_blocked = true;
        } else {
            let other = pair.end(side.other());
            other.unread = other.unread.saturating_add(bytes.len());
        }
        bytes
    }

    /// Returns when a parcel sent now arrives.
    pub(super) fn send(
        &mut self,
        now: u64,
        connection: usize,
        to: Side,
        parcel: Parcel,
        random: &mut Random,
        trace: &mut Trace,
    ) -> Option<Sent> {
        let pair = self.connections.get_mut(connection)?;
        let (source, target) = (pair.end(to.other()).machine, pair.end(to).machine);
        let bytes = match &parcel {
            Parcel::Bytes(bytes) => bytes.len(),
            Parcel::End | Parcel::Reset => 0,
        };
        let latency = self.latency(source, target, bytes, random, trace);
        let end = self.connections.get_mut(connection)?.end(to);
        let at = now.saturating_add(latency).max(end.last.saturating_add(1));
        end.last = at;
        Some(Sent { at, connection, to, parcel })
    }

    /// Keeps a parcel that a partition, or one before it, holds up; returns it when it arrives.
    pub(super) fn hold(&mut self, connection: usize, to: Side, parcel: Parcel) -> Option<Parcel> {
        let pair = self.connections.get_mut(connection)?;
        let (source, target) = (pair.end(to.other()).machine, pair.end(to).machine);
        let is_blocked = self.is_blocked(source, target);
        let end = self.connections.get_mut(connection)?.end(to);
        if is_blocked || !end.held.is_empty() {
            end.held.push_back(parcel);
            return None;
        }
        Some(parcel)
    }

    /// Returns whether one end has been told that the other one is done.
    pub(super) fn is_ended(&self, connection: usize, side: Side) -> bool {
        let Some(pair) = self.connections.get(connection) else { return true };
        let [caller, callee] = &pair.ends;
        match side {
            Side::Caller => caller.ending.is_some(),
            Side::Callee => callee.ending.is_some(),
        }
    }

    /// Takes whether one end waits for room, and forgets it.
    pub(super) fn take_blocked(&mut self, connection: usize, side: Side) -> bool {
        let pair = self.connections.get_mut(connection);
        pair.is_some_and(|pair| std::mem::take(&mut pair.end(side).is_blocked))
    }

    /// Returns what was held up and isn't any more, or a reset in its place.
    pub(super) fn release(
        &mut self,
        now: u64,
        random: &mut Random,
        trace: &mut Trace,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        for connection in 0..self.connections.len() {
            for to in [Side::Caller, Side::Callee] {
                let Some(pair) = self.connections.get_mut(connection) else { continue };
                let (source, target) = (pair.end(to.other()).machine, pair.end(to).machine);
                if pair.end(to).held.is_empty() || self.is_blocked(source, target) {
                    continue;
                }
                let Some(pair) = self.connections.get_mut(connection) else { continue };
                let held = std::mem::take(&mut pair.end(to).held);
                // A sender that has waited for long gives up, and both ends find out.
                if random.chance(200) {
                    trace.fire(Fault::ConnectionReset);
                    for side in [Side::Caller, Side::Callee] {
                        let parcel = Parcel::Reset;
                        sent.extend(self.send(now, connection, side, parcel, random, trace));
                    }
                    continue;
                }
                // Retransmissions are some time apart.
                let later = now.saturating_add(random.span(Duration::ZERO, SLOW));
                for parcel in held {
                    sent.extend(self.send(later, connection, to, parcel, random, trace));
                }
            }
        }
        sent
    }

    /// Returns the connections that have an open end at `machine`.
    pub(super) fn open_at(&mut self, machine: usize) -> Vec<usize> {
        let is_open = |pair: &Connection| {
            let [caller, callee] = &pair.ends;
            (caller.machine == machine || callee.machine == machine)
                && caller.state == EndState::Open
                && callee.state == EndState::Open
        };
        let pairs = self.connections.iter().enumerate();
        pairs.filter(|(_, pair)| is_open(pair)).map(|(connection, _)| connection).collect()
    }

    /// Forgets the buffers of connections that are over at both ends.
    pub(super) fn close(&mut self, connection: usize, side: Side, state: EndState) -> usize {
        let Some(pair) = self.connections.get_mut(connection) else { return 0 };
        let end = pair.end(side);
        let unread = end.available();
        end.state = state;
        end.inbound = Vec::new();
        end.start = 0;
        unread
    }
}
