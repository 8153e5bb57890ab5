//! `quorate check`: the arguments, and what is printed.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use quorate_core::rules::{Bug, Seeded, Sound};
use quorate_models::configuration::{self, Configuration, Tier};
use quorate_models::witness::Witness;
use serde::Serialize;

use crate::fleet::{self, News};
use crate::page::{self, Colour};
use crate::run::{Outcome, Search, Verdict, run};
use crate::trace::{Trace, Under, replay};
use crate::{diagram, evidence, expected, explore, kill, tla};

/// What can go wrong, as one sentence for a person.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Explore the protocol's own code exhaustively, and show that the checks can fail.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Check {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write EVIDENCE.md from the ledgers in evidence/, in the folder at hand.
    Evidence,
    /// Walk through a configuration's states in a browser, on this machine only.
    Explore(Explore),
    /// Show that every seeded bug is noticed.
    Kill(Kill),
    /// List the configurations and the seeded bugs.
    List(List),
    /// Run a counterexample again and show it.
    Replay(Replay),
    /// Explore configurations to the end (without arguments: the quick tier).
    Run(Run),
    /// Check the TLA+ specification, with TLC too if the variable TLC_JAR names one.
    Tla(Tla),
    /// Explore one configuration in this process, for `run`.
    #[command(hide = true)]
    Work(Work),
}

#[derive(Args, Debug)]
struct Explore {
    /// The configuration
    #[arg(default_value = "zombie-e2r2", value_parser = parse_configuration)]
    name: &'static Configuration,
    /// Explore a broken variant
    #[arg(long, value_name = "BUG", value_parser = parse_bug)]
    mutant: Option<Bug>,
    /// Where to serve the page; a loopback address
    #[arg(long, default_value = "127.0.0.1:3000")]
    address: String,
}

