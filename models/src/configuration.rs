//! What is explored: which machines, how many, within which budgets.

use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::hold::{HoldName, Holds};
use quorate_core::id::{InstanceId, PgId};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Step;
use quorate_core::quorum::QuorumSet;

mod backtracks;
mod growth;
mod list;
mod readers;
mod scripts;

pub use list::ALL;

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

/// One thing that happens before an exploration starts: a start state is reached by the core
/// itself, so it is reachable. Sets of segments are bits by position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scripted {
    /// All appends of the writer reach these segments.
    Append {
        /// The writer.
        writer: u8,
        /// The segments.
        to: u8,
    },
    /// The writer's newest install reaches these segments.
    Install {
        /// The writer.
        writer: u8,
        /// The segments.
        to: u8,
    },
    /// The disks of these segments are lost, and empty ones come in their place.
    Lose {
        /// The segments.
        of: u8,
    },
    /// What segments do, and get, from here on concerns this group; the first one until then.
    Group {
        /// The group.
        group: u8,
    },
    /// A segment pulls from another.
    Pull {
        /// The one that asks.
        into: u8,
        /// The one that answers.
        from: u8,
    },
    /// The next writer starts.
    Recover,
    /// The writer's seal reaches these segments.
    Seal {
        /// The writer.
        writer: u8,
        /// The segments.
        to: u8,
    },
    /// The writer takes a step.
    Step {
        /// The writer.
        writer: u8,
        /// The step.
        step: u8,
    },
    /// The writer writes.
    Write {
        /// The writer.
        writer: u8,
        /// The mini-transaction.
        mtr: u8,
    },
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
    /// Protection groups, with those that the volume gets by growing.
    pub groups: u32,
    /// How many of them the volume doesn't begin with: empty segments that nobody knows of.
    pub growing: u32,
    /// Writers, the first of which is open at the start.
    pub epochs: u8,
    /// Mini-transactions that may be written in all.
    pub writes: u8,
    /// The mini-transactions to choose from, each the pages that it changes. Page `p` lies in
    /// group `p % groups`; in a volume that grows, in group `p`.
    pub mtrs: &'static [&'static [u64]],
    /// LAL.
    pub allocation_max: u64,
    /// Ranges of a history. The first writer has made one.
    pub history_ranges_max: u32,
    /// Crashes of segments in all.
    pub crashes: u8,
    /// Segments whose logs are damaged, in all.
    pub damages: u8,
    /// Recoveries that go to a point of the log instead of its end, in all.
    pub backtracks: u8,
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
    /// Segments beside the group's own: empty disks that may join it.
    pub joining: usize,
    /// Steps of a membership change to choose from.
    pub steps: &'static [Step],
    /// Steps in all.
    pub steps_max: u8,
    /// Disks that may be lost, in all.
    pub losses: u8,
    /// The segments whose first disks an operator swears never come back, as bits by position:
    /// writers after the first are forced to open without them, `forced_writers` in all.
    pub forced: u8,
    /// How many writers are forced to open.
    pub forced_writers: u8,
    /// By position: only segments with the same number are treated alike by every membership that
    /// can come about. None: all are.
    pub roles: &'static [u8],
    /// How the core gets to where the exploration starts.
    pub script: &'static [Scripted],
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
        growing: 0,
        epochs: 1,
        writes: 1,
        mtrs: &[&[0]],
        allocation_max: 2,
        history_ranges_max: 16,
        crashes: 0,
        damages: 0,
        backtracks: 0,
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
        joining: 0,
        steps: &[],
        steps_max: 0,
        losses: 0,
        forced: 0,
        forced_writers: 0,
        roles: &[],
        script: &[],
    };

    /// Returns the number of segments of a group, with those that may join.
    #[must_use]
    pub const fn members(&self) -> usize {
        self.quorums.members().saturating_add(self.joining)
    }

    /// Returns all groups, those included that the volume doesn't begin with.
    pub fn groups(&self) -> impl Iterator<Item = PgId> + Clone + use<> {
        (0..self.groups).map(PgId::new)
    }

    /// Returns the volume's geometry, as it begins.
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
            history_ranges_max: self.history_ranges_max,
            pending_writes_max: 2,
        };
        let groups = self.groups.saturating_sub(self.growing);
        let geometry = VolumeGeometry::new(groups, self.quorums, limits);
        let bounded = |it: VolumeGeometry| {
            if self.growing == 0 { Ok(it) } else { it.with_group_pages(1) }
        };
        match geometry.and_then(bounded) {
            Ok(geometry) => geometry,
            Err(error) => panic!("configuration {}: {error:?}", self.name),
        }
    }

    /// Returns whether the members of a group can change.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        let changes_members = self.steps.iter().any(|step| *step != Step::Grow);
        (self.steps_max > 0 && changes_members) || self.joining > 0 || self.losses > 0
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

/// Returns the configuration called `name`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Configuration> {
    ALL.iter().find(|configuration| configuration.name == name)
}
