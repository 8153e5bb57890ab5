//! The segments: a quorum of them to open the volume with, and what they have missed.

use quorate_core::effect::WriterInput;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::check::{Shape, is_history_full, shape};
use super::super::flow::Peer;
use super::super::{Unavailable, VolumeError};
use super::{Phase, STALL, VolumeDriver};
use crate::clock::Moment;
use crate::env::Environment;

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    pub(super) fn tick_recovery(&mut self, now: Moment) {
        let Phase::Recovering(recovery) = &mut self.phase else { return };
        if recovery.until <= now {
            let error = VolumeError::Unavailable(self.unavailable());
            return self.give_up(error);
        }
        if recovery.next.is_none_or(|at| at > now) {
            return;
        }
        let geometry = match shape(&self.peers, &self.config) {
            Shape::Known(geometry) => geometry,
            Shape::Other { found } => {
                let expected = self.config.segments.len();
                return self.give_up(VolumeError::OtherGeometry { expected, found });
            }
            Shape::Unknown => return,
        };
        if is_history_full(&self.peers, &geometry) {
            return self.give_up(VolumeError::HistoryFull);
        }
        let Some(epoch) = recovery.attempt() else {
            return self.give_up(VolumeError::OutOfLsns);
        };
        for peer in &mut self.peers {
            peer.catch_up(now);
        }
        let known = self.known_memberships(&geometry);
        self.writer = Some(self.next_writer(epoch, geometry, &known));
        self.seat_peers();
        self.carry_out();
    }

    pub(super) fn unavailable(&self) -> Unavailable {
        let refusal = self
            .peers
            .iter()
            .find_map(|peer| peer.link.refusal().map(|refusal| (peer.link.address(), refusal)));
        let reached = || self.peers.iter().filter(|peer| peer.link.is_up());
        let is_impaired = |peer: &&Peer<E::Stream>| peer.welcome.is_some_and(|w| w.status.impaired);
        Unavailable {
            reached: reached().count(),
            impaired: reached().filter(is_impaired).count(),
            strangers: self.peers.iter().filter(|peer| peer.is_stranger).count(),
            segments: self.peers.len(),
            refusal,
        }
    }

    /// Sends again what may have been missed or lost.
    pub(super) fn resend(&mut self, now: Moment) {
        let is_stalled = !self.commits.is_empty() && now.since(self.advanced) >= STALL;
        if is_stalled {
            self.advanced = now;
        }
        let tail = self.writer.as_ref().and_then(Writer::tail).unwrap_or_default();
        let mut due = Vec::new();
        for peer in &mut self.peers {
            let is_due = peer.is_resend_due(now);
            // Without a writer there is nothing to send, but the time has to be set anew: a time
            // that has passed would make the loop spin until a quorum is there.
            let Some(writer) = &self.writer else { continue };
            let (group, to) = (peer.group, peer.position);
            let lacks = writer.scl(group, to).is_some_and(|scl| scl < tail);
            if is_due || (is_stalled && lacks) {
                due.push(WriterInput::Resend { group, to });
            }
        }
        for input in due {
            self.step(input);
        }
    }
}
