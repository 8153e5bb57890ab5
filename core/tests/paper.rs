//! One test for each sentence of the two Aurora papers that this protocol relies on: A. Verbitski
//! et al., "Amazon Aurora: Design Considerations for High Throughput Cloud-Native Relational
//! Databases", SIGMOD 2017; and "Amazon Aurora: On Avoiding Distributed Consensus for I/Os,
//! Commits, and Membership Changes", SIGMOD 2018. The sentences are retold, not quoted.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use quorate_core::consistency::{Pgcl, Vcl, Vdl};
use quorate_core::effect::{CommandRefusal, Report, WriterInput};
use quorate_core::geometry::Limits;
use quorate_core::id::{PageId, PgId, Ticket};
use quorate_core::image::Survivor;
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::writer::PhaseName;
use support::{Cluster, Envelope, WIDE, at, epoch, geometry};

/// The zones: two segments in each.
const ZONES: [[usize; 2]; 3] = [[0, 1], [2, 3], [4, 5]];

/// Returns the LSN of the record number `number` that the first writer of a volume within `WIDE`
/// bounds allocates.
fn nth(number: u64) -> Lsn {
    Lsn::new(WIDE.allocation_max + number)
}

fn vdl(cluster: &Cluster, writer: usize) -> Lsn {
    cluster.writers[writer].vdl().map(Vdl::lsn).unwrap()
}

fn vcl(cluster: &Cluster, writer: usize) -> Lsn {
    cluster.writers[writer].vcl().map(Vcl::lsn).unwrap()
}

fn pgcl(cluster: &Cluster, group: u32) -> Lsn {
    cluster.writers[0].pgcl(PgId::new(group)).map(Pgcl::lsn).unwrap()
}

/// Lets writer number `writer` read `page` at its VDL from the segment at `from`.
fn read(
    cluster: &mut Cluster,
    writer: usize,
    page: u64,
    from: usize,
) -> Result<Option<Record>, Refusal> {
    cluster.reports();
    let (ticket, page, from) = (cluster.ticket(), PageId::new(page), at(from));
    let input = WriterInput::Read { ticket, page, read_point: None, from };
    cluster.command(writer, input).unwrap();
    cluster.settle().unwrap();
    let answers = cluster.reports().into_iter().filter_map(|(_, report)| match report {
        Report::Read { version, .. } => Some(Ok(version)),
        Report::ReadRefused { refusal, .. } => Some(Err(refusal)),
        Report::Confirmed { .. }
        | Report::Durable { .. }
        | Report::Grown { .. }
        | Report::Located { .. }
        | Report::Opened { .. }
        | Report::Overtaken { .. }
        | Report::Refused(_)
        | Report::Rejected { .. }
        | Report::Settled { .. }
        | Report::Written { .. } => None,
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1);
    answers[0]
}

fn has_report(cluster: &mut Cluster, wanted: impl Fn(&Report) -> bool) -> bool {
    cluster.reports().iter().any(|(_, report)| wanted(report))
}

/// SIGMOD'17 §2.1: six copies, two in each of three zones, with a write quorum of four, so that the
/// loss of a whole zone stops no write.
#[test]
fn losing_a_zone_stops_no_write() {
    for zone in ZONES {
        let mut cluster = Cluster::opened(geometry(2, WIDE));
        cluster.down(&zone);
        cluster.write(0, &[0, 1]).unwrap();
        cluster.settle().unwrap();
        assert_eq!(vdl(&cluster, 0), nth(2));
    }
}

/// SIGMOD'17 §2.1: a zone and one more segment can be lost without losing data: what is left is a
/// read quorum, which serves reads and from which a recovery finds everything.
#[test]
fn losing_a_zone_and_one_more_loses_no_data() {
    for (zone, more) in [([0, 1], 2), ([2, 3], 5), ([4, 5], 0)] {
        let mut cluster = Cluster::opened(geometry(1, WIDE));
        cluster.write(0, &[7]).unwrap();
        cluster.settle().unwrap();
        let lost = [zone[0], zone[1], more];
        cluster.down(&lost);
        let left = (0..6).find(|position| !lost.contains(position)).unwrap();
        assert_eq!(read(&mut cluster, 0, 7, left).unwrap().unwrap().lsn, nth(1));

        cluster.recover().unwrap();
        cluster.settle().unwrap();
        // It knows what it will open at; it needs a write quorum to say so.
        let history = cluster.writers[1].history().unwrap();
        assert_eq!(history.after(), nth(1));
        assert_eq!(cluster.writers[1].phase(), PhaseName::Installing);

        cluster.down(&zone);
        let (group, to) = (PgId::new(0), at(more));
        cluster.command(1, WriterInput::Resend { group, to }).unwrap();
        cluster.settle().unwrap();
        assert_eq!(vdl(&cluster, 1), nth(1));
    }
}

/// SIGMOD'17 §3.3: a storage node makes a record durable before it acknowledges it.
#[test]
fn a_record_is_acknowledged_when_it_is_durable() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[0]).unwrap();
    let append = cluster.flight.pop_front().unwrap();
    cluster.flight.clear();
    cluster.deliver(append).unwrap();
    assert!(cluster.flight.is_empty(), "nothing is said before the sync");
    let mut synced = cluster.clone();
    synced.sync(0, 0).unwrap();
    assert!(matches!(
        synced.flight.front(),
        Some(Envelope::Writer { message: ToWriter::Ack { scl, .. }, .. }) if scl.lsn() == nth(1)
    ));
    cluster.crash(0, |_| Survivor::Missing).unwrap();
    assert!(cluster.segment(0, 0).durable().records().is_empty());
}

