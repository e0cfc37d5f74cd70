//! Credentials with a history, so that the dashboard of a demo has something to show.

use crate::auth::issue::{self, New};
use crate::auth::password::Cost;
use crate::cli::CliError;
use crate::clock;
use crate::store::{Actor, DEFAULT_ORGANIZATION, HOUR, LastMessage, LastUsed, Noted, Store, Usage};

/// A made-up credential: its name, its messages in a working hour, the client's address and EHLO
/// name, and the hours since its last use.
type Sender = (&'static str, u64, &'static str, &'static str, i64);

const SENDERS: [Sender; 3] = [
    ("Office printer", 2, "192.0.2.17", "printer.example.org", 3),
    ("Web shop", 14, "198.51.100.20", "shop.example.org", 1),
    ("Old laptop", 1, "203.0.113.7", "laptop", 24 * 120),
];

/// Adds the credentials with usage of the two weeks before their last use.
pub fn add(store: &Store, actor: &Actor, cost: Cost) -> Result<(), CliError> {
    let now = clock::now();
    let mut noted = Noted::default();
    for (name, messages, address, helo, ago) in SENDERS {
        let new = New {
            organization: DEFAULT_ORGANIZATION,
            name: Some(name),
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = issue::issue(store, store.by(actor), cost, new)?
            .credential
            .key;
        let last = now.as_millisecond() - ago * HOUR;
        let hours = (0..14 * 24).map(|back| last / HOUR - back);
        let usage = hours.filter_map(|hour| Some(((key, hour), usage(hour, messages)?)));
        let usage: Vec<_> = usage.collect();
        let count = usage.iter().map(|(_, usage)| usage.messages).sum();
        noted.usage.extend(usage);
        noted.messages.push((key, LastMessage { at: last, count }));
        let used = LastUsed {
            at: last,
            address: address.to_owned(),
            tls: Some("TLSv1.3".to_owned()),
            mechanism: "PLAIN".to_owned(),
            helo: helo.to_owned(),
            count,
        };
        noted.uses.push((key, used));
    }
    Ok(store.flush(&noted)?)
}

/// The usage of one hour since 1970; none at night.
fn usage(hour: i64, messages: u64) -> Option<Usage> {
    let day = u64::try_from(hour / 24).unwrap_or_default();
    let messages = messages + day % 3;
    (8..18).contains(&(hour % 24)).then_some(Usage {
        messages,
        recipients: messages + messages / 2,
        bytes: messages * 4_096,
        accepted: messages,
        refused: 0,
    })
}
