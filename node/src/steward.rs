//! The steward: replaces a segment by another one, step by step, in a group that goes on.
//!
//! It decides nothing and remembers nothing: each look at the group says what is to be done next,
//! so that it can end at any time, be started again by anybody, and find a writer that was not
//! there before. The writer takes a step only when the protocol allows it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use quorate_core::formula::Half;
use quorate_core::id::{Incarnation, PgId, Position, SEGMENTS_MAX, SegmentId};
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, Step, StepRefusal};
use serde::Serialize;

use crate::addresses::Place;
use crate::client::{Client, ClientError};
use crate::clock::{Clock, Moment};
use crate::cluster::ClusterError;
use crate::wire::members::{GroupMembers, Stepped};

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// How often the steward looks whether the process that joins is still there.
const PROVIDE_AFTER: Duration = Duration::from_millis(500);

/// How long a steward waits for a writer, or for the one that is to join, before it says so.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// How long a member has to be away before it counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Why a segment isn't replaced.
#[derive(Debug, thiserror::Error)]
pub enum StewardError {
    /// The writer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Another process is at the address of the one that should join.
    #[error("{address} is not a new segment of this group: {problem}")]
    Newcomer {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        problem: String,
    },
    /// Nobody is dead.
    #[error(
        "every member answers its writer: there is nothing to repair. Name a position to \
             replace a member that is alive"
    )]
    NobodyDead,
    /// The writer has no such group.
    #[error("the volume has no such protection group")]
    NoGroup,
    /// Who is to join has the position of a member.
    #[error(
        "the group has a member at position {position}: give the new node a position that is free \
         (`quorate members` shows those that aren't), and its address with --by"
    )]
    IsMember {
        /// The position.
        position: Position,
    },
    /// Nobody has said who is to join.
    #[error("say which node is to join: its address, with --by")]
    NoNewcomer,
    /// No such member.
    #[error("{position} is not a member of the group; `quorate members` shows who is")]
    NoMember {
        /// The position.
        position: Position,
    },
    /// The protocol never allows this step.
    #[error("the writer does not take the step: {0:?}")]
    Refused(StepRefusal),
    /// Several are dead.
    #[error("several members do not answer: {}. Name the position of the one to replace first",
            .positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    SeveralDead {
        /// Their positions.
        positions: Vec<Position>,
    },
    /// It takes too long.
    #[error(
        "the change is not through after {0:?}; it goes on where it is when this is run again, \
             and --revert takes it back"
    )]
    TimedOut(Duration),
}

/// What the steward needs of the world: somebody to ask, and processes.
pub trait Hands {
    /// Connects to the writer.
    ///
    /// # Errors
    /// [`ClientError`] when nobody answers now.
    fn connect(&mut self) -> Result<Client, ClientError>;

    /// Returns which disk is to join, if that isn't for the steward to choose.
    ///
    /// # Errors
    /// [`StewardError`] when it can't be told.
    fn newcomer(&mut self) -> Result<Option<SegmentId>, StewardError> {
        Ok(None)
    }

    /// Sees to it that the disk `new` is there, in the place of the one at `old`; returns where.
    ///
    /// # Errors
    /// [`ClusterError::DiskLost`] when it was there and is lost.
    fn provide(&mut self, old: Position, new: SegmentId) -> Result<Place, StewardError>;

    /// Takes everybody away but those of `keep`.
    ///
    /// # Errors
    /// [`StewardError`] when that fails.
    fn retire(&mut self, keep: &[SegmentId]) -> Result<(), StewardError>;
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Task {
    /// The group.
    pub group: PgId,
    /// What to do in it.
    pub goal: Goal,
    /// How long it may take.
    pub patience: Duration,
}

/// What is to be done in a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goal {
    /// Replace the member at this position, or the one that is dead.
    Replace(Option<Position>),
    /// Take back what is under way.
    Revert,
}

/// Something that has happened, for whoever watches.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Progress {
    /// The replacement is proposed.
    Begun(#[serde(serialize_with = "change")] Change),
    /// A change that somebody else has begun is carried on.
    Found(#[serde(serialize_with = "change")] Change),
    /// The one that joins has got so far of what it has to have.
    Hydrating {
        /// Up to here it holds everything.
        scl: Lsn,
        /// So far it has to.
        target: Lsn,
    },
    /// The last step is proposed.
    Finishing,
    /// The change is being taken back.
    Reverting,
    /// No writer that has the volume open answers: this waits for one.
    NoWriter,
    /// The writer doesn't reach the node that is to join: this waits for it.
    Unreachable,
}

/// One member in the place of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// Who goes.
    pub old: SegmentId,
    /// Who comes.
    pub new: SegmentId,
}

