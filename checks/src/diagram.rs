//! A replay as one self-contained picture: a sequence diagram, and the table of segments by LSN.

use std::fmt::Write;

use quorate_core::id::{PgId, Position};

use crate::label::{Names, Party};
use crate::page::broken;
use crate::story::{Beat, Tone};
use crate::table::{Cell, GroupTable, Table};
use crate::trace::{Played, Replay};
use crate::verdict::promise;

/// Where the lane of the clients is.
const CLIENTS: i64 = 96;
/// From the clients to the first writer: room for what clients are told.
const TO_WRITERS: i64 = 190;
const BETWEEN_WRITERS: i64 = 120;
/// From the last writer to the first segment: room for what messages say.
const TO_SEGMENTS: i64 = 210;
const BETWEEN_SEGMENTS: i64 = 78;
const BETWEEN_GROUPS: i64 = 40;
/// Right of the last segment.
const MARGIN: i64 = 150;
const EDGE: i64 = 16;
/// How high a row is, and where in it text stands and arrows run.
const ROW: i64 = 24;
const BASELINE: i64 = 15;
const ARROW: i64 = 19;
/// About how wide a character is: text is clamped by it, generously.
const CHARACTER: i64 = 7;
const CELL: i64 = 84;
const CELL_ROW: i64 = 21;

/// Text and lines of one look; names begin with a letter of ours, for pages that embed the picture.
const STYLE: &str = "\
.q{font-family:Helvetica,Arial,'Liberation Sans',sans-serif;font-size:12px;fill:#1f2933}\
.q-h{font-size:17px;font-weight:bold}.q-b{font-weight:bold}.q-f{fill:#6b7785}\
.q-r{fill:#b42318}.q-g{fill:#1a7f37}\
.q-o{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}";

/// Returns `replay` as an SVG document.
#[must_use]
pub fn diagram(replay: &Replay) -> String {
    let lanes = Lanes::of(replay);
    let mut canvas = Canvas { body: String::new(), y: 0, width: lanes.width };
    canvas.title(replay);
    canvas.heads(&lanes);
    let top = canvas.y;
    // Lines of life lie under everything else, and their length is known last.
    let under = canvas.body.len();
    canvas.separator();
    canvas.opening(&replay.start, &lanes);
    for (number, played) in (1usize..).zip(&replay.played) {
        canvas.step(number, played, &lanes);
    }
    let lines = lines_of_life(&lanes, replay, top, canvas.y);
    canvas.body.insert_str(under, &lines);
    canvas.heads(&lanes);
    canvas.verdict(replay);
    canvas.table(replay.end());
    canvas.finish()
}

/// Who has a lane, and where.
struct Lanes {
    names: Names,
    lanes: Vec<(Party, i64, String)>,
    groups: Vec<(PgId, i64)>,
    width: i64,
}

impl Lanes {
    fn of(replay: &Replay) -> Self {
        let names = Names::of(&replay.configuration);
        let mut lanes = vec![(Party::Clients, CLIENTS, String::new())];
        let mut x = CLIENTS + TO_WRITERS;
        for (index, row) in replay.end().writers.iter().enumerate() {
            lanes.push((Party::Writer(index), x, row.epoch.clone()));
            x += BETWEEN_WRITERS;
        }
        x += TO_SEGMENTS - BETWEEN_WRITERS;
        let mut groups = Vec::new();
        for group in replay.configuration.groups() {
            groups.push((group, x));
            for position in Position::first(replay.configuration.members()) {
                lanes.push((Party::Segment { group, position }, x, String::new()));
                x += BETWEEN_SEGMENTS;
            }
            x += BETWEEN_GROUPS;
        }
        let width = x - BETWEEN_GROUPS - BETWEEN_SEGMENTS + MARGIN;
        Self { names, lanes, groups, width }
    }

    fn x(&self, party: Party) -> i64 {
        let lane = self.lanes.iter().find(|(of, _, _)| *of == party);
        lane.map_or(CLIENTS, |(_, x, _)| *x)
    }
}

/// Draws downward; `y` is the top of what comes next.
struct Canvas {
    body: String,
    y: i64,
    width: i64,
}

