//! The `quorate` command: a thin dispatcher. It exits with 0 on success, with 1 after an error, and
//! with 2 when it was called wrongly.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{Args, Parser, Subcommand};
use quorate_checks::command;
use quorate_core::id::PgId;
use quorate_core::rules::Bug;
use quorate_node::config::{self, NodeConfig, VolumeId};
use quorate_node::demo::{self, Colour, Narrator};
use quorate_node::driver::Node;
use quorate_node::env::real::RealEnvironment;
use quorate_node::env::{Environment, Waker};

mod simulate;

use simulate::SimulateArguments;

/// Amazon Aurora's storage protocol as an open, formally checked core.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, disable_help_subcommand = true)]
struct Quorate {
    #[command(subcommand)]
    command: Command,
}

/// What to do, in alphabetical order.
#[derive(Debug, Subcommand)]
enum Command {
    Check(command::Check),
    /// Tell the whole story on this machine: explore a model, show a broken variant, load a file
    /// into six nodes, kill two, read it back.
    Demo(DemoArguments),
    /// Serve one segment of a volume.
    Node(NodeArguments),
    /// Run whole clusters with faults in simulated worlds, and check what users are told.
    Simulate(SimulateArguments),
    /// Print the version.
    Version,
}

#[derive(Args, Debug)]
struct DemoArguments {
    /// Where to work; kept afterwards [default: ./quorate-demo, removed afterwards]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The file to load [default: a generated one]
    #[arg(long, value_name = "FILE", conflicts_with = "size_mb")]
    file: Option<PathBuf>,
    /// The size of the generated file, in units of 2^20 bytes
    #[arg(long, value_name = "MB", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size_mb: u64,
}

#[derive(Args, Debug)]
struct NodeArguments {
    /// The directory of the segment's log; created if it isn't there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The address to listen at
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The addresses of the group's six segments by position, this one's included
    #[arg(long, value_name = "ADDR,..", value_delimiter = ',', required = true)]
    peers: Vec<SocketAddr>,
    /// The volume, up to sixteen hexadecimal digits
    #[arg(long, value_name = "ID")]
    volume: VolumeId,
    /// The number of the volume's protection groups
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    groups: u32,
    /// The protection group of the segment
    #[arg(long, value_name = "GROUP", default_value_t = 0)]
    group: u32,
    /// The position of the segment in its group, 0 to 5
    #[arg(long, value_name = "POSITION")]
    position: usize,
    /// End when standard input is closed: whoever starts a node so takes it along
    #[arg(long)]
    leashed: bool,
}

fn main() -> ExitCode {
    let outcome = match Quorate::parse().command {
        Command::Check(check) => match check.execute() {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error as Box<dyn Error>),
        },
        Command::Demo(arguments) => run_demo(arguments),
        Command::Node(arguments) => run_node(arguments),
        Command::Simulate(arguments) => match arguments.execute() {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Version => print_version().map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output, `head` for example, has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn print_version() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "quorate {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "core {}", quorate_checks::source::CORE)
}

fn run_demo(arguments: DemoArguments) -> Result<(), Box<dyn Error>> {
    let DemoArguments { dir: directory, file, size_mb } = arguments;
    let executable = std::env::current_exe()?;
    let options = demo::Options { executable, directory, file, size_mb };
    let colour = if io::stdout().is_terminal() { Colour::Coloured } else { Colour::Plain };
    let mut out = io::stdout().lock();
    command::demonstrate(&mut out, Bug::NoFence).map_err(|error| error as Box<dyn Error>)?;
    let mut narrator = Narrator::new(&mut out, colour);
    demo::run(&options, &mut narrator)?;
    narrator.step("Done.")?;
    Ok(())
}

fn run_node(arguments: NodeArguments) -> Result<(), Box<dyn Error>> {
    let geometry = config::geometry(arguments.groups)?;
    let position = config::position(&geometry, arguments.position)?;
    let config = NodeConfig {
        directory: arguments.dir,
        listen: arguments.listen,
        peers: arguments.peers,
        volume: arguments.volume,
        group: PgId::new(arguments.group),
        position,
        geometry,
    };
    let environment = RealEnvironment::new()?;
    let is_over = Arc::new(AtomicBool::new(false));
    if arguments.leashed {
        let (is_over, waker) = (Arc::clone(&is_over), environment.waker());
        thread::spawn(move || {
            // Nothing is ever said; the end of the input is the whole message.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            is_over.store(true, Ordering::SeqCst);
            waker.wake();
        });
    }
    let (listen, volume, group) = (config.listen, config.volume, config.group);
    let (mut node, replay) = Node::start(environment, config)?;
    let status = node.status();
    eprintln!(
        "quorate: segment {position} of {group} of volume {volume} listens at {listen}; \
         {} frames replayed, {} torn bytes cut off, {} records, complete up to LSN {}",
        replay.frames, replay.cut_bytes, status.records, status.scl
    );
    node.run(|| is_over.load(Ordering::SeqCst))?;
    Ok(())
}
