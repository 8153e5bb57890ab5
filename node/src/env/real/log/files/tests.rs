#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use quorate_core::effect::SegmentWrite;
use quorate_core::floor::Floor;
use quorate_core::image::SegmentImage;
use quorate_core::record::Record;

use super::super::making::Stock;
use super::*;
use crate::disk::{OpenError, Replay, SegmentLog};
use crate::env::{Event, KeepNote, LogFile};
use crate::format::SLOTS_BYTES;
use crate::store::{self, Checkpointed, MemoryTables, Snapshot, StoreError, Stored};
use crate::testing::{append, collect, identity, install, payload_of, promise, record};

/// What this disk writes whole or not at all, in bytes: less than any real one.
const SECTOR: usize = 128;

/// How many random histories are tried: each is many lives of a log, and each life many states.
const CASES: u32 = 32;

/// Files of which a short run fills some, with frames across their ends.
const SMALL: Layout = Layout { first: SLOTS_BYTES + 700, max: SLOTS_BYTES + 700, block: 140 };

/// A directory in memory that knows what a crash may leave of it.
#[derive(Clone, Debug, Default)]
struct Fragile(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Contents>,
    /// What a crash leaves for certain: names with the numbers of their files.
    durable_names: Vec<(String, usize)>,
    /// Changes of names that no sync covers, in order.
    changes: Vec<Change>,
    /// How many bytes may still be written to new places before the disk is full.
    space: Option<usize>,
    /// The disk fails at the sync after so many others.
    syncs_left: Option<usize>,
    /// Every state that a crash could have found, oldest first; `None` unless a test wants them.
    past: Option<Vec<Past>>,
    /// So many frames are reported as durable.
    reported: usize,
    /// The note of the last group that was reported said so many bytes were durable.
    noted: u64,
    /// The page store; `None` when it is lost. A checkpoint is there whole or not at all.
    store: Option<MemoryTables>,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    /// Parts of sectors that no sync covers, in order.
    writes: Vec<(usize, Vec<u8>)>,
}

/// What a crash leaves of a write to one sector.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    /// Disks promise that this can't be; one that does it nevertheless must cost nothing more.
    Half,
    Whole,
}

impl Kept {
    const fn by(is_kept: bool) -> Self {
        if is_kept { Self::Whole } else { Self::Nothing }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(String, usize),
    Remove(String),
}

#[derive(Clone, Debug)]
struct Past {
    files: Vec<Contents>,
    durable_names: Vec<(String, usize)>,
    changes: Vec<Change>,
    reported: usize,
    noted: u64,
    store: Option<MemoryTables>,
}

impl Contents {
    fn now(&self) -> Vec<u8> {
        self.with(|_| Kept::Whole)
    }

    /// Returns the bytes with what `kept` says of each write.
    fn with(&self, mut kept: impl FnMut(usize) -> Kept) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (number, (offset, piece)) in self.writes.iter().enumerate() {
            let length = match kept(number) {
                Kept::Nothing => continue,
                Kept::Half => piece.len() / 2,
                Kept::Whole => piece.len(),
            };
            let end = offset + length;
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset..end].copy_from_slice(&piece[..length]);
        }
        bytes
    }
}

fn change(names: &mut Vec<(String, usize)>, change: &Change) {
    let (Change::Set(name, _) | Change::Remove(name)) = change;
    names.retain(|(known, _)| known != name);
    if let Change::Set(name, file) = change {
        // A file has one name.
        names.retain(|(_, other)| other != file);
        names.push((name.clone(), *file));
    }
}

impl State {
    fn names(&self) -> Vec<(String, usize)> {
        let mut names = self.durable_names.clone();
        self.changes.iter().for_each(|one| change(&mut names, one));
        names
    }

    /// Keeps the present state as one that a crash may find.
    fn remember(&mut self) {
        let Self { files, durable_names, changes, reported, noted, store, .. } = self.clone();
        if let Some(past) = &mut self.past {
            past.push(Past { files, durable_names, changes, reported, noted, store });
        }
    }
}

impl Past {
    /// Returns how many writes no sync covers.
    fn writes(&self) -> usize {
        self.files.iter().map(|file| file.writes.len()).sum()
    }

    /// Returns the directory after a crash that keeps these writes and that many changes of names.
    fn crash(&self, mut kept: impl FnMut(usize) -> Kept, changes: usize) -> Fragile {
        let mut base = 0;
        let files = self.files.iter().map(|file| {
            let durable = file.with(|number| kept(base + number));
            base += file.writes.len();
            Contents { durable, writes: Vec::new() }
        });
        let files = files.collect();
        let mut durable_names = self.durable_names.clone();
        self.changes[..changes].iter().for_each(|one| change(&mut durable_names, one));
        let store = self.store.clone();
        Fragile(Arc::new(Mutex::new(State { files, durable_names, store, ..State::default() })))
    }
}

#[derive(Debug)]
struct FragileFile {
    directory: Fragile,
    file: usize,
}

impl Fragile {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn file(&self, file: usize) -> FragileFile {
        FragileFile { directory: self.clone(), file }
    }

    /// Returns the number of the file with this name.
    fn find(&self, name: &str) -> Option<usize> {
        let names = self.state().names();
        names.into_iter().find(|(known, _)| known == name).map(|(_, file)| file)
    }

