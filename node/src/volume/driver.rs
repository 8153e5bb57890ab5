//! The loop of a volume client: commands and events in, the writer's effects out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use quorate_core::effect::{CommandRefusal, Report, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PageId, PgId, Position, SegmentSet, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::message::{ToSegment, ToWriter};
use quorate_core::record::Change;
use quorate_core::refusal::Refusal;
use quorate_core::rules::{Rules, Sound};
use quorate_core::writer::Writer;

use super::check::{Shape, encode, refuse, shape};
use super::flow::Peer;
use super::reads::Reads;
use super::recovery::Recovery;
use super::{Command, Committed, Opened, PageImage, Unavailable, VolumeConfig, VolumeError};
use crate::clock::Moment;
use crate::connection::READ_BYTES;
use crate::env::{Environment, Event};
use crate::link::{Link, LinkEvent};
use crate::payload;
use crate::wire::{Envelope, Frame, Hello, Role};

/// The most payload bytes that are not durable yet; above that, writes wait.
const FLYING_BYTES_MAX: usize = 16 << 20;

/// The most reads under way.
const READS_MAX: usize = 1024;

/// The most writes that wait for room.
const WRITES_MAX: usize = 64;

/// How long after the last advance of the VDL an idle writer tells it to the segments.
const PUBLISH_AFTER: Duration = Duration::from_millis(10);

/// How long the VDL may stand still, with writes under way, before segments get them again.
const STALL: Duration = Duration::from_secs(1);

/// The most frames taken from one segment before the others have their turn.
const FRAMES_PER_TURN: usize = 64;

type Reply<T> = mpsc::Sender<Result<T, VolumeError>>;

/// A volume client over any environment. [`super::Volume`] runs one on a thread.
#[derive(Debug)]
pub struct VolumeDriver<E: Environment, R: Rules = Sound> {
    env: E,
    rules: R,
    config: VolumeConfig,
    commands: mpsc::Receiver<Command>,
    peers: Vec<Peer<E::Stream>>,
    phase: Phase,
    writer: Option<Writer<R>>,
    effects: Vec<WriterEffect>,
    /// The bytes of every record above the VCL: a segment may need them again.
    payloads: BTreeMap<Lsn, Arc<[u8]>>,
    flying_bytes: usize,
    /// The LSNs at or under this one are used up.
    used: Lsn,
    /// Writes that wait for room.
    writes: VecDeque<(Vec<PageImage>, Reply<Committed>)>,
    /// Writes under way, by consistency point.
    commits: VecDeque<(Committed, Reply<Committed>)>,
    reads: Reads,
    publish: Option<Moment>,
    advanced: Moment,
    /// Peers that may have something to read, by index.
    busy: BTreeSet<usize>,
    buffer: Vec<u8>,
    /// The payload of the message that the writer is taking.
    incoming: Vec<u8>,
}

/// How far a client is.
#[derive(Debug)]
enum Phase {
    Open,
    Over(VolumeError),
    Recovering(Recovery),
}

