//! The quota of one session: decides about the login, each MAIL and each RCPT.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::auth::login_rules::{log_normalized, log_rule};
use crate::clock::{self, Moment};
use crate::policy::{Breach, Ceilings, Denial, Limit, OddOctet, Party, Policy, Rule};
use crate::sasl::{Identity, Throttled};
use crate::store::{StoreError, Usage};

use super::counter::{Counter, Enforcement, LimitReached, note};
use super::log_throttle::LogThrottle;
use super::window::MailCount;
use super::{HISTORY_TIMEOUT, Owner, Quotas, reports_limits, sent};

/// One session's share of the common counters. Dropping the quota releases all reservations that
/// were not sent.
pub struct SessionQuota {
    quotas: Arc<Quotas>,
    identity: Arc<Identity>,
    policy: Arc<Policy>,
    /// The store epoch of the policy.
    epoch: u64,
    /// The number of wall clock steps at the last read of the history.
    steps: u64,
    credential: Side,
    organization: Side,
    has_session: bool,
    /// Reservations neither released nor noted.
    held: MailCount,
    /// MAIL commands without an answer.
    unanswered_mails: u64,
    /// Whether the upstream accepted a MAIL whose message has no answer yet.
    is_open: bool,
    /// Recipients of the present message.
    in_message: u64,
    /// The number of the present message, for late answers to RCPT.
    message: u64,
    /// The message number of each RCPT without an answer.
    unanswered_recipients: VecDeque<u64>,
    throttles: Mutex<LogThrottles>,
}

/// Throttled log lines: limits with their ceilings, and reporting rules with the offending values.
#[derive(Default)]
struct LogThrottles {
    limits: LogThrottle<u64>,
    rules: LogThrottle<String>,
}

/// One party with limits.
struct Side {
    party: Party,
    owner: Owner,
    counter: Arc<Counter>,
    ceilings: Ceilings,
    mode: Enforcement,
}

impl Side {
    fn new(quotas: &Quotas, party: Party, owner: Owner) -> Self {
        Self {
            party,
            counter: quotas.counter(&owner),
            owner,
            ceilings: Ceilings::default(),
            mode: Enforcement::Reject,
        }
    }
}

const MESSAGE: MailCount = MailCount {
    messages: 1,
    recipients: 0,
};
const RECIPIENT: MailCount = MailCount {
    messages: 0,
    recipients: 1,
};

impl SessionQuota {
    pub(super) fn new(quotas: &Arc<Quotas>, identity: &Arc<Identity>, epoch: u64) -> Self {
        let organization = Owner::Organization(identity.organization.clone());
        let mut quota = Self {
            quotas: quotas.clone(),
            identity: identity.clone(),
            policy: identity.policy.clone(),
            epoch,
            steps: clock::steps(),
            credential: Side::new(quotas, Party::Credential, Owner::Credential(identity.key)),
            organization: Side::new(quotas, Party::Organization, organization),
            has_session: false,
            held: MailCount::default(),
            unanswered_mails: 0,
            is_open: false,
            in_message: 0,
            message: 0,
            unanswered_recipients: VecDeque::new(),
            throttles: Mutex::default(),
        };
        quota.apply_policy();
        quota
    }

    /// Applies the policy's ceilings.
    fn apply_policy(&mut self) {
        let [own, organization] = self.quotas.ceilings(&self.policy);
        self.credential.ceilings = own;
        self.organization.ceilings = organization;
        self.credential.mode = if reports_limits(&self.policy) {
            Enforcement::Report
        } else {
            Enforcement::Reject
        };
    }

    /// Reads the history for limits over a past period.
    pub(super) async fn load_history(&self) -> Result<(), StoreError> {
        for side in [&self.credential, &self.organization] {
            if side.ceilings.look_back() && !side.counter.is_known(clock::steps()) {
                let (quotas, owner) = (self.quotas.clone(), side.owner.clone());
                let counter = side.counter.clone();
                let read = tokio::task::spawn_blocking(move || quotas.read(&owner, &counter));
                read.await
                    .map_err(|error| StoreError::Invalid(error.to_string()))??;
            }
        }
        Ok(())
    }

