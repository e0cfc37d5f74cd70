//! Line-end differential: whatever a body's lines end in and however it is cut on the way, what the
//! upstream commits is what the client sent, or it commits nothing; never two messages.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::peers::Peer;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::sink::{Sink, lax_end};
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, within};

/// What some server took for the end of a message, and is none.
const ODD: [(&str, &[u8]); 24] = [
    ("LF.LF", b"\n.\n"),
    ("LF.CRLF", b"\n.\r\n"),
    ("CRLF.LF", b"\r\n.\n"),
    ("CR.CR", b"\r.\r"),
    ("CR.LF", b"\r.\n"),
    ("LF.CR", b"\n.\r"),
    ("CRLF.CR", b"\r\n.\r"),
    ("CR.CRLF", b"\r.\r\n"),
    ("CRLF.CRCRLF", b"\r\n.\r\r\n"),
    ("CR.CRCRLF", b"\r.\r\r\n"),
    ("CRCRLF.CRCRLF", b"\r\r\n.\r\r\n"),
    ("LF.CRCRLF", b"\n.\r\r\n"),
    ("LFCR.LFCR", b"\n\r.\n\r"),
    ("LFLF.LFLF", b"\n\n.\n\n"),
    ("CRLFCR.CRLF", b"\r\n\r.\r\n"),
    ("CRLF.LFCRLF", b"\r\n.\n\r\n"),
    ("CRLF.NUL", b"\r\n.\0\r\n"),
    ("CRLF.NUL text", b"\r\n.\0text\r\n"),
    ("NUL.CRLF", b"\r\n\0.\r\n"),
    ("NUL.NUL", b"\r\n\0.\0\r\n"),
    ("CRLF.CR NUL LF", b"\r\n.\r\0\n"),
    ("CR NUL LF.CRLF", b"\r\0\n.\r\n"),
    ("LF NUL.LF", b"\n\0.\n"),
    ("LF.NUL LF", b"\n.\0\n"),
];

/// Bodies that are well formed, but not as every scanner expects: as on the wire, before the end.
const EVEN: [&[u8]; 8] = [
    b"",
    b"..\r\n",
    b"..\r\n..\r\n\r\n..\r\n",
    b"S: x\r\n\r\n...\r\n..a\r\n",
    b"S: x\r\n\r\na.\r\n.. \r\n.\t.\r\n",
    b"S: x\r\n\r\na\x0b.\x0bb\x0c.\x0c\r\n",
    b"S: x\r\n\r\na\x85.\x85\xe2\x80\xa8.\xe2\x80\xa8\r\n",
    b"S: x\r\n\r\n\r\n\r\n\r\n",
];

/// What a second message begins with, for whoever believes that the first is over.
const SMUGGLED: &str = "MAIL FROM:<>\r\nRCPT TO:<box@example.test>\r\nDATA\r\n\r\n.\r\n";

/// How a body is cut into TLS records on its way.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Each octet in a record of its own, all sent at once.
    Bytewise,
    /// One record up to there and one behind it, sent at once.
    Records(usize),
    /// The same, the second sent only when the first has passed through.
    Writes(usize),
    /// One record.
    Whole,
}

/// A body with something odd in the middle, and what would be a message behind it.
fn odd_body(odd: &[u8]) -> Vec<u8> {
    [b"S: x\r\n\r\na", odd, SMUGGLED.as_bytes()].concat()
}

fn config(upstream: impl std::fmt::Display) -> Config {
    // Hundreds of refusals in one session are what this is about.
    Config::for_upstream(upstream)
        .number("limits", "errors", 1_000_000)
        .text("relay", "bare_newline", "reject")
}

/// Every cut there is; from `decided` on, where the body's fate is sealed, only into records.
fn every_cut(wire: &[u8], decided: usize) -> Vec<Cut> {
    let writes = (1..decided).map(Cut::Writes);
    let cuts = (1..wire.len()).map(Cut::Records).chain(writes);
    cuts.chain([Cut::Whole, Cut::Bytewise]).collect()
}

