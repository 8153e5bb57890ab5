//! A process of a cluster: started on a leash, watched, ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use quorate_core::rules::Bug;
use rustix::process::{Pid, Signal, kill_process};

/// The most bytes of a process's own words that an error repeats.
const WORDS_MAX: u64 = 2_048;

/// A running process. It ends with this value, and with this process however it ends: it holds the
/// other end of a pipe and ends when the pipe closes.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Running {
    /// Starts `executable KIND --config CONFIG --leashed`, with the seeded bug `mutant` if there is
    /// one, in a process group of its own: what a terminal sends to this process's group is for
    /// this process to pass on.
    pub(crate) fn start(
        executable: &Path,
        kind: &str,
        config: &Path,
        words: &Path,
        mutant: Option<Bug>,
    ) -> io::Result<Self> {
        let mut command = Command::new(executable);
        command.args([kind, "--config"]).arg(config).arg("--leashed");
        if let Some(bug) = mutant {
            command.args(["--mutant", bug.name()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(words)?)
            .process_group(0)
            .spawn()?;
        let leash = child.stdin.take();
        Ok(Self { child, leash })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the process ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_end(&mut self) {
        self.leash = None;
    }

    /// Stops the process by SIGSTOP: it keeps its memory and its sockets, and does nothing.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a stopped process go on, by SIGCONT.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // The child hasn't been waited for, so that nobody else has its number.
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends the process at once, by SIGKILL: it gets no chance to write anything more.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Returns the end of what a process wrote.
pub(crate) fn last_words(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WORDS_MAX)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_string())
    };
    read().unwrap_or_default()
}
