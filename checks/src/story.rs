//! What a step of a model means, in words: who told whom what, what became durable, what clients
//! heard.
//!
//! A step's story is found by giving the machines of the state before it the same inputs again,
//! through their public interface, and by comparing with the state after it.

use quorate_core::effect::{SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::formula::Half;
use quorate_core::id::{PageId, PgId, Position, SegmentSet, Ticket, WriteId};
use quorate_core::membership::Step;
use quorate_core::message::{Peer, ToSegment, ToWriter};
use quorate_core::record::{Change, Payload};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use quorate_models::configuration::Granularity;
use quorate_models::step::Action;
use quorate_models::world::{State, World};
use stateright::Model;

use crate::label::{Names, Party};
use crate::table::Table;

mod reader;
mod report;

use reader::reader_headline;

/// One thing that happens in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Beat {
    /// A message arrives.
    Arrow {
        /// Who sent it; `None` for an answer of a segment whose name nobody kept.
        from: Option<Party>,
        /// Who gets it.
        to: Party,
        /// What it says.
        label: String,
        /// Whether it says no.
        tone: Tone,
    },
    /// Something is durable.
    Durable {
        /// Where.
        at: Party,
        /// What.
        label: String,
    },
    /// Something else happens at one machine.
    Note {
        /// Where.
        at: Party,
        /// What.
        label: String,
        /// Whether it is bad news.
        tone: Tone,
    },
}

/// Whether something is as hoped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// A crash or a refusal.
    No,
    /// Anything else.
    Plain,
}

/// One step and what it led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What happens, in order; empty when the step changes nothing.
    pub beats: Vec<Beat>,
    /// The state after it.
    pub table: Table,
}

/// Returns the state after `action` and the story of it, or `None` when the step is not possible
/// or changes nothing.
pub fn scene<R: Rules>(world: &World<R>, before: &State, action: Action) -> Option<(State, Scene)> {
    if !world.is_possible(before, action) {
        return None;
    }
    let after = world.next_state(before, action)?;
    let mut narrator = Narrator {
        world,
        names: Names::of(world.configuration()),
        before,
        after: &after,
        writers: world.writers(before).cloned().collect(),
        beats: Vec::new(),
    };
    narrator.tell(action);
    let beats = narrator.beats;
    Some((after, Scene { beats, table: Table::of(world, &after) }))
}

/// Returns what `action` is about, in a few words, before it is taken.
#[must_use]
pub fn headline<R: Rules>(world: &World<R>, state: &State, action: Action) -> String {
    let names = Names::of(world.configuration());
    let segment = |group: u8, position: u8| place(group, position).map(|(_, _, party)| party);
    let name = |group: u8, position: u8| {
        segment(group, position).map_or_else(|| "?".to_owned(), |party| names.party(party))
    };
    let writer = |writer: u8| names.party(Party::Writer(usize::from(writer)));
    match action {
        Action::Answer { group, position, index } => {
            let waiting = place(group, position)
                .and_then(|(group, at, _)| world.outbox(state, group, at).get(usize::from(index)));
            let label = waiting.map_or_else(String::new, |(_, message)| names.to_writer(message));
            format!("{}: {label} arrives", name(group, position))
        }
        Action::Deliver { writer: from, message, group, position } => {
            let mut sent = world.sent(state, usize::from(from));
            let message = sent.nth(usize::from(message)).map(|(_, _, message)| message);
            let label = message.map_or_else(String::new, |message| names.to_segment(message));
            format!("{} > {}: {label}", writer(from), name(group, position))
        }
        Action::Ask { writer: to } => format!("{} gets a strict read", writer(to)),
        Action::Backtrack { writer: by, target } => {
            format!("the next writer starts, to go to {target} of {}", writer(by))
        }
        Action::Collect { group, position } => {
            format!("{} discards old versions", name(group, position))
        }
        Action::Crash { group, position, survivors, torn } => {
            let torn = if torn { ", one torn" } else { "" };
            format!("{} crashes, keeps {survivors} writes{torn}", name(group, position))
        }
        Action::Damage { group, position, kept } => {
            let kept = kept.map_or_else(|| "nothing".to_owned(), |kept| format!("{kept} records"));
            format!("{} is damaged, keeps {kept}", name(group, position))
        }
        Action::Gossip { group, position } => {
            let waiting = place(group, position)
                .and_then(|(group, at, _)| world.inbox(state, group, at).last());
            let label = waiting.map_or_else(String::new, |message| names.to_segment(message));
            format!("{} gets {label}", name(group, position))
        }
        Action::Lose { group, position } => format!("{} loses its disk", name(group, position)),
        Action::Publish { writer: from } => format!("{} tells its VDL", writer(from)),
        Action::Pull { group, into, from } => {
            format!("{} pulls from {}", name(group, into), name(group, from))
        }
        Action::Reader(step) => reader_headline(world, state, step),
        Action::Recover => "the next writer starts".to_owned(),
        Action::Resend { writer: from, group, position } => {
            format!("{} sends again to {}", writer(from), name(group, position))
        }
        Action::Step { writer: by, step } => {
            let steps = world.configuration().steps;
            let step = steps.get(usize::from(step)).map_or_else(String::new, step_name);
            format!("{} takes a step: {step}", writer(by))
        }
        Action::Sync { group, position, index } => {
            format!("{} syncs write {index}", name(group, position))
        }
        Action::Write { writer: by, mtr } => {
            let pages = world.configuration().mtrs.get(usize::from(mtr)).copied().unwrap_or(&[]);
            let pages: Vec<String> = pages.iter().map(u64::to_string).collect();
            format!("{} writes page {}", writer(by), pages.join(","))
        }
    }
}

