//! Nodes that use the files of their logs again.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use quorate_core::id::PageId;
use quorate_node::cluster::Cluster;
use quorate_node::volume::{Consistency, PageImage, Volume, VolumeConfig, VolumeError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Few, so that they are overwritten again and again.
const PAGES: u64 = 500;

/// How many pages one write has.
const BATCH: u64 = 100;

/// So many batches that each log goes through its growing files, 63 MiB, and six of the longest.
const BATCHES: u64 = 580;

fn bytes(batch: u64, page: u64) -> Vec<u8> {
    let seed = (batch * PAGES + page).to_le_bytes();
    seed.iter().cycle().copied().take(8192).collect()
}

fn open(cluster: &Cluster) -> Result<Volume, VolumeError> {
    let config = VolumeConfig::new(cluster.volume(), vec![cluster.addresses().to_vec()], PATIENCE);
    Volume::open(VolumeConfig { backtrack_window: 2_000, ..config })
}

/// Returns the numbers of a log's files.
fn files(directory: &Path) -> Vec<u32> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<u32> = names
        .filter_map(|name| {
            name.to_str()?.strip_prefix("segment.")?.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}

/// Pages that are overwritten for long must not fill the disk, and what is acknowledged must come
/// back from files that were used before, though all nodes are killed.
#[test]
fn overwritten_pages_come_back_from_recycled_files() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recycled");
    let _ = fs::remove_dir_all(&directory);
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory).unwrap();
    let volume = open(&cluster).unwrap();
    for batch in 0..BATCHES {
        let first = batch * BATCH % PAGES;
        let pages = (first..first + BATCH)
            .map(|page| PageImage { page: PageId::new(page), bytes: bytes(batch, page) });
        volume.write(pages.collect()).unwrap().wait(PATIENCE).unwrap();
    }
    drop(volume);
    cluster.positions().for_each(|position| cluster.kill(position).unwrap());
    for position in cluster.positions() {
        let files = files(&cluster.node_directory(position));
        // The first file, and few others, none of them of the log's beginning.
        assert!(
            files.first() == Some(&0) && files.get(1).is_some_and(|file| *file > 5),
            "{files:?}"
        );
        assert!(files.len() < 11, "{files:?}");
    }
    for position in cluster.positions() {
        let status = cluster.restart(position).unwrap();
        assert!(!status.impaired, "{position}");
    }
    let volume = open(&cluster).unwrap();
    for page in 0..PAGES {
        let last = (0..BATCHES).rev().find(|batch| {
            let first = batch * BATCH % PAGES;
            (first..first + BATCH).contains(&page)
        });
        let read = volume.read(PageId::new(page), Consistency::Strict).unwrap();
        assert!(read.wait(PATIENCE).unwrap().bytes == bytes(last.unwrap(), page), "page {page}");
    }
    drop(volume);
    let ended = cluster.end(PATIENCE).unwrap();
    assert!(ended.is_empty(), "{ended:?}");
    fs::remove_dir_all(directory).unwrap();
}
