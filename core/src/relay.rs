//! The relay: feeds another region's volume the durable log of this one (protocol: regions).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::consistency::{Scl, Vdl};
use crate::epoch::VolumeEpoch;
use crate::geometry::VolumeGeometry;
use crate::id::{PgId, Position, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{FromReader, Pull, Pulled, Seal, ToReader, ToSegment, ToWriter};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::region::RegionPoint;
use crate::rules::{Rules, Sound};
use crate::truncation::History;

mod shipping;
mod surveying;

use shipping::Shipping;
use surveying::Surveying;

/// The most records that wait to be shipped. What comes beyond is asked for again when it is its
/// turn: the segments have it.
const HELD_MAX: usize = 1 << 16;

/// An input of a relay. The *source* is the volume that is followed, the *target* the one that is
/// fed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RelayInput {
    /// Ask the source's writer for its stream. The driver repeats it until the stream begins, and
    /// when another writer has the volume.
    Attach,
    /// A message of the source's writer arrived.
    Follow(ToReader),
    /// Tell the target's segments how far the target is durable.
    Publish,
    /// A segment of the target answered.
    Receive {
        /// Its group.
        group: PgId,
        /// Its position.
        from: Position,
        /// What.
        message: ToWriter,
    },
    /// A segment of the source answered.
    ReceivePulled(Pulled),
    /// The driver chose a segment of the source to ask for what is missing.
    Refill {
        /// Its group.
        group: PgId,
        /// Its position.
        from: Position,
    },
    /// The connection to a segment of the target is new: send it again what it may lack.
    Resend {
        /// Its group.
        group: PgId,
        /// Its position.
        to: Position,
    },
}

/// An effect of a relay. A relay has no durable state: there is no write among them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RelayEffect {
    /// Tell the driver.
    Report(RelayReport),
    /// Send a message to segments of the target, as the writer of the relay's epoch.
    Send {
        /// Their group.
        group: PgId,
        /// Their positions.
        to: SegmentSet,
        /// What.
        message: ToSegment,
    },
    /// Send a message to a segment of the source, as one of its peers.
    SendSource {
        /// Its group.
        group: PgId,
        /// Its position.
        to: Position,
        /// What.
        message: ToSegment,
    },
    /// Send a message to the source's writer, as a reader of it.
    SendWriter(FromReader),
}

/// What a relay has to say to its driver.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RelayReport {
    /// The target has reached a point. For a gate, and for whoever wants to know the lag: `told` is
    /// what the source's writer has told.
    Advanced {
        /// Where the target is.
        target: RegionPoint,
        /// Where the source is.
        told: Vdl,
    },
    /// What the relay needs was discarded at the source: the target has to be made anew. A hold
    /// ([`crate::hold::HoldName::Ship`]) prevents it.
    Collected {
        /// At or under it, only the newest version of each page is left.
        base: Lsn,
    },
    /// The target went on by itself after the two had parted, in a region that was left behind.
    /// What it has above `kept` is dropped, or, as [`OnDivergence`] says, nothing is done.
    Diverged {
        /// Where the target's own log ends, as a recovery would find it.
        target: RegionPoint,
        /// The last point that both have.
        kept: Lsn,
    },
    /// Where the target was before anything is shipped: for a gate as well.
    Found {
        /// The highest point that its segments know to be durable there.
        target: RegionPoint,
    },
    /// A higher epoch has the target: it was promoted, or another relay follows a later writer.
    Overtaken {
        /// That epoch.
        by: VolumeEpoch,
    },
    /// A segment of the target refused something because a bound is reached.
    Rejected {
        /// Its group.
        group: PgId,
        /// Its position.
        from: Position,
        /// Why.
        refusal: Refusal,
    },
    /// A change of the target's members is under way: open it, finish that, and attach it again.
    Unsettled {
        /// The group.
        group: PgId,
    },
}

/// What a relay does with a target that has commits of its own which the source doesn't have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnDivergence {
    /// Drops them: an operator attaches a region anew that was left behind.
    Drop,
    /// Leaves everything as it is.
    Refuse,
}

/// One relay, which follows the open writers of one volume, the source, and is the writer of
/// another, the target. It doesn't allocate: records keep their LSNs and their epochs, and the
/// target has the history of the writer followed, so that its epochs are those of the source.
///
/// Two relays of one epoch ship the same, so they need no fence between them. One of a later epoch
/// seals the target, as a promotion does.
///
/// ```text
///  idle -- Start{e} --> surveying -- all who voted have the history of e --> shipping
///             ^             |                                                   |
///             |             '--> diverged: what would be lost isn't dropped     |
///             |                                                                 |
///             '-- Start of a later epoch --- overtaken <--- any Fenced of e ----'
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Relay<R: Rules = Sound> {
    rules: R,
    /// The target's.
    geometry: VolumeGeometry,
    on_divergence: OnDivergence,
    source: Option<Source>,
    phase: Phase,
}

