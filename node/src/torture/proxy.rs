//! The network between processes, in user space: connections that can be delayed and cut, each
//! direction by itself.
//!
//! Every link has a listener of its own and leads to one address. A cut direction takes no more
//! bytes and holds those that it has, as a network does whose packets are lost: nothing arrives
//! and nobody is told. A delayed one passes bytes on when they are due.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::clock::{Clock, Moment};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// The most bytes that one direction holds back; above that, it takes no more.
const HELD_BYTES_MAX: usize = 4 << 20;

/// What wakes the proxy.
const WAKER: Token = Token(0);

/// One link.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LinkId(usize);

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Way {
    /// Nothing arrives.
    Cut,
    /// Everything arrives so much later.
    Delayed(Duration),
    /// Everything arrives at once.
    #[default]
    Open,
}

/// What becomes of the bytes of a link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Condition {
    /// From who connected.
    pub there: Way,
    /// To who connected.
    pub back: Way,
}

enum Order {
    /// Takes connections at a new listener and passes them on.
    Link { listener: std::net::TcpListener, to: SocketAddr },
    /// Changes a link.
    Set { link: LinkId, condition: Condition },
    /// Ends all connections of a link.
    Reset { link: LinkId },
}

/// A running proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    orders: Option<mpsc::Sender<Order>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    links: usize,
}

impl Proxy {
    /// Starts a proxy without links.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn start() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (orders, receiver) = mpsc::channel();
        let mut turning = Turning::new(poll);
        let thread = thread::Builder::new()
            .name("proxy".into())
            .spawn(move || while turning.turn(&receiver) {})?;
        Ok(Self { orders: Some(orders), waker, thread: Some(thread), links: 0 })
    }

    /// Adds a link to `to`; returns it with the address to connect to instead.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn link(&mut self, to: SocketAddr) -> io::Result<(LinkId, SocketAddr)> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let link = LinkId(self.links);
        self.links += 1;
        self.order(Order::Link { listener, to });
        Ok((link, address))
    }

    /// Changes what becomes of the bytes of `link`.
    pub fn set(&self, link: LinkId, condition: Condition) {
        self.order(Order::Set { link, condition });
    }

    /// Ends all connections of `link`, as a peer that is gone.
    pub fn reset(&self, link: LinkId) {
        self.order(Order::Reset { link });
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Only a thread that has panicked doesn't take it; its join shows that.
            let _ = orders.send(order);
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    held: VecDeque<(Moment, Vec<u8>)>,
    held_bytes: usize,
    /// How much of the first piece is written.
    written: usize,
    has_ended: bool,
}

/// A connection and the one that it is passed on to.
#[derive(Debug)]
struct Pair {
    link: LinkId,
    caller: TcpStream,
    called: TcpStream,
    there: Pipe,
    back: Pipe,
}

#[derive(Debug)]
struct Turning {
    poll: Poll,
    clock: Clock,
    links: Vec<(TcpListener, SocketAddr, Condition)>,
    /// By the token of the caller's side; the other side has the next one.
    pairs: BTreeMap<usize, Pair>,
    next: usize,
    buffer: Vec<u8>,
}

/// Listeners have tokens from here on, connections from far above.
const LISTENERS: usize = 1;
const CONNECTIONS: usize = 1 << 20;

