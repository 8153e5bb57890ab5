//! Configurations in which a volume goes to another point of its log.

use super::list::{SMALL, SMALLEST};
use super::{Configuration, Tier};

pub(super) const BACKTRACK_SMALL: Configuration = Configuration {
    name: "backtrack-small",
    purpose: "a volume that goes back and forward again, on four segments",
    quorums: SMALL,
    epochs: 3,
    writes: 1,
    backtracks: 2,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_FORWARD: Configuration = Configuration {
    name: "backtrack-forward",
    purpose: "a volume that goes back and forward again, with writes before and after",
    quorums: SMALLEST,
    epochs: 3,
    writes: 2,
    backtracks: 2,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_LIMIT: Configuration = Configuration {
    name: "backtrack-limit",
    purpose: "a volume that goes back while the overtaken writer is at its limit",
    quorums: SMALLEST,
    epochs: 3,
    writes: 3,
    allocation_max: 1,
    backtracks: 1,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_MTR: Configuration = Configuration {
    name: "backtrack-mtr",
    purpose: "a volume that goes back between mini-transactions of two records",
    quorums: SMALL,
    epochs: 2,
    writes: 2,
    mtrs: &[&[0, 1]],
    backtracks: 1,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_E2: Configuration = Configuration {
    name: "backtrack-e2",
    purpose: "a volume that goes back, at six segments",
    epochs: 2,
    writes: 2,
    backtracks: 1,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_E3R2: Configuration = Configuration {
    name: "backtrack-e3r2",
    purpose: "a volume that goes back and forward again, on four segments, with writes",
    tier: Tier::Full,
    quorums: SMALL,
    epochs: 3,
    writes: 2,
    backtracks: 2,
    ..Configuration::EMPTY
};

pub(super) const BACKTRACK_GROUPS: Configuration = Configuration {
    name: "backtrack-groups",
    purpose: "a volume of two groups that goes back, on three segments each",
    tier: Tier::Full,
    quorums: SMALLEST,
    groups: 2,
    epochs: 3,
    writes: 2,
    mtrs: &[&[0], &[0, 1]],
    backtracks: 1,
    ..Configuration::EMPTY
};
