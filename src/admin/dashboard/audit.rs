//! The audit log: who changed what.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::store::{AuditFilter, AuditRecord, Page};

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
    /// Each field that changed, as it was and as it became.
    pub(super) changes: Vec<(String, Option<String>, Option<String>)>,
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

fn changes(
    before: Option<&Value>,
    after: Option<&Value>,
) -> Vec<(String, Option<String>, Option<String>)> {
    let fields = |value: Option<&Value>| {
        value
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (before, after) = (fields(before), fields(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let told = |name: &String| {
        (
            name.clone(),
            text(name, before.get(name)),
            text(name, after.get(name)),
        )
    };
    names
        .into_iter()
        .map(told)
        .filter(|(_, before, after)| before.is_some() || after.is_some())
        .collect()
}

/// A value in words; nothing for what is null.
fn text(name: &str, value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if name.ends_with("_at") || name.ends_with("_until") => Some(
            number
                .as_i64()
                .map_or_else(|| number.to_string(), |at| Stamp(at).exact()),
        ),
        other => Some(other.to_string()),
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
    let organization = visitor.caller.narrow(said(&asked.organization))?;
    let (action, object, actor) = (said(&asked.action), said(&asked.object), said(&asked.actor));
    let wanted = Page {
        after: asked.after,
        limit: ROWS,
    };
    let found = dashboard.desk.run(move |desk| {
        let filter = AuditFilter {
            organization: organization.as_deref(),
            action: action.as_deref(),
            object: object.as_deref(),
            actor: actor.as_deref(),
            since: None,
        };
        Ok(desk.system.store.audit(filter, wanted)?)
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
        let told = changes(Some(&before), Some(&after));
        let end = "2027-01-15 08:00:00 UTC".to_owned();
        assert_eq!(
            told,
            [
                ("expires_at".to_owned(), None, Some(end)),
                ("name".to_owned(), Some("Printer".to_owned()), None),
            ]
        );
        assert_eq!(changes(None, None), []);
    }
}
