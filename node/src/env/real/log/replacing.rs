//! A damaged log replaced by a new one, beside which its files stay.
//!
//! The new files are made under names of their own, whole and durable. A mark, which is a file
//! without contents, begins the replacement: from then on every start goes on with it. Its name
//! tells how far it is:
//!
//! ```text
//! damaged-N.aside     files of the log get the names damaged-N.segment.000000.log and so on
//! damaged-N.in-place  the new files get the names of the log's
//! ```
//!
//! Each of these steps is durable before the next one begins, and can be done again from anywhere
//! in its middle. So a crash leaves the damaged log as it was, or leads to the new one.

use std::ffi::{OsStr, OsString};
use std::io;

use super::directory::{Directory, DirectoryFile};
use super::files::{chunk, index, name};
use super::layout::Layout;
use super::making::extend;
use crate::format::{self, Note, SLOTS};

/// What the names of set aside files and of marks begin with; a number follows.
const DAMAGED: &str = "damaged-";

/// What the name of a file of the new log ends with until it takes its place.
const REPAIRED: &str = ".repaired";

/// What the names of marks end with.
const ASIDE: &str = ".aside";
const IN_PLACE: &str = ".in-place";

/// What a new log is made of.
pub(super) struct Contents<'a> {
    /// Reads the bytes that it begins with.
    pub(super) read: &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>,
    /// The number of the first file, but for file 0, that it needs: those between were trimmed.
    pub(super) first: u32,
    /// How many bytes it begins with.
    pub(super) kept: u64,
    /// The frame that follows.
    pub(super) frame: &'a [u8],
    /// The note beside it.
    pub(super) note: Note,
    pub(super) salt: u64,
}

impl Contents<'_> {
    fn length(&self) -> u64 {
        self.kept.saturating_add(self.frame.len() as u64)
    }

    /// Fills `into` with the bytes from `offset` on.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let kept = usize::try_from(self.kept.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (begin, rest) = into.split_at_mut(kept.min(into.len()));
        if !begin.is_empty() {
            (self.read)(offset, begin)?;
        }
        let skip = usize::try_from(offset.saturating_sub(self.kept)).unwrap_or(usize::MAX);
        let frame = self.frame.get(skip..).unwrap_or(&[]);
        rest.iter_mut().zip(frame).for_each(|(byte, from)| *byte = *from);
        Ok(())
    }
}

/// Puts a new log in the place of the damaged one, and returns what the names of that one's files
/// begin with now.
///
/// # Errors
/// As the operating system reports them. If the new log can't be made, the old one is as it was.
pub(super) fn replace<D: Directory>(
    directory: &D,
    layout: &Layout,
    contents: &Contents<'_>,
) -> io::Result<String> {
    let last = layout.locate(contents.length().saturating_sub(1)).index;
    let mut indices = std::iter::once(0).chain(contents.first.max(1)..=last);
    let made = indices.try_for_each(|index| make(directory, layout, contents, index));
    if let Err(error) = made.and_then(|()| directory.sync()) {
        // A full disk gets its space back.
        let _ = drop_unfinished(directory);
        return Err(error);
    }
    let numbers = directory.names()?.into_iter().filter_map(|found| number(&found));
    let number = numbers.max().unwrap_or(0).saturating_add(1);
    directory.create(&format!("{DAMAGED}{number}{ASIDE}"))?.sync()?;
    directory.sync()?;
    finish(directory)?;
    Ok(format!("{DAMAGED}{number}"))
}

/// Makes one file of the new log, durably, under the name that it has until it takes its place.
fn make<D: Directory>(
    directory: &D,
    layout: &Layout,
    contents: &Contents<'_>,
    index: u32,
) -> io::Result<()> {
    let file = directory.create(&format!("{}{REPAIRED}", name(index)))?;
    if !file.reserve(layout.file_bytes(index))? {
        extend(&file, layout.block, 0..layout.file_bytes(index), &|| false)?;
    }
    file.sync()?;
    let start = layout.start(index);
    let end = contents.length().min(start.saturating_add(layout.data_bytes(index)));
    let mut at = start;
    while at < end {
        let mut bytes = vec![0; chunk(end.saturating_sub(at))];
        contents.read_at(at, &mut bytes)?;
        file.write_at(at.saturating_sub(start), &bytes)?;
        at = at.saturating_add(bytes.len() as u64);
    }
    // Every file says what all of them hold: one that is lost is missed.
    for sequence in 0..SLOTS {
        let slot = format::encode_slot(contents.salt, sequence, &contents.note);
        file.write_at(layout.slot(index, sequence), &slot)?;
    }
    file.sync()
}

/// Returns the number in the name of a mark or of a file that was set aside.
fn number(found: &OsStr) -> Option<u64> {
    let (number, _) = found.to_str()?.strip_prefix(DAMAGED)?.split_once('.')?;
    number.parse().ok()
}

/// Returns the number in the name of a mark that ends with `ending`.
fn marked(found: &OsStr, ending: &str) -> Option<u64> {
    found.to_str()?.strip_prefix(DAMAGED)?.strip_suffix(ending)?.parse().ok()
}

/// Returns whether a file of this name shows that a log is being replaced.
pub(super) fn is_mark(found: &OsStr) -> bool {
    [ASIDE, IN_PLACE].iter().any(|ending| marked(found, ending).is_some())
}

/// Goes on with a replacement that has begun, and drops what one made that has not.
pub(super) fn finish<D: Directory>(directory: &D) -> io::Result<()> {
    let names = directory.names()?;
    if let Some(number) = names.iter().find_map(|found| marked(found, ASIDE)) {
        set_aside(directory, &names, number)?;
        return put_in_place(directory, number);
    }
    match names.iter().find_map(|found| marked(found, IN_PLACE)) {
        Some(number) => put_in_place(directory, number),
        None => drop_unfinished(directory),
    }
}

fn set_aside<D: Directory>(directory: &D, names: &[OsString], number: u64) -> io::Result<()> {
    for own in names.iter().filter_map(|found| index(found)).map(name) {
        let aside = format!("{DAMAGED}{number}.{own}");
        if names.iter().any(|found| found.to_str() == Some(&aside)) {
            // Nothing that was set aside is ever overwritten.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        directory.rename(&own, &aside)?;
    }
    directory.sync()?;
    let mark = |ending| format!("{DAMAGED}{number}{ending}");
    directory.rename(&mark(ASIDE), &mark(IN_PLACE))?;
    directory.sync()
}

fn put_in_place<D: Directory>(directory: &D, number: u64) -> io::Result<()> {
    for (repaired, own) in repaired(directory)? {
        directory.rename(&repaired, &own)?;
    }
    directory.sync()?;
    directory.remove(&format!("{DAMAGED}{number}{IN_PLACE}"))?;
    directory.sync()
}

fn drop_unfinished<D: Directory>(directory: &D) -> io::Result<()> {
    repaired(directory)?.iter().try_for_each(|(repaired, _)| directory.remove(repaired))
}

/// Returns the names of the new log's files, and those that they are to get.
fn repaired<D: Directory>(directory: &D) -> io::Result<Vec<(String, String)>> {
    let names = directory.names()?.into_iter().filter_map(|found| {
        let repaired = found.to_str()?;
        let own = repaired.strip_suffix(REPAIRED)?;
        index(own.as_ref()).map(|_| (repaired.to_string(), own.to_string()))
    });
    Ok(names.collect())
}
