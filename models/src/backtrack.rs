//! Recoveries that go to a point of the log instead of its end.

use quorate_core::effect::{Report, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PgId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, SealAnswer, ToSegment, ToWriter};
use quorate_core::recovery::Backtrack;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::truncation::History;
use quorate_core::writer::Writer;

use crate::step::{Action, position_of};
use crate::volume_spec::{Event, Flaw, Taken};
use crate::world::{State, World, WriterOutcome};

/// A writer that starts, and what it asks for.
pub type Started<R> = (Writer<R>, Vec<WriterEffect>);

impl<R: Rules> World<R> {
    /// Returns the number of the writer of `epoch`, the highest below it if it has none.
    pub(crate) fn number_of(&self, epoch: VolumeEpoch) -> usize {
        let numbers = (0..self.configuration.epochs).rev();
        numbers
            .into_iter()
            .find(|number| self.configuration.epoch(*number) <= epoch)
            .map_or(0, usize::from)
    }

    /// Returns what the backtracks in `history` took back.
    pub(crate) fn taken_back(&self, history: &History) -> Vec<Taken> {
        let backtracks = history.ranges().iter().filter(|range| range.is_backtrack());
        backtracks.map(|range| (self.number_of(range.epoch()), range.after())).collect()
    }

    /// Returns what a recovery learns of `segment` in the end. It asks again about a point that the
    /// volume has gone back to; here all that it could ask for comes at once.
    pub(crate) fn seal_report(&self, segment: &Segment<R>) -> SealAnswer {
        let mut report = segment.report();
        if self.configuration.backtracks > 0 {
            report.records = segment.durable().records().to_vec();
            if let (Some(told), Some(aside)) = (&mut report.aside, segment.durable().aside()) {
                told.records = report.records.iter().chain(&aside.records).copied().collect();
                told.records.sort_unstable_by_key(|record| record.lsn);
            }
        }
        report
    }

    /// Returns what the backtracks in the history of `writer` took back.
    pub(crate) fn backtracks(&self, writer: &Writer<R>) -> Vec<Taken> {
        writer.history().map_or_else(Vec::new, |history| self.taken_back(history))
    }

    /// Every record that was ever written may be a target: whoever locates it must see whether it
    /// is a consistency point, and still, or again, one that can be reached.
    pub(crate) fn push_backtracks(&self, state: &State, writer: u8, actions: &mut Vec<Action>) {
        let volume = self.volumes.get(state.volume);
        let mut targets: Vec<Lsn> = volume
            .epochs
            .iter()
            .flat_map(|epoch| &epoch.log)
            .map(|record| record.lsn)
            .chain([Lsn::ZERO])
            .collect();
        targets.sort_unstable();
        targets.dedup();
        let targets = targets.into_iter().filter_map(|target| u8::try_from(target.get()).ok());
        actions.extend(targets.map(|target| Action::Backtrack { writer, target }));
    }

    /// Lets `writer` locate `target`, and starts the next one with what it reports. The question
    /// and its answers are one step: what comes between them and the next writer's seals may come
    /// between two steps as well.
    pub(crate) fn backtrack(&self, next: &mut State, writer: u8, target: u8) -> Option<()> {
        let (machine, effects) = match self.going_back(next, usize::from(writer), target) {
            Ok(started) => started?,
            Err(flaw) => {
                next.flaw = Some(flaw);
                return Some(());
            }
        };
        let number = next.budget.writers;
        let target = Lsn::new(u64::from(target));
        self.clones_allow(next, target, self.configuration.epoch(number))?;
        self.start_writer(next, machine, &effects);
        let events = self.events.intern((number, vec![Event::Backtracking(target)]));
        let writer = next.writer(usize::from(number));
        self.apply_writer(next, usize::from(number), WriterOutcome { writer, events });
        Some(())
    }

    /// Returns the next writer as it starts for the point `target` that writer number `writer`
    /// locates, and what it asks for; `None` if there is no such point.
    ///
    /// # Errors
    /// When the segments don't agree on what lies there.
    pub fn going_back(
        &self,
        state: &State,
        writer: usize,
        target: u8,
    ) -> Result<Option<Started<R>>, Flaw> {
        let locating = &self.writers.get(state.writer(writer)).machine;
        let target = Lsn::new(u64::from(target));
        let Some(located) = self.locate(state, locating, target)? else { return Ok(None) };
        let epoch = self.configuration.epoch(state.budget.writers);
        let geometry = self.configuration.geometry();
        let mut effects = Vec::new();
        let machine = Writer::open_at(self.rules, epoch, geometry, &[], located, &mut effects);
        Ok(Some((machine, effects)))
    }

    /// Returns what `writer` makes of the answers of its segments. All that give one must say the
    /// same.
    pub(crate) fn locate(
        &self,
        state: &State,
        writer: &Writer<R>,
        target: Lsn,
    ) -> Result<Option<Backtrack>, Flaw> {
        let mut writer = writer.clone();
        let mut effects = Vec::new();
        writer.step(WriterInput::Locate { ticket: Ticket::new(0), target }, &mut effects);
        let questions: Vec<(PgId, ToSegment)> = effects
            .drain(..)
            .filter_map(|effect| match effect {
                WriterEffect::Send { group, message, .. } => Some((group, message)),
                WriterEffect::Report(_) | WriterEffect::SendReader { .. } => None,
            })
            .collect();
        for (group, question) in questions {
            let from = Peer::Writer(writer.epoch());
            let mut first = None;
            for position in 0..self.members() {
                let index = self.slot_index(group.get() as usize, position);
                let mut segment = self.slot(state, index).slot.segment.clone();
                let input = SegmentInput::Receive { from, message: question.clone() };
                let (answers, _) = self.run_segment(&mut segment, input);
                let located = answers.into_iter().map(|(_, answer)| answer);
                for message in located.filter(|it| matches!(it, ToWriter::Located { .. })) {
                    let from = position_of(u8::try_from(position).unwrap_or(u8::MAX));
                    if !agree(first.get_or_insert_with(|| message.clone()), &message) {
                        return Err(Flaw::NotAPrefix);
                    }
                    writer.step(WriterInput::Receive { group, from, message }, &mut effects);
                }
            }
        }
        Ok(effects.into_iter().find_map(|effect| match effect {
            WriterEffect::Report(Report::Located { backtrack, .. }) => Some(backtrack),
            WriterEffect::Report(_)
            | WriterEffect::Send { .. }
            | WriterEffect::SendReader { .. } => None,
        }))
    }
}

/// Returns whether two answers say the same of the log. Of the branch that was left, one may know
/// less.
fn agree(one: &ToWriter, other: &ToWriter) -> bool {
    match (one, other) {
        (ToWriter::Located { place: one, .. }, ToWriter::Located { place: other, .. }) => {
            one.end == other.end && one.cpl == other.cpl
        }
        (_, _) => false,
    }
}
