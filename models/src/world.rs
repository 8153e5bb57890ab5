//! The state of a model: the real machines, the messages and the disks.
//!
//! A state names interned values: slots (a segment with its disk and its unsent answers), writers
//! (a machine with everything it has ever sent) and the abstract volume. Messages of a writer stay
//! deliverable for ever, any number of times: loss, delay, duplication and reordering need no
//! steps of their own. Overtaken writers never stop.
//!
//! Segments of a group are interchangeable. A state's fingerprint is that of its canonical form,
//! in which the segments are sorted by everything that anybody knows of them; it is computed with
//! each next state, so every checker of stateright sees it. States themselves keep the segments
//! where they are, so a trace needs no renaming back.

use std::hash::{Hash, Hasher};

use quorate_core::effect::{SegmentWrite, WriterEffect};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PgId, Position, SEGMENTS_MAX, SegmentSet, WriteId};
use quorate_core::image::SegmentImage;
use quorate_core::message::{SealAnswer, ToReader, ToSegment, ToWriter};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};

use crate::configuration::Configuration;
use crate::intern::{Arena, Memo, combine, hash_of};
use crate::invariant;
use crate::reader::ReaderNode;
use crate::volume_spec::{Event, Flaw, Volume};
use crate::witness::Witnesses;

/// The most slots of a state: two groups of six, or three of four.
pub(crate) const SLOTS: usize = 12;
/// The most writers of a state.
pub(crate) const WRITERS: usize = 4;
/// The most groups of a state.
pub(crate) const GROUPS: usize = 3;
/// The most segments of a group.
pub(crate) const MEMBERS: usize = SEGMENTS_MAX;

/// The report of a segment that answers no seal.
pub(crate) const NO_VOTE: u32 = u32::MAX;

/// One state, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Interned slots, group by group.
    pub(crate) slots: [u32; SLOTS],
    /// Interned writers, by epoch; those not yet started are `u32::MAX`.
    pub(crate) writers: [u32; WRITERS],
    /// The interned abstract volume.
    pub(crate) volume: u32,
    /// The interned reader; `u32::MAX` where there is none.
    pub(crate) reader: u32,
    pub(crate) budget: Budget,
    /// Set when the last step was one that the abstract volume can't take: such a state has no
    /// successors.
    pub(crate) flaw: Option<Flaw>,
    /// Fingerprint of the canonical form.
    pub(crate) canonical: u64,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.canonical);
    }
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Budget {
    pub(crate) writers: u8,
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    pub(crate) strict_reads: u8,
    pub(crate) damages: u8,
    pub(crate) steps: u8,
    pub(crate) losses: u8,
    pub(crate) backtracks: u8,
    pub(crate) attaches: u8,
    pub(crate) expels: u8,
}

/// A segment, its disk and what it has said but nobody has heard.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Slot<R: Rules> {
    pub(crate) segment: Segment<R>,
    /// What a crash leaves; kept apart from the machine only where crashes happen.
    pub(crate) disk: Option<Disk>,
    /// Answers on their way to the writer of an epoch; only if delivery is a step of its own.
    pub(crate) outbox: Vec<(VolumeEpoch, ToWriter)>,
    /// Gossip messages on their way to this segment; only if gossip is more than one step.
    pub(crate) inbox: Vec<ToSegment>,
}

/// The log of one segment as the disk has it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Disk {
    /// The writes before the first that is not synced, applied.
    pub(crate) image: SegmentImage,
    /// The others, in the order of submission, and whether they are synced.
    pub(crate) writes: Vec<(WriteId, SegmentWrite, bool)>,
}

/// A slot with what is computed from it once.
#[derive(Clone, Debug)]
pub(crate) struct SlotNode<R: Rules> {
    pub(crate) slot: Slot<R>,
    /// Number of the report that the segment would answer a seal with; `u32::MAX` if it has no
    /// vote.
    pub(crate) report: u32,
    /// The interned number of each unsent answer.
    pub(crate) answers: Vec<u32>,
    /// The properties that this slot breaks by itself.
    pub(crate) broken: Option<invariant::Property>,
}

impl<R: Rules> PartialEq for SlotNode<R> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot
    }
}

impl<R: Rules> Eq for SlotNode<R> {}

impl<R: Rules> Hash for SlotNode<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slot.hash(state);
    }
}

/// A message that a writer has sent, and to which segments of which group.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Sent {
    pub(crate) group: PgId,
    pub(crate) to: SegmentSet,
    pub(crate) message: ToSegment,
}

