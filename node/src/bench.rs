//! The benchmark: durable writes, beside the least that any such program does.
//!
//! Absolute figures of two runs on a shared machine can't be compared; ratios within one run can.
//! So the volume and the floor take turns, in the same process, on the same disk, for a moment
//! each, and what is reported is the median of the turns.

use std::time::Duration;

pub mod etcd;
pub mod floor;
mod grpc;
pub mod reader;
pub mod repair;
pub mod report;
mod run;
pub mod start;
pub mod takeover;
mod volume;

pub use run::{BenchError, Options, run};

/// What one turn measured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Samples {
    /// From the issue of each write to its durability on a write quorum.
    pub latencies: Vec<Duration>,
    /// The length of the turn.
    pub elapsed: Duration,
}

impl Samples {
    /// Returns the latency that a share `at`, from 0 to 1, of the writes didn't exceed.
    #[must_use]
    pub fn quantile(&self, at: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * at).ceil();
        // It lies within the list, whose length is far below 2^53.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (rank as usize).saturating_sub(1);
        sorted.get(index).copied().unwrap_or_default()
    }

    /// Returns how many writes a second became durable.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.latencies.len() as f64 / seconds } else { 0.0 }
    }
}

/// Something that makes writes durable.
pub trait Load {
    /// Why it can't.
    type Error;

    /// Keeps `in_flight` writes of `bytes` under way for `span`, and waits for the last of them.
    ///
    /// # Errors
    /// When a write fails.
    fn drive(
        &mut self,
        in_flight: usize,
        bytes: &[u8],
        span: Duration,
    ) -> Result<Samples, Self::Error>;
}
