//! Rules, each broken in a real session: what the client is told, what the upstream never hears, and
//! that the metric and the log say the same.

use serde_json::{Value, json};

use crate::limits::Gate;
use crate::prometheus::wait_for_series;
use crate::support::client::Client;
use crate::support::eventually;

fn start(rules: Value) -> Gate {
    let gate = Gate::start();
    gate.change(json!({ "rules": rules })).expect(200);
    gate
}

impl Gate {
    #[track_caller]
    fn broken(&self, rule: &str, action: &str, times: usize) {
        let series = format!("gatepost_rule_refusals_total{{action=\"{action}\",rule=\"{rule}\"}}");
        wait_for_series(self.metrics, &series, times as f64);
    }

    #[track_caller]
    fn logged(&self, rule: &str, action: &str, value: &str) {
        let (rule, action) = (format!("rule=\"{rule}\""), format!("action=\"{action}\""));
        let username = &self.credential.username;
        self.daemon()
            .wait_for_log(&["rule broken", &rule, &action, value, username]);
    }
}

#[test]
fn a_sender_must_be_one_of_the_credentials() {
    let gate = start(json!({"senders": ["me@ok.test", "domain.test"]}));
    let mut client = gate.log_in();
    for path in [
        "<me@ok.test>",
        "<ME@OK.TEST> BODY=8BITMIME",
        "<any@domain.test>",
        "me@ok.test",
        " me@ok.test",
        "< me@ok.test >",
        "<@relay.test:me@ok.test>",
        "<me\\@ok.test>",
        "<Me <me@ok.test>>",
        "<you@evil.test <me@ok.test>>",
        "<\"me\"@ok.test>",
        "<\"me@ok.test\">",
        "<me @ ok.test>",
    ] {
        client.expect(&format!("MAIL FROM:{path}"), "250");
        client.expect("RSET", "250");
    }
    let refused = [
        "<you@ok.test>",
        "<>",
        "<x@sub.domain.test>",
        "<\"me@ok.test\"@evil.test>",
        "<me@ok.test:you@evil.test>",
        "you@ok.test",
        "<me\\@ok.test@evil.test>",
        "<me@ok.test <you@evil.test>>",
        "<(me@ok.test)you@evil.test>",
    ];
    for path in refused {
        let mut client = gate.log_in();
        let refusal = "550 5.7.1 This account may not send as this sender";
        client.expect(&format!("MAIL FROM:{path}"), refusal);
        client.expect("RCPT TO:<box@example.test>", "503");
        client.expect("DATA", "503");
    }
    gate.broken("senders", "refused", refused.len());
    gate.logged("senders", "refused", "<you@ok.test>");
    let sessions = gate.upstream.handed_over();
    assert!(
        sessions.iter().all(|session| {
            let mut mails = session
                .commands
                .iter()
                .filter(|line| line.starts_with("MAIL"));
            mails.all(|mail| {
                mail.contains("ok.test>")
                    || mail.contains("OK.TEST>")
                    || mail.contains("@domain.test>")
            }) && !session.heard("RCPT")
                && !session.heard("DATA")
        }),
        "{sessions:#?}"
    );
}

#[test]
fn bounces_may_be_allowed() {
    let gate = start(json!({"senders": ["me@ok.test", "<>"]}));
    let mut client = gate.log_in();
    client.expect("MAIL FROM:<>", "250");
}

