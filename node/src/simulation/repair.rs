//! Lost disks: a machine whose disk is gone gets an empty one, which joins the group in the place
//! of the one before, under a name of its own, while everything else goes on.

use quorate_core::formula::Half;
use quorate_core::id::{Incarnation, PgId, Position, SEGMENTS_MAX, SegmentId};
use quorate_core::membership::Step;
use quorate_core::rules::Rules;

use super::cluster::Cluster;
use crate::addresses::{Place, Seat};
use crate::env::simulated::{Crash, Fault, address};
use crate::steward;
use crate::wire::members::Stepped;

/// Of 1,000 looks at a change under way, so many take it back.
const REVERTS: u64 = 20;

/// A disk that is to take the place of a lost one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rebuilding {
    /// The machine.
    pub(super) node: usize,
    old: SegmentId,
    new: SegmentId,
}

impl<R: Rules> Cluster<R> {
    /// Makes a node lose its disk for good. One at a time, as of those whose log is damaged: what
    /// it had is on the others.
    pub(super) fn lose_disk(&mut self, node: usize) {
        self.look_for_rot();
        let is_alone = self.rebuilding.is_none() && self.rotten.is_none();
        if !is_alone || !self.may_fail(&[node]) {
            return;
        }
        let Some(old) = self.nodes.get(node).map(|slot| slot.id) else { return };
        let taken: Vec<Position> = self.nodes.iter().map(|slot| slot.id.position).collect();
        let mut free = Position::first(SEGMENTS_MAX).filter(|position| !taken.contains(position));
        let Some(position) = free.next() else { return };
        self.disks = self.disks.saturating_add(1);
        let new = SegmentId { position, incarnation: Incarnation::new(self.disks) };
        self.tell(&format!("node {node} loses its disk; {new} is to take the place of {old}"));
        // Until the change is through, the group has one member less.
        self.impair(&[node]);
        self.bring_down(&[node], Crash::Power);
        self.world.with(|state| state.lose_disk(node));
        if let Some(slot) = self.nodes.get_mut(node) {
            slot.id = new;
        }
        self.rebuilding = Some(Rebuilding { node, old, new });
    }

    /// Kills the node that joins: it counts nowhere, so that this is no fault of another node.
    pub(super) fn kill_newcomer(&mut self) {
        let Some(Rebuilding { node, .. }) = self.rebuilding else { return };
        if self.nodes.get(node).is_some_and(|slot| slot.up.is_some()) {
            let how = if self.random.chance(500) { Crash::Kill } else { Crash::Power };
            self.bring_down(&[node], how);
        }
    }

    /// Takes the next step of the change, through the newest writer.
    pub(super) fn tend(&mut self) {
        let Some(rebuilding) = self.rebuilding else { return };
        let open = self.clients.iter_mut().filter(|client| !client.is_frozen);
        let Some(client) = open.max_by_key(|client| client.epoch) else { return };
        let (group, process) = (PgId::new(0), client.process);
        let members = client.members();
        let Some(standing) = members.and_then(|members| members.groups.into_iter().next()) else {
            return;
        };
        let Rebuilding { node, old, new } = rebuilding;
        let membership = standing.membership;
        if !standing.is_settled {
            return;
        }
        let may_revert = self.phase.is_faulty() && self.random.below(1000) < REVERTS;
        let place = Place { incarnation: new.incarnation, revision: 0, address: address(node) };
        let step = match steward::under_way(&membership) {
            Some((half, _)) if may_revert => Step::Revert(half),
            Some((half, _)) => Step::Finish(half),
            None if membership.quorums().members().contains(new.position)
                && membership.knows(new.position, new.incarnation) =>
            {
                return self.rebuilt(node, new, place);
            }
            None => Step::Replace { old: old.position, new },
        };
        let stepped = client.take_step(group, step, Some(place));
        self.world.with(|state| state.rouse(process));
        if stepped == Stepped::Taken {
            let what = match step {
                Step::Finish(Half::Newer | Half::Older) => "has taken the place",
                Step::Revert(_) => "is taken out again",
                Step::Grow | Step::Replace { .. } | Step::Reshape(_) => "joins",
            };
            self.tell(&format!("{new} {what}, unsettled"));
        }
    }

    /// The change is through, and whoever starts writers from now on knows where they all are.
    fn rebuilt(&mut self, node: usize, new: SegmentId, place: Place) {
        self.tell(&format!("{new} is a member"));
        self.world.with(|state| state.trace.fire(Fault::Rebuilt));
        self.rebuilding = None;
        self.joined.retain(|seat| seat.position != new.position);
        self.joined.push(Seat { position: new.position, place });
        self.repair(&[node]);
    }

    /// Returns how many of a node's faults end only with the change that is under way.
    pub(super) fn standing_faults(&self, node: usize) -> u32 {
        u32::from(self.rebuilding.is_some_and(|rebuilding| rebuilding.node == node))
    }

    /// Returns whether all disks that were lost have been replaced.
    pub(super) const fn is_whole(&self) -> bool {
        self.rebuilding.is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use std::time::Duration;

    use crate::simulation::{Options, run};

    /// A lost disk that is replaced while nodes and writers fail must cost no commit, and has to
    /// come about often enough to show that.
    #[test]
    fn lost_disks_are_replaced_while_everything_else_fails() {
        let (mut lost, mut rebuilt) = (0, 0);
        for seed in 1000..1012 {
            let duration = Duration::from_secs(5);
            let options = Options { seed, duration, has_blackouts: seed >= 1010, mutant: None };
            let report = run(&options).unwrap_or_else(|failure| panic!("{failure}"));
            for (fault, count) in &report.faults {
                match *fault {
                    "disk_lost" => lost += count,
                    "rebuilt" => rebuilt += count,
                    _ => {}
                }
            }
        }
        assert_eq!(lost, rebuilt, "what was lost is replaced by the end of a round");
        assert!(lost >= 10, "{lost}");
    }
}
