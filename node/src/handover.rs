//! Frames on their way from a loop to the disk: group commit.
//!
//! Two lists go round. The loop fills one; whoever writes exchanges it for the other, which is
//! written. So all that comes while a sync is under way is one group, written with one call.
//!
//! Who writes is the loop itself, with [`Handover::claim`], or a thread, with
//! [`Handover::exchange`]; never both at once, so that groups stay in order.

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is handed over: frames, with a word about the last of them.
#[derive(Debug)]
pub struct Handover<W> {
    state: Mutex<Filling<W>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Filling<W> {
    frames: Vec<Vec<u8>>,
    /// How many bytes they have.
    length: usize,
    /// What was said of the last of them; none while there is none.
    last: Option<W>,
    /// Whether frames are given out that are not written yet.
    is_writing: bool,
    /// Whether the thread is to take what is there.
    is_offered: bool,
    is_closed: bool,
}

/// What has become of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim<W> {
    /// The frames are the caller's, who calls [`Handover::release`] once they are written.
    Mine(W),
    /// There are none.
    Nothing,
    /// The thread is at work, and takes these next.
    Theirs,
}

impl<W> Handover<W> {
    /// Returns one with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let filling = Filling {
            frames: Vec::new(),
            length: 0,
            last: None,
            is_writing: false,
            is_offered: false,
            is_closed: false,
        };
        Self { state: Mutex::new(filling), changed: Condvar::new() }
    }

    /// Adds a frame, with a word about it that takes the place of the one before. Nobody writes it
    /// before it is claimed or offered.
    pub fn add(&self, frame: Vec<u8>, word: W) {
        let mut state = self.lock();
        state.length = state.length.saturating_add(frame.len());
        state.frames.push(frame);
        state.last = Some(word);
    }

    /// Returns how many bytes are there that nobody has taken.
    #[must_use]
    pub fn length(&self) -> usize {
        self.lock().length
    }

    /// Lets the thread take what is there.
    pub fn offer(&self) {
        let mut state = self.lock();
        state.is_offered = state.last.is_some();
        self.changed.notify_one();
    }

    /// Exchanges `spare`, which is emptied, for what is there, unless the thread is at work.
    pub fn claim(&self, spare: &mut Vec<Vec<u8>>) -> Claim<W> {
        let mut state = self.lock();
        if state.last.is_none() {
            return Claim::Nothing;
        }
        if state.is_writing || state.is_offered {
            state.is_offered = true;
            return Claim::Theirs;
        }
        let Some(word) = state.take(spare) else { return Claim::Nothing };
        Claim::Mine(word)
    }

    /// Says that what was given out is written.
    pub fn release(&self) {
        self.lock().is_writing = false;
    }

    /// Waits for an offer and exchanges `spare`, which is emptied, for it: the thread's side.
    /// Returns what was said of the last frame, `None` once no more will come. The thread calls
    /// [`Handover::release`] once it is written.
    pub fn exchange(&self, spare: &mut Vec<Vec<u8>>) -> Option<W> {
        let mut state = self.lock();
        while !state.is_offered && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.take(spare)
    }

    /// Lets [`Handover::exchange`] end once it has given out everything.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Filling<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Filling<W> {
    fn take(&mut self, spare: &mut Vec<Vec<u8>>) -> Option<W> {
        spare.clear();
        std::mem::swap(spare, &mut self.frames);
        self.length = 0;
        self.is_offered = false;
        let word = self.last.take();
        self.is_writing = word.is_some();
        word
    }
}

impl<W> Default for Handover<W> {
    fn default() -> Self {
        Self::new()
    }
}
