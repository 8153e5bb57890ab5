//! `frontier.rs` once more, with loads that order nothing: a mistake that must be noticed.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};

    #[allow(non_snake_case, non_upper_case_globals)]
    pub(crate) mod Ordering {
        pub(crate) use std::sync::atomic::Ordering::{Relaxed, Release};

        pub(crate) const Acquire: std::sync::atomic::Ordering = Relaxed;
    }
}

#[path = "../frontier.rs"]
pub(super) mod frontier;
