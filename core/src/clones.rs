//! Clones: volumes whose pages default to those of another volume at a point (protocol: clones).
//!
//! A clone is a volume like any other, and starts empty. What a page isn't there, it is in the
//! parent at the clone's point, for as long as the parent keeps it: [`Clones`] is what whoever
//! drives the parent's writers must know of its clones, [`Lineage`] how the clone reads.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::effect::{CommandRefusal, WriterInput};
use crate::epoch::VolumeEpoch;
use crate::hold::{HoldName, Holds};
use crate::id::Ticket;
use crate::lsn::Lsn;
use crate::record::Record;
use crate::recovery::Backtrack;
use crate::rules::{Bug, Rules, Sound};

/// The most clones of one volume: each is told to every writer.
const CLONES_MAX: usize = 1_024;

/// The most volumes that a read of a clone asks, one after the other.
const DEPTH_MAX: usize = 16;

/// What a clone's pages default to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Origin {
    /// Names the clone among those of its parent: no two ever share one.
    pub clone: u64,
    /// The parent's consistency point.
    pub at: Lsn,
    /// The epoch of the parent's writer that located it.
    pub under: VolumeEpoch,
}

/// An input of the parent's list of clones.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ClonesInput {
    /// Somebody wants the volume to go back, or forward again, to `target`, with the next writer.
    Backtrack {
        /// The point.
        target: Lsn,
        /// The epoch that is to open there.
        epoch: VolumeEpoch,
    },
    /// Make a clone.
    Create {
        /// A name that no clone of this volume ever had.
        clone: u64,
        /// The parent's LSN.
        at: Lsn,
    },
    /// The clone is gone: nobody reads it any more.
    Delete {
        /// The clone.
        clone: u64,
    },
    /// The last list to be persisted is durable.
    Durable,
    /// The open writer has taken what [`ClonesEffect::Hold`] asked to tell it.
    Held,
    /// The open writer's answer to [`WriterInput::Locate`].
    Located {
        /// The question's ticket.
        ticket: Ticket,
        /// What lies there.
        backtrack: Backtrack,
    },
    /// The open writer's refusal of it.
    NotLocated(CommandRefusal),
    /// A writer of the parent has opened.
    Opened {
        /// Its epoch.
        epoch: VolumeEpoch,
    },
}

/// An effect of the parent's list of clones.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken at once, and never kept")]
pub enum ClonesEffect {
    /// Give the open writer a command.
    Command(WriterInput),
    /// Tell the open writer [`Clones::holds`], with every other reason to hold something, then
    /// report [`ClonesInput::Held`].
    Hold,
    /// Make this list durable: a restart begins with it.
    Persist {
        /// By clone: its point.
        clones: Vec<(u64, Lsn)>,
    },
    /// Tell whoever asked.
    Report(ClonesReport),
}

/// What the parent's list of clones has to say.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ClonesReport {
    /// The volume may go where it was to go: nothing that a clone needs lies above.
    Allowed {
        /// The point.
        target: Lsn,
    },
    /// The clone can be read.
    Created(Origin),
    /// The parent holds nothing for the clone any more.
    Deleted {
        /// The clone.
        clone: u64,
    },
    /// Nothing was done.
    Refused(CloneRefusal),
}

/// Why something about clones isn't done.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloneRefusal {
    /// The volume is about to go to another point: wait until a writer has opened.
    Backtracking,
    /// Another change of the list is under way.
    Busy,
    /// A clone needs what lies above the point to which the volume was to go (edge 57).
    HeldBy {
        /// The clone.
        clone: u64,
        /// Its point.
        at: Lsn,
    },
    /// The name was taken, or there are as many clones as there may be.
    Taken,
    /// There is no such clone.
    Unknown,
    /// The open writer can't locate the point.
    Unlocated(CommandRefusal),
}

/// The clones of one volume, as whoever drives its writers keeps them: first durable, then held,
/// then located, and only then read (edges 44 and 47).
///
/// ```text
///  Create --> durable? --> held? --> located? --> Created
///                                      '--> refused: durable without it
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Clones<R: Rules = Sound> {
    rules: R,
    /// Those in force, and the one that is being made or deleted.
    clones: BTreeMap<u64, Lsn>,
    change: Option<Change>,
    /// A writer that is to open elsewhere, until one of its epoch or a later one has opened.
    backtracking: Option<VolumeEpoch>,
    tickets: u64,
}

/// A change of the list under way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Change {
    Creating {
        clone: u64,
        stage: Stage,
    },
    Deleting {
        clone: u64,
    },
    /// What wasn't located is taken off again.
    Undoing {
        refusal: CommandRefusal,
    },
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stage {
    Persisting,
    Holding,
    Locating,
}

