//! Counterexamples: found, written, read back, replayed, and shown to a person.

use quorate_checks::diagram::diagram;
use quorate_checks::page::{Colour, WIDTH, page};
use quorate_checks::run::{Search, Verdict, run};
use quorate_checks::trace::{Replay, Trace, TraceError, Under, replay};
use quorate_core::rules::{Bug, Seeded};
use quorate_models::configuration;
use quorate_models::invariant::Property;

/// How many lines fit on a page.
const LINES: usize = 60;

/// Finds a counterexample; an error if there is none.
fn find(name: &str, bug: Bug) -> Result<Trace, TraceError> {
    let unknown = || TraceError::UnknownConfiguration(name.to_owned());
    let configuration = configuration::named(name).ok_or_else(unknown)?;
    let outcome = run(configuration, Seeded(bug), Search::Breadth, 0, |_| {});
    let Verdict::Broken { property, actions } = outcome.verdict else {
        panic!("{name} finds nothing wrong with {}", bug.name());
    };
    Trace::record(configuration, Some(bug), 0, Some(property), &actions)
}

/// A counterexample of each kind: overtaken writers, crashes, gossip under way, several groups.
fn all() -> Result<Vec<(Trace, Replay)>, TraceError> {
    let found = [
        ("zombie-e2r2", Bug::NoFence),
        ("crash-split", Bug::TornTailAccepted),
        ("gossip-messages", Bug::GossipWithoutHistory),
        ("crash-split", Bug::DuplicateAckCounted),
        ("two-groups-r2", Bug::VclIsMinPgcl),
    ];
    let with_replay = |(name, bug)| {
        let trace = find(name, bug)?;
        let replay = replay(&trace, Under::Recorded)?;
        Ok((trace, replay))
    };
    found.into_iter().map(with_replay).collect()
}

/// A trace that doesn't survive its file, or ends otherwise, would be useless as a regression.
#[test]
fn a_trace_replays_after_it_was_written_and_read() -> Result<(), TraceError> {
    let trace = find("zombie-e2r2", Bug::NoFence)?;
    let read = Trace::from_json(&trace.to_json()?)?;
    assert_eq!(read, trace);
    assert_eq!(replay(&read, Under::Recorded)?.broken, trace.broken()?);
    assert!(trace.broken()?.is_some());
    Ok(())
}

/// The bug, not the trace, must be what breaks the property.
#[test]
fn the_sound_machines_survive_the_same_steps() -> Result<(), TraceError> {
    for (trace, _) in all()? {
        let sound = replay(&trace, Under::Sound)?;
        assert_eq!(sound.broken, None, "{}", page(&sound, Colour::Plain));
        assert_eq!(sound.played.len(), trace.len());
    }
    Ok(())
}

/// A person must be able to print it, and terminals must not wrap it.
#[test]
fn a_counterexample_is_one_page_of_text() -> Result<(), TraceError> {
    for (_, replay) in all()? {
        let text = page(&replay, Colour::Plain);
        assert!(text.lines().count() <= LINES, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(page(&replay, Colour::Coloured).contains('\x1b'));
    }
    Ok(())
}

/// A picture that doesn't parse, lacks somebody or hides text under text explains nothing.
#[test]
fn a_counterexample_is_a_legible_picture() -> Result<(), TraceError> {
    for (_, replay) in all()? {
        let svg = diagram(&replay);
        let document = match roxmltree::Document::parse(&svg) {
            Ok(document) => document,
            Err(error) => panic!("not XML: {error}"),
        };
        let texts: Vec<_> =
            document.descendants().filter(|node| node.has_tag_name("text")).collect();
        let says = |label: &str| texts.iter().any(|text| text.text() == Some(label));
        assert!(says("clients"));
        for writer in &replay.end().writers {
            assert!(says(&format!("{}  {}", writer.name, writer.epoch)), "{}", writer.name);
        }
        for position in replay.configuration.quorums.positions() {
            assert!(says(&position.to_string()), "{position}");
        }
        let claim = replay.broken.map_or("", Property::name);
        assert!(texts.iter().any(|text| text.text().is_some_and(|text| text.contains(claim))));
        let boxes: Vec<Extent> = texts.iter().filter_map(extent).collect();
        assert_eq!(boxes.len(), texts.len());
        for (index, left) in boxes.iter().enumerate() {
            for right in boxes.iter().skip(index + 1) {
                assert!(!left.overlaps(right), "{} lies on {}", left.label, right.label);
            }
        }
    }
    Ok(())
}

/// Where a text is, about.
struct Extent {
    label: String,
    from: f64,
    to: f64,
    y: f64,
}

impl Extent {
    fn overlaps(&self, other: &Self) -> bool {
        (self.y - other.y).abs() < 12.0 && self.from < other.to && other.from < self.to
    }
}

fn extent(node: &roxmltree::Node<'_, '_>) -> Option<Extent> {
    let number = |name: &str| node.attribute(name).and_then(|text| text.parse::<f64>().ok());
    let label = node.text()?.to_owned();
    let width = 6.2 * f64::from(u32::try_from(label.chars().count()).ok()?);
    let (x, y) = (number("x")?, number("y")?);
    let from = match node.attribute("text-anchor")? {
        "start" => x,
        "middle" => x - width / 2.0,
        _ => x - width,
    };
    Some(Extent { label, from, to: from + width, y })
}

/// Whoever gets a file from elsewhere must learn what is wrong with it, and never see a panic.
#[test]
fn what_is_wrong_with_a_file_is_said() -> Result<(), TraceError> {
    let text = find("zombie-e2r2", Bug::NoFence)?.to_json()?;
    let load = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        Trace::from_json(&changed).and_then(|trace| replay(&trace, Under::Recorded))
    };
    assert!(matches!(load("{", "["), Err(TraceError::Malformed(_))));
    let other = load("\"format\": 1", "\"format\": 2");
    assert!(matches!(other, Err(TraceError::Format { found: 2 })));
    let other = load("zombie-e2r2", "nowhere");
    assert!(matches!(other, Err(TraceError::UnknownConfiguration(_))));
    let other = load("\"bug\": \"NoFence\"", "\"bug\": \"Nonsense\"");
    assert!(matches!(other, Err(TraceError::UnknownBug(_))));
    let other = load("P1 durability", "P0 everything");
    assert!(matches!(other, Err(TraceError::UnknownProperty(_))));
    let other = load("P1 durability", "P4 reads");
    assert!(matches!(other, Err(TraceError::Otherwise { .. })));
    let other = load("\"position\": 0", "\"position\": 77");
    assert!(matches!(other, Err(TraceError::Impossible { number: 3, .. })));
    let other = load("\"group\": 0", "\"group\": 200");
    assert!(matches!(other, Err(TraceError::Impossible { number: 3, .. })));
    let other = load("\"writer\": 0", "\"writer\": 200");
    assert!(matches!(other, Err(TraceError::Impossible { number: 2, .. })));
    Ok(())
}
