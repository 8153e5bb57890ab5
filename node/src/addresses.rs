//! Where the segments of a group are: an address book that every process of the group keeps.
//!
//! An entry is ordered by its disk first, then by how often that disk has moved; the higher one
//! wins, whoever tells it, so that books can be exchanged in any order and an older one never
//! replaces what is newer. Addresses decide nothing: who counts, the membership says.
//!
//! A book travels ahead of the membership that it is needed for, on the same connection, and is
//! durable before the membership is: whoever holds a membership knows where its members are.
//!
//! It also says which log each disk has had since this process first met it. An emptied directory
//! begins a log of its own under the name of the disk that it was (edge 27): the others know it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use quorate_core::id::{Incarnation, PgId, Position, Positions, SEGMENTS_MAX};
use quorate_core::list;
use quorate_core::membership::Membership;
use serde::{Deserialize, Serialize};

use crate::env::Environment;
use crate::wire;

/// The most places that a book tells: of the newest disk of each position, and the one before.
const PLACES_MAX: usize = 2 * SEGMENTS_MAX;

/// Where the disk at a position is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Which disk.
    pub incarnation: Incarnation,
    /// Rises whenever that disk is moved to another address.
    pub revision: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Place {
    /// Returns where a group's first disk at a position is, if it hasn't been moved.
    #[must_use]
    pub const fn first(address: SocketAddr) -> Self {
        Self { incarnation: Incarnation::new(0), revision: 0, address }
    }

    /// Two addresses of one place are both right: a process may reach it in a way of its own.
    fn is_newer_than(&self, other: &Self) -> bool {
        (self.incarnation, self.revision) > (other.incarnation, other.revision)
    }
}

/// Where the segment at a position is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seat {
    /// The position.
    pub position: Position,
    /// The place.
    pub place: Place,
}

/// Tells logs apart that were begun under one name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogTag(u32);

impl LogTag {
    /// Returns the tag of the log with this salt. It doesn't give the salt away.
    #[must_use]
    pub fn of(salt: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(b"log tag"), &salt.to_le_bytes()))
    }
}

/// Which log a disk has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KnownLog {
    /// The position of the disk.
    pub position: Position,
    /// Which disk of its position.
    pub incarnation: Incarnation,
    /// The log that it had when it was first met.
    pub tag: LogTag,
}

/// The places of one group's segments, as one process tells them to another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seats {
    /// The group.
    pub group: PgId,
    /// The places, at most two a position.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, PLACES_MAX>")]
    pub seats: Vec<Seat>,
    /// The logs, one a position.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, SEGMENTS_MAX>")]
    pub logs: Vec<KnownLog>,
}

impl Seats {
    /// Returns which log the disk `incarnation` at `position` has, as far as the teller knows.
    #[must_use]
    pub fn log(&self, position: Position, incarnation: Incarnation) -> Option<LogTag> {
        let is_it = |log: &&KnownLog| (log.position, log.incarnation) == (position, incarnation);
        self.logs.iter().find(is_it).map(|log| log.tag)
    }
}

/// The address book of one group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressBook {
    group: PgId,
    /// Of the newest disk that is known.
    places: Positions<Option<Place>>,
    /// Of the disk that was known before it.
    earlier: Positions<Option<Place>>,
    logs: Positions<Option<(Incarnation, LogTag)>>,
}

impl AddressBook {
    fn empty(group: PgId) -> Self {
        let (places, earlier) = (Positions::default(), Positions::default());
        Self { group, places, earlier, logs: Positions::default() }
    }

    /// Returns the book of a group whose segments by position are at `addresses` and have never
    /// changed, but for `joined`.
    #[must_use]
    pub fn new(group: PgId, addresses: &[SocketAddr], joined: &[Seat]) -> Self {
        let mut book = Self::empty(group);
        for (position, address) in Position::first(addresses.len()).zip(addresses) {
            book.learn(position, Place::first(*address));
        }
        for Seat { position, place } in joined {
            book.learn(*position, *place);
        }
        book
    }

    /// Takes a place, unless a newer one is known; returns whether it is news.
    pub fn learn(&mut self, position: Position, place: Place) -> bool {
        let known = self.places.at_mut(position);
        let Some(newest) = *known else {
            *known = Some(place);
            return true;
        };
        let earlier = self.earlier.at_mut(position);
        if place.incarnation < newest.incarnation {
            let is_news = earlier.is_none_or(|known| place.is_newer_than(&known));
            if is_news {
                *earlier = Some(place);
            }
            return is_news;
        }
        let is_news = place.is_newer_than(&newest);
        if is_news {
            if place.incarnation > newest.incarnation {
                *earlier = Some(newest);
            }
            *known = Some(place);
        }
        is_news
    }

