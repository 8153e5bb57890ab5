//! The segment: one of the copies of a protection group's part of the volume.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::consistency::{GarbageFloor, Scl};
use crate::effect::{SegmentEffect, SegmentInput, SegmentWrite};
use crate::epoch::VolumeEpoch;
use crate::id::{Ticket, WriteId};
use crate::image::SegmentImage;
use crate::lsn::Lsn;
use crate::message::{Peer, SealAnswer, ToReader, ToSegment, ToWriter};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules, Sound};

mod append;
mod collect;
mod fence;
mod gossip;
mod locate;
mod read;

/// One copy of a protection group's log. Its state machine, by epochs:
///
/// ```text
///             Seal{e}              Install{e}             Append{e}
///  installed ---------> heard e ... promised e ---------> installed e ---+
///     ^  |                   (durable)         (durable)      ^          | Ack{e, scl}
///     |  +--- Install{e} / Pulled{history e} -----------------+<---------+
///     +------- crash: back to what is durable; replies not yet sent are lost
/// ```
///
/// A segment doesn't know its own position: whoever receives its messages knows the sender. Two
/// segments of a group with the same state are the same value, which is what lets models treat
/// them as interchangeable.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Segment<R: Rules = Sound> {
    rules: R,
    durable: SegmentImage,
    /// The highest epoch received in a seal, an install or a gossiped history. Raised on receipt,
    /// before anything is durable: from then on nothing is acknowledged to an older epoch
    /// (edge 64). Never below `durable.promised`.
    heard: VolumeEpoch,
    /// The garbage floor that the writer of the history's epoch told: no other epoch's counts
    /// (edge 46). A crash forgets it; the next append tells it again.
    floor: GarbageFloor,
    /// A peer's base that is being taken over.
    hydration: Option<Hydration>,
    /// Writes under way, in the order of submission; names rise by one.
    pending: VecDeque<Pending>,
}

/// How much of a peer's base has come (edge 39). What has come is submitted, and becomes durable
/// before whatever is submitted later.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Hydration {
    /// The base of the peer that answered last.
    base: Lsn,
    /// Every version of it at or under this LSN has come. Holds for any higher base too: what is
    /// newest there and at or under this LSN is newest here.
    through: Lsn,
}

/// A durable write under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Pending {
    id: WriteId,
    write: SegmentWrite,
    reply: Reply,
    /// Reported durable, but an earlier write isn't yet.
    is_durable: bool,
}

/// What a durable write lets out.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reply {
    /// An acknowledgement to the writer of this epoch, if it is still the highest.
    Ack(VolumeEpoch),
    /// Nobody waits for it.
    Nothing,
    /// The answer to this epoch's seal.
    Sealed(VolumeEpoch),
}

impl Segment {
    /// Returns the machine of a segment that restarts (or starts) with `image`.
    #[must_use]
    pub fn recover(image: SegmentImage) -> Self {
        Self::recover_under(Sound, image)
    }
}

impl<R: Rules> Segment<R> {
    /// Returns the machine of a segment that restarts with `image` and obeys `rules`.
    #[must_use]
    pub fn recover_under(rules: R, image: SegmentImage) -> Self {
        Self {
            rules,
            heard: image.promised,
            durable: image,
            floor: GarbageFloor::ZERO,
            hydration: None,
            pending: VecDeque::new(),
        }
    }

    /// Takes one input and appends what is to be done to `effects`. See [`crate::effect`] for the
    /// contract.
    pub fn step(&mut self, input: SegmentInput, effects: &mut Vec<SegmentEffect>) {
        match input {
            SegmentInput::Collect => self.collect(effects),
            SegmentInput::Durable(id) => self.complete(id, effects),
            SegmentInput::Pull { from } => self.pull(from, effects),
            SegmentInput::Receive { from, message } => self.receive(from, message, effects),
        }
        #[cfg(debug_assertions)]
        if size_of::<R>() == 0 {
            self.assert_invariants();
        }
    }

    fn receive(&mut self, from: Peer, message: ToSegment, effects: &mut Vec<SegmentEffect>) {
        let (epoch, ticket, outcome) = match message {
            ToSegment::Append(append) => (append.epoch, None, self.receive_append(append, effects)),
            ToSegment::Behind { group: _, history } => {
                effects.push(SegmentEffect::Unusable(Refusal::Behind { history }));
                return;
            }
            ToSegment::Confirm(confirm) => {
                (confirm.epoch, Some(confirm.ticket), self.receive_confirm(confirm, effects))
            }
            ToSegment::Install(install) => {
                (install.history.epoch(), None, self.receive_install(install, effects))
            }
            ToSegment::Locate(locate) => {
                (locate.epoch, Some(locate.ticket), self.receive_locate(locate, effects))
            }
            ToSegment::Pull(pull) => {
                self.receive_pull(from, &pull, effects);
                return;
            }
            ToSegment::Pulled(pulled) => {
                if let Err(refusal) = self.receive_pulled(pulled, effects) {
                    effects.push(SegmentEffect::Unusable(refusal));
                }
                return;
            }
            ToSegment::Read(read) => {
                (read.epoch, Some(read.ticket), self.receive_read(from, read, effects))
            }
            ToSegment::Seal(seal) => (seal.epoch, None, self.receive_seal(seal, effects)),
        };
        if let Err(refusal) = outcome {
            refuse_to(from, epoch, ticket, refusal, effects);
        }
    }

