//! P5, monotone: within an epoch the VDL never goes back, and the VDL at which a writer opens is
//! at or above every VDL that a writer of a lower epoch ever tells.
//!
//! TLA+: `MonotoneInv`. Evaluated on every transition by the abstract volume
//! ([`crate::volume_spec::Flaw::WentBack`]; across epochs [`crate::volume_spec::Flaw::StaleAck`]).

use quorate_core::lsn::Lsn;

use crate::volume_spec::EpochLog;

/// Returns whether the writer of `epoch` may open now: a second opening would start its VDL anew.
pub(crate) const fn may_open(epoch: &EpochLog) -> bool {
    epoch.base.is_none()
}

/// Returns whether the writer of `epoch` may tell its clients `vdl` next.
pub(crate) fn may_tell(epoch: &EpochLog, vdl: Lsn) -> bool {
    epoch.base.is_some() && vdl >= epoch.told
}

/// Returns whether the writer of `epoch` may write: its log begins with its opening.
pub(crate) const fn may_write(epoch: &EpochLog) -> bool {
    epoch.base.is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use quorate_core::epoch::VolumeEpoch;
    use quorate_core::id::InstanceId;
    use quorate_core::record::Record;
    use quorate_core::rules::Sound;

    use super::*;
    use crate::configuration::Configuration;
    use crate::invariant::Property;
    use crate::volume_spec::{Event, Flaw, Volume};
    use crate::world::{State, World};

    /// The record at `lsn`, the next of a log that has every LSN under it.
    fn record(lsn: u64) -> Record {
        let before = Lsn::new(lsn - 1);
        Record {
            lsn: Lsn::new(lsn),
            epoch: VolumeEpoch::new(1, InstanceId::new(1)),
            prev_volume: before,
            prev_group: before,
            group: Default::default(),
            page: Default::default(),
            cpl: true,
            payload: Default::default(),
        }
    }

    fn written() -> [Event; 2] {
        [Event::Written(vec![record(1)]), Event::Written(vec![record(2)])]
    }

    /// Returns the state after the first writer, which is open, has reported `events`.
    fn after(world: &World<Sound>, events: &[Event]) -> State {
        let mut state = world.start();
        world.report(&mut state, 0, events.to_vec());
        state
    }

    /// A VDL that goes back would take an acknowledged commit out of sight, and nothing would say
    /// so: no seeded bug of the core makes it go back.
    #[test]
    fn a_vdl_that_goes_back_is_reported() {
        let world = World::new(&Configuration::EMPTY, Sound, 0);
        let [first, second] = written();
        let durable = |lsn| Event::Durable(Lsn::new(lsn));
        let forward = [first, second, durable(1), durable(2), durable(2)];
        assert_eq!(world.verdict(&after(&world, &forward)).filter(is_monotone), None);
        assert_eq!(after(&world, &forward).flaw, None);
        let back = [&forward[..], &[durable(1)]].concat();
        assert_eq!(after(&world, &back).flaw, Some(Flaw::WentBack));
        assert_eq!(world.verdict(&after(&world, &back)), Some(Property::Monotone));
    }

    /// A second opening at a lower point would let a writer forget what it has told.
    #[test]
    fn a_second_opening_is_reported() {
        let world = World::new(&Configuration::EMPTY, Sound, 0);
        let again = after(&world, &[Event::Opened(Lsn::ZERO, Vec::new())]);
        assert_eq!(world.verdict(&again), Some(Property::Monotone));
    }

    /// A writer that tells or writes before it has opened has no VDL that could stay.
    #[test]
    fn acting_before_the_opening_is_reported() {
        let volume = Volume::default();
        let [first, _] = written();
        assert_eq!(volume.step(0, &first), Err(Flaw::WentBack));
        assert_eq!(volume.step(0, &Event::Durable(Lsn::ZERO)), Err(Flaw::WentBack));
        assert!(volume.step(0, &Event::Opened(Lsn::ZERO, Vec::new())).is_ok());
    }

    fn is_monotone(property: &Property) -> bool {
        *property == Property::Monotone
    }
}
