//! The rules of the protocol as a type parameter, so that a check can switch one off.
//!
//! Machines ask `R::default()`-like values whether a seeded bug is in force. [`Sound`], the only
//! rules in anything shipped, has no size and answers no: the question compiles to nothing.

use core::fmt::Debug;
use core::hash::Hash;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident [$($edge:literal),*],)*) => {
        /// A seeded bug: one rule of the protocol switched off or got wrong.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Bug {
            /// Every seeded bug, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the bug's name as people type it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns what is wrong in a machine that has this bug.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)*
                }
            }

            /// Returns the numbers of the sharp edges that this bug stands for.
            #[must_use]
            pub const fn edges(self) -> &'static [u8] {
                match self {
                    $(Self::$name => &[$($edge),*],)*
                }
            }

            /// Returns the bug with this name, without regard to case.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|bug| bug.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

bugs! {
    /// A segment acknowledges an append when it is received, before it is durable.
    AckBeforeDurable [26],
    /// A segment acknowledges the highest LSN that it holds, holes below it or not.
    AckCountsHoles [9],
    /// A writer counts what a removed segment acknowledges as if some member had.
    AckFromEvicted [25, 29],
    /// A promise is durable before appends that were submitted earlier, and these are still
    /// acknowledged to the older epoch.
    AckOldEpochAfterSeal [64],
    /// A recovery keeps the membership that it finds under the epoch of its proposer.
    AdoptWithoutRepropose [67],
    /// A writer allocates without regard to the allocation limit.
    AllocateBeyondLimit [18],
    /// A recovery counts answers as they are, without applying the chosen history to them.
    AnswersNotFiltered [4, 20],
    /// A segment takes appends of an epoch whose history it doesn't have.
    AppendWithoutHistory [24],
    /// A recovery doesn't count what a segment has set aside, whether the backtrack holds or not.
    AsideNotReported [57],
    /// The first record of an epoch links back to an annulled record.
    BacklinkToAnnulled [20],
    /// A volume goes back to any LSN, not only to where a mini-transaction ends.
    BacktrackAnywhere [58],
    /// A segment that takes over a peer's base leaves its SCL where it was.
    BaseWithoutScl [39],
    /// A recovery lets a member that joins vote when it seems to lack nothing.
    CandidateJudgesHydration [69],
    /// A segment discards versions up to its SCL, whatever the VDL and the garbage floor are.
    CollectAboveVdl [23],
    /// A writer's garbage floor passes the named floors that it was told to hold.
    CollectAheadOfHold [47],
    /// A recovery opens when a read quorum of each group, not a write quorum, is complete.
    CompleteOnReadQuorum [8],
    /// Completion counts the SCLs of seal answers.
    CompletionCountsSeals [71],
    /// Confirmations that were given to an earlier question count for the one under way.
    ConfirmAnyTicket [52],
    /// Confirmation of a strict read is given by segments that have promised a higher epoch.
    ConfirmWhenFenced [52],
    /// The fence compares epoch counters without the writer's instance.
    CounterOnlyEpochs [3],
    /// A record loses its CPL flag when it travels by gossip.
    CplLostInGossip [16],
    /// A change of shape is finished when those who join have all they need, whatever the others
    /// have.
    DegradedWithoutHydration [41],
    /// A writer counts acknowledgements, not the segments that gave them.
    DuplicateAckCounted [29],
    /// A segment counts a write as durable while an earlier one is still under way.
    DurableOutOfOrder [26],
    /// A reader that was expelled is registered again where it was, under the garbage floor.
    ExpelWithoutRefusal [45],
    /// A writer's garbage floor passes the read points of its readers.
    FloorAheadOfReader [44],
    /// A segment takes the garbage floor of a writer that it refuses.
    FloorOfOldWriter [46],
    /// A damaged segment restarts without the promise that it may have made.
    FloorPromiseForgotten [26, 75],
    /// What an operator says of lost disks is taken for the disks that have come in their places.
    ForcedByPlace [27],
    /// What an operator forces lets any one survivor seal before all of them hold everything.
    ForcedTooEarly [65],
    /// A volume goes forward again although something was written since it went back.
    ForwardAfterWrite [57],
    /// Gossip adopts a history that is older than the segment's own.
    GossipAnyHistory [24, 71],
    /// Gossip adopts a history below the segment's promise.
    GossipBelowPromise [71],
    /// Gossip inserts records without regard to the history that annuls them.
    GossipWithoutHistory [24],
    /// A group that is added gets records before a write quorum of the first group knows of it.
    GrowthBeforeFirstGroup [55],
    /// A group that is added gets records before a write quorum of its own has the history.
    GrowthBeforeOwnQuorum [55],
    /// A recovery takes the number of groups from the membership with the highest number.
    GrowthByNumber [55, 66],
    /// A segment of a group that is added takes appends of any writer until it has a history.
    GrowthFreshUnfenced [55, 56],
    /// A recovery knows of the groups that the volume had when its process looked first.
    GrowthNotFound [55],
    /// A recovery seals a group that it finds, but proposes the number of groups that it knew.
    GrowthNotReproposed [55, 67],
    /// A recovery ignores the histories that it finds and installs only its own range.
    HistoryNotCarried [4],
    /// A disk that lost everything comes back under its old name.
    IdentityReused [27],
    /// A recovery opens when one group is sealed and installed, not all.
    IdleGroupIgnored [54, 56],
    /// A damaged segment votes before it is repaired.
    ImpairedVotes [27, 75],
    /// A segment acknowledges an install before it is durable.
    InstallAckedEarly [22],
    /// A recovery installs on a write quorum of the membership that it adopts, and not of the one
    /// before it.
    InstallOnNewOnly [34, 65],
    /// A VDL that a backtrack took back is still believed by whoever knew it.
    KnownVdlNotLowered [72],
    /// A recovery keeps only the last range of the history that it finds.
    LastRangeOnly [6],
    /// A recovery takes the allocation limit from its own configuration.
    LimitsFromWriter [19],
    /// A recovery takes the lowest SCL of a group's answers as the group's end.
    LowestSclChosen [10],
    /// A writer starts allocating right after the recovery point.
    LsnReuse [17],
    /// Memberships are ordered by their number first.
    MembershipByNumber [66],
    /// An overtaken writer's memberships are still accepted.
    MembershipNotFenced [70],
    /// A recovery applies every truncation range that any answer reports.
    MergeHistories [5],
    /// A writer takes the next step of a membership change before the last one is settled.
    NextBeforeSettled [38],
    /// Segments do not compare epochs at all.
    NoFence [1],
    /// A writer goes on counting under the old quorums once a joint membership is in force.
    OldFormulaAfterSwitch [36],
    /// A recovery opens as soon as its history is installed, before the records are copied.
    OpenBeforeComplete [7],
    /// A recovery doesn't ask segments that missed a backtrack what they have where it went.
    PointNotAsked [72],
    /// A segment answers a seal before its promise is durable.
    PromiseNotDurable [26],
    /// Reads are answered at the group's PGCL instead of the volume's VDL.
    ReadAtPgcl [15],
    /// A segment that misses records answers a read as if it had them.
    ReadIncomplete [42],
    /// In a joint membership a read quorum of the new members seals.
    ReadQuorumOfJointWithNew [30],
    /// A recovery's read quorum is one too small.
    ReadQuorumTooSmall [2],
    /// A segment answers a seal without promising anything.
    ReadThenFence [1, 2],
    /// A segment answers a read at a point under what it has discarded.
    ReadUnderFloorAnswered [44, 45],
    /// Reads are answered without regard to the epoch.
    ReadWithoutEpoch [52],
    /// A reader applies redo as it comes, above the VDL or not.
    ReaderAppliesAboveVdl [49],
    /// A reader applies a mini-transaction without its last record.
    ReaderAppliesHalfMtr [15],
    /// A reader takes a message that comes again for a new one, and applies its records again.
    ReaderAppliesTwice [51],
    /// A reader caches a page that it asked for before it applied a later record of that page.
    ReaderCachesStalePage [50],
    /// A reader goes on after a gap in its stream as if nothing were missing.
    ReaderIgnoresGap [50],
    /// A reader doesn't hear of groups that are added, and takes what it reads there as it comes.
    ReaderIgnoresGrowth [42, 55],
    /// A reader answers a read that asks for a later point than the reader has reached.
    ReaderIgnoresMinimum [52],
    /// A reader that changes to a newer writer keeps redo above that one's recovery point.
    ReaderKeepsAboveNewVdl [49],
    /// A reader asks for pages without naming its group's last record.
    ReaderNeedsNothing [42],
    /// The recovery point is the VCL, consistency point or not.
    RecoverAtVcl [14],
    /// A reader reads under an epoch whose writer has not yet registered it.
    RegistrationNotAwaited [44],
    /// A damaged segment counts as repaired before it has the records that it may have
    /// acknowledged.
    RepairedTooEarly [39, 75],
    /// A damaged segment counts as repaired under a history older than the one that it had.
    RepairedUnderOldHistory [62, 75],
    /// A damaged segment counts as repaired under a membership older than the one that it had.
    RepairedUnderOldMembership [75],
    /// A finished change is taken back as if it were under way.
    RevertFromSingle [32],
    /// A segment takes over a peer's base when the first part of it has come.
    SclBeforeBase [39],
    /// A truncation drops records and leaves the SCL where it was.
    SclNotLowered [21],
    /// A seal holds on a read quorum of those whom the recovery asked first, whatever newer
    /// membership it finds.
    SealNotExtended [35],
    /// A segment lets itself be sealed although its history takes no further recovery.
    SealWhenFull [74],
    /// A step of a membership change carries its settled mark from the start.
    SettledTooEarly [70],
    /// A writer counts acknowledgements that were given to another epoch.
    StaleAckCounted [28],
    /// A read quorum needs no segment that keeps pages.
    TailOnlyQuorum [40],
    /// What a new member must hold is computed under the joint quorums.
    TargetRecomputed [31, 68],
    /// A torn write is accepted when a segment restarts.
    TornTailAccepted [22],
    /// What a backtrack leaves is annulled only as far above the point that it goes to as a writer
    /// may allocate, not above the end of the log that it found.
    UsedFromTarget [72],
    /// A recovery's VCL is the highest end of any group, holes in the volume's chain or not.
    VclIsHighestEnd [12, 13],
    /// The writer's VCL is the minimum of the groups' PGCLs.
    VclIsMinPgcl [11],
    /// The writer tells the VCL as the VDL.
    VdlIgnoresCpls [14],
    /// A recovery starts its walk at the recovery point of the history that it found.
    WalkFromRecoveryPoint [73],
    /// The write quorum is one too small.
    WriteQuorumTooSmall [2],
}

/// Which rules a machine obeys.
pub trait Rules: Clone + Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// Returns whether `bug` is in force.
    fn has(self, bug: Bug) -> bool;
}

/// The protocol as it is: no bug.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Sound;

impl Rules for Sound {
    #[inline(always)]
    fn has(self, _bug: Bug) -> bool {
        false
    }
}

/// The protocol with one bug in it, for models and checks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Seeded(pub Bug);

impl Rules for Seeded {
    fn has(self, bug: Bug) -> bool {
        self.0 == bug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_rules_have_no_size_and_no_bug() {
        assert_eq!(size_of::<Sound>(), 0);
        assert!(Bug::ALL.iter().all(|bug| !Sound.has(*bug)));
        assert!(Bug::ALL.iter().all(|bug| Bug::named(bug.name()) == Some(*bug)));
    }
}
