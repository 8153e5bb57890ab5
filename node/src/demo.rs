//! The demonstration: a real file through a real cluster whose nodes are killed, and a writer
//! process that is frozen and overtaken. Nothing is faked: processes, disks, signals, sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PageId, Position};
use quorate_core::rules::Bug;
use serde::Serialize;

use crate::client::{Client, ClientError};
use crate::cluster::seat::WriterSeat;
use crate::cluster::{Cluster, ClusterError, NAMES};
use crate::steward::StewardError;
use crate::torture::TortureError;
use crate::torture::load::Session;
use crate::volume::Consistency;
use crate::wire::client::ClientRefusal;

mod file;
mod narrator;
mod repair;
mod takeover;

pub use file::Digest;
use file::Source;
pub use narrator::{Colour, Narrator};
use takeover::Pen;

/// How long the nodes that were down may take to come level.
const LEVEL_MAX: Duration = Duration::from_secs(60);

/// How long one answer may take: longer than a busy disk stalls.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Marks a directory that a demonstration made, and that the next one may replace.
const MARK: &str = ".quorate-demo";

/// Where a demonstration works if it isn't told.
const DIRECTORY: &str = "quorate-demo";

/// What a demonstration is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start as nodes and writers.
    pub executable: PathBuf,
    /// Where to work; kept afterwards. `None` for a directory that is removed afterwards.
    pub directory: Option<PathBuf>,
    /// The file to load; `None` for a generated one.
    pub file: Option<PathBuf>,
    /// The size of a generated file, in units of 2^20 bytes.
    pub size_mb: u64,
    /// A seeded bug in every process.
    pub mutant: Option<Bug>,
}

/// Why a demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What was read back isn't what was written.
    #[error("VIOLATION: the file has SHA-256 {found}, but {expected} was written and acknowledged")]
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
    /// The overtaken writer didn't end as it should.
    #[error("VIOLATION: the overtaken writer {first} did not end with exit code 1 and the reason")]
    NotEnded {
        /// The writer.
        first: VolumeEpoch,
    },
    /// The lost disk was not replaced.
    #[error("the lost disk was not replaced")]
    NotRebuilt,
    /// A write was acknowledged without a quorum.
    #[error("VIOLATION: a write was acknowledged with three of six nodes killed")]
    NotPaused,
    /// The overtaken writer refused nothing.
    #[error("VIOLATION: the overtaken writer {first} refused nothing, although {by} took over")]
    NotRefused {
        /// The writer.
        first: VolumeEpoch,
        /// Who overtook it.
        by: VolumeEpoch,
    },
    /// The overtaken writer gave another reason.
    #[error("the overtaken writer refuses for another reason than that: {refusal}")]
    OtherRefusal {
        /// The reason.
        refusal: ClientRefusal,
    },
    /// The story can't be told.
    #[error("cannot write to the terminal: {0}")]
    Output(#[from] io::Error),
    /// A write beside the file was lost, or can't be made.
    #[error("{0}")]
    Pages(#[from] TortureError),
    /// The lost disk can't be replaced.
    #[error(transparent)]
    Steward(#[from] StewardError),
    /// An overtaken writer acknowledged something.
    #[error(
        "VIOLATION: the overtaken writer, epoch {}, acknowledged {late} writes that it was \
         asked for after epoch {} had taken the volume over. Strict reads through the new writer \
         don't find {missing} of them ({page} is the first): acknowledged, and lost",
        .first.counter(), .by.counter()
    )]
    Violated {
        /// The overtaken writer.
        first: VolumeEpoch,
        /// Who overtook it.
        by: VolumeEpoch,
        /// Acknowledgements that must not have been given.
        late: usize,
        /// How many of those the volume doesn't have.
        missing: usize,
        /// A page of those.
        page: PageId,
    },
    /// A writer is gone that nobody ended.
    #[error("the writer is gone, and nobody ended it")]
    WriterGone,
}

