//! The directory of a log, as the log sees it.
//!
//! A trait, so that tests can put a disk in its place that loses, tears, or is full.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of one log.
pub(super) trait Directory: Clone + Send + 'static {
    /// A file in it.
    type File: DirectoryFile;

    /// Returns the names in it.
    fn names(&self) -> io::Result<Vec<OsString>>;

    /// Creates an empty file, in place of an older one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file, or returns `None` when there is none.
    fn open(&self, name: &str) -> io::Result<Option<Self::File>>;

    /// Gives a file another name. Not durable before [`Directory::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Not durable before [`Directory::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file of a log.
pub(super) trait DirectoryFile: Send + 'static {
    /// Returns its length.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to its end, and returns how many bytes there were.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`. Not durable before a sync.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable, and the length.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub(super) struct RealDirectory(Arc<PathBuf>);

impl RealDirectory {
    /// Creates the directory if it isn't there, durably.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let path = path.canonicalize()?;
        for (distance, above) in path.ancestors().skip(1).enumerate() {
            // A directory is an entry of the one above it. All may be new; but of those further
            // up a process may be allowed to enter them and no more.
            let synced = File::open(above).and_then(|directory| directory.sync_all());
            if distance == 0 {
                synced?;
            }
        }
        Ok(Self(Arc::new(path)))
    }

    /// Opens the file that is locked while a process has the directory.
    pub(super) fn lock(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join(name))
    }
}

impl Directory for RealDirectory {
    type File = File;

    fn names(&self) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(&*self.0)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).open(self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).open(self.0.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&*self.0)?.sync_all()
    }
}

impl DirectoryFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // It covers the length too, whenever that has changed.
        self.sync_data()
    }
}
