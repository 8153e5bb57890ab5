//! What bytes cost: lengths that lie must not make a node allocate, and the longest frames must not
//! take more than twice their length, however many a log has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::consistency::{GarbageFloor, ReadPoint, Scl, Vcl, Vdl};
use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::Added;
use quorate_core::id::{Incarnation, InstanceId, PageId, PgId, Position, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{
    Append, Install, Pull, Pulled, Redo, SealAnswer, Start, ToReader, ToSegment, ToWriter,
};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::Record;
use quorate_core::truncation::{History, TruncationRange};
use quorate_node::addresses::{Place, Seat, Seats};
use quorate_node::config::{self, VolumeId};
use quorate_node::disk::SegmentLog;
use quorate_node::env::{Event, KeepNote, LogFile};
use quorate_node::format::{self, LogIdentity, Note};
use quorate_node::payload;
use quorate_node::wire::client::{
    Answer, ClientReply, ClientRequest, GroupStatus, PageSum, Question, SegmentView, WriterStatus,
};
use quorate_node::wire::{self, Envelope};

/// Counts what is allocated now, and the most that ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator can't be written without")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        MOST.fetch_max(now, Ordering::SeqCst);
        // SAFETY: as this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: as this function's own contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the most that `job` allocates at once.
fn cost_of(job: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::SeqCst);
    MOST.store(before, Ordering::SeqCst);
    job();
    MOST.load(Ordering::SeqCst) - before
}

/// Returns the most that decoding `bytes` allocates at once.
fn cost(bytes: &[u8]) -> usize {
    cost_of(|| drop(wire::decode(bytes)))
}

/// Returns the frame of an envelope, with a right sum.
fn framed(envelope: &[u8]) -> Vec<u8> {
    let mut frame = wire::encode(&Envelope::StatusRequest, &[]).unwrap()[..8].to_vec();
    frame.extend(u32::try_from(envelope.len()).unwrap().to_le_bytes());
    frame.extend(0u32.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&frame), envelope);
    frame.extend(sum.to_le_bytes());
    frame.extend(envelope);
    frame
}

/// An envelope with a list, without elements and with one.
struct Shape {
    name: &'static str,
    empty: Vec<u8>,
    /// Where the list's length is.
    at: usize,
    element: Vec<u8>,
}

impl Shape {
    fn new(name: &'static str, empty: &Envelope, one: &Envelope) -> Self {
        let bytes = |envelope| wire::encode(envelope, &[]).unwrap()[wire::HEADER_BYTES..].to_vec();
        let (empty, one) = (bytes(empty), bytes(one));
        let at = empty.iter().zip(&one).position(|(left, right)| left != right);
        let at = at.unwrap_or(empty.len());
        let element = one[at + 8..one.len() - (empty.len() - at - 8)].to_vec();
        Self { name, empty, at, element }
    }

    /// Returns a frame that announces `announced` elements and has `count`.
    fn frame(&self, announced: u64, count: usize) -> Vec<u8> {
        let mut envelope = self.empty[..self.at].to_vec();
        envelope.extend(announced.to_le_bytes());
        envelope.extend(self.element.repeat(count));
        envelope.extend(&self.empty[self.at + 8..]);
        framed(&envelope)
    }

    /// Returns how many elements fit into the longest envelope.
    fn most(&self) -> usize {
        (wire::ENVELOPE_BYTES_MAX - self.empty.len()) / self.element.len()
    }
}

