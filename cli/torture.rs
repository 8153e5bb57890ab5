//! `quorate torture`: faults under load, and everything that was acknowledged read back.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use quorate_checks::source::CORE;
use quorate_core::rules::Bug;
use quorate_node::source::NODE;
use quorate_node::torture::ledger::{self, Row};
use quorate_node::torture::{self, Fault, Findings, Options};

use crate::{Outcome, mutant};

/// Where a torture works if it isn't told.
const DIRECTORY: &str = "quorate-torture";

/// Kill, stop and cut off nodes and writers under load, over and over; then read back every write
/// that was acknowledged.
///
/// Ends with exit code 1 at the first acknowledged write that is lost, the first write of an
/// overtaken writer that is acknowledged, and at anything that gets stuck. Every process is this
/// program's own; all traffic stays on loopback.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate torture --cycles 100 --resume evidence/torture.jsonl")]
pub(crate) struct TortureArguments {
    /// How many times to let something go wrong
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Acknowledged writes of a cycle
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    writes: u64,
    /// Writes under way
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=128))]
    in_flight: u16,
    /// What all choices follow from [default: the number of cycles in the ledger]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// A ledger to add to; the figures shown are then its sum over these sources
    #[arg(long, value_name = "LEDGER")]
    resume: Option<PathBuf>,
    /// Where to work; must not exist yet, and is removed afterwards unless something was found
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Run everything with this seeded bug of `quorate check list`, to show that it is noticed
    #[arg(long, value_name = "BUG", value_parser = mutant::parse, conflicts_with = "resume")]
    mutant: Option<Bug>,
    /// One object instead of words
    #[arg(long)]
    json: bool,
}

impl TortureArguments {
    pub(crate) fn execute(self) -> Outcome {
        if self.dir.exists() {
            let shown = self.dir.display();
            return Err(format!("{shown} exists: give another directory with --dir").into());
        }
        let rows = match &self.resume {
            Some(path) => {
                ledger::read(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
            None => Vec::new(),
        };
        let before = ledger::sum(&rows, CORE, NODE);
        let seed = self.seed.unwrap_or(before.cycles);
        let options = Options {
            executable: std::env::current_exe()?,
            directory: self.dir.clone(),
            cycles: self.cycles,
            writes: self.writes,
            in_flight: usize::from(self.in_flight),
            seed,
            faults: Fault::ALL.to_vec(),
            mutant: self.mutant,
        };
        if let Some(bug) = self.mutant {
            mutant::warn(bug);
        }
        let shows_progress = io::stderr().is_terminal();
        let findings = torture::run(&options, |findings| {
            if shows_progress {
                let Findings { cycles, verified, .. } = findings;
                eprint!("\r{cycles} of {} cycles, {verified} writes verified", options.cycles);
            }
            Ok(())
        });
        if shows_progress {
            eprintln!();
        }
        let findings = findings.inspect_err(|error| {
            if self.json {
                let found = serde_json::json!({
                    "core": CORE, "node": NODE, "seed": seed, "finding": error.to_string(),
                });
                println!("{found}");
            }
        })?;
        let row = Row { core: CORE.into(), node: NODE.into(), seed, findings };
        let mut rows = rows;
        if let Some(path) = &self.resume {
            ledger::append(path, &row)?;
        }
        rows.push(row);
        self.report(&ledger::sum(&rows, CORE, NODE))
    }

    fn report(&self, findings: &Findings) -> Outcome {
        let mut out = io::stdout().lock();
        let takeovers: Vec<serde_json::Value> = findings
            .takeovers_ms
            .iter()
            .map(|(fault, times)| {
                let mut times = times.clone();
                times.sort_unstable_by(f64::total_cmp);
                let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100);
                serde_json::json!({
                    "fault": fault, "takeovers": times.len(), "p50_ms": at(50), "p99_ms": at(99),
                })
            })
            .collect();
        if self.json {
            let Findings { cycles, acknowledged, verified, refused, faults, seconds, .. } =
                findings;
            let row = serde_json::json!({
                "core": CORE, "node": NODE, "cycles": cycles, "acknowledged": acknowledged,
                "verified": verified, "lost": 0, "stale_acknowledgements": 0,
                "refused_to_overtaken": refused, "faults": faults, "takeovers": takeovers,
                "seconds": seconds,
            });
            writeln!(out, "{row}")?;
            return Ok(());
        }
        writeln!(
            out,
            "{} cycles: {} writes acknowledged, {} of them read back, none lost; {} writes of \
             overtaken writers, none acknowledged",
            findings.cycles, findings.acknowledged, findings.verified, findings.refused
        )?;
        for (fault, count) in &findings.faults {
            writeln!(out, "  {count:>6} x {fault:?}")?;
        }
        for takeover in takeovers {
            writeln!(out, "  takeover {takeover}")?;
        }
        Ok(())
    }
}
