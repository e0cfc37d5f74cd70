//! `gatepost import`: credentials from a Dovecot passwd-file or from CSV.
//!
//! The file is read and judged line by line, then all that can be taken is added in one transaction. Hashes are kept as they
//! are; passwords in the clear are hashed here, before the store is locked.

mod csv;
mod line;
mod passwd;
mod record;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::thread;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::csv::Columns;
use self::line::{Line, Lines};
use self::record::{Offered, Read, Record};
use super::CliError;
use super::output::{document, plain};
use super::running::{Answer, Running};
use crate::auth::password::{self, Cost};
use crate::store::{Actor, DEFAULT_ORGANIZATION, Imported, Store, check_name, check_username};

/// How many credentials one file may have: more would lock the store for too long.
const MOST: usize = 100_000;

/// What stands below `--help`.
pub const AFTER_HELP: &str = "\
Passwords may be {ARGON2ID}, {ARGON2I}, {BLF-CRYPT} ($2a$, $2b$, $2y$), {SHA512-CRYPT} ($6$) or {PLAIN}; without a scheme, \
one of these hashes. A hash stays as it is until the first login, which makes it argon2id; {PLAIN} is hashed at once. \
What can be taken is added in one transaction; the other lines are left, each with its reason.";

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
}

/// What became of a file.
#[derive(Serialize)]
struct Report {
    organization: String,
    dry_run: bool,
    taken: Vec<Taken>,
    left: Vec<Left>,
}

#[derive(Serialize)]
struct Taken {
    line: usize,
    username: String,
    /// How its password was hashed.
    scheme: &'static str,
}

#[derive(Serialize)]
struct Left {
    line: usize,
    username: Option<String>,
    reason: String,
}

/// Imports a file and prints what became of its lines.
///
/// # Errors
/// The file cannot be read or is no such file, or the store refuses or fails; then nothing was imported.
pub fn run(
    options: &ImportOptions,
    store: &Store,
    cost: Cost,
    actor: &Actor,
    running: &Running,
) -> Result<(), CliError> {
    store.organization(&options.org)?; // before anything is hashed for it
    let mut left = Vec::new();
    let name = options.file.display();
    let unreadable = |error: io::Error| CliError::Io(format!("cannot read {name}: {error}"));
    let input: Box<dyn BufRead> = match options.file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(
            File::open(&options.file).map_err(unreadable)?,
        )),
    };
    let mut records = read(options.format, input, &mut left).map_err(|failure| match failure {
        Failure::Io(error) => unreadable(error),
        Failure::File(detail) => {
            CliError::Refused(format!("{name}: {detail}; nothing was imported"))
        }
    })?;
    leave_what_is_taken(store, &mut records, &mut left)?;
    let added = match options.dry_run {
        true => vec![true; records.len()],
        false => add(store, cost, actor, &options.org, &records)?,
    };
    let mut taken = Vec::new();
    for ((line, record), added) in records.iter().zip(added) {
        match added {
            true => taken.push(Taken {
                line: *line,
                username: record.username.clone(),
                scheme: record.password.scheme(),
            }),
            false => left.push(is_taken(*line, record)),
        }
    }
    left.sort_by_key(|left| left.line);
    let report = Report {
        organization: options.org.clone(),
        dry_run: options.dry_run,
        taken,
        left,
    };
    let answer = Answer::from(match options.json {
        true => document(&report)?,
        false => told(&report),
    });
    match options.dry_run {
        true => answer.print(),
        false => answer.print_and_tell(running),
    }
}

enum Failure {
    Io(io::Error),
    File(String),
}

