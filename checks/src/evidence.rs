//! EVIDENCE.md: the figures that the documents quote, rendered from the ledgers in `evidence/`,
//! which the commands wrote.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

use quorate_core::rules::Bug;
use quorate_models::configuration::{self, Tier};
use quorate_models::invariant::Property;
use serde::de::DeserializeOwned;

use crate::{expected, fleet, kill, live, source, tla};

/// A row of `evidence/acks.jsonl`, as the benchmark prints it.
#[derive(Debug, serde::Deserialize)]
struct Acks {
    groups: u32,
    acks_per_second: f64,
    allocations: u64,
}

/// When a ledger has to be measured again.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum When {
    /// Before a change of core or models goes in.
    Change,
    /// Before a release: it takes an hour and more.
    Release,
}

/// A ledger of the models, whose rows name their sources.
struct Ledger {
    file: &'static str,
    command: &'static str,
    when: When,
    /// What its rows are about, all of it.
    subjects: fn() -> Vec<&'static str>,
}

const RUN: Ledger = Ledger {
    file: "run.jsonl",
    command: "quorate check run --json",
    when: When::Change,
    subjects: || {
        configuration::ALL.iter().filter(|c| c.tier == Tier::Quick).map(|c| c.name).collect()
    },
};
const RUN_FULL: Ledger = Ledger {
    file: "run-full.jsonl",
    command: "quorate check run --tier full --json",
    when: When::Release,
    subjects: || configuration::ALL.iter().map(|c| c.name).collect(),
};
const TLA: Ledger = Ledger {
    file: "tla.jsonl",
    command: "TLC_JAR=.. quorate check tla --json",
    when: When::Change,
    subjects: || tla::EXPECTED.iter().map(|expected| expected.name).collect(),
};
const KILL: Ledger = Ledger {
    file: "kill.jsonl",
    command: "quorate check kill --json",
    when: When::Change,
    subjects: || Bug::ALL.iter().map(|bug| bug.name()).collect(),
};
const KILL_ALL: Ledger = Ledger {
    file: "kill-all.jsonl",
    command: "quorate check kill --all --json",
    when: When::Release,
    subjects: KILL.subjects,
};
const LIVE: Ledger = Ledger {
    file: "live.jsonl",
    command: "quorate check live --json",
    when: When::Change,
    subjects: || live::configurations(false).iter().map(|c| c.name).collect(),
};
const LEDGERS: [Ledger; 6] = [RUN, RUN_FULL, TLA, KILL, KILL_ALL, LIVE];

impl Ledger {
    /// Returns the command that writes this ledger.
    fn remedy(&self) -> String {
        format!("`{} > evidence/{}`", self.command, self.file)
    }

    fn read<T: DeserializeOwned>(&self, folder: &Path) -> Result<Option<Vec<T>>, String> {
        ledger(&folder.join(self.file))
    }

    /// Returns the rows, or says in `text` that there are none.
    fn rows<T: DeserializeOwned>(
        &self,
        text: &mut String,
        folder: &Path,
    ) -> Result<Option<Vec<T>>, String> {
        let rows = self.read(folder)?;
        if rows.is_none() {
            let _ = writeln!(text, "MISSING: not measured yet; {} does it.", self.remedy());
        }
        Ok(rows)
    }
}

/// What a row is about, and its sources.
#[derive(serde::Deserialize)]
struct Measured {
    #[serde(alias = "bug")]
    name: String,
    core: String,
    models: String,
}

/// How a ledger stands to the sources of this build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Current,
    /// It has no row about this: the command was interrupted, or there is more to measure now.
    Lacks(&'static str),
    Missing,
    Stale,
}

fn standing(rows: Option<&[Measured]>, subjects: &[&'static str]) -> Standing {
    let Some(rows) = rows else { return Standing::Missing };
    let is_current = |row: &Measured| row.core == source::CORE && row.models == source::MODELS;
    if !rows.iter().all(is_current) {
        return Standing::Stale;
    }
    let is_absent = |subject: &&&str| !rows.iter().any(|row| row.name == **subject);
    subjects.iter().find(is_absent).map_or(Standing::Current, |subject| Standing::Lacks(subject))
}

/// Returns what is wrong with the ledgers in `folder` that have to be current at the latest
/// `until`, a sentence each with the command that mends it: those measured on other sources than
/// this build's, those not complete, and those missing that every change needs.
///
/// # Errors
/// When a ledger can't be read.
pub fn complaints(folder: &Path, until: When) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    for ledger in LEDGERS.iter().filter(|ledger| ledger.when <= until) {
        let (file, remedy) = (ledger.file, ledger.remedy());
        match standing(ledger.read(folder)?.as_deref(), &(ledger.subjects)()) {
            Standing::Missing if ledger.when == When::Change => {
                complaints.push(format!("MISSING: evidence/{file}. Measure it: {remedy}."));
            }
            Standing::Current | Standing::Missing => {}
            Standing::Lacks(subject) => complaints.push(format!(
                "INCOMPLETE: evidence/{file} says nothing of {subject}. Measure again: {remedy}."
            )),
            Standing::Stale => complaints.push(format!(
                "STALE: evidence/{file} was measured on other sources of core or models. Measure \
                 again: {remedy}."
            )),
        }
    }
    Ok(complaints)
}

