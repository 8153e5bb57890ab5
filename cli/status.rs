//! `quorate status`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use clap::Args;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PgId, Position};
use quorate_node::client::{Client, ClientError};
use quorate_node::cluster::{ClusterFile, Member};
use quorate_node::config::VolumeId;
use quorate_node::status;
use quorate_node::wire::Status;
use quorate_node::wire::client::WriterStatus;
use serde::Serialize;

use crate::Outcome;
use crate::place::{Reach, print_json};

/// How long one process may take to answer before it counts as down.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How often --watch looks again.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show how the nodes and the writer are.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate status --watch

SCL: up to it a node holds every record. behind: how many LSNs that is under the group's PGCL, up to
which four of six nodes hold everything. impaired: the node's log was damaged,
and no recovery counts it until its peers have repaired it; then it is up again. VCL: up to it
nothing is missing in any group. VDL: commits up to it are acknowledged.")]
pub(crate) struct StatusArguments {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON; with --watch a line every second
    #[arg(long)]
    json: bool,
}

/// All there is to know of a cluster.
#[derive(Serialize)]
struct Report {
    volume: String,
    nodes: Vec<NodeRow>,
    writer: WriterRow,
}

#[derive(Serialize)]
struct NodeRow {
    name: String,
    zone: Option<String>,
    address: SocketAddr,
    up: bool,
    /// Why it isn't up.
    problem: Option<String>,
    scl: Option<u64>,
    records: Option<u64>,
    log_bytes: Option<u64>,
    promised: Option<Epoch>,
    history: Option<Epoch>,
    behind: Option<u64>,
    /// Its log was damaged, and it has no vote until its peers have repaired it.
    impaired: Option<bool>,
}

#[derive(Clone, Serialize)]
struct Epoch {
    counter: u64,
    /// As text: some readers of JSON take numbers for floating-point ones.
    instance: String,
}

#[derive(Serialize)]
struct WriterRow {
    address: SocketAddr,
    up: bool,
    problem: Option<String>,
    epoch: Option<Epoch>,
    recovery_point: Option<u64>,
    vcl: Option<u64>,
    vdl: Option<u64>,
    tail: Option<u64>,
    allowance: Option<u64>,
    pgcl: Vec<u64>,
    connections: Option<u64>,
    writes_under_way: Option<u64>,
    writes_waiting: Option<u64>,
    reads_under_way: Option<u64>,
    reads_hedged: Option<u64>,
    reads_probed: Option<u64>,
    bytes_under_way: Option<u64>,
}

impl From<VolumeEpoch> for Epoch {
    fn from(epoch: VolumeEpoch) -> Self {
        Self { counter: epoch.counter(), instance: epoch.instance().get().to_string() }
    }
}

impl StatusArguments {
    pub(crate) fn execute(self) -> Outcome {
        let is_drawn = self.watch && !self.json && io::stdout().is_terminal();
        if is_drawn {
            write!(io::stdout().lock(), "\x1b[2J")?;
        }
        loop {
            let file = self.reach.cluster()?;
            let report = examine(&file);
            if self.json {
                print_json(&report)?;
            } else {
                let text = render(&report);
                // Drawn over the last picture, line by line: a cleared screen would flicker.
                let text = if is_drawn {
                    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
                } else {
                    text
                };
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            if !self.watch {
                return Ok(());
            }
            thread::sleep(INTERVAL);
        }
    }
}

/// Asks everybody at once: one that doesn't answer delays nobody else.
fn examine(file: &ClusterFile) -> Report {
    let volume = file.volume();
    let (writer, nodes) = thread::scope(|scope| {
        let writer = scope.spawn(|| ask_writer(file.writer.address, volume));
        let nodes: Vec<_> = file
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| {
                Some((Position::new(node.position.unwrap_or(index))?, node))
            })
            .map(|(position, node)| {
                (node, scope.spawn(move || ask_node(node.address, volume, position)))
            })
            .collect();
        let fallen = || "the question failed".to_string();
        let nodes: Vec<_> = nodes
            .into_iter()
            .map(|(node, asked)| (node, asked.join().unwrap_or_else(|_| Err(fallen()))))
            .collect();
        (writer.join().unwrap_or_else(|_| Err(fallen())), nodes)
    });
    let highest = nodes.iter().filter_map(|(_, status)| status.as_ref().ok());
    let highest = highest.map(|status| status.scl.lsn().get()).max().unwrap_or(0);
    let pgcl: Vec<u64> = writer
        .as_ref()
        .map_or(Vec::new(), |writer| writer.groups.iter().map(|group| group.pgcl.get()).collect());
    // Without a writer the best that is known is what some node has.
    let level = pgcl.first().copied().unwrap_or(highest);
    Report {
        volume: file.volume.clone(),
        nodes: nodes.into_iter().map(|(node, status)| node_row(node, status, level)).collect(),
        writer: writer_row(file.writer.address, writer, pgcl),
    }
}

fn ask_writer(address: SocketAddr, volume: VolumeId) -> Result<WriterStatus, String> {
    let ask = || Client::connect(address, volume, ANSWER_MAX)?.status();
    ask().map_err(|error| match error {
        ClientError::TimedOut(patience) => format!("not answering within {patience:?}"),
        ClientError::Connect { .. }
        | ClientError::Connection(_)
        | ClientError::Hello(_)
        | ClientError::Oversized { .. }
        | ClientError::Refused(_)
        | ClientError::Unexpected => error.to_string(),
    })
}

