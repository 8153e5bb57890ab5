//! A segment whose log is damaged: no vote until it has again what it may have acknowledged, and a
//! vote as soon as it has.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod support;

use quorate_core::consistency::Vdl;
use quorate_core::effect::{SegmentEffect, SegmentInput, SegmentWrite};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::floor::Floor;
use quorate_core::id::{Incarnation, PageId, PgId, SegmentId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, MembershipEpoch, Step};
use quorate_core::message::{Install, Peer, Pulled, Seal, ToSegment, ToWriter};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Payload, Record};
use quorate_core::refusal::Refusal;
use quorate_core::rules::Sound;
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};
use support::{WIDE, at, epoch, geometry, vdl};

const GROUP: PgId = PgId::new(0);

const EMPTY: SegmentWrite = SegmentWrite {
    promised: VolumeEpoch::ZERO,
    history: None,
    membership: None,
    end: Lsn::ZERO,
    tip: None,
    floor: None,
    vdl: Vdl::ZERO,
    records: Vec::new(),
    base: Lsn::ZERO,
};

/// The history of the first writer: it writes from LSN 11 on.
fn first() -> History {
    History::new().with(range(0, 0, 10))
}

fn range(of: usize, after: u64, through: u64) -> TruncationRange {
    TruncationRange::new(epoch(of), Lsn::new(after), Lsn::new(through)).unwrap()
}

fn record(lsn: u64, before: u64) -> Record {
    Record {
        lsn: Lsn::new(lsn),
        epoch: epoch(0),
        prev_volume: Lsn::new(before),
        prev_group: Lsn::new(before),
        group: GROUP,
        page: PageId::new(0),
        cpl: true,
        payload: Payload::default(),
    }
}

/// Returns the membership that the writer which installs `history` adopts.
fn membership(history: &History) -> Membership {
    Membership::genesis(QuorumSet::AURORA).adopted_by(history.epoch())
}

/// Returns a segment that had acknowledged LSN 12 to the first writer, and promised `promised`, and
/// of which nothing but the record 11 is left.
fn damaged(promised: VolumeEpoch) -> Segment {
    let mut image = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
    let history = Some(first());
    let records = vec![record(11, 0)];
    let membership = Some(membership(&first()));
    let left = SegmentWrite { promised: epoch(0), history, membership, records, ..EMPTY };
    image.apply(&left).unwrap();
    let membership = image.membership().epoch();
    let floor = Some(Floor { scl: Lsn::new(12), promised, history: epoch(0), membership });
    image.apply(&SegmentWrite { floor, ..EMPTY }).unwrap();
    Segment::recover(image)
}

fn give(segment: &mut Segment, message: ToSegment) -> Vec<SegmentEffect> {
    let is_gossip = matches!(message, ToSegment::Pulled(_));
    let from = if is_gossip { Peer::Segment(at(1)) } else { Peer::Writer(epoch(0)) };
    let mut effects = Vec::new();
    segment.step(SegmentInput::Receive { from, message }, &mut effects);
    let ids: Vec<_> = segment.pending().map(|(id, _, _)| id).collect();
    ids.into_iter().for_each(|id| segment.step(SegmentInput::Durable(id), &mut effects));
    effects
}

fn pulled(history: History, end: u64, records: Vec<Record>) -> ToSegment {
    let (end, membership) = (Lsn::new(end), membership(&history));
    let (vdl, base, after) = (vdl(0), Lsn::ZERO, Lsn::ZERO);
    ToSegment::Pulled(Pulled {
        group: GROUP,
        history,
        end,
        tip: None,
        membership,
        vdl,
        base,
        after,
        records,
    })
}

/// Returns what a peer answers that has discarded what `newest` supersedes.
fn collected(newest: Record) -> ToSegment {
    let (history, records) = (first(), vec![newest]);
    let membership = membership(&history);
    let (end, vdl, base, after) = (Lsn::ZERO, vdl(newest.lsn.get()), newest.lsn, Lsn::new(11));
    ToSegment::Pulled(Pulled {
        group: GROUP,
        history,
        end,
        tip: None,
        membership,
        vdl,
        base,
        after,
        records,
    })
}

fn install(history: History, end: u64) -> ToSegment {
    let (end, membership) = (Lsn::new(end), membership(&history));
    ToSegment::Install(Install { group: GROUP, history, end, tip: None, membership })
}

/// A recovery that counted this segment could miss what rests on its acknowledgement; and what it
/// promised before the damage still binds it.
#[test]
fn a_damaged_segment_keeps_its_promise_and_has_no_vote() {
    let mut segment = damaged(epoch(1));
    let before = segment.clone();
    assert_eq!(segment.durable().promised(), epoch(1));
    let effects =
        give(&mut segment, ToSegment::Seal(Seal { epoch: epoch(2), group: GROUP, at: None }));
    let refusal = Refusal::Impaired;
    let message = ToWriter::Refused { epoch: epoch(2), ticket: None, refusal };
    assert_eq!(effects, [SegmentEffect::SendWriter { to: epoch(2), message }]);
    assert_eq!(segment, before, "it has not even heard of the epoch");
    // A peer's history of the first epoch is below the promise.
    give(&mut segment, pulled(first(), 0, vec![record(12, 11)]));
    assert_eq!(segment, before);
}

