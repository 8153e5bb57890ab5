//! `quorate bench`: durable writes, beside a plain program that does the least.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_node::bench::{self, Options, etcd, floor, reader, repair, report, start, takeover};
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
    #[arg(value_parser = at_least_one)]
    in_flight: Vec<usize>,
    /// The length of a write in bytes, 1 to 8192
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=8192))]
    bytes: u16,
    /// Turns of each system at each number
    #[arg(long, value_name = "N", default_value_t = 9)]
    #[arg(value_parser = at_least_one)]
    turns: usize,
    /// Seconds of a turn
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// One object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Beside a three-node etcd in place of the plain program; skipped, with a word, without one on
    /// PATH
    #[arg(long)]
    etcd: bool,
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
        #[arg(long)]
        keeps: bool,
    },
    /// A reader: how soon it sees what is acknowledged, at half of the rate that the writer can do.
    ///
    /// Every commit is read back from the reader by a read that names it, which must not be stale.
    Reader {
        /// Where to work; must not exist yet, and is removed afterwards
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        dir: PathBuf,
        /// The length of a write in bytes, 8 to 8192
        #[arg(long, value_name = "BYTES", default_value_t = 1024)]
        #[arg(value_parser = clap::value_parser!(u16).range(8..=8192))]
        bytes: u16,
        /// How many commits
        #[arg(long, value_name = "N", default_value_t = 20_000)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        trials: u64,
        /// Seconds to find out the rate
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
        seconds: f64,
        /// One object instead of words
        #[arg(long)]
        json: bool,
    },
    /// Lost disks: node after node is killed and emptied under load, and replaced by a new one.
    ///
    /// In the middle of it the writer, the node that joins, or another member is killed (SIGKILL),
    /// in turns. Every acknowledged write is read back; none may fail but those that were under way
    /// when their writer was killed.
    Repair {
        /// Where to work; must not exist yet, and is removed afterwards
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        dir: PathBuf,
        /// How many disks are lost
        #[arg(long, value_name = "N", default_value_t = 8)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
        cycles: u64,
        /// How much the volume holds before, in units of 2^20 bytes
        #[arg(long, value_name = "MB", default_value_t = 64)]
        #[arg(value_parser = clap::value_parser!(u64).range(0..=65_536))]
        megabytes: u64,
        /// Kill nothing but the nodes that lose their disks
        #[arg(long)]
        quiet: bool,
        /// What everything random follows from, but for the timing of processes
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// One object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// `quorate up`: how long it takes to get ready, and what its processes cost while they are
    /// idle.
    ///
    /// Each cluster is started, ended, and started again on what it holds; the last one is watched.
    Start {
        /// Where to work; must not exist yet, and is removed afterwards
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        dir: PathBuf,
        /// How many clusters
        #[arg(long, value_name = "N", default_value_t = 20)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
        starts: u32,
        /// Seconds to watch an idle cluster
        #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
        idle: f64,
        /// One object instead of a table
        #[arg(long)]
        json: bool,
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

/// Parses a count: of nothing there is nothing to measure.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("has to be at least 1".into()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

impl Bench {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        match self.part {
            Some(Part::FloorNode { dir, listen, keeps }) => {
                return Ok(floor::serve(&dir, listen, keeps)?);
            }
            Some(Part::Reader { dir, bytes, trials, seconds, json }) => {
                let options = reader::Options {
                    executable: std::env::current_exe()?,
                    directory: dir.clone(),
                    bytes: usize::from(bytes),
                    span: Duration::try_from_secs_f64(seconds)?,
                    trials,
                };
                return within(&dir, || follow(&options, json));
            }
            Some(Part::Repair { dir, cycles, megabytes, quiet, seed, json }) => {
                let executable = std::env::current_exe()?;
                let directory = dir.clone();
                let is_quiet = quiet;
                let options =
                    repair::Options { executable, directory, cycles, megabytes, is_quiet, seed };
                return within(&dir, || repair(&options, json));
            }
            Some(Part::Start { dir, starts, idle, json }) => {
                let idle = Duration::try_from_secs_f64(idle)?;
                return within(&dir, || start(&dir, starts, idle, json));
            }
            Some(Part::Takeover { dir, trials, json }) => return take_over(dir, trials, json),
            None => {}
        }
        if !self.etcd {
            return within(&self.dir, || self.measure());
        }
        match etcd::find() {
            Some(program) => within(&self.dir, || self.measure_etcd(&program)),
            None => {
                let why = "there is no etcd on PATH; on Debian, apt-get install etcd-server";
                eprintln!("SKIPPED: {why}");
                if self.json {
                    let skipped = serde_json::json!({ "skipped": why });
                    writeln!(io::stdout().lock(), "{skipped}")?;
                }
                Ok(())
            }
        }
    }

    fn measure_etcd(&self, program: &Path) -> Result<(), Box<dyn Error>> {
        let mut out = io::stdout().lock();
        if !self.json {
            report::heading(&mut out)?;
        }
        etcd::run(&self.options()?, program, |row| {
            if self.json {
                writeln!(out, "{}", serde_json::to_string(row)?)
            } else {
                report::line(&mut out, row)
            }
        })?;
        Ok(())
    }

    fn options(&self) -> Result<Options, Box<dyn Error>> {
        Ok(Options {
            executable: std::env::current_exe()?,
            directory: self.dir.clone(),
            in_flight: self.in_flight.clone(),
            bytes: usize::from(self.bytes),
            turns: self.turns.max(1),
            span: Duration::try_from_secs_f64(self.seconds)?,
        })
    }

    fn measure(&self) -> Result<(), Box<dyn Error>> {
        let options = self.options()?;
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

/// Does something in a directory that is made for it, and removed.
fn within(
    directory: &Path,
    job: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir(directory).map_err(|error| {
        let shown = directory.display();
        format!("{shown}: {error}: give a directory that does not exist yet with --dir")
    })?;
    let outcome = job();
    std::fs::remove_dir_all(directory)?;
    outcome
}

fn start(dir: &Path, starts: u32, idle: Duration, is_json: bool) -> Result<(), Box<dyn Error>> {
    let executable = std::env::current_exe()?;
    let options = start::Options { executable, directory: dir.to_path_buf(), starts, idle };
    let shows_progress = io::stderr().is_terminal();
    let outcome = start::run(&options, |started| {
        if shows_progress {
            eprint!("\r{started} of {starts} clusters");
        }
    });
    if shows_progress {
        eprint!("\r\x1b[K");
    }
    let report = outcome?;
    let mut out = io::stdout().lock();
    if is_json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&report)?)?);
    }
    writeln!(out, "seconds until `quorate up` is ready")?;
    writeln!(out, "{:<18} {:>7} {:>9} {:>9}", "", "starts", "p50", "max")?;
    for (kind, row) in [("new volume", report.new), ("continued", report.continued)] {
        writeln!(out, "{kind:<18} {:>7} {:>9.3} {:>9.3}", row.starts, row.p50_s, row.max_s)?;
    }
    match report.idle {
        Some(start::Idle { processes, seconds, cpu_percent }) => writeln!(
            out,
            "idle for {seconds:.0} s: {processes} processes took {cpu_percent:.2} % of one \
             processor"
        )?,
        None => writeln!(out, "idle: not measured, there is no /proc here")?,
    }
    Ok(())
}