/// What a demonstration measured. Times are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The bytes of the file.
    pub file_bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// How long six nodes and a writer took to get ready.
    pub start_ms: f64,
    /// How long the file took to load, a zone being killed meanwhile.
    pub load_ms: f64,
    /// The bytes that had been acknowledged when the zone was killed.
    pub bytes_at_kill: u64,
    /// The longest time between two acknowledgements before the zone was killed.
    pub longest_gap_before_ms: f64,
    /// And from then on.
    pub longest_gap_after_ms: f64,
    /// How long it took to read the file with three nodes down, while a write waited.
    pub read_ms: f64,
    /// How long that write waited.
    pub pause_ms: f64,
    /// How long the restarted nodes took to come level, their start included.
    pub level_ms: f64,
    /// Records that they had when they first answered.
    pub records_before: u64,
    /// Records that they had been brought when they were level.
    pub records_brought: u64,
    /// How long it took to replace a lost disk by a new node that has everything.
    pub rebuild_ms: f64,
    /// The bytes of the new node's log.
    pub rebuilt_bytes: u64,
    /// Writes that were acknowledged meanwhile.
    pub rebuild_commits: u64,
    /// The longest time between two of them.
    pub rebuild_longest_gap_ms: f64,
    /// From the signal that froze the writer to the first durable write of the other one, whose
    /// start as a process is part of it.
    pub takeover_ms: f64,
    /// Writes that the overtaken writer refused; it acknowledged none that it was asked for late.
    pub refused: u64,
    /// From the signal that let it go on to its first refusal.
    pub refused_ms: f64,
    /// And to its end.
    pub ended_ms: f64,
    /// Acknowledged pages beside the file, all of them found by strict reads.
    pub pages_verified: u64,
    /// How long it took to read everything back through the new writer.
    pub verify_ms: f64,
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
    if let Some(bug) = options.mutant {
        let (name, summary) = (bug.name(), bug.summary().trim());
        narrator.step(&format!("Every process below has the seeded bug {name}: {summary}"))?;
    }
    let source = match &options.file {
        Some(path) => Source::examine(path)?,
        None => Source::generate(&directory.join("file"), options.size_mb)?,
    };
    narrator.step(&format!("A file of {:.1} MB with this SHA-256:", megabytes(source.bytes)))?;
    narrator.detail(&source.digest.to_string())?;

    let (started, cluster) =
        narrator.time(|| Cluster::start_mutant(&options.executable, directory, options.mutant));
    let mut cluster = cluster?;
    let count = cluster.positions().count();
    narrator.step(&format!(
        "{count} storage nodes, two in each of three zones, and a writer: a process each, ready in \
         {}",
        shown(started)
    ))?;
    let measured = Measured {
        file_bytes: source.bytes,
        sha256: source.digest.to_string(),
        start_ms: milliseconds(started),
        ..Measured::default()
    };
    let story = Story { source, cluster: &mut cluster, narrator, pen: Pen::new(), measured };
    let measured = story.tell();
    if measured.is_err() && options.mutant.is_none() {
        examine(&cluster, narrator)?;
        // A node that has ended by itself knows more about the cause.
        cluster.check_alive()?;
    }
    measured
}

/// A story under way.
struct Story<'a, 'b> {
    source: Source,
    cluster: &'a mut Cluster,
    narrator: &'a mut Narrator<'b>,
    pen: Pen,
    measured: Measured,
}

impl Story<'_, '_> {
    fn tell(mut self) -> Result<Measured, DemoError> {
        let mut writer = self.cluster.give_writer().ok_or(DemoError::WriterGone)?;
        let mut client = writer.connect(ANSWER_MAX)?;
        let nodes: Vec<Position> = self.cluster.positions().collect();
        let zone: Vec<Position> = nodes.iter().copied().skip(2).take(2).collect();
        let third: Vec<Position> = nodes.into_iter().skip(4).take(1).collect();
        self.load(&mut client, &zone)?;
        let mut session = self.pause(&mut writer, &mut client, &zone, &third)?;
        drop(client);
        self.rebuild(&writer, &mut session)?;
        let (writer, mut second) = {
            let (other, mut second, takeover) =
                self.pen.take_over(self.cluster, &writer, &mut session)?;
            self.measured.takeover_ms = milliseconds(takeover.took);
            self.narrator.step(&format!(
                "The writer, epoch {}, is frozen (SIGSTOP) with {} writes under way. Another \
                 process takes over, epoch {}: first durable write after {}",
                takeover.first.counter(),
                takeover.under_way,
                takeover.second.counter(),
                shown(takeover.took)
            ))?;
            self.refuse(&mut writer, session, &mut second)?;
            (other, second)
        };
        self.verify(writer, &mut second)?;
        Ok(self.measured)
    }

