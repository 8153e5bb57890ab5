//! How far a volume is, for every thread of its process, without asking the loop.
//!
//! The loop publishes the VDL, and that it has been overtaken, in this order of events: what a
//! commit wrote happens before its VDL is seen, and an overtaken volume is seen as such by
//! everybody who has been told so.

use quorate_core::lsn::Lsn;

use super::sync::{AtomicBool, AtomicU64, Ordering};

/// The published state of an open volume. One loop publishes, any thread reads.
#[derive(Debug)]
pub struct Frontier {
    vdl: AtomicU64,
    is_overtaken: AtomicBool,
}

impl Frontier {
    /// Returns the state of a volume that isn't open yet.
    #[must_use]
    pub fn new() -> Self {
        Self { vdl: AtomicU64::new(0), is_overtaken: AtomicBool::new(false) }
    }

    /// Publishes a VDL. It never goes back but by [`Frontier::go_to`].
    pub fn advance(&self, vdl: Lsn) {
        // Release: who sees this VDL sees everything that the loop did before.
        let before = self.vdl.swap(vdl.get(), Ordering::Release);
        assert!(before <= vdl.get(), "the VDL goes back");
    }

    /// Publishes the VDL of a volume that has gone to another point of its log: back, or forward
    /// again. What was told above it holds no more.
    pub fn go_to(&self, vdl: Lsn) {
        self.vdl.store(vdl.get(), Ordering::Release);
    }

    /// Returns the VDL: every commit at or under it is durable for good.
    #[must_use]
    pub fn vdl(&self) -> Lsn {
        Lsn::new(self.vdl.load(Ordering::Acquire))
    }

    /// Publishes that a newer writer has the volume.
    pub fn overtake(&self) {
        // Release: who sees this sees the last VDL that was published before it.
        self.is_overtaken.store(true, Ordering::Release);
    }

    /// Returns whether a newer writer is known to have the volume. `false` is no promise: a writer
    /// learns of it with its next message to a segment.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.is_overtaken.load(Ordering::Acquire)
    }
}

impl Default for Frontier {
    fn default() -> Self {
        Self::new()
    }
}
