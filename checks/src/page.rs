//! A replay as one page of text.

use std::fmt::Write;

use crate::label::{Names, Party};
use crate::story::{Beat, Scene, Tone};
use crate::table::{Cell, GroupTable, Table, WriterRow};
use crate::trace::{Played, Replay};
use crate::verdict::promise;

/// The most characters of a line.
pub const WIDTH: usize = 100;
/// Where the text of a step starts.
const INDENT: usize = 6;
/// How wide a column of records is: the longest word for a cell, and space.
const CELL: usize = 10;
/// How wide the columns before those of records are.
const LEAD: usize = 29;
/// How many columns of records fit.
const COLUMNS: usize = (WIDTH - LEAD) / CELL;

/// Whether the reader's terminal shows colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colour {
    /// ANSI escape sequences.
    Coloured,
    /// Plain text.
    Plain,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Style {
    Bad,
    Faint,
    Good,
    Heading,
    Plain,
}

impl Colour {
    fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bad => "31;1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Heading => "1",
            Style::Plain => return text.to_owned(),
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Returns `replay` as text, no line of which is longer than [`WIDTH`].
#[must_use]
pub fn page(replay: &Replay, colour: Colour) -> String {
    let names = Names::of(&replay.configuration);
    let mut page = Page { text: String::new(), colour, names };
    page.header(replay);
    page.line(Style::Heading, "\nSteps");
    page.opening(&replay.start);
    for (number, played) in (1usize..).zip(&replay.played) {
        page.step(number, played);
    }
    page.line(Style::Heading, "\nAt the end");
    page.table(replay.end());
    page.text
}

/// Returns `table` as plain text.
#[must_use]
pub fn table(table: &Table, names: Names) -> String {
    let mut page = Page { text: String::new(), colour: Colour::Plain, names };
    page.table(table);
    page.text
}

/// Returns what happens in `scene`, one line each.
#[must_use]
pub fn beats(scene: &Scene, names: Names) -> String {
    let lines: Vec<String> = scene.beats.iter().map(|beat| words(beat, names).0).collect();
    lines.join("\n")
}

struct Page {
    text: String,
    colour: Colour,
    names: Names,
}

impl Page {
    fn header(&mut self, replay: &Replay) {
        let configuration = &replay.configuration;
        let bug = replay.bug.map_or_else(String::new, |bug| format!(" with {}", bug.name()));
        let kind = if replay.broken.is_some() { "Counterexample" } else { "Run" };
        self.line(Style::Heading, &format!("{kind}: {}{bug}", configuration.name));
        self.entry("explores", Style::Plain, configuration.purpose);
        if let Some(bug) = replay.bug {
            self.entry("bug", Style::Plain, bug.summary().trim());
        }
        match replay.broken {
            None => self.entry("broken", Style::Good, "nothing"),
            Some(property) => {
                let broken = format!("{}: {}", property.name(), promise(property));
                self.entry("broken", Style::Bad, &broken);
                self.entry("because", Style::Bad, &replay.explanation);
            }
        }
    }

    fn entry(&mut self, name: &str, style: Style, text: &str) {
        let start = format!("  {name:<10}");
        self.wrapped(&start, text.split(' ').map(|word| (word.to_owned(), style)), " ");
    }

    fn opening(&mut self, start: &Table) {
        let writers = start.writers.iter().map(|row| {
            let base = row.base.unwrap_or_default();
            format!("{} of {} is open at {base}, nothing is written", row.name, row.epoch)
        });
        let writers: Vec<String> = writers.collect();
        let text = writers.join("; ");
        self.wrapped("   0  ", [(text, Style::Faint)], "");
    }

    fn step(&mut self, number: usize, played: &Played) {
        let start = format!("{number:>4}  ");
        let Some(scene) = &played.scene else {
            let text = format!("(nothing happens) {}", played.headline);
            self.wrapped(&start, [(text, Style::Faint)], "");
            return;
        };
        let mut pieces: Vec<(String, Style)> =
            scene.beats.iter().map(|beat| words(beat, self.names)).collect();
        if let (Some(sent), Some(first)) = (played.late, pieces.first_mut()) {
            let _ = write!(first.0, " (sent in step {sent})");
        }
        self.wrapped(&start, pieces, " · ");
    }

    fn table(&mut self, table: &Table) {
        for group in &table.groups {
            self.group(group, table.groups.len());
        }
        for writer in &table.writers {
            self.writer(writer);
        }
    }

