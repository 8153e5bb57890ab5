//! What a node does for its own log: marks, and discarding old versions.

use std::time::Duration;

use quorate_core::rules::Rules;

use super::{Node, NodeError};
use crate::clock::Moment;
use crate::env::Environment;

/// How long after its last write an idle segment marks its log as durable.
pub(super) const MARK_AFTER: Duration = Duration::from_millis(50);

/// How far the garbage floor rises before a segment discards what lies under it: enough that one
/// write for it is cheap.
const COLLECT_LSNS: u64 = 4096;

/// How often a segment discards what there is to discard.
const COLLECT_EVERY: Duration = Duration::from_secs(1);

impl<E: Environment, R: Rules> Node<E, R> {
    /// Discards what no read can need any more, if there is enough of it or it has been a while.
    pub(super) fn collect(&mut self, now: Moment) -> Result<(), NodeError> {
        let garbage = self.host.garbage();
        if garbage >= COLLECT_LSNS || (garbage > 0 && self.collect_at <= now) {
            self.collect_at = now.after(COLLECT_EVERY);
            let collected = self.host.collect(&mut self.outgoing);
            self.check(collected)?;
        }
        Ok(())
    }

    /// Sets a mark once a segment that has written is idle.
    pub(super) fn mark(&mut self, now: Moment) -> Result<(), NodeError> {
        let submitted = self.host.submitted();
        if self.wrote.0 != submitted {
            self.wrote = (submitted, now);
        }
        if self.is_mark_due() && now.since(self.wrote.1) >= MARK_AFTER {
            let marked = self.host.mark();
            self.check(marked)?;
            self.marked = self.host.submitted();
        }
        Ok(())
    }

    pub(super) fn is_mark_due(&self) -> bool {
        let submitted = self.host.submitted();
        submitted > self.marked && submitted == self.host.settled()
    }
}
