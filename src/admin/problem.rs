//! What is said when a request is not carried out: problem documents (RFC 9457) with codes that programs can rely on.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::issue::IssueError;
use crate::log::Throttle;
use crate::store::{Fault, Made, StoreError};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident = $status:ident $text:literal,)+) => {
        /// Every kind of problem; the status goes with the code.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Code { $($(#[doc = $doc])+ $code,)+ }

        impl Code {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &'static [Code] = &[$(Code::$code,)+];

            /// What the document says.
            pub(super) fn as_str(self) -> &'static str {
                match self { $(Code::$code => $text,)+ }
            }

            /// What the answer begins with.
            pub(super) fn status(self) -> StatusCode {
                match self { $(Code::$code => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    /// The slug is taken, or was.
    AlreadyExists = CONFLICT "already-exists",
    /// What was there when the caller looked is not there any more.
    Changed = PRECONDITION_FAILED "changed",
    /// A change that takes access away counts, but is not written.
    EffectiveNotDurable = INSUFFICIENT_STORAGE "effective-not-durable",
    /// The token does not allow this.
    Forbidden = FORBIDDEN "forbidden",
    /// A page of another site sent this.
    ForeignOrigin = FORBIDDEN "foreign-origin",
    /// The request was for another name than ours.
    ForeignHost = FORBIDDEN "foreign-host",
    /// Something here is broken.
    Internal = INTERNAL_SERVER_ERROR "internal",
    /// The body's fields are not what they must be.
    Invalid = UNPROCESSABLE_ENTITY "invalid",
    /// A header cannot be read.
    InvalidHeader = BAD_REQUEST "invalid-header",
    /// The path cannot be read.
    InvalidPath = BAD_REQUEST "invalid-path",
    /// A query parameter is unknown or wrong.
    InvalidQuery = BAD_REQUEST "invalid-query",
    /// This Idempotency-Key came with another request before.
    KeyReused = UNPROCESSABLE_ENTITY "key-reused",
    /// The body is not JSON.
    MalformedBody = BAD_REQUEST "malformed-body",
    /// There is such a path, but not for this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed",
    /// The organization still has credentials.
    NotEmpty = CONFLICT "not-empty",
    /// There is nothing of that name.
    NotFound = NOT_FOUND "not-found",
    /// The organization has to stay.
    Protected = CONFLICT "protected",
    /// A request with this Idempotency-Key was carried out already.
    Repeated = CONFLICT "repeated",
    /// Another process keeps the store locked, or too many requests wait for it.
    StoreBusy = SERVICE_UNAVAILABLE "store-busy",
    /// There is no room on the disk.
    StoreFull = INSUFFICIENT_STORAGE "store-full",
    /// The store cannot be used.
    StoreUnavailable = SERVICE_UNAVAILABLE "store-unavailable",
    /// The body is too large.
    TooLarge = PAYLOAD_TOO_LARGE "too-large",
    /// The body came too slowly.
    TooSlow = REQUEST_TIMEOUT "too-slow",
    /// Too many wrong tokens came from this address.
    TooManyFailures = TOO_MANY_REQUESTS "too-many-failures",
    /// The reverse proxy has signed in a person who has no scope.
    UnknownPerson = FORBIDDEN "unknown-person",
    /// There is no token, or not a valid one.
    Unauthorized = UNAUTHORIZED "unauthorized",
    /// The body is not said to be JSON.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type",
    /// A header that names a person did not come once from a trusted reverse proxy.
    UntrustedProxy = FORBIDDEN "untrusted-proxy",
}

/// Seconds after which a busy store is worth another try.
const BUSY_RETRY: u64 = 1;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    detail: String,
    errors: Vec<FieldError>,
    made: Option<String>,
    location: Option<String>,
    retry_after: Option<u64>,
}

/// What is wrong with one field.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field, as a JSON pointer in a fragment: `#/name`. `#` is the whole body.
    pub(super) pointer: String,
    /// What is wrong with it.
    pub(super) detail: String,
}

/// A problem (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument {
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Which problem it is; this text stays the same for ever.
    #[schema(example = "not-found")]
    code: &'static str,
    /// What happened, and what to do about it.
    detail: String,
    /// The fields that are wrong, where the body was read but not accepted; the first 20 of them.
    #[schema(max_items = 20)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// What a repeated request made the first time: its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<String>,
}

