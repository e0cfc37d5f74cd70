//! The dashboard: pages for people, rendered here, which need no JavaScript and load nothing from anywhere else.
//!
//! A request passes [`guard`] (who is signed in, and did one of our own forms send this), comes to a page, and is carried out
//! at the desk like a program's. The pages' text is in `pages/`, one template for each.

mod address;
mod assets;
mod audit;
mod bulk;
mod chart;
mod containment;
mod cookies;
mod credential;
mod credentials;
mod error;
mod form;
mod frame;
mod guard;
mod import;
mod issued;
mod networks;
mod new_credential;
mod organizations;
mod overview;
mod quoted;
mod refusals;
mod sessions;
mod sign_in;
mod sign_in_link;
mod sign_ins;
mod stamp;
mod tokens;
mod visible;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};

use super::desk::Desk;
use super::gate::Gate;

use self::bulk::Selections;
pub(super) use self::sign_in_link::SignInLink;
use self::sign_ins::SignIns;

/// What every page stands on.
struct Dashboard {
    desk: Arc<Desk>,
    gate: Arc<Gate>,
    sign_ins: SignIns,
    link: Arc<SignInLink>,
    selections: Selections,
}

/// Every page. Whatever no other route takes is a page that is not there.
pub(super) fn routes(desk: Arc<Desk>, gate: Arc<Gate>, link: Arc<SignInLink>) -> Router {
    let dashboard = Arc::new(Dashboard {
        desk,
        gate,
        sign_ins: SignIns::new(),
        link,
        selections: Selections::default(),
    });
    let pages = Router::new()
        .route("/", get(overview::show))
        .route(
            "/organizations",
            get(organizations::list).post(organizations::create),
        )
        .route("/organizations/{slug}", get(organizations::show))
        .route("/organizations/{slug}/rename", post(organizations::rename))
        .route("/organizations/{slug}/limits", post(organizations::limit))
        .route(
            "/organizations/{slug}/suspend",
            post(organizations::suspend),
        )
        .route(
            "/organizations/{slug}/activate",
            post(organizations::activate),
        )
        .route("/organizations/{slug}/delete", post(organizations::delete))
        .route("/organizations/{slug}/credentials", get(credentials::list))
        .route(
            "/organizations/{slug}/credentials.csv",
            get(credentials::csv),
        )
        .route(
            "/organizations/{slug}/credentials/new",
            get(new_credential::ask).post(new_credential::create),
        )
        .route("/organizations/{slug}/bulk", post(bulk::ask))
        .route(
            "/organizations/{slug}/bulk/confirmed",
            post(bulk::carry_out),
        )
        .route(
            "/organizations/{slug}/import",
            get(import::ask).post(import::import),
        )
        .nest(
            "/organizations/{slug}/credentials/{username}",
            credential::routes(),
        )
        .nest(
            "/organizations/{slug}/credential/{marked}",
            credential::routes(),
        )
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}/disconnect", post(sessions::disconnect))
        .route("/refusals", get(refusals::list))
        .route("/guard", get(networks::list))
        .route("/guard/clear", post(networks::clear))
        .route("/audit", get(audit::list))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route(
            "/tokens/{id}/revoke",
            get(tokens::ask_revoke).post(tokens::revoke),
        )
        .route("/{*path}", any(error::not_found))
        .layer(from_fn(guard::allowed));
    pages
        .route("/sign-out", post(sign_in::sign_out)) // whatever one may do, one may leave
        .layer(from_fn_with_state(dashboard.clone(), guard::signed_in))
        .route("/sign-in", get(sign_in::ask).post(sign_in::sign_in))
        .route("/sign-in/once/{code}", get(sign_in::by_link))
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(dashboard.clone(), guard::from_here))
        .with_state(dashboard)
        .merge(assets::routes())
        .layer(from_fn(guard::fence))
}
