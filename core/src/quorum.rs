//! Quorums of one protection group, as values that can only be built when they meet.

use serde::{Deserialize, Serialize};

use crate::id::{Position, Positions, SEGMENTS_MAX, SegmentSet};
use crate::lsn::Lsn;

/// Which sets of a group's segments are a write quorum and which a read quorum: any `write` and
/// any `read` of `members`.
///
/// A value of this type exists only if every two write quorums meet and every read quorum meets
/// every write quorum (SIGMOD'17 §2.1, Gifford's rules); [`QuorumSet::new`] refuses others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct QuorumSet {
    members: u8,
    write: u8,
    read: u8,
}

/// Why a quorum set can't be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuorumError {
    /// No segment, more than [`SEGMENTS_MAX`], or a quorum that is empty or larger than the group.
    OutOfRange,
    /// A read quorum could miss a write quorum.
    ReadMissesWrite,
    /// Two write quorums could miss each other.
    WriteMissesWrite,
}

impl QuorumSet {
    /// Six segments, writes on four, recovery reads on three.
    pub const AURORA: Self = Self { members: 6, write: 4, read: 3 };

    /// Returns the quorum set "any `write`, any `read` of `members`".
    ///
    /// # Errors
    /// [`QuorumError`] when quorums of that size don't meet.
    pub const fn new(members: u8, write: u8, read: u8) -> Result<Self, QuorumError> {
        if members == 0 || members as usize > SEGMENTS_MAX {
            return Err(QuorumError::OutOfRange);
        }
        if write == 0 || write > members || read == 0 || read > members {
            return Err(QuorumError::OutOfRange);
        }
        if write as u16 * 2 <= members as u16 {
            return Err(QuorumError::WriteMissesWrite);
        }
        if write as u16 + read as u16 <= members as u16 {
            return Err(QuorumError::ReadMissesWrite);
        }
        Ok(Self { members, write, read })
    }

    /// Returns the number of segments.
    #[must_use]
    pub const fn members(&self) -> usize {
        self.members as usize
    }

    /// Returns the size of the smallest write quorum.
    #[must_use]
    pub const fn write(&self) -> usize {
        self.write as usize
    }

    /// Returns the size of the smallest read quorum.
    #[must_use]
    pub const fn read(&self) -> usize {
        self.read as usize
    }

    /// Returns the positions of the members, in order.
    pub fn positions(&self) -> impl Iterator<Item = Position> + Clone + use<> {
        Position::first(self.members())
    }

    /// Returns whether `position` is a member.
    #[must_use]
    pub const fn has(&self, position: Position) -> bool {
        position.index() < self.members()
    }

    /// Returns whether the members in `set` are a write quorum.
    #[must_use]
    pub const fn is_write_quorum(&self, set: SegmentSet) -> bool {
        (set.bits() & self.mask()).count_ones() >= self.write as u32
    }

    /// Returns whether the members in `set` are a read quorum.
    #[must_use]
    pub const fn is_read_quorum(&self, set: SegmentSet) -> bool {
        (set.bits() & self.mask()).count_ones() >= self.read as u32
    }

    /// Returns the highest LSN that at least `count` of the members have reached.
    ///
    /// With `count` the write quorum this is the group's PGCL. A member outside the group never
    /// counts; `count` zero or above the group's size gives [`Lsn::ZERO`].
    #[must_use]
    pub fn reached_by(&self, reached: &Positions<Lsn>, count: usize) -> Lsn {
        let mut sorted = reached.to_array();
        let Some(members) = sorted.get_mut(..self.members()) else { return Lsn::ZERO };
        members.sort_unstable();
        self.members()
            .checked_sub(count)
            .and_then(|rank| members.get(rank).copied())
            .unwrap_or(Lsn::ZERO)
    }

    pub(crate) const fn mask(&self) -> u8 {
        u8::MAX >> (8 - self.members)
    }
}

