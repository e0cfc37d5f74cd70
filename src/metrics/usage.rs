//! Who does how much: counters for each organization, and for each credential where that is
//! configured. Both come and go, so the number of series has a bound.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::family::{ByLabel, Registrar};
use super::labels::{LoginOutcome, MessageOutcome};

/// The label value of everybody beyond the bound.
pub const OTHER: &str = "other";

/// One authenticated session. It counts as open until it is dropped, and holds the counters of its
/// organization and its credential, so that no message has to look them up.
pub struct Session {
    open: IntGauge,
    counted_for: Vec<Arc<Counters>>,
}

impl Session {
    pub(super) fn begin(open: IntGauge, counted_for: Vec<Arc<Counters>>) -> Self {
        open.inc();
        Self { open, counted_for }
    }

    /// Counts a message of which `bytes` octets were sent upstream.
    pub fn message(&self, outcome: MessageOutcome, bytes: u64) {
        for counters in &self.counted_for {
            counters.messages.of(outcome).inc();
            counters.message_bytes.inc_by(bytes);
        }
    }

    /// Counts a recipient that the upstream took.
    pub fn recipient(&self) {
        for counters in &self.counted_for {
            counters.recipients.inc();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What one organization or one credential did.
pub(super) struct Counters {
    pub(super) logins: ByLabel<LoginOutcome, IntCounter>,
    messages: ByLabel<MessageOutcome, IntCounter>,
    message_bytes: IntCounter,
    recipients: IntCounter,
}

/// The counters of all organizations, or of all credentials.
pub(super) struct PerLabelCounters {
    limit: usize,
    known: RwLock<HashMap<Box<str>, Arc<Counters>>>,
    /// Made when the bound is first reached, so that nobody sees it who never does.
    other: OnceLock<Arc<Counters>>,
    overflow: IntCounter,
    logins: IntCounterVec,
    messages: IntCounterVec,
    message_bytes: IntCounterVec,
    recipients: IntCounterVec,
}

impl PerLabelCounters {
    /// Counters by `label`, for at most `limit` values of it; the rest is counted for [`OTHER`],
    /// and `overflow` says how often somebody was.
    pub(super) fn new(
        made: &Registrar<'_>,
        label: &'static str,
        limit: usize,
        overflow: IntCounter,
    ) -> Result<Self, prometheus::Error> {
        let by = |counted: &str, help: &str, labels: &[&str]| {
            let name = format!("{label}_{counted}_total");
            made.counters(&name, &format!("{help}, by {label}."), labels)
        };
        Ok(Self {
            limit,
            known: RwLock::default(),
            other: OnceLock::new(),
            overflow,
            logins: by("auth", "Logins accepted and refused", &[label, "result"])?,
            messages: by("messages", "Messages by outcome", &[label, "outcome"])?,
            message_bytes: by("message_bytes", "Octets of bodies sent upstream", &[label])?,
            recipients: by("recipients", "Recipients the upstream took", &[label])?,
        })
    }

    /// The counters of one of them.
    pub(super) fn of(&self, name: &str) -> Arc<Counters> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = known.get(name) {
            return counters.clone();
        }
        let full = known.len() >= self.limit;
        drop(known);
        if !full {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Others may have been faster: with this name, or with the last place.
            if known.len() < self.limit || known.contains_key(name) {
                let counters = known.entry(name.into());
                return counters.or_insert_with(|| self.made(name)).clone();
            }
        }
        self.overflow.inc();
        self.other.get_or_init(|| self.made(OTHER)).clone()
    }

    fn made(&self, name: &str) -> Arc<Counters> {
        Arc::new(Counters {
            logins: ByLabel::new(|result| self.logins.with_label_values(&[name, result])),
            messages: ByLabel::new(|outcome| self.messages.with_label_values(&[name, outcome])),
            message_bytes: self.message_bytes.with_label_values(&[name]),
            recipients: self.recipients.with_label_values(&[name]),
        })
    }
}
