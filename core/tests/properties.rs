//! Random schedules of whole volumes, judged by the abstract volume, and renamings of positions.
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

use std::hash::{DefaultHasher, Hasher};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult, TestRunner};
use quorate_core::consistency::ReadPoint;
use quorate_core::effect::{Report, WriterEffect, WriterInput};
use quorate_core::geometry::Limits;
use quorate_core::id::{PageId, Permutation, PgId, Position};
use quorate_core::image::Survivor;
use quorate_core::lsn::Lsn;
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_core::writer::Writer;
use support::{Cluster, Envelope, Finding, WIDE, at, geometry};

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
    /// Recoveries are imagined, from every smallest read quorum of each group.
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
        8 => any::<u16>().prop_map(|message| Step::Deliver { message }),
        2 => any::<u16>().prop_map(|message| Step::Drop { message }),
        2 => any::<u16>().prop_map(|message| Step::Duplicate { message }),
        16 => (any::<u64>(), 1..60u8).prop_map(|(order, count)| Step::Flow { order, count }),
        1 => any::<u8>().prop_map(|writer| Step::Publish { writer }),
        4 => any::<u32>().prop_map(|quorums| Step::Probe { quorums }),
        3 => any::<(u8, u8)>().prop_map(|(into, from)| Step::Pull { into, from }),
        3 => any::<(u8, u8, u8, Option<u8>)>().prop_map(|(writer, page, from, earlier)| {
            Step::Read { writer, page, from, earlier }
        }),
        2 => Just(Step::Recover),
        2 => any::<(u8, u8)>().prop_map(|(writer, node)| Step::Resend { writer, node }),
        6 => any::<(u8, u8)>().prop_map(|(node, write)| Step::Sync { node, write }),
        6 => (any::<u8>(), vec(0..6u8, 1..4))
            .prop_map(|(writer, pages)| Step::Write { writer, pages }),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let limits = (3..12u64, 1..4u32, 1..6u32);
    (1..4u32, 1..6usize, limits, vec(step(), 100..400)).prop_map(
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
    // Most commands are for the newest writer; overtaken ones go on too.
    let started = cluster.writers.len();
    let nth_writer = |writer: u8| {
        if writer < 64 { usize::from(writer) % started } else { started - 1 }
    };
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

/// Imagines recoveries, each from one of the smallest read quorums of each group: every one of a
/// group's twenty is in one of them, and `quorums` says which meet.
fn probe<R: Rules>(cluster: &Cluster<R>, quorums: u32) -> Result<(), Finding> {
    let read = cluster.geometry.quorums().read() as u32;
    let smallest: Vec<u8> = (0..64u8).filter(|bits| bits.count_ones() == read).collect();
    for number in 0..smallest.len() {
        cluster.probe(|node| {
            let meets = (quorums >> (5 * node.group.get())) as usize;
            let quorum = smallest[(number + meets) % smallest.len()];
            quorum & (1 << node.position.index()) != 0
        })?;
    }
    Ok(())
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
                Report::Grown { .. }
                | Report::Located { .. }
                | Report::ReadRefused { .. }
                | Report::Rejected { .. }
                | Report::Settled { .. }
                | Report::Written { .. } => {}
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
        WriterInput::Brief
        | WriterInput::Confirm { .. }
        | WriterInput::Expel { .. }
        | WriterInput::Hold { .. }
        | WriterInput::Locate { .. }
        | WriterInput::Publish
        | WriterInput::Receive { .. }
        | WriterInput::ReceiveReader { .. }
        | WriterInput::Resend { .. }
        | WriterInput::Step { .. }
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
        WriterEffect::Report(_) | WriterEffect::Send { .. } | WriterEffect::SendReader { .. } => {}
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
        WriterInput::Brief
        | WriterInput::Confirm { .. }
        | WriterInput::Expel { .. }
        | WriterInput::Hold { .. }
        | WriterInput::Locate { .. }
        | WriterInput::Publish
        | WriterInput::Receive { .. }
        | WriterInput::ReceiveReader { .. }
        | WriterInput::Resend { .. }
        | WriterInput::Step { .. }
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
