//! An open writer's knowledge: from acknowledgements to PGCL, VCL and VDL (protocol: write path).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::growth::Growing;
use super::locate::Locating;
use super::read::Confirming;
use super::readers::Registration;
use crate::consistency::{GarbageFloor, Pgcl, Pgmrpl, ReadPoint, Scl, Vcl, Vdl};
use crate::effect::WriterEffect;
use crate::epoch::VolumeEpoch;
use crate::formula::Formula;
use crate::geometry::Limits;
use crate::hold::Holds;
use crate::id::{Permutation, PgId, Position, Positions, ReaderId, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Append, ToSegment};
use crate::record::Record;
use crate::recovery::Choice;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// The state of an open writer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Open {
    pub(super) history: History,
    /// The next LSN to allocate.
    pub(super) next: Lsn,
    /// The last record of the volume: what the next one links back to.
    pub(super) tail: Lsn,
    pub(super) groups: Vec<GroupProgress>,
    /// The group that is being added.
    pub(super) growing: Option<Box<Growing>>,
    /// Allocated records above the VCL, by LSN.
    pub(super) unresolved: VecDeque<Record>,
    /// Records between the VDL and the VCL: of mini-transactions that are durable in part.
    pub(super) partial: Vec<Record>,
    vcl: Vcl,
    vdl: Vdl,
    pub(super) confirming: Option<Confirming>,
    pub(super) locating: Option<Locating>,
    pub(super) readers: BTreeMap<ReaderId, Registration>,
    /// The number of streams begun.
    pub(super) sessions: u64,
    /// `None` until the driver has said what there is to hold: the floor doesn't move before.
    pub(super) holds: Option<Holds>,
    floor: GarbageFloor,
}

/// An acknowledgement of this epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// Of the membership that the segment has.
    pub(super) number: u32,
    pub(super) scl: Scl,
}

/// What an acknowledgement has brought about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The VDL has advanced.
    pub(super) has_advanced: bool,
    /// One more segment holds a newer membership.
    pub(super) has_news_of_step: bool,
}

/// How far one group is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct GroupProgress {
    /// By position: the SCL acknowledged under this epoch's history.
    scls: Positions<Lsn>,
    /// Never lowered, whatever formula is in force.
    pgcl: Pgcl,
    pub(super) membership: Membership,
    /// By position: the number of the membership that the segment has acknowledged; zero, that of
    /// the install, until a higher one.
    pub(super) held: Positions<u32>,
    /// What members that join must hold: the highest PGCL ever declared, fixed at the switch to the
    /// joint membership (edges 31 and 68).
    pub(super) target: Lsn,
    /// The group's last record at or under the recovery point.
    end: Lsn,
    /// The group's last record of the branch that a backtrack has left.
    tip: Option<Lsn>,
    /// The group's last allocated record: what its next one links back to.
    pub(super) tail: Lsn,
    /// The group's last record at or under the VCL.
    complete: Lsn,
    /// The group's last record at or under the VDL: what a segment must hold to serve a read.
    durable: Lsn,
}

impl GroupProgress {
    /// Returns that of a group in which nothing was ever written.
    pub(super) fn of_new(membership: Membership) -> Self {
        Self {
            scls: Positions::default(),
            pgcl: Pgcl::ZERO,
            membership,
            held: Positions::default(),
            target: Lsn::ZERO,
            end: Lsn::ZERO,
            tip: None,
            tail: Lsn::ZERO,
            complete: Lsn::ZERO,
            durable: Lsn::ZERO,
        }
    }

    pub(super) const fn scls(&self) -> &Positions<Lsn> {
        &self.scls
    }

    pub(super) const fn pgcl(&self) -> Pgcl {
        self.pgcl
    }
}

