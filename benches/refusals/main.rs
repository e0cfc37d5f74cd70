//! Whether a refusal tells its reason by code, text or time: each kind of refusal, asked for over TLS from a running daemon,
//! one after the other and many at once. Ends with 1 if one can be told.
#![allow(
    clippy::disallowed_methods,
    reason = "bans on the clock and the environment protect the daemon, not its benches"
)]

#[allow(dead_code, reason = "a bench needs some of the tests' tools only")]
#[path = "../../tests/support/mod.rs"]
mod support;

mod kinds;
mod visits;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use kinds::Kind;
use support::gatepost::Gatepost;
use support::site::Config;
use support::upstream::Upstream;
use visits::{Sample, Visits};

/// By how much the medians of two kinds may differ.
const LIMIT: Duration = Duration::from_millis(2);

/// How much is asked for.
#[derive(Parser)]
struct Arguments {
    /// Refusals of each kind, one at a time and again many at once; 1000 where times are taken, otherwise 10.
    #[arg(long)]
    samples: Option<usize>,
    /// How many at once.
    #[arg(long, default_value_t = 50)]
    parallel: usize,
    /// The daemon's auth.refusal_delay, in milliseconds. It varies by a fifth, so a longer one needs more samples.
    #[arg(long, default_value_t = 25)]
    delay: u64,
    /// Passed by `cargo bench`, to take times.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = if arguments.bench { 1000 } else { 10 };
    let (samples, many) = (arguments.samples.unwrap_or(usual), arguments.parallel);
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address)
        .guarded()
        .text("auth", "refusal_delay", &format!("{}ms", arguments.delay))
        .number("auth", "queue", 1000);
    let gatepost = Gatepost::start(config);
    let kinds = kinds::prepare(&gatepost, samples);
    let visits = Visits::new(gatepost.submissions);
    eprintln!("refusals: {samples} of each kind, one at a time and then {many} at once");
    let heard = [1, many].map(|parallel| visits.run(&kinds, samples, parallel));
    print_table(&kinds, &heard);
    let texts: BTreeSet<_> = heard.iter().flatten().map(|sample| &sample.reply).collect();
    if texts.len() > 1 {
        println!("\nFAILED: a reason can be told by what is said: {texts:?}");
        return ExitCode::FAILURE;
    }
    let [serial, parallel] = heard.map(|heard| spread(&kinds, &heard));
    println!("\nMedians differ by {serial:.1?} one at a time, {parallel:.1?} at once.");
    // Otherwise the build is none to take times of.
    if arguments.bench && serial.max(parallel) > LIMIT {
        println!("FAILED: a reason can be told by time: at most {LIMIT:?} are allowed.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn print_table(kinds: &[Kind], heard: &[Vec<Sample>; 2]) {
    println!("| kind | said | median, p95 one at a time, ms | at once, ms |");
    println!("|---|---|---|---|");
    let common = &heard[0][0].reply;
    for (number, kind) in kinds.iter().enumerate() {
        let of_kind = |sample: &&Sample| sample.kind == number;
        let mut own = heard.iter().flatten().filter(of_kind);
        let said = match own.all(|sample| sample.reply == *common) {
            true => &common[0],
            false => "DIFFERENT",
        };
        print!("| {} | {said} |", kind.name);
        for heard in heard {
            let times = times(heard, number);
            print!(" {}, {} |", ms(at(&times, 50)), ms(at(&times, 95)));
        }
        println!();
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// How long refusals of one kind took, the shortest first.
fn times(heard: &[Sample], kind: usize) -> Vec<Duration> {
    let own = heard.iter().filter(|sample| sample.kind == kind);
    let mut times: Vec<_> = own.map(|sample| sample.took).collect();
    times.sort_unstable();
    times
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

/// How far the medians of all kinds are apart.
fn spread(kinds: &[Kind], heard: &[Sample]) -> Duration {
    let medians = (0..kinds.len()).map(|kind| at(&times(heard, kind), 50));
    let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
    for median in medians {
        (least, most) = (least.min(median), most.max(median));
    }
    most - least
}
