//! Bad input: whatever a broken peer sends, a segment refuses it with a value that says why, and
//! stays as it was.
//!
//! TLA+: none, no peer is broken there. Evaluated on every distinct segment with one message of
//! every kind that the protocol forbids.

use quorate_core::consistency::{GarbageFloor, Vdl};
use quorate_core::effect::{SegmentEffect, SegmentInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::Added;
use quorate_core::id::{InstanceId, PgId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{Append, Install, Locate, Peer, Seal, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::truncation::History;

/// Returns what `segment` says to each forbidden message; `None` when it accepts one.
pub(crate) fn refusals<R: Rules>(segment: &Segment<R>) -> Option<Vec<Refusal>> {
    messages(segment).into_iter().map(|message| refusal(segment, message)).collect()
}

fn refusal<R: Rules>(segment: &Segment<R>, message: ToSegment) -> Option<Refusal> {
    let mut after = segment.clone();
    let mut effects = Vec::new();
    let from = Peer::Writer(segment.heard());
    after.step(SegmentInput::Receive { from, message }, &mut effects);
    refused(segment, &after, &effects)
}

/// Returns why a segment refused, if the refusal is all that it said, and it stayed as it was.
fn refused<R: Rules>(
    before: &Segment<R>,
    after: &Segment<R>,
    effects: &[SegmentEffect],
) -> Option<Refusal> {
    match effects {
        [SegmentEffect::SendWriter { message: ToWriter::Refused { refusal, .. }, .. }]
            if after == before =>
        {
            Some(*refusal)
        }
        _ => None,
    }
}

/// One message for each rule that it breaks, otherwise as a writer of the segment's epoch would
/// send it.
fn messages<R: Rules>(segment: &Segment<R>) -> Vec<ToSegment> {
    let image = segment.durable();
    let (epoch, group) = (segment.heard(), image.group());
    let elsewhere = PgId::new(group.get().wrapping_add(1));
    let next = next_record(segment);
    let append = |group: PgId, epoch: VolumeEpoch, records: Vec<Record>| {
        let floor = GarbageFloor::ZERO;
        ToSegment::Append(Append { epoch, group, vdl: Vdl::ZERO, floor, records })
    };
    let install = |group: PgId, history: History, end: Lsn, membership: Membership| {
        ToSegment::Install(Install { group, history, end, tip: None, membership })
    };
    let above = epoch.next(InstanceId::new(u64::MAX)).unwrap_or(epoch);
    let ahead = VolumeEpoch::new(u64::MAX, InstanceId::new(u64::MAX));
    let mut backwards = next;
    backwards.prev_group = next.lsn;
    let mut foreign = next;
    foreign.group = elsewhere;
    let mut far = next;
    far.lsn = Lsn::new(u64::MAX);
    let mut dead = next;
    dead.lsn = image.history().through();
    dead.prev_volume = Lsn::ZERO;
    dead.prev_group = Lsn::ZERO;
    let (ticket, target) = (Ticket::new(0), image.vdl().lsn());
    let mut messages = vec![
        append(elsewhere, epoch, vec![next]),
        append(group, above, vec![next]),
        append(group, epoch, vec![next; 9]),
        append(group, epoch, vec![backwards]),
        append(group, epoch, vec![foreign]),
        append(group, epoch, vec![far]),
        append(group, epoch, vec![dead]),
        install(group, History::new(), Lsn::ZERO, *image.membership()),
        install(elsewhere, image.history().clone(), image.end(), *image.membership()),
        install(group, image.history().clone(), image.end(), image.membership().adopted_by(above)),
        ToSegment::Locate(Locate { epoch, group: elsewhere, ticket, target, needed: target }),
        ToSegment::Locate(Locate { epoch: above, group, ticket, target, needed: target }),
        ToSegment::Seal(Seal { epoch, group: elsewhere, at: None }),
        ToSegment::Seal(Seal { epoch: ahead, group, at: None }),
    ];
    // Only the first group counts groups, and only those that the volume can have.
    let one = Added::NONE.next().unwrap_or_default();
    if group != PgId::new(0) || !image.geometry().can_have(one) {
        let membership = image.membership().grown(one);
        messages.push(install(group, image.history().clone(), image.end(), membership));
    }
    if let Some(held) = image.records().iter().find(|record| record.epoch == epoch) {
        let mut other = *held;
        other.payload.length = !held.payload.length;
        messages.push(append(group, epoch, vec![other]));
    }
    let limits = image.geometry().limits();
    if image.history().ranges().len() >= limits.history_ranges_max as usize {
        messages.push(ToSegment::Seal(Seal { epoch: above, group, at: None }));
    }
    if image.floor().is_some() {
        messages.push(ToSegment::Seal(Seal { epoch: above, group, at: None }));
    }
    // A record that breaks nothing but comes when the log or the disk's queue is full.
    let is_full = image.records().len() >= limits.log_records_max as usize;
    if is_full || segment.pending().len() >= limits.pending_writes_max as usize {
        messages.push(append(group, epoch, vec![next]));
    }
    messages
}

/// A record that would be allowed to follow all that the segment has and has under way.
fn next_record<R: Rules>(segment: &Segment<R>) -> Record {
    let image = segment.durable();
    let under_way = segment.pending().flat_map(|(_, write, _)| write.records.iter());
    let last = image.records().iter().chain(under_way).map(|record| record.lsn).max();
    let last = last.unwrap_or(Lsn::ZERO);
    let lsn = last.max(image.history().through()).plus(1).unwrap_or(last);
    Record {
        lsn,
        epoch: segment.heard(),
        prev_volume: last,
        prev_group: last,
        group: image.group(),
        page: Default::default(),
        cpl: true,
        payload: Default::default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use quorate_core::rules::{Bug, Seeded, Sound};

    use super::*;
    use crate::configuration::Configuration;
    use crate::invariant::Property;
    use crate::world::World;

    /// Machines without a fence that pass for those that ship: like `Sound`, they have no size.
    #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
    struct Unfenced;

    impl Rules for Unfenced {
        fn has(self, bug: Bug) -> bool {
            bug == Bug::NoFence
        }
    }

    fn verdict<R: Rules>(rules: R) -> Option<Property> {
        let world = World::new(&Configuration::EMPTY, rules, 0);
        world.verdict(&world.start())
    }

    /// A segment that takes what it must refuse would go unnoticed. Nothing else is broken in this
    /// state: it is the segment's answers alone that are judged.
    #[test]
    fn a_segment_that_accepts_what_is_forbidden_is_reported() {
        assert_eq!(verdict(Unfenced), Some(Property::Hostile));
        assert_eq!(verdict(Sound), None);
        // Of a machine with a seeded bug, what its acceptance leads to is judged instead.
        assert_eq!(verdict(Seeded(Bug::NoFence)), None);
    }

    /// A segment that says no and changes all the same would pass for one that refuses, and so
    /// would one that says nothing, or more than the refusal.
    #[test]
    fn only_one_refusal_that_changes_nothing_counts() {
        let world = World::new(&Configuration::EMPTY, Sound, 0);
        let segment = &world.slot(&world.start(), 0).slot.segment;
        let message = messages(segment).remove(0);
        let mut effects = Vec::new();
        let from = Peer::Writer(segment.heard());
        segment.clone().step(SegmentInput::Receive { from, message }, &mut effects);
        assert!(refused(segment, segment, &effects).is_some());
        let mut other = segment.clone();
        let epoch = segment.heard().next(InstanceId::new(9)).unwrap();
        let message = ToSegment::Seal(Seal { epoch, group: segment.durable().group(), at: None });
        other.step(SegmentInput::Receive { from, message }, &mut Vec::new());
        assert_ne!(other, *segment);
        assert_eq!(refused(segment, &other, &effects), None);
        assert_eq!(refused(segment, segment, &[]), None);
        let twice = [effects.clone(), effects].concat();
        assert_eq!(refused(segment, segment, &twice), None);
    }
}
