//! Random schedules of whole volumes, judged by the abstract volume; renamings of positions; and
//! random bytes' worth of nonsense.
//!
//! A failure prints the schedule, made as short as possible, and adds its seed to
//! `properties.regressions`, which every later run replays first.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult, TestRunner};
use quorate_core::consistency::ReadPoint;
use quorate_core::effect::{Report, SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{InstanceId, PageId, Permutation, PgId, Position, Ticket, WriteId};
use quorate_core::image::{SegmentImage, Survivor};
use quorate_core::lsn::Lsn;
use quorate_core::message::{
    Append, Confirm, Install, Peer, Pull, Pulled, Read, Seal, SealAnswer, ToSegment, ToWriter,
};
use quorate_core::record::{Change, Payload, Record};
use quorate_core::refusal::Refusal;
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_core::segment::Segment;
use quorate_core::truncation::{History, TruncationRange};
use quorate_core::writer::{PhaseName, Writer};
use support::{Cluster, Envelope, Finding, WIDE, at, epoch, geometry, scl, vdl};

/// Cases of each property: together they take some seconds without optimisation.
const CASES: u32 = 256;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // Relative to the package, where cargo runs its tests.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/properties.regressions",
        ))),
        ..ProptestConfig::default()
    }
}

// Schedules.

/// One thing that happens. Numbers choose among what is there at that moment.
#[derive(Clone, Debug)]
enum Step {
    /// A strict read arrives at a writer.
    Confirm { writer: u8 },
    /// A segment crashes; two bits of `survivors` say what is left of each unsynced write.
    Crash { node: u8, survivors: u32 },
    /// A message arrives, whatever was sent before it.
    Deliver { message: u16 },
    /// A message is lost.
    Drop { message: u16 },
    /// A message arrives and will arrive again.
    Duplicate { message: u16 },
    /// For a while things go well: many messages arrive and many writes are synced, in an order
    /// that follows from `order`.
    Flow { order: u64, count: u8 },
    /// A writer tells the VDL.
    Publish { writer: u8 },
    /// A recovery is imagined from a read quorum of each group.
    Probe { quorums: u32 },
    /// A segment asks another one for what it lacks.
    Pull { into: u8, from: u8 },
    /// A page is read, at the VDL or at an earlier consistency point.
    Read { writer: u8, page: u8, from: u8, earlier: Option<u8> },
    /// The next writer starts, if the schedule has one left.
    Recover,
    /// A writer sends a segment again what it may lack.
    Resend { writer: u8, node: u8 },
    /// A write of some segment is synced, whatever was submitted before it.
    Sync { node: u8, write: u8 },
    /// A writer writes a mini-transaction.
    Write { writer: u8, pages: Vec<u8> },
}

/// A volume and what happens to it.
#[derive(Clone, Debug)]
struct Schedule {
    groups: u32,
    writers_max: usize,
    allocation_max: u64,
    batch_records_max: u32,
    pending_writes_max: u32,
    steps: Vec<Step>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<u8>().prop_map(|writer| Step::Confirm { writer }),
        2 => any::<(u8, u32)>()
            .prop_map(|(node, survivors)| Step::Crash { node, survivors }),
        12 => any::<u16>().prop_map(|message| Step::Deliver { message }),
        3 => any::<u16>().prop_map(|message| Step::Drop { message }),
        2 => any::<u16>().prop_map(|message| Step::Duplicate { message }),
        8 => (any::<u64>(), 1..40u8).prop_map(|(order, count)| Step::Flow { order, count }),
        1 => any::<u8>().prop_map(|writer| Step::Publish { writer }),
        2 => any::<u32>().prop_map(|quorums| Step::Probe { quorums }),
        3 => any::<(u8, u8)>().prop_map(|(into, from)| Step::Pull { into, from }),
        3 => any::<(u8, u8, u8, Option<u8>)>().prop_map(|(writer, page, from, earlier)| {
            Step::Read { writer, page, from, earlier }
        }),
        1 => Just(Step::Recover),
        2 => any::<(u8, u8)>().prop_map(|(writer, node)| Step::Resend { writer, node }),
        8 => any::<(u8, u8)>().prop_map(|(node, write)| Step::Sync { node, write }),
        6 => (any::<u8>(), vec(0..6u8, 1..4))
            .prop_map(|(writer, pages)| Step::Write { writer, pages }),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let limits = (3..12u64, 1..4u32, 1..6u32);
    (1..4u32, 1..4usize, limits, vec(step(), 100..400)).prop_map(
        |(groups, writers_max, (allocation_max, batch_records_max, pending_writes_max), steps)| {
            Schedule {
                groups,
                writers_max,
                allocation_max,
                batch_records_max,
                pending_writes_max,
                steps,
            }
        },
    )
}

