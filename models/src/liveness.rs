//! The liveness properties, one file each: from every reachable state, once faults have healed, a
//! fair schedule of the core leads to a goal within a number of steps that is pinned.
//!
//! A run depends only on what a heal leaves: the segments' durable states, and what the writers
//! that go on know. It is made once for each distinct one of these up to the names of segments, so
//! that the number of runs, and the worst of them, are the same in every exploration. [`survey`]
//! explores a configuration and judges its states; it also asks of every state whether a goal can
//! still be reached within the budgets.

use std::collections::{BTreeMap, HashMap};

use quorate_core::id::{PgId, Position, SegmentSet};
use quorate_core::rules::Rules;
use quorate_core::writer::PhaseName;

use crate::intern::combine;
use crate::step::{as_u8, position_of};
use crate::world::{GROUPS, State, World};

pub mod copies;
pub mod opening;
mod quorums;
pub mod readable;
mod scenario;
mod schedule;
pub mod survey;
pub mod writes;

use scenario::{Scenario, View};
use schedule::{Desk, Ends, Fair, Waiting};

/// A liveness property, by its name in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Liveness {
    /// L1: with a write quorum, writes finish.
    Writes,
    /// L2: with a read quorum, what is acknowledged can be read, or the recovery point found.
    Readable,
    /// L3: a group returns to as many full copies as it had.
    Copies,
    /// L4: when recoveries stop, one writer opens.
    Opening,
}

impl Liveness {
    /// All properties, by their number in the protocol.
    pub const ALL: [Self; 4] = [Self::Writes, Self::Readable, Self::Copies, Self::Opening];

    /// Returns the property's name and its number in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writes => "L1 writes",
            Self::Readable => "L2 readable",
            Self::Copies => "L3 copies",
            Self::Opening => "L4 opening",
        }
    }
}

/// A run that got stuck.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stuck {
    /// The property.
    pub property: Liveness,
    /// Who goes on after the faults.
    pub scenario: &'static str,
    /// What the run waited for.
    pub waiting: &'static str,
    /// By group: the segments that take no part, as bits by position.
    pub unreachable: Vec<u8>,
}

/// What the runs so far have found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Distinct runs.
    pub runs: usize,
    /// By property, in the order of [`Liveness::ALL`]: the most steps that a run needed.
    pub worst: [u32; 4],
    /// States of which less is demanded, by the reason.
    pub excused: BTreeMap<&'static str, usize>,
}

/// A history takes no further recovery: who has the volume open keeps it (edge 74).
pub const HISTORY_FULL: &str = "the history is full";
/// The writer that has filled the history was fenced by a recovery that can't be installed any
/// more: the volume can only be read (edge 74).
pub const LAST_FENCED: &str = "the history is full, and its last writer fenced";
/// More disks are lost than a write quorum can do without: an operator forces the volume open.
pub const NO_WRITE_QUORUM: &str = "no write quorum is left";

/// Whoever held what the highest writer adopted has lost it: it is to recover again, under a higher
/// epoch (protocol: recovery, step 4).
pub const ORPHANED: &str = "an adopted record is lost";

type Reach = [SegmentSet; GROUPS];
type Reason = Option<&'static str>;
type Costs = [u32; 4];

/// Judges states, and remembers the runs.
#[derive(Debug)]
pub struct Judge<'w, R: Rules> {
    world: &'w World<R>,
    desk: Desk,
    /// By what goes on: the verdict about all runs from there.
    judged: HashMap<u64, Result<Reason, Stuck>>,
    /// By what goes on and who takes part: the runs made.
    made: HashMap<u64, Result<(), (Liveness, Waiting)>>,
    tally: Tally,
}

impl<'w, R: Rules> Judge<'w, R> {
    /// Returns a judge of the states of `world`.
    #[must_use]
    pub fn new(world: &'w World<R>) -> Self {
        let (judged, made) = (HashMap::new(), HashMap::new());
        Self { world, desk: Desk::new(), judged, made, tally: Tally::default() }
    }

