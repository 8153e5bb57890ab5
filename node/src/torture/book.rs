//! What clients were told, kept outside of the cluster: what it must never forget, and what it may
//! not know.

use std::collections::BTreeMap;

use quorate_core::id::PageId;

/// The shortest and the longest contents of a page.
const BYTES_MIN: u64 = 16;
const BYTES_SPREAD: u64 = 1_500;

/// What was written to a page: every attempt has a number of its own, in the order of issue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attempt(u64);

/// Something that must never happen.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A page lost a write that was acknowledged.
    #[error("{page} lost an acknowledged write: attempt {acknowledged} was, and {found} is there")]
    Lost {
        /// The page.
        page: PageId,
        /// The attempt that was acknowledged.
        acknowledged: u64,
        /// What is there.
        found: String,
    },
    /// A page has contents that nobody wrote.
    #[error("{page} has contents that nobody wrote there ({bytes} bytes)")]
    Foreign {
        /// The page.
        page: PageId,
        /// Its length.
        bytes: usize,
    },
    /// A writer acknowledged a write that it began after another one had taken over.
    #[error("an overtaken writer acknowledged attempt {attempt} on {page}")]
    Zombie {
        /// The page.
        page: PageId,
        /// The attempt.
        attempt: u64,
    },
    /// A page has what an overtaken writer tried to write.
    #[error("{page} has attempt {attempt}, which an overtaken writer made")]
    Resurrected {
        /// The page.
        page: PageId,
        /// The attempt.
        attempt: u64,
    },
}

/// One page.
#[derive(Clone, Debug, Default)]
struct PageBook {
    /// The last attempt that is known to have taken effect.
    settled: Option<Attempt>,
    /// Acknowledgements since the page was last read.
    unread: u64,
    /// Later attempts that may have taken effect.
    doubtful: Vec<Attempt>,
    /// Attempts that must never take effect.
    forbidden: Vec<Attempt>,
}

/// All pages.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pages: BTreeMap<PageId, PageBook>,
    last: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were found again.
    pub verified: u64,
}

impl Book {
    /// Notes that a write of `page` begins; returns it with the contents to write.
    pub fn attempt(&mut self, page: PageId) -> (Attempt, Vec<u8>) {
        let attempt = self.number();
        self.pages.entry(page).or_default().doubtful.push(attempt);
        (attempt, contents(page, attempt))
    }

    /// Notes that a writer which has been overtaken tries to write `page`.
    pub fn attempt_overtaken(&mut self, page: PageId) -> (Attempt, Vec<u8>) {
        let attempt = self.number();
        self.pages.entry(page).or_default().forbidden.push(attempt);
        (attempt, contents(page, attempt))
    }

    fn number(&mut self) -> Attempt {
        self.last += 1;
        Attempt(self.last)
    }

    /// Notes that `attempt` on `page` was acknowledged.
    ///
    /// # Errors
    /// [`Violation::Zombie`] when it must not be.
    pub fn acknowledge(&mut self, page: PageId, attempt: Attempt) -> Result<(), Violation> {
        let book = self.pages.entry(page).or_default();
        if book.forbidden.contains(&attempt) {
            return Err(Violation::Zombie { page, attempt: attempt.0 });
        }
        self.acknowledged += 1;
        book.unread += 1;
        book.settle(attempt);
        Ok(())
    }

    /// Compares what a strict read found on `page`, nothing for a page never written.
    ///
    /// # Errors
    /// [`Violation`] when that isn't what was acknowledged, or a later attempt.
    pub fn check(&mut self, page: PageId, found: &[u8]) -> Result<(), Violation> {
        let book = self.pages.entry(page).or_default();
        let lost = |found: String| match book.settled {
            Some(settled) => Err(Violation::Lost { page, acknowledged: settled.0, found }),
            None => Ok(()),
        };
        let Some(first) = found.first_chunk::<8>() else {
            if found.is_empty() && book.settled.is_none() {
                return Ok(());
            }
            return lost(format!("a page of {} bytes", found.len()));
        };
        let attempt = Attempt(u64::from_le_bytes(*first));
        if contents(page, attempt) != found {
            return Err(Violation::Foreign { page, bytes: found.len() });
        }
        if book.forbidden.contains(&attempt) {
            return Err(Violation::Resurrected { page, attempt: attempt.0 });
        }
        if book.settled != Some(attempt) && !book.doubtful.contains(&attempt) {
            lost(format!("attempt {}", attempt.0))?;
            return Err(Violation::Foreign { page, bytes: found.len() });
        }
        self.verified += std::mem::take(&mut book.unread);
        book.settle(attempt);
        Ok(())
    }

