//! The Quorate volume protocol: Amazon Aurora's storage protocol as pure state machines.
//!
//! A volume's redo log lives in six copies over three zones; a write is durable on four, a recovery
//! reads three. Three machines carry it: [`segment::Segment`], one copy of one protection group,
//! [`writer::Writer`], the one process that allocates positions in the log, and [`reader::Reader`],
//! which follows a writer and reads at its VDL. A fourth, [`relay::Relay`], feeds the log to the
//! volume of another region. They do no I/O, have no clock and no randomness, and meet only in
//! [`message`]. A driver feeds them inputs and carries out their effects; [`effect`] states the
//! contract.
//!
//! Modules in reading order: [`lsn`], [`id`], [`epoch`], [`quorum`], [`formula`],
//! [`membership`], [`geometry`], [`hold`], [`consistency`], [`record`], [`truncation`],
//! [`refusal`], [`message`], [`effect`], [`image`], [`checkpoint`], [`floor`], [`recovery`],
//! [`segment`], [`writer`], [`reader`], [`region`], [`relay`], [`clones`], [`rules`]. [`list`] is
//! how lists of messages are decoded.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod checkpoint;
pub mod clones;
pub mod consistency;
pub mod effect;
pub mod epoch;
pub mod floor;
pub mod formula;
pub mod geometry;
pub mod hold;
pub mod id;
pub mod image;
pub mod list;
mod log;
pub mod lsn;
pub mod membership;
pub mod message;
mod pages;
pub mod quorum;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod refusal;
pub mod region;
pub mod relay;
pub mod rules;
pub mod segment;
pub mod truncation;
pub mod writer;
