//! A benchmark from start to end.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Load;
use super::floor::Floor;
use super::reader::ReaderTrouble;
use super::report::Row;
use crate::client::ClientError;
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, free_addresses};
use crate::format::FILE_BYTES_MAX;
use crate::volume::{Volume, VolumeConfig, VolumeError};

/// How long processes may take to get ready.
const READY_MAX: Duration = Duration::from_secs(30);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// What a benchmark is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes.
    pub executable: PathBuf,
    /// Where to work; its contents are removed afterwards.
    pub directory: PathBuf,
    /// How many writes to keep under way, one run for each.
    pub in_flight: Vec<usize>,
    /// The length of a write in bytes.
    pub bytes: usize,
    /// Turns of each system at each number.
    pub turns: usize,
    /// The length of a turn.
    pub span: Duration,
}

/// Why a benchmark can't be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The etcd beside it.
    #[error("etcd: {0}")]
    Etcd(io::Error),
    /// A client of a writer or a reader.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The plain program.
    #[error("the floor: {0}")]
    Floor(#[from] io::Error),
    /// The reader.
    #[error(transparent)]
    Reader(#[from] ReaderTrouble),
    /// The volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// Runs the volume, the floor and the keeper in turns, and calls `tell` with what each number of
/// writes in flight came to.
///
/// # Errors
/// [`BenchError`] at the first thing that goes wrong.
pub fn run(
    options: &Options,
    mut tell: impl FnMut(&Row) -> io::Result<()>,
) -> Result<(), BenchError> {
    let cluster = Cluster::start(&options.executable, &options.directory.join("quorate"))?;
    let segments = vec![cluster.addresses().to_vec()];
    let config = VolumeConfig::new(cluster.volume(), segments, READY_MAX);
    let mut volume = Volume::open(VolumeConfig { backtrack_window: WINDOW_RECORDS, ..config })?;
    let members = cluster.positions().count();
    let start = |name: &str, keeps| {
        FloorNodes::start(&options.executable, &options.directory.join(name), members, keeps)
    };
    let (floor_nodes, keeper_nodes) = (start("floor", false)?, start("keeper", true)?);
    let (mut floor, mut keeper) = (floor_nodes.connect()?, keeper_nodes.connect()?);
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(options.bytes).collect();
    warm_up(&mut volume, &bytes)?;
    for in_flight in &options.in_flight {
        // Once without measuring: buffers grow, files are extended.
        volume.drive(*in_flight, &bytes, options.span / 4)?;
        floor.drive(*in_flight, &bytes, options.span / 4)?;
        keeper.drive(*in_flight, &bytes, options.span / 4)?;
        let (mut ours, mut floors, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.turns {
            ours.push(volume.drive(*in_flight, &bytes, options.span)?);
            floors.push(floor.drive(*in_flight, &bytes, options.span)?);
            keepers.push(keeper.drive(*in_flight, &bytes, options.span)?);
        }
        tell(&Row::of("floor", *in_flight, options.bytes, &ours, &floors))?;
        tell(&Row::of("keeper", *in_flight, options.bytes, &ours, &keepers))?;
    }
    Ok(())
}

/// How many records the segments keep below the VDL: so few that files of their logs are soon used
/// again.
const WINDOW_RECORDS: u64 = 4096;

/// How much is written before anything is measured, so that logs have all the files that they will
/// ever have: those that grow, up to the longest, and a few of these.
const WARM_BYTES: u64 = 8 * FILE_BYTES_MAX;

/// About how many bytes a record takes in a log beside its own, in a batch with others.
const RECORD_BYTES: u64 = 80;

/// How many writes are under way until then.
const WARM_IN_FLIGHT: usize = 1024;

/// Writes until the logs' files are used again: a new volume's first writes go to new space on the
/// disk, which is slower, and no volume stays new.
fn warm_up(volume: &mut Volume, bytes: &[u8]) -> Result<(), BenchError> {
    let mut left = WARM_BYTES;
    while left > 0 {
        let done = volume.drive(WARM_IN_FLIGHT, bytes, Duration::from_secs(1))?.latencies.len();
        let each = (bytes.len() as u64).saturating_add(RECORD_BYTES);
        left = left.saturating_sub((done as u64).saturating_mul(each));
    }
    Ok(())
}

/// The processes of the floor; they end with this value.
struct FloorNodes {
    children: Vec<Child>,
    addresses: Vec<SocketAddr>,
}

impl FloorNodes {
    fn start(
        executable: &Path,
        directory: &Path,
        count: usize,
        keeps: bool,
    ) -> Result<Self, BenchError> {
        let addresses = free_addresses(count)?;
        let mut nodes = Self { children: Vec::new(), addresses };
        for (index, address) in nodes.addresses.iter().enumerate() {
            let child = Command::new(executable)
                .args(["bench", "floor-node", "--listen", &address.to_string(), "--dir"])
                .arg(directory.join(index.to_string()))
                .args(keeps.then_some("--keeps"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            nodes.children.push(child);
        }
        Ok(nodes)
    }

    fn connect(&self) -> Result<Floor, BenchError> {
        let clock = Clock::start();
        let start = clock.now();
        loop {
            match Floor::connect(&self.addresses) {
                Ok(floor) => return Ok(floor),
                Err(error) if clock.now().since(start) > READY_MAX => return Err(error.into()),
                Err(_) => thread::sleep(POLL),
            }
        }
    }
}

impl Drop for FloorNodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