    /// Returns where the segment at `position` is: the disk that `membership` names, or, where it
    /// concerns nobody there, the newest one that is known. Whoever claims to be a newer one is not
    /// believed before he is a member.
    #[must_use]
    pub fn place_under(&self, membership: &Membership, position: Position) -> Option<Place> {
        if !membership.everyone().contains(position) {
            return self.place(position);
        }
        let named = membership.incarnation(position);
        let known = [*self.places.at(position), *self.earlier.at(position)];
        let is_named = |place: &Place| place.incarnation == named;
        known.into_iter().flatten().find(is_named).or_else(|| self.place(position))
    }

    /// Takes what another process knows of places; returns whether any of it is news.
    pub fn merge(&mut self, seats: &Seats) -> bool {
        let is_ours = seats.group == self.group;
        let mut has_news = false;
        for Seat { position, place } in seats.seats.iter().filter(|_| is_ours) {
            has_news |= self.learn(*position, *place);
        }
        has_news
    }

    /// Takes what another process knows of logs; returns whether any of it is news.
    pub fn merge_logs(&mut self, seats: &Seats) -> bool {
        let is_ours = seats.group == self.group;
        let mut has_news = false;
        for KnownLog { position, incarnation, tag } in seats.logs.iter().filter(|_| is_ours) {
            has_news |= self.learn_log(*position, *incarnation, *tag);
        }
        has_news
    }

    /// Takes which log a disk has, unless one of it or of a later disk is known: the first one that
    /// it was met with counts. Returns whether it is news.
    pub fn learn_log(&mut self, position: Position, incarnation: Incarnation, tag: LogTag) -> bool {
        let known = self.logs.at_mut(position);
        let is_news = known.is_none_or(|(of, _)| incarnation > of);
        if is_news {
            *known = Some((incarnation, tag));
        }
        is_news
    }

    /// Returns which log the disk `incarnation` at `position` had when it was first met.
    #[must_use]
    pub fn log(&self, position: Position, incarnation: Incarnation) -> Option<LogTag> {
        self.logs.at(position).filter(|(of, _)| *of == incarnation).map(|(_, tag)| tag)
    }

    /// Returns where the newest disk at `position` is.
    #[must_use]
    pub fn place(&self, position: Position) -> Option<Place> {
        *self.places.at(position)
    }

    /// Returns the place of the newest disk at each position where one is known.
    pub fn seats(&self) -> impl Iterator<Item = Seat> {
        let known =
            |(position, place): (_, &Option<Place>)| Some(Seat { position, place: (*place)? });
        self.places.iter().filter_map(known)
    }

    /// Returns the book as it is told to others.
    #[must_use]
    pub fn told(&self) -> Seats {
        let known = |(position, log): (_, &Option<(Incarnation, LogTag)>)| {
            let (incarnation, tag) = (*log)?;
            Some(KnownLog { position, incarnation, tag })
        };
        let logs = self.logs.iter().filter_map(known).collect();
        let earlier = self.earlier.iter();
        let earlier =
            earlier.filter_map(|(position, place)| Some(Seat { position, place: (*place)? }));
        Seats { group: self.group, seats: self.seats().chain(earlier).collect(), logs }
    }

    /// Takes what this process had in its book when it last ran, and makes sure that all of it is
    /// kept.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn restore<E: Environment>(&mut self, env: &mut E, directory: &Path) -> io::Result<()> {
        let kept = env.kept(directory, &self.file())?;
        // Nobody depends on a damaged one: the others tell this process what it has forgotten.
        if let Some(Ok(kept)) = kept.as_deref().map(decode) {
            let mut before = Self::empty(self.group);
            before.merge(&kept);
            before.merge_logs(&kept);
            self.merge(&kept);
            self.merge_logs(&kept);
            if before == *self {
                return Ok(());
            }
        }
        self.keep(env, directory)
    }

    /// Makes the book durable, whole or not at all.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn keep<E: Environment>(&self, env: &mut E, directory: &Path) -> io::Result<()> {
        env.keep(directory, &self.file(), &encode(&self.told())?)
    }

    fn file(&self) -> String {
        format!("addresses-{}.book", self.group)
    }
}