    /// Returns a copy on which nothing that happens here is seen.
    fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Directory for Fragile {
    type File = FragileFile;

    fn names(&self) -> io::Result<Vec<OsString>> {
        Ok(self.state().names().into_iter().map(|(name, _)| name.into()).collect())
    }

    fn create(&self, name: &str) -> io::Result<FragileFile> {
        let mut state = self.state();
        state.files.push(Contents::default());
        let file = state.files.len() - 1;
        state.changes.push(Change::Set(name.into(), file));
        state.remember();
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Option<FragileFile>> {
        Ok(self.find(name).map(|file| self.file(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from).ok_or(io::ErrorKind::NotFound)?;
        let mut state = self.state();
        state.changes.push(Change::Set(to.into(), file));
        state.remember();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.changes.push(Change::Remove(name.into()));
        state.remember();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.durable_names = state.names();
        state.changes.clear();
        state.remember();
        Ok(())
    }
}

impl DirectoryFile for FragileFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.directory.state().files[self.file].now().len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.directory.state().files[self.file].now();
        let source = bytes.get(offset as usize..).unwrap_or(&[]);
        let length = source.len().min(into.len());
        into[..length].copy_from_slice(&source[..length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.directory.state();
        let length = state.files[self.file].now().len();
        let more = (offset as usize + bytes.len()).saturating_sub(length);
        if let Some(space) = &mut state.space {
            *space = space.checked_sub(more).ok_or_else(full)?;
        }
        let mut at = offset as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
            let is_new = at >= length;
            // To keep the number of states down: what makes a file longer comes as one.
            let (piece, others) = if is_new { (rest, &rest[..0]) } else { (piece, others) };
            state.files[self.file].writes.push((at, piece.to_vec()));
            at += piece.len();
            rest = others;
        }
        state.remember();
        Ok(())
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        let mut state = self.directory.state();
        let before = state.files[self.file].now().len();
        if let Some(space) = &mut state.space {
            let more = (length as usize).saturating_sub(before);
            *space = space.checked_sub(more).ok_or_else(full)?;
        }
        let zeros = vec![0; (length as usize).saturating_sub(before)];
        state.files[self.file].writes.push((before, zeros));
        state.remember();
        Ok(true)
    }

    fn write_ahead(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        self.write_at(offset, blocks)
    }

    fn write_through(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SMALL.block as u64) || offset >= SMALL.data_bytes(0));
        assert!(blocks.len().is_multiple_of(SMALL.block));
        self.write_at(offset, blocks)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.directory.state();
        if let Some(left) = &mut state.syncs_left {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
        }
        let file = &mut state.files[self.file];
        file.durable = file.now();
        file.writes.clear();
        state.remember();
        Ok(())
    }
}

fn blank() -> Blank<'static> {
    Blank { header: &[], salt: identity().salt }
}

/// Files that are prepared when they are asked for.
#[derive(Debug)]
struct Prompt(Arc<Mutex<Stock<Fragile>>>);

impl Prompt {
    fn new(directory: Fragile) -> Self {
        Self(Arc::new(Mutex::new(Stock::new(directory, SMALL, blank()))))
    }
}

impl Supply<FragileFile> for Prompt {
    fn request(&mut self, index: u32) {
        let mut stock = self.0.lock().unwrap();
        if stock.directory.find(&name(index)).is_none() {
            let _ = stock.prepare(index, &|| false);
        }
    }

    fn is_ready(&mut self, _index: u32) -> bool {
        true
    }

    fn take(&mut self, index: u32) -> io::Result<Ready<FragileFile>> {
        let mut stock = self.0.lock().unwrap();
        match stock.directory.open(&name(index))? {
            Some(file) => Ok(Ready { file, is_recycled: false }),
            None => stock.prepare(index, &|| false),
        }
    }
}

/// A log without threads: what is submitted is written when the test says so.
#[derive(Debug)]
struct Direct {
    directory: Fragile,
    reader: Reader<Fragile>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    submitted: Vec<(u64, Vec<u8>, Note, KeepNote)>,
    writer: Option<Writer<Fragile, Prompt>>,
    stock: Option<Arc<Mutex<Stock<Fragile>>>>,
    checkpointed: Option<Checkpointed>,
}

impl Direct {
    fn open(directory: &Fragile) -> io::Result<Self> {
        let header = format::encode_header(&identity()).unwrap();
        let reader = Reader::open(directory.clone(), SMALL, &header)?;
        Ok(Self { directory: directory.clone(), reader, shared: Arc::default() })
    }
}

