//! Redo records.

use serde::{Deserialize, Serialize};

use crate::epoch::VolumeEpoch;
use crate::id::{PageId, PgId};
use crate::lsn::Lsn;

/// What a record does to its page, as far as the protocol needs to know: the payload's length and
/// checksum. The bytes travel beside the core, keyed by the record's LSN.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Payload {
    /// Length in bytes.
    pub length: u32,
    /// CRC-32C over group, page, LSN and bytes, computed by the driver.
    pub checksum: u32,
}

/// One redo record, without its payload's bytes (SIGMOD'17 §4.1, SIGMOD'18 §2.1).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Record {
    /// Its position in the volume's log.
    pub lsn: Lsn,
    /// The epoch of the writer that allocated it.
    pub epoch: VolumeEpoch,
    /// The last retained record of the volume before it, zero for the first.
    pub prev_volume: Lsn,
    /// The last retained record of its group before it, zero for the first.
    pub prev_group: Lsn,
    /// The group whose segments hold it.
    pub group: PgId,
    /// The page that it changes.
    pub page: PageId,
    /// Whether it ends a mini-transaction: a consistency point (CPL). Part of the record and of
    /// its checksum, never recomputed (edge 16).
    pub cpl: bool,
    /// What it does to its page.
    pub payload: Payload,
}

impl Record {
    /// Returns whether the backlinks and the epoch are of a form that a writer can produce.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.prev_group <= self.prev_volume
            && self.prev_volume < self.lsn
            && self.epoch > VolumeEpoch::ZERO
    }
}

/// One change of a mini-transaction, before it has an LSN.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Change {
    /// The page that it changes.
    pub page: PageId,
    /// What it does to the page.
    pub payload: Payload,
}
