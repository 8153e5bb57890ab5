//! A node of a cluster on this machine in the place of another one.

use quorate_core::id::{Incarnation, Position, SegmentId};

use super::member::NodeSeat;
use super::{Cluster, ClusterError, NAMES, Who, address};
use crate::addresses::Place;

impl Cluster {
    /// Sees to it that the disk `new` is there, in the zone of the node at `old`, and that its node
    /// runs: a new one in a directory of its own, unless it was begun before. Returns where.
    ///
    /// # Errors
    /// [`ClusterError::DiskLost`] when it was begun before and its log is gone, another one when it
    /// can't be started.
    pub fn provide(&mut self, old: Position, new: SegmentId) -> Result<Place, ClusterError> {
        let position = new.position;
        let known = self.nodes.iter_mut().find(|node| node.id() == new);
        if let Some(known) = known {
            known.look(&self.directory);
            let (is_lost, place, has_started) = (known.is_lost, known.place, known.has_started);
            let running = known.running.as_mut();
            let has_ended = running.is_none_or(|it| it.ended().is_ok_and(|end| end.is_some()));
            if is_lost {
                return Err(ClusterError::DiskLost { name: self.name(Who::Node(position)) });
            }
            if has_ended {
                self.restart(position)?;
            } else if !has_started {
                // Nobody may propose it before its log is known to be there: without it, a later
                // start would take it for a new one.
                self.wait_ready(position)?;
            }
            return Ok(place);
        }
        let highest = self.disks.at_mut(position);
        if new.incarnation.get() <= *highest {
            // Its directory was another one; an empty one must not have its name (edge 27).
            return Err(ClusterError::DiskLost { name: new.to_string() });
        }
        *highest = new.incarnation.get();
        let zone = match self.seat(old) {
            Ok(seat) => seat.zone.clone(),
            // It is nobody's any more; the place says what it was at first.
            Err(_) => NAMES.get(old.index()).map_or("?", |(_, zone)| *zone).into(),
        };
        // A disk from before has the position no more.
        self.nodes.retain(|node| node.position != position);
        let free = address::choose(&[], &[false])?.pop().ok_or(ClusterError::NoPorts)?;
        let place = Place { incarnation: new.incarnation, revision: 0, address: free };
        let (name, position) = (self.unused_name(&zone), new.position);
        self.nodes.push(NodeSeat {
            name,
            zone,
            position,
            place,
            has_started: false,
            is_lost: false,
            is_elsewhere: false,
            running: None,
        });
        self.addresses = self.nodes.iter().map(|node| node.place.address).collect();
        self.record()?;
        self.everybody().try_for_each(|who| self.configure(who))?;
        self.spawn(Who::Node(position))?;
        self.wait_ready(position)?;
        self.record()?;
        Ok(place)
    }

    /// Ends all nodes but those of `keep`, and forgets them. Their directories stay for whoever
    /// wants to look at them. Returns their names.
    ///
    /// # Errors
    /// [`ClusterError`] when a node can't be ended.
    pub fn retire(&mut self, keep: &[SegmentId]) -> Result<Vec<String>, ClusterError> {
        let gone = self.nodes.iter().filter(|node| !keep.contains(&node.id()));
        let gone: Vec<Position> = gone.map(|node| node.position).collect();
        let names = gone.iter().map(|position| self.name(Who::Node(*position))).collect();
        for position in &gone {
            self.kill(*position)?;
        }
        if !gone.is_empty() {
            self.nodes.retain(|node| !gone.contains(&node.position));
            self.addresses = self.nodes.iter().map(|node| node.place.address).collect();
            self.record()?;
            self.everybody().try_for_each(|who| self.configure(who))?;
        }
        Ok(names)
    }

    /// Returns a name that no directory here has.
    fn unused_name(&self, zone: &str) -> String {
        let names = (1u32..).map(|number| format!("{zone}{number}"));
        let mut unused = names.filter(|name| {
            !self.directory.join(name).exists() && !self.nodes.iter().any(|it| it.name == *name)
        });
        unused.next().unwrap_or_else(|| zone.into())
    }

    /// Ends the writer by SIGKILL, starts it again, and waits until it has opened the volume.
    ///
    /// # Errors
    /// [`ClusterError`] when it doesn't.
    pub fn restart_writer(&mut self) -> Result<(), ClusterError> {
        // It ends with its value.
        self.writer = None;
        self.spawn(Who::Writer)?;
        self.wait_for_writer()?;
        self.record()
    }

    /// Returns which disk is at `position`.
    #[must_use]
    pub fn incarnation(&self, position: Position) -> Option<Incarnation> {
        self.seat(position).ok().map(|seat| seat.place.incarnation)
    }
}