/// Messages that may be on their way at once; what is beyond that is lost.
const FLIGHT_MAX: usize = 400;

fn start<R: Rules>(rules: R, schedule: &Schedule) -> Cluster<R> {
    let limits = Limits {
        allocation_max: schedule.allocation_max,
        batch_records_max: schedule.batch_records_max,
        pending_writes_max: schedule.pending_writes_max,
        ..WIDE
    };
    Cluster::under(rules, geometry(schedule.groups, limits))
}

fn run<R: Rules>(cluster: &mut Cluster<R>, schedule: &Schedule) -> Result<(), Finding> {
    cluster.recover()?;
    for step in &schedule.steps {
        take(cluster, schedule.writers_max, step)?;
        while cluster.flight.len() > FLIGHT_MAX {
            cluster.flight.pop_front();
        }
    }
    Ok(())
}

fn take<R: Rules>(
    cluster: &mut Cluster<R>,
    writers_max: usize,
    step: &Step,
) -> Result<(), Finding> {
    let nth_writer = |writer: u8| usize::from(writer) % cluster.writers.len();
    let nth_node = |node: u8| usize::from(node) % cluster.nodes.len();
    match step {
        Step::Confirm { writer } => {
            let index = nth_writer(*writer);
            let ticket = cluster.ticket();
            cluster.command(index, WriterInput::Confirm { ticket })
        }
        Step::Crash { node, survivors } => {
            let mut survivors = *survivors;
            cluster.crash(nth_node(*node), |write| {
                let fate = survivors & 0b11;
                survivors >>= 2;
                match fate {
                    0 => Survivor::Missing,
                    1 => Survivor::Torn(write),
                    _ => Survivor::Whole(write),
                }
            })
        }
        Step::Deliver { message } => match remove(cluster, *message) {
            Some(envelope) => cluster.deliver(envelope),
            None => Ok(()),
        },
        Step::Drop { message } => {
            remove(cluster, *message);
            Ok(())
        }
        Step::Duplicate { message } => match remove(cluster, *message) {
            Some(envelope) => {
                cluster.flight.push_back(envelope.clone());
                cluster.deliver(envelope)
            }
            None => Ok(()),
        },
        Step::Flow { order, count } => flow(cluster, *order, *count),
        Step::Publish { writer } => cluster.command(nth_writer(*writer), WriterInput::Publish),
        Step::Probe { quorums } => probe(cluster, *quorums),
        Step::Pull { into, from } => {
            let members = cluster.geometry.quorums().members();
            cluster.pull(nth_node(*into), at(usize::from(*from) % members))
        }
        Step::Read { writer, page, from, earlier } => {
            let index = nth_writer(*writer);
            let read_point = earlier.and_then(|earlier| earlier_point(cluster, index, earlier));
            let ticket = cluster.ticket();
            let from = at(usize::from(*from) % cluster.geometry.quorums().members());
            let page = PageId::new(u64::from(*page % 6));
            cluster.command(index, WriterInput::Read { ticket, page, read_point, from })
        }
        Step::Recover if cluster.writers.len() < writers_max => cluster.recover(),
        Step::Recover => Ok(()),
        Step::Resend { writer, node } => {
            let node = &cluster.nodes[nth_node(*node)];
            let input = WriterInput::Resend { group: node.group, to: node.position };
            cluster.command(nth_writer(*writer), input)
        }
        Step::Sync { node, write } => sync_some(cluster, usize::from(*node), usize::from(*write)),
        Step::Write { writer, pages } => {
            let pages: Vec<u64> = pages.iter().copied().map(u64::from).collect();
            cluster.write(nth_writer(*writer), &pages)
        }
    }
}

