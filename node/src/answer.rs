//! One answer from a loop to whoever waits for it: a thread, or a task of any executor.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The side that gives the answer. Dropped without, it leaves the other side without one.
#[derive(Debug)]
pub struct Promise<T> {
    cell: Arc<Cell<T>>,
}

/// The side that waits.
#[derive(Debug)]
pub struct Answer<T> {
    cell: Arc<Cell<T>>,
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<T> {
    /// It is here. It is given out once.
    Given(T),
    /// It never comes, or has been given out.
    Never,
    /// It hasn't come in time.
    NotYet,
}

#[derive(Debug)]
struct Cell<T> {
    state: Mutex<State<T>>,
    given: Condvar,
}

#[derive(Debug)]
enum State<T> {
    Given(T),
    Never,
    /// With the task to wake, if one waits.
    Waiting(Option<Waker>),
}

/// Returns both sides of an answer.
#[must_use]
pub fn answer<T>() -> (Promise<T>, Answer<T>) {
    let cell = Arc::new(Cell { state: Mutex::new(State::Waiting(None)), given: Condvar::new() });
    (Promise { cell: Arc::clone(&cell) }, Answer { cell })
}

impl<T> Promise<T> {
    /// Gives the answer.
    pub fn give(self, value: T) {
        self.cell.settle(State::Given(value));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.cell.settle(State::Never);
    }
}

impl<T> Answer<T> {
    /// Waits for the answer, up to `patience`.
    pub fn wait(&self, patience: Duration) -> Outcome<T> {
        let mut state = self.cell.lock();
        let mut is_late = false;
        while matches!(*state, State::Waiting(_)) && !is_late {
            let waited = self.cell.given.wait_timeout(state, patience);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            (state, is_late) = (guard, timeout.timed_out());
        }
        state.take()
    }

    /// Takes the answer if it is here.
    #[must_use]
    pub fn take(&self) -> Outcome<T> {
        self.cell.lock().take()
    }

    /// Takes the answer if it is here; otherwise the task of `context` is woken once it is, and no
    /// task that asked before.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Outcome<T>> {
        let mut state = self.cell.lock();
        let outcome = state.take();
        if matches!(outcome, Outcome::NotYet) {
            *state = State::Waiting(Some(context.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(outcome)
    }
}

impl<T> Cell<T> {
    /// Goes from waiting to `settled`; an answer that is settled stays as it is.
    fn settle(&self, settled: State<T>) {
        let mut state = self.lock();
        if !matches!(*state, State::Waiting(_)) {
            return;
        }
        let before = std::mem::replace(&mut *state, settled);
        self.given.notify_all();
        drop(state);
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Outcome<T> {
        match std::mem::replace(self, Self::Never) {
            Self::Given(value) => Outcome::Given(value),
            Self::Never => Outcome::Never,
            Self::Waiting(waker) => {
                *self = Self::Waiting(waker);
                Outcome::NotYet
            }
        }
    }
}
