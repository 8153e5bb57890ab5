//! Asking a segment how it is, from outside any loop.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::id::{PgId, Position};

use crate::config::VolumeId;
use crate::connection::{Connection, ConnectionError};
use crate::env::Stream;
use crate::wire::{self, Envelope, Hello, HelloRefusal, Role, Status, WireError};

/// Why a segment's status can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// It turned this process away.
    #[error("{0}")]
    Refused(HelloRefusal),
    /// It said something else.
    #[error("the node answered something else")]
    Unexpected,
    /// It didn't answer.
    #[error("the node did not answer in time")]
    TimedOut,
}

impl From<io::Error> for StatusError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

impl From<WireError> for StatusError {
    fn from(error: WireError) -> Self {
        Self::Connection(error.into())
    }
}

/// Asks the segment at `address` how it is; waits up to `patience`, for each step.
///
/// # Errors
/// [`StatusError`] when it can't be reached or is another segment.
pub fn ask(
    address: SocketAddr,
    volume: VolumeId,
    group: PgId,
    position: Position,
    patience: Duration,
) -> Result<Status, StatusError> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut connection = Connection::new(Blocking(stream));
    let hello = Hello { volume, group, position, role: Role::Observer };
    connection.send(Arc::new(wire::encode(&Envelope::Hello(hello), &[])?));
    connection.ready(true, true);
    connection.flush()?;
    match connection.receive()?.map(|frame| frame.envelope) {
        None => Err(StatusError::TimedOut),
        Some(Envelope::Welcome(welcome)) => Ok(welcome.status),
        Some(Envelope::Refused(refusal)) => Err(StatusError::Refused(refusal)),
        Some(
            Envelope::Hello(_)
            | Envelope::Status(_)
            | Envelope::StatusRequest
            | Envelope::ToSegment(_)
            | Envelope::ToWriter(_)
            | Envelope::ClientWelcome(_)
            | Envelope::FromClient(_)
            | Envelope::FromReader(_)
            | Envelope::Seats(_)
            | Envelope::ToReader(_)
            | Envelope::ToClient(_),
        ) => Err(StatusError::Unexpected),
    }
}

/// A stream that waits, with a timeout that shows as "would block".
#[derive(Debug)]
pub(crate) struct Blocking(pub(crate) TcpStream);

impl Stream for Blocking {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(would_block)
    }

    fn write(&mut self, from: &[&[u8]]) -> io::Result<usize> {
        let first = from.iter().find(|bytes| !bytes.is_empty()).copied().unwrap_or(&[]);
        self.0.write(first).map_err(would_block)
    }
}

fn would_block(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::TimedOut {
        return io::ErrorKind::WouldBlock.into();
    }
    error
}
