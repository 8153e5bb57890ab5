//! A replay as one picture.