/// What is known of the source.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Source {
    /// Of the writer followed. It has opened: so its history is in force, and contained in that of
    /// every later writer that opens.
    epoch: VolumeEpoch,
    /// The highest VDL that it has told.
    told: Vdl,
    /// Records of its log that haven't been shipped, by LSN.
    held: BTreeMap<Lsn, Record>,
}

/// What a relay is doing, with the data that only this phase has.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Phase {
    Diverged,
    Idle,
    Overtaken,
    Shipping(Shipping),
    Surveying(Surveying),
}

impl Relay {
    /// Returns a relay that follows nobody yet, to a volume of `geometry`.
    #[must_use]
    pub const fn new(geometry: VolumeGeometry, on_divergence: OnDivergence) -> Self {
        Self::new_under(Sound, geometry, on_divergence)
    }
}

impl<R: Rules> Relay<R> {
    /// [`Relay::new`] under `rules`.
    #[must_use]
    pub const fn new_under(
        rules: R,
        geometry: VolumeGeometry,
        on_divergence: OnDivergence,
    ) -> Self {
        Self { rules, geometry, on_divergence, source: None, phase: Phase::Idle }
    }

    /// Takes one input and appends what is to be done to `effects`. See [`crate::effect`] for the
    /// contract.
    pub fn step(&mut self, input: RelayInput, effects: &mut Vec<RelayEffect>) {
        match input {
            RelayInput::Attach => {
                let floor = self.vdl().map(crate::consistency::ReadPoint::at);
                effects.push(RelayEffect::SendWriter(FromReader::Attach { floor }));
            }
            RelayInput::Follow(message) => self.follow(message, effects),
            RelayInput::Publish => self.publish(effects),
            RelayInput::Receive { group, from, message } => {
                self.receive(group, from, message, effects);
            }
            RelayInput::ReceivePulled(pulled) => self.receive_pulled(pulled, effects),
            RelayInput::Refill { group, from } => self.refill(group, from, effects),
            RelayInput::Resend { group, to } => self.resend(group, SegmentSet::only(to), effects),
        }
    }

    /// Records and VDL of the source's writer. Messages that are missing, repeated or out of order
    /// need no number here: each record names the one before it (edge 59).
    fn follow(&mut self, message: ToReader, effects: &mut Vec<RelayEffect>) {
        let (epoch, told, records) = match message {
            ToReader::Redo(redo) => (redo.epoch, redo.vdl, redo.records),
            ToReader::Start(start) => (start.epoch, start.vdl, Vec::new()),
            ToReader::Read { .. } | ToReader::Refused { .. } | ToReader::Standing { .. } => return,
        };
        let known = self.source.as_ref().map(|source| source.epoch);
        if known.is_some_and(|known| epoch < known) {
            return;
        }
        if known != Some(epoch) {
            self.source = Some(Source { epoch, told, held: BTreeMap::new() });
            self.survey(epoch, effects);
        }
        if let Some(source) = &mut self.source {
            source.told = source.told.max(told);
            source.hold(records);
        }
        self.ship(effects);
    }

    fn receive(
        &mut self,
        group: PgId,
        from: Position,
        message: ToWriter,
        effects: &mut Vec<RelayEffect>,
    ) {
        let Some(epoch) = self.source.as_ref().map(|source| source.epoch) else { return };
        if !self.geometry.has(group) {
            return;
        }
        match message {
            ToWriter::Ack { epoch: of, incarnation, number: _, scl } => {
                let is_member = self
                    .membership(group)
                    .is_some_and(|membership| membership.knows(from, incarnation));
                if of == epoch && is_member {
                    self.receive_ack(group, from, scl, effects);
                }
            }
            ToWriter::Refused { epoch: of, ticket: _, refusal } if of == epoch => {
                self.receive_refused(group, from, refusal, effects);
            }
            ToWriter::Sealed { epoch: of, answer } if of == epoch => {
                self.receive_sealed(group, from, answer, effects);
            }
            ToWriter::Confirmed { .. }
            | ToWriter::Located { .. }
            | ToWriter::Read { .. }
            | ToWriter::Refused { .. }
            | ToWriter::Sealed { .. } => {}
        }
    }

