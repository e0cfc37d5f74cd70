//! With more cores.

use serde_json::{Value, json};

use super::finding::{
    Finding, closed, cores_taken, cpu_ms, failures, login_ms, mark, memory_mib, open, table,
};
use super::{GUARD, WAY};
use crate::affinity;
use crate::peer::gatepost::{self, Setup};
use crate::plot::{Axis, Line, Panel, Plot, Scale};
use crate::site::Site;
use crate::trial::Trial;

const CORES: [usize; 2] = [1, 2];

/// Enough that there is always something to do.
const CONCURRENT: usize = 64;

const LOGINS: u64 = 10_000;

struct Row {
    cores: usize,
    per_second: f64,
    mark: &'static str,
    taken: f64,
    cpu_ms: f64,
    memory_mib: f64,
    p50: f64,
    p99: f64,
    failures: u64,
}

pub fn measure(site: &Site, scale: u64) -> Finding {
    let counts = CORES
        .into_iter()
        .filter(|&cores| cores <= affinity::cores());
    let rows: Vec<Row> = counts.map(|cores| row(site, cores, scale)).collect();
    let head = [
        "cores",
        "logins/s",
        "cores taken",
        "CPU ms per login",
        "memory, MiB",
        "p50 at 100/s, ms",
        "p99, ms",
    ];
    let cells = rows.iter().map(|row| {
        [
            row.cores.to_string(),
            format!("{:.0}{}", row.per_second, row.mark),
            format!("{:.2}", row.taken),
            format!("{:.3}", row.cpu_ms),
            format!("{:.1}", row.memory_mib),
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

fn row(site: &Site, cores: usize, scale: u64) -> Row {
    let setup = Setup {
        sections: GUARD.to_owned(),
        cores: Some(cores),
        ..Setup::default()
    };
    let peer = gatepost::start(site, &setup);
    let _confined = affinity::off_first(cores);
    let trial = Trial::new(site, &peer, WAY);
    trial.warm_up();
    let timed = trial.work(&open(&trial, 100.0, 5.0));
    let full = trial.work(&closed(&trial, CONCURRENT, (LOGINS * scale / 100).max(200)));
    Row {
        cores,
        per_second: full.outcome.accepted as f64 / full.outcome.wall.as_secs_f64(),
        mark: mark(&full.outcome),
        taken: cores_taken(&full),
        cpu_ms: cpu_ms(&full),
        memory_mib: memory_mib(&peer),
        p50: login_ms(&timed.outcome, 50.0),
        p99: login_ms(&timed.outcome, 99.0),
        failures: failures(&full) + failures(&timed),
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "cores": self.cores,
            "logins_per_second": self.per_second,
            "generator_was_the_limit": !self.mark.is_empty(),
            "cores_taken": self.taken,
            "cpu_ms_per_login": self.cpu_ms,
            "memory_mib": self.memory_mib,
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
            .map(|row| (row.cores as f64, value(row)))
            .collect(),
    };
    let panel = |title, unit, lines| Panel {
        title,
        x: Axis {
            title: "cores",
            scale: Scale::Linear,
        },
        y: Axis {
            title: unit,
            scale: Scale::Linear,
        },
        lines,
    };
    Plot {
        title: "Logins a second, and processor time of a login, by cores",
        panels: vec![
            panel(
                "Logins, as many as there can be",
                "logins/s",
                vec![line("with the generator beside it", |row| row.per_second)],
            ),
            panel(
                "Processor time of a login",
                "ms",
                vec![line("remembered", |row| row.cpu_ms)],
            ),
        ],
    }
}
