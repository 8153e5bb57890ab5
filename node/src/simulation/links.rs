//! Machines that are gone without a word, and processes that hang with their connections open.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::time::Duration;

use super::steady::{NODES, Steady};
use crate::env::simulated::Crash;
use crate::payload::PAGE_BYTES_MAX;

/// A machine that is gone takes at most so long to be noticed: two seconds until it is asked, three
/// for an answer, and some for the clocks.
const NOTICED: Duration = Duration::from_millis(5500);

fn is_up(steady: &Steady, node: usize) -> bool {
    steady.volume.status().unwrap().groups[0].segments[node].is_up
}

/// A machine without power sends no end of its connections: an idle writer, and other nodes, must
/// not take it for well for ever.
#[test]
fn a_machine_that_is_gone_is_noticed_by_who_calls_it() {
    for seed in 1..=5 {
        let mut steady = Steady::start(seed);
        steady.run_for(Duration::from_secs(10));
        assert!((0..NODES).all(|node| is_up(&steady, node)), "idle links stay up");
        let all = NODES - 1;
        assert!(steady.nodes.values().all(|(_, node)| node.connections() == (all, NODES)));
        let gone = steady.nodes[&2].0;
        steady.world.with(|state| state.crash(gone, Crash::Power));
        steady.run_until(NOTICED, |steady| !is_up(steady, 2));
        steady.run_until(NOTICED, |steady| {
            let others = steady.nodes.iter().filter(|(node, _)| **node != 2);
            others.map(|(_, (_, node))| node.connections().0).all(|up| up == all - 1)
        });
    }
}

/// A node must not keep the connections of callers whose machines are gone: it has room for a few.
#[test]
fn a_caller_that_is_gone_is_noticed() {
    let mut steady = Steady::start(3);
    steady.run_for(Duration::from_secs(1));
    let writer = steady.writer;
    steady.world.with(|state| state.crash(writer, Crash::Power));
    steady.run_until(Duration::from_secs(20), |steady| {
        steady.nodes.values().all(|(_, node)| node.connections() == (NODES - 1, NODES - 1))
    });
}

/// A node that hangs must cost its writer neither memory without bound nor its memory for ever, and
/// gets what it has missed when it goes on.
#[test]
fn a_node_that_hangs_is_given_up_and_taken_back() {
    let mut steady = Steady::start(4);
    steady.run_for(Duration::from_secs(1));
    let hung = steady.nodes[&3].0;
    steady.world.with(|state| state.freeze(hung, false));
    let mut most = 0;
    for page in 0..1500 {
        let _commit = steady.write(page, &[7; PAGE_BYTES_MAX]);
        if page % 16 == 0 {
            steady.run_until(Duration::from_secs(5), |steady| {
                steady.volume.status().unwrap().bytes_under_way < 1 << 20
            });
            most = most.max(steady.volume.backlog());
        }
    }
    assert!(most > 1 << 20, "it was never clogged: {most}");
    assert!(most <= 48 << 20, "{most}");
    steady.run_until(NOTICED, |steady| !is_up(steady, 3) && steady.volume.backlog() == 0);
    steady.world.with(|state| state.thaw(hung));
    steady.level();
}
