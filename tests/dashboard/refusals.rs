//! Why logins and mail were refused: each limit and each rule, refusing and only reporting, in a real session. The client's
//! reply, the metric, the log, the credential's page and `gatepost refusals`, which asks the API, must agree.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::page::unescaped;
use super::plain::Plain;
use super::{Dashboard, LIST};
use crate::limits::{MESSAGE, mail, send};
use crate::prometheus::wait_for_series;
use crate::support::client::{Client, Reply};
use crate::support::ports;
use crate::support::site::{Config, Credential};

/// Goes against a limit or a rule; the reply that shows it.
type Act = fn(&Dashboard, &Credential) -> Reply;

/// A limit of one, how one goes against it, the reply if it is a credential's and if it is an organization's, and the words.
type Limit = (&'static str, Act, [&'static str; 2], &'static str);

const LIMITS: [Limit; 8] = [
    (
        "messages_per_second",
        too_fast,
        ["451 4.7.1 Too many messages at once", "421 4.7.0"],
        "too many messages at once",
    ),
    (
        "messages_per_hour",
        one_more,
        ["451 4.7.1 Too many messages in an hour"; 2],
        "too many messages in an hour",
    ),
    (
        "messages_per_day",
        one_more,
        ["451 4.7.1 Too many messages in a day"; 2],
        "too many messages in a day",
    ),
    (
        "messages_per_month",
        one_more,
        ["", "452 4.5.3 Your organization"],
        "too many messages in a month",
    ),
    (
        "recipients_per_message",
        two_recipients,
        ["452 4.5.3 Too many recipients for one message"; 2],
        "too many recipients of one message",
    ),
    (
        "recipients_per_day",
        two_recipients,
        ["452 4.5.3 Too many recipients in a day"; 2],
        "too many recipients in a day",
    ),
    (
        "message_size",
        too_large,
        ["552 5.3.4"; 2],
        "a message that was too large",
    ),
    (
        "sessions",
        two_sessions,
        ["421 4.7.0 Too many sessions"; 2],
        "too many sessions were open",
    ),
];

/// A rule, what is set for it, how one goes against it, and the reply; the reason of a login that it refuses, or else none;
/// and the words.
type Rule = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Act,
    &'static str,
    Option<&'static str>,
    &'static str,
);

const RULES: [Rule; 5] = [
    (
        "senders",
        &[("senders", "ok.test")],
        one_mail,
        "550 5.7.1",
        None,
        "a sender that it may not send as",
    ),
    (
        "header_from",
        &[("senders", "example.test"), ("header_from", "yes")],
        one_message,
        "550 5.7.1",
        None,
        "a From header that it may not send with",
    ),
    (
        "networks",
        &[("networks", "10.0.0.0/8")],
        log_in,
        "535 5.7.8",
        Some("network"),
        "it may not be used from this address",
    ),
    (
        "expiry",
        &[],
        log_in,
        "535 5.7.8",
        Some("expired"),
        "the credential had expired",
    ),
    (
        "suspended",
        &[],
        log_in,
        "535 5.7.8",
        Some("suspended"),
        "its organization was suspended",
    ),
];

fn too_fast(dashboard: &Dashboard, credential: &Credential) -> Reply {
    let mut client = Client::logged_in(&dashboard.daemon, credential);
    // However slow the machine, they are within the same second.
    client.write(b"MAIL FROM:<a@example.test>\r\nRSET\r\nMAIL FROM:<a@example.test>\r\n");
    client.reply().expect("250");
    client.reply().expect("250");
    client.reply()
}

fn one_more(dashboard: &Dashboard, credential: &Credential) -> Reply {
    let mut client = Client::logged_in(&dashboard.daemon, credential);
    send(&mut client).expect("250");
    mail(&mut client)
}

fn two_recipients(dashboard: &Dashboard, credential: &Credential) -> Reply {
    let mut client = Client::logged_in(&dashboard.daemon, credential);
    mail(&mut client).expect("250");
    client.expect("RCPT TO:<a@example.test>", "250");
    client.command("RCPT TO:<b@example.test>")
}

fn too_large(dashboard: &Dashboard, credential: &Credential) -> Reply {
    one_message(dashboard, credential)
}

fn two_sessions(dashboard: &Dashboard, credential: &Credential) -> Reply {
    let _first = Client::logged_in(&dashboard.daemon, credential);
    dashboard.log_in(credential)
}

fn one_mail(dashboard: &Dashboard, credential: &Credential) -> Reply {
    mail(&mut Client::logged_in(&dashboard.daemon, credential))
}

fn one_message(dashboard: &Dashboard, credential: &Credential) -> Reply {
    Client::logged_in(&dashboard.daemon, credential).send_message(MESSAGE)
}

