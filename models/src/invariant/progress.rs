//! Progress: an open writer's VDL is exactly what its acknowledgements allow: the highest CPL of
//! its log below which every record is at or under its group's PGCL (protocol: words, VCL and VDL;
//! edge 11).
//!
//! TLA+: `VdlInv`. Evaluated on every distinct pair of an open writer and an abstract volume: the
//! incremental computation of the core against the defining form.

use quorate_core::consistency::Vdl;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use crate::volume_spec::Volume;

pub(crate) fn holds<R: Rules>(writer: &Writer<R>, volume: &Volume, epoch: usize, vdl: Vdl) -> bool {
    let Some(own) = volume.epochs.get(epoch) else { return false };
    let Some(base) = own.base else { return false };
    let quorums = writer.geometry().quorums();
    let mut expected = base;
    for record in own.log.iter().filter(|record| record.lsn > base) {
        let holders = quorums.positions().filter(|position| {
            writer.scl(record.group, *position).is_some_and(|scl| scl >= record.lsn)
        });
        if holders.count() < quorums.write() {
            break;
        }
        if record.cpl {
            expected = record.lsn;
        }
    }
    vdl.lsn() == expected
}
