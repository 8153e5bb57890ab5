//! Addresses on loopback for the processes of a cluster.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use super::{ClusterError, POLL, doing};
use crate::clock::{Clock, Moment};
use crate::env::real::random;

/// Ports are taken from here: below those that systems give to outgoing connections, so that
/// nobody takes a node's port while the node is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How long a process of a cluster that was killed may take to give its port back.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// Returns an address for each of `held` that nobody listens at now: those of `earlier` that are
/// free, and others in place of those that aren't. Who is held keeps his own: he listens there.
pub(super) fn choose(
    earlier: &[SocketAddr],
    held: &[bool],
) -> Result<Vec<SocketAddr>, ClusterError> {
    let clock = Clock::start();
    // Held until all are found, so that none is found twice.
    let mut kept: Vec<Option<(SocketAddr, Option<TcpListener>)>> = Vec::new();
    for (index, is_held) in held.iter().enumerate() {
        let mut own = earlier.get(index).filter(|_| *is_held).map(|address| (*address, None));
        while let Some(address) = earlier.get(index)
            && own.is_none()
        {
            own = bind(*address);
            if own.is_none() && clock.now() > Moment::new(RELEASE_MAX) {
                break;
            }
            if own.is_none() {
                thread::sleep(POLL);
            }
        }
        kept.push(own);
    }
    let start = random().map_err(doing("asking for randomness"))?;
    let span = PORTS.len() as u64;
    let offset = start.checked_rem(span).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.unwrap_or(0);
    let mut ports = PORTS.skip(offset).chain(PORTS.take(offset));
    for slot in kept.iter_mut().filter(|slot| slot.is_none()) {
        *slot = ports.find_map(|port| bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }
    let chosen: Vec<SocketAddr> = kept.iter().flatten().map(|(address, _)| *address).collect();
    if chosen.len() < held.len() { Err(ClusterError::NoPorts) } else { Ok(chosen) }
}

fn bind(address: SocketAddr) -> Option<(SocketAddr, Option<TcpListener>)> {
    TcpListener::bind(address).ok().map(|listener| (address, Some(listener)))
}
