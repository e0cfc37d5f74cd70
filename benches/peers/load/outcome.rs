//! What became of an order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Counts and times.
#[derive(Default)]
pub struct Outcome {
    /// Let in (235).
    pub accepted: u64,
    /// Refused for what they offered (535).
    pub refused: u64,
    /// Told to come back (454, 421), or closed on before an answer to AUTH.
    pub shed: u64,
    /// Broken off by the end of the time.
    pub unfinished: u64,
    /// Sessions that resumed an earlier one's TLS.
    pub resumed: u64,
    /// Messages that were accepted.
    pub messages: u64,
    /// The numbers of those, added up.
    pub numbers: u64,
    /// What else went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// From when a session was due to its 235.
    pub logins: Vec<Duration>,
    /// From AUTH to a refusal.
    pub refusals: Vec<Duration>,
    /// How much later than due sessions were begun.
    pub lag: Vec<Duration>,
    /// All of it, from the first to the last.
    pub wall: Duration,
    /// Processor time of the generator.
    pub cpu: Duration,
}

impl Outcome {
    /// Counts something that went wrong, by its first words.
    pub fn error(&mut self, what: &str) {
        let what: String = what.trim_end().chars().take(120).collect();
        *self.errors.entry(what).or_default() += 1;
    }

    /// How many errors there were.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.unfinished
    }

    /// The share of the time for which the generator's thread was at work.
    pub fn load(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(f64::EPSILON)
    }

    /// For the raw results.
    pub fn to_json(&self) -> Value {
        json!({
            "accepted": self.accepted,
            "refused": self.refused,
            "shed": self.shed,
            "unfinished": self.unfinished,
            "resumed": self.resumed,
            "messages": self.messages,
            "errors": self.errors,
            "seconds": self.wall.as_secs_f64(),
            "generator_load": self.load(),
            "generator_cpu_seconds": self.cpu.as_secs_f64(),
            "login_ms": spread(&self.logins),
            "refusal_ms": spread(&self.refusals),
            "lag_ms": spread(&self.lag),
        })
    }
}

fn spread(times: &[Duration]) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let mut times = times.to_vec();
    json!({
        "p50": percentile(&mut times, 50.0),
        "p99": percentile(&mut times, 99.0),
        "most": percentile(&mut times, 100.0),
    })
}

/// In milliseconds: the time that this share of `times` does not exceed. NaN where there are none.
pub fn percentile(times: &mut [Duration], percent: f64) -> f64 {
    times.sort_unstable();
    let rank = (times.len() as f64 * percent / 100.0).ceil() as usize;
    times
        .get(rank.saturating_sub(1))
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
