//! The integration tests, in one binary.
#![forbid(unsafe_code)]

mod cluster;
mod commands;
mod mutants;
mod simulation;
mod tidy;
