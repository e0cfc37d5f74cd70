//! `gatepost --version` names the source that the program is built from.

use std::path::Path;
use std::process::Command;

/// What `program` prints in `directory`.
fn output(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_version_names_commit_and_date() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = output(project, env!("CARGO_BIN_EXE_gatepost"), &["--version"]);
    let expected = concat!("gatepost ", env!("PROGRAM_VERSION"), "\n");
    assert_eq!(version, expected);
    if !project.join(".git").exists() {
        return assert!(version.contains("(unknown commit"), "{version}");
    }
    let (_, build) = version.split_once("(commit ").expect("a commit");
    let date = output(project, "git", &["log", "-1", "--format=%cs", &build[..12]]);
    assert!(
        version.ends_with(&format!(", {})\n", date.trim())),
        "{version}, {date}"
    );
}

/// Compiles the build script, and runs it where there is a repository and where there is none.
#[test]
fn a_build_names_its_commit_or_says_that_it_is_unknown() {
    let directory = tempfile::tempdir().expect("tempdir");
    let here = directory.path();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
    let compiled = Command::new("rustc")
        .args(["--edition=2024", "-o", "script", script])
        .env("CARGO_PKG_VERSION", "1.2.3")
        .current_dir(here)
        .status();
    assert!(compiled.expect("run rustc").success());
    let program = here.join("script");
    let build = |program: &str, arguments: &[&str]| {
        let lines = output(here, program, arguments);
        let version = lines
            .lines()
            .find_map(|line| line.strip_prefix("cargo::rustc-env=PROGRAM_VERSION="));
        version.expect("a version").to_owned()
    };
    let script = program.to_str().expect("UTF-8");
    let with_date = ["SOURCE_DATE_EPOCH=86400", script];

    assert_eq!(build(script, &[]), "1.2.3 (unknown commit)");
    let version = build("env", &with_date);
    assert_eq!(version, "1.2.3 (unknown commit, 1970-01-02)");

    let git = |arguments: &[&str]| output(here, "git", arguments);
    git(&["init", "-q"]);
    std::fs::write(here.join("Cargo.toml"), "").expect("write");
    git(&["add", "Cargo.toml"]);
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b.test"];
    git(&[&identity[..], &["commit", "-qm", "begin"]].concat());
    let head = git(&["rev-parse", "HEAD"]);
    let date = git(&["log", "-1", "--format=%cs"]);
    let (commit, date) = (&head[..12], date.trim());
    assert_eq!(
        build(script, &[]),
        format!("1.2.3 (commit {commit}, {date})")
    );
    let version = build("env", &with_date);
    assert_eq!(version, format!("1.2.3 (commit {commit}, 1970-01-02)"));

    std::fs::write(here.join("Cargo.toml"), "changed").expect("write");
    let changed = format!("1.2.3 (commit {commit} with local changes, {date})");
    assert_eq!(build(script, &[]), changed);

    let below = here.join("below");
    std::fs::create_dir(&below).expect("create a directory");
    let lines = output(&below, script, &[]);
    assert!(lines.contains("PROGRAM_BUILD=unknown commit\n"), "{lines}");
}
