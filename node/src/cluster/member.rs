//! The nodes of a cluster: which disk each is, where it listens, and whether it runs.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use quorate_core::id::{Incarnation, Position, Positions, SEGMENTS_MAX, SegmentId};

use super::process::Running;
use super::{
    Cluster, ClusterError, ClusterFile, Member, NAMES, POLL, STALE_MAX, WRITER, Who, doing,
};
use crate::addresses::Place;
use crate::clock::{Clock, Moment};
use crate::config::file::JoinedMember;
use crate::env::real::{LOCK_NAME, LOG_NAME};

/// A node of a cluster.
#[derive(Debug)]
pub(super) struct NodeSeat {
    /// Its name, which is that of its directory too.
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) position: Position,
    pub(super) place: Place,
    /// Whether it has ever answered: its directory holds a log since.
    pub(super) has_started: bool,
    /// Whether that log is gone. It must not come back under its old name.
    pub(super) is_lost: bool,
    /// Whether another process runs it.
    pub(super) is_elsewhere: bool,
    pub(super) running: Option<Running>,
}

impl NodeSeat {
    /// Returns which disk this is.
    pub(super) const fn id(&self) -> SegmentId {
        SegmentId { position: self.position, incarnation: self.place.incarnation }
    }

    /// Looks whether the log of the node is where it was.
    pub(super) fn look(&mut self, directory: &Path) {
        self.is_lost = self.has_lost_log(directory);
    }

    /// Returns whether there was a log, and there is none.
    pub(super) fn has_lost_log(&self, directory: &Path) -> bool {
        self.has_started && !directory.join(&self.name).join(LOG_NAME).exists()
    }

    pub(super) fn recorded(&self) -> Member {
        Member {
            name: self.name.clone(),
            address: self.place.address,
            zone: Some(self.zone.clone()),
            pid: self.running.as_ref().map(Running::id),
            position: Some(self.position.index()),
            incarnation: self.place.incarnation.get(),
            revision: self.place.revision,
            has_started: self.has_started,
        }
    }
}

impl Member {
    pub(super) fn writer(address: SocketAddr, pid: Option<u32>) -> Self {
        Self {
            name: WRITER.into(),
            address,
            zone: None,
            pid,
            position: None,
            incarnation: 0,
            revision: 0,
            has_started: false,
        }
    }
}

/// Returns the nodes that a cluster had when it last ran, or those of a new one.
pub(super) fn seats(earlier: Option<&ClusterFile>, directory: &Path) -> Vec<NodeSeat> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    let Some(earlier) = earlier else {
        let new = |(position, (name, zone)): (Position, &(&str, &str))| NodeSeat {
            name: (*name).into(),
            zone: (*zone).into(),
            position,
            place: Place::first(nobody),
            has_started: false,
            is_lost: false,
            is_elsewhere: false,
            running: None,
        };
        return Position::first(NAMES.len()).zip(&NAMES).map(new).collect();
    };
    let known = |(index, member): (usize, &Member)| {
        let position = Position::new(member.position.unwrap_or(index))?;
        let Member { incarnation, revision, address, .. } = *member;
        let incarnation = Incarnation::new(incarnation);
        let mut seat = NodeSeat {
            name: member.name.clone(),
            zone: member.zone.clone().unwrap_or_default(),
            position,
            place: Place { incarnation, revision, address },
            has_started: member.has_started,
            is_lost: false,
            is_elsewhere: false,
            running: None,
        };
        seat.look(directory);
        Some(seat)
    };
    earlier.nodes.iter().enumerate().filter_map(known).collect()
}

/// Returns by position the highest incarnation that a disk has had.
pub(super) fn disks(earlier: Option<&ClusterFile>) -> Positions<u32> {
    let mut disks = Positions::default();
    let Some(earlier) = earlier else { return disks };
    let known = Position::first(SEGMENTS_MAX).zip(&earlier.disks).map(|(at, disk)| (at, *disk));
    let present = earlier
        .nodes
        .iter()
        .filter_map(|node| Some((Position::new(node.position?)?, node.incarnation)));
    for (position, disk) in known.chain(present) {
        let highest = disks.at_mut(position);
        *highest = disk.max(*highest);
    }
    disks
}

/// Returns the nodes as configurations list them: by position, while none was ever replaced or
/// moved, or one by one.
pub(super) fn listed(nodes: &[NodeSeat]) -> (Vec<SocketAddr>, Vec<JoinedMember>) {
    let is_first = |(position, node): (Position, &NodeSeat)| {
        node.position == position
            && node.place.revision == 0
            && node.place.incarnation == Incarnation::new(0)
    };
    let count = NAMES.len();
    if nodes.len() >= count && Position::first(count).zip(nodes).all(is_first) {
        let peers = nodes.iter().take(count).map(|node| node.place.address);
        return (peers.collect(), nodes.iter().skip(count).map(joined).collect());
    }
    (Vec::new(), nodes.iter().map(joined).collect())
}

fn joined(node: &NodeSeat) -> JoinedMember {
    let Place { incarnation, revision, address } = node.place;
    let (position, incarnation) = (node.position.index(), incarnation.get());
    JoinedMember { group: 0, position, incarnation, revision, address }
}

impl Cluster {
    /// Returns the file of a cluster whose nodes go back to where they were: whoever was told of
    /// other addresses meanwhile has to believe these again. A node that has answered has a log.
    pub(super) fn moved_back(&self, earlier: ClusterFile) -> ClusterFile {
        let has_moved = self.revision != earlier.revision;
        let revision = self.revision.saturating_add(u32::from(has_moved));
        let nodes = earlier.nodes.into_iter().map(|node| {
            let seat = self.nodes.iter().find(|seat| seat.name == node.name);
            let has_started = node.has_started || seat.is_some_and(|seat| seat.has_started);
            let revision = if has_moved { revision } else { node.revision };
            Member { revision, has_started, ..node }
        });
        ClusterFile { revision, nodes: nodes.collect(), ..earlier }
    }

    pub(super) fn seat(&self, position: Position) -> Result<&NodeSeat, ClusterError> {
        let seat = self.nodes.iter().find(|node| node.position == position);
        seat.ok_or(ClusterError::Unknown { position })
    }

    pub(super) fn seat_mut(&mut self, position: Position) -> Result<&mut NodeSeat, ClusterError> {
        let seat = self.nodes.iter_mut().find(|node| node.position == position);
        seat.ok_or(ClusterError::Unknown { position })
    }

    pub(super) fn name(&self, who: Who) -> String {
        match who {
            Who::Node(position) => {
                self.seat(position).map_or_else(|_| "?".into(), |seat| seat.name.clone())
            }
            Who::Writer => WRITER.into(),
        }
    }

    /// Returns the names of the nodes whose logs are gone.
    pub fn lost(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.is_lost).map(|node| node.name.as_str())
    }
}

/// Waits until nobody has a log open: nodes of a cluster that was killed take a moment to notice.
/// Those that stay are run by somebody else.
pub(super) fn wait_until_ended(
    directory: &Path,
    nodes: &mut [NodeSeat],
) -> Result<(), ClusterError> {
    let clock = Clock::start();
    let is_open = |node: &NodeSeat| -> io::Result<bool> {
        match File::open(directory.join(&node.name).join(LOCK_NAME)) {
            Ok(file) => Ok(file.try_lock_shared().is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    for node in nodes {
        loop {
            node.is_elsewhere = is_open(node).map_err(doing("looking at a node's lock"))?;
            if !node.is_elsewhere || clock.now() >= Moment::new(STALE_MAX) {
                break;
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}
