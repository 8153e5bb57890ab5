//! A clone of a model's volume: the list that its parent keeps, and its steps.

use std::fmt;

use quorate_core::clones::{Clones, ClonesEffect, ClonesInput, ClonesReport, Origin};
use quorate_core::effect::{CommandRefusal, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::hold::Holds;
use quorate_core::id::PageId;
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;
use quorate_core::rules::Rules;
use quorate_core::writer::PhaseName;
use serde::{Deserialize, Serialize};

use crate::invariant::reads::pages;
use crate::step::{Action, as_u8};
use crate::witness::Witness;
use crate::world::{State, World};

/// A step of, or about, a clone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum CloneStep {
    /// Somebody asks for a clone.
    Create {
        /// The LSN.
        at: u8,
    },
    /// Nobody reads the clone any more.
    Delete,
    /// The list of clones is durable.
    Durable,
    /// A writer holds what the clone needs, and locates its point.
    Held {
        /// The writer.
        writer: u8,
    },
    /// An open writer is told what there is to hold.
    Tell {
        /// The writer.
        writer: u8,
    },
}

impl fmt::Display for CloneStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nth = |writer: u8| u32::from(writer).saturating_add(1);
        match *self {
            Self::Create { at } => write!(out, "somebody asks for a clone at {at}"),
            Self::Delete => write!(out, "nobody reads the clone any more"),
            Self::Durable => write!(out, "the list of clones is durable"),
            Self::Held { writer } => {
                write!(out, "writer {} holds the clone's point, and locates it", nth(writer))
            }
            Self::Tell { writer } => write!(out, "writer {} is told what to hold", nth(writer)),
        }
    }
}

/// The only clone's name.
const CLONE: u64 = 1;

/// What the list waits for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Awaits {
    Durable,
    Held,
    Nothing,
}

/// The list of clones, and the clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ClonesNode<R: Rules> {
    pub(crate) machine: Clones<R>,
    pub(crate) awaits: Awaits,
    pub(crate) creates: u8,
    /// The clone that can be read, and what its pages were at its point.
    pub(crate) made: Option<Made>,
}

/// A clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Made {
    pub(crate) origin: Origin,
    pub(crate) pages: Vec<(PageId, Option<Record>)>,
}

impl<R: Rules> World<R> {
    pub(crate) fn new_clones(&self) -> u32 {
        let machine = Clones::new_under(self.rules, &[]);
        let creates = self.configuration.clones;
        self.clones.intern(ClonesNode { machine, awaits: Awaits::Nothing, creates, made: None })
    }

    /// Returns the list of clones, if the configuration has any.
    pub(crate) fn clones(&self, state: &State) -> Option<&ClonesNode<R>> {
        (state.clones != u32::MAX).then(|| self.clones.get(state.clones))
    }

    pub(crate) fn take_clone(
        &self,
        state: &State,
        next: &mut State,
        step: CloneStep,
    ) -> Option<()> {
        let mut node = self.clones(state)?.clone();
        match step {
            CloneStep::Create { at } => {
                node.creates = node.creates.checked_sub(1)?;
                let at = Lsn::new(u64::from(at));
                self.run_clones(&mut node, next, ClonesInput::Create { clone: CLONE, at }, None);
            }
            CloneStep::Delete => {
                self.run_clones(&mut node, next, ClonesInput::Delete { clone: CLONE }, None);
            }
            CloneStep::Durable => {
                self.run_clones(&mut node, next, ClonesInput::Durable, None);
            }
            CloneStep::Held { writer } => {
                self.tell_of_clones(&node, next, writer);
                node.awaits = Awaits::Nothing;
                self.run_clones(&mut node, next, ClonesInput::Held, Some(writer));
            }
            CloneStep::Tell { writer } => {
                let epoch = self.writers.get(state.writer(usize::from(writer))).machine.epoch();
                let awaits = node.awaits;
                self.run_clones(&mut node, next, ClonesInput::Opened { epoch }, None);
                node.awaits = awaits;
                self.tell_of_clones(&node, next, writer);
            }
        }
        next.clones = self.clones.intern(node);
        Some(())
    }