    /// Returns what was found so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Judges one state: with a new writer, and, if `has_writers`, with those that there are.
    ///
    /// # Errors
    /// The run that gets stuck.
    pub fn judge(&mut self, state: &State, has_writers: bool) -> Result<(), Stuck> {
        let quiet = self.desk.quiet(self.world, state);
        let mut reasons = vec![self.of(&quiet, Scenario::TakesOver)?];
        if has_writers && let Some(last) = usize::from(state.budget.writers).checked_sub(1) {
            reasons.push(self.goes_on(&quiet, last)?);
            self.of(&quiet, Scenario::TakesOverFromAll)?;
        }
        reasons.dedup();
        for reason in reasons.into_iter().flatten() {
            *self.tally.excused.entry(reason).or_default() += 1;
        }
        Ok(())
    }

    /// The highest writer goes on; if the history takes no recovery, the one below it.
    fn goes_on(&mut self, quiet: &State, mut number: usize) -> Result<Reason, Stuck> {
        let is_full = quorums::is_full(self.world, quiet, 1);
        let mut reason = None;
        loop {
            match self.of(quiet, Scenario::GoesOn(number)) {
                Ok(found) => return Ok(reason.or(found)),
                Err(stuck) if !is_full => return Err(stuck),
                Err(_) if number == 0 => return Ok(Some(LAST_FENCED)),
                Err(_) => {
                    reason = Some(HISTORY_FULL);
                    number = number.saturating_sub(1);
                }
            }
        }
    }

    fn of(&mut self, quiet: &State, scenario: Scenario) -> Result<Reason, Stuck> {
        let view = self.view(quiet, scenario);
        let key = view.key(scenario, &[SegmentSet::from_bits(u8::MAX); GROUPS], 0);
        if let Some(known) = self.judged.get(&key) {
            return known.clone();
        }
        let verdict = self.runs(quiet, &view, scenario);
        self.judged.insert(key, verdict.clone());
        verdict
    }

    fn runs(&mut self, quiet: &State, view: &View, scenario: Scenario) -> Result<Reason, Stuck> {
        let is_new = !matches!(scenario, Scenario::GoesOn(_));
        // A new writer may need a second epoch.
        if is_new && quorums::is_full(self.world, quiet, 2) {
            return Ok(Some(HISTORY_FULL));
        }
        let all = quorums::everyone(self.world);
        let reason = (!quorums::writes(self.world, quiet, &all)).then_some(NO_WRITE_QUORUM);
        if reason.is_none() {
            let then = if scenario.is_alone() { Then::Restore } else { Then::Converge };
            self.run(quiet, view, scenario, all, 1, |fair, costs| {
                if let Err(stuck) = open(fair, Liveness::Opening) {
                    if !fair.is_orphaned() {
                        return Err(stuck);
                    }
                    fair.stop();
                    fair.take_over();
                    open(fair, Liveness::Opening)?;
                }
                let ends = end(fair, Liveness::Opening, then, &[])?;
                note(costs, Liveness::Opening, ends.written);
                if then == Then::Restore {
                    note(costs, Liveness::Copies, ends.whole);
                }
                Ok(())
            })?;
        }
        // A recovery that counted on somebody who is gone is repeated under a higher epoch
        // (protocol: recovery, step 4): by the new writer.
        let is_open =
            |number| self.world.writers.get(quiet.writer(number)).phase == PhaseName::Open;
        match scenario {
            Scenario::TakesOver => {}
            Scenario::GoesOn(number) if is_open(number) => {}
            Scenario::Forced | Scenario::GoesOn(_) | Scenario::TakesOverFromAll => {
                return Ok(reason);
            }
        }
        let is_enough = |reach: &Reach| {
            quorums::writes(self.world, quiet, reach) && self.has_own_quorum(quiet, scenario, reach)
        };
        for reach in self.smallest(view, is_enough) {
            self.run(quiet, view, scenario, reach, 2, |fair, costs| {
                let then = if scenario.is_alone() { Then::Restore } else { Then::Write };
                open(fair, Liveness::Writes)?;
                let ends = end(fair, Liveness::Writes, then, &[])?;
                note(costs, Liveness::Writes, ends.written);
                if then == Then::Restore {
                    note(costs, Liveness::Copies, ends.whole);
                }
                Ok(())
            })?;
        }
        for reach in self.smallest(view, |reach| quorums::reads(self.world, quiet, reach)) {
            self.with_a_read_quorum(quiet, view, scenario, reach)?;
        }
        Ok(reason)
    }

