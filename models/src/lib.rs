//! Exhaustive models of the volume protocol. They contain no protocol logic: their state is the
//! core's own machines, the messages between them and their disks, and each of their steps is a
//! step of those machines.
//!
//! [`world`] is the state, [`step`] the steps, [`invariant`] the properties, [`volume_spec`] the
//! abstract volume that every transition is checked against, [`configuration`] the list of what is
//! explored, [`witness`] what each exploration must have met, [`story`] what a person may look at.
#![forbid(unsafe_code)]

mod action;
pub mod backtrack;
mod clones;
pub mod configuration;
mod intern;
pub mod invariant;
pub mod liveness;
mod machine;
mod reader;
mod region;
mod script;
pub mod step;
pub mod story;
pub mod volume_spec;
pub mod witness;
pub mod world;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod symmetry;
