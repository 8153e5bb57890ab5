//! Real processes of the real program: six nodes, their disks, their deaths, and their refusals.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use quorate_core::id::{PageId, Position};
use quorate_node::clock::{Clock, Moment};
use quorate_node::cluster::Cluster;
use quorate_node::config::file::NodeFile;
use quorate_node::demo::{self, Colour, Narrator};
use quorate_node::volume::{Consistency, PageImage, Volume, VolumeConfig, VolumeError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn position(index: usize) -> Position {
    Position::new(index).unwrap()
}

fn open(cluster: &Cluster) -> Result<Volume, VolumeError> {
    let segments = vec![cluster.addresses().to_vec()];
    Volume::open(VolumeConfig::new(cluster.volume(), segments, PATIENCE))
}

fn image(page: u64, bytes: &[u8]) -> PageImage {
    PageImage { page: PageId::new(page), bytes: bytes.to_vec() }
}

/// Waits until `is_so`, and fails when that takes too long.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !is_so() {
        assert!(clock.now() < Moment::new(PATIENCE), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever closes a volume must not wait for a quorum that is gone.
#[test]
fn a_volume_without_a_quorum_is_closed_at_once() {
    let mut cluster = Cluster::start(Path::new(PROGRAM), &directory("closed")).unwrap();
    let volume = open(&cluster).unwrap();
    for index in 0..4 {
        cluster.kill(position(index)).unwrap();
    }
    // More than are under way at a time: the others wait for room that never comes.
    let reads: Vec<_> = (0..1_030)
        .map(|page| volume.read(PageId::new(page), Consistency::Strict).unwrap())
        .collect();
    let (done, closed) = std::sync::mpsc::channel();
    thread::spawn(move || {
        drop(volume);
        done.send(()).unwrap();
    });
    closed.recv_timeout(PATIENCE).unwrap();
    assert!(reads.iter().all(|read| read.wait(PATIENCE).is_err()));
}

/// The whole promise in one story: what is acknowledged outlives three killed nodes, comes back to
/// them, and stays out of an overtaken writer's reach.
#[test]
fn a_file_outlives_killed_nodes_and_an_overtaken_writer() {
    let mut told = Vec::new();
    let options = demo::Options {
        executable: PROGRAM.into(),
        directory: Some(directory("story")),
        file: None,
        size_mb: 4,
        mutant: None,
    };
    let measured = demo::run(&options, &mut Narrator::new(&mut told, Colour::Plain));
    let told = String::from_utf8(told).unwrap();
    let measured = measured.unwrap_or_else(|error| panic!("{error}\n{told}"));
    assert_eq!(measured.file_bytes, 4 << 20);
    assert!(measured.bytes_at_kill < 4 << 20 && measured.refused > 0, "{measured:?}");
    assert!(measured.pages_verified >= 1_000 && measured.takeover_ms > 0.0, "{measured:?}");
    for part in ["SIGKILL", "Writes pause", "are level after", "is refused", "Nothing is lost"] {
        assert!(told.contains(part), "nothing about {part:?} in:\n{told}");
    }
    assert!(!told.contains('\x1b'), "colours for a reader that is no terminal");
}

/// What is durable on six disks must be there after all six nodes have been killed.
#[test]
fn a_commit_outlives_all_nodes() {
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory("all")).unwrap();
    let volume = open(&cluster).unwrap();
    let pages = vec![image(3, b"three"), image(4, b"four")];
    let committed = volume.write(pages).unwrap().wait(PATIENCE).unwrap();
    cluster.positions().for_each(|position| cluster.kill(position).unwrap());
    // A read waits until somebody can answer it.
    let read = volume.read(PageId::new(3), Consistency::Snapshot).unwrap();
    for position in cluster.positions() {
        cluster.restart(position).unwrap();
    }
    assert_eq!(read.wait(PATIENCE).unwrap().bytes, b"three");
    drop(volume);

    let volume = open(&cluster).unwrap();
    assert_eq!(volume.opened().recovery_point.lsn(), committed.cpl);
    let read = volume.read(PageId::new(4), Consistency::Strict).unwrap().wait(PATIENCE).unwrap();
    assert_eq!((read.lsn, read.bytes.as_slice()), (Some(committed.cpl), b"four".as_slice()));
    let never = volume.read(PageId::new(5), Consistency::Strict).unwrap().wait(PATIENCE).unwrap();
    assert_eq!((never.lsn, never.bytes.as_slice()), (None, b"".as_slice()));
}

/// A start that moves nodes which somebody else runs could leave a volume that nobody opens: all
/// would look for them where they never were.
#[test]
fn a_node_that_another_process_runs_stays_where_it_is() {
    let directory = directory("elsewhere");
    let program = Path::new(PROGRAM);
    let mut cluster = Cluster::start(program, &directory).unwrap();
    let last = position(5);
    cluster.kill(last).unwrap();
    let config = directory.join("c2/node.toml");
    let mut by_hand = Command::new(PROGRAM)
        .args(["node", "--config", config.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the node answers", || cluster.status(last).is_ok());
    let addresses = cluster.addresses().to_vec();
    assert!(cluster.end(Duration::from_secs(10)).unwrap().is_empty());

    let cluster = Cluster::start_with_quorum(program, &directory).unwrap();
    assert_eq!(cluster.elsewhere().collect::<Vec<_>>(), ["c2"]);
    assert!(cluster.absent().is_empty());
    assert_eq!(cluster.addresses(), addresses);
    assert!(cluster.end(Duration::from_secs(10)).unwrap().is_empty());
    by_hand.kill().unwrap();
    by_hand.wait().unwrap();

    let cluster = Cluster::start_with_writer(program, &directory).unwrap();
    assert_eq!(cluster.addresses(), addresses);
    assert_eq!(cluster.elsewhere().count(), 0);
    drop(cluster);
    fs::remove_dir_all(&directory).unwrap();
}

/// Of writers that open a volume at the same time, one has it in the end, and all others know.
#[test]
fn one_of_many_writers_has_the_volume() {
    let cluster = Cluster::start(PROGRAM.as_ref(), &directory("writers")).unwrap();
    let volumes: Vec<Volume> = thread::scope(|scope| {
        let opening: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&cluster))).collect();
        // A writer may have been overtaken in the moment in which it opened.
        opening.into_iter().filter_map(|opening| opening.join().unwrap().ok()).collect()
    });
    let outcomes: Vec<_> = volumes
        .iter()
        .map(|volume| volume.write(vec![image(1, b"mine")]).unwrap().wait(PATIENCE))
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let newest = volumes.iter().map(|volume| volume.opened().epoch).max().unwrap();
    for (volume, outcome) in volumes.iter().zip(&outcomes) {
        match outcome {
            Ok(_) => assert_eq!(volume.opened().epoch, newest),
            Err(error) => assert!(matches!(error, VolumeError::Overtaken { .. }), "{error}"),
        }
    }
}

