//! Volumes that go to another point of their logs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use quorate_core::lsn::Lsn;

use super::steady::{Steady, WRITER};
use crate::answer::Outcome;
use crate::volume::{Consistency, VolumeError};

/// How long anything may take in simulated time.
const BOUND: Duration = Duration::from_secs(10);

/// Returns a cluster in which one page was written twice, and the first write's LSN.
fn written(seed: u64) -> (Steady, Lsn) {
    written_to(Steady::start(seed))
}

fn written_to(mut steady: Steady) -> (Steady, Lsn) {
    let first = steady.write(1, b"first");
    let mut cpl = None;
    steady.run_until(BOUND, |_| {
        if let Outcome::Given(Ok(committed)) = first.take() {
            cpl = Some(committed.cpl);
        }
        cpl.is_some()
    });
    let _second = steady.write(1, b"second");
    steady.level();
    (steady, cpl.unwrap())
}

/// Who goes back must find what was there then.
#[test]
fn a_volume_goes_back() {
    for seed in 1..=5 {
        let (mut steady, first) = written(seed);
        let gone = steady.backtrack(first);
        steady.run_until(BOUND, |_| match gone.take() {
            Outcome::Given(opened) => opened.unwrap().recovery_point.lsn() == first,
            Outcome::Never | Outcome::NotYet => false,
        });
        let read = steady.read(1, Consistency::Strict);
        steady.run_until(BOUND, |_| match read.take() {
            Outcome::Given(version) => version.unwrap().bytes == b"first",
            Outcome::Never | Outcome::NotYet => false,
        });
    }
}

/// What lies under the window is discarded: whoever asks for it has to hear of the window, and the
/// volume goes on.
#[test]
fn a_volume_goes_back_within_its_window_only() {
    for seed in 1..=5 {
        let (mut steady, first) = written_to(Steady::start_with(seed, 4));
        for text in [b"third", b"forth", b"fifth", b"sixth"] {
            let _ = steady.write(1, text);
            steady.level();
        }
        steady.run_for(Duration::from_secs(3));
        let last = steady.write(1, b"seven");
        let mut cpl = None;
        steady.run_until(BOUND, |_| {
            if let Outcome::Given(Ok(committed)) = last.take() {
                cpl = Some(committed.cpl);
            }
            cpl.is_some()
        });
        let gone = steady.backtrack(first);
        steady.run_until(BOUND, |_| match gone.take() {
            Outcome::Given(refused) => {
                let Err(VolumeError::PointDiscarded { floor }) = refused else {
                    panic!("seed {seed}: {refused:?}");
                };
                assert!(floor > first && floor < cpl.unwrap(), "seed {seed}: {floor}");
                true
            }
            Outcome::Never | Outcome::NotYet => false,
        });
        let before = Lsn::new(cpl.unwrap().get() - 1);
        let gone = steady.backtrack(before);
        steady.run_until(BOUND, |_| match gone.take() {
            Outcome::Given(opened) => opened.unwrap().recovery_point.lsn() == before,
            Outcome::Never | Outcome::NotYet => false,
        });
    }
}

/// A writer that is overtaken while it goes back must not fight for the volume: whoever took it
/// over was meant to have it.
#[test]
fn a_writer_that_is_overtaken_while_it_goes_back_gives_up() {
    for seed in 1..=5 {
        let (mut steady, first) = written(seed);
        let gone = steady.backtrack(first);
        // The point is located, and the next epoch not open yet.
        steady.run_until(BOUND, |steady| steady.volume.status().is_none());
        let writer = steady.writer;
        steady.world.with(|state| state.freeze(writer, false));
        steady.take_over();
        steady.world.with(|state| state.thaw(writer));
        steady.run_until(BOUND, |steady| steady.volume.over().is_some());
        assert!(matches!(steady.volume.over(), Some(VolumeError::Overtaken { .. })), "seed {seed}");
        assert!(
            matches!(gone.take(), Outcome::Given(Err(VolumeError::Overtaken { .. }))),
            "seed {seed}"
        );
        steady.run_for(BOUND);
        let (_, other) = steady.other.as_ref().unwrap();
        assert_eq!(other.over(), None, "seed {seed}");
    }
}

/// An answer that comes late must not pass for one to the question that was asked since.
#[test]
fn a_late_answer_says_nothing_about_another_point() {
    for seed in 1..=5 {
        let (mut steady, first) = written(seed);
        let both = steady.write_all(&[1, 2], b"third");
        let mut cpl = None;
        steady.run_until(BOUND, |_| {
            if let Outcome::Given(Ok(committed)) = both.take() {
                cpl = Some(committed.cpl.get());
            }
            cpl.is_some()
        });
        steady.level();
        for node in [4, 5] {
            steady.world.with(|state| state.slow_down(node, WRITER, true));
        }
        let between = Lsn::new(cpl.unwrap() - 1);
        let torn = steady.backtrack(between);
        steady.run_until(BOUND, |_| match torn.take() {
            Outcome::Given(outcome) => matches!(outcome, Err(VolumeError::NoPoint { .. })),
            Outcome::Never | Outcome::NotYet => false,
        });
        // Four answers take those two now, of which the first ones are about the other point.
        steady.part(WRITER, &[2, 3], true);
        let gone = steady.backtrack(first);
        steady.run_until(BOUND, |_| match gone.take() {
            Outcome::Given(opened) => opened.unwrap().recovery_point.lsn() == first,
            Outcome::Never | Outcome::NotYet => false,
        });
    }
}
