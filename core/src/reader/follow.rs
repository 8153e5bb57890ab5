//! Following a writer's stream (protocol: reads; edges 49 to 51).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::{Reader, ReaderEffect, ReaderReport, View};
use crate::consistency::ReadPoint;
use crate::epoch::VolumeEpoch;
use crate::id::{PageId, PgId, Positions};
use crate::lsn::Lsn;
use crate::message::{FromReader, Redo, Start};
use crate::record::Record;
use crate::rules::{Bug, Rules};

impl<R: Rules> Reader<R> {
    /// Begins a stream: what it starts from replaces what was there, so that nothing is left that
    /// the writer's log doesn't contain (edge 49).
    pub(super) fn receive_start(&mut self, start: Start, effects: &mut Vec<ReaderEffect>) {
        let Some(geometry) = self.geometry.with_groups(start.ends.len()) else { return };
        let (mut pages, mut asked, mut above) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let mut floor = start.floor;
        if let Some(view) = self.view.take() {
            let is_later = (start.epoch, start.session) > (view.epoch, view.session);
            // A read point never goes back, but for a later writer that has taken the volume back:
            // no other opens below it (P5).
            let goes_back = start.vdl < view.vdl;
            if !is_later || (goes_back && start.epoch == view.epoch) {
                self.view = Some(view);
                return;
            }
            // At one VDL a page is the same in every log that reaches it. What lies between two
            // was missed.
            let is_same = start.vdl == view.vdl;
            let View { above: old_above, pages: old_pages, asked: old_asked, .. } = view;
            asked = old_asked;
            if is_same {
                pages = old_pages;
            } else {
                asked.values_mut().for_each(|asked| asked.is_current = false);
                discard(old_pages.into_values().flatten(), effects);
            }
            if self.rules.has(Bug::ReaderKeepsAboveNewVdl) {
                above = old_above;
            } else {
                discard(old_above, effects);
            }
            if !goes_back {
                floor = floor.max(view.floor);
            }
        }
        let Start { epoch, session, vdl, ends, .. } = start;
        self.geometry = geometry;
        let scls = self.geometry.groups().map(|_| Positions::default()).collect();
        let next = Some(0);
        self.view =
            Some(View { epoch, vdl, floor, ends, session, next, above, pages, asked, scls });
        effects.push(ReaderEffect::Report(ReaderReport::Attached { epoch, vdl, floor }));
    }

    pub(super) fn receive_redo(&mut self, mut redo: Redo, effects: &mut Vec<ReaderEffect>) {
        let rules = self.rules;
        let Some(view) = &mut self.view else { return discard(redo.records, effects) };
        let is_ours = (redo.epoch, redo.session) == (view.epoch, view.session);
        let Some(next) = view.next.filter(|_| is_ours) else {
            return view.ignore(redo.records, effects);
        };
        if redo.number < next && !rules.has(Bug::ReaderAppliesTwice) {
            return view.ignore(redo.records, effects);
        }
        if redo.number > next && !rules.has(Bug::ReaderIgnoresGap) {
            // What is missing may be redo of a cached page: nothing is applied any more, and what
            // is cached stays what it was at the VDL reached (edge 50).
            view.next = None;
            view.ignore(redo.records, effects);
            discard(view.above.drain(..), effects);
            effects.push(ReaderEffect::Report(ReaderReport::Lost));
            return;
        }
        if redo.number < next {
            redo.records.retain(|record| !view.above.contains(record));
        }
        view.next = Some(next.max(redo.number.wrapping_add(1)));
        let is_news = redo.added > self.geometry.added() && self.geometry.can_have(redo.added);
        if is_news && !rules.has(Bug::ReaderIgnoresGrowth) {
            // Nothing is written in a group before it is told of.
            self.geometry = self.geometry.grown(redo.added);
            let groups = self.geometry.groups_count() as usize;
            view.ends.resize(groups, Lsn::ZERO);
            view.scls.resize(groups, Positions::default());
        }
        view.above.extend(redo.records);
        let has_advanced = redo.vdl > view.vdl;
        view.vdl = view.vdl.max(redo.vdl);
        view.apply(rules, effects);
        if has_advanced {
            let report = ReaderReport::Advanced { vdl: view.vdl };
            effects.push(ReaderEffect::Report(report));
        }
    }

    pub(super) fn receive_standing(
        &mut self,
        epoch: VolumeEpoch,
        group: PgId,
        scls: Positions<Option<Lsn>>,
    ) {
        let Some(view) = self.view.as_mut().filter(|view| view.epoch == epoch) else { return };
        if let Some(known) = view.scls.get_mut(group.get() as usize) {
            *known = scls;
        }
    }

    pub(super) fn release(&mut self, floor: ReadPoint, effects: &mut Vec<ReaderEffect>) {
        let Some(view) = &mut self.view else { return };
        view.floor = view.floor.max(floor.min(ReadPoint::at(view.vdl)));
        let message = FromReader::Release { epoch: view.epoch, floor: view.floor };
        effects.push(ReaderEffect::SendWriter(message));
    }

    pub(super) fn evict(&mut self, page: PageId, effects: &mut Vec<ReaderEffect>) {
        let evicted = self.view.as_mut().and_then(|view| view.pages.remove(&page));
        discard(evicted.flatten(), effects);
    }
}

impl View {
    /// Applies the redo that the VDL covers: since that is a consistency point, whole
    /// mini-transactions.
    fn apply<R: Rules>(&mut self, rules: R, effects: &mut Vec<ReaderEffect>) {
        let vdl = self.vdl.lsn();
        let is_covered = |record: &mut Record| {
            rules.has(Bug::ReaderAppliesAboveVdl)
                || (record.lsn <= vdl
                    && !(record.cpl && record.lsn == vdl && rules.has(Bug::ReaderAppliesHalfMtr)))
        };
        while let Some(record) = self.above.pop_front_if(is_covered) {
            if let Some(end) = self.ends.get_mut(record.group.get() as usize) {
                *end = (*end).max(record.lsn);
            }
            for asked in self.asked.values_mut().filter(|asked| asked.page == record.page) {
                asked.is_current = false;
            }
            let Some(cached) = self.pages.get_mut(&record.page) else {
                discard([record], effects);
                continue;
            };
            // A record that the page already contains changes nothing (edge 51).
            let is_old = cached.is_some_and(|version| version.lsn >= record.lsn);
            if is_old && !rules.has(Bug::ReaderAppliesTwice) {
                let is_same = cached.is_some_and(|version| version.lsn == record.lsn);
                discard((!is_same).then_some(record), effects);
                continue;
            }
            discard(cached.replace(record), effects);
        }
    }

    /// Leaves records alone that came again or came too early: only the bytes of those that are
    /// not held anyway can go.
    fn ignore(&self, records: Vec<Record>, effects: &mut Vec<ReaderEffect>) {
        let is_held = |record: &Record| {
            self.above.contains(record) || self.pages.get(&record.page) == Some(&Some(*record))
        };
        discard(records.into_iter().filter(|record| !is_held(record)), effects);
    }
}

fn discard(records: impl IntoIterator<Item = Record>, effects: &mut Vec<ReaderEffect>) {
    effects.extend(records.into_iter().map(|record| ReaderEffect::Discard { lsn: record.lsn }));
}
