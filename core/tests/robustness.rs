//! Nonsense: messages that no machine of this protocol would send, in any number and order, and
//! reports of writes that nobody submitted. Nothing that a peer sends may stop a machine, nor talk
//! it out of what it has promised or told.
//!
//! A failure prints the inputs, made as few as possible, and adds its seed to
//! `robustness.regressions`, which every later run replays first.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod support;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult};
use quorate_core::consistency::{GarbageFloor, Pgmrpl, ReadPoint};
use quorate_core::effect::{SegmentEffect, SegmentInput, SegmentWrite, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::hold::Holds;
use quorate_core::id::{Incarnation, InstanceId, PageId, PgId, Position, Ticket, WriteId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{
    Append, Aside, Confirm, Install, Locate, Peer, Place, Pull, Pulled, Read, Seal, SealAnswer,
    ToSegment, ToWriter,
};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Change, Payload, Record};
use quorate_core::refusal::Refusal;
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};
use quorate_core::writer::{PhaseName, Writer};
use support::{WIDE, at, epoch, geometry, restored, scl, vdl};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        // Relative to the package, where cargo runs its tests.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/robustness.regressions",
        ))),
        ..ProptestConfig::default()
    }
}

// Small numbers meet each other often; the largest ones are where arithmetic ends.

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..24u64, 1 => (u64::MAX - 3)..=u64::MAX, 1 => any::<u64>()]
}

fn any_lsn() -> impl Strategy<Value = Lsn> {
    any_number().prop_map(Lsn::new)
}

fn any_epoch() -> impl Strategy<Value = VolumeEpoch> {
    let near = (0..4u64, 0..4u64);
    let numbers = prop_oneof![4 => near, 1 => Just((u64::MAX, 1))];
    let any = numbers
        .prop_map(|(counter, instance)| VolumeEpoch::new(counter, InstanceId::new(instance)));
    prop_oneof![12 => Just(epoch(1)), 3 => Just(epoch(2)), 2 => any]
}

fn any_group() -> impl Strategy<Value = PgId> {
    prop_oneof![8 => Just(0), 2 => Just(1), 1 => Just(u32::MAX)].prop_map(PgId::new)
}

fn any_position() -> impl Strategy<Value = Position> {
    (0..8usize).prop_map(at)
}

fn any_peer() -> impl Strategy<Value = Peer> {
    prop_oneof![any_position().prop_map(Peer::Segment), any_epoch().prop_map(Peer::Writer),]
}

fn any_page() -> impl Strategy<Value = PageId> {
    any_number().prop_map(PageId::new)
}

fn any_ticket() -> impl Strategy<Value = Ticket> {
    (0..3u64).prop_map(Ticket::new)
}

/// Half of the records are such that a writer could have made them, so that some get in.
fn any_record() -> impl Strategy<Value = Record> {
    let anything = (any_lsn(), any_epoch(), any_lsn(), any_lsn(), any_group(), any_page())
        .prop_flat_map(|fields| (Just(fields), any::<bool>(), 0..3u32))
        .prop_map(|((lsn, epoch, prev_volume, prev_group, group, page), cpl, checksum)| {
            let payload = Payload { length: 1, checksum };
            Record { lsn, epoch, prev_volume, prev_group, group, page, cpl, payload }
        });
    let likely = (6..24u64, any_epoch(), 1..3u64, 0..3u64, any_page(), 0..2u32).prop_map(
        |(lsn, epoch, volume, group, page, checksum)| {
            let prev_volume = lsn.saturating_sub(volume);
            Record {
                lsn: Lsn::new(lsn),
                epoch,
                prev_volume: Lsn::new(prev_volume),
                prev_group: Lsn::new(prev_volume.saturating_sub(group)),
                group: PgId::new(0),
                page,
                cpl: checksum == 0,
                payload: Payload { length: 1, checksum },
            }
        },
    );
    prop_oneof![1 => anything, 5 => likely]
}

/// Most batches are sorted, of one epoch and one group.
fn any_records(epoch: VolumeEpoch) -> impl Strategy<Value = Vec<Record>> {
    (vec(any_record(), 0..6), 0..4u8).prop_map(move |(mut records, is_odd)| {
        if is_odd > 0 {
            for record in &mut records {
                record.epoch = epoch;
                record.group = PgId::new(0);
            }
            records.sort_unstable();
            records.dedup_by_key(|record| record.lsn);
        }
        records
    })
}

/// Half of the histories are the one in force, or one that can follow it.
fn any_history() -> impl Strategy<Value = History> {
    let next = TruncationRange::new(epoch(2), Lsn::new(10), Lsn::new(18)).unwrap();
    prop_oneof![
        3 => Just(installed()),
        1 => Just(installed().with(next)),
        4 => unlikely_history(),
    ]
}

