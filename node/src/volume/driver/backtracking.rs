//! A volume that goes back to an earlier point of its log, or forward again.
//!
//! The writer locates the point, and its own process opens the next epoch there: clients wait as
//! they do in a takeover, and what was under way is answered with an error.

use std::time::Duration;

use quorate_core::effect::{CommandRefusal, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::Ticket;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::recovery::Backtrack;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::gathered::Gathered;
use super::super::recovery::Recovery;
use super::super::reply::Reply;
use super::super::{Opened, VolumeError};
use super::readers::Leases;
use super::{Phase, VolumeDriver};
use crate::answer::answer;
use crate::clock::Moment;
use crate::env::Environment;

/// How long the segments may take to locate a point.
const LOCATE_MAX: Duration = Duration::from_secs(5);

/// How often they are asked again, longer than answers are on their way: one that lacked something
/// may have it by now.
const LOCATE_AGAIN: Duration = Duration::from_millis(500);

/// A volume on its way to another point.
#[derive(Debug)]
pub(super) struct Going {
    target: Lsn,
    reply: Reply<Opened>,
    asked: u64,
    again: Moment,
    until: Moment,
    /// Where it goes, once that is known.
    located: Option<Backtrack>,
    /// It opened at its end: somebody else had come first.
    is_superseded: bool,
}

impl Going {
    /// Returns when it is to be looked at again, while segments are asked.
    pub(super) const fn deadline(&self) -> Option<Moment> {
        match self.located {
            None => Some(self.again),
            Some(_) => None,
        }
    }
}

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// Takes a command to go to `target`.
    pub(super) fn take_backtrack(&mut self, target: Lsn, reply: Reply<Opened>) {
        let refusal = self.over().or(self.going.is_some().then_some(VolumeError::WentElsewhere));
        if let Some(error) = refusal {
            return reply.send(Err(error), &mut self.outbox);
        }
        let now = self.env.now();
        self.going = Some(Going {
            target,
            reply,
            asked: 0,
            again: now,
            until: now.after(LOCATE_MAX),
            located: None,
            is_superseded: false,
        });
        self.tick_going(now);
    }

    /// Asks the segments for the point until they have all located it.
    pub(super) fn tick_going(&mut self, now: Moment) {
        let Some(going) = &mut self.going else { return };
        if going.located.is_some() || going.again > now {
            return;
        }
        if going.until <= now {
            return self.end_going(Err(VolumeError::TimedOut));
        }
        going.again = now.after(LOCATE_AGAIN);
        going.asked = going.asked.saturating_add(1);
        let (ticket, target) = (Ticket::new(going.asked), going.target);
        self.step(WriterInput::Locate { ticket, target });
    }

    /// Takes the refusal of the command under way.
    pub(super) fn refused_to_go(&mut self, refusal: CommandRefusal) {
        let error = match refusal {
            CommandRefusal::NotConsistent { nearest } => VolumeError::NoPoint { nearest },
            CommandRefusal::Collected { floor } => VolumeError::PointDiscarded { floor },
            CommandRefusal::TargetAhead => VolumeError::PointAhead,
            CommandRefusal::Superseded => {
                if let Some(going) = &mut self.going {
                    going.is_superseded = true;
                }
                return;
            }
            CommandRefusal::BeyondVolume { .. }
            | CommandRefusal::Empty
            | CommandRefusal::Fenced { .. }
            | CommandRefusal::HistoryFull
            | CommandRefusal::NotOpen
            | CommandRefusal::OutOfLsns
            | CommandRefusal::Oversized
            | CommandRefusal::ReadPointAhead
            | CommandRefusal::Step(_)
            | CommandRefusal::Throttled
            | CommandRefusal::UnknownSegment => return,
        };
        self.end_going(Err(error));
    }

    /// Opens the next epoch at the point that was located.
    pub(super) fn go(&mut self, ticket: Ticket, backtrack: Backtrack) {
        let now = self.env.now();
        let (Some(going), Some(writer)) = (&mut self.going, &self.writer) else { return };
        if going.located.is_some() || ticket != Ticket::new(going.asked) {
            return;
        }
        let target = backtrack.target;
        going.located = Some(backtrack);
        let epoch = writer.epoch();
        let (opening, _) = answer();
        let until = now.after(self.config.patience);
        let mut recovery = Recovery::new(epoch.instance(), until, now, opening);
        recovery.hear(epoch);
        self.phase = Phase::Recovering(recovery);
        for (_, reply) in self.commits.drain(..) {
            reply.send(Err(VolumeError::WentElsewhere), &mut self.outbox);
        }
        while let Some(reply) = self.writes.take() {
            reply.send(Err(VolumeError::WentElsewhere), &mut self.outbox);
        }
        self.reads.fail(VolumeError::WentElsewhere, &mut self.outbox);
        self.payloads.clear();
        self.flying_bytes = 0;
        self.gathered = Gathered::default();
        self.points.forget_above(target);
        self.publish = None;
        // A reader begins anew with the next epoch, as after a takeover.
        for reader in self.leases.readers() {
            self.callers.hang_up_on(reader);
        }
        self.leases = Leases::new(now);
    }

    /// Returns the next writer, which goes where this volume is to go.
    pub(super) fn next_writer(
        &mut self,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        known: &[Membership],
    ) -> Writer<R> {
        let located = self.going.as_ref().and_then(|going| going.located.clone());
        match located {
            Some(located) => {
                Writer::open_at(self.rules, epoch, geometry, known, located, &mut self.effects)
            }
            None => Writer::open_knowing(self.rules, epoch, geometry, known, &mut self.effects),
        }
    }

    /// Tells whoever asked that the volume is where it was to go, if it is.
    pub(super) fn arrive(&mut self, opened: Opened) {
        let Some(going) = &self.going else { return };
        if going.located.is_some() {
            let is_there = !going.is_superseded;
            self.end_going(if is_there { Ok(opened) } else { Err(VolumeError::WentElsewhere) });
        }
    }

    pub(super) fn end_going(&mut self, outcome: Result<Opened, VolumeError>) {
        if let Some(going) = self.going.take() {
            going.reply.send(outcome, &mut self.outbox);
        }
    }
}
