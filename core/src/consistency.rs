//! The consistency points. Only this file turns one into another, each by the rule that defines it.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::formula::Formula;
use crate::hold::Holds;
use crate::id::Positions;
use crate::lsn::Lsn;

macro_rules! point {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize,
            Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(Lsn);

        impl $name {
            /// The point of an empty volume.
            pub const ZERO: Self = Self(Lsn::ZERO);

            /// Returns the LSN of this point.
            #[must_use]
            pub const fn lsn(self) -> Lsn {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}", self.0)
            }
        }
    };
}

point! {
    /// SCL: at or below it a segment holds every record of its group.
    Scl
}
point! {
    /// PGCL: at or below it a group has met its write quorum.
    Pgcl
}
point! {
    /// VCL: at or below it every record of the volume is on its write quorum.
    Vcl
}
point! {
    /// VDL: highest CPL not above the VCL; commits at or below it are acknowledged.
    Vdl
}
point! {
    /// The VDL at which a read is evaluated.
    ReadPoint
}
point! {
    /// PGMRPL: the lowest read point that any reader or writer may still use.
    Pgmrpl
}
point! {
    /// The garbage floor: at or under it segments may discard versions that newer ones supersede.
    GarbageFloor
}

impl Scl {
    /// Returns the SCL of a segment whose backlink chain is whole up to `lsn`.
    pub(crate) const fn of_chain(lsn: Lsn) -> Self {
        Self(lsn)
    }
}

impl Pgcl {
    /// Returns the highest LSN that a write quorum has reached with its SCL; one that is `short`
    /// members short of it, for seeded bugs.
    #[must_use]
    pub fn of(quorums: &Formula, scls: &Positions<Lsn>, short: u32) -> Self {
        Self(quorums.reached(scls, short))
    }
}

impl Vcl {
    /// Returns the VCL of a volume all of whose records at or under `lsn` are durable.
    pub(crate) const fn reached(lsn: Lsn) -> Self {
        Self(lsn)
    }
}

impl Vdl {
    /// Returns the VDL at `cpl`, a consistency point at or under `vcl`.
    ///
    /// Returns `None` when `cpl` lies above `vcl`.
    #[must_use]
    pub fn of(vcl: Vcl, cpl: Lsn) -> Option<Self> {
        (cpl <= vcl.0).then_some(Self(cpl))
    }

    /// Returns the VDL that a durable statement of another machine names.
    pub(crate) const fn stated(lsn: Lsn) -> Self {
        Self(lsn)
    }
}

impl ReadPoint {
    /// Returns the read point of a read that sees everything acknowledged at `vdl`.
    #[must_use]
    pub const fn at(vdl: Vdl) -> Self {
        Self(vdl.0)
    }

    /// Returns the read point `lsn` if it is at or under `vdl`; the driver answers for its being
    /// a consistency point that it was told.
    #[must_use]
    pub fn earlier(vdl: Vdl, lsn: Lsn) -> Option<Self> {
        (lsn <= vdl.0).then_some(Self(lsn))
    }

    /// Returns the read point that a seeded bug takes from a group instead of the volume.
    pub(crate) const fn unsound(lsn: Lsn) -> Self {
        Self(lsn)
    }
}

impl Pgmrpl {
    /// Returns the lowest of the `live` read points, and the VDL, at which the next read may be.
    #[must_use]
    pub fn of(vdl: Vdl, live: impl IntoIterator<Item = ReadPoint>) -> Self {
        Self(live.into_iter().map(ReadPoint::lsn).fold(vdl.lsn(), Lsn::min))
    }
}

impl GarbageFloor {
    /// Returns the lowest of what reads need and what the `holds` keep (edge 47).
    #[must_use]
    pub fn of(pgmrpl: Pgmrpl, holds: &Holds) -> Self {
        Self(holds.lowest().map_or(pgmrpl.lsn(), |held| held.min(pgmrpl.lsn())))
    }

    /// Returns the floor of a seeded bug that disregards what reads need.
    pub(crate) const fn unsound(lsn: Lsn) -> Self {
        Self(lsn)
    }
}
