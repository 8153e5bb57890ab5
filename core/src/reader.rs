//! The reader: follows a writer's redo stream and reads pages at the VDL that it was told.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::consistency::{ReadPoint, Vdl};
use crate::epoch::VolumeEpoch;
use crate::geometry::VolumeGeometry;
use crate::id::{PageId, PgId, Position, Positions, ReaderId, SegmentSet, Ticket};
use crate::lsn::Lsn;
use crate::message::{FromReader, ToReader, ToSegment};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::rules::{Rules, Sound};

mod follow;
mod read;

/// An input of a reader.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ReaderInput {
    /// Ask the writer for a stream from its beginning: at first, after [`ReaderReport::Lost`], and
    /// when another writer has the volume. The driver repeats it until the stream begins.
    Attach,
    /// Forget a cached page.
    Evict {
        /// The page.
        page: PageId,
    },
    /// Read a page: from the cache, or else from one segment.
    Read {
        /// Names this read; no two reads under way share one.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point; `None` for the VDL that this reader has reached.
        read_point: Option<ReadPoint>,
        /// The read is refused below this LSN: the commit that whoever asks has been told of.
        at_least: Lsn,
        /// The segment to ask; see [`Reader::complete`].
        from: Position,
    },
    /// A message arrived.
    Receive(ToReader),
    /// No read below this point is live any more.
    Release {
        /// The lowest live read point.
        floor: ReadPoint,
    },
}

/// An effect of a reader. A reader has no durable state: there is no write among them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ReaderEffect {
    /// The bytes of this record are not needed any more.
    Discard {
        /// The record.
        lsn: Lsn,
    },
    /// Tell the driver.
    Report(ReaderReport),
    /// Send a message to a segment.
    SendSegment {
        /// Its group.
        group: PgId,
        /// Its position.
        to: Position,
        /// What.
        message: ToSegment,
    },
    /// Send a message to the writer that this reader is connected to.
    SendWriter(FromReader),
}

/// What a reader has to say to its driver.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ReaderReport {
    /// Reads see every commit at or under `vdl` from now on.
    Advanced {
        /// The VDL of the writer followed.
        vdl: Vdl,
    },
    /// A stream has begun: this reader is registered.
    Attached {
        /// The writer's epoch.
        epoch: VolumeEpoch,
        /// The VDL from which it reads.
        vdl: Vdl,
        /// No version is discarded that a read at or above this point needs.
        floor: ReadPoint,
    },
    /// A message of the stream is missing. The reader goes on reading where it is; it has to
    /// attach again to advance.
    Lost,
    /// A segment has promised a higher epoch: another writer has, or will have, the volume.
    Overtaken {
        /// That epoch.
        by: VolumeEpoch,
    },
    /// A page was read.
    Read {
        /// The read's ticket.
        ticket: Ticket,
        /// The page.
        page: PageId,
        /// The read point.
        read_point: ReadPoint,
        /// The page's last record, `None` for a page never written.
        version: Option<Record>,
    },
    /// A read was refused by the segment asked; ask another.
    ReadRefused {
        /// The read's ticket.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// A read is not carried out.
    Refused {
        /// The read's ticket.
        ticket: Ticket,
        /// Why.
        refusal: ReadRefusal,
    },
}

/// Why a reader doesn't carry out a read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ReadRefusal {
    /// A read point above the VDL that this reader has reached.
    Ahead,
    /// A page that the volume, as far as this reader was told, doesn't have.
    BeyondVolume,
    /// No writer has registered this reader yet.
    NotAttached,
    /// The VDL that this reader has reached is below what is asked for: wait for it to advance.
    NotYet {
        /// That VDL.
        vdl: Vdl,
    },
    /// A read point below the lowest that this reader is registered for.
    UnderFloor {
        /// That point.
        floor: ReadPoint,
    },
    /// No such segment.
    UnknownSegment,
}

/// A reader process. It outlives the writers that it follows: without one it goes on reading at
/// the last VDL that it was told.
///
/// ```text
///  unattached ---- Start{e, session} ----> following --- gap in the stream ---> lost
///                                          ^   |  ^                              |
///              Start of a later session or |   |  '------ Start{e, session} -----'
///              epoch: drop what may differ '---'
/// ```
///
/// Its read point is always a VDL, so it sees whole mini-transactions only (edges 15 and 49).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Reader<R: Rules = Sound> {
    rules: R,
    id: ReaderId,
    /// With the groups that the stream has told of.
    geometry: VolumeGeometry,
    /// `None` before the first stream.
    view: Option<View>,
}

/// What a reader sees of the volume.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct View {
    /// The epoch of the writer that registered this reader.
    epoch: VolumeEpoch,
    /// The read point.
    vdl: Vdl,
    /// The lowest read point that is live here.
    floor: ReadPoint,
    /// By group: its last record at or under `vdl`, which a segment must hold to be read.
    ends: Vec<Lsn>,
    session: u64,
    /// The number of the stream's next message; `None` when one is missing.
    next: Option<u64>,
    /// Redo above the VDL, by rising LSN.
    above: VecDeque<Record>,
    /// Cached pages: the last record at or under `vdl`.
    pages: BTreeMap<PageId, Option<Record>>,
    /// Reads that segments have been asked for.
    asked: BTreeMap<Ticket, Asked>,
    /// By group, by position: what each member holds, as far as the writer has told.
    scls: Vec<Positions<Option<Lsn>>>,
}

