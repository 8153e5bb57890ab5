//! The trace: a counterexample, or any other run of a model, as a file that can be run again.

use std::fs;
use std::path::Path;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PgId, Position};
use quorate_core::message::{ToReader, ToSegment, ToWriter};
use quorate_core::rules::{Bug, Rules, Seeded, Sound};
use quorate_models::configuration::{self, Configuration};
use quorate_models::invariant::Property;
use quorate_models::step::{Action, ReaderStep, RegionStep};
use quorate_models::world::{State, World};
use serde::{Deserialize, Serialize};
use stateright::Model;
use thiserror::Error;

use crate::story::{Scene, attribute, headline, scene};
use crate::table::Table;
use crate::verdict::explain;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// A run of a model, from its first state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Trace {
    format: u32,
    configuration: String,
    bug: Option<String>,
    seed: u64,
    broken: Option<String>,
    steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Step {
    action: Action,
    /// The message that arrives, where the action only counts it: so that the step means the same
    /// under other rules, another seed, or after a change of the order in which models count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    message: Option<Message>,
}

/// A message on its way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(clippy::enum_variant_names, reason = "each has the name of the core's type")]
enum Message {
    ToReader(ToReader),
    ToSegment(ToSegment),
    ToWriter { epoch: VolumeEpoch, message: ToWriter },
}

/// Under which rules a trace is run again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Under {
    /// With the bug that it was recorded with, if any: every step must be possible, and the end
    /// must break what it broke then.
    Recorded,
    /// With this bug instead, as far as its steps are possible.
    Seeded(Bug),
    /// Without any bug, as far as its steps are possible.
    Sound,
}

/// Why a trace can't be read or run again.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file can't be read or written.
    #[error("The file {path} can't be used: {source}.")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It has another format.
    #[error("The trace has format {found}; this program reads format {FORMAT}.")]
    Format {
        /// Its format.
        found: u64,
    },
    /// A step that its state doesn't have.
    #[error("Step {number} of the trace is not possible: {action}.")]
    Impossible {
        /// Which step, from 1.
        number: usize,
        /// What it would have done.
        action: String,
    },
    /// The text is not a trace.
    #[error("This is not a trace: {0}.")]
    Malformed(#[from] serde_json::Error),
    /// It doesn't end as it says.
    #[error("The trace should end with {expected}, but it ends with {found}.")]
    Otherwise {
        /// What it says.
        expected: &'static str,
        /// What happened.
        found: &'static str,
    },
    /// The bug it names doesn't exist.
    #[error("There is no seeded bug called {0}.")]
    UnknownBug(String),
    /// The configuration it names doesn't exist.
    #[error("There is no configuration called {0}.")]
    UnknownConfiguration(String),
    /// The property it names doesn't exist.
    #[error("There is no property called {0}.")]
    UnknownProperty(String),
}

/// A step of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// What the step was to do.
    pub headline: String,
    /// What happened; `None` when it isn't possible or changes nothing under these rules.
    pub scene: Option<Scene>,
    /// For a message of an overtaken writer that arrives after one of another writer: in which
    /// step it had been sent. Zero for the start.
    pub late: Option<usize>,
}

/// A trace that was run again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What was explored.
    pub configuration: Configuration,
    /// The seeded bug.
    pub bug: Option<Bug>,
    /// The state before the first step.
    pub start: Table,
    /// The steps.
    pub played: Vec<Played>,
    /// The property that the last state breaks.
    pub broken: Option<Property>,
    /// What breaks it, as a sentence; empty when nothing does.
    pub explanation: String,
}

impl Replay {
    /// Returns the last state.
    #[must_use]
    pub fn end(&self) -> &Table {
        let last = self.played.iter().rev().find_map(|played| played.scene.as_ref());
        last.map_or(&self.start, |scene| &scene.table)
    }
}