/// Returns EVIDENCE.md as it follows from the ledgers in `folder`.
///
/// # Errors
/// When a ledger can't be read.
pub fn render(folder: &Path) -> Result<String, String> {
    let mut text = String::from(HEAD);
    for complaint in complaints(folder, When::Release)? {
        let _ = writeln!(text, "\n**{complaint}**");
    }
    render_runs(&mut text, folder, &RUN, "Exhaustive runs: the quick tier", QUICK)?;
    render_runs(&mut text, folder, &RUN_FULL, "Exhaustive runs: the full tier", FULL)?;
    render_live(&mut text, folder)?;
    render_ties(&mut text, folder)?;
    render_kills(&mut text, folder)?;
    render_unique(&mut text, folder)?;
    render_acks(&mut text, folder)?;
    Ok(text)
}

const HEAD: &str = "\
# Evidence

Generated by `quorate check evidence` from the ledgers in `evidence/`; don't edit it by hand. Every
section names the command that makes its figures again and the hash of the sources that they were
measured on. `quorate version` prints the hash of the sources at hand: figures of other sources are
history, not evidence, and are marked STALE. Times are of a shared machine with two cores and move
by a factor of two and more from run to run; counts are exact.

- granularity: in *fused* configurations a delivery, its sync and the receipt of its answer are one
  step; in *split* ones each is a step of its own;
- W/R: segments of a group that a write, and a recovery, need;
- writes, crashes: mini-transactions written and segments crashed, at most, in all;
- depth: the longest path of the search, in states; a figure that must come out again, not a bound;
- missed at most: the chance, at most, that a state was taken for another one because both have the
  same 64-bit fingerprint, and was not explored: states^2 / 2^65.
";

const QUICK: &str = "Run on every change.";
const FULL: &str = "Run before a release; it contains the quick tier.";

fn render_runs(
    text: &mut String,
    folder: &Path,
    ledger: &Ledger,
    title: &str,
    when: &str,
) -> Result<(), String> {
    let _ = writeln!(text, "\n## {title}\n");
    let Some(mut runs) = ledger.rows::<fleet::Row>(text, folder)? else { return Ok(()) };
    runs.sort_by_key(|row| configuration::ALL.iter().position(|c| c.name == row.name));
    let _ = writeln!(text, "{when} Made by {}.\n", ledger.remedy());
    sources(text, runs.iter().map(|row| (row.core.as_str(), row.models.as_str())));
    let _ = writeln!(
        text,
        "| configuration | granularity | segments | W/R | groups | epochs | writes | crashes | \
         distinct states | steps | depth | verdict | seconds | steps/s | MiB | bytes/state | \
         missed at most |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for row in &runs {
        render_run(text, row);
    }
    let states: usize = runs.iter().map(|row| row.unique_states).sum();
    let seconds: f64 = runs.iter().map(|row| row.seconds).sum();
    let peak = runs.iter().map(|row| row.peak_mib).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "\n{} configurations: {states} distinct states, {seconds:.0} seconds of one core, and \
         {peak:.0} MiB at most at a time. Steps a second are of one core. Bytes a state are the \
         peak memory of the whole process: of small configurations they say how large the program \
         is.",
        runs.len()
    );
    Ok(())
}

fn render_run(text: &mut String, row: &fleet::Row) {
    let (states, steps) = (float(row.unique_states), float(row.transitions));
    // Budgets are part of the models' sources, which the row names.
    let (quorums, writes, crashes) =
        configuration::named(&row.name).map_or_else(Default::default, |known| {
            let quorums = format!("{}/{}", known.quorums.write(), known.quorums.read());
            (quorums, known.writes.to_string(), known.crashes.to_string())
        });
    let _ = writeln!(
        text,
        "| {} | {} | {} | {quorums} | {} | {} | {writes} | {crashes} | {} | {} | {} | {} | \
         {:.1} | {:.2} M | {:.0} | {:.0} | {:.0e} |",
        row.name,
        row.granularity,
        row.segments,
        row.groups,
        row.epochs,
        row.unique_states,
        row.transitions,
        row.depth,
        row.verdict,
        row.seconds,
        steps / row.seconds / 1e6,
        row.peak_mib,
        row.peak_mib * 1_048_576.0 / states,
        row.collision_bound,
    );
}

