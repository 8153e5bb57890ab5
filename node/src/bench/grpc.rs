//! The least of gRPC that calls etcd: requests with one message and answers with one, many under
//! way on one connection of HTTP/2 without TLS.
//!
//! A library for this brings an executor and dozens of packages; what is needed of the protocol
//! (RFC 9113) is frames, the connection's send window, and answers to SETTINGS and PING. Headers
//! are sent as literals and never decoded: an answer counts as given once its message and its end
//! have come, and a call that fails ends without a message.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The window that each side grants first, and the longest frame, if nobody says otherwise.
const WINDOW: i64 = 65_535;
const FRAME_MAX: usize = 16_384;

/// After so many received bytes the other side is told that there is room again.
const GRANT_AFTER: usize = 1 << 14;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub(super) struct Grpc {
    stream: TcpStream,
    headers: Vec<u8>,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// Messages that wait for room in the window.
    waiting: VecDeque<(u32, Vec<u8>)>,
    window: i64,
    ungranted: usize,
    next: u32,
    /// Messages that have come of calls that haven't ended.
    messages: BTreeMap<u32, Vec<u8>>,
}

/// Names a call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Call(u32);

impl Grpc {
    /// Connects to the server at `address`, to call the method at `path`.
    pub(super) fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut outbound = PREFACE.to_vec();
        frame(&mut outbound, SETTINGS, 0, 0, &[]);
        Ok(Self {
            stream,
            headers: headers(path),
            inbound: Vec::new(),
            outbound,
            waiting: VecDeque::new(),
            window: WINDOW,
            ungranted: 0,
            next: 1,
            messages: BTreeMap::new(),
        })
    }

    /// Calls the method with one message, which must fit into a frame; sent by [`Grpc::receive`].
    pub(super) fn call(&mut self, message: &[u8]) -> io::Result<Call> {
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes());
        body.extend(message);
        if body.len() > FRAME_MAX {
            return Err(io::Error::other("a message is longer than a frame"));
        }
        let id = self.next;
        self.next = self.next.saturating_add(2);
        frame(&mut self.outbound, HEADERS, END_HEADERS, id, &self.headers);
        self.waiting.push_back((id, body));
        Ok(Call(id))
    }

    /// Sends what there is room for, and waits until at least one call has been answered.
    pub(super) fn receive(&mut self) -> io::Result<Vec<(Call, Vec<u8>)>> {
        let mut answered = Vec::new();
        let mut buffer = [0; 1 << 16];
        while answered.is_empty() {
            self.send()?;
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.inbound.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
            while let Some((kind, flags, id, body)) = self.next_frame() {
                if let Some(answer) = self.take(kind, flags, id, body)? {
                    answered.push(answer);
                }
            }
        }
        Ok(answered)
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some((id, body)) = self.waiting.pop_front() {
            let length = i64::try_from(body.len()).map_err(io::Error::other)?;
            if length > self.window {
                self.waiting.push_front((id, body));
                break;
            }
            self.window -= length;
            frame(&mut self.outbound, DATA, END_STREAM, id, &body);
        }
        self.stream.write_all(&self.outbound)?;
        self.outbound.clear();
        Ok(())
    }

    fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let (header, rest) = self.inbound.split_first_chunk::<9>()?;
        let [l0, l1, l2, kind, flags, i0, i1, i2, i3] = *header;
        let length = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).ok()?;
        let body = rest.get(..length)?.to_vec();
        self.inbound.drain(..header.len() + length);
        Some((kind, flags, u32::from_be_bytes([i0, i1, i2, i3]), body))
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        body: Vec<u8>,
    ) -> io::Result<Option<(Call, Vec<u8>)>> {
        let has_ended = flags & END_STREAM != 0;
        match kind {
            DATA => {
                self.ungranted += body.len();
                if self.ungranted >= GRANT_AFTER {
                    let room = u32::try_from(self.ungranted).map_err(io::Error::other)?;
                    frame(&mut self.outbound, WINDOW_UPDATE, 0, 0, &room.to_be_bytes());
                    self.ungranted = 0;
                }
                self.messages.entry(id).or_default().extend(body);
                Ok(if has_ended { self.ended(id)? } else { None })
            }
            HEADERS if has_ended => self.ended(id),
            SETTINGS if flags & ACK == 0 => {
                frame(&mut self.outbound, SETTINGS, ACK, 0, &[]);
                Ok(None)
            }
            PING if flags & ACK == 0 => {
                frame(&mut self.outbound, PING, ACK, 0, &body);
                Ok(None)
            }
            WINDOW_UPDATE if id == 0 => {
                let room = body.first_chunk().map_or(0, |room| u32::from_be_bytes(*room));
                self.window += i64::from(room);
                Ok(None)
            }
            RST_STREAM | GOAWAY => Err(io::Error::other("the server ends the connection")),
            // The headers of an answer, windows of streams, and what is to be ignored.
            _ => Ok(None),
        }
    }

    fn ended(&mut self, id: u32) -> io::Result<Option<(Call, Vec<u8>)>> {
        let refused = || io::Error::other("the server refuses a call");
        let message = self.messages.remove(&id).ok_or_else(refused)?;
        // Without its flag and its length.
        let message = message.get(5..).ok_or_else(refused)?.to_vec();
        Ok(Some((Call(id), message)))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend(length.iter().skip(1));
    out.extend([kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(body);
}

/// Returns the headers of a call, as literals (RFC 7541, 6.2.2); numbers are of the static table.
fn headers(path: &str) -> Vec<u8> {
    // :method POST, :scheme http.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend(name);
        // Shorter than 127 bytes, as all that is called here.
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    block
}

/// Appends a field of bytes to a message in protocol buffers.
pub(super) fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend(bytes);
}

/// A field of a message: its number, and its value or its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field<'a> {
    Bytes(u64, &'a [u8]),
    Number(u64, u64),
}

/// Returns the fields of a message that are numbers or bytes, up to one that is neither.
pub(super) fn fields(message: &[u8]) -> Vec<Field<'_>> {
    let mut rest = message;
    let mut fields = Vec::new();
    while let Some(tag) = varint(&mut rest) {
        let value = varint(&mut rest);
        match (tag & 7, value) {
            (0, Some(value)) => fields.push(Field::Number(tag >> 3, value)),
            (2, Some(length)) => {
                let cut = usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at));
                let Some((bytes, others)) = cut else { break };
                fields.push(Field::Bytes(tag >> 3, bytes));
                rest = others;
            }
            _ => break,
        }
    }
    fields
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, others) = rest.split_first()?;
        *rest = others;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length or a number written wrongly would be another message.
    #[test]
    fn messages_are_as_protocol_buffers_has_them() {
        let mut message = Vec::new();
        field(&mut message, 1, b"key");
        field(&mut message, 2, &[7; 300]);
        assert_eq!(message.get(..8), Some(&b"\x0a\x03key\x12\xac\x02"[..]));
        let read = fields(&message);
        assert_eq!(read, [Field::Bytes(1, b"key"), Field::Bytes(2, &[7; 300])]);
        assert_eq!(fields(b"\x20\x96\x01"), [Field::Number(4, 150)]);
        assert_eq!(fields(b"\x0a\x7fshort"), []);
    }

    /// The server takes a frame apart by these nine bytes.
    #[test]
    fn a_frame_is_a_header_and_a_body() {
        let mut out = Vec::new();
        frame(&mut out, DATA, END_STREAM, 3, &[9; 258]);
        assert_eq!(out.get(..9), Some(&[0, 1, 2, 0, 1, 0, 0, 0, 3][..]));
        assert_eq!(out.len(), 9 + 258);
    }
}
