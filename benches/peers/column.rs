//! The columns of the table: what is measured, and how.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::load::{self, Attempt, Logins, Order, Outcome, Pace, hostile_address, percentile};
use crate::message::Message;
use crate::trial::{Arrived, Result, Trial};

/// Sessions at a time where processor time is what is asked for.
const CONCURRENT: usize = 16;

/// Wrong passwords under way at a time. Most peers keep those who offer one waiting, for a second or more; with few of them
/// they would be idle, and what is measured would be how dear it is to wake up.
const WRONG: usize = 1000;

/// Attackers at a time, each as fast as it is answered.
const ATTACKERS: usize = 16;

/// A thread that was at work for more of the time than this was what others waited for.
const BUSY: f64 = 0.95;

/// One figure of each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// First, because it wants processes that have just begun.
    Idle,
    Session,
    Auth,
    Message,
    Pipelined,
    Bulk,
    Login,
    Wrong,
    Attack,
}

/// What was read.
pub struct Reading {
    pub value: f64,
    /// The load generator could not do more, or not in time.
    pub limited: bool,
    /// Errors, lost or damaged messages, good clients that were refused. Not zero: the value means nothing.
    pub failures: u64,
    pub detail: Value,
}

impl Column {
    /// Its head in the table.
    pub fn title(self) -> &'static str {
        match self {
            Column::Idle => "KiB per idle session",
            Column::Session => "CPU ms per session",
            Column::Auth => "CPU ms per AUTH-only session",
            Column::Message => "CPU µs per message, 100 a session",
            Column::Pipelined => "the same, pipelined",
            Column::Bulk => "CPU ms per MB, 25 MB messages",
            Column::Login => "AUTH p50 at 100 sessions/s, ms",
            Column::Wrong => "CPU ms per wrong password",
            Column::Attack => "good AUTH p99 under attack, ms",
        }
    }

    /// The name for the command line and the raw results.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no column is hidden");
        value.get_name().to_owned()
    }

    /// Whether it says something about who looks at no passwords.
    pub fn is_of_passwords(self) -> bool {
        matches!(self, Column::Wrong | Column::Attack)
    }

    /// Measures it, with `scale` percent of the usual work.
    pub fn measure(self, trial: &Trial<'_>, scale: u64) -> Reading {
        let some = |usual: u64| (usual * scale / 100 / trial.peer.kind.patience()).max(20);
        match self {
            Column::Idle => idle(trial, trial.peer.kind.idle((5000 * scale / 100).max(100))),
            Column::Session => {
                let order = trial.order(CONCURRENT, some(4000));
                let order = Order {
                    messages: 1,
                    ..order
                };
                per(1e3, &trial.work(&order), |outcome| outcome.accepted)
            }
            Column::Auth => {
                let order = trial.order(CONCURRENT, some(4000));
                per(1e3, &trial.work(&order), |outcome| outcome.accepted)
            }
            Column::Message | Column::Pipelined => {
                let order = Order {
                    messages: 100,
                    pipelined: self == Column::Pipelined,
                    ..trial.order(CONCURRENT, some(320))
                };
                per(1e6, &trial.work(&order), |outcome| outcome.messages)
            }
            Column::Bulk => bulk(
                trial,
                (60 * scale / 100 / trial.peer.kind.patience()).max(4),
            ),
            Column::Login => login(trial, (1000 * scale / 100).max(50)),
            Column::Wrong => {
                let logins = attackers(trial, vec![Attempt::Wrong], 48_000);
                let order = trial.hostile(logins, WRONG, some(6000));
                per(1e3, &trial.work(&order), |outcome| {
                    outcome.refused + outcome.shed
                })
            }
            Column::Attack => attack(trial, (500 * scale / 100).max(50)),
        }
    }
}

/// Processor time for each of what was done, in units of which a second has `unit`.
fn per(unit: f64, result: &Result, done: fn(&Outcome) -> u64) -> Reading {
    let outcome = &result.outcome;
    let mut detail = outcome.to_json();
    detail["peer_cpu_seconds"] = json!(result.cpu.as_secs_f64());
    Reading {
        value: result.cpu.as_secs_f64() * unit / done(outcome) as f64,
        limited: outcome.load() > BUSY,
        failures: result.failures,
        detail,
    }
}

