//! The demonstration: a real file through a real cluster, with two nodes killed in the middle and a
//! writer overtaken at the end. Nothing in it is faked: processes, disks, signals and sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::id::{PageId, Position};

use crate::cluster::{Cluster, ClusterError};
use crate::volume::{PageImage, Volume, VolumeConfig, VolumeError};

mod file;
mod narrator;

pub use file::Digest;
use file::Source;
pub use narrator::{Colour, Narrator};

/// How long the nodes that were down may take to come level.
const LEVEL_MAX: Duration = Duration::from_secs(60);

/// How long a volume may take to open.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// How long one answer may take: longer than a busy disk stalls.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Marks a directory that a demonstration made, and that the next one may replace.
const MARK: &str = ".quorate-demo";

/// Where a demonstration works if it isn't told.
const DIRECTORY: &str = "quorate-demo";

/// What a demonstration is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as storage nodes.
    pub executable: PathBuf,
    /// Where to work; kept afterwards. `None` for a directory that is removed afterwards.
    pub directory: Option<PathBuf>,
    /// The file to load; `None` for a generated one.
    pub file: Option<PathBuf>,
    /// The size of a generated file, in units of 2^20 bytes.
    pub size_mb: u64,
}

/// Why a demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What was read back isn't what was written.
    #[error(
        "read back {found}, but {expected} was written: this must never happen; please report it"
    )]
    Different {
        /// What was written.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// The directory holds something else.
    #[error(
        "{} holds something else: give an empty or a new directory with --dir",
        .directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
    },
    /// The file is empty.
    #[error("the file to load is empty: give another one with --file, or a size with --size-mb")]
    EmptyFile,
    /// The operating system refuses.
    #[error("{}: {error}", .path.display())]
    Io {
        /// About what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The overtaken writer wasn't refused.
    #[error(
        "a write of the overtaken writer was acknowledged: this must never happen; please report it"
    )]
    NotRefused,
    /// The story can't be told.
    #[error("cannot write to the terminal: {0}")]
    Output(#[from] io::Error),
    /// The volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// What a demonstration measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measured {
    /// The bytes of the file.
    pub bytes: u64,
    /// How long it took to load, two nodes being killed meanwhile.
    pub load: Duration,
    /// How long it took to read back with two nodes down.
    pub read: Duration,
    /// How long the restarted nodes took to come level.
    pub level: Duration,
    /// How long the second writer took to open.
    pub takeover: Duration,
}

/// Tells the whole story, and returns what it measured.
///
/// # Errors
/// [`DemoError`] at the first thing that isn't as it must be.
pub fn run(options: &Options, narrator: &mut Narrator<'_>) -> Result<Measured, DemoError> {
    let directory = options.directory.clone().unwrap_or_else(|| DIRECTORY.into());
    prepare(&directory)?;
    let measured = tell(options, &directory, narrator);
    match &measured {
        Ok(_) if options.directory.is_none() => {
            std::fs::remove_dir_all(&directory).map_err(at(&directory))?;
        }
        Ok(_) | Err(_) => {
            narrator.detail(&format!("Files and logs are in {}.", directory.display()))?;
        }
    }
    measured
}

fn tell(
    options: &Options,
    directory: &Path,
    narrator: &mut Narrator<'_>,
) -> Result<Measured, DemoError> {
    let source = match &options.file {
        Some(path) => Source::examine(path)?,
        None => Source::generate(&directory.join("file"), options.size_mb)?,
    };
    narrator.step(&format!(
        "A file of {:.1} MB, SHA-256 {}",
        megabytes(source.bytes),
        source.digest
    ))?;

    let (started, cluster) = narrator.time(|| Cluster::start(&options.executable, directory));
    let mut cluster = cluster?;
    let measured = tell_of_cluster(&source, &mut cluster, started, narrator);
    if measured.is_err() {
        examine(&cluster, narrator)?;
        // A node that has ended by itself knows more about the cause.
        cluster.check_alive()?;
    }
    measured
}

