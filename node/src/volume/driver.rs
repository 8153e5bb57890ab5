//! The loop of a volume client: commands and events in, the writer's effects out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::consistency::Vdl;
use quorate_core::effect::{WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PgId, Position, SegmentSet};
use quorate_core::lsn::Lsn;
use quorate_core::membership::StepRefusal;
use quorate_core::message::{ToSegment, ToWriter};
use quorate_core::refusal::Refusal;
use quorate_core::rules::{Rules, Sound};
use quorate_core::writer::Writer;

use super::backlog::Backlog;
use super::bounds::Bounds;
use super::callers::{Admits, Callers};
use super::check::encode;
use super::flow::Peer;
use super::gathered::Gathered;
use super::points::Points;
use super::reads::Reads;
use super::recovery::Recovery;
use super::reply::{Outbox, Reply, Waiter};
use super::{Command, Committed, Opened, VolumeConfig, VolumeError};
use crate::addresses::AddressBook;
use crate::clock::Moment;
use crate::env::{Environment, Event};
use crate::frontier::Frontier;
use crate::link::LinkEvent;
use crate::mailbox::Mailbox;
use crate::wire::client::ClientWelcome;
use crate::wire::{Envelope, Frame};

mod backtracking;
mod issuing;
mod members;
mod pulse;
mod reaching;
mod readers;
mod reports;
mod serving;

use backtracking::Going;
use pulse::Pulse;
use readers::Leases;

/// The most payload bytes that are not durable yet; above that, writes wait.
const FLYING_BYTES_MAX: usize = 16 << 20;

/// The most commands taken from the mailbox at once.
const COMMANDS_PER_TURN: usize = 4096;

/// The most reads under way.
const READS_MAX: usize = 1024;

/// How long after the last advance of the VDL an idle writer tells it to the segments.
const PUBLISH_AFTER: Duration = Duration::from_millis(10);

/// How long the VDL may stand still, with writes under way, before segments get them again.
const STALL: Duration = Duration::from_secs(1);

/// The most frames taken from one segment before the others have their turn.
const FRAMES_PER_TURN: usize = 64;

