//! Every count appears in the rendered metrics, within the configured bounds.

use super::*;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().unwrap()).unwrap()
}

#[track_caller]
fn assert_lines(metrics: &Metrics, lines: &[&str]) {
    let text = text(metrics);
    for line in lines {
        assert!(
            text.lines().any(|served| served == *line),
            "{line} is missing in:\n{text}"
        );
    }
}

#[test]
fn every_count_is_rendered() {
    let metrics = Metrics::new().unwrap();
    metrics.logins("reject", "unknown").inc();
    metrics.logins("reject", "revoked");
    metrics.message(MessageOutcome::Accepted, 29);
    metrics.auth_seconds.observe(0.002);
    let version = env!("CARGO_PKG_VERSION");
    assert_lines(
        &metrics,
        &[
            "gatepost_auth_total{reason=\"unknown\",result=\"reject\"} 1",
            "gatepost_auth_total{reason=\"revoked\",result=\"reject\"} 0",
            "gatepost_messages_total{outcome=\"accepted\"} 1",
            "gatepost_message_bytes_total{outcome=\"accepted\"} 29",
            "gatepost_auth_seconds_count 1",
            &format!("gatepost_build_info{{version=\"{version}\"}} 1"),
        ],
    );
    assert!(text(&metrics).contains("\nprocess_open_fds "));
}

#[test]
fn each_value_of_a_label_has_a_counter_of_its_own() {
    let metrics = Metrics::new().unwrap();
    for (count, outcome) in (1..).zip(MessageOutcome::ALL) {
        metrics.messages.of(*outcome).inc_by(count);
    }
    for (count, outcome) in (1..).zip(MessageOutcome::ALL) {
        let outcome = outcome.as_str();
        let line = format!("gatepost_messages_total{{outcome=\"{outcome}\"}} {count}");
        assert_lines(&metrics, &[&line]);
    }
}

#[test]
fn traffic_is_flushed_once() {
    let metrics = Metrics::new().unwrap();
    let mut delta = TrafficDelta::default();
    for (count, flow) in (1..).zip(Flow::ALL) {
        delta.add(*flow, count);
        delta.add(*flow, 10);
    }
    assert!(!delta.is_much());
    delta.flush(&metrics);
    delta.flush(&metrics);
    for (count, flow) in (11..).zip(Flow::ALL) {
        let flow = flow.as_str();
        let line = format!("gatepost_bytes_total{{direction=\"{flow}\"}} {count}");
        assert_lines(&metrics, &[&line]);
    }
    delta.add(Flow::ToUpstream, 25_000_000);
    assert!(delta.is_much());
}

#[test]
fn a_session_counts_for_its_organization_until_it_is_dropped() {
    let metrics = Metrics::new().unwrap();
    metrics.login_of("acme", "smtp_a", LoginOutcome::Accepted);
    let session = metrics.session("acme", "smtp_a");
    session.message(MessageOutcome::Accepted, 100);
    session.message(MessageOutcome::RefusedUpstream, 20);
    session.recipient();
    assert_lines(
        &metrics,
        &[
            "gatepost_sessions_open 1",
            "gatepost_organization_auth_total{organization=\"acme\",result=\"accept\"} 1",
            "gatepost_organization_auth_total{organization=\"acme\",result=\"reject\"} 0",
            "gatepost_organization_messages_total{organization=\"acme\",outcome=\"accepted\"} 1",
            "gatepost_organization_message_bytes_total{organization=\"acme\"} 120",
            "gatepost_organization_recipients_total{organization=\"acme\"} 1",
        ],
    );
    drop(session);
    assert_lines(
        &metrics,
        &["gatepost_sessions_open 0", "gatepost_sessions_total 1"],
    );
    assert!(!text(&metrics).contains("smtp_a"));
}

#[test]
fn credentials_are_counted_only_when_asked_for() {
    let metrics = Metrics::with_limits(SeriesLimits {
        per_credential: true,
        ..SeriesLimits::default()
    });
    let metrics = metrics.unwrap();
    metrics.session("acme", "smtp_a").recipient();
    assert_lines(
        &metrics,
        &["gatepost_credential_recipients_total{credential=\"smtp_a\"} 1"],
    );
}

#[test]
fn names_beyond_the_bound_are_counted_as_other() {
    let metrics = Metrics::with_limits(SeriesLimits {
        series: 2,
        per_credential: true,
    });
    let metrics = metrics.unwrap();
    for name in ["a", "b"] {
        metrics.session(name, &format!("smtp_{name}")).recipient();
    }
    assert!(!text(&metrics).contains("organization=\"other\""));
    for name in ["c", "d", "a", "d"] {
        metrics.session(name, &format!("smtp_{name}")).recipient();
    }
    assert_lines(
        &metrics,
        &[
            "gatepost_organization_recipients_total{organization=\"a\"} 2",
            "gatepost_organization_recipients_total{organization=\"b\"} 1",
            "gatepost_organization_recipients_total{organization=\"other\"} 3",
            "gatepost_credential_recipients_total{credential=\"other\"} 3",
            "gatepost_series_overflow_total{label=\"organization\"} 3",
            "gatepost_series_overflow_total{label=\"credential\"} 3",
        ],
    );
    let text = text(&metrics);
    let series = text.matches("gatepost_organization_recipients_total{");
    assert_eq!(series.count(), 3, "{text}");
}

#[test]
fn a_made_up_method_makes_no_series() {
    let metrics = Metrics::new().unwrap();
    for (method, status) in [("GET", 200), ("BREW", 405), ("MASH", 405)] {
        metrics.admin_request("/api/v1/status", method, status);
    }
    let route = "route=\"/api/v1/status\"";
    assert_lines(
        &metrics,
        &[
            &format!("gatepost_admin_requests_total{{method=\"GET\",{route},status=\"200\"}} 1"),
            &format!("gatepost_admin_requests_total{{method=\"other\",{route},status=\"405\"}} 2"),
        ],
    );
}
