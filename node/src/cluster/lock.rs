//! Who runs the cluster of a directory: whoever has its lock, and nobody else.
//!
//! The lock is the operating system's, which also says who holds it: a process that has died holds
//! nothing, and another one with its number is never taken for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, Signal, fcntl_getlk};

use crate::clock::{Clock, Moment};

/// The file that is locked. It stays when the lock is gone: it says nothing by itself.
const LOCK_NAME: &str = "cluster.lock";

/// The file that whoever replaces nodes locks.
const STEWARD_LOCK_NAME: &str = "steward.lock";

/// The time between two looks at a lock that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// The right to run the cluster of a directory; ends with this value or with this process.
#[derive(Debug)]
pub(super) struct ClusterLock {
    _file: File,
}

impl ClusterLock {
    /// Takes the lock of `directory`; `None` when another process has it.
    pub(super) fn take(directory: &Path) -> io::Result<Option<Self>> {
        Ok(locked(directory, LOCK_NAME)?.map(|file| Self { _file: file }))
    }
}

/// The right to replace nodes of the cluster of a directory; ends with this value or with this
/// process.
#[derive(Debug)]
pub(super) struct StewardLock {
    _file: File,
}

impl StewardLock {
    /// Takes the lock of `directory`; `None` when another process has it.
    pub(super) fn take(directory: &Path) -> io::Result<Option<Self>> {
        Ok(locked(directory, STEWARD_LOCK_NAME)?.map(|file| Self { _file: file }))
    }
}

/// Returns the file `name` of `directory`, locked, or `None` when another process has locked it.
fn locked(directory: &Path, name: &str) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(directory.join(name))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the process that runs the cluster of `directory`, if one does.
fn holder(directory: &Path) -> io::Result<Option<Pid>> {
    let file = match File::open(directory.join(LOCK_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
    Ok(held.and_then(|lock| lock.pid))
}

/// Returns the number of the process that runs the cluster of `directory`, if one does.
///
/// # Errors
/// As the operating system reports them.
pub fn running(directory: &Path) -> io::Result<Option<i32>> {
    Ok(holder(directory)?.map(Pid::as_raw_pid))
}

/// What became of a request to end a cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped {
    /// The process with this number ran it and has ended.
    Ended(i32),
    /// None was running.
    NotRunning,
    /// The process with this number was told, and still runs it.
    StillRunning(i32),
}

/// Tells whoever runs the cluster of `directory` to end it, and waits up to `patience` until it
/// has.
///
/// # Errors
/// As the operating system reports them.
pub fn stop(directory: &Path, patience: Duration) -> io::Result<Stopped> {
    let Some(pid) = holder(directory)? else { return Ok(Stopped::NotRunning) };
    signal_holder(directory, pid, Signal::TERM)?;
    let clock = Clock::start();
    while holder(directory)? == Some(pid) {
        if clock.now() > Moment::new(patience) {
            return Ok(Stopped::StillRunning(pid.as_raw_pid()));
        }
        thread::sleep(POLL);
    }
    Ok(Stopped::Ended(pid.as_raw_pid()))
}

/// Tells whoever runs the cluster of `directory` to look for a request, by SIGUSR1. Returns whether
/// anybody runs it.
pub(super) fn call(directory: &Path) -> io::Result<bool> {
    let Some(pid) = holder(directory)? else { return Ok(false) };
    signal_holder(directory, pid, Signal::USR1)?;
    Ok(true)
}

/// Sends `signal` to `pid` if it holds the lock.
///
/// The process is named before the lock is looked at for the last time: if it ended in between,
/// its number may be another's by now, but the name still means it, and nobody gets the signal.
#[cfg(target_os = "linux")]
fn signal_holder(directory: &Path, pid: Pid, signal: Signal) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        other => other?,
    };
    if holder(directory)? != Some(pid) {
        return Ok(());
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends `signal` to `pid` if it holds the lock. This system has no name for a process but its
/// number; it would have to end and its number be used again between these two lines.
#[cfg(not(target_os = "linux"))]
fn signal_holder(directory: &Path, pid: Pid, signal: Signal) -> io::Result<()> {
    if holder(directory)? != Some(pid) {
        return Ok(());
    }
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
