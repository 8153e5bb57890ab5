//! Which records of a log change which page.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use crate::id::PageId;
use crate::lsn::Lsn;

/// The LSNs of the records of each page. A new record of a page costs one look-up, whatever the
/// number of records: it is nearly always the newest one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pages {
    versions: BTreeMap<PageId, Versions>,
    /// How many there are, of all pages.
    count: usize,
}

/// The records of one page.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Versions {
    newest: Lsn,
    /// The others, rising. Most pages have few, and none needs no memory.
    older: Vec<Lsn>,
}

impl Pages {
    /// Adds the record `lsn` of `page`, which isn't there.
    pub(crate) fn insert(&mut self, page: PageId, lsn: Lsn) {
        self.count = self.count.saturating_add(1);
        match self.versions.get_mut(&page) {
            None => {
                self.versions.insert(page, Versions { newest: lsn, older: Vec::new() });
            }
            Some(versions) if versions.newest < lsn => {
                versions.older.push(core::mem::replace(&mut versions.newest, lsn));
            }
            Some(versions) => {
                let at = versions.older.partition_point(|older| *older < lsn);
                versions.older.insert(at, lsn);
            }
        }
    }

    /// Removes the record `lsn` of `page`, if it is there.
    pub(crate) fn remove(&mut self, page: PageId, lsn: Lsn) {
        let Some(versions) = self.versions.get_mut(&page) else { return };
        if versions.newest != lsn {
            let Ok(at) = versions.older.binary_search(&lsn) else { return };
            versions.older.remove(at);
        } else if let Some(older) = versions.older.pop() {
            versions.newest = older;
        } else {
            self.versions.remove(&page);
        }
        self.count = self.count.saturating_sub(1);
    }

    /// Removes what a newer version at or under `base` supersedes.
    pub(crate) fn supersede(&mut self, base: Lsn) {
        for Versions { newest, older } in self.versions.values_mut() {
            let under = older.partition_point(|older| *older <= base);
            let superseded = if *newest <= base { under } else { under.saturating_sub(1) };
            older.drain(..superseded);
            self.count = self.count.saturating_sub(superseded);
        }
    }

    /// Returns the last record of `page` at or under `lsn`.
    pub(crate) fn last_at_or_under(&self, page: PageId, lsn: Lsn) -> Option<Lsn> {
        let Versions { newest, older } = self.versions.get(&page)?;
        if *newest <= lsn {
            return Some(*newest);
        }
        let end = older.partition_point(|older| *older <= lsn);
        end.checked_sub(1).and_then(|at| older.get(at)).copied()
    }

    fn iter(&self) -> impl Iterator<Item = (PageId, Lsn)> {
        self.versions.iter().flat_map(|(page, versions)| {
            let all = versions.older.iter().chain(core::iter::once(&versions.newest));
            all.map(|lsn| (*page, *lsn))
        })
    }
}

impl Hash for Pages {
    /// By what is in it, whatever its form.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.count.hash(state);
        self.iter().for_each(|version| version.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A version that isn't found is a stale read; one that is left over, a resurrection.
        #[test]
        fn an_index_is_a_set_of_pages_and_lsns(
            steps in proptest::collection::vec((0..9u8, 0..4u64, 0..30u64), 0..200),
        ) {
            let (mut pages, mut set) = (Pages::default(), BTreeSet::new());
            for (kind, page, lsn) in steps {
                let (page, lsn) = (PageId::new(page), Lsn::new(lsn));
                if kind == 0 {
                    pages.supersede(lsn);
                    let all: Vec<_> = set.iter().copied().collect();
                    set.retain(|(page, older)| {
                        let is_newer = |(of, newer): &(PageId, Lsn)| {
                            of == page && newer > older && *newer <= lsn
                        };
                        !all.iter().any(is_newer)
                    });
                } else if kind < 5 {
                    pages.remove(page, lsn);
                    set.remove(&(page, lsn));
                } else if set.insert((page, lsn)) {
                    pages.insert(page, lsn);
                }
                prop_assert!(pages.iter().eq(set.iter().copied()));
                prop_assert_eq!(pages.count, set.len());
                for upto in (0..31).map(Lsn::new) {
                    let expected = set.range((page, Lsn::ZERO)..=(page, upto)).next_back();
                    let found = pages.last_at_or_under(page, upto);
                    prop_assert_eq!(found, expected.map(|(_, lsn)| *lsn));
                }
            }
        }
    }
}
