//! A log as a sequence of files whose space is taken before they are used.
//!
//! A sync of a file that grows waits for the file system's journal; one of bytes that were written
//! before does not. So a log that is written slowly writes zeros ahead of itself. Nothing here
//! knows of threads: [`Reader`] is what a segment's loop reads a log with, [`Writer`] what whoever
//! writes has, and they meet in the files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;

use super::blocks::Blocks;
use super::directory::{Directory, DirectoryFile};
use super::layout::{Layout, Place};
use super::making::{Blank, Ready, UNFINISHED, extend, prepare};
use super::opened::Files;
use super::replacing::{self, Contents};
use crate::format::{self, HEADER_BYTES, IDENTITY_BYTES_MAX, Note, SLOT_BYTES, SLOTS};

/// The name of a log's only file in the first version of the format. It is opened as the first
/// one, so that its header can tell its version.
const OLD_NAME: &str = "segment.log";

/// The highest number of a file. So many of the longest files are 256 PiB.
pub(super) const INDEX_MAX: u32 = u32::MAX - 1;

/// How many bytes are written, read or synced at once while a file is prepared, searched or cut: a
/// sync of the log that comes meanwhile waits no longer than for these.
const CHUNK_BYTES: usize = 1 << 20;

/// How far ahead of a log that is written slowly its file holds zeros: what such a log takes in the
/// time between two looks at it, [`crate::env::NOTE_AFTER`], and more.
const AHEAD_BYTES: u64 = 256 << 10;

/// How much memory for blocks is kept from one group of frames to the next.
const BLOCKS_BYTES_KEPT: usize = 1 << 20;

/// Returns the name of the file with this number.
pub(super) fn name(index: u32) -> String {
    format!("segment.{index:06}.log")
}

/// Returns the number in a file's name.
pub(super) fn index(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let digits = name.strip_prefix("segment.")?.strip_suffix(".log")?;
    digits.parse().ok().filter(|index| self::name(*index) == name)
}

/// Returns whether a file of this name is part of a log, of this version or an earlier one, or
/// shows that one is being replaced.
pub(super) fn is_log(name: &OsStr) -> bool {
    name == OLD_NAME || index(name).is_some() || replacing::is_mark(name)
}

/// Returns whether a file of this name begins a log, of this version or an earlier one.
pub(super) fn is_first(name: &OsStr) -> bool {
    name == OLD_NAME || index(name) == Some(0)
}

/// Returns `bytes`, at most a chunk.
pub(super) fn chunk(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
}

/// A whole slot of a file that has its full length.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The number of the file.
    index: u32,
    /// Which of the file's slots.
    number: u64,
    bytes: [u8; SLOT_BYTES],
    note: Note,
}

/// A log that is read and, at the start, cut.
#[derive(Debug)]
pub(super) struct Reader<D: Directory> {
    directory: D,
    layout: Layout,
    files: Files<D>,
    /// The numbers of the files that there were.
    indices: BTreeSet<u32>,
    /// The first one, but for file 0, that the log has to have.
    first: u32,
    length: u64,
    notes: Vec<Note>,
    /// The slots of `notes`.
    slots: Vec<Slot>,
    salt: u64,
    /// The number of the next slot.
    sequence: u64,
}

impl<D: Directory> Reader<D> {
    /// Opens the log in `directory`; creates it with `header` if there is no file of one.
    ///
    /// Whatever is missing reads as zeros: the notes and frames that are left show whether it
    /// mattered.
    pub(super) fn open(directory: D, layout: Layout, header: &[u8]) -> io::Result<Self> {
        replacing::finish(&directory)?;
        let mut indices = BTreeSet::new();
        let mut is_old = false;
        for found in directory.names()? {
            indices.extend(index(&found));
            is_old |= found == OLD_NAME;
            if let Some(unfinished) = found.to_str()
                && unfinished.strip_suffix(UNFINISHED).is_some_and(|n| index(n.as_ref()).is_some())
            {
                directory.remove(unfinished)?;
            }
        }
        let files = Files::new(directory.clone(), layout);
        if indices.is_empty() {
            let file = if is_old {
                directory.open(OLD_NAME)?
            } else {
                let salt = format::decode_header(header).map_or(0, |(identity, _)| identity.salt);
                let blank = Blank { header, salt };
                Some(prepare(&directory, &layout, 0, blank, &|| false)?)
            };
            files.extend(file.map(|file| (0, file)));
            indices.insert(0);
        }
        let mut reader = Self {
            directory,
            layout,
            files,
            indices,
            first: 0,
            length: 0,
            notes: Vec::new(),
            slots: Vec::new(),
            salt: 0,
            sequence: 0,
        };
        reader.length = reader.find_length()?;
        reader.read_notes()?;
        Ok(reader)
    }

