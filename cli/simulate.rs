//! `quorate simulate`: whole clusters in simulated worlds, one for each seed.

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use quorate_node::clock::Clock;
use quorate_node::simulation::{self, Failure, Mutant, Options, Report, SECONDS_MAX};

/// What to simulate.
#[derive(Args, Debug)]
pub(crate) struct SimulateArguments {
    /// The seed; the run that it names is always the same
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// How many seconds to simulate
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// How many runs, with this seed and those after it
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Let all nodes lose power at once, too: a volume isn't available then, but nothing is lost
    #[arg(long)]
    blackouts: bool,
    /// Simulate something wrong: a seeded bug of `quorate check kill`, or LyingDisk
    #[arg(long, value_name = "NAME", value_parser = parse_mutant)]
    mutant: Option<Mutant>,
    /// Print one line of JSON for each run
    #[arg(long)]
    json: bool,
}

fn parse_mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("no seeded bug is called {name}"))
}

impl SimulateArguments {
    /// Runs until a promise is broken; returns whether none was.
    pub(crate) fn execute(&self) -> Result<bool, Box<dyn Error>> {
        let mut out = io::stdout().lock();
        for more in 0..self.seeds {
            let seed = self.seed.wrapping_add(more);
            let duration = Duration::from_secs(self.seconds);
            let clock = Clock::start();
            let outcome = simulation::run(&Options {
                seed,
                duration,
                has_blackouts: self.blackouts,
                mutant: self.mutant,
            });
            let wall = clock.now().since(quorate_node::clock::Moment::default());
            if self.json {
                let line = match &outcome {
                    Ok(report) => serde_json::to_string(report)?,
                    Err(failure) => serde_json::to_string(failure)?,
                };
                writeln!(out, "{line}")?;
            }
            match outcome {
                Ok(report) if !self.json => print(&mut out, &report, wall)?,
                Ok(_) => {}
                Err(failure) => {
                    if !self.json {
                        self.explain(&mut out, &failure)?;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn explain(&self, out: &mut impl Write, failure: &Failure) -> io::Result<()> {
        write!(out, "{failure}")?;
        let Self { seconds, blackouts, mutant, .. } = self;
        write!(out, "Again: quorate simulate --seed {}", failure.report.seed)?;
        write!(out, " --seconds {seconds}{}", if *blackouts { " --blackouts" } else { "" })?;
        match mutant {
            Some(Mutant::Core(bug)) => writeln!(out, " --mutant {}", bug.name()),
            Some(Mutant::LyingDisk) => writeln!(out, " --mutant {}", Mutant::LYING_DISK),
            None => writeln!(out),
        }
    }
}

fn print(out: &mut impl Write, report: &Report, wall: Duration) -> io::Result<()> {
    let simulated = Duration::from_nanos(report.simulated_ns);
    writeln!(
        out,
        "seed {}: {:.1} s simulated in {:.2} s, {} rounds, trace {}",
        report.seed,
        simulated.as_secs_f64(),
        wall.as_secs_f64(),
        report.rounds,
        report.trace_hash
    )?;
    writeln!(
        out,
        "  {} commits, {} snapshot reads, {} strict reads, {} writers opened",
        report.commits, report.snapshot_reads, report.strict_reads, report.takeovers
    )?;
    let rate = report.events as f64 / wall.as_secs_f64();
    writeln!(out, "  {} events, {rate:.0} a second", report.events)?;
    let faults: Vec<String> =
        report.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    writeln!(out, "  faults: {}", faults.join(", "))
}
