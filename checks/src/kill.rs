//! Seeded bugs, and which configurations notice them.

use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use quorate_core::rules::{Bug, Seeded};
use quorate_models::configuration::{self, Configuration, Tier};
use serde::{Deserialize, Serialize};

use crate::run::{Outcome, Search, Verdict, run};
use crate::{expected, live, source};

/// The configurations that look for a bug which breaks no property, unless all are to: one that is
/// listed as a gap, or that gets stuck.
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
///
/// # Errors
/// The first of `tell`; hunts under way then go on until the process ends.
pub fn matrix(
    bugs: &[Bug],
    every: bool,
    jobs: usize,
    tell: impl FnMut(Row) -> io::Result<()>,
) -> io::Result<()> {
    let (to, rows) = mpsc::channel();
    let bugs = bugs.to_vec();
    let queue = Arc::new(Mutex::new(bugs.into_iter()));
    // Not in a scope, which would wait for hunts of minutes when nobody listens any more.
    for _ in 0..jobs.max(1) {
        let (to, queue) = (to.clone(), Arc::clone(&queue));
        thread::spawn(move || {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.next());
                let Some(bug) = next else { return };
                if to.send(row(bug, &configurations(bug, every))).is_err() {
                    return;
                }
            }
        });
    }
    drop(to);
    rows.iter().try_for_each(tell)
}

/// What a quick configuration is worth: the bugs that no other quick configuration kills.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Unique {
    /// The configuration.
    pub configuration: String,
    /// Bugs that it alone kills.
    pub bugs: Vec<String>,
    /// What it is kept for, if there are none and that is known.
    pub redundant: Option<String>,
}

/// Returns for each quick configuration what it alone kills, according to `rows`.
///
/// # Errors
/// When a quick configuration hasn't looked for one of the bugs: then nobody knows.
pub fn unique(rows: &[Row]) -> Result<Vec<Unique>, String> {
    let quick = || configuration::ALL.iter().filter(|c| c.tier == Tier::Quick);
    for row in rows {
        let has_looked = |name: &str| row.killed_by.iter().chain(&row.survived).any(|c| c == name);
        if let Some(idle) = quick().find(|c| !has_looked(c.name)) {
            let (name, bug) = (idle.name, &row.bug);
            return Err(format!("{name} hasn't looked for {bug}: `quorate check kill --all` does"));
        }
    }
    let of = |c: &Configuration| {
        let is_alone = |row: &&Row| row.killed_by.as_slice() == [c.name];
        let kept = expected::REDUNDANT.iter().find(|(name, _)| *name == c.name);
        Unique {
            configuration: c.name.to_owned(),
            bugs: rows.iter().filter(is_alone).map(|row| row.bug.clone()).collect(),
            redundant: kept.map(|(_, reason)| (*reason).to_owned()),
        }
    };
    Ok(quick().map(of).collect())
}

impl Unique {
    /// Returns whether the configuration kills what no other does, or is known not to.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bugs.is_empty() == self.redundant.is_some()
    }

    /// Returns the bugs, or why there are none.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.redundant {
            Some(reason) if self.bugs.is_empty() => format!("nothing: {reason}"),
            None if self.bugs.is_empty() => "NOTHING".to_owned(),
            Some(_) => format!("{} (listed as redundant)", self.bugs.join(", ")),
            None => self.bugs.join(", "),
        }
    }
}

fn configurations(bug: Bug, every: bool) -> Vec<&'static Configuration> {
    let quick = configuration::ALL.iter().filter(|c| c.tier == Tier::Quick);
    let known = expected::KILLERS.iter().find(|(of, _)| *of == bug).map(|(_, names)| *names);
    // Of a gap, that it survives is confirmed where that is soon done.
    let is_gap = expected::GAPS.iter().any(|(of, _)| *of == bug);
    let is_live = expected::LIVE_KILLERS.iter().any(|(of, _)| *of == bug);
    let known = if is_gap || is_live { Some(GAP_CONFIRMED_BY) } else { known };
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
    let live = expected::LIVE_KILLERS.iter().find(|(of, _)| *of == bug);
    for name in live.map_or(&[][..], |(_, names)| *names) {
        let Some(configuration) = configuration::named(name) else { continue };
        let start = Instant::now();
        let found = live::kills(bug, configuration);
        row.seconds += start.elapsed().as_secs_f64();
        let name = format!("live {name}");
        match found {
            None => row.survived.push(name),
            Some((property, steps)) => {
                row.depth = Some(row.depth.map_or(steps, |depth| depth.min(steps)));
                let property = property.name().to_owned();
                row.kills.push(Kill { configuration: name.clone(), property, steps });
                row.killed_by.push(name);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::evidence;

    /// A bug that two configurations kill makes neither of them necessary; counted for both, every
    /// configuration would look indispensable.
    #[test]
    fn only_what_one_configuration_kills_counts_for_it() -> Result<(), String> {
        let quick = || configuration::ALL.iter().filter(|c| c.tier == Tier::Quick);
        let row = |bug: Bug, killers: &[&str]| {
            let names = quick().map(|c| c.name.to_owned());
            let (killed_by, survived) = names.partition(|name| killers.contains(&name.as_str()));
            Row { killed_by, survived, ..row(bug, &[]) }
        };
        let mut rows = [
            row(Bug::NoFence, &["zombie-e2r2", "zombie-e3r1"]),
            row(Bug::LsnReuse, &["zombie-e3r1"]),
            row(Bug::GossipBelowPromise, &[]),
        ];
        for unique in unique(&rows)? {
            let is_alone = unique.configuration == "zombie-e3r1";
            let expected: &[&str] = if is_alone { &["LsnReuse"] } else { &[] };
            assert_eq!(unique.bugs, expected, "{}", unique.configuration);
        }
        // A configuration that hasn't looked is not one that found nothing.
        for row in &mut rows {
            row.survived.pop();
        }
        assert!(unique(&rows).is_err());
        Ok(())
    }

    /// A configuration that finds nothing by itself costs seconds on every change, for nothing or
    /// for a reason that should be written down.
    #[test]
    fn every_quick_configuration_is_worth_its_seconds() -> Result<(), String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evidence");
        let rows = evidence::ledger::<Row>(&folder.join("kill-all.jsonl"))?;
        // Measured before a release; until then there is nothing to judge.
        let Some(rows) = rows else { return Ok(()) };
        assert!(Bug::ALL.iter().all(|bug| rows.iter().any(|row| row.bug == bug.name())));
        let wrong: Vec<Unique> = unique(&rows)?.into_iter().filter(|row| !row.is_good()).collect();
        assert!(wrong.is_empty(), "REDUNDANT in checks/src/expected.rs doesn't fit: {wrong:?}");
        Ok(())
    }

    /// A reason for something that isn't there misleads whoever reviews the list.
    #[test]
    fn redundant_configurations_are_quick_ones_with_a_reason() {
        for (name, reason) in expected::REDUNDANT {
            let known = configuration::named(name).filter(|known| known.tier == Tier::Quick);
            assert!(known.is_some() && !reason.is_empty(), "{name}");
        }
    }
}
