//! The faults of a run, drawn from its seed, within what the protocol claims to tolerate: at any
//! time, of the nodes that are down, cut off or frozen, all but one are in one zone. Blackouts,
//! which have to be asked for, go beyond that: nobody can open or write then, and still nothing
//! that was acknowledged may be lost.

use std::time::Duration;

use quorate_core::rules::Rules;

use super::cluster::{Cluster, FAULT, NODES, ZONES};
use super::oracle::Objection;
use crate::disk::Replay;
use crate::env::simulated::{Crash, Fault, ProcessId};

/// The time between two faults: at least this, and at most one of those, another one each round.
/// Faults in quick succession meet half-finished recoveries, rare ones meet long histories.
const PAUSE_MIN: Duration = Duration::from_millis(2);
pub(super) const PAUSES_MAX: [Duration; 4] = [
    Duration::from_millis(30),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// How long a fault lasts.
const LASTS_MIN: Duration = Duration::from_millis(5);
const LASTS_MAX: Duration = Duration::from_millis(600);

/// How many kinds of faults are drawn from, without blackouts and with them.
const KINDS: u64 = 27;
const KINDS_ALL: u64 = 29;

/// The most writer processes at a time.
const CLIENTS_MAX: usize = 4;

/// The end of a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// These machines take calls again.
    Accept { machine: usize },
    /// These disks are as fast as usual.
    FastDisks { machines: Vec<usize> },
    /// This link is as fast as usual.
    FastLink { from: usize, to: usize },
    /// This node comes back.
    Restart { node: usize },
    /// This process goes on.
    Thaw { process: ProcessId, node: Option<usize> },
    /// These directions work again.
    Unblock { links: Vec<(usize, usize)>, nodes: Vec<usize> },
}

impl<R: Rules> Cluster<R> {
    /// Brings about the next fault.
    pub(super) fn fault(&mut self) -> Result<(), Objection> {
        let pause = self.random.span(PAUSE_MIN, self.pause_max);
        self.world.with(|state| state.set_alarm(pause, FAULT));
        if !self.phase.is_faulty() {
            return Ok(());
        }
        if self.clients.is_empty() {
            self.start_client()?;
        }
        let node = self.random.index(NODES);
        match self.random.below(if self.has_blackouts { KINDS_ALL } else { KINDS }) {
            0 | 1 => self.crash(&[node], Crash::Kill),
            2 | 3 => self.crash(&[node], Crash::Power),
            4 => self.lose_zone(),
            5 | 6 => self.strike()?,
            7 => self.freeze_node(node, false),
            8 => self.freeze_node(node, true),
            9 => self.cut_off(&[node], true, false),
            10 => self.cut_off(&[node], false, true),
            11 => self.cut_off(&[node], true, true),
            12 => self.cut_zone(),
            13 => self.slow_link(node),
            14 => self.slow_disks(vec![node]),
            15 => self.slow_disks((0..NODES).collect()),
            16 => self.fail_sync(node),
            17 => self.world.with(|state| state.reset_one(node)),
            18 => self.refuse_calls(node),
            19 | 20 => self.take_over()?,
            21 => self.freeze_and_take_over()?,
            22 => self.kill_writer()?,
            23 => {
                self.take_over()?;
                self.take_over()?;
            }
            24 => self.rot(node),
            25 => self.lose_disk(node),
            26 => self.kill_newcomer(),
            _ => self.black_out()?,
        }
        Ok(())
    }

    /// Returns whether these nodes may fail too.
    pub(super) fn may_fail(&self, nodes: &[usize]) -> bool {
        let is_down = |node: &usize| {
            nodes.contains(node) || self.impaired.get(*node).is_some_and(|count| *count > 0)
        };
        let down: Vec<usize> = (0..NODES).filter(is_down).collect();
        let is_within =
            |zone: usize| down.iter().filter(|node| ZONES.get(**node) != Some(&zone)).count() <= 1;
        let is_new = nodes.iter().all(|node| self.impaired.get(*node) == Some(&0));
        is_new && (0..3).any(is_within)
    }