impl Problem {
    /// A problem of this kind; `detail` is for people.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            made: None,
            location: None,
            retry_after: None,
        }
    }

    /// Fields of the body are wrong.
    pub(super) fn fields(errors: Vec<FieldError>) -> Problem {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} fields are not valid", several.len()),
        };
        Problem {
            errors,
            ..Problem::new(Code::Invalid, detail)
        }
    }

    /// A field of the body is wrong.
    pub(super) fn field(pointer: &str, detail: String) -> Problem {
        Problem::fields(vec![FieldError {
            pointer: pointer.to_owned(),
            detail,
        }])
    }

    /// It may be worth another try after so many seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Problem {
        Problem {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// Something here went wrong that the caller can do nothing about; the log has it.
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Problem {
        log_failure(error);
        Problem::new(
            Code::Internal,
            "this is a fault of Gatepost's; its log says more",
        )
    }

    /// A change that counts but is not written; `effective` says what counts. The log names the
    /// fault of the store.
    pub(super) fn not_durable(effective: &str) -> Problem {
        Problem::new(
            Code::EffectiveNotDurable,
            format!(
                "{effective}, but that is not written yet and would be forgotten by a restart; this, and nothing else that was asked for with it, is tried again every second, and Gatepost's log says what is wrong"
            ),
        )
    }

    /// What is said of it to people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// After how many seconds it may be worth another try.
    pub(super) fn worth_a_try_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// The store has no time now.
    pub(super) fn busy(detail: &str) -> Problem {
        Problem {
            retry_after: Some(BUSY_RETRY),
            ..Problem::new(Code::StoreBusy, detail)
        }
    }

    pub(super) fn document(self) -> (StatusCode, ProblemDocument) {
        let status = self.code.status();
        let document = ProblemDocument {
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: self.detail,
            errors: self.errors,
            made: self.made,
        };
        (status, document)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after;
        let location = self.location.as_deref().map(HeaderValue::from_str);
        let (status, document) = self.document();
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"gatepost\"");
            headers.insert(WWW_AUTHENTICATE, scheme);
        }
        // A username that was written by hand may not fit into a header.
        if let Some(Ok(location)) = location {
            headers.insert(LOCATION, location);
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Logs the cause, which the caller does not get.
fn log_failure(error: &dyn std::fmt::Display) {
    static FAILED: Throttle = Throttle::new();
    let error = error.to_string();
    if let Some(count) = FAILED.due_for(&error) {
        tracing::error!(%error, count, "a request of the administration failed");
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        // Where the store is, and what ails it, is for whoever reads the log.
        let unavailable = |code: Code, detail: &str| {
            log_failure(&error);
            Problem::new(code, detail)
        };
        match &error {
            StoreError::AlreadyExists { .. } | StoreError::SlugUsed { .. } => {
                Problem::new(Code::AlreadyExists, error.to_string())
            }
            StoreError::Busy { .. } => {
                Problem::busy("another process keeps the store locked; try again")
            }
            StoreError::Changed { .. } => Problem::new(Code::Changed, error.to_string()),
            StoreError::KeyReused => Problem::new(Code::KeyReused, error.to_string()),
            StoreError::Full { .. } => unavailable(
                Code::StoreFull,
                "the disk is full and nothing was changed; free some space and try again",
            ),
            StoreError::Invalid(detail) => Problem::new(Code::Invalid, detail.clone()),
            StoreError::NotEmpty { slug, credentials } => Problem::new(
                Code::NotEmpty,
                format!(
                    "organization {slug:?} still has {credentials} credential(s): delete them first, or with it by ?force=true"
                ),
            ),
            StoreError::NotFound { kind, name } => {
                Problem::new(Code::NotFound, format!("there is no {kind} {name:?}"))
            }
            StoreError::Protected { .. } => Problem::new(Code::Protected, error.to_string()),
            StoreError::TokenInvalid => Problem::new(Code::Unauthorized, error.to_string()),
            StoreError::TooMuch => Problem::busy(
                "this takes too long to find; ask for less, by a narrower filter or a shorter time",
            ),
            StoreError::Repeated { made, found } => Problem {
                made: Some(made.clone()),
                location: found.as_ref().map(|found| place(found, made)),
                ..Problem::new(Code::Repeated, error.to_string())
            },
            _ if error.fault() == Fault::Request => Problem::new(Code::Invalid, error.to_string()),
            _ => unavailable(
                Code::StoreUnavailable,
                "the store cannot be used; Gatepost's log says why",
            ),
        }
    }
}

/// Where something is that was made.
fn place(found: &Made, id: &str) -> String {
    match found {
        Made::Credential {
            organization,
            username,
        } => format!("/api/v1/organizations/{organization}/credentials/{username}"),
        Made::Organization(slug) => format!("/api/v1/organizations/{slug}"),
        Made::Token => format!("/api/v1/tokens/{id}"),
    }
}

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Problem {
        match error {
            IssueError::Hash(error) => Problem::internal(&error),
            IssueError::Store(error) => error.into(),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::new(Code::InvalidQuery, cause(&rejection))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::new(Code::InvalidPath, cause(&rejection))
    }
}

/// What is behind an error, without the layers around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_problems_have_one_code() {
        let codes: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400));
    }

    #[test]
    fn every_code_is_in_the_documents_with_its_status() {
        let page = include_str!("../../docs/src/use/api.md");
        for code in Code::ALL {
            let (status, text) = (code.status().as_u16(), code.as_str());
            let mut rows = page.lines().filter(|line| line.starts_with("| "));
            let is_told = rows.any(|row| {
                let cells: Vec<_> = row.split(" | ").collect();
                cells.len() == 3
                    && cells[0].contains(&status.to_string())
                    && cells[1].contains(&format!("`{text}`"))
            });
            assert!(is_told, "{status} {text}");
        }
    }

    #[test]
    fn a_damaged_store_is_not_described_to_the_caller() {
        let error = StoreError::Corrupt {
            path: "/var/lib/secret-place".into(),
            detail: "page 7".to_owned(),
        };
        let (status, document) = Problem::from(error).document();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!document.detail.contains("secret-place") && !document.detail.contains("page 7"));
    }
}
