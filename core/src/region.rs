//! Where another region is, who may wait for it, and how it takes over (protocol: regions).
//!
//! A region's volume is fed by a [`crate::relay::Relay`]. Positions of different regions are
//! compared by epoch and LSN, never by LSN alone: each region that goes on by itself uses the same
//! numbers for other records (edge 60).

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::consistency::Vdl;
use crate::epoch::VolumeEpoch;
use crate::id::InstanceId;
use crate::lsn::Lsn;
use crate::rules::{Bug, Rules, Sound};

/// A consistency point of the log that the writer of an epoch extends.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct RegionPoint {
    /// The epoch of the history under which the point was reached.
    pub epoch: VolumeEpoch,
    /// The point: everything at or under it is on a write quorum of each group there.
    pub vdl: Vdl,
}

/// Returns the epoch under which `instance` opens the volume of a region that is to take over, if
/// `heard` is the highest epoch that its segments have heard of; `None` when there is none left.
///
/// The epochs of a region that is promoted are above every one that the writers of the region left
/// behind ever use, as these stay in theirs: [`VolumeEpoch::next`] (edge 60).
#[must_use]
pub fn promoted<R: Rules>(
    rules: R,
    heard: VolumeEpoch,
    instance: InstanceId,
) -> Option<VolumeEpoch> {
    if rules.has(Bug::PromoteInSameRegion) {
        return heard.next(instance);
    }
    heard.promoted(instance)
}

/// Returns whether a planned switch may open the other region's volume: a writer of a promoted
/// epoch has opened at `fence` in the region that is to be left, allocates nothing, and is followed
/// by a relay; the other region has `reached` a point.
///
/// From `fence` on nothing of an older epoch is acknowledged where the volume was, and all that was
/// lies at or under it. The next epoch of that same region then opens in the other place.
#[must_use]
pub fn is_drained<R: Rules>(rules: R, fence: RegionPoint, reached: RegionPoint) -> bool {
    let is_there = reached.epoch == fence.epoch && reached.vdl >= fence.vdl;
    is_there || rules.has(Bug::SwitchBeforeDrained)
}

/// An input of a gate.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GateInput {
    /// Commits at or under this point are durable in the first region.
    Durable(Vdl),
    /// A relay has reported where another region is. Late, repeated and reordered reports are safe.
    Reached(RegionPoint),
}

/// What a gate has to say to its driver.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GateReport {
    /// Commits at or under this LSN are durable in both regions: tell the clients.
    Released {
        /// The LSN.
        upto: Lsn,
    },
}

/// Holds back the acknowledgements of one writer until another region has the commits as well: for
/// volumes that must lose nothing with a region. It has no durable state: with each writer begins
/// another one.
///
/// A report counts for the epoch whose log it is about, and for no other: the LSNs of a log that
/// was cut may be higher than those of the one that goes on (edge 61).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Gate<R: Rules = Sound> {
    rules: R,
    epoch: VolumeEpoch,
    durable: Lsn,
    /// Never goes back.
    reached: Lsn,
}

impl Gate {
    /// Returns the gate of the writer of `epoch`.
    #[must_use]
    pub const fn new(epoch: VolumeEpoch) -> Self {
        Self::new_under(Sound, epoch)
    }
}

impl<R: Rules> Gate<R> {
    /// [`Gate::new`] under `rules`.
    #[must_use]
    pub const fn new_under(rules: R, epoch: VolumeEpoch) -> Self {
        Self { rules, epoch, durable: Lsn::ZERO, reached: Lsn::ZERO }
    }

    /// Takes one input and appends what is to be told to `reports`.
    pub fn step(&mut self, input: GateInput, reports: &mut Vec<GateReport>) {
        let before = self.released();
        match input {
            GateInput::Durable(vdl) => self.durable = self.durable.max(vdl.lsn()),
            GateInput::Reached(point) => {
                if point.epoch == self.epoch || self.rules.has(Bug::GateCountsOtherEpochs) {
                    self.reached = self.reached.max(point.vdl.lsn());
                }
            }
        }
        if self.released() > before {
            reports.push(GateReport::Released { upto: self.released() });
        }
    }

    /// Returns the LSN up to which commits are durable in both regions.
    #[must_use]
    pub fn released(&self) -> Lsn {
        self.durable.min(self.reached)
    }

    /// Returns the epoch of the writer whose commits wait here.
    #[must_use]
    pub const fn epoch(&self) -> VolumeEpoch {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn epoch(counter: u64) -> VolumeEpoch {
        VolumeEpoch::new(counter, InstanceId::new(1))
    }

    const fn point(counter: u64, lsn: u64) -> RegionPoint {
        RegionPoint { epoch: epoch(counter), vdl: Vdl::stated(Lsn::new(lsn)) }
    }

    /// A commit would be acknowledged that no other region has.
    #[test]
    fn a_commit_waits_for_a_report_of_its_own_epoch() {
        let (mut gate, mut reports) = (Gate::new(epoch(2)), Vec::new());
        gate.step(GateInput::Durable(point(2, 7).vdl), &mut reports);
        gate.step(GateInput::Reached(point(1, 9)), &mut reports);
        gate.step(GateInput::Reached(point(3, 9)), &mut reports);
        assert!(reports.is_empty() && gate.released() == Lsn::ZERO);
        gate.step(GateInput::Reached(point(2, 6)), &mut reports);
        // An older report that comes later takes nothing back.
        gate.step(GateInput::Reached(point(2, 4)), &mut reports);
        assert_eq!(reports, [GateReport::Released { upto: Lsn::new(6) }]);
        gate.step(GateInput::Reached(point(2, 9)), &mut reports);
        assert_eq!(gate.released(), Lsn::new(7));
    }

    /// A planned switch would leave commits behind.
    #[test]
    fn a_switch_waits_until_the_other_region_has_everything() {
        assert!(!is_drained(Sound, point(3, 7), point(3, 6)));
        assert!(!is_drained(Sound, point(3, 7), point(2, 8)));
        assert!(is_drained(Sound, point(3, 7), point(3, 7)));
    }
}
