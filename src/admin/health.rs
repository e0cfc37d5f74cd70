//! Whether it lives and whether it can serve, for load balancers and supervisors: `/healthz` and `/readyz`. They ask for no
//! token and mind no host, since they tell nothing that a connection would not.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::log;

use super::desk::Desk;
use crate::store::Placement;

/// How long the store is not asked again. Anybody may ask whether it is ready, and must not keep those who have a token from
/// their turn by that.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::new(Health {
            desk,
            looked: Mutex::default(),
        }))
}

struct Health {
    desk: Arc<Desk>,
    /// When the store was last asked, and whether it could be read. Locked while it is being asked.
    looked: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    async fn store_is_readable(&self) -> bool {
        let mut looked = self.looked.lock().await;
        match *looked {
            Some((at, is_readable)) if at.elapsed() < LOOK_INTERVAL => is_readable,
            _ => {
                let look = |desk: &Desk| Ok(desk.system.store.has_no_tokens()?);
                let is_readable = self.desk.run(look).await.is_ok();
                *looked = Some((Instant::now(), is_readable));
                is_readable
            }
        }
    }
}

/// Whether a client that connects now would get its mail through.
async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let is_readable = health.store_is_readable().await;
    let system = &health.desk.system;
    let verdict = if system.lifecycle.is_draining() {
        Err("draining: it is being stopped or restarted\n")
    } else if system.store.placement() != Placement::InPlace {
        Err("the store's file was removed or replaced: the log says what to do\n")
    } else if !is_readable {
        Err("the store cannot be read: the log says why\n")
    } else if system.metrics.upstream_up.get() != 1 {
        Err("the upstream does not take sessions: is Postfix running?\n")
    } else {
        // Mail goes through all the same.
        let mut text = "ready\n".to_owned();
        if log::is_dropping() {
            text += "warning: log lines are dropped, as the log cannot be written\n";
        }
        for (kind, address, _) in system.unopened.all() {
            text += &format!("warning: {kind} is not served at {address}: the log says why\n");
        }
        Ok(text)
    };
    match verdict {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::desk::tests::Fixture;

    #[tokio::test(start_paused = true)]
    async fn the_store_is_asked_once_however_many_ask() {
        let fixture = Fixture::new();
        fixture.desk.system.metrics.upstream_up.set(1);
        let health = Arc::new(Health {
            desk: fixture.desk.clone(),
            looked: Mutex::default(),
        });
        let ask = || async { ready(State(health.clone())).await.0 };
        assert_eq!(ask().await, StatusCode::OK);
        let _turns = fixture.all_turns().await;
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(ask().await, StatusCode::OK);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::advance(LOOK_INTERVAL).await;
        assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
