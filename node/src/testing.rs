//! What the tests of this crate share.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use quorate_core::consistency::{GarbageFloor, Scl, Vdl};
use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{Incarnation, InstanceId, PageId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Membership;
use quorate_core::message::{Append, ToSegment};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::Record;
use quorate_core::truncation::{History, TruncationRange};
use serde::Deserialize;
use serde::de::value::U64Deserializer;

use crate::addresses::LogTag;
use crate::config::{self, VolumeId};
use crate::env::{Event, KeepNote, LogFile};
use crate::format::{self, LogIdentity, Note};
use crate::payload;
use crate::store::{self, Checkpointed, MemoryTables, Snapshot, StoreError, Stored};
use crate::wire::{Envelope, Status};

/// Frames that are not in the file yet, with their numbers and notes.
type Submitted = Vec<(u64, Vec<u8>, Note)>;

/// A file in memory. What is submitted gets into it when the test says so.
#[derive(Clone, Debug)]
pub(crate) struct MemoryFile {
    pub(crate) bytes: Rc<RefCell<Vec<u8>>>,
    /// What the log says beside its frames; none unless a test gives some.
    pub(crate) notes: Vec<Note>,
    /// How often it was read from.
    pub(crate) reads: Rc<Cell<usize>>,
    pub(crate) last_note: Rc<RefCell<Option<Note>>>,
    pub(crate) submitted: Rc<RefCell<Submitted>>,
    /// The page store; `None` when it is lost.
    pub(crate) store: Rc<RefCell<Option<MemoryTables>>>,
    /// A checkpoint that has begun.
    pub(crate) snapshot: Rc<RefCell<Option<Snapshot>>>,
    /// No byte before this one may be read, but those of the header.
    pub(crate) trimmed: Rc<Cell<u64>>,
}

impl MemoryFile {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Rc::new(RefCell::new(bytes)),
            notes: Vec::new(),
            reads: Rc::default(),
            last_note: Rc::default(),
            submitted: Rc::default(),
            store: Rc::new(RefCell::new(Some(MemoryTables::default()))),
            snapshot: Rc::default(),
            trimmed: Rc::default(),
        }
    }

    /// Makes the checkpoint that has begun, if one has.
    pub(crate) fn finish_checkpoint(&self) -> Option<Checkpointed> {
        let snapshot = self.snapshot.borrow_mut().take()?;
        let mut store = self.store.borrow_mut();
        let read = |at, into: &mut [u8]| self.read_at(at, into);
        Some(store::write(store.as_mut().unwrap(), SALT, &snapshot, &read).unwrap())
    }

    /// Returns the file after a restart of its machine.
    pub(crate) fn restarted(&self, bytes: Vec<u8>) -> Self {
        let store = Rc::new(RefCell::new(self.store.borrow().clone()));
        Self { store, trimmed: Rc::new(self.trimmed.as_ref().clone()), ..Self::new(bytes) }
    }

    /// Makes what is submitted durable, and returns the last number.
    pub(crate) fn sync(&self) -> Option<u64> {
        let submitted = std::mem::take(&mut *self.submitted.borrow_mut());
        let mut through = None;
        for (number, bytes, note) in submitted {
            *self.last_note.borrow_mut() = Some(note);
            self.bytes.borrow_mut().extend(bytes);
            through = Some(number);
        }
        through
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }
}

impl LogFile for MemoryFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        assert!(offset < 600 || offset >= self.trimmed.get(), "{offset} was trimmed");
        let bytes = self.bytes.borrow();
        let offset = usize::try_from(offset).unwrap();
        let source = bytes.get(offset..).unwrap_or(&[]);
        let length = source.len().min(into.len());
        into.fill(0);
        into[..length].copy_from_slice(&source[..length]);
        Ok(())
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn length(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn has_newest_note(&self, _durable: u64) -> bool {
        true
    }

    fn open_store(&mut self, _salt: u64) -> Result<(), StoreError> {
        self.store.borrow().as_ref().map(|_| ()).ok_or(StoreError::Gone)
    }

    fn stored(&self) -> Result<Option<Stored>, StoreError> {
        store::load(self.store.borrow().as_ref().unwrap(), SALT)
    }

    fn read_stored(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        store::read(self.store.borrow().as_ref().unwrap(), record)
    }

    fn holds(&mut self, _kept: u64, _at: u64) -> bool {
        true
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        *self.snapshot.borrow_mut() = Some(snapshot);
    }

    fn trim(&mut self, kept: u64) {
        self.trimmed.set(kept);
    }

    fn settle(&mut self, _doubtful: u64, length: u64, _until: u64) -> io::Result<()> {
        // The last frame may end with zeros that lie behind the length.
        self.bytes.borrow_mut().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String> {
        let mut bytes = self.bytes.borrow_mut();
        bytes.resize(usize::try_from(kept).unwrap(), 0);
        bytes.extend_from_slice(frame);
        self.notes = vec![note];
        Ok("damaged-1".into())
    }

    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note, _keep: KeepNote) {
        self.submitted.borrow_mut().push((number, frame, note));
    }

    fn commit(&mut self) -> Option<Event> {
        None
    }
}