/// Shows how far every state is from its goals.
fn render_live(text: &mut String, folder: &Path) -> Result<(), String> {
    let _ = writeln!(text, "\n## Liveness\n");
    let Some(mut rows) = LIVE.rows::<live::Row>(text, folder)? else { return Ok(()) };
    rows.sort_by_key(|row| configuration::ALL.iter().position(|c| c.name == row.name));
    let _ = writeln!(
        text,
        "Made by {}: from every state, once faults have healed, a fair schedule of the core. All \
         states are judged with a new writer, one in so many with the writers that there are. A \
         run is made once for each distinct set of segments and writers that take part. L1 to L4 \
         are the most steps (deliveries, pulls and commands that change something) that a run \
         needed. Hopeless are states from which no step within the budgets leads to a goal; \
         excused those of which less is demanded.\n",
        LIVE.remedy()
    );
    sources(text, rows.iter().map(|row| (row.core.as_str(), row.models.as_str())));
    let _ = writeln!(
        text,
        "| configuration | distinct states | one in | judged | runs | L1 | L2 | L3 | L4 | goals | \
         hopeless | excused | verdict | seconds |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for row in &rows {
        let [l1, l2, l3, l4] = row.worst;
        let listed = |of: &std::collections::BTreeMap<String, usize>| {
            let all = of.iter().map(|(reason, count)| format!("{count}: {reason}"));
            if of.is_empty() { "0".to_owned() } else { all.collect::<Vec<_>>().join("; ") }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {l1} | {l2} | {l3} | {l4} | {} | {} | {} | {} | {:.1} |",
            row.name,
            row.states,
            row.one_in,
            row.judged,
            row.runs,
            row.goals,
            listed(&row.hopeless),
            listed(&row.excused),
            row.verdict,
            row.seconds,
        );
    }
    Ok(())
}

/// Shows the core beside the engines of TLA+, one core each, where both explore the same states.
fn render_ties(text: &mut String, folder: &Path) -> Result<(), String> {
    let _ = writeln!(text, "\n## The same bounds, by the core and by the engines of TLA+\n");
    let Some(rows) = TLA.rows::<tla::Row>(text, folder)? else { return Ok(()) };
    let _ = writeln!(
        text,
        "Made by {}; the jar is `tla2tools.jar` of the TLA+ project. At these bounds the core and \
         the specification must have exactly as many states, as deep. Each engine ran on one core, \
         breadth first, with all invariants that the configuration names. Seconds are of the whole \
         check, for TLC with the start of Java; only the large bounds compare the speed of \
         anything.\n",
        TLA.remedy()
    );
    sources(text, rows.iter().map(|row| (row.core.as_str(), row.models.as_str())));
    let _ = writeln!(
        text,
        "| bound | engine | distinct states | depth | verdict | seconds | states/s |\n\
         |---|---|---|---|---|---|---|"
    );
    let is_tied = |name: &str| rows.iter().any(|row| row.name == name && row.engine == tla::CORE);
    for row in rows.iter().filter(|row| is_tied(&row.name)) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.2} | {:.0} |",
            row.name,
            row.engine,
            row.states,
            row.depth,
            row.verdict,
            row.seconds,
            float(row.states) / row.seconds,
        );
    }
    let good = rows.iter().filter(|row| row.is_good).count();
    let _ = writeln!(
        text,
        "\nOf all {} checks in the ledger, those of broken rules and of situations that must be \
         reachable included, {good} ended as they must.",
        rows.len()
    );
    Ok(())
}

