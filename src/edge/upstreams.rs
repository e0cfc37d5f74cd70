//! Which upstream a session belongs to: the one of all, or its organization's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

use super::dialer::Dialer;
use super::way::WayError;

/// All upstreams.
pub struct Upstreams {
    shared: Arc<Dialer>,
    own: BTreeMap<String, Arc<Dialer>>,
}

impl Upstreams {
    /// As configured; `hostname` is our name in EHLO. Reads the files that are named there.
    pub fn load(
        hostname: &str,
        upstream: &config::Upstream,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, WayError> {
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
            own: own.collect::<Result<_, WayError>>()?,
        })
    }

    /// The upstream of all who have none of their own.
    pub fn shared(&self) -> &Arc<Dialer> {
        &self.shared
    }

    /// Where the sessions of this organization go.
    pub fn of(&self, organization: &str) -> &Arc<Dialer> {
        self.own.get(organization).unwrap_or(&self.shared)
    }

    /// All of them: that of all, then those of single organizations with their slugs.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &Arc<Dialer>)> {
        let own = self
            .own
            .iter()
            .map(|(slug, own)| (Some(slug.as_str()), own));
        std::iter::once((None, &self.shared)).chain(own)
    }

    /// Asks all of them what they offer, and keeps at it. Returns once the upstream of all has
    /// answered or failed to, or has taken as long as connecting may: the first client should be
    /// offered what it can do.
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
            // Its receiver may have given up.
            let _ = answered.send(());
            shared.keep(lifecycle).await;
        });
        // One that takes connections and says nothing must not keep the clients waiting.
        let _ = timeout(self.shared.upstream().connect_timeout, answer).await;
    }
}