impl Open {
    pub(super) fn new<R: Rules>(
        rules: R,
        history: History,
        memberships: &[Membership],
        choice: &Choice,
        installed: &[Positions<Option<Scl>>],
    ) -> Self {
        let recovery_point = choice.recovery_point;
        let tips = choice.tips.iter().copied().chain(core::iter::repeat(None));
        let groups = choice.ends.iter().zip(tips).zip(memberships).zip(installed);
        let groups = groups.map(|(((end, tip), membership), installed)| {
            let scls = installed.map(|scl| scl.map_or(Lsn::ZERO, Scl::lsn));
            let pgcl = Pgcl::of(membership.before(), &scls, super::short_writes(rules));
            GroupProgress {
                scls,
                pgcl,
                membership: *membership,
                held: Positions::default(),
                // Whatever was acknowledged in this group lies at or under its end.
                target: if membership.quorums().as_single().is_some() { Lsn::ZERO } else { *end },
                end: *end,
                tip,
                tail: *end,
                complete: *end,
                durable: *end,
            }
        });
        let through =
            if rules.has(Bug::LsnReuse) { recovery_point.lsn() } else { history.through() };
        Self {
            groups: groups.collect(),
            growing: None,
            next: through.plus(1).unwrap_or(through),
            tail: recovery_point.lsn(),
            unresolved: VecDeque::new(),
            partial: Vec::new(),
            vcl: Vcl::reached(recovery_point.lsn()),
            vdl: recovery_point,
            confirming: None,
            locating: None,
            readers: BTreeMap::new(),
            sessions: 0,
            holds: None,
            floor: GarbageFloor::ZERO,
            history,
        }
    }

    /// Counts an acknowledgement.
    pub(super) fn acknowledge<R: Rules>(
        &mut self,
        rules: R,
        group: PgId,
        from: Position,
        ack: Acknowledged,
    ) -> Progress {
        let mut news = Progress::default();
        let Some(progress) = self.groups.get_mut(group.get() as usize) else { return news };
        let held = progress.held.at_mut(from);
        if ack.number > *held {
            *held = ack.number;
            news.has_news_of_step = true;
        }
        let known = progress.scls.at_mut(from);
        if ack.scl.lsn() > *known {
            *known = ack.scl.lsn();
            news.has_advanced = self.count(rules, group);
        }
        news
    }

    /// Evaluates what was acknowledged in `group` under the formula in force, that of the
    /// membership before a step until the step is durable, then that of the one after (edge 36).
    /// Returns whether the VDL has advanced.
    pub(super) fn count<R: Rules>(&mut self, rules: R, group: PgId) -> bool {
        let Some(progress) = self.groups.get_mut(group.get() as usize) else { return false };
        let before = progress.membership.before();
        let short = super::short_writes(rules);
        let pgcl = if rules.has(Bug::OldFormulaAfterSwitch) {
            Pgcl::of(&Formula::single(*before.reading()), &progress.scls, short)
        } else {
            Pgcl::of(before, &progress.scls, short)
        };
        if pgcl <= progress.pgcl {
            return false;
        }
        progress.pgcl = pgcl;
        if rules.has(Bug::VclIsMinPgcl) { self.advance_to_min_pgcl() } else { self.advance(rules) }
    }

    /// Returns the membership of a group that the volume has, or is about to have.
    pub(super) fn membership(&self, group: PgId) -> Option<&Membership> {
        let of_group = self.groups.get(group.get() as usize).map(|progress| &progress.membership);
        of_group.or_else(|| self.growing_in(group).map(Growing::membership))
    }

    /// Moves VCL and VDL over the records that have met their group's write quorum: the VCL stops
    /// before the first record that hasn't, so an idle group holds nothing back (edge 11).
    fn advance<R: Rules>(&mut self, rules: R) -> bool {
        let before = self.vdl;
        while let Some(record) = self.unresolved.front() {
            let Some(progress) = self.groups.get_mut(record.group.get() as usize) else { break };
            if record.lsn > progress.pgcl.lsn() {
                break;
            }
            progress.complete = record.lsn;
            self.vcl = Vcl::reached(record.lsn);
            if record.cpl || rules.has(Bug::VdlIgnoresCpls) {
                self.vdl = Vdl::of(self.vcl, record.lsn).unwrap_or(self.vdl);
                for progress in &mut self.groups {
                    progress.durable = progress.complete;
                }
                self.partial.clear();
            } else {
                self.partial.push(*record);
            }
            self.unresolved.pop_front();
        }
        let has_advanced = self.vdl > before;
        if has_advanced {
            self.advance_floor(rules);
        }
        has_advanced
    }

