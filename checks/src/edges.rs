//! `quorate check edges`: every known way to get the protocol wrong, and what would notice.
//!
//! A row is a mistake that an implementation of this protocol can make. It is covered by seeded
//! bugs that name it ([`Bug::edges`]) and are killed, by tests, or by an argument why it can't be
//! made here; a test checks that the tests exist.

use std::io::{self, Write};

use quorate_core::rules::Bug;
use serde::Serialize;

use crate::command::Failure;
use crate::expected::GAPS;

/// One mistake.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Its number, from one, without gaps.
    pub number: u8,
    /// What goes wrong, in a sentence.
    pub mistake: &'static str,
    /// Tests that would notice, each as file and function.
    pub tests: &'static [&'static str],
    /// Why it can't happen here, if nothing could notice it or what notices needs a word.
    pub argument: Option<&'static str>,
}

/// What is printed of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The edge's number.
    pub edge: u8,
    /// What goes wrong.
    pub mistake: &'static str,
    /// Seeded bugs that stand for it and are killed.
    pub bugs: Vec<&'static str>,
    /// Tests that would notice.
    pub tests: &'static [&'static str],
    /// The argument.
    pub argument: Option<&'static str>,
    /// Whether anything covers it.
    pub covered: bool,
}

/// Returns the rows, by number.
#[must_use]
pub fn rows() -> Vec<Row> {
    EDGES.iter().map(Edge::row).collect()
}

/// Prints the rows; returns whether everything is covered.
///
/// # Errors
/// When nobody reads any more.
pub fn print(is_json: bool) -> Result<bool, Failure> {
    let rows = rows();
    let mut out = io::stdout().lock();
    for row in &rows {
        if is_json {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
            continue;
        }
        let bugs = row.bugs.iter().map(|bug| (*bug).to_owned());
        let tests = row.tests.iter().map(|test| format!("test {test}"));
        let argument = row.argument.map(|argument| format!("argument: {argument}"));
        let by: Vec<String> = bugs.chain(tests).chain(argument).collect();
        let by = if by.is_empty() { "NOT COVERED".to_owned() } else { by.join("; ") };
        writeln!(out, "{:>2}  {}\n    {by}", row.edge, row.mistake)?;
    }
    let open = rows.iter().filter(|row| !row.covered).count();
    if !is_json {
        writeln!(out, "\n{} of {} are covered.", rows.len().saturating_sub(open), rows.len())?;
    }
    Ok(open == 0)
}

impl Edge {
    fn row(&self) -> Row {
        let is_gap = |bug: Bug| GAPS.iter().any(|(gap, _)| *gap == bug);
        let stands = |bug: &&Bug| bug.edges().contains(&self.number) && !is_gap(**bug);
        let bugs: Vec<&'static str> = Bug::ALL.iter().filter(stands).map(|b| b.name()).collect();
        Row {
            edge: self.number,
            mistake: self.mistake,
            covered: !bugs.is_empty() || !self.tests.is_empty() || self.argument.is_some(),
            bugs,
            tests: self.tests,
            argument: self.argument,
        }
    }
}

const fn edge(number: u8, mistake: &'static str) -> Edge {
    Edge { number, mistake, tests: &[], argument: None }
}

