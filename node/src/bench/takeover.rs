//! How long a volume is without a writer: takeovers under load, one after the other.
//!
//! It is a torture whose only faults are writers that are killed or frozen, so that every
//! acknowledged write is read back as well.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use crate::torture::{self, Fault, Findings, TortureError};

/// Writes under way when the writer is ended.
const IN_FLIGHT: usize = 64;

/// Acknowledged writes of a trial, in the middle of which the writer is ended.
const WRITES: u64 = 500;

/// What a benchmark of takeovers is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes and writers.
    pub executable: PathBuf,
    /// Where to work; removed afterwards.
    pub directory: PathBuf,
    /// How many takeovers; half of them after a SIGKILL, half after a SIGSTOP.
    pub trials: u64,
    /// What the moments of the faults follow from.
    pub seed: u64,
}

/// What takeovers of one kind took: from the signal to the first durable write of the new writer,
/// the start of its process included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What happened to the former writer.
    pub kind: Fault,
    /// How many takeovers.
    pub trials: usize,
    /// Half of them took at most so long.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

impl Row {
    /// Sums up what takeovers of one kind took; `None` of none.
    #[must_use]
    pub fn of(kind: Fault, times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        // The nearest rank: the least value that so many of 100 don't exceed.
        let at = |share: usize| {
            let rank = sorted.len().saturating_mul(share).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        let (p50_ms, p99_ms, max_ms) = (at(50)?, at(99)?, at(100)?);
        Some(Self { kind, trials: sorted.len(), p50_ms, p99_ms, max_ms })
    }
}

/// Runs the takeovers, and returns a row for each kind with what was found besides.
///
/// # Errors
/// [`TortureError`] at the first thing that must not happen.
pub fn run(
    options: &Options,
    tell: impl FnMut(&Findings) -> io::Result<()>,
) -> Result<(Vec<Row>, Findings), TortureError> {
    let options = torture::Options {
        executable: options.executable.clone(),
        directory: options.directory.clone(),
        cycles: options.trials,
        writes: WRITES,
        in_flight: IN_FLIGHT,
        seed: options.seed,
        faults: vec![Fault::KillWriter, Fault::StopWriter],
        mutant: None,
    };
    let findings = torture::run(&options, tell)?;
    let rows = findings.takeovers_ms.iter().filter_map(|(kind, times)| Row::of(*kind, times));
    Ok((rows.collect(), findings))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A percentile of the wrong rank would flatter.
    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let row = Row::of(Fault::KillWriter, &times).unwrap();
        assert_eq!((row.p50_ms, row.p99_ms, row.max_ms), (100.0, 198.0, 200.0));
        let row = Row::of(Fault::KillWriter, &[7.0, 3.0]).unwrap();
        assert_eq!((row.trials, row.p50_ms, row.p99_ms, row.max_ms), (2, 3.0, 7.0, 7.0));
        assert_eq!(Row::of(Fault::KillWriter, &[]), None);
    }
}