    /// Raises the garbage floor to the lowest of the VDL, the registered readers' read points and
    /// the holds. It never goes back: who asks for less is told so (edge 45).
    pub(super) fn advance_floor<R: Rules>(&mut self, rules: R) {
        let Some(holds) = &self.holds else { return };
        let live = self.readers.values().map(|registration| registration.floor);
        let pgmrpl = if rules.has(Bug::FloorAheadOfReader) {
            Pgmrpl::of(self.vdl, [])
        } else {
            Pgmrpl::of(self.vdl, live)
        };
        let floor = if rules.has(Bug::CollectAheadOfHold) {
            GarbageFloor::unsound(pgmrpl.lsn())
        } else {
            GarbageFloor::of(pgmrpl, holds)
        };
        self.floor = self.floor.max(floor);
    }

    /// Seeded bug: an idle group freezes the VCL.
    fn advance_to_min_pgcl(&mut self) -> bool {
        let before = self.vdl;
        let lowest = self.groups.iter().map(|progress| progress.pgcl.lsn()).min();
        while let Some(record) = self.unresolved.front().copied()
            && Some(record.lsn) <= lowest
        {
            self.vcl = Vcl::reached(record.lsn);
            if record.cpl {
                self.vdl = Vdl::of(self.vcl, record.lsn).unwrap_or(self.vdl);
            }
            if let Some(progress) = self.groups.get_mut(record.group.get() as usize) {
                progress.complete = record.lsn;
                progress.durable = record.lsn;
            }
            self.unresolved.pop_front();
        }
        self.vdl > before
    }

    /// Seeded bug: a repeated acknowledgement counts as another segment's.
    pub(super) fn next_uncounted(&self, group: PgId, from: Position, scl: Scl) -> Position {
        let Some(progress) = self.groups.get(group.get() as usize) else { return from };
        if *progress.scls.at(from) < scl.lsn() {
            return from;
        }
        let uncounted = progress.scls.iter().find(|(_, known)| **known < scl.lsn());
        uncounted.map_or(from, |(position, _)| position)
    }

