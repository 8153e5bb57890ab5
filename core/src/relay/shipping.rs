//! Records of the source in the order of the volume's chain, and how far the target has them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use super::surveying::Ends;
use super::{Phase, Relay, RelayEffect, RelayReport, report};
use crate::consistency::{GarbageFloor, Pgcl, ReadPoint, Scl, Vcl, Vdl};
use crate::epoch::VolumeEpoch;
use crate::geometry::Limits;
use crate::id::{PgId, Position, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Append, FromReader, Install, Pulled, ToSegment};
use crate::record::Record;
use crate::recovery::Choice;
use crate::region::RegionPoint;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// A target whose segments have the history of the writer followed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Shipping {
    history: History,
    groups: Vec<Shipped>,
    /// The point at which the target was found; `None` once it is known to be durable there.
    start: Option<Lsn>,
    /// The last record of the volume that was shipped, or is there: always a consistency point.
    tail: Lsn,
    /// Shipped records that the target's VDL doesn't cover yet, by rising LSN.
    under_way: VecDeque<Record>,
    vdl: Option<Vdl>,
}

/// How far a group of the target is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Shipped {
    ends: Ends,
    membership: Membership,
    /// By position: the SCL acknowledged under the history.
    scls: Positions<Lsn>,
    pgcl: Pgcl,
    /// The group's last record at or under the point at which the target was found.
    start: Lsn,
    /// The group's last record that was shipped.
    tail: Lsn,
}

impl Shipping {
    pub(super) fn new(
        history: History,
        ends: &[Ends],
        memberships: &[Membership],
        choice: &Choice,
    ) -> Self {
        let groups = ends.iter().zip(memberships).zip(&choice.ends);
        let groups = groups.map(|((ends, membership), start)| Shipped {
            ends: *ends,
            membership: *membership,
            scls: Positions::default(),
            pgcl: Pgcl::ZERO,
            start: *start,
            tail: *start,
        });
        let start = choice.recovery_point.lsn();
        Self {
            history,
            groups: groups.collect(),
            start: Some(start),
            tail: start,
            under_way: VecDeque::new(),
            vdl: None,
        }
    }

    pub(super) fn membership(&self, group: PgId) -> Option<&Membership> {
        self.groups.get(group.get() as usize).map(|group| &group.membership)
    }

    pub(super) const fn vdl(&self) -> Option<Vdl> {
        self.vdl
    }

    pub(super) const fn tail(&self) -> Lsn {
        self.tail
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    /// Returns the last record of `group` from which on something may be missing.
    pub(super) fn lacks_after(&self, group: PgId, held: &BTreeMap<Lsn, Record>) -> Lsn {
        let mut tail = self.groups.get(group.get() as usize).map_or(Lsn::ZERO, |it| it.tail);
        let beyond = held.range((Bound::Excluded(tail), Bound::Unbounded)).map(|(_, it)| it);
        for record in beyond.filter(|record| record.group == group) {
            if record.prev_group != tail {
                break;
            }
            tail = record.lsn;
        }
        tail
    }

    /// Returns the next whole mini-transaction: at or under what the source's writer has told, and
    /// with every record before it (edge 59).
    fn next<R: Rules>(
        &self,
        rules: R,
        told: Vdl,
        held: &BTreeMap<Lsn, Record>,
        limits: Limits,
    ) -> Option<Vec<Record>> {
        let known = self.vdl.map_or(Lsn::ZERO, Vdl::lsn).max(self.history.through());
        let limit = known.plus(limits.allocation_max).unwrap_or(Lsn::new(u64::MAX));
        let (mut tail, mut run) = (self.tail, Vec::new());
        for record in held.range((Bound::Excluded(tail), Bound::Unbounded)).map(|(_, it)| *it) {
            let is_next = record.prev_volume == tail || rules.has(Bug::RelaySkipsHole);
            let is_durable = record.lsn <= told.lsn() || rules.has(Bug::RelayShipsAboveVdl);
            // The target's segments take nothing beyond the volume's allocation limit.
            if !is_next || !is_durable || record.lsn > limit {
                return None;
            }
            tail = record.lsn;
            run.push(record);
            if record.cpl {
                return Some(run);
            }
        }
        None
    }

    /// Returns what brings `records`, of one mini-transaction, to segments of `group`.
    fn message(&self, epoch: VolumeEpoch, group: PgId, records: Vec<Record>) -> Option<ToSegment> {
        let Shipped { ends: Ends { end, tip }, membership, .. } =
            *self.groups.get(group.get() as usize)?;
        let vdl = self.vdl.unwrap_or_default();
        if records.iter().all(|record| record.epoch == epoch) {
            let floor = GarbageFloor::ZERO;
            return Some(ToSegment::Append(Append { epoch, group, vdl, floor, records }));
        }
        // What older writers have left travels as it does between segments, with the history.
        let (history, base, after) = (self.history.clone(), Lsn::ZERO, Lsn::ZERO);
        let pulled = Pulled { group, history, end, tip, membership, vdl, base, after, records };
        Some(ToSegment::Pulled(pulled))
    }

    fn send(
        &self,
        epoch: VolumeEpoch,
        group: PgId,
        to: SegmentSet,
        records: &[Record],
        limits: Limits,
        effects: &mut Vec<RelayEffect>,
    ) {
        let of_group: Vec<Record> =
            records.iter().filter(|record| record.group == group).copied().collect();
        let of_one_epoch = of_group.chunk_by(|one, other| one.epoch == other.epoch);
        let batch_max = limits.batch_records_max.max(1) as usize;
        for batch in of_one_epoch.flat_map(|run| run.chunks(batch_max)) {
            if let Some(message) = self.message(epoch, group, batch.to_vec()) {
                effects.push(RelayEffect::Send { group, to, message });
            }
        }
    }

    /// Sends segments the history, which they acknowledge with what they have, and what they may
    /// lack of the records under way. The rest comes by gossip.
    pub(super) fn resend(
        &self,
        epoch: VolumeEpoch,
        group: PgId,
        to: SegmentSet,
        limits: Limits,
        effects: &mut Vec<RelayEffect>,
    ) {
        let Some(shipped) = self.groups.get(group.get() as usize) else { return };
        let Shipped { ends: Ends { end, tip }, membership, .. } = *shipped;
        let install = Install { group, history: self.history.clone(), end, tip, membership };
        effects.push(RelayEffect::Send { group, to, message: ToSegment::Install(install) });
        let known = to.iter().map(|position| *shipped.scls.at(position)).min();
        let lacks = |record: &&Record| known.is_some_and(|known| record.lsn > known);
        let records: Vec<Record> = self.under_way.iter().filter(lacks).copied().collect();
        self.send(epoch, group, to, &records, limits, effects);
    }

    /// Moves the target's VDL over what has met its groups' write quorums, as a writer does.
    /// Returns whether it has advanced.
    fn advance<R: Rules>(&mut self, rules: R) -> bool {
        let before = self.vdl;
        if let Some(start) = self.start {
            if !self.groups.iter().all(|group| group.pgcl.lsn() >= group.start) {
                return false;
            }
            self.vdl = Vdl::of(Vcl::reached(start), start);
            self.start = None;
        }
        while let Some(record) = self.under_way.front() {
            let group = self.groups.get(record.group.get() as usize);
            if group.is_none_or(|group| record.lsn > group.pgcl.lsn()) {
                break;
            }
            if record.cpl || rules.has(Bug::RelayIgnoresCpls) {
                self.vdl = Vdl::of(Vcl::reached(record.lsn), record.lsn);
            }
            self.under_way.pop_front();
        }
        self.vdl > before
    }
}

impl<R: Rules> Relay<R> {
    /// Begins to ship: asks everybody what they have, by what they have already.
    pub(super) fn begin(&mut self, effects: &mut Vec<RelayEffect>) {
        let Phase::Shipping(shipping) = &self.phase else { return };
        let Some(source) = &mut self.source else { return };
        source.held.retain(|lsn, _| *lsn > shipping.tail);
        for (group, shipped) in self.geometry.groups().zip(&shipping.groups) {
            let to = shipped.membership.everyone();
            shipping.resend(source.epoch, group, to, self.geometry.limits(), effects);
        }
        self.ship(effects);
    }

