//! HTTP for those who run this: the administration on a unix socket and on TCP, and the metrics on a listener of their own.
//!
//! A request passes [`gate`] (who may ask), comes to a route of [`api`] or a page of [`dashboard`] (what is asked for), and is
//! carried out at the [`desk`] (what that means for store, logins and sessions).

pub mod api;
mod base_path;
mod bulk;
mod caller;
mod changes;
pub mod client;
mod dashboard;
mod desk;
mod extract;
mod forwarded;
mod gate;
mod health;
mod hosts;
mod http;
mod metrics;
mod problem;
mod progress;
mod proxies;
mod proxy_auth;
mod revocations;
mod workers;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::any;
use axum::{Extension, Router};
use tokio_rustls::TlsAcceptor;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::auth::token;
use crate::config;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::net::listener::LocalListener;
use crate::sasl::Secret;

use self::base_path::BasePath;
use self::dashboard::SignInLink;
use self::desk::Desk;
use self::gate::Gate;
use self::http::Door;
use self::problem::{Code, Problem};
use self::proxies::{OverProxySocket, Proxies};
use self::revocations::Revocations;

pub use self::desk::System;
pub use self::hosts::Hosts;

/// Serves `GET /metrics` until draining, to requests for these `hosts`.
pub async fn serve_metrics(
    listener: LocalListener,
    hosts: Hosts,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
) {
    let door = Door {
        listener,
        tls: None,
        routes: metrics::routes(metrics, hosts),
    };
    door.serve(lifecycle).await;
}

/// The administration, ready to be served on any number of listeners.
pub struct Administration {
    desk: Arc<Desk>,
    link: Arc<SignInLink>,
    routes: Router,
}

impl Administration {
    /// Of this system, as `[admin]` has it served.
    pub fn new(system: System, admin: &config::Admin) -> Administration {
        let metrics = system.metrics.clone();
        let desk = Arc::new(Desk::new(system));
        let gate = Arc::new(Gate::new(desk.clone(), admin));
        let proxies = Arc::new(Proxies::new(admin));
        let base = BasePath::new(&admin.base_path);
        let link = Arc::new(SignInLink::default());
        let (guarded, open) = api::routes(&base);
        let description = format!("{}/api/v1/openapi.json", base.as_str());
        let missing = move || async move {
            Problem::new(
                Code::NotFound,
                format!("there is no such path; {description} has all there are"),
            )
        };
        let routes = guarded
            .route("/api", any(missing.clone()))
            .route("/api/{*path}", any(missing))
            .method_not_allowed_fallback(|| async {
                Problem::new(
                    Code::MethodNotAllowed,
                    "this path does not take that method; Allow has those it takes",
                )
            })
            .layer(from_fn_with_state(gate.clone(), gate::guard))
            .with_state(desk.clone())
            .merge(open)
            .merge(dashboard::routes(desk.clone(), gate, link.clone()))
            .merge(health::routes(desk.clone()))
            .layer(SetResponseHeaderLayer::if_not_present(
                CACHE_CONTROL,
                HeaderValue::from_static("no-cache"),
            ))
            .layer(SetResponseHeaderLayer::overriding(
                X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ))
            .layer(CatchPanicLayer::custom(|_| {
                Problem::internal(&"a panic").into_response()
            }))
            .layer(from_fn_with_state(metrics, metrics::count))
            .layer(from_fn_with_state(proxies, proxies::receive));
        // Around the routes, since it changes the path by which one is chosen.
        let routes = match admin.base_path.is_empty() {
            true => routes,
            false => Router::new()
                .fallback_service(routes)
                .layer(from_fn_with_state(base, base_path::serve_below)),
        };
        Administration { desk, link, routes }
    }

    /// The path of a link that signs a browser in once, with this token, for `gatepost demo`.
    pub fn sign_in_link(&self, token: &Secret) -> String {
        let text = str::from_utf8(token.expose()).unwrap_or_default();
        self.link.make(token::hash(text))
    }

    /// Serves on one listener until draining.
    pub fn serve(
        &self,
        listener: LocalListener,
        tls: Option<TlsAcceptor>,
        lifecycle: Lifecycle,
    ) -> impl Future<Output = ()> + use<> {
        let door = Door {
            listener,
            tls,
            routes: self.routes.clone(),
        };
        door.serve(lifecycle)
    }

    /// Serves on the socket of a reverse proxy until draining.
    pub fn serve_proxy(
        &self,
        listener: LocalListener,
        lifecycle: Lifecycle,
    ) -> impl Future<Output = ()> + use<> {
        let door = Door {
            listener,
            tls: None,
            routes: self.routes.clone().layer(Extension(OverProxySocket)),
        };
        door.serve(lifecycle)
    }

    /// What is not written yet, to be tried a last time at the end.
    pub fn unwritten(&self) -> Unwritten {
        Unwritten(self.desk.revocations.clone())
    }
}

/// Changes that count and are not written yet.
pub struct Unwritten(Arc<Revocations>);

impl Unwritten {
    /// Writes them as they are asked for, until the runtime ends.
    pub fn keep_writing(&self) -> impl Future<Output = ()> + use<> {
        self.0.clone().keep_writing()
    }

    /// Tries once more. Blocks on the store.
    pub fn write_last(&self) {
        self.0.write_last();
    }

    /// Logs each of them that is not written by now.
    pub fn log(&self) {
        self.0.log_unwritten();
    }
}
