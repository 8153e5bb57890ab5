//! Strict reads: whose answers confirm which question.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use quorate_core::effect::{Report, SegmentEffect, SegmentInput, WriterEffect, WriterInput};
use quorate_core::epoch::VolumeEpoch;
use quorate_core::geometry::{Limits, VolumeGeometry};
use quorate_core::id::{Incarnation, InstanceId, PgId, Position, Ticket};
use quorate_core::image::SegmentImage;
use quorate_core::message::{Peer, ToWriter};
use quorate_core::quorum::QuorumSet;
use quorate_core::segment::Segment;
use quorate_core::writer::{PhaseName, Writer};

const GROUP: PgId = PgId::new(0);

fn epoch(counter: u64) -> VolumeEpoch {
    VolumeEpoch::new(counter, InstanceId::new(counter))
}

/// Returns a writer of epoch 5 that six segments have let open.
fn opened() -> Writer {
    let geometry = VolumeGeometry::new(1, QuorumSet::AURORA, Limits::DEFAULT).unwrap();
    let segment = || Segment::recover(SegmentImage::create(GROUP, geometry).unwrap());
    let mut segments: Vec<Segment> = Position::first(6).map(|_| segment()).collect();
    let mut effects = Vec::new();
    let mut writer = Writer::open(epoch(5), geometry, &mut effects);
    while let Some(effect) = effects.pop() {
        let WriterEffect::Send { group, message, .. } = effect else { continue };
        for (from, segment) in Position::first(6).zip(&mut segments) {
            let peer = Peer::Writer(epoch(5));
            let mut inputs = vec![SegmentInput::Receive { from: peer, message: message.clone() }];
            while let Some(input) = inputs.pop() {
                let mut answers = Vec::new();
                segment.step(input, &mut answers);
                for answer in answers {
                    match answer {
                        SegmentEffect::Persist { id, .. } => inputs.push(SegmentInput::Durable(id)),
                        SegmentEffect::SendWriter { message, .. } => {
                            writer
                                .step(WriterInput::Receive { group, from, message }, &mut effects);
                        }
                        SegmentEffect::SendReader { .. }
                        | SegmentEffect::SendSegment { .. }
                        | SegmentEffect::Unusable(_) => {}
                    }
                }
            }
        }
    }
    assert_eq!(writer.phase(), PhaseName::Open);
    writer
}

/// Asks two questions, lets a read quorum answer as `answer` says, and returns what is reported.
fn confirmed(answer: &ToWriter) -> Vec<WriterEffect> {
    let mut writer = opened();
    let mut effects = Vec::new();
    for number in [1, 2] {
        writer.step(WriterInput::Confirm { ticket: Ticket::new(number) }, &mut effects);
    }
    effects.clear();
    for from in Position::first(3) {
        let message = answer.clone();
        writer.step(WriterInput::Receive { group: GROUP, from, message }, &mut effects);
    }
    effects
}

/// The others have to be able to fail.
#[test]
fn answers_to_the_last_question_confirm_it() {
    let ticket = Ticket::new(2);
    let effects = confirmed(&ToWriter::Confirmed {
        epoch: epoch(5),
        incarnation: Incarnation::new(0),
        ticket,
    });
    let is_confirmed = |effect: &WriterEffect| {
        let WriterEffect::Report(report) = effect else { return false };
        matches!(report, Report::Confirmed { ticket: of, .. } if *of == ticket)
    };
    assert!(effects.iter().any(is_confirmed), "{effects:?}");
}

/// A segment that answered the first question may have promised a higher epoch before the second
/// one was asked (edge 52).
#[test]
fn late_answers_to_an_earlier_question_confirm_nothing() {
    assert!(
        confirmed(&ToWriter::Confirmed {
            epoch: epoch(5),
            incarnation: Incarnation::new(0),
            ticket: Ticket::new(1)
        })
        .is_empty()
    );
}

/// An answer to the epoch before says nothing about this one (edge 28).
#[test]
fn answers_of_another_epoch_confirm_nothing() {
    assert!(
        confirmed(&ToWriter::Confirmed {
            epoch: epoch(4),
            incarnation: Incarnation::new(0),
            ticket: Ticket::new(2)
        })
        .is_empty()
    );
}
