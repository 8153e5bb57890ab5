//! Who goes on after the faults, and how runs are named.

use quorate_core::id::SegmentSet;

use super::Reach;
use crate::intern::combine;
use crate::step::{as_u8, position_of};
use crate::world::GROUPS;

/// The segments of a state in the eyes of those who go on.
pub(super) struct View {
    /// By group and position: equal for segments that can be exchanged; first where they are gone,
    /// then where they take part.
    pub(super) keys: [Vec<[u64; 2]>; GROUPS],
    pub(super) order: [Vec<u8>; GROUPS],
    /// Of everything beside the segments.
    pub(super) rest: u64,
}

/// Who goes on after the faults.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scenario {
    /// The writer with this number, alone.
    GoesOn(usize),
    /// An operator forces a new writer to open, alone.
    Forced,
    /// A new writer, alone.
    TakesOver,
    /// A new writer, while all others go on.
    TakesOverFromAll,
}

impl Scenario {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::GoesOn(_) => "the writer that there is goes on",
            Self::Forced => "an operator forces the volume open",
            Self::TakesOver => "a new writer takes over",
            Self::TakesOverFromAll => "a new writer takes over, the others go on",
        }
    }

    pub(super) const fn is_alone(self) -> bool {
        matches!(self, Self::TakesOver)
    }

    pub(super) const fn code(self) -> u64 {
        match self {
            Self::GoesOn(_) => 1,
            Self::TakesOver => 2,
            Self::TakesOverFromAll => 3,
            Self::Forced => 4,
        }
    }
}

impl View {
    /// Names a run: equal for those that differ in the names of segments only.
    pub(super) fn key(&self, scenario: Scenario, reach: &Reach, kind: u64) -> u64 {
        let mut key = combine(combine(self.rest, scenario.code()), kind);
        for (group, reach) in reach.iter().enumerate() {
            key = combine(key, self.group_key(group, *reach));
        }
        key
    }

    pub(super) fn group_key(&self, group: usize, reach: SegmentSet) -> u64 {
        let keys = self.keys.get(group).into_iter().flatten();
        let mut keys: Vec<u64> = keys
            .enumerate()
            .map(|(position, [gone, there])| {
                let is_there = reach.contains(position_of(as_u8(position)));
                combine(if is_there { *there } else { *gone }, u64::from(is_there))
            })
            .collect();
        keys.sort_unstable();
        keys.into_iter().fold(0, combine)
    }
}
