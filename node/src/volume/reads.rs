//! Reads under way: whom to ask, whom to ask next, and what waits for a confirmation.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::id::{PageId, PgId, Position, SegmentSet, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;

use super::latency::{Latencies, Reason};
use super::reply::{Outbox, Reply};
use super::{Consistency, PageVersion, PointError, VolumeError};
use crate::clock::Moment;

/// How long those that were asked may take to answer before another one is asked, whatever is known
/// about them: see [`Latencies`] for what is.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait when no segment can be asked.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a read waits for the VDL to come to its LSN.
const REACH_MAX: Duration = Duration::from_secs(10);

/// The reads of one volume client.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Tickets rise.
    last: u64,
    waiting: BTreeMap<Ticket, WaitingRead>,
    confirming: Option<Confirming>,
    latencies: Latencies,
}

/// A read that has no answer yet.
#[derive(Debug)]
struct WaitingRead {
    page: PageId,
    /// `None` for the VDL at the time of asking.
    read_point: Option<ReadPoint>,
    reply: Reply<PageVersion>,
    /// The group that was asked; none yet for a read that nobody was asked for.
    group: Option<PgId>,
    /// Segments that were asked and may answer.
    asked: SegmentSet,
    /// Segments that were asked in vain; a late answer of theirs is as good as any.
    tried: SegmentSet,
    state: ReadState,
}

impl WaitingRead {
    /// Takes that a segment won't answer; another one has to be asked if it was the only one.
    fn give_up_on(&mut self, segment: Position, now: Moment) {
        if self.asked.contains(segment) {
            self.asked = without(self.asked, segment);
            self.tried.insert(segment);
            if self.asked.is_empty() && matches!(self.state, ReadState::Asked { .. }) {
                self.state = ReadState::Due { at: now };
            }
        }
    }
}

/// Returns `set` without `position`.
fn without(set: SegmentSet, position: Position) -> SegmentSet {
    let mut own = SegmentSet::EMPTY;
    own.insert(position);
    SegmentSet::from_bits(set.bits() & !own.bits())
}

#[derive(Clone, Copy, Debug)]
enum ReadState {
    /// The VDL isn't at this LSN yet.
    Ahead { lsn: Lsn, until: Moment },
    /// Some segments were asked. At `hedge` one more is.
    Asked { hedge: Option<Moment>, until: Moment },
    /// To be asked at this time or later.
    Due { at: Moment },
    /// It is strict, and nobody has confirmed since it came that no newer writer is open.
    Unconfirmed,
}

/// A question to a read quorum. Reads that come later wait for the next one.
#[derive(Debug)]
struct Confirming {
    ticket: Ticket,
    covered: Vec<Ticket>,
    until: Moment,
}

impl Reads {
    /// Takes a new read.
    pub(super) fn take(
        &mut self,
        page: PageId,
        consistency: Consistency,
        read_point: Option<ReadPoint>,
        reply: Reply<PageVersion>,
        vdl: Vdl,
        now: Moment,
    ) {
        let ticket = self.ticket();
        let state = match consistency {
            Consistency::AtLeast(lsn) if lsn > vdl.lsn() => {
                ReadState::Ahead { lsn, until: now.after(REACH_MAX) }
            }
            Consistency::At(_) | Consistency::AtLeast(_) | Consistency::Snapshot => {
                ReadState::Due { at: now }
            }
            Consistency::Strict => ReadState::Unconfirmed,
        };
        let (group, asked, tried) = (None, SegmentSet::EMPTY, SegmentSet::EMPTY);
        self.latencies.earn();
        self.waiting
            .insert(ticket, WaitingRead { page, read_point, reply, group, asked, tried, state });
    }

    /// Takes an advance of the VDL.
    pub(super) fn reach(&mut self, vdl: Vdl, now: Moment) {
        for read in self.waiting.values_mut() {
            if matches!(read.state, ReadState::Ahead { lsn, .. } if lsn <= vdl.lsn()) {
                read.state = ReadState::Due { at: now };
            }
        }
    }