    /// Ships every whole mini-transaction whose turn it is.
    pub(super) fn ship(&mut self, effects: &mut Vec<RelayEffect>) {
        let (rules, limits) = (self.rules, self.geometry.limits());
        let Phase::Shipping(shipping) = &mut self.phase else { return };
        let Some(source) = &mut self.source else { return };
        while let Some(run) = shipping.next(rules, source.told, &source.held, limits) {
            for record in &run {
                shipping.tail = record.lsn;
                if let Some(group) = shipping.groups.get_mut(record.group.get() as usize) {
                    group.tail = record.lsn;
                }
            }
            shipping.under_way.extend(&run);
            source.held.retain(|lsn, _| *lsn > shipping.tail);
            for group in self.geometry.groups() {
                let everyone = shipping.membership(group).map(Membership::everyone);
                let to = everyone.unwrap_or_default();
                shipping.send(source.epoch, group, to, &run, limits, effects);
            }
            if rules.has(Bug::RelayReportsShipped)
                && let Some(vdl) = Vdl::of(Vcl::reached(shipping.tail), shipping.tail)
            {
                let target = RegionPoint { epoch: source.epoch, vdl };
                effects.push(report(RelayReport::Advanced { target, told: source.told }));
            }
        }
    }

    pub(super) fn publish(&self, effects: &mut Vec<RelayEffect>) {
        let (Phase::Shipping(shipping), Some(source)) = (&self.phase, &self.source) else { return };
        for (group, shipped) in self.geometry.groups().zip(&shipping.groups) {
            let to = shipped.membership.everyone();
            if let Some(message) = shipping.message(source.epoch, group, Vec::new()) {
                effects.push(RelayEffect::Send { group, to, message });
            }
        }
    }

    /// Counts an acknowledgement of the target. What is durable there needs no older version of the
    /// source's pages any more.
    pub(super) fn count(
        &mut self,
        group: PgId,
        from: Position,
        scl: Scl,
        effects: &mut Vec<RelayEffect>,
    ) {
        let rules = self.rules;
        let Phase::Shipping(shipping) = &mut self.phase else { return };
        let Some(source) = &self.source else { return };
        let Some(shipped) = shipping.groups.get_mut(group.get() as usize) else { return };
        let known = shipped.scls.at_mut(from);
        *known = (*known).max(scl.lsn());
        let pgcl = Pgcl::of(shipped.membership.quorums(), &shipped.scls, 0);
        shipped.pgcl = shipped.pgcl.max(pgcl);
        if !shipping.advance(rules) {
            return;
        }
        let Some(vdl) = shipping.vdl else { return };
        let (epoch, told) = (source.epoch, source.told);
        if !rules.has(Bug::RelayReportsShipped) {
            let target = RegionPoint { epoch, vdl };
            effects.push(report(RelayReport::Advanced { target, told }));
        }
        let floor = ReadPoint::at(vdl);
        effects.push(RelayEffect::SendWriter(FromReader::Release { epoch, floor }));
        // More may be within the allocation limit now.
        self.ship(effects);
    }
}
