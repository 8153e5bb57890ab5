//! `quorate down`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use quorate_node::cluster::{self, Stopped};
use serde::Serialize;

use crate::Outcome;
use crate::place::{Place, print_json};

/// How long `quorate up` may take to end its processes.
const PATIENCE: Duration = Duration::from_secs(30);

/// End the cluster that `quorate up` runs; its data stay.
#[derive(Args, Debug)]
#[command(after_help = "Example: quorate down")]
pub(crate) struct Down {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ended {
    was_running: bool,
    pid: Option<i32>,
}

impl Down {
    pub(crate) fn execute(self) -> Outcome {
        let directory = self.place.directory.display();
        let pid = match cluster::stop(&self.place.directory, PATIENCE)? {
            Stopped::Ended(pid) => Some(pid),
            Stopped::NotRunning => None,
            Stopped::StillRunning(pid) => {
                return Err(format!(
                    "process {pid} was told to end the cluster in {directory} and has not done so \
                     within {PATIENCE:?}: is it stopped? Look at it with `ps {pid}`"
                )
                .into());
            }
        };
        if self.json {
            return print_json(&Ended { was_running: pid.is_some(), pid });
        }
        let mut out = io::stdout().lock();
        match pid {
            Some(_) => writeln!(out, "the cluster in {directory} has ended; its data stay there")?,
            None => writeln!(out, "no cluster runs in {directory}: there is nothing to end")?,
        }
        Ok(())
    }
}
