//! Every way in which an upstream may misbehave, each a test of its own. Whatever it does, no client
//! hears a 235 that nobody took over or a 250 that nobody meant, waits longer than is configured, or
//! sends under another's name; and whoever comes next is served.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential};
use crate::support::upstream::{Act, BODY, END_OF_DATA, Session, Upstream};

const CONNECT: Duration = Duration::from_millis(1500);
const COMMAND: Duration = Duration::from_millis(1000);

/// What else two busy cores may need.
const SLACK: Duration = Duration::from_secs(5);

/// Everything as it should be: AUTH, MAIL, RCPT, DATA, the message.
const WELL: &str = "235 250 250 354 250";

/// The upstream is lost behind DATA; the session is as good as before.
const LOST: &str = "235 250 250 354 451";

fn config(upstream: &Upstream) -> Config {
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    Config::for_upstream(upstream.address)
        .text("upstream", "connect_timeout", &millis(CONNECT))
        .text("upstream", "handoff_timeout", &millis(CONNECT))
        .text("upstream", "command_timeout", &millis(COMMAND))
        .text("upstream", "end_of_data_timeout", &millis(COMMAND))
}

/// An EHLO reply of one line too many.
fn crowd() -> &'static str {
    format!("{}250 XCLIENT ADDR LOGIN", "250-X-CROWD\r\n".repeat(64)).leak()
}

fn over_long(code: u16) -> &'static str {
    format!("{code} {}", "x".repeat(3000)).leak()
}

/// More than two seconds' worth of lines, none of them late by itself.
fn endless(code: u16) -> &'static str {
    format!(
        "{}{code} at last\r\n",
        format!("{code}-still here\r\n").repeat(34)
    )
    .leak()
}

/// A client that sends one message under its own name.
struct Sender {
    client: Client,
    credential: Credential,
    heard: Vec<String>,
}

impl Sender {
    fn new(gatepost: &Gatepost) -> Self {
        let mut client = Client::submissions(gatepost);
        client.expect("EHLO client.example", "250");
        Self {
            client,
            credential: gatepost.create(),
            heard: Vec::new(),
        }
    }

    /// As far as it gets; the codes that were heard, and whether it was cut off.
    fn send(&mut self) -> String {
        self.send_from(0)
    }

    /// The same of a session that is logged in.
    fn send_again(&mut self) -> String {
        self.send_from(1)
    }

    fn send_from(&mut self, step: usize) -> String {
        self.heard.clear();
        let auth = format!("AUTH PLAIN {}", self.credential.plain());
        let mail = format!("MAIL FROM:<{}@example.test>", self.credential.username);
        let steps = [
            (auth.as_str(), "235"),
            (mail.as_str(), "250"),
            ("RCPT TO:<box@example.test>", "250"),
            ("DATA", "354"),
            ("Subject: x\r\n\r\nhello\r\n.", "250"),
        ];
        for (line, good) in &steps[step..] {
            // A cut is heard as well as any reply.
            let _ = self.client.try_write(format!("{line}\r\n").as_bytes());
            let reply = self.client.try_reply();
            let code = reply.map_or("closed".to_owned(), |reply| reply.lines[0][..3].to_owned());
            let goes_on = code == *good;
            self.heard.push(code);
            if !goes_on {
                break;
            }
        }
        self.heard.join(" ")
    }
}

/// Everything that was said under a name was said by whom it belongs to.
fn assert_nobody_is_another(sessions: &[Session]) {
    for session in sessions {
        let login = session
            .xclient()
            .and_then(|xclient| xclient.split(" LOGIN=").nth(1))
            .map(|rest| rest.split(' ').next().unwrap_or(rest).to_owned());
        let mails = session
            .commands
            .iter()
            .filter(|command| command.starts_with("MAIL"));
        for mail in mails {
            let login = login.as_deref().expect("nothing comes before a name");
            assert!(mail.contains(&format!("<{login}@")), "{login}: {mail}");
        }
    }
}

/// Lets the upstream do `act` once, at `moment`; the client must hear one of `heard`.
#[track_caller]
fn face(moment: &'static str, act: Act, heard: &[&str]) {
    face_behind(&[], moment, act, heard);
}

/// The same of an upstream that wants EHLO before XCLIENT.
#[track_caller]
fn face_asked(moment: &'static str, act: Act, heard: &[&str]) {
    let first = [("XCLIENT", Act::Reply("503 5.5.1 EHLO first"))];
    face_behind(&first, moment, act, heard);
}