    /// Sends a segment the records that it may lack: those above the VCL that it hasn't
    /// acknowledged. What lies below comes by gossip.
    pub(super) fn resend(
        &self,
        epoch: VolumeEpoch,
        group: PgId,
        to: Position,
        limits: Limits,
        effects: &mut Vec<WriterEffect>,
    ) {
        let known = self.scl(group, to).unwrap_or(Lsn::ZERO);
        let lacking = self.unresolved.iter().filter(|r| r.group == group && r.lsn > known);
        let records: Vec<Record> = lacking.copied().collect();
        let mut only = SegmentSet::EMPTY;
        only.insert(to);
        for batch in records.chunks(limits.batch_records_max.max(1) as usize) {
            let append =
                Append { epoch, group, vdl: self.vdl, floor: self.floor, records: batch.to_vec() };
            let message = ToSegment::Append(append);
            effects.push(WriterEffect::Send { group, to: only, message });
        }
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    pub(super) const fn floor(&self) -> GarbageFloor {
        self.floor
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = (ReaderId, ReadPoint)> + '_ {
        self.readers.iter().map(|(reader, registration)| (*reader, registration.floor))
    }

    /// By group: the last record at or under the VDL.
    pub(super) fn ends(&self) -> Vec<Lsn> {
        self.groups.iter().map(|progress| progress.durable).collect()
    }

    /// By position: what each segment of `group` has acknowledged; `None` for who is no member.
    pub(super) fn held_by(&self, group: PgId) -> Positions<Option<Lsn>> {
        let mut standing = Positions::default();
        if let Some(progress) = self.groups.get(group.get() as usize) {
            for position in progress.membership.everyone().iter() {
                *standing.at_mut(position) = Some(*progress.scls.at(position));
            }
        }
        standing
    }

    pub(super) const fn vdl(&self) -> Vdl {
        self.vdl
    }

    pub(super) const fn vcl(&self) -> Vcl {
        self.vcl
    }

    pub(super) const fn tail(&self) -> Lsn {
        self.tail
    }

    pub(super) fn pgcl(&self, group: PgId) -> Option<Pgcl> {
        self.groups.get(group.get() as usize).map(|progress| progress.pgcl)
    }

    pub(super) fn scl(&self, group: PgId, position: Position) -> Option<Lsn> {
        self.groups.get(group.get() as usize).map(|progress| *progress.scls.at(position))
    }

    /// Returns the group's last record at or under the recovery point.
    pub(super) fn end(&self, group: PgId) -> Lsn {
        self.groups.get(group.get() as usize).map(|progress| progress.end).unwrap_or_default()
    }

    /// Returns the group's last record of the branch that a backtrack has left.
    pub(super) fn tip(&self, group: PgId) -> Option<Lsn> {
        self.groups.get(group.get() as usize).and_then(|progress| progress.tip)
    }

    /// Returns the group's last record at or under the VDL.
    pub(super) fn durable(&self, group: PgId) -> Option<Lsn> {
        self.groups.get(group.get() as usize).map(|progress| progress.durable)
    }

    pub(super) fn complete(&self, group: PgId) -> SegmentSet {
        let mut complete = SegmentSet::EMPTY;
        if let Some(progress) = self.groups.get(group.get() as usize) {
            for position in progress.membership.everyone().iter() {
                if *progress.scls.at(position) >= progress.durable {
                    complete.insert(position);
                }
            }
        }
        complete
    }

    pub(super) fn permute(&self, group: PgId, permutation: &Permutation) -> Self {
        let mut renamed = self.clone();
        if let Some(progress) = renamed.groups.get_mut(group.get() as usize) {
            progress.scls = progress.scls.permute(permutation);
            progress.held = progress.held.permute(permutation);
        }
        if let Some(growing) = renamed.growing_in_mut(group) {
            growing.permute(permutation);
        }
        if let Some(locating) = &mut renamed.locating {
            locating.permute(group, permutation);
        }
        if group == PgId::new(0)
            && let Some(confirming) = &mut renamed.confirming
        {
            confirming.confirmed = permutation.of_set(confirming.confirmed);
        }
        renamed
    }

    pub(super) fn hash_column<H: Hasher>(&self, group: PgId, position: Position, state: &mut H) {
        if let Some(progress) = self.groups.get(group.get() as usize) {
            (progress.scls.at(position), progress.held.at(position)).hash(state);
        }
        if let Some(growing) = self.growing_in(group) {
            growing.is_founder(position).hash(state);
        }
        if let Some(locating) = &self.locating {
            locating.has_answered(group, position).hash(state);
        }
        if group == PgId::new(0) {
            let confirmed = |confirming: &Confirming| confirming.confirmed.contains(position);
            self.confirming.as_ref().map(confirmed).hash(state);
        }
    }

    pub(super) fn hash_rest<H: Hasher>(&self, state: &mut H) {
        let Self { history, next, tail, groups, unresolved, partial, vcl, vdl, .. } = self;
        let Self { growing, confirming, locating, readers, sessions, holds, floor, .. } = self;
        (history, next, tail, unresolved, partial, vcl, vdl).hash(state);
        (readers, sessions, holds, floor).hash(state);
        if let Some(growing) = growing {
            (growing.group(), growing.membership()).hash(state);
        }
        if let Some(locating) = locating {
            locating.hash_rest(state);
        }
        for progress in groups {
            let GroupProgress { scls: _, pgcl, membership, held: _, target, .. } = progress;
            (pgcl, membership, target).hash(state);
            let GroupProgress { end, tip, tail, complete, durable, .. } = progress;
            (end, tip, tail, complete, durable).hash(state);
        }
        if let Some(Confirming { ticket, read_point, confirmed: _ }) = confirming {
            (ticket, read_point).hash(state);
        }
    }
}
