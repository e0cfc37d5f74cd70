//! TLS on the way to the upstream: verified, or there is no session.

use std::path::Path;

use rcgen::{CertificateParams, DnType};
use tempfile::TempDir;

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Site};
use crate::support::tls;
use crate::support::upstream::{Act, Security, Upstream};

/// A pair of which the certificate is its own authority.
struct Pair(TempDir);

impl Pair {
    fn new() -> Self {
        let directory = TempDir::new().expect("tempdir");
        tls::write_certificate(directory.path());
        Self(directory)
    }

    fn of(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let directory = TempDir::new().expect("tempdir");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("valid names");
        change(&mut params);
        tls::write_certificate_of(directory.path(), params);
        Self(directory)
    }

    fn directory(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> String {
        let path = self.directory().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn upstream(&self, mode: &str, clients: Option<&Pair>) -> Upstream {
        let clients = clients.map(|pair| pair.directory().join("certificate.pem"));
        let config = tls::server(self.directory(), clients.as_deref());
        Upstream::start_with(match mode {
            "starttls" => Security::StartTls(config),
            _ => Security::Implicit(config),
        })
    }
}

fn config(upstream: &Upstream, mode: &str, authority: &Pair) -> Config {
    Config::for_upstream(upstream.address)
        .text("upstream", "tls", mode)
        .text("upstream", "tls_ca", &authority.file("certificate.pem"))
}

/// A right password is 454, `log` says why, and the upstream has heard neither who nor what.
#[track_caller]
fn assert_not_handed_over(upstream: &Upstream, config: Config, log: &str) {
    let gatepost = Gatepost::start(config);
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&gatepost.create()).expect("454 4.7.0");
    gatepost.wait_for_log(&["did not take a session over", log]);
    for session in upstream.sessions() {
        assert!(
            !session.heard("XCLIENT") && !session.heard("MAIL"),
            "{session:?}"
        );
    }
}

#[test]
fn messages_reach_an_upstream_that_is_verified() {
    let pair = Pair::new();
    for mode in ["starttls", "implicit"] {
        let upstream = pair.upstream(mode, None);
        let gatepost = Gatepost::start(config(&upstream, mode, &pair));
        let mut client = Client::logged_in(&gatepost, &gatepost.create());
        // More than sockets and TLS hold back between them.
        let line = [&[b'x'; 998][..], b"\r\n"].concat();
        let message = [&b"Subject: x\r\n\r\n"[..], &line.repeat(2000)].concat();
        client.send_message(&message).expect("250");
        client.expect("QUIT", "221");
        let session = upstream.wait_for("with the message", delivered);
        assert!(session.tls && !session.certified);
        assert!(session.bodies[0] == message, "changed on the way");
        let checked = gatepost.succeed(&["check"]);
        assert!(
            checked.contains("answers over verified TLS and grants XCLIENT"),
            "{checked}"
        );
    }
}

#[test]
fn the_system_s_authorities_count_where_none_is_named() {
    let pair = Pair::new();
    let upstream = pair.upstream("starttls", None);
    let config = Config::for_upstream(upstream.address).text("upstream", "tls", "starttls");
    let site = std::sync::Arc::new(Site::new(config));
    // Where OpenSSL and its like look for them as well.
    let gatepost = Gatepost::launch(&site, |mut command| {
        command.env("SSL_CERT_FILE", pair.file("certificate.pem"));
        command
    });
    Client::logged_in(&gatepost, &gatepost.create());
}

#[test]
fn an_upstream_behind_a_name_is_verified_by_it() {
    let by_name = Pair::of(|params| {
        *params = CertificateParams::new(["localhost".to_owned()]).expect("valid names");
    });
    let by_address = Pair::of(|_| {});
    let behind_a_name = |upstream: &Upstream, pair: &Pair| {
        let address = format!("\"localhost:{}\"", upstream.address.port());
        config(upstream, "starttls", pair).address(address)
    };
    let upstream = by_name.upstream("starttls", None);
    let gatepost = Gatepost::start(behind_a_name(&upstream, &by_name));
    Client::logged_in(&gatepost, &gatepost.create());
    let upstream = by_address.upstream("starttls", None);
    let config = behind_a_name(&upstream, &by_address);
    assert_not_handed_over(&upstream, config, "not valid for name");
}

#[test]
fn who_cannot_be_verified_is_not_the_upstream() {
    let right = Pair::new();
    let stranger = Pair::of(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a stranger");
    });
    let old = Pair::of(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let elsewhere = Pair::of(|params| {
        *params = CertificateParams::new(["elsewhere.test".to_owned()]).expect("valid names");
    });
    for mode in ["starttls", "implicit"] {
        for (shown, believed, name, cause) in [
            (&stranger, &right, None, "unknown issuer"),
            (&old, &old, None, "expired"),
            (&elsewhere, &elsewhere, None, "not valid for name"),
            (&right, &right, Some("elsewhere.test"), "not valid for name"),
        ] {
            let upstream = shown.upstream(mode, None);
            let mut config = config(&upstream, mode, believed);
            if let Some(name) = name {
                config = config.text("upstream", "tls_name", name);
            }
            assert_not_handed_over(&upstream, config, cause);
        }
    }
}

#[test]
fn the_name_that_counts_can_be_given() {
    let elsewhere = Pair::of(|params| {
        *params = CertificateParams::new(["elsewhere.test".to_owned()]).expect("valid names");
    });
    let upstream = elsewhere.upstream("implicit", None);
    let config = config(&upstream, "implicit", &elsewhere);
    let gatepost = Gatepost::start(config.text("upstream", "tls_name", "elsewhere.test"));
    Client::logged_in(&gatepost, &gatepost.create());
}

#[test]
fn starttls_that_is_not_to_be_had_leaves_nothing_in_the_clear() {
    let pair = Pair::new();
    let upstream = Upstream::start();
    upstream.on("EHLO", Act::Reply("250-x\r\n250 XCLIENT ADDR LOGIN"));
    let not_offered = config(&upstream, "starttls", &pair);
    assert_not_handed_over(&upstream, not_offered, "it does not offer STARTTLS");
    for refusal in ["454 4.7.0 not now", "502 5.5.1 no", "250 2.0.0 odd"] {
        let upstream = Upstream::start();
        upstream.on("STARTTLS", Act::Reply(refusal));
        assert_not_handed_over(&upstream, config(&upstream, "starttls", &pair), refusal);
    }
}

#[test]
fn words_behind_the_reply_to_starttls_are_not_taken_for_the_upstreams() {
    let pair = Pair::new();
    let upstream = pair.upstream("starttls", None);
    upstream.on(
        "STARTTLS",
        Act::Reply("220 go on\r\n250-injected\r\n250 XCLIENT ADDR LOGIN"),
    );
    assert_not_handed_over(
        &upstream,
        config(&upstream, "starttls", &pair),
        "more than it was asked",
    );
}

#[test]
fn a_plain_server_is_no_tls_server_and_a_tls_server_no_plain_one() {
    let pair = Pair::new();
    let upstream = Upstream::start();
    assert_not_handed_over(&upstream, config(&upstream, "implicit", &pair), "at tls");
    let upstream = pair.upstream("implicit", None);
    let config =
        Config::for_upstream(upstream.address).text("upstream", "handoff_timeout", "500ms");
    assert_not_handed_over(&upstream, config, "at greeting");
}

#[test]
fn we_show_a_certificate_where_one_is_asked_for() {
    let (pair, own) = (Pair::new(), Pair::new());
    for mode in ["starttls", "implicit"] {
        let upstream = pair.upstream(mode, Some(&own));
        // TLS 1.3 tells a client only afterwards that its certificate was missing.
        let without = config(&upstream, mode, &pair);
        assert_not_handed_over(&upstream, without, "certificate_required");
        let with = config(&upstream, mode, &pair)
            .text("upstream", "tls_certificate", &own.file("certificate.pem"))
            .text("upstream", "tls_key", &own.file("key.pem"));
        let gatepost = Gatepost::start(with);
        let mut client = Client::logged_in(&gatepost, &gatepost.create());
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250");
        assert!(upstream.wait_for("with the message", delivered).certified);
    }
}

#[test]
fn an_authority_or_a_pair_that_cannot_be_read_ends_the_start() {
    let (pair, other) = (Pair::new(), Pair::new());
    let certificate = pair.file("certificate.pem");
    let key = other.file("key.pem");
    let missing = pair.file("none.pem");
    for (keys, cause) in [
        (vec![("tls_ca", &missing)], "none.pem: No such file"),
        (vec![("tls_ca", &key)], "no certificate in PEM form"),
        (
            vec![("tls_certificate", &certificate), ("tls_key", &key)],
            "cannot be used together",
        ),
    ] {
        let mut config = Config::for_upstream("127.0.0.1:1").text("upstream", "tls", "starttls");
        for (key, file) in keys {
            config = config.text("upstream", key, file);
        }
        let site = Site::new(config);
        let output = site.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(cause), "{said}");
    }
}
