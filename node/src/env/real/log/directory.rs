//! The directory of a log, as the log sees it.
//!
//! A trait, so that tests can put a disk in its place that loses, tears, or is full.

use std::ffi::OsString;
use std::fmt::Debug;
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
pub(super) trait DirectoryFile: Debug + Send + 'static {
    /// Returns its length.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to its end, and returns how many bytes there were.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`. Not durable before a sync.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Takes the space for so many bytes, which read as zeros. Returns whether that can be done
    /// without writing them. Not durable before a sync.
    fn reserve(&self, length: u64) -> io::Result<bool>;

    /// Writes whole blocks that nobody reads soon. Not durable before a sync. It is fastest if they
    /// begin at an address in memory that is a multiple of a block.
    fn write_ahead(&self, offset: u64, blocks: &[u8]) -> io::Result<()>;

    /// Writes whole blocks in the place of others that are there, and makes them durable. Fastest
    /// as above.
    fn write_through(&self, offset: u64, blocks: &[u8]) -> io::Result<()>;

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

    /// Returns where the directory is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the file that is locked while a process has the directory.
    pub(super) fn lock(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join(name))
    }
}

/// The longest write that goes past the operating system's cache and is durable when it returns.
/// Where much is written at once the space is new, and then a write and a sync are faster.
const DIRECT_BYTES_MAX: usize = 16 << 10;

/// A file of a [`RealDirectory`].
#[derive(Debug)]
pub(super) struct RealFile {
    cached: File,
    /// The same file past the operating system's cache, where that exists: a write to it is one
    /// request to the disk, copies nothing, and is durable when it returns.
    direct: Option<File>,
}

impl RealFile {
    fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        let cached = options.open(path)?;
        // Some file systems have nothing like it; all that is lost then is speed.
        let direct = open_direct(path).ok();
        Ok(Self { cached, direct })
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, length: u64) -> io::Result<bool> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;

    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _length: u64) -> io::Result<bool> {
    Ok(false)
}

/// Writes all of `blocks` and makes them durable, with one request.
#[cfg(target_os = "linux")]
fn write_durably(file: &File, offset: u64, blocks: &[u8]) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags};

    let mut done = 0;
    while let Some(rest) = blocks.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        match rustix::io::pwritev2(file, &[io::IoSlice::new(rest)], at, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => done = done.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_durably(file: &File, offset: u64, blocks: &[u8]) -> io::Result<()> {
    file.write_all_at(blocks, offset)?;
    file.sync_data()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path) -> io::Result<File> {
    Err(ErrorKind::Unsupported.into())
}

impl Directory for RealDirectory {
    type File = RealFile;

    fn names(&self) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(&*self.0)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        RealFile::open(&options, &self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Option<RealFile>> {
        let mut options = OpenOptions::new();
        match RealFile::open(options.read(true).write(true), &self.0.join(name)) {
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

impl DirectoryFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.cached.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.cached.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.cached.write_all_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        reserve(&self.cached, length)
    }

    fn write_ahead(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(blocks, offset) {
                // A disk with longer blocks than these: nothing was written.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                written => return written,
            }
        }
        self.write_at(offset, blocks)
    }

    fn write_through(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        let is_short = blocks.len() <= DIRECT_BYTES_MAX;
        if let Some(direct) = self.direct.as_ref().filter(|_| is_short) {
            match write_durably(direct, offset, blocks) {
                // As above, or a system that can't do both at once.
                Err(error)
                    if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                }
                written => return written,
            }
        }
        self.write_at(offset, blocks)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        // It covers the length too, whenever that has changed.
        self.cached.sync_data()
    }
}