/// A writer, everything it has sent, and what is computed from both once.
#[derive(Clone, Debug)]
pub(crate) struct WriterNode<R: Rules> {
    pub(crate) machine: Writer<R>,
    /// Sorted by the message's hash: an order that doesn't depend on the order of sending.
    pub(crate) sent: Vec<Sent>,
    /// The interned number of each sent message.
    pub(crate) messages: Vec<u32>,
    /// By group and position: hash of what this writer knows of, and has sent to, that segment.
    pub(crate) columns: [[u64; MEMBERS]; GROUPS],
    /// Hash of everything else.
    pub(crate) rest: u64,
    pub(crate) phase: PhaseName,
    /// Everything it has ever sent to the reader, sorted by hash.
    pub(crate) stream: Vec<ToReader>,
    /// The interned number of each.
    pub(crate) stream_ids: Vec<u32>,
}

impl<R: Rules> PartialEq for WriterNode<R> {
    fn eq(&self, other: &Self) -> bool {
        self.machine == other.machine && self.sent == other.sent && self.stream == other.stream
    }
}

impl<R: Rules> Eq for WriterNode<R> {}

impl<R: Rules> Hash for WriterNode<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.machine.hash(state);
        self.sent.hash(state);
        self.stream.hash(state);
    }
}

/// What a slot does with an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotOutcome {
    pub(crate) slot: u32,
    /// Number of the list of answers that leave at once.
    pub(crate) replies: u32,
}

/// What a writer does with an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterOutcome {
    pub(crate) writer: u32,
    /// Number of the list of steps that the abstract volume must be able to take.
    pub(crate) events: u32,
}

/// What the abstract volume does with a writer's steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VolumeOutcome {
    pub(crate) volume: u32,
    pub(crate) flaw: Option<Flaw>,
}

/// A model: the machines under `rules`, within the budgets of a configuration.
#[derive(Debug)]
pub struct World<R: Rules> {
    pub(crate) configuration: Configuration,
    pub(crate) rules: R,
    pub(crate) seed: u64,
    pub(crate) slots: Arena<SlotNode<R>>,
    pub(crate) writers: Arena<WriterNode<R>>,
    pub(crate) volumes: Arena<Volume>,
    pub(crate) reports: Arena<SealAnswer>,
    pub(crate) to_segment: Arena<ToSegment>,
    pub(crate) to_writer: Arena<ToWriter>,
    pub(crate) to_reader: Arena<ToReader>,
    pub(crate) readers: Arena<ReaderNode<R>>,
    /// Lists of interned answers.
    pub(crate) replies: Arena<Vec<u32>>,
    pub(crate) events: Arena<(u8, Vec<Event>)>,
    pub(crate) memos: Memos,
    /// Counts the pairs that `view` has numbered.
    pub(crate) views: boxcar::Vec<()>,
    /// Counts the pairs that `pair` has numbered.
    pub(crate) pairs: boxcar::Vec<()>,
    pub(crate) witnesses: Witnesses,
}

/// Remembered steps. Every key packs the numbers of all arguments without loss, but for
/// `quorums`, whose key is a 64-bit hash.
#[derive(Debug)]
pub(crate) struct Memos {
    pub(crate) deliver: Memo<SlotOutcome>,
    pub(crate) pull: Memo<SlotOutcome>,
    pub(crate) local: Memo<SlotOutcome>,
    pub(crate) answer: Memo<WriterOutcome>,
    pub(crate) command: Memo<WriterOutcome>,
    pub(crate) volume: Memo<VolumeOutcome>,
    pub(crate) quorums: Memo<Option<invariant::Property>>,
    pub(crate) view: Memo<u32>,
    pub(crate) read: Memo<Option<invariant::Property>>,
    /// Numbers of pairs of a reader and something else.
    pub(crate) pair: Memo<u32>,
    pub(crate) follow: Memo<u32>,
    pub(crate) fetch: Memo<u32>,
    pub(crate) reader: Memo<Option<invariant::Property>>,
}

