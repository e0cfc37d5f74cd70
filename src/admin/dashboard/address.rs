//! What the address of a page says: its path and its query.

use askama::filters::urlencode_strict;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};

use crate::admin::problem::Problem;

use super::error::ErrorPage;

/// What the path names.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ErrorPage))]
pub(super) struct Path<T>(pub(super) T);

/// What the query asks for.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ErrorPage))]
pub(super) struct Query<T>(pub(super) T);

/// Stands before a username whose own text would be another address.
pub(super) const MARK: char = '~';

/// The page of a credential. Usernames that were not made here may hold anything: `new` is the form
/// that makes one, and browsers and proxies shorten paths with dots.
pub(super) fn of_credential(slug: &str, username: &str) -> String {
    let Ok(encoded) = urlencode_strict(username);
    match username {
        "" | "." | ".." | "new" => format!("/organizations/{slug}/credential/{MARK}{encoded}"),
        _ => format!("/organizations/{slug}/credentials/{encoded}"),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_stays_one_part_of_the_path() {
        assert_eq!(
            of_credential("acme", "smtp_a"),
            "/organizations/acme/credentials/smtp_a"
        );
        for name in ["new", ".", "..", ""] {
            let marked = format!("/organizations/acme/credential/~{name}");
            assert_eq!(of_credential("acme", name), marked);
        }
        let odd = of_credential("acme", "a/b?c#d e\u{e9}%@x.test");
        assert_eq!(
            odd,
            "/organizations/acme/credentials/a%2Fb%3Fc%23d%20e%C3%A9%25%40x.test"
        );
    }
}
