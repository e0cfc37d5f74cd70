//! What is changed without asking back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::admin::changes::Edit;
use crate::admin::dashboard::Dashboard;
use crate::admin::dashboard::address::Path;
use crate::admin::dashboard::containment::{read_limits, read_rules};
use crate::admin::dashboard::error::ErrorPage;
use crate::admin::dashboard::form::{Form, optional_name};
use crate::admin::dashboard::guard::Visitor;
use crate::admin::problem::Problem;
use crate::store::CredentialStatus;

use super::{Of, Refilled, refilled};

/// Gives it another name, or none.
pub(super) async fn rename(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let mut field = form.field("name");
    let Some(name) = field.read(optional_name) else {
        let sent = Refilled {
            name: Some(field),
            ..Refilled::default()
        };
        return refilled(&dashboard, &visitor, of, sent).await;
    };
    let notice = match &name {
        Some(name) => format!("The credential is called {name} now."),
        None => "The credential has no name any more.".to_owned(),
    };
    let edit = Edit {
        name: Some(name),
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    Ok(visitor.sent_on(notice, &of.page()))
}

/// Sets the time from which on it is refused, or none.
pub(super) async fn expire(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let (field, meant) = form.expiry();
    let Some(expires_at) = meant else {
        let sent = Refilled {
            expires_at: Some(field),
            ..Refilled::default()
        };
        return refilled(&dashboard, &visitor, of, sent).await;
    };
    let edit = Edit {
        expires_at: Some(expires_at),
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    let notice = match expires_at {
        Some(_) => {
            "The credential expires at the time below: from then on every login with it is refused. Sessions that are live then go on."
        }
        None => "The credential does not expire.",
    };
    Ok(visitor.sent_on(notice, &of.page()))
}

/// Sets how much may be sent with it.
pub(super) async fn limit(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let limits = match read_limits(&form, true) {
        Ok(limits) => limits,
        Err(fields) => {
            let sent = Refilled {
                limits: Some(fields),
                ..Refilled::default()
            };
            return refilled(&dashboard, &visitor, of, sent).await;
        }
    };
    let edit = Edit {
        limits: Some(limits),
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    let notice = "The limits count from now on, in live sessions with their next message.";
    Ok(visitor.sent_on(notice, &of.page()))
}

/// Sets as whom and from where it may be used.
pub(super) async fn rule(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let rules = match read_rules(&form) {
        Ok(rules) => rules,
        Err(form) => {
            let sent = Refilled {
                rules: Some(form),
                ..Refilled::default()
            };
            return refilled(&dashboard, &visitor, of, sent).await;
        }
    };
    let edit = Edit {
        rules: Some(rules),
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    let notice = "The rules count from now on, in live sessions with their next message.";
    Ok(visitor.sent_on(notice, &of.page()))
}

/// Ends an overlap after a rotation.
pub(super) async fn end_overlap(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    _: Form,
) -> Result<Response, ErrorPage> {
    let edit = Edit {
        end_overlap: true,
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    let notice = "The overlap has ended: only the new password is right now.";
    Ok(visitor.sent_on(notice, &of.page()))
}

/// Lets a revoked one be used again.
pub(super) async fn enable(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
    _: Form,
) -> Result<Response, ErrorPage> {
    let edit = Edit {
        status: Some(CredentialStatus::Active),
        ..Edit::default()
    };
    change(&dashboard, &visitor, &of, edit).await?;
    let notice = "The credential is not revoked any more, and has the password it had.";
    Ok(visitor.sent_on(notice, &of.page()))
}

async fn change(
    dashboard: &Dashboard,
    visitor: &Visitor,
    of: &Of,
    edit: Edit,
) -> Result<(), Problem> {
    let (actor, target) = (&visitor.caller.actor, of.clone().target());
    let changed = dashboard.desk.edit_credential(actor, target, edit, false);
    changed.await.map(drop)
}
