//! The storage node of Quorate, its volume client, and clusters of nodes on one machine.
//!
//! The protocol is in `quorate_core`; this crate drives it: it carries bytes between machines,
//! keeps what they ask to be durable, and tells them what has happened. Nothing here decides
//! anything about consistency.
//!
//! Modules in reading order: [`clock`] and [`env`](mod@env) (time, randomness, network and disk
//! behind one trait), [`payload`], [`wire`] (bytes between processes), [`format`](mod@format),
//! [`store`] and [`disk`] (bytes on disk), [`connection`], [`config`], [`host`] (one segment with
//! its log), [`driver`] (a storage node's loop), [`volume`] (the volume client), [`writer`] (a
//! process around it), [`reader`] (a process that follows one) and [`client`] (of such processes),
//! [`status`], [`cluster`] and [`demo`].
#![deny(unsafe_code)]

pub mod addresses;
pub mod answer;
pub mod bench;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod demo;
pub mod disk;
pub mod driver;
pub mod env;
pub mod format;
pub mod frontier;
mod gossip;
pub mod handover;
pub mod host;
#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "once with loom's types")]
mod interleavings;
mod link;
pub mod mailbox;
pub mod payload;
pub mod reader;
pub mod simulation;
pub mod source;
pub mod status;
pub mod steward;
pub mod store;
mod sync;
#[cfg(test)]
mod testing;
pub mod torture;
pub mod volume;
pub mod wire;
pub mod writer;
