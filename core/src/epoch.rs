//! The writer's generation.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

/// How far an epoch's counter may be above the highest that a segment has heard of.
///
/// A writer counts one up from the highest epoch that it has heard of, so that a step is the number
/// of attempts that a segment slept through: 2^32 are more than a hundred a second for a year. The
/// numbers of one region are 2^16 of such steps. Without a bound, a single message with the last
/// counter would leave no epoch to open the volume with.
pub const EPOCH_STEP_MAX: u64 = 1 << 32;

/// How many promotions a segment may have slept through, for the same reason: a region that was
/// down while the others changed places a dozen times still comes back.
pub const REGION_STEP_MAX: u64 = 16;

/// A counter's upper bits are the number of promotions, the rest that of recoveries since.
const REGION_SHIFT: u32 = 48;

/// A volume epoch: which writer owns the volume.
///
/// Ordered by counter, then by instance. Every start of a writer process has an instance of its
/// own, so that no two writers ever use the same epoch (sharp edge 3).
///
/// The counter begins with the *region epoch*: how often another region has been promoted. Whatever
/// the writers of a region that was left behind still do, their epochs are below all of those that
/// were opened where the volume went on, for ever (sharp edge 60).
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct VolumeEpoch {
    counter: u64,
    instance: InstanceId,
}

impl VolumeEpoch {
    /// The epoch of a volume that no writer has opened yet.
    pub const ZERO: Self = Self { counter: 0, instance: InstanceId::new(0) };

    /// Returns the epoch number `counter` of the writer process `instance`.
    #[must_use]
    pub const fn new(counter: u64, instance: InstanceId) -> Self {
        Self { counter, instance }
    }

    /// Returns the epoch that `instance` uses to overtake `self` in the same region, or `None` when
    /// its numbers are used up (after 2^48 recoveries).
    #[must_use]
    pub const fn next(self, instance: InstanceId) -> Option<Self> {
        match self.counter.checked_add(1) {
            Some(counter) if counter >> REGION_SHIFT == self.region() => {
                Some(Self { counter, instance })
            }
            Some(_) | None => None,
        }
    }

    /// Returns the first epoch of the next region, or `None` when these are used up (after 2^16
    /// promotions): above every epoch that the region of `self` ever reaches (edge 60).
    #[must_use]
    pub const fn promoted(self, instance: InstanceId) -> Option<Self> {
        // The lower bits are all set in the last number of the region.
        match (self.counter | ((1 << REGION_SHIFT) - 1)).checked_add(2) {
            Some(counter) => Some(Self { counter, instance }),
            None => None,
        }
    }

    /// Returns the region epoch: how many promotions came before.
    #[must_use]
    pub const fn region(self) -> u64 {
        self.counter >> REGION_SHIFT
    }

    /// Returns the number of this generation within its region.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.counter & ((1 << REGION_SHIFT) - 1)
    }

    /// Returns whether recoveries and promotions can have come from `heard` to this epoch: its
    /// number is at most [`EPOCH_STEP_MAX`] above, or above the beginning of one of the next
    /// [`REGION_STEP_MAX`] regions.
    #[must_use]
    pub const fn is_reachable_from(self, heard: Self) -> bool {
        if self.region() <= heard.region() {
            return self.counter.saturating_sub(heard.counter) <= EPOCH_STEP_MAX;
        }
        let regions = self.region().saturating_sub(heard.region());
        regions <= REGION_STEP_MAX && self.number() <= EPOCH_STEP_MAX
    }

    /// Returns the number of this generation: its region, then its number there.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter
    }

    /// Returns the writer process that this generation belongs to.
    #[must_use]
    pub const fn instance(self) -> InstanceId {
        self.instance
    }
}

impl fmt::Display for VolumeEpoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Few volumes ever change their region.
        if self.region() > 0 {
            write!(out, "r{}", self.region())?;
        }
        write!(out, "e{}.{}", self.number(), self.instance.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const I: InstanceId = InstanceId::new(7);

    /// A region that was left behind could otherwise reach, one recovery after the other, the
    /// epochs of where the volume went on.
    #[test]
    fn a_promoted_epoch_is_above_all_of_the_region_that_it_leaves() {
        let old = VolumeEpoch::new(3, I);
        let promoted = old.promoted(I);
        assert_eq!(promoted.map(VolumeEpoch::region), Some(1));
        let last = VolumeEpoch::new((1 << REGION_SHIFT) - 1, InstanceId::new(u64::MAX));
        assert_eq!(last.next(I), None);
        assert!(promoted > Some(last));
        let next = promoted.and_then(|promoted| promoted.next(I));
        assert!(next > promoted && next.map(VolumeEpoch::region) == Some(1));
        assert_eq!(VolumeEpoch::new(u64::MAX, I).promoted(I), None);
    }

    /// A segment that slept through a promotion would refuse its own volume, or one message could
    /// use up all regions.
    #[test]
    fn the_next_regions_are_within_reach() {
        let heard = VolumeEpoch::new(9, I);
        let mut reached = heard;
        for step in 1..=REGION_STEP_MAX.saturating_add(1) {
            let Some(next) = reached.promoted(I) else { unreachable!("few promotions") };
            reached = next;
            assert_eq!(reached.is_reachable_from(heard), step <= REGION_STEP_MAX);
        }
        assert!(heard.is_reachable_from(reached), "what is below is for the fence to refuse");
        let far = VolumeEpoch::new((1 << REGION_SHIFT) + EPOCH_STEP_MAX + 1, I);
        assert!(!far.is_reachable_from(heard));
    }
}
