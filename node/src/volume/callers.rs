//! The clients of a writer or reader process, and the readers of a writer: who is connected, what
//! they ask, and how much at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::id::ReaderId;
use quorate_core::message::FromReader;

use super::reply::Outbox;
use crate::clock::Moment;
use crate::config::VolumeId;
use crate::connection::{Connection, ConnectionError};
use crate::env::{Environment, Stream, Token};
use crate::wire::client::{ClientRequest, ClientWelcome};
use crate::wire::{self, Envelope, Frame, Hello, HelloRefusal, Role, WireError};

/// The most clients at a time.
const CALLERS_MAX: usize = 64;

/// The most requests of one client without a reply; above that it isn't read from.
const REQUESTS_MAX: usize = 256;

/// Above so many bytes that a client doesn't fetch, it isn't read from.
const BACKLOG_BYTES_MAX: usize = 16 << 20;

/// How long a client may take to say who it is.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long a client may leave what it is answered where it is. One that asks nothing may stay: the
/// operating system finds out whether its machine is still there.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// How long a client that has asked nothing may stay when there is no place for another one.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The most clients accepted before those that are connected have their turn.
const ACCEPTS_PER_TURN: usize = 16;

/// The most requests taken from one client before the others have their turn.
pub(crate) const REQUESTS_PER_TURN: usize = 64;

/// Who a caller is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CallerRole {
    Client,
    Reader(ReaderId),
    Unknown,
}

/// Who may call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Admits {
    /// Clients of a reader process.
    Clients,
    /// Clients and readers of a writer process.
    ClientsAndReaders,
}

/// A client or a reader.
#[derive(Debug)]
struct Caller<S> {
    connection: Connection<S>,
    role: CallerRole,
    since: Moment,
    /// How many bytes had moved when it was last looked at, and since when there are so many, or
    /// nothing waits.
    moved: (u64, Moment),
    /// When it last had something to say, or to be told.
    active: Moment,
    /// Requests without a reply.
    requests: usize,
}

impl<S: Stream> Caller<S> {
    const fn is_greeted(&self) -> bool {
        !matches!(self.role, CallerRole::Unknown)
    }

    const fn new(connection: Connection<S>, now: Moment) -> Self {
        let moved = (0, now);
        Self { connection, role: CallerRole::Unknown, since: now, moved, active: now, requests: 0 }
    }

    fn is_paused(&self) -> bool {
        self.requests >= REQUESTS_MAX || self.connection.backlog() > BACKLOG_BYTES_MAX
    }

    /// Returns whether the connection is worth keeping.
    fn is_alive(&mut self, now: Moment) -> bool {
        let moved = self.connection.moved();
        if moved != self.moved.0 || self.requests > 0 {
            self.active = now;
        }
        if moved != self.moved.0 || self.connection.backlog() == 0 {
            self.moved = (moved, now);
        }
        let is_late = !self.is_greeted() && now.since(self.since) >= GREETING_MAX;
        !is_late && now.since(self.moved.1) < STUCK_MAX
    }

    /// Returns when it won't be any more, if nothing happens.
    fn deadline(&self) -> Option<Moment> {
        let greeting = (!self.is_greeted()).then(|| self.since.after(GREETING_MAX));
        let stuck = (self.connection.backlog() > 0).then(|| self.moved.1.after(STUCK_MAX));
        greeting.into_iter().chain(stuck).min()
    }

    fn send(&mut self, envelope: &Envelope, bytes: &[u8]) {
        if let Ok(frame) = wire::encode(envelope, &[bytes]) {
            self.connection.send(Arc::new(frame));
        }
    }
}

/// Everybody who is connected; nobody as long as nobody is listened to.
#[derive(Debug)]
pub(crate) struct Callers<L, S> {
    admits: Admits,
    listener: Option<(Token, L)>,
    /// Whether somebody may be waiting to be accepted.
    is_accepting: bool,
    callers: BTreeMap<Token, Caller<S>>,
    /// Callers that may have something to read.
    busy: BTreeSet<Token>,
}

/// What a caller wants.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A message of a reader.
    OfReader(ReaderId, FromReader),
    /// A request of a client with the bytes that came beside it.
    Request { request: ClientRequest, bytes: Vec<u8> },
}

