//! Bytes on their way from a loop to the thread that writes and syncs them: group commit.
//!
//! Two buffers go round. The loop fills one; the thread exchanges it for the other, which it has
//! written. So all that comes while a sync is under way is one group, written with one call, and
//! nothing is allocated once both buffers have grown to their size.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is handed over: bytes, with a word about the last of them.
#[derive(Debug)]
pub struct Handover<W> {
    state: Mutex<Filling<W>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Filling<W> {
    bytes: Vec<u8>,
    /// What was said of the last frame in `bytes`; none while there is none.
    last: Option<W>,
    is_closed: bool,
}

impl<W> Handover<W> {
    /// Returns one with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let filling = Filling { bytes: Vec::new(), last: None, is_closed: false };
        Self { state: Mutex::new(filling), filled: Condvar::new() }
    }

    /// Adds a frame, with a word about it that takes the place of the one before.
    pub fn add(&self, frame: &[u8], word: W) {
        let mut state = self.lock();
        state.bytes.extend_from_slice(frame);
        let was_empty = state.last.replace(word).is_none();
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits for frames and exchanges `spare`, which is emptied, for them. Returns what was said of
    /// the last one, `None` once no more will come.
    pub fn exchange(&self, spare: &mut Vec<u8>) -> Option<W> {
        spare.clear();
        let mut state = self.lock();
        while state.last.is_none() && !state.is_closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(spare, &mut state.bytes);
        state.last.take()
    }

    /// Lets [`Handover::exchange`] end once it has given out everything.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Filling<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Default for Handover<W> {
    fn default() -> Self {
        Self::new()
    }
}
