//! Memberships: who a group's segments are, and the steps from one to the next.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::epoch::VolumeEpoch;
use crate::formula::{Formula, Half, Term};
use crate::geometry::Added;
use crate::id::{Incarnation, Position, Positions, SegmentId, SegmentSet};
use crate::quorum::{QuorumError, QuorumSet};
use crate::rules::{Bug, Rules};

/// The version of a group's membership, ordered by the proposer's volume epoch first: a number says
/// nothing across epochs (edge 66).
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct MembershipEpoch {
    /// The epoch of the writer that proposed it.
    pub volume: VolumeEpoch,
    /// Rises with each step of that writer; zero is what its recovery adopted.
    pub number: u32,
}

impl fmt::Display for MembershipEpoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "m{}.{}", self.volume.counter(), self.number)
    }
}

/// Who the segments of a group are and which of them are its quorums.
///
/// A step is durable when a write quorum of `before` and one of `quorums` hold it. *Settled* is the
/// mark that says so: a further membership, of the next number, whose `before` is itself. It is
/// proposed after the step is durable, never with it (edge 70).
///
/// That of the volume's first group also says how far the volume has grown (edge 55): a group is
/// added by a step like any other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct Membership {
    epoch: MembershipEpoch,
    quorums: Formula,
    before: Formula,
    /// Groups that were added to the volume; none but in the membership of its first group.
    added: Added,
    /// As `added`, in the membership that this one was proposed from.
    added_before: Added,
    /// By position: the disk that has it, or had it last.
    incarnations: Positions<Incarnation>,
    /// By position: disks below this one are refused for ever.
    burnt: Positions<Incarnation>,
}

/// A step that an open writer can be asked to take.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Step {
    /// Finish a change: its new members have all that they need.
    Finish(Half),
    /// Add a group to the volume: a step of the first group.
    Grow,
    /// Begin to replace `old` by `new`.
    Replace {
        /// The place of the member that goes.
        old: Position,
        /// Who comes: at a place without a member.
        new: SegmentId,
    },
    /// Begin to change the shape of the group. Members that come back are those last at their
    /// place, or, where that one is burnt, the next disk.
    Reshape(Term),
    /// Take a change back.
    Revert(Half),
}

/// Why a step can't be taken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum StepRefusal {
    /// The disk that should join is known to be dead, or was there before.
    Burnt,
    /// No such change is under way, or no such member.
    Nothing,
    /// Some member that the step needs lacks records.
    NotHydrated,
    /// The quorums of the membership that would come could miss those in force.
    Quorums,
    /// The last step isn't settled on a write quorum yet.
    Unsettled,
}

impl Membership {
    /// Returns the membership of a group that has never changed.
    #[must_use]
    pub fn genesis(quorums: QuorumSet) -> Self {
        let quorums = Formula::single(Term::of(quorums));
        Self {
            epoch: MembershipEpoch::default(),
            quorums,
            before: quorums,
            added: Added::NONE,
            added_before: Added::NONE,
            incarnations: Positions::default(),
            burnt: Positions::default(),
        }
    }

    /// Returns this membership as the writer of `volume` proposes it anew, with the same `before`:
    /// a recovery never assumes that what it found is durable (edges 65 and 67).
    #[must_use]
    pub const fn adopted_by(self, volume: VolumeEpoch) -> Self {
        Self { epoch: MembershipEpoch { volume, number: 0 }, ..self }
    }

    /// Returns the settled mark of this membership.
    #[must_use]
    pub const fn settled(self, volume: VolumeEpoch) -> Self {
        let (epoch, added_before) = (self.next_epoch(volume), self.added);
        Self { epoch, before: self.quorums, added_before, ..self }
    }

    /// Returns this membership as that of a volume with `added` groups more than at its creation.
    #[must_use]
    pub fn grown(self, added: Added) -> Self {
        let is_next = self.added_before.next() == Some(added);
        let added_before = if is_next { self.added_before } else { added };
        Self { added, added_before, ..self }
    }

    /// Returns this membership as a seeded bug proposes it: with its settled mark.
    pub(crate) const fn with_mark_too_early(self) -> Self {
        Self { before: self.quorums, added_before: self.added, ..self }
    }

    /// Returns the membership that an operator forces when the `lost` members never come back: all
    /// survivors, each of which has to hold everything. The lost identities are burnt.
    ///
    /// It is a joint one. As long as it is in force all survivors seal: whoever finds it on one of
    /// them can't know whether that one holds what another was told to keep. [`Step::Finish`] leads
    /// on to the one that any survivor seals.
    ///
    /// # Errors
    /// [`StepRefusal::Quorums`] when the lost could have been a write quorum by themselves: then
    /// acknowledged records may be lost with them.
    pub fn forced<R: Rules>(mut self, rules: R, lost: SegmentSet) -> Result<Self, StepRefusal> {
        // Every write quorum that acknowledged data can rest on has a survivor.
        if self.quorums.writes(lost, 0) || self.before.writes(lost, 0) {
            return Err(StepRefusal::Quorums);
        }
        let survivors = self.quorums.reading().members().without(lost);
        if !self.quorums.reads(survivors, 0) {
            return Err(StepRefusal::Quorums);
        }
        let term = Term::survivors(survivors).map_err(|_| StepRefusal::Quorums)?;
        self.quorums = if rules.has(Bug::ForcedTooEarly) {
            Formula::single(term)
        } else {
            Formula::joint(term.sealed_by_all(), term)
        };
        self.before = self.quorums;
        for position in lost.iter() {
            let dead = self.incarnations.at(position).get();
            *self.burnt.at_mut(position) = Incarnation::new(dead.saturating_add(1));
        }
        Ok(self)
    }

