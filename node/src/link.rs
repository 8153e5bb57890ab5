//! A connection that this process keeps up: dialled, greeted, and dialled again when it ends.
//!
//! It ends too when the other side is silent, although it was asked how it is: its machine may be
//! gone without a word, or its process hang. And it ends when the other side takes so little that
//! too much is queued; what was queued is dropped, and whoever uses the link sends again what is
//! missed once it is up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::connection::Connection;
use crate::env::{Environment, Token};
use crate::wire::client::ClientWelcome;
use crate::wire::{self, Envelope, Frame, Hello, HelloRefusal, Welcome};

/// How long to wait before the first new attempt; doubled with every failure.
const RETRY_MIN: Duration = Duration::from_millis(20);

/// The longest time between two attempts.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long a connection may take to come about and to be greeted.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// After so long without a byte from the other side it is asked how it is.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// How long it may take to say anything then.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The most bytes that are queued for the other side, of all kinds of messages together.
pub(crate) const BACKLOG_BYTES_MAX: usize = 48 << 20;

/// A connection to one segment, up or not.
#[derive(Debug)]
pub(crate) struct Link<S> {
    address: SocketAddr,
    hello: Hello,
    state: State<S>,
    failures: u32,
    refusal: Option<HelloRefusal>,
}

#[derive(Debug)]
enum State<S> {
    Down { retry: Moment },
    Greeting { token: Token, connection: Connection<S>, until: Moment },
    Up { token: Token, connection: Connection<S>, life: Life },
}

/// Signs of life of the other side.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// How many bytes had come when it was last looked at, and since when there are so many.
    received: u64,
    heard: Moment,
    /// When it was asked how it is, if it has been since.
    probed: Option<Moment>,
    /// Whether something was dropped because too much was queued.
    is_clogged: bool,
}

impl Life {
    const fn new(heard: Moment) -> Self {
        Self { received: 0, heard, probed: None, is_clogged: false }
    }

    fn is_over(&self, now: Moment) -> bool {
        self.is_clogged || self.probed.is_some_and(|at| now.since(at) >= ANSWER_MAX)
    }

    fn is_probe_due(&self, now: Moment) -> bool {
        self.probed.is_none() && now.since(self.heard) >= PROBE_AFTER
    }

    const fn deadline(&self) -> Moment {
        match self.probed {
            // It is over at once.
            _ if self.is_clogged => self.heard,
            Some(at) => at.after(ANSWER_MAX),
            None => self.heard.after(PROBE_AFTER),
        }
    }
}

/// What has become of a link.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "taken at once, and never kept")]
pub(crate) enum LinkEvent {
    /// It ended; it will be dialled again.
    Down,
    /// A frame came.
    Frame(Box<Frame>),
    /// It came up, to a segment.
    Up(Welcome),
    /// It came up, to a writer process.
    UpToWriter(ClientWelcome),
}

impl<S: crate::env::Stream> Link<S> {
    pub(crate) fn new(address: SocketAddr, hello: Hello, now: Moment) -> Self {
        let state = State::Down { retry: now };
        Self { address, hello, state, failures: 0, refusal: None }
    }

    /// Dials if it is time to, gives up a connection that takes too long, and asks the other side
    /// how it is. Returns whether a link that was up has ended.
    pub(crate) fn tick<E: Environment<Stream = S>>(&mut self, env: &mut E, now: Moment) -> bool {
        match &mut self.state {
            State::Down { retry } if *retry <= now => self.dial(env, now),
            State::Greeting { until, .. } if *until <= now => self.fail(env, now),
            State::Up { life, .. } if life.is_over(now) => {
                self.fail(env, now);
                return true;
            }
            State::Up { connection, life, .. } if life.is_probe_due(now) => {
                life.probed = Some(now);
                if let Ok(frame) = wire::encode(&Envelope::StatusRequest, &[]) {
                    connection.send(Arc::new(frame));
                }
            }
            State::Down { .. } | State::Greeting { .. } | State::Up { .. } => {}
        }
        false
    }

    fn dial<E: Environment<Stream = S>>(&mut self, env: &mut E, now: Moment) {
        let greeting = wire::encode(&Envelope::Hello(self.hello), &[]);
        match (env.connect(self.address), greeting) {
            (Ok((token, stream)), Ok(greeting)) => {
                let mut connection = Connection::new(stream);
                connection.send(Arc::new(greeting));
                self.state = State::Greeting { token, connection, until: now.after(GREETING_MAX) };
            }
            (Ok(_), Err(_)) | (Err(_), _) => self.fail(env, now),
        }
    }

