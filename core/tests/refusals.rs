//! Bad input gets a refusal or a typed error, never a panic: every variant of every kind of no is
//! brought about through the public interface. A new variant fails to compile here, or the test
//! that walks them.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use quorate_core::consistency::{GarbageFloor, Pgmrpl, ReadPoint, Scl};
use quorate_core::effect::{
    CommandRefusal, Report, SegmentEffect, SegmentInput, SegmentWrite, WriterEffect, WriterInput,
};
use quorate_core::epoch::{EPOCH_STEP_MAX, VolumeEpoch};
use quorate_core::floor::Floor;
use quorate_core::formula::Half;
use quorate_core::geometry::{GROUPS_MAX, GeometryError, Limits, VolumeGeometry};
use quorate_core::hold::Holds;
use quorate_core::id::{
    Incarnation, InstanceId, PageId, PgId, Position, SegmentId, Ticket, WriteId,
};
use quorate_core::image::{CorruptImage, SegmentImage};
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, Step, StepRefusal};
use quorate_core::message::{
    Append, Confirm, Install, Locate, Peer, Pull, Pulled, Read, Seal, SealAnswer, ToSegment,
    ToWriter,
};
use quorate_core::quorum::{QuorumError, QuorumSet};
use quorate_core::record::{Payload, Record};
use quorate_core::refusal::Refusal;
use quorate_core::rules::Sound;
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};
use quorate_core::writer::{PhaseName, Writer};
use support::{Cluster, WIDE, at, change, epoch, geometry, refused_command, scl, vdl};

/// Bounds small enough to run into.
const TIGHT: Limits = Limits {
    allocation_max: 4,
    batch_records_max: 2,
    log_records_max: 3,
    history_ranges_max: 2,
    pending_writes_max: 2,
};

const GROUP: PgId = PgId::new(0);
const OTHER: PgId = PgId::new(1);

/// Returns the history that epoch number `index` installs: `(0, 10 * (index + 1)]`.
fn history(index: usize) -> History {
    (0..=index).fold(History::new(), |history, index| {
        let through = Lsn::new(10 * (index as u64 + 1));
        history.with(TruncationRange::new(epoch(index), Lsn::ZERO, through).unwrap())
    })
}

/// Returns the first membership, as the writer that installs `history` adopts it.
fn membership(history: &History) -> Membership {
    Membership::genesis(QuorumSet::AURORA).adopted_by(history.epoch())
}

fn of(history: Option<&History>) -> Option<Membership> {
    history.map(membership)
}

fn ack(epoch: VolumeEpoch, scl: Scl) -> ToWriter {
    ToWriter::Ack { epoch, incarnation: Incarnation::new(0), number: 0, scl }
}

/// Returns a segment of the first group that has installed the history of epoch number 0.
fn segment() -> Segment {
    let mut image = SegmentImage::create(GROUP, geometry(2, TIGHT)).unwrap();
    let (promised, history) = (epoch(0), Some(history(0)));
    let membership = of(history.as_ref());
    let write = SegmentWrite { promised, history, membership, ..SegmentWrite::default() };
    image.apply(&write).unwrap();
    Segment::recover(image)
}

fn lsn(lsn: u64) -> Lsn {
    Lsn::new(lsn)
}

fn pull(group: PgId, history: VolumeEpoch) -> Pull {
    let (base, through, beyond) = (lsn(0), lsn(0), vec![]);
    Pull { group, history, scl: scl(0), base, through, beyond }
}

/// Returns a segment that has discarded what newer versions supersede, up to LSN 12.
fn collected() -> Segment {
    let mut segment = segment();
    give_durably(&mut segment, append(&[11, 12]));
    let (epoch, vdl) = (epoch(0), vdl(12));
    let floor = GarbageFloor::of(Pgmrpl::of(vdl, []), &Holds::new());
    let told = Append { epoch, group: GROUP, vdl, floor, records: vec![] };
    give_durably(&mut segment, ToSegment::Append(told));
    step_durably(&mut segment, SegmentInput::Collect);
    assert_eq!(segment.durable().base(), lsn(12));
    assert_eq!(segment.durable().records(), [record(12)]);
    assert_eq!(segment.durable().scl(), scl(12));
    segment
}

fn give_durably(segment: &mut Segment, message: ToSegment) {
    let from = Peer::Writer(epoch(0));
    step_durably(segment, SegmentInput::Receive { from, message });
}

fn step_durably(segment: &mut Segment, input: SegmentInput) {
    let mut effects = Vec::new();
    segment.step(input, &mut effects);
    for effect in effects {
        if let SegmentEffect::Persist { id, .. } = effect {
            segment.step(SegmentInput::Durable(id), &mut Vec::new());
        }
    }
}

/// Returns a record of epoch number 0 that a segment with that history takes: the first such LSN
/// is 11, and the group's chain has no hole.
fn record(lsn: u64) -> Record {
    let previous = Lsn::new(if lsn > 11 { lsn - 1 } else { 0 });
    Record {
        lsn: Lsn::new(lsn),
        epoch: epoch(0),
        prev_volume: previous,
        prev_group: previous,
        group: GROUP,
        page: PageId::new(0),
        cpl: true,
        payload: Payload::default(),
    }
}

