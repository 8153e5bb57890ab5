//! Whole clusters in simulated worlds: what they have to stand, and what must not go unnoticed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use quorate_core::rules::Bug;
use quorate_node::simulation::{Failure, Mutant, Options, Report, run};

const DURATION: Duration = Duration::from_secs(5);

/// The most seeds in which a run has to notice what is wrong on purpose.
const KILL_SEEDS: u64 = 80;

fn simulate(seed: u64, mutant: Option<Mutant>) -> Result<Report, Box<Failure>> {
    run(&Options { seed, duration: DURATION, has_blackouts: false, mutant })
}

fn black_out(seed: u64, mutant: Option<Mutant>) -> Result<Report, Box<Failure>> {
    run(&Options { seed, duration: DURATION, has_blackouts: true, mutant })
}

/// A fault that the protocol claims to tolerate would lose a commit, show an old page, or stop the
/// volume for good; and a fault that never happens in these runs would show nothing.
#[test]
fn a_cluster_stands_every_fault_that_it_claims_to_stand() {
    let mut fired: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut commits, mut seconds) = (0, 0);
    for seed in 1..=40 {
        let has_blackouts = seed > 30;
        let outcome = if has_blackouts { black_out(seed, None) } else { simulate(seed, None) };
        let report = outcome.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.rounds > 0 && report.strict_reads > 0 && report.snapshot_reads > 0);
        if !has_blackouts {
            commits += report.commits;
            seconds += report.simulated_ns / 1_000_000_000;
        }
        for (fault, count) in report.faults {
            *fired.entry(fault).or_default() += count;
        }
    }
    assert!(commits > 80 * seconds, "{commits} commits in {seconds} simulated seconds");
    let never: Vec<&str> =
        fired.iter().filter(|(_, count)| **count == 0).map(|(fault, _)| *fault).collect();
    assert!(never.is_empty(), "faults that never fired: {never:?}");
}

/// A seed that found a mistake of the node's code would find it again.
#[test]
fn seeds_that_found_mistakes_find_none_any_more() {
    // Each fails when its correction is taken back: a writer without a quorum that spun, one that
    // spun after it had been overtaken, two segments with one hole that asked each other for ever.
    for seed in [1, 11, 163] {
        simulate(seed, None).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// An oracle that a broken machine or a lying disk satisfies would be satisfied by anything.
#[test]
fn broken_machines_and_lying_disks_are_noticed() {
    let bugs = [
        Bug::CounterOnlyEpochs,
        Bug::CplLostInGossip,
        Bug::HistoryNotCarried,
        Bug::ImpairedVotes,
        Bug::LowestSclChosen,
        Bug::LsnReuse,
        Bug::NoFence,
        Bug::ReadThenFence,
        Bug::WriteQuorumTooSmall,
    ];
    let mutants = bugs.into_iter().map(Mutant::Core).chain([Mutant::LyingDisk]);
    let mut survivors: Vec<Mutant> = mutants
        .filter(|mutant| (1..=KILL_SEEDS).all(|seed| simulate(seed, Some(*mutant)).is_ok()))
        .collect();
    // A segment that lost power is the only one that knows less than it said.
    let early = Mutant::Core(Bug::AckBeforeDurable);
    let is_unnoticed = (1..=KILL_SEEDS).all(|seed| black_out(seed, Some(early)).is_ok());
    survivors.extend(is_unnoticed.then_some(early));
    assert!(survivors.is_empty(), "nobody notices {survivors:?}");
}

fn simulate_apart(seed: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["simulate", "--seconds", "5", "--json", "--seed", seed])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// A run that another process can't repeat, event by event, is no reproduction of anything.
#[test]
fn a_seed_gives_the_same_trace_in_two_processes() {
    let (first, second) = (simulate_apart("7"), simulate_apart("7"));
    assert_eq!(first, second);
    let report = simulate(7, None).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(first.contains(&format!("\"trace_hash\":\"{}\"", report.trace_hash)));
    assert_ne!(first, simulate_apart("8"));
}

/// Whoever runs a simulation that fails has to hear so, and how to run it again.
#[test]
fn a_failure_ends_with_its_story() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["simulate", "--seconds", "5", "--seeds", "40", "--mutant", "nofence"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("VIOLATION at "), "{text}");
    assert!(text.contains("Again: quorate simulate --seed "), "{text}");
}
