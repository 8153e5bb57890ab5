//! Seeded bugs in real processes: whoever looks for violations must find them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use quorate_core::rules::Bug;
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
