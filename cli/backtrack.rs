//! `quorate backtrack`.

use std::io::{self, Write as _};

use clap::Args;
use quorate_core::lsn::Lsn;
use quorate_node::clock::{Clock, Moment};
use serde::Serialize;

use crate::Outcome;
use crate::place::{Reach, print_json};

/// Go back to an earlier commit, or forward again as long as nothing has been written since.
///
/// Everything that was committed after that LSN is gone for whoever reads from the writer from now
/// on, and from readers once they have heard of it. It is not thrown away until something new is
/// written: until then the volume goes forward again with the same command.
#[derive(Args, Debug)]
#[command(after_help = "Example: quorate backtrack --to 1234, with an LSN that `write` printed")]
pub(crate) struct Backtrack {
    /// The LSN of a commit
    #[arg(long, value_name = "LSN")]
    to: u64,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Gone {
    lsn: u64,
    epoch: u64,
    milliseconds: f64,
}

impl Backtrack {
    pub(crate) fn execute(self) -> Outcome {
        let Self { to, reach, json } = self;
        let mut client = reach.connect()?;
        let clock = Clock::start();
        let (epoch, point) = client.backtrack_now(Lsn::new(to))?;
        let milliseconds = clock.now().since(Moment::default()).as_secs_f64() * 1e3;
        if json {
            return print_json(&Gone {
                lsn: point.lsn().get(),
                epoch: epoch.counter(),
                milliseconds,
            });
        }
        writeln!(
            io::stdout().lock(),
            "the volume is at LSN {point}, in epoch {}, after {milliseconds:.1} ms",
            epoch.counter()
        )?;
        Ok(())
    }
}
