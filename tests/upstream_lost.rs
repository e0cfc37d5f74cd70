//! An upstream, or a client, that is down, silent or lost in the middle.

use crate::limits::{Gate, send};
use crate::prometheus::wait_for_series;
use crate::relay::{delivered, log_in, serving};
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::Config;
use crate::support::upstream::{Act, BODY, END_OF_DATA, EXTENSIONS, Upstream};

#[test]
fn an_upstream_that_is_down_is_454_until_it_is_back() {
    let address = ports::free_address();
    let gatepost = Gatepost::start(Config::for_upstream(address));
    let credential = gatepost.create();
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
    let upstream = Upstream::start_at(address);
    client.auth_plain(&credential).expect("235 2.7.0");
    client
        .send_message(b"Subject: back\r\n\r\nhello\r\n")
        .expect("250");
    upstream.wait_for("with the message", delivered);
}

#[test]
fn an_upstream_that_is_silent_is_454_in_time() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("upstream", "command_timeout", "1s");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    upstream.on("XCLIENT", Act::Silence);
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
}

#[test]
fn an_upstream_lost_between_transactions_goes_unnoticed() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    upstream.hang_up();
    upstream.wait_for("that ended", |session| {
        session.xclient().is_some() && session.ended
    });
    client
        .send_message(b"Subject: again\r\n\r\nhello\r\n")
        .expect("250");
    let sessions = upstream.handed_over();
    assert_eq!(sessions.len(), 2);
    assert!(
        sessions[1]
            .xclient()
            .unwrap()
            .contains(&credential.username)
    );
}

#[test]
fn an_upstream_that_cannot_be_had_again_is_451_at_mail() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    upstream.on("XCLIENT", Act::Close);
    upstream.hang_up();
    upstream.wait_for("that ended", |session| {
        session.xclient().is_some() && session.ended
    });
    client.expect("MAIL FROM:<sender@example.test>", "451 4.3.2");
}

#[test]
fn an_upstream_lost_inside_a_transaction_is_421() {
    let (upstream, gatepost) = serving();
    upstream.on("RCPT", Act::Close);
    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@example.test>", "421 4.3.0");
    client.expect_close();
}

#[test]
fn an_upstream_lost_during_a_body_never_becomes_a_250() {
    for moment in [BODY, END_OF_DATA] {
        for act in [Act::Close, Act::Reset] {
            let (upstream, gatepost) = serving();
            upstream.once(moment, act);
            let mut client = log_in(&gatepost);
            client.begin_message();
            client.write(b"Subject: lost\r\n\r\nhello\r\n.\r\n");
            client.reply().expect("451 4.3.0");
            client
                .send_message(b"Subject: again\r\n\r\nhello\r\n")
                .expect("250");
            client.expect("QUIT", "221");
            let sessions = upstream.handed_over();
            assert_eq!(sessions.len(), 2, "{sessions:#?}");
            assert_eq!(sessions[0].xclient(), sessions[1].xclient());
            assert_eq!((sessions[0].taken, sessions[1].taken), (0, 1));
        }
    }
}

/// A client that has sent half a body and whose upstream is lost by now.
fn halfway(gatepost: &Gatepost, upstream: &Upstream) -> Client {
    upstream.once(BODY, Act::Close);
    let mut client = log_in(gatepost);
    client.begin_message();
    client.write(b"Subject: half\r\n");
    gatepost.wait_for_log(&["the upstream was lost inside a transaction"]);
    client
}

#[test]
fn a_client_hears_of_a_lost_body_behind_its_own_end_and_in_order() {
    let (upstream, gatepost) = serving();
    let mut client = halfway(&gatepost, &upstream);
    let batch = "\r\nhello\r\n..\r\n.\r\nNOOP\r\nMAIL FROM:<sender@example.test>\r\n\
                 RCPT TO:<box@example.test>\r\nDATA\r\n";
    client.write(batch.as_bytes());
    for start in ["451 4.3.0", "250 2.0.0", "250 2.1.0", "250 2.1.5", "354"] {
        client.reply().expect(start);
    }
    client.write(b"Subject: whole\r\n\r\nhello\r\n.\r\n");
    client.reply().expect("250");
    let session = upstream.wait_for("with the message", delivered);
    assert_eq!(session.bodies, [b"Subject: whole\r\n\r\nhello\r\n"]);
}