    fn with<T>(
        &self,
        index: u32,
        job: impl FnOnce(&D::File) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        self.files.with(index, job)
    }

    /// Fills `into` with the log's bytes from `offset` on, zeros where there are none.
    pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.files.read_at(offset, into)
    }

    /// Returns where the last byte that isn't zero ends.
    fn find_length(&self) -> io::Result<u64> {
        let mut window = Vec::new();
        for index in self.indices.iter().rev() {
            let first = self.layout.start(*index);
            let mut end = first.saturating_add(self.layout.data_bytes(*index));
            while end > first {
                window.resize(chunk(end.saturating_sub(first)), 0);
                let start = end.saturating_sub(window.len() as u64);
                self.read_at(start, &mut window)?;
                if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
                    return Ok(start.saturating_add(last as u64).saturating_add(1));
                }
                end = start;
            }
        }
        Ok(0)
    }

    /// Returns whether files were there behind the second one, and the second one wasn't: none but
    /// a log that has a checkpoint lacks it.
    pub(super) fn is_trimmed(&self) -> bool {
        !self.indices.contains(&1) && self.indices.last().is_some_and(|last| *last > 1)
    }

    /// Returns the number of the first file, but for file 0, that the log has to have.
    pub(super) const fn first(&self) -> u32 {
        self.first
    }

    /// Takes what a checkpoint says of the files that the log has to have, as
    /// [`crate::env::LogFile::holds`] says.
    pub(super) fn holds(&mut self, kept: u64, at: u64) -> bool {
        self.first = self.layout.first_kept(kept);
        let payloads = self.layout.locate(kept).index..self.layout.locate(at).index;
        payloads.into_iter().all(|index| self.slots.iter().any(|slot| slot.index == index))
    }

    /// Forgets the files that a checkpoint has made superfluous; returns the first other one.
    pub(super) fn trim(&mut self, kept: u64) -> u32 {
        self.first = self.layout.first_kept(kept).max(self.first);
        self.files.forget(self.first);
        self.first
    }

    fn read_notes(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES + IDENTITY_BYTES_MAX];
        self.read_at(0, &mut header)?;
        // A log whose header is bad isn't served, with notes or without.
        let Ok((identity, _)) = format::decode_header(&header) else { return Ok(()) };
        self.salt = identity.salt;
        for index in self.indices.clone() {
            let length = self.with(index, DirectoryFile::length)?.unwrap_or(0);
            for number in 0..SLOTS {
                let mut bytes = [0; SLOT_BYTES];
                let at = self.layout.slot(index, number);
                self.with(index, |file| file.read_at(at, &mut bytes))?;
                let Some((sequence, note)) = format::decode_slot(self.salt, &bytes) else {
                    continue;
                };
                self.sequence = self.sequence.max(sequence.saturating_add(1));
                self.notes.push(note);
                // The other slot of a file that was cut may have said more.
                if length >= self.layout.file_bytes(index) {
                    self.slots.push(Slot { index, number, bytes, note });
                }
            }
        }
        Ok(())
    }

    /// As [`crate::env::LogFile::has_newest_note`] says: whether each file that may have held the
    /// newest note still has a whole slot.
    ///
    /// A file's slots are written as long as it is the log's last one, and once more when the next
    /// one is known to hold durable bytes. So the newest note is in no file before the last one of
    /// which a slot says so itself; and in none of those that a checkpoint has made superfluous.
    pub(super) fn has_newest_note(&self, durable: u64) -> bool {
        let last = self.layout.locate(durable.saturating_sub(1)).index;
        let last = last.max(self.indices.last().copied().unwrap_or(0));
        let is_used = |slot: &&Slot| slot.note.durable > self.layout.start(slot.index);
        let first = self.slots.iter().filter(is_used).map(|slot| slot.index).max().unwrap_or(0);
        let first = first.max(self.first);
        (first..=last).all(|index| self.slots.iter().any(|slot| slot.index == index))
    }

    pub(super) const fn salt(&self) -> u64 {
        self.salt
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Cuts the log to `length`, as [`crate::env::LogFile::settle`] says.
    pub(super) fn settle(&mut self, doubtful: u64, length: u64, until: u64) -> io::Result<()> {
        let first = self.layout.locate(doubtful.min(length)).index;
        let block = self.layout.block;
        let own: Vec<u32> = self.indices.range(first..).copied().collect();
        for index in &own {
            let bytes = self.layout.file_bytes(*index);
            // A file that lost its end gets it back: what is written there is to be overwritten.
            self.with(*index, |file| extend(file, block, file.length()?..bytes, &|| false))?;
        }
        let end = self.block_end(until.max(length));
        let mut at = doubtful.min(length);
        while at < end {
            let bound = if at < length { length } else { end };
            let mut bytes = vec![0; chunk(bound.saturating_sub(at))];
            let place = self.layout.locate(at);
            bytes.truncate(usize::try_from(place.left).unwrap_or(usize::MAX));
            if at < length {
                self.read_at(at, &mut bytes)?;
            }
            self.with(place.index, |file| file.write_at(place.within, &bytes))?;
            at = at.saturating_add(bytes.len() as u64);
        }
        self.settle_slots(first)?;
        for index in own {
            self.with(index, DirectoryFile::sync)?;
        }
        self.length = length;
        // A file may have got its name just before a crash.
        self.directory.sync()
    }

    /// Returns where the block ends that the byte at `offset` is in.
    fn block_end(&self, offset: u64) -> u64 {
        let place = self.layout.locate(offset);
        let block = self.layout.block as u64;
        let left = block.saturating_sub(place.within % block).min(place.left);
        offset.saturating_add(left)
    }

    /// Writes the slots of the files from number `first` on once more. A slot that isn't whole gets
    /// what the other one says, so that one of them is while the other one is written.
    fn settle_slots(&self, first: u32) -> io::Result<()> {
        for slot in self.slots.iter().filter(|slot| slot.index >= first) {
            let own = slot.index;
            let is_alone = self.slots.iter().filter(|other| other.index == own).count() == 1;
            for number in 0..SLOTS {
                if is_alone || number == slot.number {
                    let at = self.layout.slot(own, number);
                    self.with(own, |file| file.write_at(at, &slot.bytes))?;
                }
            }
        }
        Ok(())
    }

    /// Replaces the log, as [`crate::env::LogFile::replace`] says.
    pub(super) fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String> {
        let (read, salt) = (&|at, into: &mut [u8]| self.read_at(at, into), self.salt);
        let contents = Contents { read, first: self.first, kept, frame, note, salt };
        let aside = replacing::replace(&self.directory, &self.layout, &contents)?;
        let first = self.first;
        *self = Self::open(self.directory.clone(), self.layout, &[])?;
        self.first = first;
        Ok(aside)
    }

    /// Returns what appends behind the end of this log, with files from `supply`.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn writer<S: Supply<D::File>>(&self, supply: S) -> io::Result<Writer<D, S>> {
        let within = self.layout.locate(self.length).within;
        let mut partial = vec![0; usize::try_from(within).unwrap_or(0) % self.layout.block];
        self.read_at(self.length.saturating_sub(partial.len() as u64), &mut partial)?;
        Ok(Writer {
            layout: self.layout,
            salt: self.salt,
            supply,
            files: BTreeMap::new(),
            recycled: None,
            tail: self.length,
            partial,
            blocks: Blocks::default(),
            written: u32::MAX,
            end: 0,
            cleared: (u32::MAX, 0),
            looked: self.length,
            sequence: self.sequence,
            told: 0,
        })
    }
}

