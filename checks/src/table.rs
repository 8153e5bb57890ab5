//! The table of segments by LSN, and the lines about writers: a whole state at a glance.

use std::collections::BTreeMap;

use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::message::ToSegment;
use quorate_core::record::Record;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use quorate_models::volume_spec::EpochLog;
use quorate_models::world::{State, World};

use crate::label::{Names, Party};

/// What a segment has of one record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell {
    /// It holds another record with this LSN and epoch than the one written.
    Altered,
    /// Its history annuls the record.
    Annulled,
    /// Durable.
    Held,
    /// Nothing.
    Missing,
    /// Durable although its history annuls the record.
    Revived,
    /// Received, but not durable.
    Unsynced,
}

impl Cell {
    /// Every kind of cell, in the order of a legend.
    pub const ALL: [Self; 6] =
        [Self::Held, Self::Unsynced, Self::Missing, Self::Annulled, Self::Revived, Self::Altered];

    /// Returns the word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Annulled => "annulled",
            Self::Held => "held",
            Self::Revived => "revived",
            Self::Missing => "-",
            Self::Unsynced => "unsynced",
        }
    }

    const fn is_durable(self) -> bool {
        match self {
            Self::Held | Self::Revived => true,
            Self::Altered | Self::Annulled | Self::Missing | Self::Unsynced => false,
        }
    }
}

/// One record that some writer allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The record.
    pub record: Record,
    /// Who wrote it: `e1`.
    pub epoch: String,
    /// How many segments have it durably.
    pub copies: usize,
    /// The writers that told their clients that it is durable: `W1`.
    pub told: Vec<String>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentRow {
    /// Its name.
    pub name: String,
    /// The highest epoch promised durably; with an arrow if it has heard of a higher one.
    pub promise: String,
    /// The epoch of its history.
    pub history: String,
    /// Its SCL.
    pub scl: Lsn,
    /// By the columns of its group.
    pub cells: Vec<Cell>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTable {
    /// Which.
    pub group: PgId,
    /// By LSN, then by epoch.
    pub columns: Vec<Column>,
    /// By position.
    pub segments: Vec<SegmentRow>,
}

/// One writer.
#[derive(Clone, Debug, PartialEq)]
pub struct WriterRow {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: String,
    /// What it is doing.
    pub phase: &'static str,
    /// Its VDL, if it is open.
    pub vdl: Option<Lsn>,
    /// The recovery point at which it opened, if it did.
    pub base: Option<Lsn>,
    /// The highest LSN that its clients were told to be durable.
    pub told: Lsn,
    /// The log that it extends, as its clients know it.
    pub log: Vec<Lsn>,
}

/// A whole state.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The groups.
    pub groups: Vec<GroupTable>,
    /// The writers that have started.
    pub writers: Vec<WriterRow>,
}

impl Table {
    /// Returns the table of `state`.
    #[must_use]
    pub fn of<R: Rules>(world: &World<R>, state: &State) -> Self {
        let names = Names::of(world.configuration());
        let writers: Vec<&Writer<R>> = world.writers(state).collect();
        let logs = &world.volume(state).epochs;
        let rows = writers.iter().enumerate().map(|(index, writer)| {
            let log = logs.get(index);
            WriterRow {
                name: names.party(Party::Writer(index)),
                epoch: names.epoch(writer.epoch()),
                phase: phase(writer.phase()),
                vdl: writer.vdl().map(|vdl| vdl.lsn()),
                base: log.and_then(|log| log.base),
                told: told(log, writer),
                log: log.map_or_else(Vec::new, |log| log.log.iter().map(|r| r.lsn).collect()),
            }
        });
        let writer_rows = rows.collect();
        let known = records(world, state);
        let groups = world.configuration().groups().map(|group| {
            let of_group = |record: &&Record| record.group == group;
            let columns: Vec<Record> = known.iter().filter(of_group).copied().collect();
            group_table(world, state, names, group, &columns, &writers)
        });
        Self { groups: groups.collect(), writers: writer_rows }
    }
}