/// Sends `wire`, cut, as the message of `sender`; the first word of the reply to its end.
fn send(client: &mut Client, sender: &str, wire: &[u8], cut: Cut, sink: Option<&Sink>) -> String {
    // One by one: not every upstream has PIPELINING.
    client.expect(sender, "250");
    client.expect("RCPT TO:<box@example.test>", "250");
    client.expect("DATA", "354");
    match cut {
        Cut::Bytewise => client.write_records(wire.chunks(1)),
        Cut::Records(at) => client.write_records([&wire[..at], &wire[at..]]),
        Cut::Whole => client.write(wire),
        Cut::Writes(at) => {
            client.write(&wire[..at]);
            // A CR, or a dot at the begin of a line, is held back until the next octet decides.
            let held = [(&b"\n.\r"[..], 2), (b"\n.", 1), (b"\r", 1)];
            let lines = [b"\n", &wire[..at]].concat();
            let held = held.iter().find(|(end, _)| lines.ends_with(end));
            let held = held.map_or(0, |(_, octets)| *octets);
            let passed = at - held;
            let sink = sink.expect("one who sees it pass");
            sink.wait_for(sender, |seen| seen.over || seen.received.len() >= passed);
            client.write(&wire[at..]);
        }
    }
    client.reply().lines[0][..9].to_owned()
}

/// Sends every one of `messages` over four sessions.
fn send_all(site: &Site, sink: &Sink, messages: &[(String, Vec<u8>, Cut)], answer: &str) {
    let credential = site.create();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::logged_in(site, &credential);
                while let Some((sender, wire, cut)) =
                    messages.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let reply = send(&mut client, sender, wire, *cut, Some(sink));
                    assert_eq!(reply, answer, "{sender}: {wire:?}");
                }
            });
        }
    });
}

#[test]
fn every_odd_end_is_an_end_for_the_sink_and_no_even_body_has_one() {
    for (name, odd) in ODD {
        let (at, _) = lax_end(&odd_body(odd)).expect(name);
        assert!(at < b"S: x\r\n\r\na".len() + odd.len(), "{name}");
        // The true end is the last thing in it, or what follows would be the client's to say.
        let ours = memchr::memmem::find(&odd_body(odd), b"\r\n.\r\n").expect(name);
        assert_eq!(ours + 5, odd_body(odd).len(), "{name} is no odd end");
    }
    for even in EVEN {
        assert_eq!(lax_end(even), None, "{even:?}");
    }
}

#[test]
fn an_odd_end_commits_nothing_at_the_laxest_of_sinks_however_it_is_cut() {
    let sink = Sink::start();
    let gatepost = Gatepost::start(config(sink.address));
    let mut messages = Vec::new();
    for (_, odd) in ODD {
        let wire = odd_body(odd);
        let decided = wire.len() - SMUGGLED.len() + 2;
        for cut in every_cut(&wire, decided) {
            let sender = format!("MAIL FROM:<{}@example.test>", messages.len());
            messages.push((sender, wire.clone(), cut));
        }
    }
    send_all(&gatepost, &sink, &messages, "550 5.6.0");
    let transactions = sink.transactions();
    for (sender, wire, cut) in &messages {
        let seen = sink.wait_for(sender, |seen| seen.over);
        assert_eq!(seen.committed, [] as [&[u8]; 0], "{wire:?} {cut:?}");
    }
    let expected: BTreeSet<_> = messages.iter().map(|(sender, ..)| sender).collect();
    assert!(transactions.keys().eq(expected), "somebody else's message");
}

#[test]
fn an_even_body_is_committed_as_it_came_however_it_is_cut() {
    let sink = Sink::start();
    let gatepost = Gatepost::start(config(sink.address));
    let mut messages = Vec::new();
    for even in EVEN {
        let wire = [even, b".\r\n"].concat();
        for cut in every_cut(&wire, wire.len()) {
            let sender = format!("MAIL FROM:<{}@example.test>", messages.len());
            messages.push((sender, wire.clone(), cut));
        }
    }
    send_all(&gatepost, &sink, &messages, "250 2.0.0");
    for (sender, wire, cut) in &messages {
        let seen = sink.wait_for(sender, |seen| seen.over);
        assert_eq!(seen.committed, [&wire[..wire.len() - 3]], "{cut:?}");
    }
    assert_eq!(sink.transactions().len(), messages.len());
}

/// Every boundary that there can be between two records, and the two extremes.
fn every_record(wire: &[u8]) -> Vec<Cut> {
    let cuts = (1..wire.len()).map(Cut::Records);
    cuts.chain([Cut::Whole, Cut::Bytewise]).collect()
}

