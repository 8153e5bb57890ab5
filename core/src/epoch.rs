//! The writer's generation.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

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
