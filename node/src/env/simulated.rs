//! A world of its own: network, disks, clocks and randomness of a whole cluster in one thread,
//! decided by a seed alone.
//!
//! Time is the number of nanoseconds since the start. It advances only when no process has
//! anything to do, to the next event in the queue. A process takes its turn when it has events or
//! when its deadline has come; [`Environment::wait`] never blocks: it hands over what is there and
//! notes the deadline.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_core::record::Record;

use super::{Environment, Event, KeepNote, LogFile, LogFileError, Stream, Token, Waker};
use crate::clock::Moment;
use crate::format::Note;
use crate::store::{Snapshot, StoreError, Stored};

mod clock;
mod disk;
mod network;
pub(crate) mod random;
mod state;
pub(crate) mod trace;

use network::{EndState, Listener, Parcel, Side};
use state::State;
pub(crate) use state::{Advance, Crash, ProcessId};
pub use trace::Fault;

/// The address that each machine listens at.
pub(crate) fn address(machine: usize) -> SocketAddr {
    let last = u8::try_from(machine).unwrap_or(u8::MAX);
    SocketAddr::from(([10, 0, 0, last], PORT))
}

const PORT: u16 = 7000;

/// The world that the environments of all processes share.
#[derive(Clone, Debug)]
pub(crate) struct World(Rc<RefCell<State>>);

impl World {
    /// Returns a world with one machine in each of these zones.
    pub(crate) fn new(seed: u64, zones: &[usize]) -> Self {
        Self(Rc::new(RefCell::new(State::new(seed, zones))))
    }

    /// Starts a process on a machine.
    pub(crate) fn spawn(&self, machine: usize) -> (ProcessId, SimulatedEnvironment) {
        let woken = Arc::new(AtomicBool::new(false));
        let process = self.0.borrow_mut().spawn(machine, Arc::clone(&woken));
        (process, SimulatedEnvironment { world: Rc::clone(&self.0), process, machine, woken })
    }

    /// Does something to the world between two turns.
    pub(crate) fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.0.borrow_mut())
    }
}

/// The environment of one simulated process.
#[derive(Debug)]
pub(crate) struct SimulatedEnvironment {
    world: Rc<RefCell<State>>,
    process: ProcessId,
    machine: usize,
    woken: Arc<AtomicBool>,
}

impl Environment for SimulatedEnvironment {
    type Listener = SimulatedListener;
    type Log = SimulatedLog;
    type Stream = SimulatedStream;
    type Waker = SimulatedWaker;

    fn now(&self) -> Moment {
        self.world.borrow().local_time(self.machine)
    }