impl Trace {
    /// Returns the trace of `actions`, found in `configuration` with `bug` and fingerprints of
    /// `seed`.
    ///
    /// # Errors
    /// [`TraceError::Impossible`] when the actions are not a run of that model, and
    /// [`TraceError::Otherwise`] when they don't end with `broken`.
    pub fn record(
        configuration: &Configuration,
        bug: Option<Bug>,
        seed: u64,
        broken: Option<Property>,
        actions: &[Action],
    ) -> Result<Self, TraceError> {
        let trace = Self {
            format: FORMAT,
            configuration: configuration.name.to_owned(),
            bug: bug.map(|bug| bug.name().to_owned()),
            seed,
            broken: broken.map(|property| property.name().to_owned()),
            steps: actions.iter().map(|action| bare(*action)).collect(),
        };
        let (steps, replay) = play_under(configuration, bug, &trace, Missing::Stops)?;
        expect(broken, replay.broken)?;
        Ok(Self { steps, ..trace })
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// [`TraceError`] when the text is not a trace of this format.
    pub fn from_json(text: &str) -> Result<Self, TraceError> {
        // The format first: a later one may have fields of another shape.
        #[derive(Deserialize)]
        struct Header {
            format: u64,
        }
        let Header { format } = serde_json::from_str(text)?;
        if format != u64::from(FORMAT) {
            return Err(TraceError::Format { found: format });
        }
        let trace: Self = serde_json::from_str(text)?;
        trace.configuration()?;
        trace.bug()?;
        trace.broken()?;
        Ok(trace)
    }

    /// Returns the trace as text.
    ///
    /// # Errors
    /// Never in practice: a trace holds nothing that JSON can't.
    pub fn to_json(&self) -> Result<String, TraceError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a trace from a file.
    ///
    /// # Errors
    /// [`TraceError`] when there is no such file or it holds no trace.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let file = |source| TraceError::File { path: path.display().to_string(), source };
        Self::from_json(&fs::read_to_string(path).map_err(file)?)
    }

    /// Writes the trace to a file.
    ///
    /// # Errors
    /// [`TraceError::File`] when that is not possible.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        let file = |source| TraceError::File { path: path.display().to_string(), source };
        fs::write(path, self.to_json()?).map_err(file)
    }

    /// Returns the configuration that it is a run of.
    ///
    /// # Errors
    /// [`TraceError::UnknownConfiguration`].
    pub fn configuration(&self) -> Result<&'static Configuration, TraceError> {
        configuration::named(&self.configuration)
            .ok_or_else(|| TraceError::UnknownConfiguration(self.configuration.clone()))
    }

    /// Returns the seeded bug that it was recorded with.
    ///
    /// # Errors
    /// [`TraceError::UnknownBug`].
    pub fn bug(&self) -> Result<Option<Bug>, TraceError> {
        let Some(name) = &self.bug else { return Ok(None) };
        Bug::named(name).map(Some).ok_or_else(|| TraceError::UnknownBug(name.clone()))
    }

    /// Returns the property that its last state breaks.
    ///
    /// # Errors
    /// [`TraceError::UnknownProperty`].
    pub fn broken(&self) -> Result<Option<Property>, TraceError> {
        let Some(name) = &self.broken else { return Ok(None) };
        let known = Property::ALL.into_iter().find(|property| property.name() == name);
        known.map(Some).ok_or_else(|| TraceError::UnknownProperty(name.clone()))
    }

    /// Returns the number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether it has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Runs a trace again, through the real machines.
///
/// # Errors
/// [`TraceError`] when the trace names something unknown or, under its own rules, has a step that
/// is not possible or another end than it says.
pub fn replay(trace: &Trace, under: Under) -> Result<Replay, TraceError> {
    let configuration = trace.configuration()?;
    let recorded = trace.bug()?;
    let bug = match under {
        Under::Recorded => recorded,
        Under::Seeded(bug) => Some(bug),
        Under::Sound => None,
    };
    let missing = if under == Under::Recorded { Missing::Stops } else { Missing::Skipped };
    let (_, replay) = play_under(configuration, bug, trace, missing)?;
    if under == Under::Recorded {
        expect(trace.broken()?, replay.broken)?;
    }
    Ok(replay)
}

