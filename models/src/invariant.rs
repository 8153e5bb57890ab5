//! The safety properties, one file each, evaluated in every reachable state.
//!
//! What concerns steps (P2, P5, and the openings of P1 and P3) is judged by the abstract volume on
//! every transition; what concerns states is judged here. Each file states its property, the
//! names that the specification in `tla/` gives it, and where it is evaluated.

use quorate_core::geometry::{Added, VolumeGeometry};
use quorate_core::id::PgId;
use quorate_core::message::SealAnswer;
use quorate_core::recovery::{Choice, choose_under};
use quorate_core::rules::Rules;

use crate::intern::combine;
use crate::volume_spec::{Flaw, Volume};
use crate::witness::{Witness, Witnesses};
use crate::world::{MEMBERS, NO_VOTE, Slot, State, World};

pub mod completeness;
pub mod durability;
pub mod garbage;
pub mod geometry;
pub mod hostile;
pub mod membership;
pub mod monotone;
pub mod one_writer;
pub mod openable;
pub mod prefix;
pub mod progress;
pub mod reads;
pub mod recovery;

/// A property, by its name in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Property {
    /// A segment's SCL is the end of its unbroken chain.
    Completeness,
    /// P1: what was acknowledged is found by every recovery from every read quorum.
    Durability,
    /// P7: no truncated record comes back, and nothing that may be needed is discarded.
    Garbage,
    /// A group that is added is known where every recovery looks before it gets a record.
    Geometry,
    /// Whatever a broken peer sends is refused and changes nothing.
    Hostile,
    /// P8: every step of a membership change can be completed or taken back.
    Membership,
    /// P5: what was told never goes back.
    Monotone,
    /// P2: one writer at a time.
    OneWriter,
    /// No segment is sealed for a recovery that it could not take.
    Openable,
    /// P3: the recovered log is a prefix, cut at a consistency point.
    Prefix,
    /// A writer tells all that is durable, and no more.
    Progress,
    /// P4: a read sees exactly what is acknowledged at its read point.
    Reads,
    /// P9: recoveries that crash and compete leave one decision standing.
    Recovery,
}

impl Property {
    /// All properties.
    pub const ALL: [Self; 13] = [
        Self::Completeness,
        Self::Durability,
        Self::Garbage,
        Self::Geometry,
        Self::Hostile,
        Self::Membership,
        Self::Monotone,
        Self::OneWriter,
        Self::Openable,
        Self::Prefix,
        Self::Progress,
        Self::Reads,
        Self::Recovery,
    ];

    /// Returns the property's name and its number in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completeness => "completeness",
            Self::Durability => "P1 durability",
            Self::Garbage => "P7 garbage",
            Self::Geometry => "geometry",
            Self::Hostile => "bad input",
            Self::Membership => "P8 membership",
            Self::Monotone => "P5 monotone",
            Self::OneWriter => "P2 one writer",
            Self::Openable => "openable",
            Self::Prefix => "P3 prefix",
            Self::Progress => "progress",
            Self::Reads => "P4 reads",
            Self::Recovery => "P9 recovery",
        }
    }

    const fn of_flaw(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Lost => Self::Durability,
            Flaw::LsnReused | Flaw::StaleAck => Self::OneWriter,
            Flaw::NotAPrefix => Self::Prefix,
            Flaw::StaleRead => Self::Reads,
            Flaw::WentBack => Self::Monotone,
        }
    }
}

/// Returns the first property that `state` breaks.
pub(crate) fn broken<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    if let Some(flaw) = state.flaw {
        return Some(Property::of_flaw(flaw));
    }
    let of_slots = (0..world.slots_count()).find_map(|index| world.slot(state, index).broken);
    let kept = || (!garbage::is_kept(world, state)).then_some(Property::Garbage);
    of_slots
        .or_else(|| of_quorums(world, state))
        .or_else(|| of_writers(world, state))
        .or_else(|| membership::broken(world, state))
        .or_else(|| geometry::broken(world, state))
        .or_else(kept)
        .or_else(|| reads::broken_of_reader(world, state))
}

/// Evaluates the properties of a single segment, once for each distinct one.
pub(crate) fn of_slot<R: Rules>(slot: &Slot<R>, witnesses: &Witnesses) -> Option<Property> {
    let image = slot.segment.durable();
    match hostile::refusals(&slot.segment) {
        // Machines with a seeded bug may well accept what they should refuse: what that leads to
        // is for the other properties to find.
        None if size_of::<R>() == 0 => return Some(Property::Hostile),
        None => {}
        Some(refusals) => {
            refusals.iter().for_each(|refusal| witnesses.saw(Witness::of_refusal(refusal)));
        }
    }
    if !garbage::holds(image) {
        return Some(Property::Garbage);
    }
    if !openable::holds(&slot.segment) {
        return Some(Property::Openable);
    }
    (!completeness::holds(image)).then_some(Property::Completeness)
}

