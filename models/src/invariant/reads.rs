//! P4, reads: a read at a read point returns exactly the effect of the records at or under it
//! that survive; never a record past it, a hole, an annulled record, or one that can still be
//! lost.
//!
//! TLA+: none, reads are not in the specification. Evaluated on every state: every open writer
//! reads every page of every segment, at the VDL and at every earlier consistency point, through
//! the machines' own messages; what is answered is compared with its log in the abstract volume.
//! So does the reader, at its VDL and at the lowest point that it may read at; and what it caches
//! is compared as well.

use quorate_core::consistency::ReadPoint;
use quorate_core::effect::{Report, SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::id::{PageId, Position, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, ToReader, ToWriter};
use quorate_core::reader::{ReadRefusal, Reader, ReaderEffect, ReaderInput, ReaderReport};
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::Writer;

use super::Property;
use crate::volume_spec::Volume;
use crate::witness::Witness;
use crate::world::{State, World};

/// Evaluates the reads of writer number `index`; `view` names the pair of that writer and the
/// abstract volume.
pub(crate) fn broken<R: Rules>(
    world: &World<R>,
    state: &State,
    index: usize,
    view: u32,
) -> Option<Property> {
    let volume = world.volumes.get(state.volume);
    let writer = &world.writers.get(state.writer(index)).machine;
    (0..world.slots_count()).find_map(|place| {
        let slot = state.slot(place);
        // The top bit keeps these keys apart from those of pairs of writer and volume.
        let key = 1 << 63 | u64::from(view) << 32 | u64::from(slot);
        world.memos.read.get_or(key, || {
            let segment = &world.slots.get(slot).slot.segment;
            let holds =
                pages(world).all(|page| read_is_right(world, writer, segment, volume, index, page));
            (!holds).then_some(Property::Reads)
        })
    })
}

pub(crate) fn pages<R: Rules>(world: &World<R>) -> impl Iterator<Item = PageId> {
    let mut pages: Vec<u64> = world.configuration.mtrs.concat();
    pages.sort_unstable();
    pages.dedup();
    pages.into_iter().map(PageId::new)
}

fn read_is_right<R: Rules>(
    world: &World<R>,
    writer: &Writer<R>,
    segment: &Segment<R>,
    volume: &Volume,
    epoch: usize,
    page: PageId,
) -> bool {
    let Some(own) = volume.epochs.get(epoch) else { return false };
    let mut points = vec![None];
    if let Some(vdl) = writer.vdl() {
        let earlier = own.log.iter().filter(|record| record.cpl).map(|record| record.lsn);
        points.extend(earlier.filter_map(|lsn| ReadPoint::earlier(vdl, lsn)).map(Some));
    }
    let mut saw = |refusal: &Refusal| world.witnesses.saw(Witness::of_refusal(refusal));
    points.into_iter().all(|point| match read(writer, segment, page, point, &mut saw) {
        None => true,
        Some((read_point, version)) => {
            world.witnesses.saw(Witness::ReadServed);
            read_point <= own.told && version == volume.version(epoch, page, read_point)
        }
    })
}

/// Lets `writer` read `page` from `segment`. Returns the read point and the record, `None` when
/// either refuses or the page lies in another group; `refused` gets the segment's reason.
pub fn read<R: Rules>(
    writer: &Writer<R>,
    segment: &Segment<R>,
    page: PageId,
    read_point: Option<ReadPoint>,
    refused: &mut dyn FnMut(&Refusal),
) -> Option<(Lsn, Option<Record>)> {
    if writer.geometry().group_of(page) != segment.durable().group() {
        return None;
    }
    let from = Position::new(0)?;
    let ticket = Ticket::new(0);
    let mut writer = writer.clone();
    let mut effects = Vec::new();
    writer.step(WriterInput::Read { ticket, page, read_point, from }, &mut effects);
    let (group, message) = effects.drain(..).find_map(|effect| match effect {
        WriterEffect::Send { group, message, .. } => Some((group, message)),
        WriterEffect::Report(_) | WriterEffect::SendReader { .. } => None,
    })?;
    let mut answers = Vec::new();
    let peer = Peer::Writer(writer.epoch());
    segment.clone().step(SegmentInput::Receive { from: peer, message }, &mut answers);
    for answer in answers {
        if let SegmentEffect::SendWriter { message, .. } = answer {
            if let ToWriter::Refused { refusal, .. } = &message {
                refused(refusal);
            }
            writer.step(WriterInput::Receive { group, from, message }, &mut effects);
        }
    }
    effects.into_iter().find_map(|effect| match effect {
        WriterEffect::Report(Report::Read { read_point, version, .. }) => {
            Some((read_point.lsn(), version))
        }
        WriterEffect::Report(_) | WriterEffect::Send { .. } | WriterEffect::SendReader { .. } => {
            None
        }
    })
}

/// Evaluates the reader, if there is one.
pub(crate) fn broken_of_reader<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    let reader = world.reader(state)?;
    let vdl = reader.vdl()?;
    let number = usize::from(world.configuration.number(reader.epoch()?)?);
    let volume = world.volumes.get(state.volume);
    let pair = world.pair(state.reader, state.volume);
    let own = world.memos.reader.get_or(u64::from(pair), || {
        (!reader_is_right(world, reader, volume, number, vdl.lsn())).then_some(Property::Reads)
    });
    own.or_else(|| {
        (0..world.slots_count()).find_map(|place| {
            let slot = state.slot(place);
            // Pairs start at one, so these keys differ from those above.
            let key = u64::from(pair) << 32 | u64::from(slot).saturating_add(1);
            world.memos.reader.get_or(key, || {
                let segment = &world.slots.get(slot).slot.segment;
                let holds = pages(world)
                    .all(|page| reader_reads_right(world, reader, segment, volume, number, page));
                (!holds).then_some(Property::Reads)
            })
        })
    })
}

