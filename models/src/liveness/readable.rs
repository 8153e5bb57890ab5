//! L2, readable: while a read quorum of each group lives (any three of six segments, so with a zone
//! and one more gone), an open writer reads all that is acknowledged, each page from one segment;
//! without a writer, a seal gives the recovery point, which nobody tells anybody before a write
//! quorum has it.
//!
//! TLA+: none, reads are not in the specification. Evaluated from every state, for every largest
//! set of segments that a read quorum can do without.

use quorate_core::id::{PageId, PgId};
use quorate_core::rules::Rules;
use quorate_core::writer::PhaseName;

use super::schedule::{Fair, Waiting};
use crate::invariant::reads::read;
use crate::step::position_of;

/// Runs until the last writer, which is open, reads every page at its VDL.
pub(super) fn read_all<R: Rules>(fair: &mut Fair<'_, R>) -> Result<(), Waiting> {
    fair.until("acknowledged data can't be read", |fair| {
        let mut pages = fair.world.configuration.mtrs.iter().flat_map(|mtr| mtr.iter());
        pages.all(|page| can_read(fair, PageId::new(*page)))
    })
}

fn can_read<R: Rules>(fair: &Fair<'_, R>, page: PageId) -> bool {
    let Some(machine) = fair.machine() else { return false };
    let group = machine.geometry().group_of(page).get() as usize;
    let vdl = machine.vdl().map(quorate_core::consistency::Vdl::lsn);
    let answer = |(_, segment)| read(machine, segment, page, None, &mut |_| {});
    fair.segments(group).filter_map(answer).any(|(read_point, _)| Some(read_point) == vdl)
}

/// Runs until a seal has found the recovery point. Without a write quorum nothing opens.
pub(super) fn seal<R: Rules>(fair: &mut Fair<'_, R>) -> Result<(), Waiting> {
    fair.until("a read quorum gives no recovery point", |fair| {
        let phase = fair.machine().map(quorate_core::writer::Writer::phase);
        matches!(phase, Some(PhaseName::Installing | PhaseName::Open))
    })?;
    fair.quiesce()?;
    let may_open = (0..fair.world.groups()).all(|group| has_write_quorum(fair, group));
    if fair.is_open() && !may_open {
        return Err("a recovery point is told that no write quorum has");
    }
    Ok(())
}

fn has_write_quorum<R: Rules>(fair: &Fair<'_, R>, group: usize) -> bool {
    let id = (0..).map(PgId::new).nth(group).unwrap_or_default();
    let membership = fair.machine().and_then(|machine| machine.membership(id));
    membership.is_some_and(|membership| {
        let mut holders = quorate_core::id::SegmentSet::EMPTY;
        for (position, segment) in fair.segments(group) {
            let position = position_of(position);
            if membership.knows(position, segment.durable().incarnation()) {
                holders.insert(position);
            }
        }
        membership.quorums().writes(holders, 0)
    })
}
