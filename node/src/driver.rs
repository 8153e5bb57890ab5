//! A storage node: one loop that turns events into inputs and effects into bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::Position;
use quorate_core::membership::MembershipEpoch;
use quorate_core::message::{Peer, ToSegment};
use quorate_core::rules::{Rules, Sound};

use crate::addresses::AddressBook;
use crate::clock::Moment;
use crate::config::NodeConfig;
use crate::connection::Connection;
use crate::disk::Replay;
use crate::env::{Environment, Event, Token};
use crate::gossip::Gossip;
use crate::host::{HostError, Outgoing, SegmentHost};
use crate::link::{Link, LinkEvent};
use crate::wire::{self, Envelope, Frame, Hello, HelloRefusal, Role, Status, Welcome};

mod caller;
mod error;
mod neighbours;
mod opening;
mod upkeep;

use caller::{
    Caller, CallerRole, GREETING_MAX, asks_too_much, epoch_of, is_paused, waits_for_disk,
};
pub use error::NodeError;
use upkeep::MARK_AFTER;

/// The most connections that a node takes.
const CALLERS_MAX: usize = 64;

/// How long after a writer's last records a segment without holes asks its peers again.
const QUIET: Duration = Duration::from_millis(50);

/// The most callers accepted before those that are connected have their turn.
const ACCEPTS_PER_TURN: usize = 16;

/// The most frames taken from one connection before the others have their turn.
const FRAMES_PER_TURN: usize = 64;

/// A storage node of one segment.
#[derive(Debug)]
pub struct Node<E: Environment, R: Rules = Sound> {
    env: E,
    config: NodeConfig,
    host: SegmentHost<E::Log, R>,
    /// Whether the segment had no vote when it started, and nobody was told that it has one.
    is_impaired: bool,
    /// Where the group's segments are.
    book: AddressBook,
    /// When the book is to be made durable, if it isn't.
    keep_at: Option<Moment>,
    /// The version of the segment's membership at the last turn.
    membership: MembershipEpoch,
    gossip: Gossip,
    /// No question is asked before so many writes are durable: the answer to the last one would
    /// come again.
    gossip_after: u64,
    /// How many writes the segment had made when the last mark was set, the mark included.
    marked: u64,
    /// How many writes the segment had made at the last turn, and since when.
    wrote: (u64, Moment),
    /// The epoch of the segment's history at the last turn.
    history: VolumeEpoch,
    /// When old versions are discarded next, however few there are.
    collect_at: Moment,
    /// When a writer last sent records.
    appended: Moment,
    listener: E::Listener,
    listener_token: Token,
    /// Whether somebody may be waiting to be accepted.
    is_accepting: bool,
    callers: BTreeMap<Token, Caller<E::Stream>>,
    /// By position; none to itself.
    links: BTreeMap<Position, Link<E::Stream>>,
    /// Callers that may have something to read.
    busy: BTreeSet<Token>,
    /// Links that may have something to read.
    busy_links: BTreeSet<Position>,
    outgoing: Vec<Outgoing>,
}

impl<E: Environment> Node<E> {
    /// Opens the segment's log and starts to listen.
    ///
    /// # Errors
    /// [`NodeError`] says why the node can't start.
    pub fn start(env: E, config: NodeConfig) -> Result<(Self, Replay), NodeError> {
        Self::start_under(Sound, env, config)
    }
}