fn remove<R: Rules>(cluster: &mut Cluster<R>, message: u16) -> Option<Envelope> {
    let count = cluster.flight.len();
    (count > 0).then(|| cluster.flight.remove(usize::from(message) % count)).flatten()
}

/// Syncs a write of one of the segments that have any.
fn sync_some<R: Rules>(cluster: &mut Cluster<R>, node: usize, write: usize) -> Result<(), Finding> {
    let nodes = 0..cluster.nodes.len();
    let busy: Vec<usize> = nodes.filter(|node| cluster.nodes[*node].unsynced() > 0).collect();
    if busy.is_empty() {
        return Ok(());
    }
    let node = busy[node % busy.len()];
    cluster.sync(node, write % cluster.nodes[node].unsynced())
}

fn flow<R: Rules>(cluster: &mut Cluster<R>, order: u64, count: u8) -> Result<(), Finding> {
    let mut order = order | 1;
    for _ in 0..count {
        // Marsaglia's xorshift: any sequence will do, as long as the schedule fixes it.
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        let number = (order >> 32) as usize;
        if order & 1 == 0 {
            sync_some(cluster, number, number >> 8)?;
        } else if let Some(envelope) = remove(cluster, (number % 8) as u16) {
            cluster.deliver(envelope)?;
        }
    }
    Ok(())
}

/// Imagines a recovery: by group, five bits of `quorums` choose one of the twenty smallest read
/// quorums of six segments.
fn probe<R: Rules>(cluster: &Cluster<R>, quorums: u32) -> Result<(), Finding> {
    let read = cluster.geometry.quorums().read() as u32;
    let smallest: Vec<u8> = (0..64u8).filter(|bits| bits.count_ones() == read).collect();
    cluster.probe(|node| {
        let choice = (quorums >> (5 * (node.group.get() % 6))) as usize % smallest.len();
        smallest[choice] & (1 << node.position.index()) != 0
    })
}

/// Returns a consistency point at or under the VDL of writer number `index`.
fn earlier_point<R: Rules>(cluster: &Cluster<R>, index: usize, nth: u8) -> Option<ReadPoint> {
    let vdl = cluster.writers[index].vdl()?;
    let log = &cluster.volume.epochs.get(index)?.log;
    let points: Vec<Lsn> = log.iter().filter(|r| r.cpl).map(|r| r.lsn).collect();
    let lsn = points.get(usize::from(nth) % points.len().max(1))?;
    ReadPoint::earlier(vdl, *lsn)
}

proptest! {
    #![proptest_config(config(CASES))]

    /// Some order of messages, syncs, crashes and recoveries could lose an acknowledged commit,
    /// show a read what it must not see, or leave a volume that no writer can open again.
    #[test]
    fn every_schedule_is_one_of_the_abstract_volume(schedule in schedule()) {
        let mut cluster = start(Sound, &schedule);
        prop_assert_eq!(run(&mut cluster, &schedule), Ok(()));
        prop_assert_eq!(cluster.heal(), Ok(()));
    }
}

/// The schedules could be so tame that they would pass whatever the machines did.
#[test]
fn schedules_reach_what_they_are_meant_to_reach() {
    let mut runner = TestRunner::deterministic();
    let (mut durable, mut opened, mut reads, mut confirmed, mut throttled) = (0, 0, 0, 0, 0);
    let mut overtaken = 0;
    for _ in 0..64 {
        let schedule = schedule().new_tree(&mut runner).unwrap().current();
        let mut cluster = start(Sound, &schedule);
        run(&mut cluster, &schedule).unwrap();
        for (index, report) in cluster.reports() {
            match report {
                Report::Confirmed { .. } => confirmed += 1,
                Report::Durable { .. } => durable += 1,
                Report::Opened { .. } => opened += usize::from(index > 0),
                Report::Overtaken { .. } => overtaken += 1,
                Report::Read { version, .. } => reads += usize::from(version.is_some()),
                Report::Refused(_) => throttled += 1,
                Report::ReadRefused { .. } | Report::Rejected { .. } | Report::Written { .. } => {}
            }
        }
    }
    println!(
        "64 schedules: {durable} advances of the VDL, {opened} later recoveries, {overtaken} \
         writers overtaken, {reads} reads of a record, {confirmed} strict reads, {throttled} \
         commands refused"
    );
    assert!([durable, opened, overtaken, reads, confirmed, throttled].iter().all(|n| *n > 10));
}

