//! `quorate repair`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quorate_core::id::{PgId, Position, SegmentId};
use quorate_node::addresses::Place as Address;
use quorate_node::client::{Client, ClientError};
use quorate_node::cluster::{ClusterFile, LocalHands};
use quorate_node::config::VolumeId;
use quorate_node::config::file::WriterFile;
use quorate_node::status::{self, StatusError};
use quorate_node::steward::{self, Goal, Hands, Progress, StewardError, Task};
use quorate_node::wire::{HelloRefusal, Status};
use serde::Serialize;

use crate::Outcome;
use crate::place::{Place, print_json};

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Replace a dead node by a new one, in a cluster that goes on.
///
/// The new node takes what is written from the first step on, gets what was written before from
/// the others, and counts for reads and recoveries once it has all of it. Ctrl-C pauses: run it
/// again to go on, or with --revert to take the change back.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate repair
On several machines: start the new node with `quorate node`, then
  quorate repair F --by 10.0.0.7:7000 --config writer.toml")]
pub(crate) struct Repair {
    /// The position of the member to replace, A to H, or its name in the cluster's directory
    /// [default: the one that is dead]
    #[arg(value_name = "POSITION")]
    position: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Take back a change that is under way
    #[arg(long)]
    revert: bool,
    /// The address of the new node, which runs already
    #[arg(long, value_name = "ADDRESS", requires = "config", requires = "position")]
    by: Option<SocketAddr>,
    /// Talk to the writer of this configuration instead of a cluster on this machine
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The protection group, with --config
    #[arg(long, value_name = "GROUP", default_value_t = 0, requires = "config")]
    group: u32,
    /// How many seconds it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    patience: u64,
    /// Print JSON: a line for each step, and the outcome
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    event: &'static str,
    old: Option<String>,
    new: Option<String>,
    seconds: f64,
    hydration_seconds: Option<f64>,
    /// What the new node's log holds.
    log_bytes: Option<u64>,
    records: Option<u64>,
}

impl Repair {
    pub(crate) fn execute(self) -> Outcome {
        let group = PgId::new(self.group);
        let (mut hands, volume, file): (Box<dyn Hands>, _, _) = match &self.config {
            Some(path) => {
                let (config, writer) = WriterFile::load(path)?;
                let volume = config.volume;
                (Box::new(RemoteHands { writer, volume, group, by: self.by }), volume, None)
            }
            None => {
                let file = self.place.running()?;
                let hands = LocalHands::new(&self.place.directory, ANSWER_MAX)?;
                (Box::new(hands), file.volume(), Some(file))
            }
        };
        let named = self.position.as_ref().map(|text| parse(text, file.as_ref())).transpose()?;
        let goal = if self.revert { Goal::Revert } else { Goal::Replace(named) };
        let task = Task { group, goal, patience: Duration::from_secs(self.patience) };
        let is_drawn = io::stderr().is_terminal() && !self.json;
        let mut last = None;
        let outcome = steward::run(&mut *hands, task, &mut |progress| {
            if last.replace(progress) != Some(progress) {
                self.tell(progress, is_drawn);
            }
        });
        if is_drawn {
            eprint!("\r\x1b[K");
        }
        let outcome = outcome?;
        let status = outcome.change.filter(|_| !outcome.is_reverted).and_then(|change| {
            let members = hands.connect().ok()?.members().ok()?;
            let members = members.groups.into_iter().find(|of| of.group == group)?.members;
            let joined = members.iter().find(|member| member.position == change.new.position)?;
            ask(joined.address?, volume, group, change.new.position).ok()
        });
        self.report(&Report {
            event: if outcome.is_reverted { "reverted" } else { "replaced" },
            old: outcome.change.map(|change| change.old.to_string()),
            new: outcome.change.map(|change| change.new.to_string()),
            seconds: outcome.took.as_secs_f64(),
            hydration_seconds: outcome.hydrated.map(|time| time.as_secs_f64()),
            log_bytes: status.map(|status| status.log_bytes),
            records: status.map(|status| status.records),
        })
    }

