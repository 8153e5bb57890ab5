//! Where a command finds the cluster, and what it says when there is none.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quorate_core::id::PgId;
use quorate_node::addresses::{AddressBook, Seat};
use quorate_node::client::{Client, ClientError};
use quorate_node::cluster::{self, ClusterFile, Member, WRITER};
use quorate_node::config::file::WriterFile;
use serde::Serialize;

use crate::Outcome;

/// Where a cluster is unless a command is told.
const DIRECTORY: &str = "./quorate-data";

/// How long one answer of the writer may take: longer than a busy disk stalls.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where the cluster is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// The cluster's directory
    #[arg(long = "dir", value_name = "DIR", default_value = DIRECTORY)]
    pub(crate) directory: PathBuf,
}

impl Place {
    /// Returns the command `words` as a person would give it for this cluster.
    pub(crate) fn command(&self, words: &str) -> String {
        let program = std::env::args().next().unwrap_or_else(|| "quorate".into());
        if self.directory.as_os_str() == DIRECTORY {
            return format!("{program} {words}");
        }
        let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
        let directory = self.directory.display();
        format!("{program} {command} --dir {directory} {rest}").trim_end().to_string()
    }

    /// Returns what the cluster consists of, if it runs.
    pub(crate) fn running(&self) -> Result<ClusterFile, Box<dyn Error>> {
        let directory = self.directory.display();
        let file = ClusterFile::load(&self.directory)?.ok_or_else(|| {
            let up = self.command("up");
            format!("there is no cluster in {directory}: start one with `{up}`")
        })?;
        if cluster::running(&self.directory)?.is_none() {
            let up = self.command("up");
            return Err(
                format!("the cluster in {directory} does not run: start it with `{up}`").into()
            );
        }
        Ok(file)
    }

    /// Connects to a reader of the cluster's volume.
    pub(crate) fn connect_to(&self, reader: SocketAddr) -> Result<Client, Box<dyn Error>> {
        let volume = self.running()?.volume();
        Ok(Client::connect(reader, volume, PATIENCE)?)
    }

    /// Connects to the cluster's writer.
    pub(crate) fn connect(&self) -> Result<Client, Box<dyn Error>> {
        let file = self.running()?;
        let connected = Client::connect(file.writer.address, file.volume(), PATIENCE);
        connected.map_err(|error| match error {
            ClientError::Connect { .. } => {
                let config = self.directory.join(WRITER).join("writer.toml");
                let program = std::env::args().next().unwrap_or_else(|| "quorate".into());
                format!(
                    "{error}. Start the writer again with `{program} writer --config {}`",
                    config.display()
                )
                .into()
            }
            ClientError::Connection(_)
            | ClientError::Hello(_)
            | ClientError::Oversized { .. }
            | ClientError::Refused(_)
            | ClientError::TimedOut(_)
            | ClientError::Unexpected => error.into(),
        })
    }
}

/// Where a command finds a writer: the one of a cluster, or one that it is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reach {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The configuration of a writer, in place of --dir: it need not belong to `quorate up`
    #[arg(long, value_name = "FILE", conflicts_with = "directory")]
    config: Option<PathBuf>,
}

impl Reach {
    /// Returns the command `words` as a person would give it to reach the same writer.
    pub(crate) fn command(&self, words: &str) -> String {
        let Some(config) = &self.config else { return self.place.command(words) };
        let program = std::env::args().next().unwrap_or_else(|| "quorate".into());
        let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
        let config = config.display();
        format!("{program} {command} --config {config} {rest}").trim_end().to_string()
    }

    /// Returns what there is to ask: the cluster if it runs, or what the configuration lists.
    pub(crate) fn cluster(&self) -> Result<ClusterFile, Box<dyn Error>> {
        let Some(path) = &self.config else { return self.place.running() };
        let (config, listen) = WriterFile::load(path)?;
        let member = |name: String, address| Member {
            name,
            address,
            zone: None,
            pid: None,
            position: None,
            incarnation: 0,
            revision: 0,
            has_started: true,
        };
        let node = |Seat { position, place }: Seat| Member {
            position: Some(position.index()),
            incarnation: place.incarnation.get(),
            ..member(position.to_string(), place.address)
        };
        // Of a volume of several groups these are the first group's.
        let first = config.segments.first().map(Vec::as_slice).unwrap_or_default();
        let joined = config.joined.iter().filter(|(group, _)| *group == PgId::new(0));
        let joined: Vec<Seat> = joined.map(|(_, seat)| *seat).collect();
        let book = AddressBook::new(PgId::new(0), first, &joined);
        Ok(ClusterFile {
            volume: config.volume.to_string(),
            revision: 0,
            disks: Vec::new(),
            writer: member(WRITER.into(), listen),
            nodes: book.seats().map(node).collect(),
        })
    }

    /// Connects to a reader of the same volume.
    pub(crate) fn connect_to(&self, reader: SocketAddr) -> Result<Client, Box<dyn Error>> {
        let Some(path) = &self.config else { return self.place.connect_to(reader) };
        let (config, _) = WriterFile::load(path)?;
        Ok(Client::connect(reader, config.volume, PATIENCE)?)
    }

    /// Connects to the writer.
    pub(crate) fn connect(&self) -> Result<Client, Box<dyn Error>> {
        let Some(path) = &self.config else { return self.place.connect() };
        let (config, listen) = WriterFile::load(path)?;
        let connected = Client::connect(listen, config.volume, PATIENCE);
        connected.map_err(|error| match error {
            ClientError::Connect { .. } => {
                let program = std::env::args().next().unwrap_or_else(|| "quorate".into());
                let path = path.display();
                format!("{error}. Start it with `{program} writer --config {path}`").into()
            }
            ClientError::Connection(_)
            | ClientError::Hello(_)
            | ClientError::Oversized { .. }
            | ClientError::Refused(_)
            | ClientError::TimedOut(_)
            | ClientError::Unexpected => error.into(),
        })
    }
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(())
}
