//! The table for people, and the raw figures for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::arguments::Run;
use crate::column::{Column, Reading};
use crate::machine;
use crate::peer::Kind;

/// All readings.
pub struct Report {
    kinds: Vec<Kind>,
    columns: Vec<Column>,
    versions: BTreeMap<&'static str, String>,
    readings: Vec<(Column, Kind, Reading)>,
    settings: Value,
    /// What the generator and the sink do with nothing between them.
    pub generator: Value,
    /// The machine's load before it began.
    pub load_before: f64,
    /// How long it all took.
    pub seconds: f64,
}

/// What Gatepost may take at most, as a multiple of what another takes.
const DEMANDS: [(Column, Kind, f64); 7] = [
    (Column::Session, Kind::Floor, 1.3),
    (Column::Session, Kind::Nginx, 0.6),
    (Column::Message, Kind::Floor, 1.2),
    (Column::Message, Kind::NginxTuned, 1.0),
    (Column::Bulk, Kind::Floor, 1.1),
    (Column::Idle, Kind::Haproxy, 0.7),
    (Column::Wrong, Kind::Dovecot, 0.02),
];

impl Report {
    pub fn new(kinds: &[Kind], columns: &[Column], run: &Run) -> Report {
        Report {
            kinds: kinds.to_vec(),
            columns: columns.to_vec(),
            versions: BTreeMap::new(),
            readings: Vec::new(),
            settings: json!({
                "rounds": run.rounds,
                "scale_percent": run.scale,
                "starttls": run.way.starttls,
                "resumption": run.way.resumption,
            }),
            generator: Value::Null,
            load_before: 0.0,
            seconds: 0.0,
        }
    }

    pub fn note(&mut self, column: Column, kind: Kind, reading: Reading) {
        self.readings.push((column, kind, reading));
    }

    pub fn note_version(&mut self, kind: Kind, version: &str) {
        self.versions.insert(kind.name(), version.to_owned());
    }

    /// Prints the table and writes the raw figures.
    pub fn finish(&self, output: Option<&Path>) {
        println!("{}", self.table());
        println!("{}", self.ratios());
        println!("{}", self.demands());
        println!("{}", self.circumstances());
        let path = output.map_or_else(|| default_path(""), Path::to_owned);
        write(&path, &self.to_json());
    }

    fn of(&self, column: Column, kind: Kind) -> impl Iterator<Item = &Reading> {
        let readings = self.readings.iter();
        readings
            .filter(move |(a, b, _)| *a == column && *b == kind)
            .map(|(_, _, reading)| reading)
    }

    fn median(&self, column: Column, kind: Kind) -> Option<f64> {
        median(self.of(column, kind).map(|reading| reading.value))
    }

    /// How many times what `other` takes: the median of what it is in each round, where the two ran close to each other. The
    /// machine changes from round to round by more than that.
    fn ratio(&self, column: Column, kind: Kind, other: Kind) -> Option<f64> {
        let rounds = self.of(column, kind).zip(self.of(column, other));
        median(rounds.map(|(own, other)| own.value / other.value))
    }

    /// Medians. A star: the load generator was the limit. An exclamation mark: something went wrong.
    fn table(&self) -> String {
        self.lines("", |column, kind| {
            let value = self.median(column, kind)?;
            let limited = self.of(column, kind).any(|reading| reading.limited);
            let failed = self.of(column, kind).any(|reading| reading.failures > 0);
            let marks = [
                if limited { "*" } else { "" },
                if failed { "!" } else { "" },
            ];
            Some(format!("{}{}", digits(value), marks.concat()))
        })
    }

    fn ratios(&self) -> String {
        self.lines("times the floor", |column, kind| {
            let ratio = self.ratio(column, kind, Kind::Floor)?;
            Some(format!("{ratio:.2}"))
        })
    }

    fn lines(&self, corner: &str, cell: impl Fn(Column, Kind) -> Option<String>) -> String {
        let mut text = format!("| {corner} |");
        for column in &self.columns {
            let _ = write!(text, " {} |", column.title());
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(self.columns.len()));
        for &kind in &self.kinds {
            let _ = write!(text, "| {} |", kind.title());
            for &column in &self.columns {
                let cell = cell(column, kind).unwrap_or_else(|| "–".to_owned());
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    fn demands(&self) -> String {
        let mut text = String::new();
        for (column, kind, limit) in DEMANDS {
            if let Some(ratio) = self.ratio(column, Kind::Gatepost, kind) {
                let verdict = if ratio <= limit { "met" } else { "MISSED" };
                let (column, kind) = (column.title(), kind.title());
                let _ = writeln!(
                    text,
                    "{verdict}: {column}: {ratio:.3} x {kind}, wanted at most {limit}"
                );
            }
        }
        text
    }

    fn circumstances(&self) -> String {
        let machine = machine::describe();
        let text = |key: &str| machine[key].to_string().replace('"', "");
        let mut lines = format!(
            "{} cores of {}, Linux {}, {}; load before {:.2}; {:.0} s in all\n",
            text("cores"),
            text("processor"),
            text("kernel"),
            text("time"),
            self.load_before,
            self.seconds,
        );
        for (name, version) in &self.versions {
            let _ = writeln!(lines, "{name}: {version}");
        }
        let _ = writeln!(
            lines,
            "generator alone, without TLS: {:.0} sessions/s at {:.3} ms each",
            self.generator["sessions_per_second"]
                .as_f64()
                .unwrap_or(f64::NAN),
            self.generator["cpu_ms_per_session"]
                .as_f64()
                .unwrap_or(f64::NAN),
        );
        lines
    }

    fn to_json(&self) -> Value {
        let mut figures = serde_json::Map::new();
        for &kind in &self.kinds {
            let mut row = serde_json::Map::new();
            for &column in &self.columns {
                let rounds: Vec<Value> = self
                    .of(column, kind)
                    .map(|reading| {
                        json!({
                            "value": reading.value,
                            "generator_was_the_limit": reading.limited,
                            "failures": reading.failures,
                            "detail": reading.detail,
                        })
                    })
                    .collect();
                let median = self.median(column, kind);
                row.insert(
                    column.name(),
                    json!({ "unit": column.title(), "median": median, "rounds": rounds }),
                );
            }
            figures.insert(kind.name().to_owned(), row.into());
        }
        json!({
            "machine": machine::describe(),
            "generator_alone": self.generator,
            "load_before": self.load_before,
            "seconds": self.seconds,
            "settings": self.settings,
            "versions": self.versions,
            "figures": figures,
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some((values[middle] + values[values.len() / 2]) / 2.0)
}

/// A file below benches/results, named for the time.
pub fn default_path(suffix: &str) -> PathBuf {
    let time = gatepost::clock::now().strftime("%Y-%m-%dT%H%M%SZ");
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/results")
        .join(format!("{time}{suffix}.json"))
}

/// Writes raw figures, and says where.
pub fn write(path: &Path, value: &Value) {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).expect("a directory for the results");
    }
    let text = serde_json::to_string_pretty(value).expect("JSON");
    std::fs::write(path, text + "\n").expect("a file for the results");
    eprintln!("the raw figures are in {}", path.display());
}

fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