impl<'de> Deserialize<'de> for QuorumSet {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "QuorumSet")]
        struct Parts {
            members: u8,
            write: u8,
            read: u8,
        }
        let Parts { members, write, read } = Parts::deserialize(input)?;
        Self::new(members, write, read).map_err(|error| {
            serde::de::Error::custom(match error {
                QuorumError::OutOfRange => "quorum sizes out of range",
                QuorumError::ReadMissesWrite => "a read quorum could miss a write quorum",
                QuorumError::WriteMissesWrite => "two write quorums could miss each other",
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(members: u8) -> impl Iterator<Item = SegmentSet> {
        (0..=u8::MAX >> (8 - members)).map(SegmentSet::from_bits)
    }

    /// What can be built meets, and what can't be built doesn't: every size, every two subsets.
    #[test]
    fn every_quorum_set_that_can_be_built_meets_and_no_other() {
        for members in 1..=8u8 {
            for write in 1..=members {
                for read in 1..=members {
                    let writes = |set: SegmentSet| set.len() >= u32::from(write);
                    let reads = |set: SegmentSet| set.len() >= u32::from(read);
                    let mut write_write = true;
                    let mut read_write = true;
                    for a in sets(members).filter(|set| writes(*set)) {
                        for b in sets(members) {
                            let meet = a.bits() & b.bits() != 0;
                            write_write &= meet || !writes(b);
                            read_write &= meet || !reads(b);
                        }
                    }
                    let built = QuorumSet::new(members, write, read);
                    assert_eq!(
                        built.is_ok(),
                        write_write && read_write,
                        "{members} {write} {read}"
                    );
                    if let Ok(quorums) = built {
                        for set in sets(members) {
                            assert_eq!(quorums.is_write_quorum(set), writes(set));
                            assert_eq!(quorums.is_read_quorum(set), reads(set));
                        }
                    }
                }
            }
        }
        assert_eq!(QuorumSet::new(6, 4, 3), Ok(QuorumSet::AURORA));
        assert_eq!(QuorumSet::new(6, 3, 4), Err(QuorumError::WriteMissesWrite));
        assert_eq!(QuorumSet::new(6, 4, 2), Err(QuorumError::ReadMissesWrite));
        assert_eq!(QuorumSet::new(9, 5, 5), Err(QuorumError::OutOfRange));
        assert_eq!(QuorumSet::new(0, 0, 0), Err(QuorumError::OutOfRange));
    }

    /// Losing a zone stops no write, and a zone and one more loses no recovery: every placement.
    #[test]
    fn a_zone_and_one_more_leave_a_read_quorum() {
        let quorums = QuorumSet::AURORA;
        for zone in 0..3 {
            let left = 0b11_1111u8 & !(0b11 << (2 * zone));
            assert!(quorums.is_write_quorum(SegmentSet::from_bits(left)));
            for position in quorums.positions() {
                let fewer = left & !(1u8 << position.index());
                assert!(quorums.is_read_quorum(SegmentSet::from_bits(fewer)));
            }
        }
    }

    /// The order statistic equals its definition by subsets, on every assignment of three values.
    #[test]
    fn reached_by_is_the_highest_lsn_that_a_quorum_holds() {
        let quorums = QuorumSet::AURORA;
        for code in 0..3u32.pow(6) {
            let mut reached = Positions::<Lsn>::default();
            for position in quorums.positions() {
                let digit = code / 3u32.pow(u32::try_from(position.index()).unwrap_or(0)) % 3;
                *reached.at_mut(position) = Lsn::new(u64::from(digit));
            }
            for count in 1..=6 {
                let by_definition = (0..3)
                    .rev()
                    .map(Lsn::new)
                    .find(|lsn| {
                        quorums.positions().filter(|p| reached.at(*p) >= lsn).count() >= count
                    })
                    .unwrap_or(Lsn::ZERO);
                assert_eq!(quorums.reached_by(&reached, count), by_definition);
            }
        }
    }
}
