//! The fair schedule: what happens once faults have healed, as one deterministic run of the core.
//!
//! Whatever was under way when the faults healed is lost. From then on every connection delivers:
//! in each round the driver of each writer that still runs asks for what a segment may lack, for
//! one segment after the other, and every segment pulls from every other; what a machine says
//! arrives at once, and once. Segments are served in an order that doesn't depend on their names.

use std::collections::VecDeque;

use quorate_core::effect::WriterInput;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PgId, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::truncation::History;
use quorate_core::writer::{PhaseName, Writer};

use super::Liveness;
use crate::configuration::Granularity;
use crate::intern::{Memo, combine};
use crate::step::{as_u8, position_of};
use crate::world::{Disk, GROUPS, MEMBERS, Slot, SlotOutcome, State, World, WriterOutcome};

/// Rounds after which a run that still changes something goes in circles.
const ROUNDS_MAX: usize = 64;
/// The names of writer processes that start after the faults: none of a configuration is so high.
const FIRST_INSTANCE: u64 = 1 << 20;
/// How often a new writer may be refused for its epoch: the first answer names a higher one.
const ATTEMPTS_MAX: u64 = 4;
/// The number of writers of runs, where the abstract volume numbers them: it isn't asked here.
const NOBODY: u8 = u8::MAX;

/// What a run waited for, in vain.
pub(super) type Waiting = &'static str;

/// Remembered steps of the runs that the models' own steps don't have.
#[derive(Debug)]
pub(super) struct Desk {
    bare: Memo<u32>,
    quiet: Memo<u32>,
    commands: Memo<WriterOutcome>,
    /// What a run with an open writer takes to its goal.
    pub(super) ends: Memo<Result<Ends, (Liveness, Waiting)>>,
}

/// The steps from an opening until a new write is durable, and until the goal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ends {
    pub(super) written: u32,
    pub(super) whole: u32,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (bare, quiet, commands, ends) = (Memo::new(), Memo::new(), Memo::new(), Memo::new());
        Self { bare, quiet, commands, ends }
    }

    /// Returns `state` as a heal leaves it: all that was on its way is lost, but what the disks
    /// were given they finish.
    pub(super) fn quiet<R: Rules>(&self, world: &World<R>, state: &State) -> State {
        let mut quiet = *state;
        for index in 0..world.slots_count() {
            let slot = state.slot(index);
            quiet.set_slot(index, self.quiet.get_or(u64::from(slot), || quieten(world, slot)));
        }
        for number in 0..usize::from(state.budget.writers) {
            quiet.set_writer(number, bare(world, self, state.writer(number)));
        }
        quiet
    }
}

/// One run of the schedule.
#[derive(Clone, Debug)]
pub(super) struct Fair<'w, R: Rules> {
    pub(super) world: &'w World<R>,
    pub(super) desk: &'w Desk,
    /// By group and position; `u32::MAX` where there is no segment.
    slots: [[u32; MEMBERS]; GROUPS],
    /// By group: the positions, in the order in which they are served.
    order: [Vec<u8>; GROUPS],
    reachable: [SegmentSet; GROUPS],
    /// Those that run, lowest epoch first, without what they have sent.
    writers: Vec<u32>,
    /// Whether the last writer is one of ours, which tries again when it is refused.
    is_ours: bool,
    attempts: u64,
    queue: VecDeque<Message>,
    /// Deliveries, pulls and commands that changed something.
    pub(super) steps: u32,
}

/// A message on its way to a segment, by its number.
#[derive(Clone, Copy, Debug)]
struct Message {
    group: u8,
    position: u8,
    message: u32,
}

impl<'w, R: Rules> Fair<'w, R> {
    /// Returns the run that starts from the segments of `state`, a quiet one, of which only those
    /// in `reachable` take part, served in `order`, without a writer.
    pub(super) fn new(
        world: &'w World<R>,
        desk: &'w Desk,
        state: &State,
        order: [Vec<u8>; GROUPS],
        reachable: [SegmentSet; GROUPS],
    ) -> Self {
        let mut slots = [[u32::MAX; MEMBERS]; GROUPS];
        for (group, slots) in slots.iter_mut().enumerate().take(world.groups()) {
            for (position, slot) in slots.iter_mut().enumerate().take(world.members()) {
                *slot = state.slot(world.slot_index(group, position));
            }
        }
        let (writers, queue) = (Vec::new(), VecDeque::new());
        let (is_ours, attempts, steps) = (false, 0, 0);
        Self { world, desk, slots, order, reachable, writers, is_ours, attempts, queue, steps }
    }

    /// Lets `writer`, one of the state's, go on.
    pub(super) fn go_on(&mut self, writer: u32) {
        self.writers.push(writer);
    }