fn render_kills(text: &mut String, folder: &Path) -> Result<(), String> {
    let _ = writeln!(text, "\n## Seeded bugs\n");
    let Some(mut kills) = KILL.rows::<kill::Row>(text, folder)? else { return Ok(()) };
    kills.sort_by(|left, right| left.bug.cmp(&right.bug));
    let _ = writeln!(
        text,
        "Made by {}: each bug by the configurations that find it fastest. Steps are those of the \
         shortest counterexample; in brackets is the property that it breaks.\n",
        KILL.remedy()
    );
    sources(text, kills.iter().map(|row| (row.core.as_str(), row.models.as_str())));
    let _ = writeln!(text, "| bug | steps | seconds | killed by |\n|---|---|---|---|");
    for row in &kills {
        let by = |kill: &kill::Kill| format!("{} ({})", kill.configuration, kill.property);
        let killers = row.kills.iter().map(by).collect::<Vec<_>>().join(", ");
        let killers = match &row.gap {
            Some(reason) if killers.is_empty() => format!("**gap**: {reason}"),
            Some(_) | None => killers,
        };
        let depth = row.depth.map_or_else(|| "-".to_owned(), |depth| depth.to_string());
        let _ = writeln!(text, "| {} | {depth} | {:.1} | {killers} |", row.bug, row.seconds);
    }
    let killed = kills.iter().filter(|row| !row.killed_by.is_empty()).count();
    let _ = writeln!(text, "\n{killed} of {} are killed; the others are open gaps.", kills.len());
    render_unbroken(text, &kills);
    Ok(())
}

/// Says which properties no seeded bug breaks, and what shows instead that they can fail.
fn render_unbroken(text: &mut String, kills: &[kill::Row]) {
    for property in Property::ALL {
        let is_of = |kill: &kill::Kill| kill.property == property.name();
        if kills.iter().any(|row| row.kills.iter().any(is_of)) {
            continue;
        }
        let known = expected::UNBROKEN.iter().find(|unbroken| unbroken.property == property);
        let (test, reason) = known.map_or(("nothing", ""), |known| (known.test, known.reason));
        let name = property.name();
        let _ = writeln!(
            text,
            "\nNo seeded bug breaks *{name}*: {reason}. That it would be noticed is shown by \
             `{test}`."
        );
    }
}

/// Shows what only one quick configuration kills, where that was measured.
fn render_unique(text: &mut String, folder: &Path) -> Result<(), String> {
    let Some(rows) = KILL_ALL.read::<kill::Row>(folder)? else { return Ok(()) };
    let _ = writeln!(text, "\n## What each quick configuration alone kills\n");
    let _ = writeln!(
        text,
        "Made by {}: every quick configuration looked for every bug. `quorate check kill --summary \
         evidence/{}` shows the same.\n",
        KILL_ALL.remedy(),
        KILL_ALL.file
    );
    sources(text, rows.iter().map(|row| (row.core.as_str(), row.models.as_str())));
    match kill::unique(&rows) {
        Err(reason) => {
            let _ = writeln!(text, "Not known any more: {reason}.");
        }
        Ok(rows) => {
            let _ = writeln!(text, "| configuration | it alone kills |\n|---|---|");
            for unique in rows {
                let _ = writeln!(text, "| {} | {} |", unique.configuration, unique.reason());
            }
        }
    }
    Ok(())
}

fn render_acks(text: &mut String, folder: &Path) -> Result<(), String> {
    let _ = writeln!(text, "\n## Acknowledgements\n");
    let Some(acks) = ledger::<Acks>(&folder.join("acks.jsonl"))? else {
        let _ = writeln!(text, "MISSING: not measured yet; {MAKES_ACKS} does it.");
        return Ok(());
    };
    let _ = writeln!(
        text,
        "Made by {MAKES_ACKS}: acknowledgements a second through `Writer::step` on one core, and \
         allocations on that path.\n"
    );
    let _ = writeln!(text, "| groups | acknowledgements/s | allocations |\n|---|---|---|");
    for row in acks {
        let rate = row.acks_per_second / 1e6;
        let _ = writeln!(text, "| {} | {rate:.1} M | {} |", row.groups, row.allocations);
    }
    Ok(())
}

const MAKES_ACKS: &str =
    "`cargo bench -p quorate-core --bench acks -- --json > evidence/acks.jsonl`";

fn sources<'a>(text: &mut String, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut pairs: Vec<(&str, &str)> = pairs.collect();
    pairs.sort_unstable();
    pairs.dedup();
    for (core, models) in pairs {
        let _ = writeln!(text, "Sources: core `{core}`, models `{models}`.\n");
    }
}

