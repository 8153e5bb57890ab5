//! Where the target is, and the history of the writer followed there: what a recovery does in its
//! first half, but that the history isn't of this machine's making.

use alloc::vec::Vec;

use super::shipping::Shipping;
use super::{OnDivergence, Phase, Relay, RelayEffect, RelayReport, Source, report};
use crate::consistency::Vdl;
use crate::epoch::VolumeEpoch;
use crate::geometry::VolumeGeometry;
use crate::id::{PgId, Position, Positions, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::Membership;
use crate::message::{Install, Pulled, SealAnswer, ToSegment};
use crate::recovery::{Answers, choose_under, find_history, newest, sealed};
use crate::region::RegionPoint;
use crate::rules::{Bug, Rules};
use crate::truncation::History;

/// What has been found out about the target.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Surveying {
    /// Of the writer followed, as a segment of the source has it.
    history: Option<History>,
    groups: Vec<Surveyed>,
    /// Whether the driver has been told where the target is.
    is_reported: bool,
    /// By group: what is to be installed, once it is known that nothing stands against it.
    installing: Vec<Membership>,
}

/// What has been found out about a group.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Surveyed {
    /// Of the source: what goes with the history.
    ends: Option<Ends>,
    /// Whom to ask first.
    known: Membership,
    /// By position: the last answer to this epoch's seal.
    answers: Positions<Option<SealAnswer>>,
}

/// The answers of a read quorum of each group.
struct Voting<'a> {
    answers: Vec<(PgId, &'a SealAnswer)>,
    /// By group.
    memberships: Vec<Membership>,
}

/// What the log of a group ends with under a history.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Ends {
    /// The last record that the newest range keeps.
    pub(super) end: Lsn,
    /// The last record of the branch that a backtrack has left.
    pub(super) tip: Option<Lsn>,
}

impl Surveyed {
    fn answers(&self) -> Answers<'_> {
        self.answers.map(Option::as_ref)
    }
}

impl Surveying {
    fn new(geometry: &VolumeGeometry) -> Self {
        let known = Membership::genesis(geometry.quorums());
        let group = || Surveyed { ends: None, known, answers: Positions::default() };
        Self {
            history: None,
            groups: geometry.groups().map(|_| group()).collect(),
            is_reported: false,
            installing: Vec::new(),
        }
    }

    pub(super) fn has_history(&self) -> bool {
        self.groups.iter().all(|group| group.ends.is_some())
    }

    pub(super) fn membership(&self, group: PgId) -> Option<&Membership> {
        self.installing.get(group.get() as usize)
    }

    fn everyone<R: Rules>(&self, rules: R, group: PgId) -> SegmentSet {
        let of_group = |of: &Surveyed| {
            of.known.everyone().or(newest(rules, &of.known, &of.answers()).everyone())
        };
        self.groups.get(group.get() as usize).map_or(SegmentSet::EMPTY, of_group)
    }

    /// Returns the answers that count, and who the members of each group are then, as the writer of
    /// `epoch` proposes them; of those alone whose history is `under` an epoch, if there is one.
    /// `None` if they are no read quorum of each group.
    fn voting<R: Rules>(
        &self,
        rules: R,
        epoch: VolumeEpoch,
        under: Option<VolumeEpoch>,
    ) -> Option<Voting<'_>> {
        let (mut answers, mut memberships) = (Vec::new(), Vec::new());
        for (id, group) in (0..).map(PgId::new).zip(&self.groups) {
            let counts = |answer: &&SealAnswer| under.is_none_or(|it| answer.history.epoch() == it);
            let all = group.answers.map(|answer| answer.as_ref().filter(counts));
            let (membership, voters) = sealed(rules, &group.known, &all)?;
            let voting = all.iter().filter(|(position, _)| voters.contains(*position));
            answers.extend(voting.filter_map(|(_, answer)| Some((id, (*answer)?))));
            memberships.push(membership.adopted_by(epoch));
        }
        Some(Voting { answers, memberships })
    }

    /// Returns what installs the history on segments of `group`, if that has begun.
    pub(super) fn install(&self, group: PgId, to: SegmentSet) -> Option<RelayEffect> {
        let membership = *self.membership(group)?;
        let Ends { end, tip } = self.groups.get(group.get() as usize)?.ends?;
        let history = self.history.clone()?;
        let install = Install { group, history, end, tip, membership };
        Some(RelayEffect::Send { group, to, message: ToSegment::Install(install) })
    }
}

impl<R: Rules> Relay<R> {
    /// Begins to find out where the target is. Its segments promise the epoch of the writer
    /// followed: relays of older ones ship nothing any more.
    pub(super) fn survey(&mut self, epoch: VolumeEpoch, effects: &mut Vec<RelayEffect>) {
        let surveying = Surveying::new(&self.geometry);
        debug_assert!(self.epoch() == Some(epoch));
        for group in self.geometry.groups() {
            self.seal(group, surveying.everyone(self.rules, group), effects);
        }
        self.phase = Phase::Surveying(surveying);
    }

