//! The name and help text of every metric in `/metrics`.

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;

use super::family::Registrar;
use super::usage::PerLabelCounters;
use super::{Metrics, SeriesLimits};
use crate::log;
use crate::policy::{Limit, NORMALIZED, OddOctet, Party, Rule, action};

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Two metrics share a name.
    pub fn with_limits(bounds: SeriesLimits) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("gatepost".into()), None)?;
        let process = Registry::new();
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        process.register(Box::new(ProcessCollector::new(pid, "")))?;
        let made = Registrar(&registry);
        made.info(
            "build_info",
            "Always 1; the label says which version runs.",
            ("version", env!("CARGO_PKG_VERSION")),
        )?;
        let overflow = made.counters(
            "series_overflow_total",
            "Logins and sessions counted as \"other\", because no more names are told apart.",
            &["label"],
        )?;
        made.counter_of(
            "log_lines_dropped_total",
            "Log lines dropped because the log could not be written.",
            log::dropped,
        )?;
        let everybody = |label| {
            let overflow = overflow.with_label_values(&[label]);
            PerLabelCounters::new(&made, label, bounds.series, overflow)
        };
        let metrics = Self {
            connections: made.counter("connections_total", "Connections accepted.")?,
            connections_refused: made.counter(
                "connections_refused_total",
                "Connections turned away at the limit.",
            )?,
            accept_errors: made.counter("accept_errors_total", "Errors of accept(2).")?,
            connections_silent: made.counter(
                "connections_silent_total",
                "Connections that ended before their client sent anything.",
            )?,
            proxy_header_failures: made.counter_by(
                "proxy_header_failures_total",
                "Connections without a PROXY header that can be used, by reason.",
                "reason",
            )?,
            connections_open: made.gauge("connections_open", "Connections open now.")?,
            connections_limit: made.gauge(
                "connections_limit",
                "Connections that may be open at a time.",
            )?,
            bytes: made.counter_by(
                "bytes_total",
                "Octets of SMTP inside TLS, by direction.",
                "direction",
            )?,
            bytes_before_tls: made.counter(
                "bytes_before_tls_total",
                "Octets discarded because they came before the TLS handshake.",
            )?,
            tls_handshakes: made.counters(
                "tls_handshakes_total",
                "TLS handshakes completed, by version.",
                &["version"],
            )?,
            tls_handshake_failures: made.counter_by(
                "tls_handshake_failures_total",
                "TLS handshakes failed, by reason.",
                "reason",
            )?,
            tls_certificate_not_after: made.gauge(
                "tls_certificate_not_after_seconds",
                "End of the certificate's validity, in seconds since 1970.",
            )?,
            tls_reload_failures: made.counter(
                "tls_reload_failures_total",
                "Certificate reloads that kept the old pair.",
            )?,
            auth: made.counters(
                "auth_total",
                "Logins by result and reason.",
                &["result", "reason"],
            )?,
            auth_path: made.counter_by(
                "auth_path_total",
                "Verdicts by how they were reached.",
                "path",
            )?,
            auth_seconds: made.histogram(
                "auth_seconds",
                "Time to a verdict, without the deliberate delay of refusals.",
            )?,
            argon2: made.counter("argon2_total", "Computations of argon2.")?,
            argon2_queue: made.gauge("argon2_queue", "Passwords waiting for argon2.")?,
            argon2_queue_limit: made
                .gauge("argon2_queue_limit", "Passwords that may wait for argon2.")?,
            argon2_in_flight: made.gauge("argon2_in_flight", "Passwords in argon2.")?,
            cache_entries: made.gauge("cache_entries", "Right passwords in the cache.")?,
            cache_invalidations: made.counter(
                "cache_invalidations_total",
                "Cached passwords thrown away because their credential changed or went.",
            )?,
            guard_bans: made.counter_by("guard_bans_total", "Bans that began.", "scope")?,
            guard_banned: made.gauge_by("guard_banned", "Networks banned now.", "scope")?,
            guard_tracked: made.gauge_by(
                "guard_tracked",
                "Networks with failed logins that are not forgotten.",
                "scope",
            )?,
            guard_overflow: made.counter(
                "guard_overflow_total",
                "Failed logins not counted for want of room.",
            )?,
            guard_shed: made.counter_by(
                "guard_shed_total",
                "Connections closed before they logged in, by reason.",
                "reason",
            )?,
            guard_unauthenticated: made.gauge(
                "guard_unauthenticated",
                "Connections that have not logged in, without exempt ones.",
            )?,
            refusals_dropped: made.counter(
                "refusals_dropped_total",
                "Refusals not kept for the list of why, for want of room.",
            )?,
            last_used_pending: made.gauge(
                "last_used_pending",
                "Last-used updates waiting to be written.",
            )?,
            last_used_flushed: made
                .counter("last_used_flushed_total", "Last-used updates written.")?,
            last_used_dropped: made.counter(
                "last_used_dropped_total",
                "Last-used updates given up at the limit.",
            )?,
            last_used_flush_failures: made.counter(
                "last_used_flush_failures_total",
                "Failed attempts to write last-used updates.",
            )?,
            last_used_flush_seconds: made.histogram(
                "last_used_flush_seconds",
                "Time to write the last-used updates that waited.",
            )?,
            store_poll_failures: made.counter(
                "store_poll_failures_total",
                "Failures to look for other processes' changes.",
            )?,
            store_in_place: made.gauge(
                "store_in_place",
                "1 while the open file is the one at store.path, 0 after it was removed or replaced.",
            )?,
            audit_head_sequence: made.gauge(
                "audit_head_sequence",
                "The number of the newest record of the audit log. It never falls.",
            )?,
            credentials_expiring: made.gauge_by(
                "credentials_expiring",
                "Active credentials that expire within so many days, counted every minute.",
                "within",
            )?,
            store_seconds: made.histogram_by(
                "store_operation_seconds",
                "Time that callers waited for the store, by operation.",
                "operation",
            )?,
            upstream_connects: made.counter_by(
                "upstream_connects_total",
                "Attempts to connect to the upstream, by result.",
                "result",
            )?,
            upstream_connect_seconds: made.histogram(
                "upstream_connect_seconds",
                "Time to connect to the upstream, where that succeeded.",
            )?,
            upstream_host_up: made.gauges(
                "upstream_host_up",
                "Whether this address of the upstream answered when it was last tried.",
                &["organization", "address"],
            )?,
            organization_upstream_up: made.gauges(
                "organization_upstream_up",
                "Whether any address of an organization's own upstream answered when it was last tried.",
                &["organization"],
            )?,
            upstream_up: made.gauge(
                "upstream_up",
                "Whether any address of the upstream of all answered when it was last tried.",
            )?,
            handovers: made.counter("handovers_total", "Sessions the upstream took over.")?,
            handover_failures: made.counters(
                "handover_failures_total",
                "Sessions the upstream did not take over, by stage.",
                &["stage"],
            )?,
            handover_seconds: made.histogram(
                "handover_seconds",
                "Time from dialling to a session the upstream took over.",
            )?,
            upstream_released: made.counter(
                "upstream_released_total",
                "Upstream sessions given back because no message came.",
            )?,
            upstream_lost: made
                .counter("upstream_lost_total", "Upstream sessions lost or dropped.")?,
            sessions: made.counter("sessions_total", "Sessions authenticated and handed over.")?,
            sessions_open: made.gauge("sessions_open", "Authenticated sessions open now.")?,
            messages: made.counter_by("messages_total", "Messages by outcome.", "outcome")?,
            message_bytes: made.counter_by(
                "message_bytes_total",
                "Octets of message bodies sent upstream, by the message's outcome.",
                "outcome",
            )?,
            recipients: made.counter_by(
                "recipients_total",
                "Recipients by the upstream's answer.",
                "outcome",
            )?,
            organizations: everybody("organization")?,
            credentials: bounds
                .per_credential
                .then(|| everybody("credential"))
                .transpose()?,
            admin_requests: made.counters(
                "admin_requests_total",
                "Requests of the administration answered, by route.",
                &["route", "method", "status"],
            )?,
            limit_refusals: made.counters(
                "limit_refusals_total",
                "Limits reached, by whose and which, refused or only reported.",
                &["of", "limit", "action"],
            )?,
            rule_refusals: made.counters(
                "rule_refusals_total",
                "Rules broken, refused or only reported.",
                &["rule", "action"],
            )?,
            odd_messages: made.counters(
                "odd_line_ends_total",
                "Messages with a bare CR or LF, or a NUL, refused or encoded anew.",
                &["octet", "action"],
            )?,
            process,
            registry,
        };
        // A series that starts with its first event hides the event from `rate()`.
        for version in ["TLSv1.2", "TLSv1.3"] {
            metrics.tls_handshakes.with_label_values(&[version]);
        }
        metrics.begin_refusals();
        Ok(metrics)
    }

    fn begin_refusals(&self) {
        for octet in OddOctet::ALL {
            for action in [action(true), NORMALIZED] {
                let labels = [octet.as_str(), action];
                self.odd_messages.with_label_values(&labels);
            }
        }
        for refused in [true, false] {
            for party in Party::ALL {
                let organization = party == Party::Organization;
                // An organization's limits are always enforced.
                for limit in Limit::of(!organization).filter(|_| refused || !organization) {
                    let labels = [party.as_str(), limit.as_str(), action(refused)];
                    self.limit_refusals.with_label_values(&labels);
                }
            }
            // Limits have their own metric.
            for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Limits) {
                let labels = [rule.as_str(), action(refused)];
                self.rule_refusals.with_label_values(&labels);
            }
        }
    }
}
