//! Writes that wait until there is room for them.

use std::collections::VecDeque;

use super::reply::Reply;
use super::{Committed, PageImage};

/// The most writes that wait.
const WRITES_MAX: usize = 1024;

/// Above so many bytes of pages that wait, no more are taken: whoever has more keeps them.
const BYTES_MAX: usize = 64 << 20;

/// A write that waits.
#[derive(Debug)]
pub(super) struct WaitingWrite {
    pub(super) pages: Vec<PageImage>,
    bytes: usize,
    reply: Reply<Committed>,
}

impl WaitingWrite {
    /// Returns how many bytes its pages had when it came.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The writes that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    writes: VecDeque<WaitingWrite>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn add(&mut self, pages: Vec<PageImage>, reply: Reply<Committed>) {
        let bytes = pages.iter().map(|page| page.bytes.len()).sum();
        self.bytes = self.bytes.saturating_add(bytes);
        self.writes.push_back(WaitingWrite { pages, bytes, reply });
    }

    /// Returns whether another write may be added; the last one that is may exceed the bound.
    pub(super) fn has_room(&self) -> bool {
        self.writes.len() < WRITES_MAX && self.bytes < BYTES_MAX
    }

    pub(super) fn first(&self) -> Option<&WaitingWrite> {
        self.writes.front()
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut WaitingWrite> {
        self.writes.front_mut()
    }

    /// Removes the first write, and returns where its answer goes.
    pub(super) fn take(&mut self) -> Option<Reply<Committed>> {
        let WaitingWrite { bytes, reply, .. } = self.writes.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(reply)
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_core::id::PageId;

    use super::*;
    use crate::answer::answer;

    fn write(pages: usize, bytes: usize) -> (Vec<PageImage>, Reply<Committed>) {
        let page = PageImage { page: PageId::new(1), bytes: vec![0; bytes] };
        (vec![page; pages], Reply::Waiter(answer().0))
    }

    /// A writer without a quorum must not take what its clients have into its memory: small writes
    /// are bounded by their number, large ones by their bytes.
    #[test]
    fn writes_wait_up_to_a_number_and_up_to_some_bytes() {
        for (pages, bytes, most) in [(1, 1, WRITES_MAX), (1024, 8192, BYTES_MAX >> 23)] {
            let mut backlog = Backlog::default();
            while backlog.has_room() {
                let (pages, reply) = write(pages, bytes);
                backlog.add(pages, reply);
            }
            assert_eq!(backlog.len(), most);
            // Its pages may be on their way already.
            backlog.first_mut().unwrap().pages.clear();
            backlog.take().unwrap();
            assert!(backlog.has_room());
            while backlog.take().is_some() {}
            assert_eq!(backlog.bytes, 0);
        }
    }
}
