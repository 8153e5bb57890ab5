//! A writer process that is frozen in the middle of its writes, another one that takes over, and
//! what becomes of the first one when it goes on.

use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::PageId;

use super::{ANSWER_MAX, DemoError};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::seat::WriterSeat;
use crate::torture::TortureError;
use crate::torture::book::{Book, Violation};
use crate::torture::load::{Session, Step};
use crate::wire::client::ClientRefusal;

/// Writes that are acknowledged before the writer is frozen, and to the one that takes over.
const WRITES: usize = 500;

/// Writes under way.
const IN_FLIGHT: usize = 64;

/// What the frozen writer is asked for once another one has taken over.
const LATE_WRITES: usize = 8;

/// How long an overtaken writer process may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// Pages that are written one after the other, far from those of the file.
const FIRST_PAGE: u64 = 1 << 40;

/// Whoever writes pages beside the file, with the book of what was acknowledged.
#[derive(Debug)]
pub(super) struct Pen {
    pub(super) book: Book,
    next: u64,
}

/// What a takeover came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takeover {
    /// The writer that was frozen.
    pub(super) first: VolumeEpoch,
    /// Its writes under way when it was frozen.
    pub(super) under_way: usize,
    /// The writer that took over.
    pub(super) second: VolumeEpoch,
    /// From the signal that froze the first to the first durable write of the second.
    pub(super) took: Duration,
}

/// What became of the overtaken writer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// Writes that had been under way for which it found, in what it had received before it was
    /// frozen, that they were durable.
    pub(super) settled: u64,
    /// Writes that it refused, naming the writer that overtook it.
    pub(super) refused: u64,
    /// From the signal that let it go on to its first refusal.
    pub(super) refused_after: Duration,
    /// And to its end.
    pub(super) ended_after: Duration,
}

impl Pen {
    pub(super) fn new() -> Self {
        Self { book: Book::default(), next: FIRST_PAGE }
    }

    fn page(&mut self) -> PageId {
        self.next = self.next.saturating_add(1);
        PageId::new(self.next)
    }

    /// Begins one write.
    pub(super) fn begin(&mut self, session: &mut Session) -> Result<(), DemoError> {
        let page = self.page();
        if session.write(&mut self.book, page) { Ok(()) } else { Err(DemoError::WriterGone) }
    }

    /// Waits for an acknowledgement.
    pub(super) fn wait(&mut self, session: &mut Session) -> Result<(), DemoError> {
        match session.step(&mut self.book)? {
            Step::Acknowledged => Ok(()),
            Step::Gone | Step::Refused(_) | Step::Told { .. } => Err(DemoError::WriterGone),
        }
    }

    /// Waits for [`WRITES`] acknowledgements with [`IN_FLIGHT`] writes under way.
    fn write_on(&mut self, session: &mut Session) -> Result<(), DemoError> {
        for _ in 0..WRITES {
            while session.under_way() < IN_FLIGHT {
                self.begin(session)?;
            }
            self.wait(session)?;
        }
        Ok(())
    }

    /// Writes through `session`, freezes its writer in the middle, and lets another one take over,
    /// which is returned with a session of its own and nothing under way.
    pub(super) fn take_over(
        &mut self,
        cluster: &Cluster,
        writer: &WriterSeat,
        session: &mut Session,
    ) -> Result<(WriterSeat, Session, Takeover), DemoError> {
        let clock = Clock::start();
        self.write_on(session)?;
        while session.under_way() < IN_FLIGHT {
            self.begin(session)?;
        }
        writer.freeze()?;
        let frozen = clock.now();
        let mut other = cluster.another_writer("writer-2")?;
        let mut second = Session::new(other.connect(ANSWER_MAX)?);
        self.begin(&mut second)?;
        self.wait(&mut second)?;
        let takeover = Takeover {
            first: session.epoch(),
            under_way: session.under_way(),
            second: second.epoch(),
            took: clock.now().since(frozen),
        };
        self.write_on(&mut second)?;
        while second.under_way() > 0 {
            self.wait(&mut second)?;
        }
        Ok((other, second, takeover))
    }

    /// Asks the frozen writer for more, lets it go on, and takes everything that it answers.
    /// `second` is a session of the writer that overtook it.
    pub(super) fn resume(
        &mut self,
        writer: &mut WriterSeat,
        mut session: Session,
        second: &mut Session,
    ) -> Result<Ended, DemoError> {
        let clock = Clock::start();
        let (first, by) = (session.epoch(), second.epoch());
        let mut late = Vec::new();
        for _ in 0..LATE_WRITES {
            let page = self.page();
            if !session.write_overtaken(&mut self.book, page) {
                return Err(DemoError::WriterGone);
            }
        }
        writer.resume()?;
        let resumed = clock.now();
        let mut ended = Ended::default();
        let mut other_refusal = None;
        let pages = [self.page(), self.page()];
        session.exhaust(&mut self.book, second, pages, |step| {
            match step {
                Ok(Step::Acknowledged) => ended.settled += 1,
                Ok(Step::Refused(ClientRefusal::Overtaken { by: other })) if other == by => {
                    if ended.refused == 0 {
                        ended.refused_after = clock.now().since(resumed);
                    }
                    ended.refused += 1;
                }
                Ok(Step::Refused(refusal)) => other_refusal = Some(refusal),
                Ok(Step::Gone | Step::Told { .. }) => {}
                Err(TortureError::Violation(Violation::Zombie { page, .. })) => late.push(page),
                Err(error) => return Err(error),
            }
            Ok(late.len() < LATE_WRITES)
        })?;
        if let Some(refusal) = other_refusal {
            return Err(DemoError::OtherRefusal { refusal });
        }
        if !late.is_empty() {
            return Err(self.convict(first, &late, second));
        }
        if ended.refused == 0 {
            return Err(DemoError::NotRefused { first, by });
        }
        let status = writer.wait_ended(END_MAX)?;
        ended.ended_after = clock.now().since(resumed);
        match status {
            Some(status) if status.code() == Some(1) && writer.words().contains("overtaken") => {
                Ok(ended)
            }
            Some(_) | None => Err(DemoError::NotEnded { first }),
        }
    }

    /// Looks up, through the writer that took over, what the other one acknowledged after that.
    fn convict(&mut self, first: VolumeEpoch, pages: &[PageId], second: &mut Session) -> DemoError {
        let mut missing = 0;
        for page in pages {
            // The book knows these pages for never written: anything else there is told below.
            match second.verify(&mut self.book, &[*page], 1) {
                Ok(true) => missing += 1,
                Ok(false) => return DemoError::WriterGone,
                Err(TortureError::Violation(_)) => {}
                Err(error) => return error.into(),
            }
        }
        let page = pages.first().copied().unwrap_or(PageId::new(0));
        DemoError::Violated { first, by: second.epoch(), late: pages.len(), missing, page }
    }

    /// Reads every page with an acknowledgement through `session`, strictly; returns how many.
    pub(super) fn verify(&mut self, session: &mut Session) -> Result<u64, DemoError> {
        let pages = self.book.unread();
        if !session.verify(&mut self.book, &pages, IN_FLIGHT)? {
            return Err(DemoError::WriterGone);
        }
        Ok(pages.len() as u64)
    }
}