/// SIGMOD'17 §4.1: complete up to 1007, with the consistency points 900, 1000 and 1100, a volume
/// must be truncated at 1000: complete to 1007, and only durable to 1000.
#[test]
fn complete_to_1007_is_durable_to_1000() {
    let limits = Limits { allocation_max: 1_100, batch_records_max: 7, ..WIDE };
    let base = limits.allocation_max;
    let mut cluster = Cluster::opened(geometry(1, limits));
    for count in [900, 100, 100] {
        cluster.write(0, &vec![0; count]).unwrap();
    }
    let lands = |message: &ToSegment| match message {
        ToSegment::Append(append) => append.records.iter().all(|r| r.lsn.get() <= base + 1_007),
        ToSegment::Behind { .. }
        | ToSegment::Confirm(_)
        | ToSegment::Install(_)
        | ToSegment::Locate(_)
        | ToSegment::Pull(_)
        | ToSegment::Pulled(_)
        | ToSegment::Read(_)
        | ToSegment::Seal(_) => true,
    };
    cluster.flight.retain(|envelope| match envelope {
        Envelope::Segment { message, .. } => lands(message),
        Envelope::Writer { .. } => true,
    });
    cluster.settle().unwrap();
    assert_eq!(vcl(&cluster, 0), Lsn::new(base + 1_007));
    assert_eq!(vdl(&cluster, 0), Lsn::new(base + 1_000));

    cluster.recover().unwrap();
    cluster.settle().unwrap();
    assert_eq!(vdl(&cluster, 1), Lsn::new(base + 1_000));
    for position in 0..6 {
        let last = cluster.segment(0, position).durable().records().last().copied().unwrap();
        assert_eq!(last.lsn, Lsn::new(base + 1_000));
    }
}