/// Where a writer's files come from.
pub(super) trait Supply<F> {
    /// Asks for the file with this number to be prepared, if it isn't there. Returns at once.
    fn request(&mut self, index: u32);

    /// Returns whether the file with this number can be taken without waiting.
    fn is_ready(&mut self, index: u32) -> bool;

    /// Returns the file with this number; waits while it is being prepared.
    fn take(&mut self, index: u32) -> io::Result<Ready<F>>;
}

/// Where the note of a group of frames is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keep {
    /// Behind the frames, in the same write.
    Near,
    /// There, and in a slot at the file's end: one more write to the disk.
    NearAndFar,
}

/// Frames of which a part is taken.
#[derive(Debug)]
struct Pieces<'a> {
    frames: &'a [Vec<u8>],
    /// How much of the first frame is taken.
    skip: usize,
}

impl Pieces<'_> {
    /// Adds the next `length` bytes to `blocks`.
    fn give(&mut self, length: usize, blocks: &mut Blocks) {
        let mut left = length;
        while left > 0
            && let Some((first, others)) = self.frames.split_first()
        {
            let rest = first.get(self.skip..).unwrap_or(&[]);
            let (piece, behind) = rest.split_at_checked(left).unwrap_or((rest, &[]));
            blocks.add(piece);
            left = left.saturating_sub(piece.len());
            self.skip = self.skip.saturating_add(piece.len());
            if behind.is_empty() {
                (self.frames, self.skip) = (others, 0);
            }
        }
    }
}

