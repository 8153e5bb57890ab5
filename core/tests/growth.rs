//! A volume that grows: a group is added by the open writer, and every later recovery finds it, or
//! nobody ever has (protocol: geometry; edge 55).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod support;

use quorate_core::effect::{CommandRefusal, Report, WriterInput};
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PageId, PgId};
use quorate_core::membership::{Step, StepRefusal};
use quorate_core::rules::Sound;
use quorate_core::writer::PhaseName;
use support::{Cluster, WIDE, geometry, refused_command};

const FIRST: PgId = PgId::new(0);
const SECOND: PgId = PgId::new(1);
const GROW: WriterInput = WriterInput::Step { group: FIRST, step: Step::Grow };

/// One group of ten pages, which can get others.
fn bounded() -> VolumeGeometry {
    geometry(1, WIDE).with_group_pages(10).unwrap()
}

/// A volume of one group that is open, and the empty segments of another one.
fn growing() -> Cluster<Sound> {
    let mut cluster = Cluster::opened(bounded());
    cluster.add_segments();
    cluster
}

fn grown() -> Cluster<Sound> {
    let mut cluster = growing();
    cluster.command(0, GROW).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[0].geometry().groups_count(), 2);
    cluster.reports();
    cluster
}

fn refusals(cluster: &mut Cluster<Sound>) -> Vec<CommandRefusal> {
    cluster.reports().into_iter().filter_map(refused_command).collect()
}

/// A page beyond the volume would have no segments, or later others than those that it was sent to.
#[test]
fn pages_of_a_group_can_be_written_once_it_is_there() {
    let mut cluster = growing();
    cluster.write(0, &[3, 12]).unwrap();
    let beyond = CommandRefusal::BeyondVolume { page: PageId::new(12) };
    assert_eq!(refusals(&mut cluster), [beyond]);
    cluster.command(0, GROW).unwrap();
    cluster.write(0, &[12]).unwrap();
    assert_eq!(refusals(&mut cluster), [beyond], "nobody knows of the group yet");
    cluster.settle().unwrap();
    assert!(cluster.reports().contains(&(0, Report::Grown { group: SECOND })));
    cluster.write(0, &[3, 12]).unwrap();
    cluster.settle().unwrap();
    assert_eq!(refusals(&mut cluster), []);
    assert_eq!(cluster.segment(1, 0).durable().records()[0].page, PageId::new(12));
    assert_eq!(cluster.writers[0].vdl().map(|vdl| vdl.lsn()), cluster.writers[0].tail());
}

/// What was written in a new group would be lost by whoever knows of the first one only.
#[test]
fn a_recovery_finds_a_group_that_it_did_not_know_of() {
    let mut cluster = grown();
    cluster.write(0, &[12]).unwrap();
    cluster.settle().unwrap();
    let told = cluster.writers[0].vdl();
    cluster.recover().unwrap();
    assert_eq!(cluster.writers[1].geometry().groups_count(), 1);
    cluster.settle().unwrap();
    let next = &cluster.writers[1];
    assert_eq!((next.phase(), next.vdl()), (PhaseName::Open, told));
    assert_eq!(next.geometry().groups_count(), 2);
    assert_eq!(next.membership(FIRST).unwrap().added(), next.geometry().added());
    // And the one after it, since it was proposed anew.
    cluster.write(1, &[13]).unwrap();
    cluster.settle().unwrap();
    cluster.recover().unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[2].geometry().groups_count(), 2);
    assert_eq!(cluster.writers[2].vdl(), cluster.writers[1].vdl());
}

/// A group whose segments are not there would keep every later recovery from opening.
#[test]
fn a_group_that_nobody_founds_is_never_seen() {
    let mut cluster = growing();
    for node in cluster.nodes.iter_mut().filter(|node| node.group == SECOND).skip(3) {
        node.is_down = true;
    }
    cluster.command(0, GROW).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[0].geometry().groups_count(), 1);
    cluster.command(0, GROW).unwrap();
    let under_way = CommandRefusal::Step(StepRefusal::Unsettled);
    assert_eq!(refusals(&mut cluster), [under_way]);
    cluster.write(0, &[3]).unwrap();
    cluster.settle().unwrap();
    cluster.recover().unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[1].phase(), PhaseName::Open);
    assert_eq!(cluster.writers[1].geometry().groups_count(), 1);
}

/// A group that came too late for the writer that began it could be used by two writers.
#[test]
fn the_next_writer_adds_the_group_that_an_overtaken_one_began() {
    let mut cluster = growing();
    cluster.command(0, GROW).unwrap();
    // All that the first writer has sent is still on its way when the next one opens.
    let late = std::mem::take(&mut cluster.flight);
    cluster.recover().unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[1].geometry().groups_count(), 1);
    cluster.flight.extend(late);
    cluster.command(1, GROW).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[1].geometry().groups_count(), 2);
    assert_eq!(cluster.writers[0].geometry().groups_count(), 1);
    cluster.write(1, &[12]).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.writers[1].vdl().map(|vdl| vdl.lsn()), cluster.writers[1].tail());
}
