//! Limits, each hit in a real session: what the client is told, and that the metric and the log say
//! the same.

use std::net::SocketAddr;
use std::sync::Barrier;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::{Answer, DEFAULT, Served};
use crate::prometheus::wait_for_series;
use crate::support::client::{Client, Reply};
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Credential};
use crate::support::upstream::{Act, END_OF_DATA, Upstream};

pub const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// A daemon that counts, its upstream, and a credential.
pub struct Gate {
    pub upstream: Upstream,
    served: Served,
    pub metrics: SocketAddr,
    pub credential: Credential,
}

impl Gate {
    pub fn start() -> Gate {
        Gate::with(|config| config)
    }

    pub fn with(arrange: impl FnOnce(Config) -> Config) -> Gate {
        let upstream = Upstream::start();
        let metrics = ports::free_address();
        let served = Served::start_with(&upstream, |config| {
            arrange(config.text("metrics", "listen", &metrics.to_string()))
        });
        Gate {
            upstream,
            metrics,
            credential: served.daemon.create(),
            served,
        }
    }

    pub fn daemon(&self) -> &Gatepost {
        &self.served.daemon
    }

    /// Changes the credential; that counts when this returns.
    pub fn change(&self, change: Value) -> Answer {
        let request = format!("PATCH {DEFAULT}/{}", self.credential.username);
        self.served.by(&self.served.token, &request, Some(change))
    }

    #[track_caller]
    pub fn limit(&self, limits: Value) {
        self.change(json!({ "limits": limits })).expect(200);
    }

    #[track_caller]
    pub fn limit_organization(&self, limits: Value) {
        let request = "PATCH /api/v1/organizations/default";
        let change = json!({ "limits": limits });
        self.served
            .by(&self.served.token, request, Some(change))
            .expect(200);
    }

    /// Asks the API with this token.
    pub fn by(&self, token: &str, request: &str, body: Option<Value>) -> Answer {
        self.served.by(token, request, body)
    }

    /// How far the credential's limits are used up, as the API tells it.
    pub fn uses(&self) -> Value {
        let request = format!("GET {DEFAULT}/{}", self.credential.username);
        let answer = self.served.by(&self.served.token, &request, None);
        answer.expect(200).body["limit_use"].clone()
    }

    pub fn log_in(&self) -> Client {
        Client::logged_in(self.daemon(), &self.credential)
    }

    pub fn taken(&self) -> usize {
        let sessions = self.upstream.handed_over();
        sessions.iter().map(|session| session.taken).sum()
    }

    /// The metric says so many times, and the log as often, once the sessions it was in are over.
    #[track_caller]
    pub fn counted(&self, of: &str, limit: &str, action: &str, times: usize) {
        self.counted_by_line(of, limit, action, times);
    }

    /// The same, and with how many each line in the log has.
    #[track_caller]
    fn counted_by_line(&self, of: &str, limit: &str, action: &str, times: usize) -> Vec<usize> {
        let labels = format!("action=\"{action}\",limit=\"{limit}\",of=\"{of}\"");
        let series = format!("gatepost_limit_refusals_total{{{labels}}}");
        wait_for_series(self.metrics, &series, times as f64);
        let (of, limit) = (format!("of=\"{of}\""), format!("limit=\"{limit}\""));
        let action = format!("action=\"{action}\"");
        let parts = ["limit reached", &of, &limit, &action];
        let count = |line: &str| {
            let (_, count) = line.rsplit_once(" count=")?;
            count.trim().parse::<usize>().ok()
        };
        eventually("the log says it as often as the metric", || {
            let log = self.daemon().log();
            let lines = log
                .lines()
                .filter(|line| parts.iter().all(|part| line.contains(part)));
            let counts: Vec<_> = lines.filter_map(count).collect();
            (counts.iter().sum::<usize>() == times).then_some(counts)
        })
    }
}

pub fn mail(client: &mut Client) -> Reply {
    client.command("MAIL FROM:<sender@example.test>")
}

/// Sends a message, or is refused at MAIL.
pub fn send(client: &mut Client) -> Reply {
    let reply = mail(client);
    if !reply.starts_with("250") {
        return reply;
    }
    client.expect("RCPT TO:<box@example.test>", "250");
    client.expect("DATA", "354");
    client.write(&[MESSAGE, b".\r\n"].concat());
    client.reply()
}