fn append_of(records: Vec<Record>) -> ToSegment {
    let floor = GarbageFloor::ZERO;
    ToSegment::Append(Append { epoch: epoch(0), group: GROUP, vdl: vdl(0), floor, records })
}

fn append(lsns: &[u64]) -> ToSegment {
    append_of(lsns.iter().copied().map(record).collect())
}

fn install(history: History) -> Install {
    Install { group: GROUP, membership: membership(&history), history, end: Lsn::ZERO, tip: None }
}

fn pulled_of(group: PgId, history: History, records: Vec<Record>) -> Pulled {
    let membership = membership(&history);
    let (end, base, after) = (lsn(0), lsn(0), lsn(0));
    Pulled { group, history, end, tip: None, membership, vdl: vdl(0), base, after, records }
}

fn pulled(history: History, records: Vec<Record>) -> ToSegment {
    ToSegment::Pulled(pulled_of(GROUP, history, records))
}

fn read(needed: u64) -> ToSegment {
    ToSegment::Read(Read {
        epoch: epoch(0),
        group: GROUP,
        ticket: Ticket::new(7),
        page: PageId::new(0),
        read_point: ReadPoint::at(vdl(needed)),
        needed: Lsn::new(needed),
    })
}

fn give(segment: &mut Segment, message: ToSegment) -> Vec<SegmentEffect> {
    let from = match &message {
        ToSegment::Behind { .. } | ToSegment::Pull(_) | ToSegment::Pulled(_) => {
            Peer::Segment(at(1))
        }
        ToSegment::Append(_)
        | ToSegment::Confirm(_)
        | ToSegment::Install(_)
        | ToSegment::Locate(_)
        | ToSegment::Read(_)
        | ToSegment::Seal(_) => Peer::Writer(epoch(0)),
    };
    let mut effects = Vec::new();
    segment.step(SegmentInput::Receive { from, message }, &mut effects);
    effects
}

/// Gives a segment a message that it takes, and makes what follows durable.
fn accept(segment: &mut Segment, message: ToSegment) {
    assert_eq!(refusal_of(&give(segment, message)), None);
    let under_way: Vec<WriteId> = segment.pending().map(|(id, _, _)| id).collect();
    for id in under_way {
        segment.step(SegmentInput::Durable(id), &mut Vec::new());
    }
}

fn refusal_of(effects: &[SegmentEffect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        SegmentEffect::SendWriter { message: ToWriter::Refused { refusal, .. }, .. }
        | SegmentEffect::Unusable(refusal) => Some(*refusal),
        SegmentEffect::Persist { .. }
        | SegmentEffect::SendReader { .. }
        | SegmentEffect::SendSegment { .. }
        | SegmentEffect::SendWriter { .. } => None,
    })
}

/// Gives a segment a message that it refuses; checks that this is all that happens.
fn refused(mut segment: Segment, message: ToSegment) -> Refusal {
    let before = segment.clone();
    let effects = give(&mut segment, message);
    assert_eq!(segment, before, "a refusal changes nothing");
    assert_eq!(effects.len(), 1, "a refusal is the only effect: {effects:?}");
    refusal_of(&effects).unwrap()
}

/// Returns a segment that has promised epoch number 1 and not yet installed its history.
fn sealed() -> Segment {
    let mut segment = segment();
    accept(&mut segment, ToSegment::Seal(Seal { epoch: epoch(1), group: GROUP, at: None }));
    segment
}

fn holding(lsns: &[u64]) -> Segment {
    let mut segment = segment();
    lsns.iter().for_each(|lsn| accept(&mut segment, append(&[*lsn])));
    segment
}

/// Returns a segment with as many writes under way as there may be.
fn busy() -> Segment {
    let mut segment = segment();
    give(&mut segment, append(&[11]));
    give(&mut segment, append(&[12]));
    segment
}

fn locate(target: u64) -> ToSegment {
    let (epoch, ticket, target) = (epoch(0), Ticket::new(1), lsn(target));
    ToSegment::Locate(Locate { epoch, group: GROUP, ticket, target, needed: lsn(11) })
}

/// Returns the history of a recovery that goes back from LSN 12 to LSN 11.
fn gone_back() -> History {
    let range = TruncationRange::backtrack(epoch(1), lsn(11), lsn(12), lsn(30));
    history(0).with(range.unwrap())
}

