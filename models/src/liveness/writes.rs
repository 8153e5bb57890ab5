//! L1, writes: while a write quorum of each group lives, whoever else is unreachable for ever (any
//! two of six segments, so a whole zone), writes finish: those that are under way, and a new one.
//!
//! TLA+: none, the specification states no fairness. Evaluated from every state, for every largest
//! set of segments that a write quorum can do without: the highest writer goes on, and, in another
//! run, a new one takes over.

use quorate_core::effect::WriterInput;
use quorate_core::rules::Rules;

use super::schedule::{Fair, Waiting};

/// Runs until all that the last writer, which is open, has written is durable, and a new write too.
pub(super) fn finish<R: Rules>(fair: &mut Fair<'_, R>) -> Result<(), Waiting> {
    fair.until("what was written isn't durable", Fair::is_durable)?;
    write(fair)
}

/// Lets the last writer, which is open, write what touches most groups.
pub(super) fn write<R: Rules>(fair: &mut Fair<'_, R>) -> Result<(), Waiting> {
    let mtrs = fair.world.configuration.mtrs;
    let longest = (0u8..).zip(mtrs).max_by_key(|(_, pages)| pages.len()).map_or(0, |(mtr, _)| mtr);
    let tail = |fair: &Fair<'_, R>| fair.machine().and_then(quorate_core::writer::Writer::tail);
    let before = tail(fair);
    let Some(changes) = fair.world.changes(longest) else { return Err("there is no write") };
    fair.tell(128 | u64::from(longest), WriterInput::Write { changes });
    if tail(fair) == before {
        return Err("the writer takes no write");
    }
    fair.until("a new write isn't durable", Fair::is_durable)
}
