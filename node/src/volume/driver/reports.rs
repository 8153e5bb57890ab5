//! What the writer reports, and who is told.

use quorate_core::consistency::Vdl;
use quorate_core::effect::{CommandRefusal, Report};
use quorate_core::id::{PgId, Position};
use quorate_core::refusal::Refusal;
use quorate_core::rules::Rules;

use super::super::{Committed, Opened, VolumeError};
use super::{PUBLISH_AFTER, Phase, VolumeDriver};
use crate::clock::Moment;
use crate::env::Environment;

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    pub(super) fn take_report(&mut self, report: Report) {
        let now = self.env.now();
        match report {
            Report::Confirmed { ticket, read_point: _ } => self.reads.confirmed(ticket, now),
            Report::Durable { vdl } => self.settle(vdl, now),
            Report::Opened { vdl, through } => {
                self.used = through;
                self.recovery_point = vdl;
                if self.going.is_some() {
                    self.frontier.go_to(vdl.lsn());
                } else {
                    self.frontier.advance(vdl.lsn());
                }
                self.points.remember(vdl.lsn());
                self.reads.reach(vdl, now);
                let phase = std::mem::replace(&mut self.phase, Phase::Open);
                if let (Phase::Recovering(recovery), Some(writer)) = (phase, &self.writer) {
                    let (epoch, geometry) = (writer.epoch(), *writer.geometry());
                    let attempts = recovery.attempts;
                    recovery.succeed(epoch, vdl, geometry);
                    self.welcome_as(epoch);
                    self.arrive(Opened { epoch, recovery_point: vdl, geometry, attempts });
                }
                self.advanced = now;
                self.publish = Some(now);
                // The garbage floor doesn't move before the writer is told what to keep.
                self.hold();
                self.seat_peers();
            }
            Report::Overtaken { by } => match &mut self.phase {
                // A writer that goes elsewhere had the volume; one that opens it may try again.
                Phase::Recovering(recovery) if self.going.is_none() => {
                    recovery.refused(by, now, self.env.random().unwrap_or(0));
                }
                Phase::Open | Phase::Over(_) | Phase::Recovering(_) => {
                    self.give_up(VolumeError::Overtaken { by });
                }
            },
            Report::Read { ticket, page, read_point, version } => {
                let bytes = std::mem::take(&mut self.incoming);
                let answered = (read_point, version, bytes);
                if let Some(from) = self.from {
                    self.reads.answer(ticket, page, answered, from, now, &mut self.outbox);
                }
            }
            Report::ReadRefused { ticket, .. } => {
                if let Some(from) = self.from {
                    self.reads.refused(ticket, from, now);
                }
            }
            Report::Refused(CommandRefusal::OutOfLsns) => self.give_up(VolumeError::OutOfLsns),
            Report::Refused(CommandRefusal::HistoryFull) => self.give_up(VolumeError::HistoryFull),
            Report::Rejected { group, from, refusal } => self.rejected(group, from, &refusal),
            Report::Refused(CommandRefusal::Step(refusal)) => self.step_refused = Some(refusal),
            // Other commands are given only when they can be carried out, but for one.
            Report::Located { ticket, backtrack } => self.go(ticket, backtrack),
            Report::Refused(refusal) => self.refused_to_go(refusal),
            Report::Grown { .. } | Report::Settled { .. } => self.seat_peers(),
            Report::Written { first, cpl } => {
                if let Some(reply) = self.writes.take() {
                    self.points.remember(cpl);
                    self.commits.push_back((Committed { first, cpl }, reply));
                }
            }
        }
    }

    /// Takes the refusal of a segment, which the others make up for while they are a quorum.
    fn rejected(&mut self, group: PgId, from: Position, refusal: &Refusal) {
        let Some(quorums) = self.writer.as_ref().map(|writer| writer.geometry().quorums()) else {
            return;
        };
        let Some(error) = self.bounds.refused(quorums, group, from, refusal) else { return };
        if !matches!(self.phase, Phase::Open) {
            return self.give_up(error);
        }
        // Reads go on.
        self.is_full = Some(error);
        for (_, reply) in self.commits.drain(..) {
            reply.send(Err(error), &mut self.outbox);
        }
        while let Some(reply) = self.writes.take() {
            reply.send(Err(error), &mut self.outbox);
        }
    }

    /// Answers the commits that are durable now and forgets their bytes.
    pub(super) fn settle(&mut self, vdl: Vdl, now: Moment) {
        self.advanced = now;
        self.is_full = None;
        self.bounds.clear();
        // Before anybody is told: who has been told sees it.
        self.frontier.advance(vdl.lsn());
        self.publish = Some(now.after(PUBLISH_AFTER));
        while let Some((committed, reply)) =
            self.commits.pop_front_if(|(committed, _)| committed.cpl <= vdl.lsn())
        {
            self.answered = self.answered.saturating_add(usize::from(reply.is_waiter()));
            reply.send(Ok(committed), &mut self.outbox);
        }
        self.pulse.reached(vdl.lsn(), now);
        self.reads.reach(vdl, now);
        // A reader that begins to follow gets what is above the VDL, also what is on its quorum.
        while let Some(first) = self.payloads.first_entry()
            && *first.key() <= vdl.lsn()
        {
            self.flying_bytes = self.flying_bytes.saturating_sub(first.remove().len());
        }
    }

    /// Stops for ever, and says so to everybody who waits.
    pub(super) fn give_up(&mut self, error: VolumeError) {
        if matches!(error, VolumeError::Overtaken { .. }) {
            // Before anybody is told: who has been told sees it.
            self.frontier.overtake();
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Over(error));
        if let Phase::Recovering(recovery) = phase {
            recovery.fail(error);
        }
        for (_, reply) in self.commits.drain(..) {
            reply.send(Err(error), &mut self.outbox);
        }
        while let Some(reply) = self.writes.take() {
            reply.send(Err(error), &mut self.outbox);
        }
        self.end_going(Err(error));
        self.reads.fail(error, &mut self.outbox);
        self.payloads.clear();
        self.peers.clear();
        self.writer = None;
        // Nothing is due any more: a time that nobody looks at would make the loop spin.
        self.publish = None;
    }
}
