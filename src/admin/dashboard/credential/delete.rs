//! Deleting, for good.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::dashboard::Dashboard;
use crate::admin::dashboard::address::Path;
use crate::admin::dashboard::error::ErrorPage;
use crate::admin::dashboard::form::{Field, Form};
use crate::admin::dashboard::frame::{Frame, Section, page, refused};
use crate::admin::dashboard::guard::Visitor;
use crate::store::{Access, Credential};

use super::Of;

/// How much of the username is typed to confirm.
const CONFIRMED_BY: usize = 4;

#[derive(Template)]
#[template(path = "delete.html")]
struct DeletePage {
    frame: Frame,
    path: String,
    credential: Credential,
    live: usize,
    confirm: Field,
    /// Whether live sessions are to end, too.
    disconnect: bool,
}

async fn gather(
    dashboard: &Dashboard,
    visitor: &Visitor,
    of: Of,
    confirm: Field,
    disconnect: bool,
) -> Result<DeletePage, ErrorPage> {
    let frame = visitor.frame(Section::Credentials).of(&of.slug);
    let live = dashboard.desk.system.sessions.count_of(&of.username);
    let path = of.page();
    let found = dashboard.desk.run(move |desk| desk.credential(of.wanted()));
    Ok(DeletePage {
        frame,
        path,
        credential: found.await?,
        live,
        confirm,
        disconnect,
    })
}

/// Asks for a confirmation.
pub(super) async fn ask(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_in(&of.slug, Access::Admin)?;
    page(&gather(&dashboard, &visitor, of, Field::default(), false).await?)
}

/// Deletes it, if that was confirmed.
pub(super) async fn delete(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let (mut confirm, disconnect) = (form.field("confirm"), form.ticked("disconnect"));
    if confirm.value.trim() != last_characters(&of.username) {
        confirm.error = Some(format!(
            "these are not the last {CONFIRMED_BY} characters of the username; nothing was deleted"
        ));
        return refused(&gather(&dashboard, &visitor, of, confirm, disconnect).await?);
    }
    let notice = match disconnect {
        true => format!(
            "{} is deleted, and its live sessions have ended.",
            of.username
        ),
        false => format!(
            "{} is deleted. Sessions that were live go on until their clients leave.",
            of.username
        ),
    };
    let list = of.list();
    let actor = &visitor.caller.actor;
    let deleted = dashboard
        .desk
        .delete_credential(actor, of.target(), disconnect);
    deleted.await?;
    Ok(visitor.sent_on(notice, &list))
}

/// Of a username, which need not be one of ours: imported ones may be short and of any letters.
fn last_characters(username: &str) -> &str {
    let from_behind = username.char_indices().rev();
    let (start, _) = from_behind.take(CONFIRMED_BY).last().unwrap_or_default();
    &username[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_is_confirmed_by_its_end() {
        assert_eq!(last_characters("smtp_0123456789abcDEF"), "cDEF");
        assert_eq!(last_characters("zoë"), "zoë");
        assert_eq!(last_characters("jürgen-zoë"), "-zoë");
    }
}
