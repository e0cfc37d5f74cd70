//! A client that sends nothing holds no session at the upstream, and never notices.

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::Config;
use crate::support::upstream::{Act, Session, Upstream};

fn releasing() -> (Upstream, Gatepost) {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("upstream", "idle_release", "300ms");
    let gatepost = Gatepost::start(config);
    (upstream, gatepost)
}

fn given_back(session: &Session) -> bool {
    session.xclient().is_some() && session.heard("QUIT") && session.ended
}

#[test]
fn an_idle_session_is_given_back_and_the_next_message_gets_a_new_one() {
    let (upstream, gatepost) = releasing();
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    for round in 1..=3 {
        upstream.wait_for("given back", given_back);
        client
            .send_message(b"Subject: x\r\n\r\nhello\r\n")
            .expect("250 2.0.0 Ok: queued");
        eventually("the session is given back again", || {
            let sessions = upstream.handed_over();
            (sessions.len() == round + 1 && sessions.iter().all(given_back)).then_some(())
        });
    }
    client.expect("QUIT", "221");
    let sessions = upstream.handed_over();
    let bodies: usize = sessions.iter().map(|session| session.bodies.len()).sum();
    assert_eq!((sessions.len(), bodies), (4, 3), "{sessions:#?}");
    // All of them this client's: address, port, name and login.
    let identity = sessions[0].xclient().unwrap();
    assert!(
        identity.contains(&format!("LOGIN={}", credential.username)),
        "{identity}"
    );
    for session in &sessions {
        assert_eq!(session.xclient(), Some(identity));
    }
    gatepost.wait_for_log(&["session ended", "messages=3"]);
}

#[test]
fn a_transaction_is_never_given_back() {
    let (upstream, gatepost) = releasing();
    let credential = gatepost.create();
    let mut begun = Client::logged_in(&gatepost, &credential);
    begun.expect("MAIL FROM:<begun@example.test>", "250");
    let mut writing = Client::logged_in(&gatepost, &credential);
    writing.begin_message();
    writing.write(b"Subject: slowly\r\n\r\n");
    // Two that came later tell when its time would have been over: one after the other.
    for _ in 0..2 {
        let _idle = Client::logged_in(&gatepost, &credential);
        let count = upstream.handed_over().len();
        eventually("the idle one is given back", || {
            given_back(&upstream.handed_over()[count - 1]).then_some(())
        });
    }
    writing.write(b"hello\r\n.\r\n");
    writing.reply().expect("250");
    begun.expect("RCPT TO:<box@example.test>", "250");
    begun.expect("DATA", "354");
    begun.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    begun.reply().expect("250");
    let sessions = upstream.handed_over();
    assert_eq!(sessions.len(), 4, "{sessions:#?}");
    assert!(
        delivered(&sessions[0]) && delivered(&sessions[1]),
        "{sessions:#?}"
    );
}

#[test]
fn staying_awake_is_not_sending() {
    let (upstream, gatepost) = releasing();
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    eventually("given back in spite of NOOP", || {
        client.expect("NOOP", "250");
        given_back(&upstream.handed_over()[0]).then_some(())
    });
    client.expect("NOOP", "250");
    assert_eq!(upstream.handed_over().len(), 1);
}

#[test]
fn without_an_upstream_the_rest_is_answered_all_the_same() {
    let (upstream, gatepost) = releasing();
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    upstream.wait_for("given back", given_back);
    client.expect("NOOP", "250");
    client.expect("RSET", "250");
    assert!(
        client
            .expect("EHLO client.example", "250")
            .offers("8BITMIME")
    );
    client.expect("VRFY somebody", "252");
    client.expect("RCPT TO:<box@example.test>", "503");
    client.expect("DATA", "503");
    client.expect("QUIT", "221");
    client.expect_close();
    assert_eq!(upstream.handed_over().len(), 1);
}

#[test]
fn a_batch_waits_for_its_new_session_and_stays_in_order() {
    let (upstream, gatepost) = releasing();
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    upstream.wait_for("given back", given_back);
    client.write(
        b"NOOP\r\nMAIL FROM:<sender@example.test>\r\nRCPT TO:<box@example.test>\r\nDATA\r\n",
    );
    for start in ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"] {
        client.reply().expect(start);
    }
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\nNOOP\r\n");
    client.reply().expect("250 2.0.0 Ok: queued");
    client.reply().expect("250");
    upstream.wait_for("with the message", delivered);
}

#[test]
fn where_no_new_session_is_to_be_had_mail_is_451_and_may_be_tried_again() {
    let (upstream, gatepost) = releasing();
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    upstream.wait_for("given back", given_back);
    for refusal in [
        Act::Close,
        Act::Reply("421 4.3.2 no"),
        Act::Reply("550 5.7.0 no"),
    ] {
        upstream.on("XCLIENT", refusal);
        client.expect("MAIL FROM:<sender@example.test>", "451 4.3.2");
        client.expect("RCPT TO:<box@example.test>", "503");
    }
    upstream.on("XCLIENT", Act::Reply("220 upstream.example.test ESMTP"));
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn parked_clients_hold_no_session_at_a_real_postfix() {
    let postfix = Postfix::start(Sockets::Tcp);
    let config = Config::for_upstream(postfix.upstream())
        .text("dovecot_auth", "listen", &postfix.auth())
        .text("upstream", "idle_release", "300ms");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    let mut parked: Vec<_> = (0..20)
        .map(|_| Client::logged_in(&gatepost, &credential))
        .collect();
    eventually("Postfix is left alone", || {
        let log = postfix.log();
        let left = log
            .matches("ehlo=1 xclient=0/1 quit=1 commands=2/3")
            .count();
        (left == parked.len()).then_some(())
    });
    for (number, client) in parked.iter_mut().enumerate() {
        let message = format!("Subject: parked-{number}\r\n\r\nhello\r\n");
        client.send_message(message.as_bytes()).expect("250 2.0.0");
        postfix.wait_for_message(&format!("Subject: parked-{number}"));
    }
    let login = format!("sasl_username={}", credential.username);
    assert_eq!(postfix.log().matches(&login).count(), parked.len());
}
