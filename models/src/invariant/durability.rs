//! P1, durability: an acknowledged commit is found by every later recovery, from every read
//! quorum, but for what a backtrack in the history that it finds took back.
//!
//! TLA+: `DurabilityInv`. Evaluated on every state: the core's own choice, made from what each
//! read quorum would report now, keeps everything that any client was told. Openings are judged by
//! the abstract volume too ([`crate::volume_spec::Flaw::Lost`]).

use quorate_core::lsn::Lsn;
use quorate_core::recovery::Choice;

use crate::volume_spec::{Taken, Volume, is_taken_back};

pub(crate) fn holds(volume: &Volume, choice: &Choice, backtracks: &[Taken]) -> bool {
    let found = choice.recovery_point.lsn();
    let Some(log) = volume.log_through(volume.epochs.len(), found) else { return false };
    let mut told = volume.epochs.iter().map(|epoch| epoch.told).enumerate();
    told.all(|(told_by, told)| {
        told == Lsn::ZERO
            || log.iter().any(|record| record.lsn == told)
            || is_taken_back(backtracks, told_by, told)
    })
}