impl<E: Environment, R: Rules> Node<E, R> {
    /// [`Node::start`] with a segment that obeys `rules`.
    ///
    /// # Errors
    /// [`NodeError`] says why the node can't start.
    pub fn start_under(
        rules: R,
        mut env: E,
        config: NodeConfig,
    ) -> Result<(Self, Replay), NodeError> {
        config.check()?;
        let mut book = config.book();
        let (host, replay) = opening::open(rules, &mut env, &config)?;
        let address = config.listen;
        let (listener_token, listener) =
            env.listen(address).map_err(|error| NodeError::Listen { address, error })?;
        let now = env.now();
        book.restore(&mut env, &config.directory)?;
        let mut node = Self {
            history: host.durable().history().epoch(),
            is_impaired: !host.has_vote(),
            membership: host.durable().membership().epoch(),
            host,
            book,
            keep_at: None,
            gossip: Gossip::new(now),
            gossip_after: 0,
            marked: 0,
            wrote: (0, now),
            collect_at: now,
            appended: now,
            env,
            config,
            listener,
            listener_token,
            is_accepting: false,
            callers: BTreeMap::new(),
            links: BTreeMap::new(),
            busy: BTreeSet::new(),
            busy_links: BTreeSet::new(),
            outgoing: Vec::new(),
        };
        node.relink();
        Ok((node, replay))
    }

    /// Serves until `is_over`, which is asked at every turn.
    ///
    /// # Errors
    /// [`NodeError`] says why the node has to stop.
    pub fn run(&mut self, is_over: impl Fn() -> bool) -> Result<(), NodeError> {
        while !is_over() {
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for events once and does what follows from them.
    ///
    /// # Errors
    /// [`NodeError`] says why the node has to stop.
    pub fn turn(&mut self) -> Result<(), NodeError> {
        self.tick()?;
        self.flush();
        if let Some(event) = self.host.commit() {
            self.take_event(event)?;
            self.flush();
        }
        let mut events = Vec::new();
        let deadline = self.deadline();
        self.env.wait(Some(deadline), &mut events)?;
        for event in events {
            self.take_event(event)?;
        }
        if self.is_accepting {
            self.accept();
        }
        self.serve_links()?;
        self.serve_callers()
    }

    fn take_event(&mut self, event: Event) -> Result<(), NodeError> {
        match event {
            Event::Durable { through } => {
                let settled = self.host.settle(through, &mut self.outgoing);
                self.check(settled)?;
                self.deliver(None);
                Ok(())
            }
            Event::Checkpointed(checkpoint) => {
                self.host.checkpointed(checkpoint);
                Ok(())
            }
            Event::CheckpointFailed { error } => {
                Err(NodeError::Store { directory: self.config.directory.clone(), error })
            }
            Event::LogCramped { error } => {
                self.env.say(&error::cramped(&self.config.directory, error));
                Ok(())
            }
            Event::LogFailed { error } => {
                Err(NodeError::LogFailed { directory: self.config.directory.clone(), error })
            }
            Event::Ready { token, .. } if token == self.listener_token => {
                self.is_accepting = true;
                Ok(())
            }
            Event::Ready { token, readable, writable } => {
                if let Some(caller) = self.callers.get_mut(&token) {
                    caller.connection.ready(readable, writable);
                    self.busy.insert(token);
                } else {
                    let links = &mut self.links;
                    let link = links.iter_mut().find_map(|(position, link)| {
                        link.ready(token, readable, writable).then_some(*position)
                    });
                    self.busy_links.extend(link);
                }
                Ok(())
            }
            Event::Woken => Ok(()),
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let (token, stream) = match self.env.accept(&mut self.listener) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_accepting = false;
                    return;
                }
                // It is about one caller, who will call again; others may be waiting.
                Err(_) => continue,
            };
            let mut connection = Connection::new(stream);
            if self.callers.len() >= CALLERS_MAX && !self.make_room() {
                // Written at once or not at all: whoever floods a node gets nothing kept.
                if let Ok(frame) = wire::encode(&Envelope::Refused(HelloRefusal::Full), &[]) {
                    connection.send(Arc::new(frame));
                    connection.ready(false, true);
                    let _ = connection.flush();
                }
                continue;
            }
            let since = self.env.now();
            self.callers.insert(token, Caller::new(connection, since));
        }
    }

