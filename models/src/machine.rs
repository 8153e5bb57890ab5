//! What a single machine does with an input, computed once for each distinct pair: the core's own
//! `step`, with a disk that the model plays.

use std::collections::VecDeque;

use quorate_core::consistency::Vdl;
use quorate_core::effect::{
    CommandRefusal, Report, SegmentEffect, SegmentInput, SegmentWrite, WriterEffect, WriterInput,
};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::floor::Floor;
use quorate_core::geometry::Added;
use quorate_core::id::{PgId, WriteId};
use quorate_core::image::{SegmentImage, Survivor};
use quorate_core::lsn::Lsn;
use quorate_core::message::{Peer, ToSegment, ToWriter};
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::rules::Rules;
use quorate_core::segment::Segment;
use quorate_core::writer::PhaseName;

use crate::configuration::Granularity;
use crate::intern::hash_of;
use crate::step::position_of;
use crate::volume_spec::Event;
use crate::witness::Witness;
use crate::world::{Disk, Slot, SlotOutcome, World, WriterOutcome};

impl<R: Rules> World<R> {
    /// Runs a segment with the disk that never fails: everything it submits is durable at once.
    /// Returns what it says to writers, by epoch, and to segments.
    pub(crate) fn run_segment(
        &self,
        segment: &mut Segment<R>,
        input: SegmentInput,
    ) -> (Vec<(VolumeEpoch, ToWriter)>, Vec<ToSegment>) {
        let mut inputs = VecDeque::from([input]);
        let (mut answers, mut messages, mut effects) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(input) = inputs.pop_front() {
            segment.step(input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    SegmentEffect::Persist { id, .. } => {
                        inputs.push_back(SegmentInput::Durable(id));
                    }
                    SegmentEffect::SendReader { .. } => {}
                    SegmentEffect::SendSegment { message, .. } => messages.push(message),
                    SegmentEffect::SendWriter { to, message } => answers.push((to, message)),
                    SegmentEffect::Unusable(refusal) => {
                        self.witnesses.saw_if(
                            matches!(refusal, Refusal::Fenced { .. }),
                            Witness::GossipRefused,
                        );
                    }
                }
            }
        }
        (answers, messages)
    }

    /// Gives `slot` an input, as far as one step of this configuration goes.
    fn step_slot(&self, mut slot: Slot<R>, input: SegmentInput) -> SlotOutcome {
        let before = slot.segment.durable().clone();
        let is_durable = matches!(input, SegmentInput::Durable(_));
        let answers = if self.configuration.granularity == Granularity::Fused {
            self.run_segment(&mut slot.segment, input).0
        } else {
            let mut effects = Vec::new();
            slot.segment.step(input, &mut effects);
            let mut answers = Vec::new();
            for effect in effects {
                match effect {
                    SegmentEffect::Persist { id, write } => {
                        if let Some(disk) = &mut slot.disk {
                            disk.writes.push((id, write, false));
                        }
                    }
                    SegmentEffect::SendWriter { to, message } => answers.push((to, message)),
                    SegmentEffect::SendReader { .. }
                    | SegmentEffect::SendSegment { .. }
                    | SegmentEffect::Unusable(_) => {}
                }
            }
            answers
        };
        self.witness_slot(&before, &slot, &answers);
        let mut at_once = answers;
        if self.configuration.granularity == Granularity::Split {
            // An answer that needed no durable write says what the segment would still say, or
            // more, if the request had come later; requests can always come later. So only the
            // other answers, and reports to a seal, are on their way for a while.
            let waits = |(_, message): &(_, ToWriter)| {
                is_durable || matches!(message, ToWriter::Sealed { .. })
            };
            slot.outbox.extend(at_once.extract_if(.., |answer| waits(answer)));
            self.sort_outbox(&mut slot);
        }
        let replies: Vec<u32> =
            at_once.into_iter().map(|(_, message)| self.to_writer.intern(message)).collect();
        SlotOutcome { slot: self.intern_slot(slot), replies: self.replies.intern(replies) }
    }

    fn sort_outbox(&self, slot: &mut Slot<R>) {
        slot.outbox.sort_by_cached_key(|answer| hash_of(self.seed, answer));
        slot.outbox.dedup();
    }

    fn witness_slot(
        &self,
        before: &SegmentImage,
        slot: &Slot<R>,
        answers: &[(VolumeEpoch, ToWriter)],
    ) {
        let after = slot.segment.durable();
        let saw = &self.witnesses;
        let has_base = after.base() > before.base();
        let has_less = after.records().len() < before.records().len();
        saw.saw_if(has_less && !has_base, Witness::Dropped);
        saw.saw_if(has_less && has_base, Witness::Discarded);
        let is_taken = has_base && after.base() > before.scl().lsn();
        saw.saw_if(is_taken, Witness::BaseTaken);
        let had_hole = before.records().last().is_some_and(|last| last.lsn > before.scl().lsn());
        saw.saw_if(had_hole && after.scl() > before.scl(), Witness::HoleFilled);
        let is_late = after.records().len() > before.records().len()
            && slot.segment.heard() > after.history().epoch();
        saw.saw_if(is_late && answers.is_empty(), Witness::DurableAfterSeal);
        saw.saw_if(before.floor().is_some() && after.floor().is_none(), Witness::Repaired);
        for (_, answer) in answers {
            match answer {
                ToWriter::Ack { .. } => saw.saw(Witness::Acked),
                ToWriter::Refused { refusal, ticket, .. } => {
                    saw.saw_if(
                        ticket.is_some() && matches!(refusal, Refusal::Fenced { .. }),
                        Witness::ConfirmRefused,
                    );
                    saw.saw(Witness::of_refusal(refusal));
                }
                ToWriter::Confirmed { .. }
                | ToWriter::Located { .. }
                | ToWriter::Read { .. }
                | ToWriter::Sealed { .. } => {}
            }
        }
    }

    pub(crate) fn collect(&self, slot: u32) -> SlotOutcome {
        self.memos.local.get_or(u64::from(slot) << 32 | 8, || {
            self.step_slot(self.slots.get(slot).slot.clone(), SegmentInput::Collect)
        })
    }

    pub(crate) fn deliver(&self, slot: u32, message: u32) -> SlotOutcome {
        let key = u64::from(slot) << 32 | u64::from(message);
        self.memos.deliver.get_or(key, || {
            let input = writer_message(self.to_segment.get(message));
            self.step_slot(self.slots.get(slot).slot.clone(), input)
        })
    }

    /// The whole of a gossip exchange but for the sync: request, answer, receipt.
    pub(crate) fn pull(&self, into: u32, from: u32) -> SlotOutcome {
        let key = u64::from(into) << 32 | u64::from(from);
        self.memos.pull.get_or(key, || {
            let slot = self.slots.get(into).slot.clone();
            let nothing = SlotOutcome { slot: into, replies: 0 };
            let Some(request) = request_of(&slot.segment) else { return nothing };
            let Some(answer) = self.answer_pull(from, request) else { return nothing };
            if let ToSegment::Pulled(pulled) = &answer {
                let is_news = pulled.history.epoch() > slot.segment.durable().history().epoch();
                self.witnesses.saw_if(is_news, Witness::GossipHistory);
                self.witnesses.saw_if(!pulled.records.is_empty(), Witness::GossipRecord);
                let last = pulled.records.last().map_or(pulled.base, |record| record.lsn);
                self.witnesses.saw_if(last < pulled.base, Witness::BaseInParts);
            }
            self.step_slot(slot, from_segment(answer))
        })
    }

    fn answer_pull(&self, from: u32, request: ToSegment) -> Option<ToSegment> {
        let mut segment = self.slots.get(from).slot.segment.clone();
        self.run_segment(&mut segment, from_segment(request)).1.pop()
    }

    /// Gives a writer an answer of the segment at `position` of `group`.
    pub(crate) fn answer(
        &self,
        writer: u32,
        number: u8,
        group: u8,
        position: u8,
        reply: u32,
    ) -> WriterOutcome {
        assert!(reply < 1 << 26, "more than 2^26 distinct answers");
        let place = u64::from(group) << 3 | u64::from(position);
        let key = u64::from(writer) << 32 | u64::from(reply) << 6 | place;
        self.memos.answer.get_or(key, || {
            let from = position_of(position);
            let group = PgId::new(u32::from(group));
            let message = self.to_writer.get(reply).clone();
            let machine = &self.writers.get(writer).machine;
            let foreign =
                matches!(&message, ToWriter::Ack { epoch, .. } if *epoch != machine.epoch());
            self.witnesses.saw_if(foreign, Witness::AckOfOtherEpoch);
            self.step_writer(writer, number, WriterInput::Receive { group, from, message })
        })
    }

    pub(crate) fn step_writer(&self, writer: u32, number: u8, input: WriterInput) -> WriterOutcome {
        let node = self.writers.get(writer);
        let mut machine = node.machine.clone();
        let mut effects = Vec::new();
        let question = match input {
            WriterInput::Confirm { ticket } => Some(ticket),
            WriterInput::Brief
            | WriterInput::Expel { .. }
            | WriterInput::Hold { .. }
            | WriterInput::Locate { .. }
            | WriterInput::Publish
            | WriterInput::Read { .. }
            | WriterInput::Receive { .. }
            | WriterInput::ReceiveReader { .. }
            | WriterInput::Resend { .. }
            | WriterInput::Step { .. }
            | WriterInput::Write { .. } => None,
        };
        let was = machine.phase();
        let was_open = was == PhaseName::Open;
        machine.step(input, &mut effects);
        if was == PhaseName::Sealing && machine.phase() != was {
            let first = machine.membership(PgId::new(0));
            let has_found = machine.geometry().added() > Added::NONE;
            let is_half_made = first.is_some_and(|first| !first.is_settled());
            self.witnesses.saw_if(has_found, Witness::GrowthFound);
            self.witnesses.saw_if(has_found && is_half_made, Witness::GrowthAdopted);
        }
        if !was_open && machine.phase() == PhaseName::Open {
            self.tell_holds(&mut machine);
        }
        let is_held = machine
            .floor()
            .is_some_and(|floor| machine.vdl().is_some_and(|vdl| floor.lsn() < vdl.lsn()));
        self.witnesses.saw_if(is_held && self.configuration.collect, Witness::FloorHeld);
        let mut events = Vec::new();
        events.extend(question.map(Event::Asked));
        let mut written: Vec<Record> = Vec::new();
        for effect in &effects {
            if let WriterEffect::Send { message: ToSegment::Append(append), .. } = effect {
                written.extend(&append.records);
            }
        }
        written.sort_unstable();
        for effect in &effects {
            let WriterEffect::Report(report) = effect else { continue };
            self.witness_report(report);
            match report {
                Report::Confirmed { ticket, read_point } => {
                    events.push(Event::Confirmed(*ticket, read_point.lsn()));
                }
                Report::Durable { vdl } => events.push(Event::Durable(vdl.lsn())),
                Report::Opened { vdl, .. } => {
                    events.push(Event::Opened(vdl.lsn(), self.backtracks(&machine)));
                }
                Report::Written { .. } => {
                    events.push(Event::Written(std::mem::take(&mut written)));
                }
                Report::Grown { .. }
                | Report::Located { .. }
                | Report::Overtaken { .. }
                | Report::Read { .. }
                | Report::ReadRefused { .. }
                | Report::Refused(_)
                | Report::Rejected { .. }
                | Report::Settled { .. } => {}
            }
        }
        let has_grown = machine.history().is_some_and(|history| history.ranges().len() > 2);
        self.witnesses.saw_if(has_grown, Witness::HistoryGrew);
        let mut sent = node.sent.clone();
        if machine.phase() == PhaseName::Fenced {
            // What a writer that knows that it is overtaken has sent can still arrive: it stays.
            sent.retain(|sent| !matches!(sent.message, ToSegment::Confirm(_)));
        }
        if self.configuration.seals_stop && machine.phase() != PhaseName::Sealing {
            sent.retain(|sent| !matches!(sent.message, ToSegment::Seal(_)));
        }
        let writer = self.intern_writer(machine, sent, node.stream.clone(), &effects);
        let events = if events.is_empty() { 0 } else { self.events.intern((number, events)) };
        WriterOutcome { writer, events }
    }

    fn witness_report(&self, report: &Report) {
        match report {
            Report::Confirmed { .. } => self.witnesses.saw(Witness::Confirmed),
            Report::Durable { .. } => self.witnesses.saw(Witness::Durable),
            Report::Grown { .. } => self.witnesses.saw(Witness::Grown),
            Report::Opened { .. } => self.witnesses.saw(Witness::Opened),
            Report::Overtaken { .. } => self.witnesses.saw(Witness::Overtaken),
            Report::Refused(CommandRefusal::Superseded) => self.witnesses.saw(Witness::Superseded),
            Report::Refused(CommandRefusal::Step(_)) => self.witnesses.saw(Witness::StepRefused),
            Report::Refused(CommandRefusal::Throttled) => self.witnesses.saw(Witness::Throttled),
            Report::Settled { membership, .. } => {
                let is_joint = membership.quorums().as_single().is_none();
                self.witnesses.saw_if(is_joint, Witness::SettledJoint);
                self.witnesses.saw_if(!is_joint, Witness::SettledSingle);
            }
            Report::Located { .. }
            | Report::Read { .. }
            | Report::ReadRefused { .. }
            | Report::Refused(_)
            | Report::Rejected { .. }
            | Report::Written { .. } => {}
        }
    }

    /// Returns `slot` with only those of its unsent answers whose bits are set in `kept`.
    pub(crate) fn keep_answers(&self, slot: u32, kept: u32) -> u32 {
        if kept.count_ones() as usize == self.slots.get(slot).answers.len() {
            return slot;
        }
        let key = u64::from(slot) << 32 | u64::from(kept) << 8 | 6;
        let keep = || {
            let mut slot = self.slots.get(slot).slot.clone();
            let mut number = 0u32;
            slot.outbox.retain(|_| {
                number = number.saturating_add(1);
                kept & 1 << number.saturating_sub(1) != 0
            });
            SlotOutcome { slot: self.intern_slot(slot), replies: 0 }
        };
        self.memos.local.get_or(key, keep).slot
    }

    pub(crate) fn sync(&self, slot: u32, index: u8) -> SlotOutcome {
        let key = u64::from(slot) << 32 | u64::from(index) << 8 | 1;
        self.memos.local.get_or(key, || {
            let mut slot = self.slots.get(slot).slot.clone();
            let id = WriteId::new(u64::from(index));
            if let Some(disk) = &mut slot.disk {
                if let Some(write) = disk.writes.iter_mut().find(|write| write.0 == id) {
                    write.2 = true;
                }
                while disk.writes.first().is_some_and(|write| write.2) {
                    let (_, write, _) = disk.writes.remove(0);
                    if disk.image.apply_under(self.rules, &write).is_err() {
                        break;
                    }
                }
            }
            let oldest = slot.segment.pending().next().map(|(oldest, _, _)| oldest);
            self.witnesses.saw_if(oldest.is_some_and(|oldest| oldest < id), Witness::OutOfOrder);
            self.step_slot(slot, SegmentInput::Durable(id))
        })
    }

    pub(crate) fn crash(&self, slot: u32, survivors: u8, torn: bool) -> SlotOutcome {
        let key = u64::from(slot) << 32 | u64::from(survivors) << 9 | u64::from(torn) << 8 | 2;
        self.memos.local.get_or(key, || {
            let mut slot = self.slots.get(slot).slot.clone();
            let Some(disk) = &mut slot.disk else {
                return SlotOutcome { slot: u32::MAX, replies: 0 };
            };
            let writes = std::mem::take(&mut disk.writes);
            let kept = usize::from(survivors);
            let witnesses = &self.witnesses;
            witnesses.saw_if(kept < writes.len() && !torn, Witness::CrashLost);
            witnesses.saw_if(torn, Witness::CrashTore);
            witnesses.saw_if(kept > 0, Witness::CrashKept);
            let log = writes.into_iter().enumerate().map(|(index, (_, write, _))| match index {
                _ if index < kept => Survivor::Whole(write),
                _ if index == kept && torn => Survivor::Torn(write),
                _ => Survivor::Missing,
            });
            // An image that contradicts itself would stop a real segment; here the segment then
            // stays with what it could apply.
            let _ = disk.image.replay_under(self.rules, log);
            slot.segment = Segment::recover_under(self.rules, disk.image.clone());
            SlotOutcome { slot: self.intern_slot(slot), replies: 0 }
        })
    }

    /// The disk of a segment is lost, and an empty one takes its place.
    pub(crate) fn lose(&self, slot: u32) -> SlotOutcome {
        self.memos.local.get_or(u64::from(slot) << 32 | 9, || {
            let mut slot = self.slots.get(slot).slot.clone();
            let image = slot.segment.durable().lost(self.rules);
            slot.segment = Segment::recover_under(self.rules, image.clone());
            slot.disk = slot.disk.map(|_| Disk { image, writes: Vec::new() });
            slot.inbox.clear();
            SlotOutcome { slot: self.intern_slot(slot), replies: 0 }
        })
    }

    /// Leaves of a segment's log its history and membership and its first `kept` records, or
    /// nothing at all, which are prefixes of a log that led to this state; it restarts knowing what
    /// it may have said. Only where every write is durable at once.
    pub(crate) fn damage(&self, slot: u32, kept: Option<u8>) -> SlotOutcome {
        let name = kept.map_or(u64::from(u8::MAX), u64::from);
        let key = u64::from(slot) << 32 | name << 8 | 7;
        self.memos.local.get_or(key, || {
            let mut slot = self.slots.get(slot).slot.clone();
            let image = slot.segment.durable();
            let floor = Some(Floor::of(image));
            // Its log's header, with its name, is whole: without it, the segment doesn't restart.
            let (group, geometry) = (image.group(), *image.geometry());
            let Some(mut rest) = SegmentImage::join(group, geometry, image.incarnation()) else {
                return SlotOutcome { slot: u32::MAX, replies: 0 };
            };
            if let Some(kept) = kept {
                let kept = usize::from(kept);
                // What was discarded is gone: its base is left if all is left that it rests on.
                let is_under = |record: &Record| record.lsn <= image.base();
                let rests_on = image.records().partition_point(is_under);
                let has_base = image.base() > Lsn::ZERO && kept >= rests_on;
                let write = SegmentWrite {
                    promised: image.history().epoch(),
                    history: Some(image.history().clone()),
                    membership: Some(*image.membership()),
                    end: image.end(),
                    vdl: if has_base { image.vdl() } else { Vdl::ZERO },
                    records: image.records().iter().take(kept).copied().collect(),
                    base: if has_base { image.base() } else { Lsn::ZERO },
                    ..SegmentWrite::default()
                };
                let _ = rest.apply_under(self.rules, &write);
            }
            let mark = SegmentWrite { floor, ..SegmentWrite::default() };
            let _ = rest.apply_under(self.rules, &mark);
            slot.segment = Segment::recover_under(self.rules, rest);
            SlotOutcome { slot: self.intern_slot(slot), replies: 0 }
        })
    }

    pub(crate) fn take_answer(&self, slot: u32, index: u8) -> SlotOutcome {
        let key = u64::from(slot) << 32 | u64::from(index) << 8 | 3;
        self.memos.local.get_or(key, || {
            let mut slot = self.slots.get(slot).slot.clone();
            if usize::from(index) >= slot.outbox.len() {
                return SlotOutcome { slot: u32::MAX, replies: 0 };
            }
            let (_, message) = slot.outbox.remove(usize::from(index));
            let replies = self.replies.intern(vec![self.to_writer.intern(message)]);
            SlotOutcome { slot: self.intern_slot(slot), replies }
        })
    }

    /// A request reaches `from`, and its answer is on its way to `into`. A segment has one pull
    /// under way: an answer that was still on its way is lost.
    pub(crate) fn ask_gossip(&self, into: u32, from: u32) -> SlotOutcome {
        let key = u64::from(into) << 32 | u64::from(from);
        self.memos.pull.get_or(key, || {
            let mut slot = self.slots.get(into).slot.clone();
            let answer = request_of(&slot.segment).and_then(|r| self.answer_pull(from, r));
            slot.inbox = answer.into_iter().collect();
            SlotOutcome { slot: self.intern_slot(slot), replies: 0 }
        })
    }

    pub(crate) fn receive_gossip(&self, slot: u32) -> SlotOutcome {
        self.memos.local.get_or(u64::from(slot) << 32 | 5, || {
            let mut slot = self.slots.get(slot).slot.clone();
            let Some(answer) = slot.inbox.pop() else {
                return SlotOutcome { slot: u32::MAX, replies: 0 };
            };
            self.step_slot(slot, from_segment(answer))
        })
    }
}

pub(crate) fn writer_message(message: &ToSegment) -> SegmentInput {
    let from = Peer::Writer(VolumeEpoch::ZERO);
    SegmentInput::Receive { from, message: message.clone() }
}

pub(crate) fn from_segment(message: ToSegment) -> SegmentInput {
    SegmentInput::Receive { from: Peer::Segment(position_of(0)), message }
}

pub(crate) fn request_of<R: Rules>(segment: &Segment<R>) -> Option<ToSegment> {
    let mut effects = Vec::new();
    segment.clone().step(SegmentInput::Pull { from: position_of(0) }, &mut effects);
    effects.into_iter().find_map(|effect| match effect {
        SegmentEffect::SendSegment { message, .. } => Some(message),
        SegmentEffect::Persist { .. }
        | SegmentEffect::SendReader { .. }
        | SegmentEffect::SendWriter { .. }
        | SegmentEffect::Unusable(_) => None,
    })
}
