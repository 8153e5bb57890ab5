//! How fast segments answer reads: whom to prefer, and when to ask a second one.
//!
//! After "The Tail at Scale" (Dean and Barroso 2013): a read that has waited longer than nearly all
//! recent ones is *hedged*, that is, asked of a second segment as well, and the first answer wins.
//! What was seen is remembered: slow and silent segments get no reads but *probes*, copies of reads
//! that another segment has been asked for, until they answer as fast as the others.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_core::id::{PgId, Position, Ticket};

use crate::clock::Moment;

/// The shortest wait before a hedge: below it lies what scheduling alone makes of a fast answer.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(2);

/// The longest wait before a hedge, also while too few answers are known to tell.
const HEDGE_AFTER_MAX: Duration = Duration::from_millis(20);

/// A read is hedged when it has waited longer than so many of a hundred recent ones.
const HEDGE_PERCENTILE: usize = 95;

/// How many answers are recent, and after how many new ones the percentile is taken again.
const RECENT_MAX: usize = 256;
const RECENT_NEW: usize = 32;

/// So many reads earn one hedge: hedges are at most 5 % of the reads, and what was saved up.
const READS_PER_HEDGE: u64 = 20;

/// The most hedges that can be saved up.
const HEDGES_SAVED_MAX: u64 = 16;

/// A segment is silent when it has answered nothing for so long, though it was asked before another
/// one that has answered. What it was asked for is then asked of others.
const SILENCE: Duration = Duration::from_millis(60);

/// Differences below this one are chance, or the way to another zone.
const SLACK: Duration = Duration::from_millis(2);

/// No estimate is above this one: a segment that was silent for long comes back as fast as others.
const ESTIMATE_MAX: Duration = Duration::from_millis(200);

/// How often a segment that isn't preferred is probed, at most: by one read in so long a time.
const PROBE_AFTER: Duration = Duration::from_millis(500);

/// The most questions remembered of one segment. Those before are forgotten, so that their answers
/// tell nothing about it.
const QUESTIONS_MAX: usize = 1024;

/// What the segments of one volume have been asked, and how fast they have answered.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    segments: BTreeMap<(PgId, Position), Seen>,
    /// The latest answers, to reads that weren't probes.
    recent: VecDeque<Duration>,
    /// How many answers have come since the percentile was taken.
    new: usize,
    percentile: Option<Duration>,
    /// What reads have earned: [`READS_PER_HEDGE`] for a hedge.
    credit: u64,
    /// When silence was last looked for.
    looked: Moment,
    hedges: u64,
    probes: u64,
}

/// Why a segment is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// A segment that is usually slower is asked as well, to see whether it still is.
    Probe,
    /// Somebody waits for its answer.
    Read,
}

/// One segment.
#[derive(Debug, Default)]
struct Seen {
    /// A moving average of its latency, `None` before the first answer.
    estimate: Option<Duration>,
    /// What it was asked and hasn't answered, oldest first.
    questions: VecDeque<(Ticket, Moment, Reason)>,
    /// When it last answered.
    heard: Moment,
    /// When the last question was asked that it has answered.
    answered: Moment,
    is_silent: bool,
    /// Not to be probed before this time.
    probe: Moment,
}

impl Seen {
    /// Returns since when it has owed an answer and given none.
    fn owes_since(&self) -> Option<Moment> {
        let (_, oldest, _) = self.questions.front()?;
        Some((*oldest).max(self.heard))
    }
}

impl Latencies {
    /// Takes that a read has come: it earns a part of a hedge.
    pub(super) fn earn(&mut self) {
        self.credit = (self.credit + 1).min(READS_PER_HEDGE * HEDGES_SAVED_MAX);
    }

    /// Takes whether one more hedge may be sent.
    pub(super) fn spend(&mut self) -> bool {
        let Some(rest) = self.credit.checked_sub(READS_PER_HEDGE) else { return false };
        self.credit = rest;
        self.hedges = self.hedges.saturating_add(1);
        true
    }

