//! What is shown instead of a page.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{Html, IntoResponse, Response};

use crate::admin::problem::{Code, Problem};
use crate::store::StoreError;

use super::assets;
use super::guard::Visitor;

/// Why there is no page.
pub(super) struct ErrorPage(Problem);

impl From<Problem> for ErrorPage {
    fn from(problem: Problem) -> ErrorPage {
        ErrorPage(problem)
    }
}

impl From<StoreError> for ErrorPage {
    fn from(error: StoreError) -> ErrorPage {
        ErrorPage(error.into())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Shown<'a> {
    heading: &'static str,
    detail: &'a str,
    is_signed_out: bool,
    assets: &'static str,
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let ErrorPage(problem) = self;
        let status = problem.code.status();
        let shown = Shown {
            heading: heading(problem.code),
            detail: problem.detail(),
            is_signed_out: status == StatusCode::UNAUTHORIZED
                || problem.code == Code::UnknownPerson,
            assets: assets::version(),
        };
        let text = shown.render().unwrap_or_default(); // at worst an empty page with the right status
        let mut response = (status, Html(text)).into_response();
        if let Some(seconds) = problem.worth_a_try_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn heading(code: Code) -> &'static str {
    match code {
        Code::Changed | Code::Repeated => "This was done already",
        Code::EffectiveNotDurable => "Effective, but not saved",
        Code::Forbidden => "You may not do this",
        Code::ForeignHost | Code::ForeignOrigin | Code::UntrustedProxy => {
            "This did not come from here"
        }
        Code::Internal => "Something is broken",
        Code::MethodNotAllowed => "This cannot be done here",
        Code::NotFound => "There is no such page",
        Code::StoreBusy => "The store is busy",
        Code::StoreFull | Code::StoreUnavailable => "The store cannot be used",
        Code::TooManyFailures => "Too many wrong tokens",
        Code::Unauthorized => "You are signed out",
        Code::UnknownPerson => "You have no access here",
        _ => "This did not work",
    }
}

/// For paths that lead nowhere.
pub(super) async fn not_found(_: Visitor) -> ErrorPage {
    Problem::new(
        Code::NotFound,
        "nothing is at this address; it may have been deleted",
    )
    .into()
}

/// For forms sent to a page, or pages asked of an action.
pub(super) async fn method_not_allowed() -> ErrorPage {
    Problem::new(
        Code::MethodNotAllowed,
        "this address takes only what a form of the dashboard sends to it",
    )
    .into()
}
