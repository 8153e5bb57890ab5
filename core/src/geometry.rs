//! The volume's shape and its bounds: durable, and the same for every writer.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::id::{PageId, PgId};
use crate::quorum::QuorumSet;

/// Bounds that every machine of a volume obeys. They belong to the volume, are durable with it and
/// are reported in every seal answer: a writer's own configuration can't change them (edge 19).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Limits {
    /// LAL: how many LSNs beyond the VDL a writer may allocate (SIGMOD'17 §4.2.1).
    pub allocation_max: u64,
    /// Records in one batch of an append or of a gossip answer.
    pub batch_records_max: u32,
    /// Records that one segment holds.
    pub log_records_max: u32,
    /// Ranges in a truncation history: each opening of the volume adds one, and the last is the
    /// last. Seal answers and gossip carry all of them, and each opening writes them to every log.
    pub history_ranges_max: u32,
    /// Durable writes that one segment has under way.
    pub pending_writes_max: u32,
}

impl Limits {
    /// The bounds of a volume whose creator doesn't choose others.
    pub const DEFAULT: Self = Self {
        allocation_max: 16_384,
        batch_records_max: 256,
        log_records_max: 1 << 24,
        // What a seal answer has room for, beside its records: a writer opened each hour for seven
        // years. Each of the last openings writes 2 MiB to a segment's log.
        history_ranges_max: 1 << 16,
        pending_writes_max: 1_024,
    };

    /// Returns whether a writer can make progress within these bounds: every bound is at least
    /// one, and an MTR of one whole batch fits below the allocation limit (edge 63).
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.batch_records_max > 0
            && self.allocation_max >= self.batch_records_max as u64
            && self.log_records_max >= self.batch_records_max
            && self.history_ranges_max > 0
            && self.pending_writes_max > 0
    }
}

const _: () = assert!(Limits::DEFAULT.is_usable());

/// The most protection groups that one volume can have.
pub const GROUPS_MAX: u32 = 64;

/// How many protection groups a volume has got since it was created.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Added(u32);

impl Added {
    /// A volume with the groups that it was created with.
    pub const NONE: Self = Self(0);

    /// Returns the number of groups.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns one more, or `None` where no volume can have that many groups.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.0 >= GROUPS_MAX { None } else { Some(Self(self.0.saturating_add(1))) }
    }
}

/// Of a volume that has not grown nothing is hashed: models order messages by their hashes, and the
/// depth of a search, which is pinned, depends on that order.
impl Hash for Added {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0 > 0 {
            self.0.hash(state);
        }
    }
}

/// The list of a volume's protection groups, their quorums, and the volume's bounds.
///
/// A volume is a concatenation of extents. The first one holds the groups that it was created with,
/// over which its pages are striped. Each group that is added is an extent of its own, with the
/// pages that follow all those before it. So which group holds a page doesn't depend on how far the
/// volume has grown, nor on who has let it grow: only the number of groups has versions, those of
/// the first group's [`crate::membership::Membership`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct VolumeGeometry {
    groups: u32,
    quorums: QuorumSet,
    limits: Limits,
    growth: Growth,
}

/// How a volume grows, and how far it has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Growth {
    /// Pages of a group; zero for a volume that never grows, whose first groups hold all.
    group_pages: u64,
    added: Added,
}

/// As for [`Added`].
impl Hash for Growth {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { group_pages, added } = self;
        if *group_pages > 0 {
            (group_pages, added).hash(state);
        }
    }
}

/// Why a geometry can't be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GeometryError {
    /// No group, or more than [`GROUPS_MAX`].
    Groups,
    /// Bounds within which no writer can make progress.
    Limits,
    /// Groups without pages, or with more than there are.
    Pages,
}

impl VolumeGeometry {
    /// Returns the geometry of a volume of `groups` protection groups, which hold all pages there
    /// can be: it never grows.
    ///
    /// # Errors
    /// [`GeometryError`] when the number of groups or a bound is out of range.
    pub const fn new(
        groups: u32,
        quorums: QuorumSet,
        limits: Limits,
    ) -> Result<Self, GeometryError> {
        if groups == 0 || groups > GROUPS_MAX {
            return Err(GeometryError::Groups);
        }
        if !limits.is_usable() {
            return Err(GeometryError::Limits);
        }
        let growth = Growth { group_pages: 0, added: Added::NONE };
        Ok(Self { groups, quorums, limits, growth })
    }

    /// Returns the geometry of a volume like this one whose groups have `pages` pages each, and
    /// that can grow.
    ///
    /// # Errors
    /// [`GeometryError::Pages`] without pages, or when there are no numbers for so many.
    pub const fn with_group_pages(self, pages: u64) -> Result<Self, GeometryError> {
        if pages == 0 || pages.checked_mul(self.groups as u64).is_none() {
            return Err(GeometryError::Pages);
        }
        let growth = Growth { group_pages: pages, added: Added::NONE };
        Ok(Self { growth, ..self })
    }

    /// Returns the geometry of the same volume once `added` groups have been added; as it was
    /// created, if it can't have so many.
    #[must_use]
    pub const fn grown(self, added: Added) -> Self {
        let added = if self.can_have(added) { added } else { Added::NONE };
        Self { growth: Growth { added, ..self.growth }, ..self }
    }

    /// Returns the geometry of the same volume when it has `groups` groups, or `None` if it can't.
    #[must_use]
    pub fn with_groups(self, groups: usize) -> Option<Self> {
        let added = u32::try_from(groups).ok()?.checked_sub(self.groups).map(Added)?;
        self.can_have(added).then(|| self.grown(added))
    }