fn follow(options: &reader::Options, is_json: bool) -> Result<(), Box<dyn Error>> {
    let report = reader::run(options)?;
    let mut out = io::stdout().lock();
    if is_json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&report)?)?);
    }
    let reader::Report { rate_max, rate, trials, stale, p50_ms, p99_ms, max_ms } = report;
    writeln!(out, "the writer's greatest rate: {rate_max:.0} durable writes a second")?;
    writeln!(
        out,
        "at {rate:.0} a second, {trials} commits read back from the reader, {stale} stale"
    )?;
    writeln!(
        out,
        "ms from the acknowledgement to the reader's answer: p50 {p50_ms:.2}, p99 {p99_ms:.2}, \
         max {max_ms:.2}"
    )?;
    Ok(())
}

fn repair(options: &repair::Options, is_json: bool) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    if !is_json {
        writeln!(
            out,
            "commits in ms before a disk is lost, and from then on until it is replaced"
        )?;
        writeln!(
            out,
            "{:<10} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
            "killed", "s", "joins", "commits", "p50", "p99", "p50", "p99", "max"
        )?;
    }
    repair::run(options, |row| {
        if is_json {
            return writeln!(out, "{}", serde_json::to_string(row)?);
        }
        let fault = format!("{:?}", row.fault).to_lowercase();
        writeln!(
            out,
            "{fault:<10} {:>8.2} {:>8.2} {:>9} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.2}",
            row.seconds,
            row.hydration_seconds,
            row.commits,
            row.before_p50_ms,
            row.before_p99_ms,
            row.during_p50_ms,
            row.during_p99_ms,
            row.during_max_ms
        )?;
        out.flush()
    })?;
    Ok(())
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
