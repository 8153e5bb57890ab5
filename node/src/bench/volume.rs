//! Durable writes of a volume.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_core::id::PageId;

use super::{Load, Samples};
use crate::clock::Clock;
use crate::volume::{PageImage, Volume, VolumeError};

/// How many pages are written, one after the other, again and again.
const PAGES: u64 = 1 << 16;

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Load for Volume {
    type Error = VolumeError;

    fn drive(
        &mut self,
        in_flight: usize,
        bytes: &[u8],
        span: Duration,
    ) -> Result<Samples, VolumeError> {
        let clock = Clock::start();
        let start = clock.now();
        let mut samples = Samples::default();
        let mut under_way = VecDeque::new();
        let mut page = 0;
        loop {
            let is_over = clock.now().since(start) >= span;
            while !is_over && under_way.len() < in_flight {
                page = (page + 1) % PAGES;
                let image = PageImage { page: PageId::new(page), bytes: bytes.to_vec() };
                let issued = clock.now();
                under_way.push_back((issued, self.write(vec![image])?));
            }
            let Some((issued, commit)) = under_way.pop_front() else {
                samples.elapsed = clock.now().since(start);
                return Ok(samples);
            };
            commit.wait(PATIENCE)?;
            samples.latencies.push(clock.now().since(issued));
        }
    }
}