fn change<S: serde::Serializer>(change: &Change, out: S) -> Result<S::Ok, S::Error> {
    let Change { old, new } = change;
    [("old", old.to_string()), ("new", new.to_string())]
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>()
        .serialize(out)
}

/// What the steward came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The change; `None` when there was none to take back.
    pub change: Option<Change>,
    /// Whether it was taken back.
    pub is_reverted: bool,
    /// How long it took.
    pub took: Duration,
    /// From the proposal to the moment at which the one that joined had all that it had to have.
    pub hydrated: Option<Duration>,
}

/// Carries out `task`.
///
/// # Errors
/// [`StewardError`] says why it isn't done. It can be run again at any time.
pub fn run(
    hands: &mut dyn Hands,
    task: Task,
    tell: &mut dyn FnMut(Progress),
) -> Result<Outcome, StewardError> {
    let clock = Clock::start();
    let mut steward = Steward {
        start: clock.now(),
        clock,
        hands,
        task,
        tell,
        client: None,
        joining: None,
        is_named: false,
        lost: Incarnation::new(0),
        provided: None,
        dead: Vec::new(),
        proposed: None,
        hydrated: None,
        alone: None,
        unreached: None,
    };
    loop {
        match steward.go_on() {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            // A writer may be taking over.
            Err(StewardError::Client(error)) if is_passing(&error) => {
                steward.client = None;
                let now = steward.clock.now();
                if now.since(*steward.alone.get_or_insert(now)) > TELL_AFTER {
                    (steward.tell)(Progress::NoWriter);
                }
            }
            Err(error) => return Err(error),
        }
        if steward.waited() > task.patience {
            return Err(StewardError::TimedOut(task.patience));
        }
        thread::sleep(POLL);
    }
}

/// Returns whether another attempt, or another writer, may do better.
const fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. }
        | ClientError::Connection(_)
        | ClientError::Refused(_)
        | ClientError::TimedOut(_) => true,
        ClientError::Hello(_) | ClientError::Oversized { .. } | ClientError::Unexpected => false,
    }
}

struct Steward<'a> {
    clock: Clock,
    start: Moment,
    hands: &'a mut dyn Hands,
    task: Task,
    tell: &'a mut dyn FnMut(Progress),
    client: Option<Client>,
    /// The change that is under way or about to be.
    joining: Option<Change>,
    /// Whether somebody has been told of it.
    is_named: bool,
    /// Disks below this one are lost.
    lost: Incarnation,
    /// When the process that joins was last seen to.
    provided: Option<(Moment, Place)>,
    /// Who doesn't answer, and since when.
    dead: Vec<(Position, Moment)>,
    proposed: Option<Moment>,
    hydrated: Option<Duration>,
    /// Since when no writer answers.
    alone: Option<Moment>,
    /// Since when the writer doesn't reach the one that is to join.
    unreached: Option<Moment>,
}

