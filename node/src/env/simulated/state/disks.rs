//! The disks of the machines.

use std::io;

use quorate_core::record::Record;

use super::super::disk::{CHECKPOINT_MAX, CHECKPOINT_MIN, Disk, Synced};
use super::super::trace::{Fault, What};
use super::{Pending, ProcessId, State};
use crate::env::Event;
use crate::format::{self, Note};
use crate::store::{self, Snapshot, StoreError, Stored};

impl State {
    pub(in crate::env::simulated) fn disk(&mut self, machine: usize) -> Option<&mut Disk> {
        self.machines.get_mut(machine).map(|machine| &mut machine.disk)
    }

    /// Loses everything on the disk of a machine on which nothing runs.
    pub(crate) fn lose_disk(&mut self, machine: usize) {
        let Some(machine) = self.machines.get_mut(machine) else { return };
        machine.disk = machine.disk.replaced();
        self.trace.fire(Fault::DiskLost);
    }

    pub(in crate::env::simulated) fn open_log(
        &mut self,
        machine: usize,
        header: &[u8],
    ) -> Option<u64> {
        self.machines.get_mut(machine)?.disk.open(header)
    }

    pub(in crate::env::simulated) fn read_log(
        &self,
        machine: usize,
        at: u64,
        into: &mut [u8],
    ) -> io::Result<()> {
        let machine = self.machines.get(machine).ok_or(io::ErrorKind::NotFound)?;
        machine.disk.read(at, into)
    }

    /// Returns the checkpoint on a disk, for a log whose header is whole.
    pub(in crate::env::simulated) fn stored(
        &mut self,
        machine: usize,
    ) -> Result<Option<Stored>, StoreError> {
        let disk = &self.machines.get(machine).ok_or(StoreError::Gone)?.disk;
        let mut header = vec![0; format::HEADER_BYTES + format::IDENTITY_BYTES_MAX];
        disk.read(0, &mut header)?;
        let (identity, _) = format::decode_header(&header).map_err(|_| StoreError::Damaged)?;
        let stored = disk.stored(|tables| store::load(tables, identity.salt))?;
        if stored.is_some() {
            self.trace.fire(Fault::Restored);
        }
        Ok(stored)
    }

    pub(in crate::env::simulated) fn read_stored(
        &self,
        machine: usize,
        record: &Record,
    ) -> Result<Vec<u8>, StoreError> {
        let machine = self.machines.get(machine).ok_or(StoreError::Gone)?;
        machine.disk.stored(|tables| store::read(tables, record))
    }

    pub(in crate::env::simulated) fn checkpoint(
        &mut self,
        process: ProcessId,
        machine: usize,
        made: &Snapshot,
    ) {
        let Some(slot) = self.machines.get_mut(machine) else { return };
        if let Err(error) = slot.disk.checkpoint(made) {
            return self.tell(process, Event::CheckpointFailed { error });
        }
        let generation = slot.disk.generation;
        let time = self.random.span(CHECKPOINT_MIN, CHECKPOINT_MAX);
        let at = self.now.saturating_add(time);
        self.push(at, Pending::Checkpoint { machine, process, generation });
    }

    pub(in crate::env::simulated) fn end_checkpoint(
        &mut self,
        machine: usize,
        process: ProcessId,
        generation: u64,
    ) {
        let Some(slot) = self.machines.get_mut(machine) else { return };
        if slot.disk.generation != generation {
            return;
        }
        if let Some(made) = slot.disk.end_checkpoint() {
            self.trace.fire(Fault::Checkpoint);
            let frames = usize::try_from(made.frames).unwrap_or(usize::MAX);
            self.note(What::Checkpointed, machine, frames, &made.at.to_le_bytes());
            self.tell(process, Event::Checkpointed(made));
        }
    }

    pub(in crate::env::simulated) fn trim(&mut self, machine: usize, kept: u64) {
        if let Some(slot) = self.machines.get_mut(machine) {
            slot.disk.trim(kept, &mut self.trace);
        }
    }

    pub(in crate::env::simulated) fn settle_log(&mut self, machine: usize, length: u64) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.disk.settle(length);
        }
    }

    /// Returns the length of the new log.
    pub(in crate::env::simulated) fn replace_log(
        &mut self,
        machine: usize,
        kept: u64,
        frame: &[u8],
        note: Note,
    ) -> u64 {
        let machine = self.machines.get_mut(machine);
        machine.map_or(0, |machine| machine.disk.replace(kept, frame, note))
    }

    /// Damages bytes of a log that a note says were durable; returns whether there were any.
    pub(crate) fn rot(&mut self, machine: usize) -> bool {
        let machine = self.machines.get_mut(machine);
        let has_rotted = machine.is_some_and(|machine| machine.disk.rot(&mut self.random));
        if has_rotted {
            self.trace.fire(Fault::Rot);
        }
        has_rotted
    }

    pub(in crate::env::simulated) fn notes(&self, machine: usize) -> Vec<Note> {
        self.machines.get(machine).map(|machine| machine.disk.notes()).unwrap_or_default()
    }

    pub(in crate::env::simulated) fn submit(
        &mut self,
        process: ProcessId,
        machine: usize,
        number: u64,
        bytes: &[u8],
        note: Note,
    ) {
        let (random, trace) = (&mut self.random, &mut self.trace);
        let Some(slot) = self.machines.get_mut(machine) else { return };
        if let Some(time) = slot.disk.submit(number, bytes, note, random, trace) {
            let generation = slot.disk.generation;
            let at = self.now.saturating_add(time);
            self.push(at, Pending::Sync { machine, process, generation });
        }
    }

    pub(in crate::env::simulated) fn end_sync(
        &mut self,
        machine: usize,
        process: ProcessId,
        generation: u64,
    ) {
        let (random, trace) = (&mut self.random, &mut self.trace);
        let Some(slot) = self.machines.get_mut(machine) else { return };
        if slot.disk.generation != generation {
            return;
        }
        let synced = slot.disk.end(trace);
        let next = slot.disk.begin(random, trace);
        if let Some(time) = next {
            let at = self.now.saturating_add(time);
            self.push(at, Pending::Sync { machine, process, generation });
        }
        match synced {
            Synced::Durable { through, bytes } => {
                let frame = usize::try_from(through).unwrap_or(usize::MAX);
                self.note(What::Synced, machine, frame, &bytes.to_le_bytes());
                self.tell(process, Event::Durable { through });
            }
            Synced::Failed => {
                self.note(What::SyncFailed, machine, 0, &[]);
                let error = io::ErrorKind::Other;
                self.tell(process, Event::LogFailed { error });
            }
            Synced::Nothing => {}
        }
    }
}
