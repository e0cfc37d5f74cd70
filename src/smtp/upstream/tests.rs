//! Whole handovers, played against a scripted upstream.

use super::*;

const GREETING: &str = "220 mx ESMTP\r\n";
const OFFER: &str = "250-mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-AUTH LOGIN PLAIN\r\n\
    250 XCLIENT ADDR LOGIN HELO\r\n";
const HELLO_US: &str = "EHLO gate.test\r\n";
const HELLO_CLIENT: &str = "EHLO client.test\r\n";

fn client() -> Client {
    Client {
        address: "203.0.113.7:40000".parse().unwrap(),
        destination: "192.0.2.1:587".parse().unwrap(),
        helo: "client.test".into(),
        login: "smtp_x".into(),
    }
}

fn account() -> Account {
    Account {
        username: "gate".into(),
        password: Secret::new("secret"),
    }
}

fn auth_refused(code: u16) -> FailureCause {
    let username = account().username;
    FailureCause::AuthRefused { username, code }
}

fn handover(security: Security, mode: HandoffMode) -> Handover {
    Handover::new("gate.test", security, mode, XclientSupport::default())
}

/// Plays a handover to an unknown upstream.
fn play(
    security: Security,
    mode: HandoffMode,
    replies: &[&str],
) -> Result<Vec<String>, UpstreamFailure> {
    play_on(&mut handover(security, mode), replies)
}

/// Feeds replies until the first failure or the end, with a handshake where requested. Returns the
/// lines sent, `<tls>` for a handshake and `<ready>` at the end.
fn play_on(handover: &mut Handover, replies: &[&str]) -> Result<Vec<String>, UpstreamFailure> {
    let mut said = Vec::new();
    let mut step = handover.on_connected();
    let mut replies = replies.iter();
    loop {
        match step {
            Step::Await => {}
            Step::Ready(_) => {
                said.push("<ready>".into());
                return Ok(said);
            }
            Step::Send(line) => {
                said.push(String::from_utf8(line.expose().to_vec()).unwrap());
            }
            Step::StartTls => {
                said.push("<tls>".into());
                step = handover.on_tls();
                continue;
            }
        }
        let Some(reply) = replies.next() else {
            return Ok(said);
        };
        let reply = RawReply::parse(reply.as_bytes()).unwrap().unwrap();
        step = handover.on_reply(&reply)?;
    }
}

#[test]
fn xclient_comes_between_two_ehlos() {
    let client = client();
    let replies = [GREETING, OFFER, GREETING, "250 mx\r\n"];
    let said = play(Security::None, HandoffMode::Xclient(&client), &replies).unwrap();
    let xclient = "XCLIENT ADDR=203.0.113.7 HELO=client.test LOGIN=smtp_x\r\n";
    assert_eq!(said, [HELLO_US, xclient, HELLO_CLIENT, "<ready>"]);
}

#[test]
fn known_xclient_support_skips_the_first_ehlo() {
    let client = client();
    let early = "XCLIENT ADDR=203.0.113.7 HELO=client.test LOGIN=smtp_x\r\n";
    let asked = &mut handover(Security::None, HandoffMode::Xclient(&client));
    play_on(asked, &[GREETING, OFFER, GREETING, OFFER]).unwrap();
    let known = asked.found().unwrap();
    let next =
        |security| Handover::new("gate.test", security, HandoffMode::Xclient(&client), known);

    let taken = &mut next(Security::None);
    let said = play_on(taken, &[GREETING, GREETING, OFFER]).unwrap();
    assert_eq!(said, [early, HELLO_CLIENT, "<ready>"]);
    assert_eq!(taken.found(), None);
    // The early XCLIENT follows the TLS handshake, never the greeting in the clear.
    let said = play_on(
        &mut next(Security::StartTls),
        &[GREETING, OFFER, GREETING, GREETING, OFFER],
    );
    let expected = [
        HELLO_US,
        "STARTTLS\r\n",
        "<tls>",
        early,
        HELLO_CLIENT,
        "<ready>",
    ];
    assert_eq!(said.unwrap(), expected);
}

