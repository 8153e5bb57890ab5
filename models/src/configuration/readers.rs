//! Configurations with readers, and with versions that are discarded.

use super::list::{SINGLE, SMALLEST};
use super::{Configuration, Tier};

pub(super) const COLLECT_E2: Configuration = Configuration {
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
};

pub(super) const COLLECT_HOLD: Configuration = Configuration {
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
};

pub(super) const READER_STREAM: Configuration = Configuration {
    name: "reader-stream",
    purpose: "a reader whose stream has gaps, repeats and late pages, on three segments",
    quorums: SMALLEST,
    writes: 2,
    mtrs: &[&[0, 0]],
    allocation_max: 4,
    gossip: false,
    attaches: 2,
    ..Configuration::EMPTY
};

pub(super) const READER_E2: Configuration = Configuration {
    name: "reader-e2",
    purpose: "a reader that outlives its writer, on three segments (W=2, R=2)",
    quorums: SMALLEST,
    epochs: 2,
    writes: 2,
    gossip: false,
    attaches: 2,
    ..Configuration::EMPTY
};

pub(super) const READER_BACKTRACK: Configuration = Configuration {
    name: "reader-backtrack",
    purpose: "a reader of a volume that goes back, on three segments (W=2, R=2)",
    quorums: SMALLEST,
    epochs: 2,
    writes: 2,
    gossip: false,
    attaches: 2,
    backtracks: 1,
    ..Configuration::EMPTY
};

pub(super) const READER_ANNULLED: Configuration = Configuration {
    name: "reader-annulled",
    purpose: "a reader that has redo which the next writer annuls, on one segment",
    quorums: SINGLE,
    epochs: 2,
    writes: 2,
    mtrs: &[&[0], &[1]],
    gossip: false,
    attaches: 2,
    ..Configuration::EMPTY
};

pub(super) const READER_GARBAGE: Configuration = Configuration {
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
};

pub(super) const READER_GARBAGE_E2: Configuration = Configuration {
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
};

pub(super) const READER_IDLE: Configuration = Configuration {
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
};

pub(super) const READER_GARBAGE_THREE: Configuration = Configuration {
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
};
