//! Two regions of six segments each: what the models' second region, of one segment, can't show.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod support;

use std::collections::VecDeque;

use quorate_core::consistency::Vdl;
use quorate_core::effect::{SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PgId, Position, ReaderId, SegmentSet};
use quorate_core::image::SegmentImage;
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, ToReader, ToSegment, ToWriter};
use quorate_core::region::{RegionPoint, is_drained, promoted};
use quorate_core::relay::{OnDivergence, Relay, RelayEffect, RelayInput, RelayReport};
use quorate_core::rules::Sound;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};
use support::{WIDE, at, change, epoch, geometry};

const GROUP: PgId = PgId::new(0);
const RELAY: ReaderId = ReaderId::new(3);

/// A region: six segments and, where one was opened, a writer.
struct Region {
    segments: Vec<Segment>,
    writer: Option<Writer>,
    /// Segments that nothing reaches.
    deaf: SegmentSet,
    stream: Vec<ToReader>,
}

impl Region {
    fn new() -> Self {
        let image = SegmentImage::create(GROUP, geometry(1, WIDE)).unwrap();
        let segments = (0..6).map(|_| Segment::recover(image.clone())).collect();
        Self { segments, writer: None, deaf: SegmentSet::EMPTY, stream: Vec::new() }
    }

    fn open(&mut self, epoch: VolumeEpoch) {
        let mut effects = Vec::new();
        self.writer = Some(Writer::open(epoch, geometry(1, WIDE), &mut effects));
        self.carry_out(effects);
        assert_eq!(self.writer.as_ref().map(Writer::phase), Some(PhaseName::Open));
    }

    fn step(&mut self, input: WriterInput) {
        let mut effects = Vec::new();
        self.writer.as_mut().unwrap().step(input, &mut effects);
        self.carry_out(effects);
    }

    fn write(&mut self, checksum: u32) {
        self.step(WriterInput::Write { changes: vec![change(0, checksum), change(1, checksum)] });
    }

    fn vdl(&self) -> Vdl {
        self.writer.as_ref().and_then(Writer::vdl).unwrap()
    }

    /// Gives a message to all of `to`; returns what they answer to whoever speaks as a writer.
    fn give(&mut self, to: SegmentSet, message: &ToSegment) -> Vec<(Position, ToWriter)> {
        let mut answers = Vec::new();
        for (index, segment) in self.segments.iter_mut().enumerate() {
            if !to.contains(at(index)) || self.deaf.contains(at(index)) {
                continue;
            }
            let from = Peer::Writer(epoch(0));
            let input = SegmentInput::Receive { from, message: message.clone() };
            let said = run(segment, input).0.into_iter().map(|answer| (at(index), answer));
            answers.extend(said);
        }
        answers
    }

    fn carry_out(&mut self, mut effects: Vec<WriterEffect>) {
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    WriterEffect::Report(_) => {}
                    WriterEffect::SendReader { message, .. } => self.stream.push(message),
                    WriterEffect::Send { group, to, message } => {
                        for (from, message) in self.give(to, &message) {
                            let input = WriterInput::Receive { group, from, message };
                            self.writer.as_mut().unwrap().step(input, &mut effects);
                        }
                    }
                }
            }
        }
    }

    fn records(&self, index: usize) -> Vec<(VolumeEpoch, Lsn, u32)> {
        let records = self.segments.get(index).unwrap().durable().records().iter();
        records.map(|it| (it.epoch, it.lsn, it.payload.checksum)).collect()
    }
}

/// Returns what a segment says to writers and to segments, with a disk that never fails.
fn run(segment: &mut Segment, input: SegmentInput) -> (Vec<ToWriter>, Vec<ToSegment>) {
    let (mut inputs, mut effects) = (VecDeque::from([input]), Vec::new());
    let (mut answers, mut messages) = (Vec::new(), Vec::new());
    while let Some(input) = inputs.pop_front() {
        segment.step(input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                SegmentEffect::Persist { id, .. } => inputs.push_back(SegmentInput::Durable(id)),
                SegmentEffect::SendWriter { message, .. } => answers.push(message),
                SegmentEffect::SendSegment { message, .. } => messages.push(message),
                SegmentEffect::SendReader { .. } | SegmentEffect::Unusable(_) => {}
            }
        }
    }
    (answers, messages)
}

/// Lets `relay` ship from `source` to `target` until nothing is left to do.
fn ship(relay: &mut Relay, source: &mut Region, target: &mut Region) -> Vec<RelayReport> {
    let mut inputs = VecDeque::from([RelayInput::Attach]);
    let (mut reports, mut effects) = (Vec::new(), Vec::new());
    let mut refills = 0;
    loop {
        while let Some(input) = inputs.pop_front() {
            relay.step(input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    RelayEffect::Report(report) => reports.push(report),
                    RelayEffect::Send { group, to, message } => {
                        let answers = target.give(to, &message).into_iter();
                        inputs.extend(answers.map(|(from, message)| RelayInput::Receive {
                            group,
                            from,
                            message,
                        }));
                    }
                    RelayEffect::SendSource { to, message, .. } => {
                        let segment = source.segments.get_mut(to.index()).unwrap();
                        let from = Peer::Segment(at(0));
                        let input = SegmentInput::Receive { from, message };
                        for message in run(segment, input).1 {
                            let ToSegment::Pulled(pulled) = message else { continue };
                            inputs.push_back(RelayInput::ReceivePulled(pulled));
                        }
                    }
                    RelayEffect::SendWriter(message) => {
                        source.step(WriterInput::ReceiveReader { from: RELAY, message });
                        inputs.extend(source.stream.drain(..).map(RelayInput::Follow));
                    }
                }
            }
        }
        refills += 1;
        if !relay.is_lacking() || refills > 20 {
            return reports;
        }
        inputs.push_back(RelayInput::Refill { group: GROUP, from: at(5) });
    }
}

