//! How lists are decoded: in memory of about their own size, whatever length a message announces.
//!
//! Serde lets a list grow by doubling, and while it grows its old and its new memory are both
//! there: three times its size. Here memory is taken in steps that end exactly at the announced
//! length: it is at most one and a half times as much as the list, and for a length that lies at
//! most three times as much as what did come.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// The most elements that memory is taken for before the first of them has come.
const FIRST_MAX: usize = 256;

/// Decodes a list. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// As `input` and the elements do, and when there is no memory.
pub fn deserialize<'de, D, T>(input: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    input.deserialize_seq(List { most: usize::MAX, element: PhantomData })
}

/// Decodes a list of at most `MOST` elements. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`deserialize`], and when the list is longer: as soon as its length is announced, if it is.
pub fn deserialize_at_most<'de, D, T, const MOST: usize>(input: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    input.deserialize_seq(List { most: MOST, element: PhantomData })
}

struct List<T> {
    most: usize,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {} elements", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Vec<T>, A::Error> {
        let announced = input.size_hint().unwrap_or(0);
        if announced > self.most {
            return Err(Error::invalid_length(announced, &self));
        }
        let mut list: Vec<T> = Vec::new();
        reserve(&mut list, announced)?;
        while let Some(element) = input.next_element()? {
            if list.len() == self.most {
                return Err(Error::invalid_length(self.most.saturating_add(1), &self));
            }
            if list.len() == list.capacity() {
                reserve(&mut list, announced)?;
            }
            list.push(element);
        }
        Ok(list)
    }
}

/// Takes the next step: the longest halving of `announced` that is at most twice as long as what
/// there is.
fn reserve<T, E: Error>(list: &mut Vec<T>, announced: usize) -> Result<(), E> {
    let there = list.len();
    let most = there.saturating_mul(2).max(FIRST_MAX);
    let mut next = announced;
    while next > most {
        next = next.div_ceil(2);
    }
    // Nothing, or too little, was announced.
    let next = if next > there { next } else { most };
    let more = if announced == 0 && there == 0 { 0 } else { next.saturating_sub(there) };
    list.try_reserve_exact(more).map_err(|_| Error::custom("there is no memory for a list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde::de::value::{Error as Plain, SeqDeserializer};

    /// What has come of a list that announces `announced` elements and has `count`.
    fn decode(announced: usize, count: u32, most: usize) -> Result<Vec<u32>, Plain> {
        struct Lying<I>(I, usize);
        impl<'de, I: SeqAccess<'de>> SeqAccess<'de> for Lying<I> {
            type Error = I::Error;
            fn next_element_seed<S: serde::de::DeserializeSeed<'de>>(
                &mut self,
                seed: S,
            ) -> Result<Option<S::Value>, I::Error> {
                self.0.next_element_seed(seed)
            }
            fn size_hint(&self) -> Option<usize> {
                (self.1 > 0).then_some(self.1)
            }
        }
        let elements = SeqDeserializer::<_, Plain>::new(0..count);
        List { most, element: PhantomData }.visit_seq(Lying(elements, announced))
    }

    /// A list must come back whole, whatever it announces, in exactly its own memory when it tells
    /// the truth.
    #[test]
    fn lists_come_back_whole() {
        for count in [0, 1, 2, 255, 256, 257, 511, 513, 1000, 4096, 70_001] {
            let whole: Vec<u32> = (0..count).collect();
            for announced in [0, 1, count as usize / 2, count as usize, usize::MAX] {
                assert_eq!(decode(announced, count, usize::MAX).as_deref(), Ok(&whole[..]));
            }
            let list = decode(count as usize, count, usize::MAX);
            assert_eq!(list.map(|list| list.capacity()), Ok(count as usize));
        }
    }

    /// A length that lies must not take memory for what never comes.
    #[test]
    fn memory_follows_what_has_come() {
        for announced in [300, 1 << 20, usize::MAX] {
            let mut list: Vec<u32> = Vec::new();
            for element in 0..5000 {
                if list.len() == list.capacity() {
                    assert!(reserve::<_, Plain>(&mut list, announced).is_ok());
                    let most = (2 * list.len()).max(FIRST_MAX);
                    assert!(list.capacity() <= most, "{announced}: {}", list.capacity());
                    assert!(list.capacity() > list.len());
                }
                list.push(element);
            }
        }
    }

    /// What is above the bound must be refused before it is kept.
    #[test]
    fn longer_lists_are_refused() {
        assert!(decode(5, 5, 5).is_ok());
        assert!(decode(6, 0, 5).is_err(), "announced");
        assert!(decode(0, 6, 5).is_err(), "not announced");
    }
}