// Mutants.

/// Returns how many random schedules it takes until one shows that `bug` breaks the protocol, as
/// far as a client or the next recovery can see.
fn schedules_until_found(bug: Bug, schedules_max: usize) -> Option<(usize, Finding)> {
    let mut runner = TestRunner::deterministic();
    (1..=schedules_max).find_map(|number| {
        let schedule = schedule().new_tree(&mut runner).unwrap().current();
        let mut cluster = start(Seeded(bug), &schedule);
        match run(&mut cluster, &schedule) {
            Err(finding @ (Finding::Read | Finding::Volume(_))) => Some((number, finding)),
            Err(Finding::Broken(_)) | Ok(()) => None,
        }
    })
}

fn assert_found(bug: Bug) {
    let found = schedules_until_found(bug, 300);
    println!("{}: {found:?}", bug.name());
    assert!(found.is_some(), "{} is not found by 300 schedules", bug.name());
}

/// The property above could hold for any machine: a segment without a fence must break it.
#[test]
fn a_missing_fence_is_found() {
    assert_found(Bug::NoFence);
}

/// The property above could hold for any machine: opening before the records are copied must
/// break it.
#[test]
fn opening_before_completion_is_found() {
    assert_found(Bug::OpenBeforeComplete);
}

/// The property above could hold for any machine: acknowledging what is not durable must break it.
#[test]
fn acknowledging_before_durable_is_found() {
    assert_found(Bug::AckBeforeDurable);
}

/// The property above could hold for any machine: recovering at the lowest SCL must break it.
#[test]
fn recovering_at_the_lowest_scl_is_found() {
    assert_found(Bug::LowestSclChosen);
}

// Renaming positions.

fn renaming() -> impl Strategy<Value = Permutation> {
    Just(vec![0usize, 1, 2, 3, 4, 5])
        .prop_shuffle()
        .prop_map(|to| Permutation::new(&to).expect("a shuffle names nothing twice"))
}

fn renamed_input(input: &WriterInput, group: PgId, renaming: &Permutation) -> WriterInput {
    let mut renamed = input.clone();
    match &mut renamed {
        WriterInput::Receive { group: of, from, .. } if *of == group => *from = renaming.of(*from),
        WriterInput::Resend { group: of, to } if *of == group => *to = renaming.of(*to),
        // The group of a read follows from its page, which the caller sees to.
        WriterInput::Read { from, .. } => *from = renaming.of(*from),
        WriterInput::Confirm { .. }
        | WriterInput::Publish
        | WriterInput::Receive { .. }
        | WriterInput::Resend { .. }
        | WriterInput::Write { .. } => {}
    }
    renamed
}

fn renamed_effect(effect: &WriterEffect, group: PgId, renaming: &Permutation) -> WriterEffect {
    let mut renamed = effect.clone();
    match &mut renamed {
        WriterEffect::Send { group: of, to, .. } if *of == group => *to = renaming.of_set(*to),
        WriterEffect::Report(Report::Rejected { group: of, from, .. }) if *of == group => {
            *from = renaming.of(*from);
        }
        WriterEffect::Report(_) | WriterEffect::Send { .. } => {}
    }
    renamed
}

fn column(writer: &Writer, group: PgId, position: Position) -> u64 {
    let mut hasher = DefaultHasher::new();
    writer.hash_column(group, position, &mut hasher);
    hasher.finish()
}

fn rest(writer: &Writer) -> u64 {
    let mut hasher = DefaultHasher::new();
    writer.hash_rest(&mut hasher);
    hasher.finish()
}

