//! P7, garbage: no truncated record comes back.
//!
//! TLA+: `NoResurrectionInv`. Evaluated on every distinct segment: its log holds nothing that its
//! own history annuls. That nothing is discarded too early joins it with garbage collection.

use quorate_core::image::SegmentImage;

pub(crate) fn holds(image: &SegmentImage) -> bool {
    !image.records().iter().any(|record| image.history().annuls(record))
}
