//! What every exhaustive run must find, to the last state. Reviewed like code: a change of the
//! protocol that changes a count shows here.

use quorate_core::rules::Bug;
use quorate_models::invariant::Property;
use quorate_models::witness::Witness;

/// The exact size of one configuration's state space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pin {
    /// The configuration.
    pub name: &'static str,
    /// Distinct states.
    pub unique_states: usize,
    /// Steps, each from a distinct state.
    pub transitions: usize,
    /// The longest path of the depth-first search, in states.
    pub depth: usize,
}

const fn pin(name: &'static str, unique_states: usize, transitions: usize, depth: usize) -> Pin {
    Pin { name, unique_states, transitions, depth }
}

/// One line for each configuration.
pub const PINS: &[Pin] = &[
    pin("write-split", 182_925, 1_609_350, 39),
    pin("crash-split", 584_225, 7_101_528, 39),
    pin("zombie-e2r2", 86_299, 1_295_416, 32),
    pin("zombie-e3r1", 342_230, 5_923_001, 33),
    pin("mtr-e2", 32_381, 502_788, 28),
    pin("mtr-small", 64_151, 945_065, 27),
    pin("limit-e2", 487_841, 9_689_480, 36),
    pin("strict-e2", 11_571, 98_796, 26),
    pin("strict-two", 4_864, 30_111, 22),
    pin("one-counter", 342_230, 5_923_001, 33),
    pin("recovery-split", 3_786_756, 44_394_122, 55),
    pin("crash-recovery", 811_721, 9_635_188, 38),
    pin("history-e3r2", 730_908, 10_044_621, 32),
    pin("competing", 2_656_223, 41_298_232, 34),
    pin("history-full", 273_646, 3_320_101, 28),
    pin("damage-small", 361_996, 4_380_291, 27),
    pin("damage-twice", 21_571, 183_184, 21),
    pin("damage-e2", 18_197, 191_186, 22),
    pin("two-groups", 418_649, 4_053_991, 39),
    pin("two-groups-e3", 1_680_459, 25_486_012, 35),
    pin("two-groups-r2", 209_775, 1_550_142, 29),
    pin("gossip-messages", 70_165, 1_053_187, 106),
    pin("resend-e2", 40_862, 461_595, 27),
    pin("collect-e2", 1_529_517, 15_889_412, 39),
    pin("collect-hold", 110_265, 789_022, 32),
    pin("reader-stream", 157_258, 1_182_064, 36),
    pin("reader-e2", 344_396, 2_086_196, 37),
    pin("reader-annulled", 140_047, 511_187, 27),
    pin("reader-garbage", 323_072, 1_107_042, 36),
    pin("reader-garbage-e2", 756_180, 5_367_543, 51),
    pin("reader-idle", 292_851, 1_965_752, 40),
    pin("reader-backtrack", 1_083_100, 6_667_202, 39),
    pin("change-adopt", 821_660, 17_368_898, 24),
    pin("change-collect", 114_475, 2_452_384, 27),
    pin("change-begin", 101_689, 1_448_421, 30),
    pin("change-joint", 423_520, 6_032_599, 26),
    pin("change-single", 726, 5_827, 13),
    pin("change-repropose", 250_068, 4_190_225, 23),
    pin("damage-collect", 113_001, 1_223_818, 24),
    pin("damage-change", 20_322, 305_845, 20),
    pin("degraded", 160_939, 3_461_063, 31),
    pin("disk-loss", 26_598, 168_849, 24),
    pin("forced", 672_938, 7_929_269, 37),
    pin("forced-again", 6_075, 113_217, 15),
    pin("full-and-tail", 8_239, 99_289, 20),
    pin("forced-back", 2_302_338, 36_855_109, 46),
    pin("growth-write", 5_813, 33_973, 33),
    pin("growth-e2", 145_519, 1_674_406, 31),
    pin("growth-e3", 383_851, 5_217_213, 34),
    pin("growth-number", 128_061, 1_577_553, 34),
    pin("growth-fresh", 23_253, 227_142, 24),
    pin("growth-change", 193_866, 2_774_878, 25),
    pin("growth-reader", 1_785, 7_049, 24),
    pin("growth-backtrack", 101_850, 901_468, 24),
    pin("backtrack-small", 156_287, 1_579_072, 26),
    pin("backtrack-forward", 968_744, 7_957_383, 26),
    pin("backtrack-mtr", 164_466, 2_311_643, 29),
    pin("backtrack-e2", 218_433, 3_111_727, 32),
    pin("backtrack-limit", 1_817_268, 17_798_739, 29),
    pin("two-groups-e3-four", 21_823_644, 270_917_351, 42),
    pin("reader-garbage-three", 2_833_898, 16_197_813, 47),
    pin("zombie-e3r2", 40_172_250, 1_031_855_646, 43),
    pin("zombie-e4r1", 95_980_378, 2_642_090_396, 47),
    pin("recovery-split-gossip", 805_372, 9_004_590, 41),
    pin("mtr-e2r2", 6_917_621, 191_428_027, 41),
    pin("publish-e3r1", 9_209_178, 219_367_886, 43),
];

