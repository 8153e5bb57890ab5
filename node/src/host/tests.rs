#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use quorate_core::consistency::Vdl;
use quorate_core::id::{Incarnation, PgId, Ticket};
use quorate_core::membership::Membership;
use quorate_core::message::{Append, Install, Read, Seal};
use quorate_core::quorum::QuorumSet;
use quorate_core::truncation::{History, TruncationRange};

use super::*;
use crate::testing::{MemoryFile, empty_log, epoch, identity, record};

fn host(file: &MemoryFile) -> SegmentHost<MemoryFile> {
    let (log, image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    SegmentHost::new(image, log)
}

/// What may happen to a segment.
#[derive(Clone, Debug)]
enum Step {
    Append { gap: u64, count: u64 },
    Crash,
    Install,
    Seal,
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3u64, 1..5u64).prop_map(|(gap, count)| Step::Append { gap, count }),
        1 => Just(Step::Crash),
        1 => Just(Step::Install),
        1 => Just(Step::Seal),
        3 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A segment under a writer that sends it what it likes.
struct World {
    file: MemoryFile,
    host: SegmentHost<MemoryFile>,
    counter: u64,
    history: History,
    tail: u64,
    last: u64,
}

impl World {
    fn new() -> Self {
        let file = empty_log();
        let host = host(&file);
        Self { file, host, counter: 1, history: History::new(), tail: 0, last: 0 }
    }

    fn give(&mut self, message: ToSegment, payload: &[u8]) {
        let from = Peer::Writer(epoch(self.counter));
        self.host.receive(from, message, payload, &mut Vec::new()).unwrap();
    }

    fn take(&mut self, step: &Step) {
        let group = PgId::new(0);
        match step {
            Step::Append { gap, count } => {
                let mut payload = Vec::new();
                let mut records = Vec::new();
                // A gap is a record that this segment doesn't get.
                self.tail += gap;
                let mut last = if *gap > 0 { self.tail } else { self.last };
                for _ in 0..*count {
                    self.tail += 1;
                    let bytes = self.tail.to_le_bytes();
                    records.push(record(self.tail, last, self.counter, &bytes));
                    payload.extend(bytes);
                    last = self.tail;
                }
                self.last = last;
                let (epoch, vdl) = (epoch(self.counter), Vdl::ZERO);
                let floor = quorate_core::consistency::GarbageFloor::ZERO;
                let append = Append { epoch, group, vdl, floor, records };
                self.give(ToSegment::Append(append), &payload);
            }
            Step::Crash => {
                self.file.submitted.borrow_mut().clear();
                self.host = host(&self.file);
            }
            Step::Install => {
                // Everything above what this segment holds is annulled.
                let after = self.host.durable().scl().lsn();
                let through = Lsn::new(self.tail.max(self.history.through().get()) + 10);
                let range = TruncationRange::new(epoch(self.counter), after, through).unwrap();
                if self.history.epoch() < epoch(self.counter) {
                    self.history = self.history.with(range);
                    self.tail = through.get();
                    self.last = after.get();
                }
                let history = self.history.clone();
                let genesis = Membership::genesis(QuorumSet::AURORA);
                let membership = genesis.adopted_by(history.epoch());
                let install = Install { group, history, end: Lsn::ZERO, tip: None, membership };
                self.give(ToSegment::Install(install), &[]);
            }
            Step::Seal => {
                self.counter += 1;
                self.give(
                    ToSegment::Seal(Seal { epoch: epoch(self.counter), group, at: None }),
                    &[],
                );
            }
            Step::Sync => {
                if let Some(through) = self.file.sync() {
                    self.host.settle(through, &mut Vec::new()).unwrap();
                }
            }
        }
    }
}

proptest! {
    /// What a restart finds must be what the machine counted as durable: all but the known VDL,
    /// which is knowledge and may be older.
    #[test]
    fn replay_equals_the_live_state(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            let live = world.host.durable();
            let again = host(&MemoryFile::new(world.file.contents()));
            let replayed = again.durable();
            prop_assert_eq!(live.promised(), replayed.promised());
            prop_assert_eq!(live.history(), replayed.history());
            prop_assert_eq!(live.records(), replayed.records());
            prop_assert_eq!(live.scl(), replayed.scl());
            prop_assert!(live.vdl() >= replayed.vdl());
            for record in replayed.records() {
                let bytes = again.log.read(record).unwrap();
                prop_assert_eq!(&bytes, &record.lsn.get().to_le_bytes());
                prop_assert_eq!(&world.host.log.read(record).unwrap(), &bytes);
            }
        }
    }
}

/// The payload must be stored with the record that it came with, and come back with a read of it.
#[test]
fn a_page_that_was_written_can_be_read() {
    let mut world = World::new();
    world.take(&Step::Install);
    world.take(&Step::Sync);
    world.take(&Step::Append { gap: 0, count: 3 });
    world.take(&Step::Sync);
    let record = *world.host.durable().records().last().unwrap();
    // Only core makes read points of positions; on the wire they are positions.
    let encoded = wire::encode_value(&record.lsn).unwrap();
    let read = Read {
        epoch: epoch(1),
        group: PgId::new(0),
        ticket: Ticket::new(1),
        page: record.page,
        read_point: wire::decode_value(&encoded).unwrap(),
        needed: record.lsn,
    };
    let mut outgoing = Vec::new();
    let from = Peer::Writer(epoch(1));
    world.host.receive(from, ToSegment::Read(read), &[], &mut outgoing).unwrap();
    let Some(Outgoing::Tell { frame, .. }) = outgoing.pop() else { unreachable!() };
    let Ok(wire::Decoded::Frame { frame, .. }) = wire::decode(&frame) else { unreachable!() };
    assert_eq!(frame.envelope.records(), [record]);
    assert_eq!(frame.payload, record.lsn.get().to_le_bytes());
}

/// One acknowledgement covers those before it; those to another epoch stay.
#[test]
fn only_the_last_acknowledgement_is_sent() {
    let ack = |counter: u64, scl: u64| {
        let mut log = empty_log_with(scl);
        let scl = log.status().scl;
        log.effects.clear();
        SegmentEffect::SendWriter {
            to: epoch(counter),
            message: ToWriter::Ack {
                epoch: epoch(counter),
                incarnation: Incarnation::new(0),
                number: 0,
                scl,
            },
        }
    };
    let mut effects = vec![ack(1, 0), ack(1, 1), ack(2, 0), ack(2, 1)];
    keep_last_acks(&mut effects);
    assert_eq!(effects, [ack(1, 1), ack(2, 1)]);
}

/// Returns a segment that is complete up to LSN `scl`, zero or one.
fn empty_log_with(scl: u64) -> SegmentHost<MemoryFile> {
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    if scl > 0 {
        let record = record(1, 0, 1, b"");
        log.append(&crate::testing::append(1, &[record]), &[b""]).unwrap();
        file.sync();
    }
    host(&file)
}
