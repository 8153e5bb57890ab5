//! Quorum sets of a group whose members change: monotone boolean formulas over positions.

use serde::{Deserialize, Serialize};

use crate::id::{Position, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::quorum::{QuorumError, QuorumSet};

/// The most terms of a formula: two changes under way at once.
pub const TERMS_MAX: usize = 4;

/// One term of a formula: any `write` and any `read` of `members`. With full segments, all of them
/// are a write quorum too, and every read quorum has one of them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Term {
    members: SegmentSet,
    full: SegmentSet,
    write: u8,
    read: u8,
}

impl Term {
    const NONE: Self =
        Self { members: SegmentSet::EMPTY, full: SegmentSet::EMPTY, write: 0, read: 0 };

    /// Returns the term of a group that has never changed.
    #[must_use]
    pub const fn of(quorums: QuorumSet) -> Self {
        // Sizes of a quorum set are at most eight.
        #[expect(clippy::cast_possible_truncation, reason = "at most SEGMENTS_MAX")]
        let (write, read) = (quorums.write() as u8, quorums.read() as u8);
        let members = SegmentSet::from_bits(quorums.mask());
        Self { members, full: SegmentSet::EMPTY, write, read }
    }

    /// Returns the term in which `new` has the place of `old`.
    #[must_use]
    pub fn replacing(self, old: Position, new: Position) -> Self {
        let exchange = |set: SegmentSet| {
            if set.contains(old) {
                set.without(SegmentSet::only(old)).or(SegmentSet::only(new))
            } else {
                set
            }
        };
        Self { members: exchange(self.members), full: exchange(self.full), ..self }
    }

    /// Returns the term for a long outage of the zone of two of six segments: writes on three,
    /// reads on two of the four that are left (SIGMOD'18 §4.1; edge 41).
    ///
    /// # Errors
    /// [`QuorumError::OutOfRange`] unless this term has six members and `zone` two of them.
    pub const fn degraded(self, zone: SegmentSet) -> Result<Self, QuorumError> {
        if self.members.len() != 6 || zone.len() != 2 || !zone.is_within(self.members) {
            return Err(QuorumError::OutOfRange);
        }
        let members = self.members.without(zone);
        Ok(Self { members, full: SegmentSet::EMPTY, write: 3, read: 2 })
    }

    /// Returns the term of six segments of which `full` keep pages and the others only the log's
    /// tail (SIGMOD'18 §4.2; edge 40).
    ///
    /// # Errors
    /// [`QuorumError::OutOfRange`] unless this term has six members and three of them are `full`.
    pub const fn full_and_tail(self, full: SegmentSet) -> Result<Self, QuorumError> {
        if self.members.len() != 6 || full.len() != 3 || !full.is_within(self.members) {
            return Err(QuorumError::OutOfRange);
        }
        Ok(Self { members: self.members, full, write: 4, read: 3 })
    }

    /// Returns the term of six equal segments, `members`.
    ///
    /// # Errors
    /// [`QuorumError::OutOfRange`] unless there are six.
    pub const fn six(members: SegmentSet) -> Result<Self, QuorumError> {
        if members.len() != 6 {
            return Err(QuorumError::OutOfRange);
        }
        Ok(Self { members, full: SegmentSet::EMPTY, write: 4, read: 3 })
    }

    /// Returns the term of the survivors of a forced rebuild: a write needs all of them, and any
    /// one knows everything.
    ///
    /// # Errors
    /// [`QuorumError::OutOfRange`] without survivors.
    pub const fn survivors(members: SegmentSet) -> Result<Self, QuorumError> {
        if members.is_empty() {
            return Err(QuorumError::OutOfRange);
        }
        // A set of a `u8` has at most eight members.
        #[expect(clippy::cast_possible_truncation, reason = "at most SEGMENTS_MAX")]
        let write = members.len() as u8;
        Ok(Self { members, full: SegmentSet::EMPTY, write, read: 1 })
    }

