//! Signing in with a token, and out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::header::{ORIGIN, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::admin::gate::neighbour;
use crate::admin::problem::{Code, Problem};
use crate::auth::token;
use crate::sasl::Secret;

use super::address::Query;
use super::error::ErrorPage;
use super::form::{Field, Form};
use super::frame::page_with;
use super::guard::{COOKIE_BY_HTTP, COOKIE_BY_HTTPS, Visitor, cookie, session_name};
use super::sign_ins::{LONGEST, unguessable};
use super::{Dashboard, assets};

/// What the form of somebody who is not signed in yet brings back: it is in a cookie, too, which other sites can neither
/// read nor set.
const FORM_COOKIE: &str = "gatepost-form";

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
    headers: HeaderMap,
) -> Result<Response, ErrorPage> {
    let notice = (!asked.left.is_empty()).then_some("You have signed out.");
    shown(
        StatusCode::OK,
        &headers,
        &asked.next,
        Field::default(),
        notice,
    )
}

fn shown(
    status: StatusCode,
    headers: &HeaderMap,
    next: &str,
    token: Field,
    notice: Option<&'static str>,
) -> Result<Response, ErrorPage> {
    let known = cookie(headers, FORM_COOKIE).map(str::to_owned);
    let csrf = known.clone().unwrap_or_else(unguessable);
    let page = SignInPage {
        csrf: &csrf,
        next: local(next),
        token,
        notice,
        assets: assets::version(),
    };
    let mut response = page_with(status, &page)?;
    if known.is_none() {
        set_cookie(
            &mut response,
            &format!("{FORM_COOKIE}={csrf}; Path=/sign-in; HttpOnly; SameSite=Strict"),
        )?;
    }
    Ok(response)
}

/// Takes a token, and gives a session for it.
pub(super) async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
) -> Result<Response, ErrorPage> {
    let from = neighbour(&request)?;
    let form = Form::read(&mut request).await?;
    let headers = request.headers();
    form.require_csrf(cookie(headers, FORM_COOKIE).unwrap_or_default())?;
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
            let mut response = shown(problem.code.status(), headers, next, field, None)?;
            if let Some(seconds) = problem.worth_a_try_after() {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            return Ok(response);
        }
        Err(problem) => return Err(problem.into()),
    }
    let name = dashboard.sign_ins.enter(presented).await;
    let by_https = headers
        .get(ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let (cookie, secure) = match by_https {
        true => (COOKIE_BY_HTTPS, "; Secure"),
        false => (COOKIE_BY_HTTP, ""),
    };
    let mut response = Redirect::to(next).into_response();
    let longest = LONGEST.as_secs();
    set_cookie(
        &mut response,
        &format!("{cookie}={name}; Path=/; Max-Age={longest}; HttpOnly; SameSite=Strict{secure}"),
    )?;
    Ok(response)
}

/// Ends the session.
pub(super) async fn sign_out(
    State(dashboard): State<Arc<Dashboard>>,
    _: Visitor,
    _: Form,
    headers: HeaderMap,
) -> Result<Response, ErrorPage> {
    if let Some(name) = session_name(&headers) {
        dashboard.sign_ins.leave(name).await;
    }
    let mut response = Redirect::to("/sign-in?left=1").into_response();
    for (name, secure) in [(COOKIE_BY_HTTPS, "; Secure"), (COOKIE_BY_HTTP, "")] {
        if cookie(&headers, name).is_some() {
            set_cookie(
                &mut response,
                &format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict{secure}"),
            )?;
        }
    }
    Ok(response)
}

fn set_cookie(response: &mut Response, cookie: &str) -> Result<(), Problem> {
    let value = HeaderValue::from_str(cookie).map_err(|error| Problem::internal(&error))?;
    response.headers_mut().append(SET_COOKIE, value);
    Ok(())
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