#[derive(Args, Debug)]
struct Kill {
    /// The bugs [default: all]
    #[arg(value_name = "BUG", value_parser = parse_bug)]
    bugs: Vec<Bug>,
    /// Let every quick configuration look for every bug, not only those known to find it
    #[arg(long)]
    all: bool,
    /// Print one JSON object a bug
    #[arg(long)]
    json: bool,
    /// How many bugs at a time [default: the number of cores]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

#[derive(Args, Debug)]
struct List {
    /// Print one JSON object a configuration, then one a bug
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Replay {
    /// A file that `run --mutant` wrote
    file: PathBuf,
    /// Replay without the bug, as a regression: nothing may break
    #[arg(long, conflicts_with = "mutant")]
    sound: bool,
    /// Replay with this bug instead
    #[arg(long, value_name = "BUG", value_parser = parse_bug)]
    mutant: Option<Bug>,
    /// Write the sequence diagram here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Args, Debug, Default)]
struct Run {
    /// The configurations [default: all of the tier]
    #[arg(value_parser = parse_configuration)]
    names: Vec<&'static Configuration>,
    /// Which configurations, if none is named; the full tier contains the quick one
    #[arg(long, default_value = "quick")]
    tier: TierName,
    /// Print one JSON object a configuration
    #[arg(long)]
    json: bool,
    /// Explore a broken variant and show a shortest counterexample
    #[arg(long, value_name = "BUG", value_parser = parse_bug)]
    mutant: Option<Bug>,
    /// With --mutant: write the counterexample here, for `replay`
    #[arg(long, value_name = "FILE", requires = "mutant")]
    trace: Option<PathBuf>,
    /// With --mutant: write the sequence diagram here
    #[arg(long, value_name = "FILE", requires = "mutant")]
    svg: Option<PathBuf>,
    /// How many configurations at a time [default: the number of cores]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// The seed of the fingerprints: two seeds share no collision
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args, Debug)]
struct Tla {
    /// The configurations, such as MCVolume_tie [default: all but the largest]
    names: Vec<String>,
    /// Print one JSON object a configuration
    #[arg(long)]
    json: bool,
    /// The folder of the specification
    #[arg(long, default_value = "tla")]
    dir: PathBuf,
}

#[derive(Args, Debug)]
struct Work {
    #[arg(value_parser = parse_configuration)]
    name: &'static Configuration,
    #[arg(long, value_parser = parse_bug)]
    mutant: Option<Bug>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum TierName {
    Full,
    #[default]
    Quick,
}

impl Check {
    /// Carries out the command; returns whether everything was as it must be.
    ///
    /// # Errors
    /// What kept it from being carried out.
    pub fn execute(self) -> Result<bool, Failure> {
        match self.command.unwrap_or(Command::Run(Run::default())) {
            Command::Evidence => {
                let folder = std::path::Path::new("evidence");
                std::fs::write("EVIDENCE.md", evidence::render(folder)?)?;
                if !evidence::is_current(folder)? {
                    eprintln!("the ledgers were measured on other sources: measure again");
                }
                Ok(true)
            }
            Command::Explore(explore) => {
                explore::explore(explore.name, explore.mutant, &explore.address)?;
                Ok(true)
            }
            Command::Kill(kill) => run_kill(&kill),
            Command::List(list) => run_list(&list),
            Command::Replay(replay) => run_replay(&replay),
            Command::Run(run) => match run.mutant {
                None => run_sound(&run),
                Some(bug) => run_mutant(&run, bug),
            },
            Command::Tla(arguments) => run_tla(&arguments),
            Command::Work(work) => {
                fleet::work(work.name, work.mutant, work.seed)?;
                Ok(true)
            }
        }
    }
}

fn run_list(list: &List) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    for c in configuration::ALL {
        let tier = if c.tier == Tier::Quick { "quick" } else { "full" };
        if list.json {
            let row = serde_json::json!({
                "configuration": c.name, "tier": tier, "granularity": c.granularity.name(),
                "segments": c.quorums.members(), "write_quorum": c.quorums.write(),
                "read_quorum": c.quorums.read(), "groups": c.groups, "epochs": c.epochs,
                "writes": c.writes, "crashes": c.crashes, "purpose": c.purpose,
            });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{:<16} {tier:<6} {:<6} {}", c.name, c.granularity.name(), c.purpose)?;
        }
    }
    if !list.json {
        writeln!(out)?;
    }
    for bug in Bug::ALL {
        if list.json {
            let row = serde_json::json!({
                "bug": bug.name(), "edges": bug.edges(), "summary": bug.summary().trim(),
            });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{:<22} {}", bug.name(), bug.summary().trim())?;
        }
    }
    Ok(true)
}

fn run_sound(arguments: &Run) -> Result<bool, Failure> {
    let configurations: Vec<&'static Configuration> = if arguments.names.is_empty() {
        let is_wanted = |c: &&Configuration| match arguments.tier {
            TierName::Full => true,
            TierName::Quick => c.tier == Tier::Quick,
        };
        configuration::ALL.iter().filter(is_wanted).collect()
    } else {
        arguments.names.clone()
    };
    let screen = Screen::new(arguments.json);
    screen.head();
    let mut is_good = true;
    let mut seen: Vec<String> = Vec::new();
    fleet::explore(&configurations, jobs(arguments.jobs), arguments.seed, |news| match news {
        News::Done(row) => {
            is_good &= row.is_good();
            seen.extend(row.witnesses.iter().cloned());
            screen.row(&row);
        }
        News::Failed { name, reason } => {
            is_good = false;
            screen.clear();
            eprintln!("{name}: {reason}");
        }
        News::Progress { name, progress } => screen.progress(name, &progress),
    });
    screen.clear();
    if arguments.names.is_empty() {
        is_good &= all_reached(&seen);
    }
    if !arguments.json && is_good {
        println!("every property holds in every reachable state; every count is as pinned");
    }
    Ok(is_good)
}

/// A model that never gets into the situations that matter proves nothing.
fn all_reached(seen: &[String]) -> bool {
    let mut is_good = true;
    for witness in Witness::ALL {
        let is_excused = expected::UNREACHED.iter().any(|(known, _)| known == witness);
        let is_reached = seen.iter().any(|name| name == witness.name());
        if is_reached == is_excused {
            let is = if is_reached { "reached, but listed as unreached" } else { "never reached" };
            eprintln!("the situation {} is {is}", witness.name());
            is_good = false;
        }
    }
    is_good
}

/// What a person sees of a run: a line a configuration, and one that tells how the others do.
struct Screen {
    json: bool,
    is_live: bool,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { json, is_live: io::stderr().is_terminal() }
    }

