//! What Prometheus makes of the metrics, and what `contrib/` makes of Prometheus.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::prometheus::{Prometheus, contrib, get, promtool};
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::{Act, Upstream};
use crate::support::{PATIENCE, eventually, ports};

const RULES: &str = "prometheus/gatepost.rules.yml";

/// A daemon that serves metrics at `address` and counts credentials too.
fn start(config: Config, address: SocketAddr) -> Gatepost {
    let config = config.text("metrics", "listen", &address.to_string());
    Gatepost::start(config.flag("metrics", "per_credential", true))
}

fn send(site: &Site, credential: &Credential) {
    let mut client = Client::logged_in(site, credential);
    let message = b"Subject: counted\r\n\r\nhello\r\n";
    client.send_message(message).expect("250");
    client.expect("QUIT", "221");
    client.expect_close();
}

/// A credential in an organization of its own.
fn create_in(site: &Site, organization: &str) -> Credential {
    site.succeed(&["organization", "create", organization]);
    let arguments = ["credential", "create", "--org", organization, "--json"];
    let credential = Credential::from_json(site.succeed(&arguments).as_bytes());
    site.remember(&credential);
    credential
}

/// All that is served. Asked for twice, since a request is counted when it has been answered.
fn scrape(address: SocketAddr) -> String {
    get(address, "/metrics");
    get(address, "/metrics")
}

/// The value of a series in what `address` serves.
pub fn served(address: SocketAddr, series: &str) -> Option<f64> {
    let text = get(address, "/metrics");
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a number"))
}

#[track_caller]
pub fn wait_for_series(address: SocketAddr, series: &str, expected: f64) {
    eventually(&format!("{series} {expected}"), || {
        (served(address, series) == Some(expected)).then_some(())
    });
}

/// Waits until the daemon knows of what others have written so far: a login during which it hears of that looks twice.
fn wait_until_seen(address: SocketAddr) {
    let polls = || {
        served(
            address,
            "gatepost_store_operation_seconds_count{operation=\"poll\"}",
        )
    };
    let before = polls().expect("a series");
    // The first may have begun before.
    eventually("the store is asked twice", || {
        polls().filter(|polls| *polls >= before + 2.0)
    });
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    send(&gatepost, &gatepost.create());
    let said = promtool(&["check", "metrics"], &scrape(address));
    assert_eq!(said, "");
}

#[test]
fn credentials_that_expire_within_a_week_and_a_month_are_counted() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let config = Config::for_upstream(upstream.address);
    let config = config.text("metrics", "listen", &address.to_string());
    let site = Arc::new(Site::new(config));
    for days in [1, 7, 30, 90] {
        let end = Timestamp::now() + SignedDuration::from_hours(24 * days - 1);
        site.succeed(&["credential", "create", "--expires", &end.to_string()]);
    }
    let revoked = site.create();
    site.sql(
        "UPDATE credentials SET status = 'revoked', expires_at = 1000 * (unixepoch() + 60)
         WHERE username = ?1",
        &revoked.username,
    );
    let _gatepost = Gatepost::serve(&site);
    for (within, count) in [("7d", 2.0), ("30d", 3.0)] {
        let series = format!("gatepost_credentials_expiring{{within=\"{within}\"}}");
        wait_for_series(address, &series, count);
    }
}