    fn group(&mut self, group: &GroupTable, groups: usize) {
        let hidden = group.columns.len().saturating_sub(COLUMNS);
        let columns = || group.columns.iter().skip(hidden);
        let title = if groups > 1 { group.group.to_string() } else { String::new() };
        let name = format!("  {title:<4}{:<9}{:<9}{:<5}", "promise", "history", "SCL");
        let name = if group.columns.is_empty() { name.trim_end() } else { &name };
        let heads = columns().map(|c| format!("{} {}", c.record.lsn, c.epoch));
        self.row(name, heads.map(|head| (head, Style::Heading)));
        let follows = columns().map(|column| {
            let cpl = if column.record.cpl { " CPL" } else { "" };
            (format!("←{}{cpl}", column.record.prev_volume), Style::Faint)
        });
        if !group.columns.is_empty() {
            self.row("", follows);
        }
        for row in &group.segments {
            let start =
                format!("  {:<4}{:<9}{:<9}{:<5}", row.name, row.promise, row.history, row.scl);
            let cells = row.cells.iter().skip(hidden);
            self.row(&start, cells.map(|cell| (cell.word().to_owned(), style_of(*cell))));
        }
        if group.columns.is_empty() {
            return;
        }
        let of = group.segments.len();
        let copies = columns().map(|column| format!("{} of {of}", column.copies));
        self.row("  durable copies", copies.map(|copies| (copies, Style::Plain)));
        let told = columns().map(|column| (column.told.join(","), Style::Good));
        self.row("  clients told by", told);
    }

    fn row(&mut self, start: &str, cells: impl Iterator<Item = (String, Style)>) {
        let mut line = format!("{start:<LEAD$}");
        for (text, style) in cells {
            let pad = CELL.saturating_sub(text.chars().count());
            line.push_str(&self.colour.paint(style, &text));
            line.push_str(&" ".repeat(pad));
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn writer(&mut self, row: &WriterRow) {
        let WriterRow { name, epoch, phase, vdl, base, told, log } = row;
        let mut text = format!("{epoch} {phase}");
        if let Some(vdl) = vdl {
            let _ = write!(text, ", VDL {vdl}");
        }
        if base.is_some() {
            let _ = write!(text, ", log {}", crate::label::list(log.iter().copied()));
            let _ = write!(text, "; its clients were told {told}");
        }
        self.wrapped(&format!("  {name:<4}"), [(text, Style::Plain)], "");
    }

    fn line(&mut self, style: Style, text: &str) {
        let painted = self.colour.paint(style, text);
        self.text.push_str(&painted);
        self.text.push('\n');
    }

    /// Adds `start` and the pieces, with `between` between them, breaking lines between pieces and
    /// where a single piece is longer than a line.
    fn wrapped(
        &mut self,
        start: &str,
        pieces: impl IntoIterator<Item = (String, Style)>,
        between: &str,
    ) {
        let indent = start.chars().count().max(INDENT);
        let room = WIDTH.saturating_sub(indent);
        let mut line = format!("{start:<indent$}");
        let mut used = 0usize;
        for (text, style) in pieces {
            for (number, part) in broken(&text, room).into_iter().enumerate() {
                let length = part.chars().count();
                let gap = if used == 0 || number > 0 { "" } else { between };
                let needed = gap.chars().count().saturating_add(length);
                if used > 0 && (number > 0 || used.saturating_add(needed) > room) {
                    self.text.push_str(line.trim_end());
                    self.text.push('\n');
                    line = " ".repeat(indent);
                    used = length;
                } else {
                    line.push_str(&self.colour.paint(Style::Faint, gap));
                    used = used.saturating_add(needed);
                }
                line.push_str(&self.colour.paint(style, &part));
            }
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// Returns `text` in parts of at most `room` characters, broken at spaces where there are any.
pub(crate) fn broken(text: &str, room: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let length = line.chars().count().saturating_add(word.chars().count());
        if !line.is_empty() && length.saturating_add(1) > room {
            parts.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    parts.push(line);
    parts
}

/// Returns what a beat says.
fn words(beat: &Beat, names: Names) -> (String, Style) {
    let style = |tone: Tone| match tone {
        Tone::No => Style::Bad,
        Tone::Plain => Style::Plain,
    };
    match beat {
        Beat::Arrow { from: Some(from), to: Party::Clients, label, .. } => {
            (format!("{} tells clients: {label}", names.party(*from)), Style::Good)
        }
        Beat::Arrow { from, to, label, tone } => {
            let from = from.map_or_else(String::new, |from| names.party(from));
            (format!("{from}→{} {label}", names.party(*to)), style(*tone))
        }
        Beat::Durable { at, label } => (format!("{}: {label}", names.party(*at)), Style::Plain),
        Beat::Note { at, label, tone } => (format!("{} {label}", names.party(*at)), style(*tone)),
    }
}

const fn style_of(cell: Cell) -> Style {
    match cell {
        Cell::Altered | Cell::Revived => Style::Bad,
        Cell::Annulled | Cell::Missing => Style::Faint,
        Cell::Held => Style::Good,
        Cell::Unsynced => Style::Plain,
    }
}