    /// Submits `write`; `reply` leaves once it is durable.
    fn persist(&mut self, write: SegmentWrite, reply: Reply, effects: &mut Vec<SegmentEffect>) {
        // Names are reused once nothing is under way: a driver reports each write once, and the
        // machine's state doesn't grow with its past.
        let id = self
            .pending
            .back()
            .map_or(WriteId::new(0), |last| WriteId::new(last.id.get().wrapping_add(1)));
        effects.push(SegmentEffect::Persist { id, write: write.clone() });
        self.pending.push_back(Pending { id, write, reply, is_durable: false });
    }

    /// Takes the report that write `id` is durable.
    ///
    /// A write counts once all earlier ones are durable too: a restart replays the log up to its
    /// first gap, so what lies beyond a gap would be lost.
    fn complete(&mut self, id: WriteId, effects: &mut Vec<SegmentEffect>) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.is_durable = true;
        }
        let jumps = |pending: &Pending| {
            let is_seal = matches!(pending.reply, Reply::Sealed(_));
            pending.is_durable
                && (self.rules.has(Bug::DurableOutOfOrder)
                    || (is_seal && self.rules.has(Bug::AckOldEpochAfterSeal)))
        };
        if let Some(at) = self.pending.iter().position(jumps)
            && let Some(pending) = self.pending.remove(at)
        {
            self.settle(&pending, effects);
        }
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.is_durable) {
            self.settle(&pending, effects);
        }
    }

    fn settle(&mut self, pending: &Pending, effects: &mut Vec<SegmentEffect>) {
        // Everything was checked before it was submitted, and two different records never share
        // an LSN; a machine with a seeded bug may still run into a contradiction and then stops.
        let epoch = self.durable.history.epoch();
        if self.durable.apply_under(self.rules, &pending.write).is_err() {
            debug_assert!(size_of::<R>() != 0);
            return;
        }
        if self.durable.history.epoch() != epoch {
            self.floor = GarbageFloor::ZERO;
        }
        if self.hydration.is_some_and(|hydration| hydration.base <= self.durable.scl().lsn()) {
            self.hydration = None;
        }
        match pending.reply {
            Reply::Ack(epoch) => self.acknowledge(epoch, effects),
            Reply::Nothing => {}
            Reply::Sealed(epoch) => self.answer_seal(epoch, None, effects),
        }
    }

    /// Tells the writer of `epoch` how far this segment is complete, unless it has heard of a
    /// higher epoch since.
    fn acknowledge(&self, epoch: VolumeEpoch, effects: &mut Vec<SegmentEffect>) {
        let is_current = self.same(epoch, self.heard)
            && self.same(epoch, self.durable.promised)
            && self.same(epoch, self.durable.history.epoch());
        let is_fresh = self.durable.history.epoch() == VolumeEpoch::ZERO;
        let is_unfenced = self.rules.has(Bug::NoFence)
            || (is_fresh && self.rules.has(Bug::GrowthFreshUnfenced))
            || (self.rules.has(Bug::AckOldEpochAfterSeal) && epoch < self.heard);
        if is_current || is_unfenced {
            let scl = self.durable.log.acknowledged(self.rules.has(Bug::AckCountsHoles));
            self.send_ack(epoch, scl, effects);
        }
    }

    fn send_ack(&self, epoch: VolumeEpoch, scl: Scl, effects: &mut Vec<SegmentEffect>) {
        let incarnation = self.durable.incarnation;
        let number = self.durable.membership.epoch().number;
        let message = ToWriter::Ack { epoch, incarnation, number, scl };
        effects.push(SegmentEffect::SendWriter { to: epoch, message });
    }

    /// Checks that a request of `epoch` may be carried out: `epoch`, the promise and the
    /// history's epoch are one (protocol: write path).
    fn check_epoch(&self, epoch: VolumeEpoch) -> Result<(), Refusal> {
        let is_fresh = self.durable.history.epoch() == VolumeEpoch::ZERO;
        if self.rules.has(Bug::NoFence) || (is_fresh && self.rules.has(Bug::GrowthFreshUnfenced)) {
            return Ok(());
        }
        self.check_fence(epoch)?;
        let history = self.durable.history.epoch();
        let has_history = self.same(epoch, history) || self.rules.has(Bug::AppendWithoutHistory);
        if !has_history || !self.same(epoch, self.durable.promised) {
            return Err(Refusal::Behind { history });
        }
        Ok(())
    }

    /// Checks that no higher epoch has been heard of.
    fn check_fence(&self, epoch: VolumeEpoch) -> Result<(), Refusal> {
        let is_older = if self.rules.has(Bug::CounterOnlyEpochs) {
            epoch.counter() < self.heard.counter()
        } else {
            epoch < self.heard
        };
        if is_older && !self.rules.has(Bug::NoFence) {
            return Err(Refusal::Fenced { promised: self.heard });
        }
        Ok(())
    }

    /// Checks that recoveries can have led to `epoch`: one message must not use up the counters.
    fn check_reach(&self, epoch: VolumeEpoch) -> Result<(), Refusal> {
        if epoch.is_reachable_from(self.heard) {
            return Ok(());
        }
        Err(Refusal::EpochAhead { heard: self.heard })
    }

    fn same(&self, left: VolumeEpoch, right: VolumeEpoch) -> bool {
        if self.rules.has(Bug::CounterOnlyEpochs) || self.rules.has(Bug::AppendWithoutHistory) {
            // The second bug lets a promise stand for a history.
            return left.counter() == right.counter()
                || (self.rules.has(Bug::AppendWithoutHistory) && left == self.heard);
        }
        left == right
    }

    /// Returns the record with this LSN among those under way.
    fn submitted(&self, lsn: Lsn) -> Option<&Record> {
        self.pending.iter().find_map(|pending| {
            let records = &pending.write.records;
            let at = records.binary_search_by_key(&lsn, |record| record.lsn).ok()?;
            records.get(at)
        })
    }

    /// Returns the highest LSN among the records under way.
    fn highest_submitted(&self) -> Lsn {
        let last = self.pending.iter().filter_map(|pending| pending.write.records.last());
        last.map(|record| record.lsn).max().unwrap_or(Lsn::ZERO)
    }

    /// Returns whether `more` records, with all those under way, exceed the log's bound.
    fn would_overfill(&self, more: usize) -> bool {
        let under_way: usize = self.pending.iter().map(|pending| pending.write.records.len()).sum();
        let aside = self.durable.aside.as_ref().map_or(0, |aside| aside.records.len());
        let held = self
            .durable
            .log
            .len()
            .saturating_add(aside)
            .saturating_add(under_way)
            .saturating_add(more);
        held > self.durable.geometry.limits().log_records_max as usize
    }

    fn is_pending(&self, reply: Reply) -> bool {
        self.pending.iter().any(|pending| pending.reply == reply)
    }

    /// Returns what a restart would find if nothing under way survived.
    #[must_use]
    pub const fn durable(&self) -> &SegmentImage {
        &self.durable
    }

    /// Returns the garbage floor that the writer of this segment's epoch has told.
    #[must_use]
    pub const fn floor(&self) -> GarbageFloor {
        self.floor
    }

    /// Returns the highest epoch heard of.
    #[must_use]
    pub const fn heard(&self) -> VolumeEpoch {
        self.heard
    }

    /// Returns the writes under way, in the order of submission.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = (WriteId, &SegmentWrite, bool)> {
        self.pending.iter().map(|pending| (pending.id, &pending.write, pending.is_durable))
    }

    /// Returns whether this segment counts in read quorums: a damaged one doesn't, until it is
    /// repaired.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        self.check_vote().is_ok()
    }

    /// Returns what this segment answers to a seal now, if it has a vote.
    #[must_use]
    pub fn report(&self) -> SealAnswer {
        self.seal_answer(None)
    }

    /// Returns what this segment answers to a seal that asks about the point `at`.
    #[must_use]
    pub fn report_at(&self, at: Lsn) -> SealAnswer {
        self.seal_answer(Some(at))
    }

    /// Asserts what every reachable state satisfies.
    ///
    /// # Panics
    /// When the code broke one of its own rules.
    pub fn assert_invariants(&self) {
        #[cfg(test)]
        self.durable.assert_invariants();
        assert!(self.heard >= self.durable.promised);
        assert!(self.durable.promised >= self.durable.history.epoch());
        assert!(!self.pending.front().is_some_and(|pending| pending.is_durable));
    }
}

fn refuse(
    epoch: VolumeEpoch,
    ticket: Option<Ticket>,
    refusal: Refusal,
    effects: &mut Vec<SegmentEffect>,
) {
    let message = ToWriter::Refused { epoch, ticket, refusal };
    effects.push(SegmentEffect::SendWriter { to: epoch, message });
}

/// Refuses a request of `from`.
fn refuse_to(
    from: Peer,
    epoch: VolumeEpoch,
    ticket: Option<Ticket>,
    refusal: Refusal,
    effects: &mut Vec<SegmentEffect>,
) {
    match (from, ticket) {
        (Peer::Reader(to), Some(ticket)) => {
            let message = ToReader::Refused { epoch, ticket, refusal };
            effects.push(SegmentEffect::SendReader { to, message });
        }
        (Peer::Reader(_) | Peer::Segment(_) | Peer::Writer(_), _) => {
            refuse(epoch, ticket, refusal, effects);
        }
    }
}
