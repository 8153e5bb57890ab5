//! A volume in memory, under the control of a test: its writers, its segments with their disks, the
//! messages on their way, and the abstract volume that judges what the writers say.
//!
//! Nothing happens by itself. A test delivers, drops and repeats messages, syncs writes, crashes
//! segments and starts recoveries in whatever order it likes; [`Cluster::settle`] does the whole of
//! what a network and disks without faults would do.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_core::consistency::{Scl, Vdl};
use quorate_core::effect::{
    CommandRefusal, Report, SegmentEffect, SegmentInput, SegmentWrite, WriterEffect, WriterInput,
};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{InstanceId, PageId, PgId, Position, Ticket, WriteId};
use quorate_core::image::{CorruptImage, SegmentImage, Survivor};
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, SealAnswer, ToSegment, ToWriter};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Change, Payload, Record};
use quorate_core::recovery::choose_under;
use quorate_core::rules::{Rules, Sound};
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use quorate_models::volume_spec::{Event, Flaw, Volume};
use serde::Deserialize;
use serde::de::value::{Error, U64Deserializer};

/// Bounds that no test reaches by accident.
pub(crate) const WIDE: Limits = Limits {
    allocation_max: 1_000,
    batch_records_max: 100,
    log_records_max: 10_000,
    history_ranges_max: 100,
    pending_writes_max: 100,
};

/// Returns the geometry of `groups` groups of six segments.
pub(crate) fn geometry(groups: u32, limits: Limits) -> VolumeGeometry {
    VolumeGeometry::new(groups, QuorumSet::AURORA, limits).unwrap()
}

/// Returns the epoch of the writer number `index`. Two writers share each counter, so that the
/// instance counts too.
pub(crate) fn epoch(index: usize) -> VolumeEpoch {
    let index = index as u64;
    VolumeEpoch::new(1 + index / 2, InstanceId::new(1 + index))
}

/// Returns the segment's place with this index.
pub(crate) fn at(index: usize) -> Position {
    Position::new(index).unwrap()
}

/// Returns a change of `page` whose payload is `checksum`.
pub(crate) fn change(page: u64, checksum: u32) -> Change {
    Change { page: PageId::new(page), payload: Payload { length: 1, checksum } }
}

/// Returns the SCL `lsn`, as it would be decoded from a message.
pub(crate) fn scl(lsn: u64) -> Scl {
    Scl::deserialize(U64Deserializer::<Error>::new(lsn)).unwrap()
}

/// Returns the VDL `lsn`, as it would be decoded from a message.
pub(crate) fn vdl(lsn: u64) -> Vdl {
    Vdl::deserialize(U64Deserializer::<Error>::new(lsn)).unwrap()
}

/// What shows that the protocol, or a machine, is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finding {
    /// A machine broke a rule that can be seen only from inside.
    Broken(&'static str),
    /// A read returned something else than the abstract volume holds.
    Read,
    /// The abstract volume can't take the step that a writer reported, or that a recovery from
    /// some read quorum would report.
    Volume(Flaw),
}

type Outcome = Result<(), Finding>;

fn demand(holds: bool, rule: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(Finding::Broken(rule)) }
}

/// Returns what a restart finds that begins with a checkpoint of `image`.
pub(crate) fn restored(image: &SegmentImage) -> Result<SegmentImage, CorruptImage> {
    let aside = image.aside().map(|aside| aside.records.clone()).unwrap_or_default();
    SegmentImage::restore(image.checkpoint(), image.records().to_vec(), aside)
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) enum Envelope {
    /// To the segment with index `node`.
    Segment { node: usize, from: Peer, message: ToSegment },
    /// From the segment with index `node`, to whichever writers are there.
    Writer { node: usize, message: ToWriter },
}

/// One segment and its disk.
#[derive(Clone, Debug)]
pub(crate) struct Node<R: Rules> {
    pub(crate) group: PgId,
    pub(crate) position: Position,
    pub(crate) machine: Segment<R>,
    /// What is on the disk for certain: everything before the first unsynced write.
    disk: SegmentImage,
    /// The writes from the first unsynced one on; whether each is synced.
    log: VecDeque<(WriteId, SegmentWrite, bool)>,
    /// Whether messages to this segment are lost.
    pub(crate) is_down: bool,
}

impl<R: Rules> Node<R> {
    /// Returns the number of unsynced writes.
    pub(crate) fn unsynced(&self) -> usize {
        self.log.iter().filter(|(_, _, is_synced)| !is_synced).count()
    }
}

