//! The page store beside a segment's log: the newest checkpoint, and the payloads that the log
//! needs no longer keep.
//!
//! A checkpoint is one transaction of a database with four tables, so that a crash leaves the one
//! before it or all of it. Payloads of records at or under the base are in the store; those of the
//! records above it, and of what is set aside, stay in the log, and the record's entry says where.
//! What is written is in proportion to what has changed since the last checkpoint.
//!
//! Every entry has a checksum with the log's salt, its table and its LSN in it, and the checkpoint
//! says how many entries there are and what their checksums add up to: a store that lost or
//! changed anything is told from a whole one, whatever the database makes of it.

use std::collections::BTreeMap;
use std::io;

use quorate_core::checkpoint::Checkpoint;
use quorate_core::image::{CorruptImage, SegmentImage};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;
use serde::{Deserialize, Serialize};

use crate::{payload, wire};

/// Where the only entry of [`Table::Meta`] is.
const META_KEY: u64 = 0;

/// The offset in an entry of a record whose payload is in the store.
const STORED: u64 = u64::MAX;

/// The tables of a store.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// The records that a backtrack has set aside, by LSN.
    Aside,
    /// What the checkpoint says of all of them.
    Meta,
    /// The payloads of records at or under the base, by LSN.
    Payloads,
    /// The records, by LSN.
    Records,
}

/// Why a store can't be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The log's payload of a record that is to be copied is damaged.
    #[error("the payload of the record with LSN {lsn} is damaged in the log, below its checkpoint")]
    Copy {
        /// The record.
        lsn: Lsn,
    },
    /// Entries are changed or missing.
    #[error("the page store is damaged")]
    Damaged,
    /// The operating system refuses.
    #[error("the page store failed: {0}")]
    Failed(io::ErrorKind),
    /// The log relies on a store, and there is none.
    #[error("the page store is gone, and the log begins behind what it held")]
    Gone,
    /// Entries are whole and contradict each other.
    #[error("the page store contradicts itself: {0}")]
    Image(CorruptImage),
    /// It is another log's.
    #[error("the page store belongs to another log")]
    OtherLog,
    /// The payload of a record is damaged or missing.
    #[error("the payload of the record with LSN {lsn} is damaged in the page store")]
    Payload {
        /// The record.
        lsn: Lsn,
    },
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.kind())
    }
}

/// A transaction of a store's database.
pub trait Tables {
    /// Shows `visitor` all entries of a table, by rising key.
    ///
    /// # Errors
    /// As the database and `visitor` do.
    fn visit(&self, table: Table, visitor: Visitor<'_>) -> Result<(), StoreError>;

    /// Returns an entry.
    ///
    /// # Errors
    /// As the database does.
    fn get(&self, table: Table, key: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Adds an entry, in place of an older one.
    ///
    /// # Errors
    /// As the database does.
    fn put(&mut self, table: Table, key: u64, value: &[u8]) -> Result<(), StoreError>;

    /// Removes an entry, if there is one.
    ///
    /// # Errors
    /// As the database does.
    fn remove(&mut self, table: Table, key: u64) -> Result<(), StoreError>;
}

/// What looks at the entries of a table.
pub type Visitor<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), StoreError>;

/// Tables in memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemoryTables(BTreeMap<(Table, u64), Vec<u8>>);

impl Tables for MemoryTables {
    fn visit(&self, table: Table, visitor: Visitor<'_>) -> Result<(), StoreError> {
        self.0.range((table, 0)..=(table, u64::MAX)).try_for_each(|((_, key), v)| visitor(*key, v))
    }

    fn get(&self, table: Table, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&(table, key)).cloned())
    }

    fn put(&mut self, table: Table, key: u64, value: &[u8]) -> Result<(), StoreError> {
        self.0.insert((table, key), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: u64) -> Result<(), StoreError> {
        self.0.remove(&(table, key));
        Ok(())
    }
}

/// What a checkpoint is made of: a segment's state after its first frames, all of them durable.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The state without its records.
    pub state: Checkpoint,
    /// The records.
    pub records: Vec<Record>,
    /// Those that are set aside.
    pub aside: Vec<Record>,
    /// How many frames it stands for: the number of the first one behind it.
    pub frames: u64,
    /// Where in the log that one begins.
    pub at: u64,
    /// Where in the log the payloads of records that came since the last snapshot are.
    pub added: Vec<(Lsn, u64)>,
}

/// A checkpoint that was found.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The state.
    pub image: SegmentImage,
    /// How many frames it stands for.
    pub frames: u64,
    /// Where in the log the next frame begins.
    pub at: u64,
    /// No byte of the log before this one is needed, but for the log's header.
    pub kept: u64,
    /// Where in the log the payloads of records above the base, and of what is set aside, are.
    pub payloads: Vec<(Lsn, u64)>,
}

