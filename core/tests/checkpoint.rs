//! Checkpoints: a restart that begins with one must find what a replay of every write finds, and
//! nonsense on a disk must be refused by a value.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_core::checkpoint::Checkpoint;
use quorate_core::effect::SegmentWrite;
use quorate_core::id::{PageId, PgId};
use quorate_core::image::{CorruptImage, SegmentImage};
use quorate_core::lsn::Lsn;
use quorate_core::record::{Payload, Record};
use quorate_core::truncation::{History, TruncationRange};
use support::{WIDE, epoch, geometry, restored, scl, vdl};

fn any_lsn() -> impl Strategy<Value = Lsn> {
    (0..30u64).prop_map(Lsn::new)
}

fn any_record() -> impl Strategy<Value = Record> {
    (1..30u64, 1..4u64, 0..4usize, 0..3u64).prop_map(|(lsn, back, writer, page)| {
        let before = Lsn::new(lsn.saturating_sub(back));
        Record {
            lsn: Lsn::new(lsn),
            epoch: epoch(writer),
            prev_volume: before,
            prev_group: before,
            group: PgId::new(0),
            page: PageId::new(page),
            cpl: true,
            payload: Payload::default(),
        }
    })
}

fn any_history() -> impl Strategy<Value = History> {
    vec((0..5usize, 0..30u64, 1..9u64, 0..5u64), 1..4).prop_map(|ranges| {
        let ranges = ranges.into_iter().filter_map(|(of, after, more, tip)| {
            let [after, tip, through] = [after, after + tip, after + tip + more].map(Lsn::new);
            TruncationRange::backtrack(epoch(of), after, tip, through)
                .or_else(|| TruncationRange::new(epoch(of), after, through))
        });
        ranges.fold(History::new(), |history, range| {
            let next = history.with(range);
            if next.is_well_formed() { next } else { history }
        })
    })
}

fn any_write() -> impl Strategy<Value = SegmentWrite> {
    let records = vec(any_record(), 0..5);
    (0..5usize, option::weighted(0.2, any_history()), any_lsn(), records, any_lsn(), any_lsn())
        .prop_map(|(promised, history, known, records, base, end)| SegmentWrite {
            promised: history.as_ref().map_or(epoch(promised), |history| history.epoch()),
            history,
            end,
            tip: Some(end),
            vdl: vdl(known.get()),
            records,
            base,
            ..SegmentWrite::default()
        })
}

fn image() -> SegmentImage {
    SegmentImage::create(PgId::new(0), geometry(1, WIDE)).unwrap()
}