/// Configurations that look for each bug when not all of them are to: the ones that find it
/// fastest. `quorate check kill --all` tries every one.
pub const KILLERS: &[(Bug, &[&str])] = &[
    (Bug::AckBeforeDurable, &["write-split", "crash-split"]),
    (Bug::AckCountsHoles, &["zombie-e2r2"]),
    (Bug::AckFromEvicted, &["change-joint"]),
    (Bug::AckOldEpochAfterSeal, &["crash-recovery"]),
    (Bug::AdoptWithoutRepropose, &["change-repropose"]),
    (Bug::AllocateBeyondLimit, &["limit-e2"]),
    (Bug::AnswersNotFiltered, &["zombie-e2r2"]),
    (Bug::AppendWithoutHistory, &["mtr-small", "two-groups-r2"]),
    (Bug::AsideNotReported, &["backtrack-small", "backtrack-forward"]),
    (Bug::BacklinkToAnnulled, &["mtr-e2", "two-groups"]),
    (Bug::BaseWithoutScl, &["collect-e2"]),
    (Bug::CollectAboveVdl, &["collect-e2", "reader-garbage"]),
    (Bug::CollectAheadOfHold, &["collect-hold"]),
    (Bug::BacktrackAnywhere, &["backtrack-mtr"]),
    (Bug::CandidateJudgesHydration, &["change-begin"]),
    (Bug::CompleteOnReadQuorum, &["zombie-e2r2"]),
    (Bug::CompletionCountsSeals, &["zombie-e2r2"]),
    (Bug::ConfirmAnyTicket, &["strict-two"]),
    (Bug::ConfirmWhenFenced, &["strict-e2"]),
    (Bug::CounterOnlyEpochs, &["one-counter"]),
    (Bug::CplLostInGossip, &["zombie-e2r2"]),
    (Bug::DegradedWithoutHydration, &["degraded"]),
    (Bug::DuplicateAckCounted, &["zombie-e2r2", "write-split"]),
    (Bug::DurableOutOfOrder, &["crash-split"]),
    (Bug::FloorPromiseForgotten, &["damage-small"]),
    (Bug::ExpelWithoutRefusal, &["reader-garbage"]),
    (Bug::FloorAheadOfReader, &["reader-garbage", "reader-garbage-e2"]),
    (Bug::FloorOfOldWriter, &["collect-e2", "collect-hold"]),
    (Bug::ForcedByPlace, &["forced-again"]),
    (Bug::ForcedTooEarly, &["forced"]),
    (Bug::ForwardAfterWrite, &["backtrack-forward"]),
    (Bug::GossipAnyHistory, &["history-e3r2"]),
    (Bug::GossipWithoutHistory, &["zombie-e2r2"]),
    (Bug::GrowthBeforeFirstGroup, &["growth-e2"]),
    (Bug::GrowthBeforeOwnQuorum, &["growth-write"]),
    (Bug::GrowthByNumber, &["growth-number"]),
    (Bug::GrowthFreshUnfenced, &["growth-fresh"]),
    (Bug::GrowthNotFound, &["growth-e2"]),
    (Bug::GrowthNotReproposed, &["growth-e2"]),
    (Bug::HistoryNotCarried, &["zombie-e3r1"]),
    (Bug::IdentityReused, &["disk-loss"]),
    (Bug::IdleGroupIgnored, &["two-groups"]),
    (Bug::ImpairedVotes, &["damage-small"]),
    (Bug::InstallAckedEarly, &["crash-recovery"]),
    (Bug::InstallOnNewOnly, &["change-adopt"]),
    (Bug::KnownVdlNotLowered, &["backtrack-forward", "backtrack-limit"]),
    (Bug::LastRangeOnly, &["history-e3r2"]),
    (Bug::LimitsFromWriter, &["mtr-small"]),
    (Bug::LowestSclChosen, &["zombie-e2r2"]),
    (Bug::LsnReuse, &["zombie-e2r2"]),
    (Bug::MembershipByNumber, &["change-repropose"]),
    (Bug::MembershipNotFenced, &["change-joint"]),
    (Bug::MergeHistories, &["history-e3r2"]),
    (Bug::NextBeforeSettled, &["change-begin"]),
    (Bug::NoFence, &["zombie-e2r2"]),
    (Bug::OldFormulaAfterSwitch, &["change-joint"]),
    (Bug::OpenBeforeComplete, &["zombie-e2r2"]),
    (Bug::PointNotAsked, &["backtrack-limit"]),
    (Bug::PromiseNotDurable, &["crash-recovery"]),
    (Bug::ReadAtPgcl, &["two-groups", "mtr-e2"]),
    (Bug::ReadIncomplete, &["zombie-e2r2"]),
    (Bug::ReadQuorumOfJointWithNew, &["change-begin"]),
    (Bug::ReadQuorumTooSmall, &["zombie-e2r2"]),
    (Bug::ReadThenFence, &["zombie-e2r2"]),
    (Bug::ReadUnderFloorAnswered, &["collect-e2", "reader-garbage"]),
    (Bug::ReadWithoutEpoch, &["two-groups-r2"]),
    (Bug::ReaderAppliesAboveVdl, &["reader-stream", "reader-e2"]),
    (Bug::ReaderAppliesHalfMtr, &["reader-stream"]),
    (Bug::ReaderAppliesTwice, &["reader-stream"]),
    (Bug::ReaderCachesStalePage, &["reader-stream"]),
    (Bug::ReaderIgnoresGap, &["reader-stream"]),
    (Bug::ReaderIgnoresGrowth, &["growth-reader"]),
    (Bug::ReaderIgnoresMinimum, &["reader-stream"]),
    (Bug::ReaderKeepsAboveNewVdl, &["reader-annulled"]),
    (Bug::ReaderNeedsNothing, &["reader-stream"]),
    (Bug::RecoverAtVcl, &["two-groups", "mtr-e2"]),
    (Bug::RegistrationNotAwaited, &["reader-garbage-e2"]),
    (Bug::SclBeforeBase, &["collect-e2"]),
    (Bug::RepairedTooEarly, &["damage-small"]),
    (Bug::RepairedUnderOldHistory, &["damage-small"]),
    (Bug::RepairedUnderOldMembership, &["damage-change"]),
    (Bug::RevertFromSingle, &["change-single"]),
    (Bug::SclNotLowered, &["zombie-e2r2"]),
    (Bug::SealNotExtended, &["change-single"]),
    (Bug::SealWhenFull, &["history-full"]),
    (Bug::SettledTooEarly, &["change-joint"]),
    (Bug::StaleAckCounted, &["zombie-e2r2"]),
    (Bug::TailOnlyQuorum, &["full-and-tail"]),
    (Bug::TargetRecomputed, &["change-begin"]),
    (Bug::TornTailAccepted, &["crash-split"]),
    (Bug::UsedFromTarget, &["backtrack-limit"]),
    (Bug::VclIsHighestEnd, &["two-groups", "two-groups-r2"]),
    (Bug::VclIsMinPgcl, &["two-groups", "two-groups-r2"]),
    (Bug::VdlIgnoresCpls, &["two-groups", "mtr-e2"]),
    (Bug::WalkFromRecoveryPoint, &["zombie-e2r2"]),
    (Bug::WriteQuorumTooSmall, &["zombie-e2r2", "write-split"]),
];