    /// Stops all writers.
    pub(super) fn stop(&mut self) {
        self.writers.clear();
        self.is_ours = false;
    }

    /// Starts a new writer. It knows no epoch, and learns from refusals which one it needs.
    pub(super) fn take_over(&mut self) {
        self.is_ours = true;
        self.start(VolumeEpoch::new(1, InstanceId::new(FIRST_INSTANCE)), None);
    }

    /// Starts a new writer that an operator forces to open: the members in `lost` of the newest
    /// membership of a group never come back.
    pub(super) fn force(&mut self, groups: &[(Membership, SegmentSet)]) {
        let of_group = |group| self.segments(group).map(|(_, segment)| segment.heard().counter());
        let counters = (0..self.world.groups()).flat_map(of_group);
        let counter = counters.max().unwrap_or(0).saturating_add(1);
        self.start(VolumeEpoch::new(counter, InstanceId::new(FIRST_INSTANCE)), Some(groups));
    }

    fn start(&mut self, epoch: VolumeEpoch, forced: Option<&[(Membership, SegmentSet)]>) {
        let (rules, geometry) = (self.world.rules, self.world.configuration.geometry());
        let mut effects = Vec::new();
        let machine = match forced {
            Some(groups) => Writer::open_forced(rules, epoch, geometry, groups, &mut effects),
            None => Writer::open_under(rules, epoch, geometry, &mut effects),
        };
        let writer = self.world.intern_writer(machine, Vec::new(), Vec::new(), &effects);
        self.writers.push(u32::MAX);
        self.steps += 1;
        self.took(self.writers.len() - 1, writer);
        self.drain();
    }

    /// Runs until `is_done`.
    ///
    /// # Errors
    /// `waiting`, when nothing changes any more, or for ever.
    pub(super) fn until(
        &mut self,
        waiting: Waiting,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), Waiting> {
        for _ in 0..ROUNDS_MAX {
            if is_done(self) {
                return Ok(());
            }
            let before = self.steps;
            self.round();
            if self.steps == before {
                return if is_done(self) { Ok(()) } else { Err(waiting) };
            }
        }
        Err(waiting)
    }

    /// Runs until nothing changes.
    ///
    /// # Errors
    /// When something always does.
    pub(super) fn quiesce(&mut self) -> Result<(), Waiting> {
        for _ in 0..ROUNDS_MAX {
            let before = self.steps;
            self.round();
            if self.steps == before {
                return Ok(());
            }
        }
        Err("quiet")
    }

    fn round(&mut self) {
        for writer in 0..self.writers.len() {
            for (group, position) in self.served() {
                let what = 64 | u64::from(group) << 3 | u64::from(position);
                let (group, to) = (PgId::new(u32::from(group)), position_of(position));
                self.command(writer, what, WriterInput::Resend { group, to });
            }
        }
        self.try_again();
        for (group, into) in self.served() {
            for (_, from) in self.served().into_iter().filter(|(of, _)| *of == group) {
                if from != into {
                    self.pull(group, into, from);
                }
            }
        }
    }

    /// A driver whose writer is refused starts another one, above the epoch that it was told.
    fn try_again(&mut self) {
        let Some(last) = self.writers.last() else { return };
        let by = self.world.writers.get(*last).machine.overtaken_by();
        let Some(by) = by.filter(|_| self.is_ours && self.attempts < ATTEMPTS_MAX) else { return };
        self.attempts += 1;
        if let Some(epoch) = by.next(InstanceId::new(FIRST_INSTANCE + self.attempts)) {
            self.writers.pop();
            self.start(epoch, None);
        }
    }

    fn served(&self) -> Vec<(u8, u8)> {
        let mut served = Vec::new();
        for (group, (order, reachable)) in self.order.iter().zip(&self.reachable).enumerate() {
            let is_there = |position: &&u8| reachable.contains(position_of(**position));
            served.extend(order.iter().filter(is_there).map(|position| (as_u8(group), *position)));
        }
        served
    }

    /// Gives the writer number `writer` of this run a command; `what` tells its commands apart.
    pub(super) fn command(&mut self, writer: usize, what: u64, input: WriterInput) {
        let Some(id) = self.writers.get(writer).copied() else { return };
        let key = u64::from(id) << 32 | what;
        let step = || self.world.step_writer(id, NOBODY, input);
        let outcome = self.desk.commands.get_or(key, step);
        self.took(writer, outcome.writer);
        self.drain();
    }

    /// Gives the last writer a command.
    pub(super) fn tell(&mut self, what: u64, input: WriterInput) {
        self.command(self.writers.len().saturating_sub(1), what, input);
    }