    /// Returns whether the writer that goes on has a write quorum of what it has proposed.
    fn has_own_quorum(&self, quiet: &State, scenario: Scenario, reach: &Reach) -> bool {
        let Scenario::GoesOn(number) = scenario else { return true };
        let machine = &self.world.writers.get(quiet.writer(number)).machine;
        (0..self.world.groups()).all(|group| {
            let id = (0..).map(PgId::new).nth(group).unwrap_or_default();
            machine.membership(id).is_none_or(|own| {
                let (there, _) = quorums::there(self.world, quiet, reach, group, own);
                own.quorums().writes(there, 0) && own.before().writes(there, 0)
            })
        })
    }

    fn with_a_read_quorum(
        &mut self,
        quiet: &State,
        view: &View,
        scenario: Scenario,
        reach: Reach,
    ) -> Result<(), Stuck> {
        if matches!(scenario, Scenario::GoesOn(_)) {
            return self.run(quiet, view, scenario, reach, 3, |fair, costs| {
                readable::read_all(fair).map_err(|waiting| (Liveness::Readable, waiting))?;
                note(costs, Liveness::Readable, fair.steps);
                Ok(())
            });
        }
        if quorums::writes(self.world, quiet, &reach) {
            return Ok(());
        }
        self.run(quiet, view, scenario, reach, 4, |fair, costs| {
            readable::seal(fair).map_err(|waiting| (Liveness::Readable, waiting))?;
            note(costs, Liveness::Readable, fair.steps);
            Ok(())
        })?;
        for back in self.returns(quiet, view, reach) {
            self.run_with(quiet, view, scenario, reach, Some(back), 5, |fair, costs| {
                readable::seal(fair).map_err(|waiting| (Liveness::Readable, waiting))?;
                for (group, back) in (0u8..).zip(back) {
                    back.iter().for_each(|at| fair.reconnect(group, as_u8(at.index())));
                }
                open(fair, Liveness::Copies)?;
                let ends = end(fair, Liveness::Copies, Then::Restore, &[])?;
                note(costs, Liveness::Copies, ends.whole);
                Ok(())
            })?;
        }
        let forced = quorums::forced(self.world, quiet, &reach);
        self.run(quiet, view, Scenario::Forced, reach, 6, |fair, costs| {
            fair.force(&forced);
            open(fair, Liveness::Copies)?;
            let burnt: Vec<SegmentSet> = forced.iter().map(|(_, lost)| *lost).collect();
            let ends = end(fair, Liveness::Copies, Then::Restore, &burnt)?;
            note(costs, Liveness::Copies, ends.whole);
            Ok(())
        })
    }

