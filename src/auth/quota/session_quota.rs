//! What one session may do: asked at its login, at each MAIL and at each RCPT.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::auth::login_rules::{log_normalized, log_rule};
use crate::clock::{self, Moment};
use crate::policy::{Breach, Ceilings, Denial, Limit, OddOctet, Party, Policy, Rule};
use crate::sasl::{Bar, Identity};
use crate::store::{StoreError, Usage};

use super::counter::{Counter, Manner, Over, note};
use super::told::Told;
use super::window::Sent;
use super::{Owner, PATIENCE, Quotas, reports_limits, sent};

/// One session's way to the counts it shares with others. What it has taken and not sent is given
/// back when it is dropped.
pub struct SessionQuota {
    quotas: Arc<Quotas>,
    identity: Arc<Identity>,
    policy: Arc<Policy>,
    /// In which the policy was true.
    epoch: u64,
    /// The number of steps of the wall clock at which what was sent before was read.
    steps: u64,
    credential: Side,
    organization: Side,
    has_begun: bool,
    /// What is taken and neither given back nor noted.
    held: Sent,
    /// MAIL that was not answered yet.
    mails: u64,
    /// Whether the upstream has taken a MAIL whose message is not answered yet.
    open: bool,
    /// Recipients of the message that the client is at.
    in_message: u64,
    /// Tells its messages apart, for RCPT that are answered later.
    message: u64,
    /// The messages of the RCPT that were not answered yet.
    asked: VecDeque<u64>,
    /// What was logged.
    told: Mutex<AllTold>,
}

/// What was logged of limits, with what they are, and of rules that only report, with what broke them.
#[derive(Default)]
struct AllTold {
    limits: Told<u64>,
    rules: Told<String>,
}

/// One of the two whose limits there are.
struct Side {
    party: Party,
    owner: Owner,
    counter: Arc<Counter>,
    ceilings: Ceilings,
    manner: Manner,
}

impl Side {
    fn new(quotas: &Quotas, party: Party, owner: Owner) -> Self {
        Self {
            party,
            counter: quotas.counter(&owner),
            owner,
            ceilings: Ceilings::default(),
            manner: Manner::Refuse,
        }
    }
}

const MESSAGE: Sent = Sent {
    messages: 1,
    recipients: 0,
};
const RECIPIENT: Sent = Sent {
    messages: 0,
    recipients: 1,
};

impl SessionQuota {
    pub(super) fn new(quotas: &Arc<Quotas>, identity: &Arc<Identity>, epoch: u64) -> Self {
        let organization = Owner::Organization(identity.organization.clone());
        let mut allowance = Self {
            quotas: quotas.clone(),
            identity: identity.clone(),
            policy: identity.policy.clone(),
            epoch,
            steps: clock::steps(),
            credential: Side::new(quotas, Party::Credential, Owner::Credential(identity.key)),
            organization: Side::new(quotas, Party::Organization, organization),
            has_begun: false,
            held: Sent::default(),
            mails: 0,
            open: false,
            in_message: 0,
            message: 0,
            asked: VecDeque::new(),
            told: Mutex::default(),
        };
        allowance.obey();
        allowance
    }

    /// Takes over what the policy says.
    fn obey(&mut self) {
        let [own, organization] = self.quotas.ceilings(&self.policy);
        self.credential.ceilings = own;
        self.organization.ceilings = organization;
        self.credential.manner = if reports_limits(&self.policy) {
            Manner::Report
        } else {
            Manner::Refuse
        };
    }

