//! The integration tests, in one binary.
#![forbid(unsafe_code)]

mod backtrack;
mod bad_input;
mod checkpoints;
mod cluster;
mod commands;
mod large;
mod mutants;
mod readers;
mod repair;
mod simulation;
mod tidy;
