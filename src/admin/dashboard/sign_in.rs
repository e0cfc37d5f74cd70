//! Signing in with a token, and out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::admin::gate::neighbour;
use crate::admin::problem::Code;
use crate::auth::token;
use crate::sasl::Secret;

use super::address::Query;
use super::cookies::{Cookies, FORM, SESSION};
use super::error::ErrorPage;
use super::form::{Field, Form};
use super::frame::page_with;
use super::guard::Visitor;
use super::sign_ins::{LONGEST, unguessable};
use super::{Dashboard, assets};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    csrf: &'a str,
    next: &'a str,
    token: Field,
    notice: Option<&'static str>,
    assets: &'static str,
}

#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    next: String,
    left: String,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            next: "/".to_owned(),
            left: String::new(),
        }
    }
}

/// Asks for a token.
pub(super) async fn ask(
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, ErrorPage> {
    let cookies = Cookies::of(&request);
    let is_out = cookies.get(request.headers(), SESSION).is_none();
    let notice = match &*asked.left {
        "revoked" => Some("The token is revoked, and whoever had signed in with it is signed out."),
        "1" if is_out => Some("You have signed out."),
        _ => None,
    };
    let form = cookies.get(request.headers(), FORM);
    shown(
        StatusCode::OK,
        &cookies,
        form,
        &asked.next,
        Field::default(),
        notice,
    )
}

/// The form. Its secret is in a cookie, too, which pages of other sites cannot read.
fn shown(
    status: StatusCode,
    cookies: &Cookies,
    known: Option<&str>,
    next: &str,
    token: Field,
    notice: Option<&'static str>,
) -> Result<Response, ErrorPage> {
    let csrf = known.map_or_else(unguessable, str::to_owned);
    let page = SignInPage {
        csrf: &csrf,
        next: local(next),
        token,
        notice,
        assets: assets::version(),
    };
    let mut response = page_with(status, &page)?;
    if known.is_none() {
        let cookie = cookies.set(FORM, &csrf, None)?;
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Takes a token, and gives a session for it.
pub(super) async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
) -> Result<Response, ErrorPage> {
    let from = neighbour(&request)?;
    let cookies = Cookies::of(&request);
    let form = Form::read(&mut request).await?;
    let headers = request.headers();
    let known = cookies.get(headers, FORM);
    form.require_csrf(known.unwrap_or_default())?;
    let next = local(form.text("next"));
    let secret = Secret::new(form.text("token").trim());
    let presented = token::hash(form.text("token").trim());
    match dashboard.gate.by_token(&secret, from).await {
        Ok(_) => {}
        Err(problem) if matches!(problem.code, Code::Unauthorized | Code::TooManyFailures) => {
            let field = Field {
                value: String::new(), // a secret is not written into a page
                error: Some(problem.detail().to_owned()),
            };
            let status = problem.code.status();
            let mut response = shown(status, &cookies, known, next, field, None)?;
            if let Some(seconds) = problem.worth_a_try_after() {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            return Ok(response);
        }
        Err(problem) => return Err(problem.into()),
    }
    // Whoever signs in anew is not signed in as before any more.
    leave(&dashboard, &cookies, headers).await;
    let name = dashboard.sign_ins.enter(presented).await;
    let cookie = cookies.set(SESSION, &name, Some(LONGEST.as_secs()))?;
    let mut response = Redirect::to(next).into_response();
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

/// Gives a session to the browser that opens a link of [`super::SignInLink`]. A link that is wrong,
/// spent or too old leads to the form for a token.
pub(super) async fn by_link(
    State(dashboard): State<Arc<Dashboard>>,
    Path(code): Path<String>,
    request: Request,
) -> Result<Response, ErrorPage> {
    let Some(token) = dashboard.link.take(&code) else {
        return Ok(Redirect::to("/sign-in").into_response());
    };
    let cookies = Cookies::of(&request);
    let name = dashboard.sign_ins.enter(token).await;
    let cookie = cookies.set(SESSION, &name, Some(LONGEST.as_secs()))?;
    let mut response = Redirect::to("/").into_response();
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session.
pub(super) async fn sign_out(
    State(dashboard): State<Arc<Dashboard>>,
    _: Visitor,
    _: Form,
    request: Request,
) -> Result<Response, ErrorPage> {
    let cookies = Cookies::of(&request);
    leave(&dashboard, &cookies, request.headers()).await;
    let mut response = Redirect::to("/sign-in?left=1").into_response();
    for cookie in cookies.forget(SESSION)? {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn leave(dashboard: &Dashboard, cookies: &Cookies, headers: &HeaderMap) {
    for name in cookies.all(headers, SESSION) {
        dashboard.sign_ins.leave(name).await;
    }
}

/// Where to go afterwards: a path of ours, whatever was asked for. Two slashes, or one of the other kind, would lead browsers
/// to another host.
fn local(next: &str) -> &str {
    let mut bytes = next.bytes();
    let is_path = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_led_elsewhere() {
        assert_eq!(local("/audit?actor=a"), "/audit?actor=a");
        for elsewhere in [
            "",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "/a\r\nb",
            "audit",
        ] {
            assert_eq!(local(elsewhere), "/", "{elsewhere:?}");
        }
    }
}
