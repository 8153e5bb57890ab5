//! The commands as a user gives them: a cluster of real processes, its deaths, and its refusals.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quorate_core::id::PageId;
use quorate_node::client::{Client, ClientError};
use quorate_node::clock::{Clock, Moment};
use quorate_node::cluster::{self, ClusterFile};
use quorate_node::config::file::WriterFile;
use quorate_node::volume::{Consistency, PageImage};
use quorate_node::wire::client::ClientRefusal;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("commands-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Waits until `is_so`, and fails when that takes too long.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !is_so() {
        assert!(clock.now() < Moment::new(PATIENCE), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `quorate up --json`, with what it says.
struct Up {
    process: Process,
    directory: PathBuf,
    events: mpsc::Receiver<Value>,
    ready: Value,
}

impl Up {
    fn start(directory: &Path) -> Self {
        let mut process = Process::start(&["up", "--json", "--dir", text(directory)]);
        let (sender, events) = mpsc::channel();
        let out = BufReader::new(process.0.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let ready = events.recv_timeout(PATIENCE).unwrap_or(Value::Null);
        if ready["event"] != "ready" {
            let _ = process.0.kill();
            let mut said = String::new();
            let err = process.0.stderr.take().unwrap();
            std::io::Read::read_to_string(&mut BufReader::new(err), &mut said).unwrap();
            panic!("the cluster isn't ready: {said}");
        }
        Self { process, directory: directory.to_path_buf(), events, ready }
    }

    fn file(&self) -> ClusterFile {
        ClusterFile::load(&self.directory).unwrap().unwrap()
    }

    fn client(&self) -> Client {
        let file = self.file();
        Client::connect(file.writer.address, file.volume(), PATIENCE).unwrap()
    }

    /// Returns what is said about the next process that ends by itself.
    fn lost(&self) -> Value {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    fn status(&self) -> Value {
        let said = succeed(&["status", "--json", "--dir", text(&self.directory)]);
        serde_json::from_slice(&said.stdout).unwrap()
    }

    fn down(mut self) {
        succeed(&["down", "--dir", text(&self.directory)]);
        assert!(self.process.0.wait().unwrap().success());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn succeed(arguments: &[&str]) -> Output {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} failed: {said}");
    output
}

/// Runs a command that must fail, and returns what it says.
fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed an answer");
    String::from_utf8(output.stderr).unwrap()
}

/// Sends a signal to a process that the test's own cluster runs.
fn signal(name: &str, pid: Option<u32>) {
    let status = Command::new("kill").args([name, &pid.unwrap().to_string()]).status().unwrap();
    assert!(status.success());
}

fn image(page: u64, bytes: &[u8]) -> PageImage {
    PageImage { page: PageId::new(page), bytes: bytes.to_vec() }
}

/// What the first minutes of a user promise: each command does what its help says, and what was
/// written is there after an end and a new start.
#[test]
fn what_is_written_is_there_after_an_end_and_a_new_start() {
    let directory = directory("minutes");
    let dir = text(&directory);
    let up = Up::start(&directory);
    assert_eq!(up.ready["is_new"], true);
    let status = up.status();
    assert_eq!(status["writer"]["up"], true);
    let nodes = status["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["up"] == true && node["zone"] != Value::Null));
    assert_eq!(nodes.len(), 6);

    let written = succeed(&["write", "7", "first", "--json", "--dir", dir]);
    let written: Value = serde_json::from_slice(&written.stdout).unwrap();
    let first = written["durable_at_lsn"].as_u64().unwrap();
    succeed(&["write", "7", "second", "--dir", dir]);
    let read = |options: &[&str]| {
        let arguments = [&["read", "7", "--dir", dir], options].concat();
        String::from_utf8(succeed(&arguments).stdout).unwrap()
    };
    assert_eq!(read(&["--strict"]), "second");
    assert_eq!(read(&["--min", &first.to_string()]), "second");
    assert_eq!(read(&["--at", &first.to_string()]), "first");
    for (lsn, part) in [(first - 1, "not a consistency point"), (first + 999, "above the VDL")] {
        let said = refusal(&["read", "7", "--at", &lsn.to_string(), "--dir", dir]);
        assert!(said.contains(part), "{said}");
    }

    let said = refusal(&["cat", "--dir", dir]);
    assert!(said.contains("no file is loaded"), "{said}");
    let file = directory.join("file");
    // No multiple of a page, and more than the writes that are under way at once.
    let bytes: Vec<u8> =
        (0..9_000_001u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&file, &bytes).unwrap();
    let loaded = succeed(&["load", text(&file), "--json", "--dir", dir]);
    let loaded: Value = serde_json::from_slice(&loaded.stdout).unwrap();
    assert_eq!(loaded["bytes"], 9_000_001);
    assert!(succeed(&["cat", "--dir", dir]).stdout == bytes, "other bytes came back");
    let volume = up.file().volume;
    up.down();

    let said = refusal(&["status", "--dir", dir]);
    assert!(said.contains("does not run") && said.contains(" up --dir"), "{said}");
    let said = succeed(&["down", "--dir", dir]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("no cluster runs"));
    let up = Up::start(&directory);
    assert_eq!((up.ready["is_new"].as_bool(), up.file().volume), (Some(false), volume));
    assert_eq!(read(&["--strict"]), "second");
    assert!(succeed(&["cat", "--dir", dir]).stdout == bytes, "other bytes came back");
    // The new writer can't tell where the former one's mini-transactions ended.
    let said = refusal(&["read", "7", "--at", &first.to_string(), "--dir", dir]);
    assert!(said.contains("is not available"), "{said}");
    up.down();
}

/// A shorter file in place of a longer one must come back without the longer one's end, and an
/// empty one empty.
#[test]
fn a_file_takes_the_place_of_the_one_before() {
    let directory = directory("place");
    let dir = text(&directory);
    let up = Up::start(&directory);
    let file = directory.join("file");
    for length in [20_000, 8_192, 0] {
        fs::write(&file, vec![7; length]).unwrap();
        succeed(&["load", text(&file), "--dir", dir]);
        assert!(succeed(&["cat", "--dir", dir]).stdout == vec![7; length], "{length}");
    }
    up.down();
}

/// What is acknowledged must outlive a node and a writer that are killed while writing, and both
/// must come back as `quorate up` says.
#[test]
fn commits_outlive_a_killed_node_and_a_killed_writer() {
    let up = Up::start(&directory("killed"));
    let mut client = up.client();
    let mut acknowledged = 0u64;
    let mut write = |client: &mut Client, count: u64| -> Result<u64, ClientError> {
        for _ in 0..count {
            client.write_now(&[image(acknowledged + 1, &(acknowledged + 1).to_le_bytes())])?;
            acknowledged += 1;
        }
        Ok(acknowledged)
    };
    write(&mut client, 20).unwrap();
    signal("-KILL", up.file().nodes[2].pid);
    write(&mut client, 50).unwrap();
    let lost = up.lost();
    assert_eq!((lost["event"].as_str(), lost["name"].as_str()), (Some("ended"), Some("b1")));
    let status = up.status();
    assert_eq!(status["nodes"][2]["up"], false);
    assert_eq!(status["nodes"][3]["up"], true);
    let again = |lost: &Value| {
        let words: Vec<&str> = lost["again"].as_str().unwrap().split(' ').skip(1).collect();
        Process::start(&words)
    };
    let _node = again(&lost);
    write(&mut client, 20).unwrap();
    wait_until("the node is level", || up.status()["nodes"][2]["behind"] == 0);

    signal("-KILL", up.file().writer.pid);
    let total = write(&mut client, u64::MAX).unwrap_err();
    assert!(matches!(total, ClientError::Connection(_)), "{total}");
    let lost = up.lost();
    assert_eq!(lost["name"], "writer");
    let said = refusal(&["read", "1", "--dir", text(&up.directory)]);
    assert!(said.contains("no writer answers") && said.contains("writer --config"), "{said}");
    let _writer = again(&lost);
    let file = up.file();
    let connect = || Client::connect(file.writer.address, file.volume(), PATIENCE).ok();
    let mut client = None;
    wait_until("the writer is back", || {
        client = connect();
        client.is_some()
    });
    let mut client = client.unwrap();
    assert_eq!(client.welcome().epoch.counter(), 2);
    for page in 1..=acknowledged {
        let read = client.read_now(PageId::new(page), Consistency::Strict).unwrap();
        assert_eq!(read.bytes, page.to_le_bytes());
    }
    up.down();
}

/// A writer that was stopped while another one took over must not acknowledge anything when it goes
/// on: it says by whom it was overtaken, to whoever asks, and ends.
#[test]
fn a_stopped_writer_that_goes_on_is_refused() {
    let up = Up::start(&directory("stopped"));
    let dir = text(&up.directory);
    succeed(&["write", "1", "before", "--dir", dir]);
    let file = up.file();
    signal("-STOP", file.writer.pid);

    let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let segments = vec![file.nodes.iter().map(|node| node.address).collect()];
    let config = up.directory.join("second.toml");
    let second = WriterFile::new(file.volume(), listen, segments);
    fs::write(&config, toml::to_string(&second).unwrap()).unwrap();
    let _second = Process::start(&["writer", "--leashed", "--config", text(&config)]);
    let mut client = None;
    wait_until("the second writer is open", || {
        client = Client::connect(listen, file.volume(), PATIENCE).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write_now(&[image(1, b"after")]).unwrap();

    let mut late = Process::start(&["write", "1", "late", "--dir", dir]);
    signal("-CONT", file.writer.pid);
    let status = late.0.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut late.0.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("overtaken by e2."), "{said}");
    let lost = up.lost();
    assert_eq!(
        (lost["name"].as_str(), lost["status"].as_str()),
        (Some("writer"), Some("exit status: 1"))
    );
    assert!(lost["words"].as_str().unwrap().contains("overtaken"), "{lost}");
    let read = client.read_now(PageId::new(1), Consistency::Strict).unwrap();
    assert_eq!(read.bytes, b"after");
    up.down();
}

/// Two of them on one directory would destroy it; one that was killed must not lock it for ever.
#[test]
fn a_directory_has_one_cluster_at_a_time() {
    let directory = directory("second");
    let dir = text(&directory);
    let mut up = Up::start(&directory);
    succeed(&["write", "1", "kept", "--dir", dir]);
    let said = refusal(&["up", "--dir", dir]);
    assert!(said.contains("runs in") && said.contains("quorate down"), "{said}");
    let ours = i32::try_from(up.process.0.id()).unwrap();
    assert_eq!(cluster::running(&directory).unwrap(), Some(ours));

    up.process.0.kill().unwrap();
    up.process.0.wait().unwrap();
    // The file still names processes; nobody may be sent a signal for that.
    assert!(up.file().nodes[0].pid.is_some());
    let said = succeed(&["down", "--dir", dir]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("no cluster runs"));
    let again = Up::start(&directory);
    assert_eq!(succeed(&["read", "1", "--dir", dir]).stdout, b"kept");
    again.down();
}

/// A port that somebody else took meanwhile must not keep a cluster from starting.
#[test]
fn a_node_whose_port_is_occupied_moves() {
    let directory = directory("occupied");
    let up = Up::start(&directory);
    succeed(&["write", "1", "kept", "--dir", text(&directory)]);
    let before = up.file();
    up.down();
    let _occupied = TcpListener::bind(before.nodes[1].address).unwrap();
    let up = Up::start(&directory);
    let after = up.file();
    assert_ne!(after.nodes[1].address, before.nodes[1].address);
    assert_eq!(after.nodes[0].address, before.nodes[0].address);
    assert_eq!(succeed(&["read", "1", "--dir", text(&directory)]).stdout, b"kept");
    up.down();
}

/// Logs of another volume must be refused, not taken over; and so must logs of nobody knows which.
#[test]
fn a_directory_of_another_volume_is_refused() {
    let directory = directory("other");
    let dir = text(&directory);
    let up = Up::start(&directory);
    let volume = up.file().volume;
    up.down();
    let path = directory.join(cluster::CLUSTER_FILE);
    let right = fs::read_to_string(&path).unwrap();
    fs::write(&path, right.replace(&volume, "00000000000000b2")).unwrap();
    let said = refusal(&["up", "--dir", dir]);
    assert!(said.contains(&format!("of volume {volume}")), "{said}");
    fs::remove_file(&path).unwrap();
    let said = refusal(&["up", "--dir", dir]);
    assert!(said.contains("no cluster.toml") && said.contains("restore"), "{said}");
    fs::write(&path, right).unwrap();
    Up::start(&directory).down();
}

/// A configuration that contradicts itself must be refused by its key, before anything is touched.
#[test]
fn a_contradictory_configuration_is_refused() {
    let directory = directory("contradiction");
    let up = Up::start(&directory);
    let file = up.file();
    up.down();
    for (name, key) in [("a1/node.toml", "`listen`"), ("writer/writer.toml", "`listen`")] {
        let right = fs::read_to_string(directory.join(name)).unwrap();
        let own = if name.starts_with("a1") { &file.nodes[0] } else { &file.writer };
        let line = |address: SocketAddr| format!("listen = \"{address}\"");
        let wrong = right.replace(&line(own.address), &line(file.nodes[1].address));
        assert_ne!(wrong, right);
        let path = directory.join("wrong.toml");
        fs::write(&path, wrong).unwrap();
        let kind = if name.starts_with("a1") { "node" } else { "writer" };
        let said = refusal(&[kind, "--config", text(&path)]);
        assert!(said.contains(key) && said.contains("wrong.toml"), "{said}");
    }
    let said = refusal(&["status", "--dir", text(&directory.join("nowhere"))]);
    assert!(said.contains("there is no cluster") && said.contains(" up --dir"), "{said}");
}

/// More requests than a writer takes of one client at once must all be answered, each once; and a
/// request that can't be carried out must fail alone.
#[test]
fn many_requests_under_way_are_all_answered() {
    let up = Up::start(&directory("many"));
    let mut client = up.client();
    let mut asked = std::collections::BTreeSet::new();
    for page in 0..600 {
        asked.insert(client.write(&[image(page, &[7; 100])]).unwrap());
        asked.insert(client.read(PageId::new(page), Consistency::Snapshot).unwrap());
    }
    while !asked.is_empty() {
        let (ticket, _) = client.receive().unwrap();
        assert!(asked.remove(&ticket), "{ticket} was answered twice");
    }
    // One above the most clients at a time, until one of them is gone.
    let file = up.file();
    let connect = || Client::connect(file.writer.address, file.volume(), PATIENCE);
    let mut others: Vec<Client> = (1..64).map(|_| connect().unwrap()).collect();
    connect().unwrap_err();
    others.pop();
    wait_until("somebody else is let in", || connect().is_ok());
    drop(others);

    let error = client.write_now(&[]).unwrap_err();
    assert!(matches!(error, ClientError::Refused(ClientRefusal::Empty)), "{error}");
    assert_eq!(client.status().unwrap().writes_under_way, 0);
    up.down();
}

/// A node that can't start must not keep five that can from serving, and a node whose log is gone
/// must not come back as a new one: it would vote without what it has acknowledged.
#[test]
fn nodes_without_their_logs_are_left_out_or_stop_the_start() {
    let directory = directory("forgetful");
    let up = Up::start(&directory);
    up.client().write_now(&[image(7, b"kept")]).unwrap();
    let before = up.file();
    assert!(before.nodes.iter().all(|node| node.has_started));
    up.down();
    for name in ["a1", "b2"] {
        fs::remove_dir_all(directory.join(name)).unwrap();
    }
    let up = Up::start(&directory);
    let absent = up.ready["absent"].as_array().unwrap().clone();
    let names: Vec<&str> = absent.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a1", "b2"]);
    assert!(absent[0]["why"].as_str().unwrap().contains("its log is gone"), "{absent:?}");
    let page = up.client().read_now(PageId::new(7), Consistency::Strict).unwrap();
    assert_eq!(page.bytes, b"kept");
    up.down();
    let addresses = ClusterFile::load(&directory).unwrap().unwrap();
    fs::remove_dir_all(directory.join("c1")).unwrap();
    let said = refusal(&["up", "--dir", text(&directory)]);
    assert!(said.contains("3 of 6 nodes start") && said.contains("c1: its log is gone"), "{said}");
    // A start that fails changes nothing that others have noted.
    let after = ClusterFile::load(&directory).unwrap().unwrap();
    assert_eq!(after.nodes, addresses.nodes);
}

/// A log that can't be served ends its node at the start, and no other one.
#[test]
fn a_node_that_ends_at_its_start_is_named() {
    let directory = directory("absent");
    let up = Up::start(&directory);
    up.down();
    fs::write(directory.join("b1/segment.000000.log"), b"something else").unwrap();
    let up = Up::start(&directory);
    assert_eq!(up.ready["absent"][0]["name"], "b1");
    up.client().write_now(&[image(1, b"written")]).unwrap();
    // Without `up`: any writer whose configuration is at hand.
    let config = directory.join("writer/writer.toml");
    let read = succeed(&["read", "1", "--strict", "--config", text(&config)]);
    assert_eq!(read.stdout, b"written");
    let status = succeed(&["status", "--json", "--config", text(&config)]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["writer"]["up"], true);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 6);
    up.down();
}

/// What a writer without a quorum takes into its memory is bounded by bytes: the rest waits where
/// it comes from.
#[test]
fn a_writer_without_a_quorum_takes_so_many_bytes() {
    let directory = directory("memory");
    let up = Up::start(&directory);
    let pids: Vec<Option<u32>> = up.file().nodes.iter().take(3).map(|node| node.pid).collect();
    pids.iter().for_each(|pid| signal("-STOP", *pid));
    let file = up.file();
    let patience = Duration::from_secs(3);
    let mut client = Client::connect(file.writer.address, file.volume(), patience).unwrap();
    let pages: Vec<PageImage> = (0..1024).map(|page| image(page, &[7; 8192])).collect();
    // The client gives up when the writer takes no more.
    let taken = (0..40).take_while(|_| client.write(&pages).is_ok()).count();
    let status = fs::read_to_string(format!("/proc/{}/status", file.writer.pid.unwrap()));
    pids.iter().for_each(|pid| signal("-CONT", *pid));
    assert!((8..24).contains(&taken), "{taken} writes of 8 MiB are in the writer's memory");
    if let Ok(status) = status {
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
        assert!(kilobytes < 400 << 10, "{resident}");
    }
    drop(client);
    up.client().write_now(&[image(1, b"after")]).unwrap();
    up.down();
}

/// Clients that ask nothing must not keep others out: the one that is idle longest gives way.
#[test]
fn an_idle_client_gives_way() {
    let directory = directory("idle");
    let up = Up::start(&directory);
    let file = up.file();
    let connect = || Client::connect(file.writer.address, file.volume(), PATIENCE);
    let mut idle: Vec<Client> = (0..64).map(|_| connect().unwrap()).collect();
    let mut late = None;
    wait_until("there is a place", || {
        late = connect().ok();
        late.is_some()
    });
    late.unwrap().write_now(&[image(1, b"late")]).unwrap();
    // Nobody else has lost its place.
    let kept = idle.iter_mut().skip(1).filter_map(|client| client.status().ok()).count();
    assert_eq!(kept, 63);
    up.down();
}

/// Nothing done is no success.
#[test]
fn counts_of_nothing_are_refused() {
    for arguments in [
        ["simulate", "--seeds", "0"],
        ["torture", "--cycles", "0"],
        ["bench", "--in-flight", "0"],
        ["bench", "--turns", "0"],
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
