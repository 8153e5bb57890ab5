//! Runs the models of [`quorate_models`], pins what they must find, kills seeded bugs and shows
//! counterexamples. Everything behind `quorate check`.
#![forbid(unsafe_code)]

pub mod kill;
pub mod run;
