//! What a segment's log costs in the core, without any disk: a restart that replays many recoveries
//! over many records, and an append of records above all others, the usual case.
//!
//! `cargo bench -p quorate-core --bench log`.

use std::env;
use std::time::{Duration, Instant};

use quorate_core::consistency::{GarbageFloor, Vdl};
use quorate_core::effect::{SegmentEffect, SegmentInput, SegmentWrite};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{InstanceId, PageId, PgId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{Append, Install, Peer, ToSegment};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Payload, Record};
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};
use serde_json::json;

const GROUP: PgId = PgId::new(0);

/// Records are spread over this many pages.
const PAGES: u64 = 1 << 16;

fn main() {
    // Cargo says `--bench` when it measures; as a test, a few records show that it works.
    let measures = env::args().any(|argument| argument == "--bench");
    let (records, recoveries) = if measures { (100_000, 400) } else { (1_000, 4) };
    let elapsed = replay(records, recoveries);
    println!("{records} records, then {recoveries} recoveries, replayed: {elapsed:?}");
    for batch in [1, 16, 256] {
        let records = if measures { 1 << 20 } else { 1_024 };
        let elapsed = append(records, batch);
        let each = elapsed.as_nanos() / u128::from(records);
        println!("{records} records appended in batches of {batch}: {each} ns a record");
    }
}

/// Applies the writes of a segment that took `records` and slept through no recovery after them.
fn replay(records: u64, recoveries: u64) -> Duration {
    let mut writes: Vec<SegmentWrite> = vec![install(1)];
    let first = history(1).through().get() + 1;
    let lsns: Vec<u64> = (first..first + records).collect();
    writes.extend(lsns.chunks(16).map(|lsns| SegmentWrite {
        promised: epoch(1),
        records: lsns.iter().map(|lsn| record(*lsn, first)).collect(),
        ..SegmentWrite::default()
    }));
    let mut history = history(1);
    let end = Lsn::new(first + records - 1);
    for counter in 2..2 + recoveries {
        let through = Lsn::new(end.max(history.through()).get() + Limits::DEFAULT.allocation_max);
        history = history.with(range(counter, end, through));
        writes.push(SegmentWrite { history: Some(history.clone()), ..install(counter) });
    }
    let mut image = image();
    let start = Instant::now();
    for write in &writes {
        assert_eq!(image.apply(write), Ok(()));
    }
    let elapsed = start.elapsed();
    assert_eq!(image.scl().lsn(), end);
    elapsed
}

/// Gives a segment `records` in batches, each durable before the next comes.
fn append(records: u64, batch: usize) -> Duration {
    let mut segment = Segment::recover(image());
    let mut effects = Vec::new();
    let history = history(1);
    let membership = Membership::genesis(QuorumSet::AURORA).adopted_by(history.epoch());
    let install = Install { group: GROUP, history, end: Lsn::ZERO, tip: None, membership };
    give(&mut segment, ToSegment::Install(install), &mut effects);
    let first = self::history(1).through().get() + 1;
    let lsns: Vec<u64> = (first..first + records).collect();
    let message = |lsns: &[u64]| {
        let records: Vec<Record> = lsns.iter().map(|lsn| record(*lsn, first)).collect();
        let before = Lsn::new(lsns.first().map_or(0, |lsn| lsn - 1));
        let vdl = vdl(before.max(Lsn::new(first - 1)));
        let floor = GarbageFloor::ZERO;
        ToSegment::Append(Append { epoch: epoch(1), group: GROUP, vdl, floor, records })
    };
    let messages: Vec<ToSegment> = lsns.chunks(batch).map(message).collect();
    let start = Instant::now();
    for message in messages {
        give(&mut segment, message, &mut effects);
    }
    let elapsed = start.elapsed();
    assert_eq!(segment.durable().records().len() as u64, records);
    elapsed
}

fn give(segment: &mut Segment, message: ToSegment, effects: &mut Vec<SegmentEffect>) {
    let from = Peer::Writer(epoch(1));
    segment.step(SegmentInput::Receive { from, message }, effects);
    let id = effects.iter().find_map(|effect| match effect {
        SegmentEffect::Persist { id, .. } => Some(*id),
        SegmentEffect::SendReader { .. }
        | SegmentEffect::SendSegment { .. }
        | SegmentEffect::SendWriter { .. }
        | SegmentEffect::Unusable(_) => None,
    });
    effects.clear();
    if let Some(id) = id {
        segment.step(SegmentInput::Durable(id), effects);
        effects.clear();
    }
}

fn image() -> SegmentImage {
    let geometry = VolumeGeometry::new(1, QuorumSet::AURORA, Limits::DEFAULT);
    let image = geometry.ok().and_then(|geometry| SegmentImage::create(GROUP, geometry));
    image.unwrap_or_else(|| unreachable!("the default limits are usable"))
}

fn vdl(lsn: Lsn) -> Vdl {
    serde_json::from_value(json!(lsn)).unwrap_or_default()
}

const fn epoch(counter: u64) -> VolumeEpoch {
    VolumeEpoch::new(counter, InstanceId::new(1))
}

fn range(counter: u64, after: Lsn, through: Lsn) -> TruncationRange {
    TruncationRange::new(epoch(counter), after, through)
        .unwrap_or_else(|| unreachable!("the limit is above zero"))
}

fn history(counter: u64) -> History {
    let through = Lsn::new(Limits::DEFAULT.allocation_max);
    History::new().with(range(counter, Lsn::ZERO, through))
}

fn install(counter: u64) -> SegmentWrite {
    let history = Some(history(counter));
    SegmentWrite { promised: epoch(counter), history, ..SegmentWrite::default() }
}

fn record(lsn: u64, first: u64) -> Record {
    let previous = Lsn::new(if lsn == first { 0 } else { lsn - 1 });
    Record {
        lsn: Lsn::new(lsn),
        epoch: epoch(1),
        prev_volume: previous,
        prev_group: previous,
        group: GROUP,
        // Far from the last one, as pages of a busy database are.
        page: PageId::new(lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % PAGES),
        cpl: true,
        payload: Payload::default(),
    }
}