    /// Sees to it that what was sent before is known, where that matters.
    pub(super) async fn know(&self) -> Result<(), StoreError> {
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

    /// Takes the session's place among those there may be.
    pub(super) fn begin(&mut self) -> Result<(), Bar> {
        let (own, organization) = (&self.credential, &self.organization);
        let over = own.counter.take_session(&own.ceilings, own.manner);
        if let Some(over) = over
            && self.tell(Party::Credential, over, own.manner)
        {
            return Err(Bar::Sessions);
        }
        let over = organization
            .counter
            .take_session(&organization.ceilings, organization.manner);
        if let Some(over) = over
            && self.tell(Party::Organization, over, organization.manner)
        {
            own.counter.leave();
            return Err(Bar::Sessions);
        }
        self.has_begun = true;
        Ok(())
    }

    /// What holds.
    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The largest message that may be sent, in octets, if that is limited.
    pub(crate) fn message_size(&self) -> Option<u64> {
        self.smallest(Limit::MessageSize)
            .map(|(_, ceiling)| ceiling)
    }

    /// The lower of the two, where both are to be refused by.
    fn smallest(&self, limit: Limit) -> Option<(Party, u64)> {
        let sides = [&self.credential, &self.organization].into_iter();
        let refusing = sides.filter(|side| side.manner == Manner::Refuse);
        let ceilings = refusing.filter_map(|side| Some((side.party, side.ceilings.get(limit)?)));
        ceilings.min_by_key(|(_, ceiling)| *ceiling)
    }

    /// Takes over what has changed since it was last asked.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub(crate) async fn refresh(&mut self) -> Result<(), StoreError> {
        match tokio::time::timeout(PATIENCE, self.read_again()).await {
            Ok(read) => read,
            Err(_) => Err(StoreError::Invalid(format!(
                "no answer within {PATIENCE:?}"
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
            // Whose credential is gone goes on as it was, until it is disconnected.
            if let Some(login) = found.filter(|login| login.key == self.identity.key) {
                self.policy = login.policy;
                self.obey();
            }
        }
        self.know().await?;
        (self.epoch, self.steps) = (epoch, steps);
        Ok(())
    }

    /// Whether something may have changed.
    pub(crate) fn is_stale(&self) -> bool {
        self.quotas.store.epoch() != self.epoch || clock::steps() != self.steps
    }

    /// Asks for a message of `path`, the reverse-path in its brackets, of so many octets as the
    /// client states. What is allowed is taken.
    ///
    /// # Errors
    /// A rule or a limit does not allow it; that is logged and counted.
    pub fn mail(&mut self, path: &[u8], size: Option<u64>) -> Result<(), Denial> {
        let rules = &self.policy.rules;
        if !rules.allows_path(path) && self.broken(Rule::Senders, &path.escape_ascii()) {
            return Err(Denial::Against(Rule::Senders));
        }
        let smallest = self.smallest(Limit::MessageSize);
        if let Some((party, ceiling)) = smallest.filter(|(_, ceiling)| size > Some(*ceiling)) {
            let limit = Limit::MessageSize;
            return self.deny(party, Over { limit, ceiling });
        }
        let now = Moment::now();
        let (own, organization) = (&self.credential, &self.organization);
        let own_over = own.counter.take_message(&own.ceilings, now, own.manner);
        if let Some(over) = own_over
            && self.tell(Party::Credential, over, own.manner)
        {
            return Err(Denial::Over(Party::Credential, over.limit));
        }
        let over =
            organization
                .counter
                .take_message(&organization.ceilings, now, organization.manner);
        if let Some(over) = over
            && self.tell(Party::Organization, over, organization.manner)
        {
            own.counter.withdraw_message(&own.ceilings, own_over);
            return Err(Denial::Over(Party::Organization, over.limit));
        }
        self.held.add(MESSAGE);
        self.mails += 1;
        Ok(())
    }

    /// The MAIL that was allowed last was not sent after all.
    pub(crate) fn withdraw_mail(&mut self) {
        if self.mails > 0 {
            self.mails -= 1;
            self.release(MESSAGE);
        }
    }

    /// Asks for a recipient. What is allowed is taken.
    ///
    /// # Errors
    /// A limit does not allow it; that is logged and counted.
    pub fn recipient(&mut self) -> Result<(), Denial> {
        let limit = Limit::RecipientsPerMessage;
        for side in [&self.credential, &self.organization] {
            let ceiling = side.ceilings.get(limit);
            if let Some(ceiling) = ceiling.filter(|ceiling| self.in_message >= *ceiling)
                && self.tell(side.party, Over { limit, ceiling }, side.manner)
            {
                return Err(Denial::Over(side.party, limit));
            }
        }
        let now = Moment::now();
        let (own, organization) = (&self.credential, &self.organization);
        let over = own.counter.take_recipient(&own.ceilings, now, own.manner);
        if let Some(over) = over
            && self.tell(Party::Credential, over, own.manner)
        {
            return Err(Denial::Over(Party::Credential, over.limit));
        }
        let over =
            organization
                .counter
                .take_recipient(&organization.ceilings, now, organization.manner);
        if let Some(over) = over
            && self.tell(Party::Organization, over, organization.manner)
        {
            own.counter.release(RECIPIENT);
            return Err(Denial::Over(Party::Organization, over.limit));
        }
        self.held.add(RECIPIENT);
        self.in_message += 1;
        self.asked.push_back(self.message);
        Ok(())
    }

    /// The upstream has answered a MAIL.
    pub fn mail_answered(&mut self, taken: bool) {
        if self.mails == 0 {
            return;
        }
        self.mails -= 1;
        if taken && !self.open {
            self.open = true;
        } else {
            self.release(MESSAGE);
        }
    }

    /// The upstream has answered a RCPT.
    pub fn recipient_answered(&mut self, taken: bool) {
        let asked = self.asked.pop_front();
        if !taken && let Some(message) = asked {
            self.release(RECIPIENT);
            if message == self.message {
                self.in_message = self.in_message.saturating_sub(1);
            }
        }
    }

    /// The client is done with a message, or begins anew: what it sends next belongs to another.
    pub fn next_message(&mut self) {
        self.message += 1;
        self.in_message = 0;
    }

    /// The upstream's transaction is over. A message that was taken is noted first.
    pub fn transaction_over(&mut self, message_taken: bool) {
        if std::mem::take(&mut self.open) && !message_taken {
            self.release(MESSAGE);
        }
    }

    /// The upstream session is gone, with all that was not answered.
    pub(crate) fn upstream_gone(&mut self) {
        let unanswered = Sent {
            messages: self.mails + u64::from(self.open),
            recipients: self.asked.len() as u64,
        };
        self.release(unanswered);
        (self.mails, self.open) = (0, false);
        self.asked.clear();
        self.next_message();
    }

    /// The client is gone: the session's place among those there may be is free.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.has_begun) {
            self.credential.counter.leave();
            self.organization.counter.leave();
        }
    }

    /// Notes what was sent: here, and where the store gets it from.
    pub fn note(&mut self, usage: &Usage) {
        let now = Moment::now();
        let sent = sent(usage);
        let taken = Sent {
            messages: sent.messages.min(self.held.messages),
            recipients: sent.recipients.min(self.held.recipients),
        };
        self.held.messages -= taken.messages;
        self.held.recipients -= taken.recipients;
        let both = [&*self.credential.counter, &*self.organization.counter];
        note(both, now, sent, taken, || {
            self.quotas.noted.sent(self.identity.key, now.wall, usage);
        });
    }

    /// A message turned out larger than its limit allows, or would have, were it not only reported.
    pub(crate) fn sized(&self, octets: u64) {
        let limit = Limit::MessageSize;
        for side in [&self.credential, &self.organization] {
            let reported = side
                .ceilings
                .get(limit)
                .filter(|_| side.manner == Manner::Report);
            if let Some(ceiling) = reported.filter(|ceiling| octets > *ceiling) {
                self.tell(side.party, Over { limit, ceiling }, side.manner);
            }
        }
        let refused = self.smallest(limit);
        if let Some((party, ceiling)) = refused.filter(|(_, ceiling)| octets > *ceiling) {
            self.tell(party, Over { limit, ceiling }, Manner::Refuse);
        }
    }

    /// A rule is broken; true if that is to be refused. It is counted either way, and logged, unless it was only reported a
    /// moment ago.
    pub(crate) fn broken(&self, rule: Rule, value: &dyn Display) -> bool {
        let refused = !self.policy.rules.reports(rule);
        let breach = Breach::Rule { rule, refused };
        self.note_breach(breach);
        let count = match refused {
            true => Some(1),
            false => {
                let value = || value.to_string();
                self.told().rules.count(breach, value, Instant::now())
            }
        };
        if let Some(count) = count {
            log_rule(&self.identity, rule, value, refused, count);
        }
        refused
    }

    /// A message body held an odd octet. The message is counted either way, and one that was encoded
    /// anew is logged, unless one was a moment ago.
    pub(crate) fn odd_octet(&self, octet: OddOctet, refused: bool) {
        let breach = Breach::Octet { octet, refused };
        self.note_breach(breach);
        if refused {
            return; // the refusal has a line of its own
        }
        let octet = octet.as_str();
        let count = self
            .told()
            .rules
            .count(breach, || octet.to_owned(), Instant::now());
        if let Some(count) = count {
            log_normalized(&self.identity, octet, count);
        }
    }

    fn deny(&self, party: Party, over: Over) -> Result<(), Denial> {
        self.tell(party, over, Manner::Refuse);
        Err(Denial::Over(party, over.limit))
    }

    /// Counts a limit that is reached, and logs it unless that was a moment ago; true if it is to be
    /// refused.
    fn tell(&self, of: Party, over: Over, manner: Manner) -> bool {
        let refused = manner == Manner::Refuse;
        let Over { limit, ceiling } = over;
        let breach = Breach::Limit { of, limit, refused };
        self.note_breach(breach);
        let now = Instant::now();
        if let Some(count) = self.told().limits.count(breach, || ceiling, now) {
            log_limit(&self.identity, breach, ceiling, count);
        }
        refused
    }

    /// Counts it, and for whoever asks later why.
    fn note_breach(&self, breach: Breach) {
        self.quotas.metrics.breached(breach);
        // Why a login was refused is noted with the login.
        if breach.reason() == Limit::Sessions.as_str() && breach.is_refused() {
            return;
        }
        let now = clock::now_ms();
        self.quotas.noted.breached(self.identity.key, breach, now);
    }

    fn told(&self) -> MutexGuard<'_, AllTold> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&mut self, taken: Sent) {
        let taken = Sent {
            messages: taken.messages.min(self.held.messages),
            recipients: taken.recipients.min(self.held.recipients),
        };
        if taken == Sent::default() {
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
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (breach, ceiling, count) in told.limits.rest() {
            log_limit(&self.identity, breach, ceiling, count);
        }
        for (breach, value, count) in told.rules.rest() {
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