impl<L, S: Stream> Callers<L, S> {
    pub(crate) const fn new(admits: Admits) -> Self {
        Self {
            admits,
            listener: None,
            is_accepting: false,
            callers: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Takes clients at `address` from now on.
    pub(crate) fn listen<E>(&mut self, env: &mut E, address: SocketAddr) -> io::Result<()>
    where
        E: Environment<Listener = L, Stream = S>,
    {
        self.listener = Some(env.listen(address)?);
        Ok(())
    }

    /// Takes what an event said, if it is about the listener or a client.
    pub(crate) fn ready(&mut self, token: Token, readable: bool, writable: bool) {
        if self.listener.as_ref().is_some_and(|(listener, _)| *listener == token) {
            self.is_accepting = true;
        }
        if let Some(caller) = self.callers.get_mut(&token) {
            caller.connection.ready(readable, writable);
            self.busy.insert(token);
        }
    }

    /// Accepts those who wait, and hangs up on those who don't say who they are.
    pub(crate) fn accept<E>(&mut self, env: &mut E)
    where
        E: Environment<Listener = L, Stream = S>,
    {
        let now = env.now();
        self.callers.retain(|_, caller| caller.is_alive(now));
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((_, listener)) = self.listener.as_mut().filter(|_| self.is_accepting) else {
                return;
            };
            let (token, stream) = match env.accept(listener) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_accepting = false;
                    return;
                }
                // It is about one client, who will call again; others may be waiting.
                Err(_) => continue,
            };
            let connection = Connection::new(stream);
            let mut caller = Caller::new(connection, now);
            if self.callers.len() >= CALLERS_MAX && !self.make_room(now) {
                // Written at once or not at all: nothing is kept for it.
                caller.send(&Envelope::Refused(HelloRefusal::Full), &[]);
                caller.connection.ready(false, true);
                let _ = caller.connection.flush();
                continue;
            }
            self.callers.insert(token, caller);
        }
    }

    /// Hangs up on the client that has been idle longest, so that nobody who only stays keeps
    /// others out; `false` when none has been for long enough.
    fn make_room(&mut self, now: Moment) -> bool {
        let is_idle = |token: &Token, caller: &Caller<S>| {
            let is_quiet = caller.requests == 0 && caller.connection.backlog() == 0;
            is_quiet && !self.busy.contains(token) && now.since(caller.active) >= IDLE_MAX
        };
        let idle = self.callers.iter().filter(|(token, caller)| is_idle(token, caller));
        let longest = idle.min_by_key(|(_, caller)| caller.active).map(|(token, _)| *token);
        let Some(token) = longest else { return false };
        self.hang_up(token);
        true
    }

    /// Returns the callers that may have something to read and may ask.
    pub(crate) fn busy(&mut self) -> Vec<Token> {
        let callers = &self.callers;
        self.busy.retain(|token| callers.contains_key(token));
        let may_ask = |token: &&Token| callers.get(token).is_some_and(|caller| !caller.is_paused());
        self.busy.iter().filter(may_ask).copied().collect()
    }

    /// Returns the next request of a client; `None` when it has none now or has to wait.
    pub(crate) fn next(
        &mut self,
        token: Token,
        volume: VolumeId,
        welcome: ClientWelcome,
    ) -> Option<Asked> {
        loop {
            let caller = self.callers.get_mut(&token).filter(|caller| !caller.is_paused())?;
            match caller.connection.receive() {
                Ok(None) => {
                    self.busy.remove(&token);
                    return None;
                }
                Ok(Some(Frame { envelope: Envelope::FromClient(request), payload: bytes }))
                    if caller.role == CallerRole::Client =>
                {
                    caller.requests = caller.requests.saturating_add(1);
                    return Some(Asked::Request { request, bytes });
                }
                Ok(Some(Frame { envelope, .. }))
                    if let CallerRole::Reader(reader) = caller.role =>
                {
                    match envelope {
                        Envelope::FromReader(message) => {
                            return Some(Asked::OfReader(reader, message));
                        }
                        // It asks whether anybody is there; what readers are told every second
                        // answers it.
                        Envelope::StatusRequest => {}
                        Envelope::Hello(_)
                        | Envelope::Refused(_)
                        | Envelope::Seats(_)
                        | Envelope::Status(_)
                        | Envelope::ToSegment(_)
                        | Envelope::ToWriter(_)
                        | Envelope::Welcome(_)
                        | Envelope::ClientWelcome(_)
                        | Envelope::FromClient(_)
                        | Envelope::ToClient(_)
                        | Envelope::ToReader(_) => self.hang_up(token),
                    }
                }
                Ok(Some(Frame { envelope: Envelope::Hello(hello), .. }))
                    if !caller.is_greeted() =>
                {
                    self.greet(token, &hello, volume, welcome);
                }
                Ok(Some(_)) => self.hang_up(token),
                Err(error) => {
                    // Every frame says which version its sender speaks.
                    if let ConnectionError::Wire(WireError::UnsupportedVersion { .. }) = error {
                        caller.send(&Envelope::Refused(HelloRefusal::OtherVersion), &[]);
                    }
                    self.hang_up(token);
                }
            }
        }
    }

    fn greet(&mut self, token: Token, hello: &Hello, volume: VolumeId, welcome: ClientWelcome) {
        let role = match hello.role {
            _ if hello.volume != volume => Err(HelloRefusal::WrongVolume { volume }),
            Role::Client => Ok(CallerRole::Client),
            Role::Reader { reader } if self.admits == Admits::ClientsAndReaders => {
                // Its former connection, if it has not ended yet, is of no use.
                self.hang_up_on(reader);
                Ok(CallerRole::Reader(reader))
            }
            Role::Observer | Role::Reader { .. } | Role::Segment { .. } | Role::Writer { .. } => {
                Err(HelloRefusal::NoSegment)
            }
        };
        let Some(caller) = self.callers.get_mut(&token) else { return };
        match role {
            Ok(role) => {
                caller.role = role;
                caller.send(&Envelope::ClientWelcome(welcome), &[]);
            }
            Err(refusal) => {
                caller.send(&Envelope::Refused(refusal), &[]);
                self.hang_up(token);
            }
        }
    }

    /// Queues a frame for a reader, if it is connected and there is room.
    pub(crate) fn send_reader(&mut self, reader: ReaderId, frame: &Arc<Vec<u8>>) {
        let is_it = |caller: &&mut Caller<S>| caller.role == CallerRole::Reader(reader);
        if let Some(caller) = self.callers.values_mut().find(is_it)
            && caller.connection.backlog() <= BACKLOG_BYTES_MAX
        {
            caller.connection.send(Arc::clone(frame));
        }
    }

    /// Ends the connection of a reader, if it has one.
    pub(crate) fn hang_up_on(&mut self, reader: ReaderId) {
        let is_it = |caller: &Caller<S>| caller.role == CallerRole::Reader(reader);
        let tokens = self.callers.iter().filter(|(_, caller)| is_it(caller));
        let tokens: Vec<Token> = tokens.map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.hang_up(token));
    }

    fn hang_up(&mut self, token: Token) {
        if let Some(mut caller) = self.callers.remove(&token) {
            let _ = caller.connection.flush();
        }
        self.busy.remove(&token);
    }

    /// Puts answers on their connections and writes what there is room for. Those who have hung up
    /// get nothing.
    pub(crate) fn deliver(&mut self, outbox: &mut Outbox) {
        for (token, reply, bytes) in outbox.replies.drain(..) {
            if let Some(caller) = self.callers.get_mut(&token) {
                caller.requests = caller.requests.saturating_sub(1);
                caller.send(&Envelope::ToClient(reply), &bytes);
            }
        }
        let failed: Vec<Token> = self
            .callers
            .iter_mut()
            .filter_map(|(token, caller)| caller.connection.flush().err().map(|_| *token))
            .collect();
        failed.into_iter().for_each(|token| self.hang_up(token));
    }

    /// Returns whether every answer has been written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.callers.values().all(|caller| caller.connection.backlog() == 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.callers.len()
    }

    /// Returns when something is to be done next, if ever; `now` when somebody waits who may ask.
    pub(crate) fn deadline(&self, now: Moment, may_ask: bool) -> Option<Moment> {
        let waits = |token: &Token| self.callers.get(token).is_some_and(|who| !who.is_paused());
        if self.is_accepting || (may_ask && self.busy.iter().any(waits)) {
            return Some(now);
        }
        self.callers.values().filter_map(Caller::deadline).min()
    }
}
