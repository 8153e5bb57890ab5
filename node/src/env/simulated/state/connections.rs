//! Connections of a simulated world: calls, bytes, and how they end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Pending, ProcessId, State};
use crate::env::simulated::address;
use crate::env::simulated::network::{EndState, Ending, Parcel, Sent, Side};
use crate::env::simulated::trace::{Fault, What};
use crate::env::{Event, Token};

/// How long a caller waits before it calls again when nothing answers, and how often it does.
const CALL_AGAIN: Duration = Duration::from_millis(200);
const CALLS_MAX: u32 = 8;

impl State {
    pub(in crate::env::simulated) fn call(
        &mut self,
        to: SocketAddr,
        machine: usize,
        process: ProcessId,
        token: Token,
    ) -> io::Result<usize> {
        let callee = (0..self.machines.len()).find(|machine| address(*machine) == to);
        let callee = callee.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let connection = self.network.call(to, (machine, process.0, token), callee);
        let time = self.latency(machine, callee);
        self.push(self.now.saturating_add(time), Pending::Call { connection });
        Ok(connection)
    }

    fn latency(&mut self, from: usize, to: usize) -> u64 {
        self.network.latency(from, to, 0, &mut self.random, &mut self.trace)
    }

    /// Takes the arrival of a call.
    pub(super) fn answer_call(&mut self, connection: usize) {
        let Some(pair) = self.network.get(connection) else { return };
        let [caller, callee] = &pair.ends;
        let (from, to, to_address) = (caller.machine, callee.machine, pair.address);
        if caller.state != EndState::Connecting {
            return;
        }
        if self.network.is_blocked(from, to) {
            return self.call_again(connection);
        }
        self.note(What::Called, to, connection, &[]);
        let time = self.latency(to, from);
        let at = self.now.saturating_add(time);
        let is_refusing = self.machines.get(to).is_some_and(|machine| machine.is_refusing);
        if is_refusing {
            self.trace.fire(Fault::Refused);
        }
        match self.network.listeners.get_mut(&to_address) {
            Some(listener) if !is_refusing => {
                listener.waiting.push_back(connection);
                let (process, token) = (ProcessId(listener.process), listener.token);
                // What the callee sends comes after the answer.
                if let Some(pair) = self.network.get(connection) {
                    pair.end(Side::Caller).await_until(at);
                }
                self.tell(process, Event::Ready { token, readable: true, writable: false });
                self.push(at, Pending::Answer { connection });
            }
            Some(_) | None => self.push(at, Pending::Refuse { connection }),
        }
    }

    /// Calls again what no answer came from, or gives up.
    fn call_again(&mut self, connection: usize) {
        self.trace.fire(Fault::Blocked);
        let Some(pair) = self.network.get(connection) else { return };
        pair.calls = pair.calls.saturating_add(1);
        let pending = if pair.calls < CALLS_MAX {
            Pending::Call { connection }
        } else {
            Pending::Refuse { connection }
        };
        let spread = self.random.span(CALL_AGAIN, CALL_AGAIN.saturating_mul(2));
        self.push(self.now.saturating_add(spread), pending);
    }

    /// Takes the answer to a call, back at the caller.
    pub(super) fn take_answer(&mut self, connection: usize) {
        let Some(pair) = self.network.get(connection) else { return };
        let [caller, callee] = &pair.ends;
        let (from, to) = (callee.machine, caller.machine);
        let is_over = caller.state != EndState::Connecting || caller.ending.is_some();
        if is_over {
            return;
        }
        if self.network.is_blocked(from, to) {
            self.trace.fire(Fault::Blocked);
            let spread = self.random.span(CALL_AGAIN, CALL_AGAIN.saturating_mul(2));
            return self.push(self.now.saturating_add(spread), Pending::Answer { connection });
        }
        if let Some(pair) = self.network.get(connection) {
            pair.end(Side::Caller).state = EndState::Open;
        }
        self.note(What::Connected, to, connection, &[]);
        self.tell_end(connection, Side::Caller, true, true);
    }

    pub(super) fn take_refusal(&mut self, connection: usize) {
        let Some(pair) = self.network.get(connection) else { return };
        let caller = pair.end(Side::Caller);
        if caller.state != EndState::Connecting {
            return;
        }
        caller.reset();
        caller.state = EndState::Open;
        let machine = caller.machine;
        self.note(What::Refused, machine, connection, &[]);
        self.tell_end(connection, Side::Caller, true, true);
    }

    pub(in crate::env::simulated) fn accept(
        &mut self,
        connection: usize,
        process: ProcessId,
        token: Token,
    ) {
        if let Some(pair) = self.network.get(connection) {
            let end = pair.end(Side::Callee);
            end.process = process.0;
            end.token = token;
            end.state = EndState::Open;
        }
        self.tell_end(connection, Side::Callee, true, true);
    }

