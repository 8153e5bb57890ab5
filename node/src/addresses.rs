//! Where the segments of a group are: an address book that every process of the group keeps.
//!
//! An entry is ordered by its disk first, then by how often that disk has moved; the higher one
//! wins, whoever tells it, so that books can be exchanged in any order and an older one never
//! replaces what is newer. Addresses decide nothing: who counts, the membership says.
//!
//! A book travels ahead of the membership that it is needed for, on the same connection, and is
//! durable before the membership is: whoever holds a membership knows where its members are.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use quorate_core::id::{Incarnation, PgId, Position, Positions, SEGMENTS_MAX};
use quorate_core::list;
use serde::{Deserialize, Serialize};

use crate::env::Environment;
use crate::wire;

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

/// The places of one group's segments, as one process tells them to another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seats {
    /// The group.
    pub group: PgId,
    /// The places, one a position.
    #[serde(deserialize_with = "list::deserialize_at_most::<_, _, SEGMENTS_MAX>")]
    pub seats: Vec<Seat>,
}

/// The address book of one group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressBook {
    group: PgId,
    places: Positions<Option<Place>>,
}

impl AddressBook {
    /// Returns the book of a group whose segments by position are at `addresses` and have never
    /// changed, but for `joined`.
    #[must_use]
    pub fn new(group: PgId, addresses: &[SocketAddr], joined: &[Seat]) -> Self {
        let mut book = Self { group, places: Positions::default() };
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
        let is_news = known.is_none_or(|known| place.is_newer_than(&known));
        if is_news {
            *known = Some(place);
        }
        is_news
    }

    /// Takes what another process knows; returns whether any of it is news.
    pub fn merge(&mut self, seats: &Seats) -> bool {
        let is_ours = seats.group == self.group;
        let mut has_news = false;
        for Seat { position, place } in seats.seats.iter().filter(|_| is_ours) {
            has_news |= self.learn(*position, *place);
        }
        has_news
    }

    /// Returns where the segment at `position` is.
    #[must_use]
    pub fn place(&self, position: Position) -> Option<Place> {
        *self.places.at(position)
    }

    /// Returns all places that are known.
    pub fn seats(&self) -> impl Iterator<Item = Seat> {
        let known =
            |(position, place): (_, &Option<Place>)| Some(Seat { position, place: (*place)? });
        self.places.iter().filter_map(known)
    }

    /// Returns the book as it is told to others.
    #[must_use]
    pub fn told(&self) -> Seats {
        Seats { group: self.group, seats: self.seats().collect() }
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
            let mut before = Self { group: self.group, places: Positions::default() };
            before.merge(&kept);
            self.merge(&kept);
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
const MAGIC: [u8; 8] = *b"QRTBOOK\x01";

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
