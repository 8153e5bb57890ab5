//! The reader of a model: the core's machine, the answer on its way to it, and its steps.

use std::fmt;

use quorate_core::effect::{SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::id::{PageId, PgId, ReaderId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::message::{FromReader, Peer, ToReader};
use quorate_core::reader::{Reader, ReaderEffect, ReaderInput, ReaderReport};
use quorate_core::rules::Rules;
use quorate_core::writer::{PhaseName, Writer};
use serde::{Deserialize, Serialize};

use crate::intern::hash_of;
use crate::step::{Action, as_u8, is_first, position_of};
use crate::witness::Witness;
use crate::world::{State, World};

/// A step of, or about, the reader.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ReaderStep {
    /// Its request to be registered reaches an open writer.
    Attach {
        /// The writer.
        writer: u8,
    },
    /// A writer takes it for dead.
    Expel {
        /// The writer.
        writer: u8,
    },
    /// It asks a segment for a page, and the answer is on its way.
    Fetch {
        /// The page.
        page: u8,
        /// Group of the segment.
        group: u8,
        /// Position of the segment.
        position: u8,
    },
    /// The answer arrives.
    Fetched,
    /// A message of a writer reaches it.
    Follow {
        /// The writer.
        writer: u8,
        /// Which of the messages it has sent to the reader, in the order of their hashes.
        message: u8,
    },
    /// Its last read below its VDL ends.
    Release,
    /// A writer hears of the lowest point that it still reads at.
    Tell {
        /// The writer.
        writer: u8,
    },
}

impl fmt::Display for ReaderStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |position: u8| position_of(position).to_string();
        let nth = |writer: u8| u32::from(writer).saturating_add(1);
        match *self {
            Self::Attach { writer } => {
                write!(out, "writer {} registers the reader", nth(writer))
            }
            Self::Expel { writer } => {
                write!(out, "writer {} takes the reader for dead", nth(writer))
            }
            Self::Fetch { page, group, position } => {
                write!(out, "the reader asks g{group}{} for page {page}", name(position))
            }
            Self::Fetched => write!(out, "the page reaches the reader"),
            Self::Follow { writer, message } => {
                write!(out, "message {message} of writer {} reaches the reader", nth(writer))
            }
            Self::Release => write!(out, "the reader ends its older reads"),
            Self::Tell { writer } => {
                write!(out, "writer {} hears of the reader's floor", nth(writer))
            }
        }
    }
}

const READER: ReaderId = ReaderId::new(1);

/// A reader and what is on its way to it from segments. What writers send it stays deliverable for
/// ever, as their other messages do.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ReaderNode<R: Rules> {
    pub(crate) machine: Reader<R>,
    pub(crate) inbox: Option<ToReader>,
}

impl<R: Rules> World<R> {
    pub(crate) fn new_reader(&self) -> u32 {
        let machine = Reader::new_under(self.rules, READER, self.configuration.geometry());
        self.readers.intern(ReaderNode { machine, inbox: None })
    }

    /// Tells a writer that has just opened what to hold: its garbage floor may move from now on.
    pub(crate) fn tell_holds(&self, machine: &mut Writer<R>) {
        if self.configuration.collect {
            let holds = self.configuration.holds();
            machine.step(WriterInput::Hold { holds }, &mut Vec::new());
        }
    }

    /// Adds what a writer has just sent to the reader.
    pub(crate) fn add_stream(&self, stream: &mut Vec<ToReader>, effects: &[WriterEffect]) {
        for effect in effects {
            if let WriterEffect::SendReader { message, .. } = effect
                && !stream.contains(message)
            {
                stream.push(message.clone());
            }
        }
        stream.sort_by_cached_key(|message| hash_of(self.seed, message));
    }

    /// Returns the number of a pair of a reader and something else, from one on.
    pub(crate) fn pair(&self, reader: u32, other: u32) -> u32 {
        let key = u64::from(reader) << 32 | u64::from(other);
        self.memos.pair.get_or(key, || {
            let pair = u32::try_from(self.pairs.push(())).unwrap_or(u32::MAX);
            assert!(pair < u32::MAX, "more than 2^32 pairs");
            pair.saturating_add(1)
        })
    }