/// With three nodes down nothing may be acknowledged; with two it must be.
#[test]
fn three_nodes_do_not_acknowledge_and_four_do() {
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory("quorum")).unwrap();
    let volume = open(&cluster).unwrap();
    for index in [0, 1, 4] {
        cluster.kill(position(index)).unwrap();
    }
    let commit = volume.write(vec![image(1, b"waiting")]).unwrap();
    assert_eq!(commit.wait(Duration::from_millis(500)), Err(VolumeError::TimedOut));
    cluster.restart(position(4)).unwrap();
    commit.wait(PATIENCE).unwrap();
}

/// What a caller asks for that can never be done must be said at once.
#[test]
fn impossible_writes_are_refused() {
    let cluster = Cluster::start(PROGRAM.as_ref(), &directory("impossible")).unwrap();
    let volume = open(&cluster).unwrap();
    let outcome = |pages| volume.write(pages).unwrap().wait(PATIENCE).map(|_| ());
    assert_eq!(outcome(Vec::new()), Err(VolumeError::Empty));
    assert_eq!(outcome(vec![image(1, &[0; 8193])]), Err(VolumeError::Oversized));
    let many: Vec<PageImage> = (0..16_385).map(|page| image(page, b"")).collect();
    assert_eq!(outcome(many), Err(VolumeError::Oversized));
    // More records than a batch, and still one mini-transaction.
    let many: Vec<PageImage> = (0..600).map(|page| image(page, b"many")).collect();
    assert_eq!(outcome(many), Ok(()));
}

