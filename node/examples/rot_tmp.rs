//! tmp
use std::time::Duration;
use quorate_node::simulation::{run, Options};
fn main() {
    let mut rot = 0;
    let from: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let to: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    for seed in from..=to {
        match run(&Options { seed, duration: Duration::from_secs(5), has_blackouts: seed > 75, mutant: None }) {
            Ok(r) => rot += r.faults.iter().find(|f| f.0 == "rot").unwrap().1,
            Err(f) => println!("seed {seed}: {f}"),
        }
    }
    println!("{from}..={to} done, rot fired {rot}");
}
