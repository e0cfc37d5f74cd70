//! A client that hangs up, or is cut off, once its end of data is on its way: by then the upstream
//! may deliver the message, so it counts like any other.

use std::sync::Barrier;

use rustix::process::Signal;
use serde_json::json;

use crate::limits::{Gate, MESSAGE, mail};
use crate::prometheus::wait_for_series;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::Config;
use crate::support::upstream::{Act, END_OF_DATA, Session};

const QUEUED: &str = "250 2.0.0 Ok: queued as 4242";

/// Ways to leave behind the final dot.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By close_notify, and no word more.
    Finish,
    /// By closing the socket.
    Drop,
    /// By a reset.
    Reset,
}

impl Way {
    fn go(self, mut client: Client) {
        match self {
            Way::Finish => client.finish(),
            Way::Drop => {}
            Way::Reset => client.reset(),
        }
    }
}

fn bodies(gate: &Gate) -> usize {
    let sessions = gate.upstream.handed_over();
    sessions.iter().map(|session| session.bodies.len()).sum()
}

/// Sends a message up to its final dot; false if it is refused at MAIL.
fn send_all_but_wait(client: &mut Client) -> bool {
    if !mail(client).starts_with("250") {
        return false;
    }
    client.expect("RCPT TO:<box@example.test>", "250");
    client.expect("DATA", "354");
    client.write(&[MESSAGE, b".\r\n"].concat());
    true
}

/// What is written of the messages that were sent.
fn written(gate: &Gate) -> Option<i64> {
    let store = rusqlite::Connection::open(gate.daemon().site().store()).expect("the store");
    let sum = "SELECT sum(messages) FROM usage";
    store.query_row(sum, [], |row| row.get(0)).expect("usage")
}

fn used(gate: &Gate) -> u64 {
    gate.uses()[0]["used"].as_u64().expect("how much is used")
}

#[test]
fn hanging_up_behind_the_dot_does_not_pass_a_limit() {
    for way in [Way::Finish, Way::Drop, Way::Reset] {
        let gate = Gate::start();
        gate.upstream.on(END_OF_DATA, Act::Late(100, QUEUED));
        gate.limit(json!({ "messages_per_day": 2 }));
        let mut sent = 0;
        for _ in 0..10 {
            let mut client = gate.log_in();
            if send_all_but_wait(&mut client) {
                sent += 1;
                // A reset makes the kernel forget what was not read yet.
                eventually("the dot is upstream", || {
                    (bodies(&gate) == sent).then_some(())
                });
                way.go(client);
            }
        }
        assert_eq!((sent, bodies(&gate)), (2, 2), "{way:?}");
        for _ in 0..2 {
            gate.daemon().wait_for_log(&["session ended", "messages=1"]);
        }
        let accepted = "gatepost_messages_total{outcome=\"accepted\"}";
        wait_for_series(gate.metrics, accepted, 2.0);
        assert_eq!(used(&gate), 2, "{way:?}");
        gate.counted("credential", "messages_per_day", "refused", 8);
    }
}

#[test]
fn many_at_once_that_hang_up_do_not_pass_a_limit_either() {
    const CLIENTS: usize = 10;
    let gate = Gate::start();
    gate.upstream.on(END_OF_DATA, Act::Late(200, QUEUED));
    gate.limit(json!({ "messages_per_hour": 2 }));
    let ready = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gate.log_in();
                ready.wait();
                if send_all_but_wait(&mut client) {
                    // A close with something unread is a reset, which the dot must not be lost in.
                    eventually("both are upstream", || (bodies(&gate) >= 2).then_some(()));
                }
            });
        }
    });
    eventually("both are counted", || (used(&gate) == 2).then_some(()));
    assert_eq!(bodies(&gate), 2);
    let mut client = gate.log_in();
    mail(&mut client).expect("451 4.7.1");
}

#[test]
fn a_message_that_the_upstream_refuses_behind_the_hang_up_is_given_back() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_day": 1 }));
    let refusal = Act::Late(200, "550 5.7.1 spam");
    gate.upstream.once(END_OF_DATA, refusal);
    let mut client = gate.log_in();
    assert!(send_all_but_wait(&mut client));
    eventually("the dot is upstream", || (bodies(&gate) == 1).then_some(()));
    drop(client);
    eventually("the message is given back", || {
        mail(&mut gate.log_in()).starts_with("250").then_some(())
    });
    let refused = "gatepost_messages_total{outcome=\"refused_upstream\"}";
    wait_for_series(gate.metrics, refused, 1.0);
}

#[test]
fn a_message_that_is_never_answered_counts_as_sent() {
    for act in [Act::Close, Act::Reset, Act::Raw("250 2.0.0 Ok\n")] {
        let gate = Gate::start();
        gate.limit(json!({ "messages_per_day": 1 }));
        gate.upstream.once(END_OF_DATA, act);
        let mut client = gate.log_in();
        assert!(send_all_but_wait(&mut client));
        client.reply().expect("451 4.3.0");
        mail(&mut client).expect("451 4.7.1 Too many messages in a day");
        client.expect("QUIT", "221");
        gate.daemon()
            .wait_for_log(&["never answered a message", "counts as sent"]);
        gate.daemon().wait_for_log(&["session ended", "messages=1"]);
        let lost = "gatepost_messages_total{outcome=\"lost\"}";
        wait_for_series(gate.metrics, lost, 1.0);
    }
}

