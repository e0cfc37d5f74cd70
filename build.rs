//! Names the source of the program for `gatepost --version`: its commit and date, from git. The
//! build's own time is never read, so that the same source makes the same program.

use std::path::Path;
use std::process::Command;

fn main() {
    for path in ["build.rs", "Cargo.lock", "Cargo.toml", "src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let mut build = commit().unwrap_or_else(|| "unknown commit".to_owned());
    if let Some(date) = date() {
        build.push_str(&format!(", {date}"));
    }
    let version = env!("CARGO_PKG_VERSION");
    // cargo hands these to the tests as well, where a name with GATEPOST_ would be a setting.
    println!("cargo::rustc-env=PROGRAM_BUILD={build}");
    println!("cargo::rustc-env=PROGRAM_VERSION={version} ({build})");
}

fn commit() -> Option<String> {
    // Every commit and checkout adds a line to this file.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let source = ["build.rs", "Cargo.lock", "Cargo.toml", "src"];
    let status = [&["status", "--porcelain", "--"], &source[..]].concat();
    Some(match git(&status)?.is_empty() {
        true => format!("commit {commit}"),
        false => format!("commit {commit} with local changes"),
    })
}

/// The date that the packager sets, else that of the commit.
#[expect(clippy::disallowed_methods, reason = "no setting of the program")]
fn date() -> Option<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => output("date", &["-u", "-d", &format!("@{seconds}"), "+%F"]),
        Err(_) => git(&["log", "-1", "--format=%cs"]),
    }
}

/// Asks git about this directory's own repository: one of a directory above holds other sources.
fn git(arguments: &[&str]) -> Option<String> {
    Path::new(".git")
        .exists()
        .then(|| output("git", arguments))?
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
