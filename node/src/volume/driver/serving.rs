//! The clients of a writer process, served by the loop of its volume.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PageId, PgId, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::callers::{Asked, REQUESTS_PER_TURN};
use super::super::check::refuse;
use super::super::reply::Reply;
use super::super::{Committed, Consistency, PageImage, PageVersion, VolumeError};
use super::{Phase, READS_MAX, VolumeDriver};
use crate::clock::Moment;
use crate::env::{Environment, Token};
use crate::wire::client::{
    Answer, ClientRefusal, ClientReply, ClientRequest, ClientWelcome, GroupStatus, Question,
    SegmentView, WriterStatus, cut,
};

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// Serves clients at `address` as soon as the volume is open.
    ///
    /// # Errors
    /// When nobody can be listened to there.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        self.callers.listen(&mut self.env, address)
    }

    /// Does what can be done now, and waits for events once, for at most `patience`.
    pub fn turn_for(&mut self, patience: Duration) {
        let latest = self.env.now().after(patience);
        self.turn_within(Some(latest));
    }

    /// Returns the time of this loop's clock.
    pub fn now(&self) -> Moment {
        self.env.now()
    }

    /// Returns whether nothing waits for an answer and every answer has been written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_served = self.writes.is_empty() && self.commits.is_empty() && self.reads.len() == 0;
        is_served && self.outbox.replies.is_empty() && self.callers.is_flushed()
    }

    /// Returns why the loop has stopped for good, if it has.
    #[must_use]
    pub const fn over(&self) -> Option<VolumeError> {
        match self.phase {
            Phase::Over(error) => Some(error),
            Phase::Open | Phase::Recovering(_) => None,
        }
    }

    /// Returns whether another command can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.writes.has_room() && self.reads.len() < READS_MAX
    }

    /// Returns whether clients are served; those who come before that wait.
    pub(super) const fn is_serving(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Over(_) => true,
            Phase::Recovering(_) => false,
        }
    }

    /// Takes what clients ask, in turns.
    pub(super) fn serve_callers(&mut self) {
        let Some(welcome) = self.welcome.filter(|_| self.is_serving()) else { return };
        self.callers.accept(&mut self.env);
        let volume = self.config.volume;
        for token in self.callers.busy() {
            for _ in 0..REQUESTS_PER_TURN {
                if !self.has_room() {
                    return;
                }
                let asked = self.callers.next(token, volume, welcome);
                let Some(asked) = asked else { break };
                match asked {
                    Asked::OfReader(reader, message) => self.take_from_reader(reader, message),
                    Asked::Request { request, bytes } => self.take_request(token, request, &bytes),
                }
            }
        }
    }

    fn take_request(&mut self, token: Token, request: ClientRequest, bytes: &[u8]) {
        let ticket = request.ticket;
        match request.question {
            Question::Read { page, consistency } => {
                self.take_read(page, consistency, Reply::Caller { token, ticket });
            }
            Question::Backtrack { target } => {
                self.take_backtrack(target, Reply::Caller { token, ticket });
            }
            Question::Members => self.tell_members(token, ticket),
            Question::Status => self.tell_status(token, ticket),
            Question::Step { group, step, place } => {
                let answer = match self.over() {
                    Some(error) => Answer::Refused(error.into()),
                    None => Answer::Stepped(self.take_step(group, step, place)),
                };
                self.outbox.replies.push((token, ClientReply { ticket, answer }, Vec::new()));
            }
            Question::Write { pages } => {
                let pages = cut(&pages, bytes)
                    .map(|(sum, bytes)| PageImage { page: sum.page, bytes: bytes.to_vec() })
                    .collect();
                self.take_write(pages, Reply::Caller { token, ticket });
            }
        }
    }

    fn tell_status(&mut self, token: Token, ticket: Ticket) {
        let answer = match (self.over(), self.status()) {
            (Some(error), _) => Answer::Refused(error.into()),
            (None, Some(status)) => Answer::Status(Box::new(status)),
            (None, None) => Answer::Refused(ClientRefusal::Stopped),
        };
        self.outbox.replies.push((token, ClientReply { ticket, answer }, Vec::new()));
    }

    /// Takes a read of anybody.
    pub(super) fn take_read(
        &mut self,
        page: PageId,
        consistency: Consistency,
        reply: Reply<PageVersion>,
    ) {
        if let Some(error) = self.over() {
            return reply.send(Err(error), &mut self.outbox);
        }
        let vdl = self.writer.as_ref().and_then(Writer::vdl).unwrap_or_default();
        let read_point = match consistency {
            Consistency::At(lsn) => match self.points.find(lsn, vdl) {
                Ok(read_point) => Some(read_point),
                Err(error) => return reply.send(Err(error.into()), &mut self.outbox),
            },
            Consistency::AtLeast(_) | Consistency::Snapshot | Consistency::Strict => None,
        };
        self.reads.take(page, consistency, read_point, reply, vdl, self.env.now());
    }

    /// Takes a write of anybody.
    pub(super) fn take_write(&mut self, pages: Vec<PageImage>, reply: Reply<Committed>) {
        match self.over().or(self.is_full).or_else(|| refuse(&pages)) {
            Some(error) => reply.send(Err(error), &mut self.outbox),
            None => self.writes.add(pages, reply),
        }
    }

    /// Returns how the writer is, once the volume is open.
    #[must_use]
    pub fn status(&self) -> Option<WriterStatus> {
        let writer = self.writer.as_ref()?;
        let groups = writer.geometry().groups().filter_map(|group| self.group_status(group));
        Some(WriterStatus {
            epoch: writer.epoch(),
            recovery_point: self.recovery_point,
            vcl: writer.vcl()?,
            vdl: writer.vdl()?,
            tail: writer.tail()?,
            allowance: writer.allowance()?,
            groups: groups.collect(),
            connections: self.callers.len() as u64,
            writes_under_way: self.commits.len() as u64,
            writes_waiting: self.writes.len() as u64,
            reads_under_way: self.reads.len() as u64,
            reads_hedged: self.reads.latencies().hedges(),
            reads_probed: self.reads.latencies().probes(),
            bytes_under_way: self.flying_bytes as u64,
        })
    }

    fn group_status(&self, group: PgId) -> Option<GroupStatus> {
        let writer = self.writer.as_ref()?;
        let pgcl = writer.pgcl(group)?.lsn();
        let peers = self.peers.iter().filter(|peer| peer.group == group);
        let segments = peers.map(|peer| {
            let scl = writer.scl(group, peer.position);
            let behind = pgcl.get().saturating_sub(scl.map_or(0, Lsn::get));
            SegmentView { position: peer.position, is_up: peer.link.is_up(), scl, behind }
        });
        Some(GroupStatus { group, pgcl, segments: segments.collect() })
    }

    /// Remembers what to tell clients first.
    pub(super) fn welcome_as(&mut self, epoch: VolumeEpoch) {
        let geometry = self.writer.as_ref().map(|writer| *writer.geometry());
        self.welcome = geometry.map(|geometry| ClientWelcome { geometry, epoch });
    }
}
