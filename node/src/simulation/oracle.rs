//! What a volume has to answer, from outside: it sees what writers were told and nothing else.
//!
//! The order of epochs is the order of the log. What a session wrote survives into a later one as
//! far as the recovery point of the session that follows it; a recovery point that goes back,
//! leaves an acknowledged commit out, or cuts a mini-transaction in two is a violation.

use std::collections::BTreeMap;
use std::ops::Bound;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::PageId;

use crate::env::simulated::random::mix;
use crate::volume::{Committed, Consistency, Opened, PageImage, PageVersion};

/// How many bytes a page has at least: two numbers that nobody else writes.
const PAGE_BYTES_MIN: usize = 16;

/// How many bytes more it may have.
const PAGE_BYTES_MORE: u64 = 240;

/// A broken promise, in words.
pub(super) type Objection = String;

/// Names a write.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct WriteId(usize);

/// A read, and what was known when it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedRead {
    pub(super) page: PageId,
    pub(super) consistency: Consistency,
    session: VolumeEpoch,
    /// The session's last acknowledged commit: no read may be older.
    floor: u64,
    /// A writer of a higher epoch that was open already.
    newer: Option<VolumeEpoch>,
}

/// A writer that was told that it is open.
#[derive(Debug)]
struct Session {
    recovery_point: u64,
    /// The last LSN that it has used up.
    tail: u64,
    /// Its last acknowledged commit, or the recovery point.
    durable: u64,
    /// The consistency points of its writes, in order.
    cpls: Vec<u64>,
}

#[derive(Debug)]
struct Write {
    session: VolumeEpoch,
    first: u64,
    cpl: u64,
}

/// Everything that has been promised to anybody.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    sessions: BTreeMap<VolumeEpoch, Session>,
    writes: Vec<Write>,
    /// Every version that was ever written, by page and LSN.
    versions: BTreeMap<(u64, u64), WriteId>,
    /// The owner of every LSN.
    lsns: BTreeMap<u64, WriteId>,
    pub(super) commits: u64,
    pub(super) snapshot_reads: u64,
    pub(super) strict_reads: u64,
}

impl Oracle {
    /// Takes that a writer is open, and from which LSN on it allocates.
    pub(super) fn opened(&mut self, opened: &Opened, tail: u64) -> Result<(), Objection> {
        let epoch = opened.epoch;
        let point = opened.recovery_point.lsn().get();
        if self.sessions.contains_key(&epoch) {
            return Err(format!("epoch {epoch} was opened twice"));
        }
        for (older, session) in self.sessions.range(..epoch) {
            if session.durable > point {
                return Err(format!(
                    "epoch {epoch} opened at {point} without the commit at {} that epoch {older} \
                     had acknowledged",
                    session.durable
                ));
            }
            if session.tail > tail {
                return Err(format!(
                    "epoch {epoch} allocates from {tail} on, epoch {older} had got to {}",
                    session.tail
                ));
            }
        }
        let newer = self.sessions.range((Bound::Excluded(epoch), Bound::Unbounded)).next();
        if let Some((newer, session)) = newer {
            let kept = session.recovery_point;
            // A write between both would be annulled by one and kept by the other.
            let beyond = (Bound::Excluded(point), Bound::Included(kept));
            let lost = (point < kept).then(|| self.lsns.range(beyond).next()).flatten();
            if point > kept || lost.is_some() {
                return Err(format!(
                    "epoch {epoch} opened at {point} although epoch {newer}, opened before, has \
                     its recovery point at {kept}"
                ));
            }
        }
        self.check_boundary(epoch, point)?;
        let session = Session { recovery_point: point, tail, durable: point, cpls: Vec::new() };
        self.sessions.insert(epoch, session);
        Ok(())
    }

    /// A recovery point is the end of a mini-transaction of the session before, or that session's
    /// own recovery point: an older one's writes beyond that are annulled.
    fn check_boundary(&self, epoch: VolumeEpoch, point: u64) -> Result<(), Objection> {
        let is_boundary = match self.sessions.range(..epoch).next_back() {
            None => point == 0,
            Some((_, before)) => {
                before.recovery_point == point || before.cpls.binary_search(&point).is_ok()
            }
        };
        if is_boundary {
            return Ok(());
        }
        Err(format!("epoch {epoch} opened at {point}, which is no end of a mini-transaction"))
    }

    /// Takes a write that is handed to the writer of `session`; returns it with its bytes.
    pub(super) fn write(
        &mut self,
        session: VolumeEpoch,
        pages: &[PageId],
    ) -> Result<(WriteId, Vec<PageImage>), Objection> {
        let id = WriteId(self.writes.len());
        let Some(own) = self.sessions.get_mut(&session) else {
            return Err(format!("epoch {session} takes writes before it is open"));
        };
        let first = own.tail.saturating_add(1);
        let mut images = Vec::new();
        for page in pages {
            own.tail = own.tail.saturating_add(1);
            if self.lsns.insert(own.tail, id).is_some() {
                return Err(format!("epoch {session} uses LSN {} a second time", own.tail));
            }
            self.versions.insert((page.get(), own.tail), id);
            images.push(PageImage { page: *page, bytes: content(id, *page) });
        }
        let cpl = own.tail;
        own.cpls.push(cpl);
        self.writes.push(Write { session, first, cpl });
        Ok((id, images))
    }

