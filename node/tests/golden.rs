//! The bytes of this version, on the wire and on disk, kept as files: nodes of one version must
//! understand each other, and a log must be readable by the version that wrote it.
//!
//! Each line of a golden file is a name and bytes in hexadecimal. If bytes change on purpose, so
//! does a version number; then `QUORATE_GOLDEN=write cargo test -p quorate-node --test golden`
//! writes the files anew.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use quorate_core::consistency::{GarbageFloor, Pgmrpl, ReadPoint, Scl, Vcl, Vdl};
use quorate_core::effect::SegmentWrite;
use quorate_core::epoch::VolumeEpoch;
use quorate_core::floor::Floor;
use quorate_core::formula::Half;
use quorate_core::geometry::Added;
use quorate_core::hold::Holds;
use quorate_core::id::{
    Incarnation, InstanceId, PageId, PgId, Position, Positions, ReaderId, SegmentId, Ticket,
};
use quorate_core::lsn::Lsn;
use quorate_core::membership::{Membership, MembershipEpoch, Step, StepRefusal};
use quorate_core::message::{
    Append, Aside, Confirm, FromReader, Install, Locate, Pull, Pulled, Read, Redo, Seal,
    SealAnswer, Start, ToReader, ToSegment, ToWriter,
};
use quorate_core::quorum::QuorumSet;
use quorate_core::record::Record;
use quorate_core::refusal::Refusal;
use quorate_core::rules::Sound;
use quorate_core::truncation::{History, TruncationRange};
use quorate_node::addresses::{Place, Seat, Seats};
use quorate_node::config::{self, VolumeId};
use quorate_node::format::{self, FrameHeader, LogIdentity, Note};
use quorate_node::payload;
use quorate_node::volume::{Committed, Consistency};
use quorate_node::wire::client::{
    Answer, ClientRefusal, ClientReply, ClientRequest, ClientWelcome, GroupStatus, PageSum,
    Question, ReaderStatus, SegmentView, WriterStatus,
};
use quorate_node::wire::members::{GroupMembers, MemberView, Stepped, VolumeMembers};
use quorate_node::wire::{self, Decoded, Envelope, Hello, HelloRefusal, Role, Status, Welcome};

const GROUP: PgId = PgId::new(0x0102_0304);
const SALT: u64 = 0x1112_1314_1516_1718;
const PAYLOAD: &[u8] = b"redo";

fn epoch(counter: u64) -> VolumeEpoch {
    VolumeEpoch::new(counter, InstanceId::new(0x2122_2324_2526_2728))
}

fn record() -> Record {
    let (page, lsn) = (PageId::new(0x31), Lsn::new(0x4142));
    Record {
        lsn,
        epoch: epoch(2),
        prev_volume: Lsn::new(0x4141),
        prev_group: Lsn::new(0x4140),
        group: GROUP,
        page,
        cpl: true,
        payload: payload::describe(GROUP, page, lsn, PAYLOAD).unwrap(),
    }
}

/// A floor of LSN zero: any other has to be made of a VDL.
fn floor() -> GarbageFloor {
    GarbageFloor::of(Pgmrpl::of(Vdl::ZERO, []), &Holds::new())
}

fn history() -> History {
    let range = |counter, after, through| {
        TruncationRange::new(epoch(counter), Lsn::new(after), Lsn::new(through)).unwrap()
    };
    History::new().with(range(1, 0, 0x4000)).with(range(2, 0x3fff, 0x4100))
}

fn position() -> Position {
    Position::new(3).unwrap()
}

fn status() -> Status {
    Status {
        group: GROUP,
        position: position(),
        incarnation: Incarnation::new(0),
        membership: membership(),
        scl: Scl::ZERO,
        vdl: Vdl::ZERO,
        heard: epoch(3),
        promised: epoch(2),
        history: epoch(1),
        base: Lsn::new(0x53),
        floor: floor(),
        records: 0x51,
        log_bytes: 0x52,
        history_ranges: 0x53,
        impaired: false,
    }
}

