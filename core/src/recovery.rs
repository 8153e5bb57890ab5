//! What a recovery makes of the seal answers: a pure function, the heart of the protocol
//! (protocol: recovery, step 2).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::consistency::{Scl, Vcl, Vdl};
use crate::epoch::VolumeEpoch;
use crate::formula::Term;
use crate::geometry::{Added, VolumeGeometry};
use crate::id::{PgId, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Aside, SealAnswer};
use crate::record::Record;
use crate::rules::{Bug, Rules, Sound};
use crate::truncation::{Branch, History, TruncationRange};

/// What a recovery decided.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Choice {
    /// The history that was found, whole.
    pub found: History,
    /// Where the chain of the volume's records first breaks.
    pub vcl: Vcl,
    /// R: the highest consistency point at or under `vcl`. Everything above it is annulled.
    pub recovery_point: Vdl,
    /// By group: its last record at or under the recovery point.
    pub ends: Vec<Lsn>,
    /// By group: its last record of the branch that a backtrack leaves; empty if this is none.
    pub tips: Vec<Option<Lsn>>,
    /// The last consistency point of that branch, zero if this is no backtrack.
    pub tip: Lsn,
    /// The highest LSN that may have been used: what is to be written begins far enough above it.
    pub used: Lsn,
}

/// A consistency point to which a volume can go back, or forward again, and what lies there:
/// located by an open writer, used by the one that opens the next epoch (protocol: backtrack).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Backtrack {
    /// The epoch that located it. If another history is found by the next writer, the point may
    /// mean something else.
    pub under: VolumeEpoch,
    /// The point.
    pub target: Lsn,
    /// By group: its last record at or under the point.
    pub ends: Vec<Lsn>,
    /// By group: its last record of the branch that was set aside before, if there is one.
    pub tips: Vec<Option<Lsn>>,
}

impl Backtrack {
    /// Returns `choice` with the recovery point moved to the target, or `None` when that was
    /// located under another history, or lies beyond the end.
    ///
    /// The branch that was left stays reachable until something new is written (edge 57).
    #[must_use]
    pub fn apply<R: Rules>(&self, rules: R, choice: &Choice) -> Option<Choice> {
        if choice.found.epoch() != self.under {
            return None;
        }
        let end = choice.recovery_point.lsn();
        // What was written since the last backtrack makes it final.
        let is_idle = end == choice.found.after() || rules.has(Bug::ForwardAfterWrite);
        let branch = choice.found.branch().filter(|_| is_idle);
        let branch = branch.map(|branch| (branch.base(), branch.tip()));
        let is_left = branch.is_some();
        let (base, tip) = branch.unwrap_or_else(|| (choice.found.clone(), end));
        if self.target > tip {
            return None;
        }
        // A group that was added since has nothing at the point, nor on the branch.
        let groups = choice.ends.len();
        let mut ends = self.ends.clone();
        ends.resize(groups, Lsn::ZERO);
        let tips = if is_left {
            let mut tips = self.tips.clone();
            tips.resize(groups, None);
            tips
        } else {
            choice.ends.iter().copied().map(Some).collect()
        };
        let goes_back = self.target < tip;
        let used = if rules.has(Bug::UsedFromTarget) { self.target } else { choice.used };
        Some(Choice {
            found: base,
            vcl: Vcl::reached(self.target),
            recovery_point: Vdl::stated(self.target),
            ends,
            tips: if goes_back { tips } else { Vec::new() },
            tip: if goes_back { tip } else { Lsn::ZERO },
            used,
        })
    }
}

/// By position: what each segment of a group has answered to a seal.
pub type Answers<'a> = Positions<Option<&'a SealAnswer>>;

/// Returns the newest membership that any answer reports, `known` if none is newer. Whoever answers
/// informs, removed segments too.
#[must_use]
pub fn newest<R: Rules>(rules: R, known: &Membership, answers: &Answers<'_>) -> Membership {
    let reported = answers.iter().filter_map(|(_, answer)| answer.map(|it| it.membership));
    let newer = |best: Membership, next| if best.yields_to(rules, &next) { next } else { best };
    reported.fold(*known, newer)
}

/// Returns how many groups the volume has got since it was created: what the newest membership of
/// its first group says, that any answer of that group reports or that is `known`. A recovery has
/// to seal each of them (edge 55).
#[must_use]
pub fn added<R: Rules>(rules: R, known: &Membership, answers: &Answers<'_>) -> Added {
    if rules.has(Bug::GrowthNotFound) {
        return known.added();
    }
    if rules.has(Bug::GrowthByNumber) {
        let reported = answers.iter().filter_map(|(_, answer)| answer.map(|it| it.membership));
        let last = reported.max_by_key(|it| (it.epoch().number, it.epoch().volume));
        return last.unwrap_or(*known).added();
    }
    newest(rules, known, answers).added()
}

