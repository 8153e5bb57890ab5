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

/// `installed` is the number of the epoch that installed the history that `choice` found.
pub(crate) fn holds(volume: &Volume, choice: &Choice, installed: usize) -> bool {
    let Some(at) = volume.epochs.iter().rposition(|epoch| epoch.base.is_some()) else {
        return true;
    };
    let Some(newest) = volume.epochs.get(at) else { return true };
    let found = choice.recovery_point.lsn();
    if installed > at && volume.has_gone(at, found) {
        return true;
    }
    let is_of_log = |lsn| newest.log.iter().any(|record| record.lsn == lsn);
    newest.base.is_none_or(|base| found >= base)
        && (found == quorate_core::lsn::Lsn::ZERO || is_of_log(found))
}