/// Brings the refusal with this name about, in every way that there is.
fn provoke(name: &str) -> Vec<Refusal> {
    let other = Record { payload: Payload { length: 9, checksum: 9 }, ..record(11) };
    let foreign = Record { group: OTHER, ..record(11) };
    let seal = |epoch, group| ToSegment::Seal(Seal { epoch, group, at: None });
    match name {
        "Annulled" => vec![refused(segment(), append(&[10]))],
        "Collected" => vec![
            refused(collected(), {
                let (epoch, ticket, page) = (epoch(0), Ticket::new(1), PageId::new(0));
                let (read_point, needed) = (ReadPoint::at(vdl(11)), lsn(11));
                ToSegment::Read(Read { epoch, group: GROUP, ticket, page, read_point, needed })
            }),
            refused(collected(), locate(11)),
            // A recovery that goes back to what is discarded, from its writer or from a peer.
            refused(collected(), ToSegment::Install(install(gone_back()))),
            refused(collected(), pulled(gone_back(), vec![])),
        ],
        "Behind" => vec![
            refused(sealed(), {
                ToSegment::Append(Append {
                    epoch: epoch(1),
                    group: GROUP,
                    vdl: vdl(0),
                    floor: GarbageFloor::ZERO,
                    records: vec![],
                })
            }),
            // Its own promise, or even another one's: without the history it serves nobody.
            refused(segment(), {
                let (epoch, ticket) = (epoch(1), Ticket::new(1));
                ToSegment::Confirm(Confirm { epoch, group: GROUP, ticket })
            }),
            refused(segment(), ToSegment::Behind { group: GROUP, history: VolumeEpoch::ZERO }),
        ],
        "BeyondLimit" => vec![
            refused(segment(), append(&[15])),
            refused(segment(), pulled(history(0), vec![record(15)])),
        ],
        "Conflict" => vec![
            refused(holding(&[11]), append_of(vec![other])),
            refused(holding(&[11]), pulled(history(0), vec![other])),
            // On its way to the disk is as good as there.
            refused(busy(), append_of(vec![other])),
        ],
        "EpochAhead" => {
            let far = |step| VolumeEpoch::new(epoch(0).counter() + step, InstanceId::new(9));
            let end = TruncationRange::new(far(EPOCH_STEP_MAX + 1), Lsn::ZERO, Lsn::new(20));
            let far_history = history(0).with(end.unwrap());
            // As far as they may go, epochs are taken.
            accept(&mut segment(), seal(far(EPOCH_STEP_MAX), GROUP));
            vec![
                refused(segment(), seal(far(EPOCH_STEP_MAX + 1), GROUP)),
                refused(segment(), seal(VolumeEpoch::new(u64::MAX, InstanceId::new(0)), GROUP)),
                refused(segment(), ToSegment::Install(install(far_history.clone()))),
                refused(segment(), pulled(far_history, vec![])),
            ]
        }
        "Fenced" => vec![
            refused(sealed(), append(&[11])),
            refused(sealed(), read(0)),
            refused(sealed(), seal(epoch(0), GROUP)),
            refused(sealed(), ToSegment::Install(install(history(0)))),
            refused(sealed(), pulled(history(0), vec![record(11)])),
        ],
        "Full" => vec![
            refused(holding(&[11, 12, 13]), append(&[14])),
            refused(holding(&[11, 12, 13]), pulled(history(0), vec![record(14)])),
        ],
        "HistoryFull" => {
            let install = ToSegment::Install(install(history(1)));
            let mut full = segment();
            accept(&mut full, install.clone());
            // A history on its way to the disk is as good as there.
            let mut filling = segment();
            give(&mut filling, install);
            vec![refused(full, seal(epoch(2), GROUP)), refused(filling, seal(epoch(2), GROUP))]
        }
        "Impaired" => {
            let mut image = holding(&[11]).durable().clone();
            let floor = Some(Floor { scl: Lsn::new(12), ..Floor::of(&image) });
            image.apply(&SegmentWrite { floor, ..SegmentWrite::default() }).unwrap();
            let damaged = Segment::recover(image);
            let confirm = Confirm { epoch: epoch(0), group: GROUP, ticket: Ticket::new(1) };
            vec![
                refused(damaged.clone(), seal(epoch(1), GROUP)),
                refused(damaged, ToSegment::Confirm(confirm)),
            ]
        }
        "Incomplete" => vec![
            refused(segment(), read(11)),
            // It holds the record, and not the one before.
            refused(holding(&[11, 13]), read(13)),
        ],
        "Malformed" => {
            let backwards = vec![record(12), record(11)];
            let circular = Record { prev_volume: Lsn::new(11), ..record(11) };
            let of_another_epoch = Record { epoch: epoch(1), ..record(11) };
            let end = |through| TruncationRange::new(epoch(1), Lsn::ZERO, Lsn::new(through));
            let falling = history(0).with(end(5).unwrap());
            vec![
                refused(segment(), append_of(backwards.clone())),
                refused(segment(), append(&[11, 11])),
                refused(segment(), append_of(vec![circular])),
                refused(segment(), append_of(vec![of_another_epoch])),
                refused(segment(), pulled(history(0), backwards)),
                refused(segment(), pulled(history(0), vec![of_another_epoch])),
                refused(segment(), pulled(falling.clone(), vec![])),
                refused(segment(), ToSegment::Install(install(falling))),
                refused(segment(), ToSegment::Install(install(History::new()))),
            ]
        }
        "Oversized" => vec![
            refused(segment(), append(&[11, 12, 13])),
            refused(segment(), pulled(history(0), vec![record(11), record(12), record(13)])),
            refused(segment(), ToSegment::Install(install(history(2)))),
            refused(segment(), pulled(history(2), vec![])),
            refused(segment(), {
                let beyond = [11, 12, 13].map(Lsn::new).to_vec();
                let (history, scl, base, through) = (epoch(0), scl(0), lsn(0), lsn(0));
                ToSegment::Pull(Pull { group: GROUP, history, scl, base, through, beyond })
            }),
        ],
        "Overloaded" => vec![
            refused(busy(), append(&[13])),
            refused(busy(), pulled(history(0), vec![record(13)])),
        ],
        "WrongGroup" => vec![
            refused(segment(), {
                let (epoch, vdl) = (epoch(0), vdl(0));
                let floor = GarbageFloor::ZERO;
                ToSegment::Append(Append { epoch, group: OTHER, vdl, floor, records: vec![] })
            }),
            refused(segment(), append_of(vec![foreign])),
            refused(segment(), seal(epoch(1), OTHER)),
            refused(segment(), ToSegment::Install(Install { group: OTHER, ..install(history(1)) })),
            refused(segment(), {
                let (epoch, ticket) = (epoch(0), Ticket::new(1));
                ToSegment::Confirm(Confirm { epoch, group: OTHER, ticket })
            }),
            refused(segment(), {
                let ToSegment::Read(read) = read(0) else { unreachable!() };
                ToSegment::Read(Read { group: OTHER, ..read })
            }),
            refused(segment(), ToSegment::Pulled(pulled_of(OTHER, history(0), vec![]))),
            refused(segment(), pulled(history(0), vec![foreign])),
        ],
        unknown => panic!("nothing here brings {unknown} about"),
    }
}

