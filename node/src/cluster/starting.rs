//! All processes started at once, and the nodes that don't start.

use std::net::SocketAddr;
use std::thread;

use quorate_core::id::Position;

use super::{
    ANSWER_MAX, Absent, Cluster, ClusterError, ClusterFile, Ended, Need, POLL, READY_MAX,
    STARTS_MAX, Who, is_temporary,
};
use crate::client::Client;
use crate::clock::{Clock, Moment};
use crate::wire::Status;

/// So many nodes are a write quorum.
const NODES_MIN: usize = 4;

impl Cluster {
    /// Starts all processes, at the addresses that they had if nobody else listens there.
    pub(super) fn start_on(
        &mut self,
        earlier: Option<&ClusterFile>,
        has_writer: bool,
    ) -> Result<(), ClusterError> {
        let earlier: Vec<SocketAddr> = earlier
            .iter()
            .flat_map(|file| file.nodes.iter().chain([&file.writer]))
            .map(|member| member.address)
            .collect();
        let mut attempt = 1;
        loop {
            self.settle(&earlier)?;
            match self.start_all(has_writer) {
                // Somebody may have taken a port between the look at it and its use.
                Err(ClusterError::Ended { words, .. })
                    if attempt < STARTS_MAX && has_no_port(&words) =>
                {
                    attempt += 1;
                    self.nodes.iter_mut().for_each(|node| node.running = None);
                    self.writer = None;
                }
                outcome => return outcome,
            }
        }
    }

    fn start_all(&mut self, has_writer: bool) -> Result<(), ClusterError> {
        (self.absent, self.impaired) = (Vec::new(), Vec::new());
        self.miss_forgetful()?;
        for position in self.positions() {
            let seat = self.seat(position)?;
            if !seat.is_lost && !seat.is_elsewhere {
                self.spawn(Who::Node(position))?;
            }
        }
        if has_writer {
            self.spawn(Who::Writer)?;
        }
        for position in self.positions() {
            if let Some(status) = self.wait_ready_or_absent(position)?
                && status.impaired
            {
                self.impaired.push(self.name(Who::Node(position)));
            }
        }
        self.record()?;
        if has_writer {
            self.wait_for_writer()?;
        }
        self.record()
    }

    /// Finds the nodes that have lost their logs: new ones in their places would vote without
    /// knowing what they have promised and acknowledged.
    fn miss_forgetful(&mut self) -> Result<(), ClusterError> {
        for position in self.positions() {
            if self.seat(position)?.is_lost {
                let why = format!(
                    "its log is gone: {} holds none, although it held one. It is not started as a \
                     new one, which would vote without what it acknowledged: replace it with \
                     `quorate repair`",
                    self.node_directory(position).display()
                );
                self.miss(Who::Node(position), why);
            }
        }
        self.check_absent()
    }

    fn miss(&mut self, who: Who, why: String) {
        self.absent.push(Absent { name: self.name(who), why });
    }

    /// Checks that enough nodes are left.
    fn check_absent(&self) -> Result<(), ClusterError> {
        let left = self.nodes.len().saturating_sub(self.absent.len());
        if left < NODES_MIN {
            return Err(ClusterError::TooFew { left, absent: self.absent.clone() });
        }
        Ok(())
    }

    /// Takes the nodes that have ended for absent, if enough are left.
    fn take_absent(&mut self) -> Result<(), ClusterError> {
        for Ended { name, status, words, .. } in self.look(false)? {
            let who = self.everybody().find(|who| self.name(*who) == name);
            let (Need::Quorum, Some(Who::Node(position)), false) =
                (self.need, who, has_no_port(&words))
            else {
                return Err(ClusterError::Ended { name, status, words });
            };
            self.seat_mut(position)?.running = None;
            self.miss(Who::Node(position), format!("it ended at its start ({status}): {words}"));
        }
        self.check_absent()
    }

    /// Waits until the node at `position` answers or has ended.
    fn wait_ready_or_absent(&mut self, position: Position) -> Result<Option<Status>, ClusterError> {
        let clock = Clock::start();
        loop {
            self.take_absent()?;
            let (has_none, is_elsewhere) = {
                let seat = self.seat(position)?;
                (seat.running.is_none(), seat.is_elsewhere)
            };
            if has_none && !is_elsewhere {
                return Ok(None);
            }
            match self.status(position) {
                Ok(status) => {
                    self.seat_mut(position)?.has_started = true;
                    return Ok(Some(status));
                }
                Err(error) => {
                    let waited = clock.now().since(Moment::default());
                    if is_elsewhere && waited > ANSWER_MAX {
                        let why = format!(
                            "another process has its directory open, and does not answer at its \
                             address ({error}): end that process"
                        );
                        self.miss(Who::Node(position), why);
                        self.check_absent()?;
                        return Ok(None);
                    }
                    if waited > READY_MAX {
                        return Err(ClusterError::NotReady { position, waited, error });
                    }
                }
            }
            thread::sleep(POLL);
        }
    }

    pub(super) fn wait_for_writer(&mut self) -> Result<(), ClusterError> {
        let clock = Clock::start();
        loop {
            self.take_absent()?;
            // It lets nobody in before the volume is open.
            match Client::connect(self.writer_address, self.volume, ANSWER_MAX) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let waited = clock.now().since(Moment::default());
                    if waited > READY_MAX || !is_temporary(&error) {
                        return Err(ClusterError::NoWriter { waited, error });
                    }
                }
            }
            thread::sleep(POLL);
        }
    }
}

/// Returns whether a process has ended because somebody else listens at its address.
fn has_no_port(words: &str) -> bool {
    words.contains("cannot listen at")
}
