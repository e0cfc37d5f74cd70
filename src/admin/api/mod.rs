//! The API, version 1: what programs may ask of the administration. Every route is described where it is answered, and the
//! OpenAPI document is made from that.

mod audit;
mod bulk;
mod changes;
mod credentials;
mod explain;
mod field;
mod guard;
mod import;
mod limits;
mod openapi;
mod organizations;
mod refusals;
mod reply;
mod rules;
mod sessions;
mod status;
mod tokens;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse as _;
use axum::routing::get;
use utoipa::openapi::{OpenApi, Server};
use utoipa_axum::router::OpenApiRouter;

use super::base_path::BasePath;
use super::desk::Desk;

pub use self::audit::AuditRecord;
pub use self::credentials::{Credential, IssuedCredential, PasswordUsed, RotatedCredential};
pub use self::explain::Explanation;
pub use self::guard::{Cleared, GuardEntry};
pub use self::organizations::Organization;
pub use self::refusals::Refusal;
pub use self::reply::List;
pub use self::sessions::{Disconnected, Session};
pub use self::tokens::{NewlyIssued as IssuedToken, Token};

/// Where the document is.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// Every route behind the gate, and the one in front of it that describes them.
pub(super) fn routes(base: &BasePath) -> (Router<Arc<Desk>>, Router) {
    let (guarded, mut document) = documented();
    if !base.as_str().is_empty() {
        document.servers = Some(vec![Server::new(base.as_str())]);
    }
    // Made once: every caller gets the same.
    let text = Bytes::from(written(&document));
    let describe = move || {
        let text = text.clone();
        async move { ([("content-type", "application/json")], text).into_response() }
    };
    (guarded, Router::new().route(DOCUMENT, get(describe)))
}

/// The OpenAPI document of this version, for the pages of the documents.
pub fn description() -> String {
    written(&documented().1)
}

fn documented() -> (Router<Arc<Desk>>, OpenApi) {
    let (guarded, mut document) = OpenApiRouter::with_openapi(openapi::outline())
        .nest("/api/v1", described())
        .split_for_parts();
    openapi::complete(&mut document);
    (guarded, document)
}

fn written(document: &OpenApi) -> String {
    document
        .to_pretty_json()
        .expect("all keys in the document are strings, so it can be written")
}

fn described() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .merge(organizations::routes())
        .merge(credentials::routes())
        .merge(bulk::routes())
        .merge(import::routes())
        .merge(usage::routes())
        .merge(refusals::routes())
        .merge(explain::routes())
        .merge(sessions::routes())
        .merge(guard::routes())
        .merge(audit::routes())
        .merge(tokens::routes())
        .merge(status::routes())
        .merge(changes::routes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn every_operation_is_described_once_and_takes_no_null() {
        let (_, mut document) = described().split_for_parts();
        openapi::complete(&mut document);
        let document = serde_json::to_value(&document).unwrap();
        let empty = Map::new();
        let paths = document["paths"].as_object().unwrap_or(&empty);
        let operations: Vec<&Value> = paths
            .values()
            .flat_map(|methods| methods.as_object().unwrap().values())
            .collect();
        assert!(operations.len() > 20);
        let names = operations
            .iter()
            .map(|operation| operation["operationId"].as_str());
        assert_eq!(names.collect::<HashSet<_>>().len(), operations.len());
        for operation in operations {
            assert!(operation["responses"]["401"].is_object(), "{operation}");
            let parameters = operation["parameters"].to_string();
            assert!(!parameters.contains("null\""), "{parameters}");
        }
    }
}