/// Checks that a refusal carries what whoever gets it needs to act.
fn check_contents(refusal: Refusal) {
    match refusal {
        Refusal::Annulled { lsn } => assert_eq!(lsn, Lsn::new(10)),
        Refusal::Behind { history } => {
            assert!(history == epoch(0) || history == VolumeEpoch::ZERO);
        }
        Refusal::BeyondLimit { lsn, limit } => {
            assert_eq!((lsn, limit), (Lsn::new(15), Lsn::new(14)));
        }
        Refusal::Collected { base } => assert_eq!(base, Lsn::new(12)),
        Refusal::Conflict { lsn } => assert_eq!(lsn, Lsn::new(11)),
        Refusal::EpochAhead { heard } => assert_eq!(heard, epoch(0)),
        Refusal::Fenced { promised } => assert_eq!(promised, epoch(1)),
        Refusal::Incomplete { scl: held } => assert!(held == scl(0) || held == scl(11)),
        Refusal::Full
        | Refusal::HistoryFull
        | Refusal::Impaired
        | Refusal::Malformed
        | Refusal::Oversized
        | Refusal::Overloaded
        | Refusal::WrongGroup => {}
    }
}

/// A refusal that nothing can bring about is dead, and one that nobody has seen may be a panic.
#[test]
fn every_refusal_can_be_brought_about() {
    for name in Refusal::NAMES {
        let provoked = provoke(name);
        assert!(!provoked.is_empty());
        for (number, refusal) in provoked.into_iter().enumerate() {
            assert_eq!(refusal.name(), name, "way {number} of {name}");
            check_contents(refusal);
        }
    }
}

/// A writer that isn't told of which request a segment speaks can't act on its no.
#[test]
fn a_refusal_names_the_request() {
    for (message, ticket) in [(append(&[11]), None), (read(0), Some(Ticket::new(7)))] {
        let effects = give(&mut sealed(), message);
        let refusal = Refusal::Fenced { promised: epoch(1) };
        let message = ToWriter::Refused { epoch: epoch(0), ticket, refusal };
        assert_eq!(effects, [SegmentEffect::SendWriter { to: epoch(0), message }]);
    }
}

/// What can't be answered must be dropped: a pull of another group, or one that a writer sends.
#[test]
fn a_pull_that_nobody_can_have_sent_is_dropped() {
    let pull = |group| ToSegment::Pull(pull(group, epoch(0)));
    let mut segment = segment();
    let before = segment.clone();
    assert_eq!(give(&mut segment, pull(OTHER)), []);
    let from = Peer::Writer(epoch(0));
    let mut effects = Vec::new();
    segment.step(SegmentInput::Receive { from, message: pull(GROUP) }, &mut effects);
    segment.step(SegmentInput::Durable(WriteId::new(77)), &mut effects);
    assert_eq!((segment, effects), (before, vec![]));
}

/// A segment whose history is older would annul nothing of what it sends: it says so instead.
#[test]
fn a_pull_from_a_segment_that_is_behind_is_answered_with_behind() {
    let pull = pull(GROUP, epoch(1));
    let effects = give(&mut segment(), ToSegment::Pull(pull));
    let message = ToSegment::Behind { group: GROUP, history: epoch(0) };
    assert_eq!(effects, [SegmentEffect::SendSegment { to: at(1), message }]);
}

