//! What is explored: which machines, how many, within which budgets.

use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::hold::{HoldName, Holds};
use quorate_core::id::InstanceId;
use quorate_core::lsn::Lsn;
use quorate_core::quorum::QuorumSet;

/// How much happens in one step of a model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Granularity {
    /// Delivery to a segment, the durable write and the writer's receipt of the answer are one
    /// step.
    Fused,
    /// Each of them is a step of its own.
    Split,
}

impl Granularity {
    /// Returns the name that reports show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Split => "split",
        }
    }
}

/// When a configuration is run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// On every change.
    Quick,
    /// Before a release.
    Full,
}

/// One state space: machines, granularity and budgets. Bounds are budgets in the state, never a
/// depth.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// What people type.
    pub name: &'static str,
    /// What it is there to show, in a sentence.
    pub purpose: &'static str,
    /// When it is run.
    pub tier: Tier,
    /// How much happens in one step.
    pub granularity: Granularity,
    /// Segments of a group, and its quorums.
    pub quorums: QuorumSet,
    /// Protection groups.
    pub groups: u32,
    /// Writers, the first of which is open at the start.
    pub epochs: u8,
    /// Mini-transactions that may be written in all.
    pub writes: u8,
    /// The mini-transactions to choose from, each the pages that it changes. Page `p` lies in
    /// group `p % groups`.
    pub mtrs: &'static [&'static [u64]],
    /// LAL.
    pub allocation_max: u64,
    /// Crashes of segments in all.
    pub crashes: u8,
    /// Whether segments pull from each other.
    pub gossip: bool,
    /// Whether gossip's request and answer are messages of their own that can be delayed.
    pub gossip_messages: bool,
    /// Whether writers tell the VDL without writing.
    pub publish: bool,
    /// Whether writers send again what a segment may lack.
    pub resend: bool,
    /// Strict reads in all.
    pub strict_reads: u8,
    /// How often the reader, if there is one, may begin a stream.
    pub attaches: u8,
    /// Whether the reader caches pages. What it would read is judged in every state anyway.
    pub caches: bool,
    /// Whether messages of a stream arrive in order, as they do over one connection.
    pub in_order: bool,
    /// How often a writer may take the reader for dead.
    pub expels: u8,
    /// Whether writers raise the garbage floor and segments discard what is under it.
    pub collect: bool,
    /// A named floor at this LSN, for ever.
    pub hold: Option<u64>,
    /// Whether all recoveries use one counter and differ in their instance only.
    pub one_counter: bool,
    /// Whether seals not yet delivered are lost once their writer has chosen. All that they could
    /// still do, to raise a promise, the install that follows does too.
    pub seals_stop: bool,
    /// Whether states that differ only in the names of segments count as one.
    pub symmetric: bool,
    /// Whether any finished write, not only the oldest, may be reported durable first.
    pub any_order: bool,
}

impl Configuration {
    /// A configuration in which nothing happens; others start from it.
    pub const EMPTY: Self = Self {
        name: "",
        purpose: "",
        tier: Tier::Quick,
        granularity: Granularity::Fused,
        quorums: QuorumSet::AURORA,
        groups: 1,
        epochs: 1,
        writes: 1,
        mtrs: &[&[0]],
        allocation_max: 2,
        crashes: 0,
        gossip: true,
        gossip_messages: false,
        publish: false,
        resend: false,
        strict_reads: 0,
        attaches: 0,
        caches: true,
        in_order: false,
        expels: 0,
        collect: false,
        hold: None,
        one_counter: false,
        seals_stop: false,
        symmetric: true,
        any_order: false,
    };

    /// Returns the volume's geometry.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    #[must_use]
    pub fn geometry(&self) -> VolumeGeometry {
        let limits = Limits {
            allocation_max: self.allocation_max,
            batch_records_max: 1,
            // As many as may be written in all, so that one more meets the bound.
            log_records_max: self.records_max(),
            history_ranges_max: 16,
            pending_writes_max: 2,
        };
        match VolumeGeometry::new(self.groups, self.quorums, limits) {
            Ok(geometry) => geometry,
            Err(error) => panic!("configuration {}: {error:?}", self.name),
        }
    }

    fn records_max(&self) -> u32 {
        let longest = self.mtrs.iter().map(|mtr| mtr.len()).max().unwrap_or(1);
        u32::try_from(longest).unwrap_or(1).saturating_mul(u32::from(self.writes)).max(1)
    }

