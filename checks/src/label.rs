//! Short names of machines, messages and writes, as a person reads them.

use quorate_core::consistency::GarbageFloor;
use quorate_core::effect::CommandRefusal;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::formula::Term;
use quorate_core::id::{PgId, Position, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{FromReader, ToReader, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::truncation::{History, TruncationRange};
use quorate_models::configuration::Configuration;

/// How many ranges of a history a label spells out.
const RANGES_SHOWN: usize = 4;

/// Who takes part in a step.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Party {
    /// The clients of all writers.
    Clients,
    /// The reader.
    Reader,
    /// A segment.
    Segment {
        /// Its group.
        group: PgId,
        /// Its position.
        position: Position,
    },
    /// A writer, by the order of epochs.
    Writer(usize),
}

/// Names things in one configuration, no longer than they need to be.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    has_groups: bool,
    one_counter: bool,
}

impl Names {
    /// Returns the names of `configuration`.
    #[must_use]
    pub const fn of(configuration: &Configuration) -> Self {
        Self { has_groups: configuration.groups > 1, one_counter: configuration.one_counter }
    }

    /// Returns the name of a party: `W1`, `A`, or `g1B` where there is more than one group.
    #[must_use]
    pub fn party(self, party: Party) -> String {
        match party {
            Party::Clients => "clients".to_owned(),
            Party::Reader => "reader".to_owned(),
            Party::Segment { group, position } if self.has_groups => format!("{group}{position}"),
            Party::Segment { group: _, position } => position.to_string(),
            Party::Writer(index) => format!("W{}", index.saturating_add(1)),
        }
    }

    /// Returns the name of a set of segments.
    #[must_use]
    pub fn segments(self, group: PgId, set: SegmentSet, members: usize) -> String {
        let prefix = if self.has_groups { group.to_string() } else { String::new() };
        if set.len() as usize == members {
            return if self.has_groups { format!("all of {group}") } else { "all".to_owned() };
        }
        let names = Position::first(members).filter(|position| set.contains(*position));
        let names: Vec<String> = names.map(|position| position.to_string()).collect();
        format!("{prefix}{}", names.join(","))
    }

    /// Returns the name of an epoch, with its instance where counters don't tell epochs apart.
    #[must_use]
    pub fn epoch(self, epoch: VolumeEpoch) -> String {
        match epoch {
            VolumeEpoch::ZERO => "none".to_owned(),
            _ if self.one_counter => epoch.to_string(),
            _ => format!("e{}", epoch.counter()),
        }
    }

    /// Returns a history, newest range first: `e2 (3,7], e1 (0,2]`.
    #[must_use]
    pub fn history(self, history: &History) -> String {
        let ranges = history.ranges();
        let shown = ranges.iter().rev().take(RANGES_SHOWN).map(|range| self.range(range));
        let mut shown: Vec<String> = shown.collect();
        let hidden = ranges.len().saturating_sub(RANGES_SHOWN);
        if hidden > 0 {
            shown.push(format!("{hidden} more"));
        }
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    }

    /// Returns a history's newest range and the number of older ones: `e2 (3,7] +1`.
    #[must_use]
    pub fn newest(self, history: &History) -> String {
        let Some(newest) = history.ranges().last() else { return "none".to_owned() };
        let older = history.ranges().len().saturating_sub(1);
        let tail = if older > 0 { format!(" +{older}") } else { String::new() };
        format!("{}{tail}", self.range(newest))
    }

    fn range(self, range: &TruncationRange) -> String {
        let (after, through) = (range.after(), range.through());
        format!("{} ({after},{through}]", self.epoch(range.epoch()))
    }

