//! What has happened: a hash over all of it, the last of it, and how often each fault fired.

use std::collections::VecDeque;
use std::fmt;

use super::random::mix;

/// The most events that are kept for a story.
const LAST_MAX: usize = 60;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $shown:literal,)*) => {
        /// A kind of fault, counted when it makes a difference, not when it is planned.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Fault {
            /// Every kind, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the kind's name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $shown,)*
                }
            }
        }
    };
}

faults! {
    /// Every node lost power at once.
    Blackout = "blackout",
    /// Bytes or a call were held up by a partition.
    Blocked = "blocked",
    /// A segment made a checkpoint.
    Checkpoint = "checkpoint",
    /// A machine was paused with its clock, as a virtual machine is.
    ClockPause = "clock_pause",
    /// A connection was reset.
    ConnectionReset = "connection_reset",
    /// A node lost its disk with everything on it, and another one took its place.
    DiskLost = "disk_lost",
    /// A process was stopped while the world went on (SIGSTOP).
    Freeze = "freeze",
    /// Bytes came to an end of a connection whose machine had lost power without a word.
    HalfOpen = "half_open",
    /// A node was killed (kill -9): the page cache survives.
    Kill = "kill",
    /// A write that was not reported durable is gone, or its end is.
    LostWrite = "lost_write",
    /// A machine was cut off in one direction only.
    OneWay = "one_way",
    /// A machine lost power.
    PowerLoss = "power_loss",
    /// A disk that took the place of a lost one has become a member.
    Rebuilt = "rebuilt",
    /// A call was refused although somebody listens.
    Refused = "refused",
    /// After a power loss a later sector is there and an earlier one is not.
    ReorderedWrite = "reordered_write",
    /// A node started from a checkpoint.
    Restored = "restored",
    /// Durable bytes of the log of a node that is down were damaged.
    Rot = "rot",
    /// A read returned fewer bytes than were there.
    ShortRead = "short_read",
    /// A write took fewer bytes than it was given.
    ShortWrite = "short_write",
    /// A sync took a hundred times as long as usual.
    SlowDisk = "slow_disk",
    /// Bytes were delayed far beyond the usual.
    SlowLink = "slow_link",
    /// A sync failed, and the node had to stop.
    SyncError = "sync_error",
    /// A write survived a power loss in part.
    TornWrite = "torn_write",
    /// A log lost what a checkpoint has made superfluous.
    Trim = "trim",
    /// A writer process was killed.
    WriterKill = "writer_kill",
    /// A zone was cut off or lost power as a whole.
    Zone = "zone",
    /// A writer that had been overtaken while it was frozen went on.
    Zombie = "zombie",
}

/// One event, small enough to keep many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happening {
    pub(crate) at: u64,
    pub(crate) what: What,
    /// The machine that it happens to.
    pub(crate) machine: usize,
    /// The connection, the process, or the number of a frame.
    pub(crate) subject: u64,
    /// How many bytes it is about.
    pub(crate) bytes: u64,
}

/// What an event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Alarm = 1,
    Called = 2,
    Connected = 3,
    Delivered = 4,
    Ended = 5,
    Refused = 6,
    Reset = 7,
    Room = 8,
    Synced = 9,
    SyncFailed = 10,
    Timer = 11,
    Checkpointed = 12,
}

impl fmt::Display for Happening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what, machine, subject, bytes } = self;
        let text = match what {
            What::Alarm => "alarm",
            What::Called => "call arrives, connection",
            What::Connected => "call answered, connection",
            What::Delivered => "bytes arrive, connection",
            What::Ended => "end arrives, connection",
            What::Refused => "call refused, connection",
            What::Reset => "reset arrives, connection",
            What::Room => "room to write, connection",
            What::Synced => "durable through frame",
            What::SyncFailed => "sync fails, frame",
            What::Timer => "timer of process",
            What::Checkpointed => "checkpoint after frame",
        };
        let (seconds, rest) = (at / 1_000_000_000, at % 1_000_000_000);
        write!(out, "{seconds}.{rest:09} machine {machine}: {text} {subject}")?;
        if *bytes > 0 { write!(out, ", {bytes} bytes") } else { Ok(()) }
    }
}

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    last: VecDeque<Happening>,
    fired: Vec<u64>,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        let fired = vec![0; Fault::ALL.len()];
        Self { hash: mix(seed), events: 0, last: VecDeque::with_capacity(LAST_MAX), fired }
    }

    /// Takes an event and the bytes that it is about.
    pub(crate) fn add(&mut self, happening: Happening, content: &[u8]) {
        let Happening { at, what, machine, subject, bytes } = happening;
        let who = (machine as u64) << 56 ^ (what as u64) << 48 ^ subject;
        let sum = u64::from(crc32c::crc32c(content)) << 32 ^ bytes;
        self.hash = mix(mix(mix(self.hash ^ at) ^ who) ^ sum);
        self.events = self.events.saturating_add(1);
        if self.last.len() == LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back(happening);
    }

    pub(crate) fn fire(&mut self, fault: Fault) {
        let index = Fault::ALL.iter().position(|other| *other == fault);
        if let Some(count) = index.and_then(|index| self.fired.get_mut(index)) {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn last(&self) -> impl Iterator<Item = &Happening> {
        self.last.iter()
    }

    pub(crate) fn fired(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.iter().copied().zip(self.fired.iter().copied())
    }
}