fn ask_node(address: SocketAddr, volume: VolumeId, position: Position) -> Result<Status, String> {
    status::ask(address, volume, PgId::new(0), position, ANSWER_MAX)
        .map_err(|error| error.to_string())
}

fn node_row(node: &Member, status: Result<Status, String>, level: u64) -> NodeRow {
    let Member { name, address, zone, .. } = node.clone();
    let (status, problem) = match status {
        Ok(status) => (Some(status), None),
        Err(problem) => (None, Some(problem)),
    };
    let scl = status.map(|status| status.scl.lsn().get());
    NodeRow {
        name,
        zone,
        address,
        up: status.is_some(),
        problem,
        scl,
        records: status.map(|status| status.records),
        log_bytes: status.map(|status| status.log_bytes),
        promised: status.map(|status| status.promised.into()),
        history: status.map(|status| status.history.into()),
        behind: scl.map(|scl| level.saturating_sub(scl)),
        impaired: status.map(|status| status.impaired),
    }
}

fn writer_row(
    address: SocketAddr,
    status: Result<WriterStatus, String>,
    pgcl: Vec<u64>,
) -> WriterRow {
    let (status, problem) = match status {
        Ok(status) => (Some(status), None),
        Err(problem) => (None, Some(problem)),
    };
    let of = |value: fn(&WriterStatus) -> u64| status.as_ref().map(value);
    WriterRow {
        address,
        up: status.is_some(),
        problem,
        epoch: status.as_ref().map(|writer| writer.epoch.into()),
        recovery_point: of(|writer| writer.recovery_point.lsn().get()),
        vcl: of(|writer| writer.vcl.lsn().get()),
        vdl: of(|writer| writer.vdl.lsn().get()),
        tail: of(|writer| writer.tail.get()),
        allowance: of(|writer| writer.allowance),
        pgcl,
        connections: of(|writer| writer.connections),
        writes_under_way: of(|writer| writer.writes_under_way),
        writes_waiting: of(|writer| writer.writes_waiting),
        reads_under_way: of(|writer| writer.reads_under_way),
        reads_hedged: of(|writer| writer.reads_hedged),
        reads_probed: of(|writer| writer.reads_probed),
        bytes_under_way: of(|writer| writer.bytes_under_way),
    }
}

/// Returns the table for people. Epochs are shown by their counters; --json has all of them.
fn render(report: &Report) -> String {
    let mut text = format!("volume {}\n\n", report.volume);
    let mut rows = vec![
        ["node", "zone", "state", "SCL", "records", "promised", "history", "behind"]
            .map(str::to_string),
    ];
    let number = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
    let epoch = |epoch: &Option<Epoch>| {
        epoch.as_ref().map_or_else(|| "-".into(), |epoch| format!("epoch {}", epoch.counter))
    };
    for node in &report.nodes {
        rows.push([
            node.name.clone(),
            node.zone.clone().unwrap_or_default(),
            match (node.up, node.impaired) {
                (true, Some(true)) => "impaired",
                (true, _) => "up",
                (false, _) => "down",
            }
            .into(),
            number(node.scl),
            number(node.records),
            epoch(&node.promised),
            epoch(&node.history),
            match node.behind {
                Some(0) => "level".into(),
                behind => number(behind),
            },
        ]);
    }
    let widths: Vec<usize> = (0..8)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max())
        .map(Option::unwrap_or_default)
        .collect();
    // Writing into a string can't fail.
    for row in &rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_number = matches!(index, 3 | 4 | 7);
            let cell =
                if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            let _ = write!(text, "  {cell}");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    render_writer(report, &mut text);
    for node in report.nodes.iter().filter(|node| !node.up) {
        let problem = node.problem.as_deref().unwrap_or_default();
        let _ = writeln!(text, "\n  {} at {}: {problem}", node.name, node.address);
    }
    text
}

fn render_writer(report: &Report, text: &mut String) {
    let writer = &report.writer;
    let number = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
    let Some(epoch) = &writer.epoch else {
        let problem = writer.problem.as_deref().unwrap_or_default();
        let _ = writeln!(text, "\n  writer: down ({problem})");
        let impaired = report.nodes.iter().filter(|node| node.impaired == Some(true)).count();
        let voters = report.nodes.iter().filter(|node| node.up).count().saturating_sub(impaired);
        if impaired > 0 && voters < 3 {
            let _ = writeln!(
                text,
                "  no writer can open the volume: {impaired} nodes are impaired, and without them \
                 {voters} can vote, of three that a recovery needs"
            );
        }
        return;
    };
    let pgcl: Vec<String> = writer.pgcl.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        text,
        "\n  writer: up, epoch {}, opened at LSN {}\n  VDL {}  VCL {}  PGCL {}  allocated {}",
        epoch.counter,
        number(writer.recovery_point),
        number(writer.vdl),
        number(writer.vcl),
        pgcl.join(" "),
        number(writer.tail),
    );
    let _ = writeln!(
        text,
        "  under way: writes {}, reads {} ({} hedged so far); waiting: writes {}; clients, this \
         one included: {}",
        number(writer.writes_under_way),
        number(writer.reads_under_way),
        number(writer.reads_hedged),
        number(writer.writes_waiting),
        number(writer.connections),
    );
}