/// What appends to a log. After an error it must not be used again.
#[derive(Debug)]
pub(super) struct Writer<D: Directory, S> {
    layout: Layout,
    salt: u64,
    supply: S,
    /// The files that are written: the last one, and the one before it until its slot is.
    files: BTreeMap<u32, D::File>,
    /// The last of them that was recycled.
    recycled: Option<u32>,
    tail: u64,
    /// The bytes of the last block up to the tail: they are written again with what follows.
    partial: Vec<u8>,
    blocks: Blocks,
    /// The file that was written last, and where that write ended.
    written: u32,
    end: u64,
    /// Up to where a file was written with zeros, its number first.
    cleared: (u32, u64),
    /// Where the tail was when that was last looked at.
    looked: u64,
    sequence: u64,
    /// A slot of the file before this one says that this one holds durable bytes.
    told: u32,
}

impl<D: Directory, S: Supply<D::File>> Writer<D, S> {
    /// Appends `frames`, keeps `note`, and makes both durable.
    pub(super) fn append(&mut self, frames: &[Vec<u8>], note: &Note, keep: Keep) -> io::Result<()> {
        let length: usize = frames.iter().map(Vec::len).sum();
        let mut left = length;
        let mut at = self.tail;
        let mut rest = Pieces { frames, skip: 0 };
        let (last, is_near) = loop {
            let place = self.layout.locate(at);
            let piece = usize::try_from(place.left).unwrap_or(left).min(left);
            left = left.saturating_sub(piece);
            let last = (left == 0).then_some(note);
            let is_near = self.append_piece(place, &mut rest, piece, last)?;
            at = at.saturating_add(piece as u64);
            if left == 0 {
                break (place.index, is_near);
            }
        };
        self.tail = at;
        if keep == Keep::NearAndFar {
            self.clear_ahead()?;
        }
        if keep == Keep::NearAndFar || !is_near {
            self.write_slot(last, note)?;
        }
        if let Some(before) = last.checked_sub(1)
            && self.told < last
            && note.durable > self.layout.start(last)
        {
            // Without this, nothing in the files before would miss this one if it were lost.
            self.write_slot(before, note)?;
            self.told = last;
        }
        let keep = if self.told == last { last } else { last.saturating_sub(1) };
        self.files.retain(|index, _| *index >= keep);
        Ok(())
    }

