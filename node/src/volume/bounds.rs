//! Bounds of the volume that segments refuse at, and what follows once too many do.

use std::collections::BTreeMap;

use quorate_core::id::{PgId, Position, SegmentSet};
use quorate_core::quorum::QuorumSet;
use quorate_core::refusal::Refusal;

use super::VolumeError;

/// A bound that a segment has refused at.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Bound {
    /// The records of a message.
    Batch,
    /// The ranges of its history.
    History,
    /// The records of its log.
    Log,
}

/// Which segments have refused, and at which bound.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    refused: BTreeMap<(Bound, PgId), SegmentSet>,
}

impl Bounds {
    /// Takes the refusal of a segment. Returns the error once the segments that are left make no
    /// quorum: waiting for them would end in a timeout that says nothing.
    pub(super) fn refused(
        &mut self,
        quorums: QuorumSet,
        group: PgId,
        from: Position,
        refusal: &Refusal,
    ) -> Option<VolumeError> {
        let (bound, needed, error) = match refusal {
            Refusal::Full => (Bound::Log, quorums.write(), VolumeError::LogFull),
            // A recovery needs a read quorum to seal.
            Refusal::HistoryFull => (Bound::History, quorums.read(), VolumeError::HistoryFull),
            Refusal::Oversized => (Bound::Batch, quorums.write(), VolumeError::BatchRefused),
            Refusal::Annulled { .. }
            | Refusal::Behind { .. }
            | Refusal::BeyondLimit { .. }
            | Refusal::Collected { .. }
            | Refusal::Conflict { .. }
            | Refusal::EpochAhead { .. }
            | Refusal::Fenced { .. }
            | Refusal::Impaired
            | Refusal::Incomplete { .. }
            | Refusal::Malformed
            | Refusal::Overloaded
            | Refusal::WrongGroup => return None,
        };
        let segments = self.refused.entry((bound, group)).or_insert(SegmentSet::EMPTY);
        segments.insert(from);
        let left = quorums.members().saturating_sub(segments.len() as usize);
        (left < needed).then_some(error)
    }

    /// Forgets who refused: something has become durable since.
    pub(super) fn clear(&mut self) {
        self.refused.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One segment at its bound is made up for by the others; an error too soon would stop a volume
    /// that can write, one too late or never leaves its user with a timeout.
    #[test]
    fn an_error_comes_when_no_quorum_is_left() {
        let quorums = QuorumSet::AURORA;
        let full = |bounds: &mut Bounds, refusal: Refusal, group: u32, times: usize| {
            let group = PgId::new(group);
            let refuse = |at| bounds.refused(quorums, group, at, &refusal);
            Position::first(times).map(refuse).collect::<Vec<_>>()
        };
        let mut bounds = Bounds::default();
        let error = Some(VolumeError::LogFull);
        assert_eq!(full(&mut bounds, Refusal::Full, 0, 3), [None, None, error]);
        assert_eq!(full(&mut bounds, Refusal::Full, 1, 2), [None, None], "of another group");
        let error = Some(VolumeError::HistoryFull);
        assert_eq!(full(&mut bounds, Refusal::HistoryFull, 1, 4), [None, None, None, error]);
        assert_eq!(full(&mut bounds, Refusal::Malformed, 1, 6), [None; 6]);
        bounds.clear();
        assert_eq!(full(&mut bounds, Refusal::Full, 0, 2), [None, None]);
        // The same segment again is not another one.
        assert_eq!(full(&mut bounds, Refusal::Full, 0, 2), [None, None]);
    }
}