/// Returns a step of a membership change: `replace F by G`.
fn step_name(step: &Step) -> String {
    let half = |half: &Half| match half {
        Half::Newer => "the newer change",
        Half::Older => "the change",
    };
    match step {
        Step::Finish(which) => format!("finish {}", half(which)),
        Step::Grow => "add a group".to_owned(),
        Step::Replace { old, new } => format!("replace {old} by {}", new.position),
        Step::Reshape(_) => "another shape".to_owned(),
        Step::Revert(which) => format!("revert {}", half(which)),
    }
}

/// Fills in who sent a gossip answer that arrives in `scene`: the segment that was asked last.
pub fn attribute(scene: &mut Scene, action: Action, earlier: &[Action]) {
    let Action::Gossip { group, position } = action else { return };
    let asked = earlier.iter().rev().find_map(|earlier| {
        let Action::Pull { group: of, into, from } = *earlier else { return None };
        (of == group && into == position).then_some(from)
    });
    let sender = asked.and_then(|asked| place(group, asked)).map(|(_, _, party)| party);
    if let Some(Beat::Arrow { from, .. }) = scene.beats.first_mut() {
        *from = sender;
    }
}

struct Narrator<'a, R: Rules> {
    world: &'a World<R>,
    names: Names,
    before: &'a State,
    after: &'a State,
    /// As they are at this moment of the step.
    writers: Vec<Writer<R>>,
    beats: Vec<Beat>,
}

