//! Configurations with a clone.

use super::Configuration;
use super::list::SINGLE;

pub(super) const CLONE_COLLECT: Configuration = Configuration {
    name: "clone-collect",
    purpose: "a clone of a volume whose old versions are discarded, and a recovery, on one segment",
    quorums: SINGLE,
    epochs: 2,
    writes: 2,
    publish: true,
    collect: true,
    gossip: false,
    clones: 1,
    ..Configuration::EMPTY
};

pub(super) const CLONE_MTR: Configuration = Configuration {
    name: "clone-mtr",
    purpose: "a clone between mini-transactions of two records, on one segment",
    quorums: SINGLE,
    writes: 2,
    mtrs: &[&[0, 1]],
    allocation_max: 4,
    gossip: false,
    clones: 1,
    ..Configuration::EMPTY
};

pub(super) const CLONE_BACKTRACK: Configuration = Configuration {
    name: "clone-backtrack",
    purpose: "a clone of a volume that is to go back, on one segment",
    quorums: SINGLE,
    epochs: 2,
    writes: 2,
    gossip: false,
    backtracks: 1,
    clones: 1,
    ..Configuration::EMPTY
};
