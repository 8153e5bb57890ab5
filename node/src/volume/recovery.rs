//! Opening: which epoch to try, and what to do when it is refused.

use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::InstanceId;

use super::reply::Waiter;
use super::{Opened, VolumeError};
use crate::clock::Moment;

/// The shortest wait before the next epoch is tried; it grows with every attempt, by chance too, so
/// that two writers don't overtake each other for ever.
const RETRY: Duration = Duration::from_millis(20);

/// A recovery under way.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) instance: InstanceId,
    /// When to give up.
    pub(super) until: Moment,
    /// The highest epoch heard of.
    pub(super) heard: VolumeEpoch,
    /// When to try the next epoch; `None` while one is being tried.
    pub(super) next: Option<Moment>,
    pub(super) attempts: u32,
    reply: Waiter<Opened>,
}

impl Recovery {
    pub(super) fn new(
        instance: InstanceId,
        until: Moment,
        now: Moment,
        reply: Waiter<Opened>,
    ) -> Self {
        let heard = VolumeEpoch::ZERO;
        Self { instance, until, heard, next: Some(now), attempts: 0, reply }
    }

    /// Remembers that `epoch` exists.
    pub(super) fn hear(&mut self, epoch: VolumeEpoch) {
        self.heard = self.heard.max(epoch);
    }

    /// Returns the epoch to try now.
    pub(super) fn attempt(&mut self) -> Option<VolumeEpoch> {
        let epoch = self.heard.next(self.instance)?;
        self.heard = epoch;
        self.next = None;
        self.attempts = self.attempts.saturating_add(1);
        Some(epoch)
    }

    /// Takes the refusal of the epoch that was tried.
    pub(super) fn refused(&mut self, by: VolumeEpoch, now: Moment, random: u64) {
        self.hear(by);
        let longest = RETRY.saturating_mul(self.attempts.clamp(1, 10));
        let spread = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_micros(random.checked_rem(spread).unwrap_or(0));
        self.next = Some(now.after(jitter));
    }

    /// Tells whoever opens the volume that it is open.
    pub(super) fn succeed(
        self,
        epoch: VolumeEpoch,
        recovery_point: quorate_core::consistency::Vdl,
        geometry: VolumeGeometry,
    ) {
        let attempts = self.attempts;
        self.reply.give(Ok(Opened { epoch, recovery_point, geometry, attempts }));
    }

    /// Tells whoever opens the volume that it can't be.
    pub(super) fn fail(self, error: VolumeError) {
        self.reply.give(Err(error));
    }
}
