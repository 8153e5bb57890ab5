//! Progress: an open writer's VDL is exactly what its acknowledgements allow: the highest CPL of
//! its log below which every record is at or under its group's PGCL (protocol: words, VCL and VDL;
//! edge 11).
//!
//! TLA+: `VdlInv`. Evaluated on every distinct pair of an open writer and an abstract volume: the
//! incremental computation of the core against the defining form.

use quorate_core::consistency::Vdl;
use quorate_core::id::{Position, SEGMENTS_MAX, SegmentSet};
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use crate::volume_spec::Volume;

pub(crate) fn holds<R: Rules>(writer: &Writer<R>, volume: &Volume, epoch: usize, vdl: Vdl) -> bool {
    let Some(own) = volume.epochs.get(epoch) else { return false };
    let Some(base) = own.base else { return false };
    let mut expected = base;
    let mut has_changed = false;
    for record in own.log.iter().filter(|record| record.lsn > base) {
        let Some(membership) = writer.membership(record.group) else { return false };
        let mut holders = SegmentSet::EMPTY;
        for position in Position::first(SEGMENTS_MAX) {
            if writer.scl(record.group, position).is_some_and(|scl| scl >= record.lsn) {
                holders.insert(position);
            }
        }
        has_changed |= membership.epoch().number > 0;
        if !membership.before().writes(holders, 0) {
            break;
        }
        if record.cpl {
            expected = record.lsn;
        }
    }
    // What was durable under the quorums before a step stays so.
    if has_changed { vdl.lsn() >= expected } else { vdl.lsn() == expected }
}
