//! The story on the terminal.

use std::io::{self, Write};
use std::time::Duration;

use crate::clock::Clock;

/// The most columns of a line: what every terminal has.
const COLUMNS_MAX: usize = 80;

/// The columns in front of a step, for the time.
const STEP_INDENT: usize = 11;

/// The columns in front of a detail.
const DETAIL_INDENT: usize = 13;

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
        let mut time = format!("{:>9}", self.clock.now().to_string());
        let (dim, bold, end) =
            if self.is_coloured { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        for line in wrap(text, COLUMNS_MAX - STEP_INDENT) {
            writeln!(self.out, "{dim}{time}{end}  {bold}{line}{end}")?;
            time = " ".repeat(STEP_INDENT - 2);
        }
        self.out.flush()
    }

    /// Tells a detail of the last step.
    ///
    /// # Errors
    /// When nobody can be told.
    pub fn detail(&mut self, text: &str) -> io::Result<()> {
        for line in wrap(text, COLUMNS_MAX - DETAIL_INDENT) {
            writeln!(self.out, "{:DETAIL_INDENT$}{line}", "")?;
        }
        self.out.flush()
    }

    /// Does something and returns how long it took.
    pub fn time<T>(&self, does: impl FnOnce() -> T) -> (Duration, T) {
        let before = self.clock.now();
        let done = does();
        (self.clock.now().since(before), done)
    }
}

/// Breaks a text between words into lines of at most `columns`; a longer word has its own line.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that the terminal breaks in the middle of a word can't be read.
    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incompressible word", 4), ["incompressible", "word"]);
    }
}
