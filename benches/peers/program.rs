//! The Gatepost that is measured.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Has this one measured, once and before anything is started, instead of the one that was built with the benches. That
/// one has what the tests want of its libraries besides.
pub fn choose(path: PathBuf) {
    CHOSEN.set(path).expect("only one is chosen");
}

/// Calls it.
pub fn command() -> Command {
    match CHOSEN.get() {
        Some(path) => Command::new(path),
        None => Command::new(env!("CARGO_BIN_EXE_gatepost")),
    }
}

/// What it says that it is.
pub fn version() -> String {
    let output = command().arg("--version").output().expect("gatepost runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
