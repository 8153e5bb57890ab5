//! Positions in the volume's redo log.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A position in the volume's redo log: one record, one number, never reused (SIGMOD'17 §4.1).
///
/// [`Lsn::ZERO`] is the position before the first record. Arithmetic is checked: a volume ends at
/// `u64::MAX` records with a refusal, not with a wrap-around.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// The position before the first record; also "no record" in a backlink.
    pub const ZERO: Self = Self(0);

    /// Returns the position with number `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number of this position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the position `count` records later, or `None` past the end of the number space.
    #[must_use]
    pub const fn plus(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Returns how many positions lie in `(earlier, self]`, zero when there are none.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Lsn::new(u64::MAX).plus(1), None);
        assert_eq!(Lsn::new(3).plus(4), Some(Lsn::new(7)));
        assert_eq!(Lsn::new(3).since(Lsn::new(5)), 0);
        assert_eq!(Lsn::new(5).since(Lsn::new(3)), 2);
    }
}
