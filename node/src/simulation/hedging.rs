//! Reads of a cluster in which one node hangs and another one is a hundred times slower.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use super::steady::{Pending, Steady, WRITER};
use crate::answer::Outcome;
use crate::env::simulated::random::nanoseconds;
use crate::volume::{Consistency, PageVersion};

const PAGES: u64 = 24;

/// How many reads are under way.
const IN_FLIGHT: usize = 8;

/// Reads `count` times, and returns how long each read took, sorted, in nanoseconds.
fn read(steady: &mut Steady, count: usize, consistency: Consistency) -> Vec<u64> {
    let mut under_way: Vec<(u64, Pending<PageVersion>)> = Vec::new();
    let mut took = Vec::new();
    let mut issued = 0;
    while took.len() < count {
        while under_way.len() < IN_FLIGHT && issued < count {
            let page = issued as u64 % PAGES;
            under_way.push((steady.now(), steady.read(page, consistency)));
            issued += 1;
        }
        let before = took.len();
        steady.run_until(Duration::from_secs(30), |steady| {
            under_way.retain(|(since, answer)| match answer.take() {
                Outcome::Given(Ok(version)) => {
                    assert_eq!(version.bytes, version.page.get().to_le_bytes());
                    took.push(steady.now() - since);
                    false
                }
                Outcome::Given(Err(error)) => panic!("{error}"),
                Outcome::Never => panic!("the writer process has ended"),
                Outcome::NotYet => true,
            });
            took.len() > before
        });
    }
    took.sort_unstable();
    took
}

/// Returns a cluster whose segments are all complete.
fn filled(seed: u64) -> Steady {
    let mut steady = Steady::start(seed);
    for page in 0..PAGES {
        let _commit = steady.write(page, &page.to_le_bytes());
    }
    steady.level();
    steady
}

fn slow_down(steady: &Steady, node: usize, is_on: bool) {
    steady.world.with(|state| {
        state.slow_down(node, WRITER, is_on);
        state.slow_down(WRITER, node, is_on);
    });
}

/// A node that hangs with its connections up, and one that takes up to 160 ms where others take
/// one, must not make any read wait for a second, nor many reads wait at all.
#[test]
fn reads_stay_fast_beside_a_hung_and_a_slow_segment() {
    for seed in 1..=5 {
        let mut steady = filled(seed);
        let hung = steady.nodes[&3].0;
        steady.world.with(|state| state.freeze(hung, false));
        slow_down(&steady, 4, true);
        let count = 3000;
        let took = read(&mut steady, count, Consistency::Snapshot);
        let at = |percent: usize| Duration::from_nanos(took[(count - 1) * percent / 100]);
        let shown = format!("seed {seed}: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
        assert!(at(99) < Duration::from_millis(8), "{shown}");
        assert!(at(100) < Duration::from_millis(150), "{shown}");
        let status = steady.volume.status().unwrap();
        assert!(status.reads_hedged > 0, "{shown}");
        assert!(status.reads_hedged <= count as u64 / 20 + 16, "{status:?}");
        // At most two a second for each of the two, and now and then one of a segment that was
        // slow by chance.
        let seconds = steady.now() / nanoseconds(Duration::from_secs(1)) + 1;
        assert!(status.reads_probed <= 4 * seconds + 2, "{status:?}");
        // Strict reads take the same way.
        let strict = read(&mut steady, 300, Consistency::Strict);
        assert!(strict[299] < nanoseconds(Duration::from_millis(150)), "{strict:?}");
    }
}

/// Segments that are well again must get their share of the reads again.
#[test]
fn segments_that_are_well_again_are_read_from() {
    let mut steady = filled(9);
    let hung = steady.nodes[&3].0;
    steady.world.with(|state| state.freeze(hung, false));
    slow_down(&steady, 4, true);
    read(&mut steady, 500, Consistency::Snapshot);
    steady.world.with(|state| state.thaw(hung));
    slow_down(&steady, 4, false);
    // Reads at long intervals: what brings a segment back is time, and reads to probe it with.
    let mut probed_in = |rounds: u32| {
        let probed = |steady: &Steady| steady.volume.status().unwrap().reads_probed;
        let before = probed(&steady);
        for _ in 0..rounds {
            read(&mut steady, IN_FLIGHT, Consistency::Snapshot);
            steady.run_for(Duration::from_millis(300));
        }
        probed(&steady) - before
    };
    assert!(probed_in(60) > 4);
    // A segment that is still taken for a slow one would be probed every other time.
    let probes = probed_in(60);
    assert!(probes < 15, "{probes} probes in 18 s");
}
