//! Live sessions: who is logged in now, and how to end that.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use crate::sessions::LiveSession;

use super::Dashboard;
use super::address::{Path, Query};
use super::error::ErrorPage;
use super::form::{self, Form};
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: usize = 100;

/// A session as a row shows it.
pub(super) struct Live {
    pub(super) session: LiveSession,
    pub(super) since: Stamp,
}

impl From<LiveSession> for Live {
    fn from(session: LiveSession) -> Live {
        Live {
            since: Stamp(session.since),
            session,
        }
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    organization: String,
    credential: String,
    after: Option<Uuid>,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    asked: Asked,
    sessions: Vec<Live>,
    total: usize,
    next: Option<String>,
}

/// Shows them, oldest first.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    let wanted = Some(asked.organization.trim().to_owned()).filter(|slug| !slug.is_empty());
    let organizations = visitor.caller.narrow(wanted)?;
    let credential = asked.credential.trim();
    let mut sessions = dashboard.desk.system.sessions.list();
    sessions.retain(|session| {
        organizations
            .as_ref()
            .is_none_or(|slugs| slugs.contains(&session.organization))
            && (credential.is_empty() || session.username == credential)
    });
    let total = sessions.len();
    sessions.retain(|session| asked.after.is_none_or(|after| session.id > after));
    let more = sessions.len() > ROWS;
    sessions.truncate(ROWS);
    let next = sessions.last().filter(|_| more).map(|last| {
        let last = last.id.to_string();
        let pairs = [
            ("organization", asked.organization.as_str()),
            ("credential", &asked.credential),
            ("after", &last),
        ];
        let said = pairs.into_iter().filter(|(_, text)| !text.is_empty());
        format!("?{}", form::query(said))
    });
    page(&SessionsPage {
        frame: visitor.frame(Section::Sessions),
        sessions: sessions.into_iter().map(Live::from).collect(),
        total,
        next,
        asked,
    })
}

/// Ends one.
pub(super) async fn disconnect(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
    _: Form,
) -> Result<Response, ErrorPage> {
    let caller = visitor.caller.clone();
    let ended = dashboard
        .desk
        .look_up(move |desk| desk.disconnect_session(&caller, id));
    let session = ended.await?;
    dashboard.desk.revocations.recorded().await;
    let notice = format!(
        "The session of {} from {} has ended. Its client may log in again unless the credential is revoked.",
        session.username, session.address
    );
    Ok(visitor.sent_on(notice, "/sessions"))
}