    pub(crate) fn take_reader(
        &self,
        state: &State,
        next: &mut State,
        step: ReaderStep,
    ) -> Option<()> {
        let machine = self.reader(state)?;
        match step {
            ReaderStep::Attach { writer } => {
                next.budget.attaches = next.budget.attaches.checked_sub(1)?;
                let floor = machine.floor();
                let what = 1 << 21 | floor.map_or(0, |floor| floor.lsn().get().saturating_add(1));
                let message = FromReader::Attach { floor };
                self.command(next, writer, what, from_reader(message));
            }
            ReaderStep::Expel { writer } => {
                next.budget.expels = next.budget.expels.checked_sub(1)?;
                self.command(next, writer, 3, WriterInput::Expel { reader: READER });
            }
            ReaderStep::Fetch { page, group, position } => {
                let slot = self.slot_index(usize::from(group), usize::from(position));
                next.reader = self.fetch(state.reader, state.slot(slot), page)?;
            }
            ReaderStep::Fetched => next.reader = self.fetched(state.reader),
            ReaderStep::Follow { writer, message } => {
                let node = self.writers.get(state.writer(usize::from(writer)));
                let message = *node.stream_ids.get(usize::from(message))?;
                next.reader = self.follow(state.reader, message);
                let is_lost = !self.readers.get(next.reader).machine.is_following();
                if self.configuration.in_order && is_lost {
                    return None;
                }
            }
            ReaderStep::Release => {
                let floor = quorate_core::consistency::ReadPoint::at(machine.vdl()?);
                next.reader = self.step_reader(state.reader, ReaderInput::Release { floor });
            }
            ReaderStep::Tell { writer } => {
                let (epoch, floor) = (machine.epoch()?, machine.floor()?);
                let message = FromReader::Release { epoch, floor };
                self.command(next, writer, 1 << 20 | floor.lsn().get(), from_reader(message));
            }
        }
        Some(())
    }

    fn step_reader(&self, reader: u32, input: ReaderInput) -> u32 {
        let mut node = self.readers.get(reader).clone();
        let before = node.machine.clone();
        let mut effects = Vec::new();
        node.machine.step(input, &mut effects);
        self.witness_reader(&before, &node.machine, &effects);
        self.readers.intern(node)
    }

    fn witness_reader(&self, before: &Reader<R>, after: &Reader<R>, effects: &[ReaderEffect]) {
        let saw = &self.witnesses;
        let is_same = before.epoch() == after.epoch();
        let has_grown = after.geometry().added() > before.geometry().added();
        saw.saw_if(is_same && has_grown, Witness::ReaderGrew);
        for effect in effects {
            let ReaderEffect::Report(report) = effect else { continue };
            match report {
                ReaderReport::Attached { .. } => {
                    saw.saw(Witness::ReaderAttached);
                    let is_other = before.epoch().is_some() && before.epoch() != after.epoch();
                    saw.saw_if(is_other, Witness::ReaderChanged);
                    let drops = |effect: &ReaderEffect| match effect {
                        ReaderEffect::Discard { lsn } => {
                            after.vdl().is_some_and(|vdl| *lsn > vdl.lsn())
                        }
                        ReaderEffect::Report(_)
                        | ReaderEffect::SendSegment { .. }
                        | ReaderEffect::SendWriter(_) => false,
                    };
                    saw.saw_if(is_other && effects.iter().any(drops), Witness::ReaderDropped);
                }
                ReaderReport::Lost => saw.saw(Witness::ReaderLost),
                ReaderReport::Overtaken { .. } => saw.saw(Witness::ReaderOvertaken),
                ReaderReport::Read { page, .. } => {
                    let is_cached = after.pages().any(|(cached, _)| cached == *page);
                    saw.saw_if(!is_cached, Witness::ReaderTooLate);
                }
                ReaderReport::Advanced { .. } => {
                    let has_changed = before.pages().ne(after.pages());
                    saw.saw_if(has_changed, Witness::ReaderApplied);
                }
                ReaderReport::ReadRefused { .. } | ReaderReport::Refused { .. } => {}
            }
        }
    }

