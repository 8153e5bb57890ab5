//! What must be reachable, or a model proves nothing.
//!
//! Each witness is a bit that the model sets when the situation occurs. A run is good only if every
//! situation that its configuration names has occurred.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::refusal::Refusal;

use crate::step::{Action, ReaderStep};

macro_rules! witnesses {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// A situation that an exploration must reach.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Witness {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Witness {
            /// All situations.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the situation's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

witnesses! {
    /// A segment acknowledged.
    Acked,
    /// An acknowledgement reached a writer of another epoch.
    AckOfOtherEpoch,
    /// A segment refused: a record is annulled.
    RefusedAnnulled,
    /// A segment refused: it lacks the history.
    RefusedBehind,
    /// A segment refused: a record is too far beyond the VDL.
    RefusedBeyondLimit,
    /// A segment refused a read under its base.
    RefusedCollected,
    /// A segment refused: another record has this LSN.
    RefusedConflict,
    /// A segment refused: the epoch is too far above all that it has heard of.
    RefusedEpochAhead,
    /// A segment refused: a higher epoch is promised.
    RefusedFenced,
    /// A segment refused: its log is full.
    RefusedFull,
    /// A segment refused: its history takes no further recovery.
    RefusedHistoryFull,
    /// A segment refused to vote: its log was damaged.
    RefusedImpaired,
    /// A segment refused a read that needs more than it holds.
    RefusedIncomplete,
    /// A segment refused: the message contradicts itself.
    RefusedMalformed,
    /// A segment refused: the message is too large.
    RefusedOversized,
    /// A segment refused: too many writes under way.
    RefusedOverloaded,
    /// A segment refused: the message is for another group.
    RefusedWrongGroup,
    /// A writer refused to allocate beyond the limit.
    Throttled,
    /// A writer opened.
    Opened,
    /// A writer opened after a higher epoch had started.
    OpenedOvertaken,
    /// A writer learned that it is overtaken.
    Overtaken,
    /// The VDL advanced.
    Durable,
    /// The VDL advanced in a writer that is overtaken but doesn't know it.
    DurableOvertaken,
    /// A recovery found a history with more than one range.
    HistoryGrew,
    /// A recovery adopted a record that was never acknowledged.
    Adopted,
    /// A recovery annulled a record.
    Annulled,
    /// A segment dropped an annulled record.
    Dropped,
    /// Gossip brought a record.
    GossipRecord,
    /// Gossip brought a history.
    GossipHistory,
    /// A gossip answer was refused, for its epoch.
    GossipRefused,
    /// A segment's SCL moved over a hole that was filled.
    HoleFilled,
    /// A crash lost a write.
    CrashLost,
    /// A crash tore a write.
    CrashTore,
    /// A write that was not yet reported durable survived a crash.
    CrashKept,
    /// An append became durable after a seal and was not acknowledged.
    DurableAfterSeal,
    /// A strict read arrived while another one was under way.
    AskedTwice,
    /// A read was answered.
    ReadServed,
    /// A strict read was confirmed.
    Confirmed,
    /// A strict read was refused by a segment that had promised a higher epoch.
    ConfirmRefused,
    /// A recovery that was to go elsewhere opened at the end: another one had come first.
    Superseded,
    /// A volume opened before its end.
    WentBack,
    /// A volume opened beyond its end, on a branch that had been set aside.
    WentForward,
    /// A damaged segment had again all that it may have acknowledged.
    Repaired,
    /// A mini-transaction spans groups.
    SpansGroups,
    /// A write was reported durable before an earlier one.
    OutOfOrder,
    /// A joint membership was settled.
    SettledJoint,
    /// A membership of one term was settled, after a change was finished or taken back.
    SettledSingle,
    /// A writer refused a step of a membership change.
    StepRefused,
    /// A recovery adopted a membership that was under way.
    AdoptedUnsettled,
    /// A recovery found a membership that those whom it asked first don't know.
    SealExtended,
    /// A step of this kind changed a state.
    StepLose,
    /// A step of this kind changed a state.
    StepStep,
    /// The volume got a group more.
    Grown,
    /// A recovery found a group whose growth was not known to be durable.
    GrowthAdopted,
    /// A recovery found a group that the volume didn't begin with.
    GrowthFound,
    /// A writer opened without a group that an older one had begun to add.
    GrowthLeft,
    /// A record was written in a group that the volume didn't begin with.
    GrowthWritten,
    /// A segment discarded a superseded version.
    Discarded,
    /// A segment took over a peer's base.
    BaseTaken,
    /// A part of a peer's base came, and more was missing.
    BaseInParts,
    /// A garbage floor stayed under the VDL for a reader or a hold.
    FloorHeld,
    /// A reader began to follow a writer.
    ReaderAttached,
    /// A reader went over to a newer writer.
    ReaderChanged,
    /// A reader dropped redo above the point at which a newer writer opened.
    ReaderDropped,
    /// A reader applied redo to a page that it had cached.
    ReaderApplied,
    /// A reader noticed a gap in its stream.
    ReaderLost,
    /// A reader heard of a group that was added.
    ReaderGrew,
    /// A reader got a message of its stream again.
    ReaderRepeated,
    /// A reader learned from a segment that another writer has the volume.
    ReaderOvertaken,
    /// A page came that the reader had applied later redo to in the meantime.
    ReaderTooLate,
    /// A reader answered a read.
    ReaderServed,
    /// A reader refused a read that asked for a later point.
    ReaderNotYet,
    /// A reader was refused a read, for what was discarded.
    ReaderRefused,
    /// A step of this kind changed a state.
    StepAnswer,
    /// A step of this kind changed a state.
    StepAsk,
    /// A step of this kind changed a state.
    StepAttach,
    /// A step of this kind changed a state.
    StepCollect,
    /// A step of this kind changed a state.
    StepCrash,
    /// A step of this kind changed a state.
    StepDamage,
    /// A step of this kind changed a state.
    StepDeliver,
    /// A step of this kind changed a state.
    StepExpel,
    /// A step of this kind changed a state.
    StepFetch,
    /// A step of this kind changed a state.
    StepFetched,
    /// A step of this kind changed a state.
    StepFollow,
    /// A step of this kind changed a state.
    StepGossip,
    /// A recovery started that is to go to a point of the log.
    StepBacktrack,
    /// A step of this kind changed a state.
    StepPublish,
    /// A step of this kind changed a state.
    StepPull,
    /// A step of this kind changed a state.
    StepRecover,
    /// A step of this kind changed a state.
    StepRelease,
    /// A step of this kind changed a state.
    StepResend,
    /// A step of this kind changed a state.
    StepSync,
    /// A step of this kind changed a state.
    StepTell,
    /// A step of this kind changed a state.
    StepWrite,
}

impl Witness {
    /// Returns the situation that a step of this kind changed a state.
    #[must_use]
    pub const fn of_action(action: &Action) -> Self {
        match action {
            Action::Answer { .. } => Self::StepAnswer,
            Action::Ask { .. } => Self::StepAsk,
            Action::Collect { .. } => Self::StepCollect,
            Action::Crash { .. } => Self::StepCrash,
            Action::Damage { .. } => Self::StepDamage,
            Action::Deliver { .. } => Self::StepDeliver,
            Action::Gossip { .. } => Self::StepGossip,
            Action::Lose { .. } => Self::StepLose,
            Action::Backtrack { .. } => Self::StepBacktrack,
            Action::Publish { .. } => Self::StepPublish,
            Action::Pull { .. } => Self::StepPull,
            Action::Reader(ReaderStep::Attach { .. }) => Self::StepAttach,
            Action::Reader(ReaderStep::Expel { .. }) => Self::StepExpel,
            Action::Reader(ReaderStep::Fetch { .. }) => Self::StepFetch,
            Action::Reader(ReaderStep::Fetched) => Self::StepFetched,
            Action::Reader(ReaderStep::Follow { .. }) => Self::StepFollow,
            Action::Reader(ReaderStep::Release) => Self::StepRelease,
            Action::Reader(ReaderStep::Tell { .. }) => Self::StepTell,
            Action::Recover => Self::StepRecover,
            Action::Resend { .. } => Self::StepResend,
            Action::Step { .. } => Self::StepStep,
            Action::Sync { .. } => Self::StepSync,
            Action::Write { .. } => Self::StepWrite,
        }
    }

    /// Returns the situation that a segment gave this refusal.
    #[must_use]
    pub const fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Annulled { .. } => Self::RefusedAnnulled,
            Refusal::Behind { .. } => Self::RefusedBehind,
            Refusal::BeyondLimit { .. } => Self::RefusedBeyondLimit,
            Refusal::Collected { .. } => Self::RefusedCollected,
            Refusal::Conflict { .. } => Self::RefusedConflict,
            Refusal::EpochAhead { .. } => Self::RefusedEpochAhead,
            Refusal::Fenced { .. } => Self::RefusedFenced,
            Refusal::Full => Self::RefusedFull,
            Refusal::HistoryFull => Self::RefusedHistoryFull,
            Refusal::Impaired => Self::RefusedImpaired,
            Refusal::Incomplete { .. } => Self::RefusedIncomplete,
            Refusal::Malformed => Self::RefusedMalformed,
            Refusal::Oversized => Self::RefusedOversized,
            Refusal::Overloaded => Self::RefusedOverloaded,
            Refusal::WrongGroup => Self::RefusedWrongGroup,
        }
    }
}

const _: () = assert!(Witness::ALL.len() <= 128);

/// The situations that occurred.
#[derive(Debug, Default)]
pub struct Witnesses([AtomicU64; 2]);

impl Witnesses {
    pub(crate) fn saw(&self, witness: Witness) {
        // Most have been seen before: a load leaves the cache line shared.
        if !self.has(witness) {
            self.word(witness).fetch_or(1 << (witness as u8 % 64), Ordering::Relaxed);
        }
    }

    pub(crate) fn saw_if(&self, condition: bool, witness: Witness) {
        if condition {
            self.saw(witness);
        }
    }

    /// Returns whether the situation occurred.
    #[must_use]
    pub fn has(&self, witness: Witness) -> bool {
        self.word(witness).load(Ordering::Relaxed) & (1 << (witness as u8 % 64)) != 0
    }

    const fn word(&self, witness: Witness) -> &AtomicU64 {
        let [low, high] = &self.0;
        if (witness as u8) < 64 { low } else { high }
    }

    /// Returns the situations that occurred.
    pub fn seen(&self) -> impl Iterator<Item = Witness> {
        Witness::ALL.iter().copied().filter(|witness| self.has(*witness))
    }
}
