//! The loop of a reader process: what comes from writers, segments and clients, and what the
//! reader's machine makes of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::consistency::{ReadPoint, Vdl};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PageId, PgId, Position, ReaderId};
use quorate_core::lsn::Lsn;
use quorate_core::message::ToReader;
use quorate_core::reader::{Reader, ReaderEffect, ReaderInput};
use quorate_core::record::Record;
use quorate_core::rules::Rules;

use super::reads::Reads;
use super::{Attached, ReaderConfig, ReaderError};
use crate::addresses::{AddressBook, Seat, Seats};
use crate::clock::Moment;
use crate::env::{Environment, Event, Stream};
use crate::link::{Link, LinkEvent};
use crate::payload;
use crate::volume::callers::{Admits, Callers};
use crate::volume::reply::Outbox;
use crate::wire::client::ClientWelcome;
use crate::wire::{self, Envelope, Frame, Hello, Role};

mod effects;
mod serving;

/// The most pages in memory: 64 MiB of them, if all have their greatest length.
const PAGES_MAX: usize = 8192;

/// The most reads without an answer.
const READS_MAX: usize = 1024;

/// How long a writer may take to begin a stream before it is asked again.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);

/// How often the writer hears how far this reader's reads go back; so it knows that it lives.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

/// The most frames taken from one link before the others have their turn.
const FRAMES_PER_TURN: usize = 256;

/// A place where a writer process is, or may be later.
struct Feed<S> {
    link: Link<S>,
    /// Of the writer that is connected.
    epoch: Option<VolumeEpoch>,
}

/// A segment.
struct Segment<S> {
    group: PgId,
    position: Position,
    link: Link<S>,
}

/// The loop of one reader process.
pub(super) struct ReaderDriver<E: Environment, R: Rules> {
    env: E,
    rules: R,
    id: ReaderId,
    config: ReaderConfig,
    /// `None` before a writer has told the volume's shape.
    machine: Option<Reader<R>>,
    effects: Vec<ReaderEffect>,
    feeds: Vec<Feed<E::Stream>>,
    /// By group: where its segments are, as far as this process was told.
    books: Vec<AddressBook>,
    segments: Vec<Segment<E::Stream>>,
    /// The bytes of every record that the machine has.
    payloads: BTreeMap<Lsn, Vec<u8>>,
    /// Pages in memory, in the order in which they came.
    cached: VecDeque<PageId>,
    reads: Reads,
    callers: Callers<E::Listener, E::Stream>,
    outbox: Outbox,
    /// The stream has to begin anew: its connection is another one.
    is_cut_off: bool,
    /// How many streams have begun.
    streams: u64,
    attach: Moment,
    release: Moment,
}

impl<E: Environment, R: Rules> ReaderDriver<E, R> {
    pub(super) fn new(rules: R, mut env: E, config: ReaderConfig) -> io::Result<Self> {
        let (id, now, volume) = (ReaderId::new(env.random()?), env.now(), config.volume);
        let role = Role::Reader { reader: id };
        let (mut segments, mut books) = (Vec::new(), Vec::new());
        for (group, addresses) in (0..).map(PgId::new).zip(&config.segments) {
            for (position, address) in Position::first(addresses.len()).zip(addresses) {
                let hello = Hello { volume, group, position, role };
                let link = Link::new(*address, hello, now);
                segments.push(Segment { group, position, link });
            }
            books.push(AddressBook::new(group, addresses, &[]));
        }
        // A writer process is no segment; it looks at the volume and the role only.
        let nowhere = Position::first(1).next().map(|position| {
            let hello = Hello { volume, group: PgId::new(0), position, role };
            let feed =
                |address: &SocketAddr| Feed { link: Link::new(*address, hello, now), epoch: None };
            config.writers.iter().map(feed).collect()
        });
        Ok(Self {
            env,
            rules,
            id,
            machine: None,
            effects: Vec::new(),
            feeds: nowhere.unwrap_or_default(),
            books,
            segments,
            payloads: BTreeMap::new(),
            cached: VecDeque::new(),
            reads: Reads::default(),
            callers: Callers::new(Admits::Clients),
            outbox: Outbox::default(),
            is_cut_off: true,
            streams: 0,
            attach: now,
            release: now,
            config,
        })
    }

