//! Volumes that go back to an earlier commit, and forward again.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::id::{PageId, Position};
use quorate_core::lsn::Lsn;
use quorate_node::client::{Client, ClientError};
use quorate_node::cluster::{Cluster, ClusterFile};
use quorate_node::volume::{Consistency, PageImage};
use quorate_node::wire::client::ClientRefusal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn write(client: &mut Client, page: u64, text: &str) -> Lsn {
    let image = PageImage { page: PageId::new(page), bytes: text.into() };
    client.write_now(&[image]).unwrap().cpl
}

fn read(client: &mut Client, page: u64) -> String {
    let version = client.read_now(PageId::new(page), Consistency::Strict).unwrap();
    String::from_utf8(version.bytes).unwrap()
}

fn refusal(error: ClientError) -> ClientRefusal {
    if let ClientError::Refused(refusal) = error {
        return refusal;
    }
    panic!("{error}")
}

/// Whoever goes back must find exactly what was there, be able to undo it, and not undo it over
/// what was written since.
#[test]
fn a_volume_goes_back_and_forward_again_until_something_is_written() {
    let directory = directory("backtrack");
    let mut cluster = Cluster::start_with_writer(PROGRAM.as_ref(), &directory).unwrap();
    let file = ClusterFile::load(&directory).unwrap().unwrap();
    let connect = || Client::connect(file.writer.address, cluster.volume(), PATIENCE).unwrap();
    let mut client = connect();
    let first = write(&mut client, 1, "one");
    let second = write(&mut client, 1, "two");
    let third = write(&mut client, 2, "three");

    let (epoch, point) = client.backtrack_now(first).unwrap();
    assert_eq!((epoch.counter(), point.lsn()), (2, first));
    assert_eq!((read(&mut client, 1).as_str(), read(&mut client, 2).as_str()), ("one", ""));
    // Forward, to any commit that was left.
    assert_eq!(client.backtrack_now(second).unwrap().1.lsn(), second);
    assert_eq!((read(&mut client, 1).as_str(), read(&mut client, 2).as_str()), ("two", ""));
    assert_eq!(client.backtrack_now(third).unwrap().1.lsn(), third);
    assert_eq!((read(&mut client, 1).as_str(), read(&mut client, 2).as_str()), ("two", "three"));
    let beyond = Lsn::new(third.get() + 1);
    assert_eq!(refusal(client.backtrack_now(beyond).unwrap_err()), ClientRefusal::PointAhead);

    // Two dead nodes keep nobody from it, and what they missed they get.
    let dead: Vec<Position> = cluster.positions().take(2).collect();
    dead.iter().for_each(|position| cluster.kill(*position).unwrap());
    assert_eq!(client.backtrack_now(first).unwrap().1.lsn(), first);
    let other = write(&mut client, 2, "other");
    assert_eq!(refusal(client.backtrack_now(third).unwrap_err()), ClientRefusal::PointAhead);
    for position in dead {
        cluster.restart(position).unwrap();
    }
    cluster.wait_level(other, PATIENCE).unwrap();
    assert_eq!((read(&mut client, 1).as_str(), read(&mut client, 2).as_str()), ("one", "other"));
}