// Commands.

fn command(writer: &mut Writer, input: WriterInput) -> Option<CommandRefusal> {
    let mut effects = Vec::new();
    writer.step(input, &mut effects);
    effects.into_iter().find_map(|effect| match effect {
        WriterEffect::Report(Report::Refused(refusal)) => Some(refusal),
        WriterEffect::Report(_) | WriterEffect::Send { .. } | WriterEffect::SendReader { .. } => {
            None
        }
    })
}

fn write(count: u64) -> WriterInput {
    WriterInput::Write { changes: (0..count).map(|page| change(page, 0)).collect() }
}

fn read_command(read_point: Option<ReadPoint>, from: Position) -> WriterInput {
    WriterInput::Read { ticket: Ticket::new(1), page: PageId::new(0), read_point, from }
}

fn open_writer(limits: Limits) -> Writer {
    Cluster::opened(geometry(1, limits)).writers[0].clone()
}

fn overtaken_writer() -> Writer {
    let mut writer = open_writer(TIGHT);
    let refusal = Refusal::Fenced { promised: epoch(1) };
    let message = ToWriter::Refused { epoch: epoch(0), ticket: None, refusal };
    writer.step(WriterInput::Receive { group: GROUP, from: at(0), message }, &mut Vec::new());
    assert_eq!(writer.phase(), PhaseName::Fenced);
    writer
}

/// Every command; each needs an open writer.
fn commands() -> [WriterInput; 4] {
    let ticket = Ticket::new(1);
    [WriterInput::Confirm { ticket }, WriterInput::Publish, read_command(None, at(0)), write(1)]
}

/// Returns a writer whose volume has so few LSNs that none is left.
fn exhausted() -> Limits {
    Limits { allocation_max: u64::MAX - 1, ..TIGHT }
}

/// Brings `wanted` about, in every way that there is.
fn provoke_command(wanted: CommandRefusal) -> Vec<Option<CommandRefusal>> {
    match wanted {
        CommandRefusal::BeyondVolume { page } => {
            let bounded = geometry(1, TIGHT).with_group_pages(4).unwrap();
            let mut writer = Cluster::opened(bounded).writers[0].clone();
            let changes = vec![change(0, 1), change(page.get(), 2)];
            let read =
                WriterInput::Read { ticket: Ticket::new(1), page, read_point: None, from: at(0) };
            vec![command(&mut writer, WriterInput::Write { changes }), command(&mut writer, read)]
        }
        CommandRefusal::Collected { .. } => {
            let mut cluster = written_cluster();
            let hold = WriterInput::Hold { holds: Holds::new() };
            assert_eq!(command(&mut cluster.writers[0], hold), None);
            vec![command(&mut cluster.writers[0], locate_command(lsn(0)))]
        }
        CommandRefusal::Empty => vec![command(&mut open_writer(TIGHT), write(0))],
        CommandRefusal::Fenced { .. } => {
            commands().map(|input| command(&mut overtaken_writer(), input)).to_vec()
        }
        CommandRefusal::HistoryFull => {
            // No segment that obeys its bound answers so.
            let mut sealing = Writer::open(epoch(2), geometry(1, TIGHT), &mut Vec::new());
            let history = history(1);
            let answer = SealAnswer {
                geometry: geometry(1, TIGHT),
                incarnation: Incarnation::new(0),
                membership: membership(&history),
                history,
                scl: scl(0),
                vdl: vdl(0),
                records: vec![],
                anchor: None,
                aside: None,
            };
            let message = ToWriter::Sealed { epoch: epoch(2), answer };
            let receive =
                |from| WriterInput::Receive { group: GROUP, from, message: message.clone() };
            let given = [0, 1, 2].map(|index| command(&mut sealing, receive(at(index))));
            assert_eq!((given[0], given[1]), (None, None));
            vec![given[2]]
        }
        CommandRefusal::NotConsistent { .. } => {
            let mut cluster = written_cluster();
            cluster.command(0, locate_command(lsn(5))).unwrap();
            cluster.settle().unwrap();
            vec![cluster.reports().into_iter().find_map(refused_command)]
        }
        CommandRefusal::Superseded => {
            let mut cluster = written_cluster();
            cluster.command(0, locate_command(lsn(0))).unwrap();
            cluster.settle().unwrap();
            let located = cluster.reports().into_iter().find_map(|(_, report)| {
                if let Report::Located { backtrack, .. } = report { Some(backtrack) } else { None }
            });
            // Another writer opens in between.
            cluster.recover().unwrap();
            cluster.settle().unwrap();
            let (geometry, mut effects) = (geometry(1, TIGHT), Vec::new());
            let located = located.unwrap();
            let mut late = Writer::open_at(Sound, epoch(9), geometry, &[], located, &mut effects);
            let given = [0, 1, 2].map(|index| {
                let answer = cluster.nodes[index].machine.report();
                let message = ToWriter::Sealed { epoch: epoch(9), answer };
                let from = at(index);
                command(&mut late, WriterInput::Receive { group: GROUP, from, message })
            });
            assert_eq!((given[0], given[1]), (None, None));
            vec![given[2]]
        }
        CommandRefusal::TargetAhead => {
            vec![command(&mut open_writer(TIGHT), locate_command(lsn(99)))]
        }
        CommandRefusal::NotOpen => {
            let mut sealing = Writer::open(epoch(0), geometry(1, TIGHT), &mut Vec::new());
            assert_eq!(sealing.phase(), PhaseName::Sealing);
            let mut installing = installing_writer();
            assert_eq!(installing.phase(), PhaseName::Installing);
            let of_sealing = commands().map(|input| command(&mut sealing, input));
            let of_installing = commands().map(|input| command(&mut installing, input));
            [of_sealing, of_installing].concat()
        }
        CommandRefusal::OutOfLsns => {
            // The second recovery finds no LSN above what the first one used up.
            let mut cluster = Cluster::opened(geometry(1, exhausted()));
            let written = command(&mut cluster.writers[0], write(1));
            cluster.recover().unwrap();
            cluster.settle().unwrap();
            assert_eq!(cluster.writers[1].phase(), PhaseName::Sealing);
            let recovered = cluster.reports().into_iter().find_map(refused_command);
            vec![written, recovered]
        }
        CommandRefusal::Oversized => vec![command(&mut open_writer(TIGHT), write(5))],
        CommandRefusal::ReadPointAhead => {
            let mut cluster = Cluster::opened(geometry(1, TIGHT));
            cluster.write(0, &[0]).unwrap();
            cluster.settle().unwrap();
            let input = read_command(cluster.writers[0].read_point(), at(0));
            assert_eq!(command(&mut cluster.writers[0], input.clone()), None);
            vec![command(&mut open_writer(TIGHT), input)]
        }
        CommandRefusal::Step(refusal) => provoke_step(refusal),
        CommandRefusal::Throttled => {
            let mut writer = open_writer(TIGHT);
            assert_eq!(command(&mut writer, write(3)), None);
            vec![command(&mut writer, write(2))]
        }
        CommandRefusal::UnknownSegment => {
            let mut writer = open_writer(TIGHT);
            let resend = |group, to| WriterInput::Resend { group, to };
            vec![
                command(&mut writer, read_command(None, at(6))),
                command(&mut writer, resend(GROUP, at(6))),
                command(&mut writer, resend(OTHER, at(0))),
            ]
        }
    }
}