/// Returns a membership with a change under way.
fn membership() -> Membership {
    let first = Membership::genesis(QuorumSet::AURORA).adopted_by(epoch(2));
    first.after(Sound, epoch(2), replace()).unwrap()
}

fn replace() -> Step {
    let (old, position) = (Position::new(5).unwrap(), Position::new(6).unwrap());
    Step::Replace { old, new: SegmentId { position, incarnation: Incarnation::new(1) } }
}

fn place() -> Place {
    let address = SocketAddr::from(([127, 0, 0, 1], 0x4144));
    Place { incarnation: Incarnation::new(0x54), revision: 0x55, address }
}

fn members() -> VolumeMembers {
    let (pgcl, target) = (Lsn::new(0xb3), Lsn::new(0xb4));
    let member = MemberView {
        position: position(),
        incarnation: Incarnation::new(0x56),
        address: Some(place().address),
        is_up: true,
        scl: Lsn::new(0xb5),
    };
    let (group, membership, members) = (GROUP, membership(), vec![member]);
    let group = GroupMembers { group, membership, is_settled: true, target, pgcl, members };
    VolumeMembers { groups: vec![group] }
}

/// Returns one envelope of each kind; those with a choice inside, one for each.
fn envelopes() -> Vec<Envelope> {
    let (group, vdl, scl, ticket) = (GROUP, Vdl::ZERO, Scl::ZERO, Ticket::new(0x61));
    let incarnation = Incarnation::new(0x51);
    let (epoch, records, volume) = (epoch(2), vec![record()], VolumeId::new(0x71));
    let hello = |role| Envelope::Hello(Hello { volume, group, position: position(), role });
    let geometry = config::geometry(2).unwrap();
    let read_point = ReadPoint::at(vdl);
    let (page, needed) = (PageId::new(0x31), Lsn::new(0x4142));
    let (base, through) = (Lsn::new(0x4130), Lsn::new(0x4120));
    let to_segment = [
        ToSegment::Append(Append { epoch, group, vdl, floor: floor(), records: records.clone() }),
        ToSegment::Behind { group, history: epoch },
        ToSegment::Confirm(Confirm { epoch, group, ticket }),
        ToSegment::Install(Install {
            group,
            history: history(),
            end: needed,
            tip: Some(Lsn::new(0x4143)),
            membership: membership(),
        }),
        ToSegment::Locate(Locate { epoch, group, ticket, target: through, needed }),
        ToSegment::Pull(Pull { group, history: epoch, scl, base, through, beyond: vec![needed] }),
        ToSegment::Pulled(Pulled {
            group,
            history: history(),
            end: needed,
            tip: None,
            membership: membership(),
            vdl,
            base,
            after: through,
            records: records.clone(),
        }),
        ToSegment::Read(Read { epoch, group, ticket, page, read_point, needed }),
        ToSegment::Seal(Seal { epoch, group, at: Some(through) }),
    ];
    let answer = SealAnswer {
        geometry,
        history: history(),
        incarnation,
        membership: membership(),
        scl,
        vdl,
        anchor: Some((through, base)),
        aside: Some(Aside { scl, vdl, records: records.clone() }),
        records,
    };
    let refused = |ticket, refusal| ToWriter::Refused { epoch, ticket, refusal };
    let lsn = needed;
    let to_writer = [
        ToWriter::Ack { epoch, incarnation, number: 0x53, scl },
        ToWriter::Confirmed { epoch, incarnation, ticket },
        ToWriter::Located {
            epoch,
            ticket,
            place: quorate_core::message::Place { end: needed, cpl: base, tip: None },
        },
        ToWriter::Read { epoch, ticket, page, read_point, version: None },
        ToWriter::Read { epoch, ticket, page, read_point, version: Some(record()) },
        refused(None, Refusal::Annulled { lsn }),
        refused(None, Refusal::Behind { history: epoch }),
        refused(None, Refusal::BeyondLimit { lsn, limit: Lsn::new(0x81) }),
        refused(None, Refusal::Conflict { lsn }),
        refused(None, Refusal::EpochAhead { heard: epoch }),
        refused(Some(ticket), Refusal::Collected { base }),
        refused(None, Refusal::Fenced { promised: epoch }),
        refused(None, Refusal::Full),
        refused(None, Refusal::HistoryFull),
        refused(None, Refusal::Impaired),
        refused(Some(ticket), Refusal::Incomplete { scl }),
        refused(None, Refusal::Malformed),
        refused(None, Refusal::Oversized),
        refused(None, Refusal::Overloaded),
        refused(None, Refusal::WrongGroup),
        ToWriter::Sealed { epoch, answer },
    ];
    let own = [
        hello(Role::Observer),
        hello(Role::Segment { position: position() }),
        hello(Role::Reader { reader: ReaderId::new(0x92) }),
        hello(Role::Writer { instance: InstanceId::new(0x91) }),
        Envelope::Refused(HelloRefusal::Full),
        Envelope::Refused(HelloRefusal::OtherVersion),
        Envelope::Refused(HelloRefusal::WrongSegment { group, position: position() }),
        Envelope::Refused(HelloRefusal::WrongVolume { volume }),
        Envelope::Status(status()),
        Envelope::StatusRequest,
        Envelope::Welcome(Welcome { geometry, status: status() }),
        Envelope::Seats(Seats {
            group,
            seats: vec![Seat { position: position(), place: place() }],
        }),
    ];
    let start = Start { epoch, session: 0x93, vdl, floor: read_point, ends: vec![needed] };
    let added = Added::NONE;
    let redo = Redo { epoch, session: 0x93, number: 0x94, vdl, added, records: vec![record()] };
    let mut scls = Positions::default();
    *scls.at_mut(position()) = Some(needed);
    let to_reader = [
        ToReader::Read { epoch, ticket, page, read_point, version: Some(record()) },
        ToReader::Redo(redo),
        ToReader::Refused { epoch, ticket, refusal: Refusal::Collected { base } },
        ToReader::Standing { epoch, group, scls },
        ToReader::Start(start),
    ];
    let to_reader = to_reader.into_iter().map(Envelope::ToReader);
    let from_reader = [
        FromReader::Attach { floor: None },
        FromReader::Attach { floor: Some(read_point) },
        FromReader::Detach,
        FromReader::Release { epoch, floor: read_point },
    ];
    let from_reader = from_reader.into_iter().map(Envelope::FromReader);
    let to_segment = to_segment.into_iter().map(Envelope::ToSegment);
    let to_writer = to_writer.into_iter().map(Envelope::ToWriter);
    own.into_iter()
        .chain(to_reader)
        .chain(from_reader)
        .chain(to_segment)
        .chain(to_writer)
        .chain(with_clients())
        .collect()
}

