//! Appends of one turn, joined into one message.
//!
//! The writer asks for an append for every mini-transaction. A segment takes any cut of the log
//! into batches, so those that follow one another are sent as one: one frame, one checksum, one
//! step of the segment and one durable write for all of them.

use std::collections::BTreeMap;

use quorate_core::id::{PgId, SegmentSet};
use quorate_core::message::{Append, ToSegment};

use crate::payload::{self, PAGE_BYTES_MAX};
use crate::wire::PAYLOAD_BYTES_MAX;

/// The most payload bytes of a joined append: a segment can begin to write while more come.
const BYTES_MAX: usize = 256 << 10;

const _: () = assert!(BYTES_MAX + PAGE_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Appends that wait for company, one a group.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    appends: BTreeMap<PgId, Waiting>,
}

/// An append under way.
#[derive(Debug)]
struct Waiting {
    to: SegmentSet,
    append: Append,
    bytes: usize,
}

/// A message that is to be sent now.
pub(super) type Ready = (PgId, SegmentSet, ToSegment);

impl Gathered {
    /// Adds an append to the segments `to` of `group`, whose batches have up to `batch_max`
    /// records. Returns the one that has to be sent first, if it doesn't join.
    pub(super) fn add(
        &mut self,
        group: PgId,
        to: SegmentSet,
        append: Append,
        batch_max: usize,
    ) -> Option<Ready> {
        let bytes: usize = append.records.iter().map(payload::length).sum();
        if let Some(waiting) = self.appends.get_mut(&group)
            && waiting.takes(to, &append, bytes, batch_max)
        {
            waiting.append.vdl = waiting.append.vdl.max(append.vdl);
            waiting.append.floor = waiting.append.floor.max(append.floor);
            waiting.append.records.extend(append.records);
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            return None;
        }
        let before = self.appends.insert(group, Waiting { to, append, bytes });
        before.map(|waiting| waiting.ready(group))
    }

    /// Takes a message that is to be sent, if there is one.
    pub(super) fn take(&mut self) -> Option<Ready> {
        let (group, waiting) = self.appends.pop_first()?;
        Some(waiting.ready(group))
    }
}

impl Waiting {
    /// Returns whether `append` may join.
    fn takes(&self, to: SegmentSet, append: &Append, bytes: usize, batch_max: usize) -> bool {
        let last = self.append.records.last().map(|record| record.lsn);
        let next = append.records.first().map(|record| record.lsn);
        let records = self.append.records.len().saturating_add(append.records.len());
        self.to == to
            && self.append.epoch == append.epoch
            && last < next
            && records <= batch_max
            && self.bytes.saturating_add(bytes) <= BYTES_MAX
    }

    fn ready(self, group: PgId) -> Ready {
        (group, self.to, ToSegment::Append(self.append))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_core::consistency::{GarbageFloor, Vdl};

    use super::*;
    use crate::testing::{epoch, record};

    const GROUP: PgId = PgId::new(0);

    fn append(counter: u64, lsns: std::ops::RangeInclusive<u64>) -> Append {
        let records = lsns.map(|lsn| record(lsn, lsn - 1, counter, b"bytes")).collect();
        let floor = GarbageFloor::ZERO;
        Append { epoch: epoch(counter), group: GROUP, vdl: Vdl::ZERO, floor, records }
    }

    fn all() -> SegmentSet {
        SegmentSet::from_bits(0b11_1111)
    }

    fn lsns(ready: Option<Ready>) -> Vec<u64> {
        let Some((_, _, ToSegment::Append(append))) = ready else { return Vec::new() };
        append.records.iter().map(|record| record.lsn.get()).collect()
    }

    /// A record that is lost or sent twice in joining would be a hole, or a conflict.
    #[test]
    fn appends_that_follow_one_another_become_one() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.add(GROUP, all(), append(1, 1..=2), 8), None);
        assert_eq!(gathered.add(GROUP, all(), append(1, 3..=3), 8), None);
        assert_eq!(lsns(gathered.take()), [1, 2, 3]);
        assert_eq!(gathered.take(), None);
    }

    /// A segment refuses a batch above its bound, or one of two epochs, or out of order.
    #[test]
    fn what_would_be_refused_does_not_join() {
        let cases = [
            (all(), append(1, 3..=9)),
            (all(), append(2, 3..=3)),
            (all(), append(1, 2..=3)),
            (SegmentSet::from_bits(1), append(1, 3..=3)),
        ];
        for (to, next) in cases {
            let mut gathered = Gathered::default();
            assert_eq!(gathered.add(GROUP, all(), append(1, 1..=2), 8), None);
            assert_eq!(lsns(gathered.add(GROUP, to, next.clone(), 8)), [1, 2], "{next:?}");
            assert_eq!(lsns(gathered.take()).len(), next.records.len());
        }
    }
}