/// Every odd end at a real MTA behind Gatepost, over four sessions.
fn try_every_odd_end(log_in: impl Fn() -> Client + Sync) {
    let next = AtomicUsize::new(0);
    let messages: Vec<_> = ODD
        .iter()
        .flat_map(|(name, odd)| {
            let wire = odd_body(odd);
            let cuts = every_record(&wire);
            cuts.into_iter().map(move |cut| (name, wire.clone(), cut))
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = log_in();
                while let Some((name, wire, cut)) =
                    messages.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let reply = send(&mut client, SENDER, wire, *cut, None);
                    assert_eq!(reply, "550 5.6.0", "{name} {cut:?}");
                }
            });
        }
    });
}

/// What a body on the wire says, without the dots that are stuffed (RFC 5321, 4.5.2).
fn text(wire: &[u8]) -> String {
    let text = String::from_utf8_lossy(wire).replace("\r\n.", "\r\n");
    text.strip_prefix('.').unwrap_or(&text).to_owned()
}

const SENDER: &str = "MAIL FROM:<sender@example.test>";

/// Every even body, each with a subject of its own, sent to a real MTA.
fn send_every_even_body(log_in: impl Fn() -> Client) -> Vec<(String, &'static [u8])> {
    let mut sent = Vec::new();
    for even in EVEN {
        // OpenSMTPD takes a hundred messages in a session.
        let mut client = log_in();
        let length = "Subject: even-0000.\r\n\r\n".len() + even.len() + ".\r\n".len();
        for cut in every_record(&vec![0; length]) {
            // With a dot behind it, one is not found in another.
            let subject = format!("Subject: even-{:04}.", sent.len());
            let wire = [subject.as_bytes(), b"\r\n\r\n", even, b".\r\n"].concat();
            let reply = send(&mut client, SENDER, &wire, cut, None);
            assert!(reply.starts_with("250"), "{reply}: {even:?} {cut:?}");
            sent.push((subject, even));
        }
    }
    sent
}

#[test]
fn an_odd_end_commits_nothing_at_a_real_postfix_and_an_even_body_all_of_it() {
    let postfix = Postfix::start(Sockets::Tcp);
    let site = config(postfix.upstream()).text("dovecot_auth", "listen", &postfix.auth());
    let gatepost = Gatepost::start(site);
    let credential = gatepost.create();
    let log_in = || Client::logged_in(&gatepost, &credential);
    try_every_odd_end(log_in);
    let sent = send_every_even_body(log_in);
    for (subject, even) in &sent {
        let message = postfix.wait_for_message(subject);
        // It adds headers before and behind the subject.
        let message = String::from_utf8_lossy(&message).into_owned();
        let (_, body) = message.split_once("\n\n").expect("a body");
        assert_eq!(body, text(even).replace("\r\n", "\n"), "{subject}");
    }
    // Whatever Postfix commits, it says so with the message's size.
    let log = postfix.log();
    assert_eq!(log.matches(" size=").count(), sent.len());
}

#[test]
fn an_odd_end_commits_nothing_at_a_real_opensmtpd_and_an_even_body_all_of_it() {
    let next = Upstream::start();
    let opensmtpd = Peer::opensmtpd(next.address);
    let gatepost = Gatepost::start(config(opensmtpd.address).text("upstream", "identity", "proxy"));
    let credential = gatepost.create();
    let log_in = || Client::logged_in_from(Peer::FRIEND, &gatepost, &credential);
    try_every_odd_end(log_in);
    let sent = send_every_even_body(log_in);
    // It passes on some fifteen a second.
    let limit = PATIENCE * 6;
    let bodies = within(limit, "all of them at the next hop", || {
        let sessions = next.sessions().into_iter();
        let bodies: Vec<_> = sessions.flat_map(|session| session.bodies).collect();
        (bodies.len() >= sent.len()).then_some(bodies)
    });
    for (subject, even) in &sent {
        let is_in = |body: &&Vec<u8>| memchr::memmem::find(body, subject.as_bytes()).is_some();
        let arrived: Vec<_> = bodies.iter().filter(is_in).collect();
        assert_eq!(arrived.len(), 1, "{subject}");
        // It adds headers before and behind the subject.
        let end = memchr::memmem::find(arrived[0], b"\r\n\r\n").expect("a body") + 4;
        assert_eq!(text(&arrived[0][end..]), text(even), "{subject}");
    }
    let log = opensmtpd.log();
    assert_eq!(log.matches("smtp message msgid=").count(), sent.len());
}