/// Returns every envelope that has a list, for each of its lists.
fn shapes() -> Vec<Shape> {
    let (epoch, group, vdl, scl) = (EPOCH, PgId::new(0), Vdl::ZERO, Scl::ZERO);
    let none = || (History::new(), Vec::new());
    let range = TruncationRange::new(EPOCH, Lsn::new(1), Lsn::new(2)).unwrap();
    let ranges = || (History::new().with(range), Vec::new());
    let records = || (History::new(), vec![record(1, &[])]);
    let floor = GarbageFloor::ZERO;
    let append = |(_, records)| ToSegment::Append(Append { epoch, group, vdl, floor, records });
    let end = Lsn::new(1);
    let membership = Membership::genesis(QuorumSet::AURORA);
    let install =
        |(history, _)| ToSegment::Install(Install { group, history, end, tip: None, membership });
    let (base, after, through) = (Lsn::ZERO, Lsn::ZERO, Lsn::ZERO);
    let pull = |beyond| ToSegment::Pull(Pull { group, history: epoch, scl, base, through, beyond });
    let pulled = |(history, records)| {
        let pulled =
            Pulled { group, history, end, tip: None, membership, vdl, base, after, records };
        Envelope::ToSegment(ToSegment::Pulled(pulled))
    };
    let geometry = config::geometry(1).unwrap();
    let sealed = |(history, records)| {
        let incarnation = Incarnation::new(0);
        let (anchor, aside) = (None, None);
        let answer = SealAnswer {
            geometry,
            history,
            incarnation,
            membership,
            scl,
            vdl,
            records,
            anchor,
            aside,
        };
        Envelope::ToWriter(ToWriter::Sealed { epoch, answer })
    };
    let start = |ends| {
        let start = Start { epoch, session: 1, vdl, floor: ReadPoint::at(vdl), ends };
        Envelope::ToReader(ToReader::Start(start))
    };
    let redo = |(_, records)| {
        let redo = Redo { epoch, session: 1, number: 1, vdl, added: Added::NONE, records };
        Envelope::ToReader(ToReader::Redo(redo))
    };
    let ticket = Ticket::new(1);
    let write =
        |pages| Envelope::FromClient(ClientRequest { ticket, question: Question::Write { pages } });
    let page = PageSum::describe(PageId::new(1), &[]).unwrap();
    let to_segment = Envelope::ToSegment;
    vec![
        Shape::new("append", &to_segment(append(none())), &to_segment(append(records()))),
        Shape::new("install", &to_segment(install(none())), &to_segment(install(ranges()))),
        Shape::new("pull", &to_segment(pull(vec![])), &to_segment(pull(vec![Lsn::new(1)]))),
        Shape::new("pulled, history", &pulled(none()), &pulled(ranges())),
        Shape::new("pulled, records", &pulled(none()), &pulled(records())),
        Shape::new("sealed, history", &sealed(none()), &sealed(ranges())),
        Shape::new("sealed, records", &sealed(none()), &sealed(records())),
        Shape::new("start", &start(vec![]), &start(vec![Lsn::new(1)])),
        Shape::new("redo", &redo(none()), &redo(records())),
        Shape::new("write", &write(vec![]), &write(vec![page])),
        Shape::new("status, seats", &seats(0), &seats(1)),
        Shape::new("status, groups", &status(0, 0), &status(1, 0)),
        Shape::new("status, segments", &status(1, 0), &status(1, 1)),
    ]
}

/// Returns an address book with so many places.
fn seats(count: usize) -> Envelope {
    let (position, address) = (Position::new(0).unwrap(), SocketAddr::from(([127, 0, 0, 1], 7)));
    let seat = Seat { position, place: Place::first(address) };
    Envelope::Seats(Seats { group: PgId::new(0), seats: vec![seat; count] })
}

/// Returns the status of a writer with so many groups of so many segments.
fn status(groups: usize, segments: usize) -> Envelope {
    let position = Position::new(0).unwrap();
    let segment = SegmentView { position, is_up: true, scl: None, behind: 0 };
    let segments = vec![segment; segments];
    let group = GroupStatus { group: PgId::new(0), pgcl: Lsn::new(1), segments };
    let answer = Answer::Status(Box::new(WriterStatus {
        epoch: EPOCH,
        recovery_point: Vdl::ZERO,
        vcl: Vcl::ZERO,
        vdl: Vdl::ZERO,
        tail: Lsn::ZERO,
        allowance: 0,
        groups: vec![group; groups],
        connections: 0,
        writes_under_way: 0,
        writes_waiting: 0,
        reads_under_way: 0,
        reads_hedged: 0,
        reads_probed: 0,
        bytes_under_way: 0,
    }));
    Envelope::ToClient(ClientReply { ticket: Ticket::new(1), answer })
}

/// What a list may cost before any of it has come: two lists of an envelope, 256 elements each.
const AHEAD: usize = 2 * 256 * 64 + 4096;

/// One test, because the counter is the process's.
#[test]
fn lengths_that_lie_cost_no_more_than_what_was_sent() {
    for shape in shapes() {
        // A frame that only announces much costs nothing.
        let header = &shape.frame(1, shape.most())[..wire::HEADER_BYTES];
        assert_eq!(cost(header), 0);
        the_truth_costs_less_than_two(&shape);
        lies_cost_less_than_two_frames(&shape);
    }
    the_longest_frame_costs_less_than_two();
    a_long_log_costs_less_than_two_frames();
}

/// Whatever is in an envelope, it takes at most twice its length to decode it.
fn the_truth_costs_less_than_two(shape: &Shape) {
    for count in [1, 100, 257, 1000, shape.most() / 2, shape.most() / 2 + 1, shape.most()] {
        let frame = shape.frame(count as u64, count);
        let most = (2 * frame.len()).max(AHEAD);
        let cost = cost(&frame);
        assert!(cost <= most, "{}, {count}: {cost} of {most}", shape.name);
        // Lists that no writer's status has are refused at once.
        let is_refused = shape.name.starts_with("status") && count > 64;
        assert_eq!(wire::decode(&frame).is_err(), is_refused, "{}, {count}", shape.name);
    }
}