    /// Returns this term as it is before its members are known to be alike: reads need all.
    #[must_use]
    pub const fn sealed_by_all(self) -> Self {
        // A set of a `u8` has at most eight members.
        #[expect(clippy::cast_possible_truncation, reason = "at most SEGMENTS_MAX")]
        let read = self.members.len() as u8;
        Self { read, ..self }
    }

    /// Returns this term as a seeded bug reads it: as if all members kept pages.
    pub(crate) const fn without_full(self) -> Self {
        Self { full: SegmentSet::EMPTY, ..self }
    }

    /// Returns this term over the group's first positions, for a seeded bug.
    pub(crate) const fn at_first_positions(self) -> Self {
        let bits = (1u16 << self.members.len()).wrapping_sub(1).to_le_bytes();
        let [low, _] = bits;
        Self { members: SegmentSet::from_bits(low), ..self }
    }

    /// Returns the members.
    #[must_use]
    pub const fn members(&self) -> SegmentSet {
        self.members
    }

    /// Returns the members that keep pages, if they aren't all alike.
    #[must_use]
    pub const fn full(&self) -> SegmentSet {
        self.full
    }

    /// Returns the size of a write quorum of any members.
    #[must_use]
    pub const fn write(&self) -> u8 {
        self.write
    }

    /// Returns the size of a read quorum.
    #[must_use]
    pub const fn read(&self) -> u8 {
        self.read
    }

    /// Returns whether `set` is a write quorum of this term, `short` members short of one.
    const fn writes(&self, set: SegmentSet, short: u32) -> bool {
        let present = (set.bits() & self.members.bits()).count_ones();
        let has_full = !self.full.is_empty() && self.full.is_within(set);
        present.saturating_add(short) >= self.write as u32 || has_full
    }

    /// Returns whether `set` is a read quorum of this term.
    #[must_use]
    pub const fn reads(&self, set: SegmentSet, short: u32) -> bool {
        let present = (set.bits() & self.members.bits()).count_ones();
        let has_full = self.full.is_empty() || self.full.bits() & set.bits() != 0;
        present.saturating_add(short) >= self.read as u32 && has_full
    }

    /// Checks the term by itself: every two write quorums meet, and every read quorum meets every
    /// write quorum. By enumeration of all subsets.
    fn check(&self) -> Result<(), QuorumError> {
        let size = self.members.len();
        let is_shaped = self.write > 0
            && self.read > 0
            && u32::from(self.write) <= size
            && u32::from(self.read) <= size
            && (self.full.is_empty() || (self.full.len() == 3 && size == 6))
            && self.full.is_within(self.members);
        if !is_shaped {
            return Err(QuorumError::OutOfRange);
        }
        let writes = |set| self.writes(set, 0);
        if !always_meet(writes, writes) {
            return Err(QuorumError::WriteMissesWrite);
        }
        if !always_meet(|set| self.reads(set, 0), writes) {
            return Err(QuorumError::ReadMissesWrite);
        }
        Ok(())
    }
}

/// The quorum set of one membership: writes satisfy every term, reads and seals the first.
///
/// A single term, a joint of two, or four when a second member fails while one is being replaced:
/// nothing else can be built. The first term is the one from which all others were proposed, so a
/// member that joins never votes before it is in the only term there is (edges 30 and 69).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct Formula {
    /// Unused ones are [`Term::NONE`].
    terms: [Term; TERMS_MAX],
    count: u8,
}

/// Which of two changes under way at once.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Half {
    /// The one that was begun last.
    Newer,
    /// The one that was begun first, or the only one.
    Older,
}

impl Formula {
    /// Returns the formula of one term.
    #[must_use]
    pub const fn single(term: Term) -> Self {
        Self { terms: [term, Term::NONE, Term::NONE, Term::NONE], count: 1 }
    }

    /// Returns the joint formula on the way from `old` to `new`.
    #[must_use]
    pub const fn joint(old: Term, new: Term) -> Self {
        Self { terms: [old, new, Term::NONE, Term::NONE], count: 2 }
    }