fn tell_of_cluster(
    source: &Source,
    cluster: &mut Cluster,
    started: Duration,
    narrator: &mut Narrator<'_>,
) -> Result<Measured, DemoError> {
    let segments = cluster.positions().count();
    narrator.step(&format!(
        "{segments} storage nodes, two in each of three zones, one process each, ready in {}",
        shown(started)
    ))?;

    let (opening, first) = narrator.time(|| open(cluster));
    let first = first?;
    let epoch = first.opened().epoch;
    narrator.step(&format!("A writer opens the volume as {epoch} in {}", shown(opening)))?;

    let victims: Vec<Position> = cluster.positions().skip(2).take(2).collect();
    let (load, loaded) = narrator.time(|| {
        source.load(&first, || victims.iter().try_for_each(|victim| cluster.kill(*victim)))
    });
    let loaded = loaded?;
    narrator.step(&format!(
        "Loaded in {}, {:.0} MB/s, each page durable on four of six disks",
        shown(load),
        rate(source.bytes, load)
    ))?;
    narrator.detail(&format!(
        "in the middle, at {:.1} MB acknowledged, nodes {} (a whole zone) were ended by SIGKILL",
        megabytes(loaded.acknowledged_at_kill),
        named(&victims)
    ))?;

    let (read, same) = narrator.time(|| source.compare(&first));
    same?;
    narrator.step(&format!(
        "Read back with two nodes down in {}, {:.0} MB/s: the same SHA-256",
        shown(read),
        rate(source.bytes, read)
    ))?;

    let level = come_level(cluster, &victims, loaded.last, narrator)?;

    let (takeover, second) = narrator.time(|| open(cluster));
    let second = second?;
    let newer = second.opened().epoch;
    narrator.step(&format!("A second writer takes over as {newer} in {}", shown(takeover)))?;
    refuse_first(&first, newer, narrator)?;

    let (again, same) = narrator.time(|| source.compare(&second));
    same?;
    narrator.step(&format!(
        "The second writer reads everything back in {}: the same SHA-256",
        shown(again)
    ))?;
    drop((first, second));
    Ok(Measured { bytes: source.bytes, load, read, level, takeover })
}

fn come_level(
    cluster: &mut Cluster,
    victims: &[Position],
    last: quorate_core::lsn::Lsn,
    narrator: &mut Narrator<'_>,
) -> Result<Duration, DemoError> {
    let mut behind = Vec::new();
    let (level, statuses) = narrator.time(|| {
        for victim in victims {
            behind.push(cluster.restart(*victim)?);
        }
        cluster.wait_level(last, LEVEL_MAX)
    });
    let statuses = statuses?;
    narrator.step(&format!(
        "Nodes {} start again and gossip brings them level in {}",
        named(victims),
        shown(level)
    ))?;
    for status in behind {
        narrator.detail(&format!(
            "{} came back complete up to LSN {}, with {} records",
            status.position, status.scl, status.records
        ))?;
    }
    if let Some(status) = statuses.first() {
        narrator.detail(&format!(
            "all six are complete up to LSN {}, with {} records each",
            status.scl, status.records
        ))?;
    }
    Ok(level)
}

/// The first writer goes on as if nothing had happened, over pages that the second one will read.
fn refuse_first(
    first: &Volume,
    newer: quorate_core::epoch::VolumeEpoch,
    narrator: &mut Narrator<'_>,
) -> Result<(), DemoError> {
    for attempt in ["next write", "write after that"] {
        let image = PageImage { page: PageId::new(1), bytes: b"too late".to_vec() };
        match first.write(vec![image]).and_then(|commit| commit.wait(ANSWER_MAX)) {
            Ok(_) => return Err(DemoError::NotRefused),
            Err(VolumeError::Overtaken { by }) if by == newer => {
                narrator.detail(&format!("the first writer's {attempt}: overtaken by {by}"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn open(cluster: &Cluster) -> Result<Volume, VolumeError> {
    Volume::open(VolumeConfig {
        volume: cluster.volume(),
        segments: vec![cluster.addresses().to_vec()],
        patience: OPEN_MAX,
    })
}

/// Tells how every node is, for whoever has to find out what went wrong.
fn examine(cluster: &Cluster, narrator: &mut Narrator<'_>) -> io::Result<()> {
    narrator.step("This should not have happened. How the nodes are:")?;
    for position in cluster.positions() {
        match cluster.status(position) {
            Ok(status) => narrator.detail(&format!(
                "{position}: complete up to LSN {}, {} records, {} bytes, knows VDL {}, \
                 heard of {}, promised {}, history of {}",
                status.scl,
                status.records,
                status.log_bytes,
                status.vdl,
                status.heard,
                status.promised,
                status.history
            ))?,
            Err(error) => narrator.detail(&format!("{position}: {error}"))?,
        }
    }
    Ok(())
}

/// Makes the directory, and empties it if an earlier demonstration made it.
fn prepare(directory: &Path) -> Result<(), DemoError> {
    let io = at(directory);
    let is_marked = directory.join(MARK).exists();
    if is_marked {
        std::fs::remove_dir_all(directory).map_err(&io)?;
    }
    std::fs::create_dir_all(directory).map_err(&io)?;
    if std::fs::read_dir(directory).map_err(&io)?.next().is_some() {
        return Err(DemoError::Directory { directory: directory.to_path_buf() });
    }
    std::fs::write(directory.join(MARK), []).map_err(io)
}

fn at(path: &Path) -> impl Fn(io::Error) -> DemoError {
    move |error| DemoError::Io { path: path.to_path_buf(), error }
}

fn named(positions: &[Position]) -> String {
    positions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn rate(bytes: u64, time: Duration) -> f64 {
    megabytes(bytes) / time.as_secs_f64().max(1e-9)
}
