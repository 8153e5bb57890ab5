//! The steps of a model: which there are in a state, and what each does. Every one of them runs
//! the core's own machines.

use quorate_core::effect::{WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{Incarnation, PageId, PgId, Position, SegmentSet, Ticket};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::record::{Change, Payload};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use stateright::{Model, Property};

pub use crate::action::Action;
use crate::configuration::{Configuration, Granularity};
use crate::invariant;
use crate::machine::writer_message;
pub use crate::reader::ReaderStep;
use crate::volume_spec::{EpochLog, Event, Volume};
use crate::witness::Witness;
use crate::world::{
    Budget, Disk, SLOTS, Slot, State, VolumeOutcome, WRITERS, World, WriterOutcome,
};

impl<R: Rules> World<R> {
    /// Returns the state in which the first writer is open and nothing is written: what the core
    /// itself reaches when every segment answers.
    pub(crate) fn start(&self) -> State {
        let geometry = self.configuration.geometry();
        let mut effects = Vec::new();
        let mut writer =
            Writer::open_under(self.rules, self.configuration.epoch(0), geometry, &mut effects);
        let mut segments: Vec<(PgId, Position, Segment<R>)> = Vec::new();
        for group in self.configuration.groups() {
            for position in Position::first(self.members()) {
                // Whoever may join is an empty disk with a name that nobody had.
                let joins = !geometry.quorums().has(position);
                let incarnation = Incarnation::new(u32::from(joins));
                let image = SegmentImage::join(group, geometry, incarnation);
                let Some(image) = image else { continue };
                segments.push((group, position, Segment::recover_under(self.rules, image)));
            }
        }
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                let WriterEffect::Send { group, to, message } = effect else { continue };
                for (of, position, segment) in &mut segments {
                    if *of != group || !to.contains(*position) {
                        continue;
                    }
                    for (_, message) in self.run_segment(segment, writer_message(&message)).0 {
                        let from = *position;
                        writer.step(WriterInput::Receive { group, from, message }, &mut effects);
                    }
                }
            }
        }
        assert_eq!(writer.phase(), PhaseName::Open, "the first writer opens");
        self.tell_holds(&mut writer);
        let mut state = State {
            slots: [u32::MAX; SLOTS],
            writers: [u32::MAX; WRITERS],
            volume: 0,
            reader: u32::MAX,
            budget: Budget {
                writers: 1,
                writes: self.configuration.writes,
                crashes: self.configuration.crashes,
                strict_reads: self.configuration.strict_reads,
                damages: self.configuration.damages,
                steps: self.configuration.steps_max,
                losses: self.configuration.losses,
                backtracks: self.configuration.backtracks,
                attaches: self.configuration.attaches,
                expels: self.configuration.expels,
            },
            flaw: None,
            canonical: 0,
        };
        for (index, (_, _, segment)) in segments.into_iter().enumerate() {
            let image = segment.durable().clone();
            let disk = (self.configuration.crashes > 0).then(|| Disk { image, writes: Vec::new() });
            let slot = Slot { segment, disk, outbox: Vec::new(), inbox: Vec::new() };
            state.set_slot(index, self.intern_slot(slot));
        }
        // Every message so far has reached every segment and would change nothing.
        state.set_writer(0, self.intern_writer(writer, Vec::new(), Vec::new(), &[]));
        if self.configuration.attaches > 0 {
            state.reader = self.new_reader();
        }
        let volume =
            Volume::default().step(0, &Event::Opened(Lsn::ZERO, Vec::new())).unwrap_or_default();
        state.volume = self.volumes.intern(volume);
        self.canonical(state)
    }

    /// Lets the abstract volume take `events`, as if the writer number `index` had reported them.
    #[cfg(test)]
    pub(crate) fn report(&self, state: &mut State, index: u8, events: Vec<Event>) {
        let writer = state.writer(usize::from(index));
        let events = self.events.intern((index, events));
        self.apply_writer(state, usize::from(index), WriterOutcome { writer, events });
    }

    /// Applies a writer's step to the state, and its reports to the abstract volume.
    pub(crate) fn apply_writer(&self, state: &mut State, index: usize, outcome: WriterOutcome) {
        state.set_writer(index, outcome.writer);
        if outcome.events == 0 {
            return;
        }
        let key = u64::from(state.volume) << 32 | u64::from(outcome.events);
        let started = state.budget.writers;
        let next = self.memos.volume.get_or(key, || {
            let (number, events) = self.events.get(outcome.events);
            let mut volume = self.volumes.get(state.volume).clone();
            for event in events {
                let is_late = started > number.saturating_add(1);
                self.witness_event(&volume, event, is_late);
                match volume.step(usize::from(*number), event) {
                    Ok(next) => volume = next,
                    Err(flaw) => {
                        return VolumeOutcome { volume: state.volume, flaw: Some(flaw) };
                    }
                }
            }
            VolumeOutcome { volume: self.volumes.intern(volume), flaw: None }
        });
        state.volume = next.volume;
        state.flaw = state.flaw.or(next.flaw);
    }

    fn witness_event(&self, volume: &Volume, event: &Event, is_late: bool) {
        match event {
            Event::Durable(_) => self.witnesses.saw_if(is_late, Witness::DurableOvertaken),
            Event::Opened(base, _) => {
                self.witnesses.saw_if(is_late, Witness::OpenedOvertaken);
                self.witnesses.saw_if(*base > volume.told(), Witness::Adopted);
                let is_target = |epoch: &EpochLog| epoch.target == Some(*base);
                if volume.epochs.iter().any(is_target) {
                    let newest = volume.epochs.iter().rev().find(|epoch| epoch.base.is_some());
                    let told = newest.map_or(Lsn::ZERO, |newest| newest.told);
                    self.witnesses.saw_if(*base < told, Witness::WentBack);
                    self.witnesses.saw_if(*base > told, Witness::WentForward);
                }
                let annuls = volume
                    .epochs
                    .iter()
                    .any(|epoch| epoch.log.last().is_some_and(|last| last.lsn > *base));
                self.witnesses.saw_if(annuls, Witness::Annulled);
            }
            Event::Written(records) => {
                let spans = records.windows(2).any(|pair| match pair {
                    [left, right] => left.group != right.group,
                    _ => false,
                });
                self.witnesses.saw_if(spans, Witness::SpansGroups);
                let began = self.configuration.geometry();
                let is_new = records.iter().any(|record| !began.has(record.group));
                self.witnesses.saw_if(is_new, Witness::GrowthWritten);
            }
            Event::Asked(_) => {
                let others = volume.asked.values().count();
                self.witnesses.saw_if(others > 0, Witness::AskedTwice);
            }
            Event::Backtracking(_) | Event::Confirmed(..) => {}
        }
    }

    /// Gives answers to every writer: those of another epoch must see that it isn't theirs.
    fn apply_replies(&self, state: &mut State, group: u8, position: u8, replies: u32) {
        if replies == 0 {
            return;
        }
        for reply in self.replies.get(replies) {
            self.apply_reply(state, group, position, *reply);
        }
    }

    fn apply_reply(&self, state: &mut State, group: u8, position: u8, reply: u32) {
        for index in 0..usize::from(state.budget.writers) {
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            let outcome = self.answer(state.writer(index), number, group, position, reply);
            self.apply_writer(state, index, outcome);
        }
    }

    /// Runs a command of writer `index`; `what` tells apart the commands of one writer.
    pub(crate) fn command(&self, state: &mut State, index: u8, what: u64, input: WriterInput) {
        let writer = state.writer(usize::from(index));
        let key = u64::from(writer) << 32 | what << 4 | u64::from(index);
        let outcome = self.memos.command.get_or(key, || self.step_writer(writer, index, input));
        self.apply_writer(state, usize::from(index), outcome);
    }

    /// Removes answers that can change no writer any more: those that change none now. Writers
    /// only ever learn, so what is no news now never is.
    fn prune(&self, state: &mut State) {
        for group in 0..self.configuration.groups as usize {
            for position in 0..self.members() {
                let index = self.slot_index(group, position);
                let slot = state.slot(index);
                let (g, p) = (as_u8(group), as_u8(position));
                let mut kept = 0u32;
                for (number, reply) in self.slots.get(slot).answers.iter().enumerate() {
                    let is_news = (0..usize::from(state.budget.writers)).any(|writer| {
                        let id = state.writer(writer);
                        self.answer(id, as_u8(writer), g, p, *reply).writer != id
                    });
                    kept |= u32::from(is_news) << number;
                }
                state.set_slot(index, self.keep_answers(slot, kept));
            }
        }
    }

    /// Carries out one step; `None` when it changes nothing.
    fn take(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        let at =
            |group: u8, position: u8| self.slot_index(usize::from(group), usize::from(position));
        match action {
            Action::Answer { group, position, index } => {
                let outcome = self.take_answer(state.slot(at(group, position)), index);
                next.set_slot(at(group, position), outcome.slot);
                self.apply_replies(&mut next, group, position, outcome.replies);
            }
            Action::Ask { writer } => {
                next.budget.strict_reads = next.budget.strict_reads.checked_sub(1)?;
                // Tickets of a writer rise.
                let asked =
                    self.configuration.strict_reads.checked_sub(next.budget.strict_reads)?;
                let what = 256 | u64::from(asked);
                let ticket = Ticket::new(u64::from(asked));
                self.command(&mut next, writer, what, WriterInput::Confirm { ticket });
            }
            Action::Backtrack { writer, target } => {
                next.budget.backtracks = next.budget.backtracks.checked_sub(1)?;
                self.backtrack(&mut next, writer, target)?;
            }
            Action::Collect { group, position } => {
                let outcome = self.collect(state.slot(at(group, position)));
                next.set_slot(at(group, position), outcome.slot);
            }
            Action::Crash { group, position, survivors, torn } => {
                next.budget.crashes = next.budget.crashes.checked_sub(1)?;
                let outcome = self.crash(state.slot(at(group, position)), survivors, torn);
                next.set_slot(at(group, position), outcome.slot);
            }
            Action::Damage { group, position, kept } => {
                next.budget.damages = next.budget.damages.checked_sub(1)?;
                let outcome = self.damage(state.slot(at(group, position)), kept);
                next.set_slot(at(group, position), outcome.slot);
            }
            Action::Deliver { writer, message, group, position } => {
                let node = self.writers.get(state.writer(usize::from(writer)));
                let message = *node.messages.get(usize::from(message))?;
                let outcome = self.deliver(state.slot(at(group, position)), message);
                next.set_slot(at(group, position), outcome.slot);
                self.apply_replies(&mut next, group, position, outcome.replies);
            }
            Action::Gossip { group, position } => {
                let outcome = self.receive_gossip(state.slot(at(group, position)));
                next.set_slot(at(group, position), outcome.slot);
                self.apply_replies(&mut next, group, position, outcome.replies);
            }
            Action::Lose { group, position } => {
                next.budget.losses = next.budget.losses.checked_sub(1)?;
                let outcome = self.lose(state.slot(at(group, position)));
                next.set_slot(at(group, position), outcome.slot);
            }
            Action::Publish { writer } => {
                self.command(&mut next, writer, 1, WriterInput::Publish);
            }
            Action::Pull { group, into, from } => {
                let outcome = if self.configuration.gossip_messages {
                    self.ask_gossip(state.slot(at(group, into)), state.slot(at(group, from)))
                } else {
                    self.pull(state.slot(at(group, into)), state.slot(at(group, from)))
                };
                next.set_slot(at(group, into), outcome.slot);
                self.apply_replies(&mut next, group, into, outcome.replies);
            }
            Action::Reader(step) => self.take_reader(state, &mut next, step)?,
            Action::Recover => self.recover(&mut next),
            Action::Resend { writer, group, position } => {
                let what = 64 | u64::from(group) << 3 | u64::from(position);
                let (group, to) = (PgId::new(u32::from(group)), position_of(position));
                self.command(&mut next, writer, what, WriterInput::Resend { group, to });
            }
            Action::Step { writer, step } => {
                next.budget.steps = next.budget.steps.checked_sub(1)?;
                let before = next.writer(usize::from(writer));
                let wanted = *self.configuration.steps.get(usize::from(step))?;
                let input = WriterInput::Step { group: PgId::new(0), step: wanted };
                self.command(&mut next, writer, 256 | u64::from(step), input);
                if next.writer(usize::from(writer)) == before {
                    return None;
                }
            }
            Action::Sync { group, position, index } => {
                let outcome = self.sync(state.slot(at(group, position)), index);
                next.set_slot(at(group, position), outcome.slot);
                self.apply_replies(&mut next, group, position, outcome.replies);
            }
            Action::Write { writer, mtr } => {
                next.budget.writes = next.budget.writes.checked_sub(1)?;
                let before = next.writer(usize::from(writer));
                let what = 128 | u64::from(mtr);
                let changes = self.changes(mtr)?;
                self.command(&mut next, writer, what, WriterInput::Write { changes });
                if next.writer(usize::from(writer)) == before {
                    return None;
                }
            }
        }
        if self.configuration.granularity == Granularity::Split {
            self.prune(&mut next);
        }
        let is_same = next.slots == state.slots
            && next.writers == state.writers
            && next.volume == state.volume
            && next.reader == state.reader
            && next.flaw == state.flaw;
        if is_same {
            return None;
        }
        self.witnesses.saw(Witness::of_action(&action));
        Some(self.canonical(next))
    }

    fn recover(&self, next: &mut State) {
        let number = next.budget.writers;
        let mut effects = Vec::new();
        let epoch = self.configuration.epoch(number);
        let geometry = self.configuration.geometry();
        let machine = if number <= self.configuration.forced_writers {
            self.open_forced(epoch, &mut effects)
        } else {
            Writer::open_under(self.rules, epoch, geometry, &mut effects)
        };
        self.start_writer(next, machine, &effects);
    }

    /// Adds the next writer.
    pub(crate) fn start_writer(
        &self,
        next: &mut State,
        machine: Writer<R>,
        effects: &[WriterEffect],
    ) {
        let number = next.budget.writers;
        let writer = self.intern_writer(machine, Vec::new(), Vec::new(), effects);
        next.set_writer(usize::from(number), writer);
        next.budget.writers = number.saturating_add(1);
    }

    /// Returns the writer that an operator opens when disks are lost for ever.
    pub(crate) fn open_forced(
        &self,
        epoch: VolumeEpoch,
        effects: &mut Vec<WriterEffect>,
    ) -> Writer<R> {
        let Configuration { quorums, forced, .. } = self.configuration;
        let groups = [(Membership::genesis(quorums), SegmentSet::from_bits(forced))];
        Writer::open_forced(self.rules, epoch, self.configuration.geometry(), &groups, effects)
    }

    fn changes(&self, mtr: u8) -> Option<Vec<Change>> {
        let pages = self.configuration.mtrs.get(usize::from(mtr))?;
        let change = |page: &u64| Change { page: PageId::new(*page), payload: Payload::default() };
        Some(pages.iter().map(change).collect())
    }

    fn push_writer_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let configuration = &self.configuration;
        if state.budget.writers < configuration.epochs {
            actions.push(Action::Recover);
        }
        for (index, node) in self.started(state) {
            if node.phase != PhaseName::Open {
                continue;
            }
            let writer = as_u8(index);
            if state.budget.backtracks > 0 && state.budget.writers < configuration.epochs {
                self.push_backtracks(state, writer, actions);
            }
            if state.budget.writes > 0 {
                let mtrs = 0..as_u8(configuration.mtrs.len());
                actions.extend(mtrs.map(|mtr| Action::Write { writer, mtr }));
            }
            if state.budget.steps > 0 {
                let steps = 0..as_u8(configuration.steps.len());
                actions.extend(steps.map(|step| Action::Step { writer, step }));
            }
            if configuration.publish {
                actions.push(Action::Publish { writer });
            }
            if state.budget.strict_reads > 0 {
                actions.push(Action::Ask { writer });
            }
        }
    }

    fn push_segment_actions(&self, state: &State, group: u8, actions: &mut Vec<Action>) {
        let keys = self.keys(state, usize::from(group));
        for position in 0..as_u8(self.members()) {
            let index = self.slot_index(usize::from(group), usize::from(position));
            if self.configuration.symmetric && !is_first(&keys, usize::from(position)) {
                continue;
            }
            let slot = &self.slot(state, index).slot;
            for (number, node) in self.started(state) {
                let writer = as_u8(number);
                for (message, sent) in node.sent.iter().enumerate() {
                    let is_addressed = sent.group == PgId::new(u32::from(group))
                        && sent.to.contains(position_of(position));
                    if is_addressed {
                        let message = as_u8(message);
                        actions.push(Action::Deliver { writer, message, group, position });
                    }
                }
                if self.configuration.resend && node.phase == PhaseName::Open {
                    actions.push(Action::Resend { writer, group, position });
                }
            }
            if state.budget.losses > 0 {
                actions.push(Action::Lose { group, position });
            }
            if self.configuration.collect {
                actions.push(Action::Collect { group, position });
            }
            if self.configuration.gossip {
                self.push_pulls(&keys, group, position, slot, actions);
            }
            if state.budget.damages > 0 {
                let kept = (0..=as_u8(slot.segment.durable().records().len())).map(Some);
                let damage = |kept| Action::Damage { group, position, kept };
                actions.extend(kept.chain([None]).map(damage));
            }
            if self.configuration.granularity == Granularity::Split {
                let outbox = 0..as_u8(slot.outbox.len());
                actions.extend(outbox.map(|index| Action::Answer { group, position, index }));
                self.push_disk_actions(state, slot, group, position, actions);
            }
        }
    }

    fn push_pulls(
        &self,
        keys: &[u64],
        group: u8,
        position: u8,
        slot: &Slot<R>,
        actions: &mut Vec<Action>,
    ) {
        if !slot.inbox.is_empty() {
            actions.push(Action::Gossip { group, position });
        }
        for from in 0..self.members() {
            let is_other = keys.get(from) != keys.get(usize::from(position));
            if is_other && (is_first(keys, from) || !self.configuration.symmetric) {
                actions.push(Action::Pull { group, into: position, from: as_u8(from) });
            }
        }
    }

    fn push_disk_actions(
        &self,
        state: &State,
        slot: &Slot<R>,
        group: u8,
        position: u8,
        actions: &mut Vec<Action>,
    ) {
        let mut is_oldest = true;
        for (id, _, is_durable) in slot.segment.pending() {
            if !is_durable && (is_oldest || self.configuration.any_order) {
                let index = u8::try_from(id.get()).unwrap_or(u8::MAX);
                actions.push(Action::Sync { group, position, index });
            }
            is_oldest = false;
        }
        let Some(disk) = &slot.disk else { return };
        if state.budget.crashes == 0 {
            return;
        }
        for survivors in 0..=disk.writes.len() {
            // A synced write survives; the first that doesn't is unsynced.
            let lost = disk.writes.get(survivors);
            if lost.is_some_and(|(_, _, is_synced)| *is_synced) {
                continue;
            }
            let survivors = as_u8(survivors);
            actions.push(Action::Crash { group, position, survivors, torn: false });
            if lost.is_some() {
                actions.push(Action::Crash { group, position, survivors, torn: true });
            }
        }
    }
}

impl<R: Rules> Model for World<R> {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.play()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.flaw.is_some() {
            return;
        }
        self.push_writer_actions(state, actions);
        for group in 0..as_u8(self.configuration.groups as usize) {
            self.push_segment_actions(state, group, actions);
        }
        self.push_reader_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.take(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("safety", |world, state| invariant::broken(world, state).is_none())]
    }
}

/// Segments with equal keys are exchangeable: steps of the first one stand for all.
pub(crate) fn is_first(keys: &[u64], position: usize) -> bool {
    let key = keys.get(position);
    keys.iter().take(position).all(|other| Some(other) != key)
}

pub(crate) fn position_of(position: u8) -> Position {
    match Position::new(usize::from(position)) {
        Some(position) => position,
        None => unreachable!("positions of models are below the most segments of a group"),
    }
}

pub(crate) fn as_u8(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}
