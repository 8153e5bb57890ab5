//! A lost disk is replaced in a cluster of real processes that goes on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_core::id::{Incarnation, PgId, Position, SegmentId};
use quorate_core::membership::{Step, StepRefusal};
use quorate_node::addresses::Place;
use quorate_node::bench::repair::{Fault, Options, run};
use quorate_node::client::Client;
use quorate_node::cluster::{Answered, Cluster, ClusterError};
use quorate_node::wire::members::{MemberRole, Stepped, role};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("repair-{name}"));
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn position(index: usize) -> Position {
    Position::new(index).unwrap()
}

/// A replacement would lose a write or fail one: with nothing else dying, and with the writer, the
/// newcomer or another member killed in its middle.
#[test]
fn a_lost_disk_is_replaced_under_load_whoever_else_dies() {
    let options = Options {
        executable: PROGRAM.into(),
        directory: directory("load"),
        cycles: 4,
        megabytes: 8,
        is_quiet: false,
        seed: 1,
    };
    let rows = run(&options, |_| Ok(())).unwrap();
    let faults: Vec<Fault> = rows.iter().map(|row| row.fault).collect();
    assert_eq!(faults, [Fault::None, Fault::Writer, Fault::Newcomer, Fault::Member]);
    for row in &rows {
        assert!(row.commits > 0 && row.verified > 0, "{row:?}");
        assert!(row.log_bytes > 8 << 20, "{row:?}");
        assert!(row.in_doubt == 0 || row.fault == Fault::Writer, "{row:?}");
    }
    fs::remove_dir_all(&options.directory).unwrap();
}

/// A step could be taken that no protocol allows, or one be lost: with a change half done, a writer
/// that takes over has to find it, and whoever drives it goes on or takes it back.
#[test]
fn a_change_survives_its_writer_and_can_be_taken_back() {
    let directory = directory("revert");
    let mut cluster = Cluster::start_with_writer(Path::new(PROGRAM), &directory).unwrap();
    let group = PgId::new(0);
    let new = SegmentId { position: position(6), incarnation: Incarnation::new(1) };
    let replace = Step::Replace { old: position(5), new };
    let connect = |cluster: &Cluster| {
        Client::connect(cluster.writer_address(), cluster.volume(), PATIENCE).unwrap()
    };
    let mut client = connect(&cluster);
    // Nobody joins who isn't there.
    let nowhere = Place {
        incarnation: new.incarnation,
        revision: 0,
        address: "127.0.0.1:9".parse().unwrap(),
    };
    assert_eq!(client.step(group, replace, Some(nowhere)).unwrap(), Stepped::Unreachable);
    let place = cluster.provide(position(5), new).unwrap();
    let place = Place { revision: 1, ..place };
    let patient = |client: &mut Client, step: Step, place: Option<Place>| loop {
        match client.step(group, step, place).unwrap() {
            Stepped::Unreachable | Stepped::Refused(StepRefusal::Unsettled) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Taken) => return other,
        }
    };
    assert_eq!(patient(&mut client, replace, Some(place)), Stepped::Taken);
    assert_eq!(client.step(group, replace, Some(place)).unwrap(), Stepped::Taken, "again");

    cluster.restart_writer().unwrap();
    let mut client = connect(&cluster);
    let members = client.members().unwrap().groups.remove(0);
    let joining = members.members.iter().find(|member| member.position == new.position).unwrap();
    assert_eq!(joining.address, Some(place.address), "the nodes have told where it is");
    assert_eq!(role(&members.membership, new.position), MemberRole::Joining);
    let half = quorate_core::formula::Half::Older;
    assert_eq!(patient(&mut client, Step::Revert(half), None), Stepped::Taken);
    let again = patient(&mut client, Step::Revert(half), None);
    assert_eq!(again, Stepped::Refused(StepRefusal::Nothing));
    let members = client.members().unwrap().groups.remove(0);
    assert_eq!(role(&members.membership, new.position), MemberRole::Removed);

    // A node whose log is gone doesn't come back as if nothing had happened.
    drop(client);
    cluster.kill(position(2)).unwrap();
    fs::remove_dir_all(cluster.node_directory(position(2))).unwrap();
    let lost = cluster.restart(position(2)).map(|_| ());
    assert!(matches!(lost, Err(ClusterError::DiskLost { .. })), "{lost:?}");
    drop(cluster);
    let cluster = Cluster::start_with_writer(Path::new(PROGRAM), &directory).unwrap();
    assert_eq!(cluster.lost().collect::<Vec<_>>(), ["b1"]);
    drop(cluster);
    fs::remove_dir_all(&directory).unwrap();
}