impl Clones {
    /// Returns the list that a restart begins with.
    #[must_use]
    pub fn new(durable: &[(u64, Lsn)]) -> Self {
        Self::new_under(Sound, durable)
    }
}

impl<R: Rules> Clones<R> {
    /// [`Clones::new`] under `rules`.
    #[must_use]
    pub fn new_under(rules: R, durable: &[(u64, Lsn)]) -> Self {
        let clones = durable.iter().copied().collect();
        Self { rules, clones, change: None, backtracking: None, tickets: 0 }
    }

    /// Takes one input and appends what is to be done to `effects`. See [`crate::effect`] for the
    /// contract.
    pub fn step(&mut self, input: ClonesInput, effects: &mut Vec<ClonesEffect>) {
        match input {
            ClonesInput::Backtrack { target, epoch } => {
                effects.push(ClonesEffect::Report(match self.go_back(target, epoch) {
                    Ok(()) => ClonesReport::Allowed { target },
                    Err(refusal) => ClonesReport::Refused(refusal),
                }));
            }
            ClonesInput::Create { clone, at } => {
                if let Some(refusal) = self.refuse_create(clone) {
                    effects.push(refused(refusal));
                    return;
                }
                self.clones.insert(clone, at);
                self.change = Some(Change::Creating { clone, stage: Stage::Persisting });
                self.persist(None, effects);
            }
            ClonesInput::Delete { clone } => {
                if self.change.is_some() || !self.clones.contains_key(&clone) {
                    let is_busy = self.change.is_some();
                    let refusal = if is_busy { CloneRefusal::Busy } else { CloneRefusal::Unknown };
                    effects.push(refused(refusal));
                    return;
                }
                self.change = Some(Change::Deleting { clone });
                self.persist(Some(clone), effects);
            }
            ClonesInput::Durable => self.durable(effects),
            ClonesInput::Held => self.held(effects),
            ClonesInput::Located { ticket, backtrack } => {
                self.located(ticket, &backtrack, effects);
            }
            ClonesInput::NotLocated(refusal) => self.not_located(refusal, effects),
            ClonesInput::Opened { epoch } => self.opened(epoch, effects),
        }
    }

    /// What a clone defaults to must stay in the parent's log. From here on until a writer has
    /// opened, no clone is made: its point might be one that the volume leaves.
    fn go_back(&mut self, target: Lsn, epoch: VolumeEpoch) -> Result<(), CloneRefusal> {
        let above = self.clones.iter().find(|(_, at)| **at > target);
        if let Some((clone, at)) = above
            && !self.rules.has(Bug::BacktrackUnderClone)
        {
            return Err(CloneRefusal::HeldBy { clone: *clone, at: *at });
        }
        self.backtracking = self.backtracking.max(Some(epoch));
        Ok(())
    }

    fn refuse_create(&self, clone: u64) -> Option<CloneRefusal> {
        if self.backtracking.is_some() && !self.rules.has(Bug::BacktrackUnderClone) {
            return Some(CloneRefusal::Backtracking);
        }
        if self.change.is_some() {
            return Some(CloneRefusal::Busy);
        }
        let is_full = self.clones.len() >= CLONES_MAX;
        (is_full || self.clones.contains_key(&clone)).then_some(CloneRefusal::Taken)
    }

    fn persist(&self, without: Option<u64>, effects: &mut Vec<ClonesEffect>) {
        let left = self.clones.iter().filter(|(clone, _)| Some(**clone) != without);
        let clones = left.map(|(clone, at)| (*clone, *at)).collect();
        effects.push(ClonesEffect::Persist { clones });
    }

    fn durable(&mut self, effects: &mut Vec<ClonesEffect>) {
        match self.change {
            Some(Change::Creating { clone, stage: Stage::Persisting }) => {
                self.change = Some(Change::Creating { clone, stage: Stage::Holding });
            }
            Some(Change::Deleting { clone }) => {
                self.clones.remove(&clone);
                self.change = None;
                effects.push(ClonesEffect::Report(ClonesReport::Deleted { clone }));
            }
            Some(Change::Undoing { refusal }) => {
                self.change = None;
                effects.push(refused(CloneRefusal::Unlocated(refusal)));
            }
            Some(Change::Creating { .. }) | None => return,
        }
        effects.push(ClonesEffect::Hold);
    }

