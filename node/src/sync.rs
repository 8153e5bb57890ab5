//! The only source of locks and atomics.
//!
//! What threads share is in four small structures, each in a file of its own and written against
//! this module: [`super::mailbox`], [`super::answer`], [`super::frontier`] and
//! [`super::handover`]. The tests compile those files a second time against loom's types, and run
//! them in every order that loom finds.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