    /// Returns how long a read waits before it is hedged.
    pub(super) fn hedge_after(&self) -> Duration {
        self.percentile.unwrap_or(HEDGE_AFTER_MAX).clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX)
    }

    /// Takes that a segment is asked.
    pub(super) fn asked(
        &mut self,
        (group, position): (PgId, Position),
        ticket: Ticket,
        reason: Reason,
        now: Moment,
    ) {
        let seen = self.segments.entry((group, position)).or_default();
        if seen.questions.len() >= QUESTIONS_MAX {
            seen.questions.pop_front();
        }
        seen.questions.push_back((ticket, now, reason));
        if reason == Reason::Probe {
            self.probes = self.probes.saturating_add(1);
        }
    }

    /// Takes that a segment has answered a question, with a page or a refusal.
    pub(super) fn answered(&mut self, from: (PgId, Position), ticket: Ticket, now: Moment) {
        let Some(seen) = self.segments.get_mut(&from) else { return };
        let index = seen.questions.iter().position(|(asked, ..)| *asked == ticket);
        let Some((_, asked, reason)) = index.and_then(|index| seen.questions.remove(index)) else {
            return;
        };
        let took = now.since(asked);
        let weight = if reason == Reason::Probe { 2 } else { 8 };
        let sample = took.min(ESTIMATE_MAX);
        seen.estimate = Some(match seen.estimate {
            Some(before) => before - before / weight + sample / weight,
            None => sample,
        });
        seen.is_silent = false;
        seen.heard = now;
        seen.answered = seen.answered.max(asked);
        if reason == Reason::Read {
            self.remember(took);
        }
    }

    fn remember(&mut self, took: Duration) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
        self.new += 1;
        if self.new >= RECENT_NEW {
            self.new = 0;
            let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
            sorted.sort_unstable();
            let rank = (sorted.len() * HEDGE_PERCENTILE).div_ceil(100);
            self.percentile = sorted.get(rank.saturating_sub(1)).copied();
        }
    }

    /// Takes that the connection to a segment has ended: what it was asked won't be answered.
    pub(super) fn lost(&mut self, segment: (PgId, Position)) {
        if let Some(seen) = self.segments.get_mut(&segment) {
            seen.questions.clear();
        }
    }

    /// Returns the segments that have fallen silent since the last call.
    pub(super) fn fallen_silent(&mut self, now: Moment) -> Vec<(PgId, Position)> {
        self.looked = now;
        let silent: Vec<(PgId, Position)> = self
            .segments
            .iter()
            .filter(|(_, seen)| {
                let since = seen.owes_since();
                !seen.is_silent && since.is_some_and(|since| now.since(since) >= SILENCE)
            })
            .filter(|(segment, seen)| self.is_outrun(**segment, seen))
            .map(|(segment, _)| *segment)
            .collect();
        for segment in &silent {
            if let Some(seen) = self.segments.get_mut(segment) {
                seen.is_silent = true;
                seen.probe = now.after(PROBE_AFTER);
            }
        }
        silent
    }

    /// Returns whether another segment of the group has answered a question that was asked later.
    /// Otherwise the silence may be this process's own.
    fn is_outrun(&self, (group, position): (PgId, Position), seen: &Seen) -> bool {
        let Some((_, oldest, _)) = seen.questions.front() else { return false };
        self.segments.iter().any(|((of, other), answering)| {
            *of == group && *other != position && answering.answered > *oldest
        })
    }

    /// Returns when to look for silence next.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let owing = self.segments.values().filter(|seen| !seen.is_silent);
        let due = owing.filter_map(|seen| Some(seen.owes_since()?.after(SILENCE)));
        // One that was looked at in vain waits for another segment's answer, not for time.
        due.filter(|at| *at > self.looked).min()
    }

    /// Returns the segments among `candidates` that answer about as fast as the fastest, and whom
    /// to probe, if anybody. Without one that isn't silent, all are as good as any.
    pub(super) fn preferred(
        &mut self,
        group: PgId,
        candidates: &[Position],
        now: Moment,
    ) -> (Vec<Position>, Option<Position>) {
        let seen = |position: &Position| self.segments.get(&(group, *position));
        let estimate = |position: &Position| seen(position).and_then(|seen| seen.estimate);
        let is_silent = |position: &Position| seen(position).is_some_and(|seen| seen.is_silent);
        let heard: Vec<Position> =
            candidates.iter().filter(|position| !is_silent(position)).copied().collect();
        let heard = if heard.is_empty() { candidates.to_vec() } else { heard };
        let fastest = heard.iter().filter_map(estimate).min().unwrap_or_default();
        let most = fastest.saturating_mul(2).saturating_add(SLACK);
        let (preferred, _): (Vec<Position>, Vec<Position>) = heard
            .iter()
            .partition(|position| estimate(position).is_none_or(|estimate| estimate <= most));
        let due = |position: &Position| seen(position).map(|seen| seen.probe);
        let probe = candidates
            .iter()
            .filter(|position| !preferred.contains(position))
            .min_by_key(|position| due(position))
            .filter(|position| due(position).is_some_and(|at| at <= now))
            .copied();
        if let Some(seen) = probe.and_then(|probe| self.segments.get_mut(&(group, probe))) {
            seen.probe = now.after(PROBE_AFTER);
        }
        (preferred, probe)
    }

    /// Returns how many reads were asked of a second segment because the first took long.
    pub(super) const fn hedges(&self) -> u64 {
        self.hedges
    }

    /// Returns how many reads were asked of a slow segment too, to see whether it still is.
    pub(super) const fn probes(&self) -> u64 {
        self.probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: PgId = PgId::new(0);

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    fn positions() -> Vec<Position> {
        Position::first(3).collect()
    }

    /// Asks `position` at `from` and answers at `to`, in milliseconds.
    fn answer(latencies: &mut Latencies, position: Position, ticket: u64, from: u64, to: u64) {
        let segment = (GROUP, position);
        latencies.asked(segment, Ticket::new(ticket), Reason::Read, at(from));
        latencies.answered(segment, Ticket::new(ticket), at(to));
    }

    /// Hedges must not double the load of a system that is slow because of its load.
    #[test]
    fn hedges_are_a_share_of_the_reads() {
        let mut latencies = Latencies::default();
        let reads = 10_000;
        for _ in 0..reads {
            latencies.earn();
            let _ = latencies.spend();
        }
        assert_eq!(latencies.hedges(), reads / READS_PER_HEDGE);
        for _ in 0..reads {
            latencies.earn();
        }
        let saved = (0..reads).take_while(|_| latencies.spend()).count() as u64;
        assert_eq!(saved, HEDGES_SAVED_MAX);
    }

    /// A delay that follows the answers without bound would hedge everything, or nothing.
    #[test]
    fn the_delay_follows_the_answers_within_its_bounds() {
        for (took, expected) in [(0, HEDGE_AFTER_MIN), (7, Duration::from_millis(7))] {
            let mut latencies = Latencies::default();
            assert_eq!(latencies.hedge_after(), HEDGE_AFTER_MAX);
            for (ticket, position) in (0..300).zip(positions().into_iter().cycle()) {
                answer(&mut latencies, position, ticket, 0, took);
            }
            assert_eq!(latencies.hedge_after(), expected);
            for (ticket, position) in (0..300).zip(positions().into_iter().cycle()) {
                answer(&mut latencies, position, ticket, 0, 900);
            }
            assert_eq!(latencies.hedge_after(), HEDGE_AFTER_MAX);
        }
    }

    /// When nobody answers, the pause is this process's own or the whole network's: asking
    /// everybody everything would make it worse.
    #[test]
    fn a_segment_is_silent_only_when_another_one_answers() {
        let mut latencies = Latencies::default();
        let [hung, other, _] = positions()[..] else { return };
        latencies.asked((GROUP, hung), Ticket::new(1), Reason::Read, at(0));
        assert_eq!(latencies.deadline(), Some(at(0).after(SILENCE)));
        assert_eq!(latencies.fallen_silent(at(500)), []);
        assert_eq!(latencies.deadline(), None, "a time that has passed would make the loop spin");
        answer(&mut latencies, other, 2, 500, 501);
        assert_eq!(latencies.fallen_silent(at(501)), [(GROUP, hung)]);
        assert_eq!(latencies.fallen_silent(at(502)), [], "said once");
        assert_eq!(latencies.preferred(GROUP, &positions(), at(502)).0.len(), 2);
        latencies.answered((GROUP, hung), Ticket::new(1), at(503));
        assert_eq!(latencies.fallen_silent(at(503)), []);
    }

    /// A segment that was slow once must get reads again when it is as fast as the others.
    #[test]
    fn a_slow_segment_is_probed_and_comes_back() {
        let mut latencies = Latencies::default();
        let [slow, others @ ..] = &positions()[..] else { return };
        answer(&mut latencies, *slow, 1, 0, 900);
        others.iter().for_each(|fast| answer(&mut latencies, *fast, 2, 0, 1));
        let mut now = at(1000);
        let mut probes = 0;
        while !latencies.preferred(GROUP, &positions(), now).0.contains(slow) {
            // Asking again at the same time doesn't probe again.
            assert_eq!(latencies.preferred(GROUP, &positions(), now).1, None);
            probes += 1;
            latencies.asked((GROUP, *slow), Ticket::new(3), Reason::Probe, now);
            latencies.answered((GROUP, *slow), Ticket::new(3), now.after(SLACK));
            now = now.after(PROBE_AFTER);
            assert!(probes < 12, "it never comes back");
        }
        assert!(probes > 3, "one good answer is chance");
        assert_eq!(latencies.probes(), probes);
    }
}
