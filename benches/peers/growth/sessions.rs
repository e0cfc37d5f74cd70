//! With more sessions at a time.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::finding::{Finding, closed, cpu_ms, failures, login_ms, memory_mib, open, table};
use super::{GUARD, WAY};
use crate::load::{self, Held, Order};
use crate::peer::Peer;
use crate::peer::gatepost::{self, Setup};
use crate::plot::{Axis, Line, Panel, Plot, Scale, grouped};
use crate::site::Site;
use crate::trial::Trial;

const SESSIONS: [u64; 3] = [100, 1_000, 10_000];

/// So many idle sessions are to take less than so many MiB, Gatepost itself and all.
const WANTED: (f64, f64) = (10_000.0, 200.0);

const CONCURRENT: usize = 16;

/// Logins whose cost is taken beside the sessions.
const BESIDE: u64 = 4_000;

/// Descriptors that a process needs for other things.
const SPARE: u64 = 500;

/// How long the sessions' upstreams may take to be given back: by default a minute after the last command.
const RELEASE: Duration = Duration::from_secs(90);

struct Row {
    sessions: f64,
    /// Without any, after the first logins.
    none_mib: f64,
    /// With the upstreams of all; not a number where that needs more descriptors than there may be.
    upstreams_mib: f64,
    idle_mib: f64,
    cpu_ms: f64,
    p50: f64,
    p99: f64,
    failures: u64,
}

pub fn measure(site: &Site, scale: u64) -> Finding {
    let rows = SESSIONS.map(|count| row(site, (count * scale / 100).max(10), scale));
    let head = [
        "sessions",
        "memory with their upstreams, MiB",
        "KiB each",
        "memory when these are given back, MiB",
        "KiB each",
        "CPU ms of a login beside them",
        "p50 at 100/s, ms",
        "p99, ms",
    ];
    let cells = rows.iter().map(|row| {
        [
            grouped(&row.sessions.to_string()),
            or_dash(row.upstreams_mib),
            or_dash(row.each_kib(row.upstreams_mib)),
            or_dash(row.idle_mib),
            or_dash(row.each_kib(row.idle_mib)),
            format!("{:.3}", row.cpu_ms),
            format!("{:.2}", row.p50),
            format!("{:.2}", row.p99),
        ]
    });
    Finding {
        table: table(head, cells),
        plot: plot(&rows),
        raw: rows.iter().map(Row::to_json).collect(),
        verdict: rows.iter().find_map(verdict),
        failures: rows.iter().map(|row| row.failures).sum(),
    }
}

fn verdict(row: &Row) -> Option<String> {
    let (sessions, most) = WANTED;
    let verdict = if row.idle_mib < most { "met" } else { "MISSED" };
    (row.sessions == sessions).then(|| {
        let sessions = grouped(&sessions.to_string());
        let taken = row.idle_mib;
        format!(
            "{verdict}: {sessions} idle sessions: {taken:.1} MiB in all, wanted less than {most:.0}"
        )
    })
}

fn row(site: &Site, count: u64, scale: u64) -> Row {
    let setup = Setup {
        connections: 16_384,
        sections: GUARD.to_owned(),
        ..Setup::default()
    };
    let peer = gatepost::start(site, &setup);
    let trial = Trial::new(site, &peer, WAY);
    trial.warm_up();
    let none_mib = memory_mib(&peer);
    let descriptors = descriptors(&peer);
    let mut crowd = Crowd::default();
    let mut upstreams_mib = f64::NAN;
    while crowd.sessions < count && crowd.failures == 0 {
        let batch = crowd.room().min(count - crowd.sessions);
        crowd.join(&trial, batch);
        if batch == count {
            upstreams_mib = memory_mib(&peer);
        }
        site.sink.settle(0, RELEASE);
    }
    let idle_mib = memory_mib(&peer);
    let lost = count.abs_diff(self::descriptors(&peer).saturating_sub(descriptors));
    let beside = trial.work(&closed(&trial, CONCURRENT, (BESIDE * scale / 100).max(100)));
    let timed = trial.work(&open(&trial, 100.0, 5.0));
    let failed = crowd.failures + lost + failures(&beside) + failures(&timed);
    drop(crowd);
    Row {
        sessions: count as f64,
        none_mib,
        upstreams_mib,
        idle_mib,
        cpu_ms: cpu_ms(&beside),
        p50: login_ms(&timed.outcome, 50.0),
        p99: login_ms(&timed.outcome, 99.0),
        failures: failed,
    }
}

/// Sessions that say nothing more.
#[derive(Default)]
struct Crowd {
    held: Vec<Held>,
    sessions: u64,
    failures: u64,
}

impl Crowd {
    /// How many more there can be. Each takes two descriptors until its upstream is given back, in Gatepost, and in this
    /// process, which is at both ends.
    fn room(&self) -> u64 {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(SPARE + self.sessions);
        (left / 2).max(1)
    }

    fn join(&mut self, trial: &Trial<'_>, count: u64) {
        let order = Order {
            hold: true,
            ..closed(trial, CONCURRENT, count)
        };
        let (outcome, held) = load::run(&order).expect("the generator runs");
        self.failures += outcome.failures() + count.abs_diff(outcome.accepted);
        if self.failures > 0 {
            eprintln!("sessions: {:?}", outcome.errors);
        }
        self.sessions += outcome.accepted;
        self.held.push(held);
    }
}

/// How many descriptors it has open once it has closed what it will.
fn descriptors(peer: &Peer) -> u64 {
    let path = format!("/proc/{}/fd", peer.id());
    let count = || fs::read_dir(&path).map_or(0, Iterator::count) as u64;
    let mut last = count();
    loop {
        thread::sleep(Duration::from_millis(500));
        match count() {
            same if same == last => return same,
            other => last = other,
        }
    }
}

impl Row {
    fn each_kib(&self, mib: f64) -> f64 {
        (mib - self.none_mib) * 1024.0 / self.sessions
    }

    fn to_json(&self) -> Value {
        json!({
            "sessions": self.sessions,
            "memory_without_mib": self.none_mib,
            "memory_with_upstreams_mib": self.upstreams_mib,
            "memory_mib": self.idle_mib,
            "kib_each": self.each_kib(self.idle_mib),
            "cpu_ms_of_a_login": self.cpu_ms,
            "login_ms": { "p50": self.p50, "p99": self.p99 },
            "failures": self.failures,
        })
    }
}

fn or_dash(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    format!("{value:.1}")
}

fn plot(rows: &[Row]) -> Plot {
    let line = |name, value: fn(&Row) -> f64| Line {
        name,
        points: rows.iter().map(|row| (row.sessions, value(row))).collect(),
    };
    let panel = |title, unit, lines| Panel {
        title,
        x: Axis {
            title: "sessions at a time",
            scale: Scale::Logarithmic,
        },
        y: Axis {
            title: unit,
            scale: Scale::Linear,
        },
        lines,
    };
    Plot {
        title: "Memory, and processor time of a login, by sessions at a time",
        panels: vec![
            panel(
                "Memory in all",
                "MiB",
                vec![
                    line("idle", |row| row.idle_mib),
                    line("with their upstreams", |row| row.upstreams_mib),
                ],
            ),
            panel(
                "Processor time of a login beside them",
                "ms",
                vec![line("remembered", |row| row.cpu_ms)],
            ),
        ],
    }
}
