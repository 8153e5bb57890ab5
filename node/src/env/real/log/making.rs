//! A file of a log made, whole before it gets its name.

use std::io;
use std::ops::Range;

use super::blocks::Blocks;
use super::directory::{Directory, DirectoryFile};
use super::files::{INDEX_MAX, chunk, index, name};
use super::layout::Layout;
use crate::format::{self, Note, SLOTS};

/// What the name of a file ends with that isn't whole yet.
pub(super) const UNFINISHED: &str = ".new";

/// What a file holds before anything is appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blank<'a> {
    /// What it begins with; only the first file begins with anything.
    pub(super) header: &'a [u8],
    /// Of the log.
    pub(super) salt: u64,
}

/// Makes the file with this number: what `blank` says, zeros, and a note in each of its slots that
/// says nothing yet. A crash at any time leaves all of it or nothing that has its name, so that a
/// file that is shorter, or has no whole slot, has lost its end.
///
/// # Errors
/// As the operating system reports them, and [`io::ErrorKind::Interrupted`] when `is_over` says so.
/// What was made so far is gone again, as far as possible: a full disk gets its space back.
pub(super) fn prepare<D: Directory>(
    directory: &D,
    layout: &Layout,
    index: u32,
    blank: Blank<'_>,
    is_over: &dyn Fn() -> bool,
) -> io::Result<D::File> {
    if index > INDEX_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let name = name(index);
    let unfinished = format!("{name}{UNFINISHED}");
    let make = || {
        let file = directory.create(&unfinished)?;
        if !file.reserve(layout.file_bytes(index))? {
            extend(&file, layout.block, 0..layout.file_bytes(index), is_over)?;
        }
        if !blank.header.is_empty() {
            file.write_at(0, blank.header)?;
        }
        write_blank_slots(&file, layout, index, blank.salt)?;
        file.sync()?;
        Ok(file)
    };
    let file = make().inspect_err(|_: &io::Error| {
        let _ = directory.remove(&unfinished);
    })?;
    directory.rename(&unfinished, &name)?;
    directory.sync()?;
    Ok(file)
}

/// What becomes of files that a log doesn't need any more: some become its next ones, since bytes
/// that were written before are written again faster, and the others are removed.
#[derive(Debug)]
pub(super) struct Stock<D: Directory> {
    pub(super) directory: D,
    pub(super) layout: Layout,
    pub(super) blank: Blank<'static>,
    /// The numbers of those that are kept.
    spare: Vec<u32>,
}

/// A file that is ready to be used.
#[derive(Debug)]
pub(super) struct Ready<F> {
    pub(super) file: F,
    /// Whether it was one of the log's before, so that its space has been written.
    pub(super) is_recycled: bool,
}

/// How many files are kept to be used again: the next one, and what may come in between one
/// checkpoint and the next.
const SPARE_MAX: usize = 3;

impl<D: Directory> Stock<D> {
    pub(super) const fn new(directory: D, layout: Layout, blank: Blank<'static>) -> Self {
        Self { directory, layout, blank, spare: Vec::new() }
    }

    /// Takes over the files before number `first`, but for the first one of all.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn trim(&mut self, first: u32) -> io::Result<()> {
        let names = self.directory.names()?;
        let mut known: Vec<u32> = names.iter().filter_map(|found| index(found)).collect();
        known.sort_unstable();
        let mut is_changed = false;
        for own in known.into_iter().filter(|own| (1..first).contains(own)) {
            if self.spare.contains(&own) {
                continue;
            }
            // All of the longest ones are of one size.
            let is_longest = self.layout.file_bytes(own) == self.layout.max;
            if is_longest && self.spare.len() < SPARE_MAX {
                self.spare.push(own);
            } else {
                self.directory.remove(&name(own))?;
                is_changed = true;
            }
        }
        if is_changed { self.directory.sync() } else { Ok(()) }
    }

    /// Makes the file with this number, of one that was used before if there is any.
    ///
    /// # Errors
    /// As [`prepare`].
    pub(super) fn prepare(
        &mut self,
        index: u32,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<Ready<D::File>> {
        if self.layout.file_bytes(index) == self.layout.max
            && let Some(from) = self.spare.pop()
            && let Some(file) = self.recycle(from, index)?
        {
            return Ok(Ready { file, is_recycled: true });
        }
        let file = prepare(&self.directory, &self.layout, index, self.blank, is_over)?;
        Ok(Ready { file, is_recycled: false })
    }

    /// Makes file `from` file `to`. A crash leaves the old one, which nobody needs, an unfinished
    /// one, which the next start removes, or the new one: its slots are blank before it has its
    /// name, and the frames that it still has were those of another place of the log.
    fn recycle(&self, from: u32, to: u32) -> io::Result<Option<D::File>> {
        let name = (name(from), name(to));
        let unfinished = format!("{}{UNFINISHED}", name.1);
        self.directory.rename(&name.0, &unfinished)?;
        let Some(file) = self.directory.open(&unfinished)? else { return Ok(None) };
        if to > INDEX_MAX || file.length()? != self.layout.file_bytes(to) {
            self.directory.remove(&unfinished)?;
            return Ok(None);
        }
        write_blank_slots(&file, &self.layout, to, self.blank.salt)?;
        file.sync()?;
        self.directory.rename(&unfinished, &name.1)?;
        self.directory.sync()?;
        Ok(Some(file))
    }
}

fn write_blank_slots<F: DirectoryFile>(
    file: &F,
    layout: &Layout,
    index: u32,
    salt: u64,
) -> io::Result<()> {
    for sequence in 0..SLOTS {
        let slot = format::encode_slot(salt, sequence, &Note::default());
        file.write_at(layout.slot(index, sequence), &slot)?;
    }
    Ok(())
}

/// Writes zeros at `place`. Not durable before a sync.
pub(super) fn extend<F: DirectoryFile>(
    file: &F,
    block: usize,
    place: Range<u64>,
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    let longest = chunk(place.end.saturating_sub(place.start));
    let mut zeros = Blocks::default();
    zeros.clear(longest);
    zeros.add_zeros(longest);
    let mut at = place.start;
    while at < place.end {
        if is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = chunk(place.end.saturating_sub(at));
        let piece = zeros.bytes().get(..length).unwrap_or(&[]);
        if at.is_multiple_of(block as u64) && piece.len().is_multiple_of(block) {
            file.write_ahead(at, piece)?;
        } else {
            file.write_at(at, piece)?;
        }
        at = at.saturating_add(piece.len() as u64);
    }
    Ok(())
}
