//! Steps of a membership change, and the start states that lead up to where they matter.

use quorate_core::formula::{Half, Term};
use quorate_core::id::{Incarnation, Position, SegmentId, SegmentSet};
use quorate_core::membership::Step;
use quorate_core::quorum::QuorumSet;

use super::Scripted;

/// The step that replaces the member at position `old` by an empty disk at position `new`.
pub(super) const fn replace(old: usize, new: usize) -> Step {
    replace_by(old, new, 1)
}

/// The same by a disk of that position.
pub(super) const fn replace_by(old: usize, new: usize, disk: u32) -> Step {
    match (Position::new(old), Position::new(new)) {
        (Some(old), Some(position)) => {
            let new = SegmentId { position, incarnation: Incarnation::new(disk) };
            Step::Replace { old, new }
        }
        (_, _) => Step::Finish(Half::Older),
    }
}

pub(super) const FINISH: Step = Step::Finish(Half::Older);
pub(super) const REVERT: Step = Step::Revert(Half::Older);

pub(super) const FINISH_NEWER: Step = Step::Finish(Half::Newer);
pub(super) const REVERT_NEWER: Step = Step::Revert(Half::Newer);

/// The step to three full and three tail segments.
pub(super) const fn to_full_and_tail() -> Step {
    match Term::of(QuorumSet::AURORA).full_and_tail(SegmentSet::from_bits(0b01_0101)) {
        Ok(term) => Step::Reshape(term),
        Err(_) => FINISH,
    }
}

/// The step to the four segments of two zones.
pub(super) const fn to_degraded() -> Step {
    match Term::of(QuorumSet::AURORA).degraded(SegmentSet::from_bits(0b11_0000)) {
        Ok(term) => Step::Reshape(term),
        Err(_) => FINISH,
    }
}

/// The step back to all four, after two were lost.
pub(super) const fn to_four() -> Step {
    match QuorumSet::new(4, 3, 2) {
        Ok(quorums) => Step::Reshape(Term::of(quorums)),
        Err(_) => FINISH,
    }
}

const fn step(step: u8) -> Scripted {
    Scripted::Step { writer: 0, step }
}

const fn install(writer: u8, to: u8) -> Scripted {
    Scripted::Install { writer, to }
}

/// A commit is on B and C when A to D begin to hear of ABC and ABD.
pub(super) const COMMIT_AND_BEGIN: &[Scripted] =
    &[Scripted::Write { writer: 0, mtr: 0 }, Scripted::Append { writer: 0, to: 0b0110 }, step(0)];

/// Three commits of one page are on A, B and C, which know the VDL of the second. ABC and ABD,
/// settled everywhere; D has nothing yet.
pub(super) const COMMITS_AND_TO_JOINT: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b0111 },
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b0111 },
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b0111 },
    step(0),
    install(0, 0b1111),
    install(0, 0b1111),
];

/// ABC and ABD, settled everywhere. An install is told twice: the step, and its settled mark.
pub(super) const TO_JOINT_SMALL: &[Scripted] = &[step(0), install(0, 0b1111), install(0, 0b1111)];

/// A commit is on A and C, and on D, which was to take C's place; that was taken back, and the
/// disk of D is lost.
pub(super) const TAKEN_BACK: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b0101 },
    step(0),
    install(0, 0b1111),
    install(0, 0b1111),
    Scripted::Pull { into: 3, from: 0 },
    step(1),
    install(0, 0b1111),
    install(0, 0b1111),
    Scripted::Lose { of: 0b1000 },
];

/// ABD, settled everywhere.
pub(super) const TO_SINGLE_SMALL: &[Scripted] = &[
    step(0),
    install(0, 0b1111),
    install(0, 0b1111),
    step(1),
    install(0, 0b1111),
    install(0, 0b1111),
];

/// The joint is settled on the three old ones; ABD has reached A alone. A second writer has sealed
/// A and D, and its install has reached both.
pub(super) const FINISHED_ON_ONE: &[Scripted] = &[
    step(0),
    install(0, 0b0111),
    install(0, 0b0111),
    step(1),
    install(0, 0b0001),
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b0001 },
    Scripted::Seal { writer: 1, to: 0b1000 },
    install(1, 0b1001),
];

/// Then the second writer recovers without A, from the joint, and its revert reaches B alone. A
/// third has sealed A and D and opens on A, C and D.
pub(super) const REVERTED_ON_ONE: &[Scripted] = &[
    step(0),
    install(0, 0b0111),
    install(0, 0b0111),
    step(1),
    install(0, 0b0001),
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b0110 },
    install(1, 0b1110),
    Scripted::Step { writer: 1, step: 2 },
    install(1, 0b0010),
    Scripted::Recover,
    Scripted::Seal { writer: 2, to: 0b0001 },
    Scripted::Seal { writer: 2, to: 0b1000 },
    install(2, 0b1101),
];

/// ABD is settled on its three, C knows of no change, and a commit is on A and D.
pub(super) const COMMIT_WITHOUT_C: &[Scripted] = &[
    step(0),
    install(0, 0b1011),
    install(0, 0b1011),
    step(1),
    install(0, 0b1011),
    install(0, 0b1011),
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b1001 },
];

/// The shape has changed, and everybody knows.
pub(super) const TO_SETTLED_SIX: &[Scripted] = &[
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
    step(1),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
];

/// A record is on C to F; the joint with the shape that needs three of A to D is settled
/// everywhere.
pub(super) const TO_JOINT_DEGRADED: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b11_1100 },
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
];

/// A commit is on B to D, and the disks of C and D are lost.
pub(super) const LOST_TWO_OF_FOUR: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b1110 },
    Scripted::Lose { of: 0b1100 },
];

/// Then a writer is forced to open on A and B, and all four settle with new disks: every step is
/// told twice, itself and its settled mark. The commit is on A to D.
pub(super) const FORCED_AND_BACK: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b1110 },
    Scripted::Lose { of: 0b1100 },
    Scripted::Recover,
    Scripted::Seal { writer: 1, to: 0b0011 },
    install(1, 0b0011),
    Scripted::Pull { into: 0, from: 1 },
    Scripted::Step { writer: 1, step: 0 },
    install(1, 0b0011),
    install(1, 0b0011),
    Scripted::Step { writer: 1, step: 1 },
    install(1, 0b1111),
    install(1, 0b1111),
    Scripted::Pull { into: 2, from: 0 },
    Scripted::Pull { into: 3, from: 0 },
    Scripted::Step { writer: 1, step: 0 },
    install(1, 0b1111),
    install(1, 0b1111),
];

/// A commit is on C to F, and the joint with G is settled on the six.
pub(super) const TO_JOINT_SEVEN: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b011_1100 },
    step(0),
    install(0, 0b111_1111),
    install(0, 0b111_1111),
];

/// A commit is on B to D, the joint with E is settled, and the four terms with F are on A to C.
pub(super) const TO_JOINT_FOUR: &[Scripted] = &[
    Scripted::Write { writer: 0, mtr: 0 },
    Scripted::Append { writer: 0, to: 0b00_1110 },
    step(0),
    install(0, 0b11_1111),
    install(0, 0b11_1111),
    step(1),
    install(0, 0b00_0111),
];