impl Steward<'_> {
    fn waited(&self) -> Duration {
        self.clock.now().since(self.start)
    }

    /// Looks at the group and does the next thing; returns the outcome once all is done.
    fn go_on(&mut self) -> Result<Option<Outcome>, StewardError> {
        let group = self.look()?;
        if !group.is_settled {
            return Ok(None);
        }
        match under_way(&group.membership) {
            Some((half, change)) => self.carry_on(&group, half, change),
            // Another shape is on its way, that of the survivors of a disaster for example.
            None if group.membership.quorums().as_single().is_none() => {
                match self.step(Step::Finish(Half::Older), None)? {
                    Stepped::Taken => Ok(None),
                    refused @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Unreachable) => {
                        Self::wait_after(refused)
                    }
                }
            }
            None => self.rest(&group),
        }
    }

    fn look(&mut self) -> Result<GroupMembers, StewardError> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(self.hands.connect()?),
        };
        let members = client.members()?;
        self.alone = None;
        let group = members.groups.into_iter().find(|group| group.group == self.task.group);
        group.ok_or(StewardError::NoGroup)
    }

    fn step(&mut self, step: Step, place: Option<Place>) -> Result<Stepped, StewardError> {
        let client = self.client.as_mut().ok_or(StewardError::NoGroup)?;
        let stepped = client.step(self.task.group, step, place)?;
        // A connection takes a moment to come about.
        if stepped != Stepped::Unreachable {
            self.unreached = None;
        } else if self.clock.now().since(*self.unreached.get_or_insert(self.clock.now()))
            > TELL_AFTER
        {
            (self.tell)(Progress::Unreachable);
        }
        Ok(stepped)
    }

    /// Goes on with a change that is under way.
    fn carry_on(
        &mut self,
        group: &GroupMembers,
        half: Half,
        change: Change,
    ) -> Result<Option<Outcome>, StewardError> {
        if self.joining != Some(change) {
            self.joining = Some(change);
            self.provided = None;
        }
        if !self.is_named {
            self.is_named = true;
            (self.tell)(Progress::Found(change));
        }
        let now = self.clock.now();
        self.proposed.get_or_insert(now);
        if self.task.goal == Goal::Revert {
            return self.take_back(half);
        }
        match self.provide(change) {
            Err(StewardError::Cluster(ClusterError::DiskLost { .. })) => {
                // What joined is gone; another one will have to.
                self.lost = Incarnation::new(change.new.incarnation.get().saturating_add(1));
                return self.take_back(half);
            }
            provided => drop(provided?),
        }
        let joined = group.members.iter().find(|member| member.position == change.new.position);
        let scl = joined.map_or(Lsn::ZERO, |member| member.scl);
        (self.tell)(Progress::Hydrating { scl, target: group.target });
        match self.step(Step::Finish(half), None)? {
            Stepped::Taken => {
                self.hydrated = self.proposed.map(|at| self.clock.now().since(at));
                (self.tell)(Progress::Finishing);
                Ok(None)
            }
            refused @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Unreachable) => {
                Self::wait_after(refused)
            }
        }
    }

    fn take_back(&mut self, half: Half) -> Result<Option<Outcome>, StewardError> {
        match self.step(Step::Revert(half), None)? {
            Stepped::Taken => {
                (self.tell)(Progress::Reverting);
                Ok(None)
            }
            refused @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Unreachable) => {
                Self::wait_after(refused)
            }
        }
    }

    /// Nothing is under way: it is all done, or nothing has begun.
    fn rest(&mut self, group: &GroupMembers) -> Result<Option<Outcome>, StewardError> {
        let membership = &group.membership;
        let is_member = |id: SegmentId| {
            membership.quorums().members().contains(id.position)
                && membership.knows(id.position, id.incarnation)
        };
        if let Some(change) = self.joining.filter(|change| is_member(change.new)) {
            if let Goal::Replace(Some(position)) = self.task.goal
                && position != change.old.position
            {
                // It was under way before, and what was asked for comes now.
                self.joining = None;
                self.provided = None;
                self.is_named = false;
                self.proposed = None;
                return Ok(None);
            }
            self.hands.retire(&concerned(membership))?;
            return Ok(Some(self.outcome(Some(change), false)));
        }
        if self.task.goal == Goal::Revert {
            self.hands.retire(&concerned(membership))?;
            return Ok(Some(self.outcome(self.joining, true)));
        }
        let Some(change) = self.choose(group)? else { return Ok(None) };
        self.joining = Some(change);
        let mut keep = concerned(membership);
        keep.push(change.new);
        self.hands.retire(&keep)?;
        let place = match self.provide(change) {
            Err(StewardError::Cluster(ClusterError::DiskLost { .. })) => {
                self.lost = Incarnation::new(change.new.incarnation.get().saturating_add(1));
                self.provided = None;
                return Ok(None);
            }
            provided => provided?,
        };
        let Change { old, new } = change;
        let replace = Step::Replace { old: old.position, new };
        match self.step(replace, Some(place))? {
            Stepped::Taken => {
                self.is_named = true;
                self.proposed = Some(self.clock.now());
                (self.tell)(Progress::Begun(change));
                Ok(None)
            }
            refused @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Unreachable) => {
                Self::wait_after(refused)
            }
        }
    }

    /// Returns whom to replace by whom; `None` when that can't be said yet.
    fn choose(&mut self, group: &GroupMembers) -> Result<Option<Change>, StewardError> {
        let membership = &group.membership;
        let members = membership.quorums().members();
        let named = match self.task.goal {
            Goal::Replace(named) => named,
            Goal::Revert => None,
        };
        let old = match named {
            Some(position) if members.contains(position) => position,
            Some(position) => return Err(StewardError::NoMember { position }),
            None => match self.find_dead(group)? {
                Some(position) => position,
                None => return Ok(None),
            },
        };
        let old = SegmentId { position: old, incarnation: membership.incarnation(old) };
        if let Some(new) = self.hands.newcomer()? {
            if membership.everyone().contains(new.position) {
                return Err(StewardError::IsMember { position: new.position });
            }
            return Ok(Some(Change { old, new }));
        }
        let free = Position::first(SEGMENTS_MAX).find(|position| !members.contains(*position));
        let position = free.ok_or(StewardError::Refused(StepRefusal::Unsettled))?;
        // Above every disk that was there: a lost one never comes back under its old name.
        let above = membership.incarnation(position).get().saturating_add(1);
        let incarnation = Incarnation::new(above).max(self.lost);
        Ok(Some(Change { old, new: SegmentId { position, incarnation } }))
    }

    /// Returns the member that has been away for long enough, `None` if that can't be said yet.
    fn find_dead(&mut self, group: &GroupMembers) -> Result<Option<Position>, StewardError> {
        let now = self.clock.now();
        let away = group.members.iter().filter(|member| !member.is_up);
        let away: Vec<Position> = away.map(|member| member.position).collect();
        self.dead.retain(|(position, _)| away.contains(position));
        for position in &away {
            if !self.dead.iter().any(|(known, _)| known == position) {
                self.dead.push((*position, now));
            }
        }
        if self.waited() < DEAD_AFTER
            || self.dead.iter().any(|(_, since)| now.since(*since) < DEAD_AFTER)
        {
            return Ok(None);
        }
        match away.as_slice() {
            [] => Err(StewardError::NobodyDead),
            [position] => Ok(Some(*position)),
            [..] => Err(StewardError::SeveralDead { positions: away }),
        }
    }

    /// Sees to it, now and then, that the process that joins is there.
    fn provide(&mut self, change: Change) -> Result<Place, StewardError> {
        let now = self.clock.now();
        if let Some((at, place)) = self.provided
            && now.since(at) < PROVIDE_AFTER
        {
            return Ok(place);
        }
        let place = self.hands.provide(change.old.position, change.new)?;
        self.provided = Some((now, place));
        Ok(place)
    }

    /// Waits if a step may be taken later.
    fn wait_after(refused: Stepped) -> Result<Option<Outcome>, StewardError> {
        match refused {
            Stepped::NoGroup => Err(StewardError::NoGroup),
            Stepped::Taken | Stepped::Unreachable => Ok(None),
            // Another steward may have taken it.
            Stepped::Refused(
                StepRefusal::Nothing | StepRefusal::NotHydrated | StepRefusal::Unsettled,
            ) => Ok(None),
            Stepped::Refused(refusal @ (StepRefusal::Burnt | StepRefusal::Quorums)) => {
                Err(StewardError::Refused(refusal))
            }
        }
    }

    fn outcome(&self, change: Option<Change>, is_reverted: bool) -> Outcome {
        Outcome { change, is_reverted, took: self.waited(), hydrated: self.hydrated }
    }
}

/// Returns everybody whom a membership concerns.
fn concerned(membership: &Membership) -> Vec<SegmentId> {
    let id = |position| SegmentId { position, incarnation: membership.incarnation(position) };
    membership.everyone().iter().map(id).collect()
}

/// Returns the replacement that is under way, the one begun last of two.
#[must_use]
pub fn under_way(membership: &Membership) -> Option<(Half, Change)> {
    let id = |position| SegmentId { position, incarnation: membership.incarnation(position) };
    let (half, before, after) = match membership.quorums().terms() {
        [before, after] => (Half::Older, before, after),
        [before, _, after, _] => (Half::Newer, before, after),
        _ => return None,
    };
    let old = before.members().without(after.members()).iter().next()?;
    let new = after.members().without(before.members()).iter().next()?;
    Some((half, Change { old: id(old), new: id(new) }))
}
