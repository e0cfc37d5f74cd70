//! `gatepost audit`: who changed what, whether the log is whole, and how it is shortened.

use clap::Subcommand;
use serde_json::{Value, json};

use super::CliError;
use super::output::{confirm, document, minute, plain, print, shown, table};
use super::time::time;
use crate::admin::api;
use crate::store::{Actor, AuditFilter, AuditMark, AuditRecord, Page, Store, hex};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List changes, newest first
    List {
        /// Only those of this organization
        #[arg(long, value_name = "SLUG")]
        org: Option<String>,
        /// Only this action, such as credential.rotate; one that ends in a dot is a group of them
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Only those of this username or slug
        #[arg(long, value_name = "NAME")]
        object: Option<String>,
        /// Only since this day or time
        #[arg(long, value_name = "DATE", value_parser = time)]
        since: Option<i64>,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Check that no record was changed, removed or slipped in, and print the head to keep
    Verify {
        /// The head that an earlier run printed: the log must still have that record
        #[arg(long, value_name = "SEQ:HASH")]
        expect: Option<AuditMark>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove old records, after asking; that is recorded
    Prune {
        /// Those from before this day or time
        #[arg(long, value_name = "DATE", value_parser = time)]
        before: i64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Carries out `command` and prints the answer.
///
/// # Errors
/// A broken log, failures of the store, and standard output being closed.
pub fn run(command: AuditCommand, store: &Store, actor: &Actor) -> Result<(), CliError> {
    print(&answer(command, store, actor)?)
}

fn answer(command: AuditCommand, store: &Store, actor: &Actor) -> Result<String, CliError> {
    match command {
        AuditCommand::List {
            org,
            action,
            object,
            since,
            limit,
            json,
        } => {
            let filter = AuditFilter {
                organization: org.as_deref(),
                action: action.as_deref(),
                object: object.as_deref(),
                actor: None,
                since,
            };
            let mut records = Vec::new();
            let mut page = Page { after: None, limit };
            // A page may be short, or empty, although more follow.
            loop {
                let found = store.audit(filter, page)?;
                records.extend(found.rows);
                page.limit = limit.saturating_sub(u32::try_from(records.len()).unwrap_or(limit));
                page.after = found.next;
                if page.after.is_none() || page.limit == 0 {
                    break;
                }
            }
            list(&records, json)
        }
        AuditCommand::Verify { expect, json } => verify(store, expect, json),
        AuditCommand::Prune { before, yes, json } => {
            if !yes {
                let warning = format!("This removes all records from before {}.", minute(before));
                confirm(&warning, "\"prune\"", "prune")?;
            }
            let removed = store.by(actor).prune_audit(before)?;
            if json {
                return document(&json!({ "removed": removed }));
            }
            Ok(format!("Removed {removed} record(s)."))
        }
    }
}

fn list(records: &[AuditRecord], json: bool) -> Result<String, CliError> {
    if json {
        return document(
            &records
                .iter()
                .map(api::AuditRecord::from)
                .collect::<Vec<_>>(),
        );
    }
    let rows = records.iter().map(|record| {
        vec![
            record.seq.to_string(),
            minute(record.at),
            plain(&record.actor.to_string()),
            plain(&record.action),
            shown(&record.object),
            record.organization.as_deref().map_or("-".into(), plain),
            change(record),
        ]
    });
    let header = [
        "No.",
        "Time",
        "Actor",
        "Action",
        "Object",
        "Organization",
        "Change",
    ];
    Ok(table(&header, rows))
}

/// The fields that changed, on one line.
fn change(record: &AuditRecord) -> String {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    match (text(&record.before), text(&record.after)) {
        (None, None) => "-".to_owned(),
        (Some(before), None) => plain(&format!("was {before}")),
        (None, Some(after)) => plain(&after),
        (Some(before), Some(after)) => plain(&format!("{before} became {after}")),
    }
}

fn verify(store: &Store, expect: Option<AuditMark>, json: bool) -> Result<String, CliError> {
    let report = store.verify_audit(expect)?;
    let head = report.head;
    if json {
        return document(&json!({
            "intact": true,
            "records": report.records,
            "pruned_through": report.pruned,
            "newest": head.seq,
            "head": hex(&head.hash),
            "expect": head.to_string(),
        }));
    }
    let compared = match expect {
        Some(kept) => format!(" Record {} is the one that was kept.", kept.seq),
        None => String::new(),
    };
    Ok(format!(
        "The audit log is whole: {} record(s), the newest is number {}.{compared}\n\
         Keep its head elsewhere, and compare later: gatepost audit verify --expect {head}",
        report.records, head.seq
    ))
}