    fn run_clones(
        &self,
        node: &mut ClonesNode<R>,
        state: &State,
        input: ClonesInput,
        writer: Option<u8>,
    ) {
        let mut inputs = vec![input];
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop() {
            if input == ClonesInput::Durable {
                node.awaits = Awaits::Nothing;
            }
            node.machine.step(input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    ClonesEffect::Command(WriterInput::Locate { ticket, target }) => {
                        let Some(writer) = writer else { continue };
                        let machine = &self.writers.get(state.writer(usize::from(writer))).machine;
                        let located = self.locate(state, machine, target);
                        inputs.push(match located {
                            Ok(Some(backtrack)) => ClonesInput::Located { ticket, backtrack },
                            Ok(None) | Err(_) => ClonesInput::NotLocated(CommandRefusal::NotOpen),
                        });
                    }
                    ClonesEffect::Command(_) => {}
                    ClonesEffect::Hold => node.awaits = Awaits::Held,
                    ClonesEffect::Persist { .. } => node.awaits = Awaits::Durable,
                    ClonesEffect::Report(report) => self.hear_clones(node, state, report),
                }
            }
        }
    }

    fn hear_clones(&self, node: &mut ClonesNode<R>, state: &State, report: ClonesReport) {
        match report {
            ClonesReport::Created(origin) => {
                self.witnesses.saw(Witness::CloneMade);
                let number = self.number_of(origin.under);
                let volume = self.volumes.get(state.volume);
                let version = |page| (page, volume.version(number, page, origin.at));
                node.made = Some(Made { origin, pages: pages(self).map(version).collect() });
            }
            ClonesReport::Deleted { .. } => {
                self.witnesses.saw(Witness::CloneDeleted);
                node.made = None;
            }
            ClonesReport::Refused(_) => self.witnesses.saw(Witness::CloneRefused),
            ClonesReport::Allowed { .. } => {}
        }
    }

    /// Tells a writer what to hold: its garbage floor may move from now on.
    fn tell_of_clones(&self, node: &ClonesNode<R>, next: &mut State, writer: u8) {
        let holds = node.machine.holds(Holds::new());
        let what = 1 << 22 | holds.lowest().map_or(0, |lsn| lsn.get().saturating_add(1));
        self.command(next, writer, what, WriterInput::Hold { holds });
    }

    /// Asks whether the volume may go to `target` under `epoch`: whoever drives it doesn't start a
    /// writer for it otherwise.
    pub(crate) fn clones_allow(
        &self,
        next: &mut State,
        target: Lsn,
        epoch: VolumeEpoch,
    ) -> Option<()> {
        let Some(node) = self.clones(next) else { return Some(()) };
        let mut node = node.clone();
        let mut effects = Vec::new();
        node.machine.step(ClonesInput::Backtrack { target, epoch }, &mut effects);
        let is_allowed = effects.contains(&ClonesEffect::Report(ClonesReport::Allowed { target }));
        self.witnesses.saw_if(!is_allowed, Witness::BacktrackRefused);
        next.clones = self.clones.intern(node);
        is_allowed.then_some(())
    }

    pub(crate) fn push_clone_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(node) = self.clones(state) else { return };
        let mut push = |step| actions.push(Action::Clone(step));
        let open = self.started(state).filter(|(_, of)| of.phase == PhaseName::Open);
        for (index, _) in open {
            let writer = as_u8(index);
            push(CloneStep::Tell { writer });
            if node.awaits == Awaits::Held {
                push(CloneStep::Held { writer });
            }
        }
        if node.awaits == Awaits::Durable {
            push(CloneStep::Durable);
        }
        if node.made.is_some() && node.awaits == Awaits::Nothing {
            push(CloneStep::Delete);
        }
        if node.creates > 0 {
            // Any record may be asked for: whoever locates it must see whether it is a point.
            let volume = self.volumes.get(state.volume);
            let written = volume.epochs.iter().flat_map(|epoch| &epoch.log);
            let mut points: Vec<Lsn> = written.map(|record| record.lsn).collect();
            points.sort_unstable();
            points.dedup();
            let points = points.into_iter().filter_map(|lsn| u8::try_from(lsn.get()).ok());
            points.for_each(|at| push(CloneStep::Create { at }));
        }
    }
}
