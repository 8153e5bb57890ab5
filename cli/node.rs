//! `quorate node`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_node::config::file::NodeFile;
use quorate_node::driver::Node;
use quorate_node::env::Environment;
use quorate_node::env::real::RealEnvironment;

use crate::{Outcome, ending, mutant};

/// Serve one segment of a volume, until SIGINT or SIGTERM.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate node --config quorate-data/a1/node.toml

The keys of the file: volume (its name, hexadecimal), groups (how many the volume has), group and
position (which segment this is), directory (of its log, from that of the file), listen (an
address), peers (the addresses of the group's six segments by position, this one's included).")]
pub(crate) struct NodeArguments {
    /// The node's configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when standard input is closed: whoever starts a node so takes it along
    #[arg(long)]
    leashed: bool,
    /// Run with this seeded bug
    #[arg(long, value_name = "BUG", value_parser = mutant::parse, hide = true)]
    mutant: Option<Bug>,
}

impl NodeArguments {
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
        let config = NodeFile::load(&self.config)?;
        let environment = RealEnvironment::new()?;
        let is_over = ending::watch(self.leashed, environment.waker())?;
        let (listen, volume) = (config.listen, config.volume);
        let (group, position) = (config.group, config.position);
        let (mut node, replay) = Node::start_under(rules, environment, config)?;
        let status = node.status();
        eprintln!(
            "quorate: segment {position} of {group} of volume {volume} listens at {listen}; \
             {} frames replayed, {} torn bytes cut off, {} records, complete up to LSN {}",
            replay.frames, replay.cut_bytes, status.records, status.scl
        );
        node.run(|| is_over.load(Ordering::SeqCst))?;
        Ok(())
    }
}
