//! Names that a person types: found, or the nearest of what there is.

use std::num::NonZeroUsize;

use quorate_core::rules::Bug;
use quorate_models::configuration::{self, Configuration};

use crate::tla;

/// The most insertions, deletions, changes and swaps that still make a name a slip of the fingers:
/// one in so many letters.
const LETTERS_PER_SLIP: usize = 3;

pub(crate) fn parse_configuration(name: &str) -> Result<&'static Configuration, String> {
    let names = || configuration::ALL.iter().map(|c| c.name);
    configuration::named(name).ok_or_else(|| unknown("configuration", name, names()))
}

pub(crate) fn parse_bug(name: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.iter().map(|bug| bug.name());
    Bug::named(name).ok_or_else(|| unknown("bug", name, names()))
}

pub(crate) fn parse_specification(name: &str) -> Result<&'static tla::Expected, String> {
    let names = || tla::EXPECTED.iter().map(|expected| expected.name);
    let found = tla::EXPECTED.iter().find(|expected| expected.name == name);
    found.ok_or_else(|| unknown("configuration of the specification", name, names()))
}

pub(crate) fn parse_jobs(text: &str) -> Result<NonZeroUsize, String> {
    let count: usize = text.parse().map_err(|_| "it must be a number, 1 or more".to_owned())?;
    NonZeroUsize::new(count).ok_or_else(|| "at least one must run at a time".to_owned())
}

fn unknown(what: &str, name: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let near = nearest(name, known.clone());
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let all = known.collect::<Vec<_>>().join(", ");
    format!("there is no such {what}{near}\n\nThere are {all}")
}

/// Returns the name that differs least from `name`, without regard to case, if it differs little.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips =
        |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let near = known.map(|known| (slips(known), known)).min_by_key(|(slips, _)| *slips);
    let (slips, near) = near?;
    let most = near.chars().count() / LETTERS_PER_SLIP;
    (slips <= most).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistyped name that is answered by thirty others helps nobody; a guess that is far off
    /// misleads.
    #[test]
    fn the_nearest_name_is_suggested_and_only_a_near_one() {
        let near = parse_configuration("zombi-e2r2").map(|c| c.name);
        assert!(near.is_err_and(|message| message.contains("did you mean zombie-e2r2?")));
        let near = parse_bug("nofense").map(Bug::name);
        assert!(near.is_err_and(|message| message.contains("did you mean NoFence?")));
        let far = parse_bug("completely-else").map(Bug::name);
        assert!(far.is_err_and(|message| !message.contains("did you mean")));
        let tla = parse_specification("MCVolume_tye").map(|expected| expected.name);
        assert!(tla.is_err_and(|message| message.contains("did you mean MCVolume_tie?")));
    }

    /// No job at a time would wait for ever.
    #[test]
    fn at_least_one_job_runs() {
        assert_eq!(parse_jobs("2").map(NonZeroUsize::get), Ok(2));
        assert!(parse_jobs("0").is_err_and(|message| message.contains("at least one")));
        assert!(parse_jobs("many").is_err());
    }
}
