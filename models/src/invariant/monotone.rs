//! P5, monotone: within an epoch the VDL never goes back, and the VDL at which a writer opens is
//! at or above every VDL that a writer of a lower epoch ever tells.
//!
//! TLA+: `MonotoneInv`. Evaluated on every transition by the abstract volume
//! ([`crate::volume_spec::Flaw::WentBack`]; across epochs [`crate::volume_spec::Flaw::StaleAck`]).
