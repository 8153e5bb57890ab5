//! Runs configurations in processes of their own, so that the peak memory of each is its own, as
//! many at a time as there are cores.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use quorate_core::rules::{Bug, Seeded, Sound};
use quorate_models::configuration::Configuration;
use serde::{Deserialize, Serialize};

use crate::run::{Outcome, Progress, Search, Verdict, collision_bound, try_run};
use crate::{expected, source};

/// The result of one configuration, as it is reported.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The configuration.
    pub name: String,
    /// How much happens in one step.
    pub granularity: String,
    /// Segments of a group.
    pub segments: usize,
    /// Protection groups.
    pub groups: u32,
    /// Writers.
    pub epochs: u8,
    /// Distinct states.
    pub unique_states: usize,
    /// Steps, each from a distinct state.
    pub transitions: usize,
    /// The longest path, in states.
    pub depth: usize,
    /// `holds`; `broken: ` and the property; or `differs` from what is pinned.
    pub verdict: String,
    /// Wall time.
    pub seconds: f64,
    /// Peak memory of the process, in units of 2^20 bytes.
    pub peak_mib: f64,
    /// The chance, at most, that a state was missed for its fingerprint.
    pub collision_bound: f64,
    /// Situations that occurred.
    pub witnesses: Vec<String>,
    /// The seed of the fingerprints.
    pub seed: u64,
    /// Hash of the core's sources.
    pub core: String,
    /// Hash of the models' sources.
    pub models: String,
}

impl Row {
    /// Returns whether the run found what it must.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict == "holds"
    }

    fn of(outcome: &Outcome, seed: u64, bug: Option<Bug>) -> Self {
        let configuration = &outcome.configuration;
        Self {
            name: configuration.name.to_owned(),
            granularity: configuration.granularity.name().to_owned(),
            segments: configuration.quorums.members(),
            groups: configuration.groups,
            epochs: configuration.epochs,
            unique_states: outcome.unique_states,
            transitions: outcome.transitions,
            depth: outcome.depth,
            verdict: verdict(outcome, bug),
            seconds: outcome.elapsed.as_secs_f64(),
            peak_mib: peak_mib(),
            collision_bound: collision_bound(outcome.unique_states),
            witnesses: outcome.witnesses.iter().map(|w| w.name().to_owned()).collect(),
            seed,
            core: source::CORE.to_owned(),
            models: source::MODELS.to_owned(),
        }
    }
}

fn verdict(outcome: &Outcome, bug: Option<Bug>) -> String {
    match &outcome.verdict {
        Verdict::Broken { property, .. } => format!("broken: {}", property.name()),
        Verdict::Holds if bug.is_some() => "holds".to_owned(),
        Verdict::Holds => match expected::of(outcome.configuration.name) {
            None => "differs: no size is pinned".to_owned(),
            Some(pin) => {
                let found = (outcome.unique_states, outcome.transitions, outcome.depth);
                if found == (pin.unique_states, pin.transitions, pin.depth) {
                    "holds".to_owned()
                } else {
                    format!(
                        "differs: pinned are {} states, {} steps, depth {}",
                        pin.unique_states, pin.transitions, pin.depth
                    )
                }
            }
        },
    }
}

/// What a worker says, a line each.
#[derive(Debug, Deserialize, Serialize)]
enum Line {
    Done(Box<Row>),
    Progress(Progress),
}

/// The worker: explores one configuration and says so on standard output.
///
/// # Errors
/// When standard output is closed: then nobody is left who wants to know, and the process is to
/// end.
pub fn work(configuration: &Configuration, bug: Option<Bug>, seed: u64) -> io::Result<()> {
    let say = |line: &Line| writeln!(io::stdout().lock(), "{}", serde_json::to_string(line)?);
    let watch = |progress| say(&Line::Progress(progress));
    let outcome = match bug {
        None => try_run(configuration, Sound, Search::Depth, seed, watch)?,
        Some(bug) => try_run(configuration, Seeded(bug), Search::Depth, seed, watch)?,
    };
    say(&Line::Done(Box::new(Row::of(&outcome, seed, bug))))
}

/// What a fleet says while it works.
#[derive(Debug)]
pub enum News {
    /// A configuration is finished.
    Done(Box<Row>),
    /// A worker ended without a result.
    Failed {
        /// The configuration.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A configuration is under way.
    Progress {
        /// The configuration.
        name: &'static str,
        /// How far it is.
        progress: Progress,
    },
}

/// Explores all `configurations`, `jobs` at a time, each in a process that is this program called
/// with `check work`. Calls `tell` with what happens, in the order in which it does.
///
/// # Errors
/// The first of `tell`; the workers are ended then.
pub fn explore(
    configurations: &[&'static Configuration],
    jobs: usize,
    seed: u64,
    mut tell: impl FnMut(News) -> io::Result<()>,
) -> io::Result<()> {
    let (to, news) = mpsc::channel();
    let queue = std::sync::Mutex::new(configurations.iter().copied());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let to = to.clone();
            let queue = &queue;
            scope.spawn(move || {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(configuration) = next else { return };
                    if employ(configuration, seed, &to).is_break() {
                        return;
                    }
                }
            });
        }
        drop(to);
        let told = news.iter().try_for_each(&mut tell);
        // Whoever still has news learns by this that nobody listens.
        drop(news);
        told
    })
}

/// Has a worker explore `configuration` and sends what it says; breaks when nobody listens.
fn employ(
    configuration: &'static Configuration,
    seed: u64,
    to: &mpsc::Sender<News>,
) -> ControlFlow<()> {
    let send = |news: News| to.send(news).map_or(ControlFlow::Break(()), ControlFlow::Continue);
    let name = configuration.name;
    let mut worker = match start(name, seed) {
        Ok(worker) => worker,
        Err(reason) => return send(News::Failed { name, reason }),
    };
    let heard = listen(&mut worker, name, &send);
    if !matches!(heard, ControlFlow::Continue(Ok(_))) {
        // What it would still say is not wanted, or not understood.
        let _ = worker.kill();
    }
    let ended = worker.wait();
    match (heard?, ended) {
        (Err(reason), _) => send(News::Failed { name, reason }),
        (Ok(true), Ok(status)) if status.success() => ControlFlow::Continue(()),
        (Ok(_), Ok(status)) => {
            let reason = format!("the worker ended with {status} before it was done: not a pass");
            send(News::Failed { name, reason })
        }
        (Ok(_), Err(error)) => send(News::Failed { name, reason: error.to_string() }),
    }
}

fn start(name: &str, seed: u64) -> Result<Child, String> {
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    Command::new(executable)
        .args(["check", "work", name, "--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the worker can't be started: {error}"))
}

/// Sends all that `worker` says, to its end; continues with whether the result was among it.
fn listen(
    worker: &mut Child,
    name: &'static str,
    send: &impl Fn(News) -> ControlFlow<()>,
) -> ControlFlow<(), Result<bool, String>> {
    let mut is_done = false;
    if let Some(output) = worker.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Line::Done(row)) => {
                    is_done = true;
                    send(News::Done(row))?;
                }
                Ok(Line::Progress(progress)) => send(News::Progress { name, progress })?,
                Err(error) => {
                    let reason = format!("the worker said {line:?}: {error}");
                    return ControlFlow::Continue(Err(reason));
                }
            }
        }
    }
    ControlFlow::Continue(Ok(is_done))
}

/// Returns the highest resident size that this process has had, in units of 2^20 bytes; zero where
/// the system doesn't tell.
#[must_use]
pub fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
