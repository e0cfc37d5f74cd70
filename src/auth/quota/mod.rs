//! Limits as they are kept: what each credential and each organization has sent, in memory, and the
//! word on what it may send now.
//!
//! What was sent is noted by the hour in the store anyway. Whoever has a limit that looks back is
//! read from there once, at the first need after a start; from then on memory knows.

mod bucket;
mod counter;
mod session_quota;
mod told;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Moment};
use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::policy::{Ceilings, Limit, Limits, Policy, Rule};
use crate::sasl::{Bar, Identity, Outage};
use crate::store::{HOUR, Span, Store, StoreError, Usage, UsageOf};

use super::activity::ActivityBatch;
use counter::Counter;
use window::{Sent, Window};

pub use session_quota::SessionQuota;

/// How many are remembered before those without sessions are forgotten; they are read again.
const REMEMBERED: usize = 65_536;

/// How often what was sent is read anew because a flush ended meanwhile.
const ATTEMPTS: u32 = 4;

/// How long a login waits for what was sent before. Reading takes milliseconds, unless the store
/// cannot be read.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The limits of whoever has none of their own.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Of credentials.
    pub credential: Limits,
    /// Of organizations.
    pub organization: Limits,
}

/// Whose counts they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// The credential with this key.
    Credential(i64),
    /// The organization with this slug, which is its own for life.
    Organization(Arc<str>),
}

/// The counts of everybody.
pub struct Quotas {
    store: Arc<Store>,
    noted: Arc<ActivityBatch>,
    metrics: Arc<Metrics>,
    defaults: Defaults,
    counters: Mutex<HashMap<Owner, Arc<Counter>>>,
}

/// How far one limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// Which one.
    pub(crate) limit: Limit,
    /// The most there may be.
    pub(crate) ceiling: u64,
    /// How much there is now; `None` where each message is looked at alone.
    pub(crate) used: Option<u64>,
}

impl Use {
    /// Whether what comes next would be one too many, and not only for a moment.
    pub(crate) fn is_over(&self) -> bool {
        self.limit != Limit::MessagesPerSecond && self.used.is_some_and(|used| used >= self.ceiling)
    }
}

/// Why a session does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A limit is reached.
    Barred(Bar),
    /// What was sent before cannot be read.
    Unknown(Outage),
}

impl Quotas {
    /// Nobody has sent anything yet, as far as this process knows.
    pub fn new(
        store: Arc<Store>,
        noted: Arc<ActivityBatch>,
        metrics: Arc<Metrics>,
        defaults: Defaults,
    ) -> Self {
        Self {
            store,
            noted,
            metrics,
            defaults,
            counters: Mutex::default(),
        }
    }

    /// The instance's defaults.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Begins a session of who was identified by what was true in `epoch`.
    ///
    /// # Errors
    /// It has as many sessions as it may have, or what it has sent cannot be read.
    pub async fn enter(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        epoch: u64,
    ) -> Result<SessionQuota, Refused> {
        let mut allowance = SessionQuota::new(self, identity, epoch);
        let known = tokio::time::timeout(PATIENCE, allowance.know()).await;
        let error = match known {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {PATIENCE:?}")),
        };
        if let Some(error) = error {
            static UNREADABLE: Throttle = Throttle::new();
            if let Some(count) = UNREADABLE.due() {
                tracing::error!(
                    error,
                    count,
                    "what was sent before cannot be read, logins are put off"
                );
            }
            return Err(Refused::Unknown(Outage::Store));
        }
        allowance.begin().map_err(Refused::Barred)?;
        Ok(allowance)
    }

