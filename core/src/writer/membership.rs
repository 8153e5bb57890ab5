//! Steps of a membership change, taken by the open writer (protocol: membership).

use alloc::vec::Vec;

use super::open::{GroupProgress, Open};
use super::{FIRST, Phase, Writer, refused};
use crate::effect::{CommandRefusal, Report, WriterEffect};
use crate::id::{PgId, Position, SegmentSet};
use crate::lsn::Lsn;
use crate::membership::{Membership, Step, StepRefusal};
use crate::message::{Install, ToSegment};
use crate::rules::{Bug, Rules};

/// How the last step of a group stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The membership that the writer has proposed or adopted last.
    pub membership: Membership,
    /// Whether the next step may be taken: this one is settled, and a write quorum knows it.
    pub is_settled: bool,
    /// What members that join must hold; zero without a change under way.
    pub target: Lsn,
}

impl GroupProgress {
    /// Returns the members that have acknowledged the membership in force or a newer one.
    fn holders(&self) -> SegmentSet {
        let number = self.membership.epoch().number;
        let mut holders = SegmentSet::EMPTY;
        for (position, held) in self.held.iter() {
            if *held >= number {
                holders.insert(position);
            }
        }
        holders
    }

    /// Returns whether the step that led here is durable: a write quorum of the membership before
    /// and of the one after hold it (edge 34).
    fn is_durable<R: Rules>(&self, rules: R) -> bool {
        // What the install brought was durable when this writer opened.
        let (holders, short) = (self.holders(), super::short_writes(rules));
        self.membership.epoch().number == 0
            || (self.membership.before().writes(holders, short)
                && self.membership.quorums().writes(holders, short))
    }

    /// Returns whether the next step may be taken: the last one is settled, and a write quorum
    /// knows it (edge 38).
    pub(super) fn is_idle<R: Rules>(&self, rules: R) -> bool {
        rules.has(Bug::NextBeforeSettled)
            || (self.membership.is_settled() && self.is_durable(rules))
    }

    /// Returns whether every member that gets a vote by the step to `next`, and a write quorum of
    /// those that read then, hold all that was ever acknowledged before the joint membership; what
    /// came after it is on write quorums of both (edges 31, 41 and 68).
    fn is_hydrated<R: Rules>(&self, rules: R, next: &Membership) -> bool {
        let (old, new) = (self.membership.quorums().reading(), next.quorums().reading());
        let mut hydrated = SegmentSet::EMPTY;
        for (position, scl) in self.scls().iter() {
            if *scl >= self.target {
                hydrated.insert(position);
            }
        }
        let joined = new.members().without(old.members());
        let is_on_quorum = rules.has(Bug::DegradedWithoutHydration)
            || crate::formula::Formula::single(*new).writes(hydrated, 0);
        joined.is_within(hydrated) && is_on_quorum
    }
}

impl Open {
    pub(super) fn standing<R: Rules>(&self, rules: R, group: PgId) -> Option<Standing> {
        let progress = self.groups.get(group.get() as usize)?;
        let (membership, target) = (progress.membership, progress.target);
        Some(Standing { membership, is_settled: progress.is_idle(rules), target })
    }

    /// Seeded bug: whoever isn't a member counts as some member.
    pub(super) fn is_evicted<R: Rules>(&self, rules: R, group: PgId, from: Position) -> bool {
        let of_group = self.membership(group);
        let is_member = of_group.is_some_and(|it| it.everyone().contains(from));
        rules.has(Bug::AckFromEvicted) && !is_member
    }
}

impl<R: Rules> Writer<R> {
    /// Takes one step of a membership change, if it may be taken.
    pub(super) fn take(&mut self, group: PgId, step: Step, effects: &mut Vec<WriterEffect>) {
        if group == FIRST && step == Step::Grow {
            self.grow(effects);
            return;
        }
        let not_open = self.not_open();
        let (rules, epoch) = (self.rules, self.epoch);
        let Phase::Open(open) = &mut self.phase else {
            effects.push(refused(not_open));
            return;
        };
        let Some(progress) = open.groups.get_mut(group.get() as usize) else {
            effects.push(refused(CommandRefusal::Step(StepRefusal::Nothing)));
            return;
        };
        let next = if step == Step::Grow {
            // It is the first group that knows of the others.
            Err(StepRefusal::Nothing)
        } else if progress.is_idle(rules) {
            progress.membership.after(rules, epoch, step)
        } else {
            Err(StepRefusal::Unsettled)
        };
        let next = next.and_then(|next| {
            let is_finish = matches!(step, Step::Finish(_));
            if is_finish && !progress.is_hydrated(rules, &next) {
                return Err(StepRefusal::NotHydrated);
            }
            Ok(next)
        });
        match next {
            Ok(next) => self.propose(group, next, effects),
            Err(refusal) => effects.push(refused(CommandRefusal::Step(refusal))),
        }
    }

    /// Looks whether the membership in force is durable, or its settled mark known to a write
    /// quorum.
    pub(super) fn settle(&mut self, group: PgId, effects: &mut Vec<WriterEffect>) {
        let (rules, epoch) = (self.rules, self.epoch);
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(progress) = open.groups.get_mut(group.get() as usize) else { return };
        if !progress.is_durable(rules) {
            return;
        }
        let membership = progress.membership;
        if group == FIRST {
            self.add_group(&membership, effects);
        }
        if membership.is_settled() {
            // The install's number needs no report: nothing has changed since the opening.
            if membership.epoch().number > 0 {
                effects.push(WriterEffect::Report(Report::Settled { group, membership }));
            }
            self.count_group(effects);
            return;
        }
        self.propose(group, membership.settled(epoch), effects);
    }

    /// Makes `next` the membership of the group and tells everybody whom it concerns. From now on
    /// acknowledgements count under its `before`: that is what is in force until it is durable, and
    /// itself once it is settled.
    pub(super) fn propose(
        &mut self,
        group: PgId,
        next: Membership,
        effects: &mut Vec<WriterEffect>,
    ) {
        let rules = self.rules;
        let Phase::Open(open) = &mut self.phase else { return };
        let (history, end, tip) = (open.history().clone(), open.end(group), open.tip(group));
        let Some(progress) = open.groups.get_mut(group.get() as usize) else { return };
        let to = progress.membership.everyone().or(next.everyone());
        progress.membership =
            if rules.has(Bug::SettledTooEarly) { next.with_mark_too_early() } else { next };
        let membership = progress.membership;
        // Records that come now count under the new formula, so what it must have is all before.
        if membership.is_settled() {
            progress.fix_target(rules);
        }
        let has_advanced = open.count(rules, group);
        let vdl = open.vdl();
        if has_advanced {
            effects.push(WriterEffect::Report(Report::Durable { vdl }));
            self.stream(&[], effects);
        }
        let install = ToSegment::Install(Install { group, history, end, tip, membership });
        effects.push(WriterEffect::Send { group, to, message: install });
    }
}

impl GroupProgress {
    /// Fixes what members that join must hold when the joint membership comes into force.
    fn fix_target<R: Rules>(&mut self, rules: R) {
        let is_single = self.membership.quorums().as_single().is_some();
        self.target = if is_single {
            Lsn::ZERO
        } else if rules.has(Bug::TargetRecomputed) {
            self.membership.quorums().reached(self.scls(), 0)
        } else {
            self.target.max(self.pgcl().lsn())
        };
    }
}
