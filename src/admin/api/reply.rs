//! The forms of answers that several routes share.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::Rows;

/// Part of a list.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct List<T> {
    /// In the order of the list. With a filter there may be fewer than `limit`, or none, although
    /// more follow.
    pub items: Vec<T>,
    /// `after` for the page that follows; null when this was the end.
    pub next: Option<String>,
}

impl<T> From<Rows<T>> for List<T> {
    fn from(rows: Rows<T>) -> List<T> {
        List {
            items: rows.rows,
            next: rows.next.map(|key| key.to_string()),
        }
    }
}

/// Something that can be edited, with the tag of the state it is in.
pub(super) struct Tagged<T> {
    pub(super) revision: String,
    pub(super) body: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        ([(ETAG, format!("\"{}\"", self.revision))], Json(self.body)).into_response()
    }
}

/// Something that was made, and where it is.
pub(super) struct Created<T> {
    pub(super) location: String,
    pub(super) body: T,
}

impl<T: IntoResponse> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, [(LOCATION, self.location)], self.body).into_response()
    }
}

/// An answer with a secret: nobody on the way may keep it.
pub(super) struct Confidential<T>(pub(super) T);

impl<T: IntoResponse> IntoResponse for Confidential<T> {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "no-store")], self.0).into_response()
    }
}