/// Returns what clients and writer processes say to each other.
fn with_clients() -> impl Iterator<Item = Envelope> {
    let (ticket, page, lsn) = (Ticket::new(0x62), PageId::new(0x32), Lsn::new(0x4143));
    let read = |consistency| Question::Read { page, consistency };
    let questions = [
        read(Consistency::At(lsn)),
        read(Consistency::AtLeast(lsn)),
        read(Consistency::Snapshot),
        read(Consistency::Strict),
        Question::Status,
        Question::Write { pages: vec![PageSum::describe(page, PAYLOAD).unwrap()] },
        Question::Members,
        Question::Backtrack { target: Lsn::new(0x4142) },
        Question::Step { group: GROUP, step: replace(), place: Some(place()) },
        Question::Step { group: GROUP, step: Step::Finish(Half::Older), place: None },
        Question::Step { group: GROUP, step: Step::Revert(Half::Newer), place: None },
    ];
    let (page, read_point) = (PageSum::describe(page, PAYLOAD).unwrap(), ReadPoint::at(Vdl::ZERO));
    let answers = [
        Answer::Page { page, read_point, lsn: Some(lsn) },
        Answer::Refused(ClientRefusal::BatchRefused),
        Answer::Refused(ClientRefusal::Empty),
        Answer::Refused(ClientRefusal::LogFull),
        Answer::Refused(ClientRefusal::OutOfLsns),
        Answer::Refused(ClientRefusal::Overtaken { by: epoch(3) }),
        Answer::Refused(ClientRefusal::Oversized),
        Answer::Refused(ClientRefusal::Reader),
        Answer::Refused(ClientRefusal::Stopped),
        Answer::Refused(ClientRefusal::Unanswered),
        Answer::Reader(ReaderStatus {
            epoch: epoch(2),
            vdl: Vdl::ZERO,
            floor: ReadPoint::at(Vdl::ZERO),
            is_following: true,
            streams: 0xb1,
            pages: 0xb2,
            reads_under_way: 0xb3,
        }),
        Answer::Status(Box::new(writer_status())),
        Answer::Written(Committed { first: lsn, cpl: lsn }),
        Answer::Members(members()),
        Answer::Opened { epoch: epoch(3), recovery_point: Vdl::ZERO },
        Answer::Refused(ClientRefusal::NoPoint { nearest: lsn }),
        Answer::Refused(ClientRefusal::PointAhead),
        Answer::Refused(ClientRefusal::PointDiscarded { floor: lsn }),
        Answer::Refused(ClientRefusal::WentElsewhere),
        Answer::Stepped(Stepped::NoGroup),
        Answer::Stepped(Stepped::Refused(StepRefusal::NotHydrated)),
        Answer::Stepped(Stepped::Taken),
        Answer::Stepped(Stepped::Unreachable),
    ];
    let welcome = ClientWelcome { geometry: config::geometry(2).unwrap(), epoch: epoch(2) };
    let ask = move |question| Envelope::FromClient(ClientRequest { ticket, question });
    let reply = move |answer| Envelope::ToClient(ClientReply { ticket, answer });
    let own = [
        Envelope::ClientWelcome(welcome),
        Envelope::Refused(HelloRefusal::NoSegment),
        Envelope::Refused(HelloRefusal::NoWriter),
    ];
    own.into_iter().chain(questions.map(ask)).chain(answers.map(reply))
}

