//! Where a volume can go back to, or forward again (protocol: backtrack).

use alloc::vec::Vec;

use super::{Phase, Writer, refused};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::id::{PgId, Ticket};
use crate::lsn::Lsn;
use crate::message::{Locate, Place, ToSegment};
use crate::recovery::Backtrack;
use crate::rules::{Bug, Rules};

/// A question, under way, what the groups' logs end with at a point.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Locating {
    ticket: Ticket,
    target: Lsn,
    /// By group: one answer is enough, since whoever lacks anything gives none.
    places: Vec<Option<Place>>,
}

impl<R: Rules> Writer<R> {
    pub(super) fn locate(&mut self, ticket: Ticket, target: Lsn, effects: &mut Vec<WriterEffect>) {
        let not_open = self.not_open();
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        // Forward only as long as nothing was written, durable or not.
        let after = open.history().after();
        let tip = open.history().branch().map(|branch| branch.tip());
        let reaches = |tip| open.tail() == after && target <= tip;
        if target > open.vdl().lsn() && !tip.is_some_and(reaches) {
            effects.push(refused(CommandRefusal::TargetAhead));
            return;
        }
        let places = self.geometry.groups().map(|_| None).collect();
        open.locating = Some(Locating { ticket, target, places });
        let needed: Vec<Lsn> = open
            .groups
            .iter()
            .zip(self.geometry.groups())
            .filter_map(|(_, group)| open.durable(group))
            .collect();
        let epoch = self.epoch;
        for (group, needed) in self.geometry.groups().zip(needed) {
            let locate = Locate { epoch, group, ticket, target, needed };
            self.send_all(group, ToSegment::Locate(locate), effects);
        }
    }

    pub(super) fn receive_located(
        &mut self,
        group: PgId,
        ticket: Ticket,
        place: Place,
        effects: &mut Vec<WriterEffect>,
    ) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(locating) = &mut open.locating else { return };
        if locating.ticket != ticket {
            return;
        }
        let Some(known) = locating.places.get_mut(group.get() as usize) else { return };
        *known = Some(place);
        let places: Option<Vec<Place>> = locating.places.iter().copied().collect();
        let Some(places) = places else { return };
        let target = locating.target;
        open.locating = None;
        let nearest = places.iter().map(|place| place.cpl).max().unwrap_or(Lsn::ZERO);
        if nearest != target && !self.rules.has(Bug::BacktrackAnywhere) {
            effects.push(refused(CommandRefusal::NotConsistent { nearest }));
            return;
        }
        let backtrack = Backtrack {
            under: self.epoch,
            target,
            ends: places.iter().map(|place| place.end).collect(),
            tips: places.iter().map(|place| place.tip).collect(),
        };
        effects.push(WriterEffect::Report(Report::Located { ticket, backtrack }));
    }
}
