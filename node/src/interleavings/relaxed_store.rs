//! `frontier.rs` once more, with stores that order nothing: a mistake that must be noticed.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};

    #[allow(non_snake_case, non_upper_case_globals)]
    pub(crate) mod Ordering {
        pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed};

        pub(crate) const Release: std::sync::atomic::Ordering = Relaxed;
    }
}

#[path = "../frontier.rs"]
pub(super) mod frontier;