    /// Reserves the session.
    pub(super) fn reserve_session(&mut self) -> Result<(), Throttled> {
        let reserved = self.reserve(
            |side| side.counter.take_session(&side.ceilings, side.mode),
            |side, _| side.counter.leave(),
        );
        self.has_session = reserved.is_ok();
        reserved.map_err(|_| Throttled::Sessions)
    }

    /// Reserves with both parties or, if one denies, with neither.
    fn reserve(
        &self,
        take: impl Fn(&Side) -> Option<LimitReached>,
        release: impl Fn(&Side, Option<LimitReached>),
    ) -> Result<(), Denial> {
        let own = take(&self.credential);
        self.enforce(&self.credential, own)?;
        let organization = take(&self.organization);
        self.enforce(&self.organization, organization)
            .inspect_err(|_| release(&self.credential, own))
    }

    fn enforce(&self, side: &Side, reached: Option<LimitReached>) -> Result<(), Denial> {
        match reached {
            Some(reached) if self.report_limit(side.party, reached, side.mode) => {
                Err(Denial::Over(side.party, reached.limit))
            }
            _ => Ok(()),
        }
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The largest message allowed, in octets.
    pub(crate) fn message_size(&self) -> Option<u64> {
        self.smallest(Limit::MessageSize)
            .map(|(_, ceiling)| ceiling)
    }

    /// The lower ceiling of the two parties, where both reject.
    fn smallest(&self, limit: Limit) -> Option<(Party, u64)> {
        let sides = [&self.credential, &self.organization].into_iter();
        let refusing = sides.filter(|side| side.mode == Enforcement::Reject);
        let ceilings = refusing.filter_map(|side| Some((side.party, side.ceilings.get(limit)?)));
        ceilings.min_by_key(|(_, ceiling)| *ceiling)
    }

    /// Applies changes since the last read.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub(crate) async fn refresh(&mut self) -> Result<(), StoreError> {
        match tokio::time::timeout(HISTORY_TIMEOUT, self.read_again()).await {
            Ok(read) => read,
            Err(_) => Err(StoreError::Invalid(format!(
                "no answer within {HISTORY_TIMEOUT:?}"
            ))),
        }
    }

    async fn read_again(&mut self) -> Result<(), StoreError> {
        let (epoch, steps) = (self.quotas.store.epoch(), clock::steps());
        if epoch != self.epoch {
            let (quotas, identity) = (self.quotas.clone(), self.identity.clone());
            let found =
                tokio::task::spawn_blocking(move || quotas.store.lookup(&identity.username));
            let found = found
                .await
                .map_err(|error| StoreError::Invalid(error.to_string()))??;
            // Without its credential the session keeps its policy until it is disconnected.
            if let Some(login) = found.filter(|login| login.key == self.identity.key) {
                self.policy = login.policy;
                self.apply_policy();
            }
        }
        self.load_history().await?;
        (self.epoch, self.steps) = (epoch, steps);
        Ok(())
    }

    /// Whether the policy or the clock may have changed.
    pub(crate) fn is_stale(&self) -> bool {
        self.quotas.store.epoch() != self.epoch || clock::steps() != self.steps
    }

    /// Reserves a message of `path`, the reverse-path in angle brackets, of `size` octets as the
    /// client states.
    ///
    /// # Errors
    /// A rule or a limit does not allow the message; the denial is logged and counted.
    pub fn reserve_message(&mut self, path: &[u8], size: Option<u64>) -> Result<(), Denial> {
        let rules = &self.policy.rules;
        if !rules.allows_path(path) && self.broken(Rule::Senders, &path.escape_ascii()) {
            return Err(Denial::Against(Rule::Senders));
        }
        let smallest = self.smallest(Limit::MessageSize);
        if let Some((party, ceiling)) = smallest.filter(|(_, ceiling)| size > Some(*ceiling)) {
            let limit = Limit::MessageSize;
            return self.deny(party, LimitReached { limit, ceiling });
        }
        let now = Moment::now();
        self.reserve(
            |side| side.counter.take_message(&side.ceilings, now, side.mode),
            |side, reached| side.counter.withdraw_message(&side.ceilings, reached),
        )?;
        self.held.add(MESSAGE);
        self.unanswered_mails += 1;
        Ok(())
    }