impl<R: Rules> World<R> {
    /// Returns the model of `configuration` under `rules`. Two runs with different seeds share no
    /// fingerprint.
    #[must_use]
    pub fn new(configuration: &Configuration, rules: R, seed: u64) -> Self {
        let memos = Memos {
            deliver: Memo::new(),
            pull: Memo::new(),
            local: Memo::new(),
            answer: Memo::new(),
            command: Memo::new(),
            volume: Memo::new(),
            quorums: Memo::new(),
            view: Memo::new(),
            read: Memo::new(),
            pair: Memo::new(),
            follow: Memo::new(),
            fetch: Memo::new(),
            reader: Memo::new(),
        };
        let world = Self {
            configuration: *configuration,
            rules,
            seed,
            slots: Arena::new(seed),
            writers: Arena::new(seed),
            volumes: Arena::new(seed),
            reports: Arena::new(seed),
            to_segment: Arena::new(seed),
            to_writer: Arena::new(seed),
            to_reader: Arena::new(seed),
            readers: Arena::new(seed),
            replies: Arena::new(seed),
            events: Arena::new(seed),
            memos,
            views: boxcar::Vec::new(),
            pairs: boxcar::Vec::new(),
            witnesses: Witnesses::default(),
        };
        // Number zero is the empty list.
        world.replies.intern(Vec::new());
        world.events.intern((0, Vec::new()));
        world
    }

    /// Returns what this model explores.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Returns what has been seen so far.
    #[must_use]
    pub const fn witnesses(&self) -> &Witnesses {
        &self.witnesses
    }

    /// Returns the property that `state` breaks, if any.
    #[must_use]
    pub fn verdict(&self, state: &State) -> Option<invariant::Property> {
        invariant::broken(self, state)
    }

    pub(crate) fn members(&self) -> usize {
        self.configuration.members()
    }

    pub(crate) fn slots_count(&self) -> usize {
        self.members().saturating_mul(self.configuration.groups as usize)
    }

    pub(crate) fn slot_index(&self, group: usize, position: usize) -> usize {
        group.saturating_mul(self.members()).saturating_add(position)
    }

    pub(crate) fn intern_slot(&self, slot: Slot<R>) -> u32 {
        let report = if slot.segment.has_vote() {
            self.reports.intern(self.seal_report(&slot.segment))
        } else {
            NO_VOTE
        };
        let intern = |(_, message): &(_, ToWriter)| self.to_writer.intern(message.clone());
        let answers = slot.outbox.iter().map(intern).collect();
        let broken = invariant::of_slot(&slot, &self.witnesses);
        self.slots.intern(SlotNode { slot, report, answers, broken })
    }

    /// Interns a writer after adding what it has just sent.
    pub(crate) fn intern_writer(
        &self,
        machine: Writer<R>,
        mut sent: Vec<Sent>,
        mut stream: Vec<ToReader>,
        effects: &[WriterEffect],
    ) -> u32 {
        self.add_stream(&mut stream, effects);
        let stream_ids = stream.iter().map(|message| self.to_reader.intern(message.clone()));
        let stream_ids = stream_ids.collect();
        for effect in effects {
            let WriterEffect::Send { group, to, message } = effect else { continue };
            if matches!(message, ToSegment::Read(_)) {
                continue;
            }
            match sent.iter_mut().find(|sent| sent.group == *group && sent.message == *message) {
                Some(known) => {
                    known.to = SegmentSet::from_bits(known.to.bits() | to.bits());
                }
                None => sent.push(Sent { group: *group, to: *to, message: message.clone() }),
            }
        }
        sent.sort_by_cached_key(|sent| hash_of(self.seed, &(sent.group, &sent.message)));
        let messages =
            sent.iter().map(|sent| self.to_segment.intern(sent.message.clone())).collect();
        let mut columns = [[0; MEMBERS]; GROUPS];
        for (group, columns) in (0..).map(PgId::new).zip(&mut columns) {
            for (position, column) in Position::first(MEMBERS).zip(columns) {
                *column = self.column(&machine, &sent, group, position);
            }
        }
        let rest = self.rest(&machine, &sent, &stream);
        let phase = machine.phase();
        self.writers.intern(WriterNode {
            machine,
            sent,
            messages,
            columns,
            rest,
            phase,
            stream,
            stream_ids,
        })
    }

