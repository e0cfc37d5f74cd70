//! QUIT is answered by 221 within five seconds, whatever the upstream does and while the daemon
//! stops: a program that hears 421 there believes that its message failed, and sends it again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::relay::{log_in, serving};
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::Config;
use crate::support::upstream::{Act, END_OF_DATA, Session, Upstream};

const PROMISE: Duration = Duration::from_secs(5);
const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

#[track_caller]
fn quit(mut client: Client) {
    let began = Instant::now();
    client.expect("QUIT", "221 2.0.0");
    assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
    client.expect_close();
}

fn has_ended(session: &Session) -> bool {
    session.xclient().is_some() && session.ended
}

#[test]
fn an_upstream_that_closes_behind_a_message_is_no_matter() {
    for act in [
        Act::Last("250 2.0.0 Ok: queued\r\n"),
        Act::Last("250 2.0.0 Ok: queued\r\n421 4.4.2 timeout\r\n"),
    ] {
        let (upstream, gatepost) = serving();
        upstream.on(END_OF_DATA, act);
        let mut client = log_in(&gatepost);
        client.send_message(MESSAGE).expect("250 2.0.0 Ok: queued");
        upstream.wait_for("that ended", has_ended);
        quit(client);
    }
}

#[test]
fn an_upstream_that_answers_quit_badly_or_never_is_no_matter() {
    for act in [
        Act::Silence,
        Act::Close,
        Act::Reset,
        Act::Reply("421 4.3.2 bye"),
        Act::Reply("354 go on"),
        Act::Raw("221"),
    ] {
        let (upstream, gatepost) = serving();
        upstream.on("QUIT", act);
        let mut client = log_in(&gatepost);
        client.send_message(MESSAGE).expect("250");
        quit(client);
        let is_left = |session: &Session| session.xclient().is_some() && session.heard("QUIT");
        let session = upstream.wait_for("that was left", is_left);
        assert_eq!(session.taken, 1);
    }
}

#[test]
fn an_upstream_that_is_lost_inside_a_transaction_does_not_answer_quit() {
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    upstream.hang_up();
    gatepost.wait_for_log(&["the upstream was lost inside a transaction"]);
    quit(client);
}

#[test]
fn the_next_command_of_a_lost_transaction_says_so_and_rset_forgets_it() {
    for (next, reply) in [
        ("RCPT TO:<box@example.test>", "421 4.3.0"),
        ("DATA", "421 4.3.0"),
        ("MAIL FROM:<sender@example.test>", "421 4.3.0"),
        ("NOOP", "250"),
        ("RSET", "250"),
        ("EHLO client.example", "250"),
    ] {
        // A daemon for each: the warning comes once a minute.
        let (upstream, gatepost) = serving();
        let mut client = log_in(&gatepost);
        client.expect("MAIL FROM:<sender@example.test>", "250");
        upstream.hang_up();
        gatepost.wait_for_log(&["the upstream was lost inside a transaction"]);
        client.expect(next, reply);
        match next {
            "RSET" | "EHLO client.example" => {
                client.send_message(MESSAGE).expect("250");
            }
            "NOOP" => {
                client.expect("DATA", "421 4.3.0");
                client.expect_close();
            }
            _ => client.expect_close(),
        }
    }
}

