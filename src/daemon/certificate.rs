//! Reloads the served certificates from disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::config;
use crate::lifecycle::notify;
use crate::metrics::Metrics;
use crate::net::certificates::Pair;
use crate::net::tls::{Tls, TlsError};

/// Returns the configured pairs, the default certificate first.
pub fn pairs(tls: &config::Tls) -> Vec<Pair> {
    let first = Pair {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    };
    let others = tls.others.iter().map(|other| Pair {
        certificate: other.certificate.clone(),
        key: other.key.clone(),
    });
    std::iter::once(first).chain(others).collect()
}

/// Reloads the certificates when their files change, or at once on SIGHUP. `status` is the regular
/// status line for `systemctl status`. Without `[tls]`, only answers SIGHUP.
pub(super) async fn keep(
    tls: Option<Arc<Tls>>,
    interval: Duration,
    mut hangups: Signal,
    metrics: Arc<Metrics>,
    status: String,
) {
    loop {
        let asked = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(interval) => false,
        };
        if asked {
            notify::reloading();
        }
        let Some(tls) = tls.clone() else {
            if asked {
                notify::ready();
            }
            continue;
        };
        let now = crate::clock::now().as_second();
        let refreshed = tokio::task::spawn_blocking(move || {
            let is_new = tls.refresh(now, asked)?;
            Ok::<_, TlsError>(is_new.then(|| tls.not_after()))
        });
        match refreshed.await {
            Ok(Ok(Some(not_after))) => {
                metrics.tls_certificate_not_after.set(not_after);
                tracing::info!("certificate loaded; new connections get it");
                notify::status(&status);
            }
            Ok(Err(error)) => {
                metrics.tls_reload_failures.inc();
                tracing::error!(%error, "the new certificate cannot be used, the old one stays");
                notify::status(&format!("{status}; the old certificate: {error}"));
            }
            Ok(Ok(None)) => {}
            Err(error) => tracing::error!(%error, "looking at the certificate panicked"),
        }
        if asked {
            notify::ready();
        }
    }
}
