//! SCL acknowledgements a second that one writer takes on one core, and the allocations that this
//! costs: none.
//!
//! A writer has a window of one-record mini-transactions in flight to six segments of each group;
//! a segment, the real machine, makes each durable and acknowledges it; then the writer is given
//! every acknowledgement of every segment as an input of its own, record by record, as they come in
//! from a steady stream. Only this last part is measured: the fourth acknowledgement of each record
//! advances PGCL, VCL and VDL and lets a report out.
//!
//! `cargo bench -p quorate-core --bench acks`; `-- --json` prints one object a line. Exits with 1
//! if anything was allocated on the measured path.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quorate_core::effect::{Report, SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{InstanceId, PageId, PgId};
use quorate_core::image::SegmentImage;
use quorate_core::message::{Peer, ToSegment, ToWriter};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::{Change, Payload};
use quorate_core::segment::Segment;
use quorate_core::writer::Writer;
use serde_json::{Value, json};

/// Mini-transactions in flight: far below the allocation limit, far above one.
const WINDOW: u64 = 256;

/// Mini-transactions of one volume; then the next volume starts, so that the segments' logs stay
/// in the cache and the machine's memory.
const WRITES_PER_VOLUME: u64 = 128 * WINDOW;

fn main() -> ExitCode {
    let control = allocation_counter::measure(|| drop(black_box(vec![0u8; 16])));
    assert_eq!(control.count_total, 1, "the counter counts");
    let arguments: Vec<String> = env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // Cargo says `--bench` when it measures; as a test, a single window shows that it works.
    let (wanted, warm_up) = if has("--bench") {
        (Duration::from_secs(1), Duration::from_millis(200))
    } else {
        (Duration::ZERO, Duration::ZERO)
    };
    let runs = [1, 8].map(|groups| {
        run(groups, warm_up);
        run(groups, wanted)
    });
    for run in &runs {
        if has("--json") {
            println!("{}", run.to_json());
        } else {
            println!("{run}");
        }
    }
    if runs.iter().any(|run| run.allocations > 0) {
        eprintln!("The acknowledgement path allocates.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What was measured with one number of groups.
#[derive(Default)]
struct Run {
    groups: u32,
    acks: u64,
    allocations: u64,
    elapsed: Duration,
}

impl Run {
    fn acks_per_second(&self) -> f64 {
        // Exact: no run has 2^53 acknowledgements.
        self.acks as f64 / self.elapsed.as_secs_f64()
    }

    fn to_json(&self) -> Value {
        json!({
            "acks_per_second": self.acks_per_second().round(),
            "allocations": self.allocations,
            "acks": self.acks,
            "seconds": self.elapsed.as_secs_f64(),
            "groups": self.groups,
        })
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { groups, acks, allocations, elapsed } = self;
        let plural = if *groups == 1 { "group" } else { "groups" };
        write!(
            out,
            "{groups} {plural}: {:.1} million acknowledgements a second, {allocations} \
             allocations ({acks} acknowledgements in {:.3} s)",
            self.acks_per_second() / 1e6,
            elapsed.as_secs_f64(),
        )
    }
}

fn run(groups: u32, wanted: Duration) -> Run {
    let mut run = Run { groups, ..Run::default() };
    loop {
        let mut volume = Volume::open(groups);
        for _ in 0..WRITES_PER_VOLUME / WINDOW {
            volume.window(&mut run);
            if run.elapsed >= wanted {
                return run;
            }
        }
    }
}

/// A writer, and one segment of each group, which stands for all six: they are told the same and
/// so they answer the same.
struct Volume {
    writer: Writer,
    segments: Vec<Segment>,
    page: u64,
}

impl Volume {
    fn open(groups: u32) -> Self {
        let geometry = VolumeGeometry::new(groups, QuorumSet::AURORA, Limits::DEFAULT);
        let geometry = geometry.unwrap_or_else(|error| panic!("the geometry is wrong: {error:?}"));
        let images = geometry.groups().filter_map(|group| SegmentImage::create(group, geometry));
        let segments = images.map(Segment::recover).collect();
        let mut effects = Vec::new();
        let writer = Writer::open(VolumeEpoch::new(1, InstanceId::new(1)), geometry, &mut effects);
        let mut volume = Self { writer, segments, page: 0 };
        while !effects.is_empty() {
            let answers = volume.answers(std::mem::take(&mut effects));
            answers.into_iter().for_each(|answer| volume.writer.step(answer, &mut effects));
            effects.retain(|effect| matches!(effect, WriterEffect::Send { .. }));
        }
        assert!(volume.writer.vdl().is_some(), "the writer opens");
        volume
    }

    /// Fills the window, then measures how the writer takes the acknowledgements.
    fn window(&mut self, run: &mut Run) {
        let mut effects = Vec::new();
        for _ in 0..WINDOW {
            let page = PageId::new(self.page);
            self.page += 1;
            let changes = vec![Change { page, payload: Payload::default() }];
            self.writer.step(WriterInput::Write { changes }, &mut effects);
        }
        let acks = self.answers(std::mem::take(&mut effects));
        effects.reserve(acks.len());
        let count = acks.len() as u64;
        assert_eq!(count, WINDOW * 6, "each segment acknowledges each record");

        let mut elapsed = Duration::ZERO;
        let mut reports = 0;
        let info = allocation_counter::measure(|| {
            let start = Instant::now();
            for ack in acks {
                self.writer.step(black_box(ack), &mut effects);
                reports += effects.len();
                effects.clear();
            }
            elapsed = start.elapsed();
        });
        run.elapsed += elapsed;
        run.acks += count;
        run.allocations += info.count_total;
        assert_eq!(reports as u64, WINDOW, "each record advances the VDL");
        assert_eq!(self.writer.vdl().map(|vdl| vdl.lsn()), self.writer.tail());
    }

    /// Lets the segments carry out what the writer sent; returns what the six of each group
    /// answer, message by message.
    fn answers(&mut self, sent: Vec<WriterEffect>) -> Vec<WriterInput> {
        let mut inputs = Vec::new();
        for effect in sent {
            match effect {
                WriterEffect::Report(Report::Opened { .. } | Report::Written { .. }) => {}
                WriterEffect::Report(report) => panic!("unexpected: {report:?}"),
                WriterEffect::SendReader { .. } => panic!("nobody reads"),
                WriterEffect::Send { group, to, message } => {
                    let Some(answer) = self.answer(group, message) else { continue };
                    for from in self.writer.geometry().quorums().positions() {
                        assert!(to.contains(from));
                        let message = answer.clone();
                        inputs.push(WriterInput::Receive { group, from, message });
                    }
                }
            }
        }
        inputs
    }

    fn answer(&mut self, group: PgId, message: ToSegment) -> Option<ToWriter> {
        let segment = self.segments.get_mut(group.get() as usize)?;
        let from = Peer::Writer(self.writer.epoch());
        let mut inputs = vec![SegmentInput::Receive { from, message }];
        let mut effects = Vec::new();
        let mut answer = None;
        while let Some(input) = inputs.pop() {
            segment.step(input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    SegmentEffect::Persist { id, .. } => inputs.push(SegmentInput::Durable(id)),
                    SegmentEffect::SendWriter { message, .. } => answer = Some(message),
                    SegmentEffect::SendReader { .. }
                    | SegmentEffect::SendSegment { .. }
                    | SegmentEffect::Unusable(_) => {}
                }
            }
        }
        answer
    }
}
