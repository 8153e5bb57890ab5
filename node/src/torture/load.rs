//! Clients under way: what was asked of a writer and not answered yet.

use std::collections::BTreeMap;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PageId, Ticket};

use super::TortureError;
use super::book::{Attempt, Book};
use crate::client::{Client, ClientError, Outcome};
use crate::volume::{Consistency, PageImage};
use crate::wire::client::ClientRefusal;

/// A connection to a writer with its writes under way.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    under_way: BTreeMap<Ticket, (PageId, Attempt)>,
}

/// What became of the next reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// A write was acknowledged.
    Acknowledged,
    /// The writer is gone: what is under way stays in doubt.
    Gone,
    /// The writer refuses, because it has been overtaken or ends: what was refused stays in doubt.
    Refused(ClientRefusal),
}

impl Session {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client, under_way: BTreeMap::new() }
    }

    /// Returns the epoch of the writer.
    pub(crate) const fn epoch(&self) -> VolumeEpoch {
        self.client.welcome().epoch
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Begins to write `page`; `false` when the writer is gone.
    pub(crate) fn write(&mut self, book: &mut Book, page: PageId) -> bool {
        let (attempt, bytes) = book.attempt(page);
        self.send(page, attempt, bytes)
    }

    /// Begins to write `page` through a writer that has been overtaken; `false` when it is gone.
    pub(crate) fn write_overtaken(&mut self, book: &mut Book, page: PageId) -> bool {
        let (attempt, bytes) = book.attempt_overtaken(page);
        self.send(page, attempt, bytes)
    }

    fn send(&mut self, page: PageId, attempt: Attempt, bytes: Vec<u8>) -> bool {
        match self.client.write(&[PageImage { page, bytes }]) {
            Ok(ticket) => {
                self.under_way.insert(ticket, (page, attempt));
                true
            }
            Err(_) => false,
        }
    }

    /// Waits for the next reply and notes it.
    pub(crate) fn step(&mut self, book: &mut Book) -> Result<Step, TortureError> {
        match self.client.receive() {
            Ok((ticket, Outcome::Written(_))) => {
                if let Some((page, attempt)) = self.under_way.remove(&ticket) {
                    book.acknowledge(page, attempt)?;
                }
                Ok(Step::Acknowledged)
            }
            Ok((ticket, Outcome::Refused(refusal))) => {
                self.under_way.remove(&ticket);
                Ok(Step::Refused(refusal))
            }
            Ok((_, Outcome::Page(_) | Outcome::Status(_))) => Err(TortureError::Confused),
            Err(ClientError::TimedOut(_)) => Err(TortureError::Stuck { doing: "writing" }),
            Err(_) => Ok(Step::Gone),
        }
    }

    /// Takes every reply of a writer that has been overtaken, until it is gone.
    pub(crate) fn drain(mut self, book: &mut Book) -> Result<(), TortureError> {
        while !self.under_way.is_empty() {
            if self.step(book)? == Step::Gone {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads `pages` strictly, `in_flight` at a time, and compares them with the book. `false`
    /// when the writer is gone.
    pub(crate) fn verify(
        &mut self,
        book: &mut Book,
        pages: &[PageId],
        in_flight: usize,
    ) -> Result<bool, TortureError> {
        assert!(self.under_way.is_empty(), "reads come between writes");
        let mut waiting = pages.iter();
        let mut asked = 0;
        loop {
            while asked < in_flight
                && let Some(page) = waiting.next()
            {
                if self.client.read(*page, Consistency::Strict).is_err() {
                    return Ok(false);
                }
                asked += 1;
            }
            if asked == 0 {
                return Ok(true);
            }
            match self.client.receive() {
                Ok((_, Outcome::Page(version))) => book.check(version.page, &version.bytes)?,
                Ok((_, Outcome::Refused(_))) => return Ok(false),
                Ok((_, Outcome::Written(_) | Outcome::Status(_))) => {
                    return Err(TortureError::Confused);
                }
                Err(ClientError::TimedOut(_)) => {
                    return Err(TortureError::Stuck { doing: "reading" });
                }
                Err(_) => return Ok(false),
            }
            asked -= 1;
        }
    }
}
