//! What the group's log ends with at a point to which the volume is to go (protocol: backtrack).

use alloc::vec::Vec;

use super::Segment;
use crate::effect::SegmentEffect;
use crate::lsn::Lsn;
use crate::message::{Locate, Place, ToWriter};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::Rules;

impl<R: Rules> Segment<R> {
    pub(super) fn receive_locate(
        &self,
        locate: Locate,
        effects: &mut Vec<SegmentEffect>,
    ) -> Result<(), Refusal> {
        if locate.group != self.durable.group {
            return Err(Refusal::WrongGroup);
        }
        self.check_epoch(locate.epoch)?;
        let scl = self.durable.scl();
        if scl.lsn() < locate.needed {
            return Err(Refusal::Incomplete { scl });
        }
        // The versions at the point are gone.
        let base = self.durable.base();
        if base > locate.target {
            return Err(Refusal::Collected { base });
        }
        let history = &self.durable.history;
        let reaches = |tip| history.after() < locate.target && locate.target <= tip;
        let place = if history.branch().is_some_and(|branch| reaches(branch.tip())) {
            self.place_on_branch(locate.target).ok_or(Refusal::Incomplete { scl })?
        } else {
            let records = self.durable.log.up_to(locate.target);
            let tip = self.durable.aside.as_ref().and_then(|aside| aside.tip);
            Place { tip, ..place(records.iter()) }
        };
        let (epoch, ticket) = (locate.epoch, locate.ticket);
        let incarnation = self.durable.incarnation;
        let message = ToWriter::Located { epoch, incarnation, ticket, place };
        effects.push(SegmentEffect::SendWriter { to: epoch, message });
        Ok(())
    }

    /// Returns what lies at `target` on the branch that was set aside, if the segment has all of
    /// the group's part of it.
    fn place_on_branch(&self, target: Lsn) -> Option<Place> {
        let aside = self.durable.aside.as_ref()?;
        let tip = aside.tip?;
        let kept = self.durable.log.up_to(self.durable.history.after());
        let mut end = kept.last().map_or(Lsn::ZERO, |record| record.lsn);
        for record in &aside.records {
            if record.prev_group != end {
                break;
            }
            end = record.lsn;
        }
        if end < tip {
            return None;
        }
        let reached = aside.records.partition_point(|record| record.lsn <= target);
        let beyond = aside.records.get(..reached).unwrap_or(&[]);
        Some(Place { tip: Some(tip), ..place(kept.iter().chain(beyond)) })
    }
}

/// Returns what `records`, which rise, end with.
fn place<'a>(records: impl DoubleEndedIterator<Item = &'a Record> + Clone) -> Place {
    let end = records.clone().next_back().map_or(Lsn::ZERO, |record| record.lsn);
    let cpl = records.rev().find(|record| record.cpl).map_or(Lsn::ZERO, |record| record.lsn);
    Place { end, cpl, tip: None }
}
