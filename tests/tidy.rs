//! The rules of this repository, as tests. Each names every place that breaks it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_checks::{evidence, expected};
use quorate_core::rules::Bug;

/// The most columns of a line of Rust.
const COLUMNS_MAX: usize = 100;

/// The most lines of a file, its unit tests left out.
const FILE_LINES_MAX: usize = 600;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// The most lines of ARCHITECTURE.md: it is read in one go or not at all.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// What each package may depend on of this repository, lowest first (development apart).
const PACKAGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("models", &["quorate-core"]),
    ("node", &["quorate-core"]),
    ("checks", &["quorate-core", "quorate-models", "quorate-node"]),
    (".", &["quorate-checks", "quorate-core", "quorate-node"]),
];

/// Where code of the packages is that runs in a user's process.
const SOURCES: &[&str] = &["core/src/", "models/src/", "node/src/", "checks/src/", "cli/"];

/// A file of text of this repository.
struct Text {
    /// Its path from the repository's root.
    path: String,
    content: String,
}

impl Text {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns whether the file is part of a package's program, not of its tests.
    fn is_source(&self) -> bool {
        self.is_rust()
            && SOURCES.iter().any(|folder| self.path.starts_with(folder))
            && !self.path.ends_with("/tests.rs")
            && !self.path.ends_with("/testing.rs")
    }

    /// Returns the lines, from one on.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.content.lines())
    }

    /// Returns the lines before the unit tests, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.production_lines();
        self.lines().take(end).map(|(number, line)| {
            let is_comment = line.trim_start().starts_with("//");
            let code = if is_comment { "" } else { line.split(" // ").next().unwrap_or("") };
            (number, code)
        })
    }

    /// Returns how many lines there are before the module of unit tests.
    fn production_lines(&self) -> usize {
        let lines: Vec<&str> = self.content.lines().collect();
        let is_start = |pair: &[&str]| {
            pair.first() == Some(&"#[cfg(test)]")
                && pair.get(1).is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        };
        lines.windows(2).position(is_start).unwrap_or(lines.len())
    }
}

/// Returns the repository's root, where it is now rather than where this was built.
fn root() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR");
    now.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path} can't be read: {error}"))
}

/// Returns every file of text that belongs to the repository: all but what .gitignore names.
fn texts() -> Vec<Text> {
    let ignored: BTreeSet<PathBuf> = read(".gitignore")
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|name| root().join(name.trim_end_matches('/')))
        .chain([root().join(".git")])
        .collect();
    let mut texts = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if ignored.contains(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                texts.push(Text { path, content });
            }
        }
    }
    texts.sort_by(|left, right| left.path.cmp(&right.path));
    texts
}

/// Returns whether `word` is in `line`, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// Fails with every place that breaks the rule.
fn none(rule: &str, places: impl IntoIterator<Item = String>) {
    let places: Vec<String> = places.into_iter().collect();
    assert!(places.is_empty(), "{rule}:\n  {}\n", places.join("\n  "));
}

/// Returns the places in `texts` for whose code `is_wrong` says so.
fn places<'a>(
    texts: impl Iterator<Item = &'a Text>,
    is_wrong: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut places = Vec::new();
    for text in texts {
        for (number, line) in text.code().filter(|(_, line)| is_wrong(line)) {
            places.push(format!("{}:{number}: {}", text.path, line.trim()));
        }
    }
    places
}

