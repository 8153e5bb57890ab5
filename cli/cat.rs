//! `quorate cat`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use quorate_core::id::Ticket;
use quorate_node::client::{ClientError, Outcome as Answer};
use quorate_node::volume::Consistency;
use sha2::{Digest, Sha256};

use crate::Outcome;
use crate::place::Reach;
use crate::stored::{self, MANIFEST, Stored};

/// Pages asked for and not written yet.
const READS_FLYING: usize = 128;

/// Write the file that `quorate load` stored to standard output: exactly its bytes.
///
/// It is read as of one point, whatever is loaded meanwhile, and its SHA-256 is checked at the end.
#[derive(Args, Debug)]
#[command(after_help = "Example: quorate cat > copy && sha256sum copy")]
pub(crate) struct Cat {
    #[command(flatten)]
    reach: Reach,
}

impl Cat {
    pub(crate) fn execute(self) -> Outcome {
        let mut client = self.reach.connect()?;
        let first = client.read_now(MANIFEST, Consistency::Strict)?;
        let load = self.reach.command("load FILE");
        let manifest = match stored::parse(&first.bytes) {
            Stored::File(manifest) => manifest,
            Stored::Loading => {
                return Err(format!(
                    "the last load has not ended, or never did: load a file with `{load}`"
                )
                .into());
            }
            Stored::Nothing => {
                return Err(format!("no file is loaded: load one with `{load}`").into());
            }
            Stored::Unknown => {
                return Err(format!(
                    "{MANIFEST} holds something else than a file's length: load one with `{load}`"
                )
                .into());
            }
        };
        let as_of = Consistency::At(first.read_point.lsn());
        let mut out = io::stdout().lock();
        let mut sum = Sha256::new();
        let mut asked: BTreeMap<Ticket, u64> = BTreeMap::new();
        // Pages that came before their turn.
        let mut early: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let (mut next, mut turn) = (0, 0);
        while turn < manifest.pages() {
            while next < manifest.pages() && asked.len() + early.len() < READS_FLYING {
                asked.insert(client.read(stored::page(next), as_of)?, next);
                next += 1;
            }
            match client.receive()? {
                (ticket, Answer::Page(version)) => {
                    let index = asked.remove(&ticket).ok_or(ClientError::Unexpected)?;
                    early.insert(index, version.bytes);
                }
                (_, Answer::Refused(refusal)) => return Err(refusal.into()),
                (
                    _,
                    Answer::Members(_)
                    | Answer::Opened(..)
                    | Answer::Reader(_)
                    | Answer::Status(_)
                    | Answer::Stepped(_)
                    | Answer::Written(_),
                ) => {
                    return Err(ClientError::Unexpected.into());
                }
            }
            while let Some(bytes) = early.remove(&turn) {
                sum.update(&bytes);
                out.write_all(&bytes)?;
                turn += 1;
            }
        }
        out.flush()?;
        let found: [u8; 32] = sum.finalize().into();
        if found != manifest.digest {
            return Err(format!(
                "the SHA-256 is {}, but {} was loaded: pages of the file were written over",
                stored::shown(&found),
                stored::shown(&manifest.digest)
            )
            .into());
        }
        Ok(())
    }
}
