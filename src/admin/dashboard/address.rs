//! What the address of a page says: its path and its query.

use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};

use super::error::ErrorPage;
use crate::admin::problem::Problem;

/// What the path names.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ErrorPage))]
pub(super) struct Path<T>(pub(super) T);

/// What the query asks for.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ErrorPage))]
pub(super) struct Query<T>(pub(super) T);

impl From<PathRejection> for ErrorPage {
    fn from(rejection: PathRejection) -> ErrorPage {
        Problem::from(rejection).into()
    }
}

impl From<QueryRejection> for ErrorPage {
    fn from(rejection: QueryRejection) -> ErrorPage {
        Problem::from(rejection).into()
    }
}