    /// Returns whether the volume can have so many groups beside those that it was created with.
    #[must_use]
    pub const fn can_have(&self, added: Added) -> bool {
        let is_bounded = self.growth.group_pages > 0;
        added.0 == 0 || (is_bounded && added.0 <= GROUPS_MAX.saturating_sub(self.groups))
    }

    /// Returns how many groups have been added since the volume was created.
    #[must_use]
    pub const fn added(&self) -> Added {
        self.growth.added
    }

    /// Returns the groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = PgId> + Clone + use<> {
        (0..self.groups_count()).map(PgId::new)
    }

    /// Returns the number of groups.
    #[must_use]
    pub const fn groups_count(&self) -> u32 {
        self.groups.saturating_add(self.growth.added.0)
    }

    /// Returns whether the volume has `group`.
    #[must_use]
    pub const fn has(&self, group: PgId) -> bool {
        group.get() < self.groups_count()
    }

    /// Returns whether the volume has `group`, or can get it by growing.
    #[must_use]
    pub const fn may_have(&self, group: PgId) -> bool {
        let grown = group.get().saturating_add(1).saturating_sub(self.groups);
        self.can_have(Added(grown))
    }

    /// Returns the group that holds `page`, whether the volume has grown so far or not: the pages
    /// of its first groups are striped one by one, and each group that is added has the next ones.
    #[must_use]
    pub fn group_of(&self, page: PageId) -> PgId {
        let groups = u64::from(self.groups);
        let Growth { group_pages, added: _ } = self.growth;
        let above = page.get().checked_sub(groups.saturating_mul(group_pages));
        let group = match above.and_then(|above| above.checked_div(group_pages)) {
            Some(beyond) => groups.saturating_add(beyond),
            None => page.get() % groups,
        };
        PgId::new(u32::try_from(group).unwrap_or(u32::MAX))
    }

    /// Returns whether the volume has grown so far that it has `page`.
    #[must_use]
    pub fn has_page(&self, page: PageId) -> bool {
        self.has(self.group_of(page))
    }

    /// Returns the quorums of every group.
    #[must_use]
    pub const fn quorums(&self) -> QuorumSet {
        self.quorums
    }

    /// Returns the volume's bounds.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }
}

impl<'de> Deserialize<'de> for VolumeGeometry {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "VolumeGeometry")]
        struct Parts {
            groups: u32,
            quorums: QuorumSet,
            limits: Limits,
            growth: Growth,
        }
        let Parts { groups, quorums, limits, growth } = Parts::deserialize(input)?;
        let Growth { group_pages, added } = growth;
        let geometry = Self::new(groups, quorums, limits).and_then(|geometry| {
            if group_pages == 0 { Ok(geometry) } else { geometry.with_group_pages(group_pages) }
        });
        let geometry = geometry.map_err(|error| {
            serde::de::Error::custom(match error {
                GeometryError::Groups => "number of protection groups out of range",
                GeometryError::Limits => "limits within which no writer can make progress",
                GeometryError::Pages => "number of a group's pages out of range",
            })
        })?;
        if !geometry.can_have(added) {
            return Err(serde::de::Error::custom("number of protection groups out of range"));
        }
        Ok(geometry.grown(added))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn geometry(groups: u32, pages: u64) -> VolumeGeometry {
        let geometry = VolumeGeometry::new(groups, QuorumSet::AURORA, Limits::DEFAULT).unwrap();
        geometry.with_group_pages(pages).unwrap()
    }

    fn grown(geometry: VolumeGeometry, added: u32) -> VolumeGeometry {
        let added = (0..added).fold(Added::NONE, |added, _| added.next().unwrap());
        geometry.grown(added)
    }

    /// A page that exists could move to another group when one is added, away from its records.
    #[test]
    fn growth_moves_no_page() {
        for pages in 1..4 {
            let small = geometry(2, pages);
            for added in 0..3 {
                let large = grown(small, added);
                for page in (0..20).map(PageId::new) {
                    assert_eq!(large.group_of(page), small.group_of(page));
                    assert_eq!(large.has_page(page), page.get() < pages * (2 + u64::from(added)));
                }
            }
        }
    }

    /// Pages of a group that is added could be those of another, or of none.
    #[test]
    fn groups_follow_each_other() {
        let of = |page| geometry(2, 3).group_of(PageId::new(page)).get();
        let groups: Vec<u32> = (0..12).map(of).collect();
        assert_eq!(groups, [0, 1, 0, 1, 0, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(geometry(1, 1).group_of(PageId::new(u64::MAX)).get(), u32::MAX);
    }

    /// A volume whose first groups have all pages could get one that has none.
    #[test]
    fn a_volume_without_an_end_never_grows() {
        let endless = VolumeGeometry::new(2, QuorumSet::AURORA, Limits::DEFAULT).unwrap();
        assert!(!endless.can_have(Added(1)) && !endless.may_have(PgId::new(2)));
        assert!(endless.has_page(PageId::new(u64::MAX)) && endless.may_have(PgId::new(1)));
        assert!(geometry(2, 1).may_have(PgId::new(GROUPS_MAX - 1)));
        assert!(!geometry(2, 1).may_have(PgId::new(GROUPS_MAX)));
        assert_eq!(grown(geometry(2, 1), 62).groups_count(), GROUPS_MAX);
        assert!(!geometry(2, 1).can_have(Added(63)));
    }
}