fn writer_status() -> WriterStatus {
    let segment = SegmentView { position: position(), is_up: true, scl: None, behind: 0xa1 };
    let group = GroupStatus { group: GROUP, pgcl: Lsn::new(0xa2), segments: vec![segment] };
    WriterStatus {
        epoch: epoch(2),
        recovery_point: Vdl::ZERO,
        vcl: Vcl::ZERO,
        vdl: Vdl::ZERO,
        tail: Lsn::new(0xa3),
        allowance: 0xa4,
        groups: vec![group],
        connections: 0xa5,
        writes_under_way: 0xa6,
        writes_waiting: 0xa7,
        reads_under_way: 0xa8,
        reads_hedged: 0xaa,
        reads_probed: 0xab,
        bytes_under_way: 0xa9,
    }
}

/// Returns the name of an envelope's kind. Whoever adds one is led here, and to the list above.
const fn kind(envelope: &Envelope) -> &'static str {
    match envelope {
        Envelope::ClientWelcome(_) => "client-welcome",
        Envelope::FromClient(_) => "from-client",
        Envelope::Hello(_) => "hello",
        Envelope::Refused(_) => "refused",
        Envelope::Status(_) => "status",
        Envelope::StatusRequest => "status-request",
        Envelope::ToClient(_) => "to-client",
        Envelope::FromReader(_) => "from-reader",
        Envelope::ToReader(ToReader::Read { .. }) => "to-reader-read",
        Envelope::ToReader(ToReader::Redo(_)) => "to-reader-redo",
        Envelope::ToReader(ToReader::Refused { .. }) => "to-reader-refused",
        Envelope::ToReader(ToReader::Standing { .. }) => "to-reader-standing",
        Envelope::ToReader(ToReader::Start(_)) => "to-reader-start",
        Envelope::ToSegment(ToSegment::Append(_)) => "to-segment-append",
        Envelope::ToSegment(ToSegment::Behind { .. }) => "to-segment-behind",
        Envelope::ToSegment(ToSegment::Confirm(_)) => "to-segment-confirm",
        Envelope::ToSegment(ToSegment::Install(_)) => "to-segment-install",
        Envelope::ToSegment(ToSegment::Locate(_)) => "to-segment-locate",
        Envelope::ToSegment(ToSegment::Pull(_)) => "to-segment-pull",
        Envelope::ToSegment(ToSegment::Pulled(_)) => "to-segment-pulled",
        Envelope::ToSegment(ToSegment::Read(_)) => "to-segment-read",
        Envelope::ToSegment(ToSegment::Seal(_)) => "to-segment-seal",
        Envelope::ToWriter(ToWriter::Ack { .. }) => "to-writer-ack",
        Envelope::ToWriter(ToWriter::Confirmed { .. }) => "to-writer-confirmed",
        Envelope::ToWriter(ToWriter::Located { .. }) => "to-writer-located",
        Envelope::ToWriter(ToWriter::Read { .. }) => "to-writer-read",
        Envelope::ToWriter(ToWriter::Refused { .. }) => "to-writer-refused",
        Envelope::ToWriter(ToWriter::Sealed { .. }) => "to-writer-sealed",
        Envelope::Welcome(_) => "welcome",
        Envelope::Seats(_) => "seats",
    }
}