#[test]
fn messages_in_an_hour_and_in_a_day_are_limited() {
    for (limit, text) in [
        (
            "messages_per_hour",
            "451 4.7.1 Too many messages in an hour",
        ),
        ("messages_per_day", "451 4.7.1 Too many messages in a day"),
    ] {
        let gate = Gate::start();
        gate.limit(json!({ limit: 2 }));
        let mut client = gate.log_in();
        send(&mut client).expect("250");
        send(&mut client).expect("250");
        send(&mut client).expect(text);
        gate.counted("credential", limit, "refused", 1);
        let uses = json!([{ "limit": limit, "ceiling": 2, "used": 2, "over": true }]);
        assert_eq!(gate.uses(), uses);
        // Raised, it counts at once, in the session that is there.
        gate.limit(json!({ limit: 3 }));
        send(&mut client).expect("250");
        send(&mut client).expect(text);
        assert_eq!(gate.upstream.handed_over()[0].taken, 3);
    }
}

#[test]
fn a_refused_mail_lets_nothing_through_that_is_pipelined_behind_it() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_day": 1 }));
    let mut client = gate.log_in();
    send(&mut client).expect("250");
    let batch = "MAIL FROM:<sender@example.test>\r\nRCPT TO:<box@example.test>\r\nDATA\r\nNOOP\r\n";
    client.write(batch.as_bytes());
    for reply in ["451 4.7.1", "503 5.5.1", "503 5.5.1", "250"] {
        client.reply().expect(reply);
    }
    let session = &gate.upstream.handed_over()[0];
    let mails = session
        .commands
        .iter()
        .filter(|line| line.starts_with("MAIL"));
    assert_eq!((mails.count(), session.taken), (1, 1));
    let recipients = session
        .commands
        .iter()
        .filter(|line| line.starts_with("RCPT"));
    assert_eq!(recipients.count(), 1);
}

#[test]
fn only_what_the_upstream_took_counts() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_day": 1 }));
    let mut client = gate.log_in();
    gate.upstream.once("MAIL", Act::Reply("451 4.3.0 not now"));
    mail(&mut client).expect("451 4.3.0");
    mail(&mut client).expect("250");
    client.expect("RSET", "250");
    gate.upstream
        .once(END_OF_DATA, Act::Reply("550 5.7.1 spam"));
    send(&mut client).expect("550 5.7.1 spam");
    mail(&mut client).expect("250");
    client.expect("EHLO again.example", "250");
    mail(&mut client).expect("250");
    // What is under way in one session counts in all others, until it fails.
    let mut other = gate.log_in();
    mail(&mut other).expect("451 4.7.1");
    client.write(b"RSET\r\nMAIL FROM:<a@example.test>\r\nRSET\r\n");
    for _ in 0..3 {
        client.reply();
    }
    drop(client);
    eventually("the place is free again", || {
        mail(&mut other).starts_with("250").then_some(())
    });
}

#[test]
fn too_many_a_second_are_put_off() {
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_second": 1 }));
    let mut client = gate.log_in();
    // Two at once: however slow the machine, they are within the same second.
    client.write(b"MAIL FROM:<a@example.test>\r\nRSET\r\nMAIL FROM:<a@example.test>\r\n");
    client.reply().expect("250");
    client.reply().expect("250");
    client.reply().expect("451 4.7.1 Too many messages at once");
    gate.counted("credential", "messages_per_second", "refused", 1);
}

#[test]
fn an_organization_that_is_too_fast_is_disconnected() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "messages_per_second": 1 }));
    let mut client = gate.log_in();
    client.write(b"MAIL FROM:<a@example.test>\r\nRSET\r\nMAIL FROM:<a@example.test>\r\n");
    client.reply().expect("250");
    client.reply().expect("250");
    client.reply().expect("421 4.7.0 Your organization sends");
    client.expect_close();
    gate.counted("organization", "messages_per_second", "refused", 1);
}

#[test]
fn an_organization_shares_its_quota_of_the_month() {
    let gate = Gate::start();
    gate.limit_organization(json!({ "messages_per_month": 2 }));
    let mut client = gate.log_in();
    let mut other = Client::logged_in(gate.daemon(), &gate.daemon().create());
    send(&mut client).expect("250");
    send(&mut other).expect("250");
    send(&mut client).expect("452 4.5.3 Your organization");
    gate.counted("organization", "messages_per_month", "refused", 1);
}