impl Canvas {
    fn title(&mut self, replay: &Replay) {
        let bug = replay.bug.map_or_else(String::new, |bug| format!(" with {}", bug.name()));
        let kind = if replay.broken.is_some() { "Counterexample" } else { "Run" };
        self.y += 30;
        let title = format!("{kind}: {}{bug}", replay.configuration.name);
        self.text(EDGE, self.y, Anchor::Start, "q q-h", &title);
        if let Some(bug) = replay.bug {
            self.y += 20;
            let text = format!("The bug: {}", bug.summary().trim());
            self.text(EDGE, self.y, Anchor::Start, "q", &text);
        }
        self.y += 18;
        let text = format!("The configuration: {}.", replay.configuration.purpose);
        self.text(EDGE, self.y, Anchor::Start, "q q-f", &text);
        self.y += 18;
    }

    /// Draws the names of the lanes.
    fn heads(&mut self, lanes: &Lanes) {
        if lanes.groups.len() > 1 {
            for (group, x) in &lanes.groups {
                self.text(x - 24, self.y + 12, Anchor::Start, "q q-f", &group.to_string());
            }
            self.y += CELL_ROW;
        }
        self.y += 6;
        for (party, x, epoch) in &lanes.lanes {
            let name = match *party {
                Party::Segment { group: _, position } => position.to_string(),
                Party::Clients | Party::Reader | Party::Writer(_) => lanes.names.party(*party),
            };
            let label = if epoch.is_empty() { name } else { format!("{name}  {epoch}") };
            let half = (width_of(&label) / 2 + 8).max(16);
            let fill = match party {
                Party::Clients | Party::Reader => "#e3f3e6",
                Party::Segment { .. } => "#eef1f4",
                Party::Writer(_) => "#e4ecfb",
            };
            self.rect(x - half, self.y - 1, half * 2, CELL_ROW, fill);
            self.text(*x, self.y + BASELINE, Anchor::Middle, "q q-b", &label);
        }
        self.y += CELL_ROW + 4;
    }

    fn opening(&mut self, start: &Table, lanes: &Lanes) {
        self.text(EDGE, self.y + BASELINE, Anchor::Start, "q q-b", "0");
        for (index, row) in start.writers.iter().enumerate() {
            let at = Party::Writer(index);
            let label = format!("is open at {}, nothing is written", row.base.unwrap_or_default());
            self.beat(&Beat::Note { at, label, tone: Tone::Plain }, None, lanes);
        }
        self.separator();
    }

    fn step(&mut self, number: usize, played: &Played, lanes: &Lanes) {
        let label = number.to_string();
        self.text(EDGE, self.y + BASELINE, Anchor::Start, "q q-b", &label);
        match &played.scene {
            None => {
                let text = format!("nothing happens: {}", played.headline);
                self.text(CLIENTS, self.y + BASELINE, Anchor::Start, "q q-f q-o", &text);
                self.y += ROW;
            }
            Some(scene) => {
                for (index, beat) in scene.beats.iter().enumerate() {
                    let late = if index == 0 { played.late } else { None };
                    self.beat(beat, late, lanes);
                }
            }
        }
        self.separator();
    }

