//! What is wrong must be said, with its cause and its remedy, end what it has to end and nothing
//! else, and lose nothing: frames, logs, configurations, disks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use quorate_core::id::{PageId, Position};
use quorate_node::clock::{Clock, Moment};
use quorate_node::cluster::Cluster;
use quorate_node::format;
use quorate_node::volume::{Consistency, PageImage, Volume, VolumeConfig};
use quorate_node::wire::{self, Decoded, Envelope, HelloRefusal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{name}"));
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn first() -> Position {
    Position::new(0).unwrap()
}

fn open(cluster: &Cluster) -> Volume {
    let segments = vec![cluster.addresses().to_vec()];
    let config = VolumeConfig::new(cluster.volume(), segments, PATIENCE);
    Volume::open(config).unwrap()
}

fn write(volume: &Volume, page: u64, bytes: &[u8]) {
    let image = PageImage { page: PageId::new(page), bytes: bytes.to_vec() };
    volume.write(vec![image]).unwrap().wait(PATIENCE).unwrap();
}

fn read(volume: &Volume, page: u64) -> Vec<u8> {
    let asked = volume.read(PageId::new(page), Consistency::Strict).unwrap();
    asked.wait(PATIENCE).unwrap().bytes
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !is_so() {
        assert!(clock.now() < Moment::new(PATIENCE), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command that must fail by itself, and returns what it says.
fn refusal(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Returns the CRC-32C of `bytes`, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(sum & 1));
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Sends bytes to whoever listens at `address`, and returns what comes until the connection ends.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other end may hang up before it has everything.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        said.extend(&buffer[..count]);
    }
    said
}

/// Frames that are none must end their connection at once and nothing else: not the node or the
/// writer process that gets them, nor what others have under way.
#[test]
fn bad_frames_end_their_connection_alone() {
    let directory = directory("frames");
    let cluster = Cluster::start_with_writer(PROGRAM.as_ref(), &directory).unwrap();
    let file = quorate_node::cluster::ClusterFile::load(&directory).unwrap().unwrap();
    let mut client =
        quorate_node::client::Client::connect(file.writer.address, cluster.volume(), PATIENCE)
            .unwrap();
    let image = PageImage { page: PageId::new(1), bytes: b"kept".to_vec() };
    client.write_now(&[image]).unwrap();
    let whole = wire::encode(&Envelope::StatusRequest, &[]).unwrap();
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    for address in [cluster.addresses()[0], file.writer.address] {
        // Another protocol, a flipped bit, lengths above all bounds, and a message before a hello.
        let oversized = u32::MAX.to_le_bytes();
        let cases = [
            b"GET / HTTP/1.1\r\nHost: quorate\r\n\r\n".to_vec(),
            changed(16, &[whole[16] ^ 1]),
            changed(8, &oversized),
            changed(12, &oversized),
            whole.clone(),
        ];
        for bytes in cases {
            assert_eq!(send(address, &bytes), b"", "{bytes:?}");
        }
        // Whoever speaks another version is told which one is spoken here: every frame says so.
        let said = send(address, &changed(4, &[9, 0]));
        let Ok(Decoded::Frame { frame, .. }) = wire::decode(&said) else { panic!("{said:?}") };
        assert_eq!(frame.envelope, Envelope::Refused(HelloRefusal::OtherVersion));
        // Half a frame, and then nothing: the others don't wait for the rest.
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(&whole[..whole.len() - 1]).unwrap();
        let version = client.read_now(PageId::new(1), Consistency::Strict).unwrap();
        assert_eq!(version.bytes, b"kept");
    }
    assert!(cluster.positions().all(|position| cluster.status(position).is_ok()));
}

/// A log of another version and a file that is no log must be refused and stay as they are; the
/// others go on meanwhile. One that was cut short behind what was acknowledged is set aside, and
/// its segment has no vote until the others have repaired it.
#[test]
fn logs_that_are_not_what_they_were_are_refused() {
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory("logs")).unwrap();
    let volume = open(&cluster);
    let log = cluster.node_directory(first()).join("segment.000000.log");
    let notes = |bytes: &[u8]| bytes.len() - usize::try_from(format::SLOTS_BYTES).unwrap();
    let noted = || {
        let bytes = fs::read(&log).unwrap();
        bytes[notes(&bytes)..].to_vec()
    };
    write(&volume, 1, &[7; 4096]);
    cluster.wait_level(volume.vdl(), PATIENCE).unwrap();
    let before = noted();
    write(&volume, 2, &[8; 4096]);
    cluster.wait_level(volume.vdl(), PATIENCE).unwrap();
    // A segment that gets idle says far from its frames what is durable.
    wait_until("it is said what is durable", || noted() != before);
    cluster.kill(first()).unwrap();
    let right = fs::read(&log).unwrap();
    let mut other_version = right.clone();
    other_version[8..12].copy_from_slice(&99u32.to_le_bytes());
    let sum = crc32c(&other_version[..12]);
    other_version[12..16].copy_from_slice(&sum.to_le_bytes());
    // Behind the header, in front of the first page.
    let page = right.windows(64).position(|window| window.iter().all(|byte| *byte == 7)).unwrap();
    let mut cut = right.clone();
    // The notes at the end of the file are what tells this from a write that a crash has torn.
    cut[page..notes(&right)].fill(0);
    let cases: [(&str, &[u8], &str, &str); 3] = [
        ("of another version", &other_version, "version 99", "Start the version of this program"),
        ("cut to nothing", &[], "log", "the other copies"),
        ("text", b"This is a text and not the log of any segment.\n", "log", "the other copies"),
    ];
    for (name, bytes, cause, remedy) in cases {
        fs::write(&log, bytes).unwrap();
        let said = cluster.restart(first()).unwrap_err().to_string();
        assert!(said.contains(cause) && said.contains(remedy), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert_eq!(fs::read(&log).unwrap(), bytes, "{name}");
        write(&volume, 3, name.as_bytes());
    }
    fs::write(&log, &cut).unwrap();
    cluster.restart(first()).unwrap();
    let aside = cluster.node_directory(first()).join("damaged-1.segment.000000.log");
    assert_eq!(fs::read(aside).unwrap(), cut);
    wait_until("it is repaired", || !cluster.status(first()).unwrap().impaired);
    assert_eq!(read(&volume, 1), [7; 4096]);
    assert_eq!(read(&volume, 3), b"text");
}

/// Configurations that are missing or no configurations must be refused by their names.
#[test]
fn configurations_that_are_none_are_refused() {
    let directory = directory("configurations");
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_string();
    for kind in ["node", "writer"] {
        let missing = path("missing.toml");
        let said = refusal(&[kind, "--config", &missing]);
        assert!(said.contains(&missing) && said.contains("No such file"), "{said}");
        let wrong = path("wrong.toml");
        fs::write(&wrong, "volume = [unclosed").unwrap();
        let said = refusal(&[kind, "--config", &wrong]);
        assert!(said.contains("wrong.toml") && said.contains("line 1"), "{said}");
        fs::write(&wrong, "").unwrap();
        let said = refusal(&[kind, "--config", &wrong]);
        assert!(said.contains("wrong.toml") && said.contains("volume"), "{said}");
        let said = refusal(&[kind, "--config", directory.to_str().unwrap()]);
        assert!(said.contains("directory"), "{said}");
    }
}

/// Commands for a cluster that isn't there must say so and how to start one.
#[test]
fn commands_without_a_cluster_say_how_to_start_one() {
    let nowhere = directory("nowhere");
    let dir = nowhere.to_str().unwrap();
    for command in [&["read", "1"][..], &["write", "1", "text"], &["status"], &["cat"]] {
        let said = refusal(&[command, &["--dir", dir]].concat());
        assert!(said.contains("there is no cluster") && said.contains(" up --dir"), "{said}");
        assert!(!nowhere.exists(), "{command:?} makes a directory");
    }
    let output = Command::new(PROGRAM).args(["down", "--dir", dir]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("nothing to end"), "{said}");
}

/// A file system of a few mebibytes; unmounted with this value.
struct Small(PathBuf);

impl Small {
    /// `None` where this user may mount nothing.
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then(|| Self(at.to_path_buf()))
    }

    fn resize(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A node whose disk is full must say so and stop, the volume must go on, and nothing that was
/// acknowledged may be lost; with more space the node must come back and catch up.
#[test]
fn a_full_disk_stops_one_node_and_loses_nothing() {
    let directory = directory("full");
    let Some(disk) = Small::mount(&directory.join("a1"), 6 << 20) else {
        eprintln!("SKIPPED: this user can mount no file system, so that no disk gets full");
        return;
    };
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory).unwrap();
    let volume = open(&cluster);
    let mut pages = 0;
    let mut ended = Vec::new();
    wait_until("the disk is full", || {
        for _ in 0..64 {
            write(&volume, pages % 1000, &pages.to_le_bytes().repeat(1000));
            pages += 1;
        }
        ended = cluster.take_ended().unwrap();
        !ended.is_empty()
    });
    let [node] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!((node.name.as_str(), node.status.code()), ("a1", Some(1)));
    assert!(node.words.contains("The disk is full") && node.words.contains("free some space"));
    assert!(node.words.contains("cannot grow"), "a warning came ahead: {}", node.words);
    // Too small a disk still: the node says so again and changes nothing.
    let said = cluster.restart(first()).map(|_| ()).err().map(|error| error.to_string());
    if let Some(said) = said {
        assert!(said.contains("free some space"), "{said}");
    }
    disk.resize(512 << 20);
    let status = cluster.restart(first()).unwrap();
    assert!(status.scl.lsn().get() > 0, "it has kept what it acknowledged");
    write(&volume, 5000, b"after");
    cluster.wait_level(volume.vdl(), PATIENCE).unwrap();
    for page in pages.saturating_sub(1000)..pages {
        assert_eq!(read(&volume, page % 1000), page.to_le_bytes().repeat(1000));
    }
    drop((volume, cluster));
}

/// Nothing may be written over a file that happens to have a directory's name.
#[test]
fn a_file_in_place_of_a_directory_is_refused() {
    let directory = directory("file");
    fs::create_dir_all(directory.parent().unwrap()).unwrap();
    File::create(&directory).unwrap().write_all(b"kept").unwrap();
    let said = refusal(&["up", "--dir", directory.to_str().unwrap()]);
    assert!(said.contains("directory"), "{said}");
    assert_eq!(fs::read(&directory).unwrap(), b"kept");
    fs::remove_file(&directory).unwrap();
}