#[test]
fn promtool_takes_the_alert_rules_and_their_tests() {
    let rules = contrib(RULES);
    promtool(&["check", "rules", rules.to_str().unwrap()], "");
    let tests = contrib("prometheus/gatepost.rules.test.yml");
    promtool(&["test", "rules", tests.to_str().unwrap()], "");
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let read = |path| std::fs::read_to_string(contrib(path)).expect("read");
    let tests = read("prometheus/gatepost.rules.test.yml");
    let rules = read(RULES);
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<_> = alerts
        .filter(|alert| !tests.contains(&format!("{{alertname=\"{alert}\"}}")))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn prometheus_answers_every_query_of_the_dashboard_and_the_alerts() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    let prometheus = Prometheus::start(address, &contrib(RULES));
    let credential = create_in(&gatepost, "acme");
    for _ in 0..3 {
        send(&gatepost, &credential);
    }
    let mut guesser = Client::submissions(&gatepost);
    guesser.expect("EHLO client.example", "250");
    let wrong = credential.with_wrong_password();
    guesser.auth_plain(&wrong).expect("535");

    for (query, expected) in [
        ("gatepost_messages_total{outcome=\"accepted\"}", 3.0),
        (
            "sum(gatepost_organization_messages_total{organization=\"acme\"})",
            3.0,
        ),
        (
            "gatepost_organization_auth_total{organization=\"acme\",result=\"reject\"}",
            1.0,
        ),
        ("sum(gatepost_credential_recipients_total)", 3.0),
        ("gatepost_sessions_total", 3.0),
    ] {
        eventually(&format!("{query} is {expected}"), || {
            (prometheus.value(query) == Some(expected)).then_some(())
        });
    }

    let metrics = scrape(address);
    for query in dashboard_queries() {
        assert_served(&query, &metrics);
        // Every series begins at zero, so that no panel is empty on the first day.
        eventually(&format!("data for {query}"), || {
            (!answer(&prometheus, &query).is_empty()).then_some(())
        });
    }
    for query in alert_expressions(&prometheus) {
        assert_served(&query, &metrics);
        prometheus.query(&query);
    }
}

/// Metrics that are on no panel: that one begins with the first organization that has an upstream of its own.
const ON_NO_PANEL: [&str; 1] = ["gatepost_organization_upstream_up"];

#[test]
fn the_dashboard_has_a_panel_for_every_metric() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    send(&gatepost, &gatepost.create());
    let queries = dashboard_queries();
    let asked: BTreeSet<_> = queries.iter().flat_map(|query| names(query)).collect();
    let metrics = scrape(address);
    let types = metrics.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let asked_by = match kind {
            "histogram" => format!("{name}_bucket"),
            _ => name.to_owned(),
        };
        let counts = name.starts_with("gatepost_") && !ON_NO_PANEL.contains(&name);
        (counts && !asked.contains(&*asked_by)).then_some(name)
    });
    let missing: Vec<_> = types.collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What Prometheus gives for a panel's query or for a variable's.
fn answer(prometheus: &Prometheus, query: &str) -> Vec<Value> {
    let Some(arguments) = query.strip_prefix("label_values(") else {
        return prometheus.query(query);
    };
    let (selector, label) = arguments.rsplit_once(", ").expect("a selector and a label");
    let label = label.strip_suffix(')').expect("the end of label_values");
    let path = format!("label/{label}/values");
    let values = prometheus.api(&path, &[("match[]", selector)]);
    values.as_array().expect("a list").clone()
}

/// All that the dashboard asks, with Grafana's variables filled in as for "All".
fn dashboard_queries() -> Vec<String> {
    let text = std::fs::read_to_string(contrib("grafana/gatepost.json")).expect("read");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    assert!(queries.len() > 50, "{queries:#?}");
    for query in &mut queries {
        for (variable, value) in [
            ("$__rate_interval", "10s"),
            ("$instance", ".*"),
            ("$organization", ".*"),
        ] {
            *query = query.replace(variable, value);
        }
        assert!(!query.contains('$'), "an unknown variable in {query}");
    }
    queries
}

/// Panels ask with `expr`, variables with `definition`.
fn collect_queries(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Array(values) => values
            .iter()
            .for_each(|value| collect_queries(value, queries)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(query) if ["expr", "definition"].contains(&name.as_str()) => {
                        queries.push(query.to_owned());
                    }
                    _ => collect_queries(value, queries),
                }
            }
        }
        _ => {}
    }
}

/// The expressions of the alerts once Prometheus has evaluated each without an error.
fn alert_expressions(prometheus: &Prometheus) -> Vec<String> {
    let text = std::fs::read_to_string(contrib(RULES)).expect("read");
    let alerts = text.matches("- alert: ").count();
    eventually("every alert is evaluated", || {
        let groups = prometheus.api("rules", &[]);
        let groups = groups["groups"].as_array().expect("a list").clone();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array());
        let rules: Vec<_> = rules.flatten().collect();
        assert_eq!(rules.len(), alerts, "{rules:?}");
        for rule in &rules {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        let all = rules.iter().all(|rule| rule["health"] == "ok");
        let query = |rule: &&Value| rule["query"].as_str().expect("a query").to_owned();
        all.then(|| rules.iter().map(query).collect())
    })
}