    fn head(&self) {
        if !self.json {
            println!(
                "{:<16} {:<6} {:>12} {:>13} {:>5} {:>8} {:>9} {:>8}  verdict",
                "configuration", "grain", "states", "steps", "depth", "seconds", "MiB", "missed"
            );
        }
    }

    fn row(&self, row: &fleet::Row) {
        self.clear();
        if self.json {
            if let Ok(text) = serde_json::to_string(row) {
                println!("{text}");
            }
            return;
        }
        println!(
            "{:<16} {:<6} {:>12} {:>13} {:>5} {:>8.1} {:>9.1} {:>8.0e}  {}",
            row.name,
            row.granularity,
            row.unique_states,
            row.transitions,
            row.depth,
            row.seconds,
            row.peak_mib,
            row.collision_bound,
            row.verdict
        );
    }

    fn progress(&self, name: &str, progress: &crate::run::Progress) {
        if self.is_live {
            let rate = f64::from(u32::try_from(progress.transitions).unwrap_or(u32::MAX))
                / progress.seconds.max(0.001);
            eprint!(
                "\r\x1b[K{name}: {} states, {:.2} M steps/s, depth {}, {:.0} s",
                progress.unique_states,
                rate / 1e6,
                progress.depth,
                progress.seconds
            );
        }
    }

    fn clear(&self) {
        if self.is_live {
            eprint!("\r\x1b[K");
        }
    }
}

/// The configurations in which `bug` is looked for, those known to find it first.
fn hunting_grounds(arguments: &Run, bug: Bug) -> Vec<&'static Configuration> {
    if !arguments.names.is_empty() {
        return arguments.names.clone();
    }
    let known = expected::KILLERS.iter().find(|(of, _)| *of == bug).map(|(_, names)| *names);
    let names = known.unwrap_or(&[]);
    let mut quick: Vec<&'static Configuration> =
        configuration::ALL.iter().filter(|c| c.tier == Tier::Quick).collect();
    quick.sort_by_key(|c| names.iter().position(|name| *name == c.name).unwrap_or(usize::MAX));
    quick
}

/// Shows a shortest counterexample. That the variant is broken is what is expected, and still the
/// exit code says that a property is broken: a script can tell.
fn run_mutant(arguments: &Run, bug: Bug) -> Result<bool, Failure> {
    for configuration in hunting_grounds(arguments, bug) {
        let outcome: Outcome =
            run(configuration, Seeded(bug), Search::Breadth, arguments.seed, |_| {});
        let Verdict::Broken { property, actions } = &outcome.verdict else {
            eprintln!("{}: nothing found in {} states", configuration.name, outcome.unique_states);
            continue;
        };
        let trace =
            Trace::record(configuration, Some(bug), arguments.seed, Some(*property), actions)?;
        if let Some(file) = &arguments.trace {
            trace.write(file)?;
        }
        show(&trace, Under::Recorded, arguments.svg.as_ref(), arguments.json)?;
        return Ok(false);
    }
    println!("no configuration notices {}", bug.name());
    Ok(true)
}

fn show(trace: &Trace, under: Under, svg: Option<&PathBuf>, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", trace.to_json()?);
        return Ok(());
    }
    let replay = replay(trace, under)?;
    let colour = if io::stdout().is_terminal() { Colour::Coloured } else { Colour::Plain };
    print!("{}", page::page(&replay, colour));
    if let Some(file) = svg {
        std::fs::write(file, diagram::diagram(&replay)).map_err(|error| {
            format!("the diagram can't be written to {}: {error}", file.display())
        })?;
        println!("the diagram is in {}", file.display());
    }
    Ok(())
}

fn run_replay(arguments: &Replay) -> Result<bool, Failure> {
    let trace = Trace::read(&arguments.file)?;
    let under = match arguments.mutant {
        Some(bug) => Under::Seeded(bug),
        None if arguments.sound => Under::Sound,
        None => Under::Recorded,
    };
    show(&trace, under, arguments.svg.as_ref(), false)?;
    Ok(true)
}

