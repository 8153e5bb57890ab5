//! The page store of a segment as a redb database in one file.
//!
//! A checkpoint is one durable transaction. redb saves its allocator's state with each, so that a
//! start after a crash doesn't walk over all pages; it doesn't verify them then either, which is
//! why every entry has a checksum of ours. Whatever redb makes of a damaged file, a panic included,
//! is an error here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use quorate_core::record::Record;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::{self, Checkpointed, Snapshot, StoreError, Stored, Table, Tables, Visitor};

/// The name of the file.
pub(super) const PAGES_NAME: &str = "pages.redb";

/// The name of the file until it is whole.
const UNFINISHED_NAME: &str = "pages.redb.new";

/// How much memory the database takes for pages that it has read or is about to write. Payloads
/// are read once, as a volume's reads are random, and the operating system has a cache of its own.
const CACHE_BYTES: usize = 8 << 20;

/// A table: values by number.
type Definition = TableDefinition<'static, u64, &'static [u8]>;

const ASIDE: Definition = TableDefinition::new("aside");
const META: Definition = TableDefinition::new("meta");
const PAYLOADS: Definition = TableDefinition::new("payloads");
const RECORDS: Definition = TableDefinition::new("records");

/// An open store.
#[derive(Debug)]
pub(super) struct Pages {
    directory: PathBuf,
    /// `None` only while it is being opened again.
    database: RwLock<Option<Database>>,
}

impl Pages {
    /// Opens the store in `directory`, `None` if there is none.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = directory.join(PAGES_NAME);
        if !path.try_exists()? {
            return Ok(None);
        }
        let database = guard(|| Ok(builder().open(&path)?))?;
        let (directory, database) = (directory.to_path_buf(), RwLock::new(Some(database)));
        Ok(Some(Self { directory, database }))
    }

    /// Opens the database again: after an error it refuses everything.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = Some(guard(|| Ok(builder().open(self.directory.join(PAGES_NAME))?))?);
        Ok(())
    }

    /// Does `job` with the database, as [`guard`] does.
    fn with<T>(&self, job: impl FnOnce(&Database) -> Result<T, Trouble>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Gone)?;
        guard(|| job(database))
    }

    /// Makes an empty store in `directory`: whole, or not at all.
    pub(super) fn create(directory: &Path) -> Result<Self, StoreError> {
        let unfinished = directory.join(UNFINISHED_NAME);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        guard(|| {
            let database = builder().create(&unfinished)?;
            let transaction = database.begin_write()?;
            drop(Writing::open(&transaction)?);
            transaction.commit()?;
            Ok(())
        })?;
        std::fs::rename(&unfinished, directory.join(PAGES_NAME))?;
        std::fs::File::open(directory)?.sync_all()?;
        Self::open(directory)?.ok_or(StoreError::Gone)
    }

    /// Returns the checkpoint, as [`store::load`] does.
    pub(super) fn load(&self, salt: u64) -> Result<Option<Stored>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let [aside, meta, payloads, records] =
                [ASIDE, META, PAYLOADS, RECORDS].map(|table| transaction.open_table(table));
            let tables =
                Reading { aside: aside?, meta: meta?, payloads: payloads?, records: records? };
            store::load(&tables, salt).map_err(Trouble::Ours)
        })
    }

    /// Returns a payload, as [`store::read`] does.
    pub(super) fn read(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        let lsn = record.lsn;
        let read = || {
            self.with(|database| {
                let transaction = database.begin_read()?;
                let table = transaction.open_table(PAYLOADS)?;
                let bytes = table.get(lsn.get())?.map(|bytes| bytes.value().to_vec());
                Ok(bytes)
            })
        };
        let mut bytes = read();
        if bytes.is_err() {
            // It may refuse everything since a write found the disk full.
            bytes = self.reopen().and_then(|()| read());
        }
        store::payload_of(record, bytes)
    }

    /// Makes a checkpoint, as [`store::write`] does.
    pub(super) fn write(
        &self,
        salt: u64,
        snapshot: &Snapshot,
        log: &dyn Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<Checkpointed, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let mut tables = Writing::open(&transaction)?;
            let made = store::write(&mut tables, salt, snapshot, log).map_err(Trouble::Ours);
            drop(tables);
            let made = made?;
            transaction.commit()?;
            Ok(made)
        })
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// What went wrong.
enum Trouble {
    Ours(StoreError),
    Theirs(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Theirs(error.into())
    }
}