impl Turning {
    fn new(poll: Poll) -> Self {
        Self {
            poll,
            clock: Clock::start(),
            links: Vec::new(),
            pairs: BTreeMap::new(),
            next: CONNECTIONS,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Does what can be done now and waits; `false` when it is all over.
    fn turn(&mut self, orders: &mpsc::Receiver<Order>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(order) => self.take(order),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
        self.accept();
        let deadline = self.pump();
        let mut events = Events::with_capacity(256);
        let timeout = deadline.map(|deadline| deadline.since(self.clock.now()));
        match self.poll.poll(&mut events, timeout) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Link { listener, to } => {
                let mut listener = TcpListener::from_std(listener);
                let token = Token(LISTENERS + self.links.len());
                let _ = self.poll.registry().register(&mut listener, token, Interest::READABLE);
                self.links.push((listener, to, Condition::default()));
            }
            Order::Set { link, condition } => {
                if let Some((_, _, of)) = self.links.get_mut(link.0) {
                    *of = condition;
                }
            }
            Order::Reset { link } => self.pairs.retain(|_, pair| pair.link != link),
        }
    }

    fn accept(&mut self) {
        for (index, (listener, to, _)) in self.links.iter().enumerate() {
            while let Ok((mut caller, _)) = listener.accept() {
                let Ok(mut called) = TcpStream::connect(*to) else { continue };
                let (_, _) = (caller.set_nodelay(true), called.set_nodelay(true));
                let interests = Interest::READABLE | Interest::WRITABLE;
                let registry = self.poll.registry();
                let registered = registry.register(&mut caller, Token(self.next), interests);
                let other = registry.register(&mut called, Token(self.next + 1), interests);
                if registered.is_err() || other.is_err() {
                    continue;
                }
                let (there, back) = (Pipe::default(), Pipe::default());
                let pair = Pair { link: LinkId(index), caller, called, there, back };
                self.pairs.insert(self.next, pair);
                self.next += 2;
            }
        }
    }

    /// Moves bytes; returns when more are due.
    fn pump(&mut self) -> Option<Moment> {
        let now = self.clock.now();
        let mut deadline: Option<Moment> = None;
        let (links, buffer) = (&self.links, &mut self.buffer);
        self.pairs.retain(|_, pair| {
            let condition = links.get(pair.link.0).map(|(_, _, condition)| *condition);
            let Condition { there, back } = condition.unwrap_or_default();
            let Pair { caller, called, there: to_called, back: to_caller, .. } = pair;
            let moved = to_called
                .pump(there, caller, called, buffer, now)
                .and_then(|due| Ok((due, to_caller.pump(back, called, caller, buffer, now)?)));
            match moved {
                Ok((one, other)) => {
                    deadline = [deadline, one, other].into_iter().flatten().min();
                    !(to_called.is_done() || to_caller.is_done())
                }
                Err(_) => false,
            }
        });
        deadline
    }
}

impl Pipe {
    fn pump(
        &mut self,
        way: Way,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        now: Moment,
    ) -> io::Result<Option<Moment>> {
        let delay = match way {
            Way::Cut => return Ok(None),
            Way::Delayed(delay) => delay,
            Way::Open => Duration::ZERO,
        };
        while !self.has_ended && self.held_bytes < HELD_BYTES_MAX {
            match from.read(buffer) {
                Ok(0) => self.has_ended = true,
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                    self.held.push_back((now.after(delay), bytes));
                    self.held_bytes += count;
                }
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        while let Some((due, bytes)) = self.held.front() {
            if *due > now {
                return Ok(Some(*due));
            }
            match to.write(bytes.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            }
            if self.written == bytes.len() {
                self.held_bytes -= self.written;
                self.written = 0;
                self.held.pop_front();
            }
        }
        Ok(None)
    }

    /// Returns whether the end has come, and everything before it was passed on.
    fn is_done(&self) -> bool {
        self.has_ended && self.held.is_empty()
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// How long a test waits for what must come, and for what must not.
    const SOON: Duration = Duration::from_secs(20);
    const A_WHILE: Duration = Duration::from_millis(200);

    struct Ends {
        proxy: Proxy,
        link: LinkId,
        caller: std::net::TcpStream,
        called: std::net::TcpStream,
    }

    fn connect() -> Ends {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut proxy = Proxy::start().unwrap();
        let (link, address) = proxy.link(listener.local_addr().unwrap()).unwrap();
        let caller = std::net::TcpStream::connect(address).unwrap();
        let (called, _) = listener.accept().unwrap();
        called.set_read_timeout(Some(SOON)).unwrap();
        caller.set_read_timeout(Some(SOON)).unwrap();
        Ends { proxy, link, caller, called }
    }

    fn pass(from: &mut std::net::TcpStream, to: &mut std::net::TcpStream, bytes: &[u8]) {
        from.write_all(bytes).unwrap();
        let mut buffer = vec![0; bytes.len()];
        to.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, bytes);
    }

    /// A network that loses or reorders bytes of a stream would be no TCP.
    #[test]
    fn bytes_pass_both_ways() {
        let Ends { mut caller, mut called, proxy: _proxy, .. } = connect();
        let many: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        pass(&mut caller, &mut called, &many);
        pass(&mut called, &mut caller, &many);
    }

    /// A partition that lets something through tests nothing; one that loses bytes is no network.
    #[test]
    fn a_cut_direction_holds_bytes_until_it_heals() {
        let Ends { proxy, link, mut caller, mut called } = connect();
        pass(&mut caller, &mut called, b"before");
        proxy.set(link, Condition { there: Way::Cut, back: Way::Open });
        // The other direction goes on, and shows that the order has been taken.
        pass(&mut called, &mut caller, b"back");
        caller.write_all(b"held").unwrap();
        called.set_read_timeout(Some(A_WHILE)).unwrap();
        let mut buffer = [0; 4];
        let kind = called.read_exact(&mut buffer).unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        called.set_read_timeout(Some(SOON)).unwrap();
        proxy.set(link, Condition::default());
        called.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"held");
    }

    #[test]
    fn a_delayed_direction_is_late() {
        let Ends { proxy, link, mut caller, mut called } = connect();
        proxy.set(link, Condition { there: Way::Delayed(A_WHILE), back: Way::Open });
        pass(&mut called, &mut caller, b"the order has been taken");
        let clock = Clock::start();
        let start = clock.now();
        pass(&mut caller, &mut called, b"late");
        assert!(clock.now().since(start) >= A_WHILE);
    }

    /// A peer that is gone shows as the end of the stream.
    #[test]
    fn a_reset_link_ends_its_connections() {
        let Ends { proxy, link, mut caller, mut called } = connect();
        pass(&mut caller, &mut called, b"before");
        proxy.reset(link);
        assert_eq!(called.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(caller.read(&mut [0]).unwrap_or(0), 0);
    }
}
