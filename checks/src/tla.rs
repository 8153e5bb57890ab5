//! The specification in `tla/`, checked by `tla-checker` (a Rust crate) and, where a jar is at
//! hand, by TLC; and the core itself, at the bounds at which all must count the same.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use quorate_core::quorum::QuorumSet;
use quorate_core::rules::Sound;
use quorate_models::configuration::Configuration;
use serde::{Deserialize, Serialize};
use tla_checker::checker::{CheckResult, CheckStats};
use tla_checker::load::prepare_from_path;

use crate::run::{Search, Verdict, run};
use crate::source;

/// What a configuration of the specification must do.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The configuration file, without its ending.
    pub name: &'static str,
    /// The invariant or property that must be violated, if one must.
    pub violates: Option<&'static str>,
    /// Distinct states; of a violation, those that `tla-checker` finds until then.
    pub states: usize,
    /// States on the longest shortest path, the initial one included; of a violation, the length
    /// of its trace.
    pub depth: usize,
    /// Too large for `tla-checker`: TLC's alone.
    pub is_large: bool,
}

const fn holds(name: &'static str, states: usize, depth: usize) -> Expected {
    Expected { name, violates: None, states, depth, is_large: false }
}

const fn fails(
    name: &'static str,
    violates: &'static str,
    states: usize,
    depth: usize,
) -> Expected {
    Expected { name, violates: Some(violates), states, depth, is_large: false }
}

/// Every configuration, as in the tables of `tla/README.md`.
pub const EXPECTED: &[Expected] = &[
    holds("MCVolume_s3_e2_r1", 605, 11),
    holds("MCVolume_s3_e2_r1_publish", 6_668, 16),
    holds("MCVolume_s3_e2_m2", 3_328, 14),
    holds("MCVolume_s3_e2_r2", 9_079, 15),
    holds("MCVolume_s3_e3_r1", 21_957, 17),
    holds("MCVolume_s3_e3_r2_sleeper", 2_234, 12),
    holds("MCVolume_g2_s2_e2_r2", 2_562, 14),
    holds("MCVolume_tie", 3_940, 13),
    Expected {
        name: "MCVolume_s4_e2_r2",
        violates: None,
        states: 101_715,
        depth: 18,
        is_large: true,
    },
    fails("MCVolume_NoFence", "OneWriterInv", 184, 9),
    fails("MCVolume_OpenBeforeComplete", "DurabilityInv", 218, 8),
    fails("MCVolume_SealAnswersCounted", "RecoveryIdempotentInv", 42, 5),
    fails("MCVolume_HistoryNotCarried", "NoResurrectionInv", 247, 6),
    fails("MCVolume_HistoriesMerged", "DurabilityInv", 8_213, 12),
    fails("MCVolume_GossipUnfiltered", "NoResurrectionInv", 455, 9),
    fails("MCVolume_GossipBelowPromise", "SealedProp", 60, 6),
    fails("MCVolume_RecoverAtVcl", "PrefixInv", 9, 3),
    fails("MCVolume_LsnReused", "UniqueLsnInv", 729, 8),
    fails("MCVolume_AnswersUnfiltered", "DurabilityInv", 4_119, 11),
    fails("MCVolume_AdoptedWitness", "AdoptedWitness", 765, 8),
    fails("MCVolume_TruncatedWitness", "TruncatedWitness", 321, 7),
    fails("MCVolume_ZombieWitness", "ZombieWitness", 346, 7),
    fails("MCVolume_TwoWritersWitness", "TwoWritersWitness", 4_188, 11),
    fails("MCVolume_HalfInstalledWitness", "HalfInstalledWitness", 4_493, 10),
    fails("MCVolume_SleeperWitness", "SleeperWitness", 247, 8),
];

/// The configurations at whose bounds nothing in the core's state tells two states apart that the
/// specification takes for one (`tla/README.md`): the core must reach as many states, as deep.
/// With the segments of the group, the write quorum, and the records.
const TIED: &[(&str, u8, u8, u8)] = &[
    ("MCVolume_s3_e2_r1", 3, 2, 1),
    ("MCVolume_tie", 4, 3, 1),
    ("MCVolume_s3_e2_r2", 3, 2, 2),
    ("MCVolume_s4_e2_r2", 4, 3, 2),
];

/// The core, as an engine.
pub const CORE: &str = "the core";

/// The result of one configuration under one engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The configuration.
    pub name: String,
    /// `tla-checker`, `TLC` or [`CORE`].
    pub engine: String,
    /// `holds`, `violates` and a name, or what kept the run from finishing.
    pub verdict: String,
    /// Distinct states.
    pub states: usize,
    /// Depth, in states.
    pub depth: usize,
    /// Wall time.
    pub seconds: f64,
    /// Whether all of it is as expected.
    pub is_good: bool,
    /// Hash of the core's sources.
    pub core: String,
    /// Hash of the models' sources.
    pub models: String,
}