#[test]
fn a_recipient_that_was_accepted_counts_whatever_comes_behind() {
    let gate = Gate::start();
    gate.limit(json!({ "recipients_per_day": 2 }));
    for _ in 0..2 {
        let mut client = gate.log_in();
        mail(&mut client).expect("250");
        client.expect("RCPT TO:<box@example.test>", "250");
        client.reset();
    }
    let mut client = gate.log_in();
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<box@example.test>", "452 4.5.3");
}

#[test]
fn a_batch_that_is_cut_off_counts_what_was_sent_whole() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_day": 3 }));
    gate.upstream.once(END_OF_DATA, Act::Late(300, QUEUED));
    let mut client = gate.log_in();
    assert!(send_all_but_wait(&mut client));
    client.write(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<box@example.test>\r\nDATA\r\n");
    eventually("the dot is upstream", || (bodies(&gate) == 1).then_some(()));
    client.reset();
    gate.daemon().wait_for_log(&["session ended", "messages=1"]);
    assert_eq!(used(&gate), 1);
}

#[test]
fn a_client_that_is_disconnected_hears_the_word_on_its_message_if_that_comes_soon() {
    let gate = Gate::start();
    gate.upstream.once(END_OF_DATA, Act::Late(300, QUEUED));
    let mut client = gate.log_in();
    assert!(send_all_but_wait(&mut client));
    eventually("the dot is upstream", || (bodies(&gate) == 1).then_some(()));
    gate.change(json!({ "status": "revoked", "disconnect": true }))
        .expect(200);
    client.reply().expect(QUEUED);
    client.reply().expect("421 4.7.0");
    client.expect_close();
    gate.daemon()
        .wait_for_log(&["session ended", "messages=1", "disconnected"]);
}

#[test]
fn a_client_that_is_disconnected_does_not_wait_for_a_slow_word_but_its_message_counts() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_day": 5 }));
    gate.upstream.once(END_OF_DATA, Act::Late(3000, QUEUED));
    let mut client = gate.log_in();
    assert!(send_all_but_wait(&mut client));
    eventually("the dot is upstream", || (bodies(&gate) == 1).then_some(()));
    gate.change(json!({ "status": "revoked", "disconnect": true }))
        .expect(200);
    client.expect_close();
    let is_answered = |session: &Session| session.taken == 1;
    assert!(!gate.upstream.handed_over().iter().any(is_answered));
    gate.daemon()
        .wait_for_log(&["session ended", "messages=1", "disconnected"]);
    assert_eq!(used(&gate), 1);
}

#[test]
fn the_end_of_a_drain_forgets_no_message() {
    // One is answered within the last second, the other never.
    for (act, reply) in [(Act::Late(700, QUEUED), Some(QUEUED)), (Act::Silence, None)] {
        let gate = Gate::with(|config| config.drain_timeout("300ms"));
        gate.upstream.once(END_OF_DATA, act);
        let mut client = gate.log_in();
        let mut gone = gate.log_in();
        assert!(send_all_but_wait(&mut client));
        eventually("the dot is upstream", || (bodies(&gate) == 1).then_some(()));
        gate.upstream.once(END_OF_DATA, act);
        assert!(send_all_but_wait(&mut gone));
        eventually("both are upstream", || (bodies(&gate) == 2).then_some(()));
        gone.reset();
        gate.daemon().signal(Signal::TERM);
        match reply {
            Some(reply) => {
                client.reply().expect(reply);
                client.reply().expect("421 4.3.2");
            }
            None => client.expect_close(),
        }
        eventually("both are written", || {
            (written(&gate) == Some(2)).then_some(())
        });
    }
}

#[test]
fn a_real_postfix_delivers_what_is_hung_up_on_and_the_limit_knows() {
    let postfix = Postfix::start(Sockets::Tcp);
    let config = Config::for_upstream(postfix.upstream())
        .text("dovecot_auth", "listen", &postfix.auth())
        .number("credential_limits", "messages_per_day", 2);
    let gatepost = crate::support::gatepost::Gatepost::start(config);
    let credential = gatepost.create();
    let mut sent = 0;
    for number in 0..6 {
        let mut client = Client::logged_in(&gatepost, &credential);
        if !mail(&mut client).starts_with("250") {
            continue;
        }
        client.expect("RCPT TO:<box@example.test>", "250");
        client.expect("DATA", "354");
        let message = format!("Subject: hung-up-{number}\r\n\r\nhello\r\n.\r\n");
        client.write(message.as_bytes());
        drop(client);
        postfix.wait_for_message(&format!("Subject: hung-up-{number}"));
        sent += 1;
    }
    assert_eq!(sent, 2);
    eventually("both sessions count theirs", || {
        let log = gatepost.log();
        let counted = log.lines().filter(|line| line.contains("messages=1"));
        (counted.count() == 2).then_some(())
    });
}
