//! The clients of a reader process.

use quorate_core::consistency::ReadPoint;
use quorate_core::id::{PageId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;
use quorate_core::rules::Rules;

use super::ReaderDriver;
use crate::clock::Moment;
use crate::env::{Environment, Token};
use crate::reader::reads::WaitingRead;
use crate::volume::callers::{Asked, REQUESTS_PER_TURN};
use crate::volume::reply::IntoAnswer;
use crate::volume::{Consistency, PageVersion, PointError};
use crate::wire::client::{
    Answer, ClientRefusal, ClientReply, ClientRequest, ClientWelcome, Question, ReaderStatus,
};

impl<E: Environment, R: Rules> ReaderDriver<E, R> {
    /// Returns whether clients are served; those who come before a writer is there wait.
    pub(super) fn is_serving(&self) -> bool {
        self.vdl().is_some()
    }

    /// Takes what clients ask, in turns.
    pub(super) fn serve_callers(&mut self) {
        let welcome = self.attached().zip(self.geometry());
        let Some((attached, geometry)) = welcome else { return };
        let welcome = ClientWelcome { geometry, epoch: attached.epoch };
        self.callers.accept(&mut self.env);
        for token in self.callers.busy() {
            for _ in 0..REQUESTS_PER_TURN {
                if !self.has_room() {
                    return;
                }
                match self.callers.next(token, self.config.volume, welcome) {
                    None => break,
                    Some(Asked::Request { request, bytes: _ }) => self.take_request(token, request),
                    // No reader is let in here.
                    Some(Asked::OfReader(..)) => {}
                }
            }
        }
    }

    fn take_request(&mut self, token: Token, request: ClientRequest) {
        let ClientRequest { ticket, question } = request;
        let client = (token, ticket);
        match question {
            Question::Read { page, consistency: Consistency::Snapshot } => {
                self.take_read(client, page, Lsn::ZERO);
            }
            Question::Read { page, consistency: Consistency::AtLeast(lsn) } => {
                self.take_read(client, page, lsn);
            }
            Question::Status => {
                let answer =
                    self.status().map_or(Answer::Refused(ClientRefusal::Stopped), |status| {
                        Answer::Reader(status)
                    });
                self.reply(client, answer, Vec::new());
            }
            Question::Read { consistency: Consistency::At(_) | Consistency::Strict, .. }
            | Question::Backtrack { .. }
            | Question::Members
            | Question::Step { .. }
            | Question::Write { .. } => {
                self.reply(client, Answer::Refused(ClientRefusal::Reader), Vec::new());
            }
        }
    }

    fn take_read(&mut self, client: (Token, Ticket), page: PageId, at_least: Lsn) {
        self.reads.take(client, page, at_least, self.env.now());
    }

    fn reply(&mut self, (token, ticket): (Token, Ticket), answer: Answer, bytes: Vec<u8>) {
        self.outbox.replies.push((token, ClientReply { ticket, answer }, bytes));
    }

    /// Answers a read.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        page: PageId,
        read_point: ReadPoint,
        version: Option<Record>,
    ) {
        if self.is_newly_cached(ticket, page) {
            self.note_cached(page);
        }
        let Some(read) = self.reads.finish(ticket) else { return };
        let lsn = version.map(|record| record.lsn);
        let bytes = match lsn {
            None => Some(Vec::new()),
            Some(lsn) => self.payloads.get(&lsn).cloned(),
        };
        let Some(bytes) = bytes else {
            debug_assert!(false, "the bytes of {lsn:?} are gone");
            return self.reply(read.client, Answer::Refused(ClientRefusal::Unanswered), Vec::new());
        };
        let (answer, bytes) = PageVersion { page, read_point, lsn, bytes }.into_answer();
        self.reply(read.client, answer, bytes);
    }

    /// Refuses the reads that have waited too long.
    pub(super) fn expire_reads(&mut self, now: Moment) {
        let vdl = self.vdl().unwrap_or_default();
        for WaitingRead { at_least: lsn, client, .. } in self.reads.expired(now) {
            let refusal = if lsn > vdl.lsn() {
                ClientRefusal::Point(PointError::NotReached { lsn, vdl })
            } else {
                ClientRefusal::Unanswered
            };
            self.reply(client, Answer::Refused(refusal), Vec::new());
        }
    }

    fn status(&self) -> Option<ReaderStatus> {
        let machine = self.machine.as_ref()?;
        Some(ReaderStatus {
            epoch: machine.epoch()?,
            vdl: machine.vdl()?,
            floor: machine.floor()?,
            is_following: machine.is_following() && !self.is_cut_off,
            streams: self.streams,
            pages: machine.pages_count() as u64,
            reads_under_way: self.reads.len() as u64,
        })
    }
}
