//! Reads from one segment, and strict reads by epoch confirmation (protocol: reads).

use alloc::vec::Vec;

use super::{Phase, Writer, refused};
use crate::consistency::ReadPoint;
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::id::{PageId, PgId, Position, SegmentSet, Ticket};
use crate::message::{Confirm, Read, ToSegment};
use crate::rules::{Bug, Rules};

/// A question, under way, whether this writer is still the highest.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Confirming {
    pub(super) ticket: Ticket,
    /// The VDL when the question was asked.
    pub(super) read_point: ReadPoint,
    /// Segments of the first group that had promised no higher epoch when they answered.
    pub(super) confirmed: SegmentSet,
}

/// Every recovery seals a read quorum and installs on a write quorum of every group, so asking one
/// group is enough.
const CONFIRMING_GROUP: PgId = PgId::new(0);

impl<R: Rules> Writer<R> {
    pub(super) fn read(
        &self,
        ticket: Ticket,
        page: PageId,
        read_point: Option<ReadPoint>,
        from: Position,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Open(open) = &self.phase else {
            effects.push(refused(self.not_open()));
            return;
        };
        let group = self.geometry.group_of(page);
        if !self.geometry.has(group) {
            effects.push(refused(CommandRefusal::BeyondVolume { page }));
            return;
        }
        if !self.everyone(group).contains(from) {
            effects.push(refused(CommandRefusal::UnknownSegment));
            return;
        }
        let mut current = ReadPoint::at(open.vdl());
        let mut needed = open.durable(group).unwrap_or_default();
        if self.rules.has(Bug::ReadAtPgcl)
            && let Some(pgcl) = open.pgcl(group)
        {
            current = ReadPoint::unsound(pgcl.lsn());
            needed = pgcl.lsn();
        }
        let read_point = read_point.unwrap_or(current);
        if read_point > current {
            effects.push(refused(CommandRefusal::ReadPointAhead));
            return;
        }
        // What is needed now is enough for any earlier read point too.
        let message =
            ToSegment::Read(Read { epoch: self.epoch, group, ticket, page, read_point, needed });
        let mut to = SegmentSet::EMPTY;
        to.insert(from);
        effects.push(WriterEffect::Send { group, to, message });
    }

    pub(super) fn confirm(&mut self, ticket: Ticket, effects: &mut Vec<WriterEffect>) {
        let not_open = self.not_open();
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        let read_point = ReadPoint::at(open.vdl());
        let confirmed = match &open.confirming {
            Some(earlier) if self.rules.has(Bug::ConfirmAnyTicket) => earlier.confirmed,
            Some(_) | None => SegmentSet::EMPTY,
        };
        open.confirming = Some(Confirming { ticket, read_point, confirmed });
        let confirm = Confirm { epoch: self.epoch, group: CONFIRMING_GROUP, ticket };
        self.send_all(CONFIRMING_GROUP, ToSegment::Confirm(confirm), effects);
    }

    pub(super) fn receive_confirmed(
        &mut self,
        group: PgId,
        from: Position,
        ticket: Ticket,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(confirming) = &mut open.confirming else { return };
        let is_other = confirming.ticket != ticket && !self.rules.has(Bug::ConfirmAnyTicket);
        if is_other || group != CONFIRMING_GROUP {
            return;
        }
        confirming.confirmed.insert(from);
        // A later recovery installs on write quorums of both: each is met.
        let Some(progress) = open.groups.get(group.get() as usize) else { return };
        let membership = &progress.membership;
        if membership.quorums().reads(confirming.confirmed, 0)
            && membership.before().reads(confirming.confirmed, 0)
        {
            let (ticket, read_point) = (confirming.ticket, confirming.read_point);
            open.confirming = None;
            effects.push(WriterEffect::Report(Report::Confirmed { ticket, read_point }));
        }
    }
}
