//! Development: finds a counterexample, writes it, replays it and shows it.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use quorate_checks::{diagram, explore, page, run::*, trace::*};
use quorate_core::rules::*;
use quorate_models::configuration;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let c = configuration::named(&a[1]).unwrap();
    let b = Bug::named(&a[2]).unwrap();
    if a.len() > 3 && a[3] != "x" { if let Err(e) = explore::explore(c, Some(b), &a[3]) { println!("{e}"); } return; }
    let o = run(c, Seeded(b), Search::Breadth, 0, |_| {});
    let Verdict::Broken { property, actions } = o.verdict else { println!("{} {}: nothing found", a[1], a[2]); return };
    let t = Trace::record(c, Some(b), 0, Some(property), &actions).unwrap();
    let f = format!("/tmp/cx/{}-{}", a[1], a[2]);
    t.write(std::path::Path::new(&format!("{f}.json"))).unwrap();
    let t = Trace::read(std::path::Path::new(&format!("{f}.json"))).unwrap();
    let r = replay(&t, Under::Recorded).unwrap();
    std::fs::write(format!("{f}.svg"), diagram::diagram(&r)).unwrap();
    println!("{}", page::page(&r, page::Colour::Plain));
    if a.len() > 3 { println!("{}", page::page(&replay(&t, Under::Sound).unwrap(), page::Colour::Plain)); }
}
