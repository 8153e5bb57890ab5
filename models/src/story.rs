//! What a state looks like from outside: the machines, messages and disks behind its numbers.
//!
//! The search needs none of this. It is for whoever shows a counterexample to a person, or replays
//! one.

use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PgId, Position, SegmentSet, WriteId};
use quorate_core::membership::Membership;
use quorate_core::message::{SealAnswer, ToReader, ToSegment, ToWriter};
use quorate_core::reader::Reader;
use quorate_core::recovery::{Answers, added};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::Writer;
use stateright::Model;

use crate::step::{Action, ReaderStep};
use crate::volume_spec::{Flaw, Volume};
use crate::world::{MEMBERS, Slot, State, World};

impl State {
    /// Returns the step that the abstract volume couldn't take, if the last one was such a step.
    #[must_use]
    pub const fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }

    /// Returns how many strict reads may still arrive.
    #[must_use]
    pub const fn strict_reads(&self) -> u8 {
        self.budget.strict_reads
    }
}

impl<R: Rules> World<R> {
    /// Returns the rules that the machines obey.
    #[must_use]
    pub const fn rules(&self) -> R {
        self.rules
    }

    /// Returns the segment at `position` of `group`.
    #[must_use]
    pub fn segment(&self, state: &State, group: PgId, position: Position) -> Option<&Segment<R>> {
        self.place(state, group, position).map(|slot| &slot.segment)
    }

    /// Returns the writes of a segment that its disk has but not in its image, in the order of
    /// submission, and whether each is synced. Empty where nothing crashes.
    #[must_use]
    pub fn disk_writes(
        &self,
        state: &State,
        group: PgId,
        position: Position,
    ) -> &[(WriteId, SegmentWrite, bool)] {
        let disk = self.place(state, group, position).and_then(|slot| slot.disk.as_ref());
        disk.map_or(&[], |disk| &disk.writes)
    }

    /// Returns the answers of a segment that are on their way to a writer.
    #[must_use]
    pub fn outbox(
        &self,
        state: &State,
        group: PgId,
        position: Position,
    ) -> &[(VolumeEpoch, ToWriter)] {
        self.place(state, group, position).map_or(&[], |slot| &slot.outbox)
    }

    /// Returns the gossip on its way to a segment: the answers to its requests.
    #[must_use]
    pub fn inbox(&self, state: &State, group: PgId, position: Position) -> &[ToSegment] {
        self.place(state, group, position).map_or(&[], |slot| &slot.inbox)
    }

    /// Returns the writers that have started, lowest epoch first.
    pub fn writers<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Writer<R>> {
        self.started(state).map(|(_, node)| &node.machine)
    }

