//! After 235: what goes to the upstream and what never does.

use crate::prometheus::wait_for_series;
use crate::support::client::{Client, stuffed};
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::upstream::{Act, Session, Upstream};
use crate::support::{eventually, ports};

pub fn serving() -> (Upstream, Gatepost) {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    (upstream, gatepost)
}

pub fn log_in(gatepost: &Gatepost) -> Client {
    Client::logged_in(gatepost, &gatepost.create())
}

pub fn delivered(session: &Session) -> bool {
    !session.bodies.is_empty()
}

#[test]
fn the_hand_over_is_one_xclient_with_everything_in_it() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    let client = Client::dial_from("127.0.0.7".parse().unwrap(), gatepost.submissions).unwrap();
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.log_in(&credential);

    let session = &upstream.handed_over()[0];
    // What is taken was asked when the daemon started.
    assert_eq!(session.commands.len(), 2, "{:?}", session.commands);
    assert_eq!(session.commands[1], "EHLO client.example");
    let xclient = session.xclient().expect("XCLIENT");
    let port = xclient
        .split_once(" PORT=")
        .expect("PORT")
        .1
        .split(' ')
        .next()
        .unwrap();
    assert!(port.parse::<u16>().is_ok(), "{xclient}");
    let expected = format!(
        "XCLIENT ADDR=127.0.0.7 PORT={port} NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] \
         HELO=client.example PROTO=ESMTP LOGIN={} DESTADDR=127.0.0.1 DESTPORT={}",
        credential.username,
        gatepost.submissions.port()
    );
    assert_eq!(xclient, expected);
    // Postfix 3.9 and later cut whoever pipelines behind XCLIENT.
    assert!(
        session
            .reads
            .iter()
            .all(|read| read.matches("\r\n").count() == 1)
    );
}

#[test]
fn only_advertised_attributes_are_sent() {
    let upstream = Upstream::start();
    upstream.on(
        "EHLO",
        Act::Reply("250-upstream.example.test\r\n250 XCLIENT ADDR LOGIN PROTO"),
    );
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    Client::logged_in(&gatepost, &credential);
    let expected = format!(
        "XCLIENT ADDR=127.0.0.1 PROTO=ESMTP LOGIN={}",
        credential.username
    );
    assert_eq!(upstream.handed_over()[0].xclient(), Some(expected.as_str()));
}

#[test]
fn a_refused_hand_over_is_454_and_no_pipe() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    for refusal in [
        "550 5.7.0 insufficient authorization",
        "421 4.7.0 too many",
        "501 5.5.4 no",
    ] {
        upstream.on("XCLIENT", Act::Reply(refusal));
        client.auth_plain(&credential).expect("454 4.7.0");
        client.expect("MAIL FROM:<sender@example.test>", "530 5.7.0");
    }
    upstream.on("EHLO", Act::Reply("250 upstream.example.test"));
    client.auth_plain(&credential).expect("454 4.7.0");
    assert!(
        upstream
            .handed_over()
            .iter()
            .all(|session| !session.heard("MAIL"))
    );
}

#[test]
fn nothing_reaches_the_upstream_before_authentication() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client
        .auth_plain(&credential.with_wrong_password())
        .expect("535");
    client.expect("MAIL FROM:<sender@example.test>", "530");
    client.expect("QUIT", "221");
    assert!(upstream.handed_over().is_empty());
}

#[test]
fn a_batch_of_commands_stays_a_batch() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    let batch = "MAIL FROM:<sender@example.test>\r\nRCPT TO:<one@example.test>\r\n\
                 RCPT TO:<two@example.test>\r\nDATA\r\n";
    client.write(batch.as_bytes());
    for code in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354"] {
        client.reply().expect(code);
    }
    client.write(b"Subject: batch\r\n\r\nhello\r\n.\r\nRSET\r\nQUIT\r\n");
    for code in ["250 2.0.0 Ok: queued as 4242", "250 2.0.0", "221 2.0.0"] {
        client.reply().expect(code);
    }
    client.expect_close();
    let session = upstream.wait_for("with the batch", delivered);
    assert!(
        session.reads.contains(&batch.to_owned()),
        "{:?}",
        session.reads
    );
}

#[test]
fn a_reply_belongs_to_its_command_also_where_we_answer_in_between() {
    let (upstream, gatepost) = serving();
    upstream.on(
        "RCPT TO:<no@",
        Act::Reply("550-5.1.1 Nobody\r\n550 5.1.1 here"),
    );
    let mut client = log_in(&gatepost);
    client.write(
        b"MAIL FROM:<sender@example.test>\r\nVRFY box\r\nRCPT TO:<no@example.test>\r\n\
          XCLIENT LOGIN=root\r\nRCPT TO:<box@example.test>\r\nNOOP\r\n",
    );
    for code in [
        "250 2.1.0",
        "252 2.5.0",
        "550 5.1.1 here",
        "502",
        "250 2.1.5",
        "250 2.0.0",
    ] {
        client.reply().expect(code);
    }
}