    pub(super) fn receive_history(&mut self, pulled: Pulled, effects: &mut Vec<RelayEffect>) {
        let Phase::Surveying(surveying) = &mut self.phase else { return };
        let Some(group) = surveying.groups.get_mut(pulled.group.get() as usize) else { return };
        group.ends = Some(Ends { end: pulled.end, tip: pulled.tip.or(known_tip(group)) });
        surveying.history = Some(pulled.history);
        self.judge(effects);
    }

    pub(super) fn receive_sealed(
        &mut self,
        group: PgId,
        from: Position,
        answer: SealAnswer,
        effects: &mut Vec<RelayEffect>,
    ) {
        let (rules, geometry) = (self.rules, self.geometry);
        let Phase::Surveying(surveying) = &mut self.phase else { return };
        if answer.geometry != geometry {
            let refusal = crate::refusal::Refusal::Malformed;
            effects.push(report(RelayReport::Rejected { group, from, refusal }));
            return;
        }
        let asked = surveying.everyone(rules, group);
        let Some(of_group) = surveying.groups.get_mut(group.get() as usize) else { return };
        let known = of_group.answers.at_mut(from);
        // A segment only ever gets newer histories: an older answer comes late.
        let is_late = |known: &SealAnswer| known.history.epoch() > answer.history.epoch();
        if !known.as_ref().is_some_and(is_late) {
            *known = Some(answer);
        }
        let more = surveying.everyone(rules, group).without(asked);
        if !more.is_empty() {
            self.seal(group, more, effects);
        }
        self.judge(effects);
    }

    /// Decides what to do, once a read quorum of each group of the target has answered and the
    /// history is known.
    fn judge(&mut self, effects: &mut Vec<RelayEffect>) {
        let rules = self.rules;
        let Phase::Surveying(surveying) = &self.phase else { return };
        let (Some(source), Some(history)) = (&self.source, &surveying.history) else { return };
        if !surveying.has_history() {
            return;
        }
        let epoch = source.epoch;
        // Who has the history says what is there under it.
        if let Some(Voting { answers, memberships }) = surveying.voting(rules, epoch, Some(epoch)) {
            let choice = choose_under(rules, &self.geometry, &answers);
            let ends: Vec<Ends> = surveying.groups.iter().filter_map(|group| group.ends).collect();
            let shipping = Shipping::new(history.clone(), &ends, &memberships, &choice);
            self.phase = Phase::Shipping(shipping);
            self.begin(effects);
            return;
        }
        if surveying.is_reported {
            return;
        }
        let Some(Voting { answers, memberships }) = surveying.voting(rules, epoch, None) else {
            return;
        };
        let mut of_groups = self.geometry.groups().zip(&memberships);
        if let Some((group, _)) = of_groups.find(|(_, membership)| !membership.is_settled()) {
            // Who is to hold what is for a recovery to decide (edge 65).
            effects.push(report(RelayReport::Unsettled { group }));
            return;
        }
        let is_dropped = self.report_found(source, history, &answers, effects);
        let on_divergence = self.on_divergence;
        let Phase::Surveying(surveying) = &mut self.phase else { return };
        if is_dropped && on_divergence == OnDivergence::Refuse {
            self.phase = Phase::Diverged;
            return;
        }
        surveying.is_reported = true;
        surveying.installing = memberships;
        for group in self.geometry.groups() {
            let to = surveying.everyone(rules, group);
            effects.extend(surveying.install(group, to));
        }
    }

    /// Reports where the target is. Returns whether it has gone on by itself: what it has then is
    /// dropped by the history of the writer followed.
    fn report_found(
        &self,
        source: &Source,
        history: &History,
        answers: &[(PgId, &SealAnswer)],
        effects: &mut Vec<RelayEffect>,
    ) -> bool {
        let rules = self.rules;
        let found = find_history(rules, answers);
        let known = answers
            .iter()
            .map(|(_, answer)| found.lowered(answer.vdl.lsn(), answer.history.epoch()));
        let vdl = Vdl::stated(known.max().unwrap_or(Lsn::ZERO));
        let target = RegionPoint { epoch: found.epoch(), vdl };
        effects.push(report(RelayReport::Found { target }));
        let choice = choose_under(rules, &self.geometry, answers);
        let end = choice.recovery_point.lsn();
        let kept = if rules.has(Bug::ReattachByLsn) {
            end.min(source.told.lsn())
        } else {
            found.common(end, history)
        };
        // What a backtrack of this very region takes back is set aside, and no matter.
        let is_dropped = kept < end && found.epoch().region() < source.epoch.region();
        if is_dropped {
            let target = RegionPoint { vdl: choice.recovery_point, ..target };
            effects.push(report(RelayReport::Diverged { target, kept }));
        }
        is_dropped
    }
}

fn known_tip(group: &Surveyed) -> Option<Lsn> {
    group.ends.and_then(|ends| ends.tip)
}
