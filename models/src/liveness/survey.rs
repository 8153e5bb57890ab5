//! Explores a configuration breadth first, judges its states, and looks from which of them a goal
//! can be reached.
//!
//! It is an explorer of its own, beside stateright's: both must count the same states and steps.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use nohash_hasher::NoHashHasher;
use quorate_core::consistency::Vdl;
use quorate_core::rules::Rules;
use quorate_core::writer::PhaseName;
use stateright::Model;

use super::{Judge, Stuck, Tally};
use crate::configuration::Configuration;
use crate::step::Action;
use crate::world::{State, World};

/// What a survey found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Distinct states.
    pub unique_states: usize,
    /// Steps, each from a distinct state.
    pub transitions: usize,
    /// States that were judged with the writers that there are; with a new one all were.
    pub judged: usize,
    /// The runs from them.
    pub tally: Tally,
    /// States in which the highest writer is open and all that it wrote is durable.
    pub goals: usize,
    /// States from which no goal can be reached within the budgets, by the reason.
    pub hopeless: BTreeMap<&'static str, usize>,
    /// The first run that got stuck, and the steps to the state that it started from.
    pub stuck: Option<(Stuck, Vec<Action>)>,
    /// The steps to the first state from which no goal can be reached, and nobody knows why.
    pub lost: Option<Vec<Action>>,
}

/// How far a survey is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Distinct states so far.
    pub unique_states: usize,
    /// Runs so far.
    pub runs: usize,
}

type Numbers = HashMap<u64, u32, BuildHasherDefault<NoHashHasher<u64>>>;

/// Explores `configuration` under `rules` and judges every state: all with a new writer, and one in
/// `one_in`, chosen by its fingerprint, with the writers that there are. `watch` is called now and
/// then.
pub fn survey<R: Rules>(
    configuration: &Configuration,
    rules: R,
    one_in: u64,
    mut watch: impl FnMut(Progress),
) -> Survey {
    // Runs write more than the configuration does.
    let roomy = Configuration { spare_writes: 3, ..*configuration };
    let world = World::new(&roomy, rules, 0);
    let mut judge = Judge::new(&world);
    let mut graph = Graph::default();
    let mut queue = VecDeque::new();
    for state in world.init_states() {
        graph.number(&world, &state, u32::MAX);
        queue.push_back(state);
    }
    let (mut transitions, mut judged, mut stuck) = (queue.len(), 0, None);
    let mut actions = Vec::new();
    let mut from = 0u32;
    while let Some(state) = queue.pop_front() {
        if state.flaw.is_none() {
            let has_writers = state.canonical.is_multiple_of(one_in);
            judged += usize::from(has_writers);
            if let Err(found) = judge.judge(&state, has_writers) {
                stuck = Some((found, graph.path(&world, from)));
                break;
            }
        }
        world.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let Some(next) = world.next_state(&state, action) else { continue };
            transitions += 1;
            let is_new = graph.number(&world, &next, from);
            if is_new {
                queue.push_back(next);
            }
        }
        from += 1;
        if from.is_multiple_of(1 << 12) {
            watch(Progress { unique_states: graph.states.len(), runs: judge.tally().runs });
        }
    }
    let is_whole = stuck.is_none();
    let (hopeless, lost) = if is_whole { graph.hopeless() } else { Default::default() };
    Survey {
        unique_states: graph.states.len(),
        transitions,
        judged,
        tally: judge.tally().clone(),
        goals: graph.is_goal.iter().filter(|is_goal| **is_goal).count(),
        hopeless,
        stuck,
        lost: lost.map(|lost| graph.path(&world, lost)),
    }
}

/// The states explored, in the order of their discovery.
#[derive(Default)]
struct Graph {
    numbers: Numbers,
    /// Fingerprints.
    states: Vec<u64>,
    parents: Vec<u32>,
    is_goal: Vec<bool>,
    excuses: Vec<Option<&'static str>>,
    edges: Vec<(u32, u32)>,
}

impl Graph {
    /// Adds `state` if it is new, and the step from `from` to it. Returns whether it is.
    fn number<R: Rules>(&mut self, world: &World<R>, state: &State, from: u32) -> bool {
        let next = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        assert!(next < u32::MAX, "more than 2^32 states");
        let number = *self.numbers.entry(state.canonical).or_insert(next);
        if from != u32::MAX && from != number {
            self.edges.push((number, from));
        }
        if number != next {
            return false;
        }
        self.states.push(state.canonical);
        self.parents.push(from);
        self.is_goal.push(is_goal(world, state));
        self.excuses.push(excuse(world, state));
        true
    }

    /// Returns the steps from the start to state number `to`.
    fn path<R: Rules>(&self, world: &World<R>, to: u32) -> Vec<Action> {
        let parent = |of: &u32| self.parents.get(*of as usize).copied();
        let mut numbers: Vec<u32> =
            std::iter::successors(Some(to), parent).take_while(|of| *of != u32::MAX).collect();
        numbers.reverse();
        let Some(mut state) = world.init_states().into_iter().next() else { return Vec::new() };
        let mut path = Vec::new();
        for number in numbers.iter().skip(1) {
            let wanted = self.states.get(*number as usize).copied();
            let mut actions = Vec::new();
            world.actions(&state, &mut actions);
            let step = actions.into_iter().find_map(|action| {
                let next = world.next_state(&state, action)?;
                (Some(next.canonical) == wanted).then_some((action, next))
            });
            let Some((action, next)) = step else { return path };
            path.push(action);
            state = next;
        }
        path
    }

