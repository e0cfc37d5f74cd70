//! What one part of growth came to.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::column::not_let_in;
use crate::load::{Order, Outcome, Pace, percentile};
use crate::peer::Peer;
use crate::plot::Plot;
use crate::trial::{Result, Trial};

/// A table, the same as a plot, and the raw figures.
pub struct Finding {
    pub table: String,
    pub plot: Plot,
    pub raw: Value,
    /// Whether what is wanted was reached, where something is.
    pub verdict: Option<String>,
    /// Errors, and good clients that were not let in. Not zero: the figures mean nothing.
    pub failures: u64,
}

/// A thread that was at work for more of the time than this was what others waited for.
const BUSY: f64 = 0.95;

/// In Markdown.
pub fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head) + &line(&["---"; COLUMNS]);
    for row in rows {
        text += &line(&row.each_ref().map(String::as_str));
    }
    text
}

/// Logins without messages, each begun when another one is over.
pub fn closed(trial: &Trial<'_>, concurrent: usize, sessions: u64) -> Order {
    Order {
        patience: Duration::from_secs(900),
        ..trial.order(concurrent, sessions)
    }
}

/// Logins at fixed times.
pub fn open(trial: &Trial<'_>, per_second: f64, seconds: f64) -> Order {
    Order {
        pace: Pace::Open {
            per_second,
            sessions: ((per_second * seconds) as u64).max(20),
        },
        ..trial.order(0, 0)
    }
}

/// Processor time of a login, in milliseconds.
pub fn cpu_ms(result: &Result) -> f64 {
    result.cpu.as_secs_f64() * 1e3 / result.outcome.accepted as f64
}

/// How many cores Gatepost took.
pub fn cores_taken(result: &Result) -> f64 {
    result.cpu.as_secs_f64() / result.outcome.wall.as_secs_f64()
}

/// The time of a login that this share of them does not exceed, in milliseconds.
pub fn login_ms(outcome: &Outcome, percent: f64) -> f64 {
    percentile(&mut outcome.logins.clone(), percent)
}

/// All that went wrong, good clients that were not let in among it.
pub fn failures(result: &Result) -> u64 {
    result.failures + not_let_in(&result.outcome)
}

/// A star where the generator could not do more, or not in time.
pub fn mark(outcome: &Outcome) -> &'static str {
    let late = percentile(&mut outcome.lag.clone(), 99.0);
    let limited = outcome.load() > BUSY || late > login_ms(outcome, 99.0) / 10.0;
    if limited { "*" } else { "" }
}

/// Its memory in MiB once it has come to rest.
pub fn memory_mib(peer: &Peer) -> f64 {
    thread::sleep(Duration::from_secs(2));
    peer.usage(true).memory_kib as f64 / 1024.0
}
