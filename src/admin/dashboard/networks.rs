//! What the guard holds against networks, and how to have it forgotten.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::problem::{Code, Problem};
use crate::auth::guard::{ClearTarget, PenaltyView, Status};
use crate::store::Access;

use super::Dashboard;
use super::error::ErrorPage;
use super::form::Form;
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows the page has; the worst come first.
const ROWS: usize = 100;

struct Row {
    network: String,
    state: &'static str,
    class: &'static str,
    score: String,
    last: Stamp,
    until: Option<Stamp>,
    why: String,
}

impl From<PenaltyView> for Row {
    fn from(charge: PenaltyView) -> Row {
        let (state, class) = match charge.status() {
            Status::Banned => ("Banned", "bad"),
            Status::Slowed => ("Slowed", "warning"),
            Status::Counted => ("Counted", ""),
        };
        Row {
            network: charge.network.to_string(),
            state,
            class,
            score: format!("{:.1}", charge.score),
            last: Stamp(charge.at),
            until: charge.banned_until.map(Stamp),
            why: charge.why(),
        }
    }
}

#[derive(Template)]
#[template(path = "networks.html")]
struct NetworksPage {
    frame: Frame,
    rows: Vec<Row>,
    total: usize,
    banned: usize,
}

/// Shows them, the worst first.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_instance(Access::Read)?;
    let listed = dashboard
        .desk
        .run(|desk| Ok(desk.system.authenticator.guard().list()));
    let charges = listed.await?;
    let is_banned = |charge: &&PenaltyView| charge.status() == Status::Banned;
    page(&NetworksPage {
        frame: visitor.frame(Section::Guard),
        total: charges.len(),
        banned: charges.iter().filter(is_banned).count(),
        rows: charges.into_iter().take(ROWS).map(Row::from).collect(),
    })
}

/// Holds nothing against one of them any more.
pub(super) async fn clear(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_instance(Access::Admin)?;
    let wanted: ClearTarget = form
        .text("network")
        .trim()
        .parse()
        .map_err(|error| Problem::new(Code::Invalid, format!("network: {error}")))?;
    let actor = visitor.caller.actor.clone();
    let cleared = dashboard
        .desk
        .change(move |desk| desk.clear_guard(&actor, wanted));
    let notice = match cleared.await? {
        0 => format!("Nothing is held against {wanted}."),
        _ => format!("Nothing is held against {wanted} any more."),
    };
    Ok(visitor.sent_on(notice, "/guard"))
}
