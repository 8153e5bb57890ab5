//! The configurations, one after the other.

use quorate_core::quorum::QuorumSet;

use super::scripts::{
    COMMIT_AND_BEGIN, COMMIT_WITHOUT_C, COMMITS_AND_TO_JOINT, FINISH, FINISH_NEWER,
    FINISHED_ON_ONE, FORCED_AND_BACK, LOST_TWO_OF_FOUR, REVERT, REVERT_NEWER, REVERTED_ON_ONE,
    TO_JOINT_DEGRADED, TO_JOINT_FOUR, TO_JOINT_SEVEN, TO_JOINT_SMALL, TO_SETTLED_SIX,
    TO_SINGLE_SMALL, replace, to_degraded, to_four, to_full_and_tail,
};
use super::{Configuration, Granularity, Tier, backtracks, growth, readers};

pub(super) const SMALL: QuorumSet = match QuorumSet::new(4, 3, 2) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

/// For what each segment decides by itself: more of them would multiply states, not cases.
pub(super) const SINGLE: QuorumSet = match QuorumSet::new(1, 1, 1) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

pub(super) const SMALLEST: QuorumSet = match QuorumSet::new(3, 2, 2) {
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
    readers::COLLECT_E2,
    readers::COLLECT_HOLD,
    readers::READER_STREAM,
    readers::READER_E2,
    readers::READER_BACKTRACK,
    readers::READER_ANNULLED,
    readers::READER_GARBAGE,
    readers::READER_GARBAGE_E2,
    readers::READER_IDLE,
    Configuration {
        name: "change-begin",
        purpose: "a member begins to be replaced after a commit, and another writer recovers: \
                  three segments and one",
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
        purpose: "a third writer finishes what the first half finished and the next half reverted \
                  (edge 67)",
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
        name: "change-collect",
        purpose: "a member is replaced while versions are discarded: who joins takes over a base; \
                  three segments and one",
        quorums: SMALLEST,
        joining: 1,
        epochs: 2,
        writes: 3,
        collect: true,
        steps: &[replace(2, 3), FINISH],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: COMMITS_AND_TO_JOINT,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "damage-collect",
        purpose: "a log damaged while a member is replaced and versions are discarded: three \
                  segments and one",
        quorums: SMALLEST,
        joining: 1,
        writes: 3,
        collect: true,
        damages: 1,
        steps: &[replace(2, 3), FINISH],
        steps_max: 2,
        roles: &[0, 0, 1, 2],
        script: COMMITS_AND_TO_JOINT,
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
        name: "forced",
        purpose: "two of four disks are lost for ever and an operator forces the volume open, \
                  while another writer recovers (edge 65)",
        quorums: SMALL,
        epochs: 3,
        writes: 1,
        steps: &[FINISH, REVERT, to_four()],
        steps_max: 1,
        forced: 0b1100,
        forced_writers: 1,
        roles: &[0, 0, 1, 1],
        script: LOST_TWO_OF_FOUR,
        ..Configuration::EMPTY
    },
    Configuration {
        name: "forced-again",
        purpose: "an operator forces a volume open a second time, after new disks have come in the \
                  place of the lost ones",
        quorums: SMALL,
        epochs: 3,
        writes: 2,
        steps: &[FINISH, to_four()],
        steps_max: 3,
        forced: 0b1100,
        forced_writers: 2,
        roles: &[0, 0, 1, 1],
        script: FORCED_AND_BACK,
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
        name: "forced-back",
        purpose: "two of four disks are lost for ever, a volume forced open goes back to four, and \
                  another writer recovers",
        tier: Tier::Full,
        quorums: SMALL,
        epochs: 3,
        writes: 1,
        steps: &[FINISH, REVERT, to_four()],
        steps_max: 2,
        forced: 0b1100,
        forced_writers: 1,
        roles: &[0, 0, 1, 1],
        script: LOST_TWO_OF_FOUR,
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
    growth::GROWTH_WRITE,
    growth::GROWTH_E2,
    growth::GROWTH_E3,
    growth::GROWTH_NUMBER,
    growth::GROWTH_FRESH,
    growth::GROWTH_CHANGE,
    growth::GROWTH_READER,
    growth::GROWTH_BACKTRACK,
    backtracks::BACKTRACK_SMALL,
    backtracks::BACKTRACK_FORWARD,
    backtracks::BACKTRACK_LIMIT,
    backtracks::BACKTRACK_MTR,
    backtracks::BACKTRACK_E2,
    backtracks::BACKTRACK_E3R2,
    backtracks::BACKTRACK_GROUPS,
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
    readers::READER_GARBAGE_THREE,
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
