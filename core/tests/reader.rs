//! What drivers ask of readers, and writers of what readers need, that no model has a step for.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod support;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::effect::{SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::formula::Half;
use quorate_core::geometry::{Added, VolumeGeometry};
use quorate_core::hold::{HoldName, Holds};
use quorate_core::id::{Incarnation, PageId, PgId, ReaderId, SegmentId, SegmentSet, Ticket};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Step;
use quorate_core::message::{FromReader, Peer, Redo, Start, ToReader, ToSegment};
use quorate_core::reader::{Reader, ReaderEffect, ReaderInput, ReaderReport};
use quorate_core::record::Record;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use support::{WIDE, at, change, epoch, geometry, vdl};

const GROUP: PgId = PgId::new(0);
const PAGE: PageId = PageId::new(0);
const READER: ReaderId = ReaderId::new(7);

/// A writer with the six segments of its only group.
struct Volume {
    writer: Writer,
    segments: Vec<Segment>,
    to_reader: Vec<ToReader>,
    /// Segments that no records reach.
    deaf: SegmentSet,
}

impl Volume {
    fn open() -> Self {
        let geometry: VolumeGeometry = geometry(1, WIDE);
        let image = SegmentImage::create(GROUP, geometry).unwrap();
        let segments = (0..6).map(|_| Segment::recover(image.clone())).collect();
        let mut effects = Vec::new();
        let writer = Writer::open(epoch(0), geometry, &mut effects);
        let deaf = SegmentSet::EMPTY;
        let mut volume = Self { writer, segments, to_reader: Vec::new(), deaf };
        volume.carry_out(effects);
        assert_eq!(volume.writer.phase(), PhaseName::Open);
        volume
    }

    fn step(&mut self, input: WriterInput) {
        let mut effects = Vec::new();
        self.writer.step(input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, mut effects: Vec<WriterEffect>) {
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    WriterEffect::Report(_) => {}
                    WriterEffect::SendReader { to, message } => {
                        assert_eq!(to, READER);
                        self.to_reader.push(message);
                    }
                    WriterEffect::Send { group, to, message } => {
                        for (index, segment) in self.segments.iter_mut().enumerate() {
                            let is_append = matches!(message, ToSegment::Append(_));
                            if !to.contains(at(index)) || is_append && self.deaf.contains(at(index))
                            {
                                continue;
                            }
                            let from = Peer::Writer(epoch(0));
                            let message = message.clone();
                            for message in run(segment, SegmentInput::Receive { from, message }) {
                                let from = at(index);
                                let input = WriterInput::Receive { group, from, message };
                                self.writer.step(input, &mut effects);
                            }
                        }
                    }
                }
            }
        }
    }

    fn write(&mut self) -> Lsn {
        self.step(WriterInput::Write { changes: vec![change(0, 1)] });
        self.writer.vdl().unwrap().lsn()
    }
}

fn run(segment: &mut Segment, input: SegmentInput) -> Vec<quorate_core::message::ToWriter> {
    let (mut inputs, mut answers) = (vec![input], Vec::new());
    while let Some(input) = inputs.pop() {
        let mut effects = Vec::new();
        segment.step(input, &mut effects);
        for effect in effects {
            match effect {
                SegmentEffect::Persist { id, .. } => inputs.push(SegmentInput::Durable(id)),
                SegmentEffect::SendWriter { message, .. } => answers.push(message),
                SegmentEffect::SendReader { .. }
                | SegmentEffect::SendSegment { .. }
                | SegmentEffect::Unusable(_) => {}
            }
        }
    }
    answers
}

fn receive(reader: &mut Reader, message: ToReader) -> Vec<ReaderEffect> {
    let mut effects = Vec::new();
    reader.step(ReaderInput::Receive(message), &mut effects);
    effects
}

/// A floor that moved before anybody said what is to be held would pass the holds of the writer
/// before; one that went back would promise what is gone.
#[test]
fn the_floor_waits_for_the_holds_and_never_goes_back() {
    let mut volume = Volume::open();
    let first = volume.write();
    assert_eq!(volume.writer.floor().unwrap().lsn(), Lsn::ZERO);
    let holds = Holds::new().with(HoldName::Clone(1), first).with(HoldName::Archive, Lsn::new(1));
    volume.step(WriterInput::Hold { holds: holds.clone() });
    assert_eq!(volume.writer.floor().unwrap().lsn(), Lsn::new(1));
    volume.step(WriterInput::Hold { holds: holds.clone().without(HoldName::Archive) });
    let second = volume.write();
    assert!(second > first);
    assert_eq!(volume.writer.floor().unwrap().lsn(), first);
    volume.step(WriterInput::Hold { holds });
    assert_eq!(volume.writer.floor().unwrap().lsn(), first);
}