/// Returns the names in the `[dependencies]` of a manifest.
fn dependencies(folder: &str) -> Vec<String> {
    let manifest = read(&format!("{folder}/Cargo.toml"));
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Returns what is between backquotes in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A core with more dependencies could get at a clock, at randomness, or at a thread.
#[test]
fn core_depends_on_serde_alone() {
    assert_eq!(dependencies("core"), ["serde"]);
}

/// An edge against the direction makes the protocol depend on what runs it.
#[test]
fn packages_depend_in_one_direction() {
    let mut wrong = Vec::new();
    for (folder, allowed) in PACKAGES {
        let own = dependencies(folder).into_iter().filter(|name| name.starts_with("quorate-"));
        let against = own.filter(|name| !allowed.contains(&name.as_str()));
        wrong.extend(against.map(|name| format!("{folder} depends on {name}")));
    }
    none("dependencies point one way (ARCHITECTURE.md)", wrong);
    let manifest = read("Cargo.toml");
    for (folder, _) in PACKAGES.iter().filter(|(folder, _)| *folder != ".") {
        assert!(manifest.contains(&format!("\"{folder}\"")), "{folder} isn't a member");
        let lints = read(&format!("{folder}/Cargo.toml"));
        assert!(lints.contains("[lints]\nworkspace = true"), "{folder} doesn't take the lints");
    }
}

/// A use of std would tie the protocol to an operating system; the compiler refuses it, and so does
/// this before anybody takes `no_std` away.
#[test]
fn core_never_names_std() {
    let texts = texts();
    let core = || texts.iter().filter(|text| text.path.starts_with("core/src/"));
    let lib = core().find(|text| text.path == "core/src/lib.rs").unwrap();
    assert!(lib.content.contains("\n#![no_std]\n"));
    assert!(lib.content.contains("#[cfg(test)]\nextern crate std;"));
    let is_wrong = |line: &str| has_word(line, "std") && line != "extern crate std;";
    none("core names std", places(core(), is_wrong));
}

/// Machines that know each other's insides can't be replaced, or modelled, one at a time.
#[test]
fn machines_never_import_one_another() {
    let texts = texts();
    for (own, other) in [("segment", "writer"), ("writer", "segment")] {
        let file = format!("core/src/{own}.rs");
        let folder = format!("core/src/{own}/");
        let machine =
            texts.iter().filter(|text| text.path == file || text.path.starts_with(&folder));
        let import = format!("crate::{other}");
        none("machines meet only in message.rs", places(machine, |line| has_word(line, &import)));
    }
    let low = texts.iter().filter(|text| {
        let is_machine =
            text.path.starts_with("core/src/segment") || text.path.starts_with("core/src/writer");
        text.path.starts_with("core/src/") && !is_machine
    });
    let is_wrong = |line: &str| {
        line.starts_with("use crate::segment") || line.starts_with("use crate::writer")
    };
    none("a machine is imported from below it", places(low, is_wrong));
}

/// A consistency point made anywhere else could be one that no rule gives.
#[test]
fn only_consistency_constructs_consistency_points() {
    let texts = texts();
    let own = texts.iter().find(|text| text.path == "core/src/consistency.rs").unwrap();
    assert!(own.content.contains("pub struct $name(Lsn);"), "the field of a point is private");
    for point in ["Scl", "Pgcl", "Vcl", "Vdl", "ReadPoint"] {
        assert!(own.content.contains(&format!("    {point}\n}}")), "{point} isn't defined there");
        let others = texts.iter().filter(|text| text.is_source() && text.path != own.path);
        let constructors = [format!("{point}("), format!("{point} {{ 0")];
        let is_constructed = |line: &str| {
            constructors.iter().flat_map(|new| line.match_indices(new)).any(|(at, _)| {
                let before = line.get(..at).and_then(|text| text.chars().next_back());
                !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            })
        };
        none(&format!("{point} is constructed elsewhere"), places(others, is_constructed));
    }
}

/// A codec that is named in two places can't be replaced in one.
#[test]
fn the_codec_is_named_in_one_file() {
    let codec = concat!("bin", "code");
    let texts = texts();
    let others = texts.iter().filter(|text| text.is_rust() && text.path != "node/src/wire.rs");
    let mut wrong: Vec<String> = places(others, |line| has_word(line, codec));
    let users = PACKAGES.iter().filter(|(folder, _)| *folder != "node");
    wrong.extend(
        users
            .filter(|(folder, _)| dependencies(folder).iter().any(|name| name == codec))
            .map(|(folder, _)| format!("{folder}/Cargo.toml")),
    );
    none("the codec is named outside node/src/wire.rs", wrong);
}

/// Time that enters elsewhere can't be simulated. (What checks measures goes into reports only.)
#[test]
fn time_enters_in_one_file() {
    let texts = texts();
    let others = texts.iter().filter(|text| {
        text.is_source() && !text.path.starts_with("checks/") && text.path != "node/src/clock.rs"
    });
    none("Instant is named outside clock.rs", places(others, |line| has_word(line, "Instant")));
}

/// A file that nobody reads to its end hides its mistakes.
#[test]
fn files_are_short() {
    let texts = texts();
    let long = texts.iter().filter(|text| {
        let is_listed = LONG_FILES.iter().any(|(path, _)| *path == text.path);
        text.is_source() && text.production_lines() > FILE_LINES_MAX && !is_listed
    });
    none(
        &format!("files above {FILE_LINES_MAX} lines, tests left out"),
        long.map(|text| format!("{}: {} lines", text.path, text.production_lines())),
    );
    for (path, _) in LONG_FILES {
        let text = texts.iter().find(|text| text.path == *path);
        let is_long = text.is_some_and(|text| text.production_lines() > FILE_LINES_MAX);
        assert!(is_long, "{path} is short or gone: take it off the list");
    }
}

/// Two editors side by side, and a diff, show so much.
#[test]
fn lines_of_rust_are_short() {
    let mut long = Vec::new();
    for text in texts().iter().filter(|text| text.is_rust()) {
        for (number, line) in text.lines() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                long.push(format!("{}:{number}: {columns} columns", text.path));
            }
        }
    }
    none(&format!("lines above {COLUMNS_MAX} columns"), long);
}

