//! Who the segments are and where: links to those whom the membership concerns, and the steps by
//! which it changes.

use std::io;
use std::sync::Arc;

use quorate_core::effect::WriterInput;
use quorate_core::geometry::VolumeGeometry;
use quorate_core::id::{PgId, Position, ReaderId, SegmentId, SegmentSet, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, Step, StepRefusal};
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::super::VolumeConfig;
use super::super::flow::Peer;
use super::{Phase, VolumeDriver};
use crate::addresses::{AddressBook, LogTag, Place, Seat, Seats};
use crate::env::{Environment, Token};
use crate::link::Link;
use crate::steward;
use crate::wire::client::{Answer, ClientRefusal, ClientReply};
use crate::wire::members::{GroupMembers, MemberView, Stepped, VolumeMembers};
use crate::wire::{self, Envelope, Hello, Role, Welcome};

/// Returns the address books of a volume's groups, with what was learned before.
pub(super) fn books<E: Environment>(
    env: &mut E,
    config: &VolumeConfig,
) -> io::Result<Vec<AddressBook>> {
    let mut books = Vec::new();
    for (group, addresses) in (0..).map(PgId::new).zip(&config.segments) {
        let joined = config.joined.iter().filter(|(of, _)| *of == group);
        let joined: Vec<Seat> = joined.map(|(_, seat)| *seat).collect();
        let mut book = AddressBook::new(group, addresses, &joined);
        if let Some(home) = &config.home {
            book.restore(env, home)?;
        }
        books.push(book);
    }
    Ok(books)
}

/// Returns whether a segment holds another log than most of those have met under its name that tell
/// of it: an emptied directory that begins anew (edge 27), or one whose disk is not mounted.
///
/// This process tells too, by its own book. Who met only the empty one may tell of that; so most
/// count, and a tie doesn't.
fn is_stranger<S>(peers: &[Peer<S>], books: &[AddressBook], index: usize) -> bool {
    let Some((own, welcome)) = peers.get(index).and_then(|own| Some((own, own.welcome?))) else {
        return false;
    };
    let status = welcome.status;
    let others =
        peers.iter().enumerate().filter(|(at, peer)| *at != index && peer.group == own.group);
    let told = others.filter_map(|(_, peer)| peer.told.as_ref());
    let tags = told.filter_map(|told| told.log(status.position, status.incarnation));
    let book = usize::try_from(own.group.get()).ok().and_then(|at| books.get(at));
    let tags = tags.chain(book.and_then(|book| book.log(status.position, status.incarnation)));
    let (same, other): (Vec<LogTag>, Vec<LogTag>) = tags.partition(|tag| *tag == status.log);
    !other.is_empty() && same.len() <= other.len()
}

