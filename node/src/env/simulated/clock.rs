//! The clock of one machine: it drifts, and stands still while its machine is paused.

use std::time::Duration;

use crate::clock::Moment;

const MILLION: i128 = 1_000_000;

/// A clock that runs by `drift` parts per million too fast.
#[derive(Clone, Debug)]
pub(super) struct LocalClock {
    drift: i64,
    /// For how long it has stood still, in nanoseconds.
    lost: u64,
    stopped: Option<u64>,
}

impl LocalClock {
    pub(super) const fn new(drift: i64) -> Self {
        Self { drift, lost: 0, stopped: None }
    }

    /// Returns what it shows at `now`.
    pub(super) fn read(&self, now: u64) -> Moment {
        let run = i128::from(self.stopped.unwrap_or(now).saturating_sub(self.lost));
        let shown = run + run * i128::from(self.drift) / MILLION;
        Moment::new(Duration::from_nanos(u64::try_from(shown).unwrap_or(0)))
    }

    /// Returns a time at which it shows `moment` or a little more, if it goes on.
    pub(super) fn when(&self, moment: Moment) -> u64 {
        let shown = moment.since(Moment::default()).as_nanos();
        let shown = i128::try_from(shown).unwrap_or(i128::MAX / MILLION);
        let run = shown * MILLION / (MILLION + i128::from(self.drift));
        u64::try_from(run).unwrap_or(u64::MAX).saturating_add(2).saturating_add(self.lost)
    }

    pub(super) fn stop(&mut self, now: u64) {
        self.stopped.get_or_insert(now);
    }

    pub(super) fn go_on(&mut self, now: u64) {
        if let Some(since) = self.stopped.take() {
            self.lost = self.lost.saturating_add(now.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deadline that comes too early would make its process spin, and a clock that goes back
    /// would break what every clock promises.
    #[test]
    fn a_clock_never_goes_back_and_reaches_every_deadline() {
        for drift in [-500, -1, 0, 3, 500] {
            let mut clock = LocalClock::new(drift);
            let mut last = Moment::default();
            for step in 0..2_000u64 {
                let now = step * 777_777;
                match step % 100 {
                    40 => clock.stop(now),
                    60 => clock.go_on(now),
                    _ => {}
                }
                assert!(clock.read(now) >= last);
                last = clock.read(now);
                if !(40..60).contains(&(step % 100)) {
                    let deadline = last.after(Duration::from_nanos(step));
                    let at = clock.when(deadline);
                    assert!(clock.read(at) >= deadline);
                    assert!(at <= now + 2 * step + 10, "drift {drift}: {at} is long after {now}");
                }
            }
        }
    }
}