/// Returns whether the reader's read point is one that its writer has told, and whether its cached
/// pages are what that writer's log makes of them there (edges 15, 49 to 51).
fn reader_is_right<R: Rules>(
    world: &World<R>,
    reader: &Reader<R>,
    volume: &Volume,
    number: usize,
    vdl: Lsn,
) -> bool {
    let Some(own) = volume.epochs.get(number) else { return false };
    let is_point = own.base == Some(vdl) || own.log.iter().any(|r| r.cpl && r.lsn == vdl);
    let is_cached =
        |(page, version): (PageId, Option<Record>)| version == volume.version(number, page, vdl);
    // Whoever was told of a commit, by anybody, and says so, sees it or waits.
    let told = volume.told();
    let minimum = |page| match ask_reader(reader, page, None, told).pop() {
        Some(ReaderEffect::Report(ReaderReport::Read { read_point, .. })) => {
            read_point.lsn() >= told
        }
        Some(ReaderEffect::Report(ReaderReport::Refused { refusal, .. })) => {
            let is_early = matches!(refusal, ReadRefusal::NotYet { .. });
            world.witnesses.saw_if(is_early, Witness::ReaderNotYet);
            true
        }
        Some(ReaderEffect::SendSegment { .. }) => vdl >= told,
        Some(
            ReaderEffect::Discard { .. } | ReaderEffect::Report(_) | ReaderEffect::SendWriter(_),
        )
        | None => true,
    };
    vdl <= own.told && is_point && reader.pages().all(is_cached) && pages(world).all(minimum)
}

fn ask_reader<R: Rules>(
    reader: &Reader<R>,
    page: PageId,
    read_point: Option<ReadPoint>,
    at_least: Lsn,
) -> Vec<ReaderEffect> {
    let mut effects = Vec::new();
    let Some(from) = Position::new(0) else { return effects };
    let ticket = Ticket::new(u64::MAX);
    let input = ReaderInput::Read { ticket, page, read_point, at_least, from };
    reader.clone().step(input, &mut effects);
    effects
}

/// Lets the reader read `page` from `segment`, at its VDL and at its floor.
fn reader_reads_right<R: Rules>(
    world: &World<R>,
    reader: &Reader<R>,
    segment: &Segment<R>,
    volume: &Volume,
    number: usize,
    page: PageId,
) -> bool {
    if reader.geometry().group_of(page) != segment.durable().group() {
        return true;
    }
    [None, reader.floor()].into_iter().all(|point| {
        ask_reader(reader, page, point, Lsn::ZERO).into_iter().all(|effect| match effect {
            ReaderEffect::Report(ReaderReport::Read { read_point, version, .. }) => {
                version == volume.version(number, page, read_point.lsn())
            }
            ReaderEffect::SendSegment { message, .. } => {
                let mut answers = Vec::new();
                let from = Peer::Reader(reader.id());
                segment.clone().step(SegmentInput::Receive { from, message }, &mut answers);
                answers.into_iter().all(|answer| answer_is_right(world, volume, number, answer))
            }
            ReaderEffect::Discard { .. }
            | ReaderEffect::Report(_)
            | ReaderEffect::SendWriter(_) => true,
        })
    })
}

fn answer_is_right<R: Rules>(
    world: &World<R>,
    volume: &Volume,
    number: usize,
    answer: SegmentEffect,
) -> bool {
    let SegmentEffect::SendReader { message, .. } = answer else { return false };
    match message {
        ToReader::Read { page, read_point, version, .. } => {
            world.witnesses.saw(Witness::ReaderServed);
            version == volume.version(number, page, read_point.lsn())
        }
        ToReader::Refused { refusal, .. } => {
            let is_collected = matches!(refusal, Refusal::Collected { .. });
            world.witnesses.saw_if(is_collected, Witness::ReaderRefused);
            true
        }
        ToReader::Redo(_) | ToReader::Standing { .. } | ToReader::Start(_) => false,
    }
}