    pub(super) fn impair(&mut self, nodes: &[usize]) {
        for node in nodes {
            if let Some(count) = self.impaired.get_mut(*node) {
                *count = count.saturating_add(1);
            }
        }
    }

    pub(super) fn repair(&mut self, nodes: &[usize]) {
        for node in nodes {
            if let Some(count) = self.impaired.get_mut(*node) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn fire(&self, fault: Fault) {
        self.world.with(|state| state.trace.fire(fault));
    }

    fn undo_later(&mut self, undo: Undo) {
        let after = self.random.span(LASTS_MIN, LASTS_MAX);
        let id = self.next_undo;
        self.next_undo = id.saturating_add(1);
        self.undos.insert(id, undo);
        self.world.with(|state| state.set_alarm(after, id));
    }

    pub(super) fn restart_later(&mut self, node: usize) {
        self.undo_later(Undo::Restart { node });
    }

    /// Ends a fault, unless that has been done.
    pub(super) fn undo(&mut self, id: u64) -> Result<(), Objection> {
        let Some(undo) = self.undos.remove(&id) else { return Ok(()) };
        match undo {
            Undo::Accept { machine } => self.world.with(|state| state.refuse(machine, false)),
            Undo::FastDisks { machines } => self.world.with(|state| {
                machines.iter().for_each(|machine| state.slow_disk(*machine, false));
            }),
            Undo::FastLink { from, to } => {
                self.world.with(|state| state.slow_down(from, to, false));
            }
            Undo::Restart { node } => {
                self.start_node(node)?;
                self.repair(&[node]);
            }
            Undo::Thaw { process, node } => self.thaw(process, node),
            Undo::Unblock { links, nodes } => {
                self.tell(&format!("nodes {nodes:?} are connected again"));
                self.world.with(|state| state.block(&links, false));
                self.repair(&nodes);
                // The worst time for others to fail is before these have caught up.
                if self.phase.is_faulty() && self.random.chance(500) {
                    self.strike()?;
                }
            }
        }
        Ok(())
    }

    /// Ends every fault.
    pub(super) fn undo_all(&mut self) -> Result<(), Objection> {
        self.phase = super::round::Phase::Healing {
            since: self.now(),
            auditor: ProcessId::NOBODY,
            writes: 0,
            pages: 0,
        };
        while let Some((id, _)) = self.undos.first_key_value() {
            self.undo(*id)?;
        }
        for node in 0..NODES {
            let slot = self.nodes.get_mut(node);
            if slot.is_some_and(|slot| std::mem::take(&mut slot.is_failing)) {
                self.world.with(|state| state.fail_sync(node, false));
                self.repair(&[node]);
            }
        }
        let is_over = |(node, count): (usize, &u32)| *count == self.standing_faults(node);
        let is_over = self.impaired.iter().enumerate().all(is_over);
        assert!(is_over, "a fault that nobody has ended");
        Ok(())
    }
}

/// Nodes.
impl<R: Rules> Cluster<R> {
    /// Ends nodes and has them come back later.
    fn crash(&mut self, nodes: &[usize], how: Crash) {
        if self.may_fail(nodes) {
            self.bring_down(nodes, how);
        }
    }

    pub(super) fn bring_down(&mut self, nodes: &[usize], how: Crash) {
        self.impair(nodes);
        for node in nodes {
            let (fault, word) = match how {
                Crash::Kill => (Fault::Kill, "is killed"),
                Crash::Power => (Fault::PowerLoss, "loses power"),
            };
            self.fire(fault);
            self.tell(&format!("node {node} {word}"));
            self.end_node(*node, how);
            self.restart_later(*node);
        }
    }

    fn lose_zone(&mut self) {
        let zone = self.random.index(3);
        let nodes = [zone * 2, zone * 2 + 1];
        if self.may_fail(&nodes) {
            self.fire(Fault::Zone);
            self.crash(&nodes, Crash::Power);
        }
    }

    /// Makes a zone and one node lose power at once, and a new writer open.
    fn strike(&mut self) -> Result<(), Objection> {
        let zone = self.random.index(3);
        let other = (zone * 2 + 2 + self.random.index(4)) % NODES;
        let nodes = [zone * 2, zone * 2 + 1, other];
        if self.may_fail(&nodes) {
            self.fire(Fault::Zone);
            self.crash(&nodes, Crash::Power);
            self.take_over()?;
        }
        Ok(())
    }

    /// Makes every node lose power at once that no other fault has, and a new writer open.
    fn black_out(&mut self) -> Result<(), Objection> {
        let is_steady = |node: &usize| self.impaired.get(*node) == Some(&0);
        let nodes: Vec<usize> = (0..NODES).filter(is_steady).collect();
        self.fire(Fault::Blackout);
        self.tell("the power fails everywhere");
        self.bring_down(&nodes, Crash::Power);
        self.take_over()
    }

    /// Ends a node if it is up, and damages durable bytes of its log: at most one copy at a time is
    /// damaged, until its peers have repaired it.
    fn rot(&mut self, node: usize) {
        self.look_for_rot();
        // Damage that no start has met could be undone by more of it.
        if self.rebuilding.is_some()
            || self.is_rot_unread
            || self.rotten.is_some_and(|other| other != node)
        {
            return;
        }
        let how = if self.random.chance(500) { Crash::Kill } else { Crash::Power };
        self.crash(&[node], how);
        let is_down = self.nodes.get(node).is_some_and(|slot| slot.up.is_none());
        if is_down && self.world.with(|state| state.rot(node)) {
            self.tell(&format!("the log of node {node} is damaged"));
            self.rotten = Some(node);
            self.is_rot_unread = true;
        }
    }

    /// Looks whether the node whose log was damaged is repaired.
    pub(super) fn look_for_rot(&mut self) {
        if let Some(other) = self.rotten
            && let Some(slot) = self.nodes.get(other)
            && slot.up.as_ref().is_some_and(|(_, running)| !running.status().impaired)
        {
            self.rotten = None;
        }
    }

    /// Checks that a start of a node has found damage if there was any, and none if there was not.
    pub(super) fn check_rot(&mut self, node: usize, replay: &Replay) -> Result<(), Objection> {
        let was_damaged = self.rotten == Some(node) && std::mem::take(&mut self.is_rot_unread);
        match &replay.replaced {
            Some(replaced) if !was_damaged => Err(format!(
                "the log of node {node} is damaged at byte {} though nobody damaged it: {}",
                replaced.damage.offset, replaced.damage.reason
            )),
            None if was_damaged => {
                Err(format!("node {node} did not notice that its log is damaged"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn freeze_node(&mut self, node: usize, with_clock: bool) {
        let process = self.nodes.get(node).and_then(|slot| slot.up.as_ref()).map(|(own, _)| *own);
        let Some(process) = process.filter(|_| self.may_fail(&[node])) else { return };
        self.impair(&[node]);
        self.fire(if with_clock { Fault::ClockPause } else { Fault::Freeze });
        self.tell(&format!("node {node} freezes"));
        self.world.with(|state| state.freeze(process, with_clock));
        self.undo_later(Undo::Thaw { process, node: Some(node) });
    }

    fn thaw(&mut self, process: ProcessId, node: Option<usize>) {
        self.world.with(|state| state.thaw(process));
        match node {
            Some(node) => {
                self.tell(&format!("node {node} goes on"));
                self.repair(&[node]);
            }
            None => {
                let newest = self.clients.iter().filter_map(|client| client.epoch).max();
                let client = self.clients.iter_mut().find(|client| client.process == process);
                let Some(client) = client else { return };
                client.is_frozen = false;
                if client.epoch < newest {
                    self.fire(Fault::Zombie);
                }
                self.tell(&format!("writer process {} goes on", process.number()));
            }
        }
    }

    fn slow_disks(&mut self, machines: Vec<usize>) {
        self.tell(&format!("the disks of nodes {machines:?} are slow"));
        self.world.with(|state| {
            machines.iter().for_each(|machine| state.slow_disk(*machine, true));
        });
        self.undo_later(Undo::FastDisks { machines });
    }

    fn fail_sync(&mut self, node: usize) {
        let is_up = self.nodes.get(node).is_some_and(|slot| slot.up.is_some());
        if !is_up || !self.may_fail(&[node]) {
            return;
        }
        self.impair(&[node]);
        if let Some(slot) = self.nodes.get_mut(node) {
            slot.is_failing = true;
        }
        self.world.with(|state| state.fail_sync(node, true));
    }
}

/// Links.
impl<R: Rules> Cluster<R> {
    /// Cuts nodes off from everybody else, in one direction or both.
    fn cut_off(&mut self, nodes: &[usize], inwards: bool, outwards: bool) {
        if !self.may_fail(nodes) {
            return;
        }
        self.impair(nodes);
        if inwards != outwards {
            self.fire(Fault::OneWay);
        }
        self.tell(&format!(
            "nodes {nodes:?} are cut off{}{}",
            if inwards { ", what is sent to them" } else { "" },
            if outwards { ", what they send" } else { "" }
        ));
        let mut links = Vec::new();
        for node in nodes {
            for other in (0..ZONES.len()).filter(|other| !nodes.contains(other)) {
                links.extend(inwards.then_some((other, *node)));
                links.extend(outwards.then_some((*node, other)));
            }
        }
        self.world.with(|state| state.block(&links, true));
        self.undo_later(Undo::Unblock { links, nodes: nodes.to_vec() });
    }

    fn cut_zone(&mut self) {
        let zone = self.random.index(3);
        let nodes = [zone * 2, zone * 2 + 1];
        if self.may_fail(&nodes) {
            self.fire(Fault::Zone);
            let (inwards, outwards) = match self.random.below(3) {
                0 => (true, false),
                1 => (false, true),
                _ => (true, true),
            };
            self.cut_off(&nodes, inwards, outwards);
        }
    }

    fn slow_link(&mut self, from: usize) {
        let to = self.random.index(ZONES.len());
        let (from, to) = if self.random.chance(500) { (from, to) } else { (to, from) };
        self.tell(&format!("the link from machine {from} to {to} is slow"));
        self.world.with(|state| state.slow_down(from, to, true));
        self.undo_later(Undo::FastLink { from, to });
    }

    fn refuse_calls(&mut self, machine: usize) {
        self.world.with(|state| {
            state.refuse(machine, true);
            state.reset_one(machine);
        });
        self.undo_later(Undo::Accept { machine });
    }
}

/// Writers.
impl<R: Rules> Cluster<R> {
    /// Starts another writer; the one before doesn't know.
    fn take_over(&mut self) -> Result<(), Objection> {
        if self.clients.len() < CLIENTS_MAX {
            self.start_client()?;
        }
        Ok(())
    }

    fn freeze_and_take_over(&mut self) -> Result<(), Objection> {
        let index = self.random.index(self.clients.len());
        let client = self.clients.get_mut(index).filter(|client| !client.is_frozen);
        if let Some(client) = client {
            client.is_frozen = true;
            let process = client.process;
            self.fire(Fault::Freeze);
            self.tell(&format!("writer process {} freezes", process.number()));
            self.world.with(|state| state.freeze(process, false));
            self.undo_later(Undo::Thaw { process, node: None });
        }
        self.take_over()
    }

    fn kill_writer(&mut self) -> Result<(), Objection> {
        let index = self.random.index(self.clients.len());
        if let Some(process) = self.clients.get(index).map(|client| client.process) {
            self.fire(Fault::WriterKill);
            self.tell(&format!("writer process {} is killed", process.number()));
            self.end_client(process, Crash::Kill);
        }
        self.take_over()
    }
}