#[test]
fn the_word_on_a_message_comes_before_our_goodbye() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.begin_message();
    let mistakes = b"WHAT\r\n".repeat(10);
    client.write(&[&b"Subject: x\r\n\r\nhello\r\n.\r\n"[..], &mistakes].concat());
    client.reply().expect("250");
    for _ in 0..9 {
        client.reply().expect("500 5.5.1");
    }
    client.reply().expect("421 4.7.0");
    client.expect_close();
    upstream.wait_for("took the message", |session| session.bodies.len() == 1);
}

#[test]
fn recipients_that_the_upstream_refuses_count_until_a_message_is_accepted() {
    let (upstream, gatepost) = serving();
    upstream.on("RCPT TO:<no@", Act::Reply("550 5.1.1 unknown"));
    upstream.on("RCPT TO:<later@", Act::Reply("450 4.2.0 later"));
    let refused = |client: &mut Client, count: usize| {
        for _ in 0..count {
            client.expect("RCPT TO:<later@example.test>", "450 4.2.0 later");
            client.expect("RCPT TO:<no@example.test>", "550 5.1.1 unknown");
        }
    };
    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    refused(&mut client, 9);
    client.expect("RSET", "250");
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    client.expect("MAIL FROM:<sender@example.test>", "250");
    refused(&mut client, 30);
    client.expect("QUIT", "221");

    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    refused(&mut client, 10);
    client.reply().expect("421 4.7.0");
    client.expect_close();
}

#[test]
fn who_sends_no_more_still_hears_the_word_on_its_message() {
    let (_upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    client.finish();
    client.reply().expect("250");
    client.expect_close();
}

#[test]
fn a_body_that_never_begins_gets_nothing_of_ours() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("timeouts", "body", "300ms");
    let gatepost = Gatepost::start(config);
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.reply().expect("421 4.4.2");
    let session = upstream.wait_for("ended", |session| session.heard("DATA") && session.ended);
    assert!(
        !session.heard("QUIT") && session.bodies.is_empty(),
        "{session:?}"
    );
}

#[test]
fn a_long_body_streams_through_unchanged() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    let line = [b".".as_slice(), &b"0123456789abcdef".repeat(60), b"\r\n"].concat();
    let body = line.repeat(4096);
    client.begin_message();
    let wire = stuffed(&body);
    let (most, end) = wire.split_at(wire.len() - 5);
    client.write(most);
    // Held in memory it would not be here yet: the client has not ended it.
    upstream.wait_for("with most of the body", |session| {
        session.unfinished.len() > body.len() - 128 * 1024
    });
    client.write(end);
    client.reply().expect("250 2.0.0 Ok: queued as 4242");
    let session = upstream.wait_for("with the body", delivered);
    assert!(
        session.bodies[0] == wire[..wire.len() - 3],
        "the body changed on the way"
    );
}

#[test]
fn auth_on_mail_is_the_gates_to_say() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.expect(
        "MAIL FROM:<sender@example.test> SIZE=100 AUTH=root@example.test",
        "250",
    );
    client.expect("NOOP", "250");
    let session = &upstream.handed_over()[0];
    let mail = session
        .commands
        .iter()
        .find(|command| command.starts_with("MAIL"))
        .unwrap();
    assert!(
        mail.ends_with(" AUTH=<>") || mail.contains(" AUTH=<> "),
        "{mail}"
    );
    assert!(!mail.contains("root"), "{mail}");
}

#[test]
fn an_upstream_that_wants_ehlo_before_xclient_is_told_in_that_order_from_then_on() {
    let (upstream, gatepost) = serving();
    upstream.once("XCLIENT", Act::Reply("503 5.5.1 EHLO first"));
    let mut told = Vec::new();
    for _ in 0..2 {
        drop(log_in(&gatepost));
        let sessions = upstream.handed_over();
        let session = &sessions[sessions.len() - 1];
        let verbs = session
            .commands
            .iter()
            .filter_map(|command| command.get(..7));
        told.push(verbs.map(str::to_owned).collect::<Vec<_>>());
    }
    let asked = ["EHLO ma", "XCLIENT", "EHLO cl"];
    assert_eq!(told[0], [&["XCLIENT"][..], &asked].concat());
    assert_eq!(told[1], asked);
}

#[test]
fn what_must_not_be_forwarded_is_not() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    for command in [
        "XCLIENT LOGIN=x",
        "XFORWARD NAME=x",
        "ETRN x",
        "BDAT 3 LAST",
        "AUTH PLAIN",
        "STARTTLS",
    ] {
        let reply = client.command(command);
        assert!(
            reply.starts_with("502 5.5.1") || reply.starts_with("503 5.5.1"),
            "{reply:?}"
        );
    }
    client.expect("NOOP", "250");
    let session = &upstream.handed_over()[0];
    assert_eq!(session.commands.len(), 3, "{:?}", session.commands);
}

