//! What is around every page: who looks at it, where they can go, and what was done last.

use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};

use crate::admin::problem::Problem;
use crate::store::{Access, DEFAULT_ORGANIZATION};

use super::assets;
use super::error::ErrorPage;
use super::guard::Visitor;
use super::sign_ins::SignIn;

/// Which of the ways in the menu was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Section {
    Audit,
    Credentials,
    Guard,
    Organizations,
    Overview,
    Sessions,
    Tokens,
}

/// What is around a page.
pub(super) struct Frame {
    pub(super) csrf: String,
    sign_in: Arc<SignIn>,
    section: Section,
    /// Whose credentials the menu leads to.
    pub(super) slug: String,
    /// The token's name, or the person's.
    pub(super) who: String,
    /// Whether a reverse proxy has signed the visitor in, who can sign out only there.
    pub(super) is_by_proxy: bool,
    /// What it may do.
    pub(super) scope: String,
    /// Whether it may change anything.
    pub(super) may_change: bool,
    /// Whether it is for all organizations.
    pub(super) is_instance: bool,
    pub(super) assets: &'static str,
}

impl Frame {
    pub(super) fn new(visitor: &Visitor, section: Section) -> Frame {
        let scope = &visitor.caller.scope;
        let own = scope.organization.as_deref();
        Frame {
            csrf: visitor.sign_in.csrf.clone(),
            sign_in: visitor.sign_in.clone(),
            section,
            slug: own.unwrap_or(DEFAULT_ORGANIZATION).to_owned(),
            who: visitor.caller.name.clone(),
            is_by_proxy: visitor.sign_in.token.is_none(),
            scope: visitor.caller.scope_words(),
            may_change: scope.access == Access::Admin,
            is_instance: own.is_none(),
            assets: assets::version(),
        }
    }

    /// On pages of this organization.
    pub(super) fn of(self, slug: &str) -> Frame {
        Frame {
            slug: slug.to_owned(),
            ..self
        }
    }

    /// What the action before this page left word of. It is told once, so it is taken only when the page is written.
    pub(super) fn notice(&self) -> Option<String> {
        self.sign_in.take_notice()
    }

    /// How the menu marks the way to this section.
    pub(super) fn here(&self, section: &str) -> &'static str {
        let own = match self.section {
            Section::Audit => "audit",
            Section::Credentials => "credentials",
            Section::Guard => "guard",
            Section::Organizations => "organizations",
            Section::Overview => "overview",
            Section::Sessions => "sessions",
            Section::Tokens => "tokens",
        };
        if own == section { "page" } else { "false" }
    }
}

/// Writes a page.
pub(super) fn page(template: &impl Template) -> Result<Response, ErrorPage> {
    page_with(StatusCode::OK, template)
}

/// Writes a page again whose form was not accepted.
pub(super) fn refused(template: &impl Template) -> Result<Response, ErrorPage> {
    page_with(StatusCode::UNPROCESSABLE_ENTITY, template)
}

pub(super) fn page_with(
    status: StatusCode,
    template: &impl Template,
) -> Result<Response, ErrorPage> {
    let text = template
        .render()
        .map_err(|error| Problem::internal(&error))?;
    Ok((status, Html(text)).into_response())
}