fn group_table<R: Rules>(
    world: &World<R>,
    state: &State,
    names: Names,
    group: PgId,
    records: &[Record],
    writers: &[&Writer<R>],
) -> GroupTable {
    let positions = world.configuration().quorums.positions();
    let segments: Vec<SegmentRow> = positions
        .filter_map(|position| {
            let segment = world.segment(state, group, position)?;
            Some(segment_row(names, group, position, segment, records))
        })
        .collect();
    let logs = &world.volume(state).epochs;
    let columns = records.iter().enumerate().map(|(index, record)| {
        let has = |row: &&SegmentRow| row.cells.get(index).is_some_and(|cell| cell.is_durable());
        let told = writers.iter().enumerate().filter(|(number, writer)| {
            let log = logs.get(*number);
            log.is_some_and(|log| log.log.contains(record)) && told(log, writer) >= record.lsn
        });
        Column {
            record: *record,
            epoch: names.epoch(record.epoch),
            copies: segments.iter().filter(has).count(),
            told: told.map(|(number, _)| names.party(Party::Writer(number))).collect(),
        }
    });
    GroupTable { group, columns: columns.collect(), segments }
}

fn segment_row<R: Rules>(
    names: Names,
    group: PgId,
    position: Position,
    segment: &Segment<R>,
    records: &[Record],
) -> SegmentRow {
    let image = segment.durable();
    let promised = names.epoch(image.promised());
    let promise = if segment.heard() > image.promised() {
        format!("{promised}>{}", names.epoch(segment.heard()))
    } else {
        promised
    };
    SegmentRow {
        name: names.party(Party::Segment { group, position }),
        promise,
        history: names.epoch(image.history().epoch()),
        scl: image.scl().lsn(),
        cells: records.iter().map(|record| cell(segment, record)).collect(),
    }
}

fn cell<R: Rules>(segment: &Segment<R>, record: &Record) -> Cell {
    let image = segment.durable();
    let is_same = |other: &&Record| other.lsn == record.lsn && other.epoch == record.epoch;
    let is_annulled = image.history().annuls(record);
    match image.records().iter().find(is_same) {
        Some(_) if is_annulled => return Cell::Revived,
        Some(held) if held != record => return Cell::Altered,
        Some(_) => return Cell::Held,
        None => {}
    }
    let mut pending =
        segment.pending().flat_map(|(_, write, _): (_, &SegmentWrite, _)| write.records.iter());
    if is_annulled {
        Cell::Annulled
    } else if pending.any(|other| is_same(&other)) {
        Cell::Unsynced
    } else {
        Cell::Missing
    }
}

/// Returns every record that anybody has written, sent or stored, by LSN and epoch. What its
/// writer made of it comes first: a copy that differs is shown as altered.
fn records<R: Rules>(world: &World<R>, state: &State) -> Vec<Record> {
    let mut known: BTreeMap<(Lsn, VolumeEpoch), Record> = BTreeMap::new();
    let mut add = |record: &Record| {
        known.entry((record.lsn, record.epoch)).or_insert(*record);
    };
    world.volume(state).epochs.iter().flat_map(|epoch| &epoch.log).for_each(&mut add);
    for (index, _) in world.writers(state).enumerate() {
        for (_, _, message) in world.sent(state, index) {
            if let ToSegment::Append(append) = message {
                append.records.iter().for_each(&mut add);
            }
        }
    }
    for group in world.configuration().groups() {
        for position in Position::first(world.configuration().members()) {
            let Some(segment) = world.segment(state, group, position) else { continue };
            segment.durable().records().iter().for_each(&mut add);
            for (_, write, _) in segment.pending() {
                write.records.iter().for_each(&mut add);
            }
        }
    }
    known.into_values().collect()
}

/// Returns the highest LSN that clients of a writer were told. A step that the abstract volume
/// can't take has left no mark there, but the machine knows.
fn told<R: Rules>(log: Option<&EpochLog>, writer: &Writer<R>) -> Lsn {
    let vdl = writer.vdl().map_or(Lsn::ZERO, |vdl| vdl.lsn());
    log.map_or(Lsn::ZERO, |log| log.told).max(vdl)
}

const fn phase(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Fenced => "fenced",
        PhaseName::Installing => "installing",
        PhaseName::Open => "open",
        PhaseName::Sealing => "sealing",
    }
}