    fn beat(&mut self, beat: &Beat, late: Option<usize>, lanes: &Lanes) {
        match beat {
            Beat::Arrow { from, to, label, tone } => {
                let to_x = lanes.x(*to);
                let from_x = from.map_or(to_x - BETWEEN_SEGMENTS, |from| lanes.x(from));
                let is_told = *to == Party::Clients;
                let (class, colour) = match tone {
                    Tone::No => ("q q-r q-o", "#b42318"),
                    Tone::Plain if is_told => ("q q-g q-b q-o", "#1a7f37"),
                    Tone::Plain => ("q q-o", "#3d4c5c"),
                };
                let when = late.map_or_else(String::new, |step| format!("  (sent in step {step})"));
                let middle = i64::midpoint(from_x, to_x);
                self.clamped(middle, class, &format!("{label}{when}"));
                // After the text, whose halo would cut into it.
                self.arrow(from_x, to_x, self.y + ARROW, colour, late);
            }
            Beat::Durable { at, label } => {
                let x = lanes.x(*at);
                self.rect(x - 5, self.y + 6, 10, 10, "#1f5fbf");
                self.beside(x, "q q-o", label);
            }
            Beat::Note { at, label, tone } => {
                let x = lanes.x(*at);
                let (class, fill) = match tone {
                    Tone::No => ("q q-r q-o", "#b42318"),
                    Tone::Plain => ("q q-o", "#8996a3"),
                };
                let y = self.y + 11;
                let _ = write!(self.body, r#"<circle cx="{x}" cy="{y}" r="4" fill="{fill}"/>"#);
                self.beside(x, class, label);
            }
        }
        self.y += ROW;
    }

    /// Writes next to a lane: right of it if there is room, else left.
    fn beside(&mut self, x: i64, class: &str, text: &str) {
        if x + 12 + width_of(text) <= self.width {
            self.text(x + 12, self.y + BASELINE, Anchor::Start, class, text);
        } else {
            self.text(x - 12, self.y + BASELINE, Anchor::End, class, text);
        }
    }

    /// Writes around `x`, but within the picture.
    fn clamped(&mut self, x: i64, class: &str, text: &str) {
        let half = width_of(text) / 2;
        let most = (self.width - EDGE - half).max(half);
        let x = x.clamp((EDGE * 2 + half).min(most), most);
        self.text(x, self.y + BASELINE - 2, Anchor::Middle, class, text);
    }

    fn arrow(&mut self, from: i64, to: i64, y: i64, colour: &str, late: Option<usize>) {
        let back = if to > from { -1 } else { 1 };
        let dashes = if late.is_some() { r#" stroke-dasharray="6 4""# } else { "" };
        let (neck, left) = (to + back * 8, to + back * 9);
        let _ = write!(
            self.body,
            r#"<line x1="{from}" y1="{y}" x2="{neck}" y2="{y}" stroke="{colour}" "#
        );
        let (above, below) = (y - 4, y + 4);
        let _ =
            write!(self.body, r#"stroke-width="1.4"{dashes}/><path d="M{to} {y}L{left} {above} "#);
        let _ = write!(self.body, r#"L{left} {below}Z" fill="{colour}"/>"#);
    }

    fn verdict(&mut self, replay: &Replay) {
        let room = usize::try_from((self.width - 4 * EDGE) / CHARACTER).unwrap_or(1);
        self.y += 8;
        let Some(property) = replay.broken else {
            self.y += ROW;
            self.text(EDGE, self.y, Anchor::Start, "q q-g q-b", "Nothing is broken.");
            self.y += ROW;
            return;
        };
        let claim = format!("Broken: {}. {}", property.name(), promise(property));
        let mut lines: Vec<(String, &str)> = Vec::new();
        lines.extend(broken(&claim, room).into_iter().map(|line| (line, "q q-r q-b")));
        lines.extend(broken(&replay.explanation, room).into_iter().map(|line| (line, "q q-r")));
        let height = i64::try_from(lines.len()).unwrap_or(0) * 19 + 14;
        let (y, width) = (self.y, self.width - 2 * EDGE);
        let _ = write!(
            self.body,
            r##"<rect x="{EDGE}" y="{y}" width="{width}" height="{height}" rx="6" "##
        );
        self.body.push_str(r##"fill="#fdecea" stroke="#b42318"/>"##);
        for (number, (line, class)) in (1i64..).zip(lines) {
            self.text(EDGE * 2, y + number * 19 + 3, Anchor::Start, class, &line);
        }
        self.y += height + 8;
    }

    fn table(&mut self, table: &Table) {
        self.y += 24;
        self.text(EDGE, self.y, Anchor::Start, "q q-b", "At the end");
        self.y += 6;
        for group in &table.groups {
            self.group(group, table.groups.len());
        }
        for row in &table.writers {
            let mut text = format!("{} of {} is {}", row.name, row.epoch, row.phase);
            if let Some(vdl) = row.vdl {
                let _ = write!(text, ", VDL {vdl}");
            }
            if row.base.is_some() {
                let log = crate::label::list(row.log.iter().copied());
                let _ = write!(text, ", log {log}; its clients were told {}", row.told);
            }
            self.y += 18;
            self.text(EDGE, self.y, Anchor::Start, "q", &text);
        }
    }

    fn group(&mut self, group: &GroupTable, groups: usize) {
        let first = EDGE + 250;
        let fitting = usize::try_from((self.width - first - EDGE) / CELL).unwrap_or(0);
        let hidden = group.columns.len().saturating_sub(fitting);
        let title = if groups > 1 { group.group.to_string() } else { String::new() };
        let heads = [title, "promise".to_owned(), "history".to_owned(), "SCL".to_owned()];
        self.y += CELL_ROW;
        self.lead(&heads.each_ref().map(String::as_str), "q q-f");
        for (index, column) in (0i64..).zip(group.columns.iter().skip(hidden)) {
            let middle = first + index * CELL + CELL / 2;
            let head = format!("{} of {}", column.record.lsn, column.epoch);
            self.text(middle, self.y, Anchor::Middle, "q q-b", &head);
            let cpl = if column.record.cpl { ", CPL" } else { "" };
            let links = format!("after {}{cpl}", column.record.prev_volume);
            self.text(middle, self.y + 15, Anchor::Middle, "q q-f", &links);
        }
        self.y += if group.columns.is_empty() { 8 } else { 21 };
        for row in &group.segments {
            let base = self.y + 15;
            let scl = row.scl.to_string();
            self.y = base;
            self.lead(&[&row.name, &row.promise, &row.history, &scl], "q");
            self.y = base - 15;
            for (index, cell) in (0i64..).zip(row.cells.iter().skip(hidden)) {
                let (fill, class) = look(*cell);
                let x = first + index * CELL;
                self.rect(x + 1, self.y + 1, CELL - 2, CELL_ROW - 2, fill);
                self.text(x + CELL / 2, base, Anchor::Middle, class, cell.word());
            }
            self.y += CELL_ROW;
        }
        let of = group.segments.len();
        let columns = || (0i64..).zip(group.columns.iter().skip(hidden));
        if !group.columns.is_empty() {
            self.y += 15;
            self.text(EDGE, self.y, Anchor::Start, "q q-f", "durable copies");
            for (index, column) in columns() {
                let copies = format!("{} of {of}", column.copies);
                let middle = first + index * CELL + CELL / 2;
                self.text(middle, self.y, Anchor::Middle, "q", &copies);
            }
            self.y += 17;
            self.text(EDGE, self.y, Anchor::Start, "q q-f", "clients told by");
            for (index, column) in columns() {
                let middle = first + index * CELL + CELL / 2;
                self.text(middle, self.y, Anchor::Middle, "q q-g q-b", &column.told.join(", "));
            }
        }
        self.y += 8;
    }

    fn lead(&mut self, texts: &[&str; 4], class: &str) {
        for (text, x) in texts.iter().zip([0, 50, 130, 210]) {
            self.text(EDGE + x, self.y, Anchor::Start, class, text);
        }
    }

    fn separator(&mut self) {
        let (y, x2) = (self.y, self.width - EDGE);
        let _ = write!(
            self.body,
            r##"<line x1="{EDGE}" y1="{y}" x2="{x2}" y2="{y}" stroke="#dde3e9"/>"##
        );
        self.y += 3;
    }

    fn rect(&mut self, x: i64, y: i64, width: i64, height: i64, fill: &str) {
        let _ = write!(
            self.body,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{fill}"/>"#
        );
    }

    fn text(&mut self, x: i64, y: i64, anchor: Anchor, class: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = anchor.name();
        let _ =
            write!(self.body, r#"<text x="{x}" y="{y}" text-anchor="{anchor}" class="{class}">"#);
        for character in text.chars() {
            match character {
                '&' => self.body.push_str("&amp;"),
                '<' => self.body.push_str("&lt;"),
                '>' => self.body.push_str("&gt;"),
                other => self.body.push(other),
            }
        }
        self.body.push_str("</text>\n");
    }

    fn finish(self) -> String {
        let (width, height) = (self.width, self.y + EDGE);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" style=\"max-width:100%;height:auto\">\
             <style>{STYLE}</style>\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

#[derive(Clone, Copy, Debug)]
enum Anchor {
    End,
    Middle,
    Start,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Middle => "middle",
            Self::Start => "start",
        }
    }
}

/// Draws the lanes' lines; a writer's begins where it starts, which is not known from a table, so
/// that of a writer which is not there at the start is dotted.
fn lines_of_life(lanes: &Lanes, replay: &Replay, top: i64, bottom: i64) -> String {
    let mut lines = String::new();
    let present = replay.start.writers.len();
    for (party, x, _) in &lanes.lanes {
        let dashes = match party {
            Party::Writer(index) if *index >= present => r#" stroke-dasharray="2 4""#,
            Party::Clients | Party::Reader | Party::Segment { .. } | Party::Writer(_) => "",
        };
        let _ = write!(
            lines,
            r##"<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="#b7c1cc"{dashes}/>"##
        );
    }
    lines
}

const fn look(cell: Cell) -> (&'static str, &'static str) {
    match cell {
        Cell::Altered | Cell::Revived => ("#fbd5d0", "q q-r q-b"),
        Cell::Annulled => ("#eef1f4", "q q-f"),
        Cell::Held => ("#d5ead9", "q"),
        Cell::Missing => ("#fafbfc", "q q-f"),
        Cell::Unsynced => ("#fdf0c8", "q"),
    }
}

/// About how wide `text` is.
fn width_of(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX).saturating_mul(CHARACTER)
}
