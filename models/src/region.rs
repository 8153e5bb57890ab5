//! The second region of a model: its volume, the relay that feeds it, and its steps.
//!
//! The first region is the model's own volume, with everything that can happen to it. The second
//! one has a single segment for each group: what a recovery makes of several is explored without
//! regions. What it is sent comes late, in any order, or never; it answers at once.

use std::collections::VecDeque;

use quorate_core::effect::{Report, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{InstanceId, PgId, ReaderId, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::message::{FromReader, SealAnswer, ToReader, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::recovery::{Choice, choose_under};
use quorate_core::region::{RegionPoint, is_drained, promoted};
use quorate_core::relay::{OnDivergence, Relay, RelayEffect, RelayInput, RelayReport};
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};

use crate::action::{Action, RegionStep};
use crate::configuration::Regions;
use crate::intern::hash_of;
use crate::machine::writer_message;
use crate::step::{as_u8, is_first, position_of};
use crate::volume_spec::Volume;
use crate::witness::Witness;
use crate::world::{State, World};

const RELAY: ReaderId = ReaderId::new(2);
/// Below those of the first region's writers: an epoch is not above another for its instance.
const PROMOTED: InstanceId = InstanceId::new(0);

/// From where to where a relay ships.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Heading {
    /// From the second region to the first.
    Back,
    /// From the first region to the second.
    Out,
}

/// Something that a relay has sent to segments and that hasn't reached all of them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) group: PgId,
    pub(crate) to: SegmentSet,
    pub(crate) message: ToSegment,
}

/// The second region, and all relays.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct RegionNode<R: Rules> {
    pub(crate) relay: Relay<R>,
    pub(crate) heading: Heading,
    /// The second region's segments, by group.
    pub(crate) far: Vec<Segment<R>>,
    /// Sorted by hash.
    pub(crate) parcels: Vec<Parcel>,
    /// Every point of the second region that a relay has reported.
    pub(crate) reached: Vec<RegionPoint>,
    /// Every point of the first region that a relay has reported.
    pub(crate) back: Vec<RegionPoint>,
    pub(crate) promoted: Option<Promoted<R>>,
    pub(crate) relays: u8,
    pub(crate) writes: u8,
    /// A step has gone wrong that no state shows any more.
    pub(crate) is_wrong: bool,
}

/// The second region on its own.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Promoted<R: Rules> {
    pub(crate) writer: Writer<R>,
    /// Whether nothing may have been lost.
    pub(crate) is_planned: bool,
    /// What it had when it was promoted, then what was written: all of it is durable.
    pub(crate) log: Vec<Record>,
}

impl<R: Rules> World<R> {
    pub(crate) fn new_region(&self, regions: Regions) -> u32 {
        let geometry = self.configuration.far_geometry();
        let images = geometry.groups().filter_map(|group| SegmentImage::create(group, geometry));
        self.regions.intern(RegionNode {
            relay: Relay::new_under(self.rules, geometry, OnDivergence::Refuse),
            heading: Heading::Out,
            far: images.map(|image| Segment::recover_under(self.rules, image)).collect(),
            parcels: Vec::new(),
            reached: Vec::new(),
            back: Vec::new(),
            promoted: None,
            relays: regions.relays,
            writes: regions.writes,
            is_wrong: false,
        })
    }

    /// Returns the second region, if the configuration has one.
    pub(crate) fn region(&self, state: &State) -> Option<&RegionNode<R>> {
        (state.region != u32::MAX).then(|| self.regions.get(state.region))
    }

