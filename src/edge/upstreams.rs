//! Selects a session's upstream: the organization's own, or the shared upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

use super::dialer::Dialer;
use super::handoff::HandoffError;

pub struct Upstreams {
    shared: Arc<Dialer>,
    own: BTreeMap<String, Arc<Dialer>>,
}

impl Upstreams {
    /// Builds the upstreams from the configuration and reads the named files. `hostname` is
    /// Gatepost's name in EHLO.
    pub fn load(
        hostname: &str,
        upstream: &config::Upstream,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, HandoffError> {
        let dialer = |upstream: &config::Upstream, organization| {
            let (hostname, upstream) = (hostname.to_owned(), upstream.clone());
            Dialer::new(hostname, upstream, organization, metrics.clone()).map(Arc::new)
        };
        let own = upstream
            .organizations
            .iter()
            .filter(|(_, own)| !own.address.is_empty());
        let own = own.map(|(slug, own)| Ok((slug.clone(), dialer(own, Some(slug.as_str()))?)));
        Ok(Self {
            shared: dialer(upstream, None)?,
            own: own.collect::<Result<_, HandoffError>>()?,
        })
    }

    /// Returns the upstream of all organizations without an upstream of their own.
    pub fn shared(&self) -> &Arc<Dialer> {
        &self.shared
    }

    pub fn of(&self, organization: &str) -> &Arc<Dialer> {
        self.own.get(organization).unwrap_or(&self.shared)
    }

    /// Iterates over the shared upstream, then over the organizations' upstreams with their slugs.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &Arc<Dialer>)> {
        let own = self
            .own
            .iter()
            .map(|(slug, own)| (Some(slug.as_str()), own));
        std::iter::once((None, &self.shared)).chain(own)
    }

    /// Starts the health checks of all upstreams. Returns once the shared upstream has answered or
    /// failed, or after its connect timeout: the first client should already see the upstream's
    /// extensions.
    pub async fn begin(&self, lifecycle: &Lifecycle) {
        for own in self.own.values() {
            let (own, lifecycle) = (own.clone(), lifecycle.clone());
            tokio::spawn(async move {
                own.probe_and_warn().await;
                own.keep(lifecycle).await;
            });
        }
        let (shared, lifecycle) = (self.shared.clone(), lifecycle.clone());
        let (answered, answer) = oneshot::channel();
        tokio::spawn(async move {
            shared.probe_and_warn().await;
            // The receiver may have timed out.
            let _ = answered.send(());
            shared.keep(lifecycle).await;
        });
        // An upstream that accepts connections and stays silent must not delay the clients.
        let _ = timeout(self.shared.upstream().connect_timeout, answer).await;
    }
}
