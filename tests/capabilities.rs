//! What the upstream can do, and what becomes of a client that was told of more.

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::{Config, HOSTNAME};
use crate::support::upstream::{Act, Upstream};

/// What is left of [`crate::support::upstream::EXTENSIONS`] when an upstream has hardly anything.
const BARE: &str = "250-upstream.example.test\r\n250 XCLIENT NAME ADDR PROTO HELO LOGIN";

fn serving(config: impl FnOnce(Config) -> Config) -> (Upstream, Gatepost) {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(Config::for_upstream(upstream.address)));
    (upstream, gatepost)
}

#[test]
fn an_extension_dropped_since_the_probe_is_refused_by_itself() {
    let (upstream, gatepost) = serving(|config| config);
    upstream.on("EHLO", Act::Reply(BARE));
    let mut client = Client::submissions(&gatepost);
    let told = client.expect("EHLO client.example", "250");
    assert!(told.offers("8BITMIME") && told.offers("SMTPUTF8") && told.offers("DSN"));
    client.auth_plain(&gatepost.create()).expect("235");
    for (parameter, refusal) in [
        ("BODY=8BITMIME", "554 5.6.3"),
        ("SMTPUTF8", "553 5.6.7"),
        ("RET=HDRS", "555 5.5.4"),
        ("ENVID=x", "555 5.5.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
    ] {
        client.expect(
            &format!("MAIL FROM:<sender@example.test> {parameter}"),
            refusal,
        );
    }
    client.expect("MAIL FROM:<s\u{e9}nder@example.test>", "553 5.6.7");
    client.expect("MAIL FROM:<sender@example.test> BODY=7BIT SIZE=100", "250");
    client.expect("RCPT TO:<box@example.test> NOTIFY=NEVER", "555 5.5.4");
    client.expect("RCPT TO:<box@example.test>", "250");
    client.expect("DATA", "354");
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    client.reply().expect("250");
    let session = upstream.wait_for("with the message", delivered);
    assert!(
        session.heard("MAIL FROM:<sender@example.test>"),
        "{session:?}"
    );
    assert!(
        !session
            .commands
            .iter()
            .any(|command| command.contains("BODY=")),
        "{session:?}"
    );
    // Whoever comes next is told what there is.
    let told = Client::submissions(&gatepost).expect("EHLO client.example", "250");
    assert!(
        !told.offers("8BITMIME")
            && !told.offers("PIPELINING")
            && !told.offers("ENHANCEDSTATUSCODES")
    );
}

#[test]
fn an_extension_dropped_while_the_client_was_idle_is_refused_by_itself() {
    let (upstream, gatepost) = serving(|config| config.text("upstream", "idle_release", "200ms"));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.expect(
        "MAIL FROM:<sender@example.test> BODY=8BITMIME RET=HDRS",
        "250",
    );
    client.expect("RSET", "250");
    upstream.on("EHLO", Act::Reply(BARE));
    upstream.wait_for("given back", |session| {
        session.heard("QUIT") && session.heard("XCLIENT")
    });
    client.expect("MAIL FROM:<sender@example.test> BODY=8BITMIME", "554 5.6.3");
    client.expect("MAIL FROM:<sender@example.test> RET=HDRS", "555 5.5.4");
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    let sessions = upstream.handed_over();
    assert_eq!(sessions.len(), 2, "{sessions:#?}");
    assert!(
        !sessions[1]
            .commands
            .iter()
            .any(|command| command.contains("BODY=")),
        "{sessions:#?}"
    );
}

#[test]
fn an_upstream_without_pipelining_gets_one_command_at_a_time() {
    let (upstream, gatepost) = serving(|config| config);
    upstream.on("EHLO", Act::Reply(BARE));
    let mut client = Client::submissions(&gatepost);
    assert!(
        client
            .expect("EHLO client.example", "250")
            .offers("PIPELINING")
    );
    client.auth_plain(&gatepost.create()).expect("235");
    client.write(
        b"MAIL FROM:<sender@example.test>\r\nRCPT TO:<a@example.test>\r\nNOOP\r\nRSET\r\nNOOP\r\n",
    );
    for start in ["250 2.1.0", "250 2.1.5", "250", "250", "250"] {
        client.reply().expect(start);
    }
    let session = &upstream.handed_over()[0];
    let together = session
        .reads
        .iter()
        .filter(|read| read.matches("\r\n").count() > 1);
    assert_eq!(together.count(), 0, "{:?}", session.reads);
}

#[test]
fn the_lower_size_counts_at_mail_and_while_streaming() {
    // Theirs, then ours.
    for (theirs, ours, limit) in [(1000, 5000, 1000), (5000, 1000, 1000), (0, 1000, 1000)] {
        let (upstream, gatepost) = serving(|config| config.number("relay", "message_size", ours));
        let offer = format!("250-x\r\n250-SIZE {theirs}\r\n250 XCLIENT ADDR LOGIN");
        upstream.on("EHLO", Act::Reply(offer.leak()));
        let mut client = Client::logged_in(&gatepost, &gatepost.create());
        let told = client.expect("EHLO client.example", "250");
        assert!(told.offers(&format!("SIZE {limit}")), "{told:?}");
        client.expect(
            &format!("MAIL FROM:<sender@example.test> SIZE={}", limit + 1),
            "552 5.3.4",
        );
        let fits = [&vec![b'x'; limit - 2][..], b"\r\n"].concat();
        client.send_message(&fits).expect("250");
        client
            .send_message(&[b"x", &fits[..]].concat())
            .expect("552 5.3.4");
        client.send_message(&fits).expect("250");
        let sessions = upstream.handed_over();
        let bodies: Vec<_> = sessions
            .iter()
            .flat_map(|session| &session.bodies)
            .collect();
        assert!(bodies.len() == 2 && bodies.iter().all(|body| **body == fits));
        // The one that was too large was left without its end.
        assert_eq!(sessions.len(), 2, "{sessions:#?}");
    }
}

#[test]
fn a_size_lowered_since_the_probe_counts() {
    let (upstream, gatepost) = serving(|config| config);
    upstream.on(
        "EHLO",
        Act::Reply("250-x\r\n250-SIZE 1000\r\n250 XCLIENT ADDR LOGIN"),
    );
    let mut client = Client::submissions(&gatepost);
    assert!(
        client
            .expect("EHLO client.example", "250")
            .offers("SIZE 10240000")
    );
    client.auth_plain(&gatepost.create()).expect("235");
    client.expect("MAIL FROM:<sender@example.test> SIZE=1001", "552 5.3.4");
    client
        .send_message(&[&[b'x'; 1000][..], b"\r\n"].concat())
        .expect("552 5.3.4");
}

#[test]
fn a_refused_mail_is_followed_by_one_reset() {
    let (upstream, gatepost) = serving(|config| config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    let resets = |count: usize| {
        eventually(&format!("{count} resets"), || {
            let sessions = upstream.handed_over();
            let commands = &sessions[0].commands;
            (commands.iter().filter(|command| *command == "RSET").count() == count).then_some(())
        });
    };
    upstream.once(
        "MAIL",
        Act::Reply("552 5.3.4 Message size exceeds fixed limit"),
    );
    client.expect("MAIL FROM:<sender@example.test>", "552 5.3.4");
    resets(1);
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    // A whole batch behind a MAIL that is refused.
    upstream.once("MAIL", Act::Reply("450 4.7.1 later"));
    upstream.once("RCPT", Act::Reply("503 5.5.1 no"));
    upstream.once("DATA", Act::Reply("503 5.5.1 no"));
    client.write(b"MAIL FROM:<sender@example.test>\r\nRCPT TO:<a@example.test>\r\nDATA\r\n");
    for start in ["450 4.7.1", "503", "503"] {
        client.reply().expect(start);
    }
    resets(2);
    // One inside a transaction must not end it.
    client.expect("MAIL FROM:<sender@example.test>", "250");
    upstream.once("MAIL", Act::Reply("503 5.5.1 nested"));
    client.expect("MAIL FROM:<other@example.test>", "503");
    client.expect("RCPT TO:<box@example.test>", "250");
    client.expect("DATA", "354");
    client.write(b"Subject: y\r\n\r\nhello\r\n.\r\n");
    client.reply().expect("250");
    resets(2);
    assert_eq!(upstream.handed_over().len(), 1);
}

#[test]
fn an_upstream_that_refuses_even_reset_is_left() {
    for act in [
        Act::Reply("421 4.3.0 bye"),
        Act::Reply("502 5.5.1 what"),
        Act::Silence,
        Act::Close,
    ] {
        let (upstream, gatepost) =
            serving(|config| config.text("upstream", "command_timeout", "300ms"));
        let mut client = Client::logged_in(&gatepost, &gatepost.create());
        upstream.once("MAIL", Act::Reply("550 5.7.1 no"));
        upstream.once("RSET", act);
        client.expect("MAIL FROM:<sender@example.test>", "550 5.7.1");
        eventually("that one is left", || {
            upstream.handed_over()[0].ended.then_some(())
        });
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250");
        assert_eq!(upstream.handed_over().len(), 2);
    }
}

#[test]
fn a_real_postfix_takes_the_next_message_after_one_that_it_refused() {
    let postfix = Postfix::start(Sockets::Tcp);
    let config = Config::for_upstream(postfix.upstream());
    let gatepost = Gatepost::start(config.text("dovecot_auth", "listen", &postfix.auth()));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client.expect("MAIL FROM:<sender@example.test> SIZE=20000000", "552 5.3.4");
    client.expect("MAIL FROM:<not an address>", "501");
    client
        .send_message(b"Subject: after-the-refusal\r\n\r\nhello\r\n")
        .expect("250 2.0.0");
    postfix.wait_for_message("Subject: after-the-refusal");
    let told = client.expect("EHLO client.example", "250");
    assert!(
        told.lines[0].contains(HOSTNAME) && told.offers("SIZE 10240000"),
        "{told:?}"
    );
}
