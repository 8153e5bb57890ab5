//! The disk of one machine: a page cache above sectors that a crash may lose or tear.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::random::Random;
use super::trace::{Fault, Trace};
use crate::format::{self, Note};
use crate::store::{self, Checkpointed, MemoryTables, Snapshot, StoreError};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// How long a sync takes.
const SYNC_MIN: Duration = Duration::from_micros(40);
const SYNC_MAX: Duration = Duration::from_micros(250);

/// How long the transaction of a checkpoint takes.
pub(super) const CHECKPOINT_MIN: Duration = Duration::from_micros(200);
pub(super) const CHECKPOINT_MAX: Duration = Duration::from_millis(20);

/// How much longer a slow disk takes.
const SLOW_FACTOR: u64 = 100;

/// The log on a disk, and what of it would survive.
#[derive(Debug, Default)]
pub(super) struct Disk {
    file: Option<File>,
    /// Small files, each written whole and durable at once.
    pub(super) kept: BTreeMap<PathBuf, Vec<u8>>,
    pub(super) is_slow: bool,
    /// Whether the next sync fails.
    pub(super) is_failing: bool,
    /// Whether it reports a sync before it has written anything.
    pub(super) is_lying: bool,
    /// Rises with every crash: a sync under way before one says nothing after it.
    pub(super) generation: u64,
}

#[derive(Debug)]
struct File {
    /// What a read sees: everything written, on the disk or in the cache.
    contents: Vec<u8>,
    /// So much of it survives a power loss.
    durable: usize,
    /// The notes that survive a power loss, the last one last; all but two have been overwritten.
    notes: Vec<Note>,
    /// The page store: what its last transaction has made it.
    store: MemoryTables,
    /// What the one under way makes of it.
    checkpointing: Option<(MemoryTables, Checkpointed)>,
    /// The checkpoint in the store.
    checkpoint: Option<Checkpointed>,
    /// No byte before this one is there any more, but for the header.
    trimmed: usize,
    /// Submitted frames behind the sync under way: number and end.
    waiting: Option<Batch>,
    syncing: Option<Batch>,
    is_broken: bool,
    is_locked: bool,
}

/// The last frame that one sync covers.
#[derive(Clone, Copy, Debug)]
struct Batch {
    number: u64,
    end: usize,
    note: Note,
}

/// What a sync came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Synced {
    Durable { through: u64, bytes: usize },
    Failed,
    Nothing,
}

impl Disk {
    /// Opens and locks the log, and creates it if there is none; `None` when it is locked.
    pub(super) fn open(&mut self, header: &[u8]) -> Option<u64> {
        let file = self.file.get_or_insert_with(|| File {
            contents: header.to_vec(),
            durable: header.len(),
            notes: Vec::new(),
            store: MemoryTables::default(),
            checkpointing: None,
            checkpoint: None,
            trimmed: 0,
            waiting: None,
            syncing: None,
            is_broken: false,
            is_locked: false,
        });
        if file.is_locked {
            return None;
        }
        file.is_locked = true;
        Some(file.contents.len() as u64)
    }