    /// Refuses the reads that have waited too long for the VDL.
    pub(super) fn expire(&mut self, vdl: Vdl, now: Moment, outbox: &mut Outbox) {
        let is_over = |read: &WaitingRead| match read.state {
            ReadState::Ahead { until, .. } => until <= now,
            ReadState::Asked { .. } | ReadState::Due { .. } | ReadState::Unconfirmed => false,
        };
        for (_, read) in self.waiting.extract_if(.., |_, read| is_over(read)) {
            if let ReadState::Ahead { lsn, .. } = read.state {
                let error = PointError::NotReached { lsn, vdl };
                read.reply.send(Err(error.into()), outbox);
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.last = self.last.saturating_add(1);
        Ticket::new(self.last)
    }

    /// Returns the ticket of the question to ask now, if there is one to ask: one at a time, for
    /// all the strict reads that have come until then.
    pub(super) fn confirm(&mut self, now: Moment) -> Option<Ticket> {
        let is_open = |confirming: &Confirming| now < confirming.until;
        if self.confirming.as_ref().is_some_and(is_open) {
            return None;
        }
        let covered: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, read)| matches!(read.state, ReadState::Unconfirmed))
            .map(|(ticket, _)| *ticket)
            .collect();
        self.confirming = None;
        if covered.is_empty() {
            return None;
        }
        let ticket = self.ticket();
        self.confirming = Some(Confirming { ticket, covered, until: now.after(PATIENCE) });
        Some(ticket)
    }

    /// Takes the answer to the question `ticket`.
    pub(super) fn confirmed(&mut self, ticket: Ticket, now: Moment) {
        let Some(confirming) = self.confirming.take_if(|asked| asked.ticket == ticket) else {
            return;
        };
        for ticket in confirming.covered {
            if let Some(read) = self.waiting.get_mut(&ticket) {
                read.state = ReadState::Due { at: now };
            }
        }
    }

    /// Returns the reads to ask for now.
    pub(super) fn due(&mut self, now: Moment) -> Vec<(Ticket, PageId, Option<ReadPoint>)> {
        self.give_up_on_silent(now);
        let mut due = Vec::new();
        for (ticket, read) in &mut self.waiting {
            let is_due = match &mut read.state {
                ReadState::Asked { until, .. } if *until <= now => {
                    read.tried = SegmentSet::from_bits(read.tried.bits() | read.asked.bits());
                    read.asked = SegmentSet::EMPTY;
                    true
                }
                ReadState::Asked { hedge, .. } => {
                    // Once: it is answered, or somebody turns out to be silent.
                    hedge.take_if(|at| *at <= now).is_some() && self.latencies.spend()
                }
                ReadState::Due { at } => *at <= now,
                ReadState::Ahead { .. } | ReadState::Unconfirmed => false,
            };
            if is_due {
                due.push((*ticket, read.page, read.read_point));
            }
        }
        due
    }

    /// Makes reads that a silent segment was asked for be asked of another one, also those of which
    /// a second segment was asked: it may be the slow one.
    fn give_up_on_silent(&mut self, now: Moment) {
        for (group, segment) in self.latencies.fallen_silent(now) {
            let asked =
                |read: &&mut WaitingRead| read.group == Some(group) && read.asked.contains(segment);
            for read in self.waiting.values_mut().filter(asked) {
                read.give_up_on(segment, now);
                read.state = ReadState::Due { at: now };
            }
        }
    }

