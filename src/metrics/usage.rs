//! Counters per organization and, if configured, per credential. Both come and go, so the number of
//! series is bounded.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::family::{ByLabel, Registrar};
use super::labels::{LoginOutcome, MessageOutcome};

/// The label value of names beyond the bound.
pub const OTHER: &str = "other";

/// The metrics of an authenticated session: counted as open until dropped, with the counters of its
/// organization and credential at hand.
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

    /// Counts a recipient accepted by the upstream.
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

/// The counters of an organization or a credential.
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
    /// Registered when the bound is first reached, so that other installations never show the
    /// series.
    other: OnceLock<Arc<Counters>>,
    overflow: IntCounter,
    logins: IntCounterVec,
    messages: IntCounterVec,
    message_bytes: IntCounterVec,
    recipients: IntCounterVec,
}

impl PerLabelCounters {
    /// Creates counters by `label` for at most `limit` values. Further values count as [`OTHER`],
    /// and `overflow` counts the cases.
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

    /// Returns the counters of an organization or credential.
    pub(super) fn of(&self, name: &str) -> Arc<Counters> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = known.get(name) {
            return counters.clone();
        }
        let full = known.len() >= self.limit;
        drop(known);
        if !full {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have added the name, or taken the last place.
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
