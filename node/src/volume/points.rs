//! The consistency points at which a writer can be asked to read.

use std::collections::VecDeque;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::lsn::Lsn;
use serde::{Deserialize, Serialize};

/// The most consistency points that a writer remembers, half a mebibyte of them.
const POINTS_MAX: usize = 1 << 16;

/// Why a page can't be read as of an LSN.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum PointError {
    /// It isn't durable yet.
    #[error(
        "LSN {lsn} is above the VDL, {vdl}: nothing there is part of the volume, not yet, or not \
         any more after a backtrack"
    )]
    Ahead {
        /// The LSN asked for.
        lsn: Lsn,
        /// The VDL.
        vdl: Vdl,
    },
    /// A mini-transaction would be torn.
    #[error(
        "LSN {lsn} is not a consistency point, where a mini-transaction ends: those around it are \
         {below} and {above}"
    )]
    Between {
        /// The LSN asked for.
        lsn: Lsn,
        /// The next consistency point under it.
        below: Lsn,
        /// The next consistency point above it.
        above: Lsn,
    },
    /// The writer doesn't know whether it is a consistency point.
    #[error(
        "LSN {lsn} is not available: this writer knows the consistency points from {oldest} on"
    )]
    Forgotten {
        /// The LSN asked for.
        lsn: Lsn,
        /// The oldest consistency point known.
        oldest: Lsn,
    },
    /// The VDL didn't get there in time.
    #[error("the VDL is {vdl} and did not come to LSN {lsn} in time: nobody may have written it")]
    NotReached {
        /// The LSN waited for.
        lsn: Lsn,
        /// The VDL.
        vdl: Vdl,
    },
}

/// What a writer knows of its consistency points.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// Rising; the recovery point is the first until it is forgotten.
    known: VecDeque<Lsn>,
}

impl Points {
    /// Begins, or goes on, at `cpl`, where an epoch has opened. Of what lies under it all points
    /// are known only if it is itself: who goes forward again passes others unseen.
    pub(super) fn open_at(&mut self, cpl: Lsn) {
        self.forget_above(cpl);
        if self.known.back() != Some(&cpl) {
            self.known.clear();
            self.remember(cpl);
        }
    }

    /// Remembers a consistency point above all others, and forgets the oldest if there are too
    /// many.
    pub(super) fn remember(&mut self, cpl: Lsn) {
        if self.known.len() >= POINTS_MAX {
            self.known.pop_front();
        }
        self.known.push_back(cpl);
    }

    /// Forgets those above `lsn`: the volume goes there.
    pub(super) fn forget_above(&mut self, lsn: Lsn) {
        let kept = self.known.partition_point(|known| *known <= lsn);
        self.known.truncate(kept);
    }

    /// Forgets those under `lsn`, but for the newest one.
    pub(super) fn forget_below(&mut self, lsn: Lsn) {
        let under = self.known.partition_point(|known| *known < lsn);
        self.known.drain(..under.min(self.known.len().saturating_sub(1)));
    }

    /// Returns the oldest consistency point at which may still be read.
    pub(super) fn oldest(&self) -> Option<Lsn> {
        self.known.front().copied()
    }

    /// Returns `lsn` as a read point.
    pub(super) fn find(&self, lsn: Lsn, vdl: Vdl) -> Result<ReadPoint, PointError> {
        let Some(point) = ReadPoint::earlier(vdl, lsn) else {
            return Err(PointError::Ahead { lsn, vdl });
        };
        let Err(index) = self.known.binary_search(&lsn) else { return Ok(point) };
        let below = index.checked_sub(1).and_then(|below| self.known.get(below)).copied();
        let above = self.known.get(index).copied();
        match (below, above) {
            (Some(below), Some(above)) => Err(PointError::Between { lsn, below, above }),
            (_, oldest) => Err(PointError::Forgotten { lsn, oldest: oldest.unwrap_or(vdl.lsn()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn vdl(lsn: u64) -> Vdl {
        crate::wire::decode_value(&lsn.to_le_bytes()).unwrap()
    }

    /// Reading inside a mini-transaction would show half of it.
    #[test]
    fn only_consistency_points_are_read_at() {
        let mut points = Points::default();
        [5, 8, 12].map(Lsn::new).into_iter().for_each(|cpl| points.remember(cpl));
        let find = |lsn: u64, end: u64| points.find(Lsn::new(lsn), vdl(end));
        assert_eq!(find(8, 12).unwrap().lsn(), Lsn::new(8));
        assert_eq!(find(5, 8).unwrap().lsn(), Lsn::new(5));
        let (lsn, below, above) = (Lsn::new(9), Lsn::new(8), Lsn::new(12));
        assert_eq!(find(9, 12), Err(PointError::Between { lsn, below, above }));
        let (lsn, oldest) = (Lsn::new(4), Lsn::new(5));
        assert_eq!(find(4, 12), Err(PointError::Forgotten { lsn, oldest }));
        assert_eq!(find(12, 8), Err(PointError::Ahead { lsn: Lsn::new(12), vdl: vdl(8) }));
    }

    /// A point that a backtrack has left must not be read at as if it were still there.
    #[test]
    fn points_that_were_left_are_forgotten() {
        let mut points = Points::default();
        [5, 8, 12].map(Lsn::new).into_iter().for_each(|cpl| points.remember(cpl));
        points.open_at(Lsn::new(8));
        assert_eq!(points.oldest(), Some(Lsn::new(5)));
        assert!(points.find(Lsn::new(8), vdl(8)).is_ok());
        assert!(points.find(Lsn::new(12), vdl(20)).is_err());
        // Forward again, past points that this writer has not seen since.
        points.open_at(Lsn::new(14));
        let forgotten = |lsn| PointError::Forgotten { lsn, oldest: Lsn::new(14) };
        for lsn in [8, 12].map(Lsn::new) {
            assert_eq!(points.find(lsn, vdl(14)), Err(forgotten(lsn)));
        }
    }

    /// What lies under the window is discarded everywhere: nobody may be told that it is there.
    #[test]
    fn points_under_the_window_are_forgotten() {
        let mut points = Points::default();
        [5, 8, 12].map(Lsn::new).into_iter().for_each(|cpl| points.remember(cpl));
        points.forget_below(Lsn::new(6));
        assert_eq!(points.oldest(), Some(Lsn::new(8)));
        points.forget_below(Lsn::new(99));
        assert_eq!(points.oldest(), Some(Lsn::new(12)));
    }

    /// A writer that lives long must not remember without bound.
    #[test]
    fn the_oldest_points_are_forgotten() {
        let mut points = Points::default();
        (0..=POINTS_MAX as u64).for_each(|lsn| points.remember(Lsn::new(lsn)));
        let (lsn, oldest) = (Lsn::new(0), Lsn::new(1));
        assert_eq!(points.find(lsn, vdl(9)), Err(PointError::Forgotten { lsn, oldest }));
        assert_eq!(points.known.len(), POINTS_MAX);
    }
}