/// What to do with a step that is not possible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    Skipped,
    Stops,
}

fn expect(expected: Option<Property>, found: Option<Property>) -> Result<(), TraceError> {
    let name = |property: Option<Property>| property.map_or("nothing broken", Property::name);
    if expected == found {
        return Ok(());
    }
    Err(TraceError::Otherwise { expected: name(expected), found: name(found) })
}

/// Tells the story of `actions`, steps of `world` from its start, as far as they are possible.
#[must_use]
pub fn retell<R: Rules>(world: &World<R>, bug: Option<Bug>, actions: &[Action]) -> Replay {
    let steps: Vec<Step> = actions.iter().map(|action| bare(*action)).collect();
    match play(world, bug, &steps, Missing::Skipped) {
        Ok((_, replay)) => replay,
        Err(error) => unreachable!("missing steps are skipped: {error}"),
    }
}

const fn bare(action: Action) -> Step {
    Step { action, message: None }
}

fn play_under(
    configuration: &Configuration,
    bug: Option<Bug>,
    trace: &Trace,
    missing: Missing,
) -> Result<(Vec<Step>, Replay), TraceError> {
    let Trace { seed, steps, .. } = trace;
    match bug {
        None => play(&World::new(configuration, Sound, *seed), None, steps, missing),
        Some(bug) => {
            play(&World::new(configuration, Seeded(bug), *seed), Some(bug), steps, missing)
        }
    }
}

/// Runs `planned` and returns it with the messages that the steps carry.
fn play<R: Rules>(
    world: &World<R>,
    bug: Option<Bug>,
    planned: &[Step],
    missing: Missing,
) -> Result<(Vec<Step>, Replay), TraceError> {
    let mut states: Vec<State> = world.init_states();
    states.truncate(1);
    let Some(mut state) = states.first().copied() else { unreachable!("models have a start") };
    let start = Table::of(world, &state);
    let (mut steps, mut played) = (Vec::new(), Vec::new());
    for (index, step) in planned.iter().enumerate() {
        let action = locate(world, &state, step);
        let headline = headline(world, &state, action.unwrap_or(step.action));
        let message = action.and_then(|action| carried(world, &state, action));
        let taken = action.and_then(|action| scene(world, &state, action));
        if taken.is_none() && missing == Missing::Stops {
            let number = index.saturating_add(1);
            return Err(TraceError::Impossible { number, action: headline });
        }
        let late = lateness(world, &states, &steps, step.action, message.as_ref());
        let scene = taken.map(|(after, mut scene)| {
            state = after;
            let earlier: Vec<Action> = steps.iter().map(|step: &Step| step.action).collect();
            attribute(&mut scene, step.action, &earlier);
            scene
        });
        states.push(state);
        steps.push(Step { action: action.unwrap_or(step.action), message });
        played.push(Played { headline, scene, late });
    }
    let broken = world.verdict(&state);
    let explanation = explain(world, &state);
    let replay =
        Replay { configuration: *world.configuration(), bug, start, played, broken, explanation };
    Ok((steps, replay))
}

/// Returns the step in which `message` of an overtaken writer was sent, if one of another writer
/// has been delivered since.
fn lateness<R: Rules>(
    world: &World<R>,
    states: &[State],
    steps: &[Step],
    action: Action,
    message: Option<&Message>,
) -> Option<usize> {
    let Action::Deliver { writer, .. } = action else { return None };
    let Some(Message::ToSegment(message)) = message else { return None };
    let sent = states.iter().position(|state| {
        world.sent(state, usize::from(writer)).any(|(_, _, sent)| sent == message)
    })?;
    let started = states.last().map_or(0, |state| world.writers(state).count());
    if usize::from(writer).saturating_add(1) == started {
        return None;
    }
    let is_overtaken = steps.iter().skip(sent).any(
        |step| matches!(step.action, Action::Deliver { writer: other, .. } if other != writer),
    );
    is_overtaken.then_some(sent)
}