    /// Puts what a writer has just sent on its way.
    fn took(&mut self, writer: usize, next: u32) {
        let node = self.world.writers.get(next);
        for (sent, message) in node.sent.iter().zip(&node.messages) {
            let group = as_u8(sent.group.get() as usize);
            for position in sent.to.iter() {
                let position = as_u8(position.index());
                self.queue.push_back(Message { group, position, message: *message });
            }
        }
        let next = bare(self.world, self.desk, next);
        if let Some(known) = self.writers.get_mut(writer) {
            self.steps += u32::from(*known != next && *known != u32::MAX);
            *known = next;
        }
    }

    fn drain(&mut self) {
        while let Some(Message { group, position, message }) = self.queue.pop_front() {
            let slot = self.slot(group, position);
            if slot != u32::MAX && self.reaches(group, position) {
                let outcome = self.world.deliver(slot, message);
                self.became(group, position, outcome);
            }
        }
    }

    fn pull(&mut self, group: u8, into: u8, from: u8) {
        let (to, from) = (self.slot(group, into), self.slot(group, from));
        if to == u32::MAX || from == u32::MAX {
            return;
        }
        if self.world.configuration.gossip_messages {
            let asked = self.world.ask_gossip(to, from).slot;
            let outcome = self.world.receive_gossip(asked);
            if outcome.slot != u32::MAX {
                self.became(group, into, outcome);
            }
        } else {
            let outcome = self.world.pull(to, from);
            self.became(group, into, outcome);
        }
        self.drain();
    }

    /// Takes what a segment has become, with its disk done and its answers heard.
    fn became(&mut self, group: u8, position: u8, outcome: SlotOutcome) {
        self.steps += u32::from(outcome.slot != self.slot(group, position));
        self.set_slot(group, position, outcome.slot);
        self.hear(group, position, outcome.replies);
        if self.world.configuration.granularity == Granularity::Fused {
            return;
        }
        loop {
            let slot = self.slot(group, position);
            let next = oldest_write(self.world, slot).map(|write| self.world.sync(slot, write));
            let has_answers = !self.world.slots.get(slot).answers.is_empty();
            let answer = || has_answers.then(|| self.world.take_answer(slot, 0));
            let Some(outcome) = next.or_else(answer) else { return };
            self.set_slot(group, position, outcome.slot);
            self.hear(group, position, outcome.replies);
        }
    }

    /// Hands answers to every writer that runs: the others must see that they aren't theirs.
    fn hear(&mut self, group: u8, position: u8, replies: u32) {
        for reply in self.world.replies.get(replies) {
            for writer in 0..self.writers.len() {
                let Some(id) = self.writers.get(writer).copied() else { continue };
                let outcome = self.world.answer(id, NOBODY, group, position, *reply);
                if outcome.writer != id {
                    self.took(writer, outcome.writer);
                }
            }
        }
    }

    /// Puts an empty disk at `position`.
    pub(super) fn seat(&mut self, group: u8, position: u8, image: SegmentImage) {
        let disk = (self.world.configuration.crashes > 0)
            .then(|| Disk { image: image.clone(), writes: Vec::new() });
        let segment = Segment::recover_under(self.world.rules, image);
        let slot = Slot { segment, disk, outbox: Vec::new(), inbox: Vec::new() };
        self.set_slot(group, position, self.world.intern_slot(slot));
        self.reconnect(group, position);
    }

    /// Lets the segment at `position` take part from now on.
    pub(super) fn reconnect(&mut self, group: u8, position: u8) {
        let at = usize::from(group);
        if let Some(reachable) = self.reachable.get_mut(at) {
            reachable.insert(position_of(position));
        }
        if let Some(order) = self.order.get_mut(at)
            && !order.contains(&position)
        {
            order.push(position);
        }
    }

    /// Returns the segments of a group that take part, with their positions.
    pub(super) fn segments(&self, group: usize) -> impl Iterator<Item = (u8, &'w Segment<R>)> {
        let world = self.world;
        let slots = self.slots.get(group).copied().unwrap_or([u32::MAX; MEMBERS]);
        let reachable = self.reachable(group);
        slots.into_iter().enumerate().filter_map(move |(position, slot)| {
            let position = as_u8(position);
            let is_there = slot != u32::MAX && reachable.contains(position_of(position));
            is_there.then(|| (position, &world.slots.get(slot).slot.segment))
        })
    }

    pub(super) fn reachable(&self, group: usize) -> SegmentSet {
        self.reachable.get(group).copied().unwrap_or(SegmentSet::EMPTY)
    }

    /// Serves segments from now on in an order that the state of this run gives, and returns a
    /// name of that state: equal for states that differ in the names of segments only.
    pub(super) fn settle_order(&mut self) -> u64 {
        let mut name = 0;
        for writer in &self.writers {
            name = combine(name, self.world.writers.get(*writer).rest);
        }
        for group in 0..self.world.groups() {
            let key = |position: usize| self.key(group, position);
            let mut keys: Vec<(u64, u8)> =
                (0..MEMBERS).map(|position| (key(position), as_u8(position))).collect();
            keys.sort_unstable();
            if let Some(order) = self.order.get_mut(group) {
                *order = keys.iter().map(|(_, position)| *position).collect();
            }
            name = keys.into_iter().fold(name, |name, (key, _)| combine(name, key));
        }
        name
    }

