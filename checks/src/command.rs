//! `quorate check`: the arguments, and what is printed.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use quorate_core::rules::{Bug, Seeded, Sound};
use quorate_models::configuration::{self, Configuration, Tier};
use quorate_models::invariant::Property;
use quorate_models::witness::Witness;
use serde::Serialize;

use crate::fleet::{self, News};
use crate::nearest::{parse_bug, parse_configuration, parse_jobs, parse_specification};
use crate::page::{self, Colour};
use crate::run::{Outcome, Search, Verdict, run};
use crate::screen::Screen;
use crate::trace::{Replay as Replayed, Trace, Under, replay};
use crate::{diagram, edges, evidence, expected, explore, kill, live, tla};

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
    /// Say of every known way to get the protocol wrong what would notice. Exits with 1 if nothing
    /// would.
    Edges(EdgesArguments),
    /// Write EVIDENCE.md from the ledgers in evidence/, in the folder at hand. Exits with 1 if any
    /// was measured on other sources, or one that every change needs is missing.
    Evidence,
    /// Walk through a configuration's states in a browser, on this machine only.
    Explore(Explore),
    /// Show that every seeded bug is noticed.
    Kill(Kill),
    /// Judge whether a fair schedule gets on from every state, once faults have healed. Exits with
    /// 0 if all is as it must be, with 1 if not; with --mutant, with 1 if the bug gets stuck.
    Live(live::command::Live),
    /// List the configurations and the seeded bugs.
    List(List),
    /// Run a counterexample again and show it. Exits with 0 if it ends as the file says; with
    /// --sound or --mutant, with 1 if a property is broken.
    Replay(Replay),
    /// Explore configurations to the end (without arguments: the quick tier). Exits with 0 if all
    /// is as it must be, with 1 if not; with --mutant, with 1 if the bug is noticed.
    Run(Run),
    /// Check the TLA+ specification, with TLC too if the variable TLC_JAR names one.
    Tla(Tla),
    /// Explore one configuration in this process, for `run`.
    #[command(hide = true)]
    Work(Work),
}

#[derive(Args, Debug)]
struct EdgesArguments {
    /// Print one JSON object an edge
    #[arg(long)]
    json: bool,
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
    /// Show what each quick configuration alone kills, from a ledger that `kill --all --json`
    /// wrote, instead of looking for bugs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "bugs", "jobs"])]
    summary: Option<PathBuf>,
    /// How many bugs at a time [default: the number of cores]
    #[arg(long, value_parser = parse_jobs)]
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
    /// Print one JSON object: what broke, and after how many steps
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug, Default)]
struct Run {
    /// The configurations [default: all of the tier]
    #[arg(value_parser = parse_configuration)]
    names: Vec<&'static Configuration>,
    /// Which configurations, if none is named; the full tier contains the quick one
    #[arg(long, default_value = "quick", conflicts_with_all = ["mutant", "names"])]
    tier: TierName,
    /// Print one JSON object a configuration; with --mutant, the counterexample
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
    #[arg(long, value_parser = parse_jobs, conflicts_with = "mutant")]
    jobs: Option<NonZeroUsize>,
    /// The seed of the fingerprints: two seeds share no collision
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args, Debug)]
struct Tla {
    /// The configurations, such as MCVolume_tie [default: all but the largest]
    #[arg(value_parser = parse_specification)]
    names: Vec<&'static tla::Expected>,
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
pub(crate) enum TierName {
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
            Command::Edges(arguments) => edges::print(arguments.json),
            Command::Evidence => run_evidence(),
            Command::Explore(explore) => {
                explore::explore(explore.name, explore.mutant, &explore.address)?;
                Ok(true)
            }
            Command::Kill(kill) => match &kill.summary {
                None => run_kill(&kill),
                Some(file) => summarise(file, kill.json),
            },
            Command::Live(arguments) => live::command::run(&arguments),
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

fn run_evidence() -> Result<bool, Failure> {
    let folder = Path::new("evidence");
    if !folder.is_dir() {
        return Err("there is no folder evidence here: run this in a clone".into());
    }
    std::fs::write("EVIDENCE.md", evidence::render(folder)?)?;
    let complaints = evidence::complaints(folder, evidence::When::Release)?;
    for complaint in &complaints {
        tell(complaint);
    }
    Ok(complaints.is_empty())
}

fn run_list(list: &List) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let widest = |names: &mut dyn Iterator<Item = &str>| names.map(str::len).max().unwrap_or(0);
    let of_names = widest(&mut configuration::ALL.iter().map(|c| c.name));
    let of_bugs = widest(&mut Bug::ALL.iter().map(|bug| bug.name()));
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
            let grain = c.granularity.name();
            writeln!(out, "{:<of_names$} {tier:<6} {grain:<6} {}", c.name, c.purpose)?;
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
            writeln!(out, "{:<of_bugs$} {}", bug.name(), bug.summary().trim())?;
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
        without_repeats(&arguments.names, |c| c.name)
    };
    let screen = Screen::new(arguments.json);
    screen.head()?;
    let mut is_good = true;
    let mut seen: Vec<String> = Vec::new();
    fleet::explore(&configurations, jobs(arguments.jobs), arguments.seed, |news| match news {
        News::Done(row) => {
            is_good &= row.is_good();
            seen.extend(row.witnesses.iter().cloned());
            screen.row(&row)
        }
        News::Failed { name, reason } => {
            is_good = false;
            screen.clear();
            tell(&format!("{name}: {reason}"));
            Ok(())
        }
        News::Progress { name, progress } => {
            screen.progress(name, &progress);
            Ok(())
        }
    })?;
    screen.clear();
    if arguments.names.is_empty() {
        is_good &= all_reached(&seen);
    }
    if !arguments.json && is_good {
        let all = "every property holds in every reachable state; every count is as pinned";
        writeln!(io::stdout().lock(), "{all}")?;
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
            tell(&format!("the situation {} is {is}", witness.name()));
            is_good = false;
        }
    }
    is_good
}