#[test]
fn recipients_of_a_message_are_limited_and_the_rest_is_sent() {
    let gate = Gate::start();
    gate.limit(json!({ "recipients_per_message": 2 }));
    let mut client = gate.log_in();
    gate.upstream.once("RCPT", Act::Reply("550 5.1.1 nobody"));
    let recipients = "RCPT TO:<box@example.test>\r\n".repeat(20);
    let batch = format!("MAIL FROM:<a@example.test>\r\n{recipients}DATA\r\n");
    client.write(batch.as_bytes());
    client.reply().expect("250");
    client.reply().expect("550 5.1.1 nobody");
    // More refusals than errors are allowed: they are none.
    let replies: Vec<_> = (1..20).map(|_| client.reply()).collect();
    let taken = replies
        .iter()
        .filter(|reply| reply.starts_with("250"))
        .count();
    let refused = replies
        .iter()
        .filter(|reply| reply.starts_with("452 4.5.3 Too many recipients for one message"));
    // The refused one gives its place back, to whoever comes after the reply.
    assert!((1..=2).contains(&taken), "{replies:?}");
    assert_eq!(refused.count(), 19 - taken);
    client.reply().expect("354");
    client.write(&[MESSAGE, b".\r\n"].concat());
    client.reply().expect("250");
    // A MAIL that is refused does not begin to count anew.
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<a@example.test>", "250");
    client.expect("RCPT TO:<b@example.test>", "250");
    gate.upstream.once("MAIL", Act::Reply("503 5.5.1 nested"));
    mail(&mut client).expect("503");
    client.expect("RCPT TO:<c@example.test>", "452 4.5.3");
    client.expect("RSET", "250");
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<c@example.test>", "250");
    drop(client);
    // One line when it begins, and one for all the others.
    let counts = gate.counted_by_line(
        "credential",
        "recipients_per_message",
        "refused",
        20 - taken,
    );
    assert_eq!(counts, [1, 19 - taken]);
}

#[test]
fn recipients_in_a_day_are_limited() {
    let gate = Gate::start();
    gate.limit(json!({ "recipients_per_day": 2 }));
    let mut client = gate.log_in();
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<a@example.test>", "250");
    client.expect("RCPT TO:<b@example.test>", "250");
    client.expect(
        "RCPT TO:<c@example.test>",
        "452 4.5.3 Too many recipients in a day",
    );
    client.expect("DATA", "354");
    client.write(&[MESSAGE, b".\r\n"].concat());
    client.reply().expect("250");
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<a@example.test>", "452 4.5.3");
    drop(client);
    gate.counted("credential", "recipients_per_day", "refused", 2);
}

#[test]
fn a_message_is_no_larger_than_the_limit() {
    let gate = Gate::start();
    gate.limit(json!({ "message_size": 1024 }));
    let mut client = gate.log_in();
    let offered = client.expect("EHLO client.example", "250");
    assert!(
        offered.lines.iter().any(|line| &line[4..] == "SIZE 1024"),
        "{offered:?}"
    );
    client.expect("MAIL FROM:<a@example.test> SIZE=1025", "552 5.3.4");
    client.expect("RCPT TO:<a@example.test>", "503");
    let body = |length: usize| [&vec![b'x'; length - 2][..], b"\r\n"].concat();
    client.send_message(&body(1024)).expect("250");
    client.send_message(&body(1025)).expect("552 5.3.4");
    client.send_message(MESSAGE).expect("250");
    drop(client);
    gate.counted("credential", "message_size", "refused", 2);
    let taken: usize = gate
        .upstream
        .handed_over()
        .iter()
        .map(|session| session.taken)
        .sum();
    assert_eq!(taken, 2);
}

#[test]
fn sessions_are_limited_at_the_login() {
    for organization in [false, true] {
        let gate = Gate::start();
        if organization {
            gate.limit_organization(json!({ "sessions": 1 }));
        } else {
            gate.limit(json!({ "sessions": 1 }));
        }
        let first = gate.log_in();
        let mut second = Client::submissions(gate.daemon());
        second.expect("EHLO client.example", "250");
        let reply = second.auth_plain(&gate.credential);
        reply.expect("421 4.7.0 Too many sessions with this account");
        second.expect_close();
        let of = if organization {
            "organization"
        } else {
            "credential"
        };
        gate.counted(of, "sessions", "refused", 1);
        gate.daemon()
            .wait_for_log(&["login refused", "result=\"barred\"", "reason=\"sessions\""]);
        let barred = "gatepost_auth_total{reason=\"sessions\",result=\"barred\"}";
        wait_for_series(gate.metrics, barred, 1.0);
        drop(first);
        eventually("the place is free again", || {
            let mut client = Client::submissions(gate.daemon());
            client.expect("EHLO client.example", "250");
            let reply = client.auth_plain(&gate.credential);
            reply.starts_with("235").then_some(())
        });
    }
}

#[test]
fn a_login_that_nobody_takes_over_is_no_session() {
    let gate = Gate::start();
    gate.limit(json!({ "sessions": 1 }));
    gate.upstream
        .once("XCLIENT", Act::Reply("421 4.3.2 not now"));
    let mut client = Client::submissions(gate.daemon());
    client.expect("EHLO client.example", "250");
    client.auth_plain(&gate.credential).expect("454 4.7.0");
    client.auth_plain(&gate.credential).expect("235");
}

