//! How long a segment waits for its disk: from a submitted frame to the report that it is durable,
//! on files written ahead, and for comparison on one file that grows with every frame.
//!
//! `cargo bench -p quorate-node --bench log [DIRECTORY]`; the disk of DIRECTORY is what is measured
//! (without one, that of the temporary directory). Nothing is asserted: the figures are the disk's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{InstanceId, PageId, PgId, Position};
use quorate_core::lsn::Lsn;
use quorate_core::record::Record;
use quorate_node::clock::Clock;
use quorate_node::config::{self, VolumeId};
use quorate_node::disk::SegmentLog;
use quorate_node::env::real::{RealEnvironment, RealLog};
use quorate_node::env::{Environment, Event};
use quorate_node::format::{self, LogIdentity, Note};
use quorate_node::payload::{self, PAGE_BYTES_MAX};

/// Frames of one log that are measured, one after the other.
const FRAMES: u64 = 1_500;

/// Frames before them, which aren't counted.
const WARM_UP: u64 = 100;

/// As a test, so few show that it works.
const FRAMES_OF_A_TEST: u64 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_measured = arguments.iter().any(|argument| argument == "--bench");
    let place = arguments.iter().find(|argument| !argument.starts_with('-'));
    let place = place.map_or_else(std::env::temp_dir, PathBuf::from);
    let (warm_up, frames) = if is_measured { (WARM_UP, FRAMES) } else { (0, FRAMES_OF_A_TEST) };
    println!("microseconds from submission to durable, one page of {PAGE_BYTES_MAX} bytes a frame");
    println!("{:>5}  {:<20} {:>7} {:>7} {:>7}", "logs", "way", "p50", "p99", "most");
    for logs in [1, 6] {
        for (way, run) in [("grows", growing as Way), ("written ahead", ahead)] {
            let root = place.join(format!("quorate-bench-{}", std::process::id()));
            let mut latencies: Vec<Duration> = thread::scope(|scope| {
                let runs: Vec<_> = (0..logs)
                    .map(|log| {
                        let directory = root.join(log.to_string());
                        scope.spawn(move || {
                            std::fs::create_dir_all(&directory).unwrap();
                            run(&directory, warm_up, frames).unwrap()
                        })
                    })
                    .collect();
                runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
            });
            std::fs::remove_dir_all(&root).unwrap();
            latencies.sort_unstable();
            let at = |percent: usize| {
                let place = (latencies.len() - 1) * percent / 100;
                latencies.get(place).map_or(0, Duration::as_micros)
            };
            println!("{logs:>5}  {way:<20} {:>7} {:>7} {:>7}", at(50), at(99), at(100));
        }
    }
}

/// Appends frames one by one, and returns how long each took.
type Way = fn(&Path, u64, u64) -> io::Result<Vec<Duration>>;

const EPOCH: VolumeEpoch = VolumeEpoch::new(1, InstanceId::new(1));

fn write(lsn: u64, bytes: &[u8]) -> SegmentWrite {
    let (group, page, lsn) = (PgId::new(0), PageId::new(lsn % 97), Lsn::new(lsn));
    let previous = Lsn::new(lsn.get() - 1);
    let record = Record {
        lsn,
        epoch: EPOCH,
        prev_volume: previous,
        prev_group: previous,
        group,
        page,
        cpl: true,
        payload: payload::describe(group, page, lsn, bytes).unwrap(),
    };
    SegmentWrite { promised: EPOCH, records: vec![record], ..SegmentWrite::default() }
}

/// One file, made longer by every frame: what the log did before its second format. No thread hands
/// anything over here, so the comparison is in favour of this way.
fn growing(directory: &Path, warm_up: u64, frames: u64) -> io::Result<Vec<Duration>> {
    let file: File =
        OpenOptions::new().create_new(true).write(true).open(directory.join("grows"))?;
    let page = vec![7; PAGE_BYTES_MAX];
    let (mut tail, clock) = (0, Clock::start());
    let mut latencies = Vec::new();
    for lsn in 1..=warm_up + frames {
        let frame = format::encode_frame(1, 0, lsn, &Note::default(), &write(lsn, &page), &[&page])
            .unwrap();
        let start = clock.now();
        file.write_all_at(&frame, tail)?;
        tail += frame.len() as u64;
        file.sync_data()?;
        latencies.push(clock.now().since(start));
    }
    Ok(latencies.split_off(usize::try_from(warm_up).unwrap_or(0)))
}

/// The log of a node, with its threads.
fn ahead(directory: &Path, warm_up: u64, frames: u64) -> io::Result<Vec<Duration>> {
    let identity = LogIdentity {
        volume: VolumeId::new(1),
        group: PgId::new(0),
        position: Position::new(0).unwrap(),
        geometry: config::geometry(1).unwrap(),
        incarnation: quorate_core::id::Incarnation::new(0),
        salt: 1,
    };
    let mut env = RealEnvironment::new()?;
    let header = format::encode_header(&identity).unwrap();
    let file: RealLog = env.open_log(directory, &header).unwrap();
    let (mut log, _, _) = SegmentLog::open(file, &identity).unwrap();
    let page = vec![7; PAGE_BYTES_MAX];
    let clock = Clock::start();
    let (mut latencies, mut events) = (Vec::new(), Vec::new());
    for lsn in 1..=warm_up + frames {
        let write = write(lsn, &page);
        let start = clock.now();
        let number = log.append(&write, &[&page]).unwrap();
        let mut is_durable = false;
        while !is_durable {
            match log.commit() {
                Some(event) => events.push(event),
                None => env.wait(None, &mut events)?,
            }
            for event in events.drain(..) {
                if let Event::Durable { through } = event {
                    log.settle(through);
                    is_durable = through >= number;
                }
            }
        }
        latencies.push(clock.now().since(start));
    }
    Ok(latencies.split_off(usize::try_from(warm_up).unwrap_or(0)))
}