#[track_caller]
fn face_behind(before: &[(&'static str, Act)], moment: &'static str, act: Act, heard: &[&str]) {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(config(&upstream));
    upstream.once(moment, act);
    // The rule that is made last is followed first.
    for (moment, act) in before {
        upstream.once(moment, *act);
    }
    let mut sender = Sender::new(&gatepost);
    let began = Instant::now();
    let told = sender.send();
    let waited = began.elapsed();
    assert!(
        heard.contains(&told.as_str()),
        "heard {told:?} and not one of {heard:?}"
    );
    assert!(upstream.is_through(), "it never came to {moment}");
    let limit = CONNECT + 2 * COMMAND + SLACK;
    assert!(waited < limit, "{waited:?} are more than was configured");
    let mut taken = usize::from(told == WELL);
    if told == "454" {
        // The session is as good as before.
        assert_eq!(sender.send(), WELL);
        taken += 1;
    }
    if told == LOST {
        assert_eq!(sender.send_again(), "250 250 354 250");
        taken += 1;
    }
    let mut next = Sender::new(&gatepost);
    assert_eq!(next.send(), WELL, "whoever came next");
    // It may still be writing down what it has said.
    eventually(
        "250 was heard of what was taken and of nothing else",
        || {
            let sessions = upstream.sessions();
            let meant: usize = sessions.iter().map(|session| session.taken).sum();
            (meant == taken + 1).then_some(())
        },
    );
    assert_nobody_is_another(&upstream.sessions());
}

macro_rules! ways {
    ($($name:ident: $moment:expr, $act:expr => $($heard:expr),+;)*) => {
        $(#[test] fn $name() { face($moment, $act, &[$($heard),+]); })*
    };
}

mod at_the_greeting {
    use super::*;

    const HERE: &str = "<greeting>";

    ways! {
        it_is_busy: HERE, Act::Reply("421 4.3.2 busy") => "454";
        it_is_not_for_us: HERE, Act::Reply("554 5.7.1 go away") => "454";
        it_is_something_else: HERE, Act::Reply("SSH-2.0-OpenSSH_9.2") => "454";
        it_says_250: HERE, Act::Reply("250 hello") => "454";
        it_is_silent: HERE, Act::Silence => "454";
        it_closes: HERE, Act::Close => "454";
        it_resets: HERE, Act::Reset => "454";
        it_stops_halfway: HERE, Act::Raw("220 upstr") => "454";
        it_closes_halfway: HERE, Act::Last("220 upstr") => "454";
        it_ends_lines_in_lf: HERE, Act::Raw("220 upstream\n") => "454";
        it_speaks_too_long_a_line: HERE, Act::Reply(over_long(220)) => "454";
        it_mixes_codes: HERE, Act::Reply("220-one\r\n250 two") => "454";
        it_speaks_twice: HERE, Act::Reply("220 one\r\n220 two") => "454";
        it_never_stops: HERE, Act::Flood => "454";
        it_takes_for_ever: HERE, Act::Slowly(endless(220)) => "454";
        it_speaks_byte_by_byte: HERE, Act::Bytewise("220 upstream\r\n") => WELL;
        it_speaks_in_lines: HERE, Act::Reply("220-one\r\n220-two\r\n220 three") => WELL;
    }
}

mod at_our_ehlo {
    use super::face_asked as face;
    use super::*;

    const HERE: &str = "EHLO mail";

    ways! {
        it_knows_no_ehlo: HERE, Act::Reply("502 5.5.1 what") => "454";
        it_is_silent: HERE, Act::Silence => "454";
        it_closes: HERE, Act::Close => "454";
        it_offers_no_xclient: HERE, Act::Reply("250-x\r\n250 SIZE 0") => "454";
        it_offers_too_little_of_xclient: HERE, Act::Reply("250-x\r\n250 XCLIENT NAME ADDR") => "454";
        it_offers_too_much: HERE, Act::Reply(crowd()) => "454";
        it_says_220: HERE, Act::Reply("220 again") => "454";
        it_mixes_codes: HERE, Act::Reply("250-x\r\n550 XCLIENT ADDR LOGIN") => "454";
        it_leaves_out_the_last_line: HERE, Act::Raw("250-x\r\n250-XCLIENT ADDR LOGIN\r\n") => "454";
        it_grants_xclient_unasked: HERE,
            Act::Reply("250-x\r\n250 XCLIENT ADDR LOGIN\r\n220 granted") => "454";
    }
}

/// At XCLIENT, where a refusal leads to this.
macro_rules! ways_at_xclient {
    ($refused:expr) => {
        const HERE: &str = "XCLIENT";

        ways! {
            it_refuses: HERE, Act::Reply("550 5.7.0 insufficient authorization") => $refused;
            it_does_not_understand: HERE, Act::Reply("501 5.5.4 bad ADDR syntax") => $refused;
            it_has_had_enough: HERE, Act::Reply("421 4.7.0 too many connections") => "454";
            it_says_250: HERE, Act::Reply("250 2.0.0 Ok") => "454";
            it_is_silent: HERE, Act::Silence => "454";
            it_closes: HERE, Act::Close => "454";
            it_resets: HERE, Act::Reset => "454";
            it_closes_behind_the_grant: HERE, Act::Last("220 granted\r\n") => "454";
            it_stops_halfway: HERE, Act::Raw("220-granted\r\n") => "454";
            it_answers_ehlo_before_it_is_asked: HERE,
                Act::Reply("220 granted\r\n250 upstream") => "454";
        }
    };
}

mod at_xclient {
    use super::*;

    // It may mean that it wants EHLO first, which it gets.
    ways_at_xclient!(WELL);
}

mod at_xclient_behind_ehlo {
    use super::face_asked as face;
    use super::*;

    ways_at_xclient!("454");
}

mod at_the_clients_ehlo {
    use super::*;

    const HERE: &str = "EHLO client";

    ways! {
        it_refuses: HERE, Act::Reply("550 5.7.1 no") => "454";
        it_has_had_enough: HERE, Act::Reply("421 4.7.0 bye") => "454";
        it_is_silent: HERE, Act::Silence => "454";
        it_closes: HERE, Act::Close => "454";
        it_never_stops: HERE, Act::Flood => "454";
        it_speaks_twice: HERE, Act::Reply("250 upstream\r\n250 2.1.0 Ok") => "454";
        it_forgets_everything: HERE, Act::Reply("250 upstream") => WELL;
        it_closes_right_behind: HERE, Act::Last("250 upstream\r\n") => WELL, "454", "235 421";
        it_says_goodbye_a_moment_later: HERE,
            Act::Slowly("250 upstream\r\n421 4.4.2 too slow\r\n") => WELL, "235 421";
    }
}

mod at_mail {
    use super::*;

    const HERE: &str = "MAIL";

    ways! {
        it_has_had_enough: HERE, Act::Reply("421 4.7.0 bye") => "235 421";
        it_refuses: HERE, Act::Reply("550 5.7.1 no") => "235 550";
        it_says_354: HERE, Act::Reply("354 go on") => "235 421";
        it_is_silent: HERE, Act::Silence => "235 421";
        it_closes: HERE, Act::Close => "235 421";
        it_resets: HERE, Act::Reset => "235 421";
        it_stops_halfway: HERE, Act::Raw("250 2.1") => "235 421";
        it_closes_halfway: HERE, Act::Last("250 2.1.0 Ok") => "235 421";
        it_ends_lines_in_lf: HERE, Act::Raw("250 2.1.0 Ok\n") => "235 421";
        it_mixes_codes: HERE, Act::Reply("250-one\r\n550 two") => "235 421";
        it_speaks_too_long_a_line: HERE, Act::Reply(over_long(250)) => "235 421";
        it_speaks_twice: HERE, Act::Reply("250 2.1.0 Ok\r\n250 2.1.5 Ok") => "235 250 421";
        it_answers_the_message_already: HERE,
            Act::Reply("250 Ok\r\n250 Ok\r\n354 go on\r\n250 queued") => "235 250 421", "235 250 closed";
        it_never_stops: HERE, Act::Flood => "235 421";
        it_takes_its_time: HERE, Act::Slowly("250-wait\r\n250-wait\r\n250 2.1.0 Ok\r\n") => WELL;
        it_speaks_byte_by_byte: HERE, Act::Bytewise("250 2.1.0 Ok\r\n") => WELL;
    }
}

mod at_rcpt {
    use super::*;

    const HERE: &str = "RCPT";

    ways! {
        it_has_had_enough: HERE, Act::Reply("421 4.7.0 bye") => "235 250 421";
        it_refuses: HERE, Act::Reply("550 5.1.1 nobody") => "235 250 550";
        it_says_354: HERE, Act::Reply("354 go on") => "235 250 421";
        it_is_silent: HERE, Act::Silence => "235 250 421";
        it_closes: HERE, Act::Close => "235 250 421";
        it_resets: HERE, Act::Reset => "235 250 421";
        it_answers_data_as_well: HERE,
            Act::Reply("250 2.1.5 Ok\r\n354 go on") => "235 250 250 421";
    }
}

mod at_data {
    use super::*;

    const HERE: &str = "DATA";

    ways! {
        it_has_had_enough: HERE, Act::Reply("421 4.7.0 bye") => "235 250 250 421";
        it_refuses: HERE, Act::Reply("554 5.5.1 no valid recipients") => "235 250 250 554";
        it_takes_the_message_before_it_comes: HERE,
            Act::Reply("250 2.0.0 Ok: queued") => "235 250 250 421";
        it_is_silent: HERE, Act::Silence => "235 250 250 421";
        it_closes: HERE, Act::Close => "235 250 250 421";
        it_resets: HERE, Act::Reset => "235 250 250 421";
        it_answers_twice: HERE,
            Act::Reply("354 go on\r\n250 2.0.0 Ok: queued")
            => LOST;
        it_closes_behind_the_354: HERE, Act::Last("354 go on\r\n") => LOST;
        it_ends_lines_in_lf: HERE, Act::Raw("354 go on\n") => "235 250 250 421";
    }
}

mod inside_the_body {
    use super::*;

    /// The end of the message is held back until the gate has seen what the upstream does: a 250 that comes behind the
    /// end cannot be told from one that is meant, and an upstream that is missed only then is [`super::at_the_end_of_data`].
    /// That the upstream is through with it says too little: its reset is on its way once nobody holds its socket any
    /// more, and the gate may have slept meanwhile.
    #[track_caller]
    fn face_early(act: Act, reply: &str) {
        let upstream = Upstream::start();
        let gatepost = Gatepost::start(config(&upstream));
        upstream.once(BODY, act);
        let mut sender = Sender::new(&gatepost);
        sender.client.auth_plain(&sender.credential).expect("235");
        let mail = format!("MAIL FROM:<{}@example.test>", sender.credential.username);
        sender.client.expect(&mail, "250");
        sender.client.expect("RCPT TO:<box@example.test>", "250");
        sender.client.expect("DATA", "354");
        sender.client.write(b"Subject: x\r\n");
        gatepost.wait_for_log(&["the upstream was lost inside a transaction"]);
        sender.client.write(b"\r\nhello\r\n.\r\n");
        sender.client.reply().expect(reply);
        let mut bodies = 1;
        if reply.starts_with("421") {
            sender.client.expect_close();
        } else {
            assert_eq!(sender.send_again(), "250 250 354 250");
            bodies += 1;
        }
        assert_eq!(Sender::new(&gatepost).send(), WELL, "whoever came next");
        let sessions = upstream.sessions();
        let taken: usize = sessions.iter().map(|session| session.bodies.len()).sum();
        assert_eq!(taken, bodies, "{sessions:#?}");
        assert_nobody_is_another(&sessions);
    }

    macro_rules! early {
        ($($name:ident: $act:expr => $reply:expr;)*) => {
            $(#[test] fn $name() { face_early($act, $reply); })*
        };
    }

    early! {
        it_closes: Act::Close => "451 4.3.0";
        it_resets: Act::Reset => "451 4.3.0";
        it_takes_the_message: Act::Reply("250 2.0.0 Ok: queued") => "451 4.3.0";
        it_takes_the_message_and_closes: Act::Last("250 2.0.0 Ok: queued\r\n") => "451 4.3.0";
        it_refuses: Act::Reply("552 5.3.4 too large") => "552 5.3.4 too large";
        it_refuses_and_closes: Act::Last("552 5.3.4 too large\r\n") => "552 5.3.4 too large";
        it_refuses_byte_by_byte: Act::Bytewise("552 5.3.4 too large\r\n") => "552 5.3.4 too large";
        it_refuses_for_now: Act::Reply("452-4.3.1 full\r\n452 4.3.1 later") => "452 4.3.1 later";
        it_has_had_enough: Act::Reply("421 4.3.2 bye") => "421 4.3.2 bye";
        it_has_had_enough_and_closes: Act::Last("421 4.3.2 bye\r\n") => "421 4.3.2 bye";
        it_begins_to_speak: Act::Raw("2") => "451 4.3.0";
        it_speaks_half_a_refusal: Act::Last("552 5.3") => "451 4.3.0";
        it_never_stops: Act::Flood => "451 4.3.0";
    }
}

mod at_the_end_of_data {
    use super::*;

    ways! {
        it_has_had_enough: END_OF_DATA, Act::Reply("421 4.3.2 bye") => "235 250 250 354 421";
        it_refuses_for_now: END_OF_DATA, Act::Reply("451 4.3.0 later") => LOST;
        it_refuses_for_good: END_OF_DATA, Act::Reply("554 5.6.0 no") => "235 250 250 354 554";
        it_says_354: END_OF_DATA, Act::Reply("354 more") => LOST;
        it_is_silent: END_OF_DATA, Act::Silence => LOST;
        it_closes: END_OF_DATA, Act::Close => LOST;
        it_resets: END_OF_DATA, Act::Reset => LOST;
        it_stops_halfway: END_OF_DATA, Act::Raw("250 2.0.0 Ok") => LOST;
        it_closes_halfway: END_OF_DATA, Act::Last("250 2.0.0 Ok") => LOST;
        it_leaves_out_the_last_line: END_OF_DATA, Act::Last("250-2.0.0 Ok\r\n") => LOST;
        it_never_stops: END_OF_DATA, Act::Flood => LOST;
        it_takes_for_ever: END_OF_DATA, Act::Slowly(endless(250)) => LOST;
        it_speaks_byte_by_byte: END_OF_DATA, Act::Bytewise("250 2.0.0 Ok\r\n") => WELL;
        it_speaks_twice: END_OF_DATA, Act::Reply("250 2.0.0 Ok\r\n250 2.0.0 Ok") => WELL;
    }

    /// What looks like a 250 and is none. The upstream may believe that it has taken the message, so
    /// the client must hear what makes it try again.
    macro_rules! no_replies {
        ($($name:ident: $text:expr;)*) => { $(#[test] fn $name() {
            let upstream = Upstream::start();
            let gatepost = Gatepost::start(config(&upstream));
            upstream.once(END_OF_DATA, Act::Raw($text));
            assert_eq!(Sender::new(&gatepost).send(), LOST);
            assert_eq!(Sender::new(&gatepost).send(), WELL);
            assert_nobody_is_another(&upstream.sessions());
        })* };
    }

    no_replies! {
        a_line_that_ends_in_lf: "250 2.0.0 Ok\n";
        a_line_that_ends_in_cr: "250 2.0.0 Ok\r";
        a_line_with_a_bare_cr: "250 2.0.0 O\rk\r\n";
        a_line_with_a_nul: "250 2.0.0 O\0k\r\n";
        codes_that_differ: "250-2.0.0 Ok\r\n550 5.0.0 No\r\n";
        a_code_of_four_digits: "2500 Ok\r\n";
        a_code_of_two_digits: "25 Ok\r\n";
        a_code_that_is_none: "999 Ok\r\n";
        no_code_at_all: "Ok\r\n";
        an_empty_line: "\r\n250 2.0.0 Ok\r\n";
        a_line_that_is_too_long: over_long(250);
    }
}

mod between_messages {
    use super::*;

    /// Its answer to a command outside of any transaction.
    #[track_caller]
    fn face_idle(command: &str, moment: &'static str, act: Act) {
        let upstream = Upstream::start();
        let gatepost = Gatepost::start(config(&upstream));
        let mut sender = Sender::new(&gatepost);
        sender.client.auth_plain(&sender.credential).expect("235");
        upstream.once(moment, act);
        let began = Instant::now();
        sender.client.expect(command, "421 4.3.0");
        sender.client.expect_close();
        assert!(began.elapsed() < COMMAND + SLACK);
        assert_eq!(Sender::new(&gatepost).send(), WELL, "whoever came next");
    }

    macro_rules! idle {
        ($($name:ident: $command:expr, $moment:expr, $act:expr;)*) => {
            $(#[test] fn $name() { face_idle($command, $moment, $act); })*
        };
    }

    idle! {
        it_answers_noop_by_354: "NOOP", "NOOP", Act::Reply("354 go on");
        it_answers_noop_by_nothing: "NOOP", "NOOP", Act::Silence;
        it_answers_noop_by_leaving: "NOOP", "NOOP", Act::Close;
        it_answers_rset_by_354: "RSET", "RSET", Act::Reply("354 go on");
        it_answers_rset_by_half: "RSET", "RSET", Act::Raw("250");
        it_answers_what_ehlo_needs_by_354: "EHLO client.example", "RSET", Act::Reply("354 go on");
        it_answers_what_ehlo_needs_by_nothing: "EHLO client.example", "RSET", Act::Silence;
    }
}

mod at_our_own_login {
    use super::*;

    const OFFER: &str = "250-x\r\n250 AUTH PLAIN LOGIN";
    const LOGIN_ONLY: &str = "250-x\r\n250 AUTH LOGIN";

    /// As [`super::face`], for an upstream where we log in.
    #[track_caller]
    fn face_login(offer: &'static str, moment: &'static str, act: Act) {
        let upstream = Upstream::start();
        upstream.on("EHLO", Act::Reply(offer));
        upstream.on("AUTH PLAIN", Act::Reply("235 2.7.0 in"));
        upstream.on("AUTH LOGIN", Act::Reply("334 VXNlcm5hbWU6"));
        upstream.on("Z2F0ZQ==", Act::Reply("334 UGFzc3dvcmQ6"));
        upstream.on("aHVudGVyMg==", Act::Reply("235 2.7.0 in"));
        let directory = TempDir::new().expect("tempdir");
        let file = directory.path().join("password");
        fs::write(&file, "hunter2\n").expect("write the password");
        let config = config(&upstream)
            .text("upstream", "identity", "login")
            .text("upstream", "username", "gate")
            .text("upstream", "password_file", file.to_str().unwrap());
        let gatepost = Gatepost::start(config);
        upstream.once(moment, act);
        let mut sender = Sender::new(&gatepost);
        let began = Instant::now();
        assert_eq!(sender.send(), "454");
        assert!(began.elapsed() < CONNECT + SLACK);
        assert!(upstream.is_through(), "it never came to {moment}");
        let sessions = upstream.sessions();
        assert!(
            !sessions.iter().any(|session| session.heard("MAIL")),
            "{sessions:#?}"
        );
        assert_eq!(sender.send(), WELL);
        let log = gatepost.log();
        assert!(
            !log.contains("hunter2") && !log.contains("aHVudGVyMg"),
            "{log}"
        );
    }

    macro_rules! logins {
        ($($name:ident: $offer:expr, $moment:expr, $act:expr;)*) => {
            $(#[test] fn $name() { face_login($offer, $moment, $act); })*
        };
    }

    logins! {
        it_refuses: OFFER, "AUTH PLAIN", Act::Reply("535 5.7.8 no");
        it_repeats_the_command: OFFER, "AUTH PLAIN", Act::Reply("501 AUTH PLAIN AGdhdGUAaHVudGVyMg==");
        it_asks_for_more: OFFER, "AUTH PLAIN", Act::Reply("334 ");
        it_says_250: OFFER, "AUTH PLAIN", Act::Reply("250 2.0.0 Ok");
        it_has_had_enough: OFFER, "AUTH PLAIN", Act::Reply("421 4.7.0 bye");
        it_is_silent: OFFER, "AUTH PLAIN", Act::Silence;
        it_closes: OFFER, "AUTH PLAIN", Act::Close;
        it_closes_behind_the_yes: OFFER, "EHLO", Act::Last("250-x\r\n250 AUTH PLAIN\r\n");
        it_speaks_twice: OFFER, "AUTH PLAIN", Act::Reply("235 2.7.0 in\r\n250 2.1.0 Ok");
        it_lets_anybody_in: LOGIN_ONLY, "AUTH LOGIN", Act::Reply("235 2.7.0 in");
        it_knows_the_password_before_it_comes: LOGIN_ONLY, "Z2F0ZQ==", Act::Reply("235 2.7.0 in");
        it_never_has_enough: LOGIN_ONLY, "aHVudGVyMg==", Act::Reply("334 UGFzc3dvcmQ6");
        it_leaves_between_the_challenges: LOGIN_ONLY, "Z2F0ZQ==", Act::Close;
    }
}
