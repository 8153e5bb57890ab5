//! Configurations in which a volume grows.

use quorate_core::membership::Step;

use super::list::SMALLEST;
use super::scripts::replace;
use super::{Configuration, Scripted};

const GROW: &[Step] = &[Step::Grow];

/// A volume of one group that can get another one.
const GROWING: Configuration = Configuration {
    groups: 2,
    growing: 1,
    writes: 1,
    gossip: false,
    steps: GROW,
    steps_max: 1,
    ..Configuration::EMPTY
};

pub(super) const GROWTH_WRITE: Configuration = Configuration {
    name: "growth-write",
    purpose: "a group of six that gets another one while it is written, mini-transactions across \
              both",
    mtrs: &[&[1], &[0, 1]],
    ..GROWING
};

pub(super) const GROWTH_E2: Configuration = Configuration {
    name: "growth-e2",
    purpose: "a volume that grows while another writer recovers, on three segments (W=2, R=2)",
    quorums: SMALLEST,
    epochs: 2,
    mtrs: &[&[1], &[0, 1]],
    ..GROWING
};

/// The new group is founded, and A alone has heard of it. A second writer has sealed B and C.
const HALF_MADE: &[Scripted] = &[
    Scripted::Step { writer: 0, step: 0 },
    Scripted::Group { group: 1 },
    Scripted::Install { writer: 0, to: 0b011 },
    Scripted::Group { group: 0 },
    Scripted::Install { writer: 0, to: 0b001 },
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b110 },
];

pub(super) const GROWTH_E3: Configuration = Configuration {
    name: "growth-e3",
    purpose: "a group that one writer has half made is left by the next, and comes up in a third \
              recovery, while all of them go on (edge 55)",
    quorums: SMALLEST,
    epochs: 3,
    mtrs: &[&[1]],
    seals_stop: true,
    steps_max: 2,
    script: HALF_MADE,
    ..GROWING
};

/// The second group is there, and everybody knows.
const GROWN: &[Scripted] = &[
    Scripted::Step { writer: 0, step: 0 },
    Scripted::Group { group: 1 },
    Scripted::Install { writer: 0, to: 0b111 },
    Scripted::Group { group: 0 },
    Scripted::Install { writer: 0, to: 0b111 },
    Scripted::Install { writer: 0, to: 0b111 },
];

pub(super) const GROWTH_NUMBER: Configuration = Configuration {
    name: "growth-number",
    purpose: "a third group is added by the first writer or by the next, whose numbers begin anew",
    quorums: SMALLEST,
    groups: 3,
    growing: 2,
    epochs: 2,
    mtrs: &[&[2]],
    seals_stop: true,
    steps_max: 2,
    script: GROWN,
    ..GROWING
};

/// A record of the second group is on its way to C, which has heard of nothing.
const WRITTEN_UNHEARD: &[Scripted] = &[
    Scripted::Step { writer: 0, step: 0 },
    Scripted::Group { group: 1 },
    Scripted::Install { writer: 0, to: 0b011 },
    Scripted::Group { group: 0 },
    Scripted::Install { writer: 0, to: 0b111 },
    Scripted::Install { writer: 0, to: 0b111 },
    Scripted::Write { writer: 0, mtr: 0 },
];

pub(super) const GROWTH_FRESH: Configuration = Configuration {
    name: "growth-fresh",
    purpose: "a segment of a new group that hears of one writer's records when the next has \
              written there too",
    quorums: SMALLEST,
    epochs: 2,
    writes: 2,
    mtrs: &[&[1]],
    seals_stop: true,
    gossip: true,
    script: WRITTEN_UNHEARD,
    ..GROWING
};

/// ABC and ABD are settled everywhere when the second group is founded; A and B have heard of it. A
/// record of it is on A.
const JOINT_AND_GROWN: &[Scripted] = &[
    Scripted::Step { writer: 0, step: 1 },
    Scripted::Install { writer: 0, to: 0b1111 },
    Scripted::Install { writer: 0, to: 0b1111 },
    Scripted::Step { writer: 0, step: 0 },
    Scripted::Group { group: 1 },
    Scripted::Install { writer: 0, to: 0b0111 },
    Scripted::Group { group: 0 },
    Scripted::Install { writer: 0, to: 0b0011 },
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Group { group: 1 },
    Scripted::Append { writer: 0, to: 0b0001 },
];

pub(super) const GROWTH_CHANGE: Configuration = Configuration {
    name: "growth-change",
    purpose: "a volume grows while a member of its first group is replaced, and another writer \
              recovers: three segments and one",
    quorums: SMALLEST,
    joining: 1,
    epochs: 2,
    mtrs: &[&[1]],
    seals_stop: true,
    steps: &[Step::Grow, replace(2, 3)],
    steps_max: 2,
    roles: &[0, 0, 1, 2],
    script: JOINT_AND_GROWN,
    ..GROWING
};

pub(super) const GROWTH_READER: Configuration = Configuration {
    name: "growth-reader",
    purpose: "a reader of a volume that grows, on three segments (W=2, R=2)",
    quorums: SMALLEST,
    mtrs: &[&[1]],
    attaches: 1,
    ..GROWING
};

/// A commit is on all three, and the second group is founded.
const COMMIT_AND_FOUND: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b111 },
    Scripted::Step { writer: 0, step: 0 },
    Scripted::Group { group: 1 },
    Scripted::Install { writer: 0, to: 0b111 },
];

pub(super) const GROWTH_BACKTRACK: Configuration = Configuration {
    name: "growth-backtrack",
    purpose: "a volume that goes back to before its second group was there, on three segments",
    quorums: SMALLEST,
    epochs: 2,
    writes: 2,
    mtrs: &[&[0], &[1]],
    seals_stop: true,
    backtracks: 1,
    script: COMMIT_AND_FOUND,
    ..GROWING
};
