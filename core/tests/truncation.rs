//! A segment's log under truncation, against the definition: no shortcut may drop a record too
//! many, leave one, or move the SCL elsewhere.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::Limits;
use quorate_core::id::{InstanceId, PageId, PgId};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::record::{Payload, Record};
use quorate_core::truncation::{History, TruncationRange};
use support::geometry;

/// LSNs and epochs from few, so that records and ranges meet.
const LSNS: u64 = 24;
const EPOCHS: u8 = 8;

const LIMITS: Limits = Limits { allocation_max: LSNS, batch_records_max: 8, ..Limits::DEFAULT };

fn epoch(counter: u64) -> VolumeEpoch {
    VolumeEpoch::new(counter, InstanceId::new(1))
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record =
        (1..=LSNS, 1..=u64::from(EPOCHS), 1..=3u64, 0..3u64).prop_map(|(lsn, of, back, page)| {
            let previous = Lsn::new(lsn.saturating_sub(back));
            Record {
                lsn: Lsn::new(lsn),
                epoch: epoch(of),
                prev_volume: previous,
                prev_group: previous,
                group: PgId::new(0),
                page: PageId::new(page),
                cpl: true,
                payload: Payload::default(),
            }
        });
    prop::collection::vec(record, 0..8)
}

/// Histories that replace each other at random: some go on from one another, some share nothing.
fn histories() -> impl Strategy<Value = History> {
    let range = (prop::bool::ANY, 0..LSNS, 0..4u64);
    prop::collection::vec(range, usize::from(EPOCHS)).prop_map(|ranges| {
        let mut through = 0;
        let mut history = History::new();
        for ((is_there, after, more), counter) in ranges.into_iter().zip(1u64..) {
            if is_there {
                through = after.max(through) + more + 1;
                let range =
                    TruncationRange::new(epoch(counter), Lsn::new(after), Lsn::new(through));
                history = range.map_or(history.clone(), |range| history.with(range));
            }
        }
        history
    })
}

fn annuls(history: &History, record: &Record) -> bool {
    history.ranges().iter().any(|range| range.annuls(record))
}

/// What the log holds by the definition, looking at everything each time.
#[derive(Default)]
struct Naive {
    history: History,
    records: BTreeMap<Lsn, Record>,
}

impl Naive {
    fn install(&mut self, history: Option<&History>) {
        if let Some(history) = history
            && history.epoch() > self.history.epoch()
        {
            self.history = history.clone();
            self.records.retain(|_, record| !annuls(history, record));
        }
    }

    fn insert(&mut self, record: &Record) {
        if !annuls(&self.history, record) {
            self.records.insert(record.lsn, *record);
        }
    }

    fn scl(&self) -> Lsn {
        let mut end = Lsn::ZERO;
        for record in self.records.values() {
            if record.prev_group != end {
                break;
            }
            end = record.lsn;
        }
        end
    }

    fn version(&self, page: PageId, lsn: Lsn) -> Option<&Record> {
        let older = self.records.range(..=lsn).rev();
        older.map(|(_, record)| record).find(|record| record.page == page)
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2_000,
        // Relative to the package, where cargo runs its tests.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/truncation.regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// A record too many or too few after some install would come back from the dead, or be lost
    /// though it was acknowledged.
    #[test]
    fn a_log_is_what_the_definition_says(
        writes in prop::collection::vec((prop::option::of(histories()), records()), 1..8),
    ) {
        let mut image = SegmentImage::create(PgId::new(0), geometry(1, LIMITS)).unwrap();
        let mut naive = Naive::default();
        for (history, records) in writes {
            naive.install(history.as_ref());
            let mut sorted = records;
            sorted.sort_by_key(|record| record.lsn);
            let mut records = Vec::new();
            for record in sorted {
                // What contradicts the log is a broken peer's, and another test's: a second record
                // of one LSN, or one at or under the SCL.
                let fits = match naive.records.get(&record.lsn) {
                    Some(held) => *held == record,
                    None => record.lsn > naive.scl(),
                };
                // A record comes with the history of its epoch or after it, never before.
                if fits && record.epoch <= naive.history.epoch() {
                    naive.insert(&record);
                    records.push(record);
                }
            }
            let write = SegmentWrite {
                promised: epoch(u64::from(EPOCHS)),
                history,
                records,
                ..SegmentWrite::default()
            };
            prop_assert_eq!(image.apply(&write), Ok(()));
            let held: Vec<Record> = naive.records.values().copied().collect();
            prop_assert_eq!(image.records(), &held[..]);
            prop_assert_eq!(image.scl().lsn(), naive.scl());
            prop_assert_eq!(image.history(), &naive.history);
            for (page, lsn) in (0..3).flat_map(|page| (0..=LSNS).map(move |lsn| (page, lsn))) {
                let (page, lsn) = (PageId::new(page), Lsn::new(lsn));
                prop_assert_eq!(image.version(page, lsn), naive.version(page, lsn));
            }
        }
    }

    /// A history that is asked about one record looks only at its end.
    #[test]
    fn a_history_annuls_what_any_of_its_ranges_does(
        history in histories(),
        records in records(),
    ) {
        for record in &records {
            prop_assert_eq!(history.annuls(record), annuls(&history, record));
        }
    }
}