/// Applies what can be applied; a write that is refused is one that no segment makes.
fn run(image: &mut SegmentImage, writes: &[SegmentWrite]) {
    for write in writes {
        let mut next = image.clone();
        // Nor does one go back under its base: it refuses to locate a point there.
        // And no VDL lies where a range has annulled everything: nothing is allocated there.
        let vdl = write.vdl.lsn();
        let is_within = |range: &TruncationRange| range.after() < vdl && vdl <= range.through();
        let is_annulled = |image: &SegmentImage| image.history().ranges().iter().any(is_within);
        if is_annulled(&next) {
            continue;
        }
        if next.apply(write).is_ok() && next.base() <= next.vdl().lsn() && !is_annulled(&next) {
            *image = next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A segment that restarts from a checkpoint could differ from the one that ran, at any cut.
    #[test]
    fn a_checkpoint_and_the_rest_are_all_writes(writes in vec(any_write(), 0..25)) {
        let mut whole = image();
        run(&mut whole, &writes);
        let mut before = image();
        for cut in 0..=writes.len() {
            let mut again = restored(&before).unwrap();
            prop_assert_eq!(&again, &before);
            run(&mut again, &writes[cut..]);
            prop_assert_eq!(&again, &whole, "cut at {}", cut);
            run(&mut before, &writes[cut..writes.len().min(cut + 1)]);
        }
    }
}

/// Returns a state with a base, a chain, a record above a hole, and a branch that was left.
fn sample() -> (Checkpoint, Vec<Record>, Vec<Record>) {
    let record = |lsn: u64, before: u64, page| Record {
        lsn: Lsn::new(lsn),
        epoch: epoch(0),
        prev_volume: Lsn::new(before),
        prev_group: Lsn::new(before),
        group: PgId::new(0),
        page: PageId::new(page),
        cpl: true,
        payload: Payload::default(),
    };
    let records =
        vec![record(1, 0, 1), record(2, 1, 2), record(3, 2, 1), record(4, 3, 2), record(6, 5, 1)];
    let first = TruncationRange::new(epoch(0), Lsn::ZERO, Lsn::new(0).plus(1).unwrap()).unwrap();
    let mut image = image();
    let history = Some(History::new().with(first));
    let write = SegmentWrite { promised: epoch(0), history, ..SegmentWrite::default() };
    image.apply(&write).unwrap();
    let append = SegmentWrite { records, vdl: vdl(6), base: Lsn::new(3), ..write };
    image.apply(&append).unwrap();
    let [after, tip, through] = [4, 6, 40].map(Lsn::new);
    let range = TruncationRange::backtrack(epoch(1), after, tip, through).unwrap();
    let history = Some(image.history().with(range));
    let back = SegmentWrite { promised: epoch(1), history, ..SegmentWrite::default() };
    image.apply(&back).unwrap();
    assert_eq!(restored(&image), Ok(image.clone()));
    let aside = image.aside().unwrap().records.clone();
    assert_eq!((image.records().len(), aside.len()), (3, 1));
    (image.checkpoint(), image.records().to_vec(), aside)
}

/// What a disk does to a checkpoint, its records, and those set aside.
type Change<'a> = &'a dyn Fn(&mut Checkpoint, &mut Vec<Record>, &mut Vec<Record>);

/// What a disk made of a checkpoint must not become a segment that votes with it.
#[test]
fn nonsense_is_refused() {
    let (checkpoint, records, aside) = sample();
    let refused = |change: Change<'_>| {
        let (mut checkpoint, mut records, mut aside) =
            (checkpoint.clone(), records.clone(), aside.clone());
        change(&mut checkpoint, &mut records, &mut aside);
        SegmentImage::restore(checkpoint, records, aside).err()
    };
    let lsn = Lsn::new;
    assert_eq!(refused(&|_, _, _| {}), None);
    assert_eq!(refused(&|c, _, _| c.promised = epoch(0)), Some(CorruptImage::History));
    assert_eq!(refused(&|c, _, _| c.aside = None), Some(CorruptImage::History));
    assert_eq!(refused(&|c, _, _| c.base = lsn(5)), Some(CorruptImage::Base));
    assert_eq!(refused(&|c, _, _| c.scl = scl(6)), Some(CorruptImage::Chain));
    assert_eq!(refused(&|c, _, _| c.vdl = vdl(2)), Some(CorruptImage::Base));
    // At or under the base no chain tells what is missing: whoever stores records counts them.
    assert_eq!(refused(&|_, r, _| _ = r.remove(0)), None);
    assert_eq!(
        refused(&|_, r, _| r[2].prev_group = lsn(5)),
        Some(CorruptImage::Record { lsn: lsn(4) })
    );
    assert_eq!(refused(&|_, r, _| _ = r.pop()), Some(CorruptImage::Chain));
    assert_eq!(refused(&|_, r, _| r.swap(0, 1)), Some(CorruptImage::Conflict { lsn: lsn(2) }),);
    assert_eq!(
        refused(&|_, r, _| r[2].group = PgId::new(7)),
        Some(CorruptImage::WrongGroup { lsn: lsn(4) }),
    );
    assert_eq!(
        refused(&|_, r, _| r[1].prev_volume = lsn(9)),
        Some(CorruptImage::Record { lsn: lsn(3) }),
    );
    assert_eq!(
        refused(&|_, r, a| r.append(a)),
        Some(CorruptImage::Record { lsn: lsn(6) }),
        "an annulled record came back",
    );
    assert_eq!(refused(&|_, r, a| a.push(r[0])), Some(CorruptImage::Conflict { lsn: lsn(2) }),);
    assert_eq!(
        refused(&|_, r, a| *a = vec![r[2]]),
        Some(CorruptImage::Record { lsn: lsn(4) }),
        "what is in force is not set aside",
    );
}