/// Returns the hashes of everything that a writer knows, segment by segment and apart from them.
fn whole(writer: &Writer) -> Vec<u64> {
    let mut hashes = vec![rest(writer)];
    for group in writer.geometry().groups() {
        for position in writer.geometry().quorums().positions() {
            hashes.push(column(writer, group, position));
        }
    }
    hashes
}

fn check_renaming(
    writer: &Writer,
    input: &WriterInput,
    group: PgId,
    renaming: &Permutation,
) -> TestCaseResult {
    let mut stepped = writer.clone();
    let mut effects = Vec::new();
    stepped.step(input.clone(), &mut effects);
    prop_assert_eq!(*writer == stepped, whole(writer) == whole(&stepped));

    let group = match input {
        WriterInput::Read { page, .. } => writer.geometry().group_of(*page),
        WriterInput::Confirm { .. }
        | WriterInput::Publish
        | WriterInput::Receive { .. }
        | WriterInput::Resend { .. }
        | WriterInput::Write { .. } => group,
    };
    let mut renamed = writer.permute(group, renaming);
    prop_assert_eq!(rest(&renamed), rest(writer));
    for position in writer.geometry().quorums().positions() {
        let name = renaming.of(position);
        prop_assert_eq!(column(&renamed, group, name), column(writer, group, position));
    }
    let mut renamed_effects = Vec::new();
    renamed.step(renamed_input(input, group, renaming), &mut renamed_effects);
    prop_assert_eq!(renamed, stepped.permute(group, renaming));
    let expected: Vec<WriterEffect> =
        effects.iter().map(|effect| renamed_effect(effect, group, renaming)).collect();
    prop_assert_eq!(renamed_effects, expected);
    Ok(())
}

proptest! {
    #![proptest_config(config(CASES / 8))]

    /// A model that takes two states for one, equal up to the names of segments, would skip states
    /// if a step could tell these names apart, or if the hashes did not cover the whole value.
    #[test]
    fn renaming_positions_commutes_with_every_step(schedule in schedule(), renaming in renaming()) {
        let mut cluster = start(Sound, &schedule);
        cluster.trace = Some(Vec::new());
        prop_assert_eq!(run(&mut cluster, &schedule), Ok(()));
        let trace = cluster.trace.take().unwrap_or_default();
        for (number, (writer, input)) in trace.iter().enumerate() {
            let group = PgId::new(number as u32 % schedule.groups);
            check_renaming(writer, input, group, &renaming)?;
        }
    }
}

// Nonsense. Small numbers meet each other often; the largest ones are where arithmetic ends.

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..24u64, 1 => (u64::MAX - 3)..=u64::MAX, 1 => any::<u64>()]
}

fn any_lsn() -> impl Strategy<Value = Lsn> {
    any_number().prop_map(Lsn::new)
}

fn any_epoch() -> impl Strategy<Value = VolumeEpoch> {
    prop_oneof![
        12 => (0..4u64, 0..4u64),
        1 => Just((u64::MAX, 1)),
    ]
    .prop_map(|(counter, instance)| VolumeEpoch::new(counter, InstanceId::new(instance)))
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
    let likely = (1..24u64, any_epoch(), 1..3u64, 0..3u64, any_page(), 0..2u32).prop_map(
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
    prop_oneof![anything, likely]
}

/// Half of the batches are sorted, of one epoch.
fn any_records(epoch: VolumeEpoch) -> impl Strategy<Value = Vec<Record>> {
    (vec(any_record(), 0..6), any::<bool>()).prop_map(move |(mut records, is_neat)| {
        if is_neat {
            records.iter_mut().for_each(|record| record.epoch = epoch);
            records.sort_unstable();
            records.dedup_by_key(|record| record.lsn);
        }
        records
    })
}

/// Half of the histories rise as they should.
fn any_history() -> impl Strategy<Value = History> {
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
            .filter_map(|(epoch, after, through)| TruncationRange::new(epoch, after, through))
            .fold(History::new(), |history, range| history.with(range))
    })
}

