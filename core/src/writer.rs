//! The writer: recovers a volume, allocates LSNs, and knows what is durable.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use crate::consistency::{GarbageFloor, Pgcl, ReadPoint, Vcl, Vdl};
use crate::effect::{CommandRefusal, Report, WriterEffect, WriterInput};
use crate::epoch::VolumeEpoch;
use crate::geometry::VolumeGeometry;
use crate::id::{Incarnation, Permutation, PgId, Position, ReaderId, SegmentSet, Ticket};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Install, Seal, ToSegment, ToWriter};
use crate::recovery::Backtrack;
use crate::refusal::Refusal;
use crate::rules::{Bug, Rules, Sound};
use crate::truncation::History;

mod allocation;
mod growth;
mod installing;
mod locate;
mod membership;
mod open;
mod read;
mod readers;
mod sealing;

pub use membership::Standing;

use installing::Installing;
use open::{Acknowledged, Open};
use sealing::{GroupSeal, Sealing};

/// The group whose membership says which groups the volume has.
const FIRST: PgId = PgId::new(0);

/// One writer instance, of one epoch. It has no durable state: a restart is a new instance with a
/// new epoch.
///
/// ```text
///  open() --> Sealing --- read quorum of every group sealed ---> Installing
///                |                                                   |
///                |      write quorum of every group has the history  |
///                |      and every record up to the recovery point    v
///                +--------- any Fenced of this epoch -----+------- Open
///                                                         v
///                                                      Fenced
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Writer<R: Rules = Sound> {
    rules: R,
    epoch: VolumeEpoch,
    /// With the groups that the volume has as far as this writer knows: those that it began to ask,
    /// then those that it found, then those too that it has added.
    geometry: VolumeGeometry,
    phase: Phase,
}

/// What a writer is doing, with the data that only this phase has.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Phase {
    Fenced { by: VolumeEpoch },
    Installing(Installing),
    Open(Open),
    Sealing(Sealing),
}

/// The name of a writer's phase.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PhaseName {
    /// Overtaken; it never does anything again.
    Fenced,
    /// Waiting until a write quorum of every group has the history and the records.
    Installing,
    /// Writing.
    Open,
    /// Waiting for a read quorum of every group.
    Sealing,
}

impl Writer {
    /// Starts the recovery that opens `epoch`: seals every group.
    ///
    /// `epoch` must be above every epoch seen, and no other process may ever use it.
    #[must_use]
    pub fn open(
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        Self::open_under(Sound, epoch, geometry, effects)
    }
}

impl<R: Rules> Writer<R> {
    /// [`Writer::open`] under `rules`.
    #[must_use]
    pub fn open_under(
        rules: R,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        Self::open_knowing(rules, epoch, geometry, &[], effects)
    }

    /// [`Writer::open`] for a process that knows `memberships`, by group, from an earlier look at
    /// the volume. Of groups beyond it asks the members that they began with; a newer membership is
    /// found from there, as long as those members live.
    #[must_use]
    pub fn open_knowing(
        rules: R,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        memberships: &[Membership],
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        let known = memberships.iter().map(|membership| (*membership, SegmentSet::EMPTY));
        Self::start(rules, epoch, geometry, known, None, effects)
    }

    /// [`Writer::open_knowing`], but going to where `backtrack` says instead of to the log's end
    /// (protocol: backtrack). If another writer has opened since that was located, opens at the end
    /// and reports [`CommandRefusal::Superseded`].
    #[must_use]
    pub fn open_at(
        rules: R,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        memberships: &[Membership],
        backtrack: Backtrack,
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        let known = memberships.iter().map(|membership| (*membership, SegmentSet::EMPTY));
        Self::start(rules, epoch, geometry, known, Some(backtrack), effects)
    }

    /// The last resort when a write quorum of a group is gone: opens from all survivors, if they
    /// are a read quorum. Each group has a membership and those of its members, by the disks that
    /// it names, that an operator swears never come back; these are burnt.
    /// [`Step::Finish`](crate::membership::Step::Finish) then lets any survivor seal, and a change
    /// of shape leads back to six, with new disks.
    #[must_use]
    pub fn open_forced(
        rules: R,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        groups: &[(Membership, SegmentSet)],
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        Self::start(rules, epoch, geometry, groups.iter().copied(), None, effects)
    }