    pub(crate) fn take_region(
        &self,
        state: &State,
        next: &mut State,
        step: RegionStep,
    ) -> Option<()> {
        let node = self.region(state)?;
        match step {
            RegionStep::Attach { writer } => {
                next.budget.attaches = next.budget.attaches.checked_sub(1)?;
                let floor = node.relay.vdl().map(quorate_core::consistency::ReadPoint::at);
                let what = 1 << 21 | floor.map_or(0, |floor| floor.lsn().get().saturating_add(1));
                let message = FromReader::Attach { floor };
                let input = WriterInput::ReceiveReader { from: RELAY, message };
                self.command(next, writer, what, input);
            }
            RegionStep::Deliver { index, position } if node.heading == Heading::Back => {
                self.deliver_back(next, usize::from(index), position)?;
            }
            RegionStep::Deliver { index, position: _ } => {
                next.region = self.deliver_out(state.region, index);
            }
            RegionStep::Follow { writer, message } => {
                let stream = self.writers.get(state.writer(usize::from(writer)));
                let message = *stream.stream_ids.get(usize::from(message))?;
                let key = u64::from(state.region) << 32 | u64::from(message);
                next.region = self.memos.relay.get_or(key, || {
                    let mut node = node.clone();
                    let input = RelayInput::Follow(self.to_reader.get(message).clone());
                    self.run_relay(&mut node, vec![input], None, None);
                    self.regions.intern(node)
                });
            }
            RegionStep::Promote => {
                let heard = node.far.iter().map(Segment::heard).max()?;
                let epoch = promoted(self.rules, heard, PROMOTED)?;
                self.open_far(state, next, epoch, false);
            }
            RegionStep::Reattach => {
                let mut node = node.clone();
                let geometry = self.configuration.geometry();
                node.heading = Heading::Back;
                node.relay = Relay::new_under(self.rules, geometry, OnDivergence::Drop);
                // They would be refused.
                node.parcels.clear();
                let volume = self.volumes.get(state.volume);
                self.run_relay(&mut node, vec![RelayInput::Attach], None, Some(volume));
                next.region = self.regions.intern(node);
            }
            RegionStep::Refill { group, position } => {
                next.region = self.relay_refill(state, node, group, position);
            }
            RegionStep::Restart => {
                let mut node = node.clone();
                node.relays = node.relays.checked_sub(1)?;
                let geometry = self.configuration.far_geometry();
                node.relay = Relay::new_under(self.rules, geometry, OnDivergence::Refuse);
                next.region = self.regions.intern(node);
            }
            RegionStep::Switch { writer } => {
                let epoch = self.writers.get(state.writer(usize::from(writer))).machine.epoch();
                self.open_far(state, next, epoch.next(PROMOTED)?, true);
            }
            RegionStep::Write { mtr } => {
                let mut node = node.clone();
                node.writes = node.writes.checked_sub(1)?;
                let changes = self.changes(mtr)?;
                let volume = self.volumes.get(state.volume);
                let input = WriterInput::Write { changes };
                self.run_far_writer(&mut node, input, Some(volume));
                next.region = self.regions.intern(node);
            }
        }
        Some(())
    }

    fn deliver_out(&self, region: u32, index: u8) -> u32 {
        let key = u64::from(region) << 32 | u64::from(index);
        self.memos.region.get_or(key, || {
            let mut node = self.regions.get(region).clone();
            let parcel = node.parcels.remove(usize::from(index));
            let input = self.far_receives(&mut node, parcel.group, &parcel.message);
            self.run_relay(&mut node, input, None, None);
            self.regions.intern(node)
        })
    }

    fn relay_refill(&self, state: &State, node: &RegionNode<R>, group: u8, position: u8) -> u32 {
        let (of, from) = (PgId::new(u32::from(group)), position_of(position));
        let input = vec![RelayInput::Refill { group: of, from }];
        let mut node = node.clone();
        if node.heading == Heading::Back {
            let volume = self.volumes.get(state.volume);
            self.run_relay(&mut node, input, None, Some(volume));
            return self.regions.intern(node);
        }
        let slot = state.slot(self.slot_index(usize::from(group), usize::from(position)));
        let key = u64::from(state.region) << 32 | u64::from(slot);
        self.memos.refill.get_or(key, || {
            self.run_relay(&mut node, input, Some(slot), None);
            self.regions.intern(node)
        })
    }