/// Reads all that can be taken, with the number of its line.
fn read(
    format: Format,
    input: impl BufRead,
    left: &mut Vec<Left>,
) -> Result<Vec<(usize, Record)>, Failure> {
    let mut lines = Lines::new(input);
    let mut columns = None;
    let mut records: Vec<(usize, Record)> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    while let Some((number, line)) = lines.next().map_err(Failure::Io)? {
        let mut leave = |username: Option<String>, reason: String| {
            left.push(Left {
                line: number,
                username: username.as_deref().map(plain),
                reason,
            });
        };
        let Line::Text(secret) = line else {
            leave(None, "it is longer than any credential".to_owned());
            continue;
        };
        let Ok(text) = str::from_utf8(secret.expose()) else {
            leave(None, "it is not UTF-8".to_owned());
            continue;
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = match number {
            1 => text.strip_prefix('\u{feff}').unwrap_or(text),
            _ => text,
        };
        let found = match (format, &columns) {
            (Format::Dovecot, _) => passwd::read(text),
            (Format::Csv, None) => {
                let at = |detail| Failure::File(format!("line {number}: {detail}"));
                columns = Some(Columns::read(text).map_err(at)?);
                None
            }
            (Format::Csv, Some(columns)) => columns.record(text).map_err(|csv::Unclosed| {
                Failure::File(format!(
                    "line {number}: a quote is not closed within its line"
                ))
            })?,
        };
        match found.map(|read| read.and_then(|record| allowed(record, &seen))) {
            None => {}
            Some(Err((username, reason))) => leave(username, reason),
            Some(Ok(_)) if records.len() == MOST => {
                return Err(Failure::File(format!(
                    "it has more than {MOST} credentials; divide it"
                )));
            }
            Some(Ok(record)) => {
                seen.insert(record.username.clone(), number);
                records.push((number, record));
            }
        }
    }
    if format == Format::Csv && columns.is_none() {
        return Err(Failure::File(
            "it is empty; the first line names the columns".to_owned(),
        ));
    }
    Ok(records)
}

/// Whether it may be stored beside those before it.
fn allowed(record: Record, seen: &HashMap<String, usize>) -> Read {
    let wrong = |reason: String, username: String| Err((Some(username), reason));
    if let Some(line) = seen.get(&record.username) {
        let reason = format!("line {line} has the same username");
        return wrong(reason, record.username);
    }
    if let Err(error) = check_username(&record.username) {
        return wrong(error.to_string(), record.username);
    }
    match check_name(record.name.as_deref()) {
        Err(error) => wrong(error.to_string(), record.username),
        Ok(()) => Ok(record),
    }
}

fn is_taken(line: usize, record: &Record) -> Left {
    Left {
        line,
        username: Some(record.username.clone()),
        reason: "there is a credential with this username".to_owned(),
    }
}

/// Puts aside those whose usernames credentials have, before time is spent on them.
fn leave_what_is_taken(
    store: &Store,
    records: &mut Vec<(usize, Record)>,
    left: &mut Vec<Left>,
) -> Result<(), CliError> {
    let names = records.iter().map(|(_, record)| record.username.clone());
    let free = store.unknown_among(names.collect())?;
    let mut free = free.into_iter().peekable(); // in the same order
    records.retain(|(line, record)| {
        let is_free = free.next_if(|name| *name == record.username).is_some();
        if !is_free {
            left.push(is_taken(*line, record));
        }
        is_free
    });
    Ok(())
}

/// Adds them all in one transaction; says of each whether it was added.
fn add(
    store: &Store,
    cost: Cost,
    actor: &Actor,
    organization: &str,
    records: &[(usize, Record)],
) -> Result<Vec<bool>, CliError> {
    let hashes = hashes(records, cost)?;
    let rows = records
        .iter()
        .zip(&hashes)
        .map(|((_, record), hash)| Imported {
            username: &record.username,
            password_hash: hash,
            name: record.name.as_deref(),
            expires_at: record.expires_at,
        });
    Ok(store.by(actor).import(organization, rows)?)
}

/// The hash of each, made by all cores where it has none yet.
fn hashes(records: &[(usize, Record)], cost: Cost) -> Result<Vec<String>, CliError> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = records.len().div_ceil(workers).max(1);
    let parts: Vec<Result<Vec<String>, CliError>> = thread::scope(|scope| {
        let working: Vec<_> = records
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(|(_, own)| hash(own, cost)).collect()))
            .collect();
        let panicked = |_| Err(CliError::Io("hashing passwords panicked".to_owned()));
        let done = working.into_iter();
        done.map(|worker| worker.join().unwrap_or_else(panicked))
            .collect()
    });
    let mut all = Vec::with_capacity(records.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

fn hash(record: &Record, cost: Cost) -> Result<String, CliError> {
    match &record.password {
        Offered::Hashed(_, hash) => Ok(hash.clone()),
        Offered::Plain(secret) => {
            password::hash(secret, cost).map_err(|error| CliError::Config(error.to_string()))
        }
    }
}

fn told(report: &Report) -> String {
    let Report {
        organization,
        taken,
        left,
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
