//! With more credentials in the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::filled::{CHEAP, Filled};
use super::finding::{Finding, closed, cpu_ms, failures, login_ms, memory_mib, open, table};
use super::{GUARD, WAY};
use crate::load::{Logins, Order};
use crate::peer::gatepost::{self, Setup};
use crate::plot::{Axis, Line, Panel, Plot, Scale, grouped};
use crate::site::Site;
use crate::trial::Trial;

const STORES: [u64; 3] = [1_000, 100_000, 1_000_000];

/// How many log in at most: as many as are remembered by default.
const REMEMBERED: u64 = 100_000;

const CONCURRENT: usize = 16;

/// Logins whose cost is taken once they are remembered.
const AGAIN: u64 = 4_000;

struct Row {
    credentials: f64,
    store_mib: f64,
    start_mib: f64,
    logged_in: usize,
    remembered_mib: f64,
    first_ms: f64,
    again_ms: f64,
    p50: f64,
    p99: f64,
    failures: u64,
}

pub fn measure(site: &Site, scale: u64) -> Finding {
    let rows = STORES.map(|count| row(site, (count * scale / 100).max(100), scale));
    let head = [
        "credentials",
        "store, MiB",
        "memory at start, MiB",
        "logged in by",
        "memory then, MiB",
        "CPU ms, first login",
        "CPU ms, later login",
        "p50 at 100/s, ms",
        "p99, ms",
    ];
    let cells = rows.iter().map(|row| {
        [
            grouped(&row.credentials.to_string()),
            format!("{:.1}", row.store_mib),
            format!("{:.1}", row.start_mib),
            grouped(&row.logged_in.to_string()),
            format!("{:.1}", row.remembered_mib),
            format!("{:.3}", row.first_ms),
            format!("{:.3}", row.again_ms),
            format!("{:.2}", row.p50),
            format!("{:.2}", row.p99),
        ]
    });
    Finding {
        table: table(head, cells),
        plot: plot(&rows),
        raw: rows.iter().map(Row::to_json).collect(),
        verdict: None,
        failures: rows.iter().map(|row| row.failures).sum(),
    }
}

fn row(site: &Site, count: u64, scale: u64) -> Row {
    let most = count.min((REMEMBERED * scale / 100).max(100));
    let filled = Filled::new(site, count as usize, most as usize);
    let setup = Setup {
        sections: format!("{GUARD}{CHEAP}"),
        store: Some(filled.path.clone()),
        ..Setup::default()
    };
    let peer = gatepost::start(site, &setup);
    let trial = Trial::new(site, &peer, WAY);
    let start_mib = memory_mib(&peer);
    let with = |order: Order, logins| Order { logins, ..order };
    let first = closed(&trial, CONCURRENT, most);
    let first = trial.work(&with(first, Logins::right(&filled.some)));
    let remembered_mib = memory_mib(&peer);
    // As many different ones as there are logins, from all over the store.
    let again = (AGAIN * scale / 100).max(100);
    let names = filled.some.iter().step_by((most / again).max(1) as usize);
    let names = Logins::right(&Arc::new(names.cloned().collect()));
    let later = trial.work(&with(closed(&trial, CONCURRENT, again), names.clone()));
    let timed = trial.work(&with(open(&trial, 100.0, 5.0), names));
    Row {
        credentials: count as f64,
        store_mib: filled.mib,
        start_mib,
        logged_in: filled.some.len(),
        remembered_mib,
        first_ms: cpu_ms(&first),
        again_ms: cpu_ms(&later),
        p50: login_ms(&timed.outcome, 50.0),
        p99: login_ms(&timed.outcome, 99.0),
        failures: [&first, &later, &timed].map(failures).iter().sum(),
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "credentials": self.credentials,
            "store_mib": self.store_mib,
            "memory_at_start_mib": self.start_mib,
            "logged_in": self.logged_in,
            "memory_then_mib": self.remembered_mib,
            "cpu_ms_first_login": self.first_ms,
            "cpu_ms_later_login": self.again_ms,
            "login_ms": { "p50": self.p50, "p99": self.p99 },
            "failures": self.failures,
        })
    }
}

fn plot(rows: &[Row]) -> Plot {
    let line = |name, value: fn(&Row) -> f64| Line {
        name,
        points: rows
            .iter()
            .map(|row| (row.credentials, value(row)))
            .collect(),
    };
    let panel = |title, unit, lines| Panel {
        title,
        x: Axis {
            title: "credentials in the store",
            scale: Scale::Logarithmic,
        },
        y: Axis {
            title: unit,
            scale: Scale::Linear,
        },
        lines,
    };
    Plot {
        title: "Processor time of a login, and memory, by credentials in the store",
        panels: vec![
            panel(
                "Processor time of a login",
                "ms",
                vec![
                    line("first, cheapest argon2id", |row| row.first_ms),
                    line("later", |row| row.again_ms),
                ],
            ),
            panel(
                "Memory",
                "MiB",
                vec![
                    line("at start", |row| row.start_mib),
                    line("when they have logged in", |row| row.remembered_mib),
                ],
            ),
        ],
    }
}
