//! A whole cluster in one process: six nodes, their writers and their users in a world that a seed
//! decides, with faults within what the protocol claims to tolerate, and an oracle that sees what
//! users were told.
//!
//! A run goes in rounds. In each there are faults for some seconds: nodes are killed, lose power,
//! freeze and are cut off, at most a zone and one node at a time; writers overtake each other. Then
//! everything is healed, and within a bound a new writer has to open, write and read every page,
//! and all segments have to come level. A failed run is run again by its seed.

use std::fmt;
use std::time::Duration;

use quorate_core::rules::{Bug, Seeded, Sound};
use serde::Serialize;

#[cfg(test)]
mod backtracking;
mod client;
mod cluster;
#[cfg(test)]
mod emptied;
mod faults;
#[cfg(test)]
mod hedging;
#[cfg(test)]
mod links;
mod oracle;
mod repair;
mod round;
#[cfg(test)]
mod steady;

use cluster::Cluster;

/// The most simulated seconds of one run.
pub const SECONDS_MAX: u64 = 100_000;

/// What to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// What decides everything.
    pub seed: u64,
    /// For how long, in simulated time, at most [`SECONDS_MAX`] seconds. A round that has begun is
    /// ended.
    pub duration: Duration,
    /// Whether all nodes may lose power at once.
    pub has_blackouts: bool,
    /// What is wrong on purpose.
    pub mutant: Option<Mutant>,
}

/// Something wrong, to show that a run notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutant {
    /// The machines have a seeded bug.
    Core(Bug),
    /// Disks report a sync that they haven't done: the segments say durable too early.
    LyingDisk,
}

impl Mutant {
    /// The name of [`Mutant::LyingDisk`].
    pub const LYING_DISK: &'static str = "LyingDisk";

    /// Returns the mutant with this name, without regard to case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case(Self::LYING_DISK) {
            return Some(Self::LyingDisk);
        }
        Bug::named(name).map(Self::Core)
    }
}

/// What a run came to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How much time was simulated, in nanoseconds.
    pub simulated_ns: u64,
    /// Deliveries, ends of syncs, timers and alarms.
    pub events: u64,
    /// Acknowledged commits.
    pub commits: u64,
    /// Reads answered, whose page was compared.
    pub snapshot_reads: u64,
    /// The same for strict reads.
    pub strict_reads: u64,
    /// Writers that opened the volume.
    pub takeovers: u64,
    /// Rounds in which everything was healed and came level.
    pub rounds: u64,
    /// How often each fault made a difference.
    pub faults: Vec<(&'static str, u64)>,
    /// A hash over every event with its time, its place and its bytes, as sixteen hexadecimal
    /// digits.
    pub trace_hash: String,
}

/// A promise that was broken.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What was violated.
    pub violation: String,
    /// When, in nanoseconds of simulated time.
    pub at_ns: u64,
    /// What happened before: faults, writers that opened, nodes that came back.
    pub story: Vec<String>,
    /// The last events.
    pub last: Vec<String>,
    /// What the run had come to until then.
    pub report: Report,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "What happened last:")?;
        for line in &self.story {
            writeln!(out, "  {line}")?;
        }
        writeln!(out, "The last events:")?;
        for line in &self.last {
            writeln!(out, "  {line}")?;
        }
        writeln!(out, "VIOLATION at {}: {}", seconds(self.at_ns), self.violation)
    }
}

/// Runs a simulation to its end.
///
/// # Errors
/// [`Failure`] tells which promise was broken.
pub fn run(options: &Options) -> Result<Report, Box<Failure>> {
    match options.mutant {
        Some(Mutant::Core(bug)) => Cluster::new(Seeded(bug), options).run(),
        Some(Mutant::LyingDisk) | None => Cluster::new(Sound, options).run(),
    }
}

/// Returns simulated time as people read it.
fn seconds(nanoseconds: u64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    format!("{whole}.{:06} s", rest / 1000)
}
