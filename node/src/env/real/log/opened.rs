//! The files of a log as they are read, by whoever reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

use super::directory::{Directory, DirectoryFile};
use super::files::{INDEX_MAX, name};
use super::layout::Layout;

/// The files of a log, opened when they are first read.
#[derive(Debug)]
pub(super) struct Files<D: Directory> {
    directory: D,
    layout: Layout,
    /// By number.
    open: RefCell<BTreeMap<u32, D::File>>,
}

impl<D: Directory> Files<D> {
    pub(super) const fn new(directory: D, layout: Layout) -> Self {
        Self { directory, layout, open: RefCell::new(BTreeMap::new()) }
    }

    /// Adds files that are open already.
    pub(super) fn extend(&self, files: impl IntoIterator<Item = (u32, D::File)>) {
        self.open.borrow_mut().extend(files);
    }

    /// Does `job` with the file of this number, if there is one.
    pub(super) fn with<T>(
        &self,
        index: u32,
        job: impl FnOnce(&D::File) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let mut open = self.open.borrow_mut();
        if let Entry::Vacant(vacant) = open.entry(index)
            && let Some(file) = self.directory.open(&name(index))?
        {
            vacant.insert(file);
        }
        open.get(&index).map(job).transpose()
    }

    /// Forgets the files before number `first`, but for the first one of all: their names may soon
    /// be others.
    pub(super) fn forget(&self, first: u32) {
        self.open.borrow_mut().retain(|index, _| *index == 0 || *index >= first);
    }

    /// Fills `into` with the log's bytes from `offset` on, zeros where there are none.
    pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let place = self.layout.locate(at);
            if place.index > INDEX_MAX {
                rest.fill(0);
                return Ok(());
            }
            let length = usize::try_from(place.left).unwrap_or(rest.len()).min(rest.len());
            let Some((piece, others)) = rest.split_at_mut_checked(length) else { break };
            let read = self.with(place.index, |file| file.read_at(place.within, piece))?;
            if let Some(missing) = piece.get_mut(read.unwrap_or(0)..) {
                missing.fill(0);
            }
            at = at.saturating_add(length as u64);
            rest = others;
        }
        Ok(())
    }
}