impl<R: Rules> Narrator<'_, R> {
    fn tell(&mut self, action: Action) {
        match action {
            Action::Answer { group, position, index } => {
                let Some((group, position, _)) = place(group, position) else { return };
                let outbox = self.world.outbox(self.before, group, position);
                if let Some((to, message)) = outbox.get(usize::from(index)).cloned() {
                    self.answer(group, position, to, &message);
                }
            }
            Action::Crash { group, position, survivors, torn } => {
                self.crash(group, position, usize::from(survivors), torn);
            }
            Action::Damage { group, position, kept: _ } => {
                let Some((group, position, at)) = place(group, position) else { return };
                self.note(at, "its log is damaged; it restarts".to_owned(), Tone::No);
                self.after_restart(group, position, at);
            }
            Action::Deliver { writer, message, group, position } => {
                let Some((_, _, to)) = place(group, position) else { return };
                let mut sent = self.world.sent(self.before, usize::from(writer));
                let Some((_, _, message)) = sent.nth(usize::from(message)) else { return };
                let label = self.names.to_segment(message);
                self.arrow(Some(Party::Writer(usize::from(writer))), to, label, Tone::Plain);
                let from = Peer::Writer(VolumeEpoch::ZERO);
                self.give(
                    group,
                    position,
                    SegmentInput::Receive { from, message: message.clone() },
                );
            }
            Action::Gossip { group, position } => {
                let Some((pg, at, to)) = place(group, position) else { return };
                let inbox = self.world.inbox(self.before, pg, at);
                let Some(message) = inbox.last().cloned() else { return };
                self.arrow(None, to, self.names.to_segment(&message), Tone::Plain);
                let from = Peer::Segment(at);
                self.give(group, position, SegmentInput::Receive { from, message });
            }
            Action::Collect { group, position } => {
                self.give(group, position, SegmentInput::Collect);
            }
            Action::Pull { group, into, from } => self.pull(group, into, from),
            Action::Reader(step) => self.reader(step),
            Action::Sync { group, position, index } => {
                self.give(group, position, SegmentInput::Durable(WriteId::new(u64::from(index))));
            }
            Action::Backtrack { writer, target } => {
                let went = self.world.going_back(self.before, usize::from(writer), target);
                if let Ok(Some((writer, effects))) = went {
                    self.start(writer, &effects, &format!("to go to {target}, "));
                }
            }
            Action::Recover => self.recover(),
            Action::Ask { writer } => {
                self.beats.push(Beat::Arrow {
                    from: Some(Party::Clients),
                    to: Party::Writer(usize::from(writer)),
                    label: "strict read".to_owned(),
                    tone: Tone::Plain,
                });
                let most = self.world.configuration().strict_reads;
                let asked = most.saturating_sub(self.after.strict_reads());
                let ticket = Ticket::new(u64::from(asked));
                self.command(writer, WriterInput::Confirm { ticket });
            }
            Action::Publish { writer } => self.command(writer, WriterInput::Publish),
            Action::Resend { writer, group, position } => {
                let Some((group, to, _)) = place(group, position) else { return };
                self.command(writer, WriterInput::Resend { group, to });
            }
            Action::Lose { group, position } => {
                if let Some((_, _, at)) = place(group, position) {
                    self.note(at, "loses its disk".to_owned(), Tone::No);
                }
            }
            Action::Step { writer, step } => {
                let steps = self.world.configuration().steps;
                if let Some(step) = steps.get(usize::from(step)) {
                    let (group, step) = (PgId::new(0), *step);
                    self.command(writer, WriterInput::Step { group, step });
                }
            }
            Action::Write { writer, mtr } => {
                let mtrs = self.world.configuration().mtrs;
                let pages = mtrs.get(usize::from(mtr)).copied().unwrap_or(&[]);
                let change =
                    |page: &u64| Change { page: PageId::new(*page), payload: Payload::default() };
                let changes = pages.iter().map(change).collect();
                self.command(writer, WriterInput::Write { changes });
            }
        }
        let now = self.world.writers(self.after);
        debug_assert!(now.eq(self.writers.iter()), "the story ends where the model does");
    }

    /// Gives a segment an input and follows what comes of it, as far as one step goes.
    fn give(&mut self, group: u8, position: u8, input: SegmentInput) {
        let Some((group, position, at)) = place(group, position) else { return };
        let Some(segment) = self.world.segment(self.before, group, position) else { return };
        let mut segment = segment.clone();
        let is_fused = self.world.configuration().granularity == Granularity::Fused;
        let mut inputs = std::collections::VecDeque::from([input]);
        let mut answers = Vec::new();
        while let Some(input) = inputs.pop_front() {
            for effect in self.step_segment(&mut segment, at, input) {
                match effect {
                    SegmentEffect::Persist { id, .. } if is_fused => {
                        inputs.push_back(SegmentInput::Durable(id));
                    }
                    SegmentEffect::Persist { id: _, write } => {
                        let mut image = segment.durable().clone();
                        // What it would become; a contradiction shows when it is synced.
                        let _ = image.apply_under(self.world.rules(), &write);
                        let news = self.names.news(segment.durable(), &image);
                        self.note(at, format!("receives {news}, not durable"), Tone::Plain);
                    }
                    SegmentEffect::SendReader { .. } | SegmentEffect::SendSegment { .. } => {}
                    SegmentEffect::SendWriter { to, message } => answers.push((to, message)),
                    SegmentEffect::Unusable(refusal) => {
                        let label = format!("ignores it: {}", self.names.refusal(&refusal));
                        self.note(at, label, Tone::No);
                    }
                }
            }
        }
        let now = self.world.segment(self.after, group, position);
        debug_assert_eq!(now, Some(&segment), "the story ends where the model does");
        for answer in answers {
            if self.is_waiting(group, position, &answer) {
                let label = format!("answers {}", self.names.to_writer(&answer.1));
                self.note(at, label, tone_of(&answer.1));
            } else {
                self.answer(group, position, answer.0, &answer.1);
            }
        }
    }

    /// Returns whether `answer` is on its way at the end of the step; if not, it has arrived, or
    /// would be no news to anybody.
    fn is_waiting(
        &self,
        group: PgId,
        position: Position,
        answer: &(VolumeEpoch, ToWriter),
    ) -> bool {
        let is_in = |state: &State| self.world.outbox(state, group, position).contains(answer);
        // The same answer may have been on its way before: then the writers tell.
        is_in(self.after)
            && (!is_in(self.before) || self.world.writers(self.after).eq(self.writers.iter()))
    }

    fn step_segment(
        &mut self,
        segment: &mut Segment<R>,
        at: Party,
        input: SegmentInput,
    ) -> Vec<SegmentEffect> {
        let image = segment.durable().clone();
        let is_sync = matches!(input, SegmentInput::Durable(_));
        let mut effects = Vec::new();
        segment.step(input, &mut effects);
        let label = self.names.change(&image, segment.durable());
        if !label.is_empty() {
            self.beats.push(Beat::Durable { at, label });
        } else if is_sync {
            let is_waiting = segment.pending().any(|(_, _, is_durable)| is_durable);
            let label = if is_waiting { "synced, waits for an earlier write" } else { "synced" };
            self.note(at, label.to_owned(), Tone::Plain);
        }
        effects
    }

    /// Gives an answer of a segment to every writer; only the one addressed should care.
    fn answer(&mut self, group: PgId, position: Position, to: VolumeEpoch, message: &ToWriter) {
        let from = Party::Segment { group, position };
        for index in 0..self.writers.len() {
            let Some(writer) = self.writers.get_mut(index) else { return };
            let old = writer.clone();
            let mut effects = Vec::new();
            let input = WriterInput::Receive { group, from: position, message: message.clone() };
            writer.step(input, &mut effects);
            let is_addressed = old.epoch() == to;
            let has_changed = *writer != old || !effects.is_empty();
            if !is_addressed && !has_changed {
                continue;
            }
            let mut label = self.names.to_writer(message);
            if !is_addressed {
                label.push_str(" counted, though for another epoch");
            }
            self.arrow(Some(from), Party::Writer(index), label, tone_of(message));
            self.after_writer(index, &old, &effects);
        }
    }

    fn command(&mut self, writer: u8, input: WriterInput) {
        let index = usize::from(writer);
        let Some(writer) = self.writers.get_mut(index) else { return };
        let old = writer.clone();
        let mut effects = Vec::new();
        writer.step(input, &mut effects);
        self.after_writer(index, &old, &effects);
    }

    fn recover(&mut self) {
        let index = self.writers.len();
        let configuration = self.world.configuration();
        let epoch = configuration.epoch(u8::try_from(index).unwrap_or(u8::MAX));
        let mut effects = Vec::new();
        let rules = self.world.rules();
        let writer = Writer::open_under(rules, epoch, configuration.geometry(), &mut effects);
        self.start(writer, &effects, "");
    }

    fn start(&mut self, writer: Writer<R>, effects: &[WriterEffect], what: &str) {
        let index = self.writers.len();
        let label = format!("starts its recovery {what}as {}", self.names.epoch(writer.epoch()));
        self.note(Party::Writer(index), label, Tone::Plain);
        self.writers.push(writer.clone());
        self.after_writer(index, &writer, effects);
    }

    /// Tells what a writer reports, decides and sends.
    fn after_writer(&mut self, index: usize, old: &Writer<R>, effects: &[WriterEffect]) {
        let at = Party::Writer(index);
        for effect in effects {
            if let WriterEffect::Report(report) = effect {
                self.report(index, old, report);
            }
        }
        let Some(writer) = self.writers.get(index) else { return };
        if old.phase() == PhaseName::Sealing
            && writer.phase() == PhaseName::Installing
            && let Some(history) = writer.history()
        {
            let (after, history) = (history.after(), self.names.history(history));
            let label = format!("decides: keep through {after}, history {history}");
            self.note(at, label, Tone::Plain);
        }
        let mut sent: Vec<(String, PgId, SegmentSet)> = Vec::new();
        for effect in effects {
            let WriterEffect::Send { group, to, message } = effect else { continue };
            let label = self.names.to_segment(message);
            match sent.iter_mut().find(|sent| sent.0 == label && sent.1 == *group) {
                Some(known) => known.2 = SegmentSet::from_bits(known.2.bits() | to.bits()),
                None => sent.push((label, *group, *to)),
            }
        }
        for effect in effects {
            let WriterEffect::SendReader { message, .. } = effect else { continue };
            let label = format!("sends {} to the reader", self.names.to_reader(message));
            self.note(at, label, Tone::Plain);
        }
        let members = self.world.configuration().members();
        for (label, group, to) in sent {
            let to = self.names.segments(group, to, members);
            self.note(at, format!("sends {label} to {to}"), Tone::Plain);
        }
    }

    fn crash(&mut self, group: u8, position: u8, survivors: usize, torn: bool) {
        let Some((group, position, at)) = place(group, position) else { return };
        let writes = self.world.disk_writes(self.before, group, position).len();
        let lost = writes.saturating_sub(survivors);
        let tail = match (lost, torn) {
            (0, _) => String::new(),
            (1, true) => ", one write torn".to_owned(),
            (_, true) => format!(", one write torn, {} lost", lost.saturating_sub(1)),
            (_, false) => format!(", {lost} unsynced lost"),
        };
        self.note(at, format!("crashes and restarts{tail}"), Tone::No);
        self.after_restart(group, position, at);
    }

    fn after_restart(&mut self, group: PgId, position: Position, at: Party) {
        let old = self.world.segment(self.before, group, position);
        let new = self.world.segment(self.after, group, position);
        if let (Some(old), Some(new)) = (old, new) {
            let change = self.names.change(old.durable(), new.durable());
            if !change.is_empty() {
                self.beats
                    .push(Beat::Durable { at, label: format!("after the restart: {change}") });
            }
        }
    }

    fn pull(&mut self, group: u8, into: u8, from: u8) {
        let Some((pg, asking, asking_party)) = place(group, into) else { return };
        let Some((_, asked, asked_party)) = place(group, from) else { return };
        let Some(segment) = self.world.segment(self.before, pg, asking) else { return };
        let Some(request) = send(segment.clone(), SegmentInput::Pull { from: asked }) else {
            return;
        };
        let label = self.names.to_segment(&request);
        self.arrow(Some(asking_party), asked_party, label, Tone::Plain);
        let Some(peer) = self.world.segment(self.before, pg, asked) else { return };
        let input = SegmentInput::Receive { from: Peer::Segment(asking), message: request };
        let Some(answer) = send(peer.clone(), input) else { return };
        let label = self.names.to_segment(&answer);
        if self.world.configuration().gossip_messages {
            self.note(asked_party, format!("answers {label}"), Tone::Plain);
            return;
        }
        self.arrow(Some(asked_party), asking_party, label, Tone::Plain);
        let from = Peer::Segment(asked);
        self.give(group, into, SegmentInput::Receive { from, message: answer });
    }

    fn tell_clients(&mut self, index: usize, label: String) {
        self.arrow(Some(Party::Writer(index)), Party::Clients, label, Tone::Plain);
    }

    fn arrow(&mut self, from: Option<Party>, to: Party, label: String, tone: Tone) {
        self.beats.push(Beat::Arrow { from, to, label, tone });
    }

    fn note(&mut self, at: Party, label: String, tone: Tone) {
        self.beats.push(Beat::Note { at, label, tone });
    }
}

/// Returns the message that a segment sends to another one when it gets `input`.
fn send<R: Rules>(mut segment: Segment<R>, input: SegmentInput) -> Option<ToSegment> {
    let mut effects = Vec::new();
    segment.step(input, &mut effects);
    effects.into_iter().find_map(|effect| match effect {
        SegmentEffect::SendSegment { message, .. } => Some(message),
        SegmentEffect::Persist { .. }
        | SegmentEffect::SendReader { .. }
        | SegmentEffect::SendWriter { .. }
        | SegmentEffect::Unusable(_) => None,
    })
}

const fn tone_of(message: &ToWriter) -> Tone {
    match message {
        ToWriter::Refused { .. } => Tone::No,
        ToWriter::Ack { .. }
        | ToWriter::Confirmed { .. }
        | ToWriter::Located { .. }
        | ToWriter::Read { .. }
        | ToWriter::Sealed { .. } => Tone::Plain,
    }
}

/// Returns the names that the core gives to a segment of an action.
fn place(group: u8, position: u8) -> Option<(PgId, Position, Party)> {
    let group = PgId::new(u32::from(group));
    let position = Position::new(usize::from(position))?;
    Some((group, position, Party::Segment { group, position }))
}
