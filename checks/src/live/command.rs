//! `quorate check live`: the arguments, and what is printed.

use std::io::{self, Write};
use std::num::NonZeroUsize;

use clap::Args;
use quorate_core::rules::Bug;
use quorate_models::configuration::{self, Configuration};

use crate::command::{Failure, TierName, jobs, without_repeats};
use crate::expected;
use crate::nearest::{parse_bug, parse_configuration, parse_jobs};

#[derive(Args, Debug)]
pub(crate) struct Live {
    /// Which configurations, if none is named; the full tier contains the quick one
    #[arg(long, default_value = "quick", conflicts_with = "names")]
    tier: TierName,
    /// A configuration; may be given more than once [default: all of the tier]
    #[arg(long = "config", value_name = "NAME", value_parser = parse_configuration)]
    names: Vec<&'static Configuration>,
    /// Look whether a broken variant gets stuck, and show where
    #[arg(long, value_name = "BUG", value_parser = parse_bug)]
    mutant: Option<Bug>,
    /// Print one JSON object a configuration
    #[arg(long)]
    json: bool,
    /// How many configurations at a time [default: the number of cores]
    #[arg(long, value_parser = parse_jobs)]
    jobs: Option<NonZeroUsize>,
}

/// Carries out the command; returns whether everything was as it must be.
pub(crate) fn run(arguments: &Live) -> Result<bool, Failure> {
    let is_full = matches!(arguments.tier, TierName::Full);
    if let Some(bug) = arguments.mutant {
        return show_stuck(arguments, bug);
    }
    let configurations = if arguments.names.is_empty() {
        super::configurations(is_full)
    } else {
        without_repeats(&arguments.names, |c| c.name)
    };
    if !arguments.json {
        let (l1, l2, l3, l4) = ("L1", "L2", "L3", "L4");
        writeln!(
            io::stdout().lock(),
            "{:<18} {:>9} {:>9} {:>8} {l1:>4} {l2:>4} {l3:>4} {l4:>4} {:>8}  verdict",
            "configuration",
            "states",
            "judged",
            "runs",
            "seconds"
        )?;
    }
    let mut is_good = true;
    super::explore(&configurations, jobs(arguments.jobs), |row| {
        is_good &= row.is_good();
        let mut out = io::stdout().lock();
        if arguments.json {
            return writeln!(out, "{}", serde_json::to_string(&row)?);
        }
        let [l1, l2, l3, l4] = row.worst;
        writeln!(
            out,
            "{:<18} {:>9} {:>9} {:>8} {l1:>4} {l2:>4} {l3:>4} {l4:>4} {:>8.1}  {}",
            row.name, row.states, row.judged, row.runs, row.seconds, row.verdict
        )
    })?;
    if !arguments.json && is_good {
        let all = "every state leads to its goals; every count is as pinned";
        writeln!(io::stdout().lock(), "{all}")?;
    }
    Ok(is_good)
}

/// Shows the first state from which a fair schedule of a broken variant gets stuck.
fn show_stuck(arguments: &Live, bug: Bug) -> Result<bool, Failure> {
    let known = expected::LIVE_KILLERS.iter().find(|(of, _)| *of == bug);
    let names = known.map_or(&["resend-e2"][..], |(_, names)| *names);
    let known = names.iter().filter_map(|name| configuration::named(name)).collect();
    let named = without_repeats(&arguments.names, |c| c.name);
    let mut out = io::stdout().lock();
    for configuration in if named.is_empty() { known } else { named } {
        let (row, survey) = super::look(configuration, Some(bug));
        if arguments.json {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
        } else {
            writeln!(out, "{}: {}", row.name, row.verdict)?;
        }
        let Some((_, path)) = survey.stuck else { continue };
        for action in path.iter().filter(|_| !arguments.json) {
            writeln!(out, "    {action}")?;
        }
        return Ok(false);
    }
    Ok(true)
}