/// Brings the refusal of a step about that a writer can give when it has just opened; the others
/// are brought about where memberships are tested.
fn provoke_step(wanted: StepRefusal) -> Vec<Option<CommandRefusal>> {
    let mut writer = open_writer(TIGHT);
    let step = |group, step| WriterInput::Step { group, step };
    let joins = SegmentId { position: at(6), incarnation: Incarnation::new(1) };
    let replace = |old| step(GROUP, Step::Replace { old: at(old), new: joins });
    match wanted {
        StepRefusal::Nothing => vec![
            command(&mut writer, step(GROUP, Step::Finish(Half::Older))),
            command(&mut writer, step(GROUP, Step::Revert(Half::Older))),
            command(&mut writer, step(OTHER, Step::Finish(Half::Older))),
            command(&mut writer, step(OTHER, Step::Grow)),
            command(&mut writer, step(GROUP, Step::Grow)),
            command(&mut writer, replace(7)),
        ],
        StepRefusal::Unsettled => {
            assert_eq!(command(&mut writer, replace(5)), None);
            vec![command(&mut writer, replace(4))]
        }
        StepRefusal::Burnt | StepRefusal::NotHydrated | StepRefusal::Quorums => vec![],
    }
}

fn locate_command(target: Lsn) -> WriterInput {
    WriterInput::Locate { ticket: Ticket::new(1), target }
}

/// Returns a cluster in which a mini-transaction of two records is durable.
fn written_cluster() -> Cluster<Sound> {
    let mut cluster = Cluster::opened(geometry(1, TIGHT));
    cluster.write(0, &[0, 1]).unwrap();
    cluster.settle().unwrap();
    cluster.reports();
    cluster
}

fn installing_writer() -> Writer {
    let mut cluster = Cluster::new(geometry(1, TIGHT));
    cluster.recover().unwrap();
    let mut sent = 0;
    while cluster.writers[0].phase() == PhaseName::Sealing && sent < 100 {
        (0..6).for_each(|node| cluster.sync(node, 0).unwrap());
        if let Some(envelope) = cluster.flight.pop_front() {
            cluster.deliver(envelope).unwrap();
        }
        sent += 1;
    }
    cluster.writers[0].clone()
}

