//! `quorate demo`.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use quorate_checks::command;
use quorate_core::rules::Bug;
use quorate_node::demo::{self, Colour, Narrator};

use crate::Outcome;

/// Tell the whole story on this machine: explore a model, show a broken variant, load a file into
/// six nodes, kill two, read it back.
#[derive(Args, Debug)]
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
}

impl Demo {
    pub(crate) fn execute(self) -> Outcome {
        let Self { dir: directory, file, size_mb } = self;
        let executable = std::env::current_exe()?;
        let options = demo::Options { executable, directory, file, size_mb };
        let colour = if io::stdout().is_terminal() { Colour::Coloured } else { Colour::Plain };
        let mut out = io::stdout().lock();
        command::demonstrate(&mut out, Bug::NoFence).map_err(|error| error as Box<dyn Error>)?;
        let mut narrator = Narrator::new(&mut out, colour);
        demo::run(&options, &mut narrator)?;
        narrator.step("Done.")?;
        Ok(())
    }
}
