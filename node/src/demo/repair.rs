//! A lost disk, and a new node in its place, while writes go on.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_core::id::{PgId, Position, SegmentId};

use super::takeover::Pen;
use super::{ANSWER_MAX, DemoError};
use crate::addresses::Place;
use crate::client::{Client, ClientError};
use crate::clock::{Clock, Moment};
use crate::cluster::Cluster;
use crate::steward::{self, Goal, Hands, StewardError, Task};
use crate::torture::load::Session;

/// How long the replacement may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes under way meanwhile.
const IN_FLIGHT: usize = 4;

/// What a replacement came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rebuilt {
    /// Who is gone.
    pub(super) old: SegmentId,
    /// Who is there instead.
    pub(super) new: SegmentId,
    /// From the order to the settled end.
    pub(super) took: Duration,
    /// The bytes of the log that was rebuilt.
    pub(super) bytes: u64,
    /// Writes that were acknowledged meanwhile.
    pub(super) commits: u64,
    /// The longest time between two of them.
    pub(super) longest_gap: Duration,
}

/// The hands of the steward, in this process.
struct OwnHands<'a> {
    cluster: &'a mut Cluster,
    writer: SocketAddr,
}

impl Hands for OwnHands<'_> {
    fn connect(&mut self) -> Result<Client, ClientError> {
        Client::connect(self.writer, self.cluster.volume(), ANSWER_MAX)
    }

    fn provide(&mut self, old: Position, new: SegmentId) -> Result<Place, StewardError> {
        Ok(self.cluster.provide(old, new)?)
    }

    fn retire(&mut self, keep: &[SegmentId]) -> Result<(), StewardError> {
        self.cluster.retire(keep)?;
        Ok(())
    }
}

impl Pen {
    /// Kills the node at `position`, removes its disk's contents, and has it replaced, while this
    /// pen writes.
    pub(super) fn rebuild(
        &mut self,
        cluster: &mut Cluster,
        writer: SocketAddr,
        session: &mut Session,
        position: Position,
    ) -> Result<Rebuilt, DemoError> {
        cluster.kill(position)?;
        let directory = cluster.node_directory(position);
        let removed = std::fs::remove_dir_all(&directory);
        removed.map_err(|error: io::Error| DemoError::Io { path: directory, error })?;
        let is_done = AtomicBool::new(false);
        let goal = Goal::Replace(Some(position));
        let task = Task { group: PgId::new(0), goal, patience: PATIENCE };
        let clock = Clock::start();
        let (mut commits, mut longest_gap, mut last) = (0, Duration::ZERO, Moment::default());
        let outcome = thread::scope(|scope| {
            let mut hands = OwnHands { cluster: &mut *cluster, writer };
            let is_done = &is_done;
            let steward = scope.spawn(move || {
                let outcome = steward::run(&mut hands, task, &mut |_| {});
                is_done.store(true, Ordering::SeqCst);
                outcome
            });
            while !is_done.load(Ordering::SeqCst) {
                while session.under_way() < IN_FLIGHT {
                    self.begin(session)?;
                }
                self.wait(session)?;
                let now = clock.now();
                longest_gap = longest_gap.max(now.since(last));
                (last, commits) = (now, commits + 1);
            }
            steward.join().map_err(|_| DemoError::NotRebuilt)?.map_err(DemoError::from)
        })?;
        while session.under_way() > 0 {
            self.wait(session)?;
        }
        let change = outcome.change.ok_or(DemoError::NotRebuilt)?;
        let status = cluster.status(change.new.position).map_err(|_| DemoError::NotRebuilt)?;
        Ok(Rebuilt {
            old: change.old,
            new: change.new,
            took: outcome.took,
            bytes: status.log_bytes,
            commits,
            longest_gap,
        })
    }
}
