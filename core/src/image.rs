//! A segment's durable state: what a restart finds, built from atomic writes.

use alloc::vec::Vec;
use core::fmt;

use crate::consistency::{Scl, Vdl};
use crate::effect::SegmentWrite;
use crate::epoch::VolumeEpoch;
use crate::floor::Floor;
use crate::geometry::{Added, VolumeGeometry};
use crate::id::{Incarnation, PageId, PgId};
use crate::log::{Insert, Log};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::record::Record;
use crate::rules::{Bug, Rules, Sound};
use crate::truncation::History;

/// Everything of a segment that survives a crash.
///
/// A driver keeps the writes of [`crate::effect::SegmentEffect::Persist`] in order and, at a
/// restart, applies those that survived to [`SegmentImage::create`]; the machine itself applies
/// the same writes in the same order, so what runs and what restarts can't differ.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SegmentImage {
    pub(crate) group: PgId,
    /// As the volume was created: how far it has grown is in the first group's membership.
    pub(crate) geometry: VolumeGeometry,
    /// Never below the history's epoch.
    pub(crate) promised: VolumeEpoch,
    pub(crate) history: History,
    pub(crate) incarnation: Incarnation,
    /// Kept for ever, by a removed segment too. Of the history's epoch.
    pub(crate) membership: Membership,
    /// The group's last record that the newest range of `history` keeps.
    pub(crate) end: Lsn,
    /// What the newest backtrack has set aside; `None` when nothing of it can come back.
    pub(crate) aside: Option<SetAside>,
    /// What the segment may have said before its log was damaged; `None` once it has all of it.
    pub(crate) floor: Option<Floor>,
    /// A VDL that some writer told: never above the volume's own.
    pub(crate) vdl: Vdl,
    /// Holds no record that `history` annuls.
    pub(crate) log: Log,
}

/// A branch of the log that a backtrack has left, and that a later recovery can take again.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SetAside {
    /// The group's last record of it, if the segment was told.
    pub tip: Option<Lsn>,
    /// The highest VDL that the segment knew before.
    pub vdl: Vdl,
    /// The records of it that the segment has, by rising LSN.
    pub records: Vec<Record>,
}

/// What a crash left of one write.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Survivor {
    /// Nothing.
    Missing,
    /// A part: its checksum doesn't match.
    Torn(SegmentWrite),
    /// All of it.
    Whole(SegmentWrite),
}

/// Stored bytes that no sequence of a segment's own writes can have produced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CorruptImage {
    /// The base is above every VDL that the segment knew.
    Base,
    /// Two different records have this LSN.
    Conflict {
        /// The LSN.
        lsn: Lsn,
    },
    /// The log holds more records than the volume's bound.
    Full,
    /// The truncation history's epochs or ends do not rise, or it is above the promise.
    History,
    /// A record's epochs or backlinks contradict each other.
    Record {
        /// The record.
        lsn: Lsn,
    },
    /// A record of another group.
    WrongGroup {
        /// The record.
        lsn: Lsn,
    },
}

impl fmt::Display for CorruptImage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => write!(out, "versions were discarded above the durable part"),
            Self::Conflict { lsn } => write!(out, "two different records have LSN {lsn}"),
            Self::Full => write!(out, "more records than the volume's limit"),
            Self::History => write!(out, "the truncation history contradicts itself"),
            Self::Record { lsn } => write!(out, "the record with LSN {lsn} contradicts itself"),
            Self::WrongGroup { lsn } => {
                write!(out, "the record with LSN {lsn} belongs to another protection group")
            }
        }
    }
}

impl core::error::Error for CorruptImage {}

impl SegmentImage {
    /// Returns the state of a segment that has never been written, or `None` if the volume has no
    /// such group, nor can get it by growing.
    #[must_use]
    pub fn create(group: PgId, geometry: VolumeGeometry) -> Option<Self> {
        Self::join(group, geometry, Incarnation::new(0))
    }

    /// Returns the state of an empty disk that is to join its group under a name of its own, or
    /// `None` if the volume has no such group, nor can get it by growing.
    #[must_use]
    pub fn join(group: PgId, geometry: VolumeGeometry, incarnation: Incarnation) -> Option<Self> {
        geometry.may_have(group).then(|| Self {
            group,
            geometry: geometry.grown(Added::NONE),
            promised: VolumeEpoch::ZERO,
            history: History::new(),
            incarnation,
            membership: Membership::genesis(geometry.quorums()),
            end: Lsn::ZERO,
            aside: None,
            floor: None,
            vdl: Vdl::ZERO,
            log: Log::default(),
        })
    }

    /// Returns what is there once the disk of this segment is lost: an empty one, which has a name
    /// of its own. Under the old one it would vote without what it had promised and held (edge 27).
    #[must_use]
    pub fn lost<R: Rules>(&self, rules: R) -> Self {
        let next = u32::from(!rules.has(Bug::IdentityReused));
        Self {
            group: self.group,
            geometry: self.geometry,
            promised: VolumeEpoch::ZERO,
            history: History::new(),
            incarnation: Incarnation::new(self.incarnation.get().saturating_add(next)),
            membership: Membership::genesis(self.geometry.quorums()),
            end: Lsn::ZERO,
            aside: None,
            floor: None,
            vdl: Vdl::ZERO,
            log: Log::default(),
        }
    }

