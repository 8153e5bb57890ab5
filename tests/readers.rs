//! Readers as processes: what they see, when, and what they outlive.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use quorate_core::formula::Half;
use quorate_core::id::{Incarnation, PageId, PgId, Position, SegmentId};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Step;
use quorate_node::addresses::Place;
use quorate_node::client::{Client, ClientError};
use quorate_node::clock::{Clock, Moment};
use quorate_node::cluster::Cluster;
use quorate_node::config::VolumeId;
use quorate_node::volume::{Consistency, PageImage, PageVersion};
use quorate_node::wire::client::ClientRefusal;
use quorate_node::wire::members::Stepped;

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with this value.
struct Process(Child);

impl Process {
    fn start(kind: &str, config: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args([kind, "--leashed", "--config"]).arg(config);
        let words = fs::File::create(config.with_extension("txt")).unwrap();
        Self(command.stdin(Stdio::piped()).stderr(words).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Six nodes, and where two writers and a reader are to be.
struct Field {
    cluster: Cluster,
    directory: PathBuf,
    writers: [SocketAddr; 2],
    reader: SocketAddr,
}

impl Field {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let cluster = Cluster::start(Path::new(PROGRAM), &directory.join("nodes")).unwrap();
        // All at once, so that they differ.
        let listeners: [TcpListener; 3] =
            std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [first, second, reader] = listeners.map(|listener| listener.local_addr().unwrap());
        Self { cluster, directory, writers: [first, second], reader }
    }

    fn volume(&self) -> VolumeId {
        self.cluster.volume()
    }

    fn write_config(&self, name: &str, listen: SocketAddr, more: &str) -> PathBuf {
        let path = self.directory.join(name);
        let volume = self.volume();
        let segments: Vec<String> =
            self.cluster.addresses().iter().map(|address| format!("\"{address}\"")).collect();
        let segments = segments.join(", ");
        let text = format!(
            "volume = \"{volume}\"\nlisten = \"{listen}\"\n{more}segments = [[{segments}]]\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn start_writer(&self, index: usize) -> (Process, Client) {
        let listen = *self.writers.get(index).unwrap();
        let config = self.write_config(&format!("writer-{index}.toml"), listen, "");
        let process = Process::start("writer", &config);
        (process, self.connect(listen))
    }

    fn start_reader(&self) -> (Process, Client) {
        let [first, second] = self.writers;
        let more = format!("writers = [\"{first}\", \"{second}\"]\n");
        let config = self.write_config("reader.toml", self.reader, &more);
        let process = Process::start("reader", &config);
        (process, self.connect(self.reader))
    }

    fn connect(&self, address: SocketAddr) -> Client {
        let clock = Clock::start();
        loop {
            match Client::connect(address, self.volume(), PATIENCE) {
                Ok(client) => return client,
                Err(error) => {
                    assert!(clock.now() < Moment::new(PATIENCE), "{address}: {error}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

fn image(page: u64, number: u64) -> PageImage {
    PageImage { page: PageId::new(page), bytes: number.to_le_bytes().to_vec() }
}

fn number(version: &PageVersion) -> u64 {
    u64::from_le_bytes(version.bytes.as_slice().try_into().unwrap())
}

/// Writes `numbers` and reads each back from the reader, by the commit that it is in.
fn follow(writing: &mut Client, reading: &mut Client, numbers: std::ops::Range<u64>) -> Lsn {
    let mut last = Lsn::ZERO;
    for written in numbers {
        let page = written % 8;
        let cpl = writing.write_now(&[image(page, written)]).unwrap().cpl;
        let version = reading.read_now(PageId::new(page), Consistency::AtLeast(cpl)).unwrap();
        assert_eq!(number(&version), written, "a read that names a commit is stale");
        assert!(version.read_point.lsn() >= cpl);
        // Whoever names nothing reads where the reader is, and that never goes back.
        let version = reading.read_now(PageId::new(page), Consistency::Snapshot).unwrap();
        assert!(version.read_point.lsn() >= last.max(cpl));
        last = version.read_point.lsn();
    }
    last
}

/// The promise of a reader in one story: what is acknowledged is seen by who names it, a reader
/// goes on without a writer, and follows the next one.
#[test]
fn a_reader_follows_a_writer_and_outlives_it() {
    let field = Field::new("reader");
    let (first, mut writing) = field.start_writer(0);
    let (_reader, mut reading) = field.start_reader();
    follow(&mut writing, &mut reading, 0..200);
    let followed = reading.reader_status().unwrap();
    assert!(followed.is_following && followed.pages == 8, "{followed:?}");
    for refused in [Consistency::Strict, Consistency::At(Lsn::new(1))] {
        let outcome = reading.read_now(PageId::new(0), refused);
        assert!(matches!(outcome, Err(ClientError::Refused(ClientRefusal::Reader))), "{outcome:?}");
    }
    let outcome = reading.write_now(&[image(0, 0)]);
    assert!(matches!(outcome, Err(ClientError::Refused(ClientRefusal::Reader))), "{outcome:?}");

    drop(first);
    for page in 0..8 {
        let version = reading.read_now(PageId::new(page), Consistency::Snapshot).unwrap();
        assert_eq!(number(&version), 192 + page);
    }
    // A page that was never read is not in memory: a segment has to answer without the writer.
    let absent = reading.read_now(PageId::new(100), Consistency::Snapshot).unwrap();
    assert_eq!(absent.lsn, None);

    let (_second, mut writing) = field.start_writer(1);
    follow(&mut writing, &mut reading, 1_000..1_100);
    let status = reading.reader_status().unwrap();
    assert!(status.epoch > followed.epoch && status.streams > followed.streams, "{status:?}");
    assert!(status.vdl > followed.vdl && status.is_following, "{status:?}");
}

/// Takes a step of a membership change, as soon as the writer takes it.
fn take(writer: &mut Client, step: Step, place: Option<Place>) {
    let clock = Clock::start();
    loop {
        match writer.step(PgId::new(0), step, place).unwrap() {
            Stepped::Taken => return,
            refused @ (Stepped::NoGroup | Stepped::Refused(_) | Stepped::Unreachable) => {
                assert!(clock.now() < Moment::new(PATIENCE), "{step:?}: {refused:?}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A reader that knows only who was there when it was configured would lose one copy with every
/// repair, and end up with none.
#[test]
fn a_reader_finds_a_segment_that_joined_later() {
    let mut field = Field::new("reader-joined");
    let (_writer, mut writing) = field.start_writer(0);
    let cpl = writing.write_now(&[image(7, 7)]).unwrap().cpl;
    let (_reader, mut reading) = field.start_reader();
    reading.read_now(PageId::new(0), Consistency::AtLeast(cpl)).unwrap();

    let [old, joins] = [5, 6].map(|index| Position::new(index).unwrap());
    let new = SegmentId { position: joins, incarnation: Incarnation::new(1) };
    let place = field.cluster.provide(old, new).unwrap();
    take(&mut writing, Step::Replace { old, new }, Some(place));
    take(&mut writing, Step::Finish(Half::Older), None);
    for gone in Position::first(6) {
        field.cluster.kill(gone).unwrap();
    }
    // That page isn't in the reader's memory, and the newcomer alone has it.
    let version = reading.read_now(PageId::new(7), Consistency::Snapshot).unwrap();
    assert_eq!(number(&version), 7);
}

/// A writer that is overtaken while it lives must not keep its reader: what the new writer
/// acknowledges has to be seen.
#[test]
fn a_reader_leaves_an_overtaken_writer() {
    let field = Field::new("reader-overtaken");
    let (_first, mut writing) = field.start_writer(0);
    let (_reader, mut reading) = field.start_reader();
    follow(&mut writing, &mut reading, 0..20);
    let (_second, mut writing) = field.start_writer(1);
    follow(&mut writing, &mut reading, 20..60);
}
