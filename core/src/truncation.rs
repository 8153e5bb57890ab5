//! Truncation ranges and the history that a writer installs.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::epoch::VolumeEpoch;
use crate::lsn::Lsn;
use crate::record::Record;

/// The range `(after, through]`: records of an older epoch with an LSN in it are annulled as long
/// as the history in force contains it (SIGMOD'17 §4.3).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct TruncationRange {
    epoch: VolumeEpoch,
    after: Lsn,
    through: Lsn,
    /// Zero but for a backtrack.
    tip: Lsn,
}

/// What a backtrack set aside: a branch of the log that can be taken again, since nothing was
/// written after it was left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Branch<'a> {
    /// The history before the branch was left.
    base: &'a [TruncationRange],
    /// The range that left it.
    range: &'a TruncationRange,
}

impl Branch<'_> {
    /// Returns the epoch of the backtrack that left the branch.
    #[must_use]
    pub const fn epoch(&self) -> VolumeEpoch {
        self.range.epoch
    }

    /// Returns the range of the backtrack that left the branch.
    #[must_use]
    pub const fn range(&self) -> &TruncationRange {
        self.range
    }

    /// Returns the branch's last consistency point.
    #[must_use]
    pub const fn tip(&self) -> Lsn {
        self.range.tip
    }

    /// Returns the epoch of the history before the branch was left.
    #[must_use]
    pub fn base_epoch(&self) -> VolumeEpoch {
        self.base.last().map_or(VolumeEpoch::ZERO, TruncationRange::epoch)
    }

    /// Returns the history before the branch was left.
    #[must_use]
    pub fn base(&self) -> History {
        History { ranges: self.base.to_vec() }
    }

    /// Returns whether `record` is of the branch, and above where it was left.
    #[must_use]
    pub fn contains(&self, record: &Record) -> bool {
        record.lsn <= self.range.tip
            && self.range.annuls(record)
            && !self.base.iter().any(|range| range.annuls(record))
    }
}

impl TruncationRange {
    /// Returns the range `(after, through]` of the recovery `epoch`, or `None` when it is empty.
    #[must_use]
    pub fn new(epoch: VolumeEpoch, after: Lsn, through: Lsn) -> Option<Self> {
        (after < through).then_some(Self { epoch, after, through, tip: Lsn::ZERO })
    }

    /// Returns the range of a recovery that goes back from the recovery point `tip` to `after`, or
    /// `None` unless the three rise.
    #[must_use]
    pub fn backtrack(epoch: VolumeEpoch, after: Lsn, tip: Lsn, through: Lsn) -> Option<Self> {
        (after < tip && tip <= through).then_some(Self { epoch, after, through, tip })
    }

    /// Returns whether this range takes back what was acknowledged.
    #[must_use]
    pub fn is_backtrack(&self) -> bool {
        self.tip > Lsn::ZERO
    }

    /// Returns the recovery that made this range.
    #[must_use]
    pub const fn epoch(&self) -> VolumeEpoch {
        self.epoch
    }

    /// Returns the recovery point: the last LSN that this range keeps.
    #[must_use]
    pub const fn after(&self) -> Lsn {
        self.after
    }

    /// Returns the last LSN that this range annuls.
    #[must_use]
    pub const fn through(&self) -> Lsn {
        self.through
    }

    /// Returns whether this range annuls `record`.
    #[must_use]
    pub fn annuls(&self, record: &Record) -> bool {
        let covers = record.lsn <= self.through || self.is_of_later_region(record.epoch);
        record.epoch < self.epoch && self.after < record.lsn && covers
    }

    /// Returns whether this range was made after a promotion that the writer of `epoch` missed. It
    /// may have gone on without a bound, so all that it wrote above the recovery point is annulled,
    /// whatever the LSN (edge 60).
    #[must_use]
    pub const fn is_of_later_region(&self, epoch: VolumeEpoch) -> bool {
        epoch.region() < self.epoch.region()
    }
}

/// The list of truncation ranges that a writer installed, oldest first.
///
/// Histories replace each other whole. They are neither merged (edge 5) nor cut (edge 6).
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct History {
    #[serde(deserialize_with = "crate::list::deserialize")]
    ranges: Vec<TruncationRange>,
}

impl History {
    /// Returns the history of a volume that no writer has opened.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Returns the epoch of the writer that installed this history.
    #[must_use]
    pub fn epoch(&self) -> VolumeEpoch {
        self.ranges.last().map_or(VolumeEpoch::ZERO, TruncationRange::epoch)
    }