/// Returns the message that arrives with `action`.
fn carried<R: Rules>(world: &World<R>, state: &State, action: Action) -> Option<Message> {
    match action {
        Action::Answer { group, position, index } => {
            let (group, position) = (PgId::new(u32::from(group)), position_of(position)?);
            let (epoch, message) = world.outbox(state, group, position).get(usize::from(index))?;
            Some(Message::ToWriter { epoch: *epoch, message: message.clone() })
        }
        Action::Deliver { writer, message, .. } => {
            let (_, _, message) =
                world.sent(state, usize::from(writer)).nth(usize::from(message))?;
            Some(Message::ToSegment(message.clone()))
        }
        Action::Gossip { group, position } => {
            let (group, position) = (PgId::new(u32::from(group)), position_of(position)?);
            Some(Message::ToSegment(world.inbox(state, group, position).last()?.clone()))
        }
        Action::Reader(ReaderStep::Fetched) => {
            Some(Message::ToReader(world.reader_inbox(state)?.clone()))
        }
        Action::Reader(ReaderStep::Follow { writer, message })
        | Action::Region(RegionStep::Follow { writer, message }) => {
            let message = world.stream(state, usize::from(writer)).nth(usize::from(message))?;
            Some(Message::ToReader(message.clone()))
        }
        Action::Ask { .. }
        | Action::Backtrack { .. }
        | Action::Clone(_)
        | Action::Collect { .. }
        | Action::Crash { .. }
        | Action::Damage { .. }
        | Action::Lose { .. }
        | Action::Publish { .. }
        | Action::Pull { .. }
        | Action::Reader(_)
        | Action::Recover
        | Action::Region(_)
        | Action::Resend { .. }
        | Action::Step { .. }
        | Action::Sync { .. }
        | Action::Write { .. } => None,
    }
}

/// Returns the action of `step`, with the number that its message has in this state; `None` if the
/// message isn't on its way.
fn locate<R: Rules>(world: &World<R>, state: &State, step: &Step) -> Option<Action> {
    let Some(message) = &step.message else { return Some(step.action) };
    let number = |index: usize| u8::try_from(index).ok();
    match (step.action, message) {
        (Action::Answer { group, position, .. }, Message::ToWriter { epoch, message }) => {
            let place = (PgId::new(u32::from(group)), position_of(position)?);
            let mut outbox = world.outbox(state, place.0, place.1).iter();
            let index = outbox.position(|(to, waiting)| to == epoch && waiting == message)?;
            Some(Action::Answer { group, position, index: number(index)? })
        }
        (Action::Deliver { writer, group, position, .. }, Message::ToSegment(message)) => {
            let place = (PgId::new(u32::from(group)), position_of(position)?);
            let mut sent = world.sent(state, usize::from(writer));
            let index = sent.position(|(group, to, sent)| {
                group == place.0 && to.contains(place.1) && sent == message
            })?;
            Some(Action::Deliver { writer, message: number(index)?, group, position })
        }
        (Action::Gossip { group, position }, Message::ToSegment(message)) => {
            let place = (PgId::new(u32::from(group)), position_of(position)?);
            (world.inbox(state, place.0, place.1).last() == Some(message)).then_some(step.action)
        }
        (Action::Reader(ReaderStep::Fetched), Message::ToReader(message)) => {
            (world.reader_inbox(state) == Some(message)).then_some(step.action)
        }
        (Action::Reader(ReaderStep::Follow { writer, .. }), Message::ToReader(message)) => {
            let index =
                world.stream(state, usize::from(writer)).position(|sent| sent == message)?;
            Some(Action::Reader(ReaderStep::Follow { writer, message: number(index)? }))
        }
        (Action::Region(RegionStep::Follow { writer, .. }), Message::ToReader(message)) => {
            let index =
                world.stream(state, usize::from(writer)).position(|sent| sent == message)?;
            Some(Action::Region(RegionStep::Follow { writer, message: number(index)? }))
        }
        _ => None,
    }
}

fn position_of(position: u8) -> Option<Position> {
    Position::new(usize::from(position))
}