/// Seeded bugs that no configuration notices, and why.
pub const GAPS: &[(Bug, &str)] = &[(
    Bug::GossipBelowPromise,
    "a dead history can only drop what no epoch has counted yet, as long as completion counts \
     acknowledgements of its own epoch (CompletionCountsSeals is killed); the rule itself is \
     stated as SealedProp in tla/, and fails there without it",
)];

/// A property that no seeded bug breaks.
#[derive(Clone, Copy, Debug)]
pub struct Unbroken {
    /// The property.
    pub property: Property,
    /// The test that breaks it, as its file and its name.
    pub test: &'static str,
    /// Why no seeded bug does.
    pub reason: &'static str,
}

/// Properties that no seeded bug breaks, and the tests that do.
pub const UNBROKEN: &[Unbroken] = &[
    Unbroken {
        property: Property::Hostile,
        test: "models/src/invariant/hostile.rs: \
               a_segment_that_accepts_what_is_forbidden_is_reported",
        reason: "what a machine with a seeded bug should have refused is judged by what comes of \
                 it, so only machines that pass for sound are judged by their refusals",
    },
    Unbroken {
        property: Property::Monotone,
        test: "models/src/invariant/monotone.rs: a_vdl_that_goes_back_is_reported",
        reason: "a VDL is computed from SCLs that a writer only ever raises, whatever rule is \
                 switched off; what goes back from epoch to epoch breaks P2 first",
    },
];

