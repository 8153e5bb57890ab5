//! What a benchmark found, for people and programs.

use std::io::{self, Write};

use serde::Serialize;

use super::Samples;

/// One system at one number of writes in flight: medians over the turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Durable writes a second.
    pub writes_per_second: f64,
    /// Half of the writes took at most so many microseconds.
    pub p50_us: f64,
    /// 99 of 100 writes took at most so many microseconds.
    pub p99_us: f64,
}

impl Figures {
    /// Returns the medians over `turns`.
    #[must_use]
    pub fn of(turns: &[Samples]) -> Self {
        let micros = |at: f64| {
            median(turns.iter().map(|turn| turn.quantile(at).as_secs_f64() * 1e6).collect())
        };
        Self {
            writes_per_second: median(turns.iter().map(Samples::rate).collect()),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
        }
    }
}

/// The volume beside another system, at one number of writes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The other system's name.
    pub beside: &'static str,
    /// Writes under way at any time.
    pub in_flight: usize,
    /// The length of a write in bytes.
    pub bytes: usize,
    /// Turns of each.
    pub turns: usize,
    /// The volume.
    pub quorate: Figures,
    /// The other system.
    pub other: Figures,
    /// The volume's median latency by the other's, turn by turn, the median of these.
    pub p50_ratio: f64,
    /// The volume's throughput by the other's, turn by turn, the median of these.
    pub throughput_ratio: f64,
}

impl Row {
    /// Compares turns that were taken one after the other.
    #[must_use]
    pub fn of(
        beside: &'static str,
        in_flight: usize,
        bytes: usize,
        quorate: &[Samples],
        other: &[Samples],
    ) -> Self {
        let pairs = || quorate.iter().zip(other);
        let p50_ratio = median(
            pairs()
                .map(|(ours, theirs)| {
                    ours.quantile(0.5).as_secs_f64() / theirs.quantile(0.5).as_secs_f64()
                })
                .collect(),
        );
        let throughput_ratio =
            median(pairs().map(|(ours, theirs)| ours.rate() / theirs.rate()).collect());
        Self {
            beside,
            in_flight,
            bytes,
            turns: quorate.len(),
            quorate: Figures::of(quorate),
            other: Figures::of(other),
            p50_ratio,
            throughput_ratio,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

/// Writes the heading of a table.
///
/// # Errors
/// When `out` takes no more.
pub fn heading(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>9}  {:<6}  {:>21}  {:>21}  {:>21}  {:>15}",
        "in flight", "beside", "writes/s", "p50 us", "p99 us", "ratio"
    )?;
    writeln!(
        out,
        "{:>9}  {:<6}  {:>10} {:>10}  {:>10} {:>10}  {:>10} {:>10}  {:>7} {:>7}",
        "", "", "quorate", "other", "quorate", "other", "quorate", "other", "writes", "p50"
    )
}

/// Writes one row of the table.
///
/// # Errors
/// When `out` takes no more.
pub fn line(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let Row { quorate, other, .. } = row;
    writeln!(
        out,
        "{:>9}  {:<6}  {:>10.0} {:>10.0}  {:>10.0} {:>10.0}  {:>10.0} {:>10.0}  {:>7.2} {:>7.2}",
        row.in_flight,
        row.beside,
        quorate.writes_per_second,
        other.writes_per_second,
        quorate.p50_us,
        other.p50_us,
        quorate.p99_us,
        other.p99_us,
        row.throughput_ratio,
        row.p50_ratio,
    )
}