/// What is so once a checkpoint is durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checkpointed {
    /// The payloads of records at or under this LSN are in the store.
    pub base: Lsn,
    /// How many frames the checkpoint stands for.
    pub frames: u64,
    /// Where in the log the next frame begins.
    pub at: u64,
    /// No byte of the log before this one is needed, but for the log's header.
    pub kept: u64,
}

/// What a checkpoint says of itself.
#[derive(Debug, Deserialize, Serialize)]
struct Meta {
    salt: u64,
    state: Checkpoint,
    frames: u64,
    at: u64,
    kept: u64,
    entries: u64,
    sum: u64,
}

/// Counts entries, and adds their checksums up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tally {
    entries: u64,
    sum: u64,
}

impl Tally {
    fn count(&mut self, checksum: u32) {
        self.entries = self.entries.saturating_add(1);
        self.sum = self.sum.wrapping_add(u64::from(checksum));
    }
}

fn checksum(salt: u64, table: Table, key: u64, value: &[u8]) -> u32 {
    let number: u8 = match table {
        Table::Aside => 1,
        Table::Meta => 2,
        Table::Payloads => 3,
        Table::Records => 4,
    };
    let mut sum = crc32c::crc32c(&salt.to_le_bytes());
    sum = crc32c::crc32c_append(sum, &[number]);
    sum = crc32c::crc32c_append(sum, &key.to_le_bytes());
    crc32c::crc32c_append(sum, value)
}

