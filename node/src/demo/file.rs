//! The file of the demonstration: generated or given, loaded into a volume, read back from it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::id::{PageId, Ticket};
use sha2::Digest as _;

use super::{DemoError, at};
use crate::client::{Client, ClientError, Outcome};
use crate::clock::Clock;
use crate::cluster::ClusterError;
use crate::payload::PAGE_BYTES_MAX;
use crate::volume::{Consistency, PageImage};

/// Pages in one mini-transaction.
const PAGES_PER_WRITE: usize = 16;

/// Mini-transactions under way.
const WRITES_FLYING: usize = 96;

/// Pages asked for and not read yet.
const READS_FLYING: u64 = 256;

/// The page that says how long the file is and what its digest is; the file begins behind it.
const MANIFEST: PageId = PageId::new(0);

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The file to load.
#[derive(Clone, Debug)]
pub(super) struct Source {
    path: PathBuf,
    pub(super) bytes: u64,
    pub(super) digest: Digest,
}

/// What loading came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loaded {
    /// The bytes that had been acknowledged when nodes were killed.
    pub(super) acknowledged_at_kill: u64,
    /// The longest time between two acknowledgements before that.
    pub(super) longest_gap_before: Duration,
    /// And from then on.
    pub(super) longest_gap_after: Duration,
}

impl Source {
    /// Writes a file of bytes that look random and are the same every time.
    pub(super) fn generate(path: &Path, size_mb: u64) -> Result<Self, DemoError> {
        let mut state = 0x5175_6f72_6174_6521u64;
        let mut file = BufWriter::new(File::create(path).map_err(at(path))?);
        for _ in 0..size_mb.saturating_mul(1 << 17) {
            // SplitMix64: public domain, and good enough to be incompressible.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            file.write_all(&(word ^ (word >> 31)).to_le_bytes()).map_err(at(path))?;
        }
        file.flush().map_err(at(path))?;
        Self::examine(path)
    }

    /// Takes a file as it is.
    pub(super) fn examine(path: &Path) -> Result<Self, DemoError> {
        let mut pages = Pages::open(path)?;
        let mut sum = sha2::Sha256::new();
        let mut bytes = 0u64;
        while let Some(page) = pages.next()? {
            bytes = bytes.saturating_add(page.len() as u64);
            sum.update(&page);
        }
        if bytes == 0 {
            return Err(DemoError::EmptyFile);
        }
        Ok(Self { path: path.to_path_buf(), bytes, digest: Digest(sum.finalize().into()) })
    }

    /// Writes the file through `client`, and calls `in_the_middle` when half of it is acknowledged,
    /// with the next writes under way.
    pub(super) fn load(
        &self,
        client: &mut Client,
        in_the_middle: impl FnOnce() -> Result<(), ClusterError>,
    ) -> Result<Loaded, DemoError> {
        let clock = Clock::start();
        let mut in_the_middle = Some(in_the_middle);
        let mut loaded = Loaded::default();
        let mut flying: BTreeMap<Ticket, u64> = BTreeMap::new();
        let mut acknowledged = 0u64;
        let mut pages = Pages::open(&self.path)?;
        let mut next = MANIFEST.get();
        let mut is_at_end = false;
        let mut last = None;
        while !is_at_end || !flying.is_empty() {
            if !is_at_end {
                let mut images = Vec::new();
                while images.len() < PAGES_PER_WRITE
                    && let Some(bytes) = pages.next()?
                {
                    next = next.saturating_add(1);
                    images.push(PageImage { page: PageId::new(next), bytes });
                }
                is_at_end = images.len() < PAGES_PER_WRITE;
                if is_at_end {
                    images.push(PageImage { page: MANIFEST, bytes: self.manifest() });
                }
                let bytes = images.iter().map(|image| image.bytes.len() as u64).sum();
                flying.insert(client.write(&images)?, bytes);
            }
            if flying.len() < WRITES_FLYING && !is_at_end {
                continue;
            }
            acknowledged = acknowledged.saturating_add(next_written(client, &mut flying)?);
            let now = clock.now();
            let gap = if in_the_middle.is_some() {
                &mut loaded.longest_gap_before
            } else {
                &mut loaded.longest_gap_after
            };
            *gap = last.map_or(Duration::ZERO, |last| now.since(last)).max(*gap);
            last = Some(now);
            if acknowledged >= self.bytes / 2
                && let Some(in_the_middle) = in_the_middle.take()
            {
                in_the_middle()?;
                loaded.acknowledged_at_kill = acknowledged;
            }
        }
        Ok(loaded)
    }