    fn key(&self, group: usize, position: usize) -> u64 {
        let world = self.world;
        let slot = self.slot(as_u8(group), as_u8(position));
        let is_there = self.reaches(as_u8(group), as_u8(position)) && slot != u32::MAX;
        let role = world.configuration.roles.get(position).copied().unwrap_or(u8::MAX);
        let is_member = position < world.members();
        let key = if is_there { world.slots.hash(slot) } else { u64::from(is_member) };
        let mut key = combine(key, u64::from(role));
        for writer in &self.writers {
            let columns = world.writers.get(*writer).columns.get(group);
            let column = columns.and_then(|columns| columns.get(position));
            key = combine(key, column.copied().unwrap_or(0));
        }
        key
    }

    /// Returns the last writer's machine.
    pub(super) fn machine(&self) -> Option<&'w Writer<R>> {
        self.writers.last().map(|last| &self.world.writers.get(*last).machine)
    }

    /// Returns whether the last writer has adopted what nobody holds any more.
    pub(super) fn is_orphaned(&self) -> bool {
        let segments = (0..self.world.groups()).flat_map(|group| self.segments(group));
        let segments = segments.map(|(_, segment)| segment);
        self.machine().is_some_and(|machine| is_orphaned(machine, segments))
    }

    pub(super) fn is_open(&self) -> bool {
        self.machine().is_some_and(|machine| machine.phase() == PhaseName::Open)
    }

    /// Returns whether all that the last writer has written is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.machine().is_some_and(|machine| {
            let vdl = machine.vdl().map(quorate_core::consistency::Vdl::lsn);
            vdl.is_some() && vdl == machine.tail()
        })
    }

    fn reaches(&self, group: u8, position: u8) -> bool {
        self.reachable(usize::from(group)).contains(position_of(position))
    }

    pub(super) fn slot(&self, group: u8, position: u8) -> u32 {
        let of_group = self.slots.get(usize::from(group));
        of_group.and_then(|slots| slots.get(usize::from(position))).copied().unwrap_or(u32::MAX)
    }

    fn set_slot(&mut self, group: u8, position: u8, slot: u32) {
        let of_group = self.slots.get_mut(usize::from(group));
        if let Some(known) = of_group.and_then(|slots| slots.get_mut(usize::from(position))) {
            *known = slot;
        }
    }
}

/// Returns `writer` as it is when all that it has sent is lost.
pub(super) fn bare<R: Rules>(world: &World<R>, desk: &Desk, writer: u32) -> u32 {
    let node = world.writers.get(writer);
    if node.sent.is_empty() && node.stream.is_empty() {
        return writer;
    }
    desk.bare.get_or(u64::from(writer), || {
        world.intern_writer(node.machine.clone(), Vec::new(), Vec::new(), &[])
    })
}

/// Returns a slot as a heal leaves it.
fn quieten<R: Rules>(world: &World<R>, slot: u32) -> u32 {
    let node = &world.slots.get(slot).slot;
    if node.inbox.is_empty() && node.outbox.is_empty() && node.segment.pending().len() == 0 {
        return slot;
    }
    let mut quiet = node.clone();
    quiet.inbox.clear();
    quiet.outbox.clear();
    let mut slot = world.intern_slot(quiet);
    while let Some(write) = oldest_write(world, slot) {
        slot = world.sync(slot, write).slot;
    }
    let count = world.slots.get(slot).answers.len();
    if count == 0 { slot } else { world.keep_answers(slot, 0) }
}

/// Returns the number of the first write that a slot's disk has not finished.
fn oldest_write<R: Rules>(world: &World<R>, slot: u32) -> Option<u8> {
    let segment = &world.slots.get(slot).slot.segment;
    let mut waiting = segment.pending().filter(|(_, _, is_durable)| !is_durable);
    waiting.next().map(|(id, _, _)| u8::try_from(id.get()).unwrap_or(u8::MAX))
}

/// Returns whether `writer` is installing a recovery point that none of `segments` reaches.
pub(super) fn is_orphaned<'a, R: Rules>(
    writer: &Writer<R>,
    mut segments: impl Iterator<Item = &'a Segment<R>>,
) -> bool {
    let point = writer.history().map_or(Lsn::ZERO, History::after);
    let reaches = |segment: &Segment<R>| segment.durable().scl().lsn() >= point;
    writer.phase() == PhaseName::Installing && !segments.any(reaches)
}
