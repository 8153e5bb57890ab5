//! A segment's part of the redo log, and how far its chain is whole.

use alloc::vec::Vec;

use crate::consistency::Scl;
use crate::epoch::VolumeEpoch;
use crate::id::PageId;
use crate::lsn::Lsn;
use crate::pages::Pages;
use crate::record::Record;
use crate::rules::{Bug, Rules};
use crate::truncation::TruncationRange;

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
    pages: Pages,
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
    /// Returns the log with these records, which rise, and this base and SCL; `None` when no log
    /// can have been so.
    pub(crate) fn restore(records: Vec<Record>, base: Lsn, scl: Lsn) -> Option<Self> {
        let mut log = Self { records, scl, base, pages: Pages::default() };
        for record in &log.records {
            let is_superseded = |pages: &Pages| pages.last_at_or_under(record.page, base).is_some();
            if record.lsn <= base && is_superseded(&log.pages) {
                return None;
            }
            log.pages.insert(record.page, record.lsn);
        }
        // At or under the base most of the chain is gone.
        let mut link = scl;
        while link > base {
            link = log.get(link)?.prev_group;
        }
        let is_held = scl == Lsn::ZERO || log.get(scl).is_some();
        log.extend_chain();
        (is_held && log.scl == scl).then_some(log)
    }

    pub(crate) fn insert(&mut self, record: Record) -> Insert {
        let highest = self.highest();
        if record.lsn > highest {
            // Nothing held can follow on a record above all of it: the chain reaches it, or not.
            if self.scl == highest && record.prev_group == highest {
                self.scl = record.lsn;
            }
            self.records.push(record);
        } else {
            match self.find(record.lsn) {
                Ok(at) if self.records.get(at) == Some(&record) => return Insert::Known,
                Ok(_) => return Insert::Conflict,
                Err(at) => self.records.insert(at, record),
            }
            self.extend_chain();
        }
        self.pages.insert(record.page, record.lsn);
        Insert::Added
    }

    /// Drops what any of `ranges` annuls; lowers the SCL to what is left of the chain. Only the
    /// records that lie in a range are looked at, and those of older regions above it.
    ///
    /// Returns what was dropped, by rising LSN.
    pub(crate) fn truncate<R: Rules>(
        &mut self,
        rules: R,
        ranges: &[TruncationRange],
    ) -> Vec<Record> {
        let keep_scl = rules.has(Bug::SclNotLowered);
        let mut dropped: Vec<Lsn> = Vec::new();
        for range in ranges {
            let within = self.above(range.after());
            let has_no_end = range.is_of_later_region(VolumeEpoch::ZERO);
            let within = within.iter().take_while(|record| {
                record.lsn <= range.through() || (has_no_end && !rules.has(Bug::ReattachByLsn))
            });
            dropped.extend(within.filter(|record| range.annuls(record)).map(|record| record.lsn));
        }
        dropped.sort_unstable();
        let Some(lowest) = dropped.first().copied() else { return Vec::new() };
        let start = self.records.partition_point(|record| record.lsn < lowest);
        let mut gone = Vec::with_capacity(dropped.len());
        for record in self.records.split_off(start) {
            if dropped.binary_search(&record.lsn).is_ok() {
                self.pages.remove(record.page, record.lsn);
                gone.push(record);
            } else {
                self.records.push(record);
            }
        }
        // The chain up to the first dropped record is untouched, so the SCL falls to the last
        // retained record below it (edge 21); what then links on is counted again, over a dropped
        // record above the SCL too.
        if lowest <= self.scl && !keep_scl {
            self.scl = self.last_at_or_under(lowest).map_or(Lsn::ZERO, |record| record.lsn);
        }
        if !keep_scl {
            self.extend_chain();
        }
        gone
    }

    /// Raises the base to `base`: keeps the newest version of each page at or under it, and what
    /// lies above. Whoever calls this has every such version; the SCL rises to the last of them.
    pub(crate) fn collect<R: Rules>(&mut self, rules: R, base: Lsn) {
        self.pages.supersede(base);
        let pages = &self.pages;
        self.records.retain(|record| {
            record.lsn > base || pages.last_at_or_under(record.page, base) == Some(record.lsn)
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

    /// Returns the highest LSN held.
    pub(crate) fn highest(&self) -> Lsn {
        self.records.last().map_or(Lsn::ZERO, |record| record.lsn)
    }

    pub(crate) fn scl(&self) -> Scl {
        Scl::of_chain(self.scl)
    }

    /// Returns the SCL or, with `counts_holes`, the highest LSN held.
    pub(crate) fn acknowledged(&self, counts_holes: bool) -> Scl {
        if counts_holes { Scl::of_chain(self.highest()) } else { self.scl() }
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

    /// Returns the records at or under `lsn`, by rising LSN.
    pub(crate) fn up_to(&self, lsn: Lsn) -> &[Record] {
        let end = self.records.partition_point(|record| record.lsn <= lsn);
        self.records.get(..end).unwrap_or(&[])
    }

    pub(crate) fn last_at_or_under(&self, lsn: Lsn) -> Option<&Record> {
        self.up_to(lsn).last()
    }

    /// Returns the last record of `page` at or under `lsn`.
    pub(crate) fn version(&self, page: PageId, lsn: Lsn) -> Option<&Record> {
        self.get(self.pages.last_at_or_under(page, lsn)?)
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
