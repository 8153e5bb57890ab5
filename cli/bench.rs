//! `quorate bench`: durable writes, beside a plain program that does the least.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_node::bench::{self, Options, floor, report};

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
}

impl Bench {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        if let Some(Part::FloorNode { dir, listen }) = self.part {
            return Ok(floor::serve(&dir, listen)?);
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