/// The configurations in which `bug` is looked for, those known to find it first.
fn hunting_grounds(arguments: &Run, bug: Bug) -> Vec<&'static Configuration> {
    if !arguments.names.is_empty() {
        return without_repeats(&arguments.names, |c| c.name);
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
            let (name, states) = (configuration.name, outcome.unique_states);
            tell(&format!("{name}: nothing found in {states} states"));
            continue;
        };
        let trace =
            Trace::record(configuration, Some(bug), arguments.seed, Some(*property), actions)?;
        if let Some(file) = &arguments.trace {
            trace.write(file)?;
        }
        show(&trace, arguments.svg.as_ref(), arguments.json)?;
        return Ok(false);
    }
    let none = if arguments.names.is_empty() { "no configuration" } else { "none of those named" };
    let message = format!("{none} notices {}", bug.name());
    if arguments.json {
        tell(&message);
    } else {
        writeln!(io::stdout().lock(), "{message}")?;
    }
    Ok(true)
}

/// Shows the counterexample as it was recorded.
fn show(trace: &Trace, svg: Option<&PathBuf>, json: bool) -> Result<(), Failure> {
    let replay = replay(trace, Under::Recorded)?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", trace.to_json()?)?;
    } else {
        write_page(&mut out, &replay)?;
    }
    draw(&mut out, &replay, svg, json)
}

fn write_page(out: &mut impl Write, replay: &Replayed) -> io::Result<()> {
    let colour = if io::stdout().is_terminal() { Colour::Coloured } else { Colour::Plain };
    write!(out, "{}", page::page(replay, colour))
}

/// Writes the sequence diagram, if one is asked for, and says where unless JSON is.
fn draw(
    out: &mut impl Write,
    replay: &Replayed,
    svg: Option<&PathBuf>,
    json: bool,
) -> Result<(), Failure> {
    let Some(file) = svg else { return Ok(()) };
    std::fs::write(file, diagram::diagram(replay))
        .map_err(|error| format!("the diagram can't be written to {}: {error}", file.display()))?;
    if !json {
        writeln!(out, "the diagram is in {}", file.display())?;
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
    let replay = replay(&trace, under)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let row = serde_json::json!({
            "configuration": replay.configuration.name, "bug": replay.bug.map(Bug::name),
            "steps": replay.played.len(), "broken": replay.broken.map(Property::name),
            "explanation": replay.explanation,
        });
        writeln!(out, "{row}")?;
    } else {
        write_page(&mut out, &replay)?;
    }
    draw(&mut out, &replay, arguments.svg.as_ref(), arguments.json)?;
    // A recording that doesn't end as it says is an error already.
    Ok(under == Under::Recorded || replay.broken.is_none())
}

