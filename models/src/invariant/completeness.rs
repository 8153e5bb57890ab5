//! Completeness: a segment's SCL is the end of the chain of `prev_group` links that starts at
//! nothing, or at its base, and never jumps over a record that it lacks (protocol: words, SCL;
//! edges 21 and 39).
//!
//! TLA+: `CompletenessInv`. Evaluated on every distinct segment.

use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;

pub(crate) fn holds(image: &SegmentImage) -> bool {
    // At or under the base only the newest versions are left; the last one is the group's last
    // record there, and the chain goes on from it.
    let is_under = |record: &&quorate_core::record::Record| record.lsn <= image.base();
    let anchor = image.records().iter().rev().find(is_under);
    let mut end = anchor.map_or(Lsn::ZERO, |record| record.lsn);
    for record in image.records().iter().filter(|record| record.lsn > image.base()) {
        if record.prev_group != end {
            break;
        }
        end = record.lsn;
    }
    image.scl().lsn() == end
}