    fn start(
        rules: R,
        epoch: VolumeEpoch,
        geometry: VolumeGeometry,
        known: impl Iterator<Item = (Membership, SegmentSet)>,
        backtrack: Option<Backtrack>,
        effects: &mut Vec<WriterEffect>,
    ) -> Self {
        let genesis = Membership::genesis(geometry.quorums());
        let mut known = known.chain(core::iter::repeat((genesis, SegmentSet::EMPTY)));
        let first = known.next().map(|(membership, lost)| {
            (membership.grown(membership.added().max(geometry.added())), lost)
        });
        let geometry = first.map_or(geometry, |(first, _)| geometry.grown(first.added()));
        let known = first.into_iter().chain(known).take(geometry.groups_count() as usize);
        let seals = known.map(|(membership, lost)| GroupSeal::new(membership, lost)).collect();
        let phase = Phase::Sealing(Sealing::new(seals, backtrack));
        let writer = Self { rules, epoch, geometry, phase };
        for group in geometry.groups() {
            writer.send_all(group, ToSegment::Seal(Seal { epoch, group, at: None }), effects);
        }
        writer
    }

    /// Takes one input and appends what is to be done to `effects`. See [`crate::effect`] for the
    /// contract.
    pub fn step(&mut self, input: WriterInput, effects: &mut Vec<WriterEffect>) {
        match input {
            WriterInput::Brief => self.brief(effects),
            WriterInput::Confirm { ticket } => self.confirm(ticket, effects),
            WriterInput::Expel { reader } => self.expel(reader, effects),
            WriterInput::Hold { holds } => self.hold(holds, effects),
            WriterInput::Locate { ticket, target } => self.locate(ticket, target, effects),
            WriterInput::Publish => self.publish(effects),
            WriterInput::Read { ticket, page, read_point, from } => {
                self.read(ticket, page, read_point, from, effects);
            }
            WriterInput::Receive { group, from, message } => {
                self.receive(group, from, message, effects);
            }
            WriterInput::ReceiveReader { from, message } => {
                self.receive_reader(from, message, effects);
            }
            WriterInput::Resend { group, to } => self.resend(group, to, effects),
            WriterInput::Step { group, step } => self.take(group, step, effects),
            WriterInput::Write { changes } => self.write(&changes, effects),
        }
    }

    fn receive(
        &mut self,
        group: PgId,
        from: Position,
        message: ToWriter,
        effects: &mut Vec<WriterEffect>,
    ) {
        // Acknowledgements echo the epoch: one that was given to another epoch says nothing about
        // this one (edge 28).
        if !self.has(group) {
            return;
        }
        match message {
            ToWriter::Ack { epoch, incarnation, number, scl } => {
                let is_current = epoch == self.epoch || self.rules.has(Bug::StaleAckCounted);
                if is_current && self.knows(group, from, incarnation) {
                    let ack = Acknowledged { number, scl };
                    self.receive_ack(group, from, ack, effects);
                }
            }
            ToWriter::Confirmed { epoch, incarnation, ticket } => {
                if epoch == self.epoch && self.knows(group, from, incarnation) {
                    self.receive_confirmed(group, from, ticket, effects);
                }
            }
            ToWriter::Located { epoch, ticket, place } => {
                if epoch == self.epoch {
                    self.receive_located(group, from, ticket, place, effects);
                }
            }
            ToWriter::Read { epoch, ticket, page, read_point, version } => {
                if epoch == self.epoch && self.is_open() {
                    let report = Report::Read { ticket, page, read_point, version };
                    effects.push(WriterEffect::Report(report));
                }
            }
            ToWriter::Refused { epoch, ticket, refusal } => {
                if epoch == self.epoch {
                    self.receive_refused(group, from, ticket, refusal, effects);
                }
            }
            ToWriter::Sealed { epoch, answer } => {
                if epoch == self.epoch {
                    self.receive_sealed(group, from, answer, effects);
                }
            }
        }
    }