#[test]
fn the_from_header_must_be_of_a_sender_and_what_is_not_is_never_finished() {
    let gate = start(json!({"senders": ["me@ok.test"], "header_from": true}));
    let send = |client: &mut Client, body: &str| {
        client.expect("MAIL FROM:<me@ok.test>", "250");
        client.expect("RCPT TO:<box@example.test>", "250");
        client.expect("DATA", "354");
        client.write(body.as_bytes());
        client.write(b".\r\n");
        client.reply()
    };
    let mut client = gate.log_in();
    let good = "From: Me\r\n <me@ok.test>\r\nSubject: x\r\n\r\nFrom: evil@bad.test\r\n";
    send(&mut client, good).expect("250");
    let bad = [
        "From: evil@bad.test\r\n\r\nhello\r\n",
        "From: me@ok.test\r\nFrom: evil@bad.test\r\n\r\nhello\r\n",
        "From: me@ok.test\r\n.From: evil@bad.test\r\n\r\nhello\r\n",
        "Subject: none\r\n\r\nhello\r\n",
        "no header\r\nFrom: me@ok.test\r\n\r\nhello\r\n",
        "From: evil@bad.test\r\n",
    ];
    for body in bad {
        send(&mut client, body).expect("550 5.7.1 This account may not send with this From header");
        // The session goes on, with an upstream of its own.
        send(&mut client, good).expect("250");
    }
    gate.broken("header_from", "refused", bad.len());
    for fault in ["foreign", "several", "missing", "malformed"] {
        gate.logged("header_from", "refused", fault);
    }
    assert_eq!(gate.taken(), 1 + bad.len());
    let bodies: Vec<_> = gate
        .upstream
        .handed_over()
        .into_iter()
        .flat_map(|session| session.bodies)
        .collect();
    assert!(
        bodies.iter().all(|body| body.starts_with(b"From: Me\r\n")),
        "{bodies:?}"
    );
    let outcome = "gatepost_messages_total{outcome=\"refused_here\"}";
    wait_for_series(gate.metrics, outcome, bad.len() as f64);
}

#[test]
fn the_from_header_is_read_as_it_goes_upstream() {
    let gate = start(json!({
        "senders": ["me@ok.test"],
        "header_from": true,
        "bare_newline": "normalize",
    }));
    let mut client = gate.log_in();
    for (body, reply) in [
        // To the upstream these are lines.
        ("From: me@ok.test\nSubject: x\n\nhello\r\n", "250"),
        (
            "Subject: x\nFrom: evil@bad.test\r\n\r\nhello\r\n",
            "550 5.7.1",
        ),
    ] {
        client.expect("MAIL FROM:<me@ok.test>", "250");
        client.expect("RCPT TO:<box@example.test>", "250");
        client.expect("DATA", "354");
        client.write(&[body.as_bytes(), b".\r\n"].concat());
        client.reply().expect(reply);
    }
}

#[test]
fn another_network_is_refused_like_a_wrong_password() {
    let gate = start(json!({"networks": ["127.0.0.7", "10.0.0.0/8"]}));
    Client::logged_in_from("127.0.0.7", gate.daemon(), &gate.credential);
    let mut client = Client::submissions(gate.daemon());
    client.expect("EHLO client.example", "250");
    // Also by a password that is remembered.
    for _ in 0..2 {
        let reply = client.auth_plain(&gate.credential);
        let wrong = client.auth_plain(&gate.credential.with_wrong_password());
        assert_eq!(reply, wrong);
        reply.expect("535 5.7.8");
    }
    gate.broken("networks", "refused", 2);
    let series = "gatepost_auth_total{reason=\"network\",result=\"reject\"}";
    wait_for_series(gate.metrics, series, 2.0);
    gate.daemon()
        .wait_for_log(&["login refused", "reason=\"network\"", "address=127.0.0.1"]);
}

#[test]
fn odd_line_ends_may_be_one_credentials_own() {
    let gate = start(json!({"bare_newline": "reject"}));
    let mut client = gate.log_in();
    client.begin_message();
    client.write(b"Subject: x\n\nhello\r\n.\r\n");
    client.reply().expect("550 5.6.0");
    let username = &gate.credential.username;
    eventually("the refusal is listed", || {
        let list = gate
            .daemon()
            .succeed(&["refusals", "list", "--username", username]);
        let words = "odd line ends: a bare CR or LF in a message ";
        list.contains(words).then_some(())
    });
    let other = gate.daemon().create();
    let mut client = Client::logged_in(gate.daemon(), &other);
    client.begin_message();
    client.write(b"Subject: x\n\nhello\r\n.\r\n");
    client.reply().expect("250");
}

