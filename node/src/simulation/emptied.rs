//! Disks that are lost and come back empty under their old names, by somebody's mistake (edge 27).
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::steady::{NODES, Steady, WRITER};
use crate::answer::Outcome;
use crate::driver::NodeError;

/// How long anything may take in simulated time.
const BOUND: Duration = Duration::from_secs(30);

/// How long everybody has to make what it learned durable.
const WHILE: Duration = Duration::from_secs(1);

/// Who meets it must tell a node that its directory is not the one that it was.
#[test]
fn an_emptied_node_ends_before_it_votes() {
    for seed in 1..=5 {
        let mut steady = Steady::start(seed);
        steady.run_for(WHILE);
        steady.power_off(5);
        steady.world.with(|state| state.lose_disk(5));
        // So that its peers reach it first.
        steady.part(5, &[WRITER], true);
        steady.power_on(5);
        steady.run_until(BOUND, |steady| !steady.ended.is_empty());
        assert!(matches!(steady.ended.as_slice(), [(5, NodeError::OtherLog { .. })]), "{seed}");
    }
}

/// A writer that reaches an emptied node before its peers do must not count it: with two that
/// missed a write, it would be a read quorum that has never heard of it.
#[test]
fn an_emptied_node_makes_no_read_quorum() {
    for seed in 1..=10 {
        let mut steady = Steady::start(seed);
        steady.run_for(WHILE);
        let everybody: Vec<usize> = (0..=NODES).collect();
        steady.part(4, &everybody, true);
        steady.part(5, &everybody, true);
        let write = steady.write(1, b"acknowledged");
        steady.run_until(BOUND, |_| matches!(write.take(), Outcome::Given(Ok(_))));

        // Of the four that have it, one loses its disk, and the others are away for a while. The
        // power went everywhere: nobody remembers what it did not make durable.
        let writer = steady.writer;
        steady.world.with(|state| state.freeze(writer, false));
        (0..NODES).for_each(|node| steady.power_off(node));
        steady.world.with(|state| state.lose_disk(1));
        steady.part(4, &everybody, false);
        steady.part(5, &everybody, false);
        steady.part(1, &[0, 2, 3, 4, 5], true);
        [1, 4, 5].into_iter().for_each(|node| steady.power_on(node));
        // It takes four to open a volume. This one has nothing, and can't be among the three that
        // are asked.
        steady.power_on(0);
        steady.part(0, &[WRITER], true);
        let opening = steady.begin_to_take_over();
        steady.run_for(WHILE);
        assert!(matches!(opening.take(), Outcome::NotYet), "seed {seed}");
        steady.part(0, &[WRITER], false);
        [2, 3].into_iter().for_each(|node| steady.power_on(node));
        let mut opened = None;
        steady.run_until(BOUND, |_| {
            if let Outcome::Given(outcome) = opening.take() {
                opened = Some(outcome.unwrap());
            }
            opened.is_some()
        });
        assert!(opened.unwrap().recovery_point.lsn().get() > 0, "seed {seed}: a write is lost");
    }
}
