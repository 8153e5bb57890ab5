#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use quorate_core::effect::SegmentWrite;

use super::*;
use crate::testing::{append, collect, identity, install, payload_of, record};

/// A segment whose log is its payloads alone.
#[derive(Clone)]
struct World {
    image: SegmentImage,
    log: Vec<u8>,
    added: Vec<(Lsn, u64)>,
    tables: MemoryTables,
    last: u64,
    made: Option<Checkpointed>,
}

const SALT: u64 = 7;

impl World {
    fn new() -> Self {
        let identity = identity();
        let mut image = SegmentImage::create(identity.group, identity.geometry).unwrap();
        image.apply(&install(1, 0, 10)).unwrap();
        let (log, added, tables) = (Vec::new(), Vec::new(), MemoryTables::default());
        Self { image, log, added, tables, last: 0, made: None }
    }

    fn append(&mut self, length: usize) {
        let lsn = self.last.max(10) + 1;
        let bytes = payload_of(lsn, length);
        self.apply(&append(1, &[record(lsn, self.last, 1, &bytes)]));
        self.added.push((Lsn::new(lsn), self.log.len() as u64));
        self.log.extend(bytes);
        self.last = lsn;
    }

    fn apply(&mut self, write: &SegmentWrite) {
        self.image.apply(write).unwrap();
    }

    fn checkpoint(&mut self) -> Result<Checkpointed, StoreError> {
        let snapshot = Snapshot {
            state: self.image.checkpoint(),
            records: self.image.records().to_vec(),
            aside: self.image.aside().map(|aside| aside.records.clone()).unwrap_or_default(),
            frames: self.last,
            at: self.log.len() as u64,
            added: std::mem::take(&mut self.added),
        };
        let kept = self.made.map_or(0, |made| made.kept);
        let read = |at: u64, into: &mut [u8]| {
            assert!(at >= kept, "what was trimmed is read");
            let at = usize::try_from(at).unwrap();
            into.copy_from_slice(&self.log[at..at + into.len()]);
            Ok(())
        };
        let made = write(&mut self.tables, SALT, &snapshot, &read)?;
        self.made = Some(made);
        Ok(made)
    }

    fn assert_stored(&self) {
        let made = self.made.unwrap();
        let stored = load(&self.tables, SALT).unwrap().unwrap();
        assert_eq!(stored.image, self.image);
        assert_eq!((stored.at, stored.frames, stored.kept), (made.at, made.frames, made.kept));
        let aside = self.image.aside().map(|aside| aside.records.as_slice()).unwrap_or_default();
        for record in self.image.records().iter().chain(aside) {
            let lsn = record.lsn;
            let expected = payload_of(lsn.get(), payload::length(record));
            if lsn <= made.base {
                assert_eq!(read(&self.tables, record).unwrap(), expected);
            } else {
                let (_, at) = stored.payloads.iter().find(|(known, _)| *known == lsn).unwrap();
                assert!(*at >= made.kept);
                let at = usize::try_from(*at).unwrap();
                assert_eq!(self.log[at..at + expected.len()], expected);
            }
        }
    }
}

/// One thing that happens to a segment.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Back(u64),
    Checkpoint,
    Collect(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..40usize).prop_map(Step::Append),
        1 => (1..4u64).prop_map(Step::Back),
        2 => Just(Step::Checkpoint),
        2 => (0..6u64).prop_map(Step::Collect),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever changed since the last checkpoint must be in the next, to the last payload, and
    /// nothing that was trimmed may be needed for it.
    #[test]
    fn every_checkpoint_comes_back(steps in steps()) {
        let mut world = World::new();
        let mut epochs = 1;
        for step in steps {
            match step {
                Step::Append(length) if epochs == 1 => world.append(length),
                Step::Append(_) => {}
                Step::Back(by) => {
                    let target = world.last.saturating_sub(by);
                    if target > world.image.base().get().max(10) {
                        epochs += 1;
                        let through = Lsn::new(world.last + 100 * epochs);
                        let range = quorate_core::truncation::TruncationRange::backtrack(
                            crate::testing::epoch(epochs),
                            Lsn::new(target),
                            Lsn::new(world.last),
                            through,
                        );
                        let history = Some(world.image.history().with(range.unwrap()));
                        let promised = crate::testing::epoch(epochs);
                        let back = SegmentWrite { promised, history, ..SegmentWrite::default() };
                        if world.image.clone().apply(&back).is_ok() {
                            world.apply(&back);
                            world.last = target;
                        }
                    }
                }
                Step::Checkpoint => {
                    world.checkpoint().unwrap();
                    world.assert_stored();
                }
                Step::Collect(back) => {
                    let base = world.last.saturating_sub(back);
                    if world.image.holds(Lsn::new(base)) {
                        world.apply(&collect(1, base));
                    }
                }
            }
        }
        world.checkpoint().unwrap();
        world.assert_stored();
    }
}

