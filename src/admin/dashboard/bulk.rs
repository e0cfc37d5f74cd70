//! One change of many credentials: those that are ticked in the list, or all of the list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::bulk::{Action, Filter, MOST, Report, Selected, Selection};
use crate::admin::problem::{Code, Problem};
use crate::store::Access;

use super::Dashboard;
use super::address::Path;
use super::credentials::Asked;
use super::error::ErrorPage;
use super::form::{Field, Form, TimeField};
use super::frame::{Frame, Section, page, refused};
use super::guard::Visitor;
use super::sign_ins::unguessable;

/// How many selections wait for their confirmation. The oldest makes room.
const WAITING: usize = 32;

/// How many usernames a page shows.
const SHOWN: usize = 20;

/// The actions: their names in the form, and their words.
const ACTIONS: [(&str, &str); 4] = [
    ("revoke", "Revoke"),
    ("enable", "Re-enable"),
    ("expire", "Set the expiry of"),
    ("delete", "Delete"),
];

/// Selections that wait for their confirmation.
#[derive(Default)]
pub(super) struct Selections(Mutex<VecDeque<Pending>>);

#[derive(Clone)]
struct Pending {
    id: String,
    /// The form's secret of the visitor who selected.
    csrf: String,
    slug: String,
    usernames: Vec<String>,
    more: bool,
    /// The filter that all of them passed; the change leaves those that no longer pass it.
    filter: Option<Filter>,
    /// The address of the list.
    list: String,
}

impl Selections {
    fn keep(&self, pending: Pending) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= WAITING {
            all.pop_front();
        }
        all.push_back(pending);
    }

    /// Returns a selection of this visitor.
    fn find(&self, id: &str, csrf: &str, slug: &str) -> Result<Pending, Problem> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all
            .iter()
            .find(|one| one.id == id && one.csrf == csrf && one.slug == slug);
        found.cloned().ok_or_else(|| {
            Problem::new(
                Code::Changed,
                "this selection is too old or was carried out already; go back to the list and select again",
            )
        })
    }

    fn forget(&self, id: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.id != id);
    }
}

#[derive(Template)]
#[template(path = "bulk.html")]
struct BulkPage {
    frame: Frame,
    slug: String,
    /// The name of the action in the form.
    action: &'static str,
    words: &'static str,
    selection: String,
    list: String,
    count: usize,
    more: bool,
    usernames: Vec<String>,
    live: usize,
    expires_at: TimeField,
    confirm: Field,
    disconnect: bool,
}

#[derive(Template)]
#[template(path = "bulk_done.html")]
struct DonePage {
    frame: Frame,
    list: String,
    summary: String,
    failed: usize,
    failures: Vec<(String, String)>,
}

fn named(form: &Form) -> Result<(&'static str, &'static str), Problem> {
    let named = ACTIONS
        .into_iter()
        .find(|(name, _)| *name == form.text("action"));
    named.ok_or_else(|| {
        let detail = "action: choose one of those below the list";
        Problem::new(Code::Invalid, detail)
    })
}

/// The action; of an expiry with the time that the form has, or else any.
fn action(name: &str, end: Option<i64>) -> Action {
    match name {
        "revoke" => Action::Revoke,
        "enable" => Action::Enable,
        "expire" => Action::Expire(end),
        _ => Action::Delete,
    }
}

/// Shows how many credentials are meant, and asks for a confirmation.
pub(super) async fn ask(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_in(&slug, Access::Admin)?;
    let (name, _) = named(&form)?;
    let asked = Asked::of_query(form.text("list"))?;
    let list = asked.list(&slug);
    let is_all = form.ticked("all");
    let filter = is_all.then(|| asked.bulk_filter());
    let usernames: Vec<_> = form.texts("username").map(str::to_owned).collect();
    if !is_all && usernames.is_empty() {
        let notice = "Nothing was selected: tick credentials, or the box for all of the list.";
        return Ok(visitor.sent_on(notice, &list));
    }
    let selection = Selection {
        usernames: (!is_all).then_some(usernames),
        filter: filter.clone(),
    };
    let desk = &dashboard.desk;
    let selected = desk.select(&slug, action(name, None), selection).await?;
    if selected.usernames.is_empty() {
        return Ok(visitor.sent_on("No credential of the list needs that.", &list));
    }
    let pending = Pending {
        id: unguessable(),
        csrf: visitor.sign_in.csrf.clone(),
        slug,
        usernames: selected.usernames,
        more: selected.more,
        filter,
        list,
    };
    dashboard.selections.keep(pending.clone());
    let shown = gather(
        &dashboard,
        &visitor,
        &form,
        &pending,
        TimeField::default(),
        Field::default(),
    );
    page(&shown?)
}