impl LogFile for Direct {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reader.read_at(offset, into)
    }

    fn length(&self) -> u64 {
        self.reader.length()
    }

    fn notes(&self) -> &[Note] {
        self.reader.notes()
    }

    fn settle(&mut self, doubtful: u64, length: u64, until: u64) -> io::Result<()> {
        self.reader.settle(doubtful, length, until)?;
        let supply = Prompt::new(self.directory.clone());
        let stock = Arc::clone(&supply.0);
        stock.lock().unwrap().trim(self.reader.first())?;
        let mut shared = self.shared.lock().unwrap();
        shared.stock = Some(stock);
        shared.writer = Some(self.reader.writer(supply)?);
        Ok(())
    }

    fn open_store(&mut self, _salt: u64) -> Result<(), StoreError> {
        let mut state = self.directory.state();
        if state.store.is_none() && self.reader.is_trimmed() {
            return Err(StoreError::Gone);
        }
        state.store.get_or_insert_default();
        Ok(())
    }

    fn stored(&self) -> Result<Option<Stored>, StoreError> {
        store::load(self.directory.state().store.as_ref().unwrap(), identity().salt)
    }

    fn read_stored(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        store::read(self.directory.state().store.as_ref().unwrap(), record)
    }

    fn holds(&mut self, kept: u64, at: u64) -> bool {
        self.reader.holds(kept, at)
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        let mut tables = self.directory.state().store.clone().unwrap();
        let files = Files::new(self.directory.clone(), SMALL);
        let read = |at, into: &mut [u8]| files.read_at(at, into);
        let made = store::write(&mut tables, identity().salt, &snapshot, &read).unwrap();
        let mut state = self.directory.state();
        state.store = Some(tables);
        state.remember();
        self.shared.lock().unwrap().checkpointed = Some(made);
    }

    fn trim(&mut self, kept: u64) {
        let first = self.reader.trim(kept);
        let stock = self.shared.lock().unwrap().stock.clone().unwrap();
        stock.lock().unwrap().trim(first).unwrap();
    }

    fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String> {
        self.reader.replace(kept, frame, note)
    }

    fn has_newest_note(&self, durable: u64) -> bool {
        self.reader.has_newest_note(durable)
    }

    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note, keep: KeepNote) {
        self.shared.lock().unwrap().submitted.push((number, frame, note, keep));
    }

    fn commit(&mut self) -> Option<Event> {
        None
    }
}

/// A segment's log on such a directory, with all that was ever written to it.
struct Run {
    directory: Fragile,
    shared: Arc<Mutex<Shared>>,
    log: SegmentLog<Direct>,
    image: SegmentImage,
    /// The writes since the log was created.
    writes: Vec<SegmentWrite>,
    durable: usize,
    /// Where the next groups' notes are kept, unless a mark says so.
    keep: Keep,
}

type Opened = (SegmentLog<Direct>, SegmentImage, Replay);

fn open(directory: &Fragile) -> Result<(Opened, Arc<Mutex<Shared>>), OpenError> {
    let direct = Direct::open(directory)?;
    let shared = Arc::clone(&direct.shared);
    Ok((SegmentLog::open(direct, &identity())?, shared))
}

/// Returns the write after `before` of a run that starts with an epoch and its history, and the
/// bytes of its record.
fn write(before: &[SegmentWrite], length: usize) -> (SegmentWrite, Vec<u8>) {
    let lsn = before.len() as u64 + 10;
    match before.len() {
        0 => (promise(1), Vec::new()),
        1 => (install(1, 0, 11), Vec::new()),
        _ => {
            let bytes = payload_of(lsn, length);
            let last = before.iter().rev().find_map(|write| write.records.last());
            let previous = last.map_or(0, |record| record.lsn.get());
            (append(1, &[record(lsn, previous, 1, &bytes)]), bytes)
        }
    }
}

impl Run {
    fn start(directory: Fragile) -> Self {
        let ((log, image, _), shared) = open(&directory).unwrap();
        Self { directory, shared, log, image, writes: Vec::new(), durable: 0, keep: Keep::Near }
    }

    /// Submits one more frame, with a payload of `length` bytes.
    fn submit(&mut self, length: usize) {
        let (write, payload) = write(&self.writes, length);
        let payloads: Vec<&[u8]> = write.records.iter().map(|_| payload.as_slice()).collect();
        self.log.append(&write, &payloads).unwrap();
        self.writes.push(write);
    }

    /// Discards what is superseded, but for the last records, and makes a checkpoint.
    fn checkpoint(&mut self) {
        if let Some(base) = self.image.records().iter().rev().nth(2).map(|record| record.lsn) {
            let write = collect(1, base.get());
            self.log.append(&write, &[]).unwrap();
            self.writes.push(write);
            self.sync().unwrap();
        }
        self.log.checkpoint(&self.image);
        let made = self.shared.lock().unwrap().checkpointed.take().unwrap();
        self.log.checkpointed(made);
    }

    /// Writes what a node writes when it has been idle for a while.
    fn mark(&mut self) {
        self.log.mark(&promise(1)).unwrap();
        self.writes.push(promise(1));
        self.sync().unwrap();
    }

    /// Writes all that is submitted as one group, and reports it.
    fn sync(&mut self) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap();
        let submitted = std::mem::take(&mut shared.submitted);
        let Some((through, _, note, how)) = submitted.last() else { return Ok(()) };
        let group: Vec<Vec<u8>> = submitted.iter().map(|(_, frame, ..)| frame.clone()).collect();
        let keep = if *how == KeepNote::Always { Keep::NearAndFar } else { self.keep };
        shared.writer.as_mut().unwrap().append(&group, note, keep)?;
        self.log.settle(*through);
        for write in &self.writes[self.durable..] {
            self.image.apply(write).unwrap();
        }
        self.durable = self.writes.len();
        self.log.note(&self.image);
        let mut state = self.directory.state();
        state.reported = self.durable;
        if keep == Keep::NearAndFar {
            state.noted = note.durable;
        }
        state.remember();
        Ok(())
    }
}