    pub(in crate::env::simulated) fn stop_listening(&mut self, address: SocketAddr) {
        let Some(listener) = self.network.listeners.remove(&address) else { return };
        for connection in listener.waiting {
            let Some(pair) = self.network.get(connection) else { continue };
            let machine = pair.end(Side::Callee).machine;
            let is_dark = self.network.dark.get(machine).is_some_and(|is_dark| *is_dark);
            let state = if is_dark { EndState::Cut } else { EndState::Closed };
            self.network.close(connection, Side::Callee, state);
            if !is_dark {
                self.send(connection, Side::Caller, Parcel::Reset);
            }
        }
    }

    pub(in crate::env::simulated) fn read(
        &mut self,
        connection: usize,
        side: Side,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let end = self.network.get(connection).ok_or_else(gone)?.end(side);
        if into.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let available = end.available();
        if available == 0 {
            return match end.ending {
                Some(Ending::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
                Some(Ending::End) => Ok(0),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let mut most = into.len();
        if available > 1 && self.random.chance(10) {
            self.trace.fire(Fault::ShortRead);
            most = most.min(self.random.index(available).max(1));
        }
        let count = end.take(into.get_mut(..most).unwrap_or(&mut []));
        let (has_room, machine) = (end.has_room(), end.machine);
        if has_room && self.network.take_blocked(connection, side.other()) {
            let other =
                self.network.get(connection).map_or(machine, |pair| pair.end(side.other()).machine);
            let time = self.latency(machine, other);
            let at = self.now.saturating_add(time);
            self.push(at, Pending::Room { connection, side: side.other() });
        }
        Ok(count)
    }

    pub(in crate::env::simulated) fn write(
        &mut self,
        connection: usize,
        side: Side,
        from: &[&[u8]],
    ) -> io::Result<usize> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let end = self.network.get(connection).ok_or_else(gone)?.end(side);
        if end.ending == Some(Ending::Reset) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if end.state == EndState::Connecting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (random, trace) = (&mut self.random, &mut self.trace);
        let bytes = self.network.write(connection, side, from, random, trace);
        if bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len();
        self.send(connection, side.other(), Parcel::Bytes(bytes));
        Ok(count)
    }

    pub(in crate::env::simulated) fn close(&mut self, connection: usize, side: Side) {
        let Some(pair) = self.network.get(connection) else { return };
        let end = pair.end(side);
        let is_connected = end.state == EndState::Open && end.ending.is_none();
        if end.state == EndState::Cut {
            return;
        }
        // A kernel that has to throw bytes away says so.
        let unread = self.network.close(connection, side, EndState::Closed);
        if is_connected {
            let parcel = if unread > 0 { Parcel::Reset } else { Parcel::End };
            self.send(connection, side.other(), parcel);
        }
    }

    pub(super) fn send(&mut self, connection: usize, to: Side, parcel: Parcel) {
        let (random, trace) = (&mut self.random, &mut self.trace);
        let sent = self.network.send(self.now, connection, to, parcel, random, trace);
        if let Some(sent) = sent {
            self.push_sent(sent);
        }
    }

    pub(super) fn push_sent(&mut self, sent: Sent) {
        let Sent { at, connection, to, parcel } = sent;
        self.push(at, Pending::Arrive { connection, to, parcel });
    }

    pub(super) fn arrive(&mut self, connection: usize, to: Side, parcel: Parcel) {
        let Some(parcel) = self.network.hold(connection, to, parcel) else {
            return self.trace.fire(Fault::Blocked);
        };
        let Some(pair) = self.network.get(connection) else { return };
        let end = pair.end(to);
        let (machine, state) = (end.machine, end.state);
        if matches!(state, EndState::Closed | EndState::Cut) {
            // Nobody is there any more: whoever still sends has to know.
            if matches!(parcel, Parcel::Bytes(_)) {
                if state == EndState::Cut {
                    self.trace.fire(Fault::HalfOpen);
                }
                self.note(What::Reset, machine, connection, &[]);
                self.send(connection, to.other(), Parcel::Reset);
            }
            return;
        }
        match parcel {
            Parcel::Bytes(bytes) => {
                if end.ending.is_none() {
                    end.arrive(&bytes);
                }
                self.note(What::Delivered, machine, connection, &bytes);
            }
            Parcel::End => {
                end.ending = end.ending.or(Some(Ending::End));
                self.note(What::Ended, machine, connection, &[]);
            }
            Parcel::Reset => {
                end.reset();
                self.note(What::Reset, machine, connection, &[]);
            }
        }
        let is_over = self.network.is_ended(connection, to);
        self.tell_end(connection, to, true, is_over);
    }
}
