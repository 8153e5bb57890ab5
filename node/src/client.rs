//! A client of a writer process: requests and replies over one connection, many under way.
//!
//! It waits where it has to, and has no thread of its own: [`Client::read`] and [`Client::write`]
//! send a request and return its ticket, [`Client::receive`] waits for the next reply, whichever it
//! is.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::consistency::Vdl;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::id::{PageId, PgId, Position, Ticket};
use quorate_core::lsn::Lsn;
use quorate_core::membership::Step;

use crate::addresses::Place;
use crate::config::VolumeId;
use crate::connection::{Connection, ConnectionError};
use crate::status::Blocking;
use crate::volume::{Committed, Consistency, PageImage, PageVersion};
use crate::wire::client::{
    Answer, ClientRefusal, ClientReply, ClientRequest, ClientWelcome, PageSum, Question,
    ReaderStatus, WriterStatus,
};
use crate::wire::members::{Stepped, VolumeMembers};
use crate::wire::{self, Envelope, Hello, HelloRefusal, Role, WireError};

/// Why a client gets no answer, or a no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no writer process to talk to.
    #[error("no writer answers at {address}: {error}")]
    Connect {
        /// Where it should be.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The connection ended. Writes without a reply may or may not take effect.
    #[error("the writer is gone ({0}); the outcome of writes under way is unknown")]
    Connection(#[from] ConnectionError),
    /// The writer turned this client away.
    #[error("the writer turned this client away: {0}")]
    Hello(HelloRefusal),
    /// A page above its bound.
    #[error("{page} has {length} bytes, and a page has at most 8192: write less")]
    Oversized {
        /// The page.
        page: PageId,
        /// Its length.
        length: usize,
    },
    /// The writer refuses the request.
    #[error(transparent)]
    Refused(#[from] ClientRefusal),
    /// It didn't answer.
    #[error(
        "the writer did not answer within {0:?}; the outcome of writes under way is unknown. Look \
         at it with `quorate status`: with three nodes of six down nothing is acknowledged"
    )]
    TimedOut(Duration),
    /// It said something else.
    #[error("the writer answered something else: is it of another version?")]
    Unexpected,
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        Self::Connection(error.into())
    }
}

/// What a request came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The volume is open where it was to go, in this epoch, at this point.
    Opened(VolumeEpoch, Vdl),
    /// The page that was asked for.
    Page(PageVersion),
    /// How the reader is, if it is one that was asked.
    Reader(ReaderStatus),
    /// The writer refuses.
    Refused(ClientRefusal),
    /// Who the members are.
    Members(VolumeMembers),
    /// How the writer is.
    Status(Box<WriterStatus>),
    /// What became of a step.
    Stepped(Stepped),
    /// The write is durable for good.
    Written(Committed),
}

/// A connection to a writer process.
#[derive(Debug)]
pub struct Client {
    connection: Connection<Blocking>,
    welcome: ClientWelcome,
    last: u64,
    patience: Duration,
}

impl Client {
    /// Connects to the writer process of `volume` at `address`. `patience` is how long it may take
    /// to connect, to take a request, and to send the next reply.
    ///
    /// # Errors
    /// [`ClientError`] when nobody answers there, or somebody else.
    pub fn connect(
        address: SocketAddr,
        volume: VolumeId,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let at = |error| ClientError::Connect { address, error };
        let stream = TcpStream::connect_timeout(&address, patience).map_err(at)?;
        stream.set_nodelay(true).map_err(at)?;
        stream.set_read_timeout(Some(patience)).map_err(at)?;
        stream.set_write_timeout(Some(patience)).map_err(at)?;
        let mut connection = Connection::new(Blocking(stream));
        let (group, position) = (PgId::new(0), Position::first(1).next());
        let position = position.ok_or(ClientError::Unexpected)?;
        let hello = Hello { volume, group, position, role: Role::Client };
        connection.send(Arc::new(wire::encode(&Envelope::Hello(hello), &[])?));
        let welcome = match exchange(&mut connection, patience)? {
            (Envelope::ClientWelcome(welcome), _) => welcome,
            (Envelope::Refused(refusal), _) => return Err(ClientError::Hello(refusal)),
            _ => return Err(ClientError::Unexpected),
        };
        Ok(Self { connection, welcome, last: 0, patience })
    }

