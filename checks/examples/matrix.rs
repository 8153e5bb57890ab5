//! Development probe.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used)]
use quorate_checks::{
    kill::hunt,
    run::{Search, Verdict},
};
use quorate_core::rules::Bug;
use quorate_models::configuration;
fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let only = std::env::var("BUGS").unwrap_or_default();
    for bug in Bug::ALL {
        if !only.is_empty() && !only.split(",").any(|b| b == bug.name()) {
            continue;
        }
        let mut line = format!("{:24}", bug.name());
        for n in &names {
            let c = configuration::named(n).unwrap();
            let r = std::panic::catch_unwind(|| hunt(*bug, c, Search::Breadth));
            match r {
                Ok((Some(k), t)) => {
                    let p = match &k.outcome.verdict {
                        Verdict::Broken { property, .. } => property.name(),
                        _ => "",
                    };
                    line += &format!(" | {n}: {} in {} ({:.1}s)", p, k.steps, t.as_secs_f64())
                }
                Ok((None, t)) => line += &format!(" | {n}: - ({:.1}s)", t.as_secs_f64()),
                Err(_) => line += &format!(" | {n}: PANIC"),
            }
        }
        println!("{line}");
    }
}