    /// Writes the next `length` bytes of `pieces` at `place` of a file, in whole blocks; behind
    /// them, if they are the last ones, the note. Returns whether there was room for that.
    fn append_piece(
        &mut self,
        place: Place,
        pieces: &mut Pieces<'_>,
        length: usize,
        note: Option<&Note>,
    ) -> io::Result<bool> {
        let block = self.layout.block;
        let before = self.partial.len();
        let from = place.within.saturating_sub(before as u64);
        let end = before.saturating_add(length);
        let room = usize::try_from(self.layout.data_bytes(place.index).saturating_sub(from))
            .unwrap_or(usize::MAX);
        let with_note = end.saturating_add(SLOT_BYTES).next_multiple_of(block);
        let slot = note.filter(|_| with_note <= room).map(|note| {
            let at = from.saturating_add(with_note as u64).saturating_sub(SLOT_BYTES as u64);
            let at = self.layout.start(place.index).saturating_add(at);
            format::encode_slot(self.salt, at, note)
        });
        let whole = if slot.is_some() { with_note } else { end.next_multiple_of(block) };
        let slot_bytes = slot.as_ref().map_or(0, Vec::len);
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear(whole);
        blocks.add(&self.partial);
        pieces.give(length, &mut blocks);
        blocks.add_zeros(whole.saturating_sub(end).saturating_sub(slot_bytes));
        blocks.add(slot.as_deref().unwrap_or(&[]));
        let written =
            self.file(place.index).and_then(|file| file.write_through(from, blocks.bytes()));
        (self.written, self.end) = (place.index, from.saturating_add(whole as u64));
        self.partial.clear();
        let whole_blocks = end.saturating_sub(end % block);
        self.partial.extend_from_slice(blocks.bytes().get(whole_blocks..end).unwrap_or(&[]));
        blocks.shrink(BLOCKS_BYTES_KEPT);
        self.blocks = blocks;
        written?;
        Ok(slot.is_some())
    }

    /// Writes zeros where the log goes on, as long as little is written: a sync of bytes that were
    /// written before doesn't wait for the file system's journal. Where much is written at once,
    /// that costs less than writing everything twice.
    fn clear_ahead(&mut self) -> io::Result<()> {
        let Place { index, within, left } = self.layout.locate(self.tail);
        let is_slow = self.tail.saturating_sub(self.looked) <= AHEAD_BYTES;
        self.looked = self.tail;
        let mut from = self.end;
        if self.cleared.0 == index {
            from = from.max(self.cleared.1);
        }
        let until = within.saturating_add(left).min(within.saturating_add(AHEAD_BYTES * 2));
        let until = until - until % self.layout.block as u64;
        let is_near = from < within.saturating_add(AHEAD_BYTES) && from < until;
        // The space of a file that was used before has been written.
        if is_slow && is_near && self.written == index && self.recycled != Some(index) {
            let block = self.layout.block;
            let file = self.file(index)?;
            extend(file, block, from..until, &|| false)?;
            file.sync()?;
            self.cleared = (index, until);
        }
        Ok(())
    }

    /// Returns whether appending `length` bytes waits for no file that is being prepared.
    pub(super) fn is_ready(&mut self, length: usize) -> bool {
        let end = self.tail.saturating_add(length as u64);
        let last = self.layout.locate(end).index;
        let first = self.layout.locate(self.tail).index;
        (first..=last).all(|index| self.files.contains_key(&index) || self.supply.is_ready(index))
    }

    fn write_slot(&mut self, index: u32, note: &Note) -> io::Result<()> {
        let slot = format::encode_slot(self.salt, self.sequence, note);
        let at = self.layout.slot(index, self.sequence);
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear(self.layout.block);
        blocks.add(&slot);
        blocks.add_zeros(self.layout.block.saturating_sub(slot.len()));
        let written = self.file(index).and_then(|file| file.write_through(at, blocks.bytes()));
        self.blocks = blocks;
        self.sequence = self.sequence.saturating_add(1);
        written
    }

    fn file(&mut self, index: u32) -> io::Result<&D::File> {
        if !self.files.contains_key(&index) {
            let Ready { file, is_recycled } = self.supply.take(index)?;
            if is_recycled {
                self.recycled = Some(index);
            }
            self.files.insert(index, file);
            // Ready long before it is needed.
            self.supply.request(index.saturating_add(1));
        }
        self.files.get(&index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests;