/// SIGMOD'17 §4.1, SIGMOD'18 §3.3: a mini-transaction takes effect as a whole: its records in one
/// group are not durable, nor seen, before those in another.
#[test]
fn half_a_mini_transaction_is_never_seen() {
    let mut cluster = Cluster::opened(geometry(2, WIDE));
    cluster.write(0, &[0, 1]).unwrap();
    cluster.reach(0, &[0, 1, 2, 3, 4, 5]).unwrap();
    assert_eq!((vcl(&cluster, 0), vdl(&cluster, 0)), (nth(1), Lsn::ZERO));
    let appends = std::mem::take(&mut cluster.flight);
    assert_eq!(read(&mut cluster, 0, 0, 0), Ok(None));
    cluster.flight = appends;
    cluster.settle().unwrap();
    assert_eq!(vdl(&cluster, 0), nth(2));
    assert_eq!(read(&mut cluster, 0, 0, 0).unwrap().unwrap().lsn, nth(1));
}

/// SIGMOD'17 §4.2.1: each record links back to the one before it in its group, although LSNs are
/// those of the whole volume.
#[test]
fn backlinks_chain_each_group() {
    let mut cluster = Cluster::opened(geometry(2, WIDE));
    for page in [0, 1, 1, 0, 2] {
        cluster.write(0, &[page]).unwrap();
    }
    cluster.settle().unwrap();
    let links = |group| -> Vec<(Lsn, Lsn)> {
        let records = cluster.segment(group, 0).durable().records();
        records.iter().map(|record| (record.prev_group, record.lsn)).collect()
    };
    assert_eq!(links(0), [(Lsn::ZERO, nth(1)), (nth(1), nth(4)), (nth(4), nth(5))]);
    assert_eq!(links(1), [(Lsn::ZERO, nth(2)), (nth(2), nth(3))]);
}

/// SIGMOD'17 §4.2.1: the SCL is where the chain of backlinks first has a hole, that record
/// included: what lies beyond a hole does not count.
#[test]
fn the_scl_is_the_end_of_the_chain_inclusive() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    for number in 1..=3 {
        cluster.write(0, &[0]).unwrap();
        let is_lost = number == 2;
        cluster.down(if is_lost { &[5] } else { &[] });
        cluster.settle().unwrap();
    }
    let complete = cluster.segment(0, 0).durable();
    assert_eq!((complete.scl().lsn(), complete.records().len()), (nth(3), 3));
    let holed = cluster.segment(0, 5).durable();
    assert_eq!((holed.scl().lsn(), holed.records().len()), (nth(1), 2));
}

/// SIGMOD'17 §3.3 and §4.2.1: segments gossip with their peers to find and fill gaps.
#[test]
fn gossip_fills_holes() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    for lost in [[5], [4], [5]] {
        cluster.down(&lost);
        cluster.write(0, &[0]).unwrap();
        cluster.settle().unwrap();
    }
    cluster.down(&[0, 1, 2, 3]);
    cluster.gossip().unwrap();
    for position in [4, 5] {
        assert_eq!(cluster.segment(0, position).durable().scl().lsn(), nth(3), "{position}");
    }
}

/// SIGMOD'17 §4.2.1: no LSN is allocated that is above the VDL and the allocation limit together,
/// so that the database can't get too far ahead of the storage.
#[test]
fn the_allocation_limit_holds_the_writer_back() {
    let limits = Limits { allocation_max: 10, batch_records_max: 5, ..WIDE };
    let mut cluster = Cluster::opened(geometry(1, limits));
    let throttled = |report: &Report| *report == Report::Refused(CommandRefusal::Throttled);
    cluster.write(0, &[0; 10]).unwrap();
    assert!(!has_report(&mut cluster, throttled));
    cluster.write(0, &[0]).unwrap();
    assert!(has_report(&mut cluster, throttled));
    cluster.settle().unwrap();
    cluster.write(0, &[0]).unwrap();
    assert!(!has_report(&mut cluster, throttled), "the VDL has advanced");
}