impl<E: Environment> VolumeDriver<E> {
    /// Starts to open a volume. The outcome goes to `reply`; the loop ends when the other side of
    /// `commands` is gone.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn start(
        env: E,
        config: VolumeConfig,
        commands: mpsc::Receiver<Command>,
        reply: mpsc::Sender<Result<Opened, VolumeError>>,
    ) -> io::Result<Self> {
        Self::start_under(Sound, env, config, commands, reply)
    }
}

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// [`VolumeDriver::start`] with a writer that obeys `rules`.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn start_under(
        rules: R,
        mut env: E,
        config: VolumeConfig,
        commands: mpsc::Receiver<Command>,
        reply: mpsc::Sender<Result<Opened, VolumeError>>,
    ) -> io::Result<Self> {
        let instance = InstanceId::new(env.random()?);
        let now = env.now();
        let volume = config.volume;
        let role = Role::Writer { instance };
        let mut peers = Vec::new();
        for (group, segments) in (0..).map(PgId::new).zip(&config.segments) {
            for (position, address) in Position::first(segments.len()).zip(segments) {
                let hello = Hello { volume, group, position, role };
                peers.push(Peer::new(group, position, Link::new(*address, hello, now), now));
            }
        }
        let until = now.after(config.patience);
        Ok(Self {
            phase: Phase::Recovering(Recovery::new(instance, until, now, reply)),
            env,
            rules,
            config,
            commands,
            peers,
            writer: None,
            effects: Vec::new(),
            payloads: BTreeMap::new(),
            flying_bytes: 0,
            used: Lsn::ZERO,
            writes: VecDeque::new(),
            commits: VecDeque::new(),
            reads: Reads::default(),
            publish: None,
            advanced: now,
            busy: BTreeSet::new(),
            buffer: vec![0; READ_BYTES],
            incoming: Vec::new(),
        })
    }

    /// Does what can be done now and waits for events once; `false` when it is all over.
    pub fn turn(&mut self) -> bool {
        if !self.take_commands() {
            return false;
        }
        self.tick();
        for peer in &mut self.peers {
            peer.link.flush();
        }
        let mut events = Vec::new();
        let deadline = self.deadline();
        if let Err(error) = self.env.wait(deadline, &mut events) {
            self.give_up(VolumeError::System(error.kind()));
        }
        for event in events {
            self.take_event(event);
        }
        self.serve();
        true
    }

    fn take_commands(&mut self) -> bool {
        while self.writes.len() < WRITES_MAX && self.reads.len() < READS_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.take_command(command),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn take_command(&mut self, command: Command) {
        let over = match &self.phase {
            Phase::Over(error) => Some(*error),
            Phase::Open | Phase::Recovering(_) => None,
        };
        match (command, over) {
            (Command::Read { reply, .. }, Some(error)) => {
                let _ = reply.send(Err(error));
            }
            (Command::Read { page, consistency, reply }, None) => {
                let now = self.env.now();
                self.reads.take(page, consistency, reply, now);
            }
            (Command::Write { reply, .. }, Some(error)) => {
                let _ = reply.send(Err(error));
            }
            (Command::Write { pages, reply }, None) => match refuse(&pages) {
                Some(error) => {
                    let _ = reply.send(Err(error));
                }
                None => self.writes.push_back((pages, reply)),
            },
        }
    }

    fn take_event(&mut self, event: Event) {
        if let Event::Ready { token, readable, writable } = event {
            let ready =
                self.peers.iter_mut().position(|peer| peer.link.ready(token, readable, writable));
            self.busy.extend(ready);
        }
    }

    fn serve(&mut self) {
        for index in std::mem::take(&mut self.busy) {
            for taken in 0.. {
                if taken == FRAMES_PER_TURN {
                    self.busy.insert(index);
                    break;
                }
                let Some(peer) = self.peers.get_mut(index) else { break };
                let (group, position) = (peer.group, peer.position);
                match peer.link.next(&mut self.env, &mut self.buffer) {
                    None => break,
                    Some(LinkEvent::Down) => self.lose(group, position),
                    Some(LinkEvent::Frame(frame)) => self.take_frame(index, *frame),
                    Some(LinkEvent::Up(welcome)) => {
                        peer.welcome = Some(welcome);
                        peer.catch_up(self.env.now());
                        if let Phase::Recovering(recovery) = &mut self.phase {
                            recovery.hear(welcome.status.heard);
                        }
                        self.step(WriterInput::Resend { group, to: position });
                    }
                }
            }
        }
    }

    fn lose(&mut self, group: PgId, position: Position) {
        let now = self.env.now();
        if let Some(geometry) = self.writer.as_ref().map(|writer| *writer.geometry()) {
            let is_lost =
                |page: PageId, from: Position| from == position && geometry.group_of(page) == group;
            self.reads.lost(is_lost, now);
        }
    }

    fn take_frame(&mut self, index: usize, frame: Frame) {
        let now = self.env.now();
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Envelope::ToWriter(message) = frame.envelope else {
            // Nobody asked for anything else.
            peer.link.fail(&mut self.env, now);
            let (group, position) = (peer.group, peer.position);
            return self.lose(group, position);
        };
        let Some(epoch) = self.writer.as_ref().map(Writer::epoch) else { return };
        let (group, from) = (peer.group, peer.position);
        let mut has_missed = false;
        match &message {
            ToWriter::Ack { epoch: of, .. } if *of == epoch => has_missed = peer.acknowledged(),
            ToWriter::Refused { epoch: of, ticket, refusal: Refusal::Behind { .. } }
                if *of == epoch =>
            {
                // One answer is enough: it brings the history, and then the records.
                if peer.is_catching_up() && ticket.is_none() {
                    return;
                }
                peer.catch_up(now);
            }
            ToWriter::Refused { epoch: of, refusal: Refusal::Overloaded, .. } if *of == epoch => {
                peer.pause(now);
            }
            ToWriter::Ack { .. }
            | ToWriter::Confirmed { .. }
            | ToWriter::Read { .. }
            | ToWriter::Refused { .. }
            | ToWriter::Sealed { .. } => {}
        }
        self.incoming = frame.payload;
        self.step(WriterInput::Receive { group, from, message });
        if has_missed && matches!(self.phase, Phase::Open) {
            self.step(WriterInput::Resend { group, to: from });
        }
    }

    /// Gives one input to the writer, if there is one, and carries out what follows.
    fn step(&mut self, input: WriterInput) {
        if let Some(writer) = &mut self.writer {
            writer.step(input, &mut self.effects);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                WriterEffect::Report(report) => self.take_report(report),
                WriterEffect::Send { group, to, message } => self.send(group, to, message),
            }
        }
        self.effects = effects;
    }

    fn send(&mut self, group: PgId, to: SegmentSet, message: ToSegment) {
        let is_append = matches!(message, ToSegment::Append(_));
        let envelope = Envelope::ToSegment(message);
        if !envelope.records().is_empty() {
            // It tells the VDL too.
            self.publish = None;
        }
        let mut frame = None;
        for peer in &mut self.peers {
            if peer.group != group || !to.contains(peer.position) {
                continue;
            }
            if !peer.link.is_up() || (is_append && !peer.takes_records()) {
                continue;
            }
            if frame.is_none() {
                frame = encode(&envelope, &self.payloads);
            }
            if let Some(frame) = &frame {
                peer.link.send(frame);
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = self.env.now();
        match report {
            Report::Confirmed { ticket, read_point: _ } => self.reads.confirmed(ticket, now),
            Report::Durable { vdl } => self.settle(vdl.lsn(), now),
            Report::Opened { vdl, through } => {
                self.used = through;
                let phase = std::mem::replace(&mut self.phase, Phase::Open);
                if let (Phase::Recovering(recovery), Some(writer)) = (phase, &self.writer) {
                    recovery.succeed(writer.epoch(), vdl, *writer.geometry());
                }
                self.advanced = now;
                self.publish = Some(now);
            }
            Report::Overtaken { by } => match &mut self.phase {
                Phase::Recovering(recovery) => {
                    recovery.refused(by, now, self.env.random().unwrap_or(0));
                }
                Phase::Open | Phase::Over(_) => self.give_up(VolumeError::Overtaken { by }),
            },
            Report::Read { ticket, page, read_point, version } => {
                let bytes = std::mem::take(&mut self.incoming);
                self.reads.answer(ticket, page, read_point, version, bytes, now);
            }
            Report::ReadRefused { ticket, .. } => self.reads.refused(ticket, now),
            Report::Refused(CommandRefusal::OutOfLsns) => self.give_up(VolumeError::OutOfLsns),
            // Commands are given only when they can be carried out, and what a faulty segment
            // rejects is made up for by the others.
            Report::Refused(_) | Report::Rejected { .. } => {}
            Report::Written { first, cpl } => {
                if let Some((_, reply)) = self.writes.pop_front() {
                    self.commits.push_back((Committed { first, cpl }, reply));
                }
            }
        }
    }

    /// Answers the commits that are durable now and forgets their bytes.
    fn settle(&mut self, vdl: Lsn, now: Moment) {
        self.advanced = now;
        self.publish = Some(now.after(PUBLISH_AFTER));
        while let Some((committed, reply)) =
            self.commits.pop_front_if(|(committed, _)| committed.cpl <= vdl)
        {
            let _ = reply.send(Ok(committed));
        }
        let vcl = self.writer.as_ref().and_then(Writer::vcl).map(|vcl| vcl.lsn());
        while let Some(first) = self.payloads.first_entry()
            && Some(*first.key()) <= vcl
        {
            self.flying_bytes = self.flying_bytes.saturating_sub(first.remove().len());
        }
    }

    /// Stops for ever, and says so to everybody who waits.
    fn give_up(&mut self, error: VolumeError) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(error));
        if let Phase::Recovering(recovery) = phase {
            recovery.fail(error);
        }
        for (_, reply) in self.commits.drain(..) {
            let _ = reply.send(Err(error));
        }
        for (_, reply) in self.writes.drain(..) {
            let _ = reply.send(Err(error));
        }
        self.reads.fail(error);
        self.payloads.clear();
        self.peers.clear();
        self.writer = None;
        // Nothing is due any more: a time that nobody looks at would make the loop spin.
        self.publish = None;
    }

    /// Does what time asks for.
    fn tick(&mut self) {
        let now = self.env.now();
        for peer in &mut self.peers {
            peer.link.tick(&mut self.env, now);
        }
        self.tick_recovery(now);
        if !matches!(self.phase, Phase::Over(_)) {
            self.resend(now);
        }
        if matches!(self.phase, Phase::Open) {
            self.issue_writes();
            self.issue_reads(now);
            if self.publish.is_some_and(|at| at <= now) {
                self.publish = None;
                self.step(WriterInput::Publish);
            }
        }
    }

    fn tick_recovery(&mut self, now: Moment) {
        let Phase::Recovering(recovery) = &mut self.phase else { return };
        if recovery.until <= now {
            let error = VolumeError::Unavailable(self.unavailable());
            return self.give_up(error);
        }
        if recovery.next.is_none_or(|at| at > now) {
            return;
        }
        let geometry = match shape(&self.peers, &self.config) {
            Shape::Known(geometry) => geometry,
            Shape::Other { found } => {
                let expected = self.config.segments.len();
                return self.give_up(VolumeError::OtherGeometry { expected, found });
            }
            Shape::Unknown => return,
        };
        let Some(epoch) = recovery.attempt() else {
            return self.give_up(VolumeError::OutOfLsns);
        };
        for peer in &mut self.peers {
            peer.catch_up(now);
        }
        self.writer = Some(Writer::open_under(self.rules, epoch, geometry, &mut self.effects));
        self.carry_out();
    }

    fn unavailable(&self) -> Unavailable {
        let refusal = self
            .peers
            .iter()
            .find_map(|peer| peer.link.refusal().map(|refusal| (peer.link.address(), refusal)));
        Unavailable {
            reached: self.peers.iter().filter(|peer| peer.link.is_up()).count(),
            segments: self.peers.len(),
            refusal,
        }
    }

    /// Sends again what may have been missed or lost.
    fn resend(&mut self, now: Moment) {
        let is_stalled = !self.commits.is_empty() && now.since(self.advanced) >= STALL;
        if is_stalled {
            self.advanced = now;
        }
        let tail = self.writer.as_ref().and_then(Writer::tail).unwrap_or_default();
        let mut due = Vec::new();
        for peer in &mut self.peers {
            let is_due = peer.is_resend_due(now);
            // Without a writer there is nothing to send, but the time has to be set anew: a time
            // that has passed would make the loop spin until a quorum is there.
            let Some(writer) = &self.writer else { continue };
            let (group, to) = (peer.group, peer.position);
            let lacks = writer.scl(group, to).is_some_and(|scl| scl < tail);
            if is_due || (is_stalled && lacks) {
                due.push(WriterInput::Resend { group, to });
            }
        }
        for input in due {
            self.step(input);
        }
    }

    /// Gives LSNs to as many waiting writes as there is room for.
    fn issue_writes(&mut self) {
        while let Some((pages, _)) = self.writes.front() {
            let Some(writer) = &self.writer else { return };
            if pages.len() as u64 > writer.geometry().limits().allocation_max {
                if let Some((_, reply)) = self.writes.pop_front() {
                    let _ = reply.send(Err(VolumeError::Oversized));
                }
                continue;
            }
            let bytes: usize = pages.iter().map(|page| page.bytes.len()).sum();
            let has_room = self.flying_bytes == 0
                || self.flying_bytes.saturating_add(bytes) <= FLYING_BYTES_MAX;
            // Above the allowance it would be throttled: the VDL has to advance first.
            if !has_room || writer.allowance().is_none_or(|most| most < pages.len() as u64) {
                return;
            }
            if self.issue_write().is_none() {
                return self.give_up(VolumeError::OutOfLsns);
            }
        }
    }

    /// Carries out the first waiting write; `None` when there are no LSNs left.
    fn issue_write(&mut self) -> Option<()> {
        let writer = self.writer.as_ref()?;
        let geometry = *writer.geometry();
        // A checksum covers the LSN, so the driver has to know what the writer will allocate.
        let mut lsn = writer.tail().unwrap_or_default().max(self.used);
        let first = lsn.plus(1)?;
        let (pages, _) = self.writes.front_mut()?;
        let mut changes = Vec::with_capacity(pages.len());
        for PageImage { page, bytes } in pages.drain(..) {
            lsn = lsn.plus(1)?;
            let payload = payload::describe(geometry.group_of(page), page, lsn, &bytes)?;
            changes.push(Change { page, payload });
            self.flying_bytes = self.flying_bytes.saturating_add(bytes.len());
            self.payloads.insert(lsn, bytes.into());
        }
        // The writer has to have another LSN to go on to.
        lsn.plus(1)?;
        let before = self.commits.len();
        self.step(WriterInput::Write { changes });
        let written = self.commits.back().map(|(committed, _)| *committed);
        assert!(self.commits.len() == before.saturating_add(1));
        assert!(written == Some(Committed { first, cpl: lsn }));
        Some(())
    }

    fn issue_reads(&mut self, now: Moment) {
        if let Some(ticket) = self.reads.confirm(now) {
            self.step(WriterInput::Confirm { ticket });
        }
        for (ticket, page) in self.reads.due(now) {
            let complete = self.readable(page);
            if let Some(from) = self.reads.choose(ticket, &complete, now) {
                self.read(ticket, page, from);
            }
        }
    }

    fn read(&mut self, ticket: Ticket, page: PageId, from: Position) {
        self.step(WriterInput::Read { ticket, page, read_point: None, from });
    }

    /// Returns the segments that can be asked for `page` now.
    fn readable(&self, page: PageId) -> Vec<Position> {
        let Some(writer) = &self.writer else { return Vec::new() };
        let group = writer.geometry().group_of(page);
        let complete = writer.complete(group);
        self.peers
            .iter()
            .filter(|peer| peer.group == group && peer.link.is_up())
            .map(|peer| peer.position)
            .filter(|position| complete.contains(*position))
            .collect()
    }

    fn deadline(&self) -> Option<Moment> {
        if !self.busy.is_empty() {
            return Some(self.env.now());
        }
        let recovery = match &self.phase {
            Phase::Recovering(recovery) => {
                // The next attempt may be waiting for segments; they make themselves heard.
                let next = recovery.next.filter(|at| *at > self.env.now());
                Some(next.map_or(recovery.until, |next| next.min(recovery.until)))
            }
            Phase::Open | Phase::Over(_) => None,
        };
        let stall = (!self.commits.is_empty()).then(|| self.advanced.after(STALL));
        let peers = self.peers.iter().filter_map(Peer::deadline).min();
        [recovery, stall, peers, self.publish, self.reads.deadline()].into_iter().flatten().min()
    }

    /// Returns the highest LSN that this client's writer has used up or passed over, zero before it
    /// was open: the next one goes to the next record.
    #[must_use]
    pub fn allocated(&self) -> Lsn {
        self.writer.as_ref().and_then(Writer::tail).unwrap_or_default().max(self.used)
    }

    /// Returns the epoch of the writer, once there is one.
    #[must_use]
    pub fn epoch(&self) -> Option<VolumeEpoch> {
        self.writer.as_ref().map(Writer::epoch)
    }
}