    /// The writer holds the point: it tells now whether it still has it, and whether it is one.
    fn held(&mut self, effects: &mut Vec<ClonesEffect>) {
        let Some(Change::Creating { clone, stage: Stage::Holding }) = self.change else { return };
        let Some(target) = self.clones.get(&clone).copied() else { return };
        self.change = Some(Change::Creating { clone, stage: Stage::Locating });
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Ticket::new(self.tickets);
        effects.push(ClonesEffect::Command(WriterInput::Locate { ticket, target }));
    }

    fn located(&mut self, ticket: Ticket, found: &Backtrack, effects: &mut Vec<ClonesEffect>) {
        let Some(Change::Creating { clone, stage: Stage::Locating }) = self.change else { return };
        let at = self.clones.get(&clone).copied();
        if ticket != Ticket::new(self.tickets) || at != Some(found.target) {
            return;
        }
        self.change = None;
        let origin = Origin { clone, at: found.target, under: found.under };
        effects.push(ClonesEffect::Report(ClonesReport::Created(origin)));
    }

    fn not_located(&mut self, refusal: CommandRefusal, effects: &mut Vec<ClonesEffect>) {
        let Some(Change::Creating { clone, stage: Stage::Locating }) = self.change else { return };
        self.clones.remove(&clone);
        self.change = Some(Change::Undoing { refusal });
        self.persist(None, effects);
    }

    /// Another writer: it holds nothing before it is told, and has been asked nothing.
    fn opened(&mut self, epoch: VolumeEpoch, effects: &mut Vec<ClonesEffect>) {
        if self.backtracking.is_some_and(|backtracking| epoch >= backtracking) {
            self.backtracking = None;
        }
        if let Some(Change::Creating { clone, stage: Stage::Locating }) = self.change {
            self.change = Some(Change::Creating { clone, stage: Stage::Holding });
        }
        effects.push(ClonesEffect::Hold);
    }

    /// Returns `others` with what the clones need.
    #[must_use]
    pub fn holds(&self, others: Holds) -> Holds {
        if self.rules.has(Bug::CloneWithoutHold) {
            return others;
        }
        let with =
            |holds: Holds, (clone, at): (&u64, &Lsn)| holds.with(HoldName::Clone(*clone), *at);
        self.clones.iter().fold(others, with)
    }

    /// Returns the clones, by name, with their points.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Lsn)> + '_ {
        self.clones.iter().map(|(clone, at)| (*clone, *at))
    }
}

/// The volumes that a clone's pages come from: itself, then its parent, and so on.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Lineage {
    #[serde(deserialize_with = "crate::list::deserialize")]
    origins: Vec<Origin>,
}

/// What comes next in a read of a clone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lookup {
    /// Read the page in a volume of the lineage: zero is the clone itself.
    Ask {
        /// Which.
        level: usize,
        /// The read point there; `None` for the one at which the clone is read.
        at: Option<Lsn>,
    },
    /// The page is this.
    Found {
        /// In which volume.
        level: usize,
        /// The record, `None` for a page that was never written.
        version: Option<Record>,
    },
}

impl Lineage {
    /// Returns the lineage of a volume that is nobody's clone.
    #[must_use]
    pub const fn new() -> Self {
        Self { origins: Vec::new() }
    }

    /// Returns the lineage of a clone, with `origin`, of a volume of this lineage; `None` when that
    /// is too long.
    #[must_use]
    pub fn child(&self, origin: Origin) -> Option<Self> {
        if self.origins.len() >= DEPTH_MAX {
            return None;
        }
        let origins = core::iter::once(origin).chain(self.origins.iter().copied()).collect();
        Some(Self { origins })
    }

    /// Returns where a read begins.
    #[must_use]
    pub const fn first(&self) -> Lookup {
        Lookup::Ask { level: 0, at: None }
    }

    /// Returns what follows when the volume at `level` has said that the page is `version`.
    #[must_use]
    pub fn after<R: Rules>(&self, rules: R, level: usize, version: Option<Record>) -> Lookup {
        match (version, self.origins.get(level)) {
            (None, Some(origin)) => {
                let at = (!rules.has(Bug::CloneReadsTip)).then_some(origin.at);
                Lookup::Ask { level: level.saturating_add(1), at }
            }
            (Some(_), _) | (None, None) => Lookup::Found { level, version },
        }
    }
}

