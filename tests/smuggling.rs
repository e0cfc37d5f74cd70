//! Odd line ends, which one server takes for the end of a message and another does not. Whatever the
//! upstream takes them for: what comes out is what went in, or nothing is taken, and nobody's second
//! message is hidden in the first.

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::upstream::{Session, Upstream};

/// What may stand between two texts, and whether it is in order: then it ends lines by CRLF alone,
/// with every dot at their beginning stuffed.
const ENDS: [(&[u8], bool); 29] = [
    (b"\n", false),
    (b"\r", false),
    (b"\n\n", false),
    (b"\r\r", false),
    (b"\n\r", false),
    (b"\r\r\n", false),
    (b"\n\r\n", false),
    (b"\r\n\n", false),
    (b"\r\n\r", false),
    (b"\n.\n", false),
    (b"\n.\r\n", false),
    (b"\n.\r", false),
    (b"\r.\r", false),
    (b"\r.\n", false),
    (b"\r.\r\n", false),
    (b"\r\n.\n", false),
    (b"\r\n.\r", false),
    (b"\r\n.\r\r\n", false),
    (b"\r\n.\n\r\n", false),
    (b"\r\r\n.\r\r\n", false),
    (b"\r\n\n.\n\r\n", false),
    (b"\n..\n", false),
    (b"\r\n..\n", false),
    (b"\r\n..\r\n", true),
    (b"\r\n...\r\n", true),
    (b"\r\n.. \r\n", true),
    (b"\r\n..x\r\n", true),
    (b"\r\n \r\n..\r\n\r\n", true),
    (b"\r\n\x0b\x0c\xc2\x85\xe2\x80\xa8\r\n", true),
];

const BEFORE: &[u8] = b"Subject: x\r\n\r\nbefore";

/// What would be commands if the message ended in front of it, and the message's real end.
const AFTER: &[u8] = b"MAIL FROM:<smuggled@example.test>\r\nRCPT TO:<box@example.test>\r\nDATA\r\n\
    Subject: smuggled\r\n\r\nhidden\r\n.\r\n";

fn wire(end: &[u8]) -> Vec<u8> {
    [BEFORE, end, AFTER].concat()
}

/// The message as it is in the transaction, without its end.
fn body(end: &[u8]) -> Vec<u8> {
    let wire = wire(end);
    wire[..wire.len() - b".\r\n".len()].to_vec()
}

/// Nothing that was heard came from inside a message.
fn assert_nothing_is_smuggled(sessions: &[Session]) {
    for session in sessions {
        assert!(!session.heard("MAIL FROM:<smuggled@"), "{session:#?}");
        assert!(session.bodies.len() <= 1, "{session:#?}");
    }
}

/// Sends the message in these pieces, each a TLS record; the reply to it.
fn send(client: &mut Client, pieces: &[&[u8]]) -> String {
    client.begin_message();
    for piece in pieces {
        client.write(piece);
    }
    client.reply().lines[0].clone()
}

/// Every message in every two pieces, and byte by byte.
fn face(upstream: &Upstream, gatepost: &Gatepost) {
    let credential = gatepost.create();
    for (end, in_order) in ENDS {
        let wire = wire(end);
        // Before, inside and behind the odd place; the rest of the message is the same everywhere.
        let around = BEFORE.len() - 2..BEFORE.len() + end.len() + 3;
        let last = wire.len() - 6..wire.len();
        let splits = around.chain(last).map(|at| {
            let (first, second) = wire.split_at(at);
            vec![first, second]
        });
        let bytes = wire.chunks(1).collect();
        for pieces in splits.chain([bytes]) {
            let before = upstream.handed_over().len();
            let mut client = Client::logged_in(gatepost, &credential);
            let reply = send(&mut client, &pieces);
            let sessions = upstream.handed_over();
            let sessions = &sessions[before..];
            assert_nothing_is_smuggled(sessions);
            let bodies: Vec<_> = sessions
                .iter()
                .flat_map(|session| &session.bodies)
                .collect();
            if in_order {
                assert!(reply.starts_with("250 "), "{end:?}: {reply}");
                assert!(
                    bodies.len() == 1 && *bodies[0] == body(end),
                    "{end:?}: {bodies:?}"
                );
            } else {
                assert!(reply.starts_with("550 5.6.0"), "{end:?}: {reply}");
                assert!(bodies.is_empty(), "{end:?}: {bodies:?}");
            }
        }
    }
}

#[test]
fn a_strict_upstream_gets_the_very_bytes_or_no_message() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address);
    let gatepost = Gatepost::start(config.text("relay", "bare_newline", "reject"));
    face(&upstream, &gatepost);
}

#[test]
fn what_is_made_clean_is_one_message_to_every_upstream() {
    for upstream in [Upstream::start(), Upstream::start_lax()] {
        let config = Config::for_upstream(upstream.address);
        let gatepost = Gatepost::start(config);
        let credential = gatepost.create();
        for (end, in_order) in ENDS {
            let wire = wire(end);
            let whole: Vec<&[u8]> = vec![&wire];
            for pieces in [whole, wire.chunks(1).collect()] {
                let before = upstream.handed_over().len();
                let mut client = Client::logged_in(&gatepost, &credential);
                let reply = send(&mut client, &pieces);
                assert!(reply.starts_with("250 "), "{end:?}: {reply}");
                let sessions = upstream.handed_over();
                let sessions = &sessions[before..];
                assert_nothing_is_smuggled(sessions);
                let taken = &sessions[0].bodies[0];
                assert!(
                    taken.ends_with(b"Subject: smuggled\r\n\r\nhidden\r\n"),
                    "{end:?}"
                );
                assert!(!in_order || *taken == body(end), "{end:?}: {taken:?}");
                let text = String::from_utf8_lossy(taken).replace("\r\n", "");
                assert!(!text.contains(['\r', '\n']), "{end:?}: {text:?}");
            }
        }
    }
}
