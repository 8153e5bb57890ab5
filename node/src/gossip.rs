//! Whom a segment asks for what it lacks, and when (protocol: gossip).
//!
//! One question is under way at a time. A round asks one peer now and then; after a new history it
//! asks every peer, because the recovery waits for what is missing. An answer that was as long as
//! answers get makes the same peer be asked again.

use std::time::Duration;

use quorate_core::id::Position;

use crate::clock::Moment;

/// The shortest time between two rounds; jitter adds up to as much again.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long an answer is waited for before another peer is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state of one segment's gossip.
#[derive(Debug)]
pub(crate) struct Gossip {
    /// The peer asked, and until when its answer is waited for.
    asked: Option<(Position, Moment)>,
    /// Peers still to be asked in this round, the next one last.
    round: Vec<Position>,
    /// When the next round begins.
    next: Moment,
    /// No question is asked before.
    paced: Moment,
}

impl Gossip {
    pub(crate) const fn new(now: Moment) -> Self {
        Self { asked: None, round: Vec::new(), next: now, paced: now }
    }

    /// Begins a round that asks `peers`, the last one first.
    pub(crate) fn begin(&mut self, peers: Vec<Position>) {
        self.round = peers;
    }

    /// Returns whether a round is due, and sets the time of the next one.
    pub(crate) fn is_due(&mut self, now: Moment, random: u64) -> bool {
        if now < self.next {
            return false;
        }
        let spread = u64::try_from(INTERVAL.as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_micros(random.checked_rem(spread).unwrap_or(0));
        self.next = now.after(INTERVAL).after(jitter);
        self.round.is_empty()
    }

    /// Returns the peer to ask now, if one is to be asked.
    pub(crate) fn choose(&mut self, now: Moment) -> Option<Position> {
        if self.asked.is_some_and(|(_, until)| now < until) {
            return None;
        }
        self.asked = None;
        if now < self.paced {
            return None;
        }
        let peer = self.round.pop()?;
        self.asked = Some((peer, now.after(PATIENCE)));
        Some(peer)
    }

    /// Takes an answer of `peer`, which may have more to give.
    pub(crate) fn answered(&mut self, peer: Position, has_more: bool) {
        if self.asked.is_some_and(|(asked, _)| asked == peer) {
            self.asked = None;
            if has_more {
                self.round.push(peer);
            }
        }
    }

    /// Asks nobody before `until`.
    pub(crate) const fn pace(&mut self, until: Moment) {
        self.paced = until;
    }

    /// Takes the end of the connection to `peer`.
    pub(crate) fn lost(&mut self, peer: Position) {
        self.answered(peer, false);
        self.round.retain(|other| *other != peer);
    }

    /// Returns when something is to be done next. What could be done at `now` waits for something
    /// else, whose event wakes the loop.
    pub(crate) fn deadline(&self, now: Moment) -> Moment {
        let next = match self.asked {
            Some((_, until)) => until,
            None if self.round.is_empty() || self.paced <= now => self.next,
            None => self.paced,
        };
        next.min(self.next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    fn position(index: usize) -> Position {
        Position::new(index).unwrap()
    }

    /// A segment far behind must not wait for the next round after every batch.
    #[test]
    fn a_peer_with_more_is_asked_again_at_once() {
        let mut gossip = Gossip::new(at(0));
        gossip.begin(vec![position(1), position(2)]);
        assert_eq!(gossip.choose(at(0)), Some(position(2)));
        assert_eq!(gossip.choose(at(0)), None, "one question at a time");
        gossip.answered(position(2), true);
        assert_eq!(gossip.choose(at(0)), Some(position(2)));
        gossip.answered(position(2), false);
        assert_eq!(gossip.choose(at(0)), Some(position(1)));
    }

    /// A peer that dies or hangs must not end the gossip.
    #[test]
    fn a_silent_peer_is_passed_over() {
        let mut gossip = Gossip::new(at(0));
        gossip.begin(vec![position(3), position(1), position(2)]);
        assert_eq!(gossip.choose(at(0)), Some(position(2)));
        assert_eq!(gossip.choose(at(0).after(PATIENCE)), Some(position(1)));
        gossip.lost(position(1));
        assert_eq!(gossip.choose(at(0).after(PATIENCE)), Some(position(3)));
    }

    /// Whoever only joins must not keep others from what they have to do, nor wait for ever.
    #[test]
    fn a_paced_segment_asks_when_it_is_time() {
        let mut gossip = Gossip::new(at(0));
        assert!(gossip.is_due(at(0), 0));
        gossip.begin(vec![position(1), position(2)]);
        assert_eq!(gossip.choose(at(0)), Some(position(2)));
        gossip.answered(position(2), true);
        gossip.pace(at(40));
        assert_eq!(gossip.choose(at(39)), None);
        assert_eq!(gossip.deadline(at(39)), at(40));
        assert_eq!(gossip.deadline(at(40)), at(100), "a time that has passed makes nobody spin");
        assert_eq!(gossip.choose(at(40)), Some(position(2)));
    }

    #[test]
    fn rounds_come_at_intervals_with_jitter() {
        let mut gossip = Gossip::new(at(0));
        assert!(gossip.is_due(at(0), 50_000));
        assert!(!gossip.is_due(at(149), 0));
        assert!(gossip.is_due(at(150), 0));
        assert_eq!(gossip.deadline(at(150)), at(250));
    }
}