/// A book's file: magic, version, checksum, and what is told to others.
const MAGIC: [u8; 8] = *b"QRTBOOK\x02";

fn encode(seats: &Seats) -> io::Result<Vec<u8>> {
    let body = wire::encode_value(seats).map_err(io::Error::other)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Seats, ()> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(())?;
    let (checksum, body) = rest.split_first_chunk::<4>().ok_or(())?;
    if *magic != MAGIC || crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(());
    }
    wire::decode_value(body).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_core::quorum::QuorumSet;

    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn position(index: usize) -> Position {
        Position::new(index).unwrap()
    }

    fn place(incarnation: u32, revision: u32, port: u16) -> Place {
        Place { incarnation: Incarnation::new(incarnation), revision, address: at(port) }
    }

    /// A book from before a change could send everybody to a disk that is gone.
    #[test]
    fn an_older_book_replaces_nothing() {
        let addresses: Vec<SocketAddr> = (1..7).map(at).collect();
        let old = AddressBook::new(PgId::new(0), &addresses, &[]);
        let mut book = old;
        assert!(book.learn(position(5), place(1, 0, 9)));
        assert!(book.learn(position(2), place(0, 1, 8)));
        assert!(!book.merge(&old.told()), "nothing of it is news");
        assert_eq!(book.place(position(5)), Some(place(1, 0, 9)));
        assert_eq!(book.place(position(2)), Some(place(0, 1, 8)));
        let mut other = old;
        assert!(other.merge(&book.told()));
        assert_eq!(other, book, "whoever hears of it agrees");
        let of_another = Seats { group: PgId::new(1), ..book.told() };
        assert!(!AddressBook::new(PgId::new(0), &[], &[]).merge(&of_another));
    }

    /// A newer disk that nobody has made a member must not hide the member that is there.
    #[test]
    fn a_member_is_found_under_its_membership() {
        let membership = Membership::genesis(QuorumSet::AURORA);
        let addresses: Vec<SocketAddr> = (1..7).map(at).collect();
        let mut book = AddressBook::new(PgId::new(0), &addresses, &[]);
        assert!(book.learn(position(5), place(1, 0, 9)));
        assert_eq!(book.place(position(5)), Some(place(1, 0, 9)));
        assert_eq!(book.place_under(&membership, position(5)), Some(place(0, 0, 6)));
        assert!(book.learn(position(5), place(0, 1, 8)), "it has moved");
        let mut other = AddressBook::new(PgId::new(0), &[], &[]);
        assert!(other.merge(&book.told()));
        assert_eq!(other, book);
        assert_eq!(other.place_under(&membership, position(5)), Some(place(0, 1, 8)));
        assert!(!other.learn(position(5), place(0, 0, 7)));
    }

    /// An emptied directory must not pass for the disk that it was, whoever tells of it last.
    #[test]
    fn the_log_that_a_disk_was_first_met_with_counts() {
        let [first, second] = [1, 2].map(LogTag::of);
        assert_ne!(first, second);
        let old = Incarnation::new(0);
        let mut book = AddressBook::new(PgId::new(0), &[at(1), at(2)], &[]);
        assert!(book.learn_log(position(1), old, first));
        assert!(!book.learn_log(position(1), old, second));
        let mut other = AddressBook::new(PgId::new(0), &[], &[]);
        assert!(other.merge_logs(&book.told()));
        assert!(!other.merge_logs(&book.told()));
        assert_eq!(other.log(position(1), old), Some(first));
        assert_eq!(book.told().log(position(1), old), Some(first));
        assert!(book.learn_log(position(1), Incarnation::new(1), second), "a disk of its own");
        assert_eq!(book.log(position(1), old), None);
    }

    /// Damage must not become an address.
    #[test]
    fn a_file_is_taken_whole_or_not_at_all() {
        let book = AddressBook::new(PgId::new(3), &[at(1), at(2)], &[]);
        let bytes = encode(&book.told()).unwrap();
        assert_eq!(decode(&bytes), Ok(book.told()));
        for length in 0..bytes.len() {
            assert_eq!(decode(bytes.get(..length).unwrap()), Err(()));
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            *damaged.get_mut(index).unwrap() ^= 4;
            assert_eq!(decode(&damaged), Err(()), "byte {index}");
        }
    }
}
