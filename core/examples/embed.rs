//! The contract, in memory: a driver carries out effects, two segments down stop nothing, a second
//! writer takes over and the first one is refused. `cargo run -p quorate-core --example embed`
use quorate_core::effect::{SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::id::{InstanceId, PageId, PgId, Position, Ticket};
use quorate_core::record::{Change, Payload};
use quorate_core::{epoch::VolumeEpoch, geometry::Limits, geometry::VolumeGeometry, message::Peer};
use quorate_core::{image::SegmentImage, quorum::QuorumSet, segment::Segment, writer::Writer};

/// Carries out what a writer wants done, with the first `up` segments. A real driver has a network
/// between the machines, and syncs a file before it reports a write as durable.
fn drive(writer: &mut Writer, segments: &mut [Segment], up: usize, todo: &mut Vec<WriterEffect>) {
    while !todo.is_empty() {
        let effect = todo.remove(0);
        if let WriterEffect::Report(report) = &effect {
            println!("  {}: {report:?}", writer.epoch());
        }
        let WriterEffect::Send { group, to, message } = effect else { continue };
        for (from, segment) in Position::first(up).zip(&mut *segments) {
            let (peer, message) = (Peer::Writer(writer.epoch()), message.clone());
            let mut inputs = vec![SegmentInput::Receive { from: peer, message }];
            while let Some(input) = inputs.pop().filter(|_| to.contains(from)) {
                let mut effects = Vec::new();
                segment.step(input, &mut effects);
                for effect in effects {
                    if let SegmentEffect::Persist { id, .. } = effect {
                        inputs.push(SegmentInput::Durable(id));
                    } else if let SegmentEffect::SendWriter { message, .. } = effect {
                        writer.step(WriterInput::Receive { group, from, message }, todo);
                    }
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let geometry = VolumeGeometry::new(1, QuorumSet::AURORA, Limits::DEFAULT);
    let geometry = geometry.map_err(|error| format!("no such volume: {error:?}"))?;
    let image = SegmentImage::create(PgId::new(0), geometry).ok_or("no such group")?;
    let (mut segments, mut todo) = (vec![Segment::recover(image); 6], Vec::new());
    println!("A writer opens the volume by a recovery:");
    let mut first = Writer::open(VolumeEpoch::new(1, InstanceId::new(1)), geometry, &mut todo);
    drive(&mut first, &mut segments, 6, &mut todo);
    println!("With two of six segments down, a mini-transaction of two records is durable:");
    let change = |page| Change { page: PageId::new(page), payload: Payload::default() };
    first.step(WriterInput::Write { changes: vec![change(1), change(2)] }, &mut todo);
    drive(&mut first, &mut segments, 4, &mut todo);
    println!("One segment is enough to read what it wrote:");
    let from = Position::new(0).ok_or("no such segment")?;
    let (ticket, page, read_point) = (Ticket::new(1), PageId::new(2), None);
    first.step(WriterInput::Read { ticket, page, read_point, from }, &mut todo);
    drive(&mut first, &mut segments, 1, &mut todo);
    println!("A second writer takes over and finds it; then the first one is refused:");
    let mut second = Writer::open(VolumeEpoch::new(2, InstanceId::new(2)), geometry, &mut todo);
    drive(&mut second, &mut segments, 4, &mut todo);
    first.step(WriterInput::Write { changes: vec![change(1)] }, &mut todo);
    drive(&mut first, &mut segments, 4, &mut todo);
    Ok(())
}