/// A repair could act on what is long past, or give a name to two disks, of which the second is
/// empty and counts for what the first one had.
#[test]
fn names_are_given_once() {
    let directory = directory("names");
    let mut cluster = Cluster::start_with_writer(Path::new(PROGRAM), &directory).unwrap();
    let new = SegmentId { position: position(6), incarnation: Incarnation::new(1) };
    let place = cluster.provide(position(5), new).unwrap();
    assert_eq!(cluster.provide(position(5), new).unwrap(), place, "it is there");
    let id = |index| SegmentId { position: position(index), incarnation: Incarnation::new(0) };
    let first: Vec<SegmentId> = (0..6).map(id).collect();
    assert_eq!(cluster.retire(&first).unwrap(), ["c3"]);
    for _ in 0..2 {
        let again = cluster.provide(position(5), new).map(|_| ());
        assert!(matches!(again, Err(ClusterError::DiskLost { .. })), "{again:?}");
        drop(cluster);
        cluster = Cluster::start_with_writer(Path::new(PROGRAM), &directory).unwrap();
    }
    let next = SegmentId { incarnation: Incarnation::new(2), ..new };
    cluster.provide(position(5), next).unwrap();

    // Whatever somebody leaves there, the cluster goes on.
    fs::write(directory.join("request.toml"), "no request").unwrap();
    assert!(matches!(cluster.answer().unwrap(), Answered::Unreadable(_)));
    cluster.check_alive().unwrap();
    drop(cluster);
    fs::remove_dir_all(&directory).unwrap();
}

/// What one has seen would be old when another one has acted.
#[test]
fn one_repair_is_at_work_at_a_time() {
    let directory = directory("one");
    let cluster = Cluster::start_with_writer(Path::new(PROGRAM), &directory).unwrap();
    let repair = || {
        let mut command = Command::new(PROGRAM);
        command.args(["repair", "--dir", directory.to_str().unwrap()]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    // Nobody is dead; it takes a second to say so.
    let both = [repair(), repair()].map(|child| child.wait_with_output().unwrap());
    assert!(both.iter().all(|output| !output.status.success()));
    let said = both.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let turned_away = |said: &&String| said.contains("another `quorate repair` is at work");
    assert_eq!(said.iter().filter(turned_away).count(), 1, "{said:?}");
    drop(cluster);
    fs::remove_dir_all(&directory).unwrap();
}

/// The command could tell of success without one, or leave a node behind that nobody knows.
#[test]
fn the_command_replaces_the_node_that_is_dead() {
    let directory = directory("command");
    let text = directory.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).args(["--dir", text]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let mut up = Command::new(PROGRAM)
        .args(["up", "--json", "--dir", text])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = {
        use std::io::{BufRead, BufReader};
        BufReader::new(up.stdout.take().unwrap()).lines()
    };
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let ready = next();
    run(&["write", "7", "before"]);
    // A member can't take another one's place; to say that it did would leave a copy missing.
    let config = directory.join("writer/writer.toml");
    let member = ready["cluster"]["nodes"][0]["address"].as_str().unwrap();
    let arguments = ["repair", "F", "--by", member, "--config", config.to_str().unwrap()];
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("has a member at position A"), "{said}");
    let victim = ready["cluster"]["nodes"][3]["pid"].as_i64().unwrap();
    let victim = rustix::process::Pid::from_raw(victim.try_into().unwrap()).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(next()["name"], "b2");
    fs::remove_dir_all(directory.join("b2")).unwrap();

    let said = run(&["repair", "--json"]);
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["old"]), (&"replaced".into(), &"D#0".into()), "{said}");
    assert_eq!((&next()["names"][0], &next()["names"][0]), (&"b3".into(), &"b2".into()));
    let members: serde_json::Value = serde_json::from_str(&run(&["members", "--json"])).unwrap();
    let of = |index: usize| members[0]["members"][index].clone();
    assert_eq!(
        (&of(5)["name"], &of(5)["zone"], &of(5)["role"]),
        (&"b3".into(), &"b".into(), &"member".into())
    );
    assert!(run(&["status"]).contains("b3"));
    run(&["write", "8", "after"]);
    run(&["down"]);
    assert!(up.wait().unwrap().success());

    // It is known to the next start, and to the writer's recovery.
    let mut up = Command::new(PROGRAM)
        .args(["up", "--dir", text])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let clock = quorate_node::clock::Clock::start();
    let read = || {
        let arguments = ["read", "7", "--strict", "--dir", text];
        Command::new(PROGRAM).args(arguments).output().unwrap()
    };
    let mut found = read();
    while !found.status.success() && clock.now() < quorate_node::clock::Moment::new(PATIENCE) {
        std::thread::sleep(Duration::from_millis(50));
        found = read();
    }
    assert!(String::from_utf8_lossy(&found.stdout).contains("before"));
    assert!(run(&["read", "8", "--strict"]).contains("after"));
    assert!(run(&["members"]).contains("b3"));
    run(&["down"]);
    assert!(up.wait().unwrap().success());
    fs::remove_dir_all(&directory).unwrap();
}