/// Returns the newest membership that any answer reports, and whose answers count; `None` if they
/// are no read quorum of it: the seal is then extended to more of those whom it concerns (edge 35).
#[must_use]
pub fn sealed<R: Rules>(
    rules: R,
    known: &Membership,
    answers: &Answers<'_>,
) -> Option<(Membership, SegmentSet)> {
    let membership = newest(rules, known, answers);
    let asked = if rules.has(Bug::SealNotExtended) { known } else { &membership };
    let voters = voters(rules, asked, answers)?;
    Some((membership, voters))
}

/// Returns the segments whose answers count towards a seal on `membership`, or `None` if they are
/// no read quorum of it: an older epoch could then still complete a write quorum, or what one has
/// acknowledged could be missing. Only members vote, under the disk that the membership names, and
/// in a joint membership only those of the old one (edges 27, 30 and 69).
#[must_use]
pub fn voters<R: Rules>(
    rules: R,
    membership: &Membership,
    answers: &Answers<'_>,
) -> Option<SegmentSet> {
    let mut present = SegmentSet::EMPTY;
    for (position, answer) in answers.iter() {
        if answer.is_some_and(|answer| membership.knows(position, answer.incarnation)) {
            present.insert(position);
        }
    }
    let short = u32::from(rules.has(Bug::ReadQuorumTooSmall));
    let quorums = membership.quorums();
    let reads = |term: &Term| {
        let term = if rules.has(Bug::TailOnlyQuorum) { term.without_full() } else { *term };
        term.reads(present, short)
    };
    let old = quorums.reading();
    if reads(old) {
        return Some(present.and(old.members()));
    }
    // Seeded bugs: members that join vote; or do if the candidate thinks that they lack nothing.
    let joined = quorums.terms().iter().find(|term| {
        let joins = |position| !old.members().contains(position);
        let scl = |position| answers.at(position).map(|answer| answer.scl);
        let voting = present.and(term.members());
        let needed = voting.iter().filter_map(scl).max();
        let covers = voting.iter().filter(|position| joins(*position)).all(|p| scl(p) == needed);
        reads(term)
            && (rules.has(Bug::ReadQuorumOfJointWithNew)
                || (rules.has(Bug::CandidateJudgesHydration) && covers))
    });
    joined.map(|term| present.and(term.members()))
}

/// Returns the decision that follows from `answers`: read quorums of every group, given under one
/// epoch.
#[must_use]
pub fn choose(geometry: &VolumeGeometry, answers: &[(PgId, &SealAnswer)]) -> Choice {
    choose_under(Sound, geometry, answers)
}