    /// Loads the file, and kills a zone in the middle.
    fn load(&mut self, client: &mut Client, zone: &[Position]) -> Result<(), DemoError> {
        let (source, cluster) = (&self.source, &mut *self.cluster);
        let (time, loaded) = self
            .narrator
            .time(|| source.load(client, || zone.iter().try_for_each(|node| cluster.kill(*node))));
        let loaded = loaded?;
        let measured = &mut self.measured;
        measured.load_ms = milliseconds(time);
        measured.bytes_at_kill = loaded.acknowledged_at_kill;
        measured.longest_gap_before_ms = milliseconds(loaded.longest_gap_before);
        measured.longest_gap_after_ms = milliseconds(loaded.longest_gap_after);
        self.narrator.step(&format!(
            "Loaded in {}, {:.0} MB/s, each page durable on four of six logs",
            shown(time),
            rate(self.source.bytes, time)
        ))?;
        self.narrator.detail(&format!(
            "At {:.1} MB nodes {} (a whole zone) were killed (SIGKILL). Writes went on: the \
             longest gap between two acknowledgements was {} before and {} from then on.",
            megabytes(loaded.acknowledged_at_kill),
            named(zone),
            shown(loaded.longest_gap_before),
            shown(loaded.longest_gap_after)
        ))?;
        Ok(())
    }

    /// Kills one node more, shows that a write waits while reads go on, and starts all three again.
    fn pause(
        &mut self,
        writer: &mut WriterSeat,
        client: &mut Client,
        zone: &[Position],
        third: &[Position],
    ) -> Result<Session, DemoError> {
        third.iter().try_for_each(|node| self.cluster.kill(*node))?;
        let before = client.status()?;
        let mut session = Session::new(writer.connect(ANSWER_MAX)?);
        let clock = crate::clock::Clock::start();
        self.pen.begin(&mut session)?;
        let (source, narrator) = (&self.source, &mut *self.narrator);
        let (read, same) = narrator.time(|| source.compare(client, Consistency::Snapshot));
        same?;
        let after = client.status()?;
        if after.vdl != before.vdl || after.writes_under_way + after.writes_waiting != 1 {
            return Err(DemoError::NotPaused);
        }
        let down: Vec<Position> = zone.iter().chain(third).copied().collect();
        narrator.step(&format!(
            "Node {} is killed too: three of six are left. Writes pause, reads go on",
            named(third)
        ))?;
        narrator.detail(&format!(
            "A write waits at VDL {}. Meanwhile the whole file is read back in {}, {:.0} MB/s: the \
             same SHA-256.",
            after.vdl,
            shown(read),
            rate(source.bytes, read)
        ))?;

        let restarted = clock.now();
        let mut had = Vec::new();
        for node in &down {
            had.push(self.cluster.restart(*node)?);
        }
        self.pen.wait(&mut session)?;
        let pause = clock.now().since(crate::clock::Moment::default());
        let tail = client.status()?.tail;
        let level = self.cluster.wait_level(tail, LEVEL_MAX)?;
        let time = clock.now().since(restarted);
        let records = level.first().map_or(0, |status| status.records);
        let missed = had.iter().map(|status| records.saturating_sub(status.records));
        self.measured.records_brought = missed.sum();
        self.measured.records_before = had.iter().map(|status| status.records).sum();
        self.measured.read_ms = milliseconds(read);
        self.measured.pause_ms = milliseconds(pause);
        self.measured.level_ms = milliseconds(time);
        self.narrator.step(&format!(
            "Nodes {} start again and are level after {}",
            named(&down),
            shown(time)
        ))?;
        self.narrator.detail(&format!(
            "They came back with {} records in their logs and were brought {} more, mostly by \
             gossip. The write was acknowledged after {}.",
            self.measured.records_before,
            self.measured.records_brought,
            shown(pause)
        ))?;
        Ok(session)
    }