    /// Returns everything that a writer has sent, in the order that [`Action::Deliver`] counts.
    pub fn sent<'a>(
        &'a self,
        state: &'a State,
        writer: usize,
    ) -> impl Iterator<Item = (PgId, SegmentSet, &'a ToSegment)> {
        let node = self.started(state).find(|(index, _)| *index == writer);
        let sent = node.map_or(&[][..], |(_, node)| &node.sent);
        sent.iter().map(|sent| (sent.group, sent.to, &sent.message))
    }

    /// Returns who votes in each seal of `group` that can hold in `state`.
    #[must_use]
    pub fn seals(&self, state: &State, group: PgId) -> Vec<SegmentSet> {
        let seals = crate::invariant::membership::seals(self, state, group.get() as usize);
        seals.into_iter().map(|(voters, _)| voters).collect()
    }

    /// Returns the volume's geometry as a recovery finds it in these seal answers.
    #[must_use]
    pub fn geometry_of(&self, answers: &[(PgId, &SealAnswer)]) -> VolumeGeometry {
        let known = Membership::genesis(self.configuration.quorums);
        let mut of_first = Answers::default();
        let first = answers.iter().filter(|(group, _)| *group == PgId::new(0));
        for (position, (_, answer)) in Position::first(MEMBERS).zip(first) {
            *of_first.at_mut(position) = Some(*answer);
        }
        self.configuration.geometry().grown(added(self.rules, &known, &of_first))
    }

    /// Returns what a writer has sent to the reader, in the order that [`ReaderStep::Follow`]
    /// counts.
    pub fn stream<'a>(
        &'a self,
        state: &'a State,
        writer: usize,
    ) -> impl Iterator<Item = &'a ToReader> {
        let node = self.started(state).find(|(index, _)| *index == writer);
        node.map_or(&[][..], |(_, node)| &node.stream).iter()
    }

    /// Returns the reader, if the configuration has one.
    #[must_use]
    pub fn reader(&self, state: &State) -> Option<&Reader<R>> {
        (state.reader != u32::MAX).then(|| &self.readers.get(state.reader).machine)
    }

    /// Returns the answer of a segment that is on its way to the reader.
    #[must_use]
    pub fn reader_inbox(&self, state: &State) -> Option<&ToReader> {
        let is_there = state.reader != u32::MAX;
        is_there.then(|| self.readers.get(state.reader).inbox.as_ref()).flatten()
    }

    /// Returns what the abstract volume has seen.
    #[must_use]
    pub fn volume(&self, state: &State) -> &Volume {
        self.volumes.get(state.volume)
    }

    /// Returns whether `action` is one of the steps of `state`, or becomes one when segments with
    /// the same state are exchanged.
    #[must_use]
    pub fn is_possible(&self, state: &State, action: Action) -> bool {
        let Some(representative) = self.representative(state, action) else { return false };
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.contains(&representative)
    }

    /// Returns `action` with each segment replaced by the first one that is in the same state;
    /// `None` if there is no such segment.
    fn representative(&self, state: &State, action: Action) -> Option<Action> {
        let first = |group: u8, position: u8| {
            let is_member = u32::from(group) < self.configuration.groups
                && usize::from(position) < self.members();
            if !is_member {
                return None;
            }
            let keys = self.keys(state, usize::from(group));
            let key = keys.get(usize::from(position))?;
            keys.iter().zip(0u8..).find(|(other, _)| *other == key).map(|(_, first)| first)
        };
        Some(match action {
            Action::Answer { group, position, index } => {
                Action::Answer { group, position: first(group, position)?, index }
            }
            Action::Collect { group, position } => {
                Action::Collect { group, position: first(group, position)? }
            }
            Action::Crash { group, position, survivors, torn } => {
                Action::Crash { group, position: first(group, position)?, survivors, torn }
            }
            Action::Damage { group, position, kept } => {
                Action::Damage { group, position: first(group, position)?, kept }
            }
            Action::Deliver { writer, message, group, position } => {
                Action::Deliver { writer, message, group, position: first(group, position)? }
            }
            Action::Gossip { group, position } => {
                Action::Gossip { group, position: first(group, position)? }
            }
            Action::Lose { group, position } => {
                Action::Lose { group, position: first(group, position)? }
            }
            Action::Pull { group, into, from } => {
                Action::Pull { group, into: first(group, into)?, from: first(group, from)? }
            }
            Action::Reader(ReaderStep::Fetch { page, group, position }) => {
                let position = first(group, position)?;
                Action::Reader(ReaderStep::Fetch { page, group, position })
            }
            Action::Resend { writer, group, position } => {
                Action::Resend { writer, group, position: first(group, position)? }
            }
            Action::Sync { group, position, index } => {
                Action::Sync { group, position: first(group, position)?, index }
            }
            Action::Ask { .. }
            | Action::Backtrack { .. }
            | Action::Publish { .. }
            | Action::Reader(_)
            | Action::Recover
            | Action::Step { .. }
            | Action::Write { .. } => action,
        })
    }

    fn place(&self, state: &State, group: PgId, position: Position) -> Option<&Slot<R>> {
        let is_member =
            group.get() < self.configuration.groups && position.index() < self.members();
        let index = self.slot_index(group.get() as usize, position.index());
        is_member.then(|| &self.slot(state, index).slot)
    }
}
