//! Where a log's bytes are: which file, and where in it.

use crate::format::{
    BLOCK_BYTES, FILE_BYTES_FIRST, FILE_BYTES_MAX, SLOT_STRIDE, SLOTS, SLOTS_BYTES,
};

/// The sizes of a log's files. Each is twice as long as the one before, up to the longest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    /// The length of the first file, slots included, in bytes.
    pub(super) first: u64,
    /// The length that no file exceeds.
    pub(super) max: u64,
    /// The length of a block: what is written begins and ends where one does. Divides what a file
    /// holds of the log, and leaves room for a slot.
    pub(super) block: usize,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// The number of the file.
    pub(super) index: u32,
    /// The offset in it, in bytes.
    pub(super) within: u64,
    /// How many bytes of the log follow in this file, the one here included.
    pub(super) left: u64,
}

impl Layout {
    /// The layout of this format.
    pub(super) const STANDARD: Self =
        Self { first: FILE_BYTES_FIRST, max: FILE_BYTES_MAX, block: BLOCK_BYTES };

    /// Returns the length of the file with this number.
    pub(super) const fn file_bytes(&self, index: u32) -> u64 {
        let mut bytes = self.first;
        let mut file = 0;
        while file < index && bytes < self.max {
            bytes = bytes.saturating_mul(2);
            file += 1;
        }
        if bytes < self.max { bytes } else { self.max }
    }

    /// Returns how many bytes of the log that file holds.
    pub(super) const fn data_bytes(&self, index: u32) -> u64 {
        self.file_bytes(index).saturating_sub(SLOTS_BYTES)
    }

    /// Returns the first byte of the log in that file.
    pub(super) const fn start(&self, index: u32) -> u64 {
        let mut start = 0u64;
        let mut file = 0;
        while file < index {
            let bytes = self.data_bytes(file);
            if self.file_bytes(file) == self.max {
                // From here on all files are of one size.
                return start.saturating_add(bytes.saturating_mul((index - file) as u64));
            }
            start = start.saturating_add(bytes);
            file += 1;
        }
        start
    }

    /// Returns where the byte `offset` of the log is.
    pub(super) const fn locate(&self, offset: u64) -> Place {
        let mut within = offset;
        let mut index = 0;
        while within >= self.data_bytes(index) {
            let bytes = self.data_bytes(index);
            if self.file_bytes(index) == self.max {
                let files = within / bytes;
                // There is no log with so many files: their names have six digits.
                let files = if files > u32::MAX as u64 { u32::MAX } else { low_half(files) };
                index = index.saturating_add(files);
                within %= bytes;
                break;
            }
            within -= bytes;
            index += 1;
        }
        Place { index, within, left: self.data_bytes(index).saturating_sub(within) }
    }

    /// Returns the number of the first file, but for file 0, that a log has to have of which no
    /// byte before `kept` is needed. Those before it hold no note that the checkpoint doesn't stand
    /// for: a file's slots are written until the next one holds durable bytes, and the checkpoint
    /// stands for such bytes of the file behind this one.
    pub(super) const fn first_kept(&self, kept: u64) -> u32 {
        self.locate(kept.saturating_sub(1)).index.saturating_sub(1)
    }

    /// Returns where in the file with this number the slot is that is written after `sequence`
    /// others.
    pub(super) const fn slot(&self, index: u32, sequence: u64) -> u64 {
        self.data_bytes(index).saturating_add((sequence % SLOTS).saturating_mul(SLOT_STRIDE))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the value was compared with the bound")]
const fn low_half(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte that two places hold, or none, would be lost.
    #[test]
    fn every_byte_has_one_place() {
        let layout = Layout { first: SLOTS_BYTES + 4, max: SLOTS_BYTES * 4, block: 4 };
        let mut expected = (0, 0);
        for offset in 0..200_000 {
            let place = layout.locate(offset);
            assert_eq!((place.index, place.within), expected, "{offset}");
            assert_eq!(layout.start(place.index) + place.within, offset);
            assert_eq!(place.left, layout.data_bytes(place.index) - place.within);
            expected = match place.left {
                1 => (place.index + 1, 0),
                _ => (place.index, place.within + 1),
            };
        }
        assert!(expected.0 > 6);
    }

    /// Whoever has little data must not pay for much, and who has much must not switch often.
    #[test]
    fn files_grow_up_to_a_bound() {
        let bytes: Vec<u64> =
            (0..9).map(|index| Layout::STANDARD.file_bytes(index) >> 20).collect();
        assert_eq!(bytes, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(Layout::STANDARD.file_bytes(u32::MAX), FILE_BYTES_MAX);
    }
}
