//! Seeded bugs on request: a program asked for one by name has it, and says so.

use quorate_core::rules::Bug;

/// Returns the seeded bug with this name.
pub(crate) fn parse(name: &str) -> Result<Bug, String> {
    Bug::named(name)
        .ok_or_else(|| format!("no seeded bug is called {name}: see `quorate check list`"))
}

/// Says that this process is broken on purpose.
pub(crate) fn warn(bug: Bug) {
    eprintln!(
        "quorate: WARNING: this process runs with the seeded bug {}: {} It loses or invents data \
         on purpose. Never give it data that anybody needs.",
        bug.name(),
        bug.summary().trim()
    );
}
