//! P1, durability: an acknowledged commit is found by every later recovery, from every read
//! quorum.
//!
//! TLA+: `DurabilityInv`. Evaluated on every state: the core's own choice, made from what each
//! read quorum would report now, keeps everything that any client was told. Openings are judged by
//! the abstract volume too ([`crate::volume_spec::Flaw::Lost`]).

use quorate_core::lsn::Lsn;
use quorate_core::recovery::Choice;

use crate::volume_spec::Volume;

pub(crate) fn holds(volume: &Volume, choice: &Choice) -> bool {
    let found = choice.recovery_point.lsn();
    let Some(log) = volume.log_through(volume.epochs.len(), found) else { return false };
    volume
        .epochs
        .iter()
        .map(|epoch| epoch.told)
        .all(|told| told == Lsn::ZERO || log.iter().any(|record| record.lsn == told))
}
