//! Tests that counting states up to the names of segments loses none and merges none.

use std::collections::{BTreeSet, HashSet};

use quorate_core::id::{Permutation, PgId, Position};
use quorate_core::quorum::QuorumSet;
use quorate_core::rules::{Rules, Sound};
use stateright::{Checker, Model};

use crate::configuration::{Configuration, Granularity};
use crate::world::{Sent, State, World};

const THREE: QuorumSet = match QuorumSet::new(3, 2, 2) {
    Ok(quorums) => quorums,
    Err(_) => QuorumSet::AURORA,
};

const PERMUTATIONS: [[usize; 3]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Returns every state of `world`, which tells segments apart.
fn reachable<R: Rules>(world: &World<R>) -> Vec<State> {
    let mut states = world.init_states();
    let mut seen: HashSet<u64> = states.iter().map(|state| state.canonical).collect();
    let mut next = 0;
    while let Some(state) = states.get(next).copied() {
        next += 1;
        let mut actions = Vec::new();
        world.actions(&state, &mut actions);
        for action in actions {
            let Some(state) = world.next_state(&state, action) else { continue };
            if seen.insert(state.canonical) {
                states.push(state);
            }
        }
    }
    states
}

/// Renames the segments of the only group: every machine, message and disk, then hashes what came
/// out, segment by segment.
fn renamed<R: Rules>(world: &World<R>, state: &State, to: &[usize]) -> u64 {
    let permutation = Permutation::new(to).unwrap();
    let mut next = *state;
    for position in Position::first(to.len()) {
        let name = permutation.of(position).index();
        next.set_slot(name, state.slot(position.index()));
    }
    for (index, node) in world.started(state) {
        let machine = node.machine.permute(PgId::new(0), &permutation);
        let rename = |sent: &Sent| Sent { to: permutation.of_set(sent.to), ..sent.clone() };
        let sent = node.sent.iter().map(rename).collect();
        next.set_writer(index, world.intern_writer(machine, sent, node.stream.clone(), &[]));
    }
    world.canonical(next).canonical
}

fn check(configuration: &Configuration) {
    let apart = Configuration { symmetric: false, ..*configuration };
    let together = Configuration { symmetric: true, ..*configuration };
    let world = World::new(&apart, Sound, 0);
    let judge = World::new(&together, Sound, 0);
    let states = reachable(&world);

    // By brute force: the smallest fingerprint among those of all renamings.
    let smallest = |state: &State| {
        PERMUTATIONS.iter().map(|to| renamed(&world, state, to)).min().unwrap_or_default()
    };
    let by_force: BTreeSet<u64> = states.iter().map(smallest).collect();

    let explored = judge.checker().spawn_dfs().join();
    assert!(explored.discoveries().is_empty());
    assert_eq!(explored.unique_state_count(), by_force.len());
    assert!(by_force.len() < states.len(), "there is something to merge");
}

/// A state that is merged with one that it isn't a renaming of would never be explored.
#[test]
fn states_are_merged_exactly_when_they_are_renamings_of_each_other() {
    check(&Configuration { quorums: THREE, epochs: 2, writes: 1, ..Configuration::EMPTY });
}

/// The same where deliveries, syncs and answers are steps of their own, and segments crash.
#[test]
fn split_states_are_merged_exactly_when_they_are_renamings_of_each_other() {
    check(&Configuration {
        quorums: THREE,
        granularity: Granularity::Split,
        writes: 1,
        crashes: 1,
        gossip: false,
        ..Configuration::EMPTY
    });
}

/// Two seeds share no fingerprint: equal counts say that no collision hid a state under either.
#[test]
fn another_seed_counts_the_same() {
    let configuration = Configuration { epochs: 2, writes: 1, ..Configuration::EMPTY };
    let count = |seed| {
        let checker = World::new(&configuration, Sound, seed).checker().spawn_dfs().join();
        (checker.unique_state_count(), checker.state_count())
    };
    assert_eq!(count(0), count(1));
}

/// Threads explore the same states as one does.
#[test]
fn two_threads_count_the_same() {
    let configuration = Configuration { epochs: 2, writes: 1, ..Configuration::EMPTY };
    let count = |threads| {
        let world = World::new(&configuration, Sound, 0);
        world.checker().threads(threads).spawn_dfs().join().unique_state_count()
    };
    assert_eq!(count(1), count(2));
}
