//! `gatepost import`: credentials from a Dovecot passwd-file, from CSV, or from an export.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::thread;

use clap::{Args, ValueEnum};

use super::CliError;
use super::output::{document, plain};
use super::progress::Progress;
use super::running::{Answer, Running};
use crate::auth::import::{self, Import, ImportError, Report};
use crate::auth::password::Cost;
use crate::store::{Actor, DEFAULT_ORGANIZATION, Store};

/// How many credentials one file may have: more would lock the store for too long.
const MOST: usize = 100_000;

/// What stands below `--help`.
pub const AFTER_HELP: &str = "\
Passwords may be {ARGON2ID}, {ARGON2I}, {BLF-CRYPT} ($2a$, $2b$, $2y$), {SHA512-CRYPT} ($6$), {SHA256-CRYPT} ($5$), {CRYPT} \
with one of these or yescrypt ($y$), {PBKDF2}, {SSHA512}, {SSHA256}, {SSHA} or {PLAIN}, also with .B64 or .HEX; without a \
scheme, a hash that begins with $. A hash stays as it is until the first login, which makes it argon2id; {PLAIN} is hashed \
at once. What can be taken is added in one transaction; the other lines are left, each with its reason.";

/// Which file, and where to.
#[derive(Args, Debug)]
pub struct ImportOptions {
    /// The file; - is standard input
    file: PathBuf,
    /// What the file is
    #[arg(long, value_enum)]
    format: Format,
    /// The organization they are to belong to
    #[arg(long, value_name = "SLUG", default_value = DEFAULT_ORGANIZATION)]
    org: String,
    /// Change nothing, and say what would be taken and what would be left
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Forms of files.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Comma-separated, the first line names the columns: username, password, name, expires
    Csv,
    /// A passwd-file of Dovecot's
    Dovecot,
    /// The document of `gatepost export --format json`
    Json,
}

impl From<Format> for import::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Dovecot => Self::Dovecot,
            Format::Json => Self::Json,
        }
    }
}

/// Imports a file and prints what became of its lines.
///
/// # Errors
/// The file cannot be read or is no such file, or the store refuses or fails; then nothing was imported.
pub fn run(
    options: &ImportOptions,
    store: &Store,
    cost: Cost,
    fold_case: bool,
    actor: &Actor,
    running: &Running,
) -> Result<(), CliError> {
    let name = options.file.display();
    let failed = |error: ImportError| match error {
        ImportError::File(detail) => {
            CliError::Refused(format!("{name}: {detail}; nothing was imported"))
        }
        ImportError::Hash(error) => CliError::Config(error.to_string()),
        ImportError::Io(error) => CliError::Io(format!("cannot read {name}: {error}")),
        ImportError::Store(error) => error.into(),
    };
    let import = Import {
        format: options.format.into(),
        organization: &options.org,
        dry_run: options.dry_run,
        fold_case,
        credentials: MOST,
        plain: MOST,
        workers: thread::available_parallelism().map_or(1, usize::from),
    };
    store.organization(&options.org)?; // before the file is opened
    let mut progress = Progress::begin("Importing");
    let input: Box<dyn BufRead> = match options.file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => {
            let opened = File::open(&options.file).map_err(|error| failed(error.into()))?;
            Box::new(BufReader::new(opened))
        }
    };
    let report = import.run(input, store, cost, actor, &|done, all| {
        progress.at(done, all)
    });
    progress.stop();
    let report = report.map_err(failed)?;
    let answer = Answer::from(match options.json {
        true => document(&report)?,
        false => told(&report),
    });
    match options.dry_run {
        true => answer.print(),
        false => answer.print_and_tell(running),
    }
}

fn told(report: &Report) -> String {
    let Report {
        organization,
        taken,
        left,
        repeated,
        ..
    } = report;
    let mut text = match report.dry_run {
        true => format!(
            "Would take {} credential(s) into organization {organization}, and change nothing now.",
            taken.len()
        ),
        false => format!(
            "Took {} credential(s) into organization {organization}.",
            taken.len()
        ),
    };
    let mut schemes: Vec<(&str, usize)> = Vec::new();
    for one in taken {
        match schemes.iter_mut().find(|(scheme, _)| *scheme == one.scheme) {
            Some((_, count)) => *count += 1,
            None => schemes.push((one.scheme, 1)),
        }
    }
    for (scheme, count) in schemes {
        text += &format!("\n  {count} {scheme}");
    }
    if !repeated.is_empty() {
        text += &format!("\n{} username(s) stand in several lines.", repeated.len());
    }
    if !left.is_empty() {
        text += &format!("\nLeft {} line(s):", left.len());
    }
    for one in left {
        let username = one.username.as_deref().map(plain);
        let username = username.map_or_else(String::new, |username| format!("{username}: "));
        text += &format!("\n  line {}: {username}{}", one.line, one.reason);
    }
    text
}