#[test]
fn a_restart_forgets_nothing() {
    for kill in [false, true] {
        let gate = Gate::with(|config| config.text("last_used", "flush_interval", "50ms"));
        gate.limit(json!({ "messages_per_hour": 3, "recipients_per_day": 4 }));
        gate.limit_organization(json!({ "messages_per_month": 5 }));
        let mut client = gate.log_in();
        send(&mut client).expect("250");
        send(&mut client).expect("250");
        // Sent before the limit there is for the other one.
        let other = gate.daemon().create();
        let mut others = Client::logged_in(gate.daemon(), &other);
        send(&mut others).expect("250");
        // Answered and written: neither may be asked of it again.
        let site = gate.daemon().site();
        let written = "SELECT sum(messages) FROM usage";
        eventually("the usage is written", || {
            let store = rusqlite::Connection::open(site.store()).expect("the store");
            let sum: Option<i64> = store.query_row(written, [], |row| row.get(0)).unwrap();
            (!kill || sum == Some(3)).then_some(())
        });
        let Gate {
            served, credential, ..
        } = gate;
        if kill {
            served.daemon.kill();
        } else {
            served.daemon.signal(Signal::TERM);
            assert!(served.daemon.wait().success());
        }
        let daemon = Gatepost::serve(&site);
        let mut client = Client::logged_in(&daemon, &credential);
        send(&mut client).expect("250");
        send(&mut client).expect("451 4.7.1 Too many messages in an hour");
        let mut others = Client::logged_in(&daemon, &other);
        send(&mut others).expect("250");
        send(&mut others).expect("452 4.5.3 Your organization");
        daemon.succeed(&[
            "credential",
            "limit",
            &credential.username,
            "--messages-per-hour",
            "default",
        ]);
        daemon.succeed(&[
            "organization",
            "limit",
            "default",
            "--messages-per-month",
            "unlimited",
        ]);
        eventually("the limits are gone", || {
            mail(&mut client).starts_with("250").then_some(())
        });
        client.expect("RCPT TO:<a@example.test>", "250");
        client.expect(
            "RCPT TO:<b@example.test>",
            "452 4.5.3 Too many recipients in a day",
        );
    }
}

#[test]
fn a_limit_that_is_set_later_knows_what_was_sent_before() {
    let gate = Gate::start();
    let mut client = gate.log_in();
    for _ in 0..3 {
        send(&mut client).expect("250");
    }
    gate.limit(json!({ "messages_per_day": 4 }));
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1 Too many messages in a day");
    gate.limit(json!({ "messages_per_day": "unlimited" }));
    gate.limit_organization(json!({ "messages_per_day": 5 }));
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1 Too many messages in a day");
    gate.counted("organization", "messages_per_day", "refused", 1);
}

#[test]
fn the_instance_has_defaults_and_unlimited_overrules_them() {
    let gate = Gate::with(|config| {
        config
            .number("credential_limits", "messages_per_day", 1)
            .number("organization_limits", "messages_per_day", 3)
    });
    let mut client = gate.log_in();
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1");
    gate.limit(json!({ "messages_per_day": "unlimited" }));
    send(&mut client).expect("250");
    send(&mut client).expect("250");
    send(&mut client).expect("451 4.7.1");
    gate.counted("credential", "messages_per_day", "refused", 1);
    gate.counted("organization", "messages_per_day", "refused", 1);
}

#[test]
fn limits_that_are_only_reported_refuse_nothing() {
    let gate = Gate::start();
    let limits = json!({
        "messages_per_day": 1,
        "recipients_per_message": 1,
        "message_size": 10,
        "sessions": 1,
    });
    let change = json!({ "limits": limits, "rules": { "report": ["limits"] } });
    gate.change(change).expect(200);
    let mut client = gate.log_in();
    let mut other = gate.log_in();
    send(&mut client).expect("250");
    mail(&mut other).expect("250");
    other.expect("RCPT TO:<a@example.test>", "250");
    other.expect("RCPT TO:<b@example.test>", "250");
    for (limit, times) in [
        ("messages_per_day", 1),
        ("recipients_per_message", 1),
        ("message_size", 1),
        ("sessions", 1),
    ] {
        gate.counted("credential", limit, "reported", times);
    }
}

#[test]
fn a_hundred_sessions_at_once_do_not_pass_a_limit() {
    const SESSIONS: usize = 100;
    let gate = Gate::start();
    gate.limit(json!({ "messages_per_hour": 30 }));
    let ready = Barrier::new(SESSIONS);
    let taken: usize = std::thread::scope(|scope| {
        let session = || {
            let mut client = gate.log_in();
            ready.wait();
            usize::from(send(&mut client).starts_with("250"))
        };
        let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(session)).collect();
        let taken = sessions.into_iter().map(|session| session.join().unwrap());
        taken.sum()
    });
    assert_eq!(taken, 30);
    let sent: usize = gate
        .upstream
        .handed_over()
        .iter()
        .map(|session| session.taken)
        .sum();
    assert_eq!(sent, 30);
    gate.counted("credential", "messages_per_hour", "refused", SESSIONS - 30);
}
