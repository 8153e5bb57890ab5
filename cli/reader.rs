//! `quorate reader`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_node::config::file::ReaderFile;
use quorate_node::env::Environment;
use quorate_node::env::real::RealEnvironment;
use quorate_node::reader::ReaderProcess;

use crate::{Outcome, ending, mutant};

/// Follow a volume's writer, and serve clients that only read, until SIGINT or SIGTERM.
///
/// A reader takes nothing over and costs the writer no acknowledgement. It goes on to read when the
/// writer is gone, at the last point that it was told of, and follows the next one.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate reader --config reader.toml

The keys of the file: volume (its name, hexadecimal), listen (an address for clients), writers (the
addresses of the volume's writer processes: all that there are, or may be later), segments (the
addresses of the volume's segments: a list for each group, by position).")]
pub(crate) struct ReaderArguments {
    /// The reader's configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when standard input is closed: whoever starts a reader so takes it along
    #[arg(long)]
    leashed: bool,
    /// Run with this seeded bug
    #[arg(long, value_name = "BUG", value_parser = mutant::parse, hide = true)]
    mutant: Option<Bug>,
}

impl ReaderArguments {
    pub(crate) fn execute(self) -> Outcome {
        match self.mutant {
            Some(bug) => {
                mutant::warn(bug);
                self.serve(Seeded(bug))
            }
            None => self.serve(Sound),
        }
    }

    fn serve<R: Rules>(self, rules: R) -> Outcome {
        let (config, listen) = ReaderFile::load(&self.config)?;
        let environment = RealEnvironment::new()?;
        let is_over = ending::watch(self.leashed, environment.waker())?;
        let volume = config.volume;
        let mut reader = ReaderProcess::start_under(rules, environment, config, listen)?;
        reader.run(
            || is_over.load(Ordering::SeqCst),
            |attached| {
                eprintln!(
                    "quorate: reader of volume {volume} follows the writer of {} from {}, serves \
                     clients at {listen}",
                    attached.epoch, attached.vdl
                );
            },
        )?;
        Ok(())
    }
}
