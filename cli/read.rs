//! `quorate read`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;

use clap::Args;
use quorate_core::id::PageId;
use quorate_core::lsn::Lsn;
use quorate_node::volume::{Consistency, PageVersion};
use serde::Serialize;

use crate::Outcome;
use crate::place::{Reach, print_json};

/// Read a page: its bytes go to standard output, what they are to standard error.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate read 7            as of some point at or after this writer's last commit
  quorate read 7 --strict   linearizable: confirmed by a read quorum first
  quorate read 7 --at 12    as all commits up to LSN 12 left it; 12 has to end a commit
  quorate read 7 --min 12   as of LSN 12 or later; waited for, up to ten seconds
  quorate read 7 --reader 127.0.0.1:7009 --min 12   of a reader instead of the writer")]
pub(crate) struct Read {
    /// The page's number
    #[arg(value_name = "PAGE")]
    page: u64,
    /// Read as of this consistency point
    #[arg(long, value_name = "LSN", conflicts_with_all = ["min", "strict"])]
    at: Option<u64>,
    /// Read as of this LSN or later; wait up to ten seconds until the VDL is there
    #[arg(long, value_name = "LSN", conflicts_with = "strict")]
    min: Option<u64>,
    /// Have a read quorum confirm first that no newer writer is open
    #[arg(long)]
    strict: bool,
    /// Ask the reader that listens here, not the writer
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["at", "strict"])]
    reader: Option<SocketAddr>,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    page: u64,
    read_point: u64,
    /// Of the page's last record; nothing for a page never written.
    lsn: Option<u64>,
    bytes: usize,
    /// What isn't text is replaced; standard output without --json has the bytes.
    text: &'a str,
}

impl Read {
    pub(crate) fn execute(self) -> Outcome {
        let consistency = match (self.at, self.min, self.strict) {
            (Some(lsn), _, _) => Consistency::At(Lsn::new(lsn)),
            (_, Some(lsn), _) => Consistency::AtLeast(Lsn::new(lsn)),
            (_, _, true) => Consistency::Strict,
            (None, None, false) => Consistency::Snapshot,
        };
        let mut client = match self.reader {
            Some(reader) => self.reach.connect_to(reader)?,
            None => self.reach.connect()?,
        };
        let version = client.read_now(PageId::new(self.page), consistency)?;
        let PageVersion { page: _, read_point, lsn, bytes } = version;
        if self.json {
            let text = String::from_utf8_lossy(&bytes);
            return print_json(&Answer {
                page: self.page,
                read_point: read_point.lsn().get(),
                lsn: lsn.map(Lsn::get),
                bytes: bytes.len(),
                text: &text,
            });
        }
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        if io::stdout().is_terminal() && !bytes.is_empty() {
            writeln!(out)?;
        }
        out.flush()?;
        let page = self.page;
        match lsn {
            Some(lsn) => eprintln!("page {page} as of LSN {read_point}, written at LSN {lsn}"),
            None => eprintln!("page {page} as of LSN {read_point}: never written"),
        }
        Ok(())
    }
}
