//! The headers by which a browser says where a request is from and to, and the words of their
//! refusals.

use super::Dashboard;
use super::forged::{actions, csrf, filled};

/// The page with markup taken for text.
fn read(body: &str) -> String {
    body.replace("&#34;", "\"").replace("&#38;", "&")
}

#[test]
fn our_own_form_with_a_null_origin_is_carried_out() {
    let (dashboard, _credential, _live) = filled();
    let host = format!("Host: {}", dashboard.address);
    let null = "Origin: null".to_owned();
    let site = |site: &str| format!("Sec-Fetch-Site: {site}");

    // Signing in.
    let mut plain = dashboard.plain();
    let hidden = plain.get("/sign-in").expect(200).hidden("/sign-in");
    let mut fields: Vec<_> = hidden
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    fields.push(("token", &dashboard.token));
    let own = [host.clone(), null.clone(), site("same-origin")];
    plain.send("POST /sign-in", &own, &fields).location();

    // A change, and signing out. Without the form's secret, neither.
    let secret = csrf(&mut plain);
    let before = dashboard.changes();
    let rename = "POST /organizations/default/rename";
    for csrf in ["", "wrong"] {
        let fields = [("csrf", csrf), ("name", "Taken")];
        plain.send(rename, &own, &fields).expect(403);
    }
    assert_eq!(dashboard.changes(), before);
    let fields = [("csrf", secret.as_str()), ("name", "Mine")];
    plain.send(rename, &own, &fields).location();
    assert!(dashboard.changes() > before);
    plain.send("POST /sign-out", &own, &fields).location();
}

#[test]
fn every_other_null_origin_is_refused() {
    let (dashboard, credential, _live) = filled();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let secret = csrf(&mut plain);
    let own = format!("http://{}", dashboard.address);
    let before = dashboard.changes();
    let others = [
        "Origin: null",
        "Origin: null\r\nSec-Fetch-Site: none",
        "Origin: null\r\nSec-Fetch-Site: same-site",
        "Origin: null\r\nSec-Fetch-Site: cross-site",
        "Origin: null\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
        "Origin: null\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: same-origin",
        "Origin: null\r\nOrigin: null\r\nSec-Fetch-Site: same-origin",
        &format!("Origin: {own}\r\nOrigin: null\r\nSec-Fetch-Site: same-origin"),
        "Origin: NULL\r\nSec-Fetch-Site: same-origin",
        "Origin:\r\nSec-Fetch-Site: same-origin",
    ];
    for other in others {
        let headers = [format!("Host: {}", dashboard.address), other.to_owned()];
        for (path, fields) in actions(&dashboard, &credential) {
            let mut all = vec![("csrf", secret.as_str())];
            all.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
            let answer = plain.send(&format!("POST {path}"), &headers, &all);
            assert_eq!(answer.status, 403, "{path} with {other}: {}", answer.body);
        }
    }
    // The API has no forms, so a null origin there is never ours.
    let headers = [
        format!("Host: {}", dashboard.address),
        format!("Authorization: Bearer {}", dashboard.token),
        "Origin: null".to_owned(),
        "Sec-Fetch-Site: same-origin".to_owned(),
    ];
    let answer = plain.send("POST /api/v1/organizations", &headers, &[]);
    assert!(answer.expect(403).body.contains("foreign-origin"));
    assert_eq!(dashboard.changes(), before);
}