    /// Chooses whom to ask among the `complete` segments of `group`: one of the fast ones, now and
    /// then a slow one besides. Nobody when the read has to wait, or has been asked of all.
    pub(super) fn choose(
        &mut self,
        ticket: Ticket,
        group: PgId,
        complete: &[Position],
        now: Moment,
    ) -> Vec<Position> {
        let Some(read) = self.waiting.get_mut(&ticket) else { return Vec::new() };
        let others = SegmentSet::from_bits(read.asked.bits() | read.tried.bits());
        let fresh: Vec<Position> =
            complete.iter().filter(|position| !others.contains(**position)).copied().collect();
        let (preferred, probe) = self.latencies.preferred(group, &fresh, now);
        let turn = ticket.get().checked_rem(preferred.len() as u64);
        let chosen = turn.and_then(|turn| preferred.get(usize::try_from(turn).ok()?)).copied();
        let Some(chosen) = chosen else {
            read.state = if read.asked.is_empty() {
                // Everybody again, a little later.
                read.tried = SegmentSet::EMPTY;
                ReadState::Due { at: now.after(PAUSE) }
            } else {
                ReadState::Asked { hedge: None, until: now.after(PATIENCE) }
            };
            return Vec::new();
        };
        let is_first = others.is_empty();
        let hedge = is_first.then(|| now.after(self.latencies.hedge_after()));
        read.state = ReadState::Asked { hedge, until: now.after(PATIENCE) };
        read.group = Some(group);
        let probe = probe.map(|probe| (probe, Reason::Probe));
        let mut asked = Vec::new();
        for (segment, reason) in [(chosen, Reason::Read)].into_iter().chain(probe) {
            read.asked.insert(segment);
            self.latencies.asked((group, segment), ticket, reason, now);
            asked.push(segment);
        }
        asked
    }

    /// Takes the refusal of a segment.
    pub(super) fn refused(&mut self, ticket: Ticket, from: (PgId, Position), now: Moment) {
        self.latencies.answered(from, ticket, now);
        if let Some(read) = self.waiting.get_mut(&ticket)
            && read.group == Some(from.0)
        {
            read.give_up_on(from.1, now);
        }
    }

    /// Makes reads that a segment was asked for be asked of another one: its connection has ended.
    pub(super) fn lost(&mut self, (group, segment): (PgId, Position), now: Moment) {
        self.latencies.lost((group, segment));
        for read in self.waiting.values_mut().filter(|read| read.group == Some(group)) {
            read.give_up_on(segment, now);
        }
    }