/// A misspelt metric is no error to Prometheus: it is one that nobody ever saw.
#[track_caller]
fn assert_served(query: &str, metrics: &str) {
    for name in names(query) {
        let begins = |line: &str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        assert!(
            metrics.lines().any(begins),
            "{query} asks for {name}, which is not served:\n{metrics}"
        );
    }
}

/// The words of `text` that are our metrics' names or the process's.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("gatepost_") || word.starts_with("process_"))
        // "process_…" is all of them.
        .filter(|word| !word.ends_with('_'))
        .collect()
}

#[test]
fn the_reference_tells_of_every_metric_and_of_no_other() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let own = upstream.address.to_string();
    let config = Config::for_upstream(upstream.address);
    let config = config.text("upstream.organizations.acme", "address", &own);
    let gatepost = start(config, address);
    send(&gatepost, &gatepost.create());
    let metrics = scrape(address);
    let page = include_str!("../docs/src/reference/metrics.md");
    let types = metrics.lines().filter_map(|line| {
        let name = line.strip_prefix("# TYPE ")?.split(' ').next()?;
        name.starts_with("gatepost_").then_some(name)
    });
    let served: BTreeSet<_> = types.collect();
    let mut told = names(page);
    told.retain(|name| name.starts_with("gatepost_"));
    assert_eq!(told, served);
}

#[test]
fn organizations_beyond_the_bound_are_counted_together() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let config = Config::for_upstream(upstream.address).number("metrics", "series", 2);
    let gatepost = start(config, address);
    for organization in ["alpha", "beta", "gamma", "delta"] {
        send(&gatepost, &create_in(&gatepost, organization));
    }
    let messages = |organization: &str| {
        format!(
            "gatepost_organization_messages_total{{organization=\"{organization}\",outcome=\"accepted\"}}"
        )
    };
    for (organization, count) in [("alpha", 1.0), ("beta", 1.0), ("other", 2.0)] {
        wait_for_series(address, &messages(organization), count);
    }
    let text = get(address, "/metrics");
    for organization in ["gamma", "delta"] {
        assert!(!text.contains(organization), "{text}");
    }
    let credentials = text
        .matches("gatepost_credential_recipients_total{")
        .count();
    assert_eq!(credentials, 3, "{text}");
    // Each of the two was met at its login and at its session.
    let overflow = "gatepost_series_overflow_total{label=\"organization\"}";
    wait_for_series(address, overflow, 4.0);
}

#[test]
fn unknown_names_make_no_series() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    let mut guesser = Client::submissions(&gatepost);
    guesser.expect("EHLO client.example", "250");
    let stranger = Credential {
        username: "smtp_nobodynobody000".into(),
        password: "sk_00000000000000000000000000000000".into(),
    };
    guesser.auth_plain(&stranger).expect("535");
    let refused = "gatepost_auth_total{reason=\"unknown\",result=\"reject\"}";
    wait_for_series(address, refused, 1.0);
    let text = get(address, "/metrics");
    assert!(!text.contains("nobodynobody"), "{text}");
    assert!(!text.contains("gatepost_organization_"), "{text}");
}

