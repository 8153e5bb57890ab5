//! Which sources this program was built from.

/// The first 64 bits of the SHA-256 of the node's sources, as hexadecimal digits.
pub const NODE: &str = env!("QUORATE_SOURCE_NODE");