    /// Ends the connection and sets the time of the next attempt, with jitter, so that peers of a
    /// node that comes back don't all call it at once.
    pub(crate) fn fail<E: Environment<Stream = S>>(&mut self, env: &mut E, now: Moment) {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        let spread = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = env.random().unwrap_or(0).checked_rem(spread).unwrap_or(0);
        let retry = now.after(wait / 2).after(Duration::from_micros(jitter / 2));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down { retry };
    }

    /// Takes what an event said, if it is about this link; returns whether it is.
    pub(crate) fn ready(&mut self, of: Token, readable: bool, writable: bool) -> bool {
        match &mut self.state {
            State::Greeting { token, connection, .. } | State::Up { token, connection, .. }
                if *token == of =>
            {
                connection.ready(readable, writable);
                true
            }
            State::Down { .. } | State::Greeting { .. } | State::Up { .. } => false,
        }
    }

    /// Returns what has become of the link, until there is nothing new.
    pub(crate) fn next<E: Environment<Stream = S>>(&mut self, env: &mut E) -> Option<LinkEvent> {
        loop {
            let received = match &mut self.state {
                State::Down { .. } => return None,
                State::Greeting { connection, .. } => {
                    connection.flush().and_then(|()| connection.receive())
                }
                State::Up { connection, life, .. } => {
                    let received = connection.flush().and_then(|()| connection.receive());
                    if life.received != connection.received() {
                        let (received, heard) = (connection.received(), env.now());
                        *life = Life { received, heard, probed: None, ..*life };
                    }
                    received
                }
            };
            return match received {
                Ok(None) => None,
                // The answer to a probe. That it came was all there is to know.
                Ok(Some(frame))
                    if self.is_up() && matches!(frame.envelope, Envelope::Status(_)) =>
                {
                    continue;
                }
                Ok(Some(frame)) => Some(self.take(env, frame)),
                Err(_) => {
                    let now = env.now();
                    self.fail(env, now);
                    Some(LinkEvent::Down)
                }
            };
        }
    }

    fn take<E: Environment<Stream = S>>(&mut self, env: &mut E, frame: Frame) -> LinkEvent {
        let now = env.now();
        let state = std::mem::replace(&mut self.state, State::Down { retry: now });
        match (state, &frame.envelope) {
            (State::Greeting { token, connection, .. }, Envelope::Welcome(welcome)) => {
                self.state = State::Up { token, connection, life: Life::new(now) };
                self.failures = 0;
                self.refusal = None;
                LinkEvent::Up(*welcome)
            }
            (State::Greeting { token, connection, .. }, Envelope::ClientWelcome(welcome)) => {
                self.state = State::Up { token, connection, life: Life::new(now) };
                self.failures = 0;
                self.refusal = None;
                LinkEvent::UpToWriter(*welcome)
            }
            (State::Up { token, connection, life }, _) => {
                self.state = State::Up { token, connection, life };
                LinkEvent::Frame(Box::new(frame))
            }
            (State::Greeting { .. } | State::Down { .. }, envelope) => {
                if let Envelope::Refused(refusal) = envelope {
                    self.refusal = Some(*refusal);
                }
                self.fail(env, now);
                LinkEvent::Down
            }
        }
    }

    /// Queues a frame if the link is up and there is room; without room, the link ends.
    pub(crate) fn send(&mut self, frame: &Arc<Vec<u8>>) {
        if let State::Up { connection, life, .. } = &mut self.state {
            if connection.backlog().saturating_add(frame.len()) > BACKLOG_BYTES_MAX {
                life.is_clogged = true;
            } else {
                connection.send(Arc::clone(frame));
            }
        }
    }