    fn random(&mut self) -> io::Result<u64> {
        Ok(self.world.borrow_mut().bits())
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(Token, SimulatedListener)> {
        let mut state = self.world.borrow_mut();
        let token = state.token();
        let listener = Listener { process: self.process.0, token, waiting: [].into() };
        if state.network.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.network.listeners.insert(address, listener);
        let world = Rc::clone(&self.world);
        Ok((token, SimulatedListener { world, address }))
    }

    fn accept(&mut self, listener: &mut SimulatedListener) -> io::Result<(Token, SimulatedStream)> {
        let mut state = self.world.borrow_mut();
        let waiting = state.network.listeners.get_mut(&listener.address);
        let connection = waiting.and_then(|listener| listener.waiting.pop_front());
        let connection = connection.ok_or(io::ErrorKind::WouldBlock)?;
        let token = state.token();
        state.accept(connection, self.process, token);
        let world = Rc::clone(&self.world);
        Ok((token, SimulatedStream { world, connection, side: Side::Callee }))
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<(Token, SimulatedStream)> {
        let mut state = self.world.borrow_mut();
        let token = state.token();
        let connection = state.call(address, self.machine, self.process, token)?;
        let world = Rc::clone(&self.world);
        Ok((token, SimulatedStream { world, connection, side: Side::Caller }))
    }

    fn open_log(&mut self, _: &Path, header: &[u8]) -> Result<SimulatedLog, LogFileError> {
        let length = self.world.borrow_mut().open_log(self.machine, header);
        let length = length.ok_or(LogFileError::Locked)?;
        let (process, machine) = (self.process, self.machine);
        let notes = self.world.borrow().notes(machine);
        Ok(SimulatedLog { world: Rc::clone(&self.world), process, machine, length, notes })
    }

    fn keep(&mut self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = directory.join(name);
        if let Some(disk) = self.world.borrow_mut().disk(self.machine) {
            disk.kept.insert(path, bytes.to_vec());
        }
        Ok(())
    }

    fn kept(&mut self, directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.world.borrow_mut();
        let disk = state.disk(self.machine);
        Ok(disk.and_then(|disk| disk.kept.get(&directory.join(name)).cloned()))
    }

    /// Nobody listens: a simulated cluster tells its own story.
    fn say(&self, _words: &str) {}

    fn waker(&self) -> SimulatedWaker {
        SimulatedWaker(Arc::clone(&self.woken))
    }

    fn rest(&self) -> bool {
        false
    }

    fn wait(&mut self, deadline: Option<Moment>, events: &mut Vec<Event>) -> io::Result<()> {
        self.world.borrow_mut().wait(self.process, deadline, events);
        Ok(())
    }
}

/// A place where calls come in.
#[derive(Debug)]
pub(crate) struct SimulatedListener {
    world: Rc<RefCell<State>>,
    address: SocketAddr,
}

impl Drop for SimulatedListener {
    fn drop(&mut self) {
        if let Ok(mut state) = self.world.try_borrow_mut() {
            state.stop_listening(self.address);
        }
    }
}

/// One end of a simulated connection.
#[derive(Debug)]
pub(crate) struct SimulatedStream {
    world: Rc<RefCell<State>>,
    connection: usize,
    side: Side,
}

impl Stream for SimulatedStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().read(self.connection, self.side, into)
    }

    fn write(&mut self, from: &[&[u8]]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.connection, self.side, from)
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        if let Ok(mut state) = self.world.try_borrow_mut() {
            state.close(self.connection, self.side);
        }
    }
}

/// The log of a simulated machine.
#[derive(Debug)]
pub(crate) struct SimulatedLog {
    world: Rc<RefCell<State>>,
    process: ProcessId,
    machine: usize,
    length: u64,
    notes: Vec<Note>,
}

impl LogFile for SimulatedLog {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.world.borrow().read_log(self.machine, offset, into)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Its damages leave the notes alone.
    fn has_newest_note(&self, _durable: u64) -> bool {
        true
    }

    fn open_store(&mut self, _salt: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn stored(&self) -> Result<Option<Stored>, StoreError> {
        self.world.borrow_mut().stored(self.machine)
    }

    fn read_stored(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        self.world.borrow().read_stored(self.machine, record)
    }

    fn holds(&mut self, _kept: u64, _at: u64) -> bool {
        true
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        self.world.borrow_mut().checkpoint(self.process, self.machine, &snapshot);
    }

    fn trim(&mut self, kept: u64) {
        self.world.borrow_mut().trim(self.machine, kept);
    }

    fn settle(&mut self, _doubtful: u64, length: u64, _until: u64) -> io::Result<()> {
        self.length = length;
        self.world.borrow_mut().settle_log(self.machine, length);
        Ok(())
    }

    fn replace(&mut self, kept: u64, frame: &[u8], note: Note) -> io::Result<String> {
        let mut state = self.world.borrow_mut();
        let replaced = state.replace_log(self.machine, kept, frame, note);
        (self.length, self.notes) = (replaced, vec![note]);
        Ok("damaged".into())
    }

    fn submit(&mut self, number: u64, frame: Vec<u8>, note: Note, _keep: KeepNote) {
        self.world.borrow_mut().submit(self.process, self.machine, number, &frame, note);
    }

    fn commit(&mut self) -> Option<Event> {
        None
    }
}

/// Wakes a simulated process. Another thread could use it; a simulation has none.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedWaker(Arc<AtomicBool>);

impl Waker for SimulatedWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