fn log_in(dashboard: &Dashboard, credential: &Credential) -> Reply {
    dashboard.log_in(credential)
}

/// What is to be found of one refusal, everywhere.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// The name in log and metric.
    name: &'a str,
    action: &'a str,
    /// Whose limit, if it is one.
    of: Option<&'a str>,
    /// The reason of the login, if that is refused.
    login: Option<&'a str>,
    words: &'a str,
}

struct Site {
    dashboard: Dashboard,
    metrics: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Site {
    fn start(arrange: impl FnOnce(Config) -> Config) -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let metrics = ports::free_address();
        let dashboard = Dashboard::start_with(|config| {
            let config = config.text("admin", "socket", socket.to_str().unwrap());
            arrange(config.text("metrics", "listen", &metrics.to_string()))
        });
        Site {
            dashboard,
            metrics,
            _directory: directory,
        }
    }

    /// All that is told of a credential, by the API through the command line.
    fn refusals(&self, credential: &Credential) -> Vec<Value> {
        let list = ["refusals", "list", "--username", &credential.username];
        let told = self.dashboard.daemon.json(&list);
        told.as_array().expect("a list").clone()
    }

    #[track_caller]
    fn agrees(&self, plain: &mut Plain, page: &str, credential: &Credential, told: Told) {
        let Told {
            name,
            action,
            of,
            login,
            words,
        } = told;
        let series = match of {
            Some(of) => format!(
                "gatepost_limit_refusals_total{{action=\"{action}\",limit=\"{name}\",of=\"{of}\"}}"
            ),
            None => {
                format!("gatepost_rule_refusals_total{{action=\"{action}\",rule=\"{name}\"}}")
            }
        };
        wait_for_series(self.metrics, &series, 1.0);
        let username = format!("username=\"{}\"", credential.username);
        let action_field = format!("action=\"{action}\"");
        let own = match of {
            Some(of) => [
                "limit reached".to_owned(),
                format!("of=\"{of}\" limit=\"{name}\""),
            ],
            None => ["rule broken".to_owned(), format!("rule=\"{name}\"")],
        };
        let mut line = vec![&*username];
        let reason = login.map(|reason| format!("reason=\"{reason}\""));
        match (&reason, of) {
            (Some(reason), None) => line.extend(["login refused", reason]),
            _ => line.extend([&*own[0], &*own[1], &*action_field, "count=1"]),
        }
        self.dashboard.daemon.wait_for_log(&line);

        let items = self.refusals(credential);
        let page = unescaped(&plain.get(page).body);
        let rows: Vec<_> = page
            .split("<tr")
            .filter(|row| row.contains(words))
            .collect();
        let address = login.map(|_| "127.0.0.1");
        let party = login.is_none().then(|| of.unwrap_or("credential"));
        assert_eq!(items.len(), 1, "{name}: {items:?}");
        let item = &items[0];
        assert_eq!(item["reason"], login.unwrap_or(name), "{item}");
        assert_eq!(item["action"], action, "{item}");
        assert_eq!(item["of"], json!(party), "{item}");
        assert_eq!(item["address"], json!(address), "{item}");
        assert_eq!(item["count"], 1, "{item}");
        assert!(item["at"].is_string() && item["first_at"] == item["at"]);

        assert_eq!(rows.len(), 1, "{words} in {page}");
        let row = rows[0];
        assert!(row.contains("data-title=\"Times\">1<"), "{row}");
        assert_eq!(row.contains("Only reported"), action == "reported", "{row}");
        assert_eq!(row.contains(", from 127.0.0.1"), login.is_some(), "{row}");
        let by_organization = of == Some("organization") && login.is_none();
        let whose = "by the limit of its organization";
        assert_eq!(row.contains(whose), by_organization, "{row}");
        assert_eq!(
            item["words"].as_str().unwrap().contains(whose),
            by_organization
        );
    }
}

#[test]
fn each_limit_says_the_same_to_everybody() {
    let site = Site::start(|config| config);
    let dashboard = &site.dashboard;
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    for (name, act, replies, words) in LIMITS {
        let field = format!("limit_{name}");
        let limit = [(field.as_str(), "1")];
        for (of, action) in [
            ("credential", "refused"),
            ("credential", "reported"),
            ("organization", "refused"),
        ] {
            let is_organization = of == "organization";
            let refusal = replies[usize::from(is_organization)];
            if refusal.is_empty() {
                continue; // credentials have no such limit
            }
            // Of its own: what others sent counts for an organization as well.
            let slug = format!("{}-{of}-{action}", name.replace('_', "-"));
            dashboard.daemon.succeed(&["organization", "create", &slug]);
            let create = ["credential", "create", "--org", &slug, "--json"];
            let made = dashboard.daemon.succeed(&create);
            let credential = Credential::from_json(made.as_bytes());
            let organization = format!("/organizations/{slug}");
            let page = format!("{organization}/credentials/{}", credential.username);
            let whose = if is_organization {
                &organization
            } else {
                &page
            };
            let to = format!("{whose}/limits");
            plain.submit(whose, &to, &limit).location();
            if action == "reported" {
                let report = [("report_limits", "yes")];
                plain
                    .submit(&page, &format!("{page}/rules"), &report)
                    .location();
            }
            let reply = act(dashboard, &credential);
            reply.expect(match (action, name) {
                ("refused", _) => refusal,
                (_, "sessions") => "235",
                _ => "250",
            });
            let login = (name == "sessions" && action == "refused").then_some("sessions");
            let told = Told {
                name,
                action,
                of: Some(of),
                login,
                words,
            };
            site.agrees(&mut plain, &page, &credential, told);
        }
    }
}