fn bulk(trial: &Trial<'_>, messages: u64) -> Reading {
    const SIZE: usize = 25_000_000;
    let order = Order {
        messages: 1,
        message: Arc::new(Message::new(SIZE)),
        ..trial.order(4, messages)
    };
    let mut reading = per(1e3, &trial.work(&order), |outcome| outcome.messages);
    reading.value /= SIZE as f64 / 1e6;
    reading
}

fn idle(trial: &Trial<'_>, sessions: u64) -> Reading {
    let order = Order {
        hold: true,
        ..trial.order(CONCURRENT, sessions)
    };
    let before = trial.peer.usage(true);
    let arrived = Arrived::now(trial.site);
    let (outcome, held) = load::run(&order).expect("the generator runs");
    // What a session needs only to begin with is given back by then.
    std::thread::sleep(Duration::from_secs(2));
    let after = trial.peer.usage(true);
    drop(held);
    trial.site.sink.settle(0, Duration::from_secs(60));
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    let mut detail = outcome.to_json();
    detail["sessions"] = json!(outcome.accepted);
    detail["before_kib"] = json!(before.memory_kib);
    detail["after_kib"] = json!(after.memory_kib);
    detail["processes"] = json!(after.processes);
    Reading {
        value: grown as f64 / outcome.accepted as f64,
        limited: false,
        failures: arrived.failures(trial.site, &outcome) + sessions.abs_diff(outcome.accepted),
        detail,
    }
}

fn login(trial: &Trial<'_>, sessions: u64) -> Reading {
    let order = Order {
        pace: Pace::Open {
            per_second: 100.0,
            sessions,
        },
        ..trial.order(0, 0)
    };
    let mut result = trial.work(&order);
    let reading = latency(&mut result.outcome, 50.0);
    Reading {
        failures: result.failures + not_let_in(&result.outcome),
        ..reading
    }
}

/// Good clients at a fixed rate, while attackers of all kinds do what they can.
fn attack(trial: &Trial<'_>, sessions: u64) -> Reading {
    let attempts = vec![Attempt::Unknown, Attempt::Wrong, Attempt::Malformed];
    let attackers = trial.hostile(attackers(trial, attempts, 200), ATTACKERS, u64::MAX);
    let good = Order {
        pace: Pace::Open {
            per_second: 50.0,
            sessions,
        },
        ..trial.order(0, 0)
    };
    let (mut outcome, hostile) = beside(&good, &attackers);
    trial.site.sink.settle(0, Duration::from_secs(60));
    let mut reading = latency(&mut outcome, 99.0);
    reading.detail["attackers"] = hostile.to_json();
    reading.failures = outcome.failures() + not_let_in(&outcome);
    reading
}

/// Carries out both orders at the same time, the second as long as the first takes.
pub fn beside(good: &Order, attackers: &Order) -> (Outcome, Outcome) {
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| load::run(attackers).expect("the attackers run").0);
        let outcome = load::run(good).expect("the generator runs").0;
        attackers.stop.store(true, Ordering::Relaxed);
        (outcome, hostile.join().expect("the attackers end"))
    })
}

/// Attackers who know names that nobody has logged in by, so that no peer has anything in its memory that would help it.
fn attackers(trial: &Trial<'_>, attempts: Vec<Attempt>, addresses: u64) -> Logins {
    Logins {
        attempts,
        addresses,
        address: hostile_address,
        ..Logins::right(&trial.site.cold)
    }
}

fn latency(outcome: &mut Outcome, percent: f64) -> Reading {
    let detail = outcome.to_json();
    let value = percentile(&mut outcome.logins, percent);
    Reading {
        value,
        // A session that began late waited for the generator, not for the peer.
        limited: percentile(&mut outcome.lag, percent) > value / 10.0,
        failures: 0,
        detail,
    }
}

/// Good clients that were not let in.
pub fn not_let_in(outcome: &Outcome) -> u64 {
    outcome.refused + outcome.shed
}
