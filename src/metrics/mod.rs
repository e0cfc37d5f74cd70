//! What is counted, for Prometheus. One struct; a counter is a field, so that counting never looks
//! anything up by name. Durations are in seconds, sizes in bytes.
//!
//! `README.md` has the table for those who scrape; a test compares it with what is served.

mod family;
mod labels;
mod register;
mod traffic_delta;
mod usage;

use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use family::ByLabel;
pub use labels::{
    Dialled, Flow, HandshakeFailure, Label, LoginOutcome, MessageOutcome, Path, ProxyFailure,
    RecipientOutcome, Scope, Shed, StoreOperation, Within,
};
pub use traffic_delta::TrafficDelta;
pub use usage::{OTHER, Session};

use usage::PerLabelCounters;

use crate::policy::Breach;

/// How many series there may be of those whose number depends on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Organizations that are counted by name, and credentials; each.
    pub series: usize,
    /// Whether credentials are counted by name at all.
    pub per_credential: bool,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self {
            series: 1000,
            per_credential: false,
        }
    }
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    /// Process figures, under the names every dashboard knows (`process_*`, without our prefix).
    process: Registry,
    /// Connections accepted.
    pub connections: IntCounter,
    /// Connections turned away because the limit was reached.
    pub connections_refused: IntCounter,
    /// Errors of accept(2), each followed by a pause.
    pub accept_errors: IntCounter,
    /// Connections that ended before their client sent anything, as health checks do.
    pub connections_silent: IntCounter,
    /// Connections without a PROXY header that can be used, by reason.
    pub proxy_header_failures: ByLabel<ProxyFailure, IntCounter>,
    /// Connections open now.
    pub connections_open: IntGauge,
    /// Connections that may be open at a time.
    pub connections_limit: IntGauge,
    /// Octets of SMTP inside TLS, by whose they are and which way they went.
    bytes: ByLabel<Flow, IntCounter>,
    /// Octets clients sent before the TLS handshake of STARTTLS; they were discarded.
    pub bytes_before_tls: IntCounter,
    tls_handshakes: IntCounterVec,
    /// TLS handshakes that failed, by reason.
    pub tls_handshake_failures: ByLabel<HandshakeFailure, IntCounter>,
    /// When the certificate served ends, in seconds since 1970.
    pub tls_certificate_not_after: IntGauge,
    /// Certificate reloads that kept the old pair because the new one was unusable.
    pub tls_reload_failures: IntCounter,
    auth: IntCounterVec,
    auth_path: ByLabel<Path, IntCounter>,
    /// Seconds from the client's credentials to the verdict, without the deliberate delay of refusals.
    pub auth_seconds: Histogram,
    /// How often argon2 was computed.
    pub argon2: IntCounter,
    /// Passwords waiting for argon2.
    pub argon2_queue: IntGauge,
    /// Passwords that may wait for argon2.
    pub argon2_queue_limit: IntGauge,
    /// Passwords in argon2.
    pub argon2_in_flight: IntGauge,
    /// Entries in the cache of right passwords.
    pub cache_entries: IntGauge,
    /// Entries thrown away because their row had changed or gone.
    pub cache_invalidations: IntCounter,
    /// Bans that began.
    pub guard_bans: ByLabel<Scope, IntCounter>,
    /// Networks banned, as of the last time anything changed or was written.
    pub guard_banned: ByLabel<Scope, IntGauge>,
    /// Networks against which something is held, or was within a day.
    pub guard_tracked: ByLabel<Scope, IntGauge>,
    /// Failures of networks that there was no room for.
    pub guard_overflow: IntCounter,
    /// Connections closed before they were anybody's.
    pub guard_shed: ByLabel<Shed, IntCounter>,
    /// Connections that have not logged in.
    pub guard_unauthenticated: IntGauge,
    /// Refusals that are not kept for whoever asks why, because too many were waiting.
    pub refusals_dropped: IntCounter,
    /// Last-used updates waiting to be written.
    pub last_used_pending: IntGauge,
    /// Last-used updates written.
    pub last_used_flushed: IntCounter,
    /// Last-used updates given up because too many were waiting.
    pub last_used_dropped: IntCounter,
    /// Attempts to write last-used updates that failed; the updates are kept.
    pub last_used_flush_failures: IntCounter,
    /// Seconds to write the updates that waited, or to fail at it.
    pub last_used_flush_seconds: Histogram,
    /// Failures to see whether another process changed the store.
    pub store_poll_failures: IntCounter,
    /// Whether the file that is open is the one at the store's path.
    pub store_in_place: IntGauge,
    /// Active credentials that expire soon, as of the last count.
    pub credentials_expiring: ByLabel<Within, IntGauge>,
    /// The number of the newest record of the audit log.
    pub audit_head_sequence: IntGauge,
    /// Seconds that callers waited for the store.
    pub store_seconds: ByLabel<StoreOperation, Histogram>,
    /// Attempts to connect to the upstream.
    pub upstream_connects: ByLabel<Dialled, IntCounter>,
    /// Seconds to connect to the upstream, where that succeeded.
    pub upstream_connect_seconds: Histogram,
    /// Whether the last hand-over or probe succeeded: 1 or 0.
    pub upstream_up: IntGauge,
    upstream_host_up: IntGaugeVec,
    organization_upstream_up: IntGaugeVec,
    /// Upstream sessions handed over.
    pub handovers: IntCounter,
    handover_failures: IntCounterVec,
    /// Seconds from dialling to a session handed over.
    pub handover_seconds: Histogram,
    /// Upstream sessions given back because their clients sent no messages.
    pub upstream_released: IntCounter,
    /// Upstream sessions lost or dropped for a breach of the protocol.
    pub upstream_lost: IntCounter,
    sessions: IntCounter,
    sessions_open: IntGauge,
    messages: ByLabel<MessageOutcome, IntCounter>,
    message_bytes: ByLabel<MessageOutcome, IntCounter>,
    /// Recipients by what the upstream said to them.
    pub recipients: ByLabel<RecipientOutcome, IntCounter>,
    organizations: PerLabelCounters,
    credentials: Option<PerLabelCounters>,
    admin_requests: IntCounterVec,
    limit_refusals: IntCounterVec,
    rule_refusals: IntCounterVec,
    odd_messages: IntCounterVec,
}