#[test]
fn what_is_only_reported_is_let_through_and_told() {
    let gate = start(
        json!({"senders": ["me@ok.test"], "header_from": true, "networks": ["10.0.0.0/8"], "report": ["senders", "header_from", "networks", "expiry", "suspended"]}),
    );
    gate.daemon().sql(
        "UPDATE credentials SET expires_at = 1 WHERE username = ?1",
        &gate.credential.username,
    );
    gate.daemon()
        .succeed(&["organization", "suspend", "default"]);
    let mut client = gate.log_in();
    client
        .send_message(b"From: evil@bad.test\r\n\r\nhello\r\n")
        .expect("250");
    for (rule, value) in [
        ("senders", "<sender@example.test>"),
        ("header_from", "foreign"),
        ("networks", "127.0.0.1"),
        ("expiry", "127.0.0.1"),
        ("suspended", "127.0.0.1"),
    ] {
        gate.broken(rule, "reported", 1);
        gate.broken(rule, "refused", 0);
        gate.logged(rule, "reported", value);
    }
    assert_eq!(gate.taken(), 1);
    // Remembered, it is reported again.
    gate.log_in();
    gate.broken("expiry", "reported", 2);
    // And no more than that once it is not only reported.
    gate.change(json!({ "rules": { "report": [] } }))
        .expect(200);
    let mut client = Client::submissions(gate.daemon());
    client.expect("EHLO client.example", "250");
    client.auth_plain(&gate.credential).expect("535 5.7.8");
    gate.broken("suspended", "refused", 1);
}

#[test]
fn what_is_reported_again_and_again_is_logged_once_a_minute_and_session() {
    let gate = start(json!({"senders": ["ok.test"], "report": ["senders"]}));
    let mut client = gate.log_in();
    for number in 0..5 {
        client.expect(&format!("MAIL FROM:<a{number}@bad.test>"), "250");
        client.expect("RSET", "250");
    }
    gate.broken("senders", "reported", 5);
    drop(client);
    // One line when it begins, and one for all the others.
    gate.logged(
        "senders",
        "reported",
        "value=<a4@bad.test> action=\"reported\" count=4",
    );
    gate.logged(
        "senders",
        "reported",
        "value=<a0@bad.test> action=\"reported\" count=1",
    );
    let log = gate.daemon().log();
    let lines = log.lines().filter(|line| line.contains("rule broken"));
    assert_eq!(lines.count(), 2, "{log}");
}

#[test]
fn a_rule_counts_at_once_in_sessions_that_are_there() {
    let gate = start(json!({}));
    let mut client = gate.log_in();
    client.expect("MAIL FROM:<any@example.test>", "250");
    client.expect("RSET", "250");
    gate.change(json!({ "rules": { "senders": ["ok.test"] } }))
        .expect(200);
    client.expect("MAIL FROM:<any@example.test>", "550 5.7.1");
    client.expect("MAIL FROM:<any@ok.test>", "250");
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    let gate = start(json!({"senders": ["ok.test"], "header_from": true}));
    let rules = |options: &[&str]| {
        let own = ["credential", "rules", &gate.credential.username];
        let output = gate.daemon().run(&[&own, options].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let (succeeded, error) = rules(&["--senders", "any"]);
    assert!(
        !succeeded && error.contains("header_from compares with the senders"),
        "{error}"
    );
    let (succeeded, error) = rules(&["--networks", "10.0.0.1/8"]);
    assert!(
        !succeeded && error.contains("write \"10.0.0.0/8\""),
        "{error}"
    );
    let (succeeded, error) = rules(&["--networks", "::ffff:127.0.0.0/90"]);
    assert!(!succeeded && error.contains("holds all of IPv4"), "{error}");
    assert!(rules(&["--senders", "any", "--header-from", "no"]).0);
}

#[test]
fn a_network_of_ipv4_in_ipv6_form_is_that_ipv4_network() {
    let gate = start(json!({"networks": ["::ffff:127.0.0.0/104"]}));
    gate.log_in();
    let username = &gate.credential.username;
    let shown = gate.daemon().json(&["credential", "rules", username]);
    assert_eq!(
        shown["rules"]["networks"],
        json!(["127.0.0.0/8"]),
        "{shown}"
    );
    let options = [
        "credential",
        "rules",
        username,
        "--networks",
        "::ffff:127.0.0.1",
    ];
    let shown = gate.daemon().json(&options);
    assert_eq!(shown["rules"]["networks"], json!(["127.0.0.1"]), "{shown}");
    gate.log_in();
}