/// Nobody may be left with node processes that no one ends.
#[test]
fn a_leashed_node_ends_with_whoever_started_it() {
    let mut node = start(&directory("leash"), "a1", free_port());
    assert_eq!(node.try_wait().unwrap(), None);
    drop(node.stdin.take());
    let mut ended = None;
    wait_until("the node has ended", || {
        ended = node.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
}

/// A node on another volume's directory must not touch it.
#[test]
fn a_node_refuses_another_volumes_directory() {
    let directory = directory("other-volume");
    create_log(&directory);
    let before = fs::read(log_of(&directory)).unwrap();
    let said = refusal(&directory, "b2", free_port());
    assert!(said.contains("belongs to segment A#0 of g0 of volume 00000000000000a1"), "{said}");
    assert!(said.contains("the node's own `directory`"), "{said}");
    assert_eq!(fs::read(log_of(&directory)).unwrap(), before);
}

#[test]
fn a_node_refuses_an_occupied_port() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let said = refusal(&directory("occupied"), "a1", listener.local_addr().unwrap());
    assert!(said.contains("cannot listen at"), "{said}");
    assert!(said.contains("`listen`"), "{said}");
}

/// Two processes on one log would destroy it.
#[test]
fn a_node_refuses_a_directory_in_use() {
    let directory = directory("in-use");
    let node = start(&directory, "a1", free_port());
    wait_until("the log is there", || log_of(&directory).exists());
    let said = refusal(&directory, "a1", free_port());
    assert!(said.contains("another process has it open"), "{said}");
    end(node);
}

#[test]
fn a_node_refuses_a_damaged_header() {
    let directory = directory("header");
    create_log(&directory);
    flip(&log_of(&directory), 30);
    let said = refusal(&directory, "a1", free_port());
    assert!(said.contains("the header of the log is damaged"), "{said}");
    assert!(said.contains("quorate repair"), "{said}");
}

/// A copy that rotted must neither vote with what is left of it nor be lost: it comes back without
/// a vote, its peers repair it, and then a recovery counts on it again.
#[test]
fn a_damaged_node_is_repaired_by_its_peers_and_votes_again() {
    let directory = directory("damaged");
    let mut cluster = Cluster::start(PROGRAM.as_ref(), &directory).unwrap();
    let volume = open(&cluster).unwrap();
    let page = |page: u8| image(page.into(), &[page + 1; 4096]);
    // Level in between: so that the node has frames behind the one to be damaged, even if it was
    // slow and took the first pages in one.
    for number in 0..4 {
        let cpl = volume.write(vec![page(number)]).unwrap().wait(PATIENCE).unwrap().cpl;
        cluster.wait_level(cpl, PATIENCE).unwrap();
    }
    drop(volume);
    cluster.positions().for_each(|position| cluster.kill(position).unwrap());
    let node = position(0);
    let log = log_of(&cluster.node_directory(node));
    let bytes = fs::read(&log).unwrap();
    let at = bytes.windows(64).position(|window| window.iter().all(|byte| *byte == 2)).unwrap();
    flip(&log, at as u64);
    let damaged = fs::read(&log).unwrap();

    // Alone it knows what it owes, and has nobody to get it from.
    let status = cluster.restart(node).unwrap();
    assert!(status.impaired && status.records < 4, "{status:?}");
    let aside = cluster.node_directory(node).join("damaged-1.segment.000000.log");
    assert_eq!(fs::read(&aside).unwrap(), damaged);
    let words = said_under(&directory);
    let parts = ["was damaged at byte", "damaged-1.*", "no vote until its peers have repaired it"];
    for part in parts {
        assert!(words.contains(part), "nothing about {part:?} in:\n{words}");
    }
    // A crash makes it no voter.
    cluster.kill(node).unwrap();
    assert!(cluster.restart(node).unwrap().impaired);

    for index in [1, 2] {
        cluster.restart(position(index)).unwrap();
    }
    wait_until("the node is repaired", || !cluster.status(node).unwrap().impaired);
    wait_until("it says so", || said_under(&directory).contains("is repaired"));

    // Three segments answer a recovery, and one of them is the one that was damaged.
    let segments = vec![cluster.addresses().to_vec()];
    let config = VolumeConfig::new(cluster.volume(), segments, PATIENCE);
    let before = cluster.status(node).unwrap().history;
    let opening = thread::spawn(move || Volume::open(config));
    wait_until("it has the new history", || cluster.status(node).unwrap().history > before);
    // A fourth one completes it: four hold what is recovered.
    cluster.restart(position(3)).unwrap();
    let volume = opening.join().unwrap().unwrap();
    for number in 0..4 {
        let read = volume.read(PageId::new(number.into()), Consistency::Strict).unwrap();
        assert_eq!(read.wait(PATIENCE).unwrap().bytes, page(number).bytes);
    }
    volume.write(vec![page(9)]).unwrap().wait(PATIENCE).unwrap();
}

/// Returns what the first node of the cluster in `directory` has said since its last start.
fn said_under(directory: &Path) -> String {
    fs::read_to_string(directory.join("a1").join("messages.txt")).unwrap()
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("segment.000000.log")
}

/// Starts a node that is alone in its group.
fn start(directory: &Path, volume: &str, listen: SocketAddr) -> Child {
    let others = (1..6).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let file = NodeFile {
        volume: volume.into(),
        groups: 1,
        group: 0,
        position: 0,
        incarnation: 0,
        directory: ".".into(),
        listen,
        peers: std::iter::once(listen).chain(others).collect(),
        members: Vec::new(),
    };
    fs::create_dir_all(directory).unwrap();
    let config = directory.join(format!("node-{}.toml", listen.port()));
    fs::write(&config, toml::to_string(&file).unwrap()).unwrap();
    Command::new(PROGRAM)
        .args(["node", "--leashed", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(mut node: Child) {
    node.kill().unwrap();
    node.wait().unwrap();
}

/// Makes the log of a segment of volume a1.
fn create_log(directory: &Path) {
    let node = start(directory, "a1", free_port());
    wait_until("the log is there", || log_of(directory).exists());
    end(node);
}

/// Starts a node that must refuse to start, and returns what it says.
fn refusal(directory: &Path, volume: &str, listen: SocketAddr) -> String {
    let mut node = start(directory, volume, listen);
    let mut status = None;
    wait_until("the node refuses", || {
        status = node.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
    let mut said = String::new();
    node.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}