    /// Returns the membership that `step` of the writer of `volume` leads to, unsettled.
    ///
    /// # Errors
    /// [`StepRefusal`] when there is no such step, or its quorums could miss those in force.
    pub fn after<R: Rules>(
        &self,
        rules: R,
        volume: VolumeEpoch,
        step: Step,
    ) -> Result<Self, StepRefusal> {
        let (epoch, added_before) = (self.next_epoch(volume), self.added);
        let mut next = Self { epoch, before: self.quorums, added_before, ..*self };
        match step {
            Step::Finish(half) => {
                next.quorums = self.quorums.finished(half).ok_or(StepRefusal::Nothing)?;
            }
            Step::Grow => next.added = self.added.next().ok_or(StepRefusal::Nothing)?,
            Step::Replace { old, new } => {
                next.quorums = self.replacing(old, new)?;
                *next.incarnations.at_mut(new.position) = new.incarnation;
            }
            Step::Reshape(target) => {
                let single = self.quorums.as_single().ok_or(StepRefusal::Nothing)?;
                if *single == target {
                    return Err(StepRefusal::Nothing);
                }
                for position in target.members().iter() {
                    // The place of a burnt disk is one for the next disk there.
                    let known = next.incarnations.at_mut(position);
                    *known = (*known).max(*self.burnt.at(position));
                }
                next.quorums = Formula::joint(*single, target);
            }
            Step::Revert(half) => {
                if let Some(single) = self.quorums.as_single()
                    && rules.has(Bug::RevertFromSingle)
                {
                    // To the members at the first positions, without a joint and unchecked.
                    next.quorums = Formula::single(single.at_first_positions());
                    return Ok(next);
                }
                next.quorums = self.quorums.reverted(half).ok_or(StepRefusal::Nothing)?;
            }
        }
        let is_sound = next.quorums.check().and_then(|()| next.quorums.follows(&self.quorums));
        is_sound.map_err(|_| StepRefusal::Quorums)?;
        Ok(next)
    }

    /// A place is taken by a disk that is new there: under an old name it would speak for promises
    /// and records that it has lost (edge 27).
    fn replacing(&self, old: Position, new: SegmentId) -> Result<Formula, StepRefusal> {
        let members = self.quorums.members();
        if !members.contains(old) || members.contains(new.position) {
            return Err(StepRefusal::Nothing);
        }
        let is_dead = new.incarnation < *self.burnt.at(new.position)
            || new.incarnation < *self.incarnations.at(new.position);
        if is_dead {
            return Err(StepRefusal::Burnt);
        }
        self.quorums.with_replacement(old, new.position).ok_or(StepRefusal::Unsettled)
    }

    fn is_burnt(&self, position: Position) -> bool {
        self.incarnations.at(position) < self.burnt.at(position)
    }

    const fn next_epoch(&self, volume: VolumeEpoch) -> MembershipEpoch {
        MembershipEpoch { volume, number: self.epoch.number.saturating_add(1) }
    }

    /// Returns the version.
    #[must_use]
    pub const fn epoch(&self) -> MembershipEpoch {
        self.epoch
    }

    /// Returns the quorums.
    #[must_use]
    pub const fn quorums(&self) -> &Formula {
        &self.quorums
    }

    /// Returns the quorums that this membership was proposed from; its own once it is settled.
    #[must_use]
    pub const fn before(&self) -> &Formula {
        &self.before
    }

    /// Returns how many groups the volume has got since it was created, if this is the membership
    /// of its first group.
    #[must_use]
    pub const fn added(&self) -> Added {
        self.added
    }

    /// Returns whether this is the mark of a durable step.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.before == self.quorums && self.added_before == self.added
    }

    /// Returns everybody whom this membership concerns: its members and those before it.
    #[must_use]
    pub fn everyone(&self) -> SegmentSet {
        self.quorums.members().or(self.before.members())
    }

    /// Returns the disk at `position`.
    #[must_use]
    pub fn incarnation(&self, position: Position) -> Incarnation {
        *self.incarnations.at(position)
    }

    /// Returns whether the segment at `position` with this disk is one whom this membership
    /// concerns: acknowledgements count by identity (edges 25 and 29).
    #[must_use]
    pub fn knows(&self, position: Position, incarnation: Incarnation) -> bool {
        self.everyone().contains(position)
            && self.incarnation(position) == incarnation
            && !self.is_burnt(position)
    }

    /// Returns whether a segment that holds this membership should hold `other` instead.
    #[must_use]
    pub fn yields_to<R: Rules>(&self, rules: R, other: &Self) -> bool {
        if rules.has(Bug::MembershipByNumber) {
            let by_number = |of: &Self| (of.epoch.number, of.epoch.volume);
            return by_number(other) > by_number(self);
        }
        other.epoch > self.epoch
    }
}

