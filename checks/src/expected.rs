//! What every exhaustive run must find, to the last state. Reviewed like code: a change of the
//! protocol that changes a count shows here.

use quorate_core::rules::Bug;
use quorate_models::configuration::Tier;
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
    pin("change-again", 359_817, 11_156_017, 32),
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
    pin("region-ship", 342_144, 1_134_194, 37),
    pin("region-groups", 7_514, 28_875, 27),
    pin("region-backtrack", 47_151, 172_921, 28),
    pin("region-switch", 6_157, 34_546, 26),
    pin("region-reattach", 217_385, 784_245, 43),
    pin("region-three", 910_073, 6_405_124, 36),
    pin("region-back-three", 156_899, 1_294_717, 29),
    pin("clone-collect", 402_215, 2_220_082, 32),
    pin("clone-mtr", 1_066, 3_530, 13),
    pin("clone-backtrack", 7_767, 27_183, 18),
    pin("two-groups-e3-four", 21_823_644, 270_917_351, 42),
    pin("reader-garbage-three", 2_833_898, 16_197_813, 47),
    pin("zombie-e3r2", 40_172_250, 1_031_855_646, 43),
    pin("zombie-e4r1", 95_980_378, 2_642_090_396, 47),
    pin("recovery-split-gossip", 805_372, 9_004_590, 41),
    pin("mtr-e2r2", 6_917_621, 191_428_027, 41),
    pin("publish-e3r1", 9_209_178, 219_367_886, 43),
];

/// What judging the states of one configuration must find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LivePin {
    /// The configuration.
    pub name: &'static str,
    /// When it is judged.
    pub tier: Tier,
    /// Of how many states one is judged with the writers that there are; all are with a new one.
    pub one_in: u64,
    /// How many these are.
    pub judged: usize,
    /// Distinct runs of the fair schedule.
    pub runs: usize,
    /// The most steps that a run needs: L1 to L4.
    pub worst: [u32; 4],
    /// States of which less is demanded.
    pub excused: usize,
    /// States from which no goal can be reached within the budgets.
    pub hopeless: usize,
}

const fn live(
    tier: Tier,
    name: &'static str,
    one_in: u64,
    (judged, runs): (usize, usize),
    worst: [u32; 4],
    (excused, hopeless): (usize, usize),
) -> LivePin {
    LivePin { name, tier, one_in, judged, runs, worst, excused, hopeless }
}

/// One line for each configuration whose states are judged.
pub const LIVE_PINS: &[LivePin] = &[
    live(Tier::Quick, "change-single", 1, (726, 1_525), [26, 0, 64, 52], (0, 56)),
    live(Tier::Quick, "forced-again", 1, (6_075, 7_190), [25, 13, 78, 47], (0, 0)),
    live(Tier::Quick, "strict-two", 1, (4_864, 4_339), [29, 15, 78, 59], (0, 458)),
    live(Tier::Quick, "damage-twice", 1, (21_571, 10_835), [29, 15, 78, 57], (0, 426)),
    live(Tier::Quick, "resend-e2", 1, (40_862, 3_590), [31, 16, 78, 51], (0, 0)),
    live(Tier::Quick, "gossip-messages", 1, (70_165, 1_019), [29, 15, 78, 51], (0, 0)),
    live(Tier::Quick, "damage-change", 1, (20_322, 38_779), [26, 0, 64, 53], (0, 0)),
    live(Tier::Quick, "full-and-tail", 1, (8_239, 21_405), [42, 23, 174, 78], (0, 1_480)),
    live(Tier::Quick, "mtr-e2", 1, (32_381, 60_291), [52, 26, 188, 97], (0, 0)),
    live(Tier::Quick, "mtr-small", 1, (64_151, 130_668), [43, 21, 106, 76], (0, 0)),
    live(Tier::Quick, "damage-e2", 1, (18_197, 17_998), [38, 22, 154, 87], (0, 60)),
    live(Tier::Quick, "disk-loss", 1, (26_598, 32_808), [38, 22, 166, 87], (0, 7_646)),
    live(Tier::Quick, "zombie-e2r2", 16, (5_195, 61_457), [45, 26, 164, 87], (0, 0)),
    live(Tier::Quick, "change-begin", 64, (1_603, 31_056), [39, 15, 88, 67], (0, 8_551)),
    live(Tier::Quick, "damage-small", 64, (5_890, 36_813), [29, 15, 78, 59], (0, 4_682)),
    live(Tier::Quick, "collect-hold", 64, (1_726, 14_055), [23, 0, 60, 49], (0, 3_028)),
    live(Tier::Quick, "backtrack-small", 64, (2_410, 18_150), [29, 15, 78, 52], (0, 0)),
    live(Tier::Quick, "history-full", 64, (4_268, 1_810), [14, 0, 0, 27], (273_722, 7_594)),
    live(Tier::Full, "two-groups-r2", 64, (3_274, 603_492), [54, 29, 138, 105], (0, 59_990)),
    live(Tier::Full, "change-joint", 64, (6_589, 85_464), [33, 15, 85, 56], (0, 34_637)),
    live(Tier::Full, "change-repropose", 64, (3_961, 16_339), [34, 17, 82, 50], (0, 18_504)),
    live(Tier::Full, "degraded", 64, (2_545, 92_977), [44, 23, 172, 70], (0, 212)),
    live(Tier::Full, "forced", 64, (10_464, 5_134), [20, 15, 79, 36], (563_602, 69_624)),
    live(Tier::Full, "reader-annulled", 64, (2_154, 1_668), [10, 0, 13, 15], (0, 0)),
    live(Tier::Full, "zombie-e3r1", 64, (5_433, 46_574), [38, 22, 154, 83], (0, 0)),
];