/// A test that doesn't run doesn't fail.
#[test]
fn no_test_is_left_out() {
    let attribute = concat!("#[ig", "nore");
    let texts = texts();
    let rust = texts.iter().filter(|text| text.is_rust() && text.content.contains(attribute));
    none("tests that don't run", rust.map(|text| text.path.clone()));
}

/// Unsafe code would make every argument about values an argument about memory too.
#[test]
fn unsafe_code_is_forbidden() {
    for lib in ["core/src/lib.rs", "models/src/lib.rs", "checks/src/lib.rs", "cli/main.rs"] {
        assert!(read(lib).contains("\n#![forbid(unsafe_code)]\n"), "{lib} doesn't forbid it");
    }
    let node = read("node/src/lib.rs");
    assert!(node.contains("\n#![deny(unsafe_code)]\n") || node.contains("forbid(unsafe_code)"));
}

/// A property that the documents or the specification don't know by its name is one that nobody
/// can look up.
#[test]
fn every_property_has_one_name() {
    let architecture = read("ARCHITECTURE.md");
    let specification = read("tla/Volume.tla");
    let mut wrong = Vec::new();
    let mut count = 0;
    for text in texts().iter().filter(|text| text.path.starts_with("models/src/invariant/")) {
        count += 1;
        let file = text.path.trim_start_matches("models/src/invariant/");
        let row = architecture.lines().find(|line| line.contains(&format!("`{file}`")));
        let Some(row) = row else {
            wrong.push(format!("{file} isn't in ARCHITECTURE.md"));
            continue;
        };
        // Either a name, or `none` with the reason.
        let Some(named) = text.content.split("TLA+: ").nth(1) else {
            wrong.push(format!("{file} doesn't say `TLA+: ` and its name there, or none and why"));
            continue;
        };
        if named.starts_with("none") {
            if !row.contains("none") {
                wrong.push(format!("{file} has no TLA+ name, ARCHITECTURE.md gives one"));
            }
            continue;
        }
        let name = quoted(named).next().filter(|_| named.starts_with('`'));
        let name = name.or_else(|| named.split('`').nth(1)).unwrap_or("");
        if !row.contains(&format!("`{name}`")) {
            wrong.push(format!("{file} says {name}, ARCHITECTURE.md doesn't"));
        }
        if !specification.lines().any(|line| line.starts_with(&format!("{name} =="))) {
            wrong.push(format!("{file} says {name}, which tla/Volume.tla doesn't define"));
        }
    }
    none("names of properties", wrong);
    assert!(count > 0);
}