    /// Gives the relay inputs, and whatever comes of them at once: the second region's segments
    /// answer seals and installs, and whoever is asked for records has them. `slot` is the segment
    /// of the first region that is asked, `volume` what the first region was.
    fn run_relay(
        &self,
        node: &mut RegionNode<R>,
        inputs: Vec<RelayInput>,
        slot: Option<u32>,
        volume: Option<&Volume>,
    ) {
        let mut inputs = VecDeque::from(inputs);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            node.relay.step(input, &mut effects);
            if let Some(volume) = volume {
                node.is_wrong |= !reports_divergence(node, volume, &effects);
            }
            for effect in std::mem::take(&mut effects) {
                match effect {
                    RelayEffect::Report(report) => self.hear_relay(node, report),
                    RelayEffect::Send { group, to, message } => {
                        let is_late =
                            matches!(message, ToSegment::Append(_) | ToSegment::Pulled(_));
                        if is_late || node.heading == Heading::Back {
                            self.add_parcel(node, Parcel { group, to, message });
                        } else {
                            inputs.extend(self.far_receives(node, group, &message));
                        }
                    }
                    RelayEffect::SendSource { group, to: _, message } => {
                        inputs.extend(self.source_answers(node, slot, group, message));
                    }
                    RelayEffect::SendWriter(message) => {
                        if node.heading == Heading::Back {
                            let from = RELAY;
                            let input = WriterInput::ReceiveReader { from, message };
                            inputs.extend(self.step_far_writer(node, input));
                        }
                    }
                }
            }
        }
    }

    fn hear_relay(&self, node: &mut RegionNode<R>, report: RelayReport) {
        let saw = &self.witnesses;
        match report {
            RelayReport::Advanced { target, .. } | RelayReport::Found { target } => {
                let is_found = matches!(report, RelayReport::Found { .. });
                saw.saw_if(!is_found, Witness::RelayAdvanced);
                let back =
                    |known: &RegionPoint| known.epoch < target.epoch && known.vdl > target.vdl;
                let points = match node.heading {
                    Heading::Back => &mut node.back,
                    Heading::Out => &mut node.reached,
                };
                let is_back = !is_found && points.iter().any(back);
                saw.saw_if(is_back, Witness::RelayWentBack);
                saw.saw_if(!is_found && node.heading == Heading::Back, Witness::Resynced);
                if let Err(at) = points.binary_search(&target) {
                    points.insert(at, target);
                }
            }
            RelayReport::Diverged { .. } => saw.saw(Witness::RelayDiverged),
            RelayReport::Overtaken { .. } => saw.saw(Witness::RelayOvertaken),
            // Nothing is discarded, no member changes, and no bound is reached.
            RelayReport::Collected { .. }
            | RelayReport::Rejected { .. }
            | RelayReport::Unsettled { .. } => node.is_wrong |= size_of::<R>() == 0,
        }
    }

    fn add_parcel(&self, node: &mut RegionNode<R>, parcel: Parcel) {
        if node.parcels.contains(&parcel) {
            return;
        }
        node.parcels.push(parcel);
        node.parcels.sort_by_cached_key(|parcel| hash_of(self.seed, parcel));
    }

    /// Gives a segment of the second region a message; what it answers is for the relay.
    fn far_receives(
        &self,
        node: &mut RegionNode<R>,
        group: PgId,
        message: &ToSegment,
    ) -> Vec<RelayInput> {
        let from = position_of(0);
        let answers = self.far_answers(node, group, message).into_iter();
        answers.map(|message| RelayInput::Receive { group, from, message }).collect()
    }

    fn far_answers(
        &self,
        node: &mut RegionNode<R>,
        group: PgId,
        message: &ToSegment,
    ) -> Vec<ToWriter> {
        let Some(segment) = node.far.get_mut(group.get() as usize) else { return Vec::new() };
        let answers = self.run_segment(segment, writer_message(message)).0;
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Returns what the segment that a relay pulls from answers.
    fn source_answers(
        &self,
        node: &RegionNode<R>,
        slot: Option<u32>,
        group: PgId,
        message: ToSegment,
    ) -> Option<RelayInput> {
        let mut segment = match slot {
            Some(slot) => self.slots.get(slot).slot.segment.clone(),
            None => node.far.get(group.get() as usize)?.clone(),
        };
        let answer = self.run_segment(&mut segment, crate::machine::from_segment(message)).1.pop();
        match answer? {
            ToSegment::Pulled(pulled) => {
                let has_more = !pulled.records.is_empty();
                self.witnesses.saw_if(has_more, Witness::RelayRefilled);
                Some(RelayInput::ReceivePulled(pulled))
            }
            ToSegment::Append(_)
            | ToSegment::Behind { .. }
            | ToSegment::Confirm(_)
            | ToSegment::Install(_)
            | ToSegment::Locate(_)
            | ToSegment::Pull(_)
            | ToSegment::Read(_)
            | ToSegment::Seal(_) => None,
        }
    }

    /// Gives a segment of the first region what a relay of the second has sent.
    fn deliver_back(&self, next: &mut State, index: usize, position: u8) -> Option<()> {
        let mut node = self.regions.get(next.region).clone();
        let parcel = node.parcels.get_mut(index)?;
        let (group, message) = (parcel.group, parcel.message.clone());
        parcel.to = parcel.to.without(SegmentSet::only(position_of(position)));
        if parcel.to.is_empty() {
            node.parcels.remove(index);
        }
        let at = self.slot_index(group.get() as usize, usize::from(position));
        let outcome = self.deliver(next.slot(at), self.to_segment.intern(message));
        next.set_slot(at, outcome.slot);
        let of = as_u8(group.get() as usize);
        self.apply_replies(next, of, position, outcome.replies);
        let from = position_of(position);
        let replies = self.replies.get(outcome.replies).iter().map(|reply| {
            let message = self.to_writer.get(*reply).clone();
            RelayInput::Receive { group, from, message }
        });
        let volume = self.volumes.get(next.volume);
        self.run_relay(&mut node, replies.collect(), None, Some(volume));
        next.region = self.regions.intern(node);
        Some(())
    }

    /// Opens the second region's volume under `epoch`: its segments answer at once.
    fn open_far(&self, state: &State, next: &mut State, epoch: VolumeEpoch, is_planned: bool) {
        let mut node = self.regions.get(state.region).clone();
        let volume = self.volumes.get(state.volume);
        let mut effects = Vec::new();
        let geometry = self.configuration.far_geometry();
        let mut writer = Writer::open_under(self.rules, epoch, geometry, &mut effects);
        self.exchange(&mut node, &mut writer, effects);
        let at = writer.vdl().map(quorate_core::consistency::Vdl::lsn);
        let log = at.and_then(|at| volume.log_through(volume.epochs.len(), at));
        node.is_wrong |= log.is_none();
        self.witnesses.saw_if(is_planned, Witness::Switched);
        self.witnesses.saw_if(at.is_some_and(|at| at < volume.told()), Witness::PromotedBehind);
        let log = log.unwrap_or_default();
        node.promoted = Some(Promoted { writer, is_planned, log });
        next.region = self.regions.intern(node);
    }

    /// Carries messages between the second region's writer and its segments until there are none.
    /// Returns what it sends to the relay.
    fn exchange(
        &self,
        node: &mut RegionNode<R>,
        writer: &mut Writer<R>,
        mut effects: Vec<WriterEffect>,
    ) -> Vec<ToReader> {
        let mut stream = Vec::new();
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    WriterEffect::Send { group, message, .. } => {
                        for message in self.far_answers(node, group, &message) {
                            let from = position_of(0);
                            let input = WriterInput::Receive { group, from, message };
                            writer.step(input, &mut effects);
                        }
                    }
                    WriterEffect::SendReader { message, .. } => stream.push(message),
                    WriterEffect::Report(Report::Rejected { .. }) => {
                        node.is_wrong |= size_of::<R>() == 0;
                    }
                    WriterEffect::Report(_) => {}
                }
            }
        }
        stream
    }

    fn step_far_writer(&self, node: &mut RegionNode<R>, input: WriterInput) -> Vec<RelayInput> {
        let Some(mut promoted) = node.promoted.take() else { return Vec::new() };
        let mut effects = Vec::new();
        promoted.writer.step(input, &mut effects);
        let mut written: Vec<Record> = Vec::new();
        for effect in &effects {
            if let WriterEffect::Send { message: ToSegment::Append(append), .. } = effect {
                written.extend(&append.records);
            }
        }
        written.sort_unstable();
        promoted.log.extend(written);
        let stream = self.exchange(node, &mut promoted.writer, effects);
        node.promoted = Some(promoted);
        stream.into_iter().map(RelayInput::Follow).collect()
    }

    fn run_far_writer(
        &self,
        node: &mut RegionNode<R>,
        input: WriterInput,
        volume: Option<&Volume>,
    ) {
        let stream = self.step_far_writer(node, input);
        self.run_relay(node, stream, None, volume);
    }

    pub(crate) fn push_region_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(node) = self.region(state) else { return };
        let Some(regions) = self.configuration.regions else { return };
        let mut push = |step| actions.push(Action::Region(step));
        for (parcel, index) in node.parcels.iter().zip(0u8..) {
            for position in parcel.to.iter() {
                push(RegionStep::Deliver { index, position: as_u8(position.index()) });
            }
        }
        if node.promoted.is_some() {
            self.push_promoted_actions(node, regions, &mut push);
            return;
        }
        for (index, of) in self.started(state) {
            let writer = as_u8(index);
            if of.phase == PhaseName::Open && state.budget.attaches > 0 {
                push(RegionStep::Attach { writer });
            }
            let messages = 0..as_u8(of.stream.len());
            messages.for_each(|message| push(RegionStep::Follow { writer, message }));
            if self.configuration.is_fence(writer) && self.may_switch(node, &of.machine) {
                push(RegionStep::Switch { writer });
            }
        }
        if node.relays > 0 && node.relay.epoch().is_some() {
            push(RegionStep::Restart);
        }
        if regions.promotes {
            push(RegionStep::Promote);
        }
        if !node.relay.is_lacking() {
            return;
        }
        for group in 0..self.configuration.groups as usize {
            let keys = self.keys(state, group);
            for position in 0..self.members() {
                if is_first(&keys, position) || !self.configuration.symmetric {
                    let (group, position) = (as_u8(group), as_u8(position));
                    push(RegionStep::Refill { group, position });
                }
            }
        }
    }

    fn push_promoted_actions(
        &self,
        node: &RegionNode<R>,
        regions: Regions,
        push: &mut impl FnMut(RegionStep),
    ) {
        if node.writes > 0 {
            let mtrs = 0..as_u8(self.configuration.mtrs.len());
            mtrs.for_each(|mtr| push(RegionStep::Write { mtr }));
        }
        if regions.reattaches && node.heading == Heading::Out {
            push(RegionStep::Reattach);
        }
        if node.heading == Heading::Back && node.relay.is_lacking() {
            for group in 0..as_u8(self.configuration.groups as usize) {
                push(RegionStep::Refill { group, position: 0 });
            }
        }
    }

    fn may_switch(&self, node: &RegionNode<R>, fence: &Writer<R>) -> bool {
        let (Some(vdl), Some(reached)) = (fence.vdl(), node.reached.last()) else { return false };
        is_drained(self.rules, RegionPoint { epoch: fence.epoch(), vdl }, *reached)
    }

    /// Returns what a recovery of the second region would find.
    pub(crate) fn far_choice(&self, node: &RegionNode<R>) -> Choice {
        let reports: Vec<SealAnswer> = node.far.iter().map(Segment::report).collect();
        let answers: Vec<_> = (0..).map(PgId::new).zip(&reports).collect();
        choose_under(self.rules, &self.far_geometry(), &answers)
    }

    fn far_geometry(&self) -> VolumeGeometry {
        self.configuration.far_geometry()
    }
}