    /// Takes the answer to a read; the first one that is right counts. One that can't be right is
    /// as good as a refusal.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        page: PageId,
        (read_point, version, bytes): (ReadPoint, Option<Record>, Vec<u8>),
        from: (PgId, Position),
        now: Moment,
        outbox: &mut Outbox,
    ) {
        let is_right = |read: &WaitingRead| {
            read.page == page
                && read.group == Some(from.0)
                && (read.asked.contains(from.1) || read.tried.contains(from.1))
                && read.read_point.is_none_or(|asked| asked == read_point)
                && version
                    .is_none_or(|record| record.page == page && record.lsn <= read_point.lsn())
        };
        if !self.waiting.get(&ticket).is_some_and(is_right) {
            self.refused(ticket, from, now);
            return;
        }
        self.latencies.answered(from, ticket, now);
        if let Some(read) = self.waiting.remove(&ticket) {
            let lsn = version.map(|record| record.lsn);
            read.reply.send(Ok(PageVersion { page, read_point, lsn, bytes }), outbox);
        }
    }

    /// Fails every read.
    pub(super) fn fail(&mut self, error: VolumeError, outbox: &mut Outbox) {
        for read in std::mem::take(&mut self.waiting).into_values() {
            read.reply.send(Err(error), outbox);
        }
        self.confirming = None;
    }

    /// Returns the lowest read point that a read under way has named.
    pub(super) fn lowest(&self) -> Option<Lsn> {
        let named = self.waiting.values().filter_map(|read| read.read_point);
        named.map(ReadPoint::lsn).min()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns what is known about the segments' latencies.
    pub(super) const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Returns when something is to be done next, if ever.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let reads = self.waiting.values().filter_map(|read| match read.state {
            ReadState::Ahead { until, .. } => Some(until),
            ReadState::Asked { hedge, until } => {
                Some(hedge.map_or(until, |hedge| hedge.min(until)))
            }
            ReadState::Due { at } => Some(at),
            ReadState::Unconfirmed => None,
        });
        let silence = self.latencies.deadline().filter(|_| !self.waiting.is_empty());
        reads
            .chain(self.confirming.as_ref().map(|confirming| confirming.until))
            .chain(silence)
            .min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

    use super::*;

    use crate::answer::Outcome;

    const PAGE: PageId = PageId::new(5);

    const GROUP: PgId = PgId::new(0);

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    fn positions(count: usize) -> Vec<Position> {
        Position::first(count).collect()
    }

    type Answer = crate::answer::Answer<Result<PageVersion, VolumeError>>;

    fn take(reads: &mut Reads, consistency: Consistency, now: Moment) -> Answer {
        let (reply, answer) = crate::answer::answer();
        reads.take(PAGE, consistency, None, Reply::Waiter(reply), Vdl::ZERO, now);
        answer
    }

    /// A strict read must not ride on a question that was asked before it came: the answer may be
    /// older than the read.
    #[test]
    fn a_strict_read_waits_for_a_question_asked_after_it() {
        let mut reads = Reads::default();
        let _early = take(&mut reads, Consistency::Strict, at(0));
        let first = reads.confirm(at(0)).unwrap();
        let _late = take(&mut reads, Consistency::Strict, at(1));
        assert_eq!(reads.confirm(at(1)), None);
        assert!(reads.due(at(1)).is_empty());

        reads.confirmed(first, at(2));
        assert_eq!(reads.due(at(2)).len(), 1);
        let second = reads.confirm(at(2)).unwrap();
        assert!(second > first);
        // The first answer again changes nothing.
        reads.confirmed(first, at(3));
        assert_eq!(reads.due(at(3)).len(), 1);
        reads.confirmed(second, at(3));
        assert_eq!(reads.due(at(3)).len(), 2);
    }

    /// A question that nobody answers must be asked again, for all that wait by then.
    #[test]
    fn an_unanswered_question_is_asked_again() {
        let mut reads = Reads::default();
        let _read = take(&mut reads, Consistency::Strict, at(0));
        let first = reads.confirm(at(0)).unwrap();
        let later = at(0).after(PATIENCE);
        let second = reads.confirm(later).unwrap();
        reads.confirmed(first, later);
        assert!(reads.due(later).is_empty());
        reads.confirmed(second, later);
        assert_eq!(reads.due(later).len(), 1);
    }

    /// A segment that refuses, or stays silent, must not be asked for ever while others are there.
    #[test]
    fn another_segment_is_asked_after_a_refusal_and_after_silence() {
        let mut reads = Reads::default();
        let _read = take(&mut reads, Consistency::Snapshot, at(0));
        let [(ticket, page, _)] = reads.due(at(0)).try_into().unwrap();
        assert_eq!(page, PAGE);
        let mut asked = SegmentSet::EMPTY;
        let mut now = at(0);
        for attempt in 0..3 {
            let [chosen] = reads.choose(ticket, GROUP, &positions(3), now)[..] else { panic!() };
            asked.insert(chosen);
            assert_eq!(reads.due(now), []);
            if attempt % 2 == 0 {
                reads.refused(ticket, (GROUP, chosen), now);
            } else {
                now = now.after(PATIENCE);
            }
            assert_eq!(reads.due(now).len(), 1);
        }
        assert_eq!(asked.len(), 3);
        // All have been asked in vain: after a pause, everybody again.
        assert_eq!(reads.choose(ticket, GROUP, &positions(3), now), []);
        assert_eq!(reads.due(now), []);
        assert_eq!(reads.choose(ticket, GROUP, &positions(3), now.after(PAUSE)).len(), 1);
    }

    /// A read that waits longer than others must be asked of a second segment, once; the first
    /// answer counts, and the other one changes nothing.
    #[test]
    fn a_read_that_takes_long_is_hedged() {
        let mut reads = Reads::default();
        for _ in 0..40 {
            reads.latencies.earn();
        }
        let answer = take(&mut reads, Consistency::Snapshot, at(0));
        let [(ticket, ..)] = reads.due(at(0)).try_into().unwrap();
        let first = reads.choose(ticket, GROUP, &positions(3), at(0));
        let hedge = reads.deadline().unwrap();
        assert!(hedge < at(0).after(PATIENCE));
        assert_eq!(reads.due(hedge).len(), 1);
        let second = reads.choose(ticket, GROUP, &positions(3), hedge);
        assert_ne!(first, second);
        assert_eq!(reads.due(hedge), [], "once");
        assert_eq!(reads.latencies().hedges(), 1);
        // One refusal is no reason to ask a third one while the second may answer.
        reads.refused(ticket, (GROUP, second[0]), hedge);
        assert_eq!(reads.due(hedge), []);
        let point = ReadPoint::at(Vdl::ZERO);
        let outbox = &mut Outbox::default();
        for from in [first[0], second[0]] {
            let bytes = (point, None, Vec::new());
            reads.answer(ticket, PAGE, bytes, (GROUP, from), hedge, outbox);
        }
        assert!(matches!(answer.take(), Outcome::Given(Ok(_))));
        assert_eq!(reads.len(), 0);
    }

    /// The answer to another question must not be taken for a page.
    #[test]
    fn an_answer_about_another_page_is_not_taken() {
        let mut reads = Reads::default();
        let answer = take(&mut reads, Consistency::Snapshot, at(0));
        let [(ticket, ..)] = reads.due(at(0)).try_into().unwrap();
        let point = ReadPoint::at(Vdl::ZERO);
        let (unasked, outbox) = (PageId::new(6), &mut Outbox::default());
        let from = |reads: &mut Reads| {
            let chosen = reads.choose(ticket, GROUP, &positions(6), at(0));
            (GROUP, chosen.first().copied().unwrap())
        };
        let first = from(&mut reads);
        reads.answer(ticket, unasked, (point, None, Vec::new()), first, at(0), outbox);
        assert_eq!(reads.due(at(0)).len(), 1);
        let second = from(&mut reads);
        // Nor the answer of somebody who wasn't asked.
        let others = positions(6).into_iter().map(|position| (GROUP, position));
        let stranger = others.clone().find(|other| ![first, second].contains(other)).unwrap();
        reads.answer(ticket, PAGE, (point, None, Vec::new()), stranger, at(0), outbox);
        assert_eq!(reads.len(), 1);
        reads.answer(ticket, PAGE, (point, None, Vec::new()), second, at(0), outbox);
        assert!(matches!(answer.take(), Outcome::Given(Ok(version)) if version.lsn.is_none()));
        assert_eq!(reads.len(), 0);
    }

    /// A read that waits for an LSN must neither be asked for before the VDL is there nor wait
    /// for ever.
    #[test]
    fn a_read_waits_for_its_lsn_but_not_for_ever() {
        let vdl = |lsn: u64| -> Vdl { crate::wire::decode_value(&lsn.to_le_bytes()).unwrap() };
        let (mut reads, mut outbox) = (Reads::default(), Outbox::default());
        let _read = take(&mut reads, Consistency::AtLeast(Lsn::new(3)), at(0));
        reads.reach(vdl(2), at(1));
        assert_eq!(reads.due(at(1)), []);
        reads.reach(vdl(3), at(2));
        assert_eq!(reads.due(at(2)).len(), 1);

        let answer = take(&mut reads, Consistency::AtLeast(Lsn::new(9)), at(2));
        reads.expire(vdl(3), at(3), &mut outbox);
        assert_eq!(answer.take(), Outcome::NotYet, "it has only just begun to wait");
        reads.expire(vdl(3), at(2).after(REACH_MAX), &mut outbox);
        let error = PointError::NotReached { lsn: Lsn::new(9), vdl: vdl(3) };
        assert_eq!(answer.take(), Outcome::Given(Err(error.into())));
        assert_eq!(reads.len(), 1);
    }
}