impl Metrics {
    /// Registers everything, with the default bounds.
    ///
    /// # Errors
    /// When two metrics have one name, which a test would have seen.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::with_limits(SeriesLimits::default())
    }

    /// Counts logins by result and by reason, both from fixed sets. To ask for a counter makes
    /// its series begin at zero.
    pub fn logins(&self, result: &'static str, reason: &'static str) -> IntCounter {
        self.auth.with_label_values(&[result, reason])
    }

    /// Counts how a verdict was reached.
    pub fn verdict_by(&self, path: Path) {
        self.auth_path.of(path).inc();
    }

    /// Counts a login of somebody known. Never call it with a name that a client made up: every
    /// name is a series.
    pub fn login_of(&self, organization: &str, username: &str, outcome: LoginOutcome) {
        let organization = self.organizations.of(organization);
        organization.logins.of(outcome).inc();
        if let Some(credentials) = &self.credentials {
            credentials.of(username).logins.of(outcome).inc();
        }
    }

    /// Counts a session that is authenticated from now on.
    pub fn session(&self, organization: &str, username: &str) -> Session {
        self.sessions.inc();
        let mut counted_for = vec![self.organizations.of(organization)];
        if let Some(credentials) = &self.credentials {
            counted_for.push(credentials.of(username));
        }
        Session::begin(self.sessions_open.clone(), counted_for)
    }

    /// Counts a TLS handshake that succeeded, by the version agreed on.
    pub fn tls_handshake(&self, version: &'static str) {
        self.tls_handshakes.with_label_values(&[version]).inc();
    }

    /// Whether one of the addresses of the upstream of this organization answered when it was last
    /// tried; the upstream of all is that of no name.
    pub fn upstream_host_up(&self, organization: &str, address: &str) -> IntGauge {
        self.upstream_host_up
            .with_label_values(&[organization, address])
    }

    /// Lets go of an address that the upstream is not at any more.
    pub fn forget_upstream_host(&self, organization: &str, address: &str) {
        // Where it was never tried there is nothing to let go of.
        let _ = self
            .upstream_host_up
            .remove_label_values(&[organization, address]);
    }

    /// Whether any address of an organization's own upstream answered when it was last tried.
    pub fn organization_upstream_up(&self, organization: &str) -> IntGauge {
        self.organization_upstream_up
            .with_label_values(&[organization])
    }

    /// Counts sessions that were not handed over, by stage, one of a fixed few. To ask for a
    /// counter makes its series begin at zero.
    pub fn handover_failures(&self, stage: &'static str) -> IntCounter {
        self.handover_failures.with_label_values(&[stage])
    }

    /// Counts a message of which `bytes` octets were sent upstream.
    pub fn message(&self, outcome: MessageOutcome, bytes: u64) {
        self.messages.of(outcome).inc();
        self.message_bytes.of(outcome).inc_by(bytes);
    }

    /// Counts a limit that is reached or a rule that is broken, refused or only reported.
    pub fn breached(&self, breach: Breach) {
        let (reason, action) = (breach.reason(), breach.action());
        let (family, labels): (_, &[&str]) = match breach {
            Breach::Limit { of, .. } => (&self.limit_refusals, &[of.as_str(), reason, action]),
            Breach::Octet { .. } => (&self.odd_messages, &[reason, action]),
            Breach::Rule { .. } => (&self.rule_refusals, &[reason, action]),
        };
        family.with_label_values(labels).inc();
    }

    /// Counts an answered request of the administration. `route` is the template that matched,
    /// never the path that was asked for: every route is a series.
    pub fn admin_request(&self, route: &str, method: &str, status: u16) {
        // In HTTP any word may stand in the method's place.
        let known = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
        let method = known.iter().find(|known| **known == method);
        let method = method.unwrap_or(&OTHER);
        self.admin_requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which none of ours is.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        encoder.encode(&self.process.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
