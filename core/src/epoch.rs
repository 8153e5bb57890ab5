//! The writer's generation.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

/// How far an epoch's counter may be above the highest that a segment has heard of.
///
/// A writer counts one up from the highest epoch that it has heard of, so that a step is the number
/// of attempts that a segment slept through: 2^32 are more than a hundred a second for a year. The
/// number space is 2^32 of such steps. Without a bound, a single message with the last counter
/// would leave no epoch to open the volume with.
pub const EPOCH_STEP_MAX: u64 = 1 << 32;

/// A volume epoch: which writer owns the volume.
///
/// Ordered by counter, then by instance. Every start of a writer process has an instance of its
/// own, so that no two writers ever use the same epoch (sharp edge 3).
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

    /// Returns the epoch that `instance` uses to overtake `self`, or `None` when the counter is
    /// used up (after 2^64 recoveries).
    #[must_use]
    pub const fn next(self, instance: InstanceId) -> Option<Self> {
        match self.counter.checked_add(1) {
            Some(counter) => Some(Self { counter, instance }),
            None => None,
        }
    }

    /// Returns whether recoveries can have come from `heard` to this epoch: its counter is at most
    /// [`EPOCH_STEP_MAX`] above.
    #[must_use]
    pub const fn is_reachable_from(self, heard: Self) -> bool {
        self.counter.saturating_sub(heard.counter) <= EPOCH_STEP_MAX
    }

    /// Returns the number of this generation.
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
        write!(out, "e{}.{}", self.counter, self.instance.get())
    }
}
