#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use quorate_core::message::{Append, Pull};

use quorate_core::consistency::GarbageFloor;

use super::*;
use crate::testing::{epoch, record};

fn hello() -> Envelope {
    Envelope::Hello(Hello {
        volume: VolumeId::new(0x0102_0304_0506_0708),
        group: PgId::new(9),
        position: Position::new(3).unwrap(),
        role: Role::Writer { instance: InstanceId::new(0x0a0b) },
    })
}

fn append(payloads: &[&[u8]]) -> Envelope {
    let records = (1..).zip(payloads).map(|(lsn, bytes)| record(lsn, lsn - 1, 1, bytes)).collect();
    let vdl = Vdl::ZERO;
    let floor = GarbageFloor::ZERO;
    let message = Append { epoch: epoch(1), group: PgId::new(0), vdl, floor, records };
    Envelope::ToSegment(ToSegment::Append(message))
}

fn whole(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    match decode(bytes)? {
        Decoded::Frame { frame, length } => {
            assert_eq!(length, bytes.len());
            Ok(Some(frame))
        }
        Decoded::Missing { needed } => {
            assert!(needed > bytes.len());
            Ok(None)
        }
    }
}

#[test]
fn a_frame_comes_back_as_it_was_sent() {
    let envelope = append(&[b"first", b"", b"third"]);
    let bytes = encode(&envelope, &[b"first", b"", b"third"]).unwrap();
    let frame = whole(&bytes).unwrap().unwrap();
    assert_eq!(frame, Frame { envelope, payload: b"firstthird".to_vec() });
}

/// The bytes of a version are fixed: nodes of the same version must understand each other.
#[test]
fn the_bytes_of_a_frame_are_as_they_were() {
    assert_eq!(PROTOCOL_VERSION, 4);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&encode(&hello(), &[]).unwrap()), GOLDEN_HELLO);
    assert_eq!(hex(&encode(&append(&[b"redo"]), &[b"redo"]).unwrap()), GOLDEN_APPEND);
}

const GOLDEN_HELLO: &str = "\
    51525401040000001d000000000000004205d4350000000008070605040302010900000003020000\
    000b0a000000000000";
const GOLDEN_APPEND: &str = "\
    51525401040000007100000004000000b40169900400000000000000010000000000000007000000\
    00000000000000000000000000000000000000000000000001000000000000000100000000000000\
    01000000000000000700000000000000000000000000000000000000000000000000000001000000\
    00000000010400000086b034447265646f";

/// A flipped bit must never come through, wherever it is.
#[test]
fn every_flipped_bit_is_found() {
    let bytes = encode(&append(&[b"redo", b"more"]), &[b"redo", b"more"]).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A longer length makes the receiver wait; what comes next can't make the sum right.
        let mut more = bytes.clone();
        more.resize(bytes.len() + ENVELOPE_BYTES_MAX + PAYLOAD_BYTES_MAX, 0);
        match decode(&bytes) {
            Err(_) => {}
            Ok(Decoded::Missing { .. }) => assert!(decode(&more).is_err(), "bit {bit}"),
            Ok(Decoded::Frame { .. }) => panic!("bit {bit} went unnoticed"),
        }
    }
}

#[test]
fn every_beginning_of_a_frame_is_waited_for() {
    let bytes = encode(&append(&[b"redo"]), &[b"redo"]).unwrap();
    for length in 0..bytes.len() {
        assert_eq!(whole(&bytes[..length]), Ok(None));
    }
}

/// Nobody may make a receiver wait for, or keep, more than a message can have.
#[test]
fn announced_lengths_are_bounded() {
    for at in [8, 12] {
        let mut bytes = encode(&hello(), &[]).unwrap();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes[..HEADER_BYTES]), Err(WireError::Oversized));
    }
    let page = vec![0; PAGE_BYTES_MAX];
    let pages = vec![page.as_slice(); PAYLOAD_BYTES_MAX / PAGE_BYTES_MAX + 1];
    assert_eq!(encode(&append(&pages), &pages), Err(WireError::Oversized));
}

#[test]
fn another_version_is_told_from_another_protocol() {
    let mut bytes = encode(&hello(), &[]).unwrap();
    bytes[4] = 9;
    let error = WireError::UnsupportedVersion { found: 9, supported: PROTOCOL_VERSION };
    assert_eq!(decode(&bytes), Err(error));
    assert_eq!(decode(b"GET / HTTP/1.1\r\nHost: a\r\n"), Err(WireError::NotQuorate));
}

/// Bytes behind a value may be anything; taking them silently would hide a difference of versions.
#[test]
fn a_value_is_decoded_whole_or_not_at_all() {
    let mut bytes = encode_value(&hello()).unwrap();
    assert_eq!(decode_value::<Envelope>(&bytes), Ok(hello()));
    bytes.push(0);
    assert_eq!(decode_value::<Envelope>(&bytes), Err(WireError::Malformed));
}

/// The text of [`Envelope::records`] names every message with payloads: a record whose bytes are
/// not its own is refused in each of them.
#[test]
fn foreign_payloads_are_refused() {
    let bytes = encode(&append(&[b"redo"]), &[b"REDO"]).unwrap();
    assert!(matches!(decode(&bytes), Err(WireError::Payload(PayloadError::Checksum { .. }))));
    let (base, through, beyond) = (Lsn::ZERO, Lsn::ZERO, Vec::new());
    let pull =
        Pull { group: PgId::new(0), history: epoch(1), scl: Scl::ZERO, base, through, beyond };
    let bytes = encode(&Envelope::ToSegment(ToSegment::Pull(pull)), &[b"stowaway"]).unwrap();
    assert!(matches!(decode(&bytes), Err(WireError::Payload(PayloadError::Length { .. }))));
}

proptest! {
    /// Whatever comes, decoding ends with an answer.
    #[test]
    fn nothing_that_comes_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&noise);
        let _ = decode_value::<Envelope>(&noise);
        // The same noise behind a right header and a right sum.
        let mut frame = MAGIC.to_vec();
        frame.extend(PROTOCOL_VERSION.to_le_bytes());
        frame.extend([0, 0]);
        frame.extend(u32::try_from(noise.len()).unwrap().to_le_bytes());
        frame.extend(0u32.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&frame), &noise);
        frame.extend(sum.to_le_bytes());
        frame.extend(&noise);
        let _ = decode(&frame);
    }
}
