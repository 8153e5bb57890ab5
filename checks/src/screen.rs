//! What a person sees of a run: a line a configuration, and one that tells how the others do.

use std::io::{self, IsTerminal, Write};

use quorate_models::configuration;

use crate::fleet::Row;
use crate::run::Progress;

pub(crate) struct Screen {
    json: bool,
    is_live: bool,
    /// The longest name of a configuration.
    width: usize,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let width = configuration::ALL.iter().map(|c| c.name.len()).max().unwrap_or(0);
        Self { json, is_live: io::stderr().is_terminal(), width }
    }

    pub(crate) fn head(&self) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let width = self.width;
        writeln!(
            io::stdout().lock(),
            "{:<width$} {:<6} {:>12} {:>13} {:>5} {:>8} {:>9} {:>8}  verdict",
            "configuration",
            "grain",
            "states",
            "steps",
            "depth",
            "seconds",
            "MiB",
            "missed"
        )
    }

    pub(crate) fn row(&self, row: &Row) -> io::Result<()> {
        self.clear();
        let mut out = io::stdout().lock();
        if self.json {
            return writeln!(out, "{}", serde_json::to_string(row)?);
        }
        let width = self.width;
        writeln!(
            out,
            "{:<width$} {:<6} {:>12} {:>13} {:>5} {:>8.1} {:>9.1} {:>8.0e}  {}",
            row.name,
            row.granularity,
            row.unique_states,
            row.transitions,
            row.depth,
            row.seconds,
            row.peak_mib,
            row.collision_bound,
            row.verdict
        )
    }

    /// Shows how far a configuration is; nobody needs to see it, so nothing can go wrong.
    pub(crate) fn progress(&self, name: &str, progress: &Progress) {
        if self.is_live {
            let rate = f64::from(u32::try_from(progress.transitions).unwrap_or(u32::MAX))
                / progress.seconds.max(0.001);
            let _ = write!(
                io::stderr().lock(),
                "\r\x1b[K{name}: {} states, {:.2} M steps/s, depth {}, {:.0} s",
                progress.unique_states,
                rate / 1e6,
                progress.depth,
                progress.seconds
            );
        }
    }

    pub(crate) fn clear(&self) {
        if self.is_live {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