fn run_kill(arguments: &Kill) -> Result<bool, Failure> {
    let named = without_repeats(&arguments.bugs, |bug| bug.name());
    let bugs = if named.is_empty() { Bug::ALL } else { &named };
    let mut is_good = true;
    let mut rows = Vec::new();
    if !arguments.json {
        let mut out = io::stdout().lock();
        writeln!(out, "{:<22} {:>5} {:>8}  killed by", "bug", "steps", "seconds")?;
    }
    kill::matrix(bugs, arguments.all, jobs(arguments.jobs), |row| {
        is_good &= row.is_good();
        let mut out = io::stdout().lock();
        if arguments.json {
            return writeln!(out, "{}", serde_json::to_string(&row)?);
        }
        let depth = row.depth.map_or_else(|| "-".to_owned(), |depth| depth.to_string());
        let by = match &row.gap {
            Some(reason) if row.killed_by.is_empty() => format!("nothing: {reason}"),
            Some(_) => format!("{} (listed as a gap)", row.killed_by.join(", ")),
            None if row.killed_by.is_empty() => "NOTHING".to_owned(),
            None => row.killed_by.join(", "),
        };
        writeln!(out, "{:<22} {depth:>5} {:>8.1}  {by}", row.bug, row.seconds)?;
        rows.push(row);
        Ok(())
    })?;
    // Who is the only one shows only where every configuration has looked for every bug.
    if arguments.all && arguments.bugs.is_empty() && !arguments.json {
        writeln!(io::stdout().lock())?;
        is_good &= show_unique(&rows, false)?;
    }
    Ok(is_good)
}

/// Shows what a ledger of `kill --all` says of each quick configuration.
fn summarise(file: &Path, json: bool) -> Result<bool, Failure> {
    let rows = evidence::ledger::<kill::Row>(file)?;
    let rows = rows.ok_or_else(|| format!("there is no {}", file.display()))?;
    show_unique(&rows, json)
}

/// Shows what each quick configuration alone kills; returns whether all are worth their seconds.
fn show_unique(rows: &[kill::Row], json: bool) -> Result<bool, Failure> {
    let unique = kill::unique(rows)?;
    let mut out = io::stdout().lock();
    let mut is_good = true;
    if !json {
        writeln!(out, "{:<22} it alone kills", "configuration")?;
    }
    for row in unique {
        is_good &= row.is_good();
        if json {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
        } else {
            writeln!(out, "{:<22} {}", row.configuration, row.reason())?;
        }
    }
    Ok(is_good)
}

fn run_tla(arguments: &Tla) -> Result<bool, Failure> {
    let jar = std::env::var_os("TLC_JAR").map(PathBuf::from);
    if !arguments.dir.join("MCVolume.tla").is_file() {
        let folder = arguments.dir.display();
        return Err(format!("no folder {folder} with MCVolume.tla here; give --dir").into());
    }
    let is_wanted = |e: &&tla::Expected| {
        if arguments.names.is_empty() {
            !e.is_large || jar.is_some()
        } else {
            arguments.names.iter().any(|named| named.name == e.name)
        }
    };
    let mut is_good = true;
    for expected in tla::EXPECTED.iter().filter(is_wanted) {
        for row in tla::check(&arguments.dir, expected, jar.as_deref()) {
            is_good &= row.is_good;
            let mut out = io::stdout().lock();
            if arguments.json {
                writeln!(out, "{}", serde_json::to_string(&row)?)?;
            } else {
                writeln!(
                    out,
                    "{:<34} {:<12} {:>8} states, depth {:>3}, {:>6.1} s  {}",
                    row.name, row.engine, row.states, row.depth, row.seconds, row.verdict
                )?;
            }
        }
    }
    Ok(is_good)
}

/// Returns `named` without what was named before.
pub(crate) fn without_repeats<T: Copy>(named: &[T], name: impl Fn(&T) -> &'static str) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in named {
        if !kept.iter().any(|known| name(known) == name(one)) {
            kept.push(*one);
        }
    }
    kept
}

/// Says something beside the results, to whoever still reads it.
fn tell(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

pub(crate) fn jobs(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(cores, NonZeroUsize::get)
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