const SALT: u64 = 0x5a17;

pub(crate) fn identity() -> LogIdentity {
    LogIdentity {
        volume: VolumeId::new(0xa0),
        group: PgId::new(0),
        position: Position::new(2).unwrap(),
        geometry: config::geometry(1).unwrap(),
        incarnation: Incarnation::new(0),
        salt: SALT,
    }
}

/// Returns the status of a new segment.
pub(crate) fn status() -> Status {
    Status {
        group: PgId::new(0),
        position: Position::new(2).unwrap(),
        incarnation: Incarnation::new(0),
        log: LogTag::of(0x5a17),
        membership: Membership::genesis(QuorumSet::AURORA),
        scl: Scl::ZERO,
        vdl: Vdl::ZERO,
        heard: VolumeEpoch::ZERO,
        promised: VolumeEpoch::ZERO,
        history: VolumeEpoch::ZERO,
        base: Lsn::ZERO,
        floor: GarbageFloor::ZERO,
        records: 0,
        log_bytes: 0,
        history_ranges: 0,
        impaired: false,
    }
}

/// Returns a log without frames.
pub(crate) fn empty_log() -> MemoryFile {
    MemoryFile::new(format::encode_header(&identity()).unwrap())
}

pub(crate) fn epoch(counter: u64) -> VolumeEpoch {
    VolumeEpoch::new(counter, InstanceId::new(7))
}

pub(crate) fn record(lsn: u64, previous: u64, counter: u64, bytes: &[u8]) -> Record {
    let (group, page, lsn) = (PgId::new(0), PageId::new(lsn % 5), Lsn::new(lsn));
    Record {
        lsn,
        epoch: epoch(counter),
        prev_volume: Lsn::new(previous),
        prev_group: Lsn::new(previous),
        group,
        page,
        cpl: true,
        payload: payload::describe(group, page, lsn, bytes).unwrap(),
    }
}

/// Returns the write of a promise.
pub(crate) fn promise(counter: u64) -> SegmentWrite {
    let promised = epoch(counter);
    SegmentWrite { promised, ..nothing() }
}

/// Returns the write of a history with one range.
pub(crate) fn install(counter: u64, after: u64, through: u64) -> SegmentWrite {
    let range = TruncationRange::new(epoch(counter), Lsn::new(after), Lsn::new(through)).unwrap();
    let history = Some(History::new().with(range));
    SegmentWrite { promised: epoch(counter), history, ..nothing() }
}

/// Returns the write of records.
pub(crate) fn append(counter: u64, records: &[Record]) -> SegmentWrite {
    SegmentWrite { promised: epoch(counter), records: records.to_vec(), ..nothing() }
}

/// Returns the write that raises the base, and the VDL, to `base`.
pub(crate) fn collect(counter: u64, base: u64) -> SegmentWrite {
    let vdl = Vdl::deserialize(U64Deserializer::<serde::de::value::Error>::new(base)).unwrap();
    SegmentWrite { promised: epoch(counter), vdl, base: Lsn::new(base), ..nothing() }
}

/// Returns a membership that the writer with this counter adopted.
pub(crate) fn membership(counter: u64) -> Membership {
    Membership::genesis(QuorumSet::AURORA).adopted_by(epoch(counter))
}

fn nothing() -> SegmentWrite {
    SegmentWrite::default()
}

/// Returns bytes that are different for every `index`.
pub(crate) fn payload_of(index: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u64 ^ index.wrapping_mul(37)) as u8).collect()
}

/// Returns an append of one record with this payload.
pub(crate) fn message(index: u64, payload: &[u8]) -> Envelope {
    Envelope::ToSegment(ToSegment::Append(Append {
        epoch: epoch(1),
        group: PgId::new(0),
        vdl: Vdl::ZERO,
        floor: GarbageFloor::ZERO,
        records: vec![record(index + 1, index, 1, payload)],
    }))
}
