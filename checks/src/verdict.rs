//! A broken property in words: what it says, and what in this state contradicts it.

use quorate_core::consistency::ReadPoint;
use quorate_core::id::{PageId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::message::SealAnswer;
use quorate_core::record::Record;
use quorate_core::recovery::{Choice, choose_under};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_models::invariant::Property;
use quorate_models::invariant::reads::read;
use quorate_models::volume_spec::{Flaw, Volume};
use quorate_models::world::{State, World};

use crate::label::{Names, Party, list};

/// What each property promises, as a sentence. A property without one is shown by its name alone.
const PROMISES: &[(Property, &str)] = &[
    (Property::Completeness, "A segment's SCL is the end of its unbroken chain."),
    (Property::Durability, "Every recovery finds every acknowledged commit."),
    (Property::Garbage, "No truncated record comes back."),
    (Property::Hostile, "What a broken peer sends is refused and changes nothing."),
    (Property::Monotone, "What clients were told never goes back."),
    (Property::OneWriter, "No LSN is used twice; an overtaken writer acknowledges nothing."),
    (Property::Prefix, "A recovered log is a prefix of what was written, without half an MTR."),
    (Property::Progress, "A writer tells exactly what its acknowledgements make durable."),
    (Property::Reads, "A read sees exactly what is acknowledged at its read point."),
    (Property::Recovery, "Recoveries that compete leave one decision standing."),
];

/// Returns what a property promises, as a sentence.
#[must_use]
pub fn promise(property: Property) -> &'static str {
    let known = PROMISES.iter().find(|(known, _)| *known == property);
    known.map_or(property.name(), |(_, promise)| promise)
}

type Finder<R> = fn(&World<R>, &State) -> Option<String>;

/// Returns what in `state` breaks a property, as a sentence; empty when nothing does.
#[must_use]
pub fn explain<R: Rules>(world: &World<R>, state: &State) -> String {
    let Some(property) = world.verdict(state) else { return String::new() };
    if let Some(flaw) = state.flaw() {
        return of_flaw(flaw).to_owned();
    }
    let finders: [(Property, Finder<R>); 7] = [
        (Property::Completeness, broken_chain),
        (Property::Durability, |world, state| misled(world, state, lost)),
        (Property::Garbage, held_garbage),
        (Property::Prefix, |world, state| misled(world, state, wrong_end)),
        (Property::Progress, wrong_vdl),
        (Property::Reads, wrong_read),
        (Property::Recovery, |world, state| misled(world, state, overruled)),
    ];
    let finder = finders.into_iter().find(|(of, _)| *of == property);
    let found = finder.and_then(|(_, find)| find(world, state));
    found.unwrap_or_else(|| "The state below contradicts it.".to_owned())
}

const fn of_flaw(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Lost => "The volume opened without a commit that clients had been told of.",
        Flaw::LsnReused => "A writer used an LSN that is taken, or linked to the wrong record.",
        Flaw::StaleRead => "A strict read was answered below what clients had been told before it.",
        Flaw::StaleAck => "A commit was acknowledged that the log of a newer, open epoch lacks.",
        Flaw::NotAPrefix => "A writer told a point that is not the end of an MTR of the log.",
        Flaw::WentBack => "A writer's VDL went back, or it acted before it had opened.",
    }
}

