//! The audit log: who changed what.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::store::{AuditFilter, AuditRecord, Page, shown};

use super::Dashboard;
use super::address::Query;
use super::error::ErrorPage;
use super::form;
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: u32 = 50;

/// A change as a row shows it.
pub(super) struct Entry {
    pub(super) at: Stamp,
    pub(super) actor: String,
    pub(super) address: Option<String>,
    pub(super) action: String,
    pub(super) object: String,
    pub(super) organization: Option<String>,
    pub(super) changes: Vec<Change>,
}

/// A field that changed, as it was and as it became.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) field: String,
    pub(super) before: Option<Told>,
    pub(super) after: Option<Told>,
}

/// What stood in a field.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    Text(String),
    Time(Stamp),
}

impl Told {
    pub(super) fn text(&self) -> &str {
        match self {
            Told::Text(text) => text,
            Told::Time(_) => "",
        }
    }

    pub(super) fn time(&self) -> Option<Stamp> {
        match self {
            Told::Text(_) => None,
            Told::Time(stamp) => Some(*stamp),
        }
    }
}

impl From<&AuditRecord> for Entry {
    fn from(record: &AuditRecord) -> Entry {
        let actor = &record.actor;
        Entry {
            at: Stamp(record.at),
            actor: format!("{} {}", actor.kind.as_str(), actor.name),
            address: actor.address.clone(),
            action: record.action.clone(),
            object: record.object.clone(),
            organization: record.organization.clone(),
            changes: changes(record.before.as_ref(), record.after.as_ref()),
        }
    }
}

fn changes(before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let before = fields(before).unwrap_or_default();
    let after = fields(after).unwrap_or_default();
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |field: &String| Change {
        field: field.clone(),
        before: told(field, before.get(field)),
        after: told(field, after.get(field)),
    };
    let changes = names.into_iter().map(change);
    changes
        .filter(|change| change.before.is_some() || change.after.is_some())
        .collect()
}

/// A value in words; nothing for what is null.
fn told(field: &str, value: Option<&Value>) -> Option<Told> {
    let is_time = field.ends_with("_at") || field.ends_with("_until");
    match value? {
        Value::Null => None,
        Value::String(text) => Some(Told::Text(shown(text))),
        Value::Number(number) if is_time && number.is_i64() => {
            number.as_i64().map(|at| Told::Time(Stamp(at)))
        }
        other => Some(Told::Text(other.to_string())),
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    organization: String,
    action: String,
    object: String,
    actor: String,
    after: Option<i64>,
}

impl Asked {
    fn older_than(&self, seq: i64) -> String {
        let seq = seq.to_string();
        let pairs = [
            ("organization", self.organization.as_str()),
            ("action", &self.action),
            ("object", &self.object),
            ("actor", &self.actor),
            ("after", &seq),
        ];
        let said = pairs.into_iter().filter(|(_, text)| !text.is_empty());
        format!("?{}", form::query(said))
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    asked: Asked,
    entries: Vec<Entry>,
    next: Option<String>,
}

/// Shows changes, newest first.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    let said = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let organizations = visitor.caller.narrow(said(&asked.organization))?;
    let (action, object, actor) = (said(&asked.action), said(&asked.object), said(&asked.actor));
    let wanted = Page {
        after: asked.after,
        limit: ROWS,
    };
    let found = dashboard.desk.run(move |desk| {
        let filter = AuditFilter {
            organization: None,
            action: action.as_deref(),
            object: object.as_deref(),
            actor: actor.as_deref(),
            since: None,
        };
        desk.audit(organizations.as_deref(), filter, wanted)
    });
    let found = found.await?;
    page(&AuditPage {
        frame: visitor.frame(Section::Audit),
        entries: found.rows.iter().map(Entry::from).collect(),
        next: found.next.map(|seq| asked.older_than(seq)),
        asked,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_field_by_field() {
        let before = json!({ "name": "Printer", "expires_at": null });
        let after = json!({ "name": null, "expires_at": 1_800_000_000_000_i64 });
        let end = Told::Time(Stamp(1_800_000_000_000));
        let printer = Told::Text("Printer".to_owned());
        let change = |field: &str, before, after| Change {
            field: field.to_owned(),
            before,
            after,
        };
        assert_eq!(
            changes(Some(&before), Some(&after)),
            [
                change("expires_at", None, Some(end)),
                change("name", Some(printer), None),
            ]
        );
        assert_eq!(changes(None, None), []);
    }
}
