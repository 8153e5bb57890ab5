//! Reads of a reader's clients that have no answer yet.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::id::{PageId, PgId, Position, SegmentSet, Ticket};
use quorate_core::lsn::Lsn;

use crate::clock::Moment;
use crate::env::Token;

/// How long a segment may take to answer before another one is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait when no segment can be asked.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How long a read waits for its LSN, and how long for an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// One read.
#[derive(Debug)]
pub(super) struct WaitingRead {
    pub(super) page: PageId,
    pub(super) at_least: Lsn,
    /// Who has asked, and under which ticket.
    pub(super) client: (Token, Ticket),
    /// The segment that was asked, and the read point.
    asked: Option<(PgId, Position, ReadPoint)>,
    /// Segments that were asked in vain.
    tried: SegmentSet,
    /// When it is looked at next.
    at: Moment,
    /// When it is refused.
    until: Moment,
}

/// The reads under way, by the ticket that segments echo.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last: u64,
    waiting: BTreeMap<Ticket, WaitingRead>,
}

impl Reads {
    pub(super) fn take(
        &mut self,
        client: (Token, Ticket),
        page: PageId,
        at_least: Lsn,
        now: Moment,
    ) -> Ticket {
        self.last = self.last.saturating_add(1);
        let ticket = Ticket::new(self.last);
        let (asked, tried, until) = (None, SegmentSet::EMPTY, now.after(WAIT_MAX));
        let read = WaitingRead { page, at_least, client, asked, tried, at: now, until };
        self.waiting.insert(ticket, read);
        ticket
    }

    /// Returns the reads to try now: those whose LSN has come, and those whose segment is silent.
    pub(super) fn due(&mut self, vdl: Vdl, now: Moment) -> Vec<(Ticket, PageId, Lsn)> {
        let mut due = Vec::new();
        for (ticket, read) in &mut self.waiting {
            if read.at > now || read.at_least > vdl.lsn() {
                continue;
            }
            if let Some((_, silent, _)) = read.asked.take() {
                read.tried.insert(silent);
            }
            due.push((*ticket, read.page, read.at_least));
        }
        due
    }

    /// Chooses whom to ask among `segments`; nobody when all of them were: then all may be asked
    /// again a little later.
    pub(super) fn choose(
        &mut self,
        ticket: Ticket,
        segments: &[Position],
        now: Moment,
    ) -> Option<Position> {
        let read = self.waiting.get_mut(&ticket)?;
        let fresh: Vec<&Position> =
            segments.iter().filter(|segment| !read.tried.contains(**segment)).collect();
        let turn = ticket.get().checked_rem(fresh.len() as u64);
        let chosen = turn.and_then(|turn| fresh.get(usize::try_from(turn).ok()?));
        if chosen.is_none() {
            read.tried = SegmentSet::EMPTY;
            read.at = now.after(PAUSE);
        }
        chosen.copied().copied()
    }

    /// Notes that a segment was asked.
    pub(super) fn asked(
        &mut self,
        ticket: Ticket,
        from: (PgId, Position),
        read_point: ReadPoint,
        now: Moment,
    ) {
        if let Some(read) = self.waiting.get_mut(&ticket) {
            read.asked = Some((from.0, from.1, read_point));
            read.at = now.after(PATIENCE);
        }
    }

    /// Notes that the segment that was asked won't answer.
    pub(super) fn refused(&mut self, ticket: Ticket, now: Moment) {
        if let Some(read) = self.waiting.get_mut(&ticket) {
            read.at = now;
        }
    }

    /// Notes that a segment's connection has ended.
    pub(super) fn lost(&mut self, group: PgId, segment: Position, now: Moment) {
        for read in self.waiting.values_mut() {
            if read.asked.is_some_and(|(of, from, _)| (of, from) == (group, segment)) {
                read.at = now;
            }
        }
    }

    /// Returns whether a segment was asked for this read, which memory didn't answer.
    pub(super) fn has_asked(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|read| read.asked.is_some())
    }

    pub(super) fn finish(&mut self, ticket: Ticket) -> Option<WaitingRead> {
        self.waiting.remove(&ticket)
    }

    /// Removes the reads that have waited too long.
    pub(super) fn expired(&mut self, now: Moment) -> Vec<WaitingRead> {
        let is_over = |_: &Ticket, read: &mut WaitingRead| read.until <= now;
        self.waiting.extract_if(.., is_over).map(|(_, read)| read).collect()
    }

    /// Returns the lowest read point that a segment has been asked for.
    pub(super) fn lowest(&self) -> Option<ReadPoint> {
        self.waiting.values().filter_map(|read| read.asked.map(|(_, _, point)| point)).min()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns when something is to be done next, if ever.
    pub(super) fn deadline(&self, vdl: Vdl) -> Option<Moment> {
        let at = |read: &WaitingRead| {
            if read.at_least > vdl.lsn() { read.until } else { read.at.min(read.until) }
        };
        self.waiting.values().map(at).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn vdl(lsn: u64) -> Vdl {
        crate::wire::decode_value(&lsn.to_le_bytes()).unwrap()
    }

    fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    fn take(reads: &mut Reads, at_least: u64) -> Ticket {
        let client = (Token::new(1), Ticket::new(7));
        reads.take(client, PageId::new(3), Lsn::new(at_least), at(0))
    }

    /// A read that names a commit must not be tried before that commit is there, and must not wait
    /// for ever.
    #[test]
    fn a_read_waits_for_its_lsn() {
        let mut reads = Reads::default();
        let ticket = take(&mut reads, 12);
        assert!(reads.due(vdl(11), at(1)).is_empty());
        assert_eq!(reads.due(vdl(12), at(2)), [(ticket, PageId::new(3), Lsn::new(12))]);
        assert!(reads.expired(at(9_999)).is_empty());
        assert_eq!(reads.expired(at(10_000)).len(), 1);
        assert_eq!(reads.len(), 0);
    }

    /// A segment that is silent, refuses or is lost must not be the only one that is asked.
    #[test]
    fn another_segment_is_asked() {
        let segments: Vec<Position> = Position::first(3).collect();
        let mut reads = Reads::default();
        let ticket = take(&mut reads, 0);
        let mut asked = Vec::new();
        let mut now = 0;
        for round in 0..3 {
            assert_eq!(reads.due(vdl(1), at(now)).len(), 1, "round {round}");
            let chosen = reads.choose(ticket, &segments, at(now)).unwrap();
            reads.asked(ticket, (PgId::new(0), chosen), ReadPoint::at(vdl(1)), at(now));
            assert_eq!(reads.lowest(), Some(ReadPoint::at(vdl(1))));
            assert!(reads.due(vdl(1), at(now + 999)).is_empty(), "it has time to answer");
            match round {
                0 => now += 1_000,
                1 => reads.refused(ticket, at(now)),
                _ => reads.lost(PgId::new(0), chosen, at(now)),
            }
            asked.push(chosen);
        }
        asked.sort_unstable();
        assert_eq!(asked, segments);
        assert_eq!(reads.due(vdl(1), at(now)).len(), 1);
        assert_eq!(reads.choose(ticket, &segments, at(now)), None);
        assert!(reads.due(vdl(1), at(now)).is_empty(), "everybody again, but not at once");
        assert_eq!(reads.due(vdl(1), at(now + 20)).len(), 1);
        assert!(reads.choose(ticket, &segments, at(now + 20)).is_some());
    }
}
