//! Memory for whole blocks on their way to the disk.

/// Where the memory begins: at a multiple of this, which is what disks ask for that take bytes
/// without a copy.
const ALIGNMENT: usize = 4096;

/// Bytes that begin at a multiple of [`ALIGNMENT`].
#[derive(Debug, Default)]
pub(super) struct Blocks {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Blocks {
    /// Makes this empty, with room for `most` bytes. What was there is lost.
    pub(super) fn clear(&mut self, most: usize) {
        self.length = 0;
        let needed = most.saturating_add(ALIGNMENT);
        if self.memory.len() < needed {
            self.memory = vec![0; needed];
            // Zero where nobody can tell: the memory is used all the same.
            let start = self.memory.as_ptr().align_offset(ALIGNMENT);
            self.start = if start < ALIGNMENT { start } else { 0 };
        }
    }

    /// Adds `bytes`; there must be room.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    /// Adds `count` zeros; there must be room.
    pub(super) fn add_zeros(&mut self, count: usize) {
        if let Some(room) = self.room(count) {
            room.fill(0);
        }
    }

    fn room(&mut self, count: usize) -> Option<&mut [u8]> {
        let begin = self.start.saturating_add(self.length);
        let room = self.memory.get_mut(begin..begin.saturating_add(count));
        assert!(room.is_some(), "no room for {count} bytes");
        self.length = self.length.saturating_add(count);
        room
    }

    /// Returns what was added.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start.saturating_add(self.length)).unwrap_or(&[])
    }

    /// Gives memory back beyond `most` bytes, once what was added is no longer needed.
    pub(super) fn shrink(&mut self, most: usize) {
        if self.memory.len() > most.saturating_add(ALIGNMENT) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk refuses bytes that begin anywhere else.
    #[test]
    fn what_is_added_begins_at_a_multiple_of_a_block() {
        let mut blocks = Blocks::default();
        for most in [1, 5000, 4096, 100_000] {
            blocks.clear(most);
            blocks.add(&vec![7; most / 2]);
            blocks.add_zeros(most - most / 2);
            let bytes = blocks.bytes();
            assert_eq!(bytes.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(bytes.len(), most);
            assert!(bytes.iter().take(most / 2).all(|byte| *byte == 7));
            assert!(bytes.iter().skip(most / 2).all(|byte| *byte == 0));
        }
    }
}
