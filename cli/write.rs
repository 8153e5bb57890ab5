//! `quorate write`.

use std::io::{self, Write as _};

use clap::Args;
use quorate_core::id::PageId;
use quorate_node::volume::PageImage;
use serde::Serialize;

use crate::Outcome;
use crate::place::{Place, print_json};

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
    place: Place,
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
        let Self { page, text, place, json } = self;
        let bytes = text.into_bytes();
        let count = bytes.len();
        let image = PageImage { page: PageId::new(page), bytes };
        let lsn = place.connect()?.write_now(&[image])?.cpl.get();
        if json {
            return print_json(&Written { page, bytes: count, durable_at_lsn: lsn });
        }
        writeln!(io::stdout().lock(), "page {page}: {count} bytes, durable at LSN {lsn}")?;
        Ok(())
    }
}