    /// Applies one write that survived, in the order of submission.
    ///
    /// # Errors
    /// [`CorruptImage`] when the write can't have been made by a segment in this state.
    pub fn apply(&mut self, write: &SegmentWrite) -> Result<(), CorruptImage> {
        self.apply_under(Sound, write)
    }

    /// [`SegmentImage::apply`] for a machine that obeys `rules`.
    ///
    /// # Errors
    /// As there.
    pub fn apply_under<R: Rules>(
        &mut self,
        rules: R,
        write: &SegmentWrite,
    ) -> Result<(), CorruptImage> {
        self.promised = self.promised.max(write.promised);
        let mut vdl = self.vdl.max(write.vdl);
        if let Some(floor) = &write.floor {
            if !rules.has(Bug::FloorPromiseForgotten) {
                self.promised = self.promised.max(floor.promised);
            }
            self.floor = Some(self.floor.map_or(*floor, |own| own.join(floor)));
        }
        if let Some(history) = &write.history
            && (history.epoch() > self.history.epoch()
                || rules.has(Bug::CounterOnlyEpochs)
                || rules.has(Bug::GossipAnyHistory))
        {
            if !history.is_well_formed() && !rules.has(Bug::MergeHistories) {
                return Err(CorruptImage::History);
            }
            vdl = self.adopt(rules, history, write, vdl)?;
        }
        if self.history.epoch() > self.promised {
            return Err(CorruptImage::History);
        }
        if let Some(membership) = &write.membership
            && self.membership.yields_to(rules, membership)
        {
            self.membership = *membership;
        }
        self.vdl = vdl;
        for record in &write.records {
            self.insert(rules, record)?;
        }
        if write.base > self.log.base() {
            if write.base > self.vdl.lsn() && !rules.has(Bug::CollectAboveVdl) {
                return Err(CorruptImage::Base);
            }
            self.log.collect(rules, write.base);
        }
        self.forget_aside();
        self.repair(rules);
        Ok(())
    }

    /// Takes a newer history: drops what it annuls, sets aside what a backtrack may give back, and
    /// takes back what it doesn't annul any more. `vdl` is the highest VDL known before.
    ///
    /// Returns the VDL as far as it holds under the new history.
    fn adopt<R: Rules>(
        &mut self,
        rules: R,
        history: &History,
        write: &SegmentWrite,
        vdl: Vdl,
    ) -> Result<Vdl, CorruptImage> {
        let keep_scl = rules.has(Bug::SclNotLowered);
        let mut dropped = self.log.truncate(history.since(&self.history), keep_scl);
        let older = core::mem::replace(&mut self.history, history.clone());
        self.end = write.end;
        let left = self.aside.take();
        if left.is_none() && history.branch().is_none() {
            // As ever, but for a sleeper that hears of a backtrack when its branch is long gone.
            return Ok(lowered(rules, history, vdl, older.epoch()));
        }
        let (mut known, mut tip, mut left_vdl) = (write.tip, None, vdl);
        let mut holds = lowered(rules, history, vdl, older.epoch());
        if let Some(SetAside { tip: left_tip, vdl: before, records }) = left {
            left_vdl = left_vdl.max(before);
            let told_under = older.branch().map_or(VolumeEpoch::ZERO, |branch| branch.base_epoch());
            holds = holds.max(lowered(rules, history, before, told_under));
            tip = left_tip.filter(|_| older.left_by() == history.left_by());
            dropped.extend(records);
            dropped.sort_unstable_by_key(|record| record.lsn);
        }
        known = known.or(tip);
        let mut records = Vec::new();
        for record in dropped {
            if !self.history.annuls(&record) {
                // What has come in its place from a broken peer stays.
                self.log.insert(record);
            } else if self.history.branch().is_some_and(|branch| branch.contains(&record)) {
                records.push(record);
            }
        }
        if self.history.branch().is_some() {
            self.aside = Some(SetAside { tip: known, vdl: left_vdl, records });
        }
        Ok(holds)
    }

    /// Forgets what a backtrack has set aside, once something written since is known to be durable:
    /// every recovery finds that, and none goes forward again (edge 57).
    fn forget_aside(&mut self) {
        if self.aside.is_some() && self.vdl.lsn() > self.history.through() {
            self.aside = None;
        }
    }

    /// Removes the mark of a damaged log, in the very write that completes the repair: nothing is
    /// lacking that the segment may have acknowledged and that the history in force keeps.
    fn repair<R: Rules>(&mut self, rules: R) {
        let Some(floor) = &self.floor else { return };
        let is_whole = self.log.scl().lsn() >= floor.needed(self.history.through(), self.end);
        let has_membership = self.membership.epoch() >= floor.membership
            || rules.has(Bug::RepairedUnderOldMembership);
        let is_current = self.history.epoch() >= floor.history && has_membership;
        if (is_current || rules.has(Bug::RepairedUnderOldHistory))
            && (is_whole || rules.has(Bug::RepairedTooEarly))
        {
            self.floor = None;
        }
    }