/// Checks that what a crash left is a state that the run went through, with all that was reported.
fn assert_prefix(opened: &Opened, writes: &[SegmentWrite], reported: usize) {
    let (log, image, replay) = opened;
    let frames = (replay.checkpoint + replay.frames) as usize;
    assert!(reported <= frames && frames <= writes.len(), "{reported} {frames}");
    let mut expected = SegmentImage::create(identity().group, identity().geometry).unwrap();
    writes[..frames].iter().for_each(|write| expected.apply(write).unwrap());
    assert_eq!(*image, expected);
    for record in image.records() {
        log.read(record).unwrap();
    }
}

/// A crash at any point, which keeps any part of what no sync covers, must leave a log that opens
/// and has everything that was reported durable.
#[test]
fn every_crash_of_a_short_run_leaves_all_that_was_reported() {
    let directory = Fragile::default();
    directory.state().past = Some(Vec::new());
    let mut run = Run::start(directory.clone());
    // Groups of one to three frames; the last ones cross the ends of files.
    let groups: [&[usize]; 10] =
        [&[0], &[0, 40], &[90], &[200, 300], &[300], &[0, 700], &[1500], &[60], &[3500], &[0]];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|length| run.submit(*length));
        run.keep = if number % 3 == 1 { Keep::NearAndFar } else { Keep::Near };
        run.sync().unwrap();
    }
    assert!(directory.find(&name(3)).is_some());
    let past = directory.state().past.take().unwrap();
    let mut crashes = 0;
    for snapshot in &past {
        let writes = snapshot.writes();
        assert!(writes <= 12, "{writes} are too many for every subset");
        let mut check = |left: &Fragile| {
            // While one slot is written, the other one keeps what was said before.
            let notes = Direct::open(left).unwrap().reader.notes;
            let noted = notes.iter().map(|note| note.durable).max().unwrap_or(0);
            assert!(noted >= snapshot.noted, "{noted} of {}", snapshot.noted);
            let (opened, _) = open(left).unwrap_or_else(|error| panic!("{error}"));
            assert_prefix(&opened, &run.writes, snapshot.reported);
            crashes += 1;
        };
        for changes in 0..=snapshot.changes.len() {
            for kept in 0..1usize << writes {
                check(&snapshot.crash(|number| Kept::by(kept >> number & 1 == 1), changes));
            }
            for half in 0..writes {
                for others in [Kept::Nothing, Kept::Whole] {
                    let kept = |number| if number == half { Kept::Half } else { others };
                    check(&snapshot.crash(kept, changes));
                }
            }
        }
    }
    assert!(past.len() > 60 && crashes > 1000, "{} states, {crashes} crashes", past.len());
}

/// A frame, header, note or byte that the disk changed must be told from what a crash leaves: no
/// flipped bit of any file may cost a record that was acknowledged, unless the log is refused.
#[test]
fn every_flipped_bit_of_every_file_is_found_or_harmless() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for length in [0, 0, 40, 300, 30, 0] {
        run.submit(length);
        run.sync().unwrap();
    }
    let acknowledged = run.durable;
    run.mark();
    let (mut found, mut harmless) = (0, 0);
    let names = directory.state().names();
    for (name, file) in names {
        let bytes = directory.state().files[file].now();
        for bit in 0..bytes.len() * 8 {
            // One bit of each byte that was never written is enough.
            if bytes[bit / 8] == 0 && bit % 8 != 0 {
                continue;
            }
            let rotten = directory.fork();
            rotten.state().files[file].durable[bit / 8] ^= 1 << (bit % 8);
            match open(&rotten) {
                Ok((opened, _)) => {
                    assert_prefix(&opened, &run.writes, acknowledged);
                    harmless += 1;
                }
                Err(OpenError::Corrupt(damage)) => {
                    assert!(damage.floor == Floor::of(&run.image), "{name} {bit}: {damage:?}");
                    found += 1;
                }
                Err(OpenError::Header(_)) => found += 1,
                Err(error) => panic!("{name} {bit}: {error}"),
            }
        }
    }
    assert!(found > 5_000 && harmless > 1_000, "{found} found, {harmless} harmless");
}

fn start(directory: &Fragile) -> (SegmentImage, Replay) {
    let direct = Direct::open(directory).unwrap();
    let (_, image, replay) = SegmentLog::open_or_replace(direct, &identity()).unwrap();
    (image, replay)
}

/// Flips a bit of the log of a run that is over, and returns the files.
fn damage(directory: &Fragile, index: u32, at: usize) -> Vec<(String, Vec<u8>)> {
    let file = directory.find(&name(index)).unwrap();
    directory.state().files[file].durable[at] ^= 1;
    contents(directory)
}

fn contents(directory: &Fragile) -> Vec<(String, Vec<u8>)> {
    let state = directory.state();
    state.names().into_iter().map(|(name, file)| (name, state.files[file].now())).collect()
}

/// Checks that a crash while a damaged log was replaced has left that log, or the new one with the
/// files of the damaged one beside it. Returns whether it is the new one.
fn assert_one_of_both(left: &Fragile, damaged: &[(String, Vec<u8>)], floor: &Floor) -> bool {
    let is_new = match open(left) {
        Err(OpenError::Corrupt(damage)) => {
            assert_eq!(damage.floor, *floor);
            false
        }
        Ok(((_, image, _), _)) => {
            assert_eq!(image.floor(), Some(*floor));
            true
        }
        Err(error) => panic!("{error}"),
    };
    let found = contents(left);
    for (name, bytes) in damaged {
        let name = if is_new { format!("damaged-1.{name}") } else { name.clone() };
        assert!(found.contains(&(name.clone(), bytes.clone())), "{name} is gone or another one");
    }
    assert!(found.iter().all(|(name, _)| name.ends_with(".log")), "{:?}", left.state().names());
    is_new
}