/// Above what any configuration needs: a run that reaches it is an error, never a pass.
const STATES_MAX: usize = 5_000_000;
const DEPTH_MAX: usize = 10_000;

/// Checks one configuration with every engine at hand.
#[must_use]
pub fn check(folder: &Path, expected: &Expected, jar: Option<&Path>) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(configuration) = tied(expected.name) {
        rows.push(row(expected, CORE, |_| run_core(&configuration)));
    }
    if !expected.is_large {
        rows.push(row(expected, "tla-checker", |name| run_crate(folder, name)));
    }
    if let Some(jar) = jar {
        rows.push(row(expected, "TLC", |name| run_tlc(folder, name, jar)));
    }
    rows
}

/// What an engine found: what is violated, distinct states, depth.
type Found = (Option<String>, usize, usize);

fn row(
    expected: &Expected,
    engine: &str,
    explore: impl FnOnce(&str) -> Result<Found, String>,
) -> Row {
    let start = Instant::now();
    let result = explore(expected.name);
    let seconds = start.elapsed().as_secs_f64();
    let name = expected.name.to_owned();
    match result {
        Err(reason) => {
            let verdict = format!("not finished: {reason}");
            Row::new(name, engine, verdict, (0, 0), seconds, false)
        }
        Ok((violated, states, depth)) => {
            // Engines visit states in different orders, so up to a violation they see different
            // numbers of them; the whole space and the length of the trace are the same for all.
            let counts = expected.violates.is_some() && engine == "TLC"
                || states == expected.states && depth == expected.depth;
            let is_good = violated.as_deref() == expected.violates && counts;
            let verdict = match (violated, counts) {
                (None, true) => "holds".to_owned(),
                (Some(name), true) => format!("violates {name}, as it must"),
                (found, _) => format!(
                    "{}; expected are {} states, depth {}",
                    found.map_or("holds".to_owned(), |name| format!("violates {name}")),
                    expected.states,
                    expected.depth
                ),
            };
            Row::new(name, engine, verdict, (states, depth), seconds, is_good)
        }
    }
}

impl Row {
    fn new(
        name: String,
        engine: &str,
        verdict: String,
        (states, depth): (usize, usize),
        seconds: f64,
        is_good: bool,
    ) -> Self {
        let (core, models) = (source::CORE.to_owned(), source::MODELS.to_owned());
        let engine = engine.to_owned();
        Self { name, engine, verdict, states, depth, seconds, is_good, core, models }
    }
}

/// Returns the bounds of the configuration called `name` for the core, if it is tied.
fn tied(name: &str) -> Option<Configuration> {
    let (_, members, write, writes) = TIED.iter().find(|(tied, ..)| *tied == name)?;
    Some(Configuration {
        quorums: QuorumSet::new(*members, *write, 2).ok()?,
        epochs: 2,
        writes: *writes,
        symmetric: false,
        ..Configuration::EMPTY
    })
}