/// A seeded bug that is on no list is one of which nobody knows whether anything notices it.
#[test]
fn every_seeded_bug_is_killed_or_a_known_gap() {
    let mut wrong = Vec::new();
    for bug in Bug::ALL {
        let killers = expected::KILLERS.iter().filter(|(of, _)| of == bug).count();
        let gaps = expected::GAPS.iter().filter(|(of, _)| of == bug).count();
        let live = expected::LIVE_KILLERS.iter().filter(|(of, _)| of == bug).count();
        if killers + gaps + live != 1 {
            let of_bug = format!("{}: {killers} times a killer, {live} times", bug.name());
            wrong.push(format!("{of_bug} a killer by liveness, {gaps} times a gap"));
        }
    }
    none("seeded bugs are on one list of checks/src/expected.rs each", wrong);
    let named = |(bug, why): &(Bug, &str)| why.is_empty().then(|| bug.name().to_owned());
    none("a gap needs a reason", expected::GAPS.iter().filter_map(named));
}

/// Comments and seeded bugs cite sharp edges by number: a number that nothing explains is noise.
#[test]
fn every_sharp_edge_that_is_cited_is_explained() {
    let architecture = read("ARCHITECTURE.md");
    let explained: BTreeSet<u32> = architecture
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('|').filter_map(|cell| cell.trim().parse().ok()))
        .collect();
    let mut cited: BTreeMap<u32, String> = BTreeMap::new();
    for bug in Bug::ALL {
        for edge in bug.edges() {
            cited.insert(u32::from(*edge), format!("Bug::{}", bug.name()));
        }
    }
    for text in texts() {
        let is_cited = text.is_rust() || text.path.starts_with("tla/");
        for (number, line) in text.lines().filter(|_| is_cited) {
            for citation in line.split("edge").skip(1) {
                let list = citation.trim_start_matches('s').split([')', '.', ':', ';']).next();
                let numbers = list.unwrap_or("").split([' ', ',']);
                let is_part = |word: &&str| word.is_empty() || *word == "and" || is_number(word);
                for edge in numbers.take_while(is_part).filter_map(|word| word.parse().ok()) {
                    cited.insert(edge, format!("{}:{number}", text.path));
                }
            }
        }
    }
    let missing = cited.iter().filter(|(edge, _)| !explained.contains(edge));
    none(
        "sharp edges that ARCHITECTURE.md doesn't explain",
        missing.map(|(edge, by)| format!("{edge}, cited by {by}")),
    );
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A map that is too long isn't read, and one that shows what isn't there misleads.
#[test]
fn the_architecture_is_short_and_shows_what_is_there() {
    let architecture = read("ARCHITECTURE.md");
    let lines = architecture.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
    let is_path = |name: &&str| {
        let endings = [".rs", ".tla", ".md", ".toml", "/"];
        endings.iter().any(|ending| name.ends_with(ending)) && !name.contains([' ', '*', '\n'])
    };
    let named: BTreeSet<&str> = quoted(&architecture).filter(is_path).collect();
    assert!(named.len() > 50, "paths aren't recognised any more");
    // The map names a file from its package's folder on; the table of properties, from its own.
    let folders: Vec<&str> = SOURCES.iter().copied().chain(["", "models/src/invariant/"]).collect();
    let is_there =
        |path: &str| folders.iter().any(|folder| root().join(folder).join(path).exists());
    let missing = named.iter().filter(|path| !is_there(path));
    none("paths in ARCHITECTURE.md that don't exist", missing.map(|path| (*path).to_owned()));
    let is_shown = |text: &&Text| {
        SOURCES.iter().filter_map(|folder| text.path.strip_prefix(folder)).any(|path| {
            let above = path.match_indices('/').filter_map(|(at, _)| path.get(..=at));
            path == "lib.rs" || above.chain([path, &text.path]).any(|path| named.contains(path))
        })
    };
    let texts = texts();
    let hidden = texts.iter().filter(|text| text.is_source() && !is_shown(text));
    none("files that ARCHITECTURE.md doesn't show", hidden.map(|text| text.path.clone()));
}

