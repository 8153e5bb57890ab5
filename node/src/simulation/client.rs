//! The user of one writer process: the only place that knows by which channels they talk.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PageId, PgId};
use quorate_core::membership::Step;
use quorate_core::rules::Rules;

use super::oracle::{AskedRead, WriteId};
use crate::addresses::{Place, Seat};
use crate::answer::{Answer, Outcome, answer};
use crate::config::VolumeId;
use crate::env::simulated::{ProcessId, SimulatedEnvironment, World};
use crate::mailbox::Mailbox;
use crate::volume::driver::VolumeDriver;
use crate::volume::{
    Command, Committed, Consistency, Opened, PageImage, PageVersion, VolumeConfig, VolumeError,
};
use crate::wire::members::{Stepped, VolumeMembers};

/// How many records the segments keep below the VDL: few, so that logs are trimmed.
const WINDOW_RECORDS: u64 = 64;

/// How long a recovery may take before the writer gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most writes, and the most reads, that a user has under way.
pub(super) const UNDER_WAY_MAX: usize = 16;

/// A writer process with its user.
#[derive(Debug)]
pub(super) struct Client<R: Rules> {
    pub(super) process: ProcessId,
    pub(super) epoch: Option<VolumeEpoch>,
    pub(super) is_frozen: bool,
    driver: VolumeDriver<SimulatedEnvironment, R>,
    commands: Arc<Mailbox<Command>>,
    opening: Answer<Result<Opened, VolumeError>>,
    writes: VecDeque<(WriteId, Answer<Result<Committed, VolumeError>>)>,
    reads: Vec<(AskedRead, Answer<Result<PageVersion, VolumeError>>)>,
}

/// What a user was told.
#[derive(Debug)]
pub(super) enum Told {
    Committed(WriteId, Committed),
    Opened(Opened),
    Over(VolumeError),
    Read(AskedRead, PageVersion),
}

impl<R: Rules> Client<R> {
    /// Starts a writer process on a machine.
    pub(super) fn start(
        rules: R,
        world: &World,
        machine: usize,
        volume: VolumeId,
        segments: Vec<Vec<SocketAddr>>,
        joined: &[Seat],
    ) -> io::Result<Self> {
        let (process, environment) = world.spawn(machine);
        // Never full: it would make this one thread wait for itself.
        let commands = Arc::new(Mailbox::new(4 * UNDER_WAY_MAX));
        let (reply, opening) = answer();
        let joined = joined.iter().map(|seat| (PgId::new(0), *seat)).collect();
        let backtrack_window = WINDOW_RECORDS;
        let config = VolumeConfig {
            joined,
            backtrack_window,
            ..VolumeConfig::new(volume, segments, PATIENCE)
        };
        let driver =
            VolumeDriver::start_under(rules, environment, config, Arc::clone(&commands), reply)?;
        Ok(Self {
            process,
            epoch: None,
            is_frozen: false,
            driver,
            commands,
            opening,
            writes: VecDeque::new(),
            reads: Vec::new(),
        })
    }

    /// Takes one turn of the process; returns what the user is told by it.
    pub(super) fn turn(&mut self) -> Vec<Told> {
        self.driver.turn();
        let mut told = Vec::new();
        if self.epoch.is_none() {
            match self.opening.take() {
                Outcome::Given(Ok(opened)) => {
                    self.epoch = Some(opened.epoch);
                    told.push(Told::Opened(opened));
                }
                Outcome::Given(Err(error)) => told.push(Told::Over(error)),
                Outcome::Never | Outcome::NotYet => {}
            }
        }
        let mut over = None;
        while let Some((id, answer)) = self.writes.front() {
            match answer.take() {
                Outcome::Given(Ok(committed)) => told.push(Told::Committed(*id, committed)),
                Outcome::Given(Err(error)) => over = Some(error),
                Outcome::Never | Outcome::NotYet => break,
            }
            self.writes.pop_front();
        }
        self.reads.retain(|(asked, answer)| match answer.take() {
            Outcome::Given(Ok(version)) => {
                told.push(Told::Read(*asked, version));
                false
            }
            Outcome::Given(Err(error)) => {
                over = Some(error);
                false
            }
            Outcome::Never | Outcome::NotYet => true,
        });
        told.extend(over.map(Told::Over));
        told
    }

    /// Returns the highest LSN that the writer has used up.
    pub(super) fn allocated(&self) -> u64 {
        self.driver.allocated().get()
    }

    pub(super) fn has_room_to_write(&self) -> bool {
        self.writes.len() < UNDER_WAY_MAX
    }

    pub(super) fn has_room_to_read(&self) -> bool {
        self.reads.len() < UNDER_WAY_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }

    /// Returns who the members of the volume are, as the writer sees them, once it is open.
    pub(super) fn members(&self) -> Option<VolumeMembers> {
        self.driver.members()
    }

    /// Takes a step of a membership change.
    pub(super) fn take_step(&mut self, group: PgId, step: Step, place: Option<Place>) -> Stepped {
        self.driver.take_step(group, step, place)
    }

    pub(super) fn write(&mut self, id: WriteId, pages: Vec<PageImage>) {
        let (reply, answer) = answer();
        // A process that is over answers nothing; it is told so itself.
        let _ = self.commands.post(Command::Write { pages, reply });
        self.writes.push_back((id, answer));
    }

    pub(super) fn read(&mut self, asked: AskedRead) {
        let AskedRead { page, consistency, .. } = asked;
        self.ask(page, consistency, asked);
    }

    fn ask(&mut self, page: PageId, consistency: Consistency, asked: AskedRead) {
        let (reply, answer) = answer();
        let _ = self.commands.post(Command::Read { page, consistency, reply });
        self.reads.push((asked, answer));
    }
}