    fn column(&self, machine: &Writer<R>, sent: &[Sent], group: PgId, position: Position) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.seed.hash(&mut hasher);
        machine.hash_column(group, position, &mut hasher);
        for sent in sent.iter().filter(|sent| sent.group == group) {
            sent.to.contains(position).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn rest(&self, machine: &Writer<R>, sent: &[Sent], stream: &[ToReader]) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.seed.hash(&mut hasher);
        machine.hash_rest(&mut hasher);
        for Sent { group, to: _, message } in sent {
            (group, message).hash(&mut hasher);
        }
        stream.hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn slot(&self, state: &State, index: usize) -> &SlotNode<R> {
        self.slots.get(state.slot(index))
    }

    /// Returns the writers that have started, with their numbers.
    pub(crate) fn started<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = (usize, &'a WriterNode<R>)> {
        let started = usize::from(state.budget.writers);
        state.writers.iter().take(started).map(|id| self.writers.get(*id)).enumerate()
    }

    /// Returns what is known of the segment at `position` of `group`, by anybody: segments with
    /// equal keys can be exchanged.
    pub(crate) fn key(&self, state: &State, group: usize, position: usize) -> u64 {
        let slot = state.slot(self.slot_index(group, position));
        let mut key = self.slots.hash(slot);
        // Only segments that every membership treats alike may change places.
        if let Some(role) = self.configuration.roles.get(position) {
            key = combine(key, u64::from(*role));
        }
        for (_, node) in self.started(state) {
            let column = node.columns.get(group).and_then(|columns| columns.get(position));
            key = combine(key, column.copied().unwrap_or(0));
        }
        key
    }

    pub(crate) fn keys(&self, state: &State, group: usize) -> [u64; MEMBERS] {
        let mut keys = [u64::MAX; MEMBERS];
        for (position, key) in keys.iter_mut().enumerate().take(self.members()) {
            *key = self.key(state, group, position);
        }
        keys
    }

    /// Returns `state` with the fingerprint of its canonical form.
    pub(crate) fn canonical(&self, mut state: State) -> State {
        let Budget { writers, writes, crashes, strict_reads, damages, steps, losses, .. } =
            state.budget;
        let Budget { attaches, expels, backtracks, .. } = state.budget;
        let of_reader = u64::from_le_bytes([attaches, expels, backtracks, 0, 0, 0, 0, 0]);
        let budget = [writers, writes, crashes, strict_reads, damages, steps, losses, 0];
        let budget = u64::from_le_bytes(budget);
        let flaw = state.flaw.map_or(0, |flaw| 1 + flaw as u64);
        let mut hash = combine(combine(self.seed, budget), combine(of_reader, flaw));
        hash = combine(hash, self.volumes.hash(state.volume));
        if state.reader != u32::MAX {
            hash = combine(hash, self.readers.hash(state.reader));
        }
        for (_, node) in self.started(&state) {
            hash = combine(hash, node.rest);
        }
        for group in 0..self.configuration.groups as usize {
            let mut keys = self.keys(&state, group);
            if self.configuration.symmetric {
                keys.sort_unstable();
            }
            for key in keys.iter().take(self.members()) {
                hash = combine(hash, *key);
            }
        }
        state.canonical = hash;
        state
    }

    /// Returns the number of a pair of a writer and an abstract volume.
    pub(crate) fn view(&self, writer: u32, volume: u32) -> u32 {
        let key = u64::from(writer) << 32 | u64::from(volume);
        let next = || u32::try_from(self.views.push(())).unwrap_or(u32::MAX);
        let view = self.memos.view.get_or(key, next);
        assert!(view < 1 << 31, "more than 2^31 pairs of writer and volume");
        view
    }

    /// Returns the number of distinct values and remembered steps, for reports on memory.
    #[must_use]
    pub fn interned(&self) -> usize {
        let Memos { deliver, pull, local, answer, command, volume, quorums, view, read, .. } =
            &self.memos;
        let Memos { pair, follow, fetch, reader, .. } = &self.memos;
        let readers = [pair.len(), follow.len(), fetch.len(), reader.len(), self.readers.len()];
        let memos = [deliver.len(), pull.len(), local.len()].iter().sum::<usize>();
        let more = [answer.len(), command.len(), volume.len(), quorums.len(), view.len()];
        let arenas = [self.slots.len(), self.writers.len(), self.volumes.len()];
        memos
            + readers.iter().sum::<usize>()
            + more.iter().sum::<usize>()
            + read.len()
            + arenas.iter().sum::<usize>()
    }
}

impl State {
    #[expect(clippy::indexing_slicing, reason = "indices come from slots_count")]
    pub(crate) fn slot(&self, index: usize) -> u32 {
        self.slots[index]
    }

    #[expect(clippy::indexing_slicing, reason = "indices come from slots_count")]
    pub(crate) fn set_slot(&mut self, index: usize, slot: u32) {
        self.slots[index] = slot;
    }

    #[expect(clippy::indexing_slicing, reason = "indices come from the number of writers")]
    pub(crate) fn writer(&self, index: usize) -> u32 {
        self.writers[index]
    }

    #[expect(clippy::indexing_slicing, reason = "indices come from the number of writers")]
    pub(crate) fn set_writer(&mut self, index: usize, writer: u32) {
        self.writers[index] = writer;
    }
}
