//! Seeded bugs, and which configurations notice them.

use std::time::Duration;

use quorate_core::rules::{Bug, Seeded};
use quorate_models::configuration::Configuration;

use crate::run::{Outcome, Search, Verdict, run};

/// A configuration that noticed a bug.
#[derive(Clone, Debug)]
pub struct Kill {
    /// The bug.
    pub bug: Bug,
    /// The run that ended with a broken property.
    pub outcome: Outcome,
    /// How many steps the counterexample has.
    pub steps: usize,
}

/// Lets `configuration` look for `bug`; `None` when it finds nothing wrong.
pub fn hunt(bug: Bug, configuration: &Configuration, search: Search) -> (Option<Kill>, Duration) {
    let outcome = run(configuration, Seeded(bug), search, 0, |_| {});
    let elapsed = outcome.elapsed;
    let steps = match &outcome.verdict {
        Verdict::Holds => None,
        Verdict::Broken { actions, .. } => Some(actions.len()),
    };
    (steps.map(|steps| Kill { bug, outcome, steps }), elapsed)
}
