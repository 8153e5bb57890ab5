//! Development probe.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used)]
use quorate_core::rules::*;
use quorate_models::{configuration, world::World};
use stateright::{Checker, Model};
fn go<R: Rules>(c: &configuration::Configuration, r: R, bfs: bool) {
    let t = std::time::Instant::now();
    let w = World::new(c, r, 0);
    let ch: Box<dyn Fn() -> (usize, usize, usize, bool)> = if bfs {
        let ch = w.checker().spawn_bfs().join();
        Box::new(move || {
            for (n, p) in ch.discoveries() {
                println!("{n}");
                for a in p.into_actions() {
                    println!("   {a}");
                }
            }
            (ch.unique_state_count(), ch.state_count(), ch.max_depth(), ch.discoveries().is_empty())
        })
    } else {
        let ch = w.checker().spawn_dfs();
        while !ch.is_done() {
            std::thread::sleep(std::time::Duration::from_secs(1));
            if t.elapsed().as_secs() % 20 == 0 {
                println!(
                    "{} {} interned {}",
                    ch.unique_state_count(),
                    ch.state_count(),
                    ch.model().interned()
                );
            }
        }
        let ch = ch.join();
        println!("interned {}", ch.model().interned());
        Box::new(move || {
            (ch.unique_state_count(), ch.state_count(), ch.max_depth(), ch.discoveries().is_empty())
        })
    };
    let e = t.elapsed().as_secs_f64();
    let (u, s, d, ok) = ch();
    println!(
        "{:?} {} unique {} transitions {} depth {} ok {} {:.2}s {:.0}/s",
        r,
        c.name,
        u,
        s,
        d,
        ok,
        e,
        s as f64 / e
    );
    let m = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", m.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let c = configuration::named(&a[1]).unwrap();
    let bfs = a.get(3).is_some();
    match a.get(2).and_then(|b| Bug::named(b)) {
        None => go(c, Sound, bfs),
        Some(b) => go(c, Seeded(b), bfs),
    }
}