/// A crash in the middle of a replacement that left half of both logs could vote with neither; one
/// that lost the damaged files would leave nothing to examine.
#[test]
fn every_crash_of_a_replacement_leaves_the_damaged_log_or_the_new_one() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for length in [0, 0, 300, 300, 300, 300] {
        run.submit(length);
        run.sync().unwrap();
    }
    run.mark();
    let floor = Floor::of(&run.image);
    let damaged = damage(&directory, 1, 300);
    directory.state().past = Some(Vec::new());
    let (image, replay) = start(&directory);
    assert_eq!(image.floor(), Some(floor));
    assert_eq!(replay.replaced.unwrap().aside, "damaged-1");
    assert!(assert_one_of_both(&directory, &damaged, &floor));
    let past = directory.state().past.take().unwrap();
    let mut left_as = [0, 0];
    for snapshot in &past {
        let writes = snapshot.writes();
        assert!(writes <= 12, "{writes} are too many for every subset");
        for changes in 0..=snapshot.changes.len() {
            for kept in 0..1usize << writes {
                let crash = || snapshot.crash(|number| Kept::by(kept >> number & 1 == 1), changes);
                let left = crash();
                left_as[usize::from(assert_one_of_both(&left, &damaged, &floor))] += 1;
                if kept > 0 {
                    continue;
                }
                // And a crash of the start after the crash.
                let again = crash();
                again.state().past = Some(Vec::new());
                let _ = start(&again);
                let past = again.state().past.take().unwrap();
                for second in past.iter().step_by(3) {
                    for changes in 0..=second.changes.len() {
                        let left = second.crash(|_| Kept::Nothing, changes);
                        left_as[usize::from(assert_one_of_both(&left, &damaged, &floor))] += 1;
                    }
                }
            }
        }
    }
    assert!(left_as[0] > 500 && left_as[1] > 100, "{left_as:?} of {}", past.len());
}

/// What is set aside is never overwritten, and what was owed at first is still owed.
#[test]
fn a_log_is_replaced_a_second_time() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for length in [0, 0, 300, 300, 300, 300] {
        run.submit(length);
        run.sync().unwrap();
    }
    run.mark();
    let floor = Floor::of(&run.image);
    let first = damage(&directory, 1, 300);
    start(&directory);
    let second = damage(&directory, 0, 450);
    let (image, replay) = start(&directory);
    assert_eq!(replay.replaced.unwrap().aside, "damaged-2");
    assert_eq!(image.floor(), Some(floor));
    let found = contents(&directory);
    for (name, bytes) in &first {
        assert!(found.contains(&(format!("damaged-1.{name}"), bytes.clone())), "{name}");
    }
    for (name, bytes) in second.iter().filter(|(name, _)| name.starts_with("segment")) {
        assert!(found.contains(&(format!("damaged-2.{name}"), bytes.clone())), "{name}");
    }
}

/// A disk without room for the new log must cost nothing, and keep what is damaged.
#[test]
fn a_full_disk_leaves_the_damaged_log() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for length in [0, 0, 300, 300, 300, 300] {
        run.submit(length);
        run.sync().unwrap();
    }
    run.mark();
    let floor = Floor::of(&run.image);
    let damaged = damage(&directory, 1, 300);
    directory.state().space = Some(SMALL.file_bytes(0) as usize * 3 / 2);
    let direct = Direct::open(&directory).unwrap();
    let refused = SegmentLog::open_or_replace(direct, &identity()).map(|_| ());
    assert!(
        matches!(&refused, Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::StorageFull)
    );
    assert_eq!(contents(&directory), damaged);
    directory.state().space = None;
    start(&directory);
    assert!(assert_one_of_both(&directory, &damaged, &floor));
}

/// What a disk may do to one file of a log.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// It is another segment's.
    Another,
    /// It ends in front of this byte.
    Cut(usize),
    Gone,
    /// All bytes from this one on are others.
    Overwritten(usize),
    Zeroed,
}

/// Does this to the file with this name and number.
fn lose(directory: &Fragile, name: &str, file: usize, loss: Loss) {
    if matches!(loss, Loss::Gone) {
        directory.remove(name).unwrap();
        return;
    }
    let mut state = directory.state();
    let bytes = &mut state.files[file].durable;
    match loss {
        Loss::Another => {
            for number in 0..SLOTS {
                let at = SMALL.slot(0, number) as usize;
                let slot = format::encode_slot(!identity().salt, 90 + number, &Note::default());
                bytes[at..at + slot.len()].copy_from_slice(&slot);
            }
            bytes[..SMALL.data_bytes(0) as usize].fill(0x55);
        }
        Loss::Cut(length) => bytes.truncate(length),
        Loss::Gone => {}
        Loss::Overwritten(from) => bytes[from..].fill(0x55),
        Loss::Zeroed => bytes.fill(0),
    }
}