/// The history that the segments and writers below start from: LSNs above 8 can be written.
fn installed() -> History {
    History::new().with(TruncationRange::new(epoch(1), Lsn::ZERO, Lsn::new(8)).unwrap())
}

/// Half of these rise as they should.
fn unlikely_history() -> impl Strategy<Value = History> {
    let ranges = vec((any_epoch(), any_lsn(), any_lsn()), 0..4);
    (ranges, any::<bool>()).prop_map(|(mut ranges, is_neat)| {
        if is_neat {
            ranges.sort_unstable_by_key(|(epoch, _, _)| *epoch);
            ranges.dedup_by_key(|(epoch, _, _)| *epoch);
            let mut throughs: Vec<Lsn> = ranges.iter().map(|(_, _, through)| *through).collect();
            throughs.sort_unstable();
            for (range, through) in ranges.iter_mut().zip(throughs) {
                range.2 = through;
            }
        }
        ranges
            .into_iter()
            .filter_map(|(epoch, after, through)| {
                // Now and then one that goes back.
                let tip = Lsn::new(after.get().saturating_add(1 + epoch.counter() % 3));
                let back = TruncationRange::backtrack(epoch, after, tip, through);
                back.filter(|_| through.get() % 3 == 0)
                    .or_else(|| TruncationRange::new(epoch, after, through))
            })
            .fold(History::new(), |history, range| history.with(range))
    })
}

fn any_append() -> impl Strategy<Value = Append> {
    let parts = (any_epoch(), any_group(), any_number(), any_number());
    parts.prop_flat_map(|(epoch, group, number, floors)| {
        any_records(epoch).prop_map(move |records| Append {
            epoch,
            group,
            vdl: vdl(number),
            floor: floor(floors.min(number)),
            records,
        })
    })
}

/// Returns the first membership, as the writer that installs `history` adopts it.
fn membership(history: &History) -> Membership {
    Membership::genesis(QuorumSet::AURORA).adopted_by(history.epoch())
}

fn floor(number: u64) -> GarbageFloor {
    GarbageFloor::of(Pgmrpl::of(vdl(number), []), &Holds::new())
}

fn any_pulled() -> impl Strategy<Value = Pulled> {
    let parts = (any_group(), any_history(), any_number(), any_lsn(), any_lsn());
    parts.prop_flat_map(|(group, history, number, base, after)| {
        any_records(history.epoch()).prop_map(move |records| Pulled {
            end: history.after(),
            tip: history.branch().map(|branch| branch.tip()),
            group,
            history: history.clone(),
            membership: membership(&history),
            vdl: vdl(number),
            base,
            after,
            records,
        })
    })
}

fn any_read() -> impl Strategy<Value = Read> {
    (any_epoch(), any_group(), any_ticket(), any_page(), any_number(), any_lsn()).prop_map(
        |(epoch, group, ticket, page, number, needed)| {
            let read_point = ReadPoint::at(vdl(number));
            Read { epoch, group, ticket, page, read_point, needed }
        },
    )
}

fn any_to_segment() -> impl Strategy<Value = ToSegment> {
    prop_oneof![
        4 => any_append().prop_map(ToSegment::Append),
        1 => (any_group(), any_epoch())
            .prop_map(|(group, history)| ToSegment::Behind { group, history }),
        1 => (any_epoch(), any_group(), any_ticket())
            .prop_map(|(epoch, group, ticket)| Confirm { epoch, group, ticket })
            .prop_map(ToSegment::Confirm),
        3 => (any_group(), any_history(), any_history()).prop_map(|(group, history, other)| {
            // Now and then the membership of another epoch.
            let of = if other.ranges().len() > 1 { &history } else { &other };
            let (end, membership) = (history.after(), membership(of));
            let tip = history.branch().map(|branch| branch.tip());
            ToSegment::Install(Install { group, history, end, tip, membership })
        }),
        1 => (any_group(), any_epoch(), any_number(), any_lsn(), any_lsn(), vec(any_lsn(), 0..4))
            .prop_map(|(group, history, end, base, through, beyond)| {
                ToSegment::Pull(Pull { group, history, scl: scl(end), base, through, beyond })
            }),
        4 => any_pulled().prop_map(ToSegment::Pulled),
        1 => any_read().prop_map(ToSegment::Read),
        1 => (any_epoch(), any_group(), any_ticket(), any_lsn(), any_lsn()).prop_map(
            |(epoch, group, ticket, target, needed)| {
                ToSegment::Locate(Locate { epoch, group, ticket, target, needed })
            },
        ),
        2 => (any_epoch(), any_group(), option::of(any_lsn()))
            .prop_map(|(epoch, group, at)| ToSegment::Seal(Seal { epoch, group, at })),
    ]
}