    /// How far a credential's limits are used up. Blocks on the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn uses_of_credential(
        &self,
        key: i64,
        limits: &Limits,
    ) -> Result<Vec<Use>, StoreError> {
        let ceilings = limits.over(&self.defaults.credential);
        self.uses(&Owner::Credential(key), &ceilings)
    }

    /// How far an organization's limits are used up. Blocks on the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn uses_of_organization(
        &self,
        slug: &str,
        limits: &Limits,
    ) -> Result<Vec<Use>, StoreError> {
        let ceilings = limits.over(&self.defaults.organization);
        self.uses(&Owner::Organization(slug.into()), &ceilings)
    }

    fn uses(&self, owner: &Owner, ceilings: &Ceilings) -> Result<Vec<Use>, StoreError> {
        let counter = self.counter(owner);
        if ceilings.look_back() {
            self.read(owner, &counter)?;
        }
        let now = Moment::now();
        let uses = Limit::ALL.into_iter().filter_map(|limit| {
            Some(Use {
                limit,
                ceiling: ceilings.get(limit)?,
                used: counter.used(limit, ceilings, now),
            })
        });
        Ok(uses.collect())
    }

    fn counter(&self, owner: &Owner) -> Arc<Counter> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(owner) {
            return counter.clone();
        }
        if counters.len() >= REMEMBERED {
            // Whoever has a session holds its counter; the others can be read again.
            counters.retain(|_, counter| Arc::strong_count(counter) > 1);
        }
        counters.entry(owner.clone()).or_default().clone()
    }

    /// Reads what was sent before, unless it is known. Blocks on the store, and writes nothing:
    /// logins wait for this, and must not wait for the writer.
    fn read(&self, owner: &Owner, counter: &Counter) -> Result<(), StoreError> {
        for attempt in 1..=ATTEMPTS {
            let steps = clock::steps();
            if counter.is_known(steps) {
                return Ok(());
            }
            let since = Window::since(Moment::now(), &clock::frames());
            let until = i64::MAX;
            let (noted, unwritten) = counter.settled(|| self.noted.unwritten());
            let (of, waiting) = match owner {
                Owner::Credential(key) => {
                    let own = unwritten.usage.iter().filter(|((own, _), _)| own == key);
                    let own = own.map(|((_, hour), usage)| (*hour, *usage));
                    (UsageOf::Credential(*key), own.collect())
                }
                Owner::Organization(slug) => {
                    let own = self.of_organization(slug, &unwritten.usage)?;
                    (UsageOf::Organization(slug), own)
                }
            };
            let rows = self.store.usage(of, Span::Hour, since, until)?;
            // Else the rows may hold some of what was unwritten a moment ago. To count that twice
            // is the lesser evil.
            if attempt < ATTEMPTS && !self.noted.is_still(&unwritten) {
                continue;
            }
            // Not before all that was read was sent, or some of it would be taken for older than it
            // is.
            let (now, frames) = (Moment::now(), clock::frames());
            let mut window = Window::new(now);
            for (hour, usage) in rows {
                window.add_hour(hour, sent(&usage), now, &frames);
            }
            for (hour, usage) in waiting {
                window.add_hour(hour.saturating_mul(HOUR), sent(&usage), now, &frames);
            }
            counter.know(window, noted, now, steps);
        }
        Ok(())
    }

    /// What of this usage, by credential key and hour, is the organization's, by the hour. Blocks on
    /// the store.
    fn of_organization(
        &self,
        slug: &str,
        usage: &[((i64, i64), Usage)],
    ) -> Result<Vec<(i64, Usage)>, StoreError> {
        if usage.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = usage.iter().map(|((key, _), _)| *key).collect();
        let own = self.store.belonging_to(slug, &keys)?;
        let usage = usage.iter().filter(|((key, _), _)| own.contains(key));
        Ok(usage.map(|((_, hour), usage)| (*hour, *usage)).collect())
    }

    /// What holds a credential under this policy: its own ceilings and its organization's.
    fn ceilings(&self, policy: &Policy) -> [Ceilings; 2] {
        [
            policy.limits.over(&self.defaults.credential),
            policy.organization_limits.over(&self.defaults.organization),
        ]
    }
}

fn sent(usage: &Usage) -> Sent {
    Sent {
        messages: usage.messages,
        recipients: usage.recipients,
    }
}

/// Whether limits of the credential only report.
fn reports_limits(policy: &Policy) -> bool {
    policy.rules.reports(Rule::Limits)
}

#[cfg(test)]
mod tests;
