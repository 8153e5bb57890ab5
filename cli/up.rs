//! `quorate up`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use quorate_node::clock::Clock;
use quorate_node::cluster::{Absent, Answered, Cluster, ClusterFile, Ended};
use serde::Serialize;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::Outcome;
use crate::place::{Place, print_json};

/// How long the processes may take to end before they are killed.
const END_MAX: Duration = Duration::from_secs(10);

/// Run a cluster on this machine: six nodes in three zones and a writer, until Ctrl-C.
///
/// A directory that holds a volume already goes on with it, without the nodes that don't start if
/// four of the six do.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: quorate up
Then, in another terminal: quorate status

It runs in the foreground; Ctrl-C, SIGTERM or `quorate down` end all seven processes, and so does
any other end of this one. What they hold stays in the directory.")]
pub(crate) struct Up {
    #[command(flatten)]
    place: Place,
    /// Print JSON: a line when the cluster is ready, and one for each process that ends by itself
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ready<'a> {
    event: &'static str,
    seconds: f64,
    is_new: bool,
    cluster: &'a ClusterFile,
    /// The nodes that don't run.
    absent: Vec<AbsentRow<'a>>,
    /// The nodes that have no vote until their peers have repaired their logs.
    impaired: &'a [String],
}

#[derive(Serialize)]
struct AbsentRow<'a> {
    name: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct Lost<'a> {
    event: &'static str,
    name: &'a str,
    status: String,
    words: &'a str,
    again: String,
}

#[derive(Serialize)]
struct Changed {
    event: &'static str,
    names: Vec<String>,
}

impl Up {
    pub(crate) fn execute(self) -> Outcome {
        let directory = &self.place.directory;
        let is_new = ClusterFile::load(directory)?.is_none();
        let clock = Clock::start();
        let executable = std::env::current_exe()?;
        let mut cluster = Cluster::start_with_quorum(&executable, directory)?;
        let seconds = clock.now().since(quorate_node::clock::Moment::default()).as_secs_f64();
        // From here on a signal is taken; until here it ends this process, and with it all others.
        let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1])?;
        let file = ClusterFile::load(directory)?.ok_or("cluster.toml is gone: start again")?;
        if self.json {
            let absent = cluster.absent().iter();
            let absent = absent.map(|Absent { name, why }| AbsentRow { name, why }).collect();
            let (cluster, impaired) = (&file, cluster.impaired());
            print_json(&Ready { event: "ready", seconds, is_new, cluster, absent, impaired })?;
        } else {
            self.tell(&file, &cluster, is_new, seconds)?;
        }
        // One may have ended before anybody listened.
        self.report(&mut cluster)?;
        for signal in signals.forever() {
            match signal {
                SIGCHLD => self.report(&mut cluster)?,
                SIGUSR1 => self.answer(&mut cluster)?,
                _ => break,
            }
        }
        self.say("ending the writer and the nodes ...")?;
        let stubborn = cluster.end(END_MAX)?;
        if !stubborn.is_empty() {
            let names = stubborn.join(", ");
            return Err(
                format!("{names} did not end within {END_MAX:?} and had to be killed").into()
            );
        }
        let up = self.place.command("up");
        self.say(&format!("ended. The data stay in {}; go on with `{up}`", directory.display()))
    }

    fn say(&self, text: &str) -> Outcome {
        if !self.json {
            writeln!(io::stdout().lock(), "{text}")?;
        }
        Ok(())
    }

    fn tell(&self, file: &ClusterFile, cluster: &Cluster, is_new: bool, seconds: f64) -> Outcome {
        let directory = &self.place.directory;
        let mut out = io::stdout().lock();
        let state = if is_new { "new" } else { "continued" };
        writeln!(
            out,
            "volume {} ({state}) in {}, ready in {seconds:.2} s\n",
            file.volume,
            directory.display()
        )?;
        writeln!(out, "  name    zone  address          process  directory")?;
        for member in file.nodes.iter().chain([&file.writer]) {
            writeln!(
                out,
                "  {:<6}  {:<4}  {:<15}  {:<7}  {}",
                member.name,
                member.zone.as_deref().unwrap_or("-"),
                member.address.to_string(),
                member.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
                directory.join(&member.name).display()
            )?;
        }
        for moved in cluster.moved() {
            writeln!(
                out,
                "\n  {} listens at {} instead of {}, where another process listens",
                moved.name, moved.to, moved.from
            )?;
        }
        for name in cluster.elsewhere() {
            writeln!(out, "\n  {name} is run by another process already, which goes on")?;
        }
        for Absent { name, why } in cluster.absent() {
            writeln!(out, "\n!!! {name} DOES NOT RUN, the others go on: {why}")?;
        }
        for name in cluster.impaired() {
            writeln!(
                out,
                "\n  {name} is impaired: its log was damaged, and it has no vote until its peers \
                 have repaired it; what it found is in {}",
                directory.join(name).join("messages.txt").display()
            )?;
        }
        writeln!(out, "\nIn another terminal:\n")?;
        for command in ["status --watch", "write 7 \"hello, quorum\"", "read 7 --strict"] {
            writeln!(out, "  {}", self.place.command(command))?;
        }
        let down = self.place.command("down");
        writeln!(out, "\nCtrl-C here, or `{down}`, ends it; the data stay.")?;
        out.flush()?;
        Ok(())
    }

    /// Does what `quorate repair` asks for.
    fn answer(&self, cluster: &mut Cluster) -> Outcome {
        let (event, names) = match cluster.answer()? {
            Answered::Unreadable(why) => {
                return self.say(&format!("\na request cannot be read and is left alone: {why}"));
            }
            Answered::Nothing => return Ok(()),
            Answered::Provided(name) => ("provided", vec![name]),
            Answered::Retired(names) => ("retired", names),
        };
        if self.json {
            return print_json(&Changed { event, names });
        }
        let names = names.join(", ");
        match event {
            "provided" => self.say(&format!("\n{names} has been started by `quorate repair`")),
            _ => self.say(&format!("\n{names} is no part of the cluster any more")),
        }
    }

    /// Tells of the processes that have ended by themselves.
    fn report(&self, cluster: &mut Cluster) -> Outcome {
        let program = std::env::args().next().unwrap_or_else(|| "quorate".into());
        for Ended { name, status, words, again } in cluster.take_ended()? {
            let again = format!("{program} {again}");
            let status = status.to_string();
            if self.json {
                print_json(&Lost { event: "ended", name: &name, status, words: &words, again })?;
                continue;
            }
            let mut out = io::stdout().lock();
            writeln!(out, "\n{name} has ended ({status}); the others go on. Its last words:")?;
            words.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
            writeln!(out, "Start it again, in another terminal: {again}")?;
        }
        Ok(())
    }
}
