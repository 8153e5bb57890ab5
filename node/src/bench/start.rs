//! How long `quorate up` takes, and what its processes cost while nobody asks anything of them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::cluster::ClusterFile;

/// How long a cluster is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(2);

/// What a benchmark of starts is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// The program to start.
    pub executable: PathBuf,
    /// Where to work; its contents are removed afterwards.
    pub directory: PathBuf,
    /// How many new clusters; each one is ended and started again.
    pub starts: u32,
    /// How long to watch an idle one.
    pub idle: Duration,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Starts of new volumes.
    pub new: Starts,
    /// Starts that went on with a volume.
    pub continued: Starts,
    /// An idle cluster; `None` where the system has no `/proc`.
    pub idle: Option<Idle>,
}

/// Starts: from the start of the process to its line that all is ready, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Starts {
    /// How many.
    pub starts: usize,
    /// Half of them took at most so long.
    pub p50_s: f64,
    /// None took longer.
    pub max_s: f64,
}

/// The processes of an idle cluster, the one that watches them included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// How many processes.
    pub processes: usize,
    /// How long they were watched, in seconds.
    pub seconds: f64,
    /// The processor time of all of them, user and system, as a share of one processor.
    pub cpu_percent: f64,
}

/// Why starts can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A cluster wasn't ready; it has said why on standard error.
    #[error("`quorate up` did not get ready: {0}")]
    NotReady(String),
}

/// Starts clusters one after the other, and calls `tell` with how many have been started.
///
/// # Errors
/// [`StartError`] at the first thing that goes wrong.
pub fn run(options: &Options, mut tell: impl FnMut(u32)) -> Result<Report, StartError> {
    let (mut new, mut continued) = (Vec::new(), Vec::new());
    let mut idle = None;
    for start in 1..=options.starts.max(1) {
        let directory = options.directory.join(start.to_string());
        new.push(Up::start(&options.executable, &directory)?.end()?);
        let up = Up::start(&options.executable, &directory)?;
        if start == options.starts.max(1) {
            thread::sleep(SETTLE);
            idle = up.watch(options.idle)?;
        }
        continued.push(up.end()?);
        fs::remove_dir_all(&directory)?;
        tell(start);
    }
    let sum = |times: &[f64]| {
        Starts::of(times).ok_or_else(|| StartError::NotReady("nothing was started".into()))
    };
    Ok(Report { new: sum(&new)?, continued: sum(&continued)?, idle })
}

impl Starts {
    /// Sums up what starts took; `None` of none.
    #[must_use]
    pub fn of(times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len().div_ceil(2).checked_sub(1)?;
        let (p50_s, max_s) = (*sorted.get(middle)?, *sorted.last()?);
        Some(Self { starts: sorted.len(), p50_s, max_s })
    }
}

/// A running `quorate up`. It ends with this value.
struct Up {
    child: Child,
    seconds: f64,
    cluster: ClusterFile,
}

/// The line that says that a cluster is ready.
#[derive(Deserialize)]
struct Ready {
    cluster: ClusterFile,
}

impl Up {
    fn start(executable: &Path, directory: &Path) -> Result<Self, StartError> {
        let clock = Clock::start();
        let start = clock.now();
        let mut child = Command::new(executable)
            .args(["up", "--json", "--dir"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let read = child.stdout.as_mut().map(|out| BufReader::new(out).read_line(&mut line));
        let seconds = clock.now().since(start).as_secs_f64();
        let ready = serde_json::from_str::<Ready>(&line);
        match (read.transpose(), ready) {
            (Ok(_), Ok(Ready { cluster })) => Ok(Self { child, seconds, cluster }),
            (Err(error), _) => {
                end(&mut child);
                Err(error.into())
            }
            (Ok(_), Err(error)) => {
                end(&mut child);
                Err(StartError::NotReady(error.to_string()))
            }
        }
    }

    /// Ends the cluster as Ctrl-C does; returns how long its start took.
    fn end(mut self) -> Result<f64, StartError> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(io::Error::from)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(StartError::NotReady(format!("it ended with {status}")));
        }
        Ok(self.seconds)
    }

    /// Watches the processes for `span`.
    fn watch(&self, span: Duration) -> Result<Option<Idle>, StartError> {
        let members = self.cluster.nodes.iter().chain([&self.cluster.writer]);
        let pids: Vec<u32> =
            members.filter_map(|member| member.pid).chain([self.child.id()]).collect();
        let Some(before) = ticks(&pids) else { return Ok(None) };
        let clock = Clock::start();
        let start = clock.now();
        thread::sleep(span);
        let seconds = clock.now().since(start).as_secs_f64();
        let gone = || StartError::NotReady("a process ended while it was watched".into());
        let ticks = ticks(&pids).ok_or_else(gone)?.saturating_sub(before);
        // Far below 2^53.
        let used = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Some(Idle { processes: pids.len(), seconds, cpu_percent: 100.0 * used / seconds }))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends `quorate up`, if it hasn't ended; its nodes end with it.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns the processor time of processes, in the system's ticks; `None` when one can't be told.
fn ticks(pids: &[u32]) -> Option<u64> {
    pids.iter().map(|pid| ticks_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum()
}

/// Returns the processor time in a line of `/proc/PID/stat`: its 14th and 15th fields. The second
/// one, a name in parentheses, may have anything in it.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user.saturating_add(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wrong column would be some other number.
    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "4242 (a) b (c) S 1 4242 4242 0 -1 4194304 95 0 0 0 17 5 0 0 20 0 1 0 77 1 2";
        assert_eq!(ticks_in(stat), Some(22));
        assert_eq!(ticks_in("nonsense"), None);
    }

    #[test]
    fn starts_are_summed_up_by_their_median_and_their_worst() {
        let starts = Starts::of(&[0.4, 0.1, 0.3, 0.2]);
        assert_eq!(starts, Some(Starts { starts: 4, p50_s: 0.2, max_s: 0.4 }));
        assert_eq!(Starts::of(&[]), None);
    }
}