    /// Writes what is queued. A failure shows when the link is next read.
    pub(crate) fn flush(&mut self) {
        match &mut self.state {
            State::Down { .. } => {}
            State::Greeting { connection, .. } | State::Up { connection, .. } => {
                let _ = connection.flush();
            }
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns why the other side last turned this process away, unless it has been let in since.
    pub(crate) const fn refusal(&self) -> Option<HelloRefusal> {
        self.refusal
    }

    pub(crate) const fn backlog(&self) -> usize {
        match &self.state {
            State::Down { .. } => 0,
            State::Greeting { connection, .. } | State::Up { connection, .. } => {
                connection.backlog()
            }
        }
    }

    /// Returns when something is to be done next, if ever.
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Down { retry } => Some(*retry),
            State::Greeting { until, .. } => Some(*until),
            State::Up { life, .. } => Some(life.deadline()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_core::id::{InstanceId, PgId, Position};

    use super::*;
    use crate::config::{self, VolumeId};
    use crate::env::Event;
    use crate::env::simulated::{Advance, SimulatedEnvironment, World, address};
    use crate::testing::status;
    use crate::wire::Role;

    /// A segment that greets and then neither reads nor says anything, and a link to it.
    struct Pair {
        world: World,
        env: SimulatedEnvironment,
        link: Link<<SimulatedEnvironment as Environment>::Stream>,
        /// What keeps the other end open.
        _other: (SimulatedEnvironment, Box<dyn std::any::Any>),
    }

    fn greeted() -> Pair {
        let world = World::new(7, &[0, 1]);
        let ((_, mut other), (_, mut env)) = (world.spawn(0), world.spawn(1));
        let (_, mut listener) = other.listen(address(0)).unwrap();
        let (volume, group) = (VolumeId::new(1), PgId::new(0));
        let role = Role::Writer { instance: InstanceId::new(1) };
        let hello = Hello { volume, group, position: Position::new(0).unwrap(), role };
        let mut link = Link::new(address(0), hello, env.now());
        let now = env.now();
        assert!(!link.tick(&mut env, now));
        let (_, stream) = loop {
            world.with(|state| state.advance());
            if let Ok(accepted) = other.accept(&mut listener) {
                break accepted;
            }
        };
        let mut connection = Connection::new(stream);
        let geometry = config::geometry(1).unwrap();
        let welcome = Envelope::Welcome(Welcome { geometry, status: status() });
        connection.send(Arc::new(wire::encode(&welcome, &[]).unwrap()));
        connection.ready(false, true);
        connection.flush().unwrap();
        let kept: Box<dyn std::any::Any> = Box::new((listener, connection));
        let mut pair = Pair { world, env, link, _other: (other, kept) };
        while !pair.link.is_up() {
            pair.go_on();
        }
        pair
    }

    impl Pair {
        /// Goes on by one event; returns whether the link has ended.
        fn go_on(&mut self) -> bool {
            assert_ne!(self.world.with(|state| state.advance()), Advance::Idle);
            let mut events = Vec::new();
            let deadline = self.link.deadline();
            self.env.wait(deadline, &mut events).unwrap();
            for event in events {
                if let Event::Ready { token, readable, writable } = event {
                    self.link.ready(token, readable, writable);
                }
            }
            while self.link.next(&mut self.env).is_some() {}
            let now = self.env.now();
            let has_ended = self.link.tick(&mut self.env, now);
            self.link.flush();
            has_ended
        }
    }

    /// Whatever is sent, a peer that takes nothing must not make it pile up.
    #[test]
    fn a_link_that_takes_nothing_ends_before_it_costs_too_much() {
        let mut pair = greeted();
        let frame = Arc::new(vec![0; 1 << 20]);
        let mut most = 0;
        for _ in 0..1000 {
            pair.link.send(&frame);
            pair.link.flush();
            most = most.max(pair.link.backlog());
        }
        assert!(most > BACKLOG_BYTES_MAX / 2 && most <= BACKLOG_BYTES_MAX, "{most}");
        assert!(pair.link.deadline().unwrap() <= pair.env.now(), "it ends at once");
        let now = pair.env.now();
        assert!(pair.link.tick(&mut pair.env, now));
        assert_eq!((pair.link.is_up(), pair.link.backlog()), (false, 0));
    }

    /// A peer that is gone without a word must be noticed, in the time that is promised and not
    /// before.
    #[test]
    fn a_silent_link_ends_after_a_probe() {
        let mut pair = greeted();
        let since = pair.env.now();
        while !pair.go_on() {}
        let took = pair.env.now().since(since);
        assert!(took >= PROBE_AFTER + ANSWER_MAX, "{took:?}");
        assert!(took < PROBE_AFTER + ANSWER_MAX + Duration::from_millis(50), "{took:?}");
        assert!(!pair.link.is_up());
    }
}