/// A figure that somebody typed is one that nobody measured.
#[test]
fn the_evidence_is_what_the_ledgers_say() {
    let rendered = evidence::render(&root().join("evidence")).unwrap();
    let is_same = rendered == read("EVIDENCE.md");
    assert!(is_same, "EVIDENCE.md isn't what `quorate check evidence` makes of evidence/");
}

/// Whoever follows a document must not end at a link that leads nowhere.
#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for text in texts().iter().filter(|text| text.path.ends_with(".md")) {
        let folder = Path::new(&text.path).parent().unwrap();
        for link in text.content.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local && !root().join(folder).join(target).exists() {
                broken.push(format!("{}: {link}", text.path));
            }
        }
    }
    none("links that lead nowhere", broken);
}

/// The first two commands that anybody runs must be those that are run on every change.
#[test]
fn the_commands_of_the_readme_are_run_on_every_change() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    for command in ["cargo run --release -- demo", "cargo test"] {
        assert!(readme.lines().any(|line| line == command), "README.md lacks {command}");
        let is_run = |line: &str| line.starts_with("stage ") && line.ends_with(command);
        assert!(ci.lines().any(is_run), ".ci/run lacks {command}");
    }
    assert!(read(".github/workflows/ci.yml").contains("run: .ci/run\n"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(root().join(".ci/run")).unwrap().permissions().mode();
        assert!(mode & 0o111 == 0o111, ".ci/run isn't executable");
    }
}

/// A document that shows a command which the program doesn't know is worse than none.
#[test]
fn the_program_knows_every_command_that_a_document_shows() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in ["README.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
        for line in blocks.filter_map(|line| line.trim_start().strip_prefix("quorate ")) {
            let command = line.split('>').next().unwrap_or("");
            let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
                .args(command.split_whitespace())
                .arg("--help")
                .output()
                .unwrap();
            count += 1;
            if !output.status.success() {
                wrong.push(format!("{document}: quorate {line}"));
            }
        }
    }
    none("commands that the program doesn't know", wrong);
    assert!(count > 5, "commands aren't recognised any more");
}

/// A path of somebody's machine, or a registry that not everybody uses, works for nobody else.
#[test]
fn no_file_names_a_machine_or_a_registry() {
    let forbidden = [
        concat!("/wo", "rk"),
        concat!("/ro", "ot"),
        concat!("/ho", "me/"),
        concat!("crates", ".io"),
        concat!("docs", ".rs/"),
        concat!("np", "mjs."),
        concat!("py", "pi."),
        concat!("proxy.go", "lang"),
        concat!("repo.ma", "ven"),
    ];
    let mut wrong = Vec::new();
    // Cargo writes where packages come from into its lock file.
    for text in texts().iter().filter(|text| text.path != "Cargo.lock") {
        for (number, line) in text.lines() {
            for name in forbidden.iter().filter(|name| is_named(line, name)) {
                wrong.push(format!("{}:{number}: {name}", text.path));
            }
        }
    }
    none("machines and registries", wrong);
}

/// Returns whether a path or host is in `line`; a path begins a word.
fn is_named(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        let is_whole = !after.is_some_and(char::is_alphanumeric) || name.ends_with(['.', '/']);
        let begins =
            !before.is_some_and(|letter| letter.is_alphanumeric() || "}).".contains(letter));
        !name.starts_with('/') || (begins && is_whole)
    })
}

/// The version of Rust is written in three places, which must agree.
#[test]
fn the_version_of_rust_is_the_same_everywhere() {
    let after = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{key} isn't there")).trim_matches(['"', ' ', '=']).to_owned()
    };
    let minimum = after(&read("Cargo.toml"), "rust-version = ");
    let channel = after(&read("rust-toolchain.toml"), "channel = ");
    assert!(channel.starts_with(&format!("{minimum}.")), "{channel} isn't a version of {minimum}");
    assert!(read("CONTRIBUTING.md").contains(&format!("Rust {minimum}")), "CONTRIBUTING.md");
}