    /// Returns a message to a segment: `Append 3,4 vdl 0`.
    #[must_use]
    pub fn to_segment(self, message: &ToSegment) -> String {
        match message {
            ToSegment::Append(append) => {
                let floor = match append.floor {
                    GarbageFloor::ZERO => String::new(),
                    floor => format!(" floor {floor}"),
                };
                let records = match append.records.as_slice() {
                    [] => String::new(),
                    records => format!(" {}", lsns(records)),
                };
                format!("Append{records} vdl {}{floor}", append.vdl)
            }
            ToSegment::Behind { history, .. } => format!("Behind {}", self.epoch(*history)),
            ToSegment::Confirm(confirm) => format!("Confirm {}", self.epoch(confirm.epoch)),
            ToSegment::Install(install) if install.membership.epoch().number > 0 => {
                format!("Install {}", membership(&install.membership))
            }
            ToSegment::Install(install) => format!("Install {}", self.newest(&install.history)),
            ToSegment::Locate(locate) => format!("Locate {}", locate.target),
            ToSegment::Pull(pull) => {
                let history = self.epoch(pull.history);
                format!("Pull scl {} history {history}", pull.scl)
            }
            ToSegment::Pulled(pulled) => {
                let history = self.epoch(pulled.history.epoch());
                let base = match pulled.base {
                    Lsn::ZERO => String::new(),
                    base => format!(" base {base}"),
                };
                format!("Pulled {} history {history}{base}", lsns(&pulled.records))
            }
            ToSegment::Read(read) => format!("Read {} at {}", read.page, read.read_point),
            ToSegment::Seal(seal) => format!("Seal {}", self.epoch(seal.epoch)),
        }
    }

    /// Returns a message to a writer: `Ack e1 scl 3`.
    #[must_use]
    pub fn to_writer(self, message: &ToWriter) -> String {
        match message {
            ToWriter::Ack { epoch, number, scl, .. } if *number > 0 => {
                format!("Ack {} m{number} scl {scl}", self.epoch(*epoch))
            }
            ToWriter::Ack { epoch, scl, .. } => format!("Ack {} scl {scl}", self.epoch(*epoch)),
            ToWriter::Confirmed { epoch, .. } => format!("Confirmed {}", self.epoch(*epoch)),
            ToWriter::Located { place, .. } => format!("Located end {}", place.end),
            ToWriter::Read { page, version, .. } => {
                let version = version.map_or_else(|| "empty".to_owned(), |r| r.lsn.to_string());
                format!("Read {page}: {version}")
            }
            ToWriter::Refused { refusal, .. } => self.refusal(refusal),
            ToWriter::Sealed { answer, .. } => {
                let held = match answer.records.as_slice() {
                    [] => String::new(),
                    records => format!(" has {}", lsns(records)),
                };
                format!("Sealed scl {} vdl {}{held}", answer.scl, answer.vdl)
            }
        }
    }

    /// Returns a message to the reader: `Redo 3 vdl 3`.
    #[must_use]
    pub fn to_reader(self, message: &ToReader) -> String {
        match message {
            ToReader::Read { page, version, .. } => {
                let version = version.map_or_else(|| "empty".to_owned(), |r| r.lsn.to_string());
                format!("Read {page}: {version}")
            }
            ToReader::Redo(redo) => {
                let records = match redo.records.as_slice() {
                    [] => String::new(),
                    records => format!(" {}", lsns(records)),
                };
                format!("Redo {} no. {}{records} vdl {}", redo.session, redo.number, redo.vdl)
            }
            ToReader::Refused { refusal, .. } => self.refusal(refusal),
            ToReader::Standing { group, .. } => format!("Standing of {group}"),
            ToReader::Start(start) => {
                let epoch = self.epoch(start.epoch);
                format!("Start {} {epoch} vdl {} floor {}", start.session, start.vdl, start.floor)
            }
        }
    }

    /// Returns a message of the reader: `Release 3`.
    #[must_use]
    pub fn from_reader(self, message: &FromReader) -> String {
        match message {
            FromReader::Attach { .. } => "Attach".to_owned(),
            FromReader::Detach => "Detach".to_owned(),
            FromReader::Release { floor, .. } => format!("Release {floor}"),
        }
    }

    /// Returns a refusal: `Fenced e2`.
    #[must_use]
    pub fn refusal(self, refusal: &Refusal) -> String {
        let name = refusal.name();
        match refusal {
            Refusal::Annulled { lsn } | Refusal::Conflict { lsn } => format!("{name} {lsn}"),
            Refusal::Collected { base } => format!("{name} base {base}"),
            Refusal::Behind { history } => format!("{name} {}", self.epoch(*history)),
            Refusal::BeyondLimit { lsn, limit } => format!("{name} {lsn} > {limit}"),
            Refusal::EpochAhead { heard } => format!("{name} {}", self.epoch(*heard)),
            Refusal::Fenced { promised } => format!("{name} {}", self.epoch(*promised)),
            Refusal::Incomplete { scl } => format!("{name} scl {scl}"),
            Refusal::Full
            | Refusal::HistoryFull
            | Refusal::Impaired
            | Refusal::Malformed
            | Refusal::Oversized
            | Refusal::Overloaded
            | Refusal::WrongGroup => name.to_owned(),
        }
    }

