//! A file of a log made, whole before it gets its name.

use std::io;
use std::ops::Range;

use super::blocks::Blocks;
use super::directory::{Directory, DirectoryFile};
use super::files::{INDEX_MAX, chunk, name};
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
        for sequence in 0..SLOTS {
            let slot = format::encode_slot(blank.salt, sequence, &Note::default());
            file.write_at(layout.slot(index, sequence), &slot)?;
        }
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