#[test]
fn an_upstream_that_wants_to_be_asked_first_is() {
    let client = client();
    let known = XclientSupport {
        xclient: Some(Attributes::parse("ADDR LOGIN PORT")),
        after_ehlo: false,
    };
    let next = || {
        Handover::new(
            "gate.test",
            Security::None,
            HandoffMode::Xclient(&client),
            known,
        )
    };
    let refusing = &mut next();
    let replies = [GREETING, "503 EHLO first\r\n", OFFER, GREETING, OFFER];
    let said = play_on(refusing, &replies).unwrap();
    let early = "XCLIENT ADDR=203.0.113.7 PORT=40000 LOGIN=smtp_x\r\n";
    let asked = "XCLIENT ADDR=203.0.113.7 HELO=client.test LOGIN=smtp_x\r\n";
    assert_eq!(said, [early, HELLO_US, asked, HELLO_CLIENT, "<ready>"]);
    let found = refusing.found().unwrap();
    assert!(found.after_ehlo);
    assert_eq!(found.xclient, Some(Attributes::parse("ADDR LOGIN HELO")));
    // A client rejected in both orders is rejected for its own sake.
    let refusing = &mut next();
    let no = "550 5.7.0 no\r\n";
    play_on(refusing, &[GREETING, no, OFFER, no]).unwrap_err();
    assert_eq!(refusing.found(), None);
    // A silent or temporarily failing upstream gets no second attempt here; the next session asks
    // again.
    for replies in [&[GREETING][..], &[GREETING, "421 4.7.0 later\r\n"]] {
        let failing = &mut next();
        let _ = play_on(failing, replies);
        assert_eq!(failing.stage(), Stage::Xclient);
        assert!(failing.found().unwrap().after_ehlo);
    }
    let again = &mut Handover::new(
        "gate.test",
        Security::None,
        HandoffMode::Xclient(&client),
        found,
    );
    let said = play_on(again, &[GREETING, OFFER]).unwrap();
    assert_eq!(said, [HELLO_US, asked]);
}

#[test]
fn what_counts_is_what_the_last_ehlo_offers() {
    let client = client();
    let mut handover = handover(Security::None, HandoffMode::Xclient(&client));
    let _ = handover.on_connected();
    for reply in [GREETING, OFFER, GREETING] {
        let reply = RawReply::parse(reply.as_bytes()).unwrap().unwrap();
        let _ = handover.on_reply(&reply).unwrap();
    }
    let last = RawReply::parse(b"250-mx\r\n250 DSN\r\n").unwrap().unwrap();
    let Step::Ready(found) = handover.on_reply(&last).unwrap() else {
        panic!("not ready");
    };
    assert!(found.dsn && !found.pipelining);
}

#[test]
fn a_probe_stops_once_it_knows_what_is_offered() {
    let replies = [GREETING, OFFER];
    let said = play(Security::None, HandoffMode::Probe(None), &replies).unwrap();
    assert_eq!(said, [HELLO_US, "<ready>"]);
}

#[test]
fn a_proxy_header_makes_the_only_ehlo_the_clients() {
    let client = client();
    let mode = HandoffMode::Proxy(&client, proxy::Version::V1);
    let handover = handover(Security::None, mode);
    assert!(handover.preamble().starts_with(b"PROXY TCP4 203.0.113.7 "));
    let said = play(Security::None, mode, &[GREETING, OFFER]).unwrap();
    assert_eq!(said, [HELLO_CLIENT, "<ready>"]);
}

#[test]
fn an_upstream_that_is_told_nothing_gets_our_own_name() {
    let said = play(Security::None, HandoffMode::NoIdentity, &[GREETING, OFFER]).unwrap();
    assert_eq!(said, [HELLO_US, "<ready>"]);
}

#[test]
fn tls_comes_before_whatever_tells_the_upstream() {
    let client = client();
    let mode = HandoffMode::Xclient(&client);
    let said = play(
        Security::StartTls,
        mode,
        &[GREETING, OFFER, GREETING, OFFER],
    )
    .unwrap();
    let xclient = "XCLIENT ADDR=203.0.113.7 HELO=client.test LOGIN=smtp_x\r\n";
    let expected = [HELLO_US, "STARTTLS\r\n", "<tls>", HELLO_US, xclient];
    assert_eq!(said, expected);
    let said = play(Security::Implicit, mode, &[GREETING, OFFER]).unwrap();
    assert_eq!(said, ["<tls>", HELLO_US, xclient]);
}

#[test]
fn tls_that_is_not_offered_ends_the_hand_over() {
    let replies = [GREETING, "250-mx\r\n250 AUTH PLAIN\r\n"];
    let account = account();
    let failure = play(Security::StartTls, HandoffMode::Login(&account), &replies).unwrap_err();
    assert_eq!(failure.cause, FailureCause::StartTlsNotOffered);
    assert_eq!(failure.stage, Stage::StartTls);
}

