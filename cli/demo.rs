//! `quorate demo`.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use quorate_checks::command::{self, Explored};
use quorate_core::rules::Bug;
use quorate_node::demo::{self, Colour, DemoError, Measured, Narrator};
use serde::Serialize;

use crate::mutant;

/// Tell the whole story on this machine: explore a model and show what a broken variant does; then
/// six nodes and a writer, a file, killed nodes, a frozen writer that is overtaken, and every
/// acknowledged byte read back.
///
/// Exits with 0 only if all of it held.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate demo
See it fail: quorate demo --mutant NoFence")]
pub(crate) struct Demo {
    /// Where to work; kept afterwards [default: ./quorate-demo, removed afterwards]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The file to load [default: a generated one]
    #[arg(long, value_name = "FILE", conflicts_with = "size_mb")]
    file: Option<PathBuf>,
    /// The size of the generated file, in units of 2^20 bytes
    #[arg(long, value_name = "MB", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size_mb: u64,
    /// Run every process with this seeded bug of `quorate check list`
    #[arg(long, value_name = "BUG", value_parser = mutant::parse)]
    mutant: Option<Bug>,
    /// Print one object with the figures; the story goes to standard error
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    held: bool,
    mutant: Option<&'static str>,
    violation: Option<String>,
    model: Explored,
    cluster: Option<&'a Measured>,
}

impl Demo {
    /// Returns whether all of it held.
    pub(crate) fn execute(self) -> Result<bool, Box<dyn Error>> {
        let mut out: Box<dyn Write> =
            if self.json { Box::new(io::stderr().lock()) } else { Box::new(io::stdout().lock()) };
        let is_terminal =
            if self.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let colour = if is_terminal { Colour::Coloured } else { Colour::Plain };
        // The bug that the model shows is the one that the processes show best.
        let model = command::demonstrate(&mut out, Bug::NoFence)
            .map_err(|error| error as Box<dyn Error>)?;
        let options = demo::Options {
            executable: std::env::current_exe()?,
            directory: self.dir,
            file: self.file,
            size_mb: self.size_mb,
            mutant: self.mutant,
        };
        let mut narrator = Narrator::new(&mut out, colour);
        let outcome = demo::run(&options, &mut narrator);
        if let (Ok(_), Some(bug)) = (&outcome, self.mutant) {
            let name = bug.name();
            narrator.detail(&format!(
                "This story does not notice {name}. See what does: quorate check kill {name}"
            ))?;
        }
        if let Err(error) = &outcome {
            narrator.step(&error.to_string())?;
        }
        drop(out);
        if self.json {
            let report = Report {
                held: outcome.is_ok(),
                mutant: self.mutant.map(Bug::name),
                violation: outcome.as_ref().err().map(DemoError::to_string),
                model,
                cluster: outcome.as_ref().ok(),
            };
            writeln!(io::stdout().lock(), "{}", serde_json::to_string(&report)?)?;
        }
        Ok(outcome.is_ok())
    }
}