/// A reader that leaves, or is taken for dead, must not pin the floor for ever.
#[test]
fn the_floor_passes_a_reader_that_has_left() {
    for leaving in [
        WriterInput::Expel { reader: READER },
        WriterInput::ReceiveReader { from: READER, message: FromReader::Detach },
    ] {
        let mut volume = Volume::open();
        volume.step(WriterInput::Hold { holds: Holds::new() });
        let start = volume.writer.vdl().unwrap().lsn();
        let message = FromReader::Attach { floor: None };
        volume.step(WriterInput::ReceiveReader { from: READER, message });
        let end = volume.write();
        assert_eq!(volume.writer.floor().unwrap().lsn(), start);
        assert_eq!(volume.writer.readers().count(), 1);
        volume.step(leaving);
        assert_eq!(volume.writer.floor().unwrap().lsn(), end);
        assert_eq!(volume.writer.readers().count(), 0);
    }
}

/// A reader that isn't told what segments hold would ask one that has nothing.
#[test]
fn a_reader_learns_which_segments_are_complete() {
    let mut volume = Volume::open();
    let message = FromReader::Attach { floor: None };
    volume.step(WriterInput::ReceiveReader { from: READER, message });
    let idle = volume.segments.pop().unwrap();
    volume.write();
    volume.segments.push(idle);
    volume.step(WriterInput::Brief);
    let mut reader = Reader::new(READER, geometry(1, WIDE));
    for message in volume.to_reader.drain(..) {
        receive(&mut reader, message);
    }
    assert_eq!(reader.vdl(), volume.writer.vdl());
    assert_eq!(reader.complete(GROUP), SegmentSet::from_bits(0b01_1111));
    assert_eq!(reader.complete(GROUP), volume.writer.complete(GROUP));
}

/// A reader must hear of who joins and who is gone, and of a VDL that a step of a change advances:
/// under other quorums, what was acknowledged before may be enough.
#[test]
fn a_reader_learns_of_a_change_of_members() {
    let mut volume = Volume::open();
    let image = SegmentImage::join(GROUP, geometry(1, WIDE), Incarnation::new(1)).unwrap();
    volume.segments.push(Segment::recover(image));
    let attach = FromReader::Attach { floor: None };
    volume.step(WriterInput::ReceiveReader { from: READER, message: attach });
    let mut reader = Reader::new(READER, geometry(1, WIDE));
    let listen = |volume: &mut Volume, reader: &mut Reader| {
        volume.step(WriterInput::Brief);
        for message in std::mem::take(&mut volume.to_reader) {
            receive(reader, message);
        }
        assert_eq!(reader.vdl(), volume.writer.vdl());
        reader.complete(GROUP)
    };
    let six = SegmentSet::from_bits(0b011_1111);
    assert_eq!(listen(&mut volume, &mut reader), six);
    let new = SegmentId { position: at(6), incarnation: Incarnation::new(1) };
    volume.step(WriterInput::Step { group: GROUP, step: Step::Replace { old: at(5), new } });
    assert_eq!(listen(&mut volume, &mut reader), SegmentSet::from_bits(0b111_1111));
    // Four of the old members take the write, but of the new ones only three.
    volume.deaf = SegmentSet::from_bits(0b101_1000);
    let before = volume.writer.vdl();
    volume.step(WriterInput::Write { changes: vec![change(0, 1)] });
    assert_eq!(volume.writer.vdl(), before);
    volume.step(WriterInput::Step { group: GROUP, step: Step::Revert(Half::Older) });
    assert!(volume.writer.vdl() > before);
    assert_eq!(listen(&mut volume, &mut reader), SegmentSet::from_bits(0b010_0111));
    volume.deaf = SegmentSet::EMPTY;
    volume.write();
    assert_eq!(listen(&mut volume, &mut reader).bits() & !six.bits(), 0, "who left is not asked");
}

fn start(session: u64, at: u64) -> ToReader {
    let (epoch, floor) = (epoch(0), ReadPoint::at(vdl(at)));
    ToReader::Start(Start { epoch, session, vdl: vdl(at), floor, ends: vec![Lsn::new(at)] })
}