    fn receive_ack(
        &mut self,
        group: PgId,
        from: Position,
        scl: Scl,
        effects: &mut Vec<RelayEffect>,
    ) {
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => {}
            Phase::Shipping(_) => self.count(group, from, scl, effects),
            // It has the history now: what does it have under it?
            Phase::Surveying(_) => self.seal(group, SegmentSet::only(from), effects),
        }
    }

    fn receive_refused(
        &mut self,
        group: PgId,
        from: Position,
        refusal: Refusal,
        effects: &mut Vec<RelayEffect>,
    ) {
        let Some(epoch) = self.source.as_ref().map(|source| source.epoch) else { return };
        match refusal {
            Refusal::Fenced { promised } if promised > epoch => {
                if self.phase != Phase::Overtaken {
                    self.phase = Phase::Overtaken;
                    effects.push(RelayEffect::Report(RelayReport::Overtaken { by: promised }));
                }
            }
            Refusal::Behind { .. } => self.resend(group, SegmentSet::only(from), effects),
            Refusal::Annulled { .. }
            | Refusal::BeyondLimit { .. }
            | Refusal::Collected { .. }
            | Refusal::Conflict { .. }
            | Refusal::EpochAhead { .. }
            | Refusal::Fenced { .. }
            | Refusal::Full
            | Refusal::HistoryFull
            | Refusal::Impaired
            | Refusal::Incomplete { .. }
            | Refusal::Malformed
            | Refusal::Oversized
            | Refusal::Overloaded
            | Refusal::WrongGroup => {
                let report = RelayReport::Rejected { group, from, refusal };
                effects.push(RelayEffect::Report(report));
            }
        }
    }

    /// Takes in what a segment of the source has, if its history is that of the writer followed:
    /// another one may be of a recovery that never opens.
    fn receive_pulled(&mut self, pulled: Pulled, effects: &mut Vec<RelayEffect>) {
        let Some(source) = &mut self.source else { return };
        if pulled.history.epoch() != source.epoch || !self.geometry.has(pulled.group) {
            return;
        }
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => {}
            Phase::Shipping(_) if pulled.base > Lsn::ZERO => {
                let report = RelayReport::Collected { base: pulled.base };
                effects.push(RelayEffect::Report(report));
            }
            Phase::Shipping(_) => {
                source.hold(pulled.records);
                self.ship(effects);
            }
            Phase::Surveying(_) => self.receive_history(pulled, effects),
        }
    }

    /// Asks a segment of the source for the history, or for the records that come next.
    fn refill(&self, group: PgId, from: Position, effects: &mut Vec<RelayEffect>) {
        let Some(source) = &self.source else { return };
        let scl = match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => return,
            Phase::Shipping(shipping) => shipping.lacks_after(group, &source.held),
            Phase::Surveying(_) => Lsn::new(u64::MAX),
        };
        let pull = Pull {
            group,
            history: source.epoch,
            scl: Scl::of_chain(scl),
            base: Lsn::ZERO,
            through: Lsn::ZERO,
            beyond: Vec::new(),
        };
        let message = ToSegment::Pull(pull);
        effects.push(RelayEffect::SendSource { group, to: from, message });
    }

    fn seal(&self, group: PgId, to: SegmentSet, effects: &mut Vec<RelayEffect>) {
        let Some(source) = &self.source else { return };
        let message = ToSegment::Seal(Seal { epoch: source.epoch, group, at: None });
        effects.push(RelayEffect::Send { group, to, message });
    }

    /// Sends segments of the target again whatever they may lack in this phase.
    fn resend(&self, group: PgId, to: SegmentSet, effects: &mut Vec<RelayEffect>) {
        let Some(source) = &self.source else { return };
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => {}
            Phase::Shipping(shipping) => {
                let limits = self.geometry.limits();
                shipping.resend(source.epoch, group, to, limits, effects);
            }
            Phase::Surveying(surveying) => {
                effects.extend(surveying.install(group, to));
                self.seal(group, to, effects);
            }
        }
    }

    /// Returns the membership of the target's `group`, as far as it is known.
    fn membership(&self, group: PgId) -> Option<&Membership> {
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => None,
            Phase::Shipping(shipping) => shipping.membership(group),
            Phase::Surveying(surveying) => surveying.membership(group),
        }
    }

    /// Returns the epoch of the writer that this relay follows.
    #[must_use]
    pub fn epoch(&self) -> Option<VolumeEpoch> {
        self.source.as_ref().map(|source| source.epoch)
    }

    /// Returns how far the target is durable, once this relay knows.
    #[must_use]
    pub fn vdl(&self) -> Option<Vdl> {
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken | Phase::Surveying(_) => None,
            Phase::Shipping(shipping) => shipping.vdl(),
        }
    }

    /// Returns the history that the target has while this relay ships.
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken | Phase::Surveying(_) => None,
            Phase::Shipping(shipping) => Some(shipping.history()),
        }
    }

    /// Returns whether something is missing that a segment of the source has: the history, or the
    /// next record at or under what the source's writer has told.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        let Some(source) = &self.source else { return false };
        match &self.phase {
            Phase::Diverged | Phase::Idle | Phase::Overtaken => false,
            Phase::Shipping(shipping) => shipping.tail() < source.told.lsn(),
            Phase::Surveying(surveying) => !surveying.has_history(),
        }
    }
}

impl Source {
    fn hold(&mut self, records: Vec<Record>) {
        for record in records {
            self.held.insert(record.lsn, record);
            if self.held.len() > HELD_MAX {
                // The last one's turn is the furthest away.
                self.held.pop_last();
            }
        }
    }
}

fn report(report: RelayReport) -> RelayEffect {
    RelayEffect::Report(report)
}
