//! A segment as its writer sees it: the link, and whether records are sent to it.

use std::time::Duration;

use quorate_core::id::{Incarnation, PgId, Position};

use crate::addresses::Seats;
use crate::clock::Moment;
use crate::link::{self, Link};
use crate::wire::{self, Welcome};

/// How long a segment may take to acknowledge the history before it gets it again.
const CATCH_UP: Duration = Duration::from_millis(200);

/// How long a segment with too much under way is left alone.
const PAUSE: Duration = Duration::from_millis(50);

/// Above so many bytes that a segment doesn't take, it gets no more records; gossip fills what it
/// misses.
const BACKLOG_BYTES_MAX: usize = 32 << 20;

/// Records alone never make a link end: the last frame of them still has room.
const _: () = assert!(BACKLOG_BYTES_MAX + (16 << 20) <= link::BACKLOG_BYTES_MAX);
const _: () = assert!(wire::ENVELOPE_BYTES_MAX + wire::PAYLOAD_BYTES_MAX < 16 << 20);

/// One segment.
#[derive(Debug)]
pub(super) struct Peer<S> {
    pub(super) group: PgId,
    pub(super) position: Position,
    pub(super) incarnation: Incarnation,
    pub(super) link: Link<S>,
    pub(super) welcome: Option<Welcome>,
    /// What it last told of the other segments.
    pub(super) told: Option<Seats>,
    /// It holds another log than the one that the others have met under its name.
    pub(super) is_stranger: bool,
    flow: Flow,
}

/// Whether records are sent to a segment.
#[derive(Clone, Copy, Debug)]
enum Flow {
    /// Not until it has acknowledged this epoch's history: every batch would be refused, and each
    /// refusal would bring everything again.
    CatchingUp {
        again: Moment,
    },
    /// Not until it has taken what is queued.
    Lagging,
    /// Not until then: it has too many writes under way.
    Paused {
        until: Moment,
    },
    Steady,
}

impl<S: crate::env::Stream> Peer<S> {
    pub(super) fn new(
        (group, position): (PgId, Position),
        incarnation: Incarnation,
        link: Link<S>,
        now: Moment,
    ) -> Self {
        let flow = Flow::CatchingUp { again: now };
        let (welcome, told, is_stranger) = (None, None, false);
        Self { group, position, incarnation, link, welcome, told, is_stranger, flow }
    }

    /// Returns whether records may be sent to the segment.
    pub(super) fn takes_records(&mut self) -> bool {
        if matches!(self.flow, Flow::Steady) && self.link.backlog() > BACKLOG_BYTES_MAX {
            self.flow = Flow::Lagging;
        }
        matches!(self.flow, Flow::Steady) && self.link.is_up()
    }

    /// Sends no records until the segment has acknowledged the history.
    pub(super) fn catch_up(&mut self, now: Moment) {
        self.flow = Flow::CatchingUp { again: now.after(CATCH_UP) };
    }

    pub(super) const fn is_catching_up(&self) -> bool {
        matches!(self.flow, Flow::CatchingUp { .. })
    }

    /// Sends no records for a while.
    pub(super) fn pause(&mut self, now: Moment) {
        if matches!(self.flow, Flow::Steady) {
            self.flow = Flow::Paused { until: now.after(PAUSE) };
        }
    }

    /// Takes an acknowledgement; returns whether the segment has to get what it missed meanwhile.
    pub(super) fn acknowledged(&mut self) -> bool {
        let was_catching_up = self.is_catching_up();
        if was_catching_up {
            self.flow = Flow::Steady;
        }
        was_catching_up
    }

    /// Returns whether it is time to send the segment again what it may lack.
    pub(super) fn is_resend_due(&mut self, now: Moment) -> bool {
        if !self.link.is_up() {
            return false;
        }
        match self.flow {
            Flow::CatchingUp { again } if again <= now => {
                self.catch_up(now);
                true
            }
            Flow::Lagging if self.link.backlog() <= BACKLOG_BYTES_MAX / 4 => {
                self.flow = Flow::Steady;
                true
            }
            Flow::Paused { until } if until <= now => {
                self.flow = Flow::Steady;
                true
            }
            Flow::CatchingUp { .. } | Flow::Lagging | Flow::Paused { .. } | Flow::Steady => false,
        }
    }

    /// Returns when something is to be done next, if ever.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let flow = match self.flow {
            _ if !self.link.is_up() => None,
            Flow::CatchingUp { again } => Some(again),
            Flow::Paused { until } => Some(until),
            Flow::Lagging | Flow::Steady => None,
        };
        flow.into_iter().chain(self.link.deadline()).min()
    }
}
