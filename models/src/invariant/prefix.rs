//! P3, prefix: the recovered log is a prefix of the log written, cut at a consistency point:
//! never a gap, never half an MTR.
//!
//! TLA+: `PrefixInv`. Evaluated on every state for every read quorum, and on every opening by the
//! abstract volume ([`crate::volume_spec::Flaw::NotAPrefix`]).

use quorate_core::recovery::Choice;

use crate::volume_spec::Volume;

pub(crate) fn holds(volume: &Volume, choice: &Choice) -> bool {
    let found = choice.recovery_point.lsn();
    let Some(log) = volume.log_through(volume.epochs.len(), found) else { return false };
    // The groups' ends, to which the next records will link back, are those of this very prefix.
    choice.ends.iter().zip(0u32..).all(|(end, group)| {
        let last = log.iter().rev().find(|record| record.group.get() == group);
        last.map_or(*end == quorate_core::lsn::Lsn::ZERO, |record| record.lsn == *end)
    })
}
