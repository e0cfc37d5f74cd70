//! Refused logins with usernames that nobody has: the device with a typing mistake, the deleted credential that is still in
//! use, and those who guess.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::auth::spelling;
use crate::store::{Access, Breached, RefusedLogin, plain};

use super::Dashboard;
use super::address::Query;
use super::error::ErrorPage;
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: usize = 100;

/// The longest username that is shown whole, in characters; strangers make them up.
const LONGEST: usize = 80;

/// Refused logins that are alike, or what one limit or rule did to mail, as a row shows it.
pub(super) struct Tried {
    pub(super) username: String,
    pub(super) words: String,
    /// Of a login.
    pub(super) address: Option<String>,
    /// Whether it was let through.
    pub(super) let_through: Option<&'static str>,
    pub(super) rotated: Option<Stamp>,
    pub(super) first: Stamp,
    pub(super) last: Stamp,
    pub(super) count: u64,
}

impl From<&RefusedLogin> for Tried {
    fn from(refusal: &RefusedLogin) -> Tried {
        Tried {
            username: cut(&plain(&refusal.username)),
            words: refusal.words().to_owned(),
            address: Some(refusal.address.clone()),
            let_through: None,
            rotated: refusal.retired_at.map(Stamp),
            first: Stamp(refusal.first_at),
            last: Stamp(refusal.at),
            count: refusal.count,
        }
    }
}

impl Tried {
    /// All of one credential, the latest first.
    pub(super) fn of_credential(logins: &[RefusedLogin], mail: &[Breached]) -> Vec<Tried> {
        let mail = mail.iter().map(|breached| Tried {
            username: String::new(),
            words: breached.words(),
            address: None,
            let_through: breached.let_through(),
            rotated: None,
            first: Stamp(breached.tally.first_at),
            last: Stamp(breached.tally.at),
            count: breached.tally.count,
        });
        let mut all: Vec<_> = logins.iter().map(Tried::from).chain(mail).collect();
        all.sort_by_key(|tried| std::cmp::Reverse(tried.last.0));
        all
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    after: usize,
}

#[derive(Template)]
#[template(path = "refusals.html")]
struct RefusalsPage {
    frame: Frame,
    total: usize,
    refusals: Vec<Tried>,
    next: Option<usize>,
}

/// Shows them, the latest first.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_instance(Access::Read)?;
    let after = asked.after;
    let found = dashboard.desk.run(move |desk| {
        let found = desk.unknown_refusals()?;
        let shown: Vec<_> = found.iter().skip(after).take(ROWS).cloned().collect();
        let hints = spelling::hints(&desk.system.store, &shown)?;
        let tried = shown.iter().zip(hints).map(|(refusal, hint)| {
            let mut tried = Tried::from(refusal);
            tried.words.extend(hint.map(|hint| format!("; {hint}")));
            tried
        });
        Ok((found.len(), tried.collect()))
    });
    let (total, refusals) = found.await?;
    let behind = after.saturating_add(ROWS);
    page(&RefusalsPage {
        frame: visitor.frame(Section::Overview),
        total,
        next: (total > behind).then_some(behind),
        refusals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(cut("smtp_a"), "smtp_a");
        let long = "ü".repeat(81);
        assert_eq!(cut(&long), format!("{}…", "ü".repeat(80)));
        assert_eq!(cut(&long[..160]), "ü".repeat(80));
    }
}