    /// Returns how many states can't reach a goal, by the reason, and the first without one.
    fn hopeless(&mut self) -> (BTreeMap<&'static str, usize>, Option<u32>) {
        let mut edges = std::mem::take(&mut self.edges);
        edges.sort_unstable();
        edges.dedup();
        let mut can_reach = self.is_goal.clone();
        let mut waiting: Vec<u32> = (0u32..)
            .zip(&self.is_goal)
            .filter(|(_, is_goal)| **is_goal)
            .map(|(number, _)| number)
            .collect();
        while let Some(to) = waiting.pop() {
            let first = edges.partition_point(|(of, _)| *of < to);
            for (_, from) in edges.iter().skip(first).take_while(|(of, _)| *of == to) {
                if let Some(can_reach) = can_reach.get_mut(*from as usize)
                    && !*can_reach
                {
                    *can_reach = true;
                    waiting.push(*from);
                }
            }
        }
        let (mut reasons, mut lost) = (BTreeMap::new(), None);
        for ((number, can_reach), excuse) in (0u32..).zip(can_reach).zip(&self.excuses) {
            match excuse {
                _ if can_reach => {}
                Some(reason) => *reasons.entry(*reason).or_default() += 1,
                None => {
                    *reasons.entry(UNKNOWN).or_default() += 1;
                    lost = lost.or(Some(number));
                }
            }
        }
        (reasons, lost)
    }
}

/// Within the budgets of this configuration nobody copies records from one segment to another.
pub const NO_GOSSIP: &str = "segments don't pull here";
/// A state from which no goal can be reached, and nobody knows why: none may be.
pub const UNKNOWN: &str = "for no reason that is known";

/// Returns whether the highest writer is open, and all that it wrote is durable.
fn is_goal<R: Rules>(world: &World<R>, state: &State) -> bool {
    world.started(state).last().is_some_and(|(_, node)| {
        let vdl = node.machine.vdl().map(Vdl::lsn);
        node.phase == PhaseName::Open && vdl == node.machine.tail()
    })
}

/// Returns why a state may be one from which no goal can be reached.
fn excuse<R: Rules>(world: &World<R>, state: &State) -> Option<&'static str> {
    if state.flaw.is_some() {
        return Some("a property is broken");
    }
    // Without gossip nobody copies what a recovery has adopted; L4 is judged with gossip.
    let has_gossip = world.configuration.gossip;
    super::excuse(world, state).or((!has_gossip).then_some(NO_GOSSIP))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use quorate_core::quorum::QuorumSet;
    use quorate_core::rules::{Bug, Seeded, Sound};
    use stateright::Checker;

    use super::*;

    const SMALL: QuorumSet = match QuorumSet::new(3, 2, 2) {
        Ok(quorums) => quorums,
        Err(_) => QuorumSet::AURORA,
    };
    const TWO_EPOCHS: Configuration =
        Configuration { quorums: SMALL, epochs: 2, writes: 1, ..Configuration::EMPTY };

    /// A state that this explorer misses would be judged by nobody.
    #[test]
    fn the_survey_counts_what_stateright_counts() {
        let checker = World::new(&TWO_EPOCHS, Sound, 0).checker().spawn_dfs().join();
        let survey = survey(&TWO_EPOCHS, Sound, 1, |_| {});
        assert_eq!(survey.unique_states, checker.unique_state_count());
        assert_eq!(survey.transitions, checker.state_count());
        assert_eq!(survey.judged, survey.unique_states);
    }

    /// A judge that never finds anything stuck would pass every protocol.
    #[test]
    fn sound_machines_get_on_and_broken_ones_get_stuck() {
        let sound = survey(&TWO_EPOCHS, Sound, 1, |_| {});
        assert_eq!((sound.stuck, sound.lost), (None, None));
        assert!(sound.hopeless.is_empty() && sound.goals > 0);
        for bug in [Bug::HistoryNotResent, Bug::InstallOnAll, Bug::NoAllowance] {
            let broken = survey(&TWO_EPOCHS, Seeded(bug), 1, |_| {});
            assert!(broken.stuck.is_some(), "{} goes unnoticed", bug.name());
        }
    }

    /// The steps to a stuck state are there to be taken again.
    #[test]
    fn the_way_to_a_stuck_state_leads_there() {
        let rules = Seeded(Bug::GossipKeepsLast);
        let (stuck, path) = survey(&TWO_EPOCHS, rules, 1, |_| {}).stuck.unwrap();
        let world = World::new(&Configuration { spare_writes: 3, ..TWO_EPOCHS }, rules, 0);
        let mut state = world.init_states().pop().unwrap();
        for action in path {
            state = world.next_state(&state, action).unwrap();
        }
        assert_eq!(Judge::new(&world).judge(&state, true), Err(stuck));
    }
}