fn gather(
    dashboard: &Dashboard,
    visitor: &Visitor,
    form: &Form,
    pending: &Pending,
    expires_at: TimeField,
    confirm: Field,
) -> Result<BulkPage, ErrorPage> {
    let (action, words) = named(form)?;
    let live = dashboard.desk.system.sessions.usernames();
    let meant = pending.usernames.iter();
    Ok(BulkPage {
        frame: visitor.frame(Section::Credentials).of(&pending.slug),
        slug: pending.slug.clone(),
        action,
        words,
        selection: pending.id.clone(),
        list: pending.list.clone(),
        count: pending.usernames.len(),
        more: pending.more,
        live: meant.filter(|one| live.contains(*one)).count(),
        usernames: pending.usernames.iter().take(SHOWN).cloned().collect(),
        expires_at,
        confirm,
        disconnect: form.ticked("disconnect"),
    })
}

/// Changes what was confirmed.
pub(super) async fn carry_out(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let (name, _) = named(&form)?;
    let csrf = &visitor.sign_in.csrf;
    let pending = dashboard
        .selections
        .find(form.text("selection"), csrf, &slug)?;
    let (expires_at, end) = form.expiry();
    let mut confirm = form.field("confirm");
    let count = pending.usernames.len();
    if name == "delete" && confirm.value.trim() != count.to_string() {
        confirm.error = Some(format!(
            "this is not the number of credentials, {count}; nothing was deleted"
        ));
    }
    if confirm.error.is_some() || (name == "expire" && end.is_none()) {
        let shown = gather(&dashboard, &visitor, &form, &pending, expires_at, confirm);
        return refused(&shown?);
    }
    let desk = &dashboard.desk;
    dashboard.selections.forget(&pending.id);
    let action = action(name, end.flatten());
    let selection = Selection {
        usernames: Some(pending.usernames),
        filter: pending.filter,
    };
    let selected = desk.select(&slug, action, selection).await?;
    let left = count - selected.usernames.len();
    let selected = Selected {
        more: pending.more,
        ..selected
    };
    let actor = &visitor.caller.actor;
    let changed = desk.change_all(actor, &slug, action, selected, form.ticked("disconnect"));
    let report = changed.await?;
    let summary = summary(action, &report, left);
    if report.failed == 0 {
        return Ok(visitor.sent_on(summary, &pending.list));
    }
    page(&DonePage {
        frame: visitor.frame(Section::Credentials).of(&slug),
        list: pending.list,
        summary,
        failed: report.failed,
        failures: report.failures,
    })
}

/// The outcome in sentences.
fn summary(action: Action, report: &Report, left: usize) -> String {
    let credentials = |count: usize| match count {
        1 => "1 credential".to_owned(),
        _ => format!("{count} credentials"),
    };
    let done = credentials(report.done);
    let mut text = match action {
        Action::Delete => format!("Deleted {done}."),
        Action::Enable => format!("Enabled {done}."),
        Action::Expire(_) => format!("Set the expiry of {done}."),
        Action::Revoke => format!("Revoked {done}."),
    };
    if report.unchanged > 0 {
        text += &format!(" {} needed no change.", credentials(report.unchanged));
    }
    if left > 0 {
        let were = if left == 1 { "is" } else { "are" };
        text += &format!(
            " {} {were} no longer like the list that was confirmed, and left as before.",
            credentials(left)
        );
    }
    if report.more {
        text += &format!(" One change takes at most {MOST} credentials: there are more.");
    }
    text
}