    /// Takes what the segments have answered that this one called.
    fn serve_links(&mut self) -> Result<(), NodeError> {
        for position in std::mem::take(&mut self.busy_links) {
            while let Some(link) = self.links.get_mut(&position) {
                match link.next(&mut self.env) {
                    None => break,
                    Some(LinkEvent::Down) => self.gossip.lost(position),
                    Some(LinkEvent::Up(welcome)) => self.meet(position, &welcome)?,
                    Some(LinkEvent::UpToWriter(_)) => self.give_up_on(position),
                    Some(LinkEvent::Frame(frame)) => self.take_answer(position, *frame)?,
                }
            }
        }
        Ok(())
    }

    /// Ends the link to somebody who is no segment, or speaks out of turn.
    fn give_up_on(&mut self, position: Position) {
        let now = self.env.now();
        if let Some(link) = self.links.get_mut(&position) {
            link.fail(&mut self.env, now);
        }
        self.gossip.lost(position);
    }

    fn take_answer(&mut self, from: Position, frame: Frame) -> Result<(), NodeError> {
        let message = match frame.envelope {
            Envelope::Seats(seats) => return self.learn(&seats),
            Envelope::ToSegment(message @ (ToSegment::Pulled(_) | ToSegment::Behind { .. })) => {
                message
            }
            Envelope::Hello(_)
            | Envelope::Refused(_)
            | Envelope::Status(_)
            | Envelope::StatusRequest
            | Envelope::ToSegment(_)
            | Envelope::ToWriter(_)
            | Envelope::Welcome(_)
            | Envelope::ClientWelcome(_)
            | Envelope::FromClient(_)
            | Envelope::FromReader(_)
            | Envelope::ToClient(_)
            | Envelope::ToReader(_) => {
                self.give_up_on(from);
                return Ok(());
            }
        };
        let batch = self.config.geometry.limits().batch_records_max as usize;
        let is_full =
            matches!(&message, ToSegment::Pulled(pulled) if pulled.records.len() >= batch);
        let before = self.host.submitted();
        let received =
            self.host.receive(Peer::Segment(from), message, &frame.payload, &mut self.outgoing);
        self.check(received)?;
        // A question names only so many of the records above a hole. Two segments with the same
        // hole would tell each other what both have, for ever: somebody else has to be asked.
        let has_more = is_full && self.host.submitted() > before;
        self.gossip.answered(from, has_more);
        self.pace(frame.payload.len());
        self.gossip_after = self.host.submitted();
        self.deliver(None);
        Ok(())
    }

