//! The other segments of the group: where they are, who of them is called, and who calls.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::id::{Position, SegmentId};
use quorate_core::rules::Rules;

use super::caller::{Caller, CallerRole};
use super::{Node, NodeError};
use crate::addresses::{Place, Seats};
use crate::clock::Moment;
use crate::config::NodeConfig;
use crate::connection::ConnectionError;
use crate::env::{Environment, Token};
use crate::link::Link;
use crate::wire::{self, Envelope, Hello, HelloRefusal, Role, Welcome, WireError};

/// How many bytes a segment that joins its group asks for in a second: a part of what a disk and a
/// network take, so that those who answer go on to acknowledge what is written meanwhile.
const HYDRATION_BYTES_PER_SECOND: u64 = 64 << 20;

/// How long after a log was met the book that says so is made durable.
const KEEP_AFTER: Duration = Duration::from_millis(100);

impl<E: Environment, R: Rules> Node<E, R> {
    /// Calls everybody whom the segment's membership concerns, where the book says that they are,
    /// and nobody else.
    pub(super) fn relink(&mut self) {
        let now = self.env.now();
        let NodeConfig { volume, group, position: own, .. } = self.config;
        let membership = *self.host.durable().membership();
        let wanted = membership.everyone();
        let address = |position: Position| {
            let is_wanted = wanted.contains(position) && position != own;
            let place = self.book.place_under(&membership, position);
            place.filter(|_| is_wanted).map(|place| place.address)
        };
        let gossip = &mut self.gossip;
        self.links.retain(|position, link| {
            let is_right = address(*position) == Some(link.address());
            if !is_right {
                gossip.lost(*position);
            }
            is_right
        });
        for position in wanted.iter() {
            if let Some(address) = address(position) {
                let hello =
                    Hello { volume, group, position, role: Role::Segment { position: own } };
                self.links.entry(position).or_insert_with(|| Link::new(address, hello, now));
            }
        }
    }

    /// Calls others once the segment has another membership.
    pub(super) fn heed_membership(&mut self) {
        let membership = self.host.durable().membership().epoch();
        if self.membership != membership {
            self.membership = membership;
            self.relink();
        }
    }

    /// Takes that the segment at `position` answers, unless it is a disk from before, and tells it
    /// where the others are.
    pub(super) fn meet(&mut self, position: Position, welcome: &Welcome) -> Result<(), NodeError> {
        let (incarnation, log) = (welcome.status.incarnation, welcome.status.log);
        let membership = *self.host.durable().membership();
        let Some(place) = self.book.place_under(&membership, position) else { return Ok(()) };
        let now = self.env.now();
        if incarnation != place.incarnation && membership.knows(position, place.incarnation) {
            // Somebody else, at the address of a member.
            if let Some(link) = self.links.get_mut(&position) {
                link.fail(&mut self.env, now);
            }
            return Ok(());
        }
        if self.book.learn_log(position, incarnation, log) {
            self.keep_soon();
        }
        if incarnation > place.incarnation {
            let place = Place { incarnation, revision: 0, ..place };
            self.book.learn(position, place);
            self.book.keep(&mut self.env, &self.config.directory)?;
        }
        let frame = Arc::new(wire::encode(&Envelope::Seats(self.book.told()), &[])?);
        let Some(link) = self.links.get_mut(&position) else { return Ok(()) };
        if incarnation < place.incarnation {
            link.fail(&mut self.env, now);
        } else {
            link.send(&frame);
        }
        Ok(())
    }

    /// Takes what another process knows of the group's addresses. News are durable before anything
    /// that it says next is taken: a membership that needs them comes behind them.
    ///
    /// # Errors
    /// [`NodeError::OtherLog`] when this segment's log is a new one, and there was another one
    /// under its name.
    pub(super) fn learn(&mut self, seats: &Seats) -> Result<(), NodeError> {
        let NodeConfig { group, position, incarnation, .. } = self.config;
        let known = seats.log(position, incarnation).filter(|_| seats.group == group);
        if self.host.is_blank() && known.is_some_and(|known| known != self.host.status().log) {
            let directory = self.config.directory.clone();
            let segment = SegmentId { position, incarnation };
            return Err(NodeError::OtherLog { directory, segment });
        }
        if self.book.merge_logs(seats) {
            self.keep_soon();
        }
        if !self.book.merge(seats) {
            return Ok(());
        }
        self.book.keep(&mut self.env, &self.config.directory)?;
        self.relink();
        let frame = Arc::new(wire::encode(&Envelope::Seats(self.book.told()), &[])?);
        for link in self.links.values_mut() {
            link.send(&frame);
        }
        for caller in self.callers.values_mut() {
            if matches!(caller.role, CallerRole::Segment(_) | CallerRole::Writer { .. }) {
                caller.connection.send(Arc::clone(&frame));
            }
        }
        Ok(())
    }

    /// Makes the book durable before long: where a log was met first is needed only once that is
    /// gone, and many are met at once.
    fn keep_soon(&mut self) {
        let soon = self.env.now().after(KEEP_AFTER);
        self.keep_at.get_or_insert(soon);
    }

    /// Makes the book durable if it is time to.
    pub(super) fn keep_book(&mut self, now: Moment) -> Result<(), NodeError> {
        if self.keep_at.is_some_and(|at| at <= now) {
            self.keep_at = None;
            self.book.keep(&mut self.env, &self.config.directory)?;
        }
        Ok(())
    }

    /// Waits after an answer of so many bytes, if the segment only joins its group: nobody waits
    /// for it, and those who answer have others to serve.
    pub(super) fn pace(&mut self, bytes: usize) {
        if self.is_joining() {
            let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000);
            let pause = nanoseconds.checked_div(HYDRATION_BYTES_PER_SECOND).unwrap_or(0);
            let until = self.env.now().after(Duration::from_nanos(pause));
            self.gossip.pace(until);
        }
    }

    /// Returns whether no quorum that reads counts this segment.
    fn is_joining(&self) -> bool {
        let NodeConfig { position, incarnation, .. } = self.config;
        let membership = self.host.durable().membership();
        let reading = membership.quorums().reading().members();
        !reading.contains(position) || !membership.knows(position, incarnation)
    }

    /// Returns the peers that can be asked, in an order chosen by `random`.
    pub(super) fn reachable(&self, random: u64) -> Vec<Position> {
        let up = self.links.iter().filter(|(_, link)| link.is_up());
        let mut peers: Vec<Position> = up.map(|(position, _)| *position).collect();
        let count = peers.len() as u64;
        let turn = random.checked_rem(count).and_then(|turn| usize::try_from(turn).ok());
        peers.rotate_left(turn.unwrap_or(0));
        peers
    }

    /// Tells a caller of another version which one is spoken here: every frame says so.
    pub(super) fn explain(&mut self, token: Token, error: &ConnectionError) {
        if let ConnectionError::Wire(WireError::UnsupportedVersion { .. }) = error {
            self.send(token, &Envelope::Refused(HelloRefusal::OtherVersion));
        }
    }

    /// Hangs up on the observer that has been here longest, so that nobody who only looks keeps a
    /// writer or a segment out; `false` when there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let is_observer = |caller: &Caller<E::Stream>| matches!(caller.role, CallerRole::Observer);
        let oldest = self.callers.iter().find(|(_, caller)| is_observer(caller));
        let Some(token) = oldest.map(|(token, _)| *token) else { return false };
        self.hang_up(token);
        true
    }

    pub(super) fn hang_up(&mut self, token: Token) {
        if let Some(mut caller) = self.callers.remove(&token) {
            let _ = caller.connection.flush();
        }
        self.busy.remove(&token);
    }
}
