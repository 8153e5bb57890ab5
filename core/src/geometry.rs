//! The volume's shape and its bounds: durable, and the same for every writer.

use serde::{Deserialize, Serialize};

use crate::id::{PageId, PgId};
use crate::quorum::QuorumSet;

/// Bounds that every machine of a volume obeys. They belong to the volume, are durable with it and
/// are reported in every seal answer: a writer's own configuration can't change them (edge 19).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Limits {
    /// LAL: how many LSNs beyond the VDL a writer may allocate (SIGMOD'17 §4.2.1).
    pub allocation_max: u64,
    /// Records in one batch of an append or of a gossip answer.
    pub batch_records_max: u32,
    /// Records that one segment holds.
    pub log_records_max: u32,
    /// Ranges in a truncation history: each opening of the volume adds one, and the last is the
    /// last. Seal answers and gossip carry all of them, and each opening writes them to every log.
    pub history_ranges_max: u32,
    /// Durable writes that one segment has under way.
    pub pending_writes_max: u32,
}

impl Limits {
    /// The bounds of a volume whose creator doesn't choose others.
    pub const DEFAULT: Self = Self {
        allocation_max: 16_384,
        batch_records_max: 256,
        log_records_max: 1 << 24,
        // What a seal answer has room for, beside its records: a writer opened each hour for seven
        // years. Each of the last openings writes 2 MiB to a segment's log.
        history_ranges_max: 1 << 16,
        pending_writes_max: 1_024,
    };

    /// Returns whether a writer can make progress within these bounds: every bound is at least
    /// one, and an MTR of one whole batch fits below the allocation limit (edge 63).
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.batch_records_max > 0
            && self.allocation_max >= self.batch_records_max as u64
            && self.log_records_max >= self.batch_records_max
            && self.history_ranges_max > 0
            && self.pending_writes_max > 0
    }
}

const _: () = assert!(Limits::DEFAULT.is_usable());

/// The most protection groups that one volume can have.
pub const GROUPS_MAX: u32 = 64;

/// The list of a volume's protection groups, their quorums, and the volume's bounds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct VolumeGeometry {
    groups: u32,
    quorums: QuorumSet,
    limits: Limits,
}

/// Why a geometry can't be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GeometryError {
    /// No group, or more than [`GROUPS_MAX`].
    Groups,
    /// Bounds within which no writer can make progress.
    Limits,
}

impl VolumeGeometry {
    /// Returns the geometry of `groups` protection groups.
    ///
    /// # Errors
    /// [`GeometryError`] when the number of groups or a bound is out of range.
    pub const fn new(
        groups: u32,
        quorums: QuorumSet,
        limits: Limits,
    ) -> Result<Self, GeometryError> {
        if groups == 0 || groups > GROUPS_MAX {
            return Err(GeometryError::Groups);
        }
        if !limits.is_usable() {
            return Err(GeometryError::Limits);
        }
        Ok(Self { groups, quorums, limits })
    }

    /// Returns the groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = PgId> + Clone + use<> {
        (0..self.groups).map(PgId::new)
    }

    /// Returns the number of groups.
    #[must_use]
    pub const fn groups_count(&self) -> u32 {
        self.groups
    }

    /// Returns whether the volume has `group`.
    #[must_use]
    pub const fn has(&self, group: PgId) -> bool {
        group.get() < self.groups
    }

    /// Returns the group that holds `page`: pages are striped one by one.
    #[must_use]
    pub fn group_of(&self, page: PageId) -> PgId {
        let stripe = page.get() % u64::from(self.groups);
        PgId::new(u32::try_from(stripe).unwrap_or(0))
    }

    /// Returns the quorums of every group.
    #[must_use]
    pub const fn quorums(&self) -> QuorumSet {
        self.quorums
    }

    /// Returns the volume's bounds.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }
}

impl<'de> Deserialize<'de> for VolumeGeometry {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "VolumeGeometry")]
        struct Parts {
            groups: u32,
            quorums: QuorumSet,
            limits: Limits,
        }
        let Parts { groups, quorums, limits } = Parts::deserialize(input)?;
        Self::new(groups, quorums, limits).map_err(|error| {
            serde::de::Error::custom(match error {
                GeometryError::Groups => "number of protection groups out of range",
                GeometryError::Limits => "limits within which no writer can make progress",
            })
        })
    }
}