/// A position that never goes back: PGCLs, VCL and VDL of one writer.
type Progress = (Vec<Lsn>, Lsn, Lsn);

/// The volume.
#[derive(Clone, Debug)]
pub(crate) struct Cluster<R: Rules = Sound> {
    rules: R,
    pub(crate) geometry: VolumeGeometry,
    /// In the order of their epochs.
    pub(crate) writers: Vec<Writer<R>>,
    /// Group by group, in the order of positions.
    pub(crate) nodes: Vec<Node<R>>,
    pub(crate) flight: VecDeque<Envelope>,
    pub(crate) volume: Volume,
    /// What writers reported since the last look, with the writer's number.
    reports: Vec<(usize, Report)>,
    /// Every record that was ever allocated.
    written: BTreeMap<(Lsn, VolumeEpoch), Record>,
    /// What clients had been told when a strict read arrived.
    asked: BTreeMap<(usize, Ticket), Lsn>,
    told: Vec<Progress>,
    /// Writers before each step and what they were given, if a test wants to know.
    pub(crate) trace: Option<Vec<(Writer<R>, WriterInput)>>,
    tickets: u64,
    payloads: u32,
}

impl Cluster {
    /// Returns a volume that no writer has opened.
    pub(crate) fn new(geometry: VolumeGeometry) -> Self {
        Self::under(Sound, geometry)
    }

    /// Returns a volume whose first writer is open.
    pub(crate) fn opened(geometry: VolumeGeometry) -> Self {
        let mut cluster = Self::new(geometry);
        cluster.recover().unwrap();
        cluster.settle().unwrap();
        assert_eq!(cluster.writers[0].phase(), PhaseName::Open);
        cluster.reports.clear();
        cluster
    }
}

/// Returns why a command was refused, if a writer's report says so.
pub(crate) fn refused_command((_, report): (usize, Report)) -> Option<CommandRefusal> {
    if let Report::Refused(refusal) = report { Some(refusal) } else { None }
}

impl<R: Rules> Cluster<R> {
    /// Returns a volume, all of whose machines obey `rules`, that no writer has opened.
    pub(crate) fn under(rules: R, geometry: VolumeGeometry) -> Self {
        let mut nodes = Vec::new();
        for group in geometry.groups() {
            for position in geometry.quorums().positions() {
                let disk = SegmentImage::create(group, geometry).unwrap();
                let machine = Segment::recover_under(rules, disk.clone());
                let log = VecDeque::new();
                nodes.push(Node { group, position, machine, disk, log, is_down: false });
            }
        }
        Self {
            rules,
            geometry,
            writers: Vec::new(),
            nodes,
            flight: VecDeque::new(),
            volume: Volume::default(),
            reports: Vec::new(),
            written: BTreeMap::new(),
            asked: BTreeMap::new(),
            told: Vec::new(),
            trace: None,
            tickets: 0,
            payloads: 0,
        }
    }

    /// Adds the segments of the next group, of which nobody knows yet.
    pub(crate) fn add_segments(&mut self) {
        let group = self.nodes.len() / self.geometry.quorums().members();
        let group = PgId::new(u32::try_from(group).unwrap());
        for position in self.geometry.quorums().positions() {
            let disk = SegmentImage::create(group, self.geometry).unwrap();
            let machine = Segment::recover_under(self.rules, disk.clone());
            let log = VecDeque::new();
            self.nodes.push(Node { group, position, machine, disk, log, is_down: false });
        }
    }

    fn is_sound() -> bool {
        size_of::<R>() == 0
    }

    /// Returns the index of a segment.
    pub(crate) fn node(&self, group: PgId, position: Position) -> usize {
        group.get() as usize * self.geometry.quorums().members() + position.index()
    }

    /// Returns the segment at `position` of `group`.
    pub(crate) fn segment(&self, group: u32, position: usize) -> &Segment<R> {
        &self.nodes[self.node(PgId::new(group), at(position))].machine
    }

    /// Cuts the segments at `positions` of every group off, and only these.
    pub(crate) fn down(&mut self, positions: &[usize]) {
        for node in &mut self.nodes {
            node.is_down = positions.contains(&node.position.index());
        }
    }

    /// Returns what was reported since the last call.
    pub(crate) fn reports(&mut self) -> Vec<(usize, Report)> {
        std::mem::take(&mut self.reports)
    }

