//! Thousands of generated requests against the API's own description: no fault of the server's, and no answer that the
//! description does not have.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::Config;
use crate::support::upstream::Upstream;

/// Any would do; this one makes two runs the same.
const SEED: &str = "20260701";

/// How many requests there must be for the word to count.
const LEAST_REQUESTS: u32 = 2_000;

/// Where `tests/run` installs it.
fn schemathesis() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("schemathesis/bin/st");
    assert!(
        path.exists(),
        "{path:?} is missing: ./tests/run installs it"
    );
    path
}

#[test]
fn requests_find_no_fault_and_no_undocumented_answer() {
    let upstream = Upstream::start();
    let address = ports::free_address().to_string();
    let config = Config::for_upstream(upstream.address).text("admin", "listen", &address);
    let daemon = Gatepost::start(config);
    daemon.succeed(&["organization", "create", "acme"]);
    daemon.create();
    let create = [
        "token",
        "create",
        "--name",
        "t",
        "--scope",
        "instance:admin",
    ];
    let token = daemon.json(&create);
    let token = token["secret"].as_str().unwrap();

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/schemathesis.toml");
    let mut command = Command::new(schemathesis());
    command.current_dir(daemon.path("."));
    command.arg("--config-file").arg(config);
    command.args(["run", "--no-color", "--seed", SEED]);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    // A few wrong tokens, and everything after them is 429.
    command.args(["--exclude-checks", "ignored_auth"]);
    // It would find its own token in the list.
    command.args(["--exclude-operation-id", "revoke_token"]);
    command.arg(format!("http://{address}/api/v1/openapi.json"));
    let output = command.output().expect("run schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let generated = said.lines().find_map(|line| {
        let (count, _) = line.trim().split_once(" generated")?;
        count.replace(',', "").parse::<u32>().ok()
    });
    assert!(generated >= Some(LEAST_REQUESTS), "{said}");
}
