//! axe-core, which looks at a page as somebody would who cannot see it.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::browser::{Browser, target};

/// Where `tests/run` installs it.
static AXE: LazyLock<String> = LazyLock::new(|| {
    let path = target().join("axe/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path:?}: {error}: ./tests/run installs it"))
});

/// Without what it would load by itself: the page's policy forbids that, and its styles are its own.
const RUN: &str = "const done = arguments[arguments.length - 1];
    axe.run(document, { preload: false, resultTypes: ['violations'] }).then(
        found => done({ violations: found.violations.map(one => ({
            rule: one.id, impact: one.impact, help: one.help,
            nodes: one.nodes.map(node => `${node.html} ${node.failureSummary}`),
        })) }),
        error => done({ error: String(error) }))";

/// What axe finds wrong with the page, each with `rule`, `impact`, `help` and `nodes`.
#[track_caller]
pub fn findings(browser: &Browser) -> Vec<Value> {
    if browser.run("return typeof axe", json!([])) == "undefined" {
        browser.run(&AXE, json!([]));
    }
    let found = browser.run_async(RUN, json!([]));
    let violations = found["violations"].as_array();
    violations.unwrap_or_else(|| panic!("axe: {found}")).clone()
}

/// What would keep somebody from using the page. What may merely annoy is printed.
#[track_caller]
pub fn bars(browser: &Browser) -> Vec<Value> {
    let barring = ["serious", "critical"].map(Value::from);
    let (bars, minor): (Vec<_>, Vec<_>) = findings(browser)
        .into_iter()
        .partition(|one| barring.contains(&one["impact"]));
    for one in minor {
        eprintln!("{}: {one:#}", browser.url());
    }
    bars
}
