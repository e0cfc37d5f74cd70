//! Admin tokens.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use uuid::Uuid;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::auth::token;
use crate::store::{Access, Kind, Once, Page, Scope, StoreError, Token};

use super::Dashboard;
use super::address::{Path, Query};
use super::error::ErrorPage;
use super::form::{Field, Form, TimeField, name};
use super::frame::{Frame, Section, page, refused};
use super::guard::Visitor;
use super::new_credential::once_only;
use super::sign_ins::unguessable;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: u32 = 50;

/// For how many organizations the form offers scopes; for others there are the API and the command line.
const OFFERED: u32 = 200;

struct Row {
    id: Uuid,
    name: String,
    scope: String,
    state: &'static str,
    created: Stamp,
    expires: Option<Stamp>,
    last_used: Option<(Stamp, String)>,
    may_be_revoked: bool,
}

impl Row {
    fn of(token: Token, caller: &Caller) -> Row {
        let now = crate::clock::now_ms();
        let is_valid = token.is_valid(now);
        Row {
            id: token.id,
            state: match (token.revoked_at, is_valid) {
                (Some(_), _) => "Revoked",
                (None, false) => "Expired",
                (None, true) => "Valid",
            },
            created: Stamp(token.created_at),
            expires: token.expires_at.map(Stamp),
            last_used: token.last_used_at.map(|at| {
                let from = token.last_used_address.clone();
                (
                    Stamp(at),
                    from.unwrap_or_else(|| "the unix socket".to_owned()),
                )
            }),
            may_be_revoked: token.revoked_at.is_none()
                && caller.reaches(token.scope.organization.as_deref(), Access::Admin),
            scope: token.scope.to_string(),
            name: token.name,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    after: Option<i64>,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    tokens: Vec<Row>,
    next: Option<i64>,
    name: Field,
    /// Every scope that may be given, and whether it is chosen.
    scopes: Vec<(String, bool)>,
    /// Whether there are organizations whose scopes are not among them.
    some_missing: bool,
    scope_error: Option<String>,
    expires_at: TimeField,
    once: String,
}

#[derive(Template)]
#[template(path = "token_issued.html")]
struct TokenIssued<'a> {
    frame: Frame,
    name: &'a str,
    scope: String,
    secret: &'a str,
}

/// What somebody has filled in so far.
#[derive(Default)]
struct Filled {
    name: Field,
    scope: Field,
    expires_at: TimeField,
}

/// Shows the tokens, and the form for another.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    page(&gather(&dashboard, &visitor, asked.after, Filled::default()).await?)
}

async fn gather(
    dashboard: &Dashboard,
    visitor: &Visitor,
    after: Option<i64>,
    filled: Filled,
) -> Result<TokensPage, ErrorPage> {
    let caller = visitor.caller.clone();
    let found = dashboard.desk.run(move |desk| {
        let organizations = caller.organizations(Access::Read);
        let wanted = Page { after, limit: ROWS };
        let tokens = desk.system.store.tokens(organizations.as_deref(), wanted)?;
        let tokens = tokens.map(|token| Row::of(desk.token_up_to_date(token), &caller));
        Ok((tokens, scopes(desk, &caller)?))
    });
    let (tokens, (scopes, some_missing)) = found.await?;
    let chosen = filled.scope.value;
    let scopes = scopes.into_iter().map(|scope| {
        let is_chosen = scope == chosen;
        (scope, is_chosen)
    });
    Ok(TokensPage {
        frame: visitor.frame(Section::Tokens),
        tokens: tokens.rows,
        next: tokens.next,
        name: filled.name,
        scopes: scopes.collect(),
        some_missing,
        scope_error: filled.scope.error,
        expires_at: filled.expires_at,
        once: unguessable(),
    })
}