    /// Returns the last LSN that may have been allocated under an older history.
    #[must_use]
    pub fn through(&self) -> Lsn {
        self.ranges.last().map_or(Lsn::ZERO, TruncationRange::through)
    }

    /// Returns the recovery point of the newest range.
    #[must_use]
    pub fn after(&self) -> Lsn {
        self.ranges.last().map_or(Lsn::ZERO, TruncationRange::after)
    }

    /// Returns the branch that the last backtrack set aside, unless something may have been written
    /// since: then a later range keeps more than the backtrack did.
    #[must_use]
    pub fn branch(&self) -> Option<Branch<'_>> {
        let after = self.after();
        let idle = self.ranges.iter().rev().take_while(|range| range.after == after);
        let back = idle.take_while(|range| !range.is_backtrack()).count();
        let at = self.ranges.len().checked_sub(back.checked_add(1)?)?;
        let range = self.ranges.get(at).filter(|range| range.is_backtrack())?;
        (range.after == after).then_some(Branch { base: self.ranges.get(..at)?, range })
    }

    /// Returns the epoch of the backtrack whose branch this history still leaves, if any.
    #[must_use]
    pub fn left_by(&self) -> Option<VolumeEpoch> {
        self.branch().map(|branch| branch.epoch())
    }

    /// Returns `vdl`, told under the history of `told_under`, as far as it holds under this one: a
    /// backtrack takes back what was durable (edge 72), and so does a promotion that left it behind
    /// (edge 60).
    #[must_use]
    pub fn lowered(&self, vdl: Lsn, told_under: VolumeEpoch) -> Lsn {
        let later = self.ranges.iter().rev().take_while(|range| range.epoch > told_under);
        let back = later.filter(|range| {
            range.is_of_later_region(told_under) || (range.is_backtrack() && vdl <= range.through)
        });
        back.map(|range| range.after).fold(vdl, Lsn::min)
    }

    /// Returns the end of what the log of this history, which ends at `end`, has in common with
    /// that of `other`: by the epochs of their ranges, since numbers alone say nothing of logs that
    /// went on in two regions (edge 60).
    #[must_use]
    pub fn common(&self, end: Lsn, other: &Self) -> Lsn {
        let same = self.ranges.iter().zip(&other.ranges).take_while(|(own, other)| own == other);
        let at = same.count();
        let parts = |history: &Self| history.ranges.get(at).map(TruncationRange::after);
        [parts(self), parts(other)].into_iter().flatten().fold(end, Lsn::min)
    }

    /// Returns the ranges, oldest first.
    #[must_use]
    pub fn ranges(&self) -> &[TruncationRange] {
        &self.ranges
    }

    /// Returns whether any range annuls `record`.
    #[must_use]
    pub fn annuls(&self, record: &Record) -> bool {
        // Epochs rise, so that what can annul it is at the end: nothing, for a record of today.
        self.ranges
            .iter()
            .rev()
            .take_while(|range| range.epoch > record.epoch)
            .any(|range| range.annuls(record))
    }

    /// Returns the ranges of this history from the first on that `older` doesn't have in the same
    /// place: what a segment with a log free of all that `older` annuls has to look at. Histories
    /// that replace each other need not have anything in common.
    pub(crate) fn since(&self, older: &Self) -> &[TruncationRange] {
        let common = self.ranges.iter().zip(&older.ranges).take_while(|(own, old)| own == old);
        self.ranges.get(common.count()..).unwrap_or(&[])
    }

    /// Returns this history followed by `range`.
    #[must_use]
    pub fn with(&self, range: TruncationRange) -> Self {
        let mut ranges = self.ranges.clone();
        ranges.push(range);
        Self { ranges }
    }

    /// Returns the history with these ranges, whatever their order: only seeded bugs use it.
    pub(crate) fn from_ranges(ranges: Vec<TruncationRange>) -> Self {
        Self { ranges }
    }

    /// Returns whether epochs and ends rise from range to range, as in every installed history.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let rising = self.ranges.windows(2).all(|pair| match pair {
            [older, newer] => older.epoch < newer.epoch && older.through < newer.through,
            _ => false,
        });
        let is_whole = |range: &TruncationRange| {
            let has_branch = range.after < range.tip && range.tip <= range.through;
            range.after < range.through && (has_branch || !range.is_backtrack())
        };
        rising && self.ranges.iter().all(is_whole)
    }
}
