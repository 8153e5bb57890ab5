//! What a step of, or about, the reader means.

use quorate_core::effect::WriterInput;
use quorate_core::lsn::Lsn;
use quorate_core::message::{FromReader, ToReader};
use quorate_core::rules::Rules;
use quorate_models::step::ReaderStep;
use quorate_models::world::{State, World};

use super::{Narrator, Tone, place};
use crate::label::{Names, Party};

/// Returns what a step of the reader is about.
pub(super) fn reader_headline<R: Rules>(
    world: &World<R>,
    state: &State,
    step: ReaderStep,
) -> String {
    let names = Names::of(world.configuration());
    let writer = |writer: u8| names.party(Party::Writer(usize::from(writer)));
    let label = |message: Option<&ToReader>| {
        message.map_or_else(String::new, |message| names.to_reader(message))
    };
    match step {
        ReaderStep::Attach { writer: to } => format!("{} registers the reader", writer(to)),
        ReaderStep::Expel { writer: by } => format!("{} takes the reader for dead", writer(by)),
        ReaderStep::Fetch { page, group, position } => {
            let of = place(group, position).map(|(_, _, party)| names.party(party));
            format!("the reader asks {} for page {page}", of.unwrap_or_default())
        }
        ReaderStep::Fetched => format!("the reader gets {}", label(world.reader_inbox(state))),
        ReaderStep::Follow { writer: from, message } => {
            let message = world.stream(state, usize::from(from)).nth(usize::from(message));
            format!("{} > reader: {}", writer(from), label(message))
        }
        ReaderStep::Release => "the reader ends its older reads".to_owned(),
        ReaderStep::Tell { writer: to } => format!("{} hears of the reader's floor", writer(to)),
    }
}

impl<R: Rules> Narrator<'_, R> {
    /// Tells a step of, or about, the reader.
    pub(super) fn reader(&mut self, step: ReaderStep) {
        let Some(reader) = self.world.reader(self.before) else { return };
        let (id, vdl) = (reader.id(), reader.vdl());
        let (epoch, floor) = (reader.epoch(), reader.floor());
        let ask = |narrator: &mut Self, writer: u8, message: FromReader| {
            let label = narrator.names.from_reader(&message);
            let to = Party::Writer(usize::from(writer));
            narrator.arrow(Some(Party::Reader), to, label, Tone::Plain);
            narrator.command(writer, WriterInput::ReceiveReader { from: id, message });
        };
        match step {
            ReaderStep::Attach { writer } => ask(self, writer, FromReader::Attach { floor }),
            ReaderStep::Expel { writer } => {
                self.command(writer, WriterInput::Expel { reader: id });
                self.note(Party::Reader, "taken for dead".to_owned(), Tone::No);
            }
            ReaderStep::Fetch { page, group, position } => {
                let Some((_, _, to)) = place(group, position) else { return };
                self.arrow(Some(Party::Reader), to, format!("Read page {page}"), Tone::Plain);
                if let Some(message) = self.world.reader_inbox(self.after) {
                    let label = format!("answers {}", self.names.to_reader(message));
                    self.note(to, label, Tone::Plain);
                }
            }
            ReaderStep::Fetched | ReaderStep::Follow { .. } => self.reader_receives(step),
            ReaderStep::Release => {
                let vdl = vdl.map_or(Lsn::ZERO, |vdl| vdl.lsn());
                let label = format!("reads nothing below {vdl} any more");
                self.note(Party::Reader, label, Tone::Plain);
            }
            ReaderStep::Tell { writer } => {
                if let (Some(epoch), Some(floor)) = (epoch, floor) {
                    ask(self, writer, FromReader::Release { epoch, floor });
                }
            }
        }
    }

    fn reader_receives(&mut self, step: ReaderStep) {
        let (from, message) = match step {
            ReaderStep::Follow { writer, message } => {
                let mut sent = self.world.stream(self.before, usize::from(writer));
                (Some(Party::Writer(usize::from(writer))), sent.nth(usize::from(message)))
            }
            ReaderStep::Attach { .. }
            | ReaderStep::Expel { .. }
            | ReaderStep::Fetch { .. }
            | ReaderStep::Fetched
            | ReaderStep::Release
            | ReaderStep::Tell { .. } => (None, self.world.reader_inbox(self.before)),
        };
        if let Some(message) = message {
            let label = self.names.to_reader(message);
            self.arrow(from, Party::Reader, label, Tone::Plain);
        }
        if let Some(reader) = self.world.reader(self.after)
            && let Some(vdl) = reader.vdl()
        {
            let pages = reader.pages().map(|(page, version)| {
                let version = version.map_or_else(|| "empty".to_owned(), |r| r.lsn.to_string());
                format!(", {page}: {version}")
            });
            let label = format!("reads at {vdl}{}", pages.collect::<String>());
            self.note(Party::Reader, label, Tone::Plain);
        }
    }
}
