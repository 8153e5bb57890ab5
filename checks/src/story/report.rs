//! What a writer reports, in words.

use quorate_core::effect::Report;
use quorate_core::lsn::Lsn;
use quorate_core::rules::Rules;
use quorate_core::writer::Writer;

use super::{Narrator, Tone};
use crate::label::{Party, command_refusal, list};

impl<R: Rules> Narrator<'_, R> {
    pub(super) fn report(&mut self, index: usize, old: &Writer<R>, report: &Report) {
        let at = Party::Writer(index);
        match report {
            Report::Confirmed { read_point, .. } => {
                self.tell_clients(index, format!("strict read answered at {read_point}"));
            }
            Report::Durable { vdl } => {
                let from = old.vdl().map_or(Lsn::ZERO, |vdl| vdl.lsn());
                let log = self.world.volume(self.before).epochs.get(index);
                let log = log.map_or(&[][..], |epoch| &epoch.log);
                let commits: Vec<Lsn> = log
                    .iter()
                    .filter(|record| record.cpl && record.lsn > from && record.lsn <= vdl.lsn())
                    .map(|record| record.lsn)
                    .collect();
                let label = match commits.as_slice() {
                    [] => format!("acknowledged up to {vdl}"),
                    [commit] => format!("commit {commit} acknowledged"),
                    _ => format!("commits {} acknowledged", list(commits)),
                };
                self.tell_clients(index, label);
            }
            Report::Grown { group } => {
                self.note(at, format!("the volume has {group}"), Tone::Plain);
            }
            Report::Opened { vdl, .. } => {
                let epoch = self.names.epoch(old.epoch());
                self.tell_clients(index, format!("{epoch} opened at {vdl}"));
            }
            Report::Located { backtrack, .. } => {
                self.note(at, format!("has located {}", backtrack.target), Tone::Plain);
            }
            Report::Overtaken { by } => {
                let label = format!("stops: overtaken by {}", self.names.epoch(*by));
                self.note(at, label, Tone::No);
            }
            Report::Read { page, version, .. } => {
                let version =
                    version.map_or_else(|| "empty".to_owned(), |record| record.lsn.to_string());
                self.tell_clients(index, format!("{page}: {version}"));
            }
            Report::ReadRefused { refusal, .. } => {
                let label = format!("not answered: {}", self.names.refusal(refusal));
                self.note(at, label, Tone::No);
            }
            Report::Refused(refusal) => {
                self.note(at, format!("refuses: {}", command_refusal(refusal)), Tone::No);
            }
            Report::Settled { membership, .. } => {
                self.note(at, format!("{} is settled", membership.epoch()), Tone::Plain);
            }
            Report::Rejected { refusal, .. } => {
                let label = format!("is told no: {}", self.names.refusal(refusal));
                self.note(at, label, Tone::No);
            }
            Report::Written { first, cpl } if first == cpl => {
                self.note(at, format!("writes {cpl}"), Tone::Plain);
            }
            Report::Written { first, cpl } => {
                self.note(at, format!("writes {first} to {cpl} as one MTR"), Tone::Plain);
            }
        }
    }
}