    fn follow(&self, reader: u32, message: u32) -> u32 {
        let key = u64::from(reader) << 32 | u64::from(message);
        self.memos.follow.get_or(key, || {
            let message = self.to_reader.get(message).clone();
            let next = self.step_reader(reader, ReaderInput::Receive(message.clone()));
            let is_repeated = matches!(message, ToReader::Redo(_))
                && next == reader
                && self.readers.get(reader).machine.is_following();
            self.witnesses.saw_if(is_repeated, Witness::ReaderRepeated);
            next
        })
    }

    /// A request reaches a segment at once; the answer takes its time.
    fn fetch(&self, reader: u32, slot: u32, page: u8) -> Option<u32> {
        let key = u64::from(self.pair(reader, slot)) << 8 | u64::from(page);
        let next = self.memos.fetch.get_or(key, || {
            let mut node = self.readers.get(reader).clone();
            let mut effects = Vec::new();
            let (ticket, from) = (Ticket::new(0), position_of(0));
            let (page, at_least) = (PageId::new(u64::from(page)), Lsn::ZERO);
            let input = ReaderInput::Read { ticket, page, read_point: None, at_least, from };
            node.machine.step(input, &mut effects);
            let request = effects.into_iter().find_map(|effect| match effect {
                ReaderEffect::SendSegment { message, .. } => Some(message),
                ReaderEffect::Discard { .. }
                | ReaderEffect::Report(_)
                | ReaderEffect::SendWriter(_) => None,
            });
            let Some(message) = request else { return u32::MAX };
            let mut answers = Vec::new();
            let from = Peer::Reader(READER);
            let mut segment = self.slots.get(slot).slot.segment.clone();
            segment.step(SegmentInput::Receive { from, message }, &mut answers);
            node.inbox = answers.into_iter().find_map(|answer| match answer {
                SegmentEffect::SendReader { message, .. } => Some(message),
                SegmentEffect::Persist { .. }
                | SegmentEffect::SendSegment { .. }
                | SegmentEffect::SendWriter { .. }
                | SegmentEffect::Unusable(_) => None,
            });
            self.readers.intern(node)
        });
        (next != u32::MAX).then_some(next)
    }

    fn fetched(&self, reader: u32) -> u32 {
        let mut node = self.readers.get(reader).clone();
        let Some(message) = node.inbox.take() else { return reader };
        let reader = self.readers.intern(node);
        self.step_reader(reader, ReaderInput::Receive(message))
    }

    pub(crate) fn push_reader_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(machine) = self.reader(state) else { return };
        let mut push = |step| actions.push(Action::Reader(step));
        for (index, node) in self.started(state) {
            let writer = as_u8(index);
            if node.phase == PhaseName::Open {
                if state.budget.attaches > 0 {
                    push(ReaderStep::Attach { writer });
                }
                if state.budget.expels > 0 && node.machine.readers().next().is_some() {
                    push(ReaderStep::Expel { writer });
                }
                if machine.epoch() == Some(node.machine.epoch()) {
                    push(ReaderStep::Tell { writer });
                }
            }
            let messages = 0..as_u8(node.stream.len());
            messages.for_each(|message| push(ReaderStep::Follow { writer, message }));
        }
        if machine.vdl().is_none() {
            return;
        }
        if self.configuration.collect {
            push(ReaderStep::Release);
        }
        if self.readers.get(state.reader).inbox.is_some() {
            push(ReaderStep::Fetched);
            return;
        }
        if !self.configuration.caches {
            return;
        }
        let mut pages: Vec<u64> = self.configuration.mtrs.concat();
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            let of = machine.geometry().group_of(PageId::new(page));
            let is_cached = machine.pages().any(|(cached, _)| cached.get() == page);
            if !is_cached {
                self.push_fetches(state, of, as_u8(usize::try_from(page).unwrap_or(0)), actions);
            }
        }
    }

    fn push_fetches(&self, state: &State, of: PgId, page: u8, actions: &mut Vec<Action>) {
        let group = as_u8(of.get() as usize);
        let keys = self.keys(state, usize::from(group));
        for position in 0..self.members() {
            if is_first(&keys, position) || !self.configuration.symmetric {
                let position = as_u8(position);
                let step = ReaderStep::Fetch { page, group, position };
                actions.push(Action::Reader(step));
            }
        }
    }
}

const fn from_reader(message: FromReader) -> WriterInput {
    WriterInput::ReceiveReader { from: READER, message }
}