/// A segment that forgot what it said last must not come back, with a floor that is too low or
/// without one: whatever happens to one file, all that was said is known, or nothing is served.
#[test]
fn every_lost_file_is_missed() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for _ in 0..12 {
        run.submit(400);
        run.sync().unwrap();
    }
    run.mark();
    let floor = Floor::of(&run.image);
    let names = directory.state().names();
    let last_used = SMALL.locate(run.log.bytes() - 1).index;
    assert_eq!(directory.find(&name(last_used + 2)), None);
    let data = SMALL.data_bytes(0) as usize;
    let cuts = [0, 1, data / 2, data, data + 4000, data + 5000].map(Loss::Cut);
    let tails = [data / 2, data - 1, data].map(Loss::Overwritten);
    let losses = [Loss::Another, Loss::Gone, Loss::Zeroed];
    let mut outcomes = [0; 3];
    for (name, file) in names {
        let index = index(name.as_ref()).unwrap();
        for loss in losses.into_iter().chain(cuts).chain(tails) {
            let lost = directory.fork();
            lose(&lost, &name, file, loss);
            let before = contents(&lost);
            let opened = Direct::open(&lost).unwrap();
            let opened = SegmentLog::open_or_replace(opened, &identity());
            let context = format!("{name} {loss:?}: {:?}", opened.as_ref().map(|(.., r)| r));
            match opened {
                Ok((_, image, Replay { replaced: Some(replaced), .. })) => {
                    assert!(index < last_used, "{context}");
                    assert_eq!((image.floor(), replaced.damage.floor), (Some(floor), floor));
                    outcomes[0] += 1;
                }
                Ok(opened) => {
                    // What was never used may go, and slots of which later ones say more.
                    let is_unused = index > last_used && matches!(loss, Loss::Gone);
                    let is_behind =
                        matches!(loss, Loss::Cut(from) | Loss::Overwritten(from) if from >= data);
                    assert!(is_unused || index < last_used && is_behind, "{context}");
                    assert_prefix(&opened, &run.writes, run.durable);
                    outcomes[1] += 1;
                }
                Err(OpenError::NotesLost) => {
                    assert!(index >= last_used, "{context}");
                    assert_eq!(contents(&lost), before, "{context}");
                    outcomes[2] += 1;
                }
                Err(OpenError::Header(_)) => assert_eq!(index, 0, "{context}"),
                Err(_) => panic!("{context}"),
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 20 || outcomes[1] == *count), "{outcomes:?}");
    assert!(outcomes[1] > 10, "{outcomes:?}");
}

/// A file holds durable bytes before any other one says so: if it is lost then, the files around
/// it must tell.
#[test]
fn a_file_that_was_just_begun_is_missed() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    while SMALL.locate(run.log.bytes() - 1).index < 1 {
        run.submit(200);
        run.sync().unwrap();
    }
    for loss in [Loss::Another, Loss::Cut(0), Loss::Gone, Loss::Zeroed] {
        let lost = directory.fork();
        lose(&lost, &name(1), directory.find(&name(1)).unwrap(), loss);
        let opened = open(&lost).map(|(opened, _)| opened.2);
        assert!(matches!(opened, Err(OpenError::NotesLost)), "{loss:?}: {opened:?}");
    }
}

/// A slot that a crash has torn must not stay so: while the other one is written, none would be
/// whole.
#[test]
fn a_start_makes_both_slots_whole() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    run.submit(0);
    run.mark();
    for number in 0..SLOTS {
        let torn = directory.fork();
        let file = torn.find(&name(0)).unwrap();
        let at = SMALL.slot(0, number) as usize;
        torn.state().files[file].durable[at + 20..at + 90].fill(0);
        open(&torn).unwrap();
        let direct = Direct::open(&torn).unwrap();
        let whole = direct.reader.slots.iter().filter(|slot| slot.index == 0).count();
        assert_eq!(whole as u64, SLOTS, "{number}");
    }
}

/// After a sync that failed, a second one may succeed without the bytes: nothing may be reported,
/// and a restart must write once more what it found.
#[test]
fn a_failed_sync_is_never_followed_by_another_report() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    run.submit(0);
    run.sync().unwrap();
    directory.state().syncs_left = Some(0);
    run.submit(0);
    assert!(run.sync().is_err());
    assert_eq!(run.durable, 1);
    {
        // The kernel takes the pages for written although the disk never got them: what reads now
        // find in memory is lost with the power, unless somebody writes it again.
        let mut state = directory.state();
        state.syncs_left = None;
        for file in &mut state.files {
            file.durable = file.now();
            file.writes.clear();
        }
        state.past = Some(Vec::new());
    }
    let (opened, _) = open(&directory).unwrap();
    assert_prefix(&opened, &run.writes, 1);
    assert_eq!(opened.2.frames, 2);
    let past = directory.state().past.take().unwrap();
    let of_frames = |(offset, _): &&(usize, Vec<u8>)| (*offset as u64) < SMALL.data_bytes(0);
    let rewritten = past.iter().map(|state| {
        let writes = state.files.iter().flat_map(|file| &file.writes).filter(of_frames);
        writes.map(|(_, piece)| piece.len()).sum::<usize>()
    });
    let rewritten = rewritten.max().unwrap();
    assert!(rewritten > 100, "only {rewritten} bytes of frames were written again");
}