#[test]
fn what_an_upstream_owes_does_not_hold_quit_up() {
    for (command, owed) in [
        ("NOOP", "250"),
        ("RSET", "250"),
        ("EHLO client.example", "250"),
        ("MAIL FROM:<sender@example.test>", "451 4.3.0"),
    ] {
        let (upstream, gatepost) = serving();
        let mut client = log_in(&gatepost);
        client.send_message(MESSAGE).expect("250");
        for verb in ["NOOP", "RSET", "MAIL"] {
            upstream.on(verb, Act::Silence);
        }
        let began = Instant::now();
        client.write(format!("{command}\r\nQUIT\r\n").as_bytes());
        client.reply().expect(owed);
        client.reply().expect("221");
        assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
        client.expect_close();
    }
    // Behind DATA nothing is read before the answer.
    let (upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@example.test>", "250");
    upstream.on("DATA", Act::Silence);
    client.write(b"DATA\r\nQUIT\r\n");
    client.reply().expect("451 4.3.0");
    client.reply().expect("221");
    client.expect_close();
}

#[test]
fn the_word_on_a_message_still_comes_before_the_answer_to_quit() {
    let (upstream, gatepost) = serving();
    upstream.once(END_OF_DATA, Act::Late(500, "250 2.0.0 Ok: queued late"));
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n");
    client.reply().expect("250 2.0.0 Ok: queued late");
    client.reply().expect("221");
    client.expect_close();

    upstream.once(END_OF_DATA, Act::Close);
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.write(b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n");
    client.reply().expect("451 4.3.0");
    client.reply().expect("221");
    client.expect_close();
}

#[test]
fn a_session_whose_upstream_was_given_back_may_quit() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("upstream", "idle_release", "200ms");
    let gatepost = Gatepost::start(config);
    let mut client = log_in(&gatepost);
    client.send_message(MESSAGE).expect("250");
    upstream.wait_for("given back", has_ended);
    quit(client);
}

#[test]
fn a_real_postfix_that_had_enough_of_waiting_is_no_matter() {
    let postfix = Postfix::start_with(Sockets::Tcp, "smtpd_timeout = 1s");
    let config = Config::for_upstream(postfix.upstream());
    let gatepost = Gatepost::start(config.text("dovecot_auth", "listen", &postfix.auth()));
    let mut client = log_in(&gatepost);
    client
        .send_message(b"Subject: before-the-timeout\r\n\r\nhello\r\n")
        .expect("250 2.0.0");
    postfix.wait_for_log(&["timeout after", "from unknown[127.0.0.1]"]);
    quit(client);
}

#[test]
fn while_the_daemon_stops_a_client_whose_message_was_accepted_may_quit() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let mut before = log_in(&gatepost);
    before.send_message(MESSAGE).expect("250");
    let mut during = log_in(&gatepost);
    during.begin_message();
    let mut other = log_in(&gatepost);
    other.send_message(MESSAGE).expect("250");
    gatepost.signal(Signal::TERM);
    gatepost.wait_for_log(&["draining"]);
    before.expect("RSET", "250");
    quit(before);
    during.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    during.reply().expect("250");
    quit(during);
    other.expect("MAIL FROM:<sender@example.test>", "421 4.3.2");
    other.expect_close();
    assert!(gatepost.wait().success());
}

#[test]
fn a_quit_that_is_on_its_way_is_heard_before_the_daemon_says_that_it_stops() {
    let (_upstream, gatepost) = serving();
    let mut idle = log_in(&gatepost);
    let mut greeted = Client::submissions(&gatepost);
    gatepost.freeze();
    idle.write(b"QUIT\r\n");
    greeted.write(b"QUIT\r\n");
    gatepost.signal(Signal::TERM);
    gatepost.signal(Signal::CONT);
    for mut client in [idle, greeted] {
        client.reply().expect("221");
        client.expect_close();
    }
    assert!(gatepost.wait().success());
}

#[test]
fn a_client_that_stays_is_told_that_the_daemon_stops() {
    let (_upstream, gatepost) = serving();
    let mut client = log_in(&gatepost);
    client.send_message(MESSAGE).expect("250");
    gatepost.signal(Signal::TERM);
    client.reply().expect("421 4.3.2");
    client.expect_close();
    assert!(gatepost.wait().success());
}

#[test]
fn commands_do_not_put_off_the_end_of_the_daemon() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address).drain_timeout("1h"));
    let mut client = log_in(&gatepost);
    client.send_message(MESSAGE).expect("250");
    gatepost.signal(Signal::TERM);
    loop {
        let reply = client.command("NOOP");
        if reply.starts_with("421 4.3.2") {
            break;
        }
        reply.expect("250");
    }
    client.expect_close();
    assert!(gatepost.wait().success());
}
