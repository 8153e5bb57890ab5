//! Interning: every distinct machine, message or log is kept once and named by a number.
//!
//! A state of a model is then a handful of numbers, and what a machine does with an input is
//! computed once for each distinct pair: machines are pure, so the answer can be remembered. It is
//! still the shipped core that computes it.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use nohash_hasher::NoHashHasher;

type Plain = BuildHasherDefault<NoHashHasher<u64>>;

/// Distinct values of one type, numbered in the order of their discovery.
///
/// Values are compared in full: two different values with one 64-bit hash stop the run, so no
/// collision can hide a state here.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    seed: u64,
    values: boxcar::Vec<(u64, T)>,
    ids: DashMap<u64, u32, Plain>,
}

impl<T: Hash + Eq> Arena<T> {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, values: boxcar::Vec::new(), ids: DashMap::default() }
    }

    /// Returns the number of `value`.
    ///
    /// # Panics
    /// When two different values have one hash, or at 2^32 values.
    pub(crate) fn intern(&self, value: T) -> u32 {
        let hash = hash_of(self.seed, &value);
        match self.ids.entry(hash) {
            Entry::Occupied(known) => {
                assert!(*self.get(*known.get()) == value, "two values with one hash: other seed");
                *known.get()
            }
            Entry::Vacant(new) => {
                let index = self.values.push((hash, value));
                let id = u32::try_from(index).unwrap_or(u32::MAX);
                assert!(id < u32::MAX, "more than 2^32 distinct values");
                *new.insert(id)
            }
        }
    }

    /// Returns the value with number `id`.
    #[expect(clippy::indexing_slicing, reason = "ids come from intern")]
    pub(crate) fn get(&self, id: u32) -> &T {
        &self.values[id as usize].1
    }

    /// Returns the hash of the value with number `id`: the same in every run with one seed.
    #[expect(clippy::indexing_slicing, reason = "ids come from intern")]
    pub(crate) fn hash(&self, id: u32) -> u64 {
        self.values[id as usize].0
    }

    pub(crate) fn len(&self) -> usize {
        self.values.count()
    }
}

/// Remembered answers of a pure function whose arguments are packed into 64 bits without loss.
#[derive(Debug)]
pub(crate) struct Memo<V: Copy>(DashMap<u64, V, Plain>);

impl<V: Copy> Memo<V> {
    pub(crate) fn new() -> Self {
        Self(DashMap::default())
    }

    pub(crate) fn get_or(&self, key: u64, compute: impl FnOnce() -> V) -> V {
        // A bijection, so that keys which differ in few bits spread over the shards.
        let key = mix(key);
        if let Some(known) = self.0.get(&key) {
            return *known;
        }
        let value = compute();
        self.0.insert(key, value);
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns the hash of `value` under `seed`, the same in every run.
pub(crate) fn hash_of<T: Hash + ?Sized>(seed: u64, value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Spreads `word` over 64 bits, one to one (the finaliser of SplitMix64).
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Adds `word` to a running hash in which the order of words matters.
pub(crate) const fn combine(hash: u64, word: u64) -> u64 {
    mix(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ word)
}
