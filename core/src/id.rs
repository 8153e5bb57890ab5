//! Names of things: groups, positions in a group, pages, writer instances, tickets.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $letter:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize,
            Serialize,
        )]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Returns the identifier with number `value`.
            #[must_use]
            pub const fn new(value: $repr) -> Self {
                Self(value)
            }

            /// Returns the number of this identifier.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($letter, "{}"), self.0)
            }
        }
    };
}

identifier! {
    /// A protection group: six copies of one stripe of the volume's pages. Numbered from zero.
    PgId, u32, "g"
}
identifier! {
    /// A page of the volume's address space.
    PageId, u64, "page "
}
identifier! {
    /// One start of a writer process; no two starts share one (protocol: recovery, "an epoch is").
    InstanceId, u64, "i"
}
identifier! {
    /// A driver's name for one read or one confirmation, echoed by its answer.
    Ticket, u64, "ticket "
}
identifier! {
    /// Which disk a segment's position stands for: every disk that takes a position has a higher
    /// one than those that had it before. A disk that lost anything never comes back under its old
    /// one (edge 27).
    Incarnation, u32, "#"
}
identifier! {
    /// One start of a reader process; no two starts share one.
    ReaderId, u64, "reader "
}
identifier! {
    /// A machine's name for one durable write, reported back once when it is durable.
    WriteId, u64, "write "
}

/// The most segments that one group can have: six, one joining, and one more joining when a
/// second member fails during the change.
pub const SEGMENTS_MAX: usize = 8;

/// A segment's place in its group's membership, `0..SEGMENTS_MAX`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Position(u8);

impl Position {
    /// Returns the place with this index, or `None` when no group has so many segments.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "below SEGMENTS_MAX")]
    pub const fn new(index: usize) -> Option<Self> {
        if index < SEGMENTS_MAX { Some(Self(index as u8)) } else { None }
    }

    /// Returns the index of this place.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the first `count` places in order.
    pub fn first(count: usize) -> impl Iterator<Item = Self> + Clone {
        (0..SEGMENTS_MAX).take(count).filter_map(Self::new)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let index = u8::deserialize(input)?;
        Self::new(usize::from(index))
            .ok_or_else(|| serde::de::Error::custom("no group has a segment at this position"))
    }
}

impl fmt::Display for Position {
    /// Segments are shown as letters, as in the papers: A to H.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(b'A'.saturating_add(self.0));
        write!(out, "{letter}")
    }
}

/// A set of segments of one group, one bit a position.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct SegmentSet(u8);

impl SegmentSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// Returns the set of the positions whose bits are set in `bits`.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns one bit a position.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether `position` is a member.
    #[must_use]
    pub const fn contains(self, position: Position) -> bool {
        self.0 & (1 << position.0) != 0
    }

    /// Adds `position`.
    pub fn insert(&mut self, position: Position) {
        self.0 |= 1 << position.0;
    }

    /// Returns the positions of both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the positions that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the positions of this set that aren't in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether every member is one of `other` too.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Returns the set with `position` alone.
    #[must_use]
    pub const fn only(position: Position) -> Self {
        Self(1 << position.0)
    }

    /// Returns the members in order.
    pub fn iter(self) -> impl Iterator<Item = Position> + Clone {
        Position::first(SEGMENTS_MAX).filter(move |position| self.contains(*position))
    }

    /// Returns the number of members.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Returns whether there is no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A segment's identity: its place, and the disk that has it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct SegmentId {
    /// The place.
    pub position: Position,
    /// The disk.
    pub incarnation: Incarnation,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.position, self.incarnation)
    }
}

/// One value for each position of a group.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Positions<T>([T; SEGMENTS_MAX]);

impl<T> Positions<T> {
    /// Returns the value at `position`.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a Position is below SEGMENTS_MAX by construction")]
    pub fn at(&self, position: Position) -> &T {
        &self.0[position.index()]
    }

    /// Returns the value at `position`, to be changed.
    #[expect(clippy::indexing_slicing, reason = "a Position is below SEGMENTS_MAX by construction")]
    pub fn at_mut(&mut self, position: Position) -> &mut T {
        &mut self.0[position.index()]
    }

    /// Returns all values with their positions.
    pub fn iter(&self) -> impl Iterator<Item = (Position, &T)> {
        self.0.iter().enumerate().filter_map(|(index, value)| Some((Position::new(index)?, value)))
    }
}

impl<T> Positions<T> {
    /// Returns what `of` makes of each value.
    pub fn map<'a, U: Default>(&'a self, of: impl Fn(&'a T) -> U) -> Positions<U> {
        let mut mapped = Positions::<U>::default();
        for (position, value) in self.iter() {
            *mapped.at_mut(position) = of(value);
        }
        mapped
    }
}

impl<T: Copy> Positions<T> {
    /// Returns the values in the order of the positions.
    #[must_use]
    pub fn to_array(&self) -> [T; SEGMENTS_MAX] {
        self.0
    }
}

impl<T: Clone> Positions<T> {
    /// Returns the values after renaming each position `p` to `permutation.of(p)`.
    #[must_use]
    pub fn permute(&self, permutation: &Permutation) -> Self {
        let mut renamed = self.clone();
        for (position, value) in self.iter() {
            *renamed.at_mut(permutation.of(position)) = value.clone();
        }
        renamed
    }
}

/// A renaming of the positions of one group.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Permutation(Positions<u8>);

impl Permutation {
    /// Returns the renaming of `i` to `to[i]`; positions beyond `to` keep their names. `None` when
    /// two positions would get one name.
    #[must_use]
    pub fn new(to: &[usize]) -> Option<Self> {
        let mut names = Positions::<u8>::default();
        let mut used = SegmentSet::EMPTY;
        for position in Position::first(SEGMENTS_MAX) {
            let name =
                Position::new(to.get(position.index()).copied().unwrap_or(position.index()))?;
            if used.contains(name) {
                return None;
            }
            used.insert(name);
            *names.at_mut(position) = name.0;
        }
        Some(Self(names))
    }

    /// Returns the new name of `position`.
    #[must_use]
    pub fn of(&self, position: Position) -> Position {
        Position(*self.0.at(position))
    }

    /// Returns the set with every member renamed.
    #[must_use]
    pub fn of_set(&self, set: SegmentSet) -> SegmentSet {
        let mut renamed = SegmentSet::EMPTY;
        for position in Position::first(SEGMENTS_MAX) {
            if set.contains(position) {
                renamed.insert(self.of(position));
            }
        }
        renamed
    }
}
