//! The journal's form of a log line: every field by its name, for programs, and all of them in the
//! message too, since that is what `journalctl` shows and what fail2ban reads.

use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

use crate::log;

use super::log::spelled_out;

/// Writes log lines in the form that the journal takes (systemd.io/JOURNAL_NATIVE_PROTOCOL).
pub struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        entry.add("PRIORITY", priority(metadata.level()));
        entry.add("SYSLOG_IDENTIFIER", "gatepost");
        entry.add("TARGET", metadata.target());
        entry.add("CODE_FILE", metadata.file().unwrap_or_default());
        let line = metadata.line().unwrap_or_default();
        entry.add("CODE_LINE", &line.to_string());
        entry.add("MESSAGE", &text(event));
        event.record(&mut entry);
        log::write(&entry.0);
    }
}

/// As syslog(3) numbers them.
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// The message with its fields, as the text log has them: quoted and escaped.
fn text(event: &Event<'_>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = DefaultFields::new().format_fields(Writer::new(&mut text), event);
    text
}

/// An entry as it is sent. Each value has its length in front, so that it may hold anything.
#[derive(Default)]
struct Entry(Vec<u8>);

impl Entry {
    fn add(&mut self, name: &str, value: &str) {
        let value = spelled_out(value, r"\");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0
            .extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }

    /// A field of ours: `GATEPOST_` and its name in capitals.
    fn add_field(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return;
        }
        let capital = |letter: char| match letter.is_ascii_alphanumeric() {
            true => letter.to_ascii_uppercase(),
            false => '_',
        };
        let name: String = field.name().chars().map(capital).collect();
        self.add(&format!("GATEPOST_{name}"), value);
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_field(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_field(field, value);
    }
}