/// Every scope that the caller may give, and whether there are more.
fn scopes(desk: &Desk, caller: &Caller) -> Result<(Vec<String>, bool), Problem> {
    let mut slugs = match caller.organizations(Access::Read) {
        Some(own) => own,
        None => {
            let organizations = desk.system.store.organizations(None, OFFERED + 1)?;
            organizations.into_iter().map(|found| found.slug).collect()
        }
    };
    let some_missing = slugs.len() > OFFERED as usize;
    slugs.truncate(OFFERED as usize);
    let of = |organization: Option<String>| {
        [Access::Admin, Access::Read].map(|access| Scope {
            organization: organization.clone(),
            access,
        })
    };
    let all = of(None).into_iter();
    let all = all.chain(slugs.into_iter().flat_map(|slug| of(Some(slug))));
    let may_give = all.filter(|scope| caller.covers(scope));
    let scopes = may_give.map(|scope| scope.to_string()).collect();
    Ok((scopes, some_missing))
}

/// Makes a token that may do no more, and no longer, than the one it is made with, and shows it this one time.
pub(super) async fn create(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, ErrorPage> {
    let caller = visitor.caller.clone();
    let (mut own_name, mut scope) = (form.field("name"), form.field("scope"));
    let meant_name = own_name.read(name);
    let meant_scope = scope.read(|text| {
        if text.is_empty() {
            return Err("choose what it may do".to_owned());
        }
        let scope: Scope = text.parse()?;
        match caller.scope.covers(&scope) {
            true => Ok(scope),
            false => Err("your own token does not allow this much".to_owned()),
        }
    });
    let (mut expires_at, meant_end) = form.expiry();
    let meant_end = meant_end.and_then(|end| {
        let bounded = caller.bounded(end);
        if let Err(problem) = &bounded {
            expires_at.error = Some(problem.detail().to_owned());
        }
        bounded.ok()
    });
    let (Some(meant_name), Some(meant_scope), Some(meant_end)) =
        (meant_name, meant_scope, meant_end)
    else {
        let filled = Filled {
            name: own_name,
            scope,
            expires_at,
        };
        let again = gather(&dashboard, &visitor, None, filled).await?;
        return refused(&again);
    };
    let once = Once::from(form.once()?);
    let made = dashboard.desk.change(move |desk| {
        let editor = desk.system.store.by(&caller.actor).once(Some(&once));
        Ok(token::issue(editor, &meant_name, &meant_scope, meant_end)?)
    });
    let issued = made.await.map_err(once_only)?;
    let secret = str::from_utf8(issued.secret.expose());
    page(&TokenIssued {
        frame: visitor.frame(Section::Tokens),
        name: &issued.token.name,
        scope: issued.token.scope.to_string(),
        secret: secret.map_err(|error| Problem::internal(&error))?,
    })
}

#[derive(Template)]
#[template(path = "token_revoke.html")]
struct TokenRevoke {
    frame: Frame,
    token: Token,
    /// Whether it is the one that the visitor signed in with.
    is_own: bool,
}

/// Asks whether to revoke one: that cannot be undone.
pub(super) async fn ask_revoke(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, ErrorPage> {
    let caller = visitor.caller.clone();
    let found = dashboard.desk.run(move |desk| {
        let token = desk.system.store.token(&id.to_string())?;
        let organization = token.scope.organization.as_deref();
        if !caller.reaches(organization, Access::Admin) {
            return Err(StoreError::not_found(Kind::Token, &id.to_string()).into());
        }
        Ok(token)
    });
    let token = found.await?;
    page(&TokenRevoke {
        frame: visitor.frame(Section::Tokens),
        is_own: visitor.caller.actor.token == Some(token.key),
        token,
    })
}

/// Revokes one, for good.
pub(super) async fn revoke(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
    _: Form,
) -> Result<Response, ErrorPage> {
    let revoked = dashboard.desk.revoke_token(&visitor.caller, id.to_string());
    let revoked = revoked.await?;
    if visitor.caller.actor.token == Some(revoked.key) {
        return Ok(Redirect::to("/sign-in?left=revoked").into_response());
    }
    let notice = format!(
        "The token {} is revoked: nobody can do anything with it any more, and whoever signed in with it is signed out. Tokens that were made with it stay valid.",
        revoked.name
    );
    Ok(visitor.sent_on(notice, "/tokens"))
}