/// SIGMOD'17 §4.2.2: a commit is acknowledged when the VDL has reached its LSN, not before; four of
/// six copies bring it there.
#[test]
fn a_commit_is_acknowledged_with_its_fourth_copy() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[0]).unwrap();
    cluster.reports();
    for (position, copies) in [(4, 1), (0, 2), (5, 3), (2, 4), (1, 5), (3, 6)] {
        cluster.reach(0, &[position]).unwrap();
        let expected = if copies >= 4 { nth(1) } else { Lsn::ZERO };
        assert_eq!(vdl(&cluster, 0), expected, "{copies} copies");
        let is_told = has_report(&mut cluster, |report| matches!(report, Report::Durable { .. }));
        assert_eq!(is_told, copies == 4, "clients are told once, with {copies} copies");
    }
}

/// SIGMOD'17 §4.2.3, SIGMOD'18 §3.1: a read needs no quorum: the writer knows which segments are
/// complete and asks one of them.
#[test]
fn a_read_asks_one_complete_segment() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.down(&[5]);
    cluster.write(0, &[7]).unwrap();
    cluster.settle().unwrap();
    let complete = cluster.writers[0].complete(PgId::new(0));
    assert!(complete.contains(at(0)));
    assert!(!complete.contains(at(5)));
    cluster.down(&[1, 2, 3, 4, 5]);
    assert_eq!(read(&mut cluster, 0, 7, 0).unwrap().unwrap().lsn, nth(1));
    // One that isn't complete says so: it never answers with an older version.
    cluster.down(&[]);
    assert!(matches!(read(&mut cluster, 0, 7, 5), Err(Refusal::Incomplete { .. })));
}

/// SIGMOD'17 §4.2.3: a read is evaluated at its read point, the VDL when it was issued: a version
/// that became durable later isn't seen.
#[test]
fn a_read_sees_its_read_point() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[7]).unwrap();
    cluster.settle().unwrap();
    let (page, from) = (PageId::new(7), at(0));
    let ticket = Ticket::new(1);
    let read_point = cluster.writers[0].read_point();
    cluster.command(0, WriterInput::Read { ticket, page, read_point, from }).unwrap();
    let read = std::mem::take(&mut cluster.flight);
    cluster.write(0, &[7]).unwrap();
    cluster.settle().unwrap();
    cluster.reports();
    cluster.flight = read;
    cluster.settle().unwrap();
    assert!(has_report(&mut cluster, |report| match report {
        Report::Read { version, .. } => version.map(|record| record.lsn) == Some(nth(1)),
        Report::Confirmed { .. }
        | Report::Durable { .. }
        | Report::Grown { .. }
        | Report::Located { .. }
        | Report::Opened { .. }
        | Report::Overtaken { .. }
        | Report::ReadRefused { .. }
        | Report::Refused(_)
        | Report::Rejected { .. }
        | Report::Settled { .. }
        | Report::Written { .. } => false,
    }));
    assert_eq!(vdl(&cluster, 0), nth(2));
}

/// SIGMOD'17 §4.3, SIGMOD'18 §2.4: nothing of the writer's state is kept: a read quorum of every
/// group is enough for a new one to find the durable point again.
#[test]
fn the_durable_point_is_found_again_from_any_read_quorum() {
    for lost in [[0, 1, 2], [1, 3, 5], [2, 3, 4], [3, 4, 5]] {
        let mut cluster = Cluster::opened(geometry(2, WIDE));
        for (pages, down) in [([0, 1], [0, 5]), ([1, 2], [1, 3]), ([2, 3], [2, 4])] {
            cluster.down(&down);
            cluster.write(0, &pages).unwrap();
            cluster.settle().unwrap();
            cluster.down(&[]);
            cluster.gossip().unwrap();
        }
        cluster.down(&lost);
        cluster.recover().unwrap();
        cluster.settle().unwrap();
        assert_eq!(cluster.writers[1].history().unwrap().after(), nth(6));
    }
}