impl<E: Environment, R: Rules> VolumeDriver<E, R> {
    /// Calls everybody whom the memberships concern, where the books say that they are, and nobody
    /// else. Before there is a membership, everybody who is known: a removed segment may be the one
    /// that tells of it.
    pub(super) fn seat_peers(&mut self) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        let now = self.env.now();
        let (volume, role) = (self.config.volume, Role::Writer { instance: self.instance });
        let mut peers = Vec::new();
        let mut before = std::mem::take(&mut self.peers);
        for (group, book) in (0..).map(PgId::new).zip(&self.books) {
            let membership = self.writer.as_ref().and_then(|writer| writer.membership(group));
            let wanted = membership.map(|membership| {
                let joining = self.candidate.filter(|(of, _)| *of == group);
                let joining = joining.map_or(SegmentSet::EMPTY, |(_, at)| SegmentSet::only(at));
                membership.everyone().or(joining)
            });
            for Seat { position, place } in book.seats() {
                let member = membership.and_then(|it| book.place_under(it, position));
                let joins = self.candidate == Some((group, position));
                let place = member.filter(|_| !joins).unwrap_or(place);
                if wanted.is_some_and(|wanted| !wanted.contains(position)) {
                    continue;
                }
                let is_same = |peer: &Peer<E::Stream>| {
                    (peer.group, peer.position, peer.incarnation, peer.link.address())
                        == (group, position, place.incarnation, place.address)
                };
                let peer = before.iter().position(is_same).map(|index| before.swap_remove(index));
                peers.push(peer.unwrap_or_else(|| {
                    let link =
                        Link::new(place.address, Hello { volume, group, position, role }, now);
                    Peer::new((group, position), place.incarnation, link, now)
                }));
            }
        }
        // Answers of those who are called no more will not come.
        for Peer { group, position, .. } in before {
            self.reads.lost((group, position), now);
        }
        self.peers = peers;
        // By index, and those have changed.
        self.busy = (0..self.peers.len()).collect();
    }

    /// Takes that a segment answers, unless it is a disk from before.
    pub(super) fn meet(&mut self, index: usize, welcome: &Welcome) {
        let now = self.env.now();
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (group, position, address) = (peer.group, peer.position, peer.link.address());
        let incarnation = welcome.status.incarnation;
        let writer = self.writer.as_ref();
        let is_named = |membership: &Membership| membership.knows(position, peer.incarnation);
        // A newer disk at the address of a member that nobody has replaced is somebody's mistake.
        let is_other = incarnation != peer.incarnation
            && writer.and_then(|writer| writer.membership(group)).is_some_and(is_named);
        if incarnation < peer.incarnation || is_other {
            return peer.link.fail(&mut self.env, now);
        }
        if incarnation > peer.incarnation {
            // A new disk at the address of the one before.
            let place = Place { incarnation, revision: 0, address };
            let seats = Seats { group, seats: vec![Seat { position, place }], logs: Vec::new() };
            return self.take_seats(&seats);
        }
        peer.welcome = Some(*welcome);
        if is_stranger(&self.peers, &self.books, index) {
            return self.shut_out(index);
        }
        let book = usize::try_from(group.get()).ok().and_then(|at| self.books.get_mut(at));
        if let (Some(book), Some(home)) = (book, &self.config.home)
            && book.learn_log(position, incarnation, welcome.status.log)
        {
            // The next writer that starts there needs it, if this node's log is gone by then.
            let _ = book.keep(&mut self.env, home);
        }
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.is_stranger = false;
        peer.catch_up(now);
        if let Some(book) = usize::try_from(group.get()).ok().and_then(|at| self.books.get(at))
            && let Ok(frame) = wire::encode(&Envelope::Seats(book.told()), &[])
        {
            peer.link.send(&Arc::new(frame));
        }
        if let Phase::Recovering(recovery) = &mut self.phase {
            recovery.hear(welcome.status.heard);
        }
        self.step(WriterInput::Resend { group, to: position });
    }

    /// Shuts out whoever turns out to hold another log than the others know. What it has answered
    /// may have been counted by a recovery, which begins anew.
    pub(super) fn look_for_strangers(&mut self) {
        for index in 0..self.peers.len() {
            let is_up = self.peers.get(index).is_some_and(|peer| peer.link.is_up());
            if is_up && is_stranger(&self.peers, &self.books, index) {
                self.shut_out(index);
                if let Phase::Recovering(recovery) = &mut self.phase {
                    recovery.next = Some(self.env.now());
                    self.writer = None;
                }
            }
        }
    }

    fn shut_out(&mut self, index: usize) {
        let now = self.env.now();
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.link.fail(&mut self.env, now);
        // It tells nothing of the volume.
        peer.welcome = None;
        if std::mem::replace(&mut peer.is_stranger, true) {
            return;
        }
        let (group, position, address) = (peer.group, peer.position, peer.link.address());
        self.reads.lost((group, position), now);
        self.env.say(&format!(
            "segment {position} of {group} at {address} does not count: its peers have met another \
             log under its name, so it has lost what it had promised and held. If its directory is \
             the wrong one, or is not mounted, correct that; if its disk is lost, replace it with \
             `quorate repair`"
        ));
    }

    /// Takes what another process knows of a group's addresses.
    pub(super) fn take_seats(&mut self, seats: &Seats) {
        let at = usize::try_from(seats.group.get()).ok();
        let book = at.and_then(|at| self.books.get_mut(at));
        let Some(book) = book else { return };
        book.merge_logs(seats);
        if !book.merge(seats) {
            return;
        }
        if let Some(home) = self.config.home.clone()
            && let Err(error) = book.keep(&mut self.env, &home)
        {
            self.env.say(&format!(
                "cannot keep the addresses of the segments in {}: {error}. They have them, and \
                 tell them to the next writer; check that disk",
                home.display()
            ));
        }
        // Ahead of the membership that needs them, on the same connections.
        let frame = wire::encode(&Envelope::Seats(book.told()), &[]).map(Arc::new);
        self.seat_peers();
        if let Ok(frame) = frame {
            for peer in self.peers.iter_mut().filter(|peer| peer.group == seats.group) {
                peer.link.send(&frame);
            }
            for reader in self.leases.readers() {
                self.callers.send_reader(reader, &frame);
            }
        }
    }

    /// Tells a reader where the segments are: it may know those only that were there once.
    pub(super) fn tell_seats(&mut self, reader: ReaderId) {
        for book in &self.books {
            if let Ok(frame) = wire::encode(&Envelope::Seats(book.told()), &[]) {
                self.callers.send_reader(reader, &Arc::new(frame));
            }
        }
    }

    /// Returns the newest memberships that segments have told of when they were reached. A recovery
    /// begins with them as if a seal had been answered with them: whoever answers informs.
    pub(super) fn known_memberships(&self, geometry: &VolumeGeometry) -> Vec<Membership> {
        let first = Membership::genesis(geometry.quorums());
        let newest = |group| {
            let told = self.peers.iter().filter(|peer| peer.group == group);
            let told = told.filter_map(|peer| Some(peer.welcome?.status.membership));
            told.fold(first, |best, next| if next.epoch() > best.epoch() { next } else { best })
        };
        geometry.groups().map(newest).collect()
    }

    /// Takes a step of a membership change; one that was taken before is not taken again.
    pub(crate) fn take_step(&mut self, group: PgId, step: Step, place: Option<Place>) -> Stepped {
        let Some(writer) = &self.writer else { return Stepped::NoGroup };
        let Some(membership) = writer.membership(group).copied() else { return Stepped::NoGroup };
        if let Step::Replace { old, new } = step
            && membership.quorums().members().contains(new.position)
            && membership.knows(new.position, new.incarnation)
        {
            // Told again by whoever didn't hear that it was taken; otherwise it replaces nobody.
            let is_told_again = steward::under_way(&membership)
                .is_some_and(|(_, change)| (change.old.position, change.new) == (old, new));
            return if is_told_again {
                Stepped::Taken
            } else {
                Stepped::Refused(StepRefusal::Nothing)
            };
        }
        if let Err(refusal) = membership.after(self.rules, writer.epoch(), step) {
            return Stepped::Refused(refusal);
        }
        if let Step::Replace { old: _, new } = step {
            self.candidate = Some((group, new.position));
            if let Some(place) = place {
                let place = self.place_of(group, new, place);
                let seats = vec![Seat { position: new.position, place }];
                self.take_seats(&Seats { group, seats, logs: Vec::new() });
            }
            self.seat_peers();
            // Nobody joins who can't be reached.
            let is_there = |peer: &Peer<E::Stream>| {
                (peer.group, peer.position, peer.incarnation)
                    == (group, new.position, new.incarnation)
                    && peer.link.is_up()
            };
            if !self.peers.iter().any(is_there) {
                return Stepped::Unreachable;
            }
        }
        self.step_refused = None;
        self.step(WriterInput::Step { group, step });
        self.candidate = None;
        self.step_refused.take().map_or(Stepped::Taken, Stepped::Refused)
    }

    /// Returns where a disk that is to join is, so that everybody believes it: it may have been
    /// somewhere else when somebody tried before.
    fn place_of(&self, group: PgId, new: SegmentId, place: Place) -> Place {
        let place = Place { incarnation: new.incarnation, ..place };
        let book = usize::try_from(group.get()).ok().and_then(|at| self.books.get(at));
        match book.and_then(|book| book.place(new.position)) {
            Some(known)
                if known.incarnation == place.incarnation
                    && known.address != place.address
                    && known.revision >= place.revision =>
            {
                Place { revision: known.revision.saturating_add(1), ..place }
            }
            Some(_) | None => place,
        }
    }

    pub(super) fn tell_members(&mut self, token: Token, ticket: Ticket) {
        let answer = match (self.over(), self.members()) {
            (Some(error), _) => Answer::Refused(error.into()),
            (None, Some(members)) => Answer::Members(members),
            (None, None) => Answer::Refused(ClientRefusal::Stopped),
        };
        self.outbox.replies.push((token, ClientReply { ticket, answer }, Vec::new()));
    }

    /// Returns who the members of the volume's groups are, once it is open.
    #[must_use]
    pub fn members(&self) -> Option<VolumeMembers> {
        let writer = self.writer.as_ref()?;
        let groups = writer.geometry().groups().map(|group| self.group_members(writer, group));
        Some(VolumeMembers { groups: groups.collect::<Option<_>>()? })
    }

    fn group_members(&self, writer: &Writer<R>, group: PgId) -> Option<GroupMembers> {
        let standing = writer.standing(group)?;
        let membership = standing.membership;
        let book = self.books.get(usize::try_from(group.get()).ok()?)?;
        let view = |position: Position| {
            let incarnation = membership.incarnation(position);
            let place = book.place_under(&membership, position);
            let place = place.filter(|place| place.incarnation == incarnation);
            let peer = self.peers.iter().find(|peer| {
                (peer.group, peer.position, peer.incarnation) == (group, position, incarnation)
            });
            MemberView {
                position,
                incarnation,
                address: place.map(|place| place.address),
                is_up: peer.is_some_and(|peer| peer.link.is_up()),
                scl: writer.scl(group, position).unwrap_or(Lsn::ZERO),
            }
        };
        Some(GroupMembers {
            group,
            membership,
            is_settled: standing.is_settled,
            target: standing.target,
            pgcl: writer.pgcl(group)?.lsn(),
            members: membership.everyone().iter().map(view).collect(),
        })
    }
}