    fn tell(&self, progress: Progress, is_drawn: bool) {
        if self.json {
            let _ = print_json(&progress);
            return;
        }
        let mut out = io::stdout().lock();
        let _ = match progress {
            Progress::Begun(change) => {
                writeln!(out, "{} takes the place of {}", change.new, change.old)
            }
            Progress::Found(change) => {
                writeln!(out, "under way already: {} for {}", change.new, change.old)
            }
            Progress::Hydrating { scl, target } if is_drawn => {
                eprint!("\r\x1b[Kthe new node holds all up to LSN {scl} of {target}");
                Ok(())
            }
            Progress::Hydrating { .. } => Ok(()),
            Progress::Finishing => writeln!(out, "it holds all that it has to; the last step"),
            Progress::Reverting => writeln!(out, "the change is being taken back"),
            Progress::NoWriter => writeln!(out, "no writer that has the volume answers; waiting"),
            Progress::Unreachable => {
                writeln!(out, "the writer does not reach the new node yet; waiting")
            }
        };
    }

    fn report(&self, report: &Report) -> Outcome {
        if self.json {
            return print_json(report);
        }
        let mut out = io::stdout().lock();
        let seconds = report.seconds;
        match (&report.old, &report.new) {
            (Some(old), Some(new)) if report.event == "replaced" => {
                write!(out, "{old} is replaced by {new}, after {seconds:.2} s")?;
                if let (Some(records), Some(bytes)) = (report.records, report.log_bytes) {
                    write!(out, "; its log holds {records} records in {bytes} bytes")?;
                }
                writeln!(out)?;
            }
            (Some(old), Some(new)) => {
                writeln!(out, "taken back after {seconds:.2} s: {old} stays, {new} is out")?;
            }
            (_, _) => writeln!(out, "no change is under way: there is nothing to take back")?,
        }
        Ok(())
    }
}

/// Returns the position that a person means.
fn parse(text: &str, file: Option<&ClusterFile>) -> Result<Position, String> {
    let mut nodes = file.iter().flat_map(|file| file.nodes.iter().enumerate());
    if let Some((index, node)) = nodes.find(|(_, node)| node.name == text)
        && let Some(position) = Position::new(node.position.unwrap_or(index))
    {
        return Ok(position);
    }
    let letters = Position::first(quorate_core::id::SEGMENTS_MAX);
    let mut letters = letters.filter(|position| position.to_string().eq_ignore_ascii_case(text));
    letters.next().ok_or_else(|| {
        format!("\"{text}\" is no position: give a letter, A to H, or a name of `quorate members`")
    })
}

/// Asks the segment at `address` how it is.
fn ask(
    address: SocketAddr,
    volume: VolumeId,
    group: PgId,
    position: Position,
) -> Result<Status, StatusError> {
    status::ask(address, volume, group, position, ANSWER_MAX)
}

/// A writer somewhere, and a node that somebody else has started.
struct RemoteHands {
    writer: SocketAddr,
    volume: VolumeId,
    group: PgId,
    by: Option<SocketAddr>,
}

impl RemoteHands {
    /// Returns which disk is at the address of the newcomer.
    fn meet(&self, address: SocketAddr) -> Result<SegmentId, StewardError> {
        let wrong = |problem: String| StewardError::Newcomer { address, problem };
        let mut position = Position::first(1).next().ok_or_else(|| wrong("no position".into()))?;
        // Whoever is asked for the wrong position says its own.
        for _ in 0..2 {
            match ask(address, self.volume, self.group, position) {
                Ok(status) => {
                    let incarnation = status.incarnation;
                    return Ok(SegmentId { position, incarnation });
                }
                Err(StatusError::Refused(HelloRefusal::WrongSegment { group, position: own }))
                    if group == self.group =>
                {
                    position = own;
                }
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        Err(wrong("it does not say which segment it is".into()))
    }
}

impl Hands for RemoteHands {
    fn connect(&mut self) -> Result<Client, ClientError> {
        Client::connect(self.writer, self.volume, ANSWER_MAX)
    }

    fn newcomer(&mut self) -> Result<Option<SegmentId>, StewardError> {
        match self.by {
            Some(address) => self.meet(address).map(Some),
            None => Err(StewardError::NoNewcomer),
        }
    }

    fn provide(&mut self, _old: Position, new: SegmentId) -> Result<Address, StewardError> {
        let address = match self.by {
            Some(address) => address,
            // A change that is under way goes on without anybody naming its address again.
            None => {
                let members = self.connect()?.members()?;
                let groups = members.groups.into_iter().filter(|group| group.group == self.group);
                let known = groups.flat_map(|group| group.members);
                let known = known.filter(|member| member.position == new.position);
                known.filter_map(|member| member.address).next().ok_or(StewardError::NoNewcomer)?
            }
        };
        Ok(Address { incarnation: new.incarnation, revision: 0, address })
    }

    /// Who has started a node ends it.
    fn retire(&mut self, _keep: &[SegmentId]) -> Result<(), StewardError> {
        Ok(())
    }
}