/// [`choose`] for a writer that obeys `rules`.
#[must_use]
pub fn choose_under<R: Rules>(
    rules: R,
    geometry: &VolumeGeometry,
    answers: &[(PgId, &SealAnswer)],
) -> Choice {
    let found = find_history(rules, answers);
    let views: Vec<(PgId, View<'_>)> =
        answers.iter().map(|(group, answer)| (*group, View::of(&found, answer))).collect();
    let known = views.iter().map(|(_, view)| {
        if rules.has(Bug::KnownVdlNotLowered) {
            view.vdl.lsn()
        } else {
            found.lowered(view.vdl.lsn(), view.told_under)
        }
    });
    let known = known.max().unwrap_or(Lsn::ZERO);
    let start =
        if rules.has(Bug::WalkFromRecoveryPoint) { known.max(found.after()) } else { known };

    let filter = if rules.has(Bug::AnswersNotFiltered) { History::new() } else { found.clone() };
    let mut records = BTreeMap::new();
    for group in geometry.groups() {
        let of_group = || views.iter().filter(|(of, _)| *of == group).map(|(_, view)| view);
        let scls = of_group().map(|view| scl_under(&filter, view));
        let end = if rules.has(Bug::LowestSclChosen) { scls.min() } else { scls.max() };
        let end = end.unwrap_or(Lsn::ZERO);
        for record in of_group().flat_map(|view| view.records) {
            if record.lsn <= end && !filter.annuls(record) {
                records.insert(record.lsn, *record);
            }
        }
    }

    let vcl = walk(rules, start, &records);
    let recovery_point = if rules.has(Bug::RecoverAtVcl) {
        vcl
    } else {
        last_cpl(&records, vcl).unwrap_or(start).max(start)
    };
    let ends = geometry
        .groups()
        .map(|group| {
            let retained = records.values().filter(|record| {
                record.lsn <= recovery_point || rules.has(Bug::BacklinkToAnnulled)
            });
            let anchors = views.iter().filter(|(of, _)| *of == group).map(|(_, view)| view.anchor);
            retained
                .filter(|record| record.group == group)
                .map(|record| record.lsn)
                .chain(anchors.filter(|anchor| *anchor <= recovery_point))
                .max()
                .unwrap_or(Lsn::ZERO)
        })
        .collect();
    Choice {
        used: recovery_point.max(found.through()),
        found,
        vcl: Vcl::reached(vcl),
        recovery_point: Vdl::stated(recovery_point),
        ends,
        tips: Vec::new(),
        tip: Lsn::ZERO,
    }
}

/// Returns the history to install: what was found and one range more, `(R, T]`.
///
/// `T` covers every LSN that an overtaken writer may have allocated (edges 17 and 18). `None` when
/// the number space is used up.
#[must_use]
pub fn next_history<R: Rules>(
    rules: R,
    epoch: VolumeEpoch,
    choice: &Choice,
    allocation_max: u64,
) -> Option<History> {
    let allocation_max = if rules.has(Bug::LimitsFromWriter) { 1 } else { allocation_max };
    let after = choice.recovery_point.lsn();
    let through = choice.used.plus(allocation_max)?;
    let through = if rules.has(Bug::UsedFromTarget) { through.max(choice.tip) } else { through };
    let range = if choice.tip > Lsn::ZERO {
        TruncationRange::backtrack(epoch, after, choice.tip, through)?
    } else {
        TruncationRange::new(epoch, after, through)?
    };
    Some(choice.found.with(range))
}

/// Returns the point below its VDL at which `answer` has to say what its segment holds, for a
/// recovery that found `found`; `None` if it does, or there is no such point.
#[must_use]
pub(crate) fn lacks_anchor(found: &History, answer: &SealAnswer) -> Option<Lsn> {
    let view = View::of(found, answer);
    let point = found.lowered(view.vdl.lsn(), view.told_under);
    let is_known = answer.anchor.is_some_and(|(at, _)| at == point);
    (point < view.vdl.lsn() && !is_known).then_some(point)
}

/// The history with the highest installing epoch, whole: neither merged nor cut (edges 5 and 6).
pub(crate) fn find_history<R: Rules>(rules: R, answers: &[(PgId, &SealAnswer)]) -> History {
    if rules.has(Bug::HistoryNotCarried) {
        return History::new();
    }
    if rules.has(Bug::MergeHistories) {
        let mut ranges: Vec<TruncationRange> =
            answers.iter().flat_map(|(_, answer)| answer.history.ranges()).copied().collect();
        ranges.sort_unstable();
        ranges.dedup();
        return History::from_ranges(ranges);
    }
    let newest = answers.iter().map(|(_, answer)| &answer.history).max_by_key(|h| h.epoch());
    let newest = newest.cloned().unwrap_or_default();
    if rules.has(Bug::LastRangeOnly) {
        return History::from_ranges(newest.ranges().last().copied().into_iter().collect());
    }
    newest
}

/// What of an answer counts under the history that was found.
struct View<'a> {
    scl: Scl,
    vdl: Vdl,
    /// The epoch of the history under which `vdl` was told, or a later one.
    told_under: VolumeEpoch,
    records: &'a [Record],
    /// The last record at or under a point that the volume has gone back to.
    anchor: Lsn,
}

impl<'a> View<'a> {
    /// If the backtrack that the segment has taken part in isn't in `found`, there is none, and
    /// what the segment has set aside counts.
    fn of(found: &History, answer: &'a SealAnswer) -> Self {
        let SealAnswer { scl, vdl, history, records, .. } = answer;
        let anchor = answer.anchor.map_or(Lsn::ZERO, |(_, end)| end);
        let branch = history.branch();
        let is_gone = |branch: &Branch<'_>| !found.ranges().contains(branch.range());
        match (branch.filter(is_gone), &answer.aside) {
            (Some(branch), Some(Aside { scl, vdl, records })) => {
                Self { scl: *scl, vdl: *vdl, told_under: branch.base_epoch(), records, anchor }
            }
            (_, _) => Self { scl: *scl, vdl: *vdl, told_under: history.epoch(), records, anchor },
        }
    }
}

/// What the answering segment holds every record up to once `history` is applied to it, so that a
/// sleeper's annulled records don't count (edges 4 and 21).
fn scl_under(history: &History, view: &View<'_>) -> Lsn {
    let scl = view.scl.lsn();
    let annulled = view
        .records
        .iter()
        .filter(|record| record.lsn <= scl && history.annuls(record))
        .map(|record| record.lsn)
        .min();
    let Some(annulled) = annulled else { return scl };
    let below = view.records.iter().filter(|record| record.lsn < annulled);
    below.map(|record| record.lsn).max().unwrap_or(view.anchor)
}

/// Follows the volume's backlinks from `start`, a VDL, to where they first break (edges 12, 13).
fn walk<R: Rules>(rules: R, start: Lsn, records: &BTreeMap<Lsn, Record>) -> Lsn {
    if rules.has(Bug::VclIsHighestEnd) {
        return records.keys().next_back().copied().unwrap_or(start).max(start);
    }
    let mut vcl = start;
    for (lsn, record) in records.iter().filter(|(lsn, _)| **lsn > start) {
        if record.prev_volume != vcl {
            break;
        }
        vcl = *lsn;
    }
    vcl
}

fn last_cpl(records: &BTreeMap<Lsn, Record>, vcl: Lsn) -> Option<Lsn> {
    records.range(..=vcl).rev().find(|(_, record)| record.cpl).map(|(lsn, _)| *lsn)
}
