//! Completeness: a segment's SCL is the end of the chain of `prev_group` links that starts at
//! nothing and never jumps over a record that it lacks (protocol: words, SCL; edge 21).
//!
//! TLA+: `CompletenessInv`. Evaluated on every distinct segment.

use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;

pub(crate) fn holds(image: &SegmentImage) -> bool {
    let mut end = Lsn::ZERO;
    for record in image.records() {
        if record.prev_group != end {
            break;
        }
        end = record.lsn;
    }
    image.scl().lsn() == end
}
