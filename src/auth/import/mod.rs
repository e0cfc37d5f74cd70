//! Imports credentials from a Dovecot passwd-file, from CSV, or from Gatepost's own export.
//!
//! Reads and checks the file line by line, then adds all valid credentials in one transaction.
//! Hashes stay as they are; plain passwords are hashed before the store is locked.

mod csv;
mod json;
mod line;
mod passwd;
mod record;
mod report;
mod time;

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use thiserror::Error;

use super::issue;
use super::password::{self, Cost, HashError};
use crate::store::{Actor, Imported, Store, StoreError, check_name, check_username};

use self::csv::Columns;
use self::line::{Line, Lines};
use self::record::{Offered, Read, Record};
use self::report::Repetitions;

pub(crate) use self::csv::COLUMNS;
pub(crate) use self::report::{Left, Report, Taken};
pub(crate) use self::time::{Expiry, expiry, time};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Comma-separated; the first line has the column names.
    Csv,
    /// A passwd-file of Dovecot's.
    Dovecot,
    /// The document of `gatepost export --format json`.
    Json,
}

/// The options of an import.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Import<'a> {
    pub(crate) format: Format,
    /// The slug of the organization that gets the credentials.
    pub(crate) organization: &'a str,
    /// Report only.
    pub(crate) dry_run: bool,
    /// Whether usernames are stored in lower case.
    pub(crate) fold_case: bool,
    /// The most credentials per file: more would lock the store for too long.
    pub(crate) credentials: usize,
    /// The most plain passwords, which cost an argon2 each.
    pub(crate) plain: usize,
    /// Threads for plain passwords.
    pub(crate) workers: usize,
}

/// The reason for importing nothing.
#[derive(Debug, Error)]
pub(crate) enum ImportError {
    /// The file is malformed.
    #[error("{0}")]
    File(String),
    /// The configured cost cannot be paid.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A valid credential and its line number.
struct Found {
    line: usize,
    record: Record,
}

impl Import<'_> {
    /// Calls `progress` with the number of passwords hashed and to hash.
    ///
    /// # Errors
    /// As [`ImportError`]; nothing is imported then.
    pub(crate) fn run(
        &self,
        input: impl BufRead,
        store: &Store,
        cost: Cost,
        actor: &Actor,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Report, ImportError> {
        store.organization(self.organization)?; // before anything is hashed for it
        let mut report = Report {
            organization: self.organization.to_owned(),
            dry_run: self.dry_run,
            taken: Vec::new(),
            left: Vec::new(),
            repeated: Vec::new(),
        };
        let mut found = self.read(input, &mut report)?;
        leave_known(store, &mut found, &mut report.left)?;
        let plain = found.iter().filter(|one| one.record.is_plain()).count();
        if plain > self.plain {
            return Err(ImportError::File(format!(
                "it has more than {} passwords in the clear, each of which takes time to hash; divide it",
                self.plain
            )));
        }
        progress(0, plain);
        let added = match self.dry_run {
            true => vec![true; found.len()],
            false => self.add(store, cost, actor, &found, &|done| progress(done, plain))?,
        };
        for (one, added) in found.into_iter().zip(added) {
            match added {
                true => report.taken.push(Taken {
                    line: one.line,
                    scheme: one.record.password.scheme(),
                    username: one.record.username,
                }),
                false => report.left.push(is_known(one.line, one.record.username)),
            }
        }
        report.left.sort_by_key(|left| left.line);
        Ok(report)
    }

    /// Reads the valid credentials.
    fn read(&self, input: impl BufRead, report: &mut Report) -> Result<Vec<Found>, ImportError> {
        let mut reading = Reading {
            import: self,
            report,
            found: Vec::new(),
            repetitions: Repetitions::default(),
        };
        match self.format {
            Format::Csv => reading.csv(input)?,
            Format::Dovecot => reading.dovecot(input)?,
            Format::Json => reading.json(input)?,
        }
        let Reading {
            found, repetitions, ..
        } = reading;
        repetitions.tell(report);
        Ok(found)
    }

    /// Adds the credentials in one transaction. Returns for each whether it was added.
    fn add(
        &self,
        store: &Store,
        cost: Cost,
        actor: &Actor,
        found: &[Found],
        hashed: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<bool>, ImportError> {
        let hashes = hashes(found, cost, self.workers, hashed)?;
        let rows = found
            .iter()
            .zip(&hashes)
            .map(|(Found { record, .. }, hash)| Imported {
                username: &record.username,
                password_hash: hash,
                name: record.name.as_deref(),
                expires_at: record.expires_at,
            });
        Ok(store.by(actor).import(self.organization, rows)?)
    }
}

/// The state of reading a file.
struct Reading<'a> {
    import: &'a Import<'a>,
    report: &'a mut Report,
    found: Vec<Found>,
    repetitions: Repetitions,
}

impl Reading<'_> {
    fn dovecot(&mut self, input: impl BufRead) -> Result<(), ImportError> {
        let mut lines = Lines::new(input);
        while let Some((number, line)) = lines.next()? {
            self.line(number, line, |text| Ok(passwd::read(text)))?;
        }
        Ok(())
    }

    fn csv(&mut self, input: impl BufRead) -> Result<(), ImportError> {
        let mut lines = Lines::new(input);
        let mut columns = None;
        while let Some((number, line)) = lines.next()? {
            let at = |detail: &str| ImportError::File(format!("line {number}: {detail}"));
            let Some(columns) = &columns else {
                if matches!(line, Line::TooLong) {
                    return Err(at("it is too long for the line that names the columns"));
                }
                let mut read = None;
                self.line(number, line, |text| {
                    read = Some(Columns::read(text).map_err(|detail| at(&detail))?);
                    Ok(None)
                })?;
                columns = Some(read.ok_or_else(|| at("it is not UTF-8; it names the columns"))?);
                continue;
            };
            let organization = self.import.organization;
            self.line(number, line, |text| {
                let unclosed = |csv::Unclosed| at("a quote is not closed within its line");
                columns.record(text, organization).map_err(unclosed)
            })?;
        }
        match columns {
            Some(_) => Ok(()),
            None => Err(ImportError::File(
                "it is empty; the first line names the columns".to_owned(),
            )),
        }
    }