    /// Releases the last MAIL, which was not sent.
    pub(crate) fn withdraw_mail(&mut self) {
        if self.unanswered_mails > 0 {
            self.unanswered_mails -= 1;
            self.release(MESSAGE);
        }
    }

    /// Reserves a recipient.
    ///
    /// # Errors
    /// A limit does not allow the recipient; the denial is logged and counted.
    pub fn reserve_recipient(&mut self) -> Result<(), Denial> {
        let limit = Limit::RecipientsPerMessage;
        for side in [&self.credential, &self.organization] {
            let ceiling = side.ceilings.get(limit);
            let ceiling = ceiling.filter(|ceiling| self.in_message >= *ceiling);
            self.enforce(side, ceiling.map(|ceiling| LimitReached { limit, ceiling }))?;
        }
        let now = Moment::now();
        self.reserve(
            |side| side.counter.take_recipient(&side.ceilings, now, side.mode),
            |side, _| side.counter.release(RECIPIENT),
        )?;
        self.held.add(RECIPIENT);
        self.in_message += 1;
        self.unanswered_recipients.push_back(self.message);
        Ok(())
    }

    /// Settles the oldest MAIL.
    pub fn mail_answered(&mut self, taken: bool) {
        if self.unanswered_mails == 0 {
            return;
        }
        self.unanswered_mails -= 1;
        if taken && !self.is_open {
            self.is_open = true;
        } else {
            self.release(MESSAGE);
        }
    }

    /// Settles the oldest RCPT.
    pub fn recipient_answered(&mut self, taken: bool) {
        let message = self.unanswered_recipients.pop_front();
        if !taken && let Some(message) = message {
            self.release(RECIPIENT);
            if message == self.message {
                self.in_message = self.in_message.saturating_sub(1);
            }
        }
    }

    /// Begins another message.
    pub fn next_message(&mut self) {
        self.message += 1;
        self.in_message = 0;
    }

    /// Ends the upstream's transaction. An accepted message must be noted before.
    pub fn transaction_over(&mut self, message_taken: bool) {
        if std::mem::take(&mut self.is_open) && !message_taken {
            self.release(MESSAGE);
        }
    }

    /// Releases everything without an answer: the upstream session is gone.
    pub(crate) fn upstream_gone(&mut self) {
        let unanswered = MailCount {
            messages: self.unanswered_mails + u64::from(self.is_open),
            recipients: self.unanswered_recipients.len() as u64,
        };
        self.release(unanswered);
        (self.unanswered_mails, self.is_open) = (0, false);
        self.unanswered_recipients.clear();
        self.next_message();
    }

