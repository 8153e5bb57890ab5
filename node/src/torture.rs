//! Faults of processes, disks and networks, under load, with a ledger kept outside.

pub mod book;
pub mod proxy;
