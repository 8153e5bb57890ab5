//! Clones: a clone's pages are those of its parent at its point, which is a consistency point, as
//! long as it is there; a write quorum of its parent's segments keeps them.
//!
//! TLA+: none, it has no reads. Evaluated on every state of a configuration with a clone, for every
//! open writer of the parent and every segment that answers it.

use quorate_core::clones::{Lineage, Lookup};
use quorate_core::consistency::ReadPoint;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::{Property, reads};
use crate::clones::Made;
use crate::witness::Witness;
use crate::world::{State, World};

/// Returns whether `state` has a clone that is not what it was made of.
pub(crate) fn broken<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    let made = world.clones(state)?.made.as_ref()?;
    let volume = world.volumes.get(state.volume);
    let is_point = volume.log_through(volume.epochs.len(), made.origin.at).is_some();
    let groups = 0..world.configuration.groups as usize;
    let is_kept = groups.into_iter().all(|group| {
        let keeps = |position: &usize| {
            let slot = world.slot(state, world.slot_index(group, *position));
            slot.slot.segment.durable().base() <= made.origin.at
        };
        (0..world.members()).filter(keeps).count() >= world.configuration.quorums.write()
    });
    let is_read = world.started(state).all(|(_, of)| reads_right(world, state, made, &of.machine));
    (!is_point || !is_kept || !is_read).then_some(Property::Clones)
}

/// Returns whether every page of the clone, which has written none, is what it was, whoever answers
/// a read of `writer`.
fn reads_right<R: Rules>(world: &World<R>, state: &State, made: &Made, writer: &Writer<R>) -> bool {
    let Some(lineage) = Lineage::new().child(made.origin) else { return false };
    let Lookup::Ask { level: _, at } = lineage.after(world.rules, 0, None) else { return false };
    let Some(vdl) = writer.vdl() else { return true };
    // A writer that opened below hasn't read what the clone needs yet, or never will.
    let point = at.map_or(Some(ReadPoint::at(vdl)), |at| ReadPoint::earlier(vdl, at));
    let Some(point) = point.filter(|point| point.lsn() >= made.origin.at) else { return true };
    (0..world.slots_count()).all(|index| {
        let segment = &world.slot(state, index).slot.segment;
        made.pages.iter().all(|(page, expected)| {
            match reads::read(writer, segment, *page, Some(point), &mut |_| {}) {
                None => true,
                Some((_, version)) => {
                    world.witnesses.saw_if(point.lsn() < vdl.lsn(), Witness::CloneRead);
                    version == *expected
                }
            }
        })
    })
}
