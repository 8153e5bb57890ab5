//! Bytes on their way from a loop to the thread that writes and syncs them: group commit.
//!
//! Two buffers go round. The loop fills one; the thread exchanges it for the other, which it has
//! written. So all that comes while a sync is under way is one group, written with one call, and
//! nothing is allocated once both buffers have grown to their size.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is handed over.
#[derive(Debug)]
pub struct Handover {
    state: Mutex<Filling>,
    filled: Condvar,
}

#[derive(Debug)]
struct Filling {
    bytes: Vec<u8>,
    /// The number of the last frame in `bytes`.
    through: u64,
    is_closed: bool,
}

impl Handover {
    /// Returns one with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let filling = Filling { bytes: Vec::new(), through: 0, is_closed: false };
        Self { state: Mutex::new(filling), filled: Condvar::new() }
    }

    /// Adds a frame.
    pub fn add(&self, number: u64, frame: &[u8]) {
        let mut state = self.lock();
        let was_empty = state.bytes.is_empty();
        state.bytes.extend_from_slice(frame);
        state.through = number;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits for frames and exchanges `spare`, which is emptied, for them. Returns the number of
    /// the last one, `None` once no more will come.
    pub fn exchange(&self, spare: &mut Vec<u8>) -> Option<u64> {
        spare.clear();
        let mut state = self.lock();
        while state.bytes.is_empty() && !state.is_closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.bytes.is_empty() {
            return None;
        }
        std::mem::swap(spare, &mut state.bytes);
        Some(state.through)
    }

    /// Lets [`Handover::exchange`] end once it has given out everything.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Filling> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Handover {
    fn default() -> Self {
        Self::new()
    }
}