fn any_append() -> impl Strategy<Value = Append> {
    (any_epoch(), any_group(), any_number()).prop_flat_map(|(epoch, group, number)| {
        any_records(epoch).prop_map(move |records| Append {
            epoch,
            group,
            vdl: vdl(number),
            records,
        })
    })
}

fn any_pulled() -> impl Strategy<Value = Pulled> {
    (any_group(), any_history(), any_number()).prop_flat_map(|(group, history, number)| {
        any_records(history.epoch()).prop_map(move |records| Pulled {
            group,
            history: history.clone(),
            vdl: vdl(number),
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
        3 => (any_group(), any_history())
            .prop_map(|(group, history)| ToSegment::Install(Install { group, history })),
        1 => (any_group(), any_epoch(), any_number(), vec(any_lsn(), 0..4))
            .prop_map(|(group, history, end, beyond)| {
                ToSegment::Pull(Pull { group, history, scl: scl(end), beyond })
            }),
        4 => any_pulled().prop_map(ToSegment::Pulled),
        1 => any_read().prop_map(ToSegment::Read),
        2 => (any_epoch(), any_group())
            .prop_map(|(epoch, group)| ToSegment::Seal(Seal { epoch, group })),
    ]
}

fn any_segment_input() -> impl Strategy<Value = SegmentInput> {
    prop_oneof![
        3 => (0..5u64).prop_map(|id| SegmentInput::Durable(WriteId::new(id))),
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
    for effect in effects {
        let SegmentEffect::SendWriter { to, message } = effect else { continue };
        match message {
            ToWriter::Ack { epoch, scl } => {
                prop_assert_eq!(to, epoch);
                prop_assert_eq!([segment.heard(), durable.promised()], [epoch; 2]);
                prop_assert_eq!(durable.history().epoch(), epoch);
                prop_assert!(scl <= durable.scl());
            }
            ToWriter::Confirmed { epoch, .. } | ToWriter::Read { epoch, .. } => {
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
        log_records_max: LOG_RECORDS_MAX,
        history_ranges_max: 3,
        pending_writes_max: 3,
    };
    geometry(2, limits)
}

const LOG_RECORDS_MAX: u32 = 6;

proptest! {
    #![proptest_config(config(4 * CASES))]

    /// A broken or hostile peer could stop a segment, or talk it out of a promise.
    #[test]
    fn nonsense_neither_stops_a_segment_nor_lowers_its_promise(
        inputs in vec(any_segment_input(), 1..80),
    ) {
        let image = SegmentImage::create(PgId::new(0), small()).unwrap();
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
        Just(Refusal::Full),
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
    (shape, any_history(), any_number(), any_number()).prop_flat_map(
        |(geometry, history, end, number)| {
            any_records(history.epoch()).prop_map(move |records| SealAnswer {
                geometry,
                history: history.clone(),
                scl: scl(end),
                vdl: vdl(number),
                records,
            })
        },
    )
}

fn any_to_writer(own: VolumeEpoch) -> impl Strategy<Value = ToWriter> {
    let epoch = || prop_oneof![7 => Just(own), 1 => any_epoch()];
    prop_oneof![
        6 => (epoch(), any_number()).prop_map(|(epoch, end)| ToWriter::Ack { epoch, scl: scl(end) }),
        2 => (epoch(), any_ticket())
            .prop_map(|(epoch, ticket)| ToWriter::Confirmed { epoch, ticket }),
        1 => (epoch(), any_ticket(), any_page(), any_number(), proptest::option::of(any_record()))
            .prop_map(|(epoch, ticket, page, number, version)| {
                let read_point = ReadPoint::at(vdl(number));
                ToWriter::Read { epoch, ticket, page, read_point, version }
            }),
        1 => (epoch(), proptest::option::of(any_ticket()), any_refusal())
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
    let read_point = proptest::option::of(any_number().prop_map(|n| ReadPoint::at(vdl(n))));
    prop_oneof![
        1 => any_ticket().prop_map(|ticket| WriterInput::Confirm { ticket }),
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
    #![proptest_config(config(4 * CASES))]

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
