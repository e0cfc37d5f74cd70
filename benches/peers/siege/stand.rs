//! What became of good clients, of attackers and of Gatepost while they met, and whether that is good enough.

use std::time::Duration;

use serde_json::{Value, json};

use crate::column::not_let_in;
use crate::load::{Outcome, percentile};

/// The longest p99 of a good login in milliseconds, unless the quiet one is more than half of it.
const LONGEST: f64 = 250.0;

/// By how many MiB memory may grow.
const GROWTH: f64 = 96.0;

/// The head of the table.
pub const HEAD: &str = "| attack | attempts/s | refused | p50 of that, ms | shed | good logins | not let in \
    | p50, ms | p99, ms | p99 of those not remembered, ms | memory, MiB more | cores taken | cores waited for |";

/// One row.
pub struct Stand {
    pub attack: &'static str,
    /// Good clients whose passwords are remembered.
    pub good: Outcome,
    /// Good clients who are trusted where they come from, and of whose passwords nothing is remembered.
    pub returning: Outcome,
    pub hostile: Outcome,
    /// By how much the most that Gatepost took exceeded what it took when it was quiet.
    pub grown_mib: f64,
    /// Its processor time while good clients logged in.
    pub cpu: Duration,
    /// How long its threads were ready meanwhile and had to wait for a core.
    pub waited: Duration,
}

impl Stand {
    /// The p99 of all good logins, in milliseconds.
    fn p99(&self) -> f64 {
        let all = [&self.good, &self.returning].map(|outcome| outcome.logins.as_slice());
        percentile(&mut all.concat(), 99.0)
    }

    /// What is not good enough, next to a time without attackers.
    pub fn complaints(&self, quiet: &Stand) -> Vec<String> {
        let mut complaints = Vec::new();
        let attack = self.attack;
        let missing = self.missing();
        if missing > 0 {
            complaints.push(format!("{attack}: {missing} good logins were not let in"));
        }
        let (worst, limit) = (self.p99(), LONGEST.max(2.0 * quiet.p99()));
        if worst.is_nan() || worst > limit {
            complaints.push(format!(
                "{attack}: the p99 of good logins is {worst:.1} ms, more than {limit:.1} ms"
            ));
        }
        if self.grown_mib > GROWTH {
            complaints.push(format!(
                "{attack}: memory grew by {:.1} MiB, more than {GROWTH} MiB",
                self.grown_mib
            ));
        }
        if self.hostile.accepted > 0 {
            let accepted = self.hostile.accepted;
            complaints.push(format!("{attack}: {accepted} attackers were let in"));
        }
        complaints
    }

    /// Its row.
    pub fn row(&self) -> String {
        let (good, hostile) = (&self.good, &self.hostile);
        let attempts = (hostile.refused + hostile.shed) as f64 / good.wall.as_secs_f64();
        let p99 = self.p99();
        let cold = percentile(&mut self.returning.logins.clone(), 99.0);
        format!(
            "| {} | {attempts:.0} | {} | {} | {} | {} | {} | {} | {p99:.1} | {cold:.1} | {:.1} | {:.2} | {:.2} |",
            self.attack,
            hostile.refused,
            p50(&hostile.refusals),
            hostile.shed,
            good.accepted + self.returning.accepted,
            self.missing(),
            p50(&[good.logins.as_slice(), &self.returning.logins].concat()),
            self.grown_mib,
            self.cores(self.cpu),
            self.cores(self.waited),
        )
    }

    /// For the raw results.
    pub fn to_json(&self) -> Value {
        json!({
            "attack": self.attack,
            "good": self.good.to_json(),
            "returning": self.returning.to_json(),
            "p99_of_both_ms": self.p99(),
            "attackers": self.hostile.to_json(),
            "memory_mib_more": self.grown_mib,
            "cores_taken": self.cores(self.cpu),
            "cores_waited_for": self.cores(self.waited),
        })
    }

    fn missing(&self) -> u64 {
        let both = [&self.good, &self.returning];
        let missing = both.map(|outcome| not_let_in(outcome) + outcome.failures());
        missing.iter().sum()
    }

    fn cores(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.good.wall.as_secs_f64()
    }
}

fn p50(times: &[Duration]) -> String {
    if times.is_empty() {
        return "–".to_owned();
    }
    format!("{:.1}", percentile(&mut times.to_vec(), 50.0))
}
