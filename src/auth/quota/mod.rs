//! Limits at work: the sums of each credential and organization in memory, and the decisions about
//! each session, message and recipient.
//!
//! The store has the usage by the hour. A sum over a past period is read from the store at the
//! first need after a start, and counted in memory from then on.

mod bucket;
mod counter;
mod log_throttle;
mod session_quota;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Moment};
use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::policy::{Ceilings, Limit, Limits, Policy, Rule};
use crate::sasl::{Identity, Outage, Throttled};
use crate::store::{HOUR, Span, Store, StoreError, Usage, UsageOf};

use super::activity::ActivityBatch;
use counter::Counter;
use window::{MailCount, Window};

pub use session_quota::SessionQuota;

/// Beyond so many counters, those without sessions are dropped, to be read again when needed.
const COUNTERS: usize = 65_536;

/// How often the history is read again because a flush ended meanwhile.
const ATTEMPTS: u32 = 4;

/// The longest wait of a login for the history. Reading takes milliseconds while the store works.
const HISTORY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The limits of credentials and organizations without limits of their own.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub credential: Limits,
    pub organization: Limits,
}

/// The subject of a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// By key.
    Credential(i64),
    /// By slug, which never changes.
    Organization(Arc<str>),
}

/// All counters.
pub struct Quotas {
    store: Arc<Store>,
    activity: Arc<ActivityBatch>,
    metrics: Arc<Metrics>,
    defaults: Defaults,
    counters: Mutex<HashMap<Owner, Arc<Counter>>>,
}

/// The use of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) limit: Limit,
    pub(crate) ceiling: u64,
    /// `None` for limits that apply to each message alone.
    pub(crate) used: Option<u64>,
}

impl Use {
    /// Whether the limit is reached, and not only for a moment.
    pub(crate) fn is_over(&self) -> bool {
        self.limit != Limit::MessagesPerSecond && self.used.is_some_and(|used| used >= self.ceiling)
    }
}

/// The reason for not opening a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A limit is reached.
    Throttled(Throttled),
    /// The history cannot be read.
    Unknown(Outage),
}

impl Quotas {
    /// Without history.
    pub fn new(
        store: Arc<Store>,
        activity: Arc<ActivityBatch>,
        metrics: Arc<Metrics>,
        defaults: Defaults,
    ) -> Self {
        Self {
            store,
            activity,
            metrics,
            defaults,
            counters: Mutex::default(),
        }
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Opens a session for an identity that was verified in `epoch`.
    ///
    /// # Errors
    /// The limit of sessions is reached, or the history cannot be read.
    pub async fn enter(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        epoch: u64,
    ) -> Result<SessionQuota, Refused> {
        let mut quota = SessionQuota::new(self, identity, epoch);
        let known = tokio::time::timeout(HISTORY_TIMEOUT, quota.load_history()).await;
        let error = match known {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {HISTORY_TIMEOUT:?}")),
        };
        if let Some(error) = error {
            static UNREADABLE: Throttle = Throttle::new();
            if let Some(count) = UNREADABLE.due() {
                tracing::error!(
                    error,
                    count,
                    "the usage history cannot be read, logins are put off"
                );
            }
            return Err(Refused::Unknown(Outage::Store));
        }
        quota.reserve_session().map_err(Refused::Throttled)?;
        Ok(quota)
    }

    /// The uses of a credential's limits. Blocks on the store.
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

    /// The uses of an organization's limits. Blocks on the store.
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
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get(owner) {
            return counter.clone();
        }
        if counters.len() >= COUNTERS {
            // Each session holds its counter; the others can be read again.
            counters.retain(|_, counter| Arc::strong_count(counter) > 1);
        }
        counters.entry(owner.clone()).or_default().clone()
    }

    /// Reads the history, unless known. Blocks on the store and writes nothing: logins wait for
    /// this read and must not wait for the writer.
    fn read(&self, owner: &Owner, counter: &Counter) -> Result<(), StoreError> {
        for attempt in 1..=ATTEMPTS {
            let steps = clock::steps();
            if counter.is_known(steps) {
                return Ok(());
            }
            let since = Window::since(Moment::now(), &clock::frames());
            let until = i64::MAX;
            let (noted, unwritten) = counter.settled(|| self.activity.unwritten());
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
            // Otherwise the rows may hold usage that was unwritten a moment ago. In the end,
            // counting such usage twice is the lesser evil.
            if attempt < ATTEMPTS && !self.activity.is_unflushed(&unwritten) {
                continue;
            }
            // Read the clock last: otherwise the latest usage would be dated too early.
            let (now, frames) = (Moment::now(), clock::frames());
            let mut window = Window::new(now);
            for (hour, usage) in rows {
                window.add_hour(hour, sent(&usage), now, &frames);
            }
            for (hour, usage) in waiting {
                window.add_hour(hour.saturating_mul(HOUR), sent(&usage), now, &frames);
            }
            counter.set_history(window, noted, now, steps);
        }
        Ok(())
    }

    /// The organization's part of this usage, by the hour. Blocks on the store.
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

    /// The ceilings of the credential and of its organization.
    fn ceilings(&self, policy: &Policy) -> [Ceilings; 2] {
        [
            policy.limits.over(&self.defaults.credential),
            policy.organization_limits.over(&self.defaults.organization),
        ]
    }
}

fn sent(usage: &Usage) -> MailCount {
    MailCount {
        messages: usage.messages,
        recipients: usage.recipients,
    }
}

/// Whether the credential's limits only report.
fn reports_limits(policy: &Policy) -> bool {
    policy.rules.reports(Rule::Limits)
}

#[cfg(test)]
mod tests;
