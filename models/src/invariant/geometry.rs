//! Geometry: a group that is added to a volume is on a write quorum of the first group, and on
//! one of its own, before any record can be allocated in it (protocol: geometry; edge 55).
//!
//! TLA+: none, no groups are added in `tla/Volume.tla`. Evaluated on every state of a configuration
//! that grows, for every open writer. That recoveries then find what was written there is for P1
//! and P9, and that a group which is half made can be completed by any later writer for P8.

use quorate_core::geometry::Added;
use quorate_core::id::{PgId, Position, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::Property;
use crate::witness::Witness;
use crate::world::{State, World};

pub(crate) fn broken<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    if world.configuration.growing == 0 {
        return None;
    }
    let mut open = world.started(state).map(|(_, node)| &node.machine);
    let is_broken = |writer: &Writer<R>| writer.vdl().is_some() && !holds(world, state, writer);
    open.any(is_broken).then_some(Property::Geometry)
}

fn holds<R: Rules>(world: &World<R>, state: &State, writer: &Writer<R>) -> bool {
    let (first, epoch) = (PgId::new(0), writer.epoch());
    let added = writer.geometry().added();
    let is_left = |image: &SegmentImage| {
        let membership = image.membership();
        membership.added() > added && membership.epoch().volume < epoch
    };
    let has_left = !holders(world, state, first, is_left).is_empty();
    world.witnesses.saw_if(has_left, Witness::GrowthLeft);
    if added == Added::NONE {
        return true;
    }
    // What a later writer has put in its place says the same, or that writer has found the group.
    let counts = |image: &SegmentImage| {
        let (version, known) = (image.membership().epoch(), image.membership().added());
        version.volume > epoch || (version.volume == epoch && known >= added)
    };
    let has_history = |image: &SegmentImage| image.history().epoch() >= epoch;
    let writes = |group: PgId, holders: SegmentSet| {
        writer.membership(group).is_some_and(|it| it.before().writes(holders, 0))
    };
    let began = world.configuration.geometry();
    let mut new = writer.geometry().groups().filter(|group| !began.has(*group));
    writes(first, holders(world, state, first, counts))
        && new.all(|group| writes(group, holders(world, state, group, has_history)))
}

/// Returns the segments of a group whose durable state is as `wanted`.
fn holders<R: Rules>(
    world: &World<R>,
    state: &State,
    group: PgId,
    wanted: impl Fn(&SegmentImage) -> bool,
) -> SegmentSet {
    let mut holders = SegmentSet::EMPTY;
    for position in Position::first(world.members()) {
        let index = world.slot_index(group.get() as usize, position.index());
        if wanted(world.slot(state, index).slot.segment.durable()) {
            holders.insert(position);
        }
    }
    holders
}