    pub(super) fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        self.callers.listen(&mut self.env, address)
    }

    /// Returns whom this reader follows and how far it is, once a writer has registered it.
    pub(super) fn attached(&self) -> Option<Attached> {
        let machine = self.machine.as_ref()?;
        Some(Attached { epoch: machine.epoch()?, vdl: machine.vdl()? })
    }

    /// Does what can be done now, and waits for events once, for at most `patience`.
    pub(super) fn turn_for(&mut self, patience: Duration) -> Result<(), ReaderError> {
        let latest = self.env.now().after(patience);
        self.tick();
        self.callers.deliver(&mut self.outbox);
        self.flush();
        let deadline = self.deadline().map_or(latest, |deadline| deadline.min(latest));
        let mut events = Vec::new();
        self.env.wait(Some(deadline), &mut events)?;
        for event in events {
            self.take_event(&event);
        }
        self.take_from_writers()?;
        self.take_from_segments();
        self.serve_callers();
        self.issue_reads();
        Ok(())
    }

    fn take_event(&mut self, event: &Event) {
        if let Event::Ready { token, readable, writable } = *event {
            let feeds = self.feeds.iter_mut().map(|feed| &mut feed.link);
            let links = feeds.chain(self.segments.iter_mut().map(|segment| &mut segment.link));
            for link in links {
                link.ready(token, readable, writable);
            }
            self.callers.ready(token, readable, writable);
        }
    }

    fn take_from_writers(&mut self) -> Result<(), ReaderError> {
        for index in 0..self.feeds.len() {
            for _ in 0..FRAMES_PER_TURN {
                let Some(feed) = self.feeds.get_mut(index) else { break };
                match feed.link.next(&mut self.env) {
                    None => break,
                    Some(LinkEvent::UpToWriter(welcome)) => {
                        feed.epoch = Some(welcome.epoch);
                        self.learn(&welcome)?;
                    }
                    Some(LinkEvent::Frame(frame)) => match *frame {
                        Frame {
                            envelope:
                                Envelope::ToReader(
                                    message @ (ToReader::Redo(_)
                                    | ToReader::Standing { .. }
                                    | ToReader::Start(_)),
                                ),
                            payload,
                        } => self.receive(message, &payload),
                        Frame { envelope: Envelope::Seats(seats), .. } => self.relocate(&seats),
                        // Nobody asked for anything else.
                        _ => self.hang_up_on_writer(index),
                    },
                    Some(LinkEvent::Down | LinkEvent::Up(_)) => self.hang_up_on_writer(index),
                }
            }
        }
        Ok(())
    }

    fn hang_up_on_writer(&mut self, index: usize) {
        let now = self.env.now();
        let Some(feed) = self.feeds.get_mut(index) else { return };
        if feed.link.is_up() {
            feed.link.fail(&mut self.env, now);
        }
        let epoch = feed.epoch.take();
        if epoch.is_some() && epoch == self.machine.as_ref().and_then(Reader::epoch) {
            self.is_cut_off = true;
        }
    }

    /// Learns of a writer, and with the first one of the volume's shape.
    fn learn(&mut self, welcome: &ClientWelcome) -> Result<(), ReaderError> {
        let ClientWelcome { geometry, epoch: _ } = *welcome;
        let (expected, found) = (self.config.segments.len(), geometry.groups_count());
        if usize::try_from(found) != Ok(expected) {
            return Err(ReaderError::OtherGeometry { expected, found });
        }
        let (rules, id) = (self.rules, self.id);
        self.machine.get_or_insert_with(|| Reader::new_under(rules, id, geometry));
        self.is_cut_off = true;
        self.attach = self.env.now();
        Ok(())
    }

    /// Calls the segments where a writer says that they are: some may have joined since, or moved.
    fn relocate(&mut self, seats: &Seats) {
        let at = usize::try_from(seats.group.get()).ok();
        let Some(book) = at.and_then(|at| self.books.get_mut(at)) else { return };
        if !book.merge(seats) {
            return;
        }
        let (now, group, volume) = (self.env.now(), seats.group, self.config.volume);
        let role = Role::Reader { reader: self.id };
        for Seat { position, place } in book.seats() {
            let is_it = |known: &&mut Segment<E::Stream>| {
                (known.group, known.position) == (group, position)
            };
            let hello = Hello { volume, group, position, role };
            match self.segments.iter_mut().find(is_it) {
                Some(known) if known.link.address() == place.address => {}
                Some(known) => {
                    known.link.fail(&mut self.env, now);
                    known.link = Link::new(place.address, hello, now);
                    self.reads.lost(group, position, now);
                }
                None => {
                    let link = Link::new(place.address, hello, now);
                    self.segments.push(Segment { group, position, link });
                }
            }
        }
    }

    fn take_from_segments(&mut self) {
        let now = self.env.now();
        for index in 0..self.segments.len() {
            for _ in 0..FRAMES_PER_TURN {
                let Some(segment) = self.segments.get_mut(index) else { break };
                let (group, position) = (segment.group, segment.position);
                match segment.link.next(&mut self.env) {
                    None => break,
                    Some(LinkEvent::Up(_)) => {}
                    Some(LinkEvent::Down) => self.reads.lost(group, position, now),
                    Some(LinkEvent::Frame(frame)) => match *frame {
                        Frame {
                            envelope:
                                Envelope::ToReader(
                                    message @ (ToReader::Read { .. } | ToReader::Refused { .. }),
                                ),
                            payload,
                        } => self.receive(message, &payload),
                        _ => {
                            segment.link.fail(&mut self.env, now);
                            self.reads.lost(group, position, now);
                        }
                    },
                    Some(LinkEvent::UpToWriter(_)) => segment.link.fail(&mut self.env, now),
                }
            }
        }
    }

    /// Gives a message with its payloads to the machine. Of the bytes, those stay that belong to
    /// records which the machine keeps.
    fn receive(&mut self, message: ToReader, bytes: &[u8]) {
        match &message {
            ToReader::Redo(redo) => self.keep(&redo.records, bytes),
            ToReader::Read { version: Some(version), .. } => {
                let (page, lsn) = (version.page, version.lsn);
                let is_new = !self.payloads.contains_key(&lsn);
                self.keep(&[*version], bytes);
                self.step(ReaderInput::Receive(message));
                let is_kept = |machine: &Reader<R>| {
                    machine.page(page).flatten().is_some_and(|cached| cached.lsn == lsn)
                };
                if is_new && !self.machine.as_ref().is_some_and(is_kept) {
                    self.payloads.remove(&lsn);
                }
                return;
            }
            ToReader::Read { version: None, .. }
            | ToReader::Refused { .. }
            | ToReader::Standing { .. }
            | ToReader::Start(_) => {}
        }
        self.step(ReaderInput::Receive(message));
    }

    fn keep(&mut self, records: &[Record], bytes: &[u8]) {
        let mut rest = bytes;
        for record in records {
            let Some((own, others)) = rest.split_at_checked(payload::length(record)) else {
                return;
            };
            self.payloads.entry(record.lsn).or_insert_with(|| own.to_vec());
            rest = others;
        }
    }

    fn step(&mut self, input: ReaderInput) {
        if let Some(machine) = &mut self.machine {
            machine.step(input, &mut self.effects);
            self.carry_out();
        }
    }

    /// Does what time asks for.
    fn tick(&mut self) {
        let now = self.env.now();
        for index in 0..self.feeds.len() {
            let Some(feed) = self.feeds.get_mut(index) else { break };
            if feed.link.tick(&mut self.env, now) {
                self.hang_up_on_writer(index);
            }
        }
        for segment in &mut self.segments {
            if segment.link.tick(&mut self.env, now) {
                self.reads.lost(segment.group, segment.position, now);
            }
        }
        if self.is_attach_due() && self.attach <= now {
            self.attach = now.after(ATTACH_AGAIN);
            self.step(ReaderInput::Attach);
        }
        if self.release <= now {
            self.release = now.after(RELEASE_EVERY);
            if let Some(vdl) = self.machine.as_ref().and_then(Reader::vdl) {
                let current = ReadPoint::at(vdl);
                let floor = self.reads.lowest().map_or(current, |lowest| lowest.min(current));
                self.step(ReaderInput::Release { floor });
            }
        }
        self.expire_reads(now);
        self.issue_reads();
    }

    /// Returns the connected writer with the highest epoch.
    fn newest(&mut self) -> Option<&mut Feed<E::Stream>> {
        let up = self.feeds.iter_mut().filter(|feed| feed.link.is_up() && feed.epoch.is_some());
        up.max_by_key(|feed| feed.epoch)
    }

    /// Returns whether a stream has to begin: of a newer writer, or anew of the one that is
    /// followed. One that is older than the one followed has lost the volume.
    fn is_attach_due(&mut self) -> bool {
        let Some(epoch) = self.newest().and_then(|feed| feed.epoch) else { return false };
        let Some(machine) = &self.machine else { return false };
        match machine.epoch() {
            None => true,
            Some(followed) if epoch == followed => self.is_cut_off || !machine.is_following(),
            Some(followed) => epoch > followed,
        }
    }

    fn flush(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.link.flush());
        self.segments.iter_mut().for_each(|segment| segment.link.flush());
    }

    fn deadline(&mut self) -> Option<Moment> {
        let now = self.env.now();
        let attach = self.is_attach_due().then_some(self.attach);
        let vdl = self.machine.as_ref().and_then(Reader::vdl).unwrap_or_default();
        let feeds = self.feeds.iter().filter_map(|feed| feed.link.deadline()).min();
        let segments = self.segments.iter().filter_map(|segment| segment.link.deadline()).min();
        let callers = self.is_serving().then(|| self.callers.deadline(now, self.has_room()));
        let all = [attach, Some(self.release), feeds, segments, callers.flatten()];
        all.into_iter().chain([self.reads.deadline(vdl)]).flatten().min()
    }

    fn has_room(&self) -> bool {
        self.reads.len() < READS_MAX
    }

    fn geometry(&self) -> Option<VolumeGeometry> {
        self.machine.as_ref().map(|machine| *machine.geometry())
    }

    fn vdl(&self) -> Option<Vdl> {
        self.machine.as_ref().and_then(Reader::vdl)
    }
}

/// Sends a message over a link, if it is up.
fn send<S: Stream>(link: &mut Link<S>, envelope: &Envelope) {
    if let Ok(frame) = wire::encode(envelope, &[]) {
        link.send(&Arc::new(frame));
    }
}
