//! P7, garbage: no truncated record comes back, and no version that a live read point or a hold can
//! need is discarded.
//!
//! TLA+: `NoResurrectionInv` for the first half; the specification discards nothing. Evaluated on
//! every distinct segment: its log holds nothing that its own history annuls, what a backtrack has
//! set aside is of that branch, and its base is not above the VDL that it knows (edge 23).
//! Evaluated on every state: no base is above a read point that the writer of the segment's epoch
//! has registered (edge 44), above that at which a reader that was not taken for dead still reads,
//! or above a hold (edge 47); and no segment goes by a floor that the writer of its epoch has not
//! told (edge 46).

use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::rules::Rules;

use crate::world::{State, World};

pub(crate) fn holds(image: &SegmentImage) -> bool {
    let branch = image.history().branch();
    let is_left = |record| branch.is_some_and(|branch| branch.contains(record));
    !image.records().iter().any(|record| image.history().annuls(record))
        && image.aside().is_none_or(|aside| aside.records.iter().all(is_left))
        && image.base() <= image.vdl().lsn()
}

/// Returns whether every segment of `state` keeps what may still be needed.
pub(crate) fn is_kept<R: Rules>(world: &World<R>, state: &State) -> bool {
    if !world.configuration.collect {
        return true;
    }
    let hold = world.configuration.hold.map(Lsn::new);
    (0..world.slots_count()).all(|index| {
        let segment = &world.slot(state, index).slot.segment;
        let (base, epoch) = (segment.durable().base(), segment.durable().history().epoch());
        let is_held = hold.is_none_or(|hold| base <= hold);
        let mut writers = world.started(state).filter(|(_, node)| node.machine.epoch() == epoch);
        let is_registered = writers.all(|(_, node)| {
            let floor = node.machine.floor();
            floor.is_none_or(|floor| segment.floor() <= floor)
                && node.machine.readers().all(|(_, point)| base <= point.lsn())
        });
        is_held && is_registered && reader_keeps(world, state, base, epoch)
    })
}

/// Returns whether the reader, if it follows `epoch` and nobody took it for dead, can still read
/// where it believes that it may.
fn reader_keeps<R: Rules>(
    world: &World<R>,
    state: &State,
    base: Lsn,
    epoch: quorate_core::epoch::VolumeEpoch,
) -> bool {
    let Some(reader) = world.reader(state) else { return true };
    let is_live = state.budget.expels == world.configuration.expels;
    !is_live || reader.epoch() != Some(epoch) || reader.floor().is_none_or(|p| base <= p.lsn())
}
