//! Which sources this program was built from.

/// The first 64 bits of the SHA-256 of the core's sources, as hexadecimal digits.
pub const CORE: &str = env!("QUORATE_SOURCE_CORE");

/// The same of the models' sources.
pub const MODELS: &str = env!("QUORATE_SOURCE_MODELS");