    fn json(&mut self, input: impl BufRead) -> Result<(), ImportError> {
        let records = json::read(input, self.import.organization)?;
        for (number, read) in (1..).zip(records) {
            self.note(number, read)?;
        }
        Ok(())
    }

    /// Reads one line, and adds the result to the report.
    fn line(
        &mut self,
        number: usize,
        line: Line,
        read: impl FnOnce(&str) -> Result<Option<Read>, ImportError>,
    ) -> Result<(), ImportError> {
        let Line::Text(secret) = line else {
            self.leave(number, None, "it is longer than any credential".to_owned());
            return Ok(());
        };
        let octets = secret.expose();
        if number == 1 && is_utf_16(octets) {
            return Err(ImportError::File(
                "it is UTF-16: save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8"
                    .to_owned(),
            ));
        }
        let Ok(text) = str::from_utf8(octets) else {
            let reason = "it is not UTF-8: save the file as UTF-8, for example with iconv";
            self.leave(number, None, reason.to_owned());
            return Ok(());
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = match number {
            1 => text.strip_prefix('\u{feff}').unwrap_or(text),
            _ => text,
        };
        match read(text)? {
            Some(read) => self.note(number, read),
            None => Ok(()),
        }
    }

    fn leave(&mut self, line: usize, username: Option<String>, reason: String) {
        self.report.left.push(Left::new(line, username, reason));
    }

    fn note(&mut self, line: usize, read: Read) -> Result<(), ImportError> {
        let read = read.and_then(allowed);
        let username = match &read {
            Ok(record) => Some(record.username.as_str()),
            Err((username, _)) => username.as_deref(),
        };
        let stored = username.map(|username| match self.import.fold_case {
            true => issue::folded(username).into_owned(),
            false => username.to_owned(),
        });
        let is_first = match (&stored, username) {
            (Some(stored), Some(username)) => {
                self.repetitions.add(stored, username, line, read.is_ok())
            }
            _ => true,
        };
        match read {
            Err((username, reason)) => self.leave(line, username, reason),
            Ok(_) if !is_first => {}
            Ok(_) if self.found.len() == self.import.credentials => {
                return Err(ImportError::File(format!(
                    "it has more than {} credentials; divide it",
                    self.import.credentials
                )));
            }
            Ok(record) => self.found.push(Found {
                line,
                record: Record {
                    username: stored.unwrap_or_default(),
                    ..record
                },
            }),
        }
        Ok(())
    }
}

/// Detects UTF-16 by the byte order mark, or by NULs between ASCII letters.
fn is_utf_16(octets: &[u8]) -> bool {
    octets.starts_with(b"\xff\xfe") || octets.starts_with(b"\xfe\xff") || octets.contains(&0)
}

/// Rejects a record that the store would reject.
fn allowed(record: Record) -> Read {
    let wrong = |error: StoreError, username: String| Err((Some(username), error.to_string()));
    if let Err(error) = check_username(&record.username) {
        return wrong(error, record.username);
    }
    match check_name(record.name.as_deref()) {
        Err(error) => wrong(error, record.username),
        Ok(()) => Ok(record),
    }
}

fn is_known(line: usize, username: String) -> Left {
    let reason = "there is a credential with this username";
    Left::new(line, Some(username), reason.to_owned())
}

/// Removes credentials that exist, before the cost of hashing.
fn leave_known(
    store: &Store,
    found: &mut Vec<Found>,
    left: &mut Vec<Left>,
) -> Result<(), StoreError> {
    let names = found.iter().map(|one| one.record.username.clone());
    let free = store.unknown_among(names.collect())?;
    let mut free = free.into_iter().peekable(); // in the same order
    found.retain(|one| {
        let username = &one.record.username;
        let is_free = free.next_if(|name| name == username).is_some();
        if !is_free {
            left.push(is_known(one.line, username.clone()));
        }
        is_free
    });
    Ok(())
}

/// The hash of each credential. Passes the number of finished plain passwords to `hashed`.
fn hashes(
    found: &[Found],
    cost: Cost,
    workers: usize,
    hashed: &(dyn Fn(usize) + Sync),
) -> Result<Vec<String>, ImportError> {
    let share = found.len().div_ceil(workers.max(1)).max(1);
    let done = AtomicUsize::new(0);
    let hash = |one: &Found| match &one.record.password {
        Offered::Hashed(_, hash) => Ok(hash.clone()),
        Offered::Plain(secret) => {
            let hash = password::hash(secret, cost)?;
            hashed(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(hash)
        }
    };
    let parts: Vec<Result<Vec<String>, ImportError>> = thread::scope(|scope| {
        let working: Vec<_> = found
            .chunks(share)
            .map(|part| {
                scope.spawn(|| {
                    // Logins come before imports; on Linux this is the thread's own priority.
                    let _ = rustix::process::setpriority_process(None, 10);
                    part.iter().map(hash).collect()
                })
            })
            .collect();
        let panicked = |_| Err(io::Error::other("hashing passwords panicked").into());
        let finished = working.into_iter();
        finished
            .map(|worker| worker.join().unwrap_or_else(panicked))
            .collect()
    });
    let mut all = Vec::with_capacity(found.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}
