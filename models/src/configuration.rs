//! What is explored: which machines, how many, within which budgets.

use quorate_core::epoch::VolumeEpoch;
use quorate_core::formula::{Half, Term};
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, InstanceId, Position, SegmentId, SegmentSet};
use quorate_core::membership::Step;
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

/// One thing that happens before an exploration starts: a start state is reached by the core itself,
/// so it is reachable. Sets of segments are bits by position.
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
    /// Ranges of a history. The first writer has made one.
    pub history_ranges_max: u32,
    /// Crashes of segments in all.
    pub crashes: u8,
    /// Segments whose logs are damaged, in all.
    pub damages: u8,
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
        epochs: 1,
        writes: 1,
        mtrs: &[&[0]],
        allocation_max: 2,
        history_ranges_max: 16,
        crashes: 0,
        damages: 0,
        gossip: true,
        gossip_messages: false,
        publish: false,
        resend: false,
        strict_reads: 0,
        one_counter: false,
        seals_stop: false,
        symmetric: true,
        any_order: false,
        joining: 0,
        steps: &[],
        steps_max: 0,
        losses: 0,
        roles: &[],
        script: &[],
    };

    /// Returns the number of segments of a group, with those that may join.
    #[must_use]
    pub const fn members(&self) -> usize {
        self.quorums.members().saturating_add(self.joining)
    }

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
            history_ranges_max: self.history_ranges_max,
            pending_writes_max: 2,
        };
        match VolumeGeometry::new(self.groups, self.quorums, limits) {
            Ok(geometry) => geometry,
            Err(error) => panic!("configuration {}: {error:?}", self.name),
        }
    }

    /// Returns whether the members of a group can change.
    #[must_use]
    pub const fn has_changes(&self) -> bool {
        self.steps_max > 0 || self.joining > 0 || self.losses > 0
    }

    fn records_max(&self) -> u32 {
        let longest = self.mtrs.iter().map(|mtr| mtr.len()).max().unwrap_or(1);
        u32::try_from(longest).unwrap_or(1).saturating_mul(u32::from(self.writes)).max(1)
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

const SMALLEST: QuorumSet = match QuorumSet::new(3, 2, 2) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

/// The step that replaces the member at position `old` by an empty disk at position `new`.
const fn replace(old: usize, new: usize) -> Step {
    match (Position::new(old), Position::new(new)) {
        (Some(old), Some(position)) => {
            let new = SegmentId { position, incarnation: Incarnation::new(1) };
            Step::Replace { old, new }
        }
        (_, _) => Step::Finish(Half::Older),
    }
}

const FINISH: Step = Step::Finish(Half::Older);
const REVERT: Step = Step::Revert(Half::Older);

const FINISH_NEWER: Step = Step::Finish(Half::Newer);
const REVERT_NEWER: Step = Step::Revert(Half::Newer);

/// The step to three full and three tail segments.
const fn to_full_and_tail() -> Step {
    match Term::of(QuorumSet::AURORA).full_and_tail(SegmentSet::from_bits(0b01_0101)) {
        Ok(term) => Step::Reshape(term),
        Err(_) => FINISH,
    }
}

/// The step to the four segments of two zones.
const fn to_degraded() -> Step {
    match Term::of(QuorumSet::AURORA).degraded(SegmentSet::from_bits(0b11_0000)) {
        Ok(term) => Step::Reshape(term),
        Err(_) => FINISH,
    }
}

const fn step(step: u8) -> Scripted {
    Scripted::Step { writer: 0, step }
}

const fn install(writer: u8, to: u8) -> Scripted {
    Scripted::Install { writer, to }
}

/// A commit is on B and C when A to D begin to hear of ABC and ABD.
const COMMIT_AND_BEGIN: &[Scripted] =
    &[Scripted::Write { writer: 0, mtr: 0 }, Scripted::Append { writer: 0, to: 0b0110 }, step(0)];

/// ABC and ABD, settled everywhere. An install is told twice: the step, and its settled mark.
const TO_JOINT_SMALL: &[Scripted] = &[step(0), install(0, 0b1111), install(0, 0b1111)];

/// ABD, settled everywhere.
const TO_SINGLE_SMALL: &[Scripted] = &[
    step(0),
    install(0, 0b1111),
    install(0, 0b1111),
    step(1),
    install(0, 0b1111),
    install(0, 0b1111),
];

/// The joint is settled on the three old ones; ABD has reached A alone. A second writer has sealed
/// A and D, and its install has reached both.
const FINISHED_ON_ONE: &[Scripted] = &[
    step(0),
    install(0, 0b0111),
    install(0, 0b0111),
    step(1),
    install(0, 0b0001),
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b0001 },
    Scripted::Seal { writer: 1, to: 0b1000 },
    install(1, 0b1001),
];

/// Then the second writer recovers without A, from the joint, and its revert reaches B alone. A third
/// has sealed A and D and opens on A, C and D.
const REVERTED_ON_ONE: &[Scripted] = &[
    step(0),
    install(0, 0b0111),
    install(0, 0b0111),
    step(1),
    install(0, 0b0001),
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b0110 },
    install(1, 0b1110),
    Scripted::Step { writer: 1, step: 2 },
    install(1, 0b0010),
    Scripted::Recover,
    Scripted::Seal { writer: 2, to: 0b0001 },
    Scripted::Seal { writer: 2, to: 0b1000 },
    install(2, 0b1101),
];

