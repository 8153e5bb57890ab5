//! P2, one writer: no LSN is used twice, and once an epoch is open no commit of an older one is
//! acknowledged that its log doesn't contain.
//!
//! TLA+: `OneWriterInv`. Evaluated on every transition by the abstract volume
//! ([`crate::volume_spec::Flaw::StaleAck`] and [`crate::volume_spec::Flaw::LsnReused`]).