fn seal(salt: u64, table: Table, key: u64, mut value: Vec<u8>) -> (Vec<u8>, u32) {
    let sum = checksum(salt, table, key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    (value, sum)
}

/// Returns what was sealed, and its checksum.
fn unseal(salt: u64, table: Table, key: u64, value: &[u8]) -> Result<(&[u8], u32), StoreError> {
    let (value, sum) = value.split_last_chunk::<4>().ok_or(StoreError::Damaged)?;
    let sum = u32::from_le_bytes(*sum);
    if checksum(salt, table, key, value) != sum {
        return Err(StoreError::Damaged);
    }
    Ok((value, sum))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    // Whatever fits into a message fits here.
    wire::encode_value(value).map_err(|_| StoreError::Damaged)
}

/// Returns the checkpoint in `tables`, `None` if none was ever made.
///
/// # Errors
/// [`StoreError`] when it isn't whole, or another log's.
pub fn load(tables: &dyn Tables, salt: u64) -> Result<Option<Stored>, StoreError> {
    let Some(meta) = tables.get(Table::Meta, META_KEY)? else { return empty(tables) };
    let (meta, _) = unseal(0, Table::Meta, META_KEY, &meta)?;
    let meta: Meta = wire::decode_value(meta).map_err(|_| StoreError::Damaged)?;
    if meta.salt != salt {
        return Err(StoreError::OtherLog);
    }
    let mut tally = Tally::default();
    let mut payloads = Vec::new();
    let mut read = |table| -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        tables.visit(table, &mut |key, value| {
            let (value, sum) = unseal(salt, table, key, value)?;
            tally.count(sum);
            let (record, offset): (Record, u64) =
                wire::decode_value(value).map_err(|_| StoreError::Damaged)?;
            if offset != STORED {
                payloads.push((record.lsn, offset));
            }
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    };
    let (records, aside) = (read(Table::Records)?, read(Table::Aside)?);
    if tally != (Tally { entries: meta.entries, sum: meta.sum }) {
        return Err(StoreError::Damaged);
    }
    let image = SegmentImage::restore(meta.state, records, aside).map_err(StoreError::Image)?;
    Ok(Some(Stored { image, frames: meta.frames, at: meta.at, kept: meta.kept, payloads }))
}

/// A store without a checkpoint has nothing else either.
fn empty(tables: &dyn Tables) -> Result<Option<Stored>, StoreError> {
    for table in [Table::Aside, Table::Payloads, Table::Records] {
        tables.visit(table, &mut |_, _| Err(StoreError::Damaged))?;
    }
    Ok(None)
}

/// Returns the payload of `record`, of which a store has these bytes, checked.
///
/// # Errors
/// [`StoreError::Payload`] when they are missing or damaged.
pub fn payload_of(
    record: &Record,
    bytes: Result<Option<Vec<u8>>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let lsn = record.lsn;
    match bytes {
        Ok(Some(bytes)) if payload::belongs(record, &bytes) => Ok(bytes),
        Ok(_) | Err(StoreError::Damaged) => Err(StoreError::Payload { lsn }),
        Err(error) => Err(error),
    }
}

/// Returns the payload of `record` in `tables`, checked.
///
/// # Errors
/// As [`payload_of`].
pub fn read(tables: &dyn Tables, record: &Record) -> Result<Vec<u8>, StoreError> {
    payload_of(record, tables.get(Table::Payloads, record.lsn.get()))
}

/// What is to be done to the tables.
#[derive(Debug, Default)]
struct Changes {
    remove: Vec<(Table, u64)>,
    /// Records, and where in the log their payloads are; whether those are to be copied.
    put: Vec<(Table, Record, u64, bool)>,
    tally: Tally,
    /// The lowest place in the log that is still needed.
    lowest: Option<u64>,
}

/// Makes `tables` the checkpoint of `snapshot`; payloads are read with `log`.
///
/// # Errors
/// [`StoreError`]; the transaction must not be committed then.
pub fn write(
    tables: &mut dyn Tables,
    salt: u64,
    snapshot: &Snapshot,
    log: &dyn Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Checkpointed, StoreError> {
    let Snapshot { state, frames, at, .. } = snapshot;
    let base = state.base;
    let mut changes = Changes::default();
    compare(tables, salt, snapshot, Table::Records, &snapshot.records, &mut changes)?;
    compare(tables, salt, snapshot, Table::Aside, &snapshot.aside, &mut changes)?;
    let Changes { remove, put, mut tally, lowest } = changes;
    for (table, key) in remove {
        tables.remove(table, key)?;
        if table == Table::Records {
            tables.remove(Table::Payloads, key)?;
        }
    }
    for (table, record, offset, is_copied) in put {
        let key = record.lsn.get();
        if is_copied {
            let mut bytes = vec![0; payload::length(&record)];
            log(offset, &mut bytes)?;
            if !payload::belongs(&record, &bytes) {
                return Err(StoreError::Copy { lsn: record.lsn });
            }
            tables.put(Table::Payloads, key, &bytes)?;
        }
        let offset = if is_copied { STORED } else { offset };
        let (value, sum) = seal(salt, table, key, encode(&(record, offset))?);
        tally.count(sum);
        tables.put(table, key, &value)?;
    }
    let kept = lowest.map_or(*at, |lowest| lowest.min(*at));
    let Tally { entries, sum } = tally;
    let meta = Meta { salt, state: state.clone(), frames: *frames, at: *at, kept, entries, sum };
    let (meta, _) = seal(0, Table::Meta, META_KEY, encode(&meta)?);
    tables.put(Table::Meta, META_KEY, &meta)?;
    Ok(Checkpointed { base, frames: *frames, at: *at, kept })
}

/// Compares a table with what it is to hold, in one walk over both.
fn compare(
    tables: &dyn Tables,
    salt: u64,
    snapshot: &Snapshot,
    table: Table,
    wanted: &[Record],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let base = snapshot.state.base;
    let is_copied = |record: &Record| table == Table::Records && record.lsn <= base;
    let add = |record: &Record, changes: &mut Changes| {
        // It may have come with a frame since the last checkpoint, or from the other table.
        let key = record.lsn.get();
        let added = snapshot.added.binary_search_by_key(&record.lsn, |(lsn, _)| *lsn);
        let added = added.ok().and_then(|at| snapshot.added.get(at)).map(|(_, offset)| *offset);
        let known = match added {
            Some(offset) => Some(offset),
            None => located(tables, salt, key)?,
        };
        let offset = known.ok_or(StoreError::Copy { lsn: record.lsn })?;
        if !is_copied(record) {
            changes.lowest = Some(changes.lowest.map_or(offset, |lowest| lowest.min(offset)));
        }
        changes.put.push((table, *record, offset, is_copied(record)));
        Ok(())
    };
    let mut wanted = wanted.iter().peekable();
    tables.visit(table, &mut |key, value| {
        while let Some(record) = wanted.next_if(|record| record.lsn.get() < key) {
            add(record, changes)?;
        }
        let (value, sum) = unseal(salt, table, key, value)?;
        let Some(record) = wanted.next_if(|record| record.lsn.get() == key) else {
            changes.remove.push((table, key));
            return Ok(());
        };
        let (found, offset): (Record, u64) =
            wire::decode_value(value).map_err(|_| StoreError::Damaged)?;
        if found != *record {
            return add(record, changes);
        }
        if offset != STORED {
            if is_copied(record) {
                changes.put.push((table, *record, offset, true));
                return Ok(());
            }
            changes.lowest = Some(changes.lowest.map_or(offset, |lowest| lowest.min(offset)));
        }
        changes.tally.count(sum);
        Ok(())
    })?;
    wanted.try_for_each(|record| add(record, changes))
}

/// Returns where in the log the payload of a record is that some table has.
fn located(tables: &dyn Tables, salt: u64, key: u64) -> Result<Option<u64>, StoreError> {
    for table in [Table::Aside, Table::Records] {
        if let Some(value) = tables.get(table, key)? {
            let (value, _) = unseal(salt, table, key, &value)?;
            let (_, offset): (Record, u64) =
                wire::decode_value(value).map_err(|_| StoreError::Damaged)?;
            return Ok((offset != STORED).then_some(offset));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
