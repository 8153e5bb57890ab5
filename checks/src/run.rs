//! One exhaustive run of one configuration.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use quorate_core::rules::Rules;
use quorate_models::configuration::Configuration;
use quorate_models::invariant::Property;
use quorate_models::step::Action;
use quorate_models::witness::Witness;
use quorate_models::world::World;
use serde::{Deserialize, Serialize};
use stateright::{Checker, Model};

/// In which order states are visited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Search {
    /// Depth first: least memory; for exhaustive runs.
    Depth,
    /// Breadth first, one thread: the counterexample found is a shortest one.
    Breadth,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every reachable state satisfies every property.
    Holds,
    /// A property is broken, by these steps.
    Broken {
        /// The property.
        property: Property,
        /// A way to break it, from the start.
        actions: Vec<Action>,
    },
}

/// How far a run under way is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Progress {
    /// Distinct states so far.
    pub unique_states: usize,
    /// Steps taken so far.
    pub transitions: usize,
    /// The longest path so far, in states.
    pub depth: usize,
    /// Seconds so far.
    pub seconds: f64,
}

/// The result of a finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was explored.
    pub configuration: Configuration,
    /// Distinct states.
    pub unique_states: usize,
    /// Steps taken, each from a distinct state.
    pub transitions: usize,
    /// The longest path, in states; of a breadth-first run the largest distance from the start.
    pub depth: usize,
    /// What was found.
    pub verdict: Verdict,
    /// How long it took.
    pub elapsed: Duration,
    /// Situations that occurred.
    pub witnesses: Vec<Witness>,
    /// Distinct machines and remembered steps.
    pub interned: usize,
}

/// Explores `configuration` under `rules` to the end, or to the first broken property.
///
/// `watch` is called about once a second. `seed` selects the fingerprints.
pub fn run<R: Rules>(
    configuration: &Configuration,
    rules: R,
    search: Search,
    seed: u64,
    mut watch: impl FnMut(Progress),
) -> Outcome {
    let watch = |progress| {
        watch(progress);
        Ok::<(), Infallible>(())
    };
    match try_run(configuration, rules, search, seed, watch) {
        Ok(outcome) => outcome,
        Err(never) => match never {},
    }
}

/// Like [`run`], with a `watch` that can give up.
///
/// # Errors
/// What `watch` says. The exploration then goes on until the process ends.
pub fn try_run<R: Rules, E>(
    configuration: &Configuration,
    rules: R,
    search: Search,
    seed: u64,
    watch: impl FnMut(Progress) -> Result<(), E>,
) -> Result<Outcome, E> {
    let start = Instant::now();
    let builder = World::new(configuration, rules, seed).checker();
    match search {
        Search::Depth => finish(configuration, builder.spawn_dfs(), start, watch),
        Search::Breadth => finish(configuration, builder.spawn_bfs(), start, watch),
    }
}

fn finish<R: Rules, E>(
    configuration: &Configuration,
    checker: impl Checker<World<R>>,
    start: Instant,
    mut watch: impl FnMut(Progress) -> Result<(), E>,
) -> Result<Outcome, E> {
    let mut pause = Duration::from_millis(1);
    while !checker.is_done() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
        if pause >= Duration::from_secs(1) {
            watch(Progress {
                unique_states: checker.unique_state_count(),
                transitions: checker.state_count(),
                depth: checker.max_depth(),
                seconds: start.elapsed().as_secs_f64(),
            })?;
        }
    }
    let checker = checker.join();
    let world = checker.model();
    let verdict = match checker.discoveries().into_iter().next() {
        None => Verdict::Holds,
        Some((_, path)) => {
            let Some(property) = world.verdict(path.last_state()) else {
                unreachable!("the checker found a state that breaks no property");
            };
            Verdict::Broken { property, actions: path.into_actions() }
        }
    };
    Ok(Outcome {
        configuration: *configuration,
        unique_states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        verdict,
        elapsed: start.elapsed(),
        witnesses: world.witnesses().seen().collect(),
        interned: world.interned(),
    })
}

/// The chance, at most, that two of `states` distinct states share a 64-bit fingerprint, so that
/// one of them was not explored: n^2 / 2^65.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "an upper bound, shown with two digits")]
pub fn collision_bound(states: usize) -> f64 {
    let states = states as f64;
    states * states / 2f64.powi(65)
}