#[test]
fn each_rule_says_the_same_to_everybody() {
    let site = Site::start(|config| config);
    let dashboard = &site.dashboard;
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    for (name, fields, act, refusal, login, words) in RULES {
        for action in ["refused", "reported"] {
            let is_reported = action == "reported";
            let credential = dashboard.daemon.create();
            let page = dashboard.page_of(&credential);
            let report = format!("report_{name}");
            let report = [(report.as_str(), "yes")];
            let report: &[_] = if is_reported { &report } else { &[] };
            let rules = [fields, report].concat();
            plain
                .submit(&page, &format!("{page}/rules"), &rules)
                .location();
            if name == "expiry" {
                let past = "UPDATE credentials SET expires_at = 1 WHERE username = ?1";
                dashboard.daemon.sql(past, &credential.username);
            }
            let organization = "/organizations/default";
            let turn = |plain: &mut Plain, to: &str| {
                let to = format!("{organization}/{to}");
                plain.submit(organization, &to, &[]).location()
            };
            if name == "suspended" {
                turn(&mut plain, "suspend");
            }
            let reply = act(dashboard, &credential);
            reply.expect(match (is_reported, login) {
                (false, _) => refusal,
                (true, Some(_)) => "235",
                (true, None) => "250",
            });
            if name == "suspended" {
                turn(&mut plain, "activate");
            }
            let told = Told {
                name,
                action,
                of: None,
                login: login.filter(|_| !is_reported),
                words,
            };
            site.agrees(&mut plain, &page, &credential, told);
        }
    }
}

#[test]
fn a_page_says_in_words_why_logins_were_refused() {
    let guesser = Ipv4Addr::new(127, 0, 9, 9);
    let site = Site::start(|config| config.guarded().text("auth", "refusal_delay", "10ms"));
    let dashboard = &site.dashboard;
    let old = dashboard.daemon.create();
    let page = dashboard.page_of(&old);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let refused = |credential: &Credential| dashboard.log_in(credential).expect("535 5.7.8");
    refused(&old.with_wrong_password());
    let boss = STANDARD.encode(format!("boss\0{}\0{}", old.username, old.password));
    let mut client = Client::submissions(&dashboard.daemon);
    client.expect("EHLO client.example", "250");
    client.expect(&format!("AUTH PLAIN {boss}"), "535 5.7.8");
    let rotate = format!("{page}/rotate");
    plain
        .submit(&rotate, &rotate, &[("overlap", "0")])
        .expect(200);
    refused(&old);
    let revoke = format!("{page}/revoke");
    plain.submit(&revoke, &revoke, &[]).location();
    refused(&old);

    // Who is banned is told nothing more; one connection was there before.
    let mut held = Client::dial_from(guesser.into(), dashboard.daemon.submission).expect("connect");
    held.reply().expect("220");
    let mut held = held.starttls();
    held.expect("EHLO client.example", "250");
    let banned = (0..20).any(|number| {
        let stranger = Credential {
            username: format!("smtp_{number:016}"),
            password: "sk_guess".to_owned(),
        };
        let guess = Client::dial_from(guesser.into(), dashboard.daemon.submission);
        let mut client = guess.expect("connect");
        if client.try_reply().is_none() {
            return true;
        }
        let mut client = client.starttls();
        client.expect("EHLO client.example", "250");
        client.auth_plain(&stranger);
        false
    });
    assert!(banned);
    held.auth_plain(&old).expect("421 4.7.0");

    let shown = unescaped(&plain.get(&page).expect(200).body);
    for words in [
        "a wrong password, from 127.0.0.1",
        "it asked to act for another, from 127.0.0.1",
        "the previous password, rotated <time",
        "the credential was revoked, from 127.0.0.1",
        "too many failed logins had come from its network, from 127.0.9.9",
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert!(plain.get(LIST).expect(200).body.contains("Revoked"));
}