#[test]
fn ehlo_inside_a_transaction_is_answered_here_and_resets_there() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("EHLO client.example", "250");
    client
        .send_message(b"Subject: after\r\n\r\nhello\r\n")
        .expect("250");
    let session = upstream.wait_for("with the message", delivered);
    assert!(session.heard("RSET"), "{:?}", session.commands);
    let greetings = session
        .commands
        .iter()
        .filter(|command| command.starts_with("EHLO"))
        .count();
    assert_eq!(
        greetings, 1,
        "the client's second EHLO went through: {:?}",
        session.commands
    );
}

#[test]
fn with_reject_a_bare_newline_refuses_the_message_and_spares_the_upstream_its_end() {
    for (text, line) in [
        ("one\r\ntwo\nthree", 4),
        ("one\rtwo", 3),
        ("\n.\n", 3),
        ("\r\r\n..", 3),
    ] {
        let upstream = Upstream::start();
        let config = Config::for_upstream(upstream.address).text("relay", "bare_newline", "reject");
        let gatepost = Gatepost::start(config);
        let mut client = log_in(&gatepost);
        client.begin_message();
        client.write(
            format!("Subject: x\r\n\r\n{text}\r\nMAIL FROM:<a@b.example>\r\n.\r\n").as_bytes(),
        );
        let reply = client.reply().expect("550 5.6.0");
        assert!(
            reply.lines[0].contains(&format!("line {line}")),
            "{text:?}: {reply:?}"
        );
        // The session goes on, on a connection of its own.
        client
            .send_message(b"Subject: clean\r\n\r\nhello\r\n")
            .expect("250");
        client.expect("QUIT", "221");
        upstream.wait_for("with the clean message", delivered);
        let sessions = upstream.handed_over();
        assert_eq!(sessions.len(), 2, "{sessions:#?}");
        assert!(
            sessions[0].bodies.is_empty(),
            "an end of data: {sessions:#?}"
        );
        assert_eq!(sessions[1].bodies, [b"Subject: clean\r\n\r\nhello\r\n"]);
    }
}

#[test]
fn a_message_with_a_bare_newline_is_encoded_anew_and_counted() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let config = Config::for_upstream(upstream.address);
    let gatepost = Gatepost::start(config.text("metrics", "listen", &metrics.to_string()));
    let credential = gatepost.create();
    let mut client = Client::logged_in(&gatepost, &credential);
    client.begin_message();
    client.write(b"Subject: x\r\n\r\none\n.\ntwo\n.three\r\n..four\rfive\r\n.\r\n");
    client.reply().expect("250");
    let session = upstream.wait_for("with the message", delivered);
    let expected = "Subject: x\r\n\r\none\r\n..\r\ntwo\r\n..three\r\n..four five\r\n";
    assert_eq!(String::from_utf8_lossy(&session.bodies[0]), expected);
    assert_eq!(session.bodies.len(), 1);
    client
        .send_message(b"Subject: y\r\n\r\na\0b\r\n")
        .expect("250");
    client
        .send_message(b"Subject: z\r\n\r\nclean\r\n.\r\n..\r\n")
        .expect("250");
    client.expect("QUIT", "221");
    gatepost.wait_for_log(&["message normalized", "octet=\"bare_newline\" count=1"]);
    gatepost.wait_for_log(&["message normalized", "octet=\"nul\" count=1"]);
    gatepost.wait_for_log(&["session ended", "messages=3", "normalized=2"]);
    for octet in ["bare_newline", "nul"] {
        let series =
            format!("gatepost_odd_line_ends_total{{action=\"normalized\",octet=\"{octet}\"}}");
        wait_for_series(metrics, &series, 1.0);
    }
    eventually("the store knows", || {
        let list = gatepost.succeed(&["refusals", "list", "--username", &credential.username]);
        let words = "odd line ends: a bare CR or LF in a message, made clean";
        list.contains(words).then_some(())
    });
    let show = ["credential", "show", &credential.username];
    let shown = gatepost.succeed(&show);
    for words in [
        "Odd line ends  a bare CR or LF in a message, made clean: 1 in 30 days",
        "Odd line ends  a NUL in a message, made clean: 1 in 30 days",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    let document = gatepost.json(&show);
    let odd = document["odd_line_ends"].as_array().expect("a list");
    assert_eq!(odd.len(), 2, "{document}");
    assert_eq!(odd[1]["octet"], "bare_newline");
    assert_eq!(odd[1]["action"], "normalized");
    assert_eq!(odd[1]["count"], 1);
}
