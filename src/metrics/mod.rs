//! The Prometheus metrics: a single struct with a field per counter, so that counting needs no
//! lookup by name. Durations are in seconds, sizes in bytes.
//!
//! `docs/src/reference/metrics.md` documents the metrics in a table; a test compares the table with
//! the served metrics.

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

/// Bounds the series whose number depends on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimits {
    /// How many organizations, and how many credentials, are counted by name.
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

pub struct Metrics {
    registry: Registry,
    /// Process figures under their usual names (`process_*`, without the `gatepost` prefix).
    process: Registry,
    pub connections: IntCounter,
    /// Connections rejected at the limit.
    pub connections_refused: IntCounter,
    /// Errors of accept(2), each followed by a pause.
    pub accept_errors: IntCounter,
    /// Connections closed by clients that sent nothing, as health checks do.
    pub connections_silent: IntCounter,
    /// Connections without a usable PROXY header, by reason.
    pub proxy_header_failures: ByLabel<ProxyFailure, IntCounter>,
    pub connections_open: IntGauge,
    /// The limit of open connections.
    pub connections_limit: IntGauge,
    /// Octets of SMTP inside TLS, by direction.
    bytes: ByLabel<Flow, IntCounter>,
    /// Octets sent by clients before the STARTTLS handshake, and discarded.
    pub bytes_before_tls: IntCounter,
    tls_handshakes: IntCounterVec,
    pub tls_handshake_failures: ByLabel<HandshakeFailure, IntCounter>,
    /// The end of the served certificate's validity, in seconds since 1970.
    pub tls_certificate_not_after: IntGauge,
    /// Certificate reloads that kept the old pair because the new pair was unusable.
    pub tls_reload_failures: IntCounter,
    auth: IntCounterVec,
    auth_path: ByLabel<Path, IntCounter>,
    /// Seconds from the credentials to the verdict, without the deliberate delay of rejections.
    pub auth_seconds: Histogram,
    pub argon2: IntCounter,
    pub argon2_queue: IntGauge,
    /// The limit of passwords waiting for argon2.
    pub argon2_queue_limit: IntGauge,
    /// Passwords being hashed by argon2.
    pub argon2_in_flight: IntGauge,
    /// Entries in the cache of accepted passwords.
    pub cache_entries: IntGauge,
    /// Entries removed because their row changed or disappeared.
    pub cache_invalidations: IntCounter,
    pub guard_bans: ByLabel<Scope, IntCounter>,
    /// Banned networks, as of the last change or write.
    pub guard_banned: ByLabel<Scope, IntGauge>,
    /// Networks with failures now or within the last day.
    pub guard_tracked: ByLabel<Scope, IntGauge>,
    /// Failures of networks beyond the guard's capacity.
    pub guard_overflow: IntCounter,
    /// Connections rejected by the guard before login.
    pub guard_shed: ByLabel<Shed, IntCounter>,
    /// Connections that have not logged in.
    pub guard_unauthenticated: IntGauge,
    /// Rejections missing from the list of rejections, because too many were waiting.
    pub refusals_dropped: IntCounter,
    pub last_used_pending: IntGauge,
    pub last_used_flushed: IntCounter,
    /// Last-used updates dropped because too many were waiting.
    pub last_used_dropped: IntCounter,
    /// Failed attempts to write last-used updates; the updates stay queued.
    pub last_used_flush_failures: IntCounter,
    /// Seconds to write the queued updates, or to fail.
    pub last_used_flush_seconds: Histogram,
    /// Failures to check for changes by other processes.
    pub store_poll_failures: IntCounter,
    /// Whether the open file is still the file at the store's path.
    pub store_in_place: IntGauge,
    /// Active credentials that expire soon, as of the last count.
    pub credentials_expiring: ByLabel<Within, IntGauge>,
    /// The sequence number of the newest audit record.
    pub audit_head_sequence: IntGauge,
    /// Seconds that callers waited for the store.
    pub store_seconds: ByLabel<StoreOperation, Histogram>,
    pub upstream_connects: ByLabel<Dialled, IntCounter>,
    /// Seconds to connect to the upstream, successful attempts only.
    pub upstream_connect_seconds: Histogram,
    /// Whether the last handover or probe succeeded: 1 or 0.
    pub upstream_up: IntGauge,
    upstream_host_up: IntGaugeVec,
    organization_upstream_up: IntGaugeVec,
    pub handovers: IntCounter,
    handover_failures: IntCounterVec,
    /// Seconds from dialling to the end of the handover.
    pub handover_seconds: Histogram,
    /// Idle upstream sessions released before their clients disconnected.
    pub upstream_released: IntCounter,
    /// Upstream sessions lost, or dropped for a protocol violation.
    pub upstream_lost: IntCounter,
    sessions: IntCounter,
    sessions_open: IntGauge,
    messages: ByLabel<MessageOutcome, IntCounter>,
    message_bytes: ByLabel<MessageOutcome, IntCounter>,
    /// Recipients by the upstream's answer.
    pub recipients: ByLabel<RecipientOutcome, IntCounter>,
    organizations: PerLabelCounters,
    credentials: Option<PerLabelCounters>,
    admin_requests: IntCounterVec,
    limit_refusals: IntCounterVec,
    rule_refusals: IntCounterVec,
    odd_messages: IntCounterVec,
}

