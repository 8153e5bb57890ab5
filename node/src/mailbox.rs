//! What other threads hand to a loop: a bounded queue that wakes the loop only if it sleeps.
//!
//! A loop takes all that is there, works, and says that it is going to sleep; whoever posts after
//! that is told to wake it, once. A letter is never left behind with the loop asleep: both sides
//! decide under one lock.

use std::collections::VecDeque;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue of letters to one loop.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    letters_max: usize,
}

#[derive(Debug)]
struct State<T> {
    letters: VecDeque<T>,
    is_asleep: bool,
    is_closed: bool,
}

impl<T> Mailbox<T> {
    /// Returns an empty mailbox that holds up to `letters_max` letters.
    #[must_use]
    pub fn new(letters_max: usize) -> Self {
        let state = State { letters: VecDeque::new(), is_asleep: false, is_closed: false };
        Self { state: Mutex::new(state), room: Condvar::new(), letters_max }
    }

    /// Posts a letter, and waits for room first. Returns whether the loop sleeps: then the caller
    /// has to wake it.
    ///
    /// # Errors
    /// The letter, when the mailbox is closed.
    pub fn post(&self, letter: T) -> Result<bool, T> {
        let mut state = self.lock();
        while state.letters.len() >= self.letters_max && !state.is_closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_closed {
            return Err(letter);
        }
        state.letters.push_back(letter);
        Ok(std::mem::take(&mut state.is_asleep))
    }

    /// Moves up to `most` letters to the end of `into`. Returns whether more may come.
    pub fn take(&self, most: usize, into: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        state.is_asleep = false;
        let count = state.letters.len().min(most);
        into.extend(state.letters.drain(..count));
        if count > 0 {
            self.room.notify_all();
        }
        !state.is_closed || !state.letters.is_empty()
    }

    /// Says that the loop is going to sleep. Returns whether it may: not if letters are there, or
    /// the mailbox is closed.
    pub fn doze(&self) -> bool {
        let mut state = self.lock();
        state.is_asleep = state.letters.is_empty() && !state.is_closed;
        state.is_asleep
    }

    /// Returns whether the mailbox has been closed, whatever is still in it.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Takes no more letters. Those that are there can still be taken. Returns whether the loop
    /// sleeps: then the caller has to wake it.
    pub fn close(&self) -> bool {
        let mut state = self.lock();
        state.is_closed = true;
        self.room.notify_all();
        std::mem::take(&mut state.is_asleep)
    }

    /// Takes no more letters and drops those that are there.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let letters = std::mem::take(&mut state.letters);
        self.room.notify_all();
        drop(state);
        // What a letter does when it is dropped may need this mailbox.
        drop(letters);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