    /// Releases the session: the client is gone.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.has_session) {
            self.credential.counter.leave();
            self.organization.counter.leave();
        }
    }

    /// Notes sent mail in the counters and in the activity batch.
    pub fn note(&mut self, usage: &Usage) {
        let now = Moment::now();
        let sent = sent(usage);
        let taken = MailCount {
            messages: sent.messages.min(self.held.messages),
            recipients: sent.recipients.min(self.held.recipients),
        };
        self.held.messages -= taken.messages;
        self.held.recipients -= taken.recipients;
        let both = [&*self.credential.counter, &*self.organization.counter];
        note(both, now, sent, taken, || {
            self.quotas
                .activity
                .sent(self.identity.key, now.wall, usage);
        });
    }

    /// Reports that a message is larger than a limit.
    pub(crate) fn sized(&self, octets: u64) {
        let limit = Limit::MessageSize;
        for side in [&self.credential, &self.organization] {
            let reported = side
                .ceilings
                .get(limit)
                .filter(|_| side.mode == Enforcement::Report);
            if let Some(ceiling) = reported.filter(|ceiling| octets > *ceiling) {
                self.report_limit(side.party, LimitReached { limit, ceiling }, side.mode);
            }
        }
        let refused = self.smallest(limit);
        if let Some((party, ceiling)) = refused.filter(|(_, ceiling)| octets > *ceiling) {
            self.report_limit(party, LimitReached { limit, ceiling }, Enforcement::Reject);
        }
    }

    /// Counts a broken rule, and logs the rule unless a report was logged a moment ago. Returns
    /// whether the rule rejects.
    pub(crate) fn broken(&self, rule: Rule, value: &dyn Display) -> bool {
        let refused = !self.policy.rules.reports(rule);
        let breach = Breach::Rule { rule, refused };
        self.note_breach(breach);
        let count = match refused {
            true => Some(1),
            false => {
                let value = || value.to_string();
                self.throttles
                    .lock()
                    .rules
                    .count(breach, value, Instant::now())
            }
        };
        if let Some(count) = count {
            log_rule(&self.identity, rule, value, refused, count);
        }
        refused
    }

    /// Counts a message with an odd octet. Logs a re-encoded message, unless one was logged a
    /// moment ago.
    pub(crate) fn odd_octet(&self, octet: OddOctet, refused: bool) {
        let breach = Breach::Octet { octet, refused };
        self.note_breach(breach);
        if refused {
            return; // the refusal has a line of its own
        }
        let octet = octet.as_str();
        let count = self
            .throttles
            .lock()
            .rules
            .count(breach, || octet.to_owned(), Instant::now());
        if let Some(count) = count {
            log_normalized(&self.identity, octet, count);
        }
    }

    fn deny(&self, party: Party, over: LimitReached) -> Result<(), Denial> {
        self.report_limit(party, over, Enforcement::Reject);
        Err(Denial::Over(party, over.limit))
    }

    /// Counts a reached limit, and logs the limit unless a line was logged a moment ago. Returns
    /// whether the limit rejects.
    fn report_limit(&self, of: Party, over: LimitReached, mode: Enforcement) -> bool {
        let refused = mode == Enforcement::Reject;
        let LimitReached { limit, ceiling } = over;
        let breach = Breach::Limit { of, limit, refused };
        self.note_breach(breach);
        let now = Instant::now();
        if let Some(count) = self.throttles.lock().limits.count(breach, || ceiling, now) {
            log_limit(&self.identity, breach, ceiling, count);
        }
        refused
    }

    /// Counts a breach in the metrics and for the lists.
    fn note_breach(&self, breach: Breach) {
        self.quotas.metrics.breached(breach);
        // The reason of a rejected login is noted with the login.
        if breach.reason() == Limit::Sessions.as_str() && breach.is_refused() {
            return;
        }
        let now = clock::now_ms();
        self.quotas
            .activity
            .breached(self.identity.key, breach, now);
    }

    fn release(&mut self, taken: MailCount) {
        let taken = MailCount {
            messages: taken.messages.min(self.held.messages),
            recipients: taken.recipients.min(self.held.recipients),
        };
        if taken == MailCount::default() {
            return;
        }
        self.held.messages -= taken.messages;
        self.held.recipients -= taken.recipients;
        self.credential.counter.release(taken);
        self.organization.counter.release(taken);
    }
}

fn log_limit(identity: &Identity, breach: Breach, value: u64, count: u64) {
    tracing::info!(
        target: "gatepost::limit",
        username = &*identity.username,
        organization = &*identity.organization,
        of = breach.party().as_str(),
        limit = breach.reason(),
        value,
        action = breach.action(),
        count,
        "limit reached"
    );
}

impl Drop for SessionQuota {
    fn drop(&mut self) {
        let throttles = self.throttles.get_mut();
        for (breach, ceiling, count) in throttles.limits.rest() {
            log_limit(&self.identity, breach, ceiling, count);
        }
        for (breach, value, count) in throttles.rules.rest() {
            match breach {
                Breach::Rule { rule, refused } => {
                    log_rule(&self.identity, rule, &value, refused, count);
                }
                Breach::Octet { octet, .. } => {
                    log_normalized(&self.identity, octet.as_str(), count);
                }
                Breach::Limit { .. } => {}
            }
        }
        self.release(self.held);
        self.leave();
    }
}
