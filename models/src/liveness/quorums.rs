//! Which segments are a quorum of what may be in force.

use quorate_core::id::{Position, SegmentSet};
use quorate_core::membership::Membership;
use quorate_core::rules::Rules;

use super::Reach;
use crate::world::{GROUPS, State, World};

pub(super) fn everyone<R: Rules>(world: &World<R>) -> Reach {
    let members = Position::first(world.members());
    let mut all = SegmentSet::EMPTY;
    members.for_each(|position| all.insert(position));
    let mut reach = [SegmentSet::EMPTY; GROUPS];
    reach.iter_mut().take(world.groups()).for_each(|of_group| *of_group = all);
    reach
}

/// Returns whether a write quorum and a read quorum of every membership that may be in force
/// are among those in `reach`, in every group.
pub(super) fn writes<R: Rules>(world: &World<R>, quiet: &State, reach: &Reach) -> bool {
    reads(world, quiet, reach)
        && (0..world.groups()).all(|group| {
            memberships(world, quiet, reach, group).iter().all(|membership| {
                let (there, _) = there(world, quiet, reach, group, membership);
                membership.quorums().writes(there, 0) && membership.before().writes(there, 0)
            })
        })
}

/// Returns whether a read quorum of every membership that may be in force is among those in
/// `reach`, in every group.
pub(super) fn reads<R: Rules>(world: &World<R>, quiet: &State, reach: &Reach) -> bool {
    let first = Membership::genesis(world.configuration.quorums);
    (0..world.groups()).all(|group| {
        let known = memberships(world, quiet, reach, group);
        known.iter().chain([&first]).all(|membership| {
            let (_, voters) = there(world, quiet, reach, group, membership);
            membership.quorums().reads(voters, 0) && membership.before().reads(voters, 0)
        })
    })
}

/// Returns the memberships that those in `reach` have.
pub(super) fn memberships<R: Rules>(
    world: &World<R>,
    quiet: &State,
    reach: &Reach,
    group: usize,
) -> Vec<Membership> {
    let mut known: Vec<Membership> = Vec::new();
    for position in reach.get(group).copied().unwrap_or(SegmentSet::EMPTY).iter() {
        let slot = world.slot(quiet, world.slot_index(group, position.index()));
        let membership = *slot.slot.segment.durable().membership();
        if !known.contains(&membership) {
            known.push(membership);
        }
    }
    known
}

/// Returns the members of `membership` in `reach` that have the disks that it names, and those
/// of them that vote.
pub(super) fn there<R: Rules>(
    world: &World<R>,
    quiet: &State,
    reach: &Reach,
    group: usize,
    membership: &Membership,
) -> (SegmentSet, SegmentSet) {
    let (mut there, mut voters) = (SegmentSet::EMPTY, SegmentSet::EMPTY);
    for position in reach.get(group).copied().unwrap_or(SegmentSet::EMPTY).iter() {
        let slot = world.slot(quiet, world.slot_index(group, position.index()));
        let segment = &slot.slot.segment;
        if membership.knows(position, segment.durable().incarnation()) {
            there.insert(position);
            if segment.has_vote() {
                voters.insert(position);
            }
        }
    }
    (there, voters)
}

/// Returns what an operator says who looks at those in `reach`: the newest membership, and
/// whose disks never come back.
pub(super) fn forced<R: Rules>(
    world: &World<R>,
    quiet: &State,
    reach: &Reach,
) -> Vec<(Membership, SegmentSet)> {
    let of_group = |group| {
        let known = memberships(world, quiet, reach, group);
        let newest = known.into_iter().max_by_key(Membership::epoch)?;
        let (there, _) = there(world, quiet, reach, group, &newest);
        Some((newest, newest.everyone().without(there)))
    };
    (0..world.groups()).filter_map(of_group).collect()
}

/// Returns whether the history of some segment takes fewer than `recoveries` more.
pub(super) fn is_full<R: Rules>(world: &World<R>, quiet: &State, recoveries: usize) -> bool {
    let ranges_max = world.configuration.history_ranges_max as usize;
    (0..world.slots_count()).any(|index| {
        let segment = &world.slot(quiet, index).slot.segment;
        segment.durable().history().ranges().len().saturating_add(recoveries) > ranges_max
    })
}