    /// Takes an acknowledgement.
    pub(super) fn committed(&mut self, id: WriteId, told: &Committed) -> Result<(), Objection> {
        let Some(Write { session, first, cpl }) = self.writes.get(id.0) else {
            return Err("a write was acknowledged that nobody made".into());
        };
        let (session, first, cpl) = (*session, *first, *cpl);
        if (told.first.get(), told.cpl.get()) != (first, cpl) {
            return Err(format!(
                "epoch {session} acknowledged {} to {} for the write at {first} to {cpl}",
                told.first, told.cpl
            ));
        }
        let newer = self.sessions.range((Bound::Excluded(session), Bound::Unbounded));
        for (newer, other) in newer {
            if other.recovery_point < cpl {
                return Err(format!(
                    "epoch {session} acknowledged the commit at {cpl} after epoch {newer} had \
                     opened without it, at {}",
                    other.recovery_point
                ));
            }
        }
        if let Some(own) = self.sessions.get_mut(&session) {
            own.durable = own.durable.max(cpl);
        }
        self.commits = self.commits.saturating_add(1);
        Ok(())
    }

    /// Takes a read that is handed to the writer of `session`.
    pub(super) fn asked(
        &self,
        session: VolumeEpoch,
        page: PageId,
        consistency: Consistency,
    ) -> AskedRead {
        let floor = self.sessions.get(&session).map_or(0, |own| own.durable);
        let newer = self.sessions.range((Bound::Excluded(session), Bound::Unbounded)).next();
        let newer = newer.map(|(epoch, _)| *epoch);
        AskedRead { page, consistency, session, floor, newer }
    }

    /// Takes the answer to a read.
    pub(super) fn answered(
        &mut self,
        asked: &AskedRead,
        found: &PageVersion,
    ) -> Result<(), Objection> {
        let AskedRead { page, consistency, session, floor, newer } = *asked;
        let Some(own) = self.sessions.get(&session) else {
            return Err(format!("epoch {session} answers reads before it is open"));
        };
        let point = found.read_point.lsn().get();
        if point < floor && !matches!(consistency, Consistency::At(_)) {
            return Err(format!(
                "epoch {session} read {page} at {point}, before its own commit at {floor}"
            ));
        }
        if point != own.recovery_point && own.cpls.binary_search(&point).is_err() {
            return Err(format!(
                "epoch {session} read {page} at {point}, which is no end of a mini-transaction"
            ));
        }
        match consistency {
            Consistency::At(asked) if point != asked.get() => {
                return Err(format!("epoch {session} read {page} at {point} instead of {asked}"));
            }
            Consistency::AtLeast(asked) if point < asked.get() => {
                return Err(format!("epoch {session} read {page} at {point}, before {asked}"));
            }
            Consistency::At(_) | Consistency::AtLeast(_) | Consistency::Snapshot => {
                self.snapshot_reads = self.snapshot_reads.saturating_add(1);
            }
            Consistency::Strict => {
                if let Some(newer) = newer {
                    return Err(format!(
                        "epoch {session} answered a strict read of {page} that was asked after \
                         epoch {newer} had opened"
                    ));
                }
                self.strict_reads = self.strict_reads.saturating_add(1);
            }
        }
        let right = self.version(session, page, point);
        let lsn = found.lsn.map(|lsn| lsn.get());
        if lsn != right.map(|(lsn, _)| lsn) {
            let show = |lsn: Option<u64>| lsn.map_or("nothing".into(), |lsn| lsn.to_string());
            return Err(format!(
                "epoch {session} read {page} at {point} and found {}; it should be {}",
                show(lsn),
                show(right.map(|(lsn, _)| lsn))
            ));
        }
        let bytes = right.map_or_else(Vec::new, |(_, id)| content(id, page));
        if bytes != found.bytes {
            return Err(format!("epoch {session} read {page} at {point} with other bytes"));
        }
        Ok(())
    }

    /// Returns the version of a page that a session sees at a read point.
    fn version(&self, session: VolumeEpoch, page: PageId, point: u64) -> Option<(u64, WriteId)> {
        let older = self.versions.range((page.get(), 0)..=(page.get(), point)).rev();
        older
            .filter(|(_, id)| {
                let write = self.writes.get(id.0);
                write.is_some_and(|write| self.survives(write, session))
            })
            .map(|((_, lsn), id)| (*lsn, *id))
            .next()
    }

    /// Returns whether a write is part of the history of `session`.
    fn survives(&self, write: &Write, session: VolumeEpoch) -> bool {
        if write.session >= session {
            return write.session == session;
        }
        let later = self.sessions.range((Bound::Excluded(write.session), Bound::Unbounded)).next();
        later.is_some_and(|(_, next)| write.cpl <= next.recovery_point)
    }
}

/// Returns the bytes that a write puts into a page.
fn content(id: WriteId, page: PageId) -> Vec<u8> {
    let mut bits = mix(id.0 as u64 ^ mix(page.get()));
    let more = usize::try_from(bits.checked_rem(PAGE_BYTES_MORE).unwrap_or(0)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(PAGE_BYTES_MIN + more);
    bytes.extend_from_slice(&(id.0 as u64).to_le_bytes());
    bytes.extend_from_slice(&page.get().to_le_bytes());
    while bytes.len() < PAGE_BYTES_MIN + more {
        bytes.extend_from_slice(&bits.to_le_bytes());
        bits = mix(bits);
    }
    bytes.truncate(PAGE_BYTES_MIN + more);
    bytes
}
