//! Organizations: the list of them, and what is done to one as a whole.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::admin::changes::OrganizationChange;
use crate::admin::problem::{Code, Problem};
use crate::store::{Access, DEFAULT_ORGANIZATION, Organization, OrganizationStatus, check_slug};

use super::Dashboard;
use super::address::{Path, Query};
use super::containment::{LimitsForm, read_limits};
use super::error::ErrorPage;
use super::form::{Field, Form, optional_name};
use super::frame::{Frame, Section, page, page_with, refused};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: u32 = 100;

struct Row {
    organization: Organization,
    is_suspended: bool,
    created: Stamp,
    live: usize,
}

impl Row {
    fn of(organization: Organization, live: usize) -> Row {
        Row {
            is_suspended: organization.status == OrganizationStatus::Suspended,
            created: Stamp(organization.created_at),
            live,
            organization,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    after: String,
}

#[derive(Template)]
#[template(path = "organizations.html")]
struct OrganizationsPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    slug: Field,
    name: Field,
}

/// Shows by slug those that the visitor's scopes reach.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    let fields = (Field::default(), Field::default());
    page(&gather(&dashboard, &visitor, asked.after, fields).await?)
}

async fn gather(
    dashboard: &Dashboard,
    visitor: &Visitor,
    after: String,
    (slug, name): (Field, Field),
) -> Result<OrganizationsPage, ErrorPage> {
    let caller = visitor.caller.clone();
    let found = dashboard.desk.run(move |desk| {
        let found = desk.organizations(&caller, Some(&after), ROWS + 1)?;
        let live = desk.system.sessions.counts();
        let row = |found: Organization| {
            let live = live.get(&found.slug).copied().unwrap_or_default();
            Row::of(found, live)
        };
        Ok(found.into_iter().map(row).collect::<Vec<_>>())
    });
    let mut rows = found.await?;
    let more = rows.len() > ROWS as usize;
    rows.truncate(ROWS as usize);
    let next = rows.last().filter(|_| more);
    let next = next.map(|last| last.organization.slug.clone());
    Ok(OrganizationsPage {
        frame: visitor.frame(Section::Organizations),
        rows,
        next,
        slug,
        name,
    })
}

/// Makes one.
pub(super) async fn create(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_instance(Access::Admin)?;
    let (mut slug, mut name) = (form.field("slug"), form.field("name"));
    let meant_slug = slug.read(|text| match check_slug(text.trim()) {
        Ok(()) => Ok(text.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    });
    let meant_name = name.read(optional_name);
    let (Some(meant_slug), Some(meant_name)) = (meant_slug, meant_name) else {
        let again = gather(&dashboard, &visitor, String::new(), (slug, name)).await?;
        return refused(&again);
    };
    let actor = visitor.caller.actor.clone();
    let made = dashboard.desk.change(move |desk| {
        let editor = desk.system.store.by(&actor);
        Ok(editor.create_organization(&meant_slug, meant_name.as_deref())?)
    });
    match made.await {
        Ok(made) => {
            let notice = format!("The organization {} is made.", made.slug);
            let credentials = format!("/organizations/{}/credentials", made.slug);
            Ok(visitor.sent_on(notice, &credentials))
        }
        Err(problem) if problem.code == Code::AlreadyExists => {
            slug.error = Some(problem.detail().to_owned());
            let again = gather(&dashboard, &visitor, String::new(), (slug, name)).await?;
            refused(&again)
        }
        Err(problem) => Err(problem.into()),
    }
}

#[derive(Template)]
#[template(path = "organization.html")]
struct OrganizationPage {
    frame: Frame,
    row: Row,
    /// Whether it has to stay.
    is_default: bool,
    name: Field,
    limits: LimitsForm,
    confirm: Field,
    /// Whether live sessions are to end, too.
    disconnect: bool,
}

/// Shows one.
pub(super) async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
) -> Result<Response, ErrorPage> {
    shown(&dashboard, &visitor, slug, None, None, None).await
}