/// Configurations that kill no bug which no other kills, and what they are there for.
pub const REDUNDANT: &[(&str, &str)] = &[
    ("write-split", "the write path at six segments, every delivery, sync and answer apart"),
    ("crash-split", "crashes and torn tails at six segments; crash-recovery has them at four"),
    ("zombie-e2r2", "the shortest counterexamples of most bugs, at six segments"),
    ("zombie-e3r1", "two recoveries at six segments; history-e3r2 has them at four"),
    ("mtr-e2", "mini-transactions of two records at six segments; mtr-small has them at four"),
    ("recovery-split", "a recovery at six segments with nothing fused"),
    ("change-collect", "a member that joins takes over a base, and a recovery meanwhile"),
    ("damage-collect", "a damaged segment that gets a base, while a member is replaced"),
    (
        "growth-write",
        "a group of six that gets another one; the others have three segments a group",
    ),
    ("growth-e2", "a growth from its beginning, and a recovery that may cross it anywhere"),
    ("growth-number", "the next writer adds a third group, under numbers that begin anew"),
    ("growth-e3", "a half-made group that one recovery leaves and the next finds"),
    ("growth-change", "a growth while a member of the first group is replaced"),
    ("growth-backtrack", "a volume that goes back to before a group was there, and keeps it"),
    ("competing", "three recoveries, each of which may stop anywhere"),
    ("damage-twice", "a second damage, of the same segment or of another one"),
    ("damage-e2", "a damaged segment at six segments; damage-small has it at four"),
    ("two-groups", "two groups and an idle one at six segments; two-groups-r2 has four"),
    ("two-groups-e3", "two recoveries of two groups"),
    ("gossip-messages", "gossip whose questions and answers are delayed"),
    ("reader-e2", "a reader from one writer to the next, of three segments"),
    ("reader-idle", "a reader of two groups; the case of an idle one has no bug of its own"),
    ("resend-e2", "writers that send again, and tell the VDL without writing"),
];

/// Situations that no quick configuration reaches, and why.
pub const UNREACHED: &[(Witness, &str)] = &[];

/// Returns what the configuration called `name` must find.
#[must_use]
pub fn of(name: &str) -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.name == name)
}