/// Evaluates the properties about what a recovery would find, once for each distinct set of
/// reports and abstract volume.
fn of_quorums<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    let mut key = combine(world.seed, u64::from(state.volume));
    for group in 0..world.configuration.groups as usize {
        let mut reports = [u32::MAX; MEMBERS];
        for (position, report) in reports.iter_mut().enumerate().take(world.members()) {
            *report = world.slot(state, world.slot_index(group, position)).report;
        }
        if !world.configuration.has_changes() {
            reports.sort_unstable();
        }
        for report in reports {
            key = combine(key, u64::from(report));
        }
    }
    world.memos.quorums.get_or(key, || {
        let volume = world.volumes.get(state.volume);
        let mut groups = Vec::new();
        for group in 0..world.configuration.groups as usize {
            groups.push(if world.configuration.has_changes() {
                membership::answers(world, state, group)
            } else {
                read_quorums(world, state, group)
            });
        }
        let (first, rest) = groups.split_first()?;
        first.iter().find_map(|Seal { answers, added }| {
            // The seal has to hold in the groups that the first one tells of, and in no others.
            let geometry = world.configuration.geometry().grown(*added);
            let count = (geometry.groups_count() as usize).saturating_sub(1);
            let rest = rest.get(..count).unwrap_or(rest);
            over_products(rest, &mut answers.clone(), &mut |answers| {
                judge(world, volume, &geometry, answers)
            })
        })
    })
}

/// Answers that a seal of a group can hold with.
pub(crate) struct Seal<'a> {
    /// Those that vote.
    pub(crate) answers: Vec<(PgId, &'a SealAnswer)>,
    /// How many groups the volume has got, as all answers of the group tell.
    pub(crate) added: Added,
}

fn judge<R: Rules>(
    world: &World<R>,
    volume: &Volume,
    geometry: &VolumeGeometry,
    answers: &[(PgId, &SealAnswer)],
) -> Option<Property> {
    let choice: Choice = choose_under(world.rules, geometry, answers);
    if !prefix::holds(volume, &choice) {
        return Some(Property::Prefix);
    }
    if !durability::holds(volume, &choice, &world.taken_back(&choice.found)) {
        return Some(Property::Durability);
    }
    let installed = world.number_of(choice.found.epoch());
    (!recovery::holds(volume, &choice, installed)).then_some(Property::Recovery)
}

/// Returns the reports of every smallest read quorum of a group.
fn read_quorums<'a, R: Rules>(world: &'a World<R>, state: &State, group: usize) -> Vec<Seal<'a>> {
    let quorums = world.configuration.quorums;
    let mut found: Vec<Vec<u32>> = Vec::new();
    for bits in 0u32..1 << quorums.members() {
        if bits.count_ones() as usize != quorums.read() {
            continue;
        }
        let members = (0..quorums.members()).filter(|position| bits & (1 << position) != 0);
        let mut reports: Vec<u32> = members
            .map(|position| world.slot(state, world.slot_index(group, position)).report)
            .collect();
        reports.sort_unstable();
        if !reports.contains(&NO_VOTE) && !found.contains(&reports) {
            found.push(reports);
        }
    }
    let id = (0..).map(PgId::new).nth(group).unwrap_or_default();
    let seal = |reports: Vec<u32>| {
        let answers: Vec<_> = reports.into_iter().map(|r| (id, world.reports.get(r))).collect();
        let added = world.geometry_of(&answers).added();
        Seal { answers, added }
    };
    found.into_iter().map(seal).collect()
}

/// Calls `judge` with one read quorum of each group, for every choice of them.
fn over_products<'a>(
    groups: &[Vec<Seal<'a>>],
    chosen: &mut Vec<(PgId, &'a SealAnswer)>,
    judge: &mut impl FnMut(&[(PgId, &'a SealAnswer)]) -> Option<Property>,
) -> Option<Property> {
    let Some((first, rest)) = groups.split_first() else { return judge(chosen) };
    for Seal { answers, added: _ } in first {
        let before = chosen.len();
        chosen.extend(answers);
        let broken = over_products(rest, chosen, judge);
        chosen.truncate(before);
        if broken.is_some() {
            return broken;
        }
    }
    None
}

/// Evaluates the properties about what an open writer tells and reads.
fn of_writers<R: Rules>(world: &World<R>, state: &State) -> Option<Property> {
    for (index, node) in world.started(state) {
        let Some(vdl) = node.machine.vdl() else { continue };
        let writer = state.writer(index);
        // One number for the pair, so that the keys below stay exact.
        let key = u64::from(writer) << 32 | u64::from(state.volume);
        let broken = world.memos.read.get_or(key, || {
            let volume = world.volumes.get(state.volume);
            (!progress::holds(&node.machine, volume, index, vdl)).then_some(Property::Progress)
        });
        if broken.is_some() {
            return broken;
        }
        let view = world.view(writer, state.volume);
        if let Some(broken) = reads::broken(world, state, index, view) {
            return Some(broken);
        }
    }
    None
}
