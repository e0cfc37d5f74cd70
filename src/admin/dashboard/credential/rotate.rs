//! A new password.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::changes::Target;
use crate::admin::dashboard::Dashboard;
use crate::admin::dashboard::address::Path;
use crate::admin::dashboard::error::ErrorPage;
use crate::admin::dashboard::form::Form;
use crate::admin::dashboard::frame::{Frame, Section, page};
use crate::admin::dashboard::guard::Visitor;
use crate::admin::dashboard::issued::{self, Before, Connection};
use crate::admin::dashboard::stamp::Stamp;
use crate::admin::problem::{Code, Problem};
use crate::store::{Access, Credential, PasswordUse, Rotation};

use super::{Of, dated};

/// For how long the old password may stay right, in seconds, and in words.
const OVERLAPS: [(i64, &str); 5] = [
    (0, "Not at all: it is wrong at once"),
    (3_600, "One more hour"),
    (86_400, "One more day"),
    (604_800, "One more week"),
    (2_592_000, "30 more days"),
];

/// The same while an overlap runs, whose end stays.
const IN_OVERLAP: [(i64, &str); 2] = [
    (0, "Not at all: both passwords are wrong at once"),
    (3_600, "Until the end that it has"),
];

#[derive(Template)]
#[template(path = "rotate.html")]
struct RotatePage {
    frame: Frame,
    path: String,
    credential: Credential,
    live: usize,
    overlaps: &'static [(i64, &'static str)],
    /// The end of the overlap that runs.
    runs_until: Option<Stamp>,
    current_used: Option<(PasswordUse, Stamp)>,
    /// What the credential must still be when the form is sent, so that it rotates once.
    revision: String,
}

/// Asks how.
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
    let credential = found.await?;
    page(&RotatePage {
        frame,
        path,
        live,
        overlaps: match credential.previous_until {
            Some(_) => &IN_OVERLAP,
            None => &OVERLAPS,
        },
        runs_until: credential.previous_until.map(Stamp),
        current_used: credential.current_used.clone().map(dated),
        revision: credential.revision(),
        credential,
    })
}

/// Rotates, and shows the new password this one time.
pub(super) async fn rotate(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let chosen = form.text("overlap").parse().ok();
    let known = OVERLAPS
        .iter()
        .find(|(seconds, _)| chosen == Some(*seconds));
    let &(overlap, _) = known.ok_or_else(|| {
        let detail = "overlap: choose one of those in the list";
        Problem::new(Code::Invalid, detail)
    })?;
    let until = (overlap > 0).then(|| crate::clock::now_ms() + overlap * 1_000);
    let disconnect = form.ticked("disconnect");
    let frame = visitor.frame(Section::Credentials).of(&of.slug);
    let target = Target {
        revisions: Some(vec![form.text("revision").to_owned()]),
        ..of.target()
    };
    let actor = &visitor.caller.actor;
    let issued = dashboard
        .desk
        .rotate(actor, target, until, disconnect, None);
    let issued = issued.await.map_err(once_only)?;
    let connection = Connection::of(&dashboard.desk);
    let before = Before {
        right_until: issued.credential.previous_until.map(Stamp),
        replaced_in_overlap: match &issued.rotation {
            Some(Rotation::Kept { replaced_used }) => Some(replaced_used.clone().map(dated)),
            _ => None,
        },
        disconnected: disconnect,
    };
    issued::show(frame, &issued, connection, Some(before))
}

/// Says what it means that the credential is not what it was.
fn once_only(problem: Problem) -> Problem {
    match problem.code {
        Code::Changed => Problem::new(
            Code::Changed,
            "the credential has changed since this form was made; perhaps the form was sent before. A password that was made then was shown then, and is not shown again. If nobody has it, rotate once more",
        ),
        _ => problem,
    }
}