/// Does `job` with the database, which may be damaged.
fn guard<T>(job: impl FnOnce() -> Result<T, Trouble>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Trouble::Ours(error))) => Err(error),
        Ok(Err(Trouble::Theirs(redb::Error::Io(error)))) => Err(failed(&error)),
        Ok(Err(Trouble::Theirs(redb::Error::DatabaseAlreadyOpen))) => {
            Err(StoreError::Failed(io::ErrorKind::ResourceBusy))
        }
        Ok(Err(Trouble::Theirs(_))) | Err(_) => Err(StoreError::Damaged),
    }
}

fn failed(error: &io::Error) -> StoreError {
    // A file that is no database is said to hold invalid data.
    let is_damage =
        matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    if is_damage { StoreError::Damaged } else { StoreError::Failed(error.kind()) }
}

fn visit<T: ReadableTable<u64, &'static [u8]>>(
    table: &T,
    visitor: Visitor<'_>,
) -> Result<(), StoreError> {
    for entry in table.range::<u64>(..).map_err(theirs)? {
        let (key, value) = entry.map_err(theirs)?;
        visitor(key.value(), value.value())?;
    }
    Ok(())
}

fn get<T: ReadableTable<u64, &'static [u8]>>(
    table: &T,
    key: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key).map_err(theirs)?.map(|value| value.value().to_vec()))
}

fn theirs(error: redb::StorageError) -> StoreError {
    if let redb::StorageError::Io(error) = error {
        return failed(&error);
    }
    StoreError::Damaged
}

/// The tables of a transaction that reads.
struct Reading {
    aside: redb::ReadOnlyTable<u64, &'static [u8]>,
    meta: redb::ReadOnlyTable<u64, &'static [u8]>,
    payloads: redb::ReadOnlyTable<u64, &'static [u8]>,
    records: redb::ReadOnlyTable<u64, &'static [u8]>,
}

impl Reading {
    const fn table(&self, table: Table) -> &redb::ReadOnlyTable<u64, &'static [u8]> {
        match table {
            Table::Aside => &self.aside,
            Table::Meta => &self.meta,
            Table::Payloads => &self.payloads,
            Table::Records => &self.records,
        }
    }
}

impl Tables for Reading {
    fn visit(&self, table: Table, visitor: Visitor<'_>) -> Result<(), StoreError> {
        visit(self.table(table), visitor)
    }

    fn get(&self, table: Table, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        get(self.table(table), key)
    }

    fn put(&mut self, _: Table, _: u64, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Failed(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn remove(&mut self, _: Table, _: u64) -> Result<(), StoreError> {
        Err(StoreError::Failed(io::ErrorKind::ReadOnlyFilesystem))
    }
}

/// The tables of a transaction that writes.
struct Writing<'a> {
    aside: redb::Table<'a, u64, &'static [u8]>,
    meta: redb::Table<'a, u64, &'static [u8]>,
    payloads: redb::Table<'a, u64, &'static [u8]>,
    records: redb::Table<'a, u64, &'static [u8]>,
}

impl<'a> Writing<'a> {
    fn open(transaction: &'a redb::WriteTransaction) -> Result<Self, Trouble> {
        Ok(Self {
            aside: transaction.open_table(ASIDE)?,
            meta: transaction.open_table(META)?,
            payloads: transaction.open_table(PAYLOADS)?,
            records: transaction.open_table(RECORDS)?,
        })
    }

    const fn table(&self, table: Table) -> &redb::Table<'a, u64, &'static [u8]> {
        match table {
            Table::Aside => &self.aside,
            Table::Meta => &self.meta,
            Table::Payloads => &self.payloads,
            Table::Records => &self.records,
        }
    }

    const fn table_mut(&mut self, table: Table) -> &mut redb::Table<'a, u64, &'static [u8]> {
        match table {
            Table::Aside => &mut self.aside,
            Table::Meta => &mut self.meta,
            Table::Payloads => &mut self.payloads,
            Table::Records => &mut self.records,
        }
    }
}

impl Tables for Writing<'_> {
    fn visit(&self, table: Table, visitor: Visitor<'_>) -> Result<(), StoreError> {
        visit(self.table(table), visitor)
    }

    fn get(&self, table: Table, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        get(self.table(table), key)
    }

    fn put(&mut self, table: Table, key: u64, value: &[u8]) -> Result<(), StoreError> {
        self.table_mut(table).insert(key, value).map_err(theirs)?;
        Ok(())
    }

    fn remove(&mut self, table: Table, key: u64) -> Result<(), StoreError> {
        self.table_mut(table).remove(key).map_err(theirs)?;
        Ok(())
    }
}
