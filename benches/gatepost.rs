//! What a session's steps cost, from the cheapest to the dearest. `benches/README.md` says what each figure means.
//!
//! `cargo bench` measures. `cargo test --benches` runs everything once, to see that it still runs, with smaller stores.

mod commands;
mod dashboard;
mod data;
mod filled_store;
mod guard;
mod last_used;
mod limits;
mod lookup;
mod verification;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    commands::bench(&mut criterion);
    data::bench(&mut criterion);
    verification::bench(&mut criterion);
    guard::bench(&mut criterion);
    last_used::bench(&mut criterion);
    limits::bench(&mut criterion);
    lookup::bench(&mut criterion);
    dashboard::bench(&mut criterion);
    criterion.final_summary();
}

/// Whether times are taken, by Criterion's own rule: `cargo bench` passes `--bench`, `cargo test` does not, and `--test` says
/// not to.
fn measuring() -> bool {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    given("--bench") && !given("--test")
}