/// Returns the rows of a ledger, one JSON object a line; `None` if there is no such file.
///
/// # Errors
/// When it can't be read, or a line is no such row.
pub fn ledger<T: DeserializeOwned>(file: &Path) -> Result<Option<Vec<T>>, String> {
    let name = file.display();
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{name}: {error}"))?,
    };
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("{name}, line {}: {error}", number + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// A document that was edited by hand, or not made again, would tell figures that nobody
    /// measured.
    #[test]
    fn the_document_is_what_the_ledgers_say() {
        let rendered = render(&root().join("evidence")).unwrap_or_else(|error| error);
        let document = std::fs::read_to_string(root().join("EVIDENCE.md")).unwrap_or_default();
        assert!(document == rendered, "run `quorate check evidence` and commit EVIDENCE.md");
    }

    /// Figures of other machines than those that ship would be quoted as if they were of these.
    #[test]
    fn the_figures_of_every_change_are_of_these_sources() {
        let complaints = complaints(&root().join("evidence"), When::Change);
        let complaints = complaints.unwrap_or_else(|error| vec![error]).join("\n");
        assert!(complaints.is_empty(), "{complaints}\nThen run `quorate check evidence`.");
    }

    /// A ledger with one row of other sources would pass for current.
    #[test]
    fn one_row_of_other_sources_makes_a_ledger_stale() {
        let row = |core: &str, models: &str| Measured {
            name: "a".to_owned(),
            core: core.to_owned(),
            models: models.to_owned(),
        };
        let own = || row(source::CORE, source::MODELS);
        let standing = |rows: &[Measured]| standing(Some(rows), &["a"]);
        assert_eq!(standing(&[own(), own()]), Standing::Current);
        assert_eq!(standing(&[own(), row("0", source::MODELS)]), Standing::Stale);
        assert_eq!(standing(&[row(source::CORE, "0"), own()]), Standing::Stale);
    }

    /// A run that was interrupted would pass for all of it.
    #[test]
    fn a_ledger_that_lacks_a_row_is_incomplete() {
        let row = || Measured {
            name: "a".to_owned(),
            core: source::CORE.to_owned(),
            models: source::MODELS.to_owned(),
        };
        assert_eq!(standing(None, &["a"]), Standing::Missing);
        assert_eq!(standing(Some(&[]), &["a"]), Standing::Lacks("a"));
        assert_eq!(standing(Some(&[row()]), &["a", "b"]), Standing::Lacks("b"));
        assert_eq!(standing(Some(&[row()]), &["a"]), Standing::Current);
    }

    /// A stale or missing ledger of which the document doesn't say so would be taken for evidence.
    #[test]
    fn the_document_says_what_is_stale_and_what_is_missing() -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!("quorate-evidence-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let row = |core: &str| {
            format!(
                "{{\"bug\":\"NoFence\",\"kills\":[],\"killed_by\":[],\"survived\":[],\
                 \"seconds\":1.0,\"core\":\"{core}\",\"models\":\"{}\"}}\n",
                source::MODELS
            )
        };
        let write = |file: &str, core: &str| std::fs::write(folder.join(file), row(core));
        write(KILL.file, "0").map_err(|error| error.to_string())?;
        write(KILL_ALL.file, source::CORE).map_err(|error| error.to_string())?;
        let text = render(&folder);
        let said = complaints(&folder, When::Release);
        let _ = std::fs::remove_dir_all(&folder);
        let (text, said) = (text?, said?);
        let is_said = |start: &str| said.iter().any(|complaint| complaint.starts_with(start));
        assert!(is_said("STALE: evidence/kill.jsonl"));
        assert!(is_said("INCOMPLETE: evidence/kill-all.jsonl"));
        assert!(is_said("MISSING: evidence/run.jsonl"));
        assert!(is_said("MISSING: evidence/tla.jsonl"));
        assert!(said.iter().all(|complaint| text.contains(&format!("\n**{complaint}**\n"))));
        assert!(text.contains("MISSING: not measured yet; `quorate check run --tier full --json"));
        Ok(())
    }

    /// A property that nothing has ever been seen to break may be one that can't fail.
    #[test]
    fn every_property_is_broken_by_a_seeded_bug_or_by_a_test() -> Result<(), String> {
        let kills = KILL.read::<kill::Row>(&root().join("evidence"))?.unwrap_or_default();
        for property in Property::ALL {
            let name = property.name();
            let is_of = |kill: &kill::Kill| kill.property == name;
            let is_killed = kills.iter().any(|row| row.kills.iter().any(is_of));
            let listed = expected::UNBROKEN.iter().find(|unbroken| unbroken.property == property);
            assert!(is_killed || listed.is_some(), "nothing is known to break {name}");
            let Some(listed) = listed else { continue };
            assert!(!is_killed, "a seeded bug breaks {name}: take it off expected::UNBROKEN");
            assert!(!listed.reason.is_empty(), "{name}");
            let (file, test) = listed.test.split_once(": ").unwrap_or_default();
            let code = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            let is_there = code.contains(&format!("    #[test]\n    fn {test}("));
            assert!(is_there, "there is no test {}", listed.test);
        }
        Ok(())
    }
}