fn any_segment_input() -> impl Strategy<Value = SegmentInput> {
    prop_oneof![
        3 => (0..5u64).prop_map(|id| SegmentInput::Durable(WriteId::new(id))),
        1 => Just(SegmentInput::Collect),
        1 => any_position().prop_map(|from| SegmentInput::Pull { from }),
        6 => (any_peer(), any_to_segment())
            .prop_map(|(from, message)| SegmentInput::Receive { from, message }),
    ]
}

/// Checks one step of a segment that is given nonsense.
fn check_segment_step(segment: &mut Segment, input: SegmentInput) -> TestCaseResult {
    let promised = segment.durable().promised();
    let heard = segment.heard();
    let mut effects = Vec::new();
    segment.step(input, &mut effects);
    segment.assert_invariants();
    let durable = segment.durable();
    prop_assert!(durable.promised() >= promised, "a promise fell");
    prop_assert!(segment.heard() >= heard, "an epoch was forgotten");
    prop_assert!(durable.history().epoch() <= durable.promised());
    prop_assert_eq!(restored(durable), Ok(durable.clone()));
    for effect in effects {
        let SegmentEffect::SendWriter { to, message } = effect else { continue };
        match message {
            ToWriter::Ack { epoch, scl, .. } => {
                prop_assert_eq!(to, epoch);
                prop_assert_eq!([segment.heard(), durable.promised()], [epoch; 2]);
                prop_assert_eq!(durable.history().epoch(), epoch);
                prop_assert!(scl <= durable.scl());
            }
            ToWriter::Confirmed { epoch, .. }
            | ToWriter::Located { epoch, .. }
            | ToWriter::Read { epoch, .. } => {
                prop_assert_eq!([segment.heard(), durable.history().epoch()], [epoch; 2]);
            }
            ToWriter::Sealed { epoch, .. } => prop_assert!(durable.promised() >= epoch),
            ToWriter::Refused { .. } => {}
        }
    }
    Ok(())
}

fn small() -> VolumeGeometry {
    let limits = Limits {
        allocation_max: 8,
        batch_records_max: 4,
        // Nor does it count what is under way against its log's bound: out of reach here.
        log_records_max: 1_000,
        history_ranges_max: 3,
        pending_writes_max: 3,
    };
    geometry(2, limits)
}

proptest! {
    #![proptest_config(config())]

    /// A broken or hostile peer could stop a segment, or talk it out of a promise.
    #[test]
    fn nonsense_neither_stops_a_segment_nor_lowers_its_promise(
        inputs in vec(any_segment_input(), 1..80),
    ) {
        let mut image = SegmentImage::create(PgId::new(0), small()).unwrap();
        let (promised, history) = (epoch(1), Some(installed()));
        let membership = Some(membership(&installed()));
        let write = SegmentWrite { promised, history, membership, ..SegmentWrite::default() };
        image.apply(&write).unwrap();
        let mut segment = Segment::recover(image);
        for input in inputs {
            check_segment_step(&mut segment, input)?;
        }
    }
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any_lsn().prop_map(|lsn| Refusal::Annulled { lsn }),
        any_epoch().prop_map(|history| Refusal::Behind { history }),
        (any_lsn(), any_lsn()).prop_map(|(lsn, limit)| Refusal::BeyondLimit { lsn, limit }),
        any_lsn().prop_map(|lsn| Refusal::Conflict { lsn }),
        any_epoch().prop_map(|promised| Refusal::Fenced { promised }),
        any_epoch().prop_map(|heard| Refusal::EpochAhead { heard }),
        Just(Refusal::Full),
        Just(Refusal::HistoryFull),
        Just(Refusal::Impaired),
        any_number().prop_map(|end| Refusal::Incomplete { scl: scl(end) }),
        Just(Refusal::Malformed),
        Just(Refusal::Oversized),
        Just(Refusal::Overloaded),
        Just(Refusal::WrongGroup),
    ]
}

fn any_seal_answer(known: VolumeGeometry) -> impl Strategy<Value = SealAnswer> {
    let foreign = geometry(1, WIDE);
    let shape = prop_oneof![9 => Just(known), 1 => Just(foreign)];
    let anchor = option::of((any_lsn(), any_lsn()));
    (shape, any_history(), any_number(), any_number(), anchor).prop_flat_map(
        |(geometry, history, end, number, anchor)| {
            any_records(history.epoch()).prop_map(move |records| SealAnswer {
                geometry,
                history: history.clone(),
                incarnation: Incarnation::new(0),
                membership: membership(&history),
                scl: scl(end),
                vdl: vdl(number),
                aside: (number % 2 == 0).then(|| Aside {
                    scl: scl(number),
                    vdl: vdl(end),
                    records: records.clone(),
                }),
                records,
                anchor,
            })
        },
    )
}