const fn tested(number: u8, mistake: &'static str, tests: &'static [&'static str]) -> Edge {
    Edge { number, mistake, tests, argument: None }
}

const fn argued(number: u8, mistake: &'static str, argument: &'static str) -> Edge {
    Edge { number, mistake, tests: &[], argument: Some(argument) }
}

/// Every edge, by number.
pub const EDGES: &[Edge] = &[
    edge(1, "a recovery reads the SCLs first and fences then: an acknowledgement slips in between"),
    edge(2, "answers of segments that are not fenced count as part of a read quorum"),
    edge(3, "two recoveries use one epoch, or a segment promises the same epoch to two"),
    edge(4, "a recovery ignores what an earlier one durably decided to annul"),
    edge(5, "truncation ranges of several histories are merged, superseded ones included"),
    edge(6, "only the newest truncation range is kept, and older dead records count again"),
    edge(7, "a volume opens on a tail that lives on fewer than a write quorum"),
    edge(8, "a record is adopted in one recovery and not in the next: nothing durable decided it"),
    edge(9, "acknowledgements count single records where recoveries count complete prefixes"),
    edge(10, "a recovery takes a middle SCL of its read quorum instead of the highest"),
    edge(11, "the VCL is the lowest PGCL, and a group that is idle freezes it"),
    edge(12, "the VCL of a recovery comes from comparing numbers, over gaps in the LSNs"),
    edge(13, "the VCL of a recovery is the highest end of any group, over a missing record"),
    edge(14, "commits are acknowledged at the VCL, and recoveries cut at the VDL"),
    edge(15, "a read point between consistency points shows half a mini-transaction"),
    edge(16, "whether a record is a consistency point is lost on its way"),
    edge(17, "LSNs of annulled records are used again"),
    edge(18, "an overtaken writer allocates beyond what the recovery annuls"),
    edge(19, "two writers believe in different allocation limits"),
    edge(20, "the first record after a recovery links back to an annulled one"),
    edge(21, "an SCL stays above what a truncation has taken away"),
    edge(22, "a crash in the middle of an install leaves half of it"),
    edge(23, "a page already contains what is not durable yet when versions are discarded"),
    edge(24, "gossip brings annulled records back"),
    edge(25, "a removed or stale segment takes part as if it were a member"),
    edge(26, "something is acknowledged or promised before it is durable"),
    edge(27, "a segment that lost its disk comes back under its old identity"),
    edge(28, "an acknowledgement given to an earlier epoch counts for this one"),
    edge(29, "one segment's acknowledgement counts twice, or a stranger's for a member's"),
    edge(30, "a member that still joins is part of a read quorum"),
    edge(31, "what a new member has to catch up with is fixed too early, or moves"),
    edge(32, "a finished replacement is taken back, to a member that missed what came since"),
    argued(
        33,
        "two monitors start different replacements under one number",
        "only the open writer proposes, and memberships are ordered by its epoch first: two \
         proposals of one number have different epochs (MembershipByNumber breaks the order and is \
         killed), and two of one epoch come from one machine, which takes the next step only when \
         the last is settled (NextBeforeSettled is killed)",
    ),
    edge(34, "a membership is in force before a write quorum of the old and the new one has it"),
    edge(35, "a recovery seals a membership that a newer one has replaced"),
    edge(36, "acknowledgements are counted under the quorums of a membership that is gone"),
    argued(
        37,
        "the data of a replaced member is deleted while the change can still be taken back",
        "no segment, node or command deletes a replaced member's log: it stays where it is, with \
         its last membership, until an operator removes it; `quorate repair` reports the end of a \
         change only when its settled mark is on a write quorum",
    ),
    edge(38, "the next replacement begins before the last is complete"),
    edge(39, "a segment counts as complete before what makes it so is durable"),
    edge(40, "log-only segments form a quorum without any that has the pages"),
    edge(41, "quorums shrink, or grow back, before the segments that then count hold everything"),
    edge(42, "a read of an idle group is refused for ever, or served by one that lacks a record"),
    argued(
        43,
        "a segment that holds exactly what a read needs refuses it",
        "SCLs are inclusive, and a read names the group's last record, not the read point: with a \
         strict comparison no read after a write would be served, and the witness ReadServed, \
         which every configuration with reads must reach, would not be seen at a group's last \
         record",
    ),
    edge(44, "versions are discarded that a reader which has just come still needs"),
    edge(45, "a reader that is gone holds the garbage floor for ever, or its last read is wrong"),
    edge(46, "the garbage floor of an overtaken writer is believed"),
    edge(47, "garbage is collected that a backtrack, a clone or another region still needs"),
    argued(
        48,
        "a page is evicted while its newest record is above the VDL, and read back without it",
        "no cache of pages stands between the writer and the segments: a read is answered by a \
         segment at a read point that is never above the VDL (ReadPoint can be built from a VDL \
         only), so there is nothing to evict",
    ),
    edge(49, "a reader shows records above the VDL, which a recovery then annuls"),
    edge(50, "a reader goes on after a gap in its stream"),
    edge(51, "a reader applies a record twice to a page that it has fetched meanwhile"),
    edge(52, "an overtaken writer answers reads as if it were current"),
    tested(
        53,
        "two instances lead, or none, since one didn't hear that it was replaced",
        &[
            "tests/cluster.rs: a_file_outlives_killed_nodes_and_an_overtaken_writer",
            "tests/readers.rs: a_reader_leaves_an_overtaken_writer",
            "node/src/torture/book.rs: an_overtaken_writer_is_noticed",
        ],
    ),
    edge(54, "a volume opens although some group is not fenced"),
    edge(55, "a group that was made just before a crash is missing from the recovery"),
    edge(56, "idle groups don't learn what a recovery annuls"),
    edge(57, "after a backtrack the branch that was left passes for the newest"),
    edge(58, "a backtrack goes to the middle of a mini-transaction"),
    edge(59, "a second region applies what the first one's VDL doesn't cover"),
    edge(60, "a region is promoted while the old one lives, and both are joined by LSN"),
    edge(61, "a region's late report of its lag lets commits through"),
    edge(62, "a repair takes what a truncation annuls, or overwrites the last good copy"),
    Edge {
        number: 63,
        mistake: "a mini-transaction waits for LSNs that it holds back itself",
        tests: &["core/tests/refusals.rs: every_geometry_error_can_be_brought_about"],
        argument: Some(
            "all LSNs of a mini-transaction are allocated at once or none are, and a volume whose \
             allocation limit is below its longest mini-transaction can't be made",
        ),
    },
    edge(64, "an append that was on the disk's way is acknowledged after a seal"),
    edge(65, "a recovery takes a membership that it found for durable"),
    edge(66, "memberships are ordered by number before epoch"),
    edge(67, "a recovery finishes a membership change under the old proposer's epoch"),
    edge(68, "what a new member has to catch up with is computed anew under the joint quorums"),
    edge(69, "a recovery judges by itself whether a new member may vote"),
    edge(70, "a change is called settled before it is, or escapes the fence"),
    edge(71, "a dead recovery's history is adopted below a promise, and drops what counts"),
    edge(72, "a backtrack annuls too little, or a VDL that it took back is believed"),
    edge(73, "the volume's chain is followed from a point that was never durable"),
    edge(74, "a recovery that no segment could install costs the volume the writer that it has"),
    edge(75, "a segment whose log is damaged votes with what is left of it"),
];

/// Edges of what isn't built: other regions.
pub const OPEN: &[u8] = &[59, 60, 61];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    /// A number that is missing or there twice would hide a mistake that nobody looks for.
    #[test]
    fn edges_are_numbered_from_one() {
        let numbers: Vec<usize> = EDGES.iter().map(|edge| usize::from(edge.number)).collect();
        assert_eq!(numbers, (1..=EDGES.len()).collect::<Vec<_>>());
    }

    /// A bug that names a mistake which isn't in the table would be counted for nothing.
    #[test]
    fn bugs_name_edges_that_are_there() {
        for bug in Bug::ALL {
            for number in bug.edges() {
                assert!(usize::from(*number) <= EDGES.len(), "{} names edge {number}", bug.name());
            }
        }
    }

    /// A test that was renamed or removed covers nothing any more.
    #[test]
    fn tests_that_are_named_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for edge in EDGES {
            for test in edge.tests {
                let (file, name) = test.split_once(": ").unwrap();
                let text = std::fs::read_to_string(root.join(file)).unwrap();
                assert!(text.contains(&format!("fn {name}(")), "edge {}: {test}", edge.number);
            }
        }
    }

    /// Every mistake is noticed by something, or the table says which isn't.
    #[test]
    fn edges_are_covered() {
        let open: Vec<u8> = rows().iter().filter(|row| !row.covered).map(|row| row.edge).collect();
        assert_eq!(open, OPEN, "edges that nothing covers");
    }
}