/// ABD is settled on its three, C knows of no change, and a commit is on A and D.
const COMMIT_WITHOUT_C: &[Scripted] = &[
    step(0),
    install(0, 0b1011),
    install(0, 0b1011),
    step(1),
    install(0, 0b1011),
    install(0, 0b1011),
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b1001 },
];

/// The shape has changed, and everybody knows.
const TO_SETTLED_SIX: &[Scripted] = &[
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
    step(1),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
];

/// A record is on C to F; the joint with the shape that needs three of A to D is settled everywhere.
const TO_JOINT_DEGRADED: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b11_1100 },
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
];

/// A commit is on C to F, and the joint with G is settled on the six.
const TO_JOINT_SEVEN: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b011_1100 },
    step(0),
    install(0, 0b111_1111),
    install(0, 0b111_1111),
];

/// A commit is on B to D, the joint with E is settled, and the four terms with F are on A to C.
const TO_JOINT_FOUR: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b00_1110 },
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
    step(1),
    install(0, 0b00_0111),
];

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
        name: "strict-two",
        purpose: "two strict reads at once, on four segments (W=3, R=2), while a writer takes over",
        quorums: SMALL,
        epochs: 2,
        writes: 1,
        strict_reads: 2,
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
        name: "history-full",
        purpose: "recoveries at the end of the history, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 4,
        writes: 1,
        history_ranges_max: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "damage-small",
        purpose: "a segment whose log is damaged, repaired by gossip, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 3,
        writes: 1,
        damages: 1,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "damage-twice",
        purpose: "two logs damaged, or one twice before its repair, on four segments (W=3, R=2)",
        quorums: SMALL,
        epochs: 2,
        writes: 1,
        damages: 2,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "damage-e2",
        purpose: "a segment whose log is damaged, repaired by gossip, on six segments",
        epochs: 2,
        writes: 1,
        damages: 1,
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
        name: "change-begin",
        purpose: "a member begins to be replaced after a commit, and another writer recovers: three \
                  segments and one",
        quorums: SMALLEST,
        joining: 1,
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[replace(2, 3), FINISH, REVERT],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: COMMIT_AND_BEGIN,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-joint",
        purpose: "a change ends either way while another writer recovers: three \
                  segments and one",
        quorums: SMALLEST,
        joining: 1,
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[replace(2, 3), FINISH, REVERT],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: TO_JOINT_SMALL,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-single",
        purpose: "steps of a writer whose change is finished: three segments and one",
        quorums: SMALLEST,
        joining: 1,
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[replace(2, 3), FINISH, REVERT],
        steps_max: 3,
        roles: &[0, 0, 1, 2],
        script: TO_SINGLE_SMALL,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-adopt",
        purpose: "two recoveries after a finished membership has reached one segment (edge 65)",
        quorums: SMALLEST,
        joining: 1,
        epochs: 3,
        writes: 1,
        gossip: false,
        steps: &[replace(2, 3), FINISH],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: FINISHED_ON_ONE,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-repropose",
        purpose: "a third writer finishes what the first half finished and the next half reverted (edge 67)",
        quorums: SMALLEST,
        joining: 1,
        epochs: 4,
        writes: 1,
        gossip: false,
        steps: &[replace(2, 3), FINISH, REVERT],
        steps_max: 3,
        roles: &[0, 0, 1, 2],
        script: REVERTED_ON_ONE,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "damage-change",
        purpose: "a log damaged after a change that one old member missed, and a recovery: three \
                  segments and one",
        quorums: SMALLEST,
        joining: 1,
        epochs: 2,
        writes: 1,
        damages: 1,
        steps: &[replace(2, 3), FINISH],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: COMMIT_WITHOUT_C,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "disk-loss",
        purpose: "a disk is lost and an empty one comes back, while another writer recovers",
        epochs: 2,
        writes: 1,
        losses: 1,
        gossip: false,
        roles: &[0; 6],
        ..Configuration::EMPTY
    },
    Configuration {
        name: "full-and-tail",
        purpose: "three segments that keep pages and three that keep the log's tail, a recovery",
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[to_full_and_tail(), FINISH],
        steps_max: 2,
        roles: &[0, 1, 0, 1, 0, 1],
        script: TO_SETTLED_SIX,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "degraded",
        purpose: "four of six segments go on with writes on three, while another writer recovers",
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[to_degraded(), FINISH],
        steps_max: 2,
        roles: &[0, 0, 0, 0, 1, 1],
        script: TO_JOINT_DEGRADED,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-seven",
        purpose: "six segments and the one that joins, from the joint membership, a recovery",
        tier: Tier::Full,
        joining: 1,
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[replace(5, 6), FINISH, REVERT],
        steps_max: 2,
        roles: &[0, 0, 0, 0, 0, 1, 2],
        script: TO_JOINT_SEVEN,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "change-twice",
        purpose: "a second member fails in the middle: four terms, on four segments and two",
        tier: Tier::Full,
        quorums: SMALL,
        joining: 2,
        epochs: 2,
        writes: 1,
        gossip: false,
        steps: &[replace(3, 4), replace(2, 5), FINISH, REVERT, FINISH_NEWER, REVERT_NEWER],
        steps_max: 3,
        roles: &[0, 0, 1, 2, 3, 4],
        script: TO_JOINT_FOUR,
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