fn advanced(reports: &[RelayReport]) -> Option<RegionPoint> {
    let target = |report: &RelayReport| {
        if let RelayReport::Advanced { target, .. } = report { Some(*target) } else { None }
    };
    reports.iter().rev().find_map(target)
}

fn relay(on_divergence: OnDivergence) -> Relay {
    Relay::new(geometry(1, WIDE), on_divergence)
}

/// A point could be reported of another region that a second failure there takes away.
#[test]
fn a_point_is_reached_when_four_of_six_segments_have_it() {
    let (mut here, mut there) = (Region::new(), Region::new());
    here.open(epoch(0));
    here.write(1);
    there.deaf = SegmentSet::from_bits(0b11);
    let mut relay = relay(OnDivergence::Refuse);
    let reports = ship(&mut relay, &mut here, &mut there);
    let point = RegionPoint { epoch: epoch(0), vdl: here.vdl() };
    assert_eq!(advanced(&reports), Some(point));
    there.deaf = SegmentSet::from_bits(0b111);
    here.write(2);
    let reports = ship(&mut relay, &mut here, &mut there);
    assert_eq!((advanced(&reports), relay.vdl()), (None, Some(point.vdl)), "three are not enough");
    // One more is back: what is under way is sent to it again.
    there.deaf = SegmentSet::from_bits(0b11);
    let mut effects = Vec::new();
    relay.step(RelayInput::Resend { group: GROUP, to: at(2) }, &mut effects);
    for effect in effects {
        let RelayEffect::Send { group, to, message } = effect else { continue };
        for (from, message) in there.give(to, &message) {
            relay.step(RelayInput::Receive { group, from, message }, &mut Vec::new());
        }
    }
    assert_eq!(relay.vdl(), Some(here.vdl()));
}

/// What another region went on with would be dropped by a relay that nobody told to, or kept by one
/// that was, since its LSNs are higher than those of the region that was promoted.
#[test]
fn a_region_that_was_left_behind_is_joined_by_epoch_and_lsn() {
    let (mut here, mut there) = (Region::new(), Region::new());
    here.open(epoch(0));
    here.write(1);
    let reports = ship(&mut relay(OnDivergence::Refuse), &mut here, &mut there);
    let point = advanced(&reports).unwrap();
    // It goes on, far beyond what a recovery would annul, and is told of a promotion by nobody.
    for _ in 0..WIDE.allocation_max {
        here.write(2);
    }
    let next = promoted(Sound, epoch(0), InstanceId::new(9)).unwrap();
    there.open(next);
    assert_eq!(there.vdl(), point.vdl, "the loss is what the report said");
    there.write(3);
    assert!(here.vdl() > there.vdl());
    let reports = ship(&mut relay(OnDivergence::Refuse), &mut there, &mut here);
    let dropped = RegionPoint { epoch: epoch(0), vdl: here.vdl() };
    let diverged = RelayReport::Diverged { target: dropped, kept: point.vdl.lsn() };
    assert!(reports.contains(&diverged), "{reports:?}");
    assert!(here.records(0).len() > 4, "nothing was dropped");
    let reports = ship(&mut relay(OnDivergence::Drop), &mut there, &mut here);
    assert_eq!(advanced(&reports), Some(RegionPoint { epoch: next, vdl: there.vdl() }));
    assert!((0..6).all(|index| here.records(index) == there.records(0)));
    // Nobody of the old region is heard any more.
    here.write(4);
    assert_eq!(here.writer.as_ref().and_then(Writer::overtaken_by), Some(next));
}

/// A planned switch would lose what was acknowledged last.
#[test]
fn a_planned_switch_loses_nothing() {
    let (mut here, mut there) = (Region::new(), Region::new());
    here.open(epoch(0));
    let mut relay = relay(OnDivergence::Refuse);
    ship(&mut relay, &mut here, &mut there);
    here.write(1);
    let last = here.vdl();
    let fence = promoted(Sound, epoch(0), InstanceId::new(8)).unwrap();
    here.open(fence);
    let point = RegionPoint { epoch: fence, vdl: here.vdl() };
    assert!(!is_drained(Sound, point, RegionPoint { epoch: epoch(0), vdl: last }));
    let reports = ship(&mut relay, &mut here, &mut there);
    assert!(is_drained(Sound, point, advanced(&reports).unwrap()));
    there.open(fence.next(InstanceId::new(9)).unwrap());
    assert_eq!((there.vdl(), there.records(0)), (last, here.records(0)));
}