/// A list that announces more than there is costs what has come, and at most twice as much more.
fn lies_cost_less_than_two_frames(shape: &Shape) {
    for count in [0, 1, 300, 70_000.min(shape.most()), shape.most()] {
        let there = count as u64;
        for announced in [there + 1, 2 * there + 1, 1 << 20, 1 << 40, u64::MAX] {
            let frame = shape.frame(announced, count);
            let most = (3 * frame.len() * 64 / 61 + AHEAD).min(2 * FRAME_BYTES_MAX);
            let cost = cost(&frame);
            assert!(cost <= most, "{}, {announced}: {cost} of {most}", shape.name);
            assert!(wire::decode(&frame).is_err() || announced <= there, "{}", shape.name);
        }
    }
}

/// An encoded record, in bytes.
const RECORD_BYTES: usize = 61;

/// The longest frame, in bytes.
const FRAME_BYTES_MAX: usize =
    wire::HEADER_BYTES + wire::ENVELOPE_BYTES_MAX + wire::PAYLOAD_BYTES_MAX;

const EPOCH: VolumeEpoch = VolumeEpoch::new(1, InstanceId::new(1));

fn record(lsn: u64, bytes: &[u8]) -> Record {
    let (group, page, lsn) = (PgId::new(0), PageId::new(lsn % 7), Lsn::new(lsn));
    let previous = Lsn::new(lsn.get() - 1);
    Record {
        lsn,
        epoch: EPOCH,
        prev_volume: previous,
        prev_group: previous,
        group,
        page,
        cpl: true,
        payload: payload::describe(group, page, lsn, bytes).unwrap(),
    }
}

/// Many small records and as many pages as fit beside them: no message takes more to decode.
fn the_longest_frame_costs_less_than_two() {
    let page = vec![7; payload::PAGE_BYTES_MAX];
    let pages = wire::PAYLOAD_BYTES_MAX / page.len();
    let small = wire::ENVELOPE_BYTES_MAX / RECORD_BYTES - pages - 2;
    let payloads: Vec<&[u8]> =
        (0..small).map(|_| &[][..]).chain((0..pages).map(|_| page.as_slice())).collect();
    let records = (1..).zip(&payloads).map(|(lsn, bytes)| record(lsn, bytes)).collect();
    let append = Append {
        epoch: EPOCH,
        group: PgId::new(0),
        vdl: Vdl::ZERO,
        floor: GarbageFloor::ZERO,
        records,
    };
    let frame = wire::encode(&Envelope::ToSegment(ToSegment::Append(append)), &payloads).unwrap();
    assert!(frame.len() > FRAME_BYTES_MAX * 99 / 100, "{} bytes", frame.len());
    let cost = cost(&frame);
    assert!(cost > frame.len() && cost <= 2 * FRAME_BYTES_MAX, "{cost}");
}

/// A log that is all there already.
struct Stored(Vec<u8>);

impl LogFile for Stored {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let source = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
        let length = source.len().min(into.len());
        into.fill(0);
        into[..length].copy_from_slice(&source[..length]);
        Ok(())
    }

    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn notes(&self) -> &[Note] {
        &[]
    }

    fn has_newest_note(&self, _durable: u64) -> bool {
        true
    }

    fn settle(&mut self, _doubtful: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn replace(&mut self, _kept: u64, _frame: &[u8], _note: Note) -> io::Result<String> {
        panic!("it is not damaged")
    }

    fn submit(&mut self, _number: u64, _frame: Vec<u8>, _note: Note, _keep: KeepNote) {}

    fn commit(&mut self) -> Option<Event> {
        None
    }
}

/// A start reads a frame at a time: the memory for it must not grow with the log.
fn a_long_log_costs_less_than_two_frames() {
    let identity = LogIdentity {
        volume: VolumeId::new(1),
        group: PgId::new(0),
        position: Position::new(0).unwrap(),
        geometry: config::geometry(1).unwrap(),
        incarnation: Incarnation::new(0),
        salt: 1,
    };
    let page = vec![7; payload::PAGE_BYTES_MAX];
    let pages = wire::PAYLOAD_BYTES_MAX / page.len();
    let payloads = vec![page.as_slice(); pages];
    let mut bytes = format::encode_header(&identity).unwrap();
    let mut lsns = 1..;
    for number in 0..5 {
        let records = lsns.by_ref().take(pages).map(|lsn| record(lsn, &page)).collect();
        let (promised, vdl) = (EPOCH, Vdl::ZERO);
        let write = SegmentWrite { promised, vdl, records, ..SegmentWrite::default() };
        let note = Note::default();
        bytes.extend(format::encode_frame(1, number, &note, &write, &payloads).unwrap());
    }
    assert!(bytes.len() > 3 * FRAME_BYTES_MAX);
    let stored = Stored(bytes);
    let cost = cost_of(|| {
        let (_, _, replay) = SegmentLog::open(stored, &identity).unwrap();
        assert_eq!(replay.frames, 5);
    });
    assert!(cost > wire::PAYLOAD_BYTES_MAX && cost <= 2 * FRAME_BYTES_MAX, "{cost}");
}