#[test]
fn sessions_messages_and_bytes_are_counted_by_what_became_of_them() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    let credential = gatepost.create();
    wait_until_seen(address);
    let mut client = Client::logged_in(&gatepost, &credential);
    wait_for_series(address, "gatepost_sessions_open", 1.0);
    client
        .send_message(b"Subject: counted\r\n\r\nhello\r\n")
        .expect("250");
    upstream.on("RCPT", Act::Reply("550 5.1.1 nobody"));
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@example.test>", "550");
    client.expect("RSET", "250");
    client.expect("QUIT", "221");
    client.expect_close();
    // 18 octets of header, the empty line, 7 of text, and the dot that ends it.
    for (series, value) in [
        ("gatepost_sessions_open", 0.0),
        ("gatepost_sessions_total", 1.0),
        ("gatepost_message_bytes_total{outcome=\"accepted\"}", 30.0),
        (
            "gatepost_organization_message_bytes_total{organization=\"default\"}",
            30.0,
        ),
        ("gatepost_recipients_total{outcome=\"accepted\"}", 1.0),
        ("gatepost_recipients_total{outcome=\"refused\"}", 1.0),
        (
            "gatepost_organization_recipients_total{organization=\"default\"}",
            1.0,
        ),
        ("gatepost_argon2_in_flight", 0.0),
        ("gatepost_argon2_queue", 0.0),
        (
            "gatepost_store_operation_seconds_count{operation=\"lookup\"}",
            1.0,
        ),
        ("gatepost_handover_seconds_count", 1.0),
    ] {
        wait_for_series(address, series, value);
    }
    for direction in ["from_client", "to_client", "from_upstream", "to_upstream"] {
        let series = format!("gatepost_bytes_total{{direction=\"{direction}\"}}");
        let bytes = served(address, &series).expect("a series");
        assert!((60.0..2000.0).contains(&bytes), "{series} {bytes}");
    }
}

#[test]
fn a_revoked_credential_leaves_the_cache_and_is_counted() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    let credential = gatepost.create();
    send(&gatepost, &credential);
    gatepost.rotate(&credential);
    crate::support::refused_soon(|| {
        let mut client = Client::submissions(&gatepost);
        client.expect("EHLO client.example", "250");
        client.auth_plain(&credential)
    });
    wait_for_series(address, "gatepost_cache_invalidations_total", 1.0);
}

#[test]
fn handshakes_are_counted_by_version_and_by_why_they_failed() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    drop(Client::submissions(&gatepost));
    wait_for_series(
        address,
        "gatepost_tls_handshakes_total{version=\"TLSv1.3\"}",
        1.0,
    );

    let mut plain = TcpStream::connect(gatepost.submissions).expect("connect");
    plain
        .set_read_timeout(Some(PATIENCE))
        .expect("set a timeout");
    plain.write_all(b"EHLO client.example\r\n").expect("write");
    // It answers with an alert or just closes; either way it is over then.
    let _ = plain.read_to_end(&mut Vec::new());
    let failures = |reason| format!("gatepost_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    wait_for_series(address, &failures("plain_text"), 1.0);

    let mut midway = TcpStream::connect(gatepost.submissions).expect("connect");
    midway.write_all(&[0x16, 3, 1]).expect("write");
    drop(midway);
    wait_for_series(address, &failures("gone"), 1.0);
}

#[test]
fn an_upstream_that_is_down_shows() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let gatepost = start(Config::for_upstream(upstream.address), address);
    wait_for_series(address, "gatepost_upstream_up", 1.0);
    let credential = gatepost.create();
    drop(upstream);
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454");
    for (series, value) in [
        ("gatepost_upstream_up", 0.0),
        ("gatepost_upstream_connects_total{result=\"failed\"}", 1.0),
        ("gatepost_handover_failures_total{stage=\"connect\"}", 1.0),
        ("gatepost_sessions_total", 0.0),
    ] {
        wait_for_series(address, series, value);
    }
}

#[test]
fn metrics_are_for_requests_by_a_name_of_this_gatepost() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let config = Config::for_upstream(upstream.address)
        .text("metrics", "listen", &address.to_string())
        .text("metrics", "hosts", "gatepost.example.net");
    let _gatepost = Gatepost::start(config);
    for (host, status) in [
        (address.to_string(), "200"),
        (format!("localhost:{}", address.port()), "200"),
        (format!("gatepost.example.net:{}", address.port()), "200"),
        (format!("rebound.example.net:{}", address.port()), "403"),
        (format!("192.0.2.7:{}", address.port()), "403"),
    ] {
        let mut socket = TcpStream::connect(address).expect("connect");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("ask");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host}: {answer}"
        );
        assert_eq!(
            answer.contains("gatepost_build_info"),
            status == "200",
            "{host}"
        );
        assert_eq!(answer.contains("metrics.hosts"), status == "403", "{host}");
    }
}
