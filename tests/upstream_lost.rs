//! An upstream, or a client, that is down, silent or lost in the middle.

use crate::relay::{delivered, log_in, serving};
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::Config;
use crate::support::upstream::{Act, BODY, END_OF_DATA, Upstream};

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
        let (upstream, gatepost) = serving();
        upstream.on(moment, Act::Close);
        let mut client = log_in(&gatepost);
        client.begin_message();
        // Either side may notice first; what counts is what the client is told.
        let _ = client.try_write(b"Subject: lost\r\n\r\nhello\r\n.\r\n");
        if let Some(reply) = client.try_reply() {
            assert!(reply.starts_with("4"), "at {moment}: {reply:?}");
            client.expect_close();
        }
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
