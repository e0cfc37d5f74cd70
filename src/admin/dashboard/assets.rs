//! The style, the script and the icon. They are in the binary; no path is ever made from a request.

use std::sync::LazyLock;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

const STYLE: &str = include_str!("assets/dashboard.css");
const SCRIPT: &str = include_str!("assets/dashboard.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Pages name this with them, so that browsers may keep them for as long as they like.
pub(super) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = blake3::Hasher::new();
        for text in [STYLE, SCRIPT, ICON] {
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex()[..12].to_owned()
    });
    &VERSION
}

pub(super) fn routes() -> Router {
    Router::new()
        .route(
            "/assets/dashboard.css",
            get(kept(STYLE, "text/css; charset=utf-8")),
        )
        .route(
            "/assets/dashboard.js",
            get(kept(SCRIPT, "text/javascript; charset=utf-8")),
        )
        .route("/assets/icon.svg", get(kept(ICON, "image/svg+xml")))
}

fn kept(
    text: &'static str,
    kind: &'static str,
) -> impl FnOnce() -> std::future::Ready<axum::response::Response> + Clone + Send + 'static {
    move || {
        let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
        let kind = HeaderValue::from_static(kind);
        std::future::ready(([(CONTENT_TYPE, kind), (CACHE_CONTROL, kept)], text).into_response())
    }
}