/// A command that can't be carried out must be answered, and in one way.
#[test]
fn every_command_refusal_can_be_brought_about() {
    let all = [
        CommandRefusal::BeyondVolume { page: PageId::new(4) },
        CommandRefusal::Collected { floor: lsn(6) },
        CommandRefusal::Empty,
        CommandRefusal::Fenced { by: epoch(1) },
        CommandRefusal::HistoryFull,
        CommandRefusal::NotConsistent { nearest: lsn(0) },
        CommandRefusal::NotOpen,
        CommandRefusal::OutOfLsns,
        CommandRefusal::Oversized,
        CommandRefusal::ReadPointAhead,
        CommandRefusal::Step(StepRefusal::Nothing),
        CommandRefusal::Step(StepRefusal::Unsettled),
        CommandRefusal::Superseded,
        CommandRefusal::TargetAhead,
        CommandRefusal::Throttled,
        CommandRefusal::UnknownSegment,
    ];
    for wanted in all {
        for (number, refusal) in provoke_command(wanted).into_iter().enumerate() {
            assert_eq!(refusal, Some(wanted), "way {number}");
        }
    }
}

/// A writer must not take part in what segments of no group, or of another volume, say.
#[test]
fn answers_from_nowhere_change_nothing() {
    let writer = open_writer(TIGHT);
    let of_this = ack(epoch(0), scl(14));
    let of_another = ack(epoch(1), scl(14));
    let cases = [(OTHER, at(0), &of_this), (GROUP, at(6), &of_this), (GROUP, at(0), &of_another)];
    for (group, from, message) in cases {
        let mut given = writer.clone();
        let mut effects = Vec::new();
        let message = message.clone();
        given.step(WriterInput::Receive { group, from, message }, &mut effects);
        assert_eq!((&given, effects), (&writer, vec![]));
    }
}

/// A volume whose segments disagree about its shape must not be opened.
#[test]
fn a_seal_answer_of_another_geometry_is_rejected() {
    let mut writer = Writer::open(epoch(0), geometry(1, TIGHT), &mut Vec::new());
    let image = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
    let answer = Segment::recover(image).report();
    let (group, from) = (GROUP, at(0));
    let message = ToWriter::Sealed { epoch: epoch(0), answer };
    let mut effects = Vec::new();
    writer.step(WriterInput::Receive { group, from, message }, &mut effects);
    let refusal = Refusal::Malformed;
    let report = Report::Rejected { group, from, refusal };
    assert_eq!(effects, [WriterEffect::Report(report)]);
    assert_eq!(writer.phase(), PhaseName::Sealing);
}

// Images.

/// Brings `wanted` about, in every way that there is.
fn provoke_image(wanted: CorruptImage) -> Vec<Result<(), CorruptImage>> {
    let apply = |image: &mut SegmentImage, history, records| {
        image.apply(&SegmentWrite {
            promised: epoch(0),
            history,
            records,
            ..SegmentWrite::default()
        })
    };
    let mut image = SegmentImage::create(GROUP, geometry(2, TIGHT)).unwrap();
    match wanted {
        CorruptImage::Base => {
            let (promised, vdl, base) = (epoch(0), vdl(0), lsn(1));
            let write = SegmentWrite { promised, vdl, base, ..SegmentWrite::default() };
            vec![image.apply(&write)]
        }
        CorruptImage::Chain => {
            let records = vec![record(11), record(12)];
            apply(&mut image, Some(history(0)), records.clone()).unwrap();
            let restore = |records| {
                SegmentImage::restore(image.checkpoint(), records, Vec::new()).map(|_| ())
            };
            assert_eq!(restore(records.clone()), Ok(()));
            vec![restore(Vec::new()), restore(records[..1].to_vec())]
        }
        CorruptImage::Conflict { .. } => {
            let other = Record { cpl: false, ..record(11) };
            vec![apply(&mut image, None, vec![record(11), other])]
        }
        CorruptImage::Full => {
            let records = (11..15).map(record).collect();
            vec![apply(&mut image, None, records)]
        }
        CorruptImage::History => {
            let above = Some(history(1));
            let end = TruncationRange::new(epoch(0), Lsn::ZERO, Lsn::new(5)).unwrap();
            let repeated = Some(History::new().with(end).with(end));
            vec![apply(&mut image.clone(), above, vec![]), apply(&mut image, repeated, vec![])]
        }
        CorruptImage::Record { .. } => {
            let circular = Record { prev_volume: Lsn::new(11), ..record(11) };
            let crossed = Record { prev_group: Lsn::new(3), ..record(11) };
            let of_nobody = Record { epoch: VolumeEpoch::ZERO, ..record(11) };
            [circular, crossed, of_nobody]
                .map(|record| apply(&mut image.clone(), None, vec![record]))
                .to_vec()
        }
        CorruptImage::WrongGroup { .. } => {
            let foreign = Record { group: OTHER, ..record(11) };
            vec![apply(&mut image, None, vec![foreign])]
        }
    }
}

