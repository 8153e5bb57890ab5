//! One connection: frames in, frames out, over any stream.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::env::Stream;
use crate::wire::{self, Decoded, Frame, WireError};

/// How much memory a connection begins with for what it reads. It grows while reads fill it.
const READ_BYTES_MIN: usize = 4 << 10;

/// How much memory a connection has at most for what it reads, but for a longer frame.
const READ_BYTES_MAX: usize = 256 << 10;

/// The most frames that one write takes.
const GATHER_MAX: usize = 32;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other side closed it.
    #[error("the connection was closed by the other side")]
    Closed,
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side sent something that isn't a frame.
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// A stream with the frames that are half read or half written.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    /// Memory for bytes read: they lie from `start` to `end`.
    inbound: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes behind `start` make a difference.
    needed: usize,
    outbound: VecDeque<Arc<Vec<u8>>>,
    /// How much of the first outbound frame is written.
    written: usize,
    backlog: usize,
    /// How many bytes were ever read, and written.
    received: u64,
    sent: u64,
    /// What the last events said and no attempt has refuted.
    readable: bool,
    writable: bool,
}

impl<S: Stream> Connection<S> {
    /// Returns the connection over `stream`, which may still be coming about.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            inbound: Vec::new(),
            start: 0,
            end: 0,
            needed: wire::HEADER_BYTES,
            outbound: VecDeque::new(),
            written: 0,
            backlog: 0,
            received: 0,
            sent: 0,
            readable: false,
            writable: false,
        }
    }

    /// Takes what an event said.
    pub fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Queues a frame; [`Connection::flush`] writes it.
    pub fn send(&mut self, frame: Arc<Vec<u8>>) {
        self.backlog = self.backlog.saturating_add(frame.len());
        self.outbound.push_back(frame);
    }

    /// Writes as much of what is queued as there is room for.
    ///
    /// # Errors
    /// [`ConnectionError`] ends the connection.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.writable && !self.outbound.is_empty() {
            let mut skip = self.written;
            let parts: Vec<&[u8]> = self
                .outbound
                .iter()
                .take(GATHER_MAX)
                .map(|frame| frame.get(std::mem::take(&mut skip)..).unwrap_or(&[]))
                .collect();
            match self.stream.write(&parts) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.backlog = self.backlog.saturating_sub(count);
        self.sent = self.sent.saturating_add(count as u64);
        self.written = self.written.saturating_add(count);
        while let Some(first) = self.outbound.front()
            && first.len() <= self.written
        {
            self.written -= first.len();
            self.outbound.pop_front();
        }
    }

    /// Returns the next whole frame, and reads while there is none; `None` when the stream has no
    /// more bytes now.
    ///
    /// # Errors
    /// [`ConnectionError`] ends the connection.
    pub fn receive(&mut self) -> Result<Option<Frame>, ConnectionError> {
        loop {
            let unread = self.inbound.get(self.start..self.end).unwrap_or(&[]);
            if unread.len() >= self.needed {
                match wire::decode(unread)? {
                    Decoded::Frame { frame, length } => {
                        self.start = self.start.saturating_add(length);
                        self.needed = wire::HEADER_BYTES;
                        return Ok(Some(frame));
                    }
                    Decoded::Missing { needed } => {
                        assert!(needed > unread.len());
                        self.needed = needed;
                    }
                }
            }
            if !self.readable {
                return Ok(None);
            }
            self.make_room();
            let room = self.inbound.get_mut(self.end..).unwrap_or_default();
            match self.stream.read(room) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => {
                    self.received = self.received.saturating_add(count as u64);
                    self.end = self.end.saturating_add(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room behind what was read, for what makes a difference at least.
    fn make_room(&mut self) {
        let unread = self.end.saturating_sub(self.start);
        let is_full = self.end == self.inbound.len();
        let memory = self.inbound.len();
        let size = if self.needed > memory {
            self.needed.max(READ_BYTES_MIN)
        } else if unread == 0 && memory > READ_BYTES_MAX {
            // A long frame is over.
            READ_BYTES_MAX
        } else if is_full && memory < READ_BYTES_MAX {
            memory.saturating_mul(2)
        } else {
            memory
        };
        if size != memory {
            let mut inbound = vec![0; size];
            let kept = self.inbound.get(self.start..self.end).unwrap_or(&[]);
            if let Some(place) = inbound.get_mut(..unread) {
                place.copy_from_slice(kept);
            }
            self.inbound = inbound;
        } else if (self.start > 0 && (is_full || unread == 0))
            || self.start.saturating_add(self.needed) > memory
        {
            self.inbound.copy_within(self.start..self.end, 0);
        } else {
            return;
        }
        (self.start, self.end) = (0, unread);
    }

    /// Returns whether [`Connection::receive`] may have something to return.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.readable
    }

    /// Returns how many bytes have come, in all.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many bytes have come and gone, in all.
    #[must_use]
    pub const fn moved(&self) -> u64 {
        self.received.saturating_add(self.sent)
    }

    /// Returns how many bytes are queued and not written.
    #[must_use]
    pub const fn backlog(&self) -> usize {
        self.backlog
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{message, payload_of};

    /// A stream that takes and gives a few bytes at a time, and blocks in between.
    #[derive(Clone, Debug, Default)]
    struct Narrow {
        bytes: Rc<RefCell<VecDeque<u8>>>,
        /// How many bytes pass at each attempt; zero blocks.
        pace: Rc<RefCell<VecDeque<usize>>>,
    }

    impl Narrow {
        fn pass(&self) -> io::Result<usize> {
            match self.pace.borrow_mut().pop_front() {
                Some(0) => Err(io::ErrorKind::WouldBlock.into()),
                Some(count) => Ok(count),
                None => Ok(usize::MAX),
            }
        }
    }

    impl Stream for Narrow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = self.pass()?.min(into.len());
            let mut bytes = self.bytes.borrow_mut();
            if bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = most.min(bytes.len());
            for (to, from) in into.iter_mut().zip(bytes.drain(..count)) {
                *to = from;
            }
            Ok(count)
        }

        fn write(&mut self, from: &[&[u8]]) -> io::Result<usize> {
            let all: Vec<u8> = from.concat();
            let count = self.pass()?.min(all.len());
            self.bytes.borrow_mut().extend(all.into_iter().take(count));
            Ok(count)
        }
    }

    proptest! {
        /// However the network cuts a stream of frames, the same frames come out at its end.
        #[test]
        fn frames_survive_any_cutting(
            lengths in proptest::collection::vec(0usize..600, 1..20),
            pace in proptest::collection::vec(0usize..300, 0..80),
        ) {
            let stream = Narrow::default();
            stream.pace.borrow_mut().extend(pace);
            let mut sender = Connection::new(stream.clone());
            let mut receiver = Connection::new(stream);
            for (index, length) in (0..).zip(&lengths) {
                let payload = payload_of(index, *length);
                let frame = wire::encode(&message(index, &payload), &[&payload]).unwrap();
                sender.send(Arc::new(frame));
            }
            let mut received = Vec::new();
                while received.len() < lengths.len() {
                sender.ready(true, true);
                sender.flush().unwrap();
                receiver.ready(true, true);
                while let Some(frame) = receiver.receive().unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(sender.backlog(), 0);
            for (index, (frame, length)) in (0..).zip(received.iter().zip(&lengths)) {
                let payload = payload_of(index, *length);
                prop_assert_eq!(&frame.envelope, &message(index, &payload));
                prop_assert_eq!(&frame.payload, &payload);
            }
        }
    }

    /// A peer that sends anything else must be told from one that sends nothing.
    #[test]
    fn noise_ends_a_connection() {
        let stream = Narrow::default();
        stream.bytes.borrow_mut().extend(b"SSH-2.0-OpenSSH_9.9 and so on\r\n");
        let mut connection = Connection::new(stream);
        connection.ready(true, false);
        let error = connection.receive().unwrap_err();
        assert!(matches!(error, ConnectionError::Wire(WireError::NotQuorate)));
    }
}
