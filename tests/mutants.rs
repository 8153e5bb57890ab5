//! Seeded bugs in real processes: whoever looks for violations must find them.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_core::rules::Bug;
use quorate_node::demo::{self, Colour, DemoError, Narrator};
use quorate_node::torture::book::Violation;
use quorate_node::torture::{self, Fault, Options, TortureError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutants-{name}"));
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn options(name: &str, mutant: Option<Bug>) -> Options {
    Options {
        executable: PROGRAM.into(),
        directory: directory(name),
        cycles: 1,
        writes: 100,
        in_flight: 32,
        seed: 1,
        faults: vec![Fault::StopWriter],
        mutant,
    }
}

/// A torture that finds nothing where there is something proves nothing where it finds nothing.
#[test]
fn torture_notices_that_nobody_is_fenced() {
    let sound = torture::run(&options("sound", None), |_| Ok(())).unwrap();
    assert!(sound.refused > 0, "no overtaken writer was asked for anything");
    let error = torture::run(&options("no-fence", Some(Bug::NoFence)), |_| Ok(())).unwrap_err();
    let TortureError::Cycle { cause, .. } = &error else { panic!("{error}") };
    assert!(matches!(**cause, TortureError::Violation(Violation::Zombie { .. })), "{error}");
}

/// A demonstration that can't fail demonstrates nothing: without the fence an overtaken writer's
/// acknowledgements are lies, and it has to find that out by itself.
#[test]
fn the_demonstration_notices_that_nobody_is_fenced() {
    let mut told = Vec::new();
    let options = demo::Options {
        executable: PROGRAM.into(),
        directory: Some(directory("demo")),
        file: None,
        size_mb: 1,
        mutant: Some(Bug::NoFence),
    };
    let outcome = demo::run(&options, &mut Narrator::new(&mut told, Colour::Plain));
    let told = String::from_utf8(told).unwrap();
    let error = outcome.err().unwrap_or_else(|| panic!("not noticed:\n{told}"));
    let DemoError::Violated { late, missing, .. } = error else { panic!("{error}\n{told}") };
    assert!(late > 0 && missing == late, "{late} acknowledged, {missing} missing\n{told}");
}

/// Whoever runs it in a script looks at the exit code, and whoever is asked for a bug says so.
#[test]
fn a_failed_demonstration_exits_with_one() {
    let dir = directory("exit");
    let output = Command::new(PROGRAM)
        .args(["demo", "--json", "--size-mb", "1", "--mutant", "NoFence", "--dir"])
        .arg(&dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("VIOLATION"), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (figures["held"].as_bool(), figures["mutant"].as_str()),
        (Some(false), Some("NoFence"))
    );
    let words = fs::read_to_string(dir.join("c2/messages.txt")).unwrap();
    assert!(words.contains("WARNING") && words.contains("NoFence"), "{words}");
}
