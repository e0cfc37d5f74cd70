//! What is counted, for Prometheus. One struct; a counter is a field, so that counting never looks
//! anything up by name. Durations are in seconds, sizes in bytes.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// How a verdict was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// argon2 was computed.
    Argon2,
    /// The cache knew the right password.
    Cache,
    /// Refused before argon2: by the row's state, by the tag, or unknown.
    Early,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// The upstream took it.
    Accepted,
    /// The client or the upstream went away before it was answered.
    Lost,
    /// Refused here: line ends or size.
    RefusedHere,
    /// The upstream refused it.
    RefusedUpstream,
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
    /// Connections open now.
    pub connections_open: IntGauge,
    /// Octets clients sent before the TLS handshake of STARTTLS; they were discarded.
    pub bytes_before_tls: IntCounter,
    /// TLS handshakes completed.
    pub tls_handshakes: IntCounter,
    /// TLS handshakes that failed or took too long.
    pub tls_handshake_failures: IntCounter,
    /// When the certificate served ends, in seconds since 1970.
    pub tls_certificate_not_after: IntGauge,
    /// Certificate reloads that kept the old pair because the new one was unusable.
    pub tls_reload_failures: IntCounter,
    auth: IntCounterVec,
    auth_path: IntCounterVec,
    /// Seconds from the client's credentials to the verdict, without the deliberate delay of refusals.
    pub auth_seconds: Histogram,
    /// How often argon2 was computed.
    pub argon2: IntCounter,
    /// Passwords waiting for argon2 or in it.
    pub argon2_queue: IntGauge,
    /// Entries in the cache of right passwords.
    pub cache_entries: IntGauge,
    /// Last-used updates waiting to be written.
    pub last_used_pending: IntGauge,
    /// Last-used updates written.
    pub last_used_flushed: IntCounter,
    /// Last-used updates given up because too many were waiting.
    pub last_used_dropped: IntCounter,
    /// Attempts to write last-used updates that failed; the updates are kept.
    pub last_used_flush_failures: IntCounter,
    /// Failures to see whether another process changed the store.
    pub store_poll_failures: IntCounter,
    /// Upstream sessions handed over.
    pub handovers: IntCounter,
    handover_failures: IntCounterVec,
    /// Upstream sessions lost or dropped for a breach of the protocol.
    pub upstream_lost: IntCounter,
    messages: IntCounterVec,
    /// Recipients the upstream took.
    pub recipients: IntCounter,
    /// Octets of message bodies sent upstream.
    pub message_bytes: IntCounter,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("gatepost".into()), None)?;
        let process = Registry::new();
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let collector = prometheus::process_collector::ProcessCollector::new(pid, "");
        process.register(Box::new(collector))?;
        let made = Maker {
            registry: &registry,
        };
        let build = made.counters(
            "build_info",
            "Version of the running program, as a label.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).inc();
        let metrics = Self {
            connections: made.counter("connections_total", "Connections accepted.")?,
            connections_refused: made.counter(
                "connections_refused_total",
                "Connections turned away at the limit.",
            )?,
            accept_errors: made.counter("accept_errors_total", "Errors of accept(2).")?,
            connections_open: made.gauge("connections_open", "Connections open now.")?,
            bytes_before_tls: made.counter(
                "bytes_before_tls_total",
                "Octets discarded because they came before the TLS handshake.",
            )?,
            tls_handshakes: made.counter("tls_handshakes_total", "TLS handshakes completed.")?,
            tls_handshake_failures: made.counter(
                "tls_handshake_failures_total",
                "TLS handshakes failed or timed out.",
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
            auth_path: made.counters(
                "auth_path_total",
                "Verdicts by how they were reached.",
                &["path"],
            )?,
            auth_seconds: made.histogram(
                "auth_seconds",
                "Time to a verdict, without the deliberate delay of refusals.",
            )?,
            argon2: made.counter("argon2_total", "Computations of argon2.")?,
            argon2_queue: made.gauge("argon2_queue", "Passwords waiting for argon2 or in it.")?,
            cache_entries: made.gauge("cache_entries", "Right passwords in the cache.")?,
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
            store_poll_failures: made.counter(
                "store_poll_failures_total",
                "Failures to look for other processes' changes.",
            )?,
            handovers: made.counter("handovers_total", "Sessions the upstream took over.")?,
            handover_failures: made.counters(
                "handover_failures_total",
                "Sessions the upstream did not take over, by stage.",
                &["stage"],
            )?,
            upstream_lost: made
                .counter("upstream_lost_total", "Upstream sessions lost or dropped.")?,
            messages: made.counters("messages_total", "Messages by outcome.", &["outcome"])?,
            recipients: made.counter("recipients_total", "Recipients the upstream took.")?,
            message_bytes: made.counter(
                "message_bytes_total",
                "Octets of message bodies sent upstream.",
            )?,
            process,
            registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A series that appears only with its first event hides that event from `rate()`.
    fn begin_at_zero(&self) {
        for path in [Path::Argon2, Path::Cache, Path::Early] {
            self.auth_path.with_label_values(&[path.as_str()]);
        }
        for outcome in [
            MessageOutcome::Accepted,
            MessageOutcome::Lost,
            MessageOutcome::RefusedHere,
            MessageOutcome::RefusedUpstream,
        ] {
            self.messages.with_label_values(&[outcome.as_str()]);
        }
    }

    /// Counts logins by result and by reason, both from fixed sets. To ask for a counter makes
    /// its series begin at zero.
    pub fn logins(&self, result: &'static str, reason: &'static str) -> IntCounter {
        self.auth.with_label_values(&[result, reason])
    }

    /// Counts how a verdict was reached.
    pub fn verdict_by(&self, path: Path) {
        self.auth_path.with_label_values(&[path.as_str()]).inc();
    }

    /// Counts sessions that were not handed over, by stage, one of a fixed few. To ask for a
    /// counter makes its series begin at zero.
    pub fn handover_failures(&self, stage: &'static str) -> IntCounter {
        self.handover_failures.with_label_values(&[stage])
    }

    /// Counts a message.
    pub fn message(&self, outcome: MessageOutcome) {
        self.messages.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        encoder.encode(&self.process.gather(), &mut text)?;
        Ok(text)
    }
}

impl Path {
    fn as_str(self) -> &'static str {
        match self {
            Self::Argon2 => "argon2",
            Self::Cache => "cache",
            Self::Early => "early",
        }
    }
}

impl MessageOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Lost => "lost",
            Self::RefusedHere => "refused_here",
            Self::RefusedUpstream => "refused_upstream",
        }
    }
}

struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::new(name, help)?)
    }

    /// From a tenth of a millisecond (a cached login) to ten seconds.
    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = [
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
            2.5, 5.0, 10.0,
        ];
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered(Histogram::with_opts(opts)?)
    }

    fn registered<C: Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.logins("reject", "unknown").inc();
        metrics.logins("reject", "revoked");
        metrics.message(MessageOutcome::Accepted);
        metrics.auth_seconds.observe(0.002);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "gatepost_auth_total{reason=\"unknown\",result=\"reject\"} 1",
            "gatepost_auth_total{reason=\"revoked\",result=\"reject\"} 0",
            "gatepost_messages_total{outcome=\"accepted\"} 1",
            "gatepost_auth_seconds_count 1",
            "process_open_fds ",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
