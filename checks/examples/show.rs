//! Development: finds a counterexample, writes it, replays it and shows it.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use quorate_checks::{page, run::*, trace::*};
use quorate_core::rules::*;
use quorate_models::configuration;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let c = configuration::named(&a[1]).unwrap();
    let b = Bug::named(&a[2]).unwrap();
    let o = run(c, Seeded(b), Search::Breadth, 0, |_| {});
    let Verdict::Broken { property, actions } = o.verdict else {
        println!("{} {}: nothing found", a[1], a[2]);
        return;
    };
    let t = Trace::record(c, Some(b), 0, Some(property), &actions).unwrap();
    t.write(std::path::Path::new(&format!("/tmp/cx/{}-{}.json", a[1], a[2]))).unwrap();
    let t = Trace::read(std::path::Path::new(&format!("/tmp/cx/{}-{}.json", a[1], a[2]))).unwrap();
    let r = replay(&t, Under::Recorded).unwrap();
    println!("{}", page::page(&r, page::Colour::Off));
    if a.len() > 3 {
        println!("{}", page::page(&replay(&t, Under::Sound).unwrap(), page::Colour::Off));
    }
}
