//! A segment's part of the redo log, and how far its chain is whole.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::consistency::Scl;
use crate::id::PageId;
use crate::lsn::Lsn;
use crate::record::Record;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// The durable records of one segment, by LSN, and the end of the unbroken backlink chain.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Log {
    /// Sorted by LSN, each LSN once.
    records: Vec<Record>,
    /// LSN of the last record of the chain that starts at zero and follows `prev_group`.
    scl: Lsn,
    /// At or under it only the newest version of each page is left; the last of them is the
    /// group's last record at or under it, so the chain goes on from there.
    base: Lsn,
    /// Every record by its page, so that a read finds the last version in logarithmic time.
    pages: BTreeSet<(PageId, Lsn)>,
}

/// What happened to a record that was to be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Insert {
    Added,
    /// The same record is there already.
    Known,
    /// Another record has this LSN.
    Conflict,
}

impl Log {
    pub(crate) fn insert(&mut self, record: Record) -> Insert {
        match self.records.last() {
            Some(last) if last.lsn >= record.lsn => match self.find(record.lsn) {
                Ok(at) if self.records.get(at) == Some(&record) => return Insert::Known,
                Ok(_) => return Insert::Conflict,
                Err(at) => self.records.insert(at, record),
            },
            Some(_) | None => self.records.push(record),
        }
        self.pages.insert((record.page, record.lsn));
        self.extend_chain();
        Insert::Added
    }

    /// Drops what `history` annuls; lowers the SCL to what is left of the chain unless
    /// `keep_scl`.
    pub(crate) fn truncate(&mut self, history: &History, keep_scl: bool) {
        let pages = &mut self.pages;
        let mut lowest_dropped = None;
        self.records.retain(|record| {
            let annulled = history.annuls(record);
            if annulled {
                pages.remove(&(record.page, record.lsn));
                lowest_dropped = lowest_dropped.or(Some(record.lsn));
            }
            !annulled
        });
        // The chain up to the first dropped record is untouched, so the SCL falls to the last
        // retained record below it (edge 21); what then links on is counted again.
        if let Some(dropped) = lowest_dropped
            && dropped <= self.scl
            && !keep_scl
        {
            self.scl = self.last_at_or_under(dropped).map_or(Lsn::ZERO, |record| record.lsn);
            self.extend_chain();
        }
    }

    /// Raises the base to `base`: keeps the newest version of each page at or under it, and what
    /// lies above. Whoever calls this has every such version; the SCL rises to the last of them.
    pub(crate) fn collect<R: Rules>(&mut self, rules: R, base: Lsn) {
        let pages = &mut self.pages;
        self.records.retain(|record| {
            let newest = pages.range((record.page, Lsn::ZERO)..=(record.page, base)).next_back();
            let is_kept = record.lsn > base || newest == Some(&(record.page, record.lsn));
            if !is_kept {
                pages.remove(&(record.page, record.lsn));
            }
            is_kept
        });
        self.base = base;
        let mut anchor = self.last_at_or_under(base).map_or(Lsn::ZERO, |record| record.lsn);
        if rules.has(Bug::SclBeforeBase) {
            anchor = base;
        }
        if anchor > self.scl && !rules.has(Bug::BaseWithoutScl) {
            self.scl = anchor;
            self.extend_chain();
        }
    }

    pub(crate) const fn base(&self) -> Lsn {
        self.base
    }

    pub(crate) fn scl(&self) -> Scl {
        Scl::of_chain(self.scl)
    }

    /// Returns the SCL or, with `counts_holes`, the highest LSN held.
    pub(crate) fn acknowledged(&self, counts_holes: bool) -> Scl {
        let highest = self.records.last().map_or(Lsn::ZERO, |record| record.lsn);
        if counts_holes { Scl::of_chain(highest) } else { self.scl() }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn get(&self, lsn: Lsn) -> Option<&Record> {
        self.find(lsn).ok().and_then(|at| self.records.get(at))
    }

    /// Returns the records above `lsn`, by rising LSN.
    pub(crate) fn above(&self, lsn: Lsn) -> &[Record] {
        let start = self.records.partition_point(|record| record.lsn <= lsn);
        self.records.get(start..).unwrap_or(&[])
    }

    pub(crate) fn last_at_or_under(&self, lsn: Lsn) -> Option<&Record> {
        let end = self.records.partition_point(|record| record.lsn <= lsn);
        end.checked_sub(1).and_then(|at| self.records.get(at))
    }

    /// Returns the last record of `page` at or under `lsn`.
    pub(crate) fn version(&self, page: PageId, lsn: Lsn) -> Option<&Record> {
        let (_, version) = self.pages.range((page, Lsn::ZERO)..=(page, lsn)).next_back()?;
        self.get(*version)
    }

    fn find(&self, lsn: Lsn) -> Result<usize, usize> {
        self.records.binary_search_by_key(&lsn, |record| record.lsn)
    }

    fn extend_chain(&mut self) {
        let mut scl = self.scl;
        for record in self.above(scl) {
            if record.prev_group != scl {
                break;
            }
            scl = record.lsn;
        }
        self.scl = scl;
    }
}