fn sample() -> World {
    let mut world = World::new();
    for number in 0..12 {
        world.append(20 + number);
    }
    world.apply(&collect(1, world.last - 4));
    world.checkpoint().unwrap();
    world
}

/// A store that has lost or changed an entry must never become a segment that votes with it, and a
/// changed payload never a page.
#[test]
fn every_flipped_bit_and_every_lost_entry_is_found() {
    let world = sample();
    let (mut refused, mut at_reads) = (0, 0);
    let mut check = |tables: &MemoryTables, context: &str| match load(tables, SALT) {
        Err(StoreError::Damaged) => refused += 1,
        Ok(Some(stored)) => {
            assert_eq!(stored.image, world.image, "{context}");
            let base = stored.image.base();
            let under = stored.image.records().iter().filter(|record| record.lsn <= base);
            let bad = under.filter(|record| read(tables, record).is_err()).count();
            assert_eq!(bad, 1, "{context}");
            at_reads += 1;
        }
        other => panic!("{context}: {:?}", other.map(|_| ())),
    };
    for (key, value) in &world.tables.0 {
        let mut lost = world.tables.clone();
        lost.0.remove(key);
        check(&lost, &format!("{key:?} is lost"));
        for bit in 0..value.len() * 8 {
            let mut changed = world.tables.clone();
            changed.0.get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            check(&changed, &format!("{key:?} {bit}"));
        }
    }
    assert!(refused > 1_000 && at_reads > 500, "{refused} {at_reads}");
}

/// Each entry is right in its own place only.
#[test]
fn entries_do_not_change_places() {
    let world = sample();
    let keys: Vec<(Table, u64)> =
        world.tables.0.keys().filter(|(table, _)| *table == Table::Records).copied().collect();
    let mut swapped = world.tables.clone();
    let (one, other) = (world.tables.0[&keys[0]].clone(), world.tables.0[&keys[1]].clone());
    swapped.0.insert(keys[0], other);
    swapped.0.insert(keys[1], one);
    assert!(matches!(load(&swapped, SALT), Err(StoreError::Damaged)));
    assert!(matches!(load(&world.tables, SALT + 1), Err(StoreError::OtherLog)));
}

/// A payload that rots in the log before it is copied must not get a place in the store.
#[test]
fn a_damaged_payload_is_not_copied() {
    let mut world = sample();
    let lsn = world.last - 1;
    let stored = load(&world.tables, SALT).unwrap().unwrap();
    let (_, at) = stored.payloads.iter().find(|(known, _)| known.get() == lsn).unwrap();
    world.log[usize::try_from(*at).unwrap()] ^= 1;
    world.apply(&collect(1, world.last));
    assert_eq!(world.checkpoint(), Err(StoreError::Copy { lsn: Lsn::new(lsn) }));
}

/// A checkpoint must cost what has changed, however much there is.
#[test]
fn a_checkpoint_writes_what_has_changed() {
    let mut world = World::new();
    for _ in 0..500 {
        world.append(8);
    }
    world.checkpoint().unwrap();
    let before = world.tables.clone();
    world.append(8);
    world.checkpoint().unwrap();
    let is_new = |(key, value): &(&(Table, u64), &Vec<u8>)| before.0.get(key) != Some(value);
    assert_eq!(world.tables.0.iter().filter(is_new).count(), 2);
}
