//! A segment's durable state as a value that can be stored: what a restart begins with instead of
//! every write since the segment was created.
//!
//! A checkpoint stands for the writes before it. Whoever restores one applies the writes that came
//! after it, and no older ones: an older write may tell of a VDL that a backtrack has taken back.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::consistency::{Scl, Vdl};
use crate::epoch::VolumeEpoch;
use crate::floor::Floor;
use crate::geometry::VolumeGeometry;
use crate::id::{Incarnation, PgId};
use crate::image::{CorruptImage, SegmentImage, SetAside};
use crate::log::Log;
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::record::Record;
use crate::truncation::History;

/// All of a [`SegmentImage`] but its records, which are stored one by one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Checkpoint {
    /// The group.
    pub group: PgId,
    /// The volume's geometry.
    pub geometry: VolumeGeometry,
    /// The promise.
    pub promised: VolumeEpoch,
    /// The truncation history.
    pub history: History,
    /// Which disk of its position the segment is.
    pub incarnation: Incarnation,
    /// The membership.
    pub membership: Membership,
    /// The group's last record that the newest range of the history keeps.
    pub end: Lsn,
    /// What the newest backtrack has set aside, without its records: the tip and the VDL before.
    pub aside: Option<(Option<Lsn>, Vdl)>,
    /// What the segment may have said before its log was damaged.
    pub floor: Option<Floor>,
    /// The highest VDL that the segment knows.
    pub vdl: Vdl,
    /// The base.
    pub base: Lsn,
    /// The end of the unbroken chain.
    pub scl: Scl,
}

impl SegmentImage {
    /// Returns all of this but the records, which are [`SegmentImage::records`] and those of
    /// [`SegmentImage::aside`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            group: self.group,
            geometry: self.geometry,
            promised: self.promised,
            history: self.history.clone(),
            incarnation: self.incarnation,
            membership: self.membership,
            end: self.end,
            aside: self.aside.as_ref().map(|aside| (aside.tip, aside.vdl)),
            floor: self.floor,
            vdl: self.vdl,
            base: self.log.base(),
            scl: self.log.scl(),
        }
    }

    /// Returns the state of which `checkpoint` was made, with its records and those that were set
    /// aside, both by rising LSN.
    ///
    /// # Errors
    /// [`CorruptImage`] when no segment can have been in such a state.
    pub fn restore(
        checkpoint: Checkpoint,
        records: Vec<Record>,
        aside: Vec<Record>,
    ) -> Result<Self, CorruptImage> {
        let Checkpoint { group, geometry, history, vdl, base, scl, .. } = checkpoint;
        if !geometry.may_have(group) {
            return Err(CorruptImage::WrongGroup { lsn: Lsn::ZERO });
        }
        if !history.is_well_formed() || history.epoch() > checkpoint.promised {
            return Err(CorruptImage::History);
        }
        if base > vdl.lsn() {
            return Err(CorruptImage::Base);
        }
        if records.len() > geometry.limits().log_records_max as usize {
            return Err(CorruptImage::Full);
        }
        check(group, &records)?;
        check(group, &aside)?;
        if let Some(record) = records.iter().find(|record| history.annuls(record)) {
            return Err(CorruptImage::Record { lsn: record.lsn });
        }
        let aside = match (checkpoint.aside, history.branch()) {
            (None, _) if aside.is_empty() => None,
            (Some((tip, before)), Some(branch)) => {
                if let Some(record) = aside.iter().find(|record| !branch.contains(record)) {
                    return Err(CorruptImage::Record { lsn: record.lsn });
                }
                Some(SetAside { tip, vdl: before, records: aside })
            }
            (None | Some(_), _) => return Err(CorruptImage::History),
        };
        let log = Log::restore(records, base, scl.lsn()).ok_or(CorruptImage::Chain)?;
        Ok(Self {
            group,
            geometry,
            promised: checkpoint.promised,
            history,
            incarnation: checkpoint.incarnation,
            membership: checkpoint.membership,
            end: checkpoint.end,
            aside,
            floor: checkpoint.floor,
            vdl,
            log,
        })
    }
}

/// Checks records that come from a disk: each by itself, and that they rise.
fn check(group: PgId, records: &[Record]) -> Result<(), CorruptImage> {
    let mut before = Lsn::ZERO;
    for record in records {
        let lsn = record.lsn;
        if !record.is_well_formed() {
            return Err(CorruptImage::Record { lsn });
        }
        if record.group != group {
            return Err(CorruptImage::WrongGroup { lsn });
        }
        if lsn <= before {
            return Err(CorruptImage::Conflict { lsn });
        }
        before = lsn;
    }
    Ok(())
}