    /// Returns what every writer is told to hold, as soon as it is open.
    #[must_use]
    pub fn holds(&self) -> Holds {
        let held = self.hold.map(|lsn| Holds::new().with(HoldName::Backtrack, Lsn::new(lsn)));
        held.unwrap_or_default()
    }

    /// Returns the number of the writer with this epoch.
    #[must_use]
    pub fn number(&self, epoch: VolumeEpoch) -> Option<u8> {
        (0..self.epochs).find(|index| self.epoch(*index) == epoch)
    }

    /// Returns the epoch of writer number `index`.
    #[must_use]
    pub fn epoch(&self, index: u8) -> VolumeEpoch {
        let number = u64::from(index).saturating_add(1);
        let counter = if self.one_counter { number.min(2) } else { number };
        VolumeEpoch::new(counter, InstanceId::new(number))
    }
}

const SMALL: QuorumSet = match QuorumSet::new(4, 3, 2) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

/// For what each segment decides by itself: more of them would multiply states, not cases.
const SINGLE: QuorumSet = match QuorumSet::new(1, 1, 1) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

const SMALLEST: QuorumSet = match QuorumSet::new(3, 2, 2) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

/// Every configuration, in the order in which they are run.
pub const ALL: &[Configuration] = &[
    Configuration {
        name: "write-split",
        purpose: "two mini-transactions through one writer, every delivery, sync and answer apart",
        granularity: Granularity::Split,
        writes: 2,
        gossip: false,
        any_order: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "crash-split",
        purpose: "segments that lose or tear what was not synced, and restart",
        granularity: Granularity::Split,
        writes: 2,
        crashes: 1,
        gossip: false,
        any_order: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "zombie-e2r2",
        purpose: "a recovery while the overtaken writer goes on, two mini-transactions",
        epochs: 2,
        writes: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "zombie-e3r1",
        purpose: "two recoveries while the overtaken writers go on",
        epochs: 3,
        writes: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "mtr-e2",
        purpose: "a recovery that cuts within a mini-transaction of two records",
        epochs: 2,
        writes: 1,
        mtrs: &[&[0, 1]],
        ..Configuration::EMPTY
    },
    Configuration {
        name: "mtr-small",
        purpose: "mini-transactions of two records before and after a recovery, on four segments",
        quorums: SMALL,
        epochs: 2,
        writes: 2,
        mtrs: &[&[0, 1]],
        ..Configuration::EMPTY
    },
    Configuration {
        name: "limit-e2",
        purpose: "writers at their allocation limit",
        epochs: 2,
        writes: 3,
        allocation_max: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "strict-e2",
        purpose: "strict reads while another writer takes over",
        epochs: 2,
        writes: 1,
        strict_reads: 1,
        gossip: false,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "one-counter",
        purpose: "two recoveries whose epochs differ in the writer's instance only",
        epochs: 3,
        writes: 1,
        one_counter: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "recovery-split",
        purpose: "a recovery with every delivery, sync and answer apart",
        granularity: Granularity::Split,
        epochs: 2,
        writes: 1,
        gossip: false,
        seals_stop: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "crash-recovery",
        purpose: "segments that crash during a recovery, on four segments (W=3, R=2)",
        quorums: SMALL,
        granularity: Granularity::Split,
        epochs: 2,
        writes: 1,
        crashes: 1,
        gossip: false,
        any_order: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "history-e3r2",
        purpose: "an older truncation that still matters, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 3,
        writes: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "competing",
        purpose: "three recoveries that compete, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 4,
        writes: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "two-groups",
        purpose: "two groups of six, mini-transactions across them and an idle group, a recovery",
        groups: 2,
        epochs: 2,
        writes: 1,
        mtrs: &[&[0], &[0, 1]],
        gossip: false,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "two-groups-e3",
        purpose: "two groups of three (W=2, R=2), mini-transactions across them, two recoveries",
        quorums: SMALLEST,
        groups: 2,
        epochs: 3,
        writes: 1,
        mtrs: &[&[0], &[0, 1]],
        ..Configuration::EMPTY
    },
    Configuration {
        name: "two-groups-r2",
        purpose: "two groups of four (W=3, R=2), two mini-transactions, a recovery",
        quorums: SMALL,
        groups: 2,
        epochs: 2,
        writes: 2,
        mtrs: &[&[0], &[1]],
        gossip: false,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "gossip-messages",
        purpose: "gossip whose requests and answers are delayed, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 2,
        writes: 1,
        gossip_messages: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "resend-e2",
        purpose: "writers that send again, and tell the VDL without writing, on four segments",
        quorums: SMALL,
        epochs: 2,
        writes: 1,
        publish: true,
        resend: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "collect-e2",
        purpose: "segments that discard old versions, one that slept through it, and a recovery, \
                  on three segments (W=2, R=2)",
        quorums: SMALLEST,
        epochs: 2,
        writes: 2,
        mtrs: &[&[0], &[1]],
        publish: true,
        collect: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "collect-hold",
        purpose: "old versions that a named floor keeps, on three segments (W=2, R=2)",
        quorums: SMALLEST,
        epochs: 2,
        writes: 2,
        publish: true,
        collect: true,
        hold: Some(3),
        gossip: false,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-stream",
        purpose: "a reader whose stream has gaps, repeats and late pages, on three segments",
        quorums: SMALLEST,
        writes: 2,
        mtrs: &[&[0, 0]],
        allocation_max: 4,
        gossip: false,
        attaches: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-e2",
        purpose: "a reader that outlives its writer, on three segments (W=2, R=2)",
        quorums: SMALLEST,
        epochs: 2,
        writes: 2,
        gossip: false,
        attaches: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-annulled",
        purpose: "a reader that has redo which the next writer annuls, on one segment",
        quorums: SINGLE,
        epochs: 2,
        writes: 2,
        mtrs: &[&[0], &[1]],
        gossip: false,
        attaches: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-garbage",
        purpose: "a reader against the garbage floor, also when it is taken for dead, on one \
                  segment",
        quorums: SINGLE,
        writes: 2,
        publish: true,
        gossip: false,
        collect: true,
        attaches: 2,
        in_order: true,
        expels: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-garbage-e2",
        purpose: "a reader whose writer is overtaken, against the garbage floor of the next one",
        quorums: SMALLEST,
        epochs: 2,
        writes: 1,
        publish: true,
        gossip: false,
        seals_stop: true,
        collect: true,
        attaches: 2,
        in_order: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-idle",
        purpose: "a reader of two groups of three, one of them idle, and a recovery",
        quorums: SMALLEST,
        groups: 2,
        epochs: 2,
        writes: 1,
        mtrs: &[&[0], &[0, 1]],
        gossip: false,
        seals_stop: true,
        attaches: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "two-groups-e3-four",
        purpose: "two groups of four (W=3, R=2), mini-transactions across them, two recoveries",
        tier: Tier::Full,
        quorums: SMALL,
        groups: 2,
        epochs: 3,
        writes: 1,
        mtrs: &[&[0, 1]],
        gossip: false,
        seals_stop: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "reader-garbage-three",
        purpose: "a reader against the garbage floor, also when it is taken for dead, on three \
                  segments (W=2, R=2)",
        tier: Tier::Full,
        quorums: SMALLEST,
        writes: 2,
        publish: true,
        gossip: false,
        collect: true,
        attaches: 2,
        caches: false,
        in_order: true,
        expels: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "zombie-e3r2",
        purpose: "two recoveries while the overtaken writers go on, two mini-transactions",
        tier: Tier::Full,
        epochs: 3,
        writes: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "zombie-e4r1",
        purpose: "three recoveries that compete, on six segments",
        tier: Tier::Full,
        epochs: 4,
        writes: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "recovery-split-gossip",
        purpose: "a recovery with every step apart and gossip, on four segments (W=3, R=2)",
        tier: Tier::Full,
        quorums: SMALL,
        granularity: Granularity::Split,
        epochs: 2,
        writes: 1,
        seals_stop: true,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "mtr-e2r2",
        purpose: "mini-transactions of two records before and after a recovery, on six segments",
        tier: Tier::Full,
        epochs: 2,
        writes: 2,
        mtrs: &[&[0, 1]],
        ..Configuration::EMPTY
    },
    Configuration {
        name: "publish-e3r1",
        purpose: "writers that tell the VDL without writing, so that segments know it sooner",
        tier: Tier::Full,
        epochs: 3,
        writes: 1,
        publish: true,
        ..Configuration::EMPTY
    },
];

/// Returns the configuration called `name`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Configuration> {
    ALL.iter().find(|configuration| configuration.name == name)
}