    /// Returns a ticket that was never used.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket::new(self.tickets)
    }

    // The writers.

    /// Starts the next recovery.
    pub(crate) fn recover(&mut self) -> Outcome {
        let mut effects = Vec::new();
        let epoch = epoch(self.writers.len());
        self.writers.push(Writer::open_under(self.rules, epoch, self.geometry, &mut effects));
        self.told.push((Vec::new(), Lsn::ZERO, Lsn::ZERO));
        let index = self.writers.len() - 1;
        self.take_effects(index, effects)
    }

    /// Lets writer number `index` write one mini-transaction that changes `pages`, each with a
    /// payload of its own.
    pub(crate) fn write(&mut self, index: usize, pages: &[u64]) -> Outcome {
        let mut changes = Vec::new();
        for page in pages {
            self.payloads += 1;
            changes.push(change(*page, self.payloads));
        }
        self.command(index, WriterInput::Write { changes })
    }

    /// Gives writer number `index` an input.
    pub(crate) fn command(&mut self, index: usize, input: WriterInput) -> Outcome {
        if let Some(trace) = &mut self.trace {
            trace.push((self.writers[index].clone(), input.clone()));
        }
        if let WriterInput::Confirm { ticket } = &input {
            self.asked.insert((index, *ticket), self.volume.told());
        }
        let mut effects = Vec::new();
        self.writers[index].step(input, &mut effects);
        self.take_effects(index, effects)
    }

    fn take_effects(&mut self, index: usize, effects: Vec<WriterEffect>) -> Outcome {
        let has_written =
            |effect: &WriterEffect| matches!(effect, WriterEffect::Report(Report::Written { .. }));
        let mut written = BTreeSet::new();
        if effects.iter().any(has_written) {
            for effect in &effects {
                if let WriterEffect::Send { message: ToSegment::Append(append), .. } = effect {
                    written.extend(append.records.iter().copied());
                }
            }
        }
        for record in &written {
            self.written.insert((record.lsn, record.epoch), *record);
        }
        for effect in effects {
            match effect {
                WriterEffect::Report(report) => {
                    self.judge(index, &report, &mut written)?;
                    self.reports.push((index, report));
                }
                WriterEffect::SendReader { .. } => {}
                WriterEffect::Send { group, to, message } => {
                    let from = Peer::Writer(self.writers[index].epoch());
                    for position in self.geometry.quorums().positions() {
                        if to.contains(position) {
                            let node = self.node(group, position);
                            let message = message.clone();
                            self.flight.push_back(Envelope::Segment { node, from, message });
                        }
                    }
                }
            }
        }
        if Self::is_sound() { self.check_writer(index) } else { Ok(()) }
    }

    /// Compares what a writer reports with the abstract volume.
    fn judge(&mut self, index: usize, report: &Report, written: &mut BTreeSet<Record>) -> Outcome {
        let event = match report {
            Report::Confirmed { ticket, read_point } => {
                let told = self.asked.remove(&(index, *ticket));
                self.volume.asked.extend(told.map(|told| (index, (*ticket, told))));
                Event::Confirmed(*ticket, read_point.lsn())
            }
            Report::Durable { vdl } => Event::Durable(vdl.lsn()),
            Report::Opened { vdl, .. } => Event::Opened(vdl.lsn(), Vec::new()),
            Report::Read { page, read_point, version, .. } => {
                let expected = self.volume.version(index, *page, read_point.lsn());
                let told = self.volume.epochs.get(index).map(|epoch| epoch.told);
                let is_right = *version == expected && Some(read_point.lsn()) <= told;
                return if is_right { Ok(()) } else { Err(Finding::Read) };
            }
            Report::Written { .. } => Event::Written(std::mem::take(written).into_iter().collect()),
            Report::Grown { .. }
            | Report::Located { .. }
            | Report::Overtaken { .. }
            | Report::ReadRefused { .. }
            | Report::Refused(_)
            | Report::Rejected { .. }
            | Report::Settled { .. } => return Ok(()),
        };
        self.volume = self.volume.step(index, &event).map_err(Finding::Volume)?;
        Ok(())
    }

    /// Checks that PGCL, VCL and VDL are what their definitions say, and never go back.
    fn check_writer(&mut self, index: usize) -> Outcome {
        let writer = &self.writers[index];
        let (Some(vdl), Some(vcl), Some(tail)) = (writer.vdl(), writer.vcl(), writer.tail()) else {
            return Ok(());
        };
        let Some(own) = self.volume.epochs.get(index) else {
            return Err(Finding::Broken("a writer is open that has not reported it"));
        };
        let Some(base) = own.base else {
            return Err(Finding::Broken("a writer is open that has not reported it"));
        };
        let quorums = self.geometry.quorums();
        let mut pgcls = Vec::new();
        for group in writer.geometry().groups() {
            let of = |position| writer.scl(group, position).unwrap_or_default();
            let holds = |lsn: &Lsn| {
                quorums.positions().filter(|position| of(*position) >= *lsn).count()
                    >= quorums.write()
            };
            let defined = quorums.positions().map(of).filter(holds).max().unwrap_or_default();
            let known = writer.pgcl(group).unwrap_or_default().lsn();
            demand(known == defined, "the PGCL is not the highest LSN of a write quorum")?;
            pgcls.push(defined);
        }
        let is_above = |record: &&Record| record.lsn > base;
        let is_met = |record: &&Record| record.lsn <= pgcls[record.group.get() as usize];
        let complete: Vec<&Record> = own.log.iter().filter(is_above).take_while(is_met).collect();
        let defined = complete.last().map_or(base, |record| record.lsn);
        demand(vcl.lsn() == defined, "the VCL is not before the first record short of a quorum")?;
        let defined = complete.iter().rev().find(|record| record.cpl).map_or(base, |r| r.lsn);
        demand(vdl.lsn() == defined, "the VDL is not the highest CPL at or under the VCL")?;
        demand(own.told == defined, "the VDL was not told")?;

        let last = own.log.last().map_or(Lsn::ZERO, |record| record.lsn);
        demand(tail == last, "the tail is not the last record of the log")?;
        let through = writer.history().map_or(Lsn::ZERO, |history| history.through());
        let base = vdl.lsn().max(through).get();
        let limit = base.saturating_add(self.geometry.limits().allocation_max);
        demand(tail.get() <= limit, "an LSN beyond the allocation limit")?;

        let (known_pgcls, known_vcl, known_vdl) = &self.told[index];
        let goes_back = known_pgcls.iter().zip(&pgcls).any(|(known, now)| known > now);
        let goes_back = goes_back || *known_vcl > vcl.lsn() || *known_vdl > vdl.lsn();
        demand(!goes_back, "a consistency point went back")?;
        self.told[index] = (pgcls, vcl.lsn(), vdl.lsn());
        Ok(())
    }

    // The segments.

    fn step_node(&mut self, index: usize, input: SegmentInput) -> Outcome {
        let node = &mut self.nodes[index];
        let (promised, heard) = (node.machine.durable().promised(), node.machine.heard());
        let mut effects = Vec::new();
        node.machine.step(input, &mut effects);
        let group = node.group;
        let from = Peer::Segment(node.position);
        for effect in effects {
            match effect {
                SegmentEffect::Persist { id, write } => {
                    self.nodes[index].log.push_back((id, write, false));
                }
                SegmentEffect::SendReader { .. } => {}
                SegmentEffect::SendSegment { to, message } => {
                    let node = self.node(group, to);
                    self.flight.push_back(Envelope::Segment { node, from, message });
                }
                SegmentEffect::SendWriter { message, .. } => {
                    self.check_answer(index, &message)?;
                    self.flight.push_back(Envelope::Writer { node: index, message });
                }
                SegmentEffect::Unusable(_) => {}
            }
        }
        if !Self::is_sound() {
            return Ok(());
        }
        let machine = &self.nodes[index].machine;
        demand(machine.durable().promised() >= promised, "a promise fell")?;
        demand(machine.heard() >= heard, "an epoch was forgotten without a crash")?;
        self.check_node(index)
    }

    /// Checks that a segment acknowledges and promises nothing that a crash could undo.
    fn check_answer(&self, index: usize, message: &ToWriter) -> Outcome {
        if !Self::is_sound() {
            return Ok(());
        }
        let Node { machine, disk, .. } = &self.nodes[index];
        match message {
            ToWriter::Ack { epoch, scl, .. } => {
                demand(*scl <= disk.scl(), "an acknowledgement before it is durable")?;
                let epochs = [machine.heard(), disk.promised(), disk.history().epoch()];
                demand(epochs == [*epoch; 3], "an acknowledgement to another epoch")
            }
            ToWriter::Sealed { epoch, answer } => {
                demand(disk.promised() >= *epoch, "a report before the promise is durable")?;
                // A later write may be durable too, but the report was built before it counted.
                let is_old = answer.history.epoch() <= disk.history().epoch();
                demand(is_old, "a report of a history that is not durable")
            }
            ToWriter::Confirmed { epoch, .. }
            | ToWriter::Located { epoch, .. }
            | ToWriter::Read { epoch, .. } => {
                demand(machine.heard() == *epoch, "an answer to an overtaken writer")
            }
            ToWriter::Refused { .. } => Ok(()),
        }
    }

    fn check_node(&self, index: usize) -> Outcome {
        let Node { machine, disk, .. } = &self.nodes[index];
        let durable = machine.durable();
        durable.assert_invariants();
        let mut end = Lsn::ZERO;
        for record in durable.records() {
            if record.prev_group != end {
                break;
            }
            end = record.lsn;
        }
        demand(durable.scl().lsn() == end, "the SCL is not the end of the chain")?;
        let is_known = |r: &Record| self.written.get(&(r.lsn, r.epoch)) == Some(r);
        demand(durable.records().iter().all(is_known), "a record that nobody wrote")?;
        // What runs and what restarts are the same, but for knowledge of the VDL.
        demand(durable.promised() == disk.promised(), "the machine's promise is not the disk's")?;
        demand(durable.history() == disk.history(), "the machine's history is not the disk's")?;
        demand(durable.records() == disk.records(), "the machine's records are not the disk's")?;
        demand(durable.vdl() >= disk.vdl(), "the machine forgot a VDL")
    }

    /// Reports the unsynced write number `index` of a segment as durable.
    pub(crate) fn sync(&mut self, node: usize, index: usize) -> Outcome {
        let rules = self.rules;
        let Node { disk, log, .. } = &mut self.nodes[node];
        let mut unsynced = log.iter_mut().filter(|(_, _, is_synced)| !is_synced);
        let Some((id, _, is_synced)) = unsynced.nth(index) else { return Ok(()) };
        *is_synced = true;
        let id = *id;
        while let Some((_, write, true)) = log.front() {
            if disk.apply_under(rules, write).is_err() {
                return Err(Finding::Broken("a write that can't be applied"));
            }
            if Self::is_sound() && restored(disk).as_ref() != Ok(&*disk) {
                return Err(Finding::Broken("a checkpoint that is not restored"));
            }
            log.pop_front();
        }
        self.step_node(node, SegmentInput::Durable(id))
    }

    /// Crashes a segment and restarts it with what is left: every synced write, and of each other
    /// one what `survives` says, up to the first gap.
    pub(crate) fn crash(
        &mut self,
        node: usize,
        mut survives: impl FnMut(SegmentWrite) -> Survivor,
    ) -> Outcome {
        let rules = self.rules;
        let Node { disk, log, machine, .. } = &mut self.nodes[node];
        let survivors =
            log.drain(..).map(
                |(_, write, is_synced)| {
                    if is_synced { Survivor::Whole(write) } else { survives(write) }
                },
            );
        if disk.replay_under(rules, survivors).is_err() {
            return Err(Finding::Broken("a segment that can't restart"));
        }
        *machine = Segment::recover_under(rules, disk.clone());
        if Self::is_sound() { self.check_node(node) } else { Ok(()) }
    }

    /// Lets the segment `into` ask the one at `from` of its group for what it lacks.
    pub(crate) fn pull(&mut self, into: usize, from: Position) -> Outcome {
        self.step_node(into, SegmentInput::Pull { from })
    }

    // The network.

    /// Hands a message over.
    pub(crate) fn deliver(&mut self, envelope: Envelope) -> Outcome {
        match envelope {
            Envelope::Segment { node, from, message } => {
                if self.nodes[node].is_down {
                    return Ok(());
                }
                self.step_node(node, SegmentInput::Receive { from, message })
            }
            Envelope::Writer { node, message } => {
                let Node { group, position: from, .. } = self.nodes[node];
                // Every writer gets it: those of another epoch must see that it isn't theirs.
                for index in 0..self.writers.len() {
                    let message = message.clone();
                    self.command(index, WriterInput::Receive { group, from, message })?;
                }
                Ok(())
            }
        }
    }

    /// Delivers everything, in order, and syncs at once, until nothing is on its way.
    pub(crate) fn settle(&mut self) -> Outcome {
        loop {
            for node in 0..self.nodes.len() {
                while self.nodes[node].unsynced() > 0 {
                    self.sync(node, 0)?;
                }
            }
            let Some(envelope) = self.flight.pop_front() else { return Ok(()) };
            self.deliver(envelope)?;
        }
    }

    /// Delivers, and syncs at once, what is on its way to the segments at `positions` of `group`
    /// and to writers, and what follows from it; everything else stays on its way.
    pub(crate) fn reach(&mut self, group: u32, positions: &[usize]) -> Outcome {
        let nodes: BTreeSet<usize> =
            positions.iter().map(|index| self.node(PgId::new(group), at(*index))).collect();
        let is_near = |envelope: &Envelope| match envelope {
            Envelope::Segment { node, .. } => nodes.contains(node),
            Envelope::Writer { .. } => true,
        };
        loop {
            for node in &nodes {
                while self.nodes[*node].unsynced() > 0 {
                    self.sync(*node, 0)?;
                }
            }
            let Some(next) = self.flight.iter().position(is_near) else { return Ok(()) };
            if let Some(envelope) = self.flight.remove(next) {
                self.deliver(envelope)?;
            }
        }
    }

    /// Lets every two segments exchange what they lack, until none lacks anything.
    pub(crate) fn gossip(&mut self) -> Outcome {
        loop {
            self.settle()?;
            let before: Vec<SegmentImage> =
                self.nodes.iter().map(|node| node.machine.durable().clone()).collect();
            for into in 0..self.nodes.len() {
                for from in self.geometry.quorums().positions() {
                    let is_down = self.nodes[self.node(self.nodes[into].group, from)].is_down;
                    if !is_down && !self.nodes[into].is_down && self.nodes[into].position != from {
                        self.pull(into, from)?;
                    }
                }
            }
            self.settle()?;
            let is_same =
                |(node, before): (&Node<R>, &SegmentImage)| node.machine.durable() == before;
            if self.nodes.iter().zip(&before).all(is_same) {
                return Ok(());
            }
        }
    }

    // The judges.

    /// Checks what a recovery would decide if, now, every segment lost its unsynced writes and
    /// those that `is_sealed` picks of each group were the read quorum that answers.
    pub(crate) fn probe(&self, is_sealed: impl Fn(&Node<R>) -> bool) -> Outcome {
        let report = |node: &Node<R>| {
            let restarted = Segment::recover_under(self.rules, node.disk.clone());
            (node.group, restarted.report())
        };
        let answers: Vec<(PgId, SealAnswer)> =
            self.nodes.iter().filter(|node| is_sealed(node)).map(report).collect();
        let answers: Vec<(PgId, &SealAnswer)> = answers.iter().map(|(g, a)| (*g, a)).collect();
        let choice = choose_under(self.rules, &self.geometry, &answers);
        let opened = Event::Opened(choice.recovery_point.lsn(), Vec::new());
        self.volume.step(self.writers.len(), &opened).map(|_| ()).map_err(Finding::Volume)
    }

    /// Ends all faults and checks that the volume comes back: everything is delivered, one last
    /// writer opens, writes to every group and has it acknowledged, and all segments end up equal.
    pub(crate) fn heal(&mut self) -> Outcome {
        self.down(&[]);
        self.gossip()?;
        self.recover()?;
        self.gossip()?;
        let last = self.writers.len() - 1;
        demand(self.writers[last].phase() == PhaseName::Open, "the last writer does not open")?;
        for group in self.geometry.groups() {
            self.write(last, &[u64::from(group.get())])?;
            self.gossip()?;
        }
        let writer = &self.writers[last];
        let is_durable = writer.vdl().map(Vdl::lsn) == writer.tail();
        demand(is_durable, "the last writer's commits are not acknowledged")?;
        self.command(last, WriterInput::Publish)?;
        self.gossip()?;
        for pair in self.nodes.windows(2) {
            let [one, other] = pair else { continue };
            if one.group == other.group {
                let is_equal = one.machine.durable() == other.machine.durable();
                demand(is_equal, "the segments of a group do not converge")?;
            }
        }
        for (index, writer) in self.writers.iter().enumerate() {
            let is_fenced = writer.phase() == PhaseName::Fenced;
            demand(index != last || !is_fenced, "the last writer is overtaken by nobody")?;
        }
        Ok(())
    }
}