    /// Returns what an image has that an older one of the same segment lacks; empty for nothing.
    #[must_use]
    pub fn news(self, before: &SegmentImage, after: &SegmentImage) -> String {
        let mut parts = Vec::new();
        if before.history() != after.history() {
            parts.push(format!("history {}", self.newest(after.history())));
        } else if before.promised() != after.promised() {
            parts.push(format!("promise {}", self.epoch(after.promised())));
        }
        if before.membership() != after.membership() && before.history() == after.history() {
            parts.push(membership(after.membership()));
        }
        let gained = without(after.records(), before.records());
        if !gained.is_empty() {
            parts.push(lsns(&gained));
        }
        if before.base() != after.base() {
            parts.push(format!("base {}", after.base()));
        }
        parts.join(", ")
    }

    /// Returns what became durable between two images of one segment; empty for nothing.
    #[must_use]
    pub fn change(self, before: &SegmentImage, after: &SegmentImage) -> String {
        let mut parts = Vec::new();
        let news = self.news(before, after);
        if !news.is_empty() {
            parts.push(format!("{news} durable"));
        }
        let lost = without(before.records(), after.records());
        if !lost.is_empty() {
            parts.push(format!("drops {}", lsns(&lost)));
        }
        if before.scl() != after.scl() {
            parts.push(format!("scl {}", after.scl()));
        }
        parts.join(", ")
    }
}

/// Returns a membership: `m2.1 ABCDEF+ABCDEG`, with a `!` once it is settled.
fn membership(membership: &Membership) -> String {
    let term = |term: &Term| term.members().iter().map(|it| it.to_string()).collect::<String>();
    let terms: Vec<String> = membership.quorums().terms().iter().map(term).collect();
    let mark = if membership.is_settled() { "!" } else { "" };
    format!("{} {}{mark}", membership.epoch(), terms.join("+"))
}

fn without(records: &[Record], others: &[Record]) -> Vec<Record> {
    records.iter().filter(|record| !others.contains(record)).copied().collect()
}

/// Returns the LSNs of `records`: `3,4`, or `nothing`.
#[must_use]
pub fn lsns(records: &[Record]) -> String {
    list(records.iter().map(|record| record.lsn))
}

/// Returns LSNs with commas between them, or `nothing`.
#[must_use]
pub fn list(lsns: impl IntoIterator<Item = Lsn>) -> String {
    let lsns: Vec<String> = lsns.into_iter().map(|lsn| lsn.to_string()).collect();
    if lsns.is_empty() { "nothing".to_owned() } else { lsns.join(",") }
}

/// Returns why a writer doesn't carry out a command.
pub(crate) const fn command_refusal(refusal: &CommandRefusal) -> &'static str {
    match refusal {
        CommandRefusal::BeyondVolume { .. } => "no such page yet",
        CommandRefusal::Collected { .. } => "under the garbage floor",
        CommandRefusal::Empty => "nothing to write",
        CommandRefusal::Fenced { .. } => "overtaken",
        CommandRefusal::HistoryFull => "no room for another recovery",
        CommandRefusal::NotConsistent { .. } => "not a consistency point",
        CommandRefusal::NotOpen => "not open",
        CommandRefusal::OutOfLsns => "no LSNs left",
        CommandRefusal::Oversized => "too large",
        CommandRefusal::ReadPointAhead => "read point above the VDL",
        CommandRefusal::Step(_) => "no such step, or not yet",
        CommandRefusal::Superseded => "somebody else came first",
        CommandRefusal::TargetAhead => "nothing there to go to",
        CommandRefusal::Throttled => "allocation limit reached",
        CommandRefusal::UnknownSegment => "no such segment",
    }
}
