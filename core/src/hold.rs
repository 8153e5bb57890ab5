//! Named floors: what keeps old versions of pages alive besides reads under way.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// Why versions above an LSN are kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum HoldName {
    /// What is not in the archive yet.
    Archive,
    /// The window into which the volume can be taken back.
    Backtrack,
    /// A clone, whose pages default to this volume's.
    Clone(u64),
    /// Another region, by how far it has been shipped to.
    Ship(u64),
    /// The lowest read point of the writer itself.
    Writer,
}

/// The named floors of a volume, as a value: whoever adds a reason to keep versions adds a name.
///
/// The garbage floor is never above any of them (edge 47). A hold binds the writer that was told
/// of it. The next writer has to be told again before its floor moves at all.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Holds(BTreeMap<HoldName, Lsn>);

impl Holds {
    /// Returns no holds.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Returns these holds with `name` at `lsn`.
    #[must_use]
    pub fn with(mut self, name: HoldName, lsn: Lsn) -> Self {
        self.0.insert(name, lsn);
        self
    }

    /// Returns these holds without `name`.
    #[must_use]
    pub fn without(mut self, name: HoldName) -> Self {
        self.0.remove(&name);
        self
    }

    /// Returns the lowest of them, if there are any.
    #[must_use]
    pub fn lowest(&self) -> Option<Lsn> {
        self.0.values().copied().min()
    }

    /// Returns the holds, by name.
    pub fn iter(&self) -> impl Iterator<Item = (HoldName, Lsn)> + '_ {
        self.0.iter().map(|(name, lsn)| (*name, *lsn))
    }
}