    /// Returns the bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let file = self.file.as_ref().ok_or_else(end)?;
        let offset = usize::try_from(offset).map_err(|_| end())?;
        if offset > 0 && offset < file.trimmed {
            return Err(end());
        }
        // What was never written reads as zeros.
        let written = file.contents.get(offset..).unwrap_or_default();
        let (from, zeros) = into.split_at_mut(written.len().min(into.len()));
        from.copy_from_slice(written.get(..from.len()).unwrap_or_default());
        zeros.fill(0);
        Ok(())
    }

    /// Returns the notes beside the log.
    pub(super) fn notes(&self) -> Vec<Note> {
        self.file.as_ref().map(|file| file.notes.clone()).unwrap_or_default()
    }

    /// Returns what `job` makes of the page store.
    pub(super) fn stored<T>(
        &self,
        job: impl FnOnce(&MemoryTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        job(&self.file.as_ref().ok_or(StoreError::Gone)?.store)
    }

    /// Begins a checkpoint.
    pub(super) fn checkpoint(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let file = self.file.as_ref().ok_or(StoreError::Gone)?;
        let (identity, _) =
            format::decode_header(&file.contents).map_err(|_| StoreError::Damaged)?;
        let mut tables = file.store.clone();
        let read = |at, into: &mut [u8]| self.read(at, into);
        let made = store::write(&mut tables, identity.salt, snapshot, &read)?;
        if let Some(file) = &mut self.file {
            file.checkpointing = Some((tables, made));
        }
        Ok(())
    }

    /// Ends the checkpoint under way: its transaction is durable.
    pub(super) fn end_checkpoint(&mut self) -> Option<Checkpointed> {
        let file = self.file.as_mut()?;
        let (tables, made) = file.checkpointing.take()?;
        file.store = tables;
        file.checkpoint = Some(made);
        Some(made)
    }

    /// Drops what lies before `kept`.
    pub(super) fn trim(&mut self, kept: u64, trace: &mut Trace) {
        let Some(file) = &mut self.file else { return };
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        let Ok((_, begin)) = format::decode_header(&file.contents) else { return };
        if kept > file.trimmed.max(begin) {
            trace.fire(Fault::Trim);
            // Bytes of another use: nobody may take them for anything.
            if let Some(gone) = file.contents.get_mut(file.trimmed.max(begin)..kept) {
                gone.fill(0x55);
            }
            file.trimmed = kept;
        }
    }

    /// Returns an empty disk in the place of this one.
    pub(super) fn replaced(&self) -> Self {
        let generation = self.generation.saturating_add(1);
        Self { generation, is_lying: self.is_lying, ..Self::default() }
    }

    /// Cuts the log and makes what is left durable.
    pub(super) fn settle(&mut self, length: u64) {
        if let Some(file) = &mut self.file {
            // Longer than it is, when the last frame ends in zeros of which some were lost.
            file.contents.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
            file.durable = file.contents.len();
        }
    }

    /// Replaces the log by its first `kept` bytes and `frame`; returns its length.
    pub(super) fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> u64 {
        let Some(file) = &mut self.file else { return 0 };
        file.contents.resize(usize::try_from(kept).unwrap_or(usize::MAX), 0);
        file.contents.extend_from_slice(frame);
        file.durable = file.contents.len();
        file.notes = vec![note];
        file.contents.len() as u64
    }

    /// Damages some bytes of frames that a note says were durable; returns whether there were any.
    pub(super) fn rot(&mut self, random: &mut Random) -> bool {
        let Some(file) = &mut self.file else { return false };
        let Ok((_, begin)) = format::decode_header(&file.contents) else { return false };
        // What a start doesn't replay is found when it is read, and costs the disk.
        let replayed = file.checkpoint.map_or(0, |checkpoint| checkpoint.at);
        let begin = begin.max(usize::try_from(replayed).unwrap_or(usize::MAX));
        let noted = file.notes.iter().map(|note| note.durable).max().unwrap_or(0);
        let noted = usize::try_from(noted).unwrap_or(usize::MAX).min(file.contents.len());
        let Some(frames) = file.contents.get_mut(begin.min(noted)..noted) else { return false };
        if frames.is_empty() {
            return false;
        }
        let at = random.index(frames.len());
        // A bit, or what is left of a sector.
        if random.chance(500) {
            let bit = random.below(8);
            frames.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        } else {
            frames.iter_mut().skip(at).take(SECTOR_BYTES).for_each(|byte| *byte = !*byte);
        }
        true
    }

    /// Appends a frame; returns when a sync that begins now ends, if one begins.
    pub(super) fn submit(
        &mut self,
        number: u64,
        bytes: &[u8],
        note: Note,
        random: &mut Random,
        trace: &mut Trace,
    ) -> Option<u64> {
        let file = self.file.as_mut()?;
        if file.is_broken {
            return None;
        }
        file.contents.extend_from_slice(bytes);
        file.waiting = Some(Batch { number, end: file.contents.len(), note });
        self.begin(random, trace)
    }

    /// Begins the next sync, for all that waits (group commit); returns how long it takes.
    pub(super) fn begin(&mut self, random: &mut Random, trace: &mut Trace) -> Option<u64> {
        let file = self.file.as_mut()?;
        if file.is_broken || file.syncing.is_some() {
            return None;
        }
        file.syncing = Some(file.waiting.take()?);
        let usual = random.span(SYNC_MIN, SYNC_MAX);
        if self.is_slow {
            trace.fire(Fault::SlowDisk);
            return Some(usual.saturating_mul(SLOW_FACTOR));
        }
        Some(usual)
    }

    /// Ends the sync under way.
    pub(super) fn end(&mut self, trace: &mut Trace) -> Synced {
        let Some(file) = &mut self.file else { return Synced::Nothing };
        let Some(Batch { number, end, note }) = file.syncing.take() else { return Synced::Nothing };
        if std::mem::take(&mut self.is_failing) {
            trace.fire(Fault::SyncError);
            file.is_broken = true;
            return Synced::Failed;
        }
        let bytes = end.saturating_sub(file.durable);
        if !self.is_lying {
            file.durable = end;
            file.note(note);
        }
        Synced::Durable { through: number, bytes }
    }

    /// Takes the end of the process: what its thread has not written yet is gone.
    pub(super) fn kill(&mut self, random: &mut Random, trace: &mut Trace) {
        self.generation = self.generation.saturating_add(1);
        let Some(file) = &mut self.file else { return };
        let pending = file.contents.len().saturating_sub(file.durable);
        if !self.is_lying {
            let kept = random.index(pending.saturating_add(1));
            if kept < pending {
                trace.fire(Fault::LostWrite);
                file.contents.truncate(file.durable.saturating_add(kept));
            }
        }
        file.maybe_note(random);
        file.unlock();
    }

    /// Takes a power loss: each sector that was not durable is there or not, by itself.
    pub(super) fn lose_power(&mut self, random: &mut Random, trace: &mut Trace) {
        self.generation = self.generation.saturating_add(1);
        let Some(file) = &mut self.file else { return };
        let pending = file.contents.len().saturating_sub(file.durable);
        if !self.is_lying {
            file.maybe_note(random);
        }
        file.unlock();
        if pending == 0 {
            return;
        }
        // The length of a file is written by itself, too.
        let kept = if random.chance(500) { pending } else { random.index(pending + 1) };
        file.contents.truncate(file.durable.saturating_add(kept));
        let mut lost = usize::from(kept < pending);
        let mut survived = 0usize;
        let mut at = file.durable;
        while at < file.contents.len() {
            let end = (at / SECTOR_BYTES).saturating_add(1).saturating_mul(SECTOR_BYTES);
            let end = end.min(file.contents.len());
            if random.chance(500) {
                if let Some(sector) = file.contents.get_mut(at..end) {
                    sector.fill(0);
                }
                lost = lost.saturating_add(1);
            } else {
                if lost > usize::from(kept < pending) {
                    trace.fire(Fault::ReorderedWrite);
                }
                survived = survived.saturating_add(1);
            }
            at = end;
        }
        if lost > 0 {
            trace.fire(Fault::LostWrite);
        }
        if lost > 0 && survived > 0 {
            trace.fire(Fault::TornWrite);
        }
    }
}

impl File {
    /// Keeps a note in place of the older one of the last two.
    fn note(&mut self, note: Note) {
        self.notes.push(note);
        if self.notes.len() > 2 {
            self.notes.remove(0);
        }
    }

    /// Keeps the notes of what was not durable, or doesn't: they are written by themselves.
    fn maybe_note(&mut self, random: &mut Random) {
        for batch in [self.syncing, self.waiting].into_iter().flatten() {
            if random.chance(500) {
                self.note(batch.note);
            }
        }
    }

    fn unlock(&mut self) {
        self.waiting = None;
        self.syncing = None;
        self.checkpointing = None;
        self.is_broken = false;
        self.is_locked = false;
    }
}