const fn refused(refusal: CloneRefusal) -> ClonesEffect {
    ClonesEffect::Report(ClonesReport::Refused(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InstanceId, PageId, PgId};
    use crate::record::Payload;

    const E: VolumeEpoch = VolumeEpoch::new(1, InstanceId::new(1));

    fn record(page: u64, lsn: u64) -> Record {
        Record {
            lsn: Lsn::new(lsn),
            epoch: E,
            prev_volume: Lsn::ZERO,
            prev_group: Lsn::ZERO,
            group: PgId::new(0),
            page: PageId::new(page),
            cpl: true,
            payload: Payload::default(),
        }
    }

    fn origin(clone: u64, at: u64) -> Origin {
        Origin { clone, at: Lsn::new(at), under: E }
    }

    /// A clone of a clone would read its grandparent at the wrong point, or not at all.
    #[test]
    fn a_read_goes_up_the_lineage_each_time_at_its_own_point() {
        let child = Lineage::new().child(origin(1, 7)).and_then(|it| it.child(origin(1, 3)));
        let Some(lineage) = child else { unreachable!("two levels") };
        assert_eq!(lineage.first(), Lookup::Ask { level: 0, at: None });
        let up = |level| lineage.after(Sound, level, None);
        assert_eq!(up(0), Lookup::Ask { level: 1, at: Some(Lsn::new(3)) });
        assert_eq!(up(1), Lookup::Ask { level: 2, at: Some(Lsn::new(7)) });
        assert_eq!(up(2), Lookup::Found { level: 2, version: None });
        let version = Some(record(4, 2));
        assert_eq!(lineage.after(Sound, 1, version), Lookup::Found { level: 1, version });
    }

    /// Versions that a clone needs would be discarded before its first read, or for ever kept after
    /// its last.
    #[test]
    fn a_clone_is_durable_then_held_then_located() {
        let (mut clones, mut effects) = (Clones::new(&[]), Vec::new());
        let mut step = |clones: &mut Clones, input| {
            clones.step(input, &mut effects);
            core::mem::take(&mut effects)
        };
        let at = Lsn::new(5);
        let list = alloc::vec![(1, at)];
        let created = step(&mut clones, ClonesInput::Create { clone: 1, at });
        assert_eq!(created, [ClonesEffect::Persist { clones: list }]);
        assert_eq!(step(&mut clones, ClonesInput::Held), []);
        assert_eq!(step(&mut clones, ClonesInput::Durable), [ClonesEffect::Hold]);
        assert_eq!(clones.holds(Holds::new()).lowest(), Some(at));
        let ticket = Ticket::new(1);
        let locate = ClonesEffect::Command(WriterInput::Locate { ticket, target: at });
        assert_eq!(step(&mut clones, ClonesInput::Held), [locate]);
        let backtrack = Backtrack { under: E, target: at, ends: Vec::new(), tips: Vec::new() };
        let located = step(&mut clones, ClonesInput::Located { ticket, backtrack });
        assert_eq!(located, [ClonesEffect::Report(ClonesReport::Created(origin(1, 5)))]);
        // It stays where it is: in every later writer's floor, and below what is taken back.
        let refusal = CloneRefusal::HeldBy { clone: 1, at };
        let back = ClonesInput::Backtrack { target: Lsn::new(4), epoch: E };
        assert_eq!(step(&mut clones, back), [refused(refusal)]);
        assert_eq!(step(&mut clones, ClonesInput::Opened { epoch: E }), [ClonesEffect::Hold]);
        let deleted = step(&mut clones, ClonesInput::Delete { clone: 1 });
        assert_eq!(deleted, [ClonesEffect::Persist { clones: Vec::new() }]);
        assert_eq!(clones.holds(Holds::new()).lowest(), Some(at), "until that is durable");
        step(&mut clones, ClonesInput::Durable);
        assert_eq!(clones.holds(Holds::new()).lowest(), None);
    }

    /// A clone could be made of what a backtrack on its way takes back.
    #[test]
    fn no_clone_is_made_while_the_volume_goes_elsewhere() {
        let (mut clones, mut effects) = (Clones::new(&[]), Vec::new());
        let next = VolumeEpoch::new(2, InstanceId::new(2));
        clones.step(ClonesInput::Backtrack { target: Lsn::ZERO, epoch: next }, &mut effects);
        let create = ClonesInput::Create { clone: 1, at: Lsn::new(5) };
        clones.step(create.clone(), &mut effects);
        clones.step(ClonesInput::Opened { epoch: E }, &mut effects);
        clones.step(create.clone(), &mut effects);
        let refusal = refused(CloneRefusal::Backtracking);
        assert_eq!(effects.iter().filter(|effect| **effect == refusal).count(), 2);
        clones.step(ClonesInput::Opened { epoch: next }, &mut effects);
        clones.step(create, &mut effects);
        assert!(matches!(effects.last(), Some(ClonesEffect::Persist { .. })));
    }
}