/// A disk that holds what no segment wrote must be recognised, not served.
#[test]
fn every_corrupt_image_is_recognised() {
    let lsn = Lsn::new(11);
    let all = [
        CorruptImage::Base,
        CorruptImage::Chain,
        CorruptImage::Conflict { lsn },
        CorruptImage::Full,
        CorruptImage::History,
        CorruptImage::Record { lsn },
        CorruptImage::WrongGroup { lsn },
    ];
    for wanted in all {
        for (number, outcome) in provoke_image(wanted).into_iter().enumerate() {
            assert_eq!(outcome, Err(wanted), "way {number}");
        }
        assert!(!wanted.to_string().is_empty());
    }
    assert_eq!(SegmentImage::create(PgId::new(2), geometry(2, TIGHT)), None);
}

// Quorums and geometries.

fn provoke_quorum(wanted: QuorumError) -> Vec<(u8, u8, u8)> {
    match wanted {
        QuorumError::OutOfRange => {
            vec![(0, 0, 0), (9, 5, 5), (6, 0, 3), (6, 4, 0), (6, 7, 3), (6, 4, 7), (255, 200, 200)]
        }
        QuorumError::ReadMissesWrite => vec![(6, 4, 2), (4, 3, 1)],
        QuorumError::WriteMissesWrite => vec![(6, 3, 4), (4, 2, 3)],
    }
}

/// Quorums that don't meet lose acknowledged data: none can be built, nor be decoded.
#[test]
fn every_quorum_error_can_be_brought_about() {
    for wanted in
        [QuorumError::OutOfRange, QuorumError::ReadMissesWrite, QuorumError::WriteMissesWrite]
    {
        for (members, write, read) in provoke_quorum(wanted) {
            assert_eq!(QuorumSet::new(members, write, read), Err(wanted));
            let text = format!(r#"{{"members":{members},"write":{write},"read":{read}}}"#);
            assert!(serde_json::from_str::<QuorumSet>(&text).is_err(), "{text}");
        }
    }
    let aurora = serde_json::to_string(&QuorumSet::AURORA).unwrap();
    assert_eq!(serde_json::from_str::<QuorumSet>(&aurora).unwrap(), QuorumSet::AURORA);
}

fn provoke_geometry(wanted: GeometryError) -> Vec<(u32, Limits)> {
    match wanted {
        GeometryError::Pages => vec![],
        GeometryError::Groups => vec![(0, WIDE), (GROUPS_MAX + 1, WIDE), (u32::MAX, WIDE)],
        GeometryError::Limits => [
            Limits {
                allocation_max: TIGHT.batch_records_max.into(),
                batch_records_max: 3,
                ..TIGHT
            },
            Limits { batch_records_max: 0, ..TIGHT },
            Limits { log_records_max: 1, ..TIGHT },
            Limits { history_ranges_max: 0, ..TIGHT },
            Limits { pending_writes_max: 0, ..TIGHT },
        ]
        .map(|limits| (1, limits))
        .to_vec(),
    }
}

/// A volume in which no writer can make progress must not be created, nor be decoded.
#[test]
fn every_geometry_error_can_be_brought_about() {
    let sound = serde_json::to_value(geometry(1, WIDE)).unwrap();
    for wanted in [GeometryError::Groups, GeometryError::Limits] {
        for (groups, limits) in provoke_geometry(wanted) {
            assert_eq!(VolumeGeometry::new(groups, QuorumSet::AURORA, limits), Err(wanted));
            let mut encoded = sound.clone();
            encoded["groups"] = groups.into();
            encoded["limits"] = serde_json::to_value(limits).unwrap();
            assert!(serde_json::from_value::<VolumeGeometry>(encoded).is_err());
        }
    }
    for pages in [0, u64::MAX] {
        let bounded = geometry(2, WIDE).with_group_pages(pages);
        assert_eq!(bounded, Err(GeometryError::Pages));
    }
    for growth in [(u64::MAX, 0u32), (0, 1), (1, GROUPS_MAX - 1), (1, u32::MAX)] {
        let mut encoded = serde_json::to_value(geometry(2, WIDE)).unwrap();
        encoded["growth"] = serde_json::json!({ "group_pages": growth.0, "added": growth.1 });
        assert!(serde_json::from_value::<VolumeGeometry>(encoded).is_err(), "{growth:?}");
    }
    assert_eq!(serde_json::from_value::<VolumeGeometry>(sound).unwrap(), geometry(1, WIDE));
}

/// Numbers at the end of their range must end in `None`, not in a wrap-around.
#[test]
fn the_ends_of_the_number_spaces_are_reached_without_a_panic() {
    assert_eq!(Lsn::new(u64::MAX).plus(1), None);
    let instance = InstanceId::new(1);
    assert_eq!(VolumeEpoch::new(u64::MAX, instance).next(instance), None);
    assert_eq!(Position::new(8), None);
    assert!(serde_json::from_str::<Position>("8").is_err());
    assert_eq!(TruncationRange::new(epoch(0), Lsn::new(3), Lsn::new(3)), None);
    assert_eq!(ReadPoint::earlier(vdl(3), Lsn::new(4)), None);
}