    fn manifest(&self) -> Vec<u8> {
        let Digest(digest) = self.digest;
        [self.bytes.to_le_bytes().as_slice(), &digest].concat()
    }

    /// Reads the file back through `client` and compares it with what was loaded.
    pub(super) fn compare(
        &self,
        client: &mut Client,
        consistency: Consistency,
    ) -> Result<(), DemoError> {
        let expected = self.digest;
        let manifest = client.read_now(MANIFEST, Consistency::Strict)?.bytes;
        if manifest != self.manifest() {
            let found = Digest(sha2::Sha256::digest(&manifest).into());
            return Err(DemoError::Different { expected, found });
        }
        let count = self.bytes.div_ceil(PAGE_BYTES_MAX as u64);
        let mut sum = sha2::Sha256::new();
        let mut asked = 1;
        // Answers come in any order.
        let mut early: BTreeMap<PageId, Vec<u8>> = BTreeMap::new();
        for page in (1..=count).map(PageId::new) {
            while asked <= count && asked < page.get().saturating_add(READS_FLYING) {
                client.read(PageId::new(asked), consistency)?;
                asked = asked.saturating_add(1);
            }
            let bytes = loop {
                if let Some(bytes) = early.remove(&page) {
                    break bytes;
                }
                match client.receive()?.1 {
                    Outcome::Page(version) => early.insert(version.page, version.bytes),
                    Outcome::Refused(refusal) => return Err(ClientError::from(refusal).into()),
                    Outcome::Members(_)
                    | Outcome::Opened(..)
                    | Outcome::Reader(_)
                    | Outcome::Status(_)
                    | Outcome::Stepped(_)
                    | Outcome::Written(_) => {
                        return Err(ClientError::Unexpected.into());
                    }
                };
            };
            sum.update(&bytes);
        }
        let found = Digest(sum.finalize().into());
        if found == expected { Ok(()) } else { Err(DemoError::Different { expected, found }) }
    }
}

/// Waits for the next acknowledgement, and returns the bytes that it is about.
fn next_written(
    client: &mut Client,
    flying: &mut BTreeMap<Ticket, u64>,
) -> Result<u64, ClientError> {
    match client.receive()? {
        (ticket, Outcome::Written(_)) => flying.remove(&ticket).ok_or(ClientError::Unexpected),
        (_, Outcome::Refused(refusal)) => Err(refusal.into()),
        (
            _,
            Outcome::Members(_)
            | Outcome::Opened(..)
            | Outcome::Page(_)
            | Outcome::Reader(_)
            | Outcome::Status(_)
            | Outcome::Stepped(_),
        ) => Err(ClientError::Unexpected),
    }
}

/// A file, page by page.
struct Pages {
    file: BufReader<File>,
    path: PathBuf,
}

impl Pages {
    fn open(path: &Path) -> Result<Self, DemoError> {
        let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(at(path))?);
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Returns the next page, whole but for the file's last one.
    fn next(&mut self) -> Result<Option<Vec<u8>>, DemoError> {
        let mut page = Vec::with_capacity(PAGE_BYTES_MAX);
        let mut limited = self.file.by_ref().take(PAGE_BYTES_MAX as u64);
        limited.read_to_end(&mut page).map_err(at(&self.path))?;
        Ok((!page.is_empty()).then_some(page))
    }
}
