//! `quorate load`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use quorate_core::id::Ticket;
use quorate_node::client::{Client, ClientError, Outcome as Answer};
use quorate_node::clock::{Clock, Moment};
use quorate_node::payload::PAGE_BYTES_MAX;
use quorate_node::volume::PageImage;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Outcome;
use crate::place::{Reach, print_json};
use crate::stored::{self, FILE_BYTES_MAX, MANIFEST, Manifest};

/// Pages in one mini-transaction.
const PAGES_PER_WRITE: usize = 16;

/// Mini-transactions under way.
const WRITES_FLYING: usize = 64;

/// How often progress is shown on a terminal.
const PROGRESS: Duration = Duration::from_millis(200);

/// Load a file into the volume, in place of the one loaded before; `quorate cat` gives it back.
#[derive(Args, Debug)]
#[command(after_help = "Example: quorate load README.md && quorate cat | cmp - README.md")]
pub(crate) struct Load {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Loaded<'a> {
    file: &'a Path,
    bytes: u64,
    seconds: f64,
    mb_per_second: f64,
    sha256: String,
    durable_at_lsn: u64,
}

impl Load {
    pub(crate) fn execute(self) -> Outcome {
        let at = |error: io::Error| format!("cannot read {}: {error}", self.file.display());
        let mut file = File::open(&self.file).map_err(at)?;
        let mut client = self.reach.connect()?;
        let clock = Clock::start();
        // Until the end, the volume says that the file in it isn't whole.
        client.write_now(&[PageImage { page: MANIFEST, bytes: stored::loading() }])?;
        let mut loading = Loading::new(&mut client, clock);
        let mut sum = Sha256::new();
        let mut bytes = 0u64;
        let mut index = 0;
        loop {
            let mut images = Vec::new();
            while images.len() < PAGES_PER_WRITE {
                let mut page = Vec::with_capacity(PAGE_BYTES_MAX);
                let count = (&mut file).take(PAGE_BYTES_MAX as u64).read_to_end(&mut page);
                if count.map_err(at)? == 0 {
                    break;
                }
                sum.update(&page);
                bytes = bytes.saturating_add(page.len() as u64);
                images.push(PageImage { page: stored::page(index), bytes: page });
                index = index.saturating_add(1);
            }
            if images.is_empty() {
                break;
            }
            if bytes > FILE_BYTES_MAX {
                return Err("the file is larger than a volume has pages for".into());
            }
            loading.write(&images)?;
        }
        loading.finish()?;
        let manifest = Manifest { bytes, digest: sum.finalize().into() };
        let written =
            client.write_now(&[PageImage { page: MANIFEST, bytes: manifest.to_page() }])?;
        let seconds = clock.now().since(Moment::default()).as_secs_f64();
        let sha256 = stored::shown(&manifest.digest);
        let rate = bytes as f64 / 1e6 / seconds.max(1e-9);
        let lsn = written.cpl.get();
        if self.json {
            return print_json(&Loaded {
                file: &self.file,
                bytes,
                seconds,
                mb_per_second: rate,
                sha256,
                durable_at_lsn: lsn,
            });
        }
        let mut out = io::stdout().lock();
        let name = self.file.display();
        writeln!(out, "{name}: {bytes} bytes in {seconds:.2} s, {rate:.1} MB/s")?;
        writeln!(out, "SHA-256 {sha256}, durable at LSN {lsn}")?;
        Ok(())
    }
}

/// Writes under way.
struct Loading<'a> {
    client: &'a mut Client,
    flying: BTreeMap<Ticket, u64>,
    acknowledged: u64,
    clock: Clock,
    shown: Moment,
    is_terminal: bool,
}

impl<'a> Loading<'a> {
    fn new(client: &'a mut Client, clock: Clock) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let (flying, shown) = (BTreeMap::new(), Moment::default());
        Self { client, flying, acknowledged: 0, clock, shown, is_terminal }
    }

    fn write(&mut self, images: &[PageImage]) -> Result<(), ClientError> {
        if self.flying.len() >= WRITES_FLYING {
            self.take()?;
        }
        let bytes = images.iter().map(|image| image.bytes.len() as u64).sum();
        let ticket = self.client.write(images)?;
        self.flying.insert(ticket, bytes);
        Ok(())
    }

    fn take(&mut self) -> Result<(), ClientError> {
        let (ticket, answer) = self.client.receive()?;
        match (answer, self.flying.remove(&ticket)) {
            (Answer::Written(_), Some(bytes)) => {
                self.acknowledged = self.acknowledged.saturating_add(bytes);
                self.show();
                Ok(())
            }
            (Answer::Refused(refusal), _) => Err(refusal.into()),
            (
                Answer::Members(_)
                | Answer::Opened(..)
                | Answer::Page(_)
                | Answer::Reader(_)
                | Answer::Status(_)
                | Answer::Stepped(_)
                | Answer::Written(_),
                _,
            ) => Err(ClientError::Unexpected),
        }
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        while !self.flying.is_empty() {
            self.take()?;
        }
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
        Ok(())
    }

    fn show(&mut self) {
        let now = self.clock.now();
        if !self.is_terminal || now.since(self.shown) < PROGRESS {
            return;
        }
        self.shown = now;
        let megabytes = self.acknowledged as f64 / 1e6;
        let rate = megabytes / now.since(Moment::default()).as_secs_f64().max(1e-9);
        eprint!("\r\x1b[K{megabytes:.1} MB durable, {rate:.1} MB/s");
    }
}
