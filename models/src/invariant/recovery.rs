//! P9, recovery is idempotent: recoveries that crash at any step and recoveries that compete leave
//! one decision standing. Once an epoch is open, every read quorum leads every later recovery to a
//! history that contains that epoch's decision or a later one built on it.
//!
//! TLA+: `RecoveryIdempotentInv`. Evaluated on every state for every read quorum.

use quorate_core::recovery::Choice;

use crate::configuration::Configuration;
use crate::volume_spec::Volume;

pub(crate) fn holds(configuration: &Configuration, volume: &Volume, choice: &Choice) -> bool {
    let opened = volume.epochs.iter().zip(0u8..).filter(|(epoch, _)| epoch.base.is_some());
    let Some((_, newest)) = opened.last() else { return true };
    let epoch = configuration.epoch(newest);
    choice.found.ranges().iter().any(|range| range.epoch() == epoch)
}