    fn receive_refused(
        &mut self,
        group: PgId,
        from: Position,
        ticket: Option<Ticket>,
        refusal: Refusal,
        effects: &mut Vec<WriterEffect>,
    ) {
        match refusal {
            Refusal::Fenced { promised } if promised > self.epoch => {
                if !matches!(self.phase, Phase::Fenced { .. }) {
                    self.phase = Phase::Fenced { by: promised };
                    effects.push(WriterEffect::Report(Report::Overtaken { by: promised }));
                }
            }
            Refusal::Behind { .. } => {
                self.resend(group, from, effects);
                if let Some(ticket) = ticket {
                    effects.push(WriterEffect::Report(Report::ReadRefused { ticket, refusal }));
                }
            }
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
                let report = match ticket {
                    Some(ticket) => Report::ReadRefused { ticket, refusal },
                    None => Report::Rejected { group, from, refusal },
                };
                effects.push(WriterEffect::Report(report));
            }
        }
    }

    /// Sends a segment again whatever it may lack in this phase.
    fn resend(&mut self, group: PgId, to: Position, effects: &mut Vec<WriterEffect>) {
        if !self.everyone(group).contains(to) {
            effects.push(refused(CommandRefusal::UnknownSegment));
            return;
        }
        let mut only = SegmentSet::EMPTY;
        only.insert(to);
        let install = |history: &History, end: Lsn, tip: Option<Lsn>| {
            let (history, membership) = (history.clone(), *self.membership(group)?);
            let install = Install { group, history, end, tip, membership };
            Some(WriterEffect::Send { group, to: only, message: ToSegment::Install(install) })
        };
        match &self.phase {
            Phase::Fenced { .. } => {}
            Phase::Installing(installing) => {
                let (end, tip) = (installing.end(group), installing.tip(group));
                effects.extend(install(installing.history(), end, tip));
            }
            Phase::Open(open) => {
                effects.extend(install(open.history(), open.end(group), open.tip(group)));
                open.resend(self.epoch, group, to, self.geometry.limits(), effects);
            }
            Phase::Sealing(sealing) => {
                let at = sealing.asked_at(self.rules, &self.geometry, group, to);
                let message = ToSegment::Seal(Seal { epoch: self.epoch, group, at });
                effects.push(WriterEffect::Send { group, to: only, message });
            }
        }
    }

    fn send_all(&self, group: PgId, message: ToSegment, effects: &mut Vec<WriterEffect>) {
        effects.push(WriterEffect::Send { group, to: self.everyone(group), message });
    }

    /// Returns whether this writer speaks to `group`.
    fn has(&self, group: PgId) -> bool {
        match &self.phase {
            Phase::Fenced { .. } | Phase::Installing(_) => self.geometry.has(group),
            Phase::Open(open) => open.membership(group).is_some(),
            Phase::Sealing(sealing) => sealing.has_asked(group),
        }
    }

    /// Returns whom this writer speaks to in `group`.
    fn everyone(&self, group: PgId) -> SegmentSet {
        match &self.phase {
            Phase::Sealing(sealing) => sealing.everyone(self.rules, group),
            Phase::Fenced { .. } | Phase::Installing(_) | Phase::Open(_) => {
                self.membership(group).map_or(SegmentSet::EMPTY, Membership::everyone)
            }
        }
    }

    /// Returns whether the segment at `from` is the one that this writer's membership names there.
    fn knows(&self, group: PgId, from: Position, incarnation: Incarnation) -> bool {
        if self.rules.has(Bug::AckFromEvicted) {
            return true;
        }
        self.membership(group).is_some_and(|membership| membership.knows(from, incarnation))
    }

    /// Returns the membership of `group` that this writer has proposed or adopted last, once it
    /// has.
    #[must_use]
    pub fn membership(&self, group: PgId) -> Option<&Membership> {
        match &self.phase {
            Phase::Fenced { .. } | Phase::Sealing(_) => None,
            Phase::Installing(installing) => installing.membership(group),
            Phase::Open(open) => open.membership(group),
        }
    }

    /// Returns how an open writer's last step in `group` stands.
    #[must_use]
    pub fn standing(&self, group: PgId) -> Option<Standing> {
        self.as_open().and_then(|open| open.standing(self.rules, group))
    }

    /// Returns this writer's epoch.
    #[must_use]
    pub const fn epoch(&self) -> VolumeEpoch {
        self.epoch
    }

    /// Returns the volume's geometry, with all groups that it has as far as this writer knows.
    #[must_use]
    pub const fn geometry(&self) -> &VolumeGeometry {
        &self.geometry
    }

    /// Returns what this writer is doing.
    #[must_use]
    pub const fn phase(&self) -> PhaseName {
        match self.phase {
            Phase::Fenced { .. } => PhaseName::Fenced,
            Phase::Installing(_) => PhaseName::Installing,
            Phase::Open(_) => PhaseName::Open,
            Phase::Sealing(_) => PhaseName::Sealing,
        }
    }

    const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    fn as_open(&self) -> Option<&Open> {
        match &self.phase {
            Phase::Open(open) => Some(open),
            Phase::Fenced { .. } | Phase::Installing(_) | Phase::Sealing(_) => None,
        }
    }

    /// Returns the epoch that overtook this writer, once it knows.
    #[must_use]
    pub const fn overtaken_by(&self) -> Option<VolumeEpoch> {
        match self.phase {
            Phase::Fenced { by } => Some(by),
            Phase::Installing(_) | Phase::Open(_) | Phase::Sealing(_) => None,
        }
    }

    /// Returns the history that this writer decided on, once it has.
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        match &self.phase {
            Phase::Fenced { .. } | Phase::Sealing(_) => None,
            Phase::Installing(installing) => Some(installing.history()),
            Phase::Open(open) => Some(open.history()),
        }
    }

    /// Returns the volume durable LSN of an open writer.
    #[must_use]
    pub fn vdl(&self) -> Option<Vdl> {
        self.as_open().map(Open::vdl)
    }

    /// Returns the volume complete LSN of an open writer.
    #[must_use]
    pub fn vcl(&self) -> Option<Vcl> {
        self.as_open().map(Open::vcl)
    }

    /// Returns a group's complete LSN as an open writer knows it.
    #[must_use]
    pub fn pgcl(&self, group: PgId) -> Option<Pgcl> {
        self.as_open().and_then(|open| open.pgcl(group))
    }

    /// Returns the SCL that the segment at `position` has acknowledged to an open writer.
    #[must_use]
    pub fn scl(&self, group: PgId, position: Position) -> Option<Lsn> {
        self.as_open().and_then(|open| open.scl(group, position))
    }

    /// Returns the last allocated LSN of an open writer, or its recovery point if it has allocated
    /// none.
    #[must_use]
    pub fn tail(&self) -> Option<Lsn> {
        self.as_open().map(Open::tail)
    }

    /// Returns how many more LSNs an open writer may allocate before the VDL advances.
    #[must_use]
    pub fn allowance(&self) -> Option<u64> {
        self.as_open().map(|open| open.allowance(self.rules, &self.geometry))
    }

    /// Returns the point at which a read issued now is evaluated.
    #[must_use]
    pub fn read_point(&self) -> Option<ReadPoint> {
        self.vdl().map(ReadPoint::at)
    }

    /// Returns the garbage floor of an open writer: zero until it has been told what to hold.
    #[must_use]
    pub fn floor(&self) -> Option<GarbageFloor> {
        self.as_open().map(Open::floor)
    }

    /// Returns the readers that an open writer has registered, with the lowest read point of each.
    pub fn readers(&self) -> impl Iterator<Item = (ReaderId, ReadPoint)> + '_ {
        self.as_open().into_iter().flat_map(Open::readers)
    }

    /// Returns the segments of `group` that can serve a read at the VDL, as far as this writer
    /// knows. The driver chooses among them.
    #[must_use]
    pub fn complete(&self, group: PgId) -> SegmentSet {
        self.as_open().map_or(SegmentSet::EMPTY, |open| open.complete(group))
    }

    /// Returns this writer after renaming the positions of `group`.
    #[must_use]
    pub fn permute(&self, group: PgId, permutation: &Permutation) -> Self {
        let phase = match &self.phase {
            Phase::Fenced { by } => Phase::Fenced { by: *by },
            Phase::Installing(installing) => {
                Phase::Installing(installing.permute(group, permutation))
            }
            Phase::Open(open) => Phase::Open(open.permute(group, permutation)),
            Phase::Sealing(sealing) => Phase::Sealing(sealing.permute(group, permutation)),
        };
        Self { rules: self.rules, epoch: self.epoch, geometry: self.geometry, phase }
    }

    /// Hashes what this writer knows of one segment, whatever its position.
    ///
    /// Together with [`Writer::hash_rest`] this covers the whole value: two writers with equal
    /// rests, and equal columns up to a renaming of positions, are equal up to that renaming.
    pub fn hash_column<H: Hasher>(&self, group: PgId, position: Position, state: &mut H) {
        match &self.phase {
            Phase::Fenced { by: _ } => {}
            Phase::Installing(installing) => installing.hash_column(group, position, state),
            Phase::Open(open) => open.hash_column(group, position, state),
            Phase::Sealing(sealing) => sealing.hash_column(group, position, state),
        }
    }

    /// Hashes what this writer knows apart from single segments.
    pub fn hash_rest<H: Hasher>(&self, state: &mut H) {
        let Self { rules, epoch, geometry, phase } = self;
        (rules, epoch, geometry, core::mem::discriminant(phase)).hash(state);
        match phase {
            Phase::Fenced { by } => by.hash(state),
            Phase::Installing(installing) => installing.hash_rest(state),
            Phase::Open(open) => open.hash_rest(state),
            Phase::Sealing(sealing) => sealing.hash_rest(state),
        }
    }
}

fn refused(refusal: CommandRefusal) -> WriterEffect {
    WriterEffect::Report(Report::Refused(refusal))
}

/// By how many members a write quorum under `rules` falls short of one.
fn short_writes<R: Rules>(rules: R) -> u32 {
    u32::from(rules.has(Bug::WriteQuorumTooSmall))
}
