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
    /// The writer said how it is: so many writes wait for their LSNs, of those that it was asked
    /// for before.
    Told { waiting: u64 },
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
                // Whoever refuses to say how it is has nothing that waits.
                let is_write = self.under_way.remove(&ticket).is_some();
                Ok(if is_write { Step::Refused(refusal) } else { Step::Told { waiting: 0 } })
            }
            Ok((_, Outcome::Status(status))) => Ok(Step::Told { waiting: status.writes_waiting }),
            Ok((
                _,
                Outcome::Members(_)
                | Outcome::Opened(..)
                | Outcome::Page(_)
                | Outcome::Reader(_)
                | Outcome::Stepped(_),
            )) => Err(TortureError::Confused),
            Err(ClientError::TimedOut(_)) => Err(TortureError::Stuck { doing: "writing" }),
            Err(_) => Ok(Step::Gone),
        }
    }

    /// Takes every reply of a writer that has been overtaken and goes on, until it is gone or
    /// `hear` says no.
    ///
    /// A writer that nobody fences is found out for certain: once it has given LSNs to all that it
    /// was asked for, `second`, which overtook it, makes a write durable, on the first of `pages`.
    /// That one lies above those LSNs, and so do the SCLs with which segments acknowledge the next
    /// write of the overtaken one, on the second of `pages`.
    pub(crate) fn exhaust(
        &mut self,
        book: &mut Book,
        second: &mut Self,
        pages: [PageId; 2],
        mut hear: impl FnMut(Result<Step, TortureError>) -> Result<bool, TortureError>,
    ) -> Result<(), TortureError> {
        let [above, last] = pages;
        let mut can_ask = self.client.ask_status().is_ok();
        while !self.under_way.is_empty() {
            match self.step(book) {
                Ok(Step::Gone) => return Ok(()),
                Ok(Step::Told { waiting }) if waiting > 0 && can_ask => {
                    can_ask = self.client.ask_status().is_ok();
                }
                Ok(Step::Told { .. }) => {
                    second.write(book, above);
                    while second.under_way() > 0 {
                        if second.step(book)? != Step::Acknowledged {
                            return Err(TortureError::WriterGone);
                        }
                    }
                    self.write_overtaken(book, last);
                }
                other => {
                    if !hear(other)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes every reply of a writer that was killed, until it is gone.
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
                Ok((
                    _,
                    Outcome::Members(_)
                    | Outcome::Opened(..)
                    | Outcome::Reader(_)
                    | Outcome::Status(_)
                    | Outcome::Stepped(_)
                    | Outcome::Written(_),
                )) => {
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
