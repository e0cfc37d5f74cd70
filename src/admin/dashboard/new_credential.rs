//! Making a credential.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::problem::{Code, Problem};
use crate::auth::issue::{self, New};
use crate::store::{Access, Once};

use super::Dashboard;
use super::address::Path;
use super::error::ErrorPage;
use super::form::{Field, Form, TimeField, optional_name};
use super::frame::{Frame, Section, page, refused};
use super::guard::Visitor;
use super::issued::{self, Connection};
use super::sign_ins::unguessable;

#[derive(Template)]
#[template(path = "new_credential.html")]
struct NewCredential {
    frame: Frame,
    name: Field,
    expires_at: TimeField,
    /// Under this name the form makes something once, however often it is sent.
    once: String,
}

/// Asks for what it starts with.
pub(super) async fn ask(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_in(&slug, Access::Admin)?;
    let frame = visitor.frame(Section::Credentials).of(&slug);
    let found = dashboard
        .desk
        .run(move |desk| Ok(desk.system.store.organization(&slug)?));
    found.await?;
    page(&NewCredential {
        frame,
        name: Field::default(),
        expires_at: TimeField::default(),
        once: unguessable(),
    })
}

/// Makes it, and shows its password this one time. The same form sent again makes nothing and shows nothing.
pub(super) async fn create(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let frame = visitor.frame(Section::Credentials).of(&slug);
    let mut name = form.field("name");
    let meant_name = name.read(optional_name);
    let (expires_at, meant_end) = form.expiry();
    let (Some(meant_name), Some(meant_end)) = (meant_name, meant_end) else {
        return refused(&NewCredential {
            frame,
            name,
            expires_at,
            once: unguessable(),
        });
    };
    let once = Once::from(form.once()?);
    let actor = visitor.caller.actor.clone();
    let made = dashboard.desk.change(move |desk| {
        let store = &desk.system.store;
        let new = New {
            organization: &slug,
            name: meant_name.as_deref(),
            expires_at: meant_end,
            limits: None,
            rules: None,
        };
        let editor = store.by(&actor).once(Some(&once));
        let issued = issue::issue(store, editor, desk.system.cost, new)?;
        Ok((issued, Connection::of(desk)))
    });
    let (issued, connection) = made.await.map_err(once_only)?;
    issued::show(frame, &issued, connection, None)
}

/// Says what it means that something was made already.
pub(super) fn once_only(problem: Problem) -> Problem {
    match problem.code {
        Code::Repeated => Problem::new(
            Code::Repeated,
            "this form was sent before. What it made is in the list, and its secret was shown then; it is not shown again. If nobody has it, give it a new one, or make another",
        ),
        _ => problem,
    }
}
