//! The story on the terminal.

use std::io::{self, Write};
use std::time::Duration;

use crate::clock::Clock;

/// Tells what happens, with the time since the beginning.
pub struct Narrator<'a> {
    clock: Clock,
    out: &'a mut dyn Write,
    is_coloured: bool,
}

impl std::fmt::Debug for Narrator<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Narrator").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Whether a story has colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colour {
    /// For a terminal.
    Coloured,
    /// For a file.
    Plain,
}

impl<'a> Narrator<'a> {
    /// Returns a narrator that begins now.
    pub fn new(out: &'a mut dyn Write, colour: Colour) -> Self {
        Self { clock: Clock::start(), out, is_coloured: colour == Colour::Coloured }
    }

    /// Tells one step.
    ///
    /// # Errors
    /// When nobody can be told.
    pub fn step(&mut self, text: &str) -> io::Result<()> {
        let time = self.clock.now().to_string();
        if self.is_coloured {
            writeln!(self.out, "\x1b[2m{time:>9}\x1b[0m  \x1b[1m{text}\x1b[0m")?;
        } else {
            writeln!(self.out, "{time:>9}  {text}")?;
        }
        self.out.flush()
    }

    /// Tells a detail of the last step.
    ///
    /// # Errors
    /// When nobody can be told.
    pub fn detail(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:>9}    {text}", "")?;
        self.out.flush()
    }

    /// Does something and returns how long it took.
    pub fn time<T>(&self, does: impl FnOnce() -> T) -> (Duration, T) {
        let before = self.clock.now();
        let done = does();
        (self.clock.now().since(before), done)
    }
}