fn record(lsn: u64) -> Record {
    let before = Lsn::new(lsn - 1);
    Record {
        lsn: Lsn::new(lsn),
        epoch: epoch(0),
        prev_volume: before,
        prev_group: before,
        group: GROUP,
        page: PAGE,
        cpl: true,
        payload: Default::default(),
    }
}

fn redo(session: u64, number: u64, end: Vdl, lsn: u64) -> ToReader {
    let records = vec![record(lsn)];
    ToReader::Redo(Redo { epoch: epoch(0), session, number, vdl: end, added: Added::NONE, records })
}

/// Returns a reader at LSN 1 that has cached the page.
fn caching() -> Reader {
    let mut reader = Reader::new(READER, geometry(1, WIDE));
    receive(&mut reader, start(0, 1));
    let mut effects = Vec::new();
    let (ticket, from) = (Ticket::new(1), at(0));
    let (read_point, at_least) = (None, Lsn::ZERO);
    let input = ReaderInput::Read { ticket, page: PAGE, read_point, at_least, from };
    reader.step(input, &mut effects);
    assert!(matches!(effects.as_slice(), [ReaderEffect::SendSegment { .. }]));
    let (read_point, version) = (ReadPoint::at(vdl(1)), Some(record(1)));
    let epoch: VolumeEpoch = epoch(0);
    receive(&mut reader, ToReader::Read { epoch, ticket, page: PAGE, read_point, version });
    assert_eq!(reader.pages().collect::<Vec<_>>(), [(PAGE, Some(record(1)))]);
    reader
}

/// A driver keeps the bytes of records by what it is told: bytes that nobody discards are a leak,
/// and bytes discarded while a page needs them are a hole.
#[test]
fn the_bytes_of_a_record_are_discarded_once_nothing_holds_it() {
    let discard = |lsn: u64| ReaderEffect::Discard { lsn: Lsn::new(lsn) };
    let mut reader = caching();
    assert!(!receive(&mut reader, redo(0, 0, vdl(1), 2)).contains(&discard(2)), "it is above");
    // The same message again: its record is still held.
    assert_eq!(receive(&mut reader, redo(0, 0, vdl(1), 2)), []);
    let effects = receive(&mut reader, redo(0, 1, vdl(2), 3));
    assert!(effects.contains(&discard(1)));
    assert!(!effects.contains(&discard(2)));
    // After a gap what is above the VDL goes, and the page stays what it was at the VDL.
    let effects = receive(&mut reader, redo(0, 5, vdl(4), 4));
    assert_eq!(effects.last(), Some(&ReaderEffect::Report(ReaderReport::Lost)));
    assert!(effects.contains(&discard(3)));
    assert!(effects.contains(&discard(4)));
    let mut effects = Vec::new();
    reader.step(ReaderInput::Evict { page: PAGE }, &mut effects);
    assert_eq!(effects, [discard(2)]);
    assert_eq!(reader.pages_count(), 0);
}

/// A page that was cached before a gap is right only where the reader was: a stream that begins
/// there may keep it, one that begins later may not.
#[test]
fn a_cache_survives_a_new_stream_only_at_the_same_point() {
    for (begins, kept) in [(1, 1), (2, 0)] {
        let mut reader = caching();
        receive(&mut reader, redo(0, 3, vdl(2), 3));
        assert!(!reader.is_following());
        receive(&mut reader, start(1, begins));
        assert!(reader.is_following());
        assert_eq!(reader.pages_count(), kept);
    }
}

/// A later writer that opens below has taken the volume back: what a reader showed above is gone.
/// One of the same epoch has only said it late.
#[test]
fn a_reader_goes_back_with_the_volume() {
    let mut reader = caching();
    receive(&mut reader, redo(0, 0, vdl(2), 2));
    assert_eq!(reader.vdl(), Some(vdl(2)));
    receive(&mut reader, start(1, 1));
    assert_eq!(reader.vdl(), Some(vdl(2)), "a late message");
    let (epoch, floor) = (epoch(1), ReadPoint::at(vdl(1)));
    let ends = vec![Lsn::new(1)];
    receive(&mut reader, ToReader::Start(Start { epoch, session: 0, vdl: vdl(1), floor, ends }));
    assert_eq!((reader.epoch(), reader.vdl()), (Some(epoch), Some(vdl(1))));
    assert_eq!(reader.floor(), Some(floor));
    assert_eq!(reader.pages_count(), 0);
}
