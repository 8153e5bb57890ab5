#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use quorate_core::image::SegmentImage;

use super::*;
use crate::disk::SegmentLog;
use crate::env::Environment;
use crate::env::real::RealEnvironment;
use crate::format;
use crate::payload::PAGE_BYTES_MAX;
use crate::testing::{append, identity, payload_of, record};

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("quorate-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

/// A segment's log on real files, and what its threads have said.
struct Real {
    env: RealEnvironment,
    log: SegmentLog<RealLog>,
    image: SegmentImage,
    /// Frames that are reported as durable.
    durable: u64,
    cramped: usize,
    failed: Option<io::ErrorKind>,
}

impl Real {
    fn open(directory: &Path) -> Self {
        let mut env = RealEnvironment::new().unwrap();
        let header = format::encode_header(&identity()).unwrap();
        let file = env.open_log(directory, &header).unwrap();
        let (log, image, replay) = SegmentLog::open(file, &identity()).unwrap();
        Self { env, log, image, durable: replay.frames, cramped: 0, failed: None }
    }

    /// Appends records of a whole page until `count` are submitted in all.
    fn submit(&mut self, count: u64) {
        for lsn in self.log.submitted() + 1..=count {
            let bytes = payload_of(lsn, PAGE_BYTES_MAX);
            let write = append(1, &[record(lsn, lsn - 1, 1, &bytes)]);
            self.log.append(&write, &[&bytes]).unwrap();
            self.image.apply(&write).unwrap();
        }
    }

    /// Waits until all that was submitted is durable, or the log has failed.
    fn settle(&mut self) {
        while self.durable < self.log.submitted() && self.failed.is_none() {
            let mut events = Vec::new();
            match self.log.commit() {
                Some(event) => events.push(event),
                None => self.env.wait(None, &mut events).unwrap(),
            }
            for event in events {
                match event {
                    Event::Durable { through } => {
                        self.log.settle(through);
                        self.durable = through + 1;
                    }
                    Event::Checkpointed(made) => self.log.checkpointed(made),
                    Event::CheckpointFailed { error } => panic!("{error}"),
                    Event::LogCramped { .. } => self.cramped += 1,
                    Event::LogFailed { error } => self.failed = Some(error),
                    Event::Ready { .. } | Event::Woken => {}
                }
            }
        }
    }

    /// Reads back every record with an LSN up to `count`.
    fn assert_records(&self, count: u64) {
        assert!(self.image.records().len() as u64 >= count);
        for record in &self.image.records()[..usize::try_from(count).unwrap()] {
            let expected = payload_of(record.lsn.get(), PAGE_BYTES_MAX);
            assert_eq!(self.log.read(record).unwrap(), expected);
        }
    }
}

/// What is written over many files, in small groups and large ones, must come back from them.
#[test]
fn a_log_over_many_files_comes_back() {
    let directory = directory("files");
    let mut real = Real::open(&directory);
    for count in (1..40).chain([1500, 1501]) {
        real.submit(count);
        real.settle();
    }
    real.assert_records(1501);
    drop(real);
    let real = Real::open(&directory);
    assert_eq!(real.durable, 1501);
    real.assert_records(1501);
    // 12 MB need the files of 1, 2, 4 and 8 MiB.
    assert!(directory.join("segment.000003.log").exists());
    drop(real);
    std::fs::remove_dir_all(directory).unwrap();
}

/// An idle segment's mark must tell of all that was acknowledged, however soon it comes after a
/// note: nothing else will, for as long as nobody writes.
#[test]
fn a_mark_keeps_its_note_far_from_the_frames() {
    for round in 0..5 {
        let directory = directory("marked");
        let mut real = Real::open(&directory);
        real.submit(3);
        real.settle();
        real.submit(4);
        real.settle();
        let acknowledged = real.log.bytes();
        real.log.mark(&crate::testing::promise(1)).unwrap();
        real.settle();
        drop(real);
        let mut env = RealEnvironment::new().unwrap();
        let file = env.open_log(&directory, &[]).unwrap();
        let noted = file.notes().iter().map(|note| note.durable).max();
        assert_eq!(noted, Some(acknowledged), "round {round}");
        drop(file);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// A disk of its own for one test; gone with this value.
struct Mounted(PathBuf);

impl Mounted {
    /// Returns `None` where this process may not mount.
    fn new(path: PathBuf, options: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        mount(&path, options).then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn mount(path: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path);
    command.output().is_ok_and(|output| output.status.success())
}

/// A disk that is full must be noticed ahead, stop the segment when its space is used up, and cost
/// nothing that was acknowledged.
#[test]
fn a_disk_that_is_really_full_costs_nothing() {
    // The first file and a half of the second one.
    let Some(disk) = Mounted::new(directory("full"), "size=2m") else {
        eprintln!("!!! SKIPPED: no file system can be mounted here, so no real disk is full");
        return;
    };
    let directory = disk.0.join("segment");
    let mut real = Real::open(&directory);
    real.submit(1);
    real.settle();
    let mut count = 1;
    while real.failed.is_none() {
        count += 1;
        real.submit(count);
        real.settle();
    }
    assert_eq!(real.failed, Some(io::ErrorKind::StorageFull));
    assert!(real.cramped > 0, "nobody was warned");
    let durable = real.durable;
    assert!((100..130).contains(&durable), "{durable}");
    drop(real);
    // As long as the disk is full, what is there can be served.
    let real = Real::open(&directory);
    assert!(real.durable >= durable);
    real.assert_records(durable);
    drop(real);
    assert!(mount(&disk.0, "remount,size=16m"));
    let mut real = Real::open(&directory);
    real.submit(durable + 200);
    real.settle();
    assert_eq!((real.failed, real.cramped), (None, 0));
    real.assert_records(durable + 200);
}

/// A log must not be opened twice: two threads would write over each other.
#[test]
fn a_directory_is_locked() {
    let directory = directory("locked");
    let real = Real::open(&directory);
    let mut env = RealEnvironment::new().unwrap();
    assert!(matches!(env.open_log(&directory, &[]), Err(LogFileError::Locked)));
    drop(real);
    assert!(env.open_log(&directory, &[]).is_ok());
    std::fs::remove_dir_all(directory).unwrap();
}

/// A segment whose log was deleted has forgotten what it acknowledged and promised: as a new one it
/// would help to lose both.
#[test]
fn a_deleted_log_is_not_made_anew() {
    let directory = directory("gone");
    drop(Real::open(&directory));
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != LOCK_NAME {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut env = RealEnvironment::new().unwrap();
    assert!(matches!(env.open_log(&directory, &[]), Err(LogFileError::Gone)));
    std::fs::remove_dir_all(directory).unwrap();
}

/// A first file that is gone must be called that, and not damaged.
#[test]
fn a_missing_first_file_is_named() {
    let directory = directory("headless");
    let mut real = Real::open(&directory);
    real.submit(150);
    real.settle();
    drop(real);
    std::fs::remove_file(directory.join("segment.000000.log")).unwrap();
    let mut env = RealEnvironment::new().unwrap();
    assert!(matches!(env.open_log(&directory, &[]), Err(LogFileError::FirstFileGone)));
    assert!(!directory.join("segment.000000.log").exists());
    std::fs::remove_dir_all(directory).unwrap();
}

/// Returns a directory with a log of whole pages and a checkpoint of all of them, most of which are
/// in the store, and what the segment is then.
fn with_checkpoint(name: &str, count: u64) -> (PathBuf, SegmentImage) {
    let directory = directory(name);
    let mut real = Real::open(&directory);
    real.submit(count);
    let write = crate::testing::collect(1, count - 2);
    real.log.append(&write, &[]).unwrap();
    real.image.apply(&write).unwrap();
    real.settle();
    real.log.checkpoint(&real.image);
    while real.log.since_checkpoint().is_none() {
        let mut events = Vec::new();
        real.env.wait(None, &mut events).unwrap();
        for event in events {
            match event {
                Event::Checkpointed(made) => real.log.checkpointed(made),
                Event::CheckpointFailed { error } => panic!("{error}"),
                Event::Durable { .. }
                | Event::LogCramped { .. }
                | Event::LogFailed { .. }
                | Event::Ready { .. }
                | Event::Woken => {}
            }
        }
    }
    real.assert_pages();
    (directory, real.image.clone())
}

impl Real {
    fn assert_pages(&self) {
        for record in self.image.records() {
            let expected = payload_of(record.lsn.get(), PAGE_BYTES_MAX);
            assert_eq!(self.log.read(record).unwrap(), expected);
        }
    }
}

/// A start has to find in the store what the log needs no longer tell.
#[test]
fn a_log_with_a_checkpoint_comes_back() {
    let (directory, image) = with_checkpoint("checkpoint", 60);
    let mut real = Real::open(&directory);
    assert_eq!(real.image, image);
    assert_eq!(real.durable, 0, "no frame was left to replay");
    real.assert_pages();
    real.durable = real.log.submitted();
    let bytes = payload_of(61, PAGE_BYTES_MAX);
    let write = append(1, &[record(61, 60, 1, &bytes)]);
    real.log.append(&write, &[&bytes]).unwrap();
    real.image.apply(&write).unwrap();
    real.settle();
    real.assert_pages();
    let image = real.image.clone();
    drop(real);
    let real = Real::open(&directory);
    assert_eq!((real.image.clone(), real.durable), (image, 1));
    real.assert_pages();
    drop(real);
    std::fs::remove_dir_all(directory).unwrap();
}

/// Whatever a disk does to the database, the segment must be as it was, or be refused, and a page
/// must be right or an error.
#[test]
fn no_damage_to_the_store_is_taken_for_a_segment() {
    let (directory, image) = with_checkpoint("rotten", 40);
    let path = directory.join("pages.redb");
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut bad, mut harmless) = (0, 0, 0);
    // The panics of a database that is damaged are expected.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let used = whole.len().min(300 << 10);
    for at in (0..used).step_by(701) {
        let mut bytes = whole.clone();
        bytes[at..(at + 48).min(whole.len())].iter_mut().for_each(|byte| *byte = !*byte);
        std::fs::write(&path, &bytes).unwrap();
        let pages = match Pages::open(&directory) {
            Ok(pages) => pages.unwrap(),
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        match pages.load(identity().salt) {
            Err(_) => refused += 1,
            Ok(stored) => {
                let stored = stored.unwrap();
                assert_eq!(stored.image, image, "{at}");
                let under = |lsn: &quorate_core::lsn::Lsn| *lsn <= image.base();
                for record in image.records().iter().filter(|record| under(&record.lsn)) {
                    match pages.read(record) {
                        Ok(bytes) => {
                            assert_eq!(bytes, payload_of(record.lsn.get(), PAGE_BYTES_MAX));
                            harmless += 1;
                        }
                        Err(_) => bad += 1,
                    }
                }
            }
        }
    }
    std::panic::set_hook(hook);
    assert!(refused > 5 && bad > 2 && harmless > 100, "{refused} {bad} {harmless}");
    std::fs::remove_dir_all(directory).unwrap();
}
