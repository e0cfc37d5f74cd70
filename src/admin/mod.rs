//! HTTP for those who run this: for now the metrics, on a listener of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, OTHER};
use crate::net::listener::{Accepted, accept};

/// How many scrapers may be connected at a time.
const CONNECTIONS: usize = 64;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest request head, in octets; the least hyper allows is 8 KiB.
const HEAD_SIZE: usize = 16 * 1024;

/// How long requests under way may take once draining has begun.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves `GET /metrics` until draining.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>, lifecycle: Lifecycle) {
    let graceful = GracefulShutdown::new();
    let serve = |accepted: Accepted| {
        let Some(permit) = accepted.permit else {
            return;
        };
        let metrics = metrics.clone();
        let service = service_fn(move |request| {
            let response = respond(&request, &metrics);
            // Whatever else was asked for is one and the same to us.
            let route = match request.uri().path() {
                "/metrics" => "/metrics",
                _ => OTHER,
            };
            let (method, status) = (request.method().as_str(), response.status().as_u16());
            metrics.admin_request(route, method, status);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            // Without a timer hyper silently has no timeout at all.
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(accepted.stream), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A scraper that goes away midway asks again.
            let _ = watched.await;
            drop(permit);
        });
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    accept(listener, permits, None, lifecycle, serve).await;
    let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
}

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics.render() {
            Ok(text) => Response::new(Full::from(text)),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        (_, "/metrics") => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
    };
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