fn run_core(configuration: &Configuration) -> Result<Found, String> {
    let outcome = run(configuration, Sound, Search::Breadth, 0, |_| {});
    match outcome.verdict {
        Verdict::Holds => Ok((None, outcome.unique_states, outcome.depth)),
        Verdict::Broken { property, .. } => {
            Ok((Some(property.name().to_owned()), outcome.unique_states, outcome.depth))
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's list of failures")]
fn run_crate(folder: &Path, name: &str) -> Result<Found, String> {
    let (module, config) = (folder.join("MCVolume.tla"), folder.join(format!("{name}.cfg")));
    let mut prepared =
        prepare_from_path(&module, Some(&config), &[]).map_err(|error| error.to_string())?;
    // `Nat` and `Int` are bounded otherwise, without a word.
    prepared.checker_config.symbolic_integers = true;
    prepared.checker_config.max_states = STATES_MAX;
    prepared.checker_config.max_depth = DEPTH_MAX;
    let names = prepared.spec.invariant_names.clone();
    if names.is_empty() && prepared.checker_config.properties.is_empty() {
        return Err("the configuration names nothing to check".to_owned());
    }
    let states = |stats: &CheckStats| stats.states_explored;
    let checker = &prepared.checker_config;
    match tla_checker::checker::check(&prepared.spec, &prepared.domains, checker) {
        CheckResult::Ok(stats) => Ok((None, states(&stats), stats.max_depth_reached)),
        CheckResult::InvariantViolation(found, stats) => {
            let violated = names.get(found.violated_invariant).cloned().flatten();
            let violated = violated.as_deref().unwrap_or("an unnamed invariant").to_owned();
            Ok((Some(violated), states(&stats), found.trace.len()))
        }
        CheckResult::PropertyViolation(found, stats) => {
            let violated = found.property.as_ref().to_owned();
            Ok((Some(violated), states(&stats), found.trace.len()))
        }
        other => Err(describe(&other)),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's list of failures")]
fn describe(result: &CheckResult) -> String {
    match result {
        CheckResult::InitError(error) => format!("initial state: {}", error.short_description()),
        CheckResult::NextError(error, trace, action) => {
            format!("step {} ({action:?}): {}", trace.len(), error.short_description())
        }
        CheckResult::InvariantError(error, trace, name) => {
            format!("state {} ({name:?}): {}", trace.len(), error.short_description())
        }
        CheckResult::PrepareError(error) => format!("{error:?}"),
        CheckResult::NoInitialStates => "no initial state".to_owned(),
        CheckResult::MaxStatesExceeded(stats) | CheckResult::MaxDepthExceeded(stats) => {
            format!("limit reached at {} states", stats.states_explored)
        }
        CheckResult::Deadlock(trace, _, _) => format!("deadlock after {} states", trace.len()),
        other => format!("{:?}", std::mem::discriminant(other)),
    }
}

fn run_tlc(folder: &Path, name: &str, jar: &Path) -> Result<Found, String> {
    let jar = jar.canonicalize().map_err(|error| format!("TLC_JAR: {error}"))?;
    let metadata = std::env::temp_dir().join(format!("quorate-tlc-{}-{name}", std::process::id()));
    let output = Command::new("java")
        .args(["-XX:+UseParallelGC", "-cp"])
        .arg(jar)
        .args(["tlc2.TLC", "-noGenerateSpecTE", "-workers", "1", "-metadir"])
        .arg(&metadata)
        .args(["-config", &format!("{name}.cfg"), "MCVolume.tla"])
        .current_dir(folder)
        .output()
        .map_err(|error| format!("java can't be started: {error}"))?;
    let _ = std::fs::remove_dir_all(&metadata);
    read_tlc(&String::from_utf8_lossy(&output.stdout))
}

/// Reads what TLC prints for people.
fn read_tlc(text: &str) -> Result<Found, String> {
    let violated = text.lines().find_map(|line| {
        let line = line.strip_prefix("Error: ")?;
        let name =
            line.strip_prefix("Invariant ").or_else(|| line.strip_prefix("Action property "))?;
        name.split_once(" is violated").map(|(name, _)| name.to_owned())
    });
    let states = text.lines().rev().find_map(|line| {
        let (before, _) = line.split_once(" distinct states found")?;
        before.rsplit(' ').next()?.replace(',', "").parse().ok()
    });
    let depth = text.lines().find_map(|line| {
        let depth = line.strip_prefix("The depth of the complete state graph search is ")?;
        depth.trim_end_matches('.').parse().ok()
    });
    match (violated, states, depth) {
        (Some(violated), Some(states), depth) => Ok((Some(violated), states, depth.unwrap_or(0))),
        (None, Some(states), Some(depth)) => Ok((None, states, depth)),
        (_, _, _) => Err(text.lines().rev().take(8).collect::<Vec<_>>().join(" | ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tla")
    }

    /// The small configurations that hold and those that must not, in every test run; the others
    /// are for `quorate check tla`.
    #[test]
    fn the_specification_holds_and_fails_as_it_must() {
        let is_quick = |expected: &&Expected| expected.states < 1_000 && !expected.is_large;
        let mut count = 0;
        for expected in EXPECTED.iter().filter(is_quick) {
            for row in check(&folder(), expected, None) {
                assert!(row.is_good, "{row:?}");
                count += 1;
            }
        }
        assert!(count >= 12, "only {count} configurations were checked");
    }

    /// If the numbers differ, the core or the specification says something else than the other.
    #[test]
    fn the_core_reaches_as_many_states_as_the_specification() {
        for (name, ..) in TIED {
            let expected = EXPECTED.iter().find(|expected| expected.name == *name);
            let (Some(expected), Some(configuration)) = (expected, tied(name)) else {
                panic!("{name} is not expected");
            };
            let row = row(expected, CORE, |_| run_core(&configuration));
            assert!(row.is_good, "{row:?}");
        }
    }

    /// A configuration that nobody expects anything of would never be checked.
    #[test]
    fn every_configuration_is_expected() {
        let mut files: Vec<String> = std::fs::read_dir(folder())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".cfg")?.to_owned()))
            .collect();
        files.sort();
        let mut expected: Vec<&str> = EXPECTED.iter().map(|expected| expected.name).collect();
        expected.sort_unstable();
        assert_eq!(files, expected);
    }
}