/// A disk that is full must cost nothing: what was reported is there after space was freed, and
/// the log goes on.
#[test]
fn a_full_disk_stops_the_log_and_loses_nothing() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    // The first two files, and a half of the third.
    directory.state().space = Some(SMALL.file_bytes(0) as usize * 3 / 2);
    let error = loop {
        run.submit(100);
        if let Err(error) = run.sync() {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let Run { writes, durable, .. } = run;
    assert!(durable > 3);
    directory.state().space = None;
    let (opened, _) = open(&directory).unwrap();
    assert_prefix(&opened, &writes, durable);
    assert!(directory.state().names().iter().all(|(name, _)| !name.ends_with(UNFINISHED)));
}

/// A file of the first version must be told from damage, and left alone.
#[test]
fn a_log_of_the_first_version_is_recognised() {
    let directory = Fragile::default();
    let file = directory.create(OLD_NAME).unwrap();
    let mut header = format::encode_header(&identity()).unwrap();
    header[8..12].copy_from_slice(&1u32.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    file.write_at(0, &header).unwrap();
    let opened = open(&directory).map(|_| ());
    let expected = format::HeaderError::UnsupportedVersion { found: 1, supported: 6 };
    assert!(matches!(opened, Err(OpenError::Header(error)) if error == expected));
    assert_eq!(directory.state().names().len(), 1);
    assert_eq!(directory.state().files[0].now(), header);
}

/// Returns a run of many overwrites with checkpoints, on a disk that remembers.
fn overwritten(rounds: usize) -> Run {
    let directory = Fragile::default();
    directory.state().past = Some(Vec::new());
    let mut run = Run::start(directory);
    for round in 0..rounds {
        for length in [300, 300, 200] {
            run.submit(length);
            run.keep = if round % 3 == 1 { Keep::NearAndFar } else { Keep::Near };
            run.sync().unwrap();
        }
        if round % 2 == 1 {
            run.checkpoint();
        }
    }
    run
}

/// A crash at any point of a checkpoint, of what it trims, of a file that becomes another one and
/// is written, must leave a log that opens and has everything that was reported durable.
#[test]
fn every_crash_around_checkpoints_leaves_all_that_was_reported() {
    let run = overwritten(10);
    let past = run.directory.state().past.take().unwrap();
    let (mut crashes, mut recycled) = (0, 0);
    for snapshot in &past {
        let writes = snapshot.writes();
        let mut check = |left: &Fragile| {
            let (opened, _) = open(left).unwrap_or_else(|error| panic!("{error}"));
            assert_prefix(&opened, &run.writes, snapshot.reported);
            crashes += 1;
        };
        for changes in 0..=snapshot.changes.len() {
            check(&snapshot.crash(|_| Kept::Nothing, changes));
            check(&snapshot.crash(|_| Kept::Whole, changes));
            for one in 0..writes {
                check(&snapshot.crash(|number| Kept::by(number == one), changes));
                check(&snapshot.crash(|number| Kept::by(number != one), changes));
                check(
                    &snapshot.crash(
                        |number| if number == one { Kept::Half } else { Kept::Whole },
                        changes,
                    ),
                );
            }
        }
        recycled += usize::from(snapshot.changes.len() > 1);
    }
    assert!(past.len() > 100 && crashes > 1000, "{} states, {crashes} crashes", past.len());
    assert!(recycled > 5, "{recycled} states in the middle of a new name");
}

/// Endless overwrites of a few pages must take no more space than a few files.
#[test]
fn a_log_of_overwrites_stays_small() {
    let mut run = overwritten(4);
    run.directory.state().past = None;
    let mut most = 0;
    for round in 0..100 {
        for _ in 0..3 {
            run.submit(300);
            run.sync().unwrap();
        }
        if round % 2 == 1 {
            run.checkpoint();
        }
        most = most.max(run.directory.state().names().len());
    }
    let last = SMALL.locate(run.log.bytes() - 1).index;
    assert!(last > 200, "{last}");
    assert!(most < 25, "{most} files");
    let (opened, _) = open(&run.directory).unwrap();
    assert_prefix(&opened, &run.writes, run.durable);
    assert!(opened.2.frames < 20, "{} frames were replayed", opened.2.frames);
}

/// Without its store, a log that was trimmed is not served, and nothing is changed.
#[test]
fn a_lost_store_is_missed() {
    let run = overwritten(8);
    let lost = run.directory.fork();
    lost.state().store = None;
    let before = contents(&lost);
    let direct = Direct::open(&lost).unwrap();
    let opened = SegmentLog::open_or_replace(direct, &identity()).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Store(StoreError::Gone))), "{opened:?}");
    assert_eq!(contents(&lost), before);
}