    /// Takes what callers have sent, in turns.
    fn serve_callers(&mut self) -> Result<(), NodeError> {
        for token in std::mem::take(&mut self.busy) {
            for _ in 0..FRAMES_PER_TURN {
                let Some(caller) = self.callers.get_mut(&token) else { break };
                if is_paused(&self.host, caller) {
                    self.busy.insert(token);
                    break;
                }
                match caller.connection.receive() {
                    Ok(None) => {
                        self.busy.remove(&token);
                        break;
                    }
                    Ok(Some(frame)) => {
                        if self.take_frame(token, frame)?.is_none() {
                            self.hang_up(token);
                        } else {
                            // There may be another one.
                            self.busy.insert(token);
                        }
                    }
                    Err(error) => {
                        self.explain(token, &error);
                        self.hang_up(token);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes one frame of a caller; `None` when the connection is to end.
    fn take_frame(&mut self, token: Token, frame: Frame) -> Result<Option<()>, NodeError> {
        let Some(caller) = self.callers.get_mut(&token) else { return Ok(None) };
        match (caller.role, frame.envelope) {
            (CallerRole::Unknown, Envelope::Hello(hello)) => Ok(self.greet(token, &hello)),
            (CallerRole::Unknown, _) => Ok(None),
            (_, Envelope::StatusRequest) => {
                let status = self.host.status();
                Ok(self.send(token, &Envelope::Status(status)))
            }
            (CallerRole::Segment(_) | CallerRole::Writer { .. }, Envelope::Seats(seats)) => {
                self.learn(&seats).map(Some)
            }
            (CallerRole::Segment(position), Envelope::ToSegment(message @ ToSegment::Pull(_))) => {
                if asks_too_much(&message, self.config.geometry.limits().batch_records_max) {
                    return Ok(None);
                }
                self.give(token, Peer::Segment(position), message, &frame.payload)
            }
            (CallerRole::Writer { instance, .. }, Envelope::ToSegment(message)) => {
                // A connection speaks for one writer process, whatever its messages say.
                let Some(epoch) = epoch_of(&message) else { return Ok(None) };
                if epoch.instance() != instance {
                    return Ok(None);
                }
                caller.role = CallerRole::Writer { instance, epoch };
                if !frame.payload.is_empty() {
                    self.appended = self.env.now();
                }
                self.give(token, Peer::Writer(epoch), message, &frame.payload)
            }
            (CallerRole::Reader(reader), Envelope::ToSegment(message @ ToSegment::Read(_))) => {
                self.give(token, Peer::Reader(reader), message, &frame.payload)
            }
            (
                CallerRole::Observer
                | CallerRole::Reader(_)
                | CallerRole::Segment(_)
                | CallerRole::Writer { .. },
                Envelope::Hello(_)
                | Envelope::Refused(_)
                | Envelope::Status(_)
                | Envelope::ToSegment(_)
                | Envelope::ToWriter(_)
                | Envelope::Welcome(_)
                | Envelope::ClientWelcome(_)
                | Envelope::FromClient(_)
                | Envelope::FromReader(_)
                | Envelope::Seats(_)
                | Envelope::ToClient(_)
                | Envelope::ToReader(_),
            ) => Ok(None),
        }
    }

    fn give(
        &mut self,
        token: Token,
        from: Peer,
        message: ToSegment,
        payload: &[u8],
    ) -> Result<Option<()>, NodeError> {
        let received = self.host.receive(from, message, payload, &mut self.outgoing);
        self.check(received)?;
        self.deliver(Some(token));
        Ok(Some(()))
    }

    fn greet(&mut self, token: Token, hello: &Hello) -> Option<()> {
        let NodeConfig { volume, group, position, geometry, .. } = self.config;
        let refusal = if hello.volume != volume {
            Some(HelloRefusal::WrongVolume { volume })
        } else if hello.role == Role::Client {
            Some(HelloRefusal::NoWriter)
        } else if (hello.group, hello.position) != (group, position)
            || matches!(hello.role, Role::Segment { position: caller } if caller == position)
        {
            Some(HelloRefusal::WrongSegment { group, position })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.send(token, &Envelope::Refused(refusal))?;
            return None;
        }
        let role = match hello.role {
            // A client has been turned away above.
            Role::Observer | Role::Client => CallerRole::Observer,
            Role::Reader { reader } => CallerRole::Reader(reader),
            Role::Segment { position } => CallerRole::Segment(position),
            Role::Writer { instance } => CallerRole::Writer { instance, epoch: VolumeEpoch::ZERO },
        };
        if let Some(caller) = self.callers.get_mut(&token) {
            caller.role = role;
        }
        let welcome = Welcome { geometry, status: self.host.status() };
        self.send(token, &Envelope::Welcome(welcome))?;
        // Whoever asks how it is has asked for nothing else.
        if matches!(role, CallerRole::Segment(_) | CallerRole::Writer { .. }) {
            self.send(token, &Envelope::Seats(self.book.told()))?;
        }
        Some(())
    }

    /// Queues a message of the node itself; `None` when the caller is gone.
    fn send(&mut self, token: Token, envelope: &Envelope) -> Option<()> {
        let frame = wire::encode(envelope, &[]).ok()?;
        self.callers.get_mut(&token)?.connection.send(Arc::new(frame));
        Some(())
    }

    /// Queues what the segment wants to be sent. What can't be delivered is dropped: whoever
    /// misses it asks again.
    fn deliver(&mut self, asking: Option<Token>) {
        for outgoing in self.outgoing.drain(..) {
            match outgoing {
                Outgoing::Answer { frame } => {
                    let caller = asking.and_then(|token| self.callers.get_mut(&token));
                    if let Some(caller) = caller {
                        caller.connection.send(Arc::new(frame));
                    }
                }
                Outgoing::Ask { to, frame } => {
                    if let Some(link) = self.links.get_mut(&to) {
                        link.send(&Arc::new(frame));
                    }
                }
                Outgoing::Tell { to, frame } => {
                    let is_writer =
                        |caller: &&mut Caller<E::Stream>| caller.role.epoch() == Some(to);
                    // The newest connection: an older one of the same writer may be dead.
                    if let Some(caller) = self.callers.values_mut().rev().find(is_writer) {
                        caller.connection.send(Arc::new(frame));
                    }
                }
            }
        }
    }

    /// Does what time asks for: dialling, gossip, and hanging up on callers who don't say who they
    /// are.
    fn tick(&mut self) -> Result<(), NodeError> {
        let now = self.env.now();
        for (position, link) in &mut self.links {
            if link.tick(&mut self.env, now) {
                self.gossip.lost(*position);
            }
        }
        let waits_for_disk = waits_for_disk(&self.host);
        self.callers.retain(|_, caller| caller.is_alive(waits_for_disk, now));

        self.mark(now)?;
        self.heed_membership();
        if self.is_impaired && self.host.has_vote() {
            self.is_impaired = false;
            self.env.say(&error::repaired(&self.config.directory));
        }
        self.collect(now)?;
        self.keep_book(now)?;
        self.host.checkpoint(self.config.checkpoint_bytes);

        let random = self.env.random()?;
        let history = self.host.durable().history().epoch();
        if self.history != history {
            // The recovery that installed it waits for what is missing here.
            self.history = history;
            self.gossip.begin(self.reachable(random));
        } else if self.gossip.is_due(now, random) && self.may_lack(now) {
            self.gossip.begin(self.reachable(random).into_iter().take(1).collect());
        }
        if self.host.settled() >= self.gossip_after
            && let Some(peer) = self.gossip.choose(now)
        {
            let pulled = self.host.pull(peer, &mut self.outgoing);
            self.check(pulled)?;
            self.deliver(None);
        }
        Ok(())
    }

    /// Returns whether asking a peer may bring something: records are missing, or none have come
    /// from the writer for a while. While they come without a gap, a peer would only repeat those
    /// that are on their way.
    fn may_lack(&self, now: Moment) -> bool {
        now.since(self.appended) > QUIET || self.host.has_hole() || !self.host.has_vote()
    }

    fn flush(&mut self) {
        for link in self.links.values_mut() {
            link.flush();
        }
        let failed: Vec<Token> = self
            .callers
            .iter_mut()
            .filter_map(|(token, caller)| caller.connection.flush().err().map(|_| *token))
            .collect();
        for token in failed {
            self.hang_up(token);
        }
    }

    fn deadline(&self) -> Moment {
        let now = self.env.now();
        let is_waiting = |token: &Token| {
            self.callers.get(token).is_some_and(|caller| !is_paused(&self.host, caller))
        };
        if self.is_accepting || self.busy.iter().any(is_waiting) {
            return now;
        }
        let links = self.links.values().filter_map(Link::deadline);
        let greetings = self
            .callers
            .values()
            .filter(|caller| matches!(caller.role, CallerRole::Unknown))
            .map(|caller| caller.since.after(GREETING_MAX));
        let mark = self.is_mark_due().then(|| self.wrote.1.after(MARK_AFTER));
        let due = links.chain(greetings).chain(mark).chain(self.keep_at);
        due.fold(self.gossip.deadline(now), Moment::min)
    }

    fn check<T>(&self, outcome: Result<T, HostError>) -> Result<T, NodeError> {
        outcome.map_err(|error| {
            let directory = self.config.directory.clone();
            NodeError::Host { directory, error }
        })
    }

    /// Returns how many links are up, and how many callers there are.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> (usize, usize) {
        (self.links.values().filter(|link| link.is_up()).count(), self.callers.len())
    }

    /// Returns how the segment is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.host.status()
    }
}