/// How many names [`kind`] has.
const KINDS: usize = 30;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Compares `lines` with the golden file of this name, and returns the bytes that the file has.
fn golden(file: &str, lines: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let now: Vec<String> =
        lines.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
    if std::env::var_os("QUORATE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    for (kept, now) in kept.lines().zip(&now) {
        assert_eq!(kept, now, "the bytes have changed, or the sample");
    }
    assert_eq!(kept.lines().count(), now.len());
    kept.lines().map(|line| unhex(line.split_once(' ').unwrap().1)).collect()
}

/// A message must be the same bytes in every build of a version.
#[test]
fn the_wire_speaks_as_it_did() {
    assert_eq!(wire::PROTOCOL_VERSION, 4, "a new version has new golden files");
    let envelopes = envelopes();
    let kinds: BTreeSet<&str> = envelopes.iter().map(kind).collect();
    assert_eq!(kinds.len(), KINDS);
    let payloads =
        |envelope: &Envelope| vec![PAYLOAD; envelope.records().len().max(envelope.pages().len())];
    let lines: Vec<(String, Vec<u8>)> = envelopes
        .iter()
        .map(|envelope| {
            (kind(envelope).to_owned(), wire::encode(envelope, &payloads(envelope)).unwrap())
        })
        .collect();
    for (bytes, envelope) in golden("wire.txt", &lines).iter().zip(&envelopes) {
        let Ok(Decoded::Frame { frame, length }) = wire::decode(bytes) else {
            panic!("{envelope:?} can't be decoded");
        };
        assert_eq!((length, &frame.envelope), (bytes.len(), envelope));
        assert_eq!(wire::encode(&frame.envelope, &payloads(envelope)).unwrap(), *bytes);
    }
}

fn identity() -> LogIdentity {
    LogIdentity {
        volume: VolumeId::new(0x71),
        group: GROUP,
        position: position(),
        geometry: config::geometry(2).unwrap(),
        incarnation: Incarnation::new(0),
        salt: SALT,
    }
}

fn note() -> Note {
    let membership = MembershipEpoch { volume: epoch(1), number: 0xb2 };
    let floor = Floor { scl: Lsn::new(0x4140), promised: epoch(2), history: epoch(1), membership };
    Note { durable: 0xa1, floor }
}