#[test]
fn a_refused_header_is_named_with_its_value_and_the_key_to_set() {
    let dashboard = Dashboard::start_with(|config| {
        config.raw(
            "admin",
            "hosts",
            "[\"localhost\", \"admin.example.test\", \"[2001:db8::1]\"]".to_owned(),
        )
    });
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let host = format!("Host: {}", dashboard.address);
    let cases = [
        (
            vec!["Host: evil.test".to_owned()],
            vec![
                "Host",
                "evil.test",
                "allowed are localhost, loopback addresses, ",
                "admin.example.test, [2001:db8::1]",
                "mail.example.test",
                "admin.hosts",
            ],
        ),
        (
            vec![host.clone(), "Origin: https://evil.test".to_owned()],
            vec![
                "Origin",
                "https://evil.test",
                "admin.example.test",
                "https://[2001:db8::1]",
                "admin.hosts",
            ],
        ),
        (
            vec![host.clone(), "Origin: null".to_owned()],
            vec!["Origin", "null", "admin.example.test", "admin.hosts"],
        ),
        (
            vec![host, "Sec-Fetch-Site: cross-site".to_owned()],
            vec!["Sec-Fetch-Site", "cross-site", "same-origin"],
        ),
    ];
    for (headers, words) in cases {
        for path in ["/organizations", "/api/v1/organizations"] {
            if path.starts_with("/api") && headers[headers.len() - 1].starts_with("Sec-") {
                continue;
            }
            let refused = plain.send(&format!("POST {path}"), &headers, &[]);
            let page = read(&refused.expect(403).body);
            for word in &words {
                assert!(page.contains(word), "{word} on {path}: {page}");
            }
            assert!(!page.contains("addresses, localhost"), "{page}");
        }
        let line = dashboard.daemon.wait_for_log(&words);
        assert!(line.contains("127.0.0.1"), "{line}");
    }
}

#[test]
fn refusals_do_not_flood_the_log() {
    let dashboard = Dashboard::start();
    let mut plain = dashboard.plain();
    let mut refused = |name: String| {
        let host = format!("Host: {name}");
        plain.send("GET /", &[host], &[]).expect(403);
    };
    let lines = || dashboard.daemon.log().matches("request refused").count();
    for _ in 0..50 {
        refused("evil.test".to_owned());
    }
    assert_eq!(lines(), 1);
    for number in 0..200 {
        refused(format!("evil{number}.test"));
    }
    assert!(lines() <= 70, "{}", lines());
}

#[test]
fn hosts_are_taken_as_they_stand_in_a_url() {
    let dashboard = Dashboard::start_with(|config| {
        let hosts = "[\"[2001:db8::1]\", \"2001:DB8:0::2\", \"[IPv6:2001:db8::3]\", \"192.0.2.1\", \"Admin.Example.Test\"]";
        config.raw("admin", "hosts", hosts.to_owned())
    });
    let mut plain = dashboard.plain();
    for host in [
        "[2001:db8::1]",
        "[2001:db8::1]:8443",
        "[2001:DB8::1]",
        "[2001:db8::2]",
        "[2001:db8::3]",
        "192.0.2.1:8443",
        "admin.example.test",
        "ADMIN.example.test:443",
        "[::1]",
        "localhost",
    ] {
        let page = plain.send("GET /sign-in", &[format!("Host: {host}")], &[]);
        assert_eq!(page.status, 200, "{host}: {}", page.body);
    }
    for host in ["[2001:db8::4]", "2001:db8::1", "192.0.2.2", "example.test"] {
        let page = plain.send("GET /sign-in", &[format!("Host: {host}")], &[]);
        assert!([400, 403].contains(&page.status), "{host}: {}", page.status);
    }
}

#[test]
fn a_proxy_that_changes_host_is_told_by_the_configured_name() {
    let dashboard = Dashboard::start_with(|config| {
        config.raw("admin", "hosts", "[\"admin.example.test\"]".to_owned())
    });
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let secret = csrf(&mut plain);
    let mut rename = |host: &str, origin: &str| {
        let headers = [format!("Host: {host}"), format!("Origin: {origin}")];
        let fields = [("csrf", secret.as_str()), ("name", "Mine")];
        let page = plain.send("POST /organizations/default/rename", &headers, &fields);
        page.status
    };
    // By the Host that nginx sends of its own accord.
    let own = dashboard.address.to_string();
    for origin in [
        "https://admin.example.test",
        "https://Admin.example.test:443",
        "http://admin.example.test",
    ] {
        assert_eq!(rename(&own, origin), 303, "{origin}");
    }
    for origin in [
        "https://admin.example.test:8443",
        "ftp://admin.example.test",
        "https://mail.example.test",
        "https://admin.example.test.evil.test",
        "https://127.0.0.1",
        "admin.example.test",
    ] {
        assert_eq!(rename(&own, origin), 403, "{origin}");
    }
    // Where Host has a port of its own, no other program's origin is ours.
    let with_port = "admin.example.test:8443";
    assert_eq!(rename(with_port, "https://admin.example.test"), 403);
}
