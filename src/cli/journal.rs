//! The journal's form of a log line: every field by its name, for programs, and all of them in the
//! message too, since that is what `journalctl` shows and what fail2ban reads.

use std::fmt::Debug;
use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The most fields an event of ours may have with its message; what is beyond stays in the message.
const MAX_FIELDS: usize = 32;

/// Sends log lines to the journal.
pub struct Journal {
    inner: tracing_journald::Layer,
}

impl Journal {
    /// Errs where no journal listens.
    pub fn connect() -> io::Result<Self> {
        let priorities = PriorityMappings {
            info: Priority::Informational,
            ..PriorityMappings::new()
        };
        let layer = tracing_journald::layer()?
            .with_field_prefix(Some("GATEPOST".to_owned()))
            .with_syslog_identifier("gatepost".to_owned())
            .with_priority_mappings(priorities);
        Ok(Self { inner: layer })
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.inner.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let names = event.metadata().fields();
        let (Some(message), Some(text)) = (names.field("message"), text(event)) else {
            return self.inner.on_event(event, context);
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut values: [(&Field, Option<&dyn Value>); MAX_FIELDS] = [(&message, None); MAX_FIELDS];
        let (first, others) = values.split_at_mut(1);
        first[0].1 = Some(&text);
        for (place, (field, value)) in others.iter_mut().zip(&fields.0) {
            *place = (field, Some(value));
        }
        let values = names.value_set(&values);
        self.inner
            .on_event(&Event::new(event.metadata(), &values), context);
    }
}

/// The message with its fields, as the text log has them: quoted and escaped.
fn text(event: &Event<'_>) -> Option<String> {
    let mut text = String::new();
    let formatted = DefaultFields::new().format_fields(Writer::new(&mut text), event);
    formatted.ok().map(|()| text)
}

/// The fields beside the message, as they are.
#[derive(Default)]
struct Fields(Vec<(Field, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            self.0.push((field.clone(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.0.push((field.clone(), value.to_owned()));
        }
    }
}