#[test]
fn a_message_that_cannot_be_taken_anyway_is_refused_although_its_upstream_is_lost() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("relay", "bare_newline", "reject");
    let gatepost = Gatepost::start(config);
    let mut client = halfway(&gatepost, &upstream);
    client.write(b"\r\nbare\nline feed\r\n.\r\n");
    client.reply().expect("550 5.6.0");
    client.expect("QUIT", "221");
}

#[test]
fn a_lost_body_without_an_end_is_bounded_in_size_and_in_time() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).number("relay", "message_size", 100_000);
    let gatepost = Gatepost::start(config);
    let mut client = halfway(&gatepost, &upstream);
    let mut sent = 0;
    let piece = b"x".repeat(1 << 20);
    while client.try_write(&piece).is_ok() {
        sent += 1;
        assert!(sent < 100, "{sent} MiB and still reading");
    }
    assert!(sent >= 16, "{sent} MiB");

    let config = Config::for_upstream(upstream.address).text("timeouts", "idle", "1s");
    let gatepost = Gatepost::start(config);
    let mut client = halfway(&gatepost, &upstream);
    let began = std::time::Instant::now();
    while client.try_write(&[b'x'; 100]).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if gatepost.log().contains("session ended") {
            break;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "still reading");
    }
    client.reply().expect("421 4.4.2");
    client.expect_close();
}

#[test]
fn a_lost_body_costs_no_message_of_a_limit() {
    let gate = Gate::start();
    gate.limit(serde_json::json!({ "messages_per_day": 1 }));
    for (act, lost) in [(Act::Close, 1), (Act::Reply("552 5.3.4 too large"), 2)] {
        gate.upstream.once(BODY, act);
        let mut client = gate.log_in();
        client.begin_message();
        client.write(b"Subject: half\r\n");
        // Behind the end of data, a lost upstream might have the message.
        wait_for_series(gate.metrics, "gatepost_upstream_lost_total", lost.into());
        client.write(b"\r\nhello\r\n.\r\n");
        let reply = client.reply();
        assert!(!reply.starts_with("250"), "{reply:?}");
        assert_eq!(gate.uses()[0]["used"], 0, "{act:?}");
    }
    send(&mut gate.log_in()).expect("250");
}

#[test]
fn behind_an_upstream_that_is_lost_in_a_body_the_next_one_takes_over() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let config = Config::for_upstreams(&[first.address, second.address]);
    let gatepost = Gatepost::start(config);
    let mut client = halfway(&gatepost, &first);
    drop(first);
    client.write(b"\r\nhello\r\n.\r\n");
    client.reply().expect("451 4.3.0");
    client
        .send_message(b"Subject: again\r\n\r\nhello\r\n")
        .expect("250");
    second.wait_for("with the message", delivered);
}

#[test]
fn a_hand_over_may_take_longer_than_connecting() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("upstream", "connect_timeout", "1s");
    let gatepost = Gatepost::start(config);
    upstream.on("<greeting>", Act::Late(700, "220 upstream ESMTP"));
    upstream.on("EHLO", Act::Late(700, EXTENSIONS));
    upstream.once("XCLIENT", Act::Late(700, "220 upstream ESMTP"));
    upstream.once("XCLIENT", Act::Reply("503 5.5.1 EHLO first"));
    let mut client = log_in(&gatepost);
    client
        .send_message(b"Subject: slowly\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn a_hand_over_that_takes_too_long_is_454() {
    for moment in ["<greeting>", "EHLO client", "XCLIENT"] {
        let upstream = Upstream::start();
        let config =
            Config::for_upstream(upstream.address).text("upstream", "handoff_timeout", "500ms");
        let gatepost = Gatepost::start(config);
        let credential = gatepost.create();
        upstream.on(moment, Act::Silence);
        let mut client = Client::submissions(&gatepost);
        client.expect("EHLO client.example", "250");
        client.auth_plain(&credential).expect("454 4.7.0");
        gatepost.wait_for_log(&["did not take a session over", "it did not answer in time"]);
    }
}

#[test]
fn a_client_lost_during_a_body_leaves_no_message() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.write(b"Subject: half\r\n\r\nhello\r\n");
    drop(client);
    let session = upstream.wait_for("that ended", |session| {
        session.heard("DATA") && session.ended
    });
    assert!(session.bodies.is_empty(), "{session:?}");
}
