//! `quorate bench`: durable writes, beside a plain program that does the least.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_node::bench::{self, Options, floor, report, takeover};
use quorate_node::torture::Fault;

/// Where a benchmark works if it isn't told.
const DIRECTORY: &str = "quorate-bench";

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    /// Where to work; must not exist yet, and is removed afterwards
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Writes to keep under way
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 8, 64, 1024])]
    in_flight: Vec<usize>,
    /// The length of a write in bytes, 1 to 8192
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=8192))]
    bytes: u16,
    /// Turns of each system at each number
    #[arg(long, value_name = "N", default_value_t = 9)]
    turns: usize,
    /// Seconds of a turn
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// One object a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One node of the plain program.
    #[command(hide = true)]
    FloorNode {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Takeovers under load: from the end of a writer to the first durable write of the next one.
    ///
    /// With 64 writes under way the writer is killed (SIGKILL) or frozen (SIGSTOP), in turns, and
    /// another process is started at once. Every acknowledged write is read back.
    Takeover {
        /// Where to work; must not exist yet, and is removed afterwards
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        dir: PathBuf,
        /// How many takeovers
        #[arg(long, value_name = "N", default_value_t = 100)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
        trials: u64,
        /// One object a line instead of a table
        #[arg(long)]
        json: bool,
    },
}

impl Bench {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        match self.part {
            Some(Part::FloorNode { dir, listen }) => return Ok(floor::serve(&dir, listen)?),
            Some(Part::Takeover { dir, trials, json }) => return take_over(dir, trials, json),
            None => {}
        }
        std::fs::create_dir(&self.dir).map_err(|error| {
            let shown = self.dir.display();
            format!("{shown}: {error}: give a directory that does not exist yet with --dir")
        })?;
        let outcome = self.measure();
        std::fs::remove_dir_all(&self.dir)?;
        outcome
    }

    fn measure(&self) -> Result<(), Box<dyn Error>> {
        let options = Options {
            executable: std::env::current_exe()?,
            directory: self.dir.clone(),
            in_flight: self.in_flight.clone(),
            bytes: usize::from(self.bytes),
            turns: self.turns.max(1),
            span: Duration::try_from_secs_f64(self.seconds)?,
        };
        let mut out = io::stdout().lock();
        if !self.json {
            report::heading(&mut out)?;
        }
        bench::run(&options, |row| {
            if self.json {
                writeln!(out, "{}", serde_json::to_string(row)?)
            } else {
                report::line(&mut out, row)
            }
        })?;
        Ok(())
    }
}

fn take_over(directory: PathBuf, trials: u64, is_json: bool) -> Result<(), Box<dyn Error>> {
    if directory.exists() {
        let shown = directory.display();
        return Err(format!("{shown} exists: give another directory with --dir").into());
    }
    let executable = std::env::current_exe()?;
    let options = takeover::Options { executable, directory, trials, seed: 1 };
    let shows_progress = io::stderr().is_terminal();
    let outcome = takeover::run(&options, |findings| {
        if shows_progress {
            eprint!("\r{} of {trials} takeovers", findings.cycles);
        }
        Ok(())
    });
    if shows_progress {
        eprint!("\r\x1b[K");
    }
    let (rows, findings) = outcome?;
    let mut out = io::stdout().lock();
    if is_json {
        return rows
            .iter()
            .try_for_each(|row| Ok(writeln!(out, "{}", serde_json::to_string(row)?)?));
    }
    writeln!(out, "first durable write of the next writer, ms after the signal")?;
    writeln!(out, "{:<18} {:>7} {:>9} {:>9} {:>9}", "", "trials", "p50", "p99", "max")?;
    for takeover::Row { kind, trials, p50_ms, p99_ms, max_ms } in rows {
        let kind = if kind == Fault::StopWriter { "frozen (SIGSTOP)" } else { "killed (SIGKILL)" };
        writeln!(out, "{kind:<18} {trials:>7} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1}")?;
    }
    writeln!(
        out,
        "{} writes acknowledged, all of them read back; {} of overtaken writers, none acknowledged",
        findings.verified, findings.refused
    )?;
    Ok(())
}
