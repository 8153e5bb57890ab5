//! The bytes of records: what a record does to its page travels and is stored beside the core.

use quorate_core::id::{PageId, PgId};
use quorate_core::lsn::Lsn;
use quorate_core::record::{Payload, Record};

/// The most bytes that one record carries: in this version a record is the image of a whole page.
pub const PAGE_BYTES_MAX: usize = 8192;

/// Returns the CRC-32C over group, page, LSN and `bytes`.
///
/// The place is part of the sum, so that right bytes in a wrong place are found out too.
#[must_use]
pub fn checksum(group: PgId, page: PageId, lsn: Lsn, bytes: &[u8]) -> u32 {
    let mut sum = crc32c::crc32c(&group.get().to_le_bytes());
    sum = crc32c::crc32c_append(sum, &page.get().to_le_bytes());
    sum = crc32c::crc32c_append(sum, &lsn.get().to_le_bytes());
    crc32c::crc32c_append(sum, bytes)
}

/// Returns the description of `bytes` as the payload of a record, or `None` when there are more
/// than [`PAGE_BYTES_MAX`].
#[must_use]
pub fn describe(group: PgId, page: PageId, lsn: Lsn, bytes: &[u8]) -> Option<Payload> {
    if bytes.len() > PAGE_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(bytes.len()).ok()?;
    Some(Payload { length, checksum: checksum(group, page, lsn, bytes) })
}

/// Returns whether `bytes` are the payload of `record`.
#[must_use]
pub fn belongs(record: &Record, bytes: &[u8]) -> bool {
    u32::try_from(bytes.len()) == Ok(record.payload.length)
        && checksum(record.group, record.page, record.lsn, bytes) == record.payload.checksum
}

/// Why the bytes beside a message aren't its records' payloads.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PayloadError {
    /// A record's bytes don't match its checksum.
    #[error("the bytes of the record with LSN {lsn} do not match its checksum")]
    Checksum {
        /// The record.
        lsn: Lsn,
    },
    /// The lengths of the records don't add up to the bytes that came.
    #[error("{found} bytes came where the records announce {announced}")]
    Length {
        /// The sum of the records' lengths.
        announced: u64,
        /// The bytes that came.
        found: u64,
    },
    /// A client's page doesn't match its checksum.
    #[error("the bytes of {page} do not match its checksum")]
    Page {
        /// The page.
        page: PageId,
    },
    /// A record announces more bytes than a page has.
    #[error("the record with LSN {lsn} announces {length} bytes, more than a page has")]
    Oversized {
        /// The record.
        lsn: Lsn,
        /// The bytes announced.
        length: u32,
    },
}

/// Returns the length of `record`'s payload.
#[must_use]
pub fn length(record: &Record) -> usize {
    usize::try_from(record.payload.length).unwrap_or(usize::MAX)
}

/// Cuts `bytes` into the payloads of `records`, in order, and checks each.
///
/// # Errors
/// [`PayloadError`] unless every record gets exactly the bytes that its checksum covers.
pub fn check(records: &[Record], bytes: &[u8]) -> Result<(), PayloadError> {
    let announced: u64 = records.iter().map(|record| u64::from(record.payload.length)).sum();
    let found = bytes.len() as u64;
    if announced != found {
        return Err(PayloadError::Length { announced, found });
    }
    for (record, own) in cut(records, bytes) {
        let Record { lsn, payload, .. } = *record;
        if length(record) > PAGE_BYTES_MAX {
            return Err(PayloadError::Oversized { lsn, length: payload.length });
        }
        if !belongs(record, own) {
            return Err(PayloadError::Checksum { lsn });
        }
    }
    Ok(())
}

/// Cuts `bytes`, which passed [`check`], into the payloads of `records`.
pub fn cut<'a>(
    records: &'a [Record],
    bytes: &'a [u8],
) -> impl Iterator<Item = (&'a Record, &'a [u8])> {
    records.iter().scan(bytes, |rest, record| {
        let (own, others) = rest.split_at_checked(length(record))?;
        *rest = others;
        Some((record, own))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_core::epoch::VolumeEpoch;
    use quorate_core::id::InstanceId;

    use super::*;

    fn record(lsn: u64, bytes: &[u8]) -> Record {
        let (group, page, lsn) = (PgId::new(0), PageId::new(7), Lsn::new(lsn));
        Record {
            lsn,
            epoch: VolumeEpoch::new(1, InstanceId::new(1)),
            prev_volume: Lsn::ZERO,
            prev_group: Lsn::ZERO,
            group,
            page,
            cpl: true,
            payload: describe(group, page, lsn, bytes).unwrap(),
        }
    }

    /// Bytes that belong to another place must not pass for this record's.
    #[test]
    fn a_checksum_covers_the_place_and_every_bit() {
        let first = record(1, b"redo");
        assert!(belongs(&first, b"redo"));
        assert!(!belongs(&first, b"red"));
        assert!(!belongs(&Record { lsn: Lsn::new(2), ..first }, b"redo"));
        assert!(!belongs(&Record { page: PageId::new(8), ..first }, b"redo"));
        assert!(!belongs(&Record { group: PgId::new(1), ..first }, b"redo"));
        for bit in 0..32u8 {
            let mut bytes = *b"redo";
            if let Some(byte) = bytes.get_mut(usize::from(bit / 8)) {
                *byte ^= 1 << (bit % 8);
            }
            assert!(!belongs(&first, &bytes));
        }
    }

    /// A message whose lengths do not add up must not lend one record another's bytes.
    #[test]
    fn payloads_are_cut_exactly() {
        let records = [record(1, b"one"), record(2, b""), record(3, b"three")];
        check(&records, b"onethree").unwrap();
        let bytes: Vec<&[u8]> = cut(&records, b"onethree").map(|(_, bytes)| bytes).collect();
        assert_eq!(bytes, [b"one".as_slice(), b"", b"three"]);
        let length = PayloadError::Length { announced: 8, found: 7 };
        assert_eq!(check(&records, b"onethre"), Err(length));
        let checksum = PayloadError::Checksum { lsn: Lsn::new(3) };
        assert_eq!(check(&records, b"onethreE"), Err(checksum));
    }
}
