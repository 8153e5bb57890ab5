//! A large file through real processes that die meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use quorate_core::id::Position;
use quorate_node::client::Client;
use quorate_node::clock::{Clock, Moment};
use quorate_node::cluster::Cluster;
use sha2::{Digest, Sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// More than fits into any buffer, log segment or cache of ours; no multiple of a page.
const FILE_BYTES: u64 = 200_000_123;

/// Six logs, the file, and some room: without it the test can't run.
const ROOM_BYTES: u64 = 10 * FILE_BYTES;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes a file of bytes that don't repeat, and returns their digest.
fn generate(path: &Path) -> [u8; 32] {
    let mut file = io::BufWriter::new(File::create(path).unwrap());
    let (mut sum, mut left, mut state) = (Sha256::new(), FILE_BYTES, 1u64);
    while left > 0 {
        let mut block = [0u8; 4096];
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = left.min(4096);
        let bytes = block.get(..usize::try_from(length).unwrap()).unwrap();
        sum.update(bytes);
        file.write_all(bytes).unwrap();
        left -= length;
    }
    file.flush().unwrap();
    sum.finalize().into()
}

fn position(index: usize) -> Position {
    Position::new(index).unwrap()
}

/// What was acknowledged must come back byte for byte, however many logs, restarts and repairs a
/// file of this size meets on its way: two nodes are dead, a third one dies and comes back.
#[test]
fn a_large_file_outlives_two_dead_nodes_and_a_restarted_one() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let disk = rustix::fs::statvfs(&directory).unwrap();
    let room = disk.f_bavail.saturating_mul(disk.f_frsize);
    if room < ROOM_BYTES {
        // Not through a macro: the test runner would keep it to itself.
        writeln!(
            io::stderr(),
            "!!! SKIPPED a_large_file_outlives_two_dead_nodes_and_a_restarted_one: {room} bytes \
             are free, and it needs {ROOM_BYTES}"
        )
        .unwrap();
        return;
    }
    let path = directory.join("file");
    let digest = generate(&path);
    let home = directory.join("cluster");
    let mut cluster = Cluster::start_with_writer(PROGRAM.as_ref(), &home).unwrap();
    let mut load = Command::new(PROGRAM)
        .args(["load", "--dir"])
        .args([&home, &path])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = Client::connect(cluster.writer_address(), cluster.volume(), PATIENCE).unwrap();
    let mut wait_for = |share: u64| {
        let records = FILE_BYTES / 8192 * share / 100;
        let clock = Clock::start();
        // A new volume's LSNs begin a little above zero.
        let start = client.status().unwrap().recovery_point.lsn().get();
        while client.status().unwrap().vdl.lsn().get() < start + records {
            assert!(clock.now() < Moment::new(PATIENCE), "the load doesn't get on");
            thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(20);
    cluster.kill(position(0)).unwrap();
    cluster.kill(position(3)).unwrap();
    wait_for(60);
    assert_eq!(load.try_wait().unwrap(), None, "the load was over before anything had happened");
    // With three nodes gone it waits until this one is back.
    cluster.restart(position(4)).unwrap();
    assert!(load.wait().unwrap().success());

    let mut cat = Command::new(PROGRAM)
        .args(["cat", "--dir"])
        .arg(&home)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = cat.stdout.take().unwrap();
    let (mut sum, mut bytes, mut has_restarted) = (Sha256::new(), 0u64, false);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = out.read(&mut buffer).unwrap();
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        sum.update(read);
        bytes += read.len() as u64;
        if bytes >= FILE_BYTES / 2 && !has_restarted {
            has_restarted = true;
            cluster.restart(position(4)).unwrap();
        }
    }
    assert!(cat.wait().unwrap().success());
    assert!(has_restarted, "nothing was restarted in the middle");
    assert_eq!((bytes, <[u8; 32]>::from(sum.finalize())), (FILE_BYTES, digest));
    drop(cluster);
    fs::remove_dir_all(&directory).unwrap();
}