/// Seeded bugs that break no safety property but get stuck, and where that shows.
pub const LIVE_KILLERS: &[(Bug, &[&str])] = &[
    (Bug::GossipKeepsLast, &["resend-e2"]),
    (Bug::HistoryNotResent, &["resend-e2"]),
    (Bug::ImpairedForEver, &["damage-twice"]),
    (Bug::InstallOnAll, &["resend-e2"]),
    (Bug::JointForEver, &["change-begin"]),
    (Bug::NoAllowance, &["resend-e2"]),
    (Bug::ReadNeedsPoint, &["two-groups-r2"]),
    (Bug::SealNotResent, &["resend-e2"]),
    (Bug::SealOnWriteQuorum, &["resend-e2"]),
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
    (Bug::BacktrackUnderClone, &["clone-backtrack"]),
    (Bug::CandidateJudgesHydration, &["change-begin"]),
    (Bug::CloneAnywhere, &["clone-mtr"]),
    (Bug::CloneReadsTip, &["clone-collect"]),
    (Bug::CloneWithoutHold, &["clone-collect"]),
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
    (Bug::GateCountsOtherEpochs, &["region-reattach"]),
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
    (Bug::PromoteInSameRegion, &["region-ship"]),
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
    (Bug::ReattachByLsn, &["region-reattach"]),
    (Bug::RecoverAtVcl, &["two-groups", "mtr-e2"]),
    (Bug::RegistrationNotAwaited, &["reader-garbage-e2"]),
    (Bug::RelayIgnoresCpls, &["region-groups"]),
    (Bug::RelayReportsShipped, &["region-ship", "region-groups"]),
    (Bug::RelayShipsAboveVdl, &["region-ship"]),
    (Bug::RelaySkipsHole, &["region-groups"]),
    (Bug::SclBeforeBase, &["collect-e2"]),
    (Bug::RepairedTooEarly, &["damage-small"]),
    (Bug::RepairedUnderOldHistory, &["damage-small"]),
    (Bug::RepairedUnderOldMembership, &["damage-change"]),
    (Bug::RevertFromSingle, &["change-single"]),
    (Bug::SclNotLowered, &["zombie-e2r2"]),
    (Bug::SealNotExtended, &["change-single"]),
    (Bug::SclOfFormerDisk, &["change-again"]),
    (Bug::SealWhenFull, &["history-full"]),
    (Bug::SettledTooEarly, &["change-joint"]),
    (Bug::StaleAckCounted, &["zombie-e2r2"]),
    (Bug::SwitchBeforeDrained, &["region-switch"]),
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
    (
        "region-ship",
        "a relay that crashes, and a promotion at any time; region-groups has its bugs",
    ),
    ("region-backtrack", "a second region that goes back with the first one"),
    ("resend-e2", "writers that send again, and tell the VDL without writing"),
];

/// Situations that no quick configuration reaches, and why.
pub const UNREACHED: &[(Witness, &str)] = &[];

/// Returns what judging the states of the configuration called `name` must find.
#[must_use]
pub fn live_of(name: &str) -> Option<&'static LivePin> {
    LIVE_PINS.iter().find(|pin| pin.name == name)
}

/// Returns what the configuration called `name` must find.
#[must_use]
pub fn of(name: &str) -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.name == name)
}
