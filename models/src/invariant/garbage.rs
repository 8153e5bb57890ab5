//! P7, garbage: no truncated record comes back.
//!
//! TLA+: `NoResurrectionInv`. Evaluated on every distinct segment: its log holds nothing that its
//! own history annuls, and what a backtrack has set aside is of that branch. That nothing is discarded too early joins it with garbage collection.

use quorate_core::image::SegmentImage;

pub(crate) fn holds(image: &SegmentImage) -> bool {
    let branch = image.history().branch();
    let is_left = |record| branch.is_some_and(|branch| branch.contains(record));
    !image.records().iter().any(|record| image.history().annuls(record))
        && image.aside().is_none_or(|aside| aside.records.iter().all(is_left))
}