/// Returns whether a relay says of a first region that has gone on by itself that it has, that all
/// that it acknowledged may be lost, and names a point that both regions have.
fn reports_divergence<R: Rules>(
    node: &RegionNode<R>,
    volume: &Volume,
    effects: &[RelayEffect],
) -> bool {
    let Some(promoted) = &node.promoted else { return true };
    let told = volume.told();
    let own = volume.log_through(volume.epochs.len(), told).unwrap_or_default();
    let is_common = |(own, far): &(&Record, &Record)| own == far;
    let common = own.iter().zip(&promoted.log).take_while(is_common).last();
    let common = common.map_or(Lsn::ZERO, |(own, _)| own.lsn);
    let (mut is_found, mut is_said) = (false, false);
    for effect in effects {
        let RelayEffect::Report(report) = effect else { continue };
        match report {
            RelayReport::Found { .. } => is_found = true,
            RelayReport::Diverged { target, kept } => {
                is_said = *kept <= common && target.vdl.lsn() >= told;
            }
            RelayReport::Advanced { .. }
            | RelayReport::Collected { .. }
            | RelayReport::Overtaken { .. }
            | RelayReport::Rejected { .. }
            | RelayReport::Unsettled { .. } => {}
        }
    }
    !is_found || common >= told || is_said
}
