//! Runs the models of [`quorate_models`], pins what they must find, kills seeded bugs and shows
//! counterexamples. Everything behind `quorate check`.
#![forbid(unsafe_code)]

pub mod command;
pub mod diagram;
pub mod edges;
pub mod evidence;
pub mod expected;
pub mod explore;
pub mod fleet;
pub mod kill;
pub mod label;
pub mod live;
mod nearest;
pub mod page;
pub mod run;
mod screen;
pub mod source;
pub mod story;
pub mod table;
pub mod tla;
pub mod trace;
pub mod verdict;