/// SIGMOD'17 §4.3: a recovery annuls every record above the new durable point with a truncation
/// range that covers the highest LSN that the old writer can have used.
#[test]
fn a_truncation_range_annuls_what_was_not_durable() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[0]).unwrap();
    cluster.settle().unwrap();
    // One record reaches a single segment, another one is late, and neither is ever durable.
    cluster.write(0, &[1]).unwrap();
    cluster.reach(0, &[0]).unwrap();
    let mut late = std::mem::take(&mut cluster.flight);
    cluster.down(&[0]);
    cluster.recover().unwrap();
    cluster.settle().unwrap();
    let history = cluster.writers[1].history().unwrap().clone();
    let highest = nth(1 + WIDE.allocation_max);
    assert_eq!((history.after(), history.through()), (nth(1), highest));

    cluster.down(&[]);
    assert_eq!(cluster.segment(0, 0).durable().records().len(), 2);
    cluster.gossip().unwrap();
    assert_eq!(cluster.segment(0, 0).durable().records().len(), 1, "gossip brings the range");
    cluster.flight.append(&mut late);
    cluster.settle().unwrap();
    for position in 0..6 {
        assert_eq!(cluster.segment(0, position).durable().scl().lsn(), nth(1));
    }
    cluster.write(1, &[2]).unwrap();
    cluster.settle().unwrap();
    assert_eq!(Some(vdl(&cluster, 1)), highest.plus(1), "no LSN is used twice");
}

/// SIGMOD'17 §4.3: truncation ranges carry their epoch and are durable, so that a recovery that is
/// interrupted and started again leaves no doubt about what is truncated.
#[test]
fn an_interrupted_recovery_leaves_no_doubt() {
    // The next recovery finds the range of the interrupted one, or it doesn't.
    for (quorum, is_found) in [([0, 1, 2], false), ([3, 4, 5], true)] {
        let mut cluster = Cluster::opened(geometry(1, WIDE));
        cluster.write(0, &[0]).unwrap();
        cluster.settle().unwrap();
        // The second writer dies when its range is on three segments.
        cluster.recover().unwrap();
        cluster.reach(0, &[3, 4, 5]).unwrap();
        assert_eq!(cluster.writers[1].phase(), PhaseName::Installing);
        cluster.flight.clear();
        let half = cluster.writers[1].history().unwrap().ranges().last().copied().unwrap();

        cluster.recover().unwrap();
        cluster.reach(0, &quorum).unwrap();
        cluster.settle().unwrap();
        cluster.gossip().unwrap();
        assert_eq!(vdl(&cluster, 2), nth(1));
        for position in 0..6 {
            let history = cluster.segment(0, position).durable().history();
            assert_eq!(history.epoch(), epoch(2));
            assert_eq!(history.ranges().contains(&half), is_found);
        }
    }
}

/// SIGMOD'18 §2.2: storage nodes have no vote: a writer sends each record once to each segment and
/// gets one acknowledgement; there is no second round.
#[test]
fn a_write_is_one_round_without_a_vote() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[0]).unwrap();
    assert_eq!(cluster.flight.len(), 6);
    for envelope in std::mem::take(&mut cluster.flight) {
        cluster.deliver(envelope).unwrap();
    }
    (0..6).for_each(|node| cluster.sync(node, 0).unwrap());
    let answers = std::mem::take(&mut cluster.flight);
    assert_eq!(answers.len(), 6);
    for envelope in answers {
        assert!(matches!(envelope, Envelope::Writer { message: ToWriter::Ack { .. }, .. }));
        cluster.deliver(envelope).unwrap();
    }
    assert!(cluster.flight.is_empty());
    assert_eq!(vdl(&cluster, 0), nth(1));
}