fn run_kill(arguments: &Kill) -> Result<bool, Failure> {
    let bugs = if arguments.bugs.is_empty() { Bug::ALL } else { &arguments.bugs };
    let mut is_good = true;
    if !arguments.json {
        println!("{:<22} {:>5} {:>8}  killed by", "bug", "steps", "seconds");
    }
    kill::matrix(bugs, arguments.all, jobs(arguments.jobs), |row| {
        is_good &= row.is_good();
        if arguments.json {
            if let Ok(text) = serde_json::to_string(&row) {
                println!("{text}");
            }
            return;
        }
        let depth = row.depth.map_or_else(|| "-".to_owned(), |depth| depth.to_string());
        let by = match &row.gap {
            Some(reason) if row.killed_by.is_empty() => format!("nothing: {reason}"),
            Some(_) => format!("{} (listed as a gap)", row.killed_by.join(", ")),
            None if row.killed_by.is_empty() => "NOTHING".to_owned(),
            None => row.killed_by.join(", "),
        };
        println!("{:<22} {depth:>5} {:>8.1}  {by}", row.bug, row.seconds);
    });
    Ok(is_good)
}

fn run_tla(arguments: &Tla) -> Result<bool, Failure> {
    let jar = std::env::var_os("TLC_JAR").map(PathBuf::from);
    let known = tla::EXPECTED.iter();
    let chosen: Vec<&tla::Expected> = if arguments.names.is_empty() {
        known.filter(|expected| !expected.is_large || jar.is_some()).collect()
    } else {
        let is_named = |e: &&tla::Expected| arguments.names.iter().any(|name| name == e.name);
        known.filter(is_named).collect()
    };
    if chosen.len() < arguments.names.len() {
        let names: Vec<&str> = tla::EXPECTED.iter().map(|expected| expected.name).collect();
        return Err(format!("no such configuration; there are {}", names.join(", ")).into());
    }
    let mut is_good = true;
    for expected in chosen {
        for row in tla::check(&arguments.dir, expected, jar.as_deref()) {
            is_good &= row.is_good;
            if arguments.json {
                println!("{}", serde_json::to_string(&row)?);
            } else {
                println!(
                    "{:<34} {:<12} {:>8} states, depth {:>3}, {:>6.1} s  {}",
                    row.name, row.engine, row.states, row.depth, row.seconds, row.verdict
                );
            }
        }
    }
    Ok(is_good)
}

fn jobs(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(cores, NonZeroUsize::get)
}

fn parse_configuration(name: &str) -> Result<&'static Configuration, String> {
    configuration::named(name).ok_or_else(|| {
        let names: Vec<&str> = configuration::ALL.iter().map(|c| c.name).collect();
        format!("there is no such configuration; there are {}", names.join(", "))
    })
}

fn parse_bug(name: &str) -> Result<Bug, String> {
    Bug::named(name).ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("there is no such bug; there are {}", names.join(", "))
    })
}

/// What a demonstration explored: the sound machines in one configuration.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Explored {
    /// The configuration.
    pub configuration: &'static str,
    /// Distinct states.
    pub states: u64,
    /// Steps of the core.
    pub steps: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Explores one small configuration and shows one counterexample, for a demonstration.
///
/// # Errors
/// When the sound protocol breaks a property, or the broken one doesn't.
pub fn demonstrate(out: &mut dyn Write, bug: Bug) -> Result<Explored, Failure> {
    let Some(configuration) = configuration::named("zombie-e2r2") else {
        return Err("the configuration of the demonstration is gone".into());
    };
    let sound = run(configuration, Sound, Search::Depth, 0, |_| {});
    if sound.verdict != Verdict::Holds {
        return Err("a property is broken: run `quorate check`".into());
    }
    writeln!(
        out,
        "explored {}: {} distinct states, {} steps of the shipped core, {:.1} s: \
         every property holds",
        configuration.name,
        sound.unique_states,
        sound.transitions,
        sound.elapsed.as_secs_f64()
    )?;
    let broken = run(configuration, Seeded(bug), Search::Breadth, 0, |_| {});
    let Verdict::Broken { property, actions } = &broken.verdict else {
        return Err(format!("the seeded bug {} is not noticed", bug.name()).into());
    };
    let trace = Trace::record(configuration, Some(bug), 0, Some(*property), actions)?;
    writeln!(out, "{}", page::page(&replay(&trace, Under::Recorded)?, Colour::Plain))?;
    Ok(Explored {
        configuration: configuration.name,
        states: sound.unique_states as u64,
        steps: sound.transitions as u64,
        seconds: sound.elapsed.as_secs_f64(),
    })
}
