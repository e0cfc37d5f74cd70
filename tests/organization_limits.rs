//! Limits of an organization, which all its credentials share.

use serde_json::json;

use crate::api::DEFAULT;
use crate::limits::{Gate, MESSAGE, mail, send};
use crate::support::client::{Client, Reply};
use crate::support::eventually;

/// Two sessions, each of another credential of the organization.
fn two(gate: &Gate) -> [Client; 2] {
    [(), ()].map(|()| Client::logged_in(gate.daemon(), &gate.daemon().create()))
}

#[test]
fn two_credentials_share_the_second() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "messages_per_second": 1 }));
    // However slow the machine: each credential has one message only, so none is too fast alone.
    let replies = eventually("two at once are too many", || {
        let mut clients = two(&gate);
        for client in &mut clients {
            client.write(b"MAIL FROM:<a@example.test>\r\n");
        }
        let replies = clients.map(|mut client| client.reply());
        let refused = |reply: &Reply| reply.starts_with("421");
        replies.iter().any(refused).then_some(replies)
    });
    for reply in replies.into_iter().filter(|reply| reply.starts_with("421")) {
        reply.expect("421 4.7.0 Your organization sends");
    }
}

#[test]
fn two_credentials_share_the_hour() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "messages_per_hour": 2 }));
    let [mut one, mut other] = two(&gate);
    send(&mut one).expect("250");
    send(&mut other).expect("250");
    send(&mut one).expect("451 4.7.1");
    send(&mut other).expect("451 4.7.1");
    gate.counted("organization", "messages_per_hour", "refused", 2);
}

#[test]
fn two_credentials_share_the_recipients_of_the_day() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "recipients_per_day": 2 }));
    let [mut one, mut other] = two(&gate);
    send(&mut one).expect("250");
    mail(&mut other).expect("250");
    other.expect("RCPT TO:<a@example.test>", "250");
    // Not sent yet, and counts already.
    mail(&mut one).expect("250");
    one.expect("RCPT TO:<b@example.test>", "452 4.5.3");
    gate.counted("organization", "recipients_per_day", "refused", 1);
}

#[test]
fn each_message_of_an_organization_has_its_limits() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "recipients_per_message": 1, "message_size": 1024 }));
    for mut client in two(&gate) {
        mail(&mut client).expect("250");
        client.expect("RCPT TO:<a@example.test>", "250");
        client.expect("RCPT TO:<b@example.test>", "452 4.5.3");
        client.expect("RSET", "250");
        client.expect("MAIL FROM:<a@example.test> SIZE=1025", "552 5.3.4");
        client
            .send_message(&[&[b'x'; 1023][..], b"\r\n"].concat())
            .expect("552 5.3.4");
        client.send_message(MESSAGE).expect("250");
    }
    assert_eq!(gate.taken(), 2);
    gate.counted("organization", "recipients_per_message", "refused", 2);
    gate.counted("organization", "message_size", "refused", 4);
}

#[test]
fn a_store_that_cannot_be_written_hides_nothing_that_was_sent() {
    let gate = Gate::start();
    let store = rusqlite::Connection::open(gate.daemon().site().store()).expect("the store");
    let full = "CREATE TRIGGER full BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'full'); END";
    store.execute_batch(full).expect("a trigger");
    let [mut one, mut other] = two(&gate);
    send(&mut one).expect("250");
    send(&mut other).expect("250");
    gate.limit_organization(json!({ "messages_per_day": 3 }));
    // The right password is let in, and the organization's count is known.
    let mut third = gate.log_in();
    send(&mut third).expect("250");
    send(&mut third).expect("451 4.7.1");
    send(&mut one).expect("451 4.7.1");
}

#[test]
fn whoever_administers_an_organization_may_lift_the_defaults_and_not_its_limits() {
    let gate = Gate::with(|config| config.number("credential_limits", "messages_per_day", 1));
    gate.limit_organization(json!({ "messages_per_day": 3 }));
    let create = [
        "token",
        "create",
        "--name",
        "acme",
        "--scope",
        "org:default:admin",
    ];
    let made = gate.daemon().json(&create);
    let own = made["secret"].as_str().expect("a secret");
    let mut client = gate.log_in();
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1");
    gate.counted("credential", "messages_per_day", "refused", 1);

    let edit = format!("PATCH {DEFAULT}/{}", gate.credential.username);
    let unlimited = json!({ "limits": { "messages_per_day": "unlimited" } });
    gate.by(own, &edit, Some(unlimited.clone())).expect(200);
    send(&mut client).expect("250");
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1");
    gate.counted("organization", "messages_per_day", "refused", 1);
    let edit = "PATCH /api/v1/organizations/default";
    gate.by(own, edit, Some(unlimited))
        .problem(403, "forbidden");
    send(&mut client).expect("451 4.7.1");
}
