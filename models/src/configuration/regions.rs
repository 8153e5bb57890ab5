//! Configurations with a second region.

use quorate_core::geometry::VolumeGeometry;
use quorate_core::quorum::QuorumSet;

use super::list::{SINGLE, SMALLEST};
use super::{Configuration, Tier};

/// What may happen to a second region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Regions {
    /// How often the relay may crash.
    pub relays: u8,
    /// Whether the second region may be promoted while the first one goes on.
    pub promotes: bool,
    /// Whether the last writer fences the first region for a planned switch, and writes nothing.
    pub switches: bool,
    /// Mini-transactions that a promoted region may write.
    pub writes: u8,
    /// Whether the first region may then be attached to the second one.
    pub reattaches: bool,
}

impl Configuration {
    /// Returns the geometry of the second region's volume: one segment for each group.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    #[must_use]
    pub fn far_geometry(&self) -> VolumeGeometry {
        let limits = self.geometry().limits();
        match VolumeGeometry::new(self.groups, far_quorums(), limits) {
            Ok(geometry) => geometry,
            Err(error) => panic!("configuration {}: {error:?}", self.name),
        }
    }

    /// Returns whether writer number `index` is there only to fence the first region.
    #[must_use]
    pub fn is_fence(&self, index: u8) -> bool {
        let is_last = index.saturating_add(1) == self.epochs;
        is_last && self.regions.is_some_and(|regions| regions.switches)
    }
}

const fn far_quorums() -> QuorumSet {
    SINGLE
}

const OUT: Regions =
    Regions { relays: 0, promotes: false, switches: false, writes: 0, reattaches: false };

pub(super) const REGION_SHIP: Configuration = Configuration {
    name: "region-ship",
    purpose: "a second region behind a first one that recovers, and a relay that crashes; one \
              segment in each region",
    quorums: SINGLE,
    epochs: 2,
    writes: 2,
    gossip: false,
    attaches: 2,
    regions: Some(Regions { relays: 1, promotes: true, ..OUT }),
    ..Configuration::EMPTY
};

pub(super) const REGION_GROUPS: Configuration = Configuration {
    name: "region-groups",
    purpose: "a second region of two groups, which get their parts of mini-transactions in any \
              order or never; one segment for each",
    quorums: SINGLE,
    groups: 2,
    writes: 2,
    mtrs: &[&[0, 1], &[0]],
    allocation_max: 4,
    gossip: false,
    attaches: 1,
    regions: Some(OUT),
    ..Configuration::EMPTY
};

pub(super) const REGION_BACKTRACK: Configuration = Configuration {
    name: "region-backtrack",
    purpose: "a second region behind a first one that goes back; one segment in each region",
    quorums: SINGLE,
    epochs: 2,
    writes: 2,
    gossip: false,
    backtracks: 1,
    attaches: 2,
    regions: Some(OUT),
    ..Configuration::EMPTY
};

pub(super) const REGION_SWITCH: Configuration = Configuration {
    name: "region-switch",
    purpose: "a planned switch from a first region of three segments (W=2, R=2), whose overtaken \
              writer goes on, to a second one of one segment",
    quorums: SMALLEST,
    epochs: 2,
    writes: 1,
    attaches: 2,
    regions: Some(Regions { switches: true, ..OUT }),
    ..Configuration::EMPTY
};

pub(super) const REGION_REATTACH: Configuration = Configuration {
    name: "region-reattach",
    purpose: "a second region that is promoted while the first one goes on, which is then \
              attached to it; one segment in each region",
    quorums: SINGLE,
    epochs: 2,
    writes: 3,
    allocation_max: 1,
    gossip: false,
    attaches: 1,
    regions: Some(Regions { promotes: true, writes: 2, reattaches: true, ..OUT }),
    ..Configuration::EMPTY
};

pub(super) const REGION_THREE: Configuration = Configuration {
    name: "region-three",
    purpose: "a second region of one segment behind a first one of three (W=2, R=2) that recovers",
    tier: Tier::Full,
    quorums: SMALLEST,
    epochs: 2,
    writes: 2,
    attaches: 2,
    regions: Some(Regions { promotes: true, ..OUT }),
    ..Configuration::EMPTY
};

pub(super) const REGION_BACK_THREE: Configuration = Configuration {
    name: "region-back-three",
    purpose: "a first region of three segments (W=2, R=2) that goes on after the second one, of \
              one segment, was promoted, and is then attached to it",
    tier: Tier::Full,
    quorums: SMALLEST,
    writes: 2,
    allocation_max: 1,
    gossip: false,
    symmetric: false,
    regions: Some(Regions { promotes: true, writes: 1, reattaches: true, ..OUT }),
    ..Configuration::EMPTY
};
