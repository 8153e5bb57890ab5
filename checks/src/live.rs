//! Liveness: from every reachable state, once faults have healed, a fair schedule reaches its goal
//! within a pinned number of steps.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_models::configuration::{self, Configuration};
use quorate_models::liveness::survey::{Survey, UNKNOWN, survey};
use quorate_models::liveness::{Liveness, Stuck};
use serde::{Deserialize, Serialize};

use crate::expected::{self, LivePin};
use crate::source;

pub(crate) mod command;

/// The result of one configuration, as it is reported.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The configuration.
    pub name: String,
    /// Distinct states.
    pub states: usize,
    /// Of how many states one was judged with the writers that there are; all were with a new one.
    pub one_in: u64,
    /// How many these were.
    pub judged: usize,
    /// Distinct runs of the fair schedule.
    pub runs: usize,
    /// The most steps that a run needed, by the number of the property.
    pub worst: [u32; 4],
    /// States in which the highest writer is open and all that it wrote is durable.
    pub goals: usize,
    /// States of which less is demanded, by the reason.
    pub excused: BTreeMap<String, usize>,
    /// States from which no goal can be reached within the budgets, by the reason.
    pub hopeless: BTreeMap<String, usize>,
    /// `holds`; `stuck: ` and what; or `differs` from what is pinned.
    pub verdict: String,
    /// Wall time.
    pub seconds: f64,
    /// Hash of the core's sources.
    pub core: String,
    /// Hash of the models' sources.
    pub models: String,
}

impl Row {
    /// Returns whether the survey found what it must.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict == "holds"
    }
}

/// Surveys `configuration` with the machines as they are, or with a seeded bug. With a bug, only
/// whether a run gets stuck counts.
#[must_use]
pub fn look(configuration: &Configuration, bug: Option<Bug>) -> (Row, Survey) {
    let pin = expected::live_of(configuration.name);
    match bug {
        None => under(configuration, Sound, pin, false),
        Some(bug) => under(configuration, Seeded(bug), pin, true),
    }
}

fn under<R: Rules>(
    configuration: &Configuration,
    rules: R,
    pin: Option<&LivePin>,
    is_seeded: bool,
) -> (Row, Survey) {
    let start = Instant::now();
    let one_in = pin.map_or(64, |pin| pin.one_in);
    let survey = survey(configuration, rules, one_in, |_| {});
    let verdict = verdict(configuration, &survey, pin, is_seeded);
    let named = |of: &BTreeMap<&'static str, usize>| {
        of.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    };
    let row = Row {
        name: configuration.name.to_owned(),
        states: survey.unique_states,
        one_in,
        judged: survey.judged,
        runs: survey.tally.runs,
        worst: survey.tally.worst,
        goals: survey.goals,
        excused: named(&survey.tally.excused),
        hopeless: named(&survey.hopeless),
        verdict,
        seconds: start.elapsed().as_secs_f64(),
        core: source::CORE.to_owned(),
        models: source::MODELS.to_owned(),
    };
    (row, survey)
}

/// Says what a run that got stuck waited for.
#[must_use]
pub fn describe(stuck: &Stuck) -> String {
    let Stuck { property, scenario, waiting, unreachable } = stuck;
    let groups = unreachable.iter().map(|bits| {
        let gone = quorate_core::id::SegmentSet::from_bits(*bits);
        gone.iter().map(|position| position.to_string()).collect::<String>()
    });
    let gone = groups.collect::<Vec<_>>().join(" and ");
    let without = if gone.is_empty() { String::new() } else { format!(", without {gone}") };
    format!("{}: {waiting} ({scenario}{without})", property.name())
}

fn verdict(
    configuration: &Configuration,
    survey: &Survey,
    pin: Option<&LivePin>,
    is_seeded: bool,
) -> String {
    if let Some((stuck, _)) = &survey.stuck {
        return format!("stuck: {}", describe(stuck));
    }
    if is_seeded {
        return "holds".to_owned();
    }
    if survey.hopeless.contains_key(UNKNOWN) {
        return format!("stuck: no goal can be reached, {UNKNOWN}");
    }
    let Some(pin) = pin else { return "differs: nothing is pinned".to_owned() };
    let is_all = expected::of(configuration.name).map(|pin| pin.unique_states);
    if is_all != Some(survey.unique_states) {
        return format!("differs: `check run` finds {} states", is_all.unwrap_or(0));
    }
    let sum = |of: &BTreeMap<&'static str, usize>| of.values().sum::<usize>();
    let listed = (sum(&survey.tally.excused), sum(&survey.hopeless));
    let found = (survey.judged, survey.tally.runs, survey.tally.worst, listed);
    if found == (pin.judged, pin.runs, pin.worst, (pin.excused, pin.hopeless)) {
        "holds".to_owned()
    } else {
        format!(
            "differs: pinned are {} states, {} runs, {:?} steps, {} excused, {} hopeless; found \
             {}, {}, {:?}, {}, {}",
            pin.judged,
            pin.runs,
            pin.worst,
            pin.excused,
            pin.hopeless,
            found.0,
            found.1,
            found.2,
            listed.0,
            listed.1
        )
    }
}

/// Surveys all `configurations`, `jobs` at a time. Calls `tell` with each result.
///
/// # Errors
/// The first of `tell`; surveys under way then go on until the process ends.
pub fn explore(
    configurations: &[&'static Configuration],
    jobs: usize,
    tell: impl FnMut(Row) -> io::Result<()>,
) -> io::Result<()> {
    let (to, rows) = mpsc::channel();
    let queue = Mutex::new(configurations.iter().copied());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (to, queue) = (to.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(configuration) = next else { return };
                    if to.send(look(configuration, None).0).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to);
        rows.iter().try_for_each(tell)
    })
}

/// Returns the configurations that are surveyed in the quick tier, or in all.
#[must_use]
pub fn configurations(is_full: bool) -> Vec<&'static Configuration> {
    let is_wanted = |pin: &&LivePin| is_full || pin.tier == configuration::Tier::Quick;
    let pins = expected::LIVE_PINS.iter().filter(is_wanted);
    pins.filter_map(|pin| configuration::named(pin.name)).collect()
}

/// Returns the first property that a seeded bug keeps from holding in `configuration`, with what
/// was stuck and how many steps lead there.
#[must_use]
pub fn kills(bug: Bug, configuration: &Configuration) -> Option<(Liveness, usize)> {
    let (_, survey) = look(configuration, Some(bug));
    survey.stuck.map(|(stuck, path)| (stuck.property, path.len()))
}
