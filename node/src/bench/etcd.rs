//! Durable puts of a three-node etcd, beside the volume.
//!
//! etcd gets the best that this machine can give it: its client speaks gRPC on one connection to
//! the leader, so that nothing is forwarded, and leaves all else to its defaults.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::grpc::{Call, Field, Grpc, field, fields};
use super::report::Row;
use super::{BenchError, Load, Options, Samples};
use crate::clock::{Clock, Moment};
use crate::cluster::{Cluster, free_addresses};
use crate::volume::{Volume, VolumeConfig};

/// The members of an etcd: a majority of three is as many as etcd's documentation starts with.
const MEMBERS: usize = 3;

/// How many keys are written, one after the other, again and again: as many as pages of the volume.
const KEYS: u64 = 1 << 16;

/// How long etcd may take to elect a leader.
const READY_MAX: Duration = Duration::from_secs(30);

/// The time between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(50);

/// Above any size that the benchmark reaches; the default is 2 GB.
const QUOTA_BYTES: &str = "8589934592";

/// Returns the `etcd` on this process's PATH, if there is one.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("etcd")).find(|file| file.is_file())
}

/// Runs the volume and the etcd at `etcd` in turns, and calls `tell` with what each number of
/// writes in flight came to.
///
/// # Errors
/// [`BenchError`] at the first thing that goes wrong.
pub fn run(
    options: &Options,
    etcd: &Path,
    mut tell: impl FnMut(&Row) -> io::Result<()>,
) -> Result<(), BenchError> {
    let cluster = Cluster::start(&options.executable, &options.directory.join("quorate"))?;
    let segments = vec![cluster.addresses().to_vec()];
    let config = VolumeConfig::new(cluster.volume(), segments, READY_MAX);
    let mut volume = Volume::open(config)?;
    let members = Members::start(etcd, &options.directory.join("etcd"))?;
    let mut etcd = members.connect().map_err(BenchError::Etcd)?;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(options.bytes).collect();
    for in_flight in options.in_flight.iter().copied() {
        // Once without measuring: buffers grow, files are extended.
        volume.drive(in_flight, &bytes, options.span / 4)?;
        etcd.drive(in_flight, &bytes, options.span / 4).map_err(BenchError::Etcd)?;
        let (mut ours, mut theirs): (Vec<Samples>, Vec<Samples>) = (Vec::new(), Vec::new());
        for _ in 0..options.turns {
            ours.push(volume.drive(in_flight, &bytes, options.span)?);
            let puts = etcd.drive(in_flight, &bytes, options.span).map_err(BenchError::Etcd)?;
            theirs.push(puts);
        }
        tell(&Row::of("etcd", in_flight, options.bytes, &ours, &theirs))?;
    }
    Ok(())
}

/// The processes of an etcd; they end with this value.
struct Members {
    children: Vec<Child>,
    clients: Vec<SocketAddr>,
}

impl Members {
    fn start(executable: &Path, directory: &Path) -> Result<Self, BenchError> {
        let mut clients = free_addresses(2 * MEMBERS)?;
        let peers = clients.split_off(MEMBERS);
        let cluster: Vec<String> =
            (0..).zip(&peers).map(|(index, peer)| format!("m{index}=http://{peer}")).collect();
        std::fs::create_dir_all(directory).map_err(BenchError::Etcd)?;
        let mut members = Self { children: Vec::new(), clients };
        for (index, (client, peer)) in members.clients.iter().zip(&peers).enumerate() {
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let words = File::create(directory.join(format!("m{index}.log")));
            let child = Command::new(executable)
                .args(["--name", &format!("m{index}"), "--initial-cluster", &cluster.join(",")])
                .args(["--initial-cluster-state", "new"])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--quota-backend-bytes", QUOTA_BYTES, "--data-dir"])
                .arg(directory.join(format!("m{index}")))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(words.map_err(BenchError::Etcd)?)
                .spawn()
                .map_err(BenchError::Etcd)?;
            members.children.push(child);
        }
        Ok(members)
    }

    /// Connects to the leader, as soon as there is one.
    fn connect(&self) -> io::Result<Etcd> {
        let clock = Clock::start();
        loop {
            let leader = self.clients.iter().find(|client| is_leader(**client).unwrap_or(false));
            if let Some(leader) = leader {
                let grpc = Grpc::connect(*leader, "/etcdserverpb.KV/Put")?;
                return Ok(Etcd { grpc, key: 0 });
            }
            if clock.now().since(Moment::default()) > READY_MAX {
                let why = "no leader was elected in time: see the logs of its members";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks a member whether it is the leader.
fn is_leader(member: SocketAddr) -> io::Result<bool> {
    let mut grpc = Grpc::connect(member, "/etcdserverpb.Maintenance/Status")?;
    grpc.call(&[])?;
    let answers = grpc.receive()?;
    let message = answers.first().map(|(_, message)| message.as_slice()).unwrap_or(&[]);
    let number = |fields: &[Field<'_>], wanted: u64| {
        fields.iter().find_map(|field| match field {
            Field::Number(number, value) if *number == wanted => Some(*value),
            Field::Number(..) | Field::Bytes(..) => None,
        })
    };
    // StatusResponse { header = 1, leader = 4 }, ResponseHeader { member_id = 2 }.
    let all = fields(message);
    let header = all.iter().find_map(|field| match field {
        Field::Bytes(1, header) => Some(fields(header)),
        Field::Number(..) | Field::Bytes(..) => None,
    });
    let own = header.and_then(|header| number(&header, 2));
    Ok(own.is_some() && number(&all, 4) == own)
}

/// A client of an etcd.
struct Etcd {
    grpc: Grpc,
    key: u64,
}

impl Etcd {
    fn put(&mut self, bytes: &[u8]) -> io::Result<Call> {
        self.key = (self.key + 1) % KEYS;
        let mut message = Vec::with_capacity(bytes.len() + 16);
        // PutRequest { key = 1, value = 2 }.
        field(&mut message, 1, &self.key.to_be_bytes());
        field(&mut message, 2, bytes);
        self.grpc.call(&message)
    }
}

impl Load for Etcd {
    type Error = io::Error;

    fn drive(&mut self, in_flight: usize, bytes: &[u8], span: Duration) -> io::Result<Samples> {
        let clock = Clock::start();
        let start = clock.now();
        let mut samples = Samples::default();
        let mut under_way = BTreeMap::new();
        loop {
            let is_over = clock.now().since(start) >= span;
            while !is_over && under_way.len() < in_flight {
                let issued = clock.now();
                under_way.insert(self.put(bytes)?, issued);
            }
            if under_way.is_empty() {
                samples.elapsed = clock.now().since(start);
                return Ok(samples);
            }
            for (call, _) in self.grpc.receive()? {
                if let Some(issued) = under_way.remove(&call) {
                    samples.latencies.push(clock.now().since(issued));
                }
            }
        }
    }
}
