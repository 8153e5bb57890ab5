//! Start states that the core itself reaches: some mistakes need more recoveries than can be
//! explored in full, so the first of them are told step by step.

use quorate_core::id::{PgId, Position, SegmentSet};
use quorate_core::message::ToSegment;
use quorate_core::rules::Rules;
use stateright::Model;

use crate::configuration::Scripted;
use crate::step::Action;
use crate::world::{State, World};

impl<R: Rules> World<R> {
    /// Returns the state after the script: each of its steps is one of the model's own.
    pub(crate) fn play(&self) -> State {
        let mut state = self.start();
        let mut group = 0;
        for scripted in self.configuration.script {
            match *scripted {
                Scripted::Append { writer, to } => {
                    let is_append = |message: &&ToSegment| matches!(message, ToSegment::Append(_));
                    let to = (group, to);
                    state = self.tell(state, writer, to, |sent| sent.filter(is_append).collect());
                }
                Scripted::Group { group: next } => group = next,
                Scripted::Install { writer, to } => {
                    state = self.tell(state, writer, (group, to), |sent| {
                        sent.max_by_key(|message| number(message)).into_iter().collect()
                    });
                }
                Scripted::Lose { of } => {
                    for position in SegmentSet::from_bits(of).iter() {
                        state = self.lose_at(state, position);
                    }
                }
                Scripted::Seal { writer, to } => {
                    let is_seal = |message: &&ToSegment| matches!(message, ToSegment::Seal(_));
                    let to = (group, to);
                    state = self.tell(state, writer, to, |sent| sent.filter(is_seal).collect());
                }
                Scripted::Pull { into, from } => {
                    state = self.act(state, Action::Pull { group, into, from });
                }
                Scripted::Recover => state = self.act(state, Action::Recover),
                Scripted::Step { writer, step } => {
                    state = self.act(state, Action::Step { writer, step });
                }
                Scripted::Write { writer, mtr } => {
                    state = self.act(state, Action::Write { writer, mtr });
                }
            }
        }
        state
    }

    /// A step that changes nothing is none, as anywhere else.
    fn act(&self, state: State, action: Action) -> State {
        self.next_state(&state, action).unwrap_or(state)
    }

    /// A loss of the script is none of those that may happen.
    fn lose_at(&self, mut state: State, position: Position) -> State {
        let index = self.slot_index(0, position.index());
        let outcome = self.lose(state.slot(index));
        state.set_slot(index, outcome.slot);
        self.canonical(state)
    }

    /// Lets the messages that `choose` picks among all that a writer has sent reach segments.
    fn tell(
        &self,
        mut state: State,
        writer: u8,
        (group, to): (u8, u8),
        choose: impl for<'a> Fn(&mut dyn Iterator<Item = &'a ToSegment>) -> Vec<&'a ToSegment>,
    ) -> State {
        let id = PgId::new(u32::from(group));
        let chosen: Vec<ToSegment> = {
            let sent = self.sent(&state, usize::from(writer));
            let mut sent = sent.filter(|(of, _, _)| *of == id).map(|(_, _, message)| message);
            choose(&mut sent).into_iter().cloned().collect()
        };
        for position in SegmentSet::from_bits(to).iter() {
            for message in &chosen {
                // Its number can change with every answer.
                let number = self
                    .sent(&state, usize::from(writer))
                    .position(|(of, to, it)| of == id && to.contains(position) && it == message)
                    .and_then(|number| u8::try_from(number).ok());
                let (Some(message), Ok(position)) = (number, u8::try_from(position.index())) else {
                    continue;
                };
                state = self.act(state, Action::Deliver { writer, message, group, position });
            }
        }
        state
    }
}

/// Returns the number of the membership that an install brings, plus one.
fn number(message: &ToSegment) -> u32 {
    match message {
        ToSegment::Install(install) => install.membership.epoch().number.saturating_add(1),
        ToSegment::Append(_)
        | ToSegment::Behind { .. }
        | ToSegment::Confirm(_)
        | ToSegment::Locate(_)
        | ToSegment::Pull(_)
        | ToSegment::Pulled(_)
        | ToSegment::Read(_)
        | ToSegment::Seal(_) => 0,
    }
}
