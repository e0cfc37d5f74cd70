//! Revoking: nobody can log in with it any more, until it is enabled again.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::changes::Edit;
use crate::admin::dashboard::Dashboard;
use crate::admin::dashboard::address::Path;
use crate::admin::dashboard::error::ErrorPage;
use crate::admin::dashboard::form::Form;
use crate::admin::dashboard::frame::{Frame, Section, page};
use crate::admin::dashboard::guard::Visitor;
use crate::store::{Access, Credential, CredentialStatus};

use super::Of;

#[derive(Template)]
#[template(path = "revoke.html")]
struct RevokePage {
    frame: Frame,
    path: String,
    credential: Credential,
    live: usize,
}

/// Asks whether to, and what about live sessions.
pub(super) async fn ask(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_in(&of.slug, Access::Admin)?;
    let frame = visitor.frame(Section::Credentials).of(&of.slug);
    let live = dashboard.desk.system.sessions.count_of(&of.username);
    let path = of.page();
    let found = dashboard.desk.run(move |desk| desk.credential(of.wanted()));
    page(&RevokePage {
        frame,
        path,
        credential: found.await?,
        live,
    })
}

/// Revokes.
pub(super) async fn revoke(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let disconnect = form.ticked("disconnect");
    let back = of.page();
    let edit = Edit {
        status: Some(CredentialStatus::Revoked),
        ..Edit::default()
    };
    let actor = &visitor.caller.actor;
    let revoked = dashboard
        .desk
        .edit_credential(actor, of.target(), edit, disconnect);
    revoked.await?;
    let notice = match disconnect {
        true => {
            "The credential is revoked: every login with it is refused from now on, and its live sessions have ended."
        }
        false => {
            "The credential is revoked: every login with it is refused from now on. Sessions that were live go on until their clients leave."
        }
    };
    Ok(visitor.sent_on(notice, &back))
}
