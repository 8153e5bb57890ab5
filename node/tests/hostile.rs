//! What a hostile peer's bytes cost: lengths that lie must not make a node allocate.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::consistency::Vdl;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PgId};
use quorate_core::message::{Append, ToSegment};
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

/// Returns the most that decoding `bytes` allocates at once.
fn cost(bytes: &[u8]) -> usize {
    let before = NOW.load(Ordering::SeqCst);
    MOST.store(before, Ordering::SeqCst);
    let _ = wire::decode(bytes);
    MOST.load(Ordering::SeqCst) - before
}

/// Returns an append whose envelope is `filler` bytes longer than an empty one, with a right sum
/// and with `count` as its number of records.
fn lie(filler: usize, count: u64) -> Vec<u8> {
    let epoch = VolumeEpoch::new(1, InstanceId::new(1));
    let append = Append { epoch, group: PgId::new(0), vdl: Vdl::ZERO, records: Vec::new() };
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
}
