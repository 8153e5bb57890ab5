//! The `quorate` command: a dispatcher, with a file for each command. It exits with 0 on success,
//! with 1 after an error, and with 2 when it was called wrongly.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate_checks::command;

mod backtrack;
mod bench;
mod cat;
mod demo;
mod down;
mod ending;
mod load;
mod members;
mod mutant;
mod node;
mod place;
mod read;
mod reader;
mod repair;
mod status;
mod stored;
mod torture;
mod up;
mod write;
mod writer;

/// What a command comes to.
type Outcome = Result<(), Box<dyn Error>>;

mod simulate;

/// Amazon Aurora's storage protocol as an open, formally checked core.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, disable_help_subcommand = true)]
#[command(after_help = "Begin with `quorate demo`, or with `quorate up` and `quorate status`.")]
struct Quorate {
    #[command(subcommand)]
    command: Command,
}

/// What to do, in alphabetical order.
#[derive(Debug, Subcommand)]
enum Command {
    Backtrack(backtrack::Backtrack),
    /// Measure durable writes, beside the least that any program does, in one run.
    ///
    /// The volume first writes until the files of its logs are used again, as those of every volume
    /// are that isn't new: half a gigabyte to each of six logs. It keeps little to go back to.
    Bench(bench::Bench),
    Cat(cat::Cat),
    Check(command::Check),
    Demo(demo::Demo),
    Down(down::Down),
    Load(load::Load),
    Members(members::MembersArguments),
    Node(node::NodeArguments),
    Read(read::Read),
    Reader(reader::ReaderArguments),
    Repair(repair::Repair),
    Simulate(simulate::SimulateArguments),
    Status(status::StatusArguments),
    Torture(torture::TortureArguments),
    Up(up::Up),
    /// Print the version.
    Version,
    Write(write::Write),
    Writer(writer::WriterArguments),
}

fn main() -> ExitCode {
    let outcome = match Quorate::parse().command {
        Command::Backtrack(backtrack) => backtrack.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Cat(cat) => cat.execute(),
        Command::Check(check) => match check.execute() {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error as Box<dyn Error>),
        },
        Command::Demo(demo) => match demo.execute() {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Down(down) => down.execute(),
        Command::Load(load) => load.execute(),
        Command::Members(members) => members.execute(),
        Command::Node(node) => node.execute(),
        Command::Read(read) => read.execute(),
        Command::Reader(reader) => reader.execute(),
        Command::Repair(repair) => repair.execute(),
        Command::Simulate(arguments) => match arguments.execute() {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Status(status) => status.execute(),
        Command::Torture(torture) => torture.execute(),
        Command::Up(up) => up.execute(),
        Command::Version => print_version().map_err(Into::into),
        Command::Write(write) => write.execute(),
        Command::Writer(writer) => writer.execute(),
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
    writeln!(out, "core {}", quorate_checks::source::CORE)?;
    writeln!(out, "node {}", quorate_node::source::NODE)
}