/// A volume client over any environment. [`super::Volume`] runs one on a thread.
#[derive(Debug)]
pub struct VolumeDriver<E: Environment, R: Rules = Sound> {
    env: E,
    rules: R,
    config: VolumeConfig,
    commands: Arc<Mailbox<Command>>,
    /// Commands taken from the mailbox that wait for room.
    waiting: VecDeque<Command>,
    frontier: Arc<Frontier>,
    instance: InstanceId,
    /// By group: where its segments are.
    books: Vec<AddressBook>,
    /// A segment that is asked whether it is there, before it joins.
    candidate: Option<(PgId, Position)>,
    /// Why the writer has refused a step.
    step_refused: Option<StepRefusal>,
    peers: Vec<Peer<E::Stream>>,
    phase: Phase,
    writer: Option<Writer<R>>,
    effects: Vec<WriterEffect>,
    /// The bytes of every record above the VCL: a segment may need them again.
    payloads: BTreeMap<Lsn, Arc<[u8]>>,
    flying_bytes: usize,
    gathered: Gathered,
    /// The LSNs at or under this one are used up.
    used: Lsn,
    /// Writes that wait for room.
    writes: Backlog,
    /// Writes under way, by consistency point.
    commits: VecDeque<(Committed, Reply<Committed>)>,
    /// Where the volume is going, if it is.
    going: Option<Going>,
    /// How many questions for a point were asked, ever: a late answer to one of an earlier command
    /// must not pass for one of this.
    located: u64,
    reads: Reads,
    bounds: Bounds,
    /// Why no write can become durable, until one does.
    is_full: Option<VolumeError>,
    /// Clients of this process.
    callers: Callers<E::Listener, E::Stream>,
    /// Answers to clients that are not on their connections yet.
    outbox: Outbox,
    /// What clients are told first, once the volume is open.
    welcome: Option<ClientWelcome>,
    recovery_point: Vdl,
    points: Points,
    publish: Option<Moment>,
    /// How many writes of this process were answered since commands were last taken.
    answered: usize,
    pulse: Pulse,
    /// Of the readers that are registered.
    leases: Leases,
    advanced: Moment,
    /// Peers that may have something to read, by index.
    busy: BTreeSet<usize>,
    /// The payload of the message that the writer is taking.
    incoming: Vec<u8>,
    /// Who has sent it.
    from: Option<(PgId, Position)>,
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
        commands: Arc<Mailbox<Command>>,
        reply: Waiter<Opened>,
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
        commands: Arc<Mailbox<Command>>,
        reply: Waiter<Opened>,
    ) -> io::Result<Self> {
        let instance = InstanceId::new(env.random()?);
        let now = env.now();
        let books = members::books(&mut env, &config)?;
        let until = now.after(config.patience);
        let mut driver = Self {
            phase: Phase::Recovering(Recovery::new(instance, until, now, reply)),
            env,
            rules,
            config,
            commands,
            waiting: VecDeque::new(),
            frontier: Arc::new(Frontier::new()),
            instance,
            books,
            candidate: None,
            step_refused: None,
            peers: Vec::new(),
            writer: None,
            effects: Vec::new(),
            payloads: BTreeMap::new(),
            flying_bytes: 0,
            gathered: Gathered::default(),
            used: Lsn::ZERO,
            writes: Backlog::default(),
            commits: VecDeque::new(),
            going: None,
            located: 0,
            reads: Reads::default(),
            bounds: Bounds::default(),
            is_full: None,
            callers: Callers::new(Admits::ClientsAndReaders),
            outbox: Outbox::default(),
            welcome: None,
            recovery_point: Vdl::ZERO,
            points: Points::default(),
            publish: None,
            answered: 0,
            pulse: Pulse::default(),
            leases: Leases::new(now),
            advanced: now,
            busy: BTreeSet::new(),
            incoming: Vec::new(),
            from: None,
        };
        driver.seat_peers();
        Ok(driver)
    }

    /// Does what can be done now and waits for events once; `false` when it is all over.
    pub fn turn(&mut self) -> bool {
        self.turn_within(None)
    }

    /// [`VolumeDriver::turn`], waiting for events no longer than until `latest`.
    fn turn_within(&mut self, latest: Option<Moment>) -> bool {
        let was_over = self.over().is_some();
        if !self.take_commands() {
            return false;
        }
        self.tick();
        self.send_gathered();
        self.callers.deliver(&mut self.outbox);
        for peer in &mut self.peers {
            peer.link.flush();
        }
        let mut events = Vec::new();
        let mut deadline = self.deadline().into_iter().chain(latest).min();
        // Without room, it is an answer of a segment that wakes this loop, and not a command.
        if self.has_room() && !self.commands.doze() {
            deadline = Some(self.env.now());
        }
        // Whoever turns this loop has to hear that it has stopped: nothing else may ever happen.
        if !was_over && self.over().is_some() {
            deadline = Some(self.env.now());
        }
        if let Err(error) = self.env.wait(deadline, &mut events) {
            self.give_up(VolumeError::System(error.kind()));
        }
        for event in events {
            self.take_event(event);
        }
        self.serve();
        self.serve_callers();
        true
    }

    fn take_commands(&mut self) -> bool {
        if self.commands.is_closed() {
            // Nobody is left to ask, or to be answered: what has no room yet is not waited for.
            return false;
        }
        let mut may_come = true;
        self.gather_commands();
        while self.has_room() {
            if self.waiting.is_empty() {
                may_come = self.commands.take(COMMANDS_PER_TURN, &mut self.waiting);
            }
            match self.waiting.pop_front() {
                Some(command) => self.take_command(command),
                None => return may_come,
            }
        }
        true
    }

    /// Waits a moment for those who have just been answered: what they ask for next comes one by
    /// one, and what goes to the segments together is durable together.
    fn gather_commands(&mut self) {
        let expected = std::mem::take(&mut self.answered);
        if expected < 2 || !self.has_room() {
            return;
        }
        let until = self.env.now().after(self.pulse.moment());
        loop {
            self.commands.take(COMMANDS_PER_TURN, &mut self.waiting);
            if self.waiting.len() >= expected || self.env.now() >= until || !self.env.rest() {
                return;
            }
        }
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Read { page, consistency, reply } => {
                self.take_read(page, consistency, Reply::Waiter(reply));
            }
            Command::Backtrack { target, reply } => {
                self.take_backtrack(target, Reply::Waiter(reply));
            }
            Command::Write { pages, reply } => self.take_write(pages, Reply::Waiter(reply)),
        }
    }

    fn take_event(&mut self, event: Event) {
        if let Event::Ready { token, readable, writable } = event {
            let ready =
                self.peers.iter_mut().position(|peer| peer.link.ready(token, readable, writable));
            self.busy.extend(ready);
            self.callers.ready(token, readable, writable);
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
                match peer.link.next(&mut self.env) {
                    None => break,
                    Some(LinkEvent::Down) => {
                        self.reads.lost((group, position), self.env.now());
                    }
                    Some(LinkEvent::Frame(frame)) => self.take_frame(index, *frame),
                    Some(LinkEvent::UpToWriter(_)) => {
                        let now = self.env.now();
                        peer.link.fail(&mut self.env, now);
                    }
                    Some(LinkEvent::Up(welcome)) => self.meet(index, &welcome),
                }
            }
        }
    }

    fn take_frame(&mut self, index: usize, frame: Frame) {
        let now = self.env.now();
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Envelope::Seats(seats) = &frame.envelope {
            peer.told = Some(seats.clone());
            self.take_seats(seats);
            return self.look_for_strangers();
        }
        let Envelope::ToWriter(message) = frame.envelope else {
            // Nobody asked for anything else.
            peer.link.fail(&mut self.env, now);
            let (group, position) = (peer.group, peer.position);
            return self.reads.lost((group, position), now);
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
            | ToWriter::Located { .. }
            | ToWriter::Read { .. }
            | ToWriter::Refused { .. }
            | ToWriter::Sealed { .. } => {}
        }
        self.incoming = frame.payload;
        self.from = Some((group, from));
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
                WriterEffect::SendReader { to, message } => self.send_reader(to, message),
            }
        }
        self.effects = effects;
    }

    /// Sends a message, or keeps an append until the turn's others to the same segments have
    /// joined it.
    fn send(&mut self, group: PgId, to: SegmentSet, message: ToSegment) {
        let ready = if let ToSegment::Append(append) = message {
            let limits = self.writer.as_ref().map(|writer| writer.geometry().limits());
            let batch_max = limits.map_or(0, |limits| limits.batch_records_max);
            let batch_max = usize::try_from(batch_max).unwrap_or(usize::MAX);
            self.gathered.add(group, to, append, batch_max)
        } else {
            self.send_gathered();
            Some((group, to, message))
        };
        if let Some((group, to, message)) = ready {
            self.send_now(group, to, message);
        }
    }

    /// Sends the appends that were kept.
    fn send_gathered(&mut self) {
        while let Some((group, to, message)) = self.gathered.take() {
            self.send_now(group, to, message);
        }
    }

    fn send_now(&mut self, group: PgId, to: SegmentSet, message: ToSegment) {
        let is_append = matches!(message, ToSegment::Append(_));
        if let Some(tail) = self.writer.as_ref().and_then(Writer::tail)
            && is_append
        {
            self.pulse.sent(tail, self.env.now());
        }
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

    /// Does what time asks for.
    fn tick(&mut self) {
        let now = self.env.now();
        for peer in &mut self.peers {
            if peer.link.tick(&mut self.env, now) {
                self.reads.lost((peer.group, peer.position), now);
            }
        }
        self.tick_recovery(now);
        if !matches!(self.phase, Phase::Over(_)) {
            self.resend(now);
        }
        if matches!(self.phase, Phase::Open) {
            self.tick_going(now);
            self.issue_writes();
            self.issue_reads(now);
            if self.publish.is_some_and(|at| at <= now) {
                self.publish = None;
                self.step(WriterInput::Publish);
            }
            self.tick_readers(now);
        }
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
        let may_ask = self.is_serving() && self.has_room();
        let callers = self.is_serving().then(|| self.callers.deadline(self.env.now(), may_ask));
        let is_open = matches!(self.phase, Phase::Open);
        let readers = self.leases.deadline().filter(|_| is_open);
        let going = self.going.as_ref().and_then(Going::deadline).filter(|_| is_open);
        [
            going,
            recovery,
            stall,
            peers,
            self.publish,
            self.reads.deadline(),
            callers.flatten(),
            readers,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns how many bytes are queued for the segment that takes least.
    #[cfg(test)]
    pub(crate) fn backlog(&self) -> usize {
        self.peers.iter().map(|peer| peer.link.backlog()).max().unwrap_or_default()
    }

    /// Returns what other threads see of the volume.
    #[must_use]
    pub fn frontier(&self) -> Arc<Frontier> {
        Arc::clone(&self.frontier)
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

impl<E: Environment, R: Rules> Drop for VolumeDriver<E, R> {
    /// Leaves nobody waiting for a loop that has ended.
    fn drop(&mut self) {
        self.commands.abandon();
    }
}
