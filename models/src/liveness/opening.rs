//! L4, opening: when competing recoveries stop, one writer opens. The highest one that there is
//! opens and writes, without a new one; a new one that knows no epoch finds one, and opens; and
//! the segments of every group end up alike.
//!
//! TLA+: none, the specification states no fairness. Evaluated from every state, with everybody
//! awake: the highest writer alone, a new one alone, and a new one while all others go on.

use quorate_core::id::{PgId, SegmentSet};
use quorate_core::rules::Rules;

use super::live_members;
use super::schedule::{Fair, Waiting};
use crate::step::position_of;

/// Runs until every member that takes part has all that is durable, its vote, and the history in
/// force, and the writer knows.
pub(super) fn converge<R: Rules>(fair: &mut Fair<'_, R>) -> Result<(), Waiting> {
    fair.until("a segment never has all that is durable", |fair| {
        (0..fair.world.groups()).all(|group| is_alike(fair, group))
    })
}

pub(super) fn is_alike<R: Rules>(fair: &Fair<'_, R>, group: usize) -> bool {
    let Some(machine) = fair.machine() else { return false };
    let members = live_members(fair, group);
    let complete = (0..).map(PgId::new).nth(group).map(|group| machine.complete(group));
    let is_whole = complete.is_some_and(|complete| members.is_within(complete));
    let mut scls = Vec::new();
    for (position, segment) in fair.segments(group) {
        if !members.contains(position_of(position)) {
            continue;
        }
        let image = segment.durable();
        if !segment.has_vote() || image.history().epoch() != machine.epoch() {
            return false;
        }
        scls.push(image.scl());
    }
    scls.dedup();
    is_whole && members != SegmentSet::EMPTY && scls.len() == 1
}