    /// Applies what a crash left of a log, in the order of submission, up to the first gap.
    ///
    /// Returns how many writes were applied. What lies beyond a missing or torn write was never
    /// counted as durable and is discarded.
    ///
    /// # Errors
    /// As [`SegmentImage::apply`].
    pub fn replay_under<R: Rules>(
        &mut self,
        rules: R,
        log: impl IntoIterator<Item = Survivor>,
    ) -> Result<usize, CorruptImage> {
        let mut applied = 0usize;
        for survivor in log {
            match survivor {
                Survivor::Missing => break,
                Survivor::Torn(mut write) => {
                    if !rules.has(Bug::TornTailAccepted) {
                        break;
                    }
                    // A checksum would have shown that the end of the frame is missing.
                    write.history = None;
                    for record in &mut write.records {
                        record.payload.checksum = !record.payload.checksum;
                    }
                    self.apply_under(rules, &write)?;
                }
                Survivor::Whole(write) => self.apply_under(rules, &write)?,
            }
            applied = applied.saturating_add(1);
        }
        Ok(applied)
    }

    fn insert<R: Rules>(&mut self, rules: R, record: &Record) -> Result<(), CorruptImage> {
        let lsn = record.lsn;
        if !record.is_well_formed() {
            return Err(CorruptImage::Record { lsn });
        }
        if record.group != self.group {
            return Err(CorruptImage::WrongGroup { lsn });
        }
        if self.history.annuls(record) && !rules.has(Bug::GossipWithoutHistory) {
            return Ok(());
        }
        if lsn <= self.log.base() {
            // Held once, or superseded by what is held.
            return Ok(());
        }
        match self.log.insert(*record) {
            Insert::Added | Insert::Known => {}
            Insert::Conflict => return Err(CorruptImage::Conflict { lsn }),
        }
        if self.log.len() > self.geometry.limits().log_records_max as usize {
            return Err(CorruptImage::Full);
        }
        Ok(())
    }

    /// Returns the group.
    #[must_use]
    pub const fn group(&self) -> PgId {
        self.group
    }

    /// Returns the volume's geometry as it was created.
    #[must_use]
    pub const fn geometry(&self) -> &VolumeGeometry {
        &self.geometry
    }

    /// Returns the durable promise: no request of a lower epoch is accepted.
    #[must_use]
    pub const fn promised(&self) -> VolumeEpoch {
        self.promised
    }

    /// Returns the truncation history in force.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Returns which disk of its position this is.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the membership that the segment has, or had last.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the group's last record that the newest range of the history keeps.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// Returns what the newest backtrack has set aside, as long as it can come back.
    #[must_use]
    pub const fn aside(&self) -> Option<&SetAside> {
        self.aside.as_ref()
    }

    /// Returns what the segment may have said before its log was damaged; `None` for one that has
    /// all of it.
    #[must_use]
    pub const fn floor(&self) -> Option<Floor> {
        self.floor
    }

    /// Returns what the segment holds every record up to.
    #[must_use]
    pub fn scl(&self) -> Scl {
        self.log.scl()
    }

    /// Returns the highest VDL that the segment knows.
    #[must_use]
    pub const fn vdl(&self) -> Vdl {
        self.vdl
    }

    /// Returns the base: at or under it, only the newest version of each page is left.
    #[must_use]
    pub const fn base(&self) -> Lsn {
        self.log.base()
    }

    /// Returns the records, by rising LSN.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.log.records()
    }

    /// Returns whether there is a record with this LSN.
    #[must_use]
    pub fn holds(&self, lsn: Lsn) -> bool {
        self.log.get(lsn).is_some()
    }

    /// Returns the last record of `page` at or under `lsn`.
    #[must_use]
    pub fn version(&self, page: PageId, lsn: Lsn) -> Option<&Record> {
        self.log.version(page, lsn)
    }

    /// Asserts what every reachable state satisfies.
    ///
    /// # Panics
    /// When the code broke one of its own rules.
    pub fn assert_invariants(&self) {
        assert!(self.promised >= self.history.epoch());
        assert!(self.history.is_well_formed());
        assert!(self.membership.epoch().volume == self.history.epoch());
        assert!(self.log.base() <= self.vdl.lsn());
        assert!(self.log.records().iter().all(|record| record.group == self.group));
        assert!(!self.log.records().iter().any(|record| self.history.annuls(record)));
        if let Some(aside) = &self.aside {
            let branch = self.history.branch();
            let is_left = |record: &Record| branch.is_some_and(|branch| branch.contains(record));
            assert!(aside.records.iter().all(is_left));
        }
    }
}

/// Returns `vdl`, told under the history of `told_under`, as far as it holds under `history`.
fn lowered<R: Rules>(rules: R, history: &History, vdl: Vdl, told_under: VolumeEpoch) -> Vdl {
    if rules.has(Bug::KnownVdlNotLowered) {
        return vdl;
    }
    Vdl::stated(history.lowered(vdl.lsn(), told_under))
}
