//! P9, recovery is idempotent: recoveries that crash at any step and recoveries that compete leave
//! one decision standing. Once an epoch is open, every later recovery, from every read quorum,
//! continues that epoch's log: it cuts nothing that the epoch opened with, and brings nothing back
//! that the epoch annulled.
//!
//! TLA+: `RecoveryIdempotentInv`, which asks for the cause: that every read quorum chooses the
//! epoch's history or a newer one. Here the consequence is judged. Evaluated on every state for
//! every read quorum.

use quorate_core::recovery::Choice;

use crate::volume_spec::Volume;

pub(crate) fn holds(volume: &Volume, choice: &Choice) -> bool {
    let Some(newest) = volume.epochs.iter().rev().find(|epoch| epoch.base.is_some()) else {
        return true;
    };
    let found = choice.recovery_point.lsn();
    let is_of_log = |lsn| newest.log.iter().any(|record| record.lsn == lsn);
    newest.base.is_none_or(|base| found >= base)
        && (found == quorate_core::lsn::Lsn::ZERO || is_of_log(found))
}