/// Returns a write of each kind.
fn writes() -> [(&'static str, SegmentWrite); 8] {
    let nothing = SegmentWrite::default();
    let promised = epoch(2);
    [
        ("frame-nothing", nothing.clone()),
        ("frame-base", SegmentWrite { base: Lsn::new(0x4130), ..nothing.clone() }),
        ("frame-promise", SegmentWrite { promised, ..nothing.clone() }),
        ("frame-history", SegmentWrite { promised, history: Some(history()), ..nothing.clone() }),
        (
            "frame-membership",
            SegmentWrite { promised, membership: Some(membership()), ..nothing.clone() },
        ),
        ("frame-records", SegmentWrite { promised, records: vec![record()], ..nothing.clone() }),
        (
            "frame-floor",
            SegmentWrite {
                floor: Some(Floor {
                    scl: Lsn::new(0x4142),
                    promised,
                    history: promised,
                    membership: membership().epoch(),
                }),
                ..nothing.clone()
            },
        ),
        (
            "frame-gossip",
            SegmentWrite {
                promised,
                history: Some(history()),
                membership: Some(membership()),
                end: Lsn::new(0x3fff),
                records: vec![record(), record()],
                ..nothing
            },
        ),
    ]
}

/// A log must be readable by every build of the version that wrote it.
#[test]
fn the_disk_keeps_what_it_had() {
    assert_eq!(format::FORMAT_VERSION, 6, "a new version has new golden files");
    let writes = writes();
    let payloads = |write: &SegmentWrite| vec![PAYLOAD; write.records.len()];
    let mut lines = vec![
        ("header".to_owned(), format::encode_header(&identity()).unwrap()),
        ("slot".to_owned(), format::encode_slot(SALT, 0xb1, &note())),
    ];
    lines.extend(writes.iter().map(|(name, write)| {
        let frame = format::encode_frame(SALT, 0xc1, &note(), write, &payloads(write)).unwrap();
        ((*name).to_owned(), frame)
    }));
    let kept = golden("disk.txt", &lines);
    assert_eq!(format::decode_header(&kept[0]), Ok((identity(), kept[0].len())));
    let slot = kept[1].as_slice().try_into().unwrap();
    assert_eq!(format::decode_slot(SALT, slot), Some((0xb1, note())));
    for (bytes, (name, write)) in kept[2..].iter().zip(&writes) {
        let (start, body) = bytes.split_first_chunk().unwrap();
        let header = FrameHeader::decode(SALT, start).unwrap();
        assert_eq!((header.number, header.note, header.frame_bytes()), (0xc1, note(), bytes.len()));
        let (envelope, payload) = body.split_at(header.envelope_bytes);
        let decoded = header.decode_envelope(SALT, envelope).unwrap();
        assert_eq!(decoded, *write, "{name}");
        payload::check(&decoded.records, payload).unwrap();
    }
}

/// A header, slot or frame of which any bit is wrong, or which is cut anywhere, must not be taken
/// for one; nor must another log's.
#[test]
fn every_flipped_bit_on_disk_is_found() {
    let header = format::encode_header(&identity()).unwrap();
    let slot = format::encode_slot(SALT, 0xb1, &note());
    for bit in 0..header.len() * 8 {
        let mut bytes = header.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(format::decode_header(&bytes).is_err(), "{bit}");
    }
    for length in 0..header.len() {
        assert!(format::decode_header(&header[..length]).is_err(), "{length}");
    }
    for bit in 0..slot.len() * 8 {
        let mut bytes = slot.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(format::decode_slot(SALT, bytes.as_slice().try_into().unwrap()), None, "{bit}");
    }
    // A slot of which the end was never written.
    for length in 0..slot.len() {
        let mut bytes = slot.clone();
        bytes[length..].fill(0);
        assert_eq!(format::decode_slot(SALT, bytes.as_slice().try_into().unwrap()), None);
    }
    assert_eq!(format::decode_slot(SALT + 1, slot.as_slice().try_into().unwrap()), None);
    for (name, write) in writes() {
        let payloads = vec![PAYLOAD; write.records.len()];
        let frame = format::encode_frame(SALT, 0xc1, &note(), &write, &payloads).unwrap();
        let is_whole = |salt: u64, bytes: &[u8]| {
            let Some((start, body)) = bytes.split_first_chunk() else { return false };
            let Some(header) = FrameHeader::decode(salt, start) else { return false };
            let Some((envelope, payload)) = body.split_at_checked(header.envelope_bytes) else {
                return false;
            };
            let write = header.decode_envelope(salt, envelope);
            write.is_some_and(|write| payload::check(&write.records, payload).is_ok())
        };
        assert!(is_whole(SALT, &frame) && !is_whole(SALT + 1, &frame));
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(SALT, &bytes), "{name} {bit}");
        }
        for length in 0..frame.len() {
            assert!(!is_whole(SALT, &frame[..length]), "{name} {length}");
        }
    }
}