    /// Returns the terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        self.terms.get(..usize::from(self.count)).unwrap_or(&self.terms)
    }

    /// Returns the term whose quorums reads and seals need.
    #[must_use]
    pub const fn reading(&self) -> &Term {
        let [first, ..] = &self.terms;
        first
    }

    /// Returns the only term of a formula with no change under way.
    #[must_use]
    pub const fn as_single(&self) -> Option<&Term> {
        if self.count == 1 { Some(self.reading()) } else { None }
    }

    /// Returns the members of all terms.
    #[must_use]
    pub fn members(&self) -> SegmentSet {
        self.terms().iter().fold(SegmentSet::EMPTY, |all, term| all.or(term.members))
    }

    /// Returns whether `set` is a write quorum, `short` members short of one in each term.
    #[must_use]
    pub fn writes(&self, set: SegmentSet, short: u32) -> bool {
        self.terms().iter().all(|term| term.writes(set, short))
    }

    /// Returns whether `set` is a read quorum, `short` members short of one.
    #[must_use]
    pub const fn reads(&self, set: SegmentSet, short: u32) -> bool {
        self.reading().reads(set, short)
    }

    /// Returns the highest LSN that a write quorum has reached; `short` as in [`Formula::writes`].
    #[must_use]
    pub fn reached(&self, reached: &Positions<Lsn>, short: u32) -> Lsn {
        let mut sorted = reached.to_array();
        if let Some(term) = self.as_single()
            && term.full.is_empty()
            && let contiguous = (1u16 << term.members.len()).wrapping_sub(1)
            && u16::from(term.members.bits()) == contiguous
        {
            // A group that has never changed: an order statistic.
            let size = term.members.len() as usize;
            let Some(members) = sorted.get_mut(..size) else { return Lsn::ZERO };
            members.sort_unstable();
            let needed = u32::from(term.write).saturating_sub(short) as usize;
            let at = size.checked_sub(needed).and_then(|rank| members.get(rank).copied());
            return at.unwrap_or(Lsn::ZERO);
        }
        sorted.sort_unstable();
        let holds = |lsn: &Lsn| {
            let mut holders = SegmentSet::EMPTY;
            for (position, scl) in reached.iter() {
                if scl >= lsn {
                    holders.insert(position);
                }
            }
            self.writes(holders, short)
        };
        sorted.iter().rev().copied().find(holds).unwrap_or(Lsn::ZERO)
    }

    /// Returns the formula with every term beside the same with `new` in the place of `old`; `None`
    /// with more than two terms.
    #[must_use]
    pub fn with_replacement(&self, old: Position, new: Position) -> Option<Self> {
        let [first, second, ..] = self.terms;
        let swap = |term: Term| term.replacing(old, new);
        match self.count {
            1 => Some(Self::joint(first, swap(first))),
            2 => Some(Self { terms: [first, second, swap(first), swap(second)], count: 4 }),
            _ => None,
        }
    }

    /// Returns the formula after the change `half` is finished; `None` if there is no such change.
    #[must_use]
    pub const fn finished(&self, half: Half) -> Option<Self> {
        let [_, second, third, fourth] = self.terms;
        match (self.count, half) {
            (2, Half::Older) => Some(Self::single(second)),
            (4, Half::Newer) => Some(Self::joint(third, fourth)),
            (4, Half::Older) => Some(Self::joint(second, fourth)),
            (_, _) => None,
        }
    }

    /// Returns the formula after the change `half` is taken back; `None` if there is no such
    /// change.
    #[must_use]
    pub const fn reverted(&self, half: Half) -> Option<Self> {
        let [first, second, third, _] = self.terms;
        match (self.count, half) {
            (2, Half::Older) => Some(Self::single(first)),
            (4, Half::Newer) => Some(Self::joint(first, second)),
            (4, Half::Older) => Some(Self::joint(first, third)),
            (_, _) => None,
        }
    }

    /// Checks this formula by itself, by enumeration of all subsets.
    ///
    /// # Errors
    /// [`QuorumError`] when its quorums don't meet.
    pub fn check(&self) -> Result<(), QuorumError> {
        if !matches!(self.count, 1 | 2 | 4) {
            return Err(QuorumError::OutOfRange);
        }
        for (index, term) in self.terms.iter().enumerate() {
            if index < usize::from(self.count) {
                term.check()?;
            } else if *term != Term::NONE {
                return Err(QuorumError::OutOfRange);
            }
        }
        self.follows(self)
    }

    /// Checks that this formula can be in force beside `before`, from which it is proposed: every
    /// write quorum of one meets every write quorum of the other, and what was acknowledged under
    /// `before` is met by every read quorum of this one (P6). By enumeration of all subsets.
    ///
    /// # Errors
    /// [`QuorumError`] when they can miss each other.
    pub fn follows(&self, before: &Self) -> Result<(), QuorumError> {
        let writes = |set| self.writes(set, 0);
        if !always_meet(writes, |set| before.writes(set, 0)) {
            return Err(QuorumError::WriteMissesWrite);
        }
        if !always_meet(|set| self.reads(set, 0), |set| before.writes(set, 0)) {
            return Err(QuorumError::ReadMissesWrite);
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Formula {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Formula")]
        struct Parts {
            terms: [Term; TERMS_MAX],
            count: u8,
        }
        let Parts { terms, count } = Parts::deserialize(input)?;
        let formula = Self { terms, count };
        match formula.check() {
            Ok(()) => Ok(formula),
            Err(_) => Err(serde::de::Error::custom("quorums that could miss each other")),
        }
    }
}

/// Returns whether every set that satisfies `left` meets every set that satisfies `right`, both
/// monotone: whether there is no set that satisfies one while its complement satisfies the other.
fn always_meet(left: impl Fn(SegmentSet) -> bool, right: impl Fn(SegmentSet) -> bool) -> bool {
    (0..=u8::MAX)
        .map(SegmentSet::from_bits)
        .all(|set| !left(set) || !right(SegmentSet::from_bits(!set.bits())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn sets() -> impl Iterator<Item = SegmentSet> {
        (0..=u8::MAX).map(SegmentSet::from_bits)
    }

    fn at(index: usize) -> Position {
        Position::new(index).unwrap()
    }

    fn six() -> Term {
        Term::of(QuorumSet::AURORA)
    }

    /// Every formula that steps from six members lead to, up to two changes at once.
    fn formulas() -> Vec<Formula> {
        let single = Formula::single(six());
        let joint = single.with_replacement(at(5), at(6)).unwrap();
        let four = joint.with_replacement(at(4), at(7)).unwrap();
        let degraded = six().degraded(SegmentSet::from_bits(0b11_0000)).unwrap();
        let tails = six().full_and_tail(SegmentSet::from_bits(0b01_0101)).unwrap();
        let mut all = vec![single, joint, four];
        for half in [Half::Older, Half::Newer] {
            all.extend(joint.finished(half));
            all.extend([four.finished(half).unwrap(), four.reverted(half).unwrap()]);
        }
        for term in [degraded, tails] {
            all.extend([
                Formula::single(term),
                Formula::joint(six(), term),
                Formula::joint(term, six()),
            ]);
        }
        all
    }

    /// The shortcut by complements could let two quorums miss each other: every pair of formulas
    /// against every pair of subsets.
    #[test]
    fn follows_is_what_every_pair_of_subsets_says() {
        for after in formulas() {
            assert_eq!(after.check(), Ok(()));
            for before in formulas() {
                let (mut writes_meet, mut reads_meet) = (true, true);
                for left in sets() {
                    let (writes, reads) = (after.writes(left, 0), after.reads(left, 0));
                    if !writes && !reads {
                        continue;
                    }
                    for right in sets().filter(|set| before.writes(*set, 0)) {
                        let meet = left.bits() & right.bits() != 0;
                        writes_meet &= meet || !writes;
                        reads_meet &= meet || !reads;
                    }
                }
                let expected = match (writes_meet, reads_meet) {
                    (false, _) => Err(QuorumError::WriteMissesWrite),
                    (true, false) => Err(QuorumError::ReadMissesWrite),
                    (true, true) => Ok(()),
                };
                assert_eq!(after.follows(&before), expected);
            }
        }
    }

    /// A member that joins could vote too early, or a member could be exchanged without a joint.
    #[test]
    fn a_joint_reads_from_the_old_members_and_nothing_skips_it() {
        let single = Formula::single(six());
        let joint = single.with_replacement(at(5), at(6)).unwrap();
        let new = joint.finished(Half::Older).unwrap();
        assert!(joint.reads(SegmentSet::from_bits(0b11_1000), 0));
        assert!(!joint.reads(SegmentSet::from_bits(0b101_1000), 0));
        assert!(new.reads(SegmentSet::from_bits(0b101_1000), 0));
        assert_eq!(joint.follows(&single), Ok(()));
        assert_eq!(new.follows(&joint), Ok(()));
        assert_eq!(joint.reverted(Half::Older).unwrap().follows(&joint), Ok(()));
        assert_eq!(new.follows(&single), Err(QuorumError::ReadMissesWrite));
        assert_eq!(single.follows(&new), Err(QuorumError::ReadMissesWrite));
    }

    /// A fifth term has no place.
    #[test]
    fn no_third_change_begins() {
        let joint = Formula::single(six()).with_replacement(at(5), at(6)).unwrap();
        let four = joint.with_replacement(at(4), at(7)).unwrap();
        assert_eq!(four.with_replacement(at(3), at(5)), None);
        assert_eq!(four.members().len(), 8);
    }

    /// Three tails and one full segment are a write quorum of any four; a read must find that full
    /// one (edge 40).
    #[test]
    fn full_and_tail_quorums_are_those_of_the_paper() {
        let term = six().full_and_tail(SegmentSet::from_bits(0b01_0101)).unwrap();
        let tails = Formula::single(term);
        assert!(tails.writes(SegmentSet::from_bits(0b01_0101), 0), "three of three full");
        assert!(tails.writes(SegmentSet::from_bits(0b10_1011), 0), "any four");
        assert!(!tails.reads(SegmentSet::from_bits(0b10_1010), 0), "three tails");
        assert!(tails.reads(SegmentSet::from_bits(0b10_1001), 0), "two tails and a full one");
    }

    /// The order statistic of a group that never changed is what the definition gives.
    #[test]
    fn reached_is_the_highest_lsn_that_a_write_quorum_holds() {
        for formula in formulas() {
            for code in 0..2u32.pow(8) {
                let mut reached = Positions::<Lsn>::default();
                for position in Position::first(8) {
                    let bit = code >> position.index() & 1;
                    *reached.at_mut(position) = Lsn::new(u64::from(bit) + 1);
                }
                let holders = SegmentSet::from_bits(u8::try_from(code).unwrap());
                let expected = if formula.writes(holders, 0) { 2 } else { 1 };
                assert_eq!(formula.reached(&reached, 0), Lsn::new(expected));
            }
        }
    }

    /// What a peer sends is checked before it is a formula.
    #[test]
    fn quorums_that_miss_each_other_are_not_read() {
        let text = serde_json::to_string(&Formula::single(six())).unwrap();
        assert_eq!(serde_json::from_str::<Formula>(&text).unwrap(), Formula::single(six()));
        for (good, bad) in [
            ("\"read\":3", "\"read\":2"),
            ("\"write\":4", "\"write\":3"),
            ("\"count\":1", "\"count\":3"),
        ] {
            assert!(text.contains(good));
            assert!(serde_json::from_str::<Formula>(&text.replacen(good, bad, 1)).is_err());
        }
    }
}
