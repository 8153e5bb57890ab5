//! What earlier tortures found, kept in a file: evidence that doesn't fit one sitting.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Findings;

/// One torture.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// Hash of the core's sources.
    pub core: String,
    /// Hash of the node's sources.
    pub node: String,
    /// The seed.
    pub seed: u64,
    /// What it did and found.
    #[serde(flatten)]
    pub findings: Findings,
}

/// Why a ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A line isn't a row.
    #[error("line {line} is not a row of a ledger: {error}. Correct or remove it")]
    Line {
        /// Its number, from one on.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The operating system.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Returns the rows of the ledger at `path`, none if there is no such file.
///
/// # Errors
/// [`LedgerError`] when it isn't a ledger.
pub fn read(path: &Path) -> Result<Vec<Row>, LedgerError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let parse = |(line, text): (usize, &str)| {
        serde_json::from_str(text).map_err(|error| LedgerError::Line { line, error })
    };
    (1..).zip(text.lines()).filter(|(_, text)| !text.is_empty()).map(parse).collect()
}

/// Adds a row to the ledger at `path`, durably.
///
/// # Errors
/// [`LedgerError`] when it can't be written.
pub fn append(path: &Path, row: &Row) -> Result<(), LedgerError> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let line = serde_json::to_string(row).map_err(|error| LedgerError::Line { line: 0, error })?;
    writeln!(file, "{line}")?;
    Ok(file.sync_all()?)
}

/// Returns the sum of the rows that were measured on these sources.
#[must_use]
pub fn sum(rows: &[Row], core: &str, node: &str) -> Findings {
    let mut sum = Findings::default();
    for row in rows.iter().filter(|row| row.core == core && row.node == node) {
        let Findings { cycles, acknowledged, verified, refused, faults, takeovers_ms, seconds } =
            &row.findings;
        sum.cycles += cycles;
        sum.acknowledged += acknowledged;
        sum.verified += verified;
        sum.refused += refused;
        sum.seconds += seconds;
        for (fault, count) in faults {
            *sum.faults.entry(*fault).or_default() += count;
        }
        for (fault, times) in takeovers_ms {
            sum.takeovers_ms.entry(*fault).or_default().extend(times);
        }
    }
    sum
}