/// Finds a read quorum of each group that leads a recovery astray.
fn misled<R: Rules>(
    world: &World<R>,
    state: &State,
    wrong: fn(Names, &World<R>, &Volume, &Choice) -> Option<String>,
) -> Option<String> {
    let mut combinations: Vec<Vec<(PgId, Position)>> = vec![Vec::new()];
    for group in world.configuration().groups() {
        let sets = world.seals(state, group).into_iter();
        let sets: Vec<Vec<(PgId, Position)>> =
            sets.map(|set| set.iter().map(|position| (group, position)).collect()).collect();
        let with = |chosen: &Vec<(PgId, Position)>| {
            let chosen = chosen.clone();
            sets.clone().into_iter().map(move |set| [chosen.clone(), set].concat())
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    let names = Names::of(world.configuration());
    combinations.into_iter().find_map(|members| {
        let report = |(group, position): &(PgId, Position)| {
            Some((*group, world.segment(state, *group, *position)?.report()))
        };
        let reports: Vec<(PgId, SealAnswer)> = members.iter().filter_map(report).collect();
        let mut answers: Vec<(PgId, &SealAnswer)> =
            reports.iter().map(|(group, answer)| (*group, answer)).collect();
        let geometry = world.geometry_of(&answers);
        answers.retain(|(group, _)| geometry.has(*group));
        let choice = choose_under(world.rules(), &geometry, &answers);
        let wrong = wrong(names, world, world.volume(state), &choice)?;
        let heard = members.iter().map(|(group, position)| {
            names.party(Party::Segment { group: *group, position: *position })
        });
        let heard: Vec<String> = heard.collect();
        let point = choice.recovery_point;
        let heard = heard.join(",");
        Some(format!("A recovery that hears {heard} would open at {point}: {wrong}."))
    })
}

/// What is wrong with a choice that loses an acknowledged commit.
fn lost<R: Rules>(names: Names, _: &World<R>, volume: &Volume, choice: &Choice) -> Option<String> {
    let log = log_of(volume, choice).unwrap_or_default();
    volume.epochs.iter().enumerate().find_map(|(index, epoch)| {
        let is_lost = epoch.told > Lsn::ZERO && !log.iter().any(|record| record.lsn == epoch.told);
        let who = names.party(Party::Writer(index));
        is_lost.then(|| format!("{who} told clients that {} is durable", epoch.told))
    })
}

/// What is wrong with a choice that is not a prefix, cut at a consistency point.
fn wrong_end<R: Rules>(_: Names, _: &World<R>, volume: &Volume, choice: &Choice) -> Option<String> {
    let Some(log) = log_of(volume, choice) else {
        return Some("that is not the end of an MTR of any log".to_owned());
    };
    choice.ends.iter().zip(0u32..).find_map(|(end, group)| {
        let last = log.iter().rev().find(|record| record.group.get() == group);
        let expected = last.map_or(Lsn::ZERO, |record| record.lsn);
        let group = PgId::new(group);
        (expected != *end).then(|| format!("it takes {end} for the end of {group}, not {expected}"))
    })
}

/// What is wrong with a choice that doesn't continue the log of the newest open epoch.
fn overruled<R: Rules>(
    names: Names,
    world: &World<R>,
    volume: &Volume,
    choice: &Choice,
) -> Option<String> {
    let opened = volume.epochs.iter().zip(0u8..).filter(|(epoch, _)| epoch.base.is_some());
    let (epoch, newest) = opened.last()?;
    let (found, base) = (choice.recovery_point.lsn(), epoch.base?);
    let name = names.epoch(world.configuration().epoch(newest));
    if found < base {
        return Some(format!("{name} has opened at {base}"));
    }
    let is_known = found == Lsn::ZERO || epoch.log.iter().any(|known| known.lsn == found);
    (!is_known).then(|| format!("{name} is open, and its log has no {found}"))
}

fn log_of(volume: &Volume, choice: &Choice) -> Option<Vec<Record>> {
    volume.log_through(volume.epochs.len(), choice.recovery_point.lsn())
}

fn segments<'a, R: Rules>(
    world: &'a World<R>,
    state: &'a State,
) -> impl Iterator<Item = (String, &'a Segment<R>)> {
    let names = Names::of(world.configuration());
    world.configuration().groups().flat_map(move |group| {
        Position::first(world.configuration().members()).filter_map(move |position| {
            let segment = world.segment(state, group, position)?;
            Some((names.party(Party::Segment { group, position }), segment))
        })
    })
}

fn broken_chain<R: Rules>(world: &World<R>, state: &State) -> Option<String> {
    segments(world, state).find_map(|(name, segment)| {
        let mut end = Lsn::ZERO;
        for record in segment.durable().records() {
            if record.prev_group != end {
                break;
            }
            end = record.lsn;
        }
        let scl = segment.durable().scl().lsn();
        (scl != end)
            .then(|| format!("{name}'s SCL is {scl}, but its unbroken chain ends at {end}."))
    })
}

fn held_garbage<R: Rules>(world: &World<R>, state: &State) -> Option<String> {
    let names = Names::of(world.configuration());
    segments(world, state).find_map(|(name, segment)| {
        let image = segment.durable();
        let record = image.records().iter().find(|record| image.history().annuls(record))?;
        let (lsn, epoch) = (record.lsn, names.epoch(record.epoch));
        let history = names.history(image.history());
        Some(format!("{name} holds {lsn} of {epoch}, which its own history annuls: {history}."))
    })
}

fn wrong_vdl<R: Rules>(world: &World<R>, state: &State) -> Option<String> {
    let names = Names::of(world.configuration());
    let quorums = world.configuration().quorums;
    let logs = &world.volume(state).epochs;
    world.writers(state).enumerate().find_map(|(index, writer)| {
        let vdl = writer.vdl()?.lsn();
        let own = logs.get(index)?;
        let mut expected = own.base?;
        for record in own.log.iter().filter(|record| record.lsn > own.base.unwrap_or_default()) {
            let has = |position: &Position| writer.scl(record.group, *position) >= Some(record.lsn);
            if quorums.positions().filter(has).count() < quorums.write() {
                break;
            }
            if record.cpl {
                expected = record.lsn;
            }
        }
        let name = names.party(Party::Writer(index));
        (vdl != expected)
            .then(|| format!("{name}'s VDL is {vdl}; what it was acknowledged allows {expected}."))
    })
}

fn wrong_read<R: Rules>(world: &World<R>, state: &State) -> Option<String> {
    let names = Names::of(world.configuration());
    let mut pages: Vec<u64> = world.configuration().mtrs.concat();
    pages.sort_unstable();
    pages.dedup();
    world.writers(state).enumerate().find_map(|(index, writer)| {
        let own = world.volume(state).epochs.get(index)?;
        let vdl = writer.vdl()?;
        let earlier = own.log.iter().filter(|record| record.cpl).map(|record| record.lsn);
        let mut points = vec![None];
        points.extend(earlier.filter_map(|lsn| ReadPoint::earlier(vdl, lsn)).map(Some));
        segments(world, state).find_map(|(name, segment)| {
            pages.iter().map(|page| PageId::new(*page)).find_map(|page| {
                points.iter().find_map(|point| {
                    let (at, seen) = read(writer, segment, page, *point, &mut |_| {})?;
                    let expected = world.volume(state).version(index, page, at);
                    if at <= own.told && seen == expected {
                        return None;
                    }
                    let who = names.party(Party::Writer(index));
                    let told = own.told;
                    let is_altered = seen.map(|seen| seen.lsn) == expected.map(|known| known.lsn);
                    let altered = if is_altered { "an altered " } else { "" };
                    let (seen, expected) = (version(seen), version(expected));
                    Some(format!(
                        "{who} reads {page} from {name} at {at} (told {told}): \
                         gets {altered}{seen}, should get {expected}."
                    ))
                })
            })
        })
    })
}

fn version(record: Option<Record>) -> String {
    record.map_or_else(|| "nothing".to_owned(), |record| list([record.lsn]))
}
