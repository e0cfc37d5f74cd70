//! `admin.base_path`: the path below which a reverse proxy has the administration.
//!
//! No route, page or redirect knows of it. A request loses the base path here, unless the proxy
//! stripped it already, and every address in an answer gets it: `Location`, and the links, forms
//! and assets of pages.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

/// The attributes of pages that hold addresses. Askama escapes the quotes of all that is put into a
/// page, so these texts are the templates' own.
const ATTRIBUTES: [&str; 4] = [" action", " formaction", " href", " src"];

/// The base path; empty if there is none. Every request has it as an extension.
#[derive(Clone, Debug, Default)]
pub(super) struct BasePath(Arc<str>);

impl BasePath {
    pub(super) fn new(path: &str) -> BasePath {
        BasePath(path.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address without the base path, if it has that.
    fn stripped(&self, uri: &Uri) -> Option<Uri> {
        let text = uri.path_and_query()?.as_str();
        let rest = text.strip_prefix(self.as_str())?;
        let path: PathAndQuery = match rest.bytes().next() {
            Some(b'/') => rest.parse().ok()?,
            None | Some(b'?') => format!("/{rest}").parse().ok()?,
            Some(_) => return None, // "/gatepostal" only begins like it
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }

    /// The page with its addresses below the base path.
    fn page(&self, page: &str) -> String {
        let mut parts = page.split("=\"/");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_address = ATTRIBUTES.iter().any(|name| whole.ends_with(name));
            whole.push_str("=\"");
            if is_address {
                whole.push_str(self.as_str());
            }
            whole.push('/');
            whole.push_str(part);
        }
        whole
    }

    fn location(&self, location: &HeaderValue) -> Option<HeaderValue> {
        let path = location.to_str().ok().filter(|to| to.starts_with('/'))?;
        format!("{}{path}", self.as_str()).parse().ok()
    }
}

/// Serves below the base path and, for a proxy that strips it, at the root.
pub(super) async fn serve_below(
    State(base): State<BasePath>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(uri) = base.stripped(request.uri()) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(base.clone());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(location) = headers.get(LOCATION).and_then(|to| base.location(to)) {
        headers.insert(LOCATION, location);
    }
    let kind = headers.get(CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    headers.remove(CONTENT_LENGTH);
    let (parts, body) = response.into_parts();
    // Pages are made in memory, so nothing is waited for.
    let page = match to_bytes(body, usize::MAX).await {
        Ok(page) => page,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let page = base.page(&String::from_utf8_lossy(&page));
    Response::from_parts(parts, Body::from(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_loses_the_base_path_and_only_that() {
        let base = BasePath::new("/a/b");
        for (asked, meant) in [
            ("/a/b", "/"),
            ("/a/b?x=1", "/?x=1"),
            ("/a/b/", "/"),
            ("/a/b/audit?x=/a/b", "/audit?x=/a/b"),
            ("/a/b/a/b", "/a/b"),
            (
                "http://mail.example.test/a/b/audit",
                "http://mail.example.test/audit",
            ),
        ] {
            let stripped = base.stripped(&asked.parse().unwrap());
            assert_eq!(stripped.map(|uri| uri.to_string()).as_deref(), Some(meant));
        }
        for other in ["/", "/a", "/a/bc", "/audit", "/A/b/", "*"] {
            assert_eq!(base.stripped(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn addresses_get_the_base_path_and_other_values_do_not() {
        let base = BasePath::new("/g");
        for (own, below) in [
            (r#"<a href="/">"#, r#"<a href="/g/">"#),
            (
                r#"<a id="x" href="/audit?a=/b">"#,
                r#"<a id="x" href="/g/audit?a=/b">"#,
            ),
            (
                r#"<form method="post" action="/x">"#,
                r#"<form method="post" action="/g/x">"#,
            ),
            (
                r#"<img src="/i"><button formaction="/f">"#,
                r#"<img src="/g/i"><button formaction="/g/f">"#,
            ),
        ] {
            assert_eq!(base.page(own), below);
        }
        for same in [
            r#"<input value="/etc">"#,
            r##"<a href="#main">"##,
            r#"<a href="?after=1">"#,
            r#"<p> href=&#34;/x</p>"#,
            r#"<p data-href="/x">"#,
        ] {
            assert_eq!(base.page(same), same);
        }
        let location = |to| base.location(&HeaderValue::from_static(to));
        assert_eq!(location("/audit").unwrap(), "/g/audit");
        assert_eq!(location("https://elsewhere.test/"), None);
    }
}
