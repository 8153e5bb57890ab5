//! Reads under way: whom to ask, whom to ask next, and what waits for a confirmation.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::id::{PageId, Position, SegmentSet, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;

use super::reply::{Outbox, Reply};
use super::{Consistency, PageVersion, PointError, VolumeError};
use crate::clock::Moment;

/// How long one segment may take to answer before another one is asked.
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
}

/// A read that has no answer yet.
#[derive(Debug)]
struct WaitingRead {
    page: PageId,
    /// `None` for the VDL at the time of asking.
    read_point: Option<ReadPoint>,
    reply: Reply<PageVersion>,
    /// Segments that were asked in vain.
    tried: SegmentSet,
    state: ReadState,
}

#[derive(Clone, Copy, Debug)]
enum ReadState {
    /// The VDL isn't at this LSN yet.
    Ahead { lsn: Lsn, until: Moment },
    /// This segment was asked.
    Asked { from: Position, until: Moment },
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
        let tried = SegmentSet::EMPTY;
        self.waiting.insert(ticket, WaitingRead { page, read_point, reply, tried, state });
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
        let mut due = Vec::new();
        for (ticket, read) in &mut self.waiting {
            match read.state {
                ReadState::Asked { from, until } if until <= now => {
                    read.tried.insert(from);
                    due.push((*ticket, read.page, read.read_point));
                }
                ReadState::Due { at } if at <= now => {
                    due.push((*ticket, read.page, read.read_point));
                }
                ReadState::Ahead { .. }
                | ReadState::Asked { .. }
                | ReadState::Due { .. }
                | ReadState::Unconfirmed => {}
            }
        }
        due
    }

    /// Chooses the segment to ask among `complete` ones; `None` when the read has to wait.
    pub(super) fn choose(
        &mut self,
        ticket: Ticket,
        complete: &[Position],
        now: Moment,
    ) -> Option<Position> {
        let read = self.waiting.get_mut(&ticket)?;
        let fresh: Vec<Position> =
            complete.iter().filter(|position| !read.tried.contains(**position)).copied().collect();
        let turn = ticket.get().checked_rem(fresh.len() as u64);
        let chosen = turn.and_then(|turn| fresh.get(usize::try_from(turn).ok()?));
        match chosen {
            Some(from) => {
                read.state = ReadState::Asked { from: *from, until: now.after(PATIENCE) };
                Some(*from)
            }
            None => {
                // Everybody again, a little later.
                read.tried = SegmentSet::EMPTY;
                read.state = ReadState::Due { at: now.after(PAUSE) };
                None
            }
        }
    }

    /// Takes the refusal of the segment asked.
    pub(super) fn refused(&mut self, ticket: Ticket, now: Moment) {
        if let Some(read) = self.waiting.get_mut(&ticket)
            && let ReadState::Asked { from, .. } = read.state
        {
            read.tried.insert(from);
            read.state = ReadState::Due { at: now };
        }
    }

    /// Makes reads that a segment was asked for be asked of another one.
    pub(super) fn lost(&mut self, is_lost: impl Fn(PageId, Position) -> bool, now: Moment) {
        for read in self.waiting.values_mut() {
            if let ReadState::Asked { from, .. } = read.state
                && is_lost(read.page, from)
            {
                read.tried.insert(from);
                read.state = ReadState::Due { at: now };
            }
        }
    }

    /// Takes the answer to a read. An answer that can't be right makes another segment be asked.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        page: PageId,
        (read_point, version, bytes): (ReadPoint, Option<Record>, Vec<u8>),
        now: Moment,
        outbox: &mut Outbox,
    ) {
        let is_right = |read: &WaitingRead| {
            read.page == page
                && read.read_point.is_none_or(|asked| asked == read_point)
                && version
                    .is_none_or(|record| record.page == page && record.lsn <= read_point.lsn())
        };
        if !self.waiting.get(&ticket).is_some_and(is_right) {
            self.refused(ticket, now);
            return;
        }
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

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns when something is to be done next, if ever.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let reads = self.waiting.values().filter_map(|read| match read.state {
            ReadState::Ahead { until, .. } | ReadState::Asked { until, .. } => Some(until),
            ReadState::Due { at } => Some(at),
            ReadState::Unconfirmed => None,
        });
        reads.chain(self.confirming.as_ref().map(|confirming| confirming.until)).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    use crate::answer::Outcome;

    const PAGE: PageId = PageId::new(5);

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
            asked.insert(reads.choose(ticket, &positions(3), now).unwrap());
            assert_eq!(reads.due(now), []);
            if attempt % 2 == 0 {
                reads.refused(ticket, now);
            } else {
                now = now.after(PATIENCE);
            }
            assert_eq!(reads.due(now).len(), 1);
        }
        assert_eq!(asked.len(), 3);
        // All have been asked in vain: after a pause, everybody again.
        assert_eq!(reads.choose(ticket, &positions(3), now), None);
        assert_eq!(reads.due(now), []);
        assert!(reads.choose(ticket, &positions(3), now.after(PAUSE)).is_some());
    }

    /// The answer to another question must not be taken for a page.
    #[test]
    fn an_answer_about_another_page_is_not_taken() {
        let mut reads = Reads::default();
        let answer = take(&mut reads, Consistency::Snapshot, at(0));
        let [(ticket, ..)] = reads.due(at(0)).try_into().unwrap();
        reads.choose(ticket, &positions(6), at(0)).unwrap();
        let point = ReadPoint::at(Vdl::ZERO);
        let (unasked, outbox) = (PageId::new(6), &mut Outbox::default());
        reads.answer(ticket, unasked, (point, None, Vec::new()), at(0), outbox);
        assert_eq!(reads.due(at(0)).len(), 1);
        reads.choose(ticket, &positions(6), at(0)).unwrap();
        reads.answer(ticket, PAGE, (point, None, Vec::new()), at(0), outbox);
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
