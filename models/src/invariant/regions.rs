//! Regions: another region is a prefix of the first one's log, cut at a consistency point that the
//! first one has told, and never less than was reported of it; a planned switch loses nothing, and
//! a commit that waits for another region is there when it is let through.
//!
//! TLA+: none, it has one region. Evaluated on every state of a configuration with two regions; for
//! a first region that was attached again, over every read quorum of it.

use quorate_core::lsn::Lsn;
use quorate_core::message::SealAnswer;
use quorate_core::record::Record;
use quorate_core::recovery::choose_under;
use quorate_core::region::{Gate, GateInput, RegionPoint};
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::Property;
use crate::region::{Heading, Promoted, RegionNode};
use crate::volume_spec::{Volume, is_taken_back};
use crate::witness::Witness;
use crate::world::{State, World};

/// Returns whether `state` has two regions that are one volume, or two that know of each other.
pub(crate) fn broken<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    let node = world.region(state)?;
    let volume = world.volumes.get(state.volume);
    let key = u64::from(state.region) << 32 | u64::from(state.volume);
    let is_right = world.memos.regions.get_or(key, || holds(world, node, volume));
    let gates = || {
        world
            .started(state)
            .all(|(number, of)| gate_holds(world, node, volume, number, &of.machine))
    };
    let back = || node.heading == Heading::Out || back_holds(world, state, node);
    (!is_right || !gates() || !back()).then_some(Property::Regions)
}

fn holds<R: Rules>(world: &World<R>, node: &RegionNode<R>, volume: &Volume) -> bool {
    if node.is_wrong {
        return false;
    }
    let choice = world.far_choice(node);
    let (found, at) = (&choice.found, choice.recovery_point.lsn());
    if let Some(promoted) = &node.promoted {
        return promoted_holds(world, promoted, volume, at);
    }
    // A prefix of a log of the first region, cut where somebody was told that it is durable.
    let Some(log) = volume.log_through(volume.epochs.len(), at) else { return false };
    let is_told = |lsn: Lsn| {
        let told = |of: &crate::volume_spec::EpochLog| {
            of.told >= lsn && of.log.iter().any(|record| record.lsn == lsn)
        };
        lsn == Lsn::ZERO || volume.epochs.iter().any(told)
    };
    let records = || node.far.iter().flat_map(|segment| segment.durable().records());
    let is_whole = records().filter(|record| record.lsn <= at).count() == log.len()
        && log.iter().all(|record| records().any(|held| held == record));
    // What was reported is there, but for what the first region has taken back.
    let backtracks = world.taken_back(found);
    let is_there = |point: &RegionPoint| {
        let (told_by, lsn) = (world.number_of(point.epoch), point.vdl.lsn());
        let is_kept = lsn <= at && (lsn == Lsn::ZERO || log.iter().any(|it| it.lsn == lsn));
        is_kept || is_taken_back(&backtracks, told_by, lsn)
    };
    let is_known = node
        .relay
        .vdl()
        .is_none_or(|vdl| node.relay.epoch() != Some(found.epoch()) || vdl.lsn() <= at);
    is_told(at)
        && records().all(|record| is_told(record.lsn))
        && is_whole
        && node.reached.iter().all(is_there)
        && is_known
}

/// Returns whether a promoted region is above what is left behind, has all that it told, and lost
/// nothing if that was planned.
fn promoted_holds<R: Rules>(
    world: &World<R>,
    promoted: &Promoted<R>,
    volume: &Volume,
    at: Lsn,
) -> bool {
    let epoch = promoted.writer.epoch();
    let is_above =
        (0..world.configuration.epochs).all(|old| world.configuration.epoch(old) < epoch);
    let has = |lsn: Lsn| lsn == Lsn::ZERO || promoted.log.iter().any(|record| record.lsn == lsn);
    let told = promoted.writer.vdl();
    let is_durable = told.is_some_and(|told| told.lsn() <= at) && has(at);
    is_above && is_durable && (!promoted.is_planned || has(volume.told()))
}

/// Returns whether a gate of `writer`, whatever it was reported, lets through only what the second
/// region has.
fn gate_holds<R: Rules>(
    world: &World<R>,
    node: &RegionNode<R>,
    volume: &Volume,
    number: usize,
    writer: &Writer<R>,
) -> bool {
    let Some(released) = released(world, &node.reached, &[], writer) else { return true };
    let (log, backtracks) = match &node.promoted {
        Some(promoted) => (promoted.log.clone(), Vec::new()),
        None => {
            let choice = world.far_choice(node);
            let at = choice.recovery_point.lsn();
            let log = volume.log_through(volume.epochs.len(), at);
            (log.unwrap_or_default(), world.taken_back(&choice.found))
        }
    };
    log.iter().any(|record| record.lsn == released && record.epoch <= writer.epoch())
        || is_taken_back(&backtracks, number, released)
}

/// Returns the highest LSN that a gate of `writer` lets through.
fn released<R: Rules>(
    world: &World<R>,
    reached: &[RegionPoint],
    back: &[RegionPoint],
    writer: &Writer<R>,
) -> Option<Lsn> {
    let vdl = writer.vdl()?;
    let mut gate = Gate::new_under(world.rules, writer.epoch());
    let mut reports = Vec::new();
    gate.step(GateInput::Durable(vdl), &mut reports);
    for point in reached.iter().chain(back) {
        gate.step(GateInput::Reached(*point), &mut reports);
    }
    let released = gate.released();
    world.witnesses.saw_if(released < vdl.lsn(), Witness::GateHeld);
    world.witnesses.saw_if(released > Lsn::ZERO, Witness::GateReleased);
    (released > Lsn::ZERO).then_some(released)
}

/// Returns whether a first region that is attached again becomes what the second one is.
fn back_holds<R: Rules>(world: &World<R>, state: &State, node: &RegionNode<R>) -> bool {
    let Some(promoted) = &node.promoted else { return false };
    let released = released(world, &node.reached, &node.back, &promoted.writer);
    let released = released.unwrap_or(Lsn::ZERO);
    let known = node.relay.vdl().map_or(Lsn::ZERO, quorate_core::consistency::Vdl::lsn);
    let groups: Vec<_> = (0..world.configuration.groups as usize)
        .map(|group| super::read_quorums(world, state, group))
        .collect();
    let judge = |answers: &[(quorate_core::id::PgId, &SealAnswer)]| {
        let choice = choose_under(world.rules, &world.configuration.geometry(), answers);
        // Until it has the history of the promotion, it is what it was.
        if choice.found.epoch().region() < promoted.writer.epoch().region() {
            return (known > Lsn::ZERO || released > Lsn::ZERO).then_some(Property::Regions);
        }
        let at = choice.recovery_point.lsn();
        // Who hasn't heard of the promotion yet may still have what it annuls.
        let is_of = |record: &Record| {
            record.lsn > at || choice.found.annuls(record) || promoted.log.contains(record)
        };
        let is_point = at == Lsn::ZERO || promoted.log.iter().any(|it| it.cpl && it.lsn == at);
        let mut records = answers.iter().flat_map(|(_, answer)| &answer.records);
        let is_right = is_point && at >= known && at >= released && records.all(is_of);
        (!is_right).then_some(Property::Regions)
    };
    let mut judge = judge;
    super::over_products(&groups, &mut Vec::new(), &mut judge).is_none()
}