    /// Loses a disk for good, and has another node take its place while writes go on.
    fn rebuild(&mut self, writer: &WriterSeat, session: &mut Session) -> Result<(), DemoError> {
        let lost = self.cluster.positions().next().ok_or(DemoError::NotRebuilt)?;
        let rebuilt = self.pen.rebuild(self.cluster, writer.address(), session, lost)?;
        self.measured.rebuild_ms = milliseconds(rebuilt.took);
        self.measured.rebuilt_bytes = rebuilt.bytes;
        self.measured.rebuild_commits = rebuilt.commits;
        self.measured.rebuild_longest_gap_ms = milliseconds(rebuilt.longest_gap);
        self.narrator.step(&format!(
            "Node {} is killed and its disk is lost for good. A new one, {}, takes the place of {} \
             after {}",
            named(&[lost]),
            rebuilt.new,
            rebuilt.old,
            shown(rebuilt.took)
        ))?;
        self.narrator.detail(&format!(
            "It started empty and has {:.1} MB now, from its peers. Meanwhile {} writes were \
             acknowledged, {} apart at most.",
            megabytes(rebuilt.bytes),
            rebuilt.commits,
            shown(rebuilt.longest_gap)
        ))?;
        Ok(())
    }

    /// Lets the overtaken writer go on.
    fn refuse(
        &mut self,
        writer: &mut WriterSeat,
        session: Session,
        second: &mut Session,
    ) -> Result<(), DemoError> {
        let ended = self.pen.resume(writer, session, second)?;
        self.measured.refused = ended.refused;
        self.measured.refused_ms = milliseconds(ended.refused_after);
        self.measured.ended_ms = milliseconds(ended.ended_after);
        self.narrator.step(&format!(
            "The first writer goes on (SIGCONT) and is refused: it tells its clients so after {}, \
             and has ended after {}",
            shown(ended.refused_after),
            shown(ended.ended_after)
        ))?;
        self.narrator.detail(&format!(
            "{} writes refused as overtaken, {} known to be durable before that, none asked for \
             later acknowledged.",
            ended.refused, ended.settled
        ))?;
        Ok(())
    }

    /// Reads everything that was ever acknowledged through the writer that has the volume.
    fn verify(&mut self, mut writer: WriterSeat, second: &mut Session) -> Result<(), DemoError> {
        let mut client = writer.connect(ANSWER_MAX)?;
        let (source, pen) = (&self.source, &mut self.pen);
        let (time, verified) = self.narrator.time(|| {
            let pages = pen.verify(second)?;
            source.compare(&mut client, Consistency::Strict)?;
            Ok::<u64, DemoError>(pages)
        });
        self.measured.pages_verified = verified?;
        self.measured.verify_ms = milliseconds(time);
        self.cluster.check_alive()?;
        self.narrator.step(&format!(
            "All of it held. Strict reads through the new writer, in {}: the file's SHA-256 is the \
             same, and so are {} acknowledged pages written meanwhile. Nothing is lost.",
            shown(time),
            self.measured.pages_verified
        ))?;
        Ok(())
    }
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
    // One under way needs its files.
    if crate::cluster::running(directory).map_err(&io)?.is_some() {
        return Err(ClusterError::Live { directory: directory.to_path_buf() }.into());
    }
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

/// Returns the nodes' names as the cluster's directory has them.
fn named(positions: &[Position]) -> String {
    let name = |position: &Position| NAMES.get(position.index()).map_or("?", |(name, _)| *name);
    positions.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn shown(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{:.1} ms", milliseconds(time))
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn rate(bytes: u64, time: Duration) -> f64 {
    megabytes(bytes) / time.as_secs_f64().max(1e-9)
}
