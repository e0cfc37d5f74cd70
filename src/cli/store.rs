//! `gatepost backup`, `restore` and `store check`: the store as a file.

use std::path::Path;

use clap::Subcommand;

use super::CliError;
use super::output::{confirm, print};
use super::progress::Progress;
use crate::store::{Actor, Store, StoreReport};

/// What to do with the store as a whole.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Check every page, index and reference of the store, and the audit log
    Check,
}

/// Copies the store at `path`, also while Gatepost runs.
///
/// # Errors
/// There is no store, the target exists or cannot be written, or the copy is damaged.
pub fn back_up(path: &Path, target: &Path) -> Result<(), CliError> {
    let mut progress = Progress::begin("Copying the store");
    let report = Store::back_up(path, target)?;
    progress.stop();
    print(&format!(
        "Wrote {} and checked it: {}.\nPut it back with: gatepost restore {}",
        target.display(),
        words(report),
        target.display()
    ))
}

/// Puts a backup in place of the store at `path`, while Gatepost is stopped.
///
/// # Errors
/// The backup is not one, Gatepost runs, or the disk does not do it; then everything is as it was.
pub fn restore(path: &Path, source: &Path, yes: bool, actor: &Actor) -> Result<(), CliError> {
    if !yes && path.exists() {
        let warning = format!("This replaces the store {}.", path.display());
        confirm(&warning, "\"restore\"", "restore")?;
    }
    let mut progress = Progress::begin("Putting the backup in place");
    let restored = Store::restore(source, path, actor)?;
    progress.stop();
    let kept = match restored {
        None => String::new(),
        Some(kept) => format!("\nThe store that was there is now {}.", kept.display()),
    };
    print(&format!(
        "Restored {} from {}.{kept}\nWhat was changed after that backup is as it was before: revoke anew what must stay revoked.",
        path.display(),
        source.display()
    ))
}

/// Carries out `command` on the store at `path`.
///
/// # Errors
/// Any damage found, or what keeps the store from being read.
pub fn run(command: StoreCommand, path: &Path) -> Result<(), CliError> {
    let StoreCommand::Check = command;
    let mut progress = Progress::begin("Checking the store");
    let report = Store::check_thoroughly(path)?;
    let audit = match report {
        StoreReport::Missing => String::new(),
        StoreReport::Sound { .. } => {
            let audit = Store::open(path)?.verify_audit(None)?;
            format!(", {} audit record(s) in an unbroken chain", audit.records)
        }
    };
    progress.stop();
    print(&format!("{}: {}{audit}", path.display(), words(report)))
}

fn words(report: StoreReport) -> String {
    match report {
        StoreReport::Missing => "there is no store yet".to_owned(),
        StoreReport::Sound {
            schema,
            credentials,
            bytes,
        } => format!("sound, schema {schema}, {credentials} credential(s), {bytes} bytes"),
    }
}
