//! `gatepost export`: credentials as CSV or JSON, for spreadsheets, programs and `gatepost import`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::CliError;
use super::output::print;
use super::progress::Progress;
use crate::auth::export::{csv_header, csv_line, json_object};
use crate::store::{Actor, Credential, CredentialFilter, Page, Store};

/// How many credentials are read at a time.
const PAGE: u32 = 1_000;

/// What stands below `--help`.
pub const AFTER_HELP: &str = "\
Text that a spreadsheet would compute (it begins with =, +, -, @, ' or a tab) gets an apostrophe in front in CSV; \
gatepost import takes it away. Limits, rules, usage and the password before a rotation are not exported: that is \
what `gatepost backup` is for.";

/// What to export, and how.
#[derive(Args, Debug)]
pub struct ExportOptions {
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Only credentials of this organization
    #[arg(long, value_name = "SLUG")]
    org: Option<String>,
    /// Write to this new file, which only its owner can read, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With the hashes of the passwords, which whoever has the file can guess at
    #[arg(long, requires = "output")]
    with_hashes: bool,
}

/// Forms of exports.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Comma-separated; the first line names the columns
    Csv,
    /// One list of objects
    Json,
}

/// Writes the credentials.
///
/// # Errors
/// The organization is unknown, the store cannot be read, or the file exists or cannot be written;
/// then no file is left.
pub fn run(options: &ExportOptions, store: &Store, actor: &Actor) -> Result<(), CliError> {
    if let Some(slug) = &options.org {
        store.organization(slug)?;
    }
    let Some(path) = &options.output else {
        let mut output = BufWriter::new(io::stdout().lock());
        let failed = |error| CliError::Io(format!("cannot write to standard output: {error}"));
        write(options, store, &mut output, &failed)?;
        return output.flush().map_err(failed);
    };
    let name = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => CliError::Refused(format!(
            "{name} already exists: an export is never written over; choose another name"
        )),
        _ => CliError::Io(format!("cannot write {name}: {error}")),
    };
    let mut new = fs::OpenOptions::new();
    let file = new.write(true).create_new(true).mode(0o600).open(path);
    let written = write_file(options, store, file.map_err(failed)?, &failed);
    let count = written.and_then(|count| {
        if options.with_hashes {
            let slug = options.org.as_deref();
            store.by(actor).note_export(slug, count)?;
        }
        Ok(count)
    });
    if count.is_err() {
        remove(path);
    }
    print(&format!("Wrote {} credential(s) to {name}.", count?))
}

fn remove(path: &Path) {
    // The error that led here says more than one of this.
    let _ = fs::remove_file(path);
}

fn write_file(
    options: &ExportOptions,
    store: &Store,
    file: File,
    failed: &dyn Fn(io::Error) -> CliError,
) -> Result<usize, CliError> {
    let mut progress = Progress::begin("Exporting");
    let mut output = BufWriter::new(file);
    let count = write(options, store, &mut output, failed)?;
    let file = output
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    progress.stop();
    Ok(count)
}

/// Returns how many credentials there were.
fn write(
    options: &ExportOptions,
    store: &Store,
    output: &mut impl Write,
    failed: &dyn Fn(io::Error) -> CliError,
) -> Result<usize, CliError> {
    let mut count = 0;
    let mut put = |text: &str| output.write_all(text.as_bytes()).map_err(failed);
    match options.format {
        Format::Csv => put(&csv_header(options.with_hashes))?,
        Format::Json => put("[")?,
    }
    each(options, store, |credential, hash| {
        match options.format {
            Format::Csv => put(&csv_line(credential, hash))?,
            Format::Json => {
                put(if count == 0 { "\n" } else { ",\n" })?;
                put(&json_object(credential, hash).to_string())?;
            }
        }
        count += 1;
        Ok(())
    })?;
    if options.format == Format::Json {
        put("\n]\n")?;
    }
    Ok(count)
}

fn each(
    options: &ExportOptions,
    store: &Store,
    mut write: impl FnMut(&Credential, Option<&str>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let filter = CredentialFilter {
        organization: options.org.as_deref(),
        ..CredentialFilter::default()
    };
    let mut after = None;
    loop {
        let page = Page { after, limit: PAGE };
        let found = store.credentials(filter, page)?;
        for credential in &found.rows {
            let hash = match options.with_hashes {
                false => None,
                true => match store.lookup(&credential.username)? {
                    Some(login) => Some(login.password_hash),
                    None => continue, // deleted in the meantime
                },
            };
            write(credential, hash.as_deref())?;
        }
        match found.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