#[test]
fn we_log_in_by_plain_or_else_by_login() {
    let account = account();
    let mode = HandoffMode::Login(&account);
    let replies = [GREETING, OFFER, "235 ok\r\n"];
    let said = play(Security::None, mode, &replies).unwrap();
    assert_eq!(
        said,
        [HELLO_US, "AUTH PLAIN AGdhdGUAc2VjcmV0\r\n", "<ready>"]
    );
    let offer = "250-mx\r\n250 AUTH CRAM-MD5 login\r\n";
    let replies = [
        GREETING,
        offer,
        "334 VXNlcm5hbWU6\r\n",
        "334 x\r\n",
        "235 ok\r\n",
    ];
    let said = play(Security::None, mode, &replies).unwrap();
    let expected = [
        HELLO_US,
        "AUTH LOGIN\r\n",
        "Z2F0ZQ==\r\n",
        "c2VjcmV0\r\n",
        "<ready>",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_refused_login_does_not_repeat_what_the_upstream_says() {
    let account = account();
    let mode = HandoffMode::Login(&account);
    let replies = [GREETING, OFFER, "535 bad: AUTH PLAIN AGdhdGUAc2VjcmV0\r\n"];
    let failure = play(Security::None, mode, &replies).unwrap_err();
    assert_eq!(failure.cause, auth_refused(535));
    assert!(!failure.to_string().contains("AGdhdGU"), "{failure}");
    let replies = [GREETING, "250-mx\r\n250 AUTH CRAM-MD5\r\n"];
    let failure = play(Security::None, mode, &replies).unwrap_err();
    assert_eq!(failure.cause, FailureCause::AuthNotOffered);
    assert_eq!(failure.stage, Stage::Auth);
}

#[test]
fn every_refusal_ends_the_hand_over() {
    use Stage::{Auth, ClientEhlo, Ehlo, Greeting, StartTls, Xclient};
    let (client, account) = (client(), account());
    let login = "250-mx\r\n250 AUTH LOGIN\r\n";
    /// Good replies, with their stages.
    type Course<'a> = &'a [(Stage, &'a str)];
    let ways: [(Security, HandoffMode, Course); 3] = [
        (
            Security::None,
            HandoffMode::Xclient(&client),
            &[
                (Greeting, GREETING),
                (Ehlo, OFFER),
                (Xclient, GREETING),
                (ClientEhlo, OFFER),
            ],
        ),
        (
            Security::StartTls,
            HandoffMode::NoIdentity,
            &[
                (Greeting, GREETING),
                (Ehlo, OFFER),
                (StartTls, GREETING),
                (Ehlo, OFFER),
            ],
        ),
        (
            Security::None,
            HandoffMode::Login(&account),
            &[
                (Greeting, GREETING),
                (Ehlo, login),
                (Auth, "334 x\r\n"),
                (Auth, "334 x\r\n"),
                (Auth, "235 ok\r\n"),
            ],
        ),
    ];
    for (security, mode, good) in ways {
        for at in 0..good.len() {
            for refusal in [
                "421 4.7.0 no\r\n",
                "550 5.7.0 no\r\n",
                "354 odd\r\n",
                "251 odd\r\n",
            ] {
                let mut replies: Vec<_> = good.iter().map(|(_, reply)| *reply).collect();
                replies[at] = refusal;
                let failure = play(security, mode, &replies).unwrap_err();
                let cause = match good[at].0 {
                    Auth => auth_refused(refusal[..3].parse().unwrap()),
                    _ => FailureCause::Refused(refusal.trim_end().into()),
                };
                let stage = good[at].0;
                assert_eq!(failure, UpstreamFailure { stage, cause });
            }
        }
    }
}

#[test]
fn without_xclient_there_is_no_hand_over() {
    let client = client();
    let replies = [GREETING, "250-mx\r\n250 PIPELINING\r\n"];
    let failure = play(Security::None, HandoffMode::Xclient(&client), &replies).unwrap_err();
    assert_eq!(failure.cause, FailureCause::XclientNotOffered);
    assert_eq!(failure.stage, Stage::Xclient);
}

#[test]
fn what_goes_out_does_not_print_the_password() {
    let account = account();
    let shown = format!("{:?}", HandoffMode::Login(&account));
    assert!(!shown.contains("secret"), "{shown}");
}
