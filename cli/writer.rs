//! `quorate writer`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_node::config::file::WriterFile;
use quorate_node::env::Environment;
use quorate_node::env::real::RealEnvironment;
use quorate_node::writer::WriterProcess;

use crate::{Outcome, ending, mutant};

/// Open a volume, taking it over from whoever has it, and serve clients until SIGINT or SIGTERM.
///
/// A writer that another one overtakes answers every request with that, and ends with exit code 1.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate writer --config quorate-data/writer/writer.toml

The keys of the file: volume (its name, hexadecimal), listen (an address for clients), segments (the
addresses of the volume's segments: a list for each group, by position), patience_seconds (how long
the recovery may take; 60 unless it says otherwise).")]
pub(crate) struct WriterArguments {
    /// The writer's configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when standard input is closed: whoever starts a writer so takes it along
    #[arg(long)]
    leashed: bool,
    /// Run with this seeded bug
    #[arg(long, value_name = "BUG", value_parser = mutant::parse, hide = true)]
    mutant: Option<Bug>,
}

impl WriterArguments {
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
        let (config, listen) = WriterFile::load(&self.config)?;
        let environment = RealEnvironment::new()?;
        let is_over = ending::watch(self.leashed, environment.waker())?;
        let volume = config.volume;
        let mut writer = WriterProcess::start_under(rules, environment, config, listen)?;
        writer.run(
            || is_over.load(Ordering::SeqCst),
            |opened| {
                eprintln!(
                    "quorate: writer of volume {volume} is open as {} at recovery point {}, \
                     serves clients at {listen}",
                    opened.epoch, opened.recovery_point
                );
            },
        )?;
        Ok(())
    }
}
