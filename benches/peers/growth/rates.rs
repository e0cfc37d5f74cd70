//! With more logins a second, until there are as many as there can be.

use serde_json::{Value, json};

use super::finding::{Finding, closed, cores_taken, failures, login_ms, mark, open, table};
use super::{GUARD, WAY};
use crate::affinity;
use crate::column::not_let_in;
use crate::peer::gatepost::{self, Setup};
use crate::plot::{Axis, Line, Panel, Plot, Scale};
use crate::site::Site;
use crate::trial::Trial;

/// In percent of what it can do.
const PERCENT: [u64; 8] = [10, 25, 50, 70, 80, 90, 95, 100];

/// How long each is kept up at a scale of 100.
const SECONDS: f64 = 6.0;

const CONCURRENT: usize = 64;

const LOGINS: u64 = 10_000;

struct Row {
    percent: u64,
    per_second: f64,
    done: f64,
    taken: f64,
    p50: f64,
    p99: f64,
    mark: &'static str,
    /// Where more come than can be served.
    turned_away: u64,
    failures: u64,
}

pub fn measure(site: &Site, scale: u64) -> Finding {
    let setup = Setup {
        sections: GUARD.to_owned(),
        cores: Some(1),
        ..Setup::default()
    };
    let peer = gatepost::start(site, &setup);
    let _confined = affinity::off_first(1);
    let trial = Trial::new(site, &peer, WAY);
    trial.warm_up();
    let most = trial.work(&closed(&trial, CONCURRENT, (LOGINS * scale / 100).max(500)));
    let capacity = most.outcome.accepted as f64 / most.outcome.wall.as_secs_f64();
    let seconds = (SECONDS * scale as f64 / 100.0).max(0.5);
    let rows = PERCENT.map(|percent| row(&trial, percent, capacity, seconds));
    let head = [
        "of capacity",
        "due, logins/s",
        "done, logins/s",
        "cores taken",
        "p50, ms",
        "p99, ms",
        "turned away",
    ];
    let cells = rows.iter().map(|row| {
        [
            format!("{} %", row.percent),
            format!("{:.0}", row.per_second),
            format!("{:.0}", row.done),
            format!("{:.2}", row.taken),
            format!("{:.2}{}", row.p50, row.mark),
            format!("{:.2}{}", row.p99, row.mark),
            row.turned_away.to_string(),
        ]
    });
    Finding {
        table: table(head, cells),
        plot: plot(&rows),
        raw: json!({
            "capacity_per_second": capacity,
            "generator_was_the_limit_of_capacity": !mark(&most.outcome).is_empty(),
            "rates": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        }),
        verdict: None,
        failures: failures(&most) + rows.iter().map(|row| row.failures).sum::<u64>(),
    }
}

fn row(trial: &Trial<'_>, percent: u64, capacity: f64, seconds: f64) -> Row {
    let per_second = capacity * percent as f64 / 100.0;
    let result = trial.work(&open(trial, per_second, seconds));
    let outcome = &result.outcome;
    Row {
        percent,
        per_second,
        done: outcome.accepted as f64 / outcome.wall.as_secs_f64(),
        taken: cores_taken(&result),
        p50: login_ms(outcome, 50.0),
        p99: login_ms(outcome, 99.0),
        mark: mark(outcome),
        turned_away: not_let_in(outcome),
        failures: result.failures,
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "percent": self.percent,
            "due_per_second": self.per_second,
            "done_per_second": self.done,
            "cores_taken": self.taken,
            "login_ms": { "p50": self.p50, "p99": self.p99 },
            "generator_was_the_limit": !self.mark.is_empty(),
            "turned_away": self.turned_away,
            "failures": self.failures,
        })
    }
}

fn plot(rows: &[Row]) -> Plot {
    let line = |name, value: fn(&Row) -> f64| Line {
        name,
        points: rows
            .iter()
            .map(|row| (row.percent as f64, value(row)))
            .collect(),
    };
    Plot {
        title: "Time of a login as their number nears what one core can do",
        panels: vec![Panel {
            title: "Time of a login",
            x: Axis {
                title: "logins a second, % of what one core can do",
                scale: Scale::Linear,
            },
            y: Axis {
                title: "ms",
                scale: Scale::Logarithmic,
            },
            lines: vec![line("p99", |row| row.p99), line("p50", |row| row.p50)],
        }],
    }
}