/// A read that a segment has been asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Asked {
    page: PageId,
    read_point: ReadPoint,
    /// Whether the answer will be the page at `View::vdl`: no record of the page was applied, or
    /// missed, since.
    is_current: bool,
}

impl View {
    /// Returns the members of `group` that hold everything at or under `end`, as far as was told.
    fn holding(&self, group: PgId, end: Lsn) -> SegmentSet {
        let mut holding = SegmentSet::EMPTY;
        if let Some(scls) = self.scls.get(group.get() as usize) {
            for (position, scl) in scls.iter() {
                if scl.is_some_and(|scl| scl >= end) {
                    holding.insert(position);
                }
            }
        }
        holding
    }

    /// Returns the members of `group`: the volume's first ones until others are told of.
    fn members(&self, group: PgId, geometry: &VolumeGeometry) -> SegmentSet {
        let told = self.holding(group, Lsn::ZERO);
        if !told.is_empty() {
            return told;
        }
        let mut first = SegmentSet::EMPTY;
        geometry.quorums().positions().for_each(|position| first.insert(position));
        first
    }
}

impl Reader {
    /// Returns a reader that has not been registered yet. No other process may ever use `id`.
    #[must_use]
    pub const fn new(id: ReaderId, geometry: VolumeGeometry) -> Self {
        Self::new_under(Sound, id, geometry)
    }
}

impl<R: Rules> Reader<R> {
    /// [`Reader::new`] under `rules`.
    #[must_use]
    pub const fn new_under(rules: R, id: ReaderId, geometry: VolumeGeometry) -> Self {
        Self { rules, id, geometry, view: None }
    }

    /// Takes one input and appends what is to be done to `effects`. See [`crate::effect`] for the
    /// contract.
    pub fn step(&mut self, input: ReaderInput, effects: &mut Vec<ReaderEffect>) {
        match input {
            ReaderInput::Attach => {
                let floor = self.view.as_ref().map(|view| view.floor);
                effects.push(ReaderEffect::SendWriter(FromReader::Attach { floor }));
            }
            ReaderInput::Evict { page } => self.evict(page, effects),
            ReaderInput::Read { ticket, page, read_point, at_least, from } => {
                self.read(ticket, page, (read_point, at_least), from, effects);
            }
            ReaderInput::Receive(message) => self.receive(message, effects),
            ReaderInput::Release { floor } => self.release(floor, effects),
        }
    }

    fn receive(&mut self, message: ToReader, effects: &mut Vec<ReaderEffect>) {
        match message {
            ToReader::Read { epoch: _, ticket, page, read_point, version } => {
                self.receive_read(ticket, page, read_point, version, effects);
            }
            ToReader::Redo(redo) => self.receive_redo(redo, effects),
            ToReader::Refused { epoch, ticket, refusal } => {
                self.receive_refused(epoch, ticket, refusal, effects);
            }
            ToReader::Standing { epoch, group, scls } => self.receive_standing(epoch, group, scls),
            ToReader::Start(start) => self.receive_start(start, effects),
        }
    }

    /// Returns the name of this reader.
    #[must_use]
    pub const fn id(&self) -> ReaderId {
        self.id
    }

    /// Returns the volume's geometry.
    #[must_use]
    pub const fn geometry(&self) -> &VolumeGeometry {
        &self.geometry
    }

    /// Returns the epoch of the writer that registered this reader.
    #[must_use]
    pub fn epoch(&self) -> Option<VolumeEpoch> {
        self.view.as_ref().map(|view| view.epoch)
    }

    /// Returns the VDL at which this reader reads.
    #[must_use]
    pub fn vdl(&self) -> Option<Vdl> {
        self.view.as_ref().map(|view| view.vdl)
    }

    /// Returns the lowest read point that is live here.
    #[must_use]
    pub fn floor(&self) -> Option<ReadPoint> {
        self.view.as_ref().map(|view| view.floor)
    }

    /// Returns whether the stream goes on without a gap.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.next.is_some())
    }

    /// Returns the cached pages, each with its last record at or under the VDL.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, Option<Record>)> + '_ {
        self.view.iter().flat_map(|view| &view.pages).map(|(page, version)| (*page, *version))
    }

    /// Returns a cached page's last record at or under the VDL; `None` if the page is not cached.
    #[must_use]
    pub fn page(&self, page: PageId) -> Option<Option<Record>> {
        self.view.as_ref().and_then(|view| view.pages.get(&page)).copied()
    }

    /// Returns how many pages are cached.
    #[must_use]
    pub fn pages_count(&self) -> usize {
        self.view.as_ref().map_or(0, |view| view.pages.len())
    }

    /// Returns the segments of `group` that can serve a read at the VDL, as far as this reader was
    /// told: all members when it was told nothing that helps. The driver chooses among them.
    #[must_use]
    pub fn complete(&self, group: PgId) -> SegmentSet {
        let Some(view) = &self.view else { return SegmentSet::EMPTY };
        let end = view.ends.get(group.get() as usize).copied().unwrap_or_default();
        let complete = view.holding(group, end);
        if complete.is_empty() { view.members(group, &self.geometry) } else { complete }
    }
}
