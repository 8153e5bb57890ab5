//! What a segment has under way counts as much as what is durable: regressions of faults that
//! stopped a segment, or let its state grow without bound.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use quorate_core::consistency::{GarbageFloor, Vdl};
use quorate_core::effect::{SegmentEffect, SegmentInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{InstanceId, PageId, PgId, Position, WriteId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{Append, Install, Peer, Pulled, Seal, ToSegment};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Payload, Record};
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};

const E: VolumeEpoch = VolumeEpoch::new(1, InstanceId::new(1));
const G: PgId = PgId::new(0);

fn limits() -> Limits {
    Limits {
        allocation_max: 4,
        batch_records_max: 1,
        log_records_max: 1,
        history_ranges_max: 4,
        pending_writes_max: 2,
    }
}

fn history() -> History {
    History::new().with(TruncationRange::new(E, Lsn::ZERO, Lsn::new(4)).unwrap())
}

fn membership() -> Membership {
    Membership::genesis(QuorumSet::AURORA).adopted_by(E)
}

/// A segment that has installed epoch E: LSNs from 5 on may be written.
fn segment(limits: Limits) -> Segment {
    let geometry = VolumeGeometry::new(1, QuorumSet::AURORA, limits).unwrap();
    let mut segment = Segment::recover(SegmentImage::create(G, geometry).unwrap());
    let (history, membership) = (history(), membership());
    let install = Install { group: G, history, end: Lsn::ZERO, tip: None, membership };
    give(&mut segment, ToSegment::Install(install));
    segment.step(SegmentInput::Durable(WriteId::new(0)), &mut Vec::new());
    segment
}

fn give(segment: &mut Segment, message: ToSegment) -> Vec<SegmentEffect> {
    let from = match &message {
        ToSegment::Pulled(_) => Peer::Segment(Position::new(1).unwrap()),
        _ => Peer::Writer(E),
    };
    let mut effects = Vec::new();
    segment.step(SegmentInput::Receive { from, message }, &mut effects);
    effects
}

fn record(lsn: u64, page: u64) -> Record {
    Record {
        lsn: Lsn::new(lsn),
        epoch: E,
        prev_volume: Lsn::new(if lsn == 5 { 0 } else { lsn - 1 }),
        prev_group: Lsn::new(if lsn == 5 { 0 } else { lsn - 1 }),
        group: G,
        page: PageId::new(page),
        cpl: true,
        payload: Payload::default(),
    }
}

fn append(record: Record) -> ToSegment {
    ToSegment::Append(Append {
        epoch: E,
        group: G,
        vdl: Vdl::ZERO,
        floor: GarbageFloor::ZERO,
        records: vec![record],
    })
}

fn pulled(record: Record) -> ToSegment {
    let records = vec![record];
    let (history, membership) = (history(), membership());
    let (end, vdl) = (Lsn::ZERO, Vdl::ZERO);
    let (base, after) = (Lsn::ZERO, Lsn::ZERO);
    let pulled =
        Pulled { group: G, history, end, tip: None, membership, vdl, base, after, records };
    ToSegment::Pulled(pulled)
}

fn sync(segment: &mut Segment) {
    segment.step(SegmentInput::Durable(WriteId::new(0)), &mut Vec::new());
    segment.step(SegmentInput::Durable(WriteId::new(1)), &mut Vec::new());
}

/// Two appends in flight could each fit into the log and together overfill it: `Full` doesn't
/// count what is under way.
#[test]
fn two_appends_in_flight_do_not_overfill_the_log() {
    let mut segment = segment(limits());
    give(&mut segment, append(record(5, 0)));
    give(&mut segment, append(record(6, 0)));
    sync(&mut segment);
    assert_eq!(segment.durable().records().len(), 1);
}

/// The same by gossip.
#[test]
fn gossip_in_flight_does_not_overfill_the_log() {
    let mut segment = segment(limits());
    give(&mut segment, append(record(5, 0)));
    give(&mut segment, pulled(record(6, 0)));
    sync(&mut segment);
    assert_eq!(segment.durable().records().len(), 1);
}

/// Gossip could bring a record that contradicts one under way: `Conflict` looks only at durable
/// records.
#[test]
fn gossip_that_contradicts_a_record_under_way_is_a_conflict() {
    let mut segment = segment(Limits { log_records_max: 9, ..limits() });
    give(&mut segment, append(record(5, 0)));
    let effects = give(&mut segment, pulled(record(5, 1)));
    println!("{effects:?}");
    sync(&mut segment);
    assert_eq!(segment.durable().records(), [record(5, 0)]);
}

/// Seals of ever higher epochs could pile up writes beyond the bound: only appends and gossip
/// look at it.
#[test]
fn seals_in_flight_are_bounded() {
    let mut segment = segment(limits());
    for counter in 2..100 {
        let epoch = VolumeEpoch::new(counter, InstanceId::new(1));
        give(&mut segment, ToSegment::Seal(Seal { epoch, group: G, at: None }));
    }
    // As many again as appends may have, so that appends can't keep a recovery out.
    assert!(segment.pending().len() <= 4, "{} writes under way", segment.pending().len());
}

/// A record could slip in under the SCL, which then isn't the end of the chain.
#[test]
fn a_record_inside_the_whole_chain_is_refused() {
    let mut segment = segment(Limits { log_records_max: 9, ..limits() });
    give(&mut segment, append(record(5, 0)));
    sync(&mut segment);
    give(
        &mut segment,
        append(Record { prev_volume: Lsn::new(6), prev_group: Lsn::new(5), ..record(7, 0) }),
    );
    sync(&mut segment);
    assert_eq!(segment.durable().scl().lsn(), Lsn::new(7));
    println!("{:?}", give(&mut segment, append(record(6, 0))));
    sync(&mut segment);
    assert_eq!(segment.durable().records().len(), 2);
}