    /// Makes one run, if it hasn't been made.
    fn run(
        &mut self,
        quiet: &State,
        view: &View,
        scenario: Scenario,
        reach: Reach,
        kind: u64,
        goal: impl FnOnce(&mut Fair<'_, R>, &mut Costs) -> Result<(), (Liveness, Waiting)>,
    ) -> Result<(), Stuck> {
        self.run_with(quiet, view, scenario, reach, None, kind, goal)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them name the run")]
    fn run_with(
        &mut self,
        quiet: &State,
        view: &View,
        scenario: Scenario,
        reach: Reach,
        back: Option<Reach>,
        kind: u64,
        goal: impl FnOnce(&mut Fair<'_, R>, &mut Costs) -> Result<(), (Liveness, Waiting)>,
    ) -> Result<(), Stuck> {
        let returning = back.unwrap_or([SegmentSet::EMPTY; GROUPS]);
        let key = combine(view.key(scenario, &reach, kind), view.key(scenario, &returning, kind));
        let stuck = |(property, waiting)| {
            let all = quorums::everyone(self.world);
            let gone = all.iter().zip(&reach).map(|(all, reach)| all.without(*reach).bits());
            let unreachable = gone.take(self.world.groups()).collect();
            Stuck { property, scenario: scenario.name(), waiting, unreachable }
        };
        if let Some(known) = self.made.get(&key) {
            return known.map_err(stuck);
        }
        let mut fair = Fair::new(self.world, &self.desk, quiet, view.order.clone(), reach);
        match scenario {
            Scenario::GoesOn(number) => fair.go_on(quiet.writer(number)),
            Scenario::Forced => {}
            Scenario::TakesOver => fair.take_over(),
            Scenario::TakesOverFromAll => {
                for number in 0..usize::from(quiet.budget.writers) {
                    fair.go_on(quiet.writer(number));
                }
                fair.take_over();
            }
        }
        let mut costs = Costs::default();
        let result = goal(&mut fair, &mut costs);
        let verdict = result.map_err(stuck);
        self.made.insert(key, result);
        self.tally.runs += 1;
        for (worst, cost) in self.tally.worst.iter_mut().zip(costs) {
            *worst = (*worst).max(cost);
        }
        verdict
    }

    fn view(&self, quiet: &State, scenario: Scenario) -> View {
        let world = self.world;
        let mut view = View { keys: Default::default(), order: Default::default(), rest: 0 };
        let known: Vec<u32> = match scenario {
            Scenario::GoesOn(number) => vec![quiet.writer(number)],
            Scenario::Forced | Scenario::TakesOver => Vec::new(),
            Scenario::TakesOverFromAll => {
                (0..usize::from(quiet.budget.writers)).map(|number| quiet.writer(number)).collect()
            }
        };
        for writer in &known {
            view.rest = combine(view.rest, world.writers.get(*writer).rest);
        }
        for group in 0..world.groups() {
            let keys = |position: usize| {
                let slot = quiet.slot(world.slot_index(group, position));
                let role = world.configuration.roles.get(position).copied().unwrap_or(0);
                let disk = world.slots.get(slot).slot.segment.durable().incarnation().get();
                let gone = u64::from(disk) << 8 | u64::from(role);
                // Of who is gone, nothing else matters but what others know of it.
                let mut keys = [gone, combine(world.slots.hash(slot), gone)];
                for writer in &known {
                    let columns = world.writers.get(*writer).columns.get(group);
                    let column = columns.and_then(|columns| columns.get(position));
                    keys = keys.map(|key| combine(key, column.copied().unwrap_or(0)));
                }
                keys
            };
            let keys: Vec<[u64; 2]> = (0..world.members()).map(keys).collect();
            let mut order: Vec<u8> = (0..as_u8(world.members())).collect();
            order.sort_by_key(|position| keys.get(usize::from(*position)).map(|[_, there]| there));
            if let (Some(known), Some(served)) =
                (view.keys.get_mut(group), view.order.get_mut(group))
            {
                (*known, *served) = (keys, order);
            }
        }
        view
    }

    /// Returns one of all smallest sets that satisfy `is_enough`, for each that can't be told from
    /// others by exchanging segments.
    fn smallest(&self, view: &View, is_enough: impl Fn(&Reach) -> bool) -> Vec<Reach> {
        let all = quorums::everyone(self.world);
        let of_group = |group: usize| {
            let mut found: Vec<(u64, SegmentSet)> = Vec::new();
            let with = |set: SegmentSet| {
                let mut reach = all;
                if let Some(of_group) = reach.get_mut(group) {
                    *of_group = set;
                }
                is_enough(&reach)
            };
            let everybody = all.get(group).copied().unwrap_or(SegmentSet::EMPTY);
            for bits in 0..=everybody.bits() {
                let set = SegmentSet::from_bits(bits);
                if !with(set) || set.iter().any(|one| with(set.without(SegmentSet::only(one)))) {
                    continue;
                }
                let key = view.group_key(group, set);
                if !found.iter().any(|(known, _)| *known == key) {
                    found.push((key, set));
                }
            }
            found
        };
        // Of two groups, each of one's sets once, beside one of the other's.
        let sets: Vec<_> = (0..self.world.groups()).map(of_group).collect();
        let count = sets.iter().map(Vec::len).max().unwrap_or(0);
        let nth = |number: usize| {
            let mut reach = [SegmentSet::EMPTY; GROUPS];
            for (of_group, sets) in reach.iter_mut().zip(&sets) {
                *of_group = sets.get(number.checked_rem(sets.len())?)?.1;
            }
            Some(reach)
        };
        (0..count).filter_map(nth).collect()
    }

    /// Returns who may come back so that a write quorum is there: one of each kind first, and more
    /// if that isn't enough.
    fn returns(&self, quiet: &State, view: &View, reach: Reach) -> Vec<Reach> {
        let gone: Vec<(usize, Position)> = (0..self.world.groups())
            .flat_map(|group| {
                let order = view.order.get(group).into_iter().flatten();
                order.map(move |position| (group, position_of(*position)))
            })
            .filter(|(group, position)| {
                reach.get(*group).is_some_and(|reach| !reach.contains(*position))
            })
            .collect();
        let mut returns: Vec<Reach> = Vec::new();
        for first in 0..gone.len() {
            let mut back = [SegmentSet::EMPTY; GROUPS];
            for (group, position) in gone.iter().cycle().skip(first).take(gone.len()) {
                let mut reached = reach;
                reached.iter_mut().zip(back).for_each(|(reach, back)| *reach = reach.or(back));
                if quorums::writes(self.world, quiet, &reached) {
                    if !returns.contains(&back) {
                        returns.push(back);
                    }
                    break;
                }
                if let Some(of_group) = back.get_mut(*group) {
                    of_group.insert(*position);
                }
            }
        }
        returns
    }
}

/// What is demanded once a writer has opened and a new write is durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    /// No more.
    Write,
    /// Every member that takes part has it.
    Converge,
    /// Every group is whole.
    Restore,
}

fn open<R: Rules>(fair: &mut Fair<'_, R>, property: Liveness) -> Result<(), (Liveness, Waiting)> {
    fair.until("no writer opens", Fair::is_open).map_err(|waiting| (property, waiting))
}

/// Runs from an opening to the goal, once for each distinct state of a run. What fails before a new
/// write is durable breaks `property`.
fn end<R: Rules>(
    fair: &mut Fair<'_, R>,
    property: Liveness,
    then: Then,
    burnt: &[SegmentSet],
) -> Result<Ends, (Liveness, Waiting)> {
    let opened = fair.steps;
    let mut name = combine(fair.settle_order(), (then as u64) << 8 | property as u64);
    for lost in burnt {
        name = combine(name, u64::from(lost.bits()));
    }
    let ends = fair.desk.ends.get_or(name, || {
        writes::finish(fair).map_err(|waiting| (property, waiting))?;
        let written = fair.steps - opened;
        match then {
            Then::Write => {}
            Then::Converge => {
                opening::converge(fair).map_err(|waiting| (Liveness::Opening, waiting))?;
            }
            Then::Restore => {
                copies::restore(fair, burnt).map_err(|waiting| (Liveness::Copies, waiting))?;
            }
        }
        Ok(Ends { written, whole: fair.steps - opened })
    })?;
    Ok(Ends { written: opened + ends.written, whole: opened + ends.whole })
}

fn note(costs: &mut Costs, property: Liveness, steps: u32) {
    if let Some(cost) = costs.get_mut(property as usize) {
        *cost = steps;
    }
}

/// Returns the members of a group that take part, by the disks that the last writer knows.
fn live_members<R: Rules>(fair: &Fair<'_, R>, group: usize) -> SegmentSet {
    let id = (0..).map(PgId::new).nth(group).unwrap_or_default();
    let mut live = SegmentSet::EMPTY;
    let membership = fair.machine().and_then(|machine| machine.membership(id));
    let Some(membership) = membership else { return live };
    let members = membership.quorums().members();
    for (position, segment) in fair.segments(group) {
        let position = position_of(position);
        let is_known = membership.knows(position, segment.durable().incarnation());
        if is_known && members.contains(position) {
            live.insert(position);
        }
    }
    live
}

/// Returns why a state may be one from which no goal can be reached.
fn excuse<R: Rules>(world: &World<R>, state: &State) -> Reason {
    if quorums::is_full(world, state, 1) {
        return Some(HISTORY_FULL);
    }
    if !quorums::writes(world, state, &quorums::everyone(world)) {
        return Some(NO_WRITE_QUORUM);
    }
    let segments = (0..world.slots_count()).map(|index| &world.slot(state, index).slot.segment);
    let last = world.started(state).last().map(|(_, node)| &node.machine);
    // A seal may have the answer of a segment that has lost since what it answered.
    let (budget, configuration) = (state.budget, &world.configuration);
    let has_lost = budget.damages < configuration.damages || budget.losses < configuration.losses;
    let is_orphaned = last.is_some_and(|last| {
        schedule::is_orphaned(last, segments) || (has_lost && last.phase() == PhaseName::Sealing)
    });
    is_orphaned.then_some(ORPHANED)
}