    /// Returns what the writer said first.
    #[must_use]
    pub const fn welcome(&self) -> &ClientWelcome {
        &self.welcome
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// [`ClientError`] when the request can't be sent.
    pub fn read(&mut self, page: PageId, consistency: Consistency) -> Result<Ticket, ClientError> {
        self.ask(Question::Read { page, consistency }, &[])
    }

    /// Asks for pages to be written as one mini-transaction, at most
    /// [`wire::client::WRITE_PAGES_MAX`] of them.
    ///
    /// # Errors
    /// [`ClientError`] when the request can't be sent.
    pub fn write(&mut self, pages: &[PageImage]) -> Result<Ticket, ClientError> {
        if pages.len() > wire::client::WRITE_PAGES_MAX {
            return Err(ClientRefusal::Oversized.into());
        }
        let sum = |image: &PageImage| {
            let (page, length) = (image.page, image.bytes.len());
            PageSum::describe(page, &image.bytes).ok_or(ClientError::Oversized { page, length })
        };
        let sums = pages.iter().map(sum).collect::<Result<Vec<_>, _>>()?;
        let bytes: Vec<&[u8]> = pages.iter().map(|image| image.bytes.as_slice()).collect();
        self.ask(Question::Write { pages: sums }, &bytes)
    }

    /// Sends a request, and returns the ticket that its reply will bear.
    fn ask(&mut self, question: Question, bytes: &[&[u8]]) -> Result<Ticket, ClientError> {
        self.last = self.last.saturating_add(1);
        let ticket = Ticket::new(self.last);
        let request = ClientRequest { ticket, question };
        let frame = wire::encode(&Envelope::FromClient(request), bytes)?;
        self.connection.send(Arc::new(frame));
        self.connection.ready(false, true);
        self.connection.flush()?;
        if self.connection.backlog() > 0 {
            return Err(ClientError::TimedOut(self.patience));
        }
        Ok(ticket)
    }

    /// Waits for the next reply to any request.
    ///
    /// # Errors
    /// [`ClientError`] when none comes.
    pub fn receive(&mut self) -> Result<(Ticket, Outcome), ClientError> {
        let (envelope, bytes) = exchange(&mut self.connection, self.patience)?;
        let Envelope::ToClient(ClientReply { ticket, answer }) = envelope else {
            return Err(ClientError::Unexpected);
        };
        let outcome = match answer {
            Answer::Opened { epoch, recovery_point } => Outcome::Opened(epoch, recovery_point),
            Answer::Page { page, read_point, lsn } => {
                Outcome::Page(PageVersion { page: page.page, read_point, lsn, bytes })
            }
            Answer::Reader(status) => Outcome::Reader(status),
            Answer::Refused(refusal) => Outcome::Refused(refusal),
            Answer::Status(status) => Outcome::Status(status),
            Answer::Written(committed) => Outcome::Written(committed),
            Answer::Members(members) => Outcome::Members(members),
            Answer::Stepped(stepped) => Outcome::Stepped(stepped),
        };
        Ok((ticket, outcome))
    }

    /// Asks for a page and waits for it; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when it doesn't come.
    pub fn read_now(
        &mut self,
        page: PageId,
        consistency: Consistency,
    ) -> Result<PageVersion, ClientError> {
        let asked = self.read(page, consistency)?;
        match self.receive()? {
            (ticket, Outcome::Page(version)) if ticket == asked && version.page == page => {
                Ok(version)
            }
            (_, Outcome::Refused(refusal)) => Err(refusal.into()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Writes pages and waits until they are durable; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when they are not, or when that isn't known.
    pub fn write_now(&mut self, pages: &[PageImage]) -> Result<Committed, ClientError> {
        let asked = self.write(pages)?;
        match self.receive()? {
            (ticket, Outcome::Written(committed)) if ticket == asked => Ok(committed),
            (_, Outcome::Refused(refusal)) => Err(refusal.into()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Lets the volume go back to the consistency point `target`, or forward again, and waits until
    /// it is open there; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when it can't, or when that isn't known.
    pub fn backtrack_now(&mut self, target: Lsn) -> Result<(VolumeEpoch, Vdl), ClientError> {
        self.ask(Question::Backtrack { target }, &[])?;
        match self.receive()?.1 {
            Outcome::Opened(epoch, point) => Ok((epoch, point)),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Members(_)
            | Outcome::Page(_)
            | Outcome::Reader(_)
            | Outcome::Status(_)
            | Outcome::Stepped(_)
            | Outcome::Written(_) => Err(ClientError::Unexpected),
        }
    }

    /// Asks how the writer is.
    ///
    /// # Errors
    /// [`ClientError`] when the request can't be sent.
    pub fn ask_status(&mut self) -> Result<Ticket, ClientError> {
        self.ask(Question::Status, &[])
    }

    /// Asks how the writer is, and waits for it; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when it doesn't say.
    pub fn status(&mut self) -> Result<WriterStatus, ClientError> {
        self.ask_status()?;
        match self.receive()?.1 {
            Outcome::Status(status) => Ok(*status),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Members(_)
            | Outcome::Stepped(_)
            | Outcome::Opened(..)
            | Outcome::Page(_)
            | Outcome::Reader(_)
            | Outcome::Written(_) => Err(ClientError::Unexpected),
        }
    }

    /// Asks a reader how it is, and waits for it; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when it doesn't say, or is a writer.
    pub fn reader_status(&mut self) -> Result<ReaderStatus, ClientError> {
        self.ask_status()?;
        match self.receive()?.1 {
            Outcome::Reader(status) => Ok(status),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Members(_)
            | Outcome::Stepped(_)
            | Outcome::Opened(..)
            | Outcome::Page(_)
            | Outcome::Status(_)
            | Outcome::Written(_) => Err(ClientError::Unexpected),
        }
    }

    /// Asks who the members of the volume's groups are, and waits for it; nothing else may be under
    /// way.
    ///
    /// # Errors
    /// [`ClientError`] when the writer doesn't say.
    pub fn members(&mut self) -> Result<VolumeMembers, ClientError> {
        self.ask(Question::Members, &[])?;
        match self.receive()?.1 {
            Outcome::Members(members) => Ok(members),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Opened(..)
            | Outcome::Reader(_)
            | Outcome::Page(_)
            | Outcome::Status(_)
            | Outcome::Stepped(_)
            | Outcome::Written(_) => Err(ClientError::Unexpected),
        }
    }

    /// Asks for a step of a membership change, by which the segment at `place` may join, and waits
    /// for what becomes of it; nothing else may be under way.
    ///
    /// # Errors
    /// [`ClientError`] when the writer doesn't say.
    pub fn step(
        &mut self,
        group: PgId,
        step: Step,
        place: Option<Place>,
    ) -> Result<Stepped, ClientError> {
        self.ask(Question::Step { group, step, place }, &[])?;
        match self.receive()?.1 {
            Outcome::Stepped(stepped) => Ok(stepped),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Opened(..)
            | Outcome::Reader(_)
            | Outcome::Members(_)
            | Outcome::Page(_)
            | Outcome::Status(_)
            | Outcome::Written(_) => Err(ClientError::Unexpected),
        }
    }
}

/// Writes what is queued and waits for the next frame.
fn exchange(
    connection: &mut Connection<Blocking>,
    patience: Duration,
) -> Result<(Envelope, Vec<u8>), ClientError> {
    connection.ready(true, true);
    connection.flush()?;
    match connection.receive()? {
        Some(frame) => Ok((frame.envelope, frame.payload)),
        None => Err(ClientError::TimedOut(patience)),
    }
}
