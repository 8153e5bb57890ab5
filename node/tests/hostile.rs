//! What bytes cost: lengths that lie must not make a node allocate, and the longest frames must not
//! take more than twice their length, however many a log has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::consistency::{GarbageFloor, Vdl};
use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PageId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::message::{Append, ToSegment};
use quorate_core::record::Record;
use quorate_node::config::{self, VolumeId};
use quorate_node::disk::SegmentLog;
use quorate_node::env::LogFile;
use quorate_node::format::{self, LogIdentity, Note};
use quorate_node::payload;
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

/// Returns an append whose envelope is `filler` bytes longer than an empty one, with a right sum
/// and with `count` as its number of records.
fn lie(filler: usize, count: u64) -> Vec<u8> {
    let epoch = VolumeEpoch::new(1, InstanceId::new(1));
    let append = Append {
        epoch,
        group: PgId::new(0),
        vdl: Vdl::ZERO,
        floor: GarbageFloor::ZERO,
        records: Vec::new(),
    };
    let frame = wire::encode(&Envelope::ToSegment(ToSegment::Append(append)), &[]).unwrap();
    let (header, envelope) = frame.split_at(wire::HEADER_BYTES);
    let mut envelope = envelope.to_vec();
    // The count is what an empty list ends with.
    let at = envelope.len() - 8;
    envelope[at..].copy_from_slice(&count.to_le_bytes());
    envelope.resize(envelope.len() + filler, 0);
    let mut lie = header[..8].to_vec();
    lie.extend(u32::try_from(envelope.len()).unwrap().to_le_bytes());
    lie.extend(0u32.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&lie), &envelope);
    lie.extend(sum.to_le_bytes());
    lie.extend(envelope);
    lie
}

/// One test, because the counter is the process's.
#[test]
fn lengths_that_lie_cost_no_more_than_what_was_sent() {
    // A frame that only announces much costs nothing.
    let header = &lie(wire::ENVELOPE_BYTES_MAX / 2, 1)[..wire::HEADER_BYTES];
    assert_eq!(cost(header), 0);
    // A list that announces more than there is costs what serde reserves ahead, once.
    let ahead = 1 << 20;
    for count in [1, 1_000, 1 << 20, 1 << 40, u64::MAX] {
        let small = lie(0, count);
        assert!(cost(&small) <= ahead + 4096, "{count}: {}", cost(&small));
        let large = lie(1 << 20, count);
        let most = 3 * large.len() + ahead;
        assert!(cost(&large) <= most, "{count}: {} of {most}", cost(&large));
    }
    the_longest_frame_costs_less_than_two();
    a_long_log_costs_less_than_two_frames();
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

    fn settle(&mut self, _doubtful: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn submit(&mut self, _number: u64, _frame: Vec<u8>, _note: Note) {}
}

/// A start reads a frame at a time: the memory for it must not grow with the log.
fn a_long_log_costs_less_than_two_frames() {
    let identity = LogIdentity {
        volume: VolumeId::new(1),
        group: PgId::new(0),
        position: Position::new(0).unwrap(),
        geometry: config::geometry(1).unwrap(),
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
        let write = SegmentWrite { promised, history: None, vdl, records, base: Lsn::ZERO };
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
