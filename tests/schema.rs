//! The schema and every SQL statement in the documents, as Debian's own `sqlite3` takes them: an administrator has that one,
//! which is older than the library in Gatepost.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::site::{Config, Site};

/// The statements with which a new row appears in each table, every column that may be NULL left out.
const ROWS: &str = "
    INSERT INTO instance (only, tag_key) VALUES (1, zeroblob(32));
    INSERT INTO organizations (id, slug, created_at) VALUES ('o', 'default', 0);
    INSERT INTO credentials (id, username, organization, password_hash, created_at)
    VALUES ('c', 'smtp_0123456789abcdef', 1, '$hash', 0);
    INSERT INTO last_used (credential, at, address, mechanism, helo, count)
    VALUES (1, unixepoch() * 1000, '192.0.2.1', 'PLAIN', 'helo', 1);
    INSERT INTO usage VALUES (1, 1, 1, 1, 1, 1, 1, 1);
    INSERT INTO retired_passwords VALUES (1, 1, 1);
    INSERT INTO previous_used VALUES (1, 1, '192.0.2.1', 1);
    INSERT INTO current_used VALUES (1, 1, '192.0.2.1', 1);
    INSERT INTO kept_overlaps VALUES (1, 1);
    INSERT INTO refusals (username, reason, address, first_at, at, count) VALUES ('u', 'wrong', '192.0.2.1', 1, 1, 1);
    INSERT INTO breaches VALUES (1, 'messages_day', 'credential', 'refused', 1, 1, 1);
    INSERT INTO penalties (network, score, at, bans) VALUES ('192.0.2.1/32', 1.0, 1, 0);
    INSERT INTO trusted_networks VALUES (1, '192.0.2.0/24', 1);
    INSERT INTO admin_tokens (id, name, hash, access, created_at) VALUES ('t', 'n', zeroblob(32), 'read', 0);
    INSERT INTO idempotency_keys (actor, key, made, at) VALUES ('a', 'k', 'o', 0);
    INSERT INTO audit_log (seq, at, actor_kind, actor, action, object, hash)
    VALUES (1, 0, 'cli', 'root', 'x', 'y', zeroblob(32));
    UPDATE organizations SET limits = '{\"messages_day\": 100}', status = 'suspended';
    UPDATE credentials SET rules = '{\"senders\": [\"example.org\"]}', limits = '{}', status = 'revoked';
    UPDATE organizations SET limits = NULL;
    UPDATE credentials SET rules = NULL, limits = NULL;
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `sql` in Debian's shell, which stops at the first error.
fn sqlite3(database: &Path, sql: &str) -> Output {
    let mut command = Command::new("sqlite3");
    let command = command.args(["-bail", "-cmd", ".timeout 5000"]);
    let command = command.arg(database).stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().expect("run sqlite3");
    let mut input = shell.stdin.take().expect("a pipe");
    input.write_all(sql.as_bytes()).expect("write to sqlite3");
    drop(input);
    shell.wait_with_output().expect("wait for sqlite3")
}

#[track_caller]
fn taken(database: &Path, sql: &str) -> String {
    let output = sqlite3(database, sql);
    assert!(output.status.success(), "{sql}\n{output:?}");
    assert!(output.stderr.is_empty(), "{sql}\n{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The documents of the project, wherever they are.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The SQL in a document: blocks marked `sql`, and code inside a line that begins with a verb of SQL.
fn statements(document: &str) -> Vec<String> {
    const VERBS: [&str; 6] = [
        "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "PRAGMA ", "WITH ",
    ];
    let mut found = Vec::new();
    for (number, part) in document.split("```").enumerate() {
        if number % 2 == 1 {
            found.extend(part.strip_prefix("sql\n").map(str::to_owned));
            continue;
        }
        let spans = part.split('`').skip(1).step_by(2);
        let spans = spans.filter(|span| VERBS.iter().any(|verb| span.starts_with(verb)));
        found.extend(spans.map(str::to_owned));
    }
    found
}

#[test]
fn statements_are_found_in_blocks_and_in_lines() {
    let document =
        "Say `SELECT 1`, not `sqlite3`.\n```sql\nUPDATE x;\n```\n```sh\nls\n```\n`DELETE FROM y`";
    assert_eq!(
        statements(document),
        ["SELECT 1", "UPDATE x;\n", "DELETE FROM y"]
    );
}

#[test]
fn debians_sqlite3_makes_a_store_of_the_schema_and_rows_in_every_table() {
    let directory = tempfile::tempdir().expect("tempdir");
    let database = directory.path().join("t.db");
    let schema = fs::read_to_string(root().join("schema.sql")).expect("the schema");
    taken(&database, &schema);
    taken(&database, ROWS);
    let empty = taken(
        &database,
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
    );
    for table in empty
        .lines()
        .filter(|table| !table.starts_with("sqlite_stat"))
    {
        let rows = taken(&database, &format!("SELECT count(*) > 0 FROM {table}"));
        assert_eq!(
            rows.trim(),
            "1",
            "ROWS has no statement for the table {table}"
        );
    }
    for refused in [
        "UPDATE organizations SET limits = 'no JSON'",
        "UPDATE credentials SET rules = '{'",
        "DELETE FROM audit_log",
    ] {
        let output = sqlite3(&database, refused);
        assert!(!output.status.success(), "{refused}: {output:?}");
    }
    assert_eq!(taken(&database, "PRAGMA foreign_key_check"), "");
}

#[test]
fn debians_sqlite3_takes_every_statement_of_the_documents() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    site.create();
    let documents = documents();
    assert!(documents.iter().any(|path| path.ends_with("README.md")));
    let mut tried = 0;
    for document in documents {
        let text = fs::read_to_string(&document).expect("a document");
        for statement in statements(&text) {
            taken(&site.store(), &statement);
            tried += 1;
        }
    }
    assert!(tried > 0, "no document shows a statement");
    site.succeed(&["store", "check"]);
}
