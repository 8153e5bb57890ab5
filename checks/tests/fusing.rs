//! Fusing delivery, sync and answer into one step hides nothing: on the same machines and budgets
//! the fused model and the split one reach the same verdict, and every bug that the fused one
//! notices the split one notices too. What only the split one notices is listed: bugs about what
//! happens between a delivery and its sync.
#![allow(clippy::unwrap_used)]

use quorate_checks::kill::hunt;
use quorate_checks::run::{Search, Verdict, run};
use quorate_core::quorum::QuorumSet;
use quorate_core::rules::{Bug, Sound};
use quorate_models::configuration::{Configuration, Granularity};

const ONLY_SPLIT: &[Bug] = &[Bug::AckBeforeDurable, Bug::InstallAckedEarly];

fn configuration(granularity: Granularity) -> Configuration {
    Configuration {
        granularity,
        quorums: QuorumSet::new(3, 2, 2).unwrap(),
        epochs: 2,
        writes: 1,
        ..Configuration::EMPTY
    }
}

fn notices(bug: Bug, granularity: Granularity) -> bool {
    hunt(bug, &configuration(granularity)).verdict != Verdict::Holds
}

#[test]
fn both_granularities_hold() {
    for granularity in [Granularity::Fused, Granularity::Split] {
        let outcome = run(&configuration(granularity), Sound, Search::Depth, 0, |_| {});
        assert_eq!(outcome.verdict, Verdict::Holds, "{granularity:?}");
    }
}

#[test]
fn the_split_model_notices_whatever_the_fused_one_does() {
    for bug in Bug::ALL.iter().copied() {
        let fused = notices(bug, Granularity::Fused);
        let split = notices(bug, Granularity::Split);
        println!("{}: fused {fused}, split {split}", bug.name());
        if ONLY_SPLIT.contains(&bug) {
            assert!(split, "{} is not noticed by the split model", bug.name());
            assert!(!fused, "{} is noticed by the fused model after all", bug.name());
        } else {
            assert_eq!(fused, split, "{}", bug.name());
        }
    }
}