impl<'de> Deserialize<'de> for Membership {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Membership")]
        struct Parts {
            epoch: MembershipEpoch,
            quorums: Formula,
            before: Formula,
            added: Added,
            added_before: Added,
            incarnations: Positions<Incarnation>,
            burnt: Positions<Incarnation>,
        }
        let Parts { epoch, quorums, before, added, added_before, incarnations, burnt } =
            Parts::deserialize(input)?;
        if added != added_before && added_before.next() != Some(added) {
            return Err(serde::de::Error::custom("more than one group added at once"));
        }
        match quorums.follows(&before) {
            Ok(()) => Ok(Self { epoch, quorums, before, added, added_before, incarnations, burnt }),
            Err(QuorumError::OutOfRange)
            | Err(QuorumError::ReadMissesWrite)
            | Err(QuorumError::WriteMissesWrite) => {
                Err(serde::de::Error::custom("quorums that could miss those before them"))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::rules::Sound;

    const E: VolumeEpoch = VolumeEpoch::new(7, InstanceId::new(7));

    fn at(index: usize) -> Position {
        Position::new(index).unwrap()
    }

    fn genesis() -> Membership {
        Membership::genesis(QuorumSet::AURORA).adopted_by(E)
    }

    fn replace(old: usize, new: usize, incarnation: u32) -> Step {
        let new = SegmentId { position: at(new), incarnation: Incarnation::new(incarnation) };
        Step::Replace { old: at(old), new }
    }

    /// A number of another epoch could win over a newer epoch (edge 66).
    #[test]
    fn memberships_are_ordered_by_epoch_first() {
        let older = MembershipEpoch { volume: VolumeEpoch::new(1, InstanceId::new(1)), number: 9 };
        let newer = MembershipEpoch { volume: VolumeEpoch::new(2, InstanceId::new(2)), number: 0 };
        assert!(older < newer);
    }

    /// A place could be given to a disk that has lost what it promised, or taken twice.
    #[test]
    fn only_a_new_disk_takes_a_place() {
        let joint = genesis().after(Sound, E, replace(5, 6, 1)).unwrap();
        assert!(joint.knows(at(6), Incarnation::new(1)));
        assert!(!joint.knows(at(6), Incarnation::new(0)));
        let settled = joint.settled(E);
        let single = settled.after(Sound, E, Step::Finish(Half::Older)).unwrap().settled(E);
        assert!(!single.knows(at(5), Incarnation::new(0)), "F is out");
        assert_eq!(single.after(Sound, E, replace(6, 0, 1)), Err(StepRefusal::Nothing));
        assert_eq!(single.after(Sound, E, replace(5, 7, 1)), Err(StepRefusal::Nothing));
        let back = single.after(Sound, E, replace(0, 5, 1)).unwrap().settled(E);
        let without = back.after(Sound, E, Step::Revert(Half::Older)).unwrap().settled(E);
        assert_eq!(without.after(Sound, E, replace(0, 5, 0)), Err(StepRefusal::Burnt));
    }

    /// A forced rebuild could forget what three lost members alone would have known.
    #[test]
    fn a_forced_membership_needs_a_read_quorum_and_burns_the_lost() {
        let lost = SegmentSet::from_bits(0b11_1000);
        let forced = genesis().forced(Sound, lost).unwrap();
        let survivors = SegmentSet::from_bits(0b00_0111);
        let two = SegmentSet::from_bits(0b00_0011);
        assert_eq!(forced.quorums().members(), survivors);
        assert!(!forced.quorums().writes(two, 0) && forced.quorums().writes(survivors, 0));
        assert!(!forced.quorums().reads(two, 0) && forced.quorums().reads(survivors, 0));
        assert!(!forced.knows(at(4), Incarnation::new(0)));
        let four = SegmentSet::from_bits(0b11_1100);
        assert_eq!(genesis().forced(Sound, four), Err(StepRefusal::Quorums));
        // Once all hold everything, each knows everything.
        let whole = forced.after(Sound, E, Step::Finish(Half::Older)).unwrap().settled(E);
        assert!(whole.quorums().reads(SegmentSet::only(at(0)), 0));
        // A burnt disk never comes back, a new one at its place may.
        let six = Term::six(SegmentSet::from_bits(0b11_1111)).unwrap();
        let back = whole.after(Sound, E, Step::Reshape(six)).unwrap();
        assert!(!back.knows(at(5), Incarnation::new(0)) && back.knows(at(5), Incarnation::new(1)));
        assert!(back.knows(at(0), Incarnation::new(0)));
        assert_eq!(whole.after(Sound, E, replace(0, 5, 0)), Err(StepRefusal::Burnt));
        assert!(whole.after(Sound, E, replace(0, 5, 1)).is_ok());
    }
}