/// Gossip alone repairs the segment of an idle group, under the history that it had.
#[test]
fn gossip_of_the_same_history_brings_the_vote_back() {
    let mut segment = damaged(epoch(0));
    assert!(!segment.has_vote());
    let effects = give(&mut segment, pulled(first(), 0, vec![record(12, 11)]));
    assert!(segment.has_vote());
    let acknowledged = effects.iter().any(|effect| {
        matches!(effect, SegmentEffect::SendWriter { message: ToWriter::Ack { scl, .. }, .. }
            if scl.lsn() == Lsn::new(12))
    });
    assert!(acknowledged, "{effects:?}");
}

/// What the peers have discarded can't come back: their base takes the place of it, and the vote
/// comes back with the base, not with a part of it.
#[test]
fn a_base_repairs_what_peers_have_discarded() {
    let mut segment = damaged(epoch(0));
    give(&mut segment, collected(record(13, 12)));
    assert!(segment.has_vote());
    assert_eq!(segment.durable().base(), Lsn::new(13));
    assert_eq!(segment.durable().scl().lsn(), Lsn::new(13));
    // The peer's base is above what it has sent so far.
    let mut segment = damaged(epoch(0));
    let ToSegment::Pulled(part) = collected(record(13, 12)) else { unreachable!() };
    let batch = WIDE.batch_records_max as u64;
    let records = (0..batch).map(|at| Record { page: PageId::new(at), ..record(13 + at, 12 + at) });
    let (base, vdl) = (Lsn::new(500), vdl(500));
    give(&mut segment, ToSegment::Pulled(Pulled { base, vdl, records: records.collect(), ..part }));
    assert!(!segment.has_vote());
    assert_eq!(segment.durable().base(), Lsn::ZERO);
}

/// What a recovery annulled while the segment was away is asked for by nobody: a segment that
/// waited for it would never vote again, in an idle group.
#[test]
fn a_floor_that_a_missed_recovery_annulled_holds_nothing_up() {
    // The recovery point is the group's own record, or a later one of another group.
    for after in [11, 20] {
        let mut segment = damaged(epoch(0));
        give(&mut segment, install(first().with(range(1, after, 40)), 11));
        assert!(segment.has_vote(), "recovery point {after}");
        let mut segment = damaged(epoch(0));
        give(&mut segment, pulled(first().with(range(1, after, 40)), 11, vec![]));
        assert!(segment.has_vote(), "recovery point {after}");
    }
}

/// A recovery that kept the lost record doesn't repair the segment: the record has to come.
#[test]
fn a_newer_history_alone_does_not_repair() {
    let mut segment = damaged(epoch(0));
    let history = first().with(range(1, 12, 40));
    give(&mut segment, install(history.clone(), 12));
    assert!(!segment.has_vote());
    give(&mut segment, pulled(history, 12, vec![record(12, 11)]));
    assert!(segment.has_vote());
}

/// Damage upon damage: what was owed before is still owed, and a crash doesn't pay for it.
#[test]
fn a_second_damage_only_raises_the_floor() {
    let mut segment = damaged(epoch(0));
    let history = first().with(range(1, 12, 40));
    give(&mut segment, install(history.clone(), 12));
    let segment = Segment::recover(segment.durable().clone());
    assert!(!segment.has_vote());
    let floor = Floor::of(segment.durable());
    assert_eq!(floor.scl, Lsn::new(12));
    let mut image = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
    let write = SegmentWrite { floor: Some(floor), ..EMPTY };
    image.apply(&write).unwrap();
    let mut segment = Segment::recover(image);
    assert_eq!(segment.durable().promised(), epoch(1));
    give(&mut segment, pulled(first(), 0, vec![record(11, 0), record(12, 11)]));
    assert!(!segment.has_vote(), "an older history than it had");
    give(&mut segment, pulled(history, 12, vec![record(11, 0), record(12, 11)]));
    assert!(segment.has_vote());
}

/// A step that the segment had acknowledged, and no longer has, is one that a recovery could miss:
/// history and records alone don't bring the vote back.
#[test]
fn a_membership_that_is_lost_has_to_come_back() {
    let mut image = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
    let joins = SegmentId { position: at(6), incarnation: Incarnation::new(1) };
    let step = Step::Replace { old: at(5), new: joins };
    let next = membership(&first()).after(Sound, epoch(0), step).unwrap();
    let (promised, history) = (epoch(0), Some(first()));
    let write = SegmentWrite { promised, history, membership: Some(next), ..EMPTY };
    image.apply(&write).unwrap();
    let floor = Some(Floor::of(&image));
    let mut left = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
    left.apply(&SegmentWrite { floor, ..EMPTY }).unwrap();
    let mut segment = Segment::recover(left);
    give(&mut segment, pulled(first(), 0, vec![]));
    assert_eq!(segment.durable().history(), &first());
    assert!(!segment.has_vote(), "it doesn't know of the step");
    let (history, end) = (first(), Lsn::ZERO);
    let install = Install { group: GROUP, history, end, tip: None, membership: next };
    give(&mut segment, ToSegment::Install(install));
    assert!(segment.has_vote());
}

/// The membership of a newer recovery stands for every step before it, known or not.
#[test]
fn a_newer_recovery_stands_for_a_lost_membership() {
    let mut segment = damaged(epoch(0));
    let number = u32::MAX;
    let membership = MembershipEpoch { volume: epoch(0), number };
    let floor = Some(Floor { membership, ..segment.durable().floor().unwrap() });
    let mut image = segment.durable().clone();
    image.apply(&SegmentWrite { floor, ..EMPTY }).unwrap();
    segment = Segment::recover(image);
    give(&mut segment, pulled(first(), 0, vec![record(12, 11)]));
    assert!(!segment.has_vote());
    give(&mut segment, install(first().with(range(1, 12, 40)), 12));
    assert!(segment.has_vote());
}
