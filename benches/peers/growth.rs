//! What becomes of cost, memory and time where there are more credentials, sessions, cores and logins: tables and plots.

mod cores;
mod credentials;
mod filled;
mod finding;
mod rates;
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use self::finding::Finding;
use crate::arguments::{Growth, Way};
use crate::site::Site;
use crate::{machine, program, readme, report};

/// Nobody is exempt: what the guard does and remembers is in the figures.
const GUARD: &str = "[guard]\nexempt = []\n";

/// Sessions secured from the first byte, by a full handshake each.
const WAY: Way = Way {
    starttls: false,
    resumption: false,
};

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Credentials,
    Sessions,
    Cores,
    Rates,
}

impl Part {
    fn name(self) -> String {
        let value = self.to_possible_value().expect("no part is hidden");
        value.get_name().to_owned()
    }

    fn measure(self, site: &Site, scale: u64) -> Finding {
        match self {
            Part::Credentials => credentials::measure(site, scale),
            Part::Sessions => sessions::measure(site, scale),
            Part::Cores => cores::measure(site, scale),
            Part::Rates => rates::measure(site, scale),
        }
    }
}

/// Measures, prints, draws and writes. Whether nothing went wrong.
pub fn run(growth: &Growth) -> bool {
    let output = growth.output.clone();
    let output = output.unwrap_or_else(|| report::default_path("-growth"));
    let site = Site::new();
    let load_before = machine::load();
    let mut parts = serde_json::Map::new();
    let mut failures = 0;
    for &part in Part::value_variants() {
        if !growth.parts.is_empty() && !growth.parts.contains(&part) {
            continue;
        }
        let began = Instant::now();
        let finding = part.measure(&site, growth.scale);
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} took {seconds:.0} s", part.name());
        show(part, &finding, growth, &output);
        if let Some(verdict) = &finding.verdict {
            println!("{verdict}\n");
        }
        failures += finding.failures;
        let part_json =
            json!({ "seconds": seconds, "failures": finding.failures, "rows": finding.raw });
        parts.insert(part.name(), part_json);
    }
    report::write(
        &output,
        &json!({
            "machine": machine::describe(),
            "version": program::version(),
            "load_before": load_before,
            "scale_percent": growth.scale,
            "parts": Value::Object(parts),
        }),
    );
    if failures > 0 {
        println!("MISSED: {failures} sessions or messages went wrong");
    }
    failures == 0
}

fn show(part: Part, finding: &Finding, growth: &Growth, output: &Path) {
    let name = part.name();
    println!("{}", finding.table);
    let path = if growth.readme {
        let plot = format!("plots/{name}.svg");
        let picture = format!("![{}]({plot})", finding.plot.title);
        let circumstances = machine::in_words();
        let text = format!("{circumstances}\n\n{}\n{picture}\n", finding.table);
        readme::put(&format!("growth: {name}"), &text);
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("benches")
            .join(plot)
    } else {
        let stem = output.file_stem().unwrap_or_default().to_string_lossy();
        output.with_file_name(format!("{stem}-{name}.svg"))
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).expect("a directory for the plots");
    }
    fs::write(&path, finding.plot.to_svg()).expect("a file for the plot");
    eprintln!("its plot is {}", path.display());
}