/// As [`every_lost_file_is_missed`], for a log with a checkpoint.
#[test]
fn every_lost_file_after_a_checkpoint_is_missed() {
    let mut run = overwritten(10);
    run.directory.state().past = None;
    let at = run.log.bytes();
    for _ in 0..3 {
        run.submit(400);
        run.sync().unwrap();
    }
    run.mark();
    let floor = Floor::of(&run.image);
    let last_used = SMALL.locate(run.log.bytes() - 1).index;
    let first_replayed = SMALL.locate(at).index;
    let data = SMALL.data_bytes(0) as usize;
    let cuts = [0, 1, data / 2].map(Loss::Cut);
    let losses = [Loss::Another, Loss::Gone, Loss::Zeroed];
    let mut outcomes = [0; 4];
    let names = run.directory.state().names();
    for (name, file) in names {
        let index = index(name.as_ref()).unwrap();
        for loss in losses.into_iter().chain(cuts) {
            let lost = run.directory.fork();
            lose(&lost, &name, file, loss);
            let before = contents(&lost);
            let opened = Direct::open(&lost).unwrap();
            let opened = SegmentLog::open_or_replace(opened, &identity());
            let context = format!("{name} {loss:?}: {:?}", opened.as_ref().map(|(.., r)| r));
            match opened {
                Ok((_, image, Replay { replaced: Some(_), .. })) => {
                    assert!((first_replayed..last_used).contains(&index), "{context}");
                    assert_eq!(image.floor(), Some(floor), "{context}");
                    outcomes[0] += 1;
                }
                Ok(opened) => {
                    // What is superfluous may go, but for the header, and what was never used.
                    assert!(!(first_replayed..=last_used).contains(&index), "{context}");
                    assert_prefix(&opened, &run.writes, run.durable);
                    outcomes[1] += 1;
                }
                Err(OpenError::NotesLost | OpenError::PayloadsLost { .. }) => {
                    assert_eq!(contents(&lost), before, "{context}");
                    outcomes[2] += 1;
                }
                Err(OpenError::Header(_)) => {
                    assert_eq!(index, 0, "{context}");
                    outcomes[3] += 1;
                }
                Err(_) => panic!("{context}"),
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 1), "{outcomes:?}");
}

/// What a crash left behind the tail must be gone, though what is written next has just its size:
/// the frame behind that would be taken for one that follows.
#[test]
fn what_lies_behind_the_tail_does_not_come_back() {
    let directory = Fragile::default();
    let mut run = Run::start(directory.clone());
    for _ in 0..3 {
        run.submit(300);
        run.sync().unwrap();
    }
    let reported = run.durable;
    // Two frames, of which a crash loses a part of the first one.
    let first = run.log.bytes();
    run.submit(300);
    run.submit(300);
    run.sync().unwrap();
    let lost = run.writes.pop().unwrap();
    let left = directory.fork();
    for offset in first + 20..first + 150 {
        let place = SMALL.locate(offset);
        let file = left.find(&name(place.index)).unwrap();
        left.state().files[file].durable[place.within as usize] = 0;
    }
    let (opened, shared) = open(&left).unwrap();
    let (log, image, replay) = opened;
    assert_eq!(replay.frames as usize, reported);
    let writes = run.writes[..reported].to_vec();
    let mut next = Run {
        directory: left.clone(),
        shared,
        log,
        image,
        writes,
        durable: reported,
        keep: Keep::Near,
    };
    let mut other = run.writes[reported].clone();
    other.records[0].cpl = false;
    let payload = payload_of(other.records[0].lsn.get(), 300);
    next.log.append(&other, &[&payload]).unwrap();
    next.writes.push(other);
    next.sync().unwrap();
    let (opened, _) = open(&left).unwrap();
    assert_prefix(&opened, &next.writes, reported + 1);
    assert_eq!(opened.2.frames as usize, reported + 1);
    assert!(!opened.1.holds(lost.records[0].lsn));
}

/// One life of a log: groups of frames by the lengths of their payloads, and then a crash.
#[derive(Clone, Debug)]
struct Life {
    groups: Vec<Vec<usize>>,
    /// Which of the states since the start the crash finds.
    moment: prop::sample::Index,
    /// Which of the writes that no sync covers it keeps.
    kept: u64,
    changes: prop::sample::Index,
    /// After which groups there is a checkpoint.
    checkpoints: u8,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let group = proptest::collection::vec(0..1200usize, 1..4);
    let life = (
        proptest::collection::vec(group, 0..6),
        any::<prop::sample::Index>(),
        any::<u64>(),
        any::<prop::sample::Index>(),
        any::<u8>(),
    );
    let life = life.prop_map(|(groups, moment, kept, changes, checkpoints)| Life {
        groups,
        moment,
        kept,
        changes,
        checkpoints,
    });
    proptest::collection::vec(life, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Many starts and crashes, some in the middle of a start, must never lose what was reported
    /// or bring back what was cut off: numbers of frames and the salt are used again.
    #[test]
    fn many_crashes_lose_nothing_and_bring_nothing_back(lives in lives()) {
        let mut directory = Fragile::default();
        let mut writes: Vec<SegmentWrite> = Vec::new();
        let mut reported = 0;
        for (number, life) in lives.iter().enumerate() {
            {
                let mut state = directory.state();
                state.past = Some(Vec::new());
                state.reported = reported;
                state.remember();
            }
            let (opened, shared) = open(&directory).unwrap();
            assert_prefix(&opened, &writes, reported);
            let (log, image, replay) = opened;
            writes.truncate((replay.checkpoint + replay.frames) as usize);
            let durable = writes.len();
            let keep = if number % 2 == 0 { Keep::Near } else { Keep::NearAndFar };
            let mut run =
                Run { directory: directory.clone(), shared, log, image, writes, durable, keep };
            directory.state().reported = durable;
            for (at, group) in life.groups.iter().enumerate() {
                // Each life writes other bytes in the place of those that were lost.
                group.iter().for_each(|length| run.submit(length + number));
                run.sync().unwrap();
                if life.checkpoints >> at & 1 == 1 {
                    run.checkpoint();
                }
            }
            writes = run.writes;
            let past = directory.state().past.take().unwrap();
            let moment = life.moment.get(&past);
            let kept = life.kept;
            let changes = life.changes.index(moment.changes.len() + 1);
            directory = moment.crash(|write| Kept::by(kept >> (write % 64) & 1 == 1), changes);
            reported = moment.reported;
        }
    }
}
