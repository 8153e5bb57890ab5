#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

use quorate_core::image::SegmentImage;

use super::*;
use crate::config::{self, VolumeId};
use crate::testing::{
    MemoryFile, append, collect, empty_log, identity, install, membership, payload_of, promise,
    record,
};

/// A small log, and what it must be after each of its frames.
struct Sample {
    bytes: Vec<u8>,
    /// Where each frame begins; the last one is the end of the log.
    starts: Vec<usize>,
    images: Vec<SegmentImage>,
    /// The payload of every record.
    payloads: Vec<(Record, Vec<u8>)>,
}

type Opened = (SegmentLog<MemoryFile>, SegmentImage, Replay);

fn open(bytes: Vec<u8>) -> Result<Opened, OpenError> {
    SegmentLog::open(MemoryFile::new(bytes), &identity())
}

/// Makes a log of five frames; the last `unsynced` of them are written and not synced.
fn sample(unsynced: usize) -> Sample {
    let first = (record(11, 0, 1, b"eleven"), b"eleven".to_vec());
    let second = (record(12, 11, 1, b""), Vec::new());
    let third = (record(13, 12, 1, b"thirteen"), b"thirteen".to_vec());
    let frames = [
        promise(1),
        install(1, 0, 10),
        append(1, &[first.0, second.0]),
        append(1, &[third.0]),
        promise(2),
    ];
    let payloads = vec![first, second, third];

    let file = empty_log();
    let (mut log, mut image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    let mut starts = vec![file.contents().len()];
    let mut images = vec![image.clone()];
    for (index, frame) in frames.iter().enumerate() {
        let of = |record: &Record| {
            let found = payloads.iter().find(|(known, _)| known == record);
            found.map(|(_, bytes)| bytes.as_slice()).unwrap()
        };
        let bytes: Vec<&[u8]> = frame.records.iter().map(of).collect();
        log.append(frame, &bytes).unwrap();
        let through = file.sync().unwrap();
        if index + unsynced < frames.len() {
            log.settle(through);
        }
        image.apply(frame).unwrap();
        starts.push(file.contents().len());
        images.push(image.clone());
    }
    Sample { bytes: file.contents(), starts, images, payloads }
}

/// Checks that what was opened is the state after exactly `frames` frames, to the last payload.
fn assert_state(sample: &Sample, opened: &Opened, frames: usize) {
    let (log, image, replay) = opened;
    assert_eq!(*image, sample.images[frames]);
    assert_eq!(replay.frames, frames as u64);
    for record in image.records() {
        let (_, expected) = sample.payloads.iter().find(|(known, _)| known == record).unwrap();
        assert_eq!(log.read(record).unwrap(), *expected);
    }
}

#[test]
fn a_log_comes_back_as_it_was_written() {
    let sample = sample(0);
    assert_state(&sample, &open(sample.bytes.clone()).unwrap(), 5);
}

/// A flipped bit must never come back as data: either the log is refused, or the frame was the tail
/// that nothing proves to have been durable.
#[test]
fn every_flipped_bit_is_found() {
    for unsynced in [0, 1, 3] {
        let sample = sample(unsynced);
        for bit in 0..sample.bytes.len() * 8 {
            let mut bytes = sample.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let frame = sample.starts.iter().rposition(|start| *start <= bit / 8);
            match (open(bytes), frame) {
                (Err(OpenError::Header(HeaderError::Corrupt)), None) => {}
                (Err(OpenError::Corrupt(damage)), Some(frame)) => {
                    assert_eq!(damage.offset, sample.starts[frame] as u64);
                    assert_eq!(damage.frames, frame as u64);
                    assert_eq!(damage.usable, sample.images[frame]);
                    // Some frame behind this one was made when it was durable.
                    assert!(frame + unsynced.max(1) < 5, "bit {bit}");
                }
                (Ok(opened), Some(frame)) => {
                    assert!(frame + unsynced.max(1) >= 5, "bit {bit}");
                    assert_state(&sample, &opened, frame);
                }
                (other, frame) => panic!("bit {bit} in frame {frame:?}: {:?}", other.map(|_| ())),
            }
        }
    }
}

/// A log that a crash has cut short must come back as some state that it was in. (What is missing
/// reads as zeros: a frame that ends with zeros may lack those and be whole.)
#[test]
fn every_truncation_is_a_torn_tail_or_a_damaged_header() {
    let sample = sample(0);
    for length in 0..sample.bytes.len() {
        let mut bytes = sample.bytes[..length].to_vec();
        let opened = open(bytes.clone());
        bytes.resize(sample.bytes.len(), 0);
        let is_whole = |start: &usize| bytes[..*start] == sample.bytes[..*start];
        match sample.starts.iter().rposition(is_whole) {
            None => {
                assert!(matches!(opened, Err(OpenError::Header(HeaderError::Corrupt))), "{length}");
            }
            Some(frames) => {
                let opened = opened.unwrap();
                assert_state(&sample, &opened, frames);
                let cut = length.saturating_sub(sample.starts[frames]);
                // What is less than a header, as far as its first checksum, can't be told from
                // bytes of an earlier use.
                let start = sample.starts[frames];
                let header = start..(start + format::FRAME_HEADER_BYTES - 4).min(bytes.len());
                let is_whole = bytes[header.clone()] == sample.bytes[header];
                let cut = if is_whole { cut } else { 0 };
                assert_eq!(opened.2.cut_bytes, cut as u64);
            }
        }
    }
}

/// A tail that is cut off must be gone: a later start must not find its remains behind new frames.
#[test]
fn a_cut_tail_is_gone_and_the_log_goes_on() {
    let sample = sample(0);
    // A frame ends with zeros, which a file that ends early reads as well: more has to go.
    let file = MemoryFile::new(sample.bytes[..sample.starts[5] - 60].to_vec());
    let (mut log, _, replay) = SegmentLog::open(file.clone(), &identity()).unwrap();
    assert_eq!(replay.frames, 4);
    assert_eq!(file.contents().len(), sample.starts[4]);
    log.append(&promise(2), &[]).unwrap();
    log.settle(file.sync().unwrap());
    assert_state(&sample, &open(file.contents()).unwrap(), 5);
}

/// A crash may lose an early frame and keep a later one, if neither was synced.
#[test]
fn unsynced_frames_may_be_lost_out_of_order() {
    let sample = sample(2);
    let mut bytes = sample.bytes.clone();
    bytes[sample.starts[3]..sample.starts[4]].fill(0);
    assert_state(&sample, &open(bytes).unwrap(), 3);
}

/// Frames that vanish from the middle must not go unnoticed, though all that are left are whole.
#[test]
fn missing_frames_are_corruption() {
    let sample = sample(0);
    let mut bytes = sample.bytes[..sample.starts[2]].to_vec();
    let (at, note) = (bytes.len() as u64, Note::default());
    bytes.extend(format::encode_frame(identity().salt, at, 3, &note, &promise(1), &[]).unwrap());
    let reason = damage(open(bytes)).reason;
    assert_eq!(reason, Corruption::Missing { expected: 2, found: 3 });
    // One that lies elsewhere than where it was written is none.
    let mut bytes = sample.bytes[..sample.starts[2]].to_vec();
    bytes.extend(&sample.bytes[sample.starts[3]..]);
    assert_state(&sample, &open(bytes.clone()).unwrap(), 2);
    let durable = sample.starts[4] as u64;
    let reason = damage(open_with(bytes, &[Note { durable, ..note }])).reason;
    assert_eq!(reason, Corruption::Damaged { durable });
}

/// A log must not be served as another segment's, and each mistake has a name of its own.
#[test]
fn another_segments_log_is_refused() {
    let header = format::encode_header(&identity()).unwrap();
    let open_as = |expected: LogIdentity| {
        SegmentLog::open(MemoryFile::new(header.clone()), &expected).map(|_| ())
    };
    let ours = identity();
    let volume = VolumeId::new(0xa1);
    let other = open_as(LogIdentity { volume, ..ours });
    assert!(matches!(other, Err(OpenError::OtherSegment { .. })));
    let position = quorate_core::id::Position::new(3).unwrap();
    let other = open_as(LogIdentity { position, ..ours });
    assert!(matches!(other, Err(OpenError::OtherSegment { .. })));
    let geometry = config::geometry(2).unwrap();
    let other = open_as(LogIdentity { geometry, ..ours });
    assert!(matches!(other, Err(OpenError::OtherGeometry { .. })));
    // A new salt is made at every start; the file's own counts.
    assert!(open_as(LogIdentity { salt: 1, ..ours }).is_ok());
}

#[test]
fn another_version_is_told_from_damage() {
    let mut header = format::encode_header(&identity()).unwrap();
    header[8..12].copy_from_slice(&7u32.to_le_bytes());
    let damaged = open(header.clone()).map(|_| ());
    assert!(matches!(damaged, Err(OpenError::Header(HeaderError::Corrupt))));
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    let other = open(header).map(|_| ());
    let unsupported = HeaderError::UnsupportedVersion { found: 7, supported: 6 };
    assert!(matches!(other, Err(OpenError::Header(error)) if error == unsupported));
}

/// A record that comes by append and by gossip must stay readable while its second frame is on its
/// way to the disk.
#[test]
fn a_record_that_comes_twice_is_always_readable() {
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    let twice = record(11, 0, 1, b"twice");
    log.append(&append(1, &[twice]), &[b"twice"]).unwrap();
    log.settle(file.sync().unwrap());
    log.append(&append(1, &[twice]), &[b"twice"]).unwrap();
    assert_eq!(log.read(&twice).unwrap(), b"twice");
    log.settle(file.sync().unwrap());
    assert_eq!(log.read(&twice).unwrap(), b"twice");
}

/// Bytes in a page that look like a frame of this very log must not be taken for one.
#[test]
fn a_frame_stored_in_a_page_proves_nothing() {
    let note = Note { durable: u64::MAX, ..Note::default() };
    let stranger = format::encode_frame(0x0bad, 0, 9, &note, &promise(9), &[]).unwrap();
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    log.append(&promise(1), &[]).unwrap();
    log.settle(file.sync().unwrap());
    let start = file.contents().len();
    let holder = record(11, 0, 1, &stranger);
    log.append(&append(1, &[holder]), &[&stranger]).unwrap();
    file.sync();
    let mut bytes = file.contents();
    bytes[start + format::FRAME_HEADER_BYTES] ^= 1;
    let (_, _, replay) = open(bytes).unwrap();
    assert_eq!(replay.frames, 1);
    assert!(replay.cut_bytes > 0);
}

/// What a user stores must not decide how long a start takes: pages full of what frames begin with
/// cost no more reads than others.
#[test]
fn pages_full_of_magics_cost_no_reads() {
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    log.append(&promise(1), &[]).unwrap();
    log.settle(file.sync().unwrap());
    let damaged = file.contents().len() + format::FRAME_HEADER_BYTES;
    let page = [format::FRAME_MAGIC, format::SLOT_MAGIC].concat().repeat(512);
    for lsn in 11..200 {
        log.append(&append(1, &[record(lsn, lsn - 1, 1, &page)]), &[&page]).unwrap();
        log.settle(file.sync().unwrap());
    }
    let mut bytes = file.contents();
    bytes[damaged] ^= 1;
    let file = MemoryFile::new(bytes);
    let opened = SegmentLog::open(file.clone(), &identity());
    assert_eq!(damage(opened).frames, 1);
    // A few for each of the frames, which are whole.
    let reads = file.reads.get();
    assert!(reads < 189 * 4, "{reads} reads");
}

/// Returns what opening says of `bytes` beside which the log has `notes`.
fn open_with(bytes: Vec<u8>, notes: &[Note]) -> Result<Opened, OpenError> {
    let file = MemoryFile { notes: notes.to_vec(), ..MemoryFile::new(bytes) };
    SegmentLog::open(file, &identity())
}

fn damage(opened: Result<Opened, OpenError>) -> Damage {
    match opened {
        Err(OpenError::Corrupt(damage)) => *damage,
        other => panic!("{:?}", other.map(|(_, _, replay)| replay)),
    }
}

/// The headers of the last frames must not be all that knows that frames were durable: one sector
/// of rot would make acknowledged records a torn tail.
#[test]
fn a_note_proves_what_no_frame_can() {
    let sample = sample(0);
    let note = Note { durable: sample.starts[4] as u64, ..Note::default() };
    for frame in 0..4 {
        let mut bytes = sample.bytes.clone();
        // From the header of the frame on everything is gone.
        bytes[sample.starts[frame]..].fill(0);
        let damage = damage(open_with(bytes, &[note]));
        assert_eq!(damage.offset, sample.starts[frame] as u64);
        assert_eq!(damage.reason, Corruption::Damaged { durable: note.durable });
        assert_eq!(damage.usable, sample.images[frame]);
    }
    let mut bytes = sample.bytes.clone();
    bytes.truncate(sample.starts[4]);
    assert_state(&sample, &open_with(bytes, &[note]).unwrap(), 4);
}

/// A segment that comes back damaged must not count below what it may have acknowledged: each
/// trace of it has to be found, in notes, in headers and in writes that nothing else tells of.
#[test]
fn the_floor_of_a_damaged_log_covers_all_that_can_be_read() {
    let file = empty_log();
    let (mut log, mut image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    let records = [record(11, 0, 1, b""), record(12, 11, 1, b""), record(13, 12, 1, b"")];
    let mut starts = vec![file.contents().len()];
    let writes =
        [install(1, 0, 10), append(1, &records[..1]), append(1, &records[1..2]), promise(2)];
    // The last write alone tells of its record and of its membership.
    let last = SegmentWrite { membership: Some(membership(1)), ..append(2, &records[2..]) };
    for write in writes.iter().chain([&last]) {
        log.append(write, &vec![b"".as_slice(); write.records.len()]).unwrap();
        log.settle(file.sync().unwrap());
        image.apply(write).unwrap();
        log.note(&image);
        starts.push(file.contents().len());
    }
    let floor = Floor::of(&image);
    assert_eq!(
        (floor.scl, floor.promised.counter(), floor.history.counter()),
        (Lsn::new(13), 2, 1)
    );
    assert_eq!(floor.membership, membership(1).epoch());
    for frame in 0..4 {
        let mut bytes = file.contents();
        bytes[starts[frame] + format::FRAME_HEADER_BYTES + 10] ^= 1;
        // The last frame's own write counts: it may have been acknowledged.
        assert_eq!(damage(open_with(bytes, &[])).floor, floor, "{frame}");
    }
    // Of what is gone, a note tells.
    let bytes = file.contents()[..starts[1]].to_vec();
    let note = Note { durable: starts[5] as u64, floor };
    assert_eq!(damage(open_with(bytes, &[note, Note::default()])).floor, floor);
}

/// Starts a segment on `bytes` beside which its log has `notes`; returns what is in the file then.
fn start_with(bytes: Vec<u8>, notes: &[Note]) -> (Result<Opened, OpenError>, MemoryFile) {
    let file = MemoryFile { notes: notes.to_vec(), ..MemoryFile::new(bytes) };
    let started = SegmentLog::open_or_replace(file.clone(), &identity());
    let left = MemoryFile::new(file.contents());
    (started, left)
}

/// Makes a log of `writes`, each durable before the next one; returns it with the segment's state
/// and a note of all.
fn written(file: &MemoryFile, writes: &[SegmentWrite]) -> (SegmentImage, Note) {
    let (mut log, mut image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    for write in writes {
        log.append(write, &vec![b"".as_slice(); write.records.len()]).unwrap();
        log.settle(file.sync().unwrap());
        image.apply(write).unwrap();
        log.note(&image);
    }
    let note = Note { durable: file.contents().len() as u64, floor: Floor::of(&image) };
    (image, note)
}

/// A segment that voted with less than it acknowledged could cost a commit: whichever bit was
/// damaged, it knows what it owes, is no voter until it has that, and still knows after a restart.
#[test]
fn every_flipped_bit_of_what_was_durable_takes_the_vote_or_costs_nothing() {
    let file = empty_log();
    let begin = file.contents().len();
    let records = [record(11, 0, 1, b""), record(12, 11, 1, b""), record(13, 12, 1, b"")];
    let writes = [
        install(1, 0, 10),
        append(1, &records[..1]),
        append(1, &records[2..]),
        append(1, &records[1..2]),
        promise(2),
    ];
    let (image, note) = written(&file, &writes);
    let owed = Floor::of(&image);
    let (mut impaired, mut whole) = (0, 0);
    for bit in 0..file.contents().len() * 8 {
        let mut bytes = file.contents();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (started, left) = start_with(bytes, &[note]);
        if bit / 8 < begin {
            assert!(matches!(started, Err(OpenError::Header(HeaderError::Corrupt))), "{bit}");
            continue;
        }
        let (_, started, replay) = started.unwrap();
        let damage = replay.replaced.unwrap().damage;
        assert_eq!(damage.floor, damage.floor.join(&owed), "{bit}");
        assert!(started.promised() >= image.promised(), "{bit}");
        match started.floor() {
            Some(floor) => {
                assert_eq!(floor, damage.floor);
                impaired += 1;
            }
            None => {
                assert_eq!(Floor::of(&started), owed, "{bit}: it has all that it owes");
                whole += 1;
            }
        }
        let (_, again, replay) = open(left.contents()).unwrap();
        assert_eq!((again, replay.replaced), (started, None), "{bit}");
    }
    assert!(impaired > 2_000 && whole > 500, "{impaired} impaired, {whole} whole");
}

/// What was owed before a second damage is still owed: a segment that is not repaired says less
/// under a newer history than it acknowledged under the one before, and that history keeps it.
#[test]
fn a_second_damage_forgets_nothing_of_the_first() {
    let file = empty_log();
    let records = [record(11, 0, 1, b""), record(12, 11, 1, b"")];
    let writes = [install(1, 0, 10), append(1, &records[..1]), append(1, &records[1..])];
    let (image, note) = written(&file, &writes);
    assert_eq!(image.scl().lsn(), Lsn::new(12));
    let mut bytes = file.contents();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let (started, file) = start_with(bytes, &[note]);
    let (_, image, _) = started.unwrap();
    assert_eq!(
        (image.scl().lsn(), image.floor().map(|floor| floor.scl)),
        (Lsn::new(11), Some(Lsn::new(12)))
    );
    // A recovery keeps both records, and this segment hears of that and no more.
    let before = file.contents().len();
    let history = SegmentWrite { end: Lsn::new(12), ..install(2, 12, 40) };
    let (image, note) = written(&file, &[history, promise(2)]);
    assert_eq!(image.scl().lsn(), Lsn::new(11));
    assert!(image.floor().is_some());
    // Now the frame that said so is damaged: notes alone tell of the first damage.
    let mut bytes = file.contents();
    bytes[before - 5] ^= 1;
    let (started, _) = start_with(bytes, &[]);
    let (_, image, replay) = started.unwrap();
    assert!(replay.replaced.is_some());
    assert_eq!(image.floor(), Some(note.floor));
    assert_eq!((note.floor.scl, note.floor.history.counter()), (Lsn::new(12), 2));
}

/// A record above a hole counts: the write that fills the hole may be acknowledged with it, and
/// tell of neither.
#[test]
fn a_floor_covers_records_above_a_hole() {
    let file = empty_log();
    let records = [record(11, 0, 1, b""), record(12, 11, 1, b""), record(13, 12, 1, b"")];
    let before = [install(1, 0, 10), append(1, &records[..1])];
    written(&file, &before);
    let damaged = file.contents().len();
    written(&file, &[append(1, &records[2..]), append(1, &records[1..2])]);
    // No note tells of the last write: only the header of its own frame tells what was before it.
    let mut bytes = file.contents();
    bytes[damaged + 90] ^= 1;
    assert_eq!(damage(open(bytes)).floor.scl, Lsn::new(13));
}

/// What contradicts itself although it is whole is no damage of a disk: a log made of the frames
/// before it would hide a mistake.
#[test]
fn a_contradiction_is_refused() {
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    for write in [append(1, &[record(11, 0, 1, b"")]), append(1, &[record(11, 3, 1, b"")])] {
        log.append(&write, &[b""]).unwrap();
        log.settle(file.sync().unwrap());
    }
    let before = file.contents();
    let (started, left) = start_with(file.contents(), &[]);
    assert!(matches!(damage(started).reason, Corruption::Image(_)));
    assert_eq!(left.contents(), before);
}

/// Returns what a start finds that begins with a checkpoint after `cut` of `writes`, of which those
/// before it can't be read any more.
fn restarted(writes: &[SegmentWrite], cut: usize) -> (MemoryFile, Opened) {
    let file = empty_log();
    let (mut log, mut image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    for (number, write) in writes.iter().enumerate() {
        if number == cut {
            log.checkpoint(&image);
            assert_eq!(log.since_checkpoint(), None);
        }
        let payloads: Vec<Vec<u8>> =
            write.records.iter().map(|it| payload_of(it.lsn.get(), 8)).collect();
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        log.append(write, &slices).unwrap();
        log.settle(file.sync().unwrap());
        image.apply(write).unwrap();
        log.note(&image);
        if number == cut {
            // It is of what was durable when it began.
            log.checkpointed(file.finish_checkpoint().unwrap());
        }
    }
    for record in image.records() {
        assert_eq!(log.read(record).unwrap(), payload_of(record.lsn.get(), 8));
    }
    let again = file.restarted(file.contents());
    (again.clone(), SegmentLog::open(again, &identity()).unwrap())
}

/// Some overwrites of few pages, with what supersedes them discarded now and then.
fn overwrites() -> Vec<SegmentWrite> {
    let mut writes = vec![install(1, 0, 10)];
    for lsn in 11..60u64 {
        let before = if lsn == 11 { 0 } else { lsn - 1 };
        writes.push(append(1, &[record(lsn, before, 1, &payload_of(lsn, 8))]));
        if lsn % 7 == 0 {
            writes.push(collect(1, lsn - 3));
        }
    }
    writes
}

/// A start that begins with a checkpoint must find what one finds that reads every frame, and read
/// nothing that lies before it.
#[test]
fn a_checkpoint_stands_for_the_frames_before_it() {
    let writes = overwrites();
    let mut whole = SegmentImage::create(identity().group, identity().geometry).unwrap();
    writes.iter().for_each(|write| whole.apply(write).unwrap());
    for cut in 0..writes.len() {
        let (file, (log, image, replay)) = restarted(&writes, cut);
        assert_eq!(image, whole, "{cut}");
        assert_eq!((replay.checkpoint, replay.frames), (cut as u64, (writes.len() - cut) as u64));
        for record in image.records() {
            assert_eq!(log.read(record).unwrap(), payload_of(record.lsn.get(), 8));
        }
        assert!(cut < 20 || file.trimmed.get() > 1_000, "{cut}");
    }
}

/// How long a start takes must not depend on how long the log has been.
#[test]
fn a_start_replays_what_came_after_the_checkpoint() {
    let frames = [100, 1_000].map(|count: u64| {
        let file = empty_log();
        let (mut log, mut image, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
        let mut writes = vec![install(1, 0, 10)];
        for lsn in 11..11 + count {
            let before = if lsn == 11 { 0 } else { lsn - 1 };
            writes.push(append(1, &[record(lsn, before, 1, &payload_of(lsn, 8))]));
            writes.push(collect(1, lsn));
        }
        for write in &writes {
            let payload = write.records.first().map(|it| payload_of(it.lsn.get(), 8));
            let payloads: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
            log.append(write, &payloads).unwrap();
            log.settle(file.sync().unwrap());
            image.apply(write).unwrap();
            if log.since_checkpoint().unwrap() > 5_000 {
                log.checkpoint(&image);
                log.checkpointed(file.finish_checkpoint().unwrap());
            }
        }
        let again = file.restarted(file.contents());
        let (_, _, replay) = SegmentLog::open(again, &identity()).unwrap();
        assert_eq!(replay.checkpoint + replay.frames, writes.len() as u64);
        replay.frames
    });
    assert!(frames.iter().all(|frames| *frames < 40), "{frames:?}");
}

/// Damage behind a checkpoint costs the vote as ever, and no more: the checkpoint stays.
#[test]
fn damage_after_a_checkpoint_is_replaced_from_it() {
    let writes = overwrites();
    let (file, (log, image, _)) = restarted(&writes, 30);
    let from = usize::try_from(log.checkpoint.at).unwrap();
    let owed = Floor::of(&image);
    let (mut impaired, mut whole) = (0, 0);
    for bit in (from * 8..file.contents().len() * 8).step_by(5) {
        let mut bytes = file.contents();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let note = Note { durable: bytes.len() as u64, floor: owed };
        let damaged = MemoryFile { notes: vec![note], ..file.restarted(bytes) };
        let started = SegmentLog::open_or_replace(damaged.clone(), &identity());
        let (_, started, replay) = started.unwrap();
        assert!(replay.replaced.is_some(), "{bit}");
        match started.floor() {
            Some(floor) => {
                assert_eq!(floor.join(&owed), floor);
                impaired += 1;
            }
            None => whole += 1,
        }
        let left = damaged.restarted(damaged.contents());
        let (_, again, _) = SegmentLog::open(left, &identity()).unwrap();
        assert_eq!(again, started, "{bit}");
    }
    assert!(impaired > 1_000, "{impaired} impaired, {whole} whole");
}

/// Without its store a log that was trimmed tells too little: nothing may be served, or changed.
#[test]
fn a_lost_or_damaged_store_is_refused() {
    let (file, _) = restarted(&overwrites(), 40);
    let bytes = file.contents();
    let lost = file.restarted(bytes.clone());
    *lost.store.borrow_mut() = None;
    let opened = SegmentLog::open_or_replace(lost.clone(), &identity()).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Store(StoreError::Gone))));
    assert_eq!(lost.contents(), bytes);
    let damaged = file.restarted(bytes.clone());
    let lsn = damaged.stored().unwrap().unwrap().image.records()[0].lsn.get();
    let mut store = damaged.store.borrow().clone().unwrap();
    crate::store::Tables::remove(&mut store, crate::store::Table::Records, lsn).unwrap();
    *damaged.store.borrow_mut() = Some(store);
    let opened = SegmentLog::open_or_replace(damaged.clone(), &identity()).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Store(StoreError::Damaged))), "{opened:?}");
    assert_eq!(damaged.contents(), bytes);
}

/// A frame of an earlier use of the space, at the very tail and of the right size, must not be
/// taken for one of this use.
#[test]
fn a_frame_of_another_place_is_nothing() {
    let file = empty_log();
    let (mut log, _, _) = SegmentLog::open(file.clone(), &identity()).unwrap();
    let mut starts = vec![file.contents().len()];
    for _ in 0..4 {
        log.append(&promise(1), &[]).unwrap();
        log.settle(file.sync().unwrap());
        starts.push(file.contents().len());
    }
    let sizes: Vec<usize> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(sizes.iter().all(|size| *size == sizes[0]));
    for stale in 0..4 {
        for tail in 0..4 {
            // From the tail on, there is what was written when this place was another.
            let mut bytes = file.contents()[..starts[tail]].to_vec();
            bytes.extend_from_slice(&file.contents()[starts[stale]..]);
            let (log, _, replay) = open(bytes).unwrap();
            let expected = if stale == tail { 4 } else { tail };
            assert_eq!(replay.frames, expected as u64, "frame {stale} at {tail}");
            assert_eq!(log.bytes(), starts[expected] as u64);
        }
    }
}