impl Metrics {
    /// Registers every metric with the default limits.
    ///
    /// # Errors
    /// Two metrics share a name.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::with_limits(SeriesLimits::default())
    }

    /// Counts logins by result and reason, both from fixed sets. A first call starts the series at
    /// zero.
    pub fn logins(&self, result: &'static str, reason: &'static str) -> IntCounter {
        self.auth.with_label_values(&[result, reason])
    }

    /// Counts a verdict by its path.
    pub fn verdict_by(&self, path: Path) {
        self.auth_path.of(path).inc();
    }

    /// Counts a login of an existing credential. Never call this with a name made up by a client:
    /// every name creates a series.
    pub fn login_of(&self, organization: &str, username: &str, outcome: LoginOutcome) {
        let organization = self.organizations.of(organization);
        organization.logins.of(outcome).inc();
        if let Some(credentials) = &self.credentials {
            credentials.of(username).logins.of(outcome).inc();
        }
    }

    /// Counts an authenticated session, open until the returned value is dropped.
    pub fn session(&self, organization: &str, username: &str) -> Session {
        self.sessions.inc();
        let mut counted_for = vec![self.organizations.of(organization)];
        if let Some(credentials) = &self.credentials {
            counted_for.push(credentials.of(username));
        }
        Session::begin(self.sessions_open.clone(), counted_for)
    }

    /// Counts a completed TLS handshake by version.
    pub fn tls_handshake(&self, version: &'static str) {
        self.tls_handshakes.with_label_values(&[version]).inc();
    }

    /// Returns the health gauge of an upstream address; `organization` is empty for the shared
    /// upstream.
    pub fn upstream_host_up(&self, organization: &str, address: &str) -> IntGauge {
        self.upstream_host_up
            .with_label_values(&[organization, address])
    }

    /// Removes the gauge of an address that the upstream no longer has.
    pub fn forget_upstream_host(&self, organization: &str, address: &str) {
        // An address never tried has no series to remove.
        let _ = self
            .upstream_host_up
            .remove_label_values(&[organization, address]);
    }

    /// Returns the health gauge of an organization's own upstream.
    pub fn organization_upstream_up(&self, organization: &str) -> IntGauge {
        self.organization_upstream_up
            .with_label_values(&[organization])
    }

    /// Counts failed handovers by stage, from a fixed set. A first call starts the series at zero.
    pub fn handover_failures(&self, stage: &'static str) -> IntCounter {
        self.handover_failures.with_label_values(&[stage])
    }

    /// Counts a message of which `bytes` octets were sent upstream.
    pub fn message(&self, outcome: MessageOutcome, bytes: u64) {
        self.messages.of(outcome).inc();
        self.message_bytes.of(outcome).inc_by(bytes);
    }

    /// Counts a reached limit or a broken rule, refused or only reported.
    pub fn breached(&self, breach: Breach) {
        let (reason, action) = (breach.reason(), breach.action());
        let (family, labels): (_, &[&str]) = match breach {
            Breach::Limit { of, .. } => (&self.limit_refusals, &[of.as_str(), reason, action]),
            Breach::Octet { .. } => (&self.odd_messages, &[reason, action]),
            Breach::Rule { .. } => (&self.rule_refusals, &[reason, action]),
        };
        family.with_label_values(labels).inc();
    }

    /// Counts an answered request to the admin server. `route` is the matched template, never the
    /// request path: every route creates a series.
    pub fn admin_request(&self, route: &str, method: &str, status: u16) {
        // HTTP allows any word as a method.
        let known = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
        let method = known.iter().find(|known| **known == method);
        let method = method.unwrap_or(&OTHER);
        self.admin_requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
    }

    /// Renders every metric in Prometheus' text format.
    ///
    /// # Errors
    /// A metric has no text form; every metric here has.
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