async fn shown(
    dashboard: &Dashboard,
    visitor: &Visitor,
    slug: String,
    name: Option<Field>,
    limits: Option<Vec<Field>>,
    confirm: Option<(Field, bool)>,
) -> Result<Response, ErrorPage> {
    let status = match (&name, &limits, &confirm) {
        (None, None, None) => StatusCode::OK,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let frame = visitor.frame(Section::Organizations).of(&slug);
    let found = dashboard.desk.run(move |desk| {
        let found = desk.system.store.organization(&slug)?;
        let uses = desk.uses_of_organization(&found)?;
        Ok((found, uses))
    });
    let (found, uses) = found.await?;
    let defaults = &dashboard.desk.system.quotas.defaults().organization;
    let set = LimitsForm::of(false, &found.limits, defaults, &uses);
    let (confirm, disconnect) = confirm.unwrap_or_default();
    let live = dashboard.desk.system.sessions.count_in(&found.slug);
    let written = Field::of(found.name.as_deref().unwrap_or_default());
    page_with(
        status,
        &OrganizationPage {
            frame,
            is_default: found.slug == DEFAULT_ORGANIZATION,
            name: name.unwrap_or(written),
            limits: match limits {
                Some(sent) => set.refilled(sent),
                None => set,
            },
            confirm,
            disconnect,
            row: Row::of(found, live),
        },
    )
}

/// Gives it another name, or none.
pub(super) async fn rename(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let mut field = form.field("name");
    let Some(name) = field.read(optional_name) else {
        return shown(&dashboard, &visitor, slug, Some(field), None, None).await;
    };
    let notice = match &name {
        Some(name) => format!("The organization is called {name} now."),
        None => "The organization has no name but its slug any more.".to_owned(),
    };
    let back = format!("/organizations/{slug}");
    let change = OrganizationChange {
        name: Some(name),
        ..OrganizationChange::default()
    };
    edit(&dashboard, &visitor, &slug, change, false).await?;
    Ok(visitor.sent_on(notice, &back))
}

/// Sets how much all its credentials may send together.
pub(super) async fn limit(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    // Else whom the instance has limited could lift that.
    visitor.caller.require_instance(Access::Admin)?;
    let limits = match read_limits(&form, false) {
        Ok(limits) => limits,
        Err(fields) => return shown(&dashboard, &visitor, slug, None, Some(fields), None).await,
    };
    let back = format!("/organizations/{slug}");
    let change = OrganizationChange {
        limits: Some(limits),
        ..OrganizationChange::default()
    };
    edit(&dashboard, &visitor, &slug, change, false).await?;
    let notice = "The limits count from now on, in live sessions with their next message.";
    Ok(visitor.sent_on(notice, &back))
}

/// Keeps all its credentials from being used.
pub(super) async fn suspend(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let disconnect = form.ticked("disconnect");
    let status = OrganizationStatus::Suspended;
    set_status(&dashboard, &visitor, &slug, status, disconnect).await?;
    let notice = match disconnect {
        true => {
            "The organization is suspended: every login with its credentials is refused from now on, and its live sessions have ended."
        }
        false => {
            "The organization is suspended: every login with its credentials is refused from now on. Sessions that were live go on until their clients leave."
        }
    };
    Ok(visitor.sent_on(notice, &format!("/organizations/{slug}")))
}

/// Lets them be used again.
pub(super) async fn activate(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    _: Form,
) -> Result<Response, ErrorPage> {
    set_status(
        &dashboard,
        &visitor,
        &slug,
        OrganizationStatus::Active,
        false,
    )
    .await?;
    let notice = "The organization is active again: its credentials may be used, each as far as it may itself.";
    Ok(visitor.sent_on(notice, &format!("/organizations/{slug}")))
}

async fn set_status(
    dashboard: &Dashboard,
    visitor: &Visitor,
    slug: &str,
    status: OrganizationStatus,
    disconnect: bool,
) -> Result<(), Problem> {
    // Else whom the instance has suspended could lift that.
    visitor.caller.require_instance(Access::Admin)?;
    let change = OrganizationChange {
        status: Some(status),
        ..OrganizationChange::default()
    };
    edit(dashboard, visitor, slug, change, disconnect).await
}

async fn edit(
    dashboard: &Dashboard,
    visitor: &Visitor,
    slug: &str,
    change: OrganizationChange,
    disconnect: bool,
) -> Result<(), Problem> {
    let actor = &visitor.caller.actor;
    let desk = &dashboard.desk;
    let edited = desk.edit_organization(actor, slug, None, change, disconnect);
    edited.await.map(drop)
}

/// Deletes it with its credentials, if that was confirmed.
pub(super) async fn delete(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_instance(Access::Admin)?;
    let (mut confirm, disconnect) = (form.field("confirm"), form.ticked("disconnect"));
    if confirm.value.trim() != slug {
        confirm.error = Some("this is not its slug; nothing was deleted".to_owned());
        return shown(
            &dashboard,
            &visitor,
            slug,
            None,
            None,
            Some((confirm, disconnect)),
        )
        .await;
    }
    let sessions = match disconnect {
        true => "Its live sessions have ended.",
        false => "Sessions that were live go on until their clients leave.",
    };
    let notice = format!(
        "The organization {slug} is deleted, with its credentials and its tokens. {sessions}"
    );
    let actor = &visitor.caller.actor;
    let desk = &dashboard.desk;
    let deleted = desk.delete_organization(actor, &slug, None, true, disconnect);
    deleted.await?;
    Ok(visitor.sent_on(notice, "/organizations"))
}
