//! `quorate write`.

use std::io::{self, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use quorate_core::id::PageId;
use quorate_node::volume::PageImage;
use serde::Serialize;

use crate::Outcome;
use crate::place::{Reach, print_json};

/// How long a write waits before a person is told why.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Write a page, and return when it is durable for good.
#[derive(Args, Debug)]
#[command(after_help = "Example: quorate write 7 \"hello, quorum\"")]
pub(crate) struct Write {
    /// The page's number
    #[arg(value_name = "PAGE")]
    page: u64,
    /// Its contents from now on, at most 8192 bytes
    #[arg(value_name = "TEXT")]
    text: String,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Written {
    page: u64,
    bytes: usize,
    durable_at_lsn: u64,
}

impl Write {
    pub(crate) fn execute(self) -> Outcome {
        let Self { page, text, reach, json } = self;
        let bytes = text.into_bytes();
        let count = bytes.len();
        let image = PageImage { page: PageId::new(page), bytes };
        let mut client = reach.connect()?;
        let (done, is_done) = mpsc::channel::<()>();
        let status = reach.command("status");
        let watching = thread::spawn(move || {
            if is_done.recv_timeout(SILENCE_MAX) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "the write waits: four of six nodes have to hold it. `{status}` shows them"
                );
            }
        });
        let written = client.write_now(&[image]);
        drop(done);
        let _ = watching.join();
        let lsn = written?.cpl.get();
        if json {
            return print_json(&Written { page, bytes: count, durable_at_lsn: lsn });
        }
        writeln!(io::stdout().lock(), "page {page}: {count} bytes, durable at LSN {lsn}")?;
        Ok(())
    }
}
