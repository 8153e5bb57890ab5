//! Openable: a segment is sealed only for an epoch whose history it could take. Otherwise a
//! recovery that can never finish would cost the volume the writer that it has.
//!
//! TLA+: none, histories have no bound there. Evaluated on every distinct segment.

use quorate_core::rules::Rules;
use quorate_core::segment::Segment;

pub(crate) fn holds<R: Rules>(segment: &Segment<R>) -> bool {
    let image = segment.durable();
    let under_way = segment.pending().filter_map(|(_, write, _)| write.history.as_ref());
    let Some(newest) = under_way.chain([image.history()]).max_by_key(|history| history.epoch())
    else {
        return false;
    };
    let is_full = newest.ranges().len() >= image.geometry().limits().history_ranges_max as usize;
    !is_full || segment.heard() == newest.epoch()
}
