//! Who may see a page, and what may be sent to it.

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::admin::caller::Caller;
use crate::admin::gate::{self, neighbour};
use crate::admin::problem::{Code, Problem};
use crate::admin::proxy_auth::Person;
use crate::admin::workers;
use crate::net::listener::Neighbour;

use super::Dashboard;
use super::cookies::{Cookies, SESSION};
use super::error::ErrorPage;
use super::form::{self, Form};
use super::frame::{Frame, Section};
use super::sign_ins::SignIn;

/// All that a page may load or do. There is no inline script or style, so nothing slipped in would run.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Who looks at a page. Put into the request by [`signed_in`].
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) sign_in: Arc<SignIn>,
}

impl Visitor {
    /// What is around a page of this section.
    pub(super) fn frame(&self, section: Section) -> Frame {
        Frame::new(self, section)
    }

    /// Sends them on to another page, which tells them what was done.
    pub(super) fn sent_on(&self, notice: impl Into<String>, path: &str) -> Response {
        self.sign_in.tell(notice.into());
        Redirect::to(path).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = ErrorPage;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visitor, ErrorPage> {
        let visitor = parts.extensions.get::<Visitor>().cloned();
        visitor.ok_or_else(|| Problem::internal(&"a page lies outside the guard").into())
    }
}

/// Lets through what was sent to a name of ours by a page of ours, or by somebody who typed it.
pub(super) async fn from_here(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ErrorPage> {
    dashboard.gate.check_host(&request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        dashboard.gate.check_form_origin(&request)?;
    }
    let person = dashboard.gate.person(&request)?;
    request.extensions_mut().insert(person);
    Ok(next.run(request).await)
}

/// Lets those through to a page who may see it, and to an action those who may do such things.
pub(super) async fn allowed(
    visitor: Visitor,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, ErrorPage> {
    gate::authorize(&visitor.caller, parameters, request.method())?;
    Ok(next.run(request).await)
}

/// Lets those through who are signed in, and to an action those whom one of our forms sent.
pub(super) async fn signed_in(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ErrorPage> {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let by_token = visitor(
        &dashboard,
        Cookies::of(&request),
        request.headers(),
        neighbour(&request)?,
    );
    let visitor = match by_token.await? {
        Some(visitor) => Some(visitor),
        None => {
            let person = request.extensions().get::<Option<Person>>().cloned();
            match person.flatten() {
                Some(person) => {
                    let caller = person.caller(&request)?;
                    let sign_in = dashboard.sign_ins.of_person(&person.name).await;
                    Some(Visitor { caller, sign_in })
                }
                None => None,
            }
        }
    };
    let visitor = match visitor {
        Some(visitor) => visitor,
        None if looks => return Ok(to_sign_in(&request)),
        None => {
            let detail = "you are signed out, and nothing was changed; sign in and do it again";
            return Err(Problem::new(Code::Unauthorized, detail).into());
        }
    };
    if !looks {
        let form = Form::read(&mut request).await?;
        form.require_csrf(&visitor.sign_in.csrf)?;
        request.extensions_mut().insert(form);
    }
    request.extensions_mut().insert(visitor.clone());
    Ok(workers::on_behalf_of(&visitor.caller, next.run(request)).await)
}

async fn visitor(
    dashboard: &Dashboard,
    cookies: Cookies,
    headers: &HeaderMap,
    from: Neighbour,
) -> Result<Option<Visitor>, Problem> {
    let Some(name) = cookies.get(headers, SESSION) else {
        return Ok(None);
    };
    let Some(sign_in) = dashboard.sign_ins.find(name).await else {
        return Ok(None);
    };
    let Some(token) = sign_in.token else {
        return Ok(None);
    };
    match dashboard.gate.by_hash(token, from).await? {
        Ok(caller) => Ok(Some(Visitor { caller, sign_in })),
        Err(_) => {
            dashboard.sign_ins.leave(name).await;
            Ok(None)
        }
    }
}

fn to_sign_in(request: &Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |to| to.as_str());
    let query = form::query([("next", path)]);
    Redirect::to(&format!("/sign-in?{query}")).into_response()
}

/// Tells browsers what the dashboard never does, so that they refuse it.
pub(super) async fn fence(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    // With no-referrer, browsers would send forms with Origin: null.
    let referrer = HeaderValue::from_static("same-origin");
    headers.insert(REFERRER_POLICY, referrer.clone());
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, referrer.clone());
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, referrer);
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