/// SIGMOD'18 §2.3, figure: with odd LSNs in one group and even ones in the other, and 105 and 106
/// short of their quorum, the PGCLs are 103 and 104, and the VCL is 104.
#[test]
fn with_105_and_106_short_of_a_quorum_the_vcl_is_104() {
    let mut cluster = Cluster::opened(geometry(2, WIDE));
    for number in 101..=104 {
        cluster.write(0, &[(number + 1) % 2]).unwrap();
    }
    cluster.settle().unwrap();
    cluster.write(0, &[0]).unwrap();
    cluster.write(0, &[1]).unwrap();
    cluster.reach(0, &[0, 1, 2]).unwrap();
    cluster.reach(1, &[3, 4, 5]).unwrap();
    assert_eq!((pgcl(&cluster, 0), pgcl(&cluster, 1)), (nth(3), nth(4)));
    assert_eq!(vcl(&cluster, 0), nth(4));
    // A record that meets its quorum out of order moves its group's PGCL, not the VCL.
    cluster.reach(1, &[0]).unwrap();
    assert_eq!((pgcl(&cluster, 1), vcl(&cluster, 0)), (nth(6), nth(4)));
    cluster.reach(0, &[3]).unwrap();
    assert_eq!(vcl(&cluster, 0), nth(6));
}

/// SIGMOD'18 §2.3: the VCL is the point before which all records have met their quorum, so a group
/// that nobody writes to holds nothing back.
#[test]
fn an_idle_group_does_not_freeze_the_vcl() {
    let mut cluster = Cluster::opened(geometry(3, WIDE));
    for _ in 0..4 {
        cluster.write(0, &[1]).unwrap();
    }
    cluster.settle().unwrap();
    assert_eq!(pgcl(&cluster, 0), Lsn::ZERO);
    assert_eq!((vcl(&cluster, 0), vdl(&cluster, 0)), (nth(4), nth(4)));
}

/// SIGMOD'18 §2.4: a new volume epoch boxes out old instances without waiting for any lease:
/// segments refuse requests of a stale epoch, and its writer learns it from them.
#[test]
fn a_new_epoch_fences_the_old_writer() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.recover().unwrap();
    cluster.reach(0, &[0, 1, 2]).unwrap();
    // Three sealed segments are enough: the old writer finds no write quorum any more.
    cluster.flight.clear();
    cluster.write(0, &[0]).unwrap();
    cluster.reach(0, &[3, 4, 5]).unwrap();
    assert_eq!(vdl(&cluster, 0), Lsn::ZERO);
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[0].phase(), PhaseName::Fenced);
    assert_eq!(cluster.writers[0].overtaken_by(), Some(epoch(1)));
    for position in 0..3 {
        assert!(cluster.segment(0, position).durable().records().is_empty());
    }
}

/// SIGMOD'18 §2.4: a request of the old epoch that is on its way to the disk when the new one
/// arrives isn't acknowledged any more.
#[test]
fn a_seal_stops_acknowledgements_that_are_under_way() {
    let mut cluster = Cluster::opened(geometry(1, WIDE));
    cluster.write(0, &[0]).unwrap();
    let append = cluster.flight.pop_front().unwrap();
    cluster.flight.clear();
    cluster.deliver(append).unwrap();
    cluster.recover().unwrap();
    let seal = cluster.flight.pop_front().unwrap();
    cluster.flight.clear();
    assert!(matches!(&seal, Envelope::Segment { node: 0, from: Peer::Writer(e), .. }
        if *e == epoch(1)));
    cluster.deliver(seal).unwrap();
    cluster.sync(0, 0).unwrap();
    assert!(cluster.flight.is_empty(), "the record is durable, and nobody is told");
    cluster.sync(0, 0).unwrap();
    let Some(Envelope::Writer { message, .. }) = cluster.flight.pop_front() else {
        panic!("the seal is answered")
    };
    // The report shows the record: the new writer may adopt it, and then it does count.
    let ToWriter::Sealed { epoch: sealed, answer } = message else { panic!("{message:?}") };
    assert_eq!((sealed, answer.scl.lsn()), (epoch(1), nth(1)));
}