fn any_to_writer(own: VolumeEpoch) -> impl Strategy<Value = ToWriter> {
    let epoch = || prop_oneof![7 => Just(own), 1 => any_epoch()];
    prop_oneof![
        6 => (epoch(), any_number())
            .prop_map(|(epoch, end)| {
                let incarnation = Incarnation::new(0);
                ToWriter::Ack { epoch, incarnation, number: 0, scl: scl(end) }
            }),
        2 => (epoch(), any_ticket())
            .prop_map(|(epoch, ticket)| {
                ToWriter::Confirmed { epoch, incarnation: Incarnation::new(0), ticket }
            }),
        2 => (epoch(), any_ticket(), any_lsn(), any_lsn(), option::of(any_lsn())).prop_map(
            |(epoch, ticket, end, cpl, tip)| {
                let incarnation = Incarnation::new(0);
                ToWriter::Located { epoch, incarnation, ticket, place: Place { end, cpl, tip } }
            },
        ),
        1 => (epoch(), any_ticket(), any_page(), any_number(), option::of(any_record()))
            .prop_map(|(epoch, ticket, page, number, version)| {
                let read_point = ReadPoint::at(vdl(number));
                ToWriter::Read { epoch, ticket, page, read_point, version }
            }),
        1 => (epoch(), option::of(any_ticket()), any_refusal())
            .prop_map(|(epoch, ticket, refusal)| ToWriter::Refused { epoch, ticket, refusal }),
        6 => (epoch(), any_seal_answer(small()))
            .prop_map(|(epoch, answer)| ToWriter::Sealed { epoch, answer }),
    ]
}

fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    let any_change = (any_page(), any::<u32>())
        .prop_map(|(page, checksum)| Change { page, payload: Payload { length: 0, checksum } });
    vec(any_change, 0..10)
}

fn any_writer_input(own: VolumeEpoch) -> impl Strategy<Value = WriterInput> {
    let read_point = option::of(any_number().prop_map(|n| ReadPoint::at(vdl(n))));
    prop_oneof![
        1 => any_ticket().prop_map(|ticket| WriterInput::Confirm { ticket }),
        1 => (any_ticket(), any_lsn())
            .prop_map(|(ticket, target)| WriterInput::Locate { ticket, target }),
        1 => Just(WriterInput::Publish),
        1 => (any_ticket(), any_page(), read_point, any_position()).prop_map(
            |(ticket, page, read_point, from)| WriterInput::Read { ticket, page, read_point, from },
        ),
        20 => (any_group(), any_position(), any_to_writer(own))
            .prop_map(|(group, from, message)| WriterInput::Receive { group, from, message }),
        1 => (any_group(), any_position())
            .prop_map(|(group, to)| WriterInput::Resend { group, to }),
        3 => any_changes().prop_map(|changes| WriterInput::Write { changes }),
    ]
}

/// Checks one step of a writer that is given nonsense.
fn check_writer_step(writer: &mut Writer, input: WriterInput) -> TestCaseResult {
    let before = (writer.phase(), writer.vdl(), writer.vcl());
    writer.step(input, &mut Vec::new());
    let phase = writer.phase();
    let is_legal = match before.0 {
        PhaseName::Fenced => phase == PhaseName::Fenced,
        PhaseName::Installing => phase != PhaseName::Sealing,
        PhaseName::Open => matches!(phase, PhaseName::Open | PhaseName::Fenced),
        PhaseName::Sealing => phase != PhaseName::Open,
    };
    prop_assert!(is_legal, "from {:?} to {:?}", before.0, phase);
    if let (Some(vdl), Some(vcl), Some(tail)) = (writer.vdl(), writer.vcl(), writer.tail()) {
        prop_assert!(vdl.lsn() <= vcl.lsn());
        prop_assert!(vcl.lsn() <= tail);
        prop_assert!(before.1.is_none_or(|before| before <= vdl));
        prop_assert!(before.2.is_none_or(|before| before <= vcl));
        let allowance = writer.allowance();
        prop_assert!(
            allowance <= Some(writer.geometry().limits().allocation_max) || vdl.lsn() > tail
        );
    }
    if let Some(by) = writer.overtaken_by() {
        prop_assert!(by > writer.epoch());
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    /// A broken or hostile peer could stop a writer, or make it take back what it has told.
    #[test]
    fn nonsense_neither_stops_a_writer_nor_takes_its_vdl_back(
        inputs in vec(any_writer_input(epoch(1)), 1..120),
    ) {
        let mut writer = Writer::open(epoch(1), small(), &mut Vec::new());
        for input in inputs {
            check_writer_step(&mut writer, input)?;
        }
    }
}
