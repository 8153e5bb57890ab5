//! A connection that this process keeps up: dialled, greeted, and dialled again when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::connection::Connection;
use crate::env::{Environment, Token};
use crate::wire::{self, Envelope, Frame, Hello, HelloRefusal, Welcome};

/// How long to wait before the first new attempt; doubled with every failure.
const RETRY_MIN: Duration = Duration::from_millis(20);

/// The longest time between two attempts.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long a connection may take to come about and to be greeted.
const GREETING_MAX: Duration = Duration::from_secs(5);

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
    Up { token: Token, connection: Connection<S> },
}

/// What has become of a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// It ended; it will be dialled again.
    Down,
    /// A frame came.
    Frame(Box<Frame>),
    /// It came up.
    Up(Welcome),
}

impl<S: crate::env::Stream> Link<S> {
    pub(crate) fn new(address: SocketAddr, hello: Hello, now: Moment) -> Self {
        let state = State::Down { retry: now };
        Self { address, hello, state, failures: 0, refusal: None }
    }

    /// Dials if it is time to, and gives up a connection that takes too long.
    pub(crate) fn tick<E: Environment<Stream = S>>(&mut self, env: &mut E, now: Moment) {
        match &self.state {
            State::Down { retry } if *retry <= now => self.dial(env, now),
            State::Greeting { until, .. } if *until <= now => self.fail(env, now),
            State::Down { .. } | State::Greeting { .. } | State::Up { .. } => {}
        }
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
            State::Greeting { token, connection, .. } | State::Up { token, connection }
                if *token == of =>
            {
                connection.ready(readable, writable);
                true
            }
            State::Down { .. } | State::Greeting { .. } | State::Up { .. } => false,
        }
    }

    /// Returns what has become of the link, until there is nothing new.
    pub(crate) fn next<E: Environment<Stream = S>>(
        &mut self,
        env: &mut E,
        buffer: &mut [u8],
    ) -> Option<LinkEvent> {
        let received = match &mut self.state {
            State::Down { .. } => return None,
            State::Greeting { connection, .. } | State::Up { connection, .. } => {
                connection.flush().and_then(|()| connection.receive(buffer))
            }
        };
        match received {
            Ok(None) => None,
            Ok(Some(frame)) => Some(self.take(env, frame)),
            Err(_) => {
                let now = env.now();
                self.fail(env, now);
                Some(LinkEvent::Down)
            }
        }
    }

    fn take<E: Environment<Stream = S>>(&mut self, env: &mut E, frame: Frame) -> LinkEvent {
        let now = env.now();
        let state = std::mem::replace(&mut self.state, State::Down { retry: now });
        match (state, &frame.envelope) {
            (State::Greeting { token, connection, .. }, Envelope::Welcome(welcome)) => {
                self.state = State::Up { token, connection };
                self.failures = 0;
                self.refusal = None;
                LinkEvent::Up(*welcome)
            }
            (State::Up { token, connection }, _) => {
                self.state = State::Up { token, connection };
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

    /// Queues a frame if the link is up.
    pub(crate) fn send(&mut self, frame: &Arc<Vec<u8>>) {
        if let State::Up { connection, .. } = &mut self.state {
            connection.send(Arc::clone(frame));
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
            State::Up { .. } => None,
        }
    }
}
