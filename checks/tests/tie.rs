//! The specification in `tla/` and the core reach the same number of states.
//!
//! `MCVolume_tie`: four segments that are told apart (W=3, R=2), two epochs, one record, an
//! allocation limit of two, gossip as atomic pulls. At these bounds nothing in the core's state
//! tells two states apart that the specification takes for one (`tla/README.md`), so the numbers
//! must be equal as they are. If they differ, one of the two says something else than the other.
#![allow(clippy::unwrap_used)]

use quorate_checks::run::{Search, Verdict, run};
use quorate_core::quorum::QuorumSet;
use quorate_core::rules::Sound;
use quorate_models::configuration::Configuration;

fn explore(members: u8, write: u8, writes: u8) -> (usize, usize) {
    let configuration = Configuration {
        quorums: QuorumSet::new(members, write, 2).unwrap(),
        epochs: 2,
        writes,
        symmetric: false,
        ..Configuration::EMPTY
    };
    let outcome = run(&configuration, Sound, Search::Breadth, 0, |_| {});
    assert_eq!(outcome.verdict, Verdict::Holds);
    (outcome.unique_states, outcome.depth)
}

/// The numbers are those of `tla/README.md`: distinct states and depth as both TLA+ engines count
/// them.
#[test]
fn the_core_reaches_as_many_states_as_the_specification() {
    assert_eq!(explore(4, 3, 1), (3_940, 13), "MCVolume_tie");
    assert_eq!(explore(3, 2, 1), (605, 11), "MCVolume_s3_e2_r1");
    assert_eq!(explore(3, 2, 2), (9_079, 15), "MCVolume_s3_e2_r2");
    assert_eq!(explore(4, 3, 2), (101_715, 18), "MCVolume_s4_e2_r2");
}
