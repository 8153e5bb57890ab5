//! Seeded bugs, and which configurations notice them.

use std::sync::{Mutex, mpsc};
use std::thread;

use quorate_core::rules::{Bug, Seeded};
use quorate_models::configuration::{self, Configuration, Tier};
use serde::{Deserialize, Serialize};

use crate::run::{Outcome, Search, Verdict, run};
use crate::{expected, source};

/// The configurations that look for a bug which is listed as a gap, unless all are to.
const GAP_CONFIRMED_BY: &[&str] = &["zombie-e2r2"];

/// What was found out about one bug.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The bug.
    pub bug: String,
    /// The configurations that notice it, with the property that it breaks there and the number
    /// of steps of a shortest way to break it.
    pub kills: Vec<Kill>,
    /// The configurations that notice it.
    pub killed_by: Vec<String>,
    /// The configurations that were explored to the end and don't.
    pub survived: Vec<String>,
    /// Steps of the shortest counterexample.
    pub depth: Option<usize>,
    /// Seconds until the first configuration noticed it, or in all if none did.
    pub seconds: f64,
    /// The reason why nothing notices it, if that is known.
    pub gap: Option<String>,
    /// Hash of the core's sources.
    pub core: String,
    /// Hash of the models' sources.
    pub models: String,
}

/// One configuration's counterexample.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Kill {
    /// The configuration.
    pub configuration: String,
    /// The property that is broken.
    pub property: String,
    /// Steps to break it.
    pub steps: usize,
}

impl Row {
    /// Returns whether the bug is killed, or known to survive.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.killed_by.is_empty() == self.gap.is_some()
    }
}

/// Lets `configuration` look for `bug`, breadth first: what it finds is a shortest way to break a
/// property.
#[must_use]
pub fn hunt(bug: Bug, configuration: &Configuration) -> Outcome {
    run(configuration, Seeded(bug), Search::Breadth, 0, |_| {})
}

/// Lets configurations look for each of `bugs`, `jobs` bugs at a time: those known to find it
/// fast, or with `every` all of the quick tier. Calls `tell` with each result.
pub fn matrix(bugs: &[Bug], every: bool, jobs: usize, mut tell: impl FnMut(Row)) {
    let (to, rows) = mpsc::channel();
    let queue = Mutex::new(bugs.iter().copied());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (to, queue) = (to.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(bug) = next else { return };
                    let _ = to.send(row(bug, &configurations(bug, every)));
                }
            });
        }
        drop(to);
        rows.iter().for_each(&mut tell);
    });
}

fn configurations(bug: Bug, every: bool) -> Vec<&'static Configuration> {
    let quick = configuration::ALL.iter().filter(|c| c.tier == Tier::Quick);
    let known = expected::KILLERS.iter().find(|(of, _)| *of == bug).map(|(_, names)| *names);
    // Of a gap, that it survives is confirmed where that is soon done.
    let is_gap = expected::GAPS.iter().any(|(of, _)| *of == bug);
    let known = if is_gap { Some(GAP_CONFIRMED_BY) } else { known };
    match known {
        Some(names) if !every => {
            quick.filter(|configuration| names.contains(&configuration.name)).collect()
        }
        Some(_) | None => quick.collect(),
    }
}

fn row(bug: Bug, configurations: &[&'static Configuration]) -> Row {
    let gap = expected::GAPS.iter().find(|(of, _)| *of == bug);
    let mut row = Row {
        bug: bug.name().to_owned(),
        kills: Vec::new(),
        killed_by: Vec::new(),
        survived: Vec::new(),
        depth: None,
        seconds: 0.0,
        gap: gap.map(|(_, reason)| (*reason).to_owned()),
        core: source::CORE.to_owned(),
        models: source::MODELS.to_owned(),
    };
    for configuration in configurations {
        let outcome = hunt(bug, configuration);
        let name = configuration.name.to_owned();
        if row.killed_by.is_empty() {
            row.seconds += outcome.elapsed.as_secs_f64();
        }
        match &outcome.verdict {
            Verdict::Holds => row.survived.push(name),
            Verdict::Broken { property, actions } => {
                let (property, steps) = (property.name().to_owned(), actions.len());
                row.depth = Some(row.depth.map_or(steps, |depth| depth.min(steps)));
                row.kills.push(Kill { configuration: name.clone(), property, steps });
                row.killed_by.push(name);
            }
        }
    }
    row
}
