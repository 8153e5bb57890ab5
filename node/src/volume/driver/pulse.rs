//! How long a write takes, and so how long others may be waited for.

use std::time::Duration;

use quorate_core::lsn::Lsn;

use crate::clock::Moment;

/// What part of the time that a write takes others may be waited for: what it costs a write is
/// little, and sharing a sync saves up to a whole one.
const SHARE: u32 = 8;

/// The longest wait. Whoever was answered and asks for more does so within this.
const WAIT_MAX: Duration = Duration::from_micros(500);

/// The time from sending records to their durability, smoothed.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A record under way, and when it was sent.
    measured: Option<(Lsn, Moment)>,
    smoothed: Duration,
}

impl Pulse {
    /// Takes that records up to `tail` are sent.
    pub(super) fn sent(&mut self, tail: Lsn, now: Moment) {
        self.measured.get_or_insert((tail, now));
    }

    /// Takes that the VDL has reached `vdl`.
    pub(super) fn reached(&mut self, vdl: Lsn, now: Moment) {
        if let Some((tail, sent)) = self.measured
            && tail <= vdl
        {
            self.measured = None;
            self.smoothed = (self.smoothed * 7 + now.since(sent)) / 8;
        }
    }

    /// Returns how long writes to come may be waited for.
    pub(super) fn moment(&self) -> Duration {
        (self.smoothed / SHARE).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    /// A wait that doesn't follow the disk would cost more than it saves.
    #[test]
    fn a_wait_is_a_part_of_what_a_write_takes() {
        let start = Clock::start().now();
        let mut pulse = Pulse::default();
        assert_eq!(pulse.moment(), Duration::ZERO);
        for number in 1..100 {
            let sent = start.after(Duration::from_millis(number));
            pulse.sent(Lsn::new(number), sent);
            // The first one sent counts, not those behind it.
            pulse.sent(Lsn::new(number + 1), sent.after(Duration::from_micros(100)));
            pulse.reached(Lsn::new(number), sent.after(Duration::from_micros(800)));
        }
        let moment = pulse.moment();
        assert!(moment > Duration::from_micros(95), "{moment:?}");
        assert!(moment <= Duration::from_micros(100), "{moment:?}");
        pulse.sent(Lsn::new(200), start);
        pulse.reached(Lsn::new(200), start.after(Duration::from_secs(60)));
        assert_eq!(pulse.moment(), WAIT_MAX);
    }
}