    /// Returns the pages with acknowledgements that weren't read back.
    #[must_use]
    pub fn unread(&self) -> Vec<PageId> {
        let unread = self.pages.iter().filter(|(_, book)| book.unread > 0);
        unread.map(|(page, _)| *page).collect()
    }
}

impl PageBook {
    /// Notes that `attempt` has taken effect: earlier ones have been overwritten, if they had.
    fn settle(&mut self, attempt: Attempt) {
        self.settled = self.settled.max(Some(attempt));
        self.doubtful.retain(|other| *other > attempt);
    }
}

/// Returns what `attempt` writes to `page`: it tells both, and every byte depends on them.
fn contents(page: PageId, attempt: Attempt) -> Vec<u8> {
    let mut state = attempt.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ page.get();
    let spread = (state >> 32).checked_rem(BYTES_SPREAD).unwrap_or(0);
    let length = usize::try_from(BYTES_MIN + spread).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length + 8);
    bytes.extend_from_slice(&attempt.0.to_le_bytes());
    while bytes.len() < length {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PAGE: PageId = PageId::new(3);

    /// The whole point: a volume that forgets must be found out.
    #[test]
    fn a_lost_write_is_noticed() {
        let mut book = Book::default();
        let (first, old) = book.attempt(PAGE);
        book.acknowledge(PAGE, first).unwrap();
        let (second, new) = book.attempt(PAGE);
        book.acknowledge(PAGE, second).unwrap();
        assert!(matches!(book.check(PAGE, &old), Err(Violation::Lost { .. })));
        assert!(matches!(book.check(PAGE, &[]), Err(Violation::Lost { .. })));
        assert_eq!(book.verified, 0);
        book.check(PAGE, &new).unwrap();
        assert_eq!((book.acknowledged, book.verified), (2, 2));
    }

    /// A write without an answer may be there or not; once seen, it must stay.
    #[test]
    fn a_doubtful_write_that_was_seen_must_stay() {
        let mut book = Book::default();
        let (first, old) = book.attempt(PAGE);
        book.acknowledge(PAGE, first).unwrap();
        let (_, new) = book.attempt(PAGE);
        book.check(PAGE, &old).unwrap();
        book.check(PAGE, &new).unwrap();
        assert!(matches!(book.check(PAGE, &old), Err(Violation::Lost { .. })));
    }

    #[test]
    fn a_doubtful_write_never_comes_after_an_acknowledged_one() {
        let mut book = Book::default();
        let (_, lost) = book.attempt(PAGE);
        let (second, _) = book.attempt(PAGE);
        book.acknowledge(PAGE, second).unwrap();
        assert!(matches!(book.check(PAGE, &lost), Err(Violation::Lost { .. })));
    }

    /// An overtaken writer that still acknowledges is what the epochs are there to prevent.
    #[test]
    fn an_overtaken_writer_is_noticed() {
        let mut book = Book::default();
        let (zombie, bytes) = book.attempt_overtaken(PAGE);
        assert!(matches!(book.check(PAGE, &bytes), Err(Violation::Resurrected { .. })));
        assert!(matches!(book.acknowledge(PAGE, zombie), Err(Violation::Zombie { .. })));
    }

    #[test]
    fn foreign_contents_are_noticed() {
        let mut book = Book::default();
        let (first, mut bytes) = book.attempt(PAGE);
        book.acknowledge(PAGE, first).unwrap();
        let (_, elsewhere) = book.attempt(PageId::new(4));
        assert!(matches!(book.check(PAGE, &elsewhere), Err(Violation::Foreign { .. })));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(book.check(PAGE, &bytes), Err(Violation::Foreign { .. })));
    }
}
