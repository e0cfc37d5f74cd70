//! One verification: every state, and every transition from the request to the verdict.
//!
//! The machine does no I/O. [`Verification::next`] takes the answer to the last [`Step`] and names
//! the next one; `verify.rs` carries the steps out. The checks come cheapest first: the cached
//! secrets, the bans, the row, the tag, and only then a hash. Only the guard is asked directly,
//! because the guard answers from memory.
//!
//! An answer counts only for the store epoch in which it was read. A comparison therefore ends in
//! another round, which judges the password by the new cache entry and the present epoch.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::cache::{CacheEntry, Digest, PasswordSlot, identity_of};
use crate::auth::guard::{Attempt, HashPermit, MayHash, Outcome, Prefix, Target};
use crate::auth::issue;
use crate::clock::Moment;
use crate::metrics::Path;
use crate::policy::Rule;
use crate::sasl::{Identity, Outage, Reason, Throttled, Verdict};
use crate::store::{Login, Refusal, Retired};

use super::cached::CachedSecrets;

/// The claim to verify.
pub(crate) struct Request<'a> {
    pub(crate) username: &'a str,
    /// Whether the client asks for an authorization identity other than `username`.
    pub(crate) has_authzid: bool,
    pub(crate) digest: Digest,
    /// [`crate::store::Store::tag`] of the offered password.
    pub(crate) tag: u32,
    pub(crate) address: IpAddr,
    /// Whether a rejection may wait for the next poll of the store without being late.
    pub(crate) may_await_poll: bool,
}

/// The next thing to do, and the [`Input`] that answers.
#[derive(Debug)]
pub(crate) enum Step {
    /// Wait for a permit to hash for this unknown client: [`Input::Permit`].
    AcquirePermit(Prefix),
    /// Wait until the store has been polled again: [`Input::Polled`].
    AwaitPoll,
    /// Compare the password with the stored hashes, under the permit if one was needed:
    /// [`Input::Compared`].
    Compare(Arc<Candidate>, Option<HashPermit>),
    /// Count, log and keep the rejection: [`Input::Counted`].
    Count(Rejected),
    /// Count that an unknown client got no permit in time: [`Input::Counted`].
    CountTimeout,
    /// Wait until the rejection is due, this many refusal delays after the request:
    /// [`Input::Delayed`].
    Delay(u32),
    Done(Verdict),
    /// Report the broken rules that do not reject, reserve the session and keep the use:
    /// [`Input::Entered`] or [`Input::Throttled`].
    Enter(Accepted),
    /// Read the row, or reuse one that was read in `epoch` and rejects the password:
    /// [`Input::Row`] or [`Input::RememberedRow`].
    Lookup {
        epoch: u64,
        may_reuse: bool,
    },
    /// The password is judged; measure the time and the path: [`Input::Measured`].
    Measure(Option<Path>),
    /// Read the store's epoch, then the cached secrets: [`Input::Cached`].
    Recall,
    /// Take as long as a hash takes, under the permit: [`Input::Simulated`].
    SimulateHash(HashPermit),
}

/// The answer to a [`Step`].
pub(crate) enum Input {
    Cached(u64, CachedSecrets),
    Compared(CompareOutcome),
    Counted(Outcome),
    Delayed,
    Entered,
    /// The step could not be carried out in time, or at all.
    Failed(Outage),
    Measured,
    /// `None`: unknown clients get no permit now.
    Permit(Option<HashPermit>),
    /// The store's epoch after the poll. `None`: no answer in time.
    Polled(Option<u64>),
    RememberedRow(Option<Arc<Login>>),
    Row(Option<Arc<Login>>),
    /// Whether the simulated hash ended in time.
    Simulated(bool),
    Throttled(Throttled),
}

/// The row to compare a password with, and the password slots that may hold that password.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) login: Arc<Login>,
    pub(crate) epoch: u64,
    pub(crate) slots: Vec<PasswordSlot>,
}

#[derive(Clone, Debug)]
pub(crate) enum CompareOutcome {
    Match(PasswordSlot, Arc<CacheEntry>),
    Mismatch,
    /// The stored hash cannot be used, and the client must not learn so.
    NoCandidate,
    /// Another password was being compared; its outcome says nothing about this one.
    OtherInFlight,
    /// The permit ran out before the hash was computed.
    TooLate,
}

/// The password is right.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) identity: Arc<Identity>,
    pub(crate) slot: PasswordSlot,
    /// Whether the credential's other password is right, too.
    pub(crate) overlaps: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rejected {
    /// An unknown client got no permit to hash, or its hash took too long.
    NoHashPermit,
    Reason {
        reason: Reason,
        /// The credential that the client named, if it exists.
        identity: Option<Arc<Identity>>,
        /// When the offered password was replaced, if it was right before.
        retired_at: Option<i64>,
    },
    Throttled(Throttled),
    Unavailable(Outage),
}

/// What a round has read so far.
struct Round {
    epoch: u64,
    secrets: CachedSecrets,
}

#[derive(Default)]
enum State {
    /// The cache rejects the password; the store may have been changed a moment ago.
    AwaitingPoll,
    Comparing(Arc<Candidate>),
    /// A remembered row rejects the password; the store may have been changed a moment ago.
    ConfirmingRow(Round, Option<Arc<Login>>),
    CountingRejection(Rejected),
    /// The permit's timeout is counted after the delay: a client that logged in meanwhile does
    /// not guess.
    CountingTimeout(Verdict),
    /// With whether the client got no permit.
    Delaying(Verdict, bool),
    #[default]
    Done,
    Entering(Arc<Identity>),
    /// The rejection needs no hash and waits for a permit all the same, as one with a hash does.
    EqualizingPermit(Rejected),
    LookingUp(Round),
    Measuring(Result<Accepted, Rejected>),
    PermitWanted(Arc<Login>),
    Recalling,
    Simulating(Rejected),
}

pub(crate) struct Verification<'a> {
    request: Request<'a>,
    attempt: Attempt<'a>,
    state: State,
    may_await_poll: bool,
    permit: Option<HashPermit>,
    /// The last comparison's match. Counts even if the cache had no room for it.
    found: Option<(PasswordSlot, Arc<CacheEntry>)>,
    path: Path,
}

impl<'a> Verification<'a> {
    /// Begins, and names the first step.
    pub(crate) fn begin(request: Request<'a>, attempt: Attempt<'a>) -> (Self, Step) {
        let mut verification = Self {
            may_await_poll: request.may_await_poll,
            request,
            attempt,
            state: State::Done,
            permit: None,
            found: None,
            path: Path::Cache,
        };
        let step = match verification.request.has_authzid {
            // RFC 4422, 3.4.1: no credential acts for another.
            true => verification.judged(Some(Path::Early), Err(Reason::ActsForAnother.into())),
            false => verification.recall(),
        };
        (verification, step)
    }

    pub(crate) fn digest(&self) -> Digest {
        self.request.digest
    }

    pub(crate) fn attempt(&self) -> &Attempt<'a> {
        &self.attempt
    }

    /// Takes the answer to the last step. An answer that the state does not expect ends the
    /// verification without a verdict.
    pub(crate) fn next(&mut self, input: Input, now: Moment) -> Step {
        use Input as In;
        match (mem::take(&mut self.state), input) {
            (State::Recalling, In::Cached(epoch, secrets)) => self.on_cached(epoch, secrets, now),
            (State::AwaitingPoll, In::Polled(_)) => self.recall(),
            (State::LookingUp(round), In::Row(row)) => self.on_row(round, row, now),
            (State::LookingUp(round), In::RememberedRow(row)) => {
                self.to(State::ConfirmingRow(round, row), Step::AwaitPoll)
            }
            (State::ConfirmingRow(round, row), In::Polled(epoch)) => match epoch {
                Some(epoch) if epoch == round.epoch => self.on_row(round, row, now),
                _ => self.look_up(round, false),
            },
            (State::PermitWanted(login), In::Permit(permit)) => self.on_permit(&login, permit),
            (State::Comparing(candidate), In::Compared(outcome)) => {
                self.on_compared(&candidate.login, outcome)
            }
            (State::Comparing(_) | State::LookingUp(_), In::Failed(outage)) => {
                self.judged(None, Err(Rejected::Unavailable(outage)))
            }

            (State::Measuring(Ok(accepted)), In::Measured) => self.enter(accepted),
            (State::Measuring(Err(rejected)), In::Measured) => self.reject(rejected),
            (State::Entering(identity), In::Entered) => Step::Done(Verdict::Accept(identity)),
            (State::Entering(_), In::Throttled(bar)) => self.count(Rejected::Throttled(bar)),
            (State::Entering(_), In::Failed(outage)) => self.count(Rejected::Unavailable(outage)),

            (State::EqualizingPermit(rejected), In::Permit(Some(permit))) => {
                match self
                    .attempt
                    .knows_wrong(Target::UNKNOWN, self.request.digest)
                {
                    true => self.count(rejected),
                    false => self.to(State::Simulating(rejected), Step::SimulateHash(permit)),
                }
            }
            (State::Simulating(rejected), In::Simulated(true)) => self.count(rejected),
            (State::EqualizingPermit(_), In::Permit(None))
            | (State::Simulating(_), In::Simulated(false)) => self.count(Rejected::NoHashPermit),

            (State::CountingRejection(rejected), In::Counted(outcome)) => {
                self.delay(&rejected, outcome)
            }
            (State::Delaying(verdict, true), In::Delayed) => {
                self.to(State::CountingTimeout(verdict), Step::CountTimeout)
            }
            (State::Delaying(verdict, false), In::Delayed) => Step::Done(verdict),
            (State::CountingTimeout(verdict), In::Counted(outcome)) => {
                Step::Done(match outcome.barred {
                    true => Verdict::Throttled(Throttled::Guard),
                    false => verdict,
                })
            }
            _ => Step::Done(Verdict::Unavailable(Outage::Busy)),
        }
    }

    fn to(&mut self, state: State, step: Step) -> Step {
        self.state = state;
        step
    }

    /// Begins a round.
    fn recall(&mut self) -> Step {
        self.to(State::Recalling, Step::Recall)
    }

    fn on_cached(&mut self, epoch: u64, mut secrets: CachedSecrets, now: Moment) -> Step {
        if let Some((slot, entry)) = self.found.take() {
            secrets.put(slot, entry);
        }
        match secrets.evaluate(epoch, self.request.digest, now) {
            Some(Err(_)) if mem::take(&mut self.may_await_poll) => {
                self.to(State::AwaitingPoll, Step::AwaitPoll)
            }
            Some(Ok(accepted)) => self.on_cached_match(&secrets, accepted),
            Some(Err((reason, entry))) => self.on_cached_mismatch(&secrets, reason, &entry),
            None if self.attempt.is_barred_for_all() => self.judged(
                Some(Path::Early),
                Err(Rejected::Throttled(Throttled::Guard)),
            ),
            None => self.look_up(Round { epoch, secrets }, true),
        }
    }

    /// Accepts a right password, unless people chose the password and too many clients guessed at
    /// it: the cache must not answer the guesses that a hash would not.
    fn on_cached_match(&mut self, secrets: &CachedSecrets, accepted: Accepted) -> Step {
        let chosen = secrets
            .entry(accepted.slot)
            .filter(|entry| !entry.is_generated());
        let is_closed = chosen.is_some_and(|entry| self.attempt.is_closed_for(entry.target()));
        let judged = match is_closed {
            true => Err(Rejected::reason(Reason::WrongPassword, accepted.identity)),
            false => Ok(accepted),
        };
        self.judged(Some(self.path), judged)
    }

    fn on_cached_mismatch(
        &mut self,
        secrets: &CachedSecrets,
        reason: Reason,
        entry: &CacheEntry,
    ) -> Step {
        let digest = self.request.digest;
        let rejected = self.classify(reason, entry.identity(), entry.retired());
        let is_wrong = matches!(
            rejected,
            Rejected::Reason {
                reason: Reason::WrongPassword,
                ..
            }
        );
        if let Some(target) = secrets.chosen_target().filter(|_| is_wrong) {
            self.attempt.guessed_wrong(target, digest);
        }
        self.attempt.mark_benign(secrets.holds(digest));
        self.judged(Some(self.path), Err(rejected))
    }

    fn look_up(&mut self, round: Round, may_reuse: bool) -> Step {
        let epoch = round.epoch;
        self.to(State::LookingUp(round), Step::Lookup { epoch, may_reuse })
    }

    fn on_row(&mut self, round: Round, row: Option<Arc<Login>>, now: Moment) -> Step {
        let (tag, digest) = (self.request.tag, self.request.digest);
        let Some(login) = row else {
            return self.judged(Some(Path::Early), Err(Reason::Unknown.into()));
        };
        if self.attempt.is_barred_for(Some(login.key)) {
            return self.judged(
                Some(Path::Early),
                Err(Rejected::Throttled(Throttled::Guard)),
            );
        }
        if let Some(refusal) = login.refusal(now.wall) {
            self.attempt.mark_benign(login.tag == Some(tag));
            return self.refuse_row(Path::Early, reason(refusal), &login);
        }
        if round.secrets.revalidate(&login, round.epoch) {
            return self.recall();
        }
        if self.permit.is_none() {
            match self.attempt.may_hash(&login, tag, digest) {
                MayHash::Yes => {}
                MayHash::WithPermit(client) => {
                    return self.to(State::PermitWanted(login), Step::AcquirePermit(client));
                }
                MayHash::No => {
                    return self.refuse_row(Path::Early, Reason::WrongPassword, &login);
                }
            }
        }
        let slots = slots_for(&login, tag, &round.secrets, now.steady());
        if slots.is_empty() {
            return self.refuse_uncompared(&login);
        }
        let candidate = Arc::new(Candidate {
            login,
            epoch: round.epoch,
            slots,
        });
        let step = Step::Compare(candidate.clone(), self.permit.take());
        self.to(State::Comparing(candidate), step)
    }

    fn on_permit(&mut self, login: &Login, permit: Option<HashPermit>) -> Step {
        let Some(permit) = permit else {
            return self.judged(Some(Path::Early), Err(Rejected::NoHashPermit));
        };
        let target = Target::of(login);
        // Another attempt may have found the same password wrong, or right, in the meantime.
        if self.attempt.knows_wrong(target, self.request.digest) {
            return self.refuse_row(Path::Early, Reason::WrongPassword, login);
        }
        self.attempt.guesses_at(target);
        self.permit = Some(permit);
        self.recall()
    }

    fn on_compared(&mut self, login: &Login, outcome: CompareOutcome) -> Step {
        match outcome {
            CompareOutcome::Match(slot, entry) => {
                (self.found, self.path) = (Some((slot, entry)), Path::Argon2);
                self.recall()
            }
            CompareOutcome::Mismatch => self.refuse_row(Path::Argon2, Reason::WrongPassword, login),
            CompareOutcome::NoCandidate => self.refuse_uncompared(login),
            CompareOutcome::OtherInFlight => self.recall(),
            CompareOutcome::TooLate => self.judged(None, Err(Rejected::NoHashPermit)),
        }
    }

    fn refuse_uncompared(&mut self, login: &Login) -> Step {
        let path = match self.path {
            Path::Cache => Path::Early,
            path => path,
        };
        self.refuse_row(path, Reason::WrongPassword, login)
    }

    fn refuse_row(&mut self, path: Path, reason: Reason, login: &Login) -> Step {
        let rejected = self.classify(reason, identity_of(login), &login.retired);
        self.judged(Some(path), Err(rejected))
    }

    /// Tells a password that was right before a rotation from any other wrong password.
    fn classify(&self, reason: Reason, identity: Arc<Identity>, retired: &[Retired]) -> Rejected {
        let mut retired = retired.iter();
        let is_offered = |retired: &&Retired| retired.tag == self.request.tag;
        match retired.find(is_offered) {
            Some(retired) if reason == Reason::WrongPassword => Rejected::Reason {
                reason: Reason::PreviousPassword,
                identity: Some(identity),
                retired_at: Some(retired.at),
            },
            _ => Rejected::reason(reason, identity),
        }
    }

    fn judged(&mut self, path: Option<Path>, judged: Result<Accepted, Rejected>) -> Step {
        self.to(State::Measuring(judged), Step::Measure(path))
    }

    fn enter(&mut self, accepted: Accepted) -> Step {
        let identity = accepted.identity.clone();
        if !may_come_from(&identity, self.request.address) {
            return self.reject(Rejected::reason(Reason::Network, identity));
        }
        self.to(State::Entering(identity), Step::Enter(accepted))
    }

    /// Equalizes the timing of rejections. With a username that people chose, another rejection may
    /// have to wait for a permit and a hash; without the same wait here the time would reveal
    /// which usernames exist. Generated usernames cannot be guessed and need no hash to reject.
    fn reject(&mut self, rejected: Rejected) -> Step {
        let Rejected::Reason {
            reason, identity, ..
        } = &rejected
        else {
            return self.count(rejected);
        };
        let key = identity.as_ref().map(|identity| identity.key);
        if self.attempt.is_barred_for(key) {
            // A banned client must not learn the reason: that would be one more guess.
            return self.count(Rejected::Throttled(Throttled::Guard));
        }
        let is_plain =
            *reason == Reason::ActsForAnother || issue::is_generated(self.request.username);
        let client = match is_plain {
            true => None,
            false => self.attempt.dummy_permit(key, self.request.digest),
        };
        match client {
            None => self.count(rejected),
            Some(client) => self.to(
                State::EqualizingPermit(rejected),
                Step::AcquirePermit(client),
            ),
        }
    }

    fn count(&mut self, rejected: Rejected) -> Step {
        let step = Step::Count(rejected.clone());
        self.to(State::CountingRejection(rejected), step)
    }

    fn delay(&mut self, rejected: &Rejected, outcome: Outcome) -> Step {
        let (verdict, slowness) = match rejected {
            // No reason to hide: the guard's answer does not depend on the username.
            Rejected::Throttled(bar) => (Verdict::Throttled(*bar), 0),
            Rejected::Reason { .. } if outcome.barred => {
                (Verdict::Throttled(Throttled::Guard), outcome.slowness)
            }
            Rejected::Reason { reason, .. } => (Verdict::Reject(*reason), outcome.slowness),
            Rejected::NoHashPermit => (Verdict::Unavailable(Outage::Busy), 1),
            Rejected::Unavailable(outage) => (Verdict::Unavailable(*outage), 1),
        };
        let lacked_permit = *rejected == Rejected::NoHashPermit;
        self.to(
            State::Delaying(verdict, lacked_permit),
            Step::Delay(slowness),
        )
    }
}

impl Rejected {
    fn reason(reason: Reason, identity: Arc<Identity>) -> Self {
        Self::Reason {
            reason,
            identity: Some(identity),
            retired_at: None,
        }
    }
}

impl From<Reason> for Rejected {
    fn from(reason: Reason) -> Self {
        Self::Reason {
            reason,
            identity: None,
            retired_at: None,
        }
    }
}

/// Whether the rules let this credential log in from `address`, or only report that they would not.
pub(crate) fn may_come_from(identity: &Identity, address: IpAddr) -> bool {
    let rules = &identity.policy.rules;
    rules.allows_network(address) || rules.reports(Rule::Networks)
}

/// Whether a row rejects a password with this tag without a hash.
pub(crate) fn rejects_unhashed(row: Option<&Login>, tag: u32, now_ms: i64) -> bool {
    let may_be = |stored: Option<u32>| stored.is_none_or(|stored| stored == tag);
    row.is_none_or(|login| {
        let mut previous = login.previous.iter();
        let may_match = may_be(login.tag) || previous.any(|previous| may_be(previous.tag));
        !may_match || login.refusal(now_ms).is_some()
    })
}

/// The slots whose password may be the one with this tag; with two tags nearly always one slot.
fn slots_for(login: &Login, tag: u32, secrets: &CachedSecrets, now: i64) -> Vec<PasswordSlot> {
    let may_be = |stored: Option<u32>| stored.is_none_or(|stored| stored == tag);
    let previous = login.previous.as_ref();
    let previous = previous.filter(|previous| previous.until > now);
    let current = may_be(login.tag).then_some(PasswordSlot::Current);
    let previous = previous.filter(|previous| may_be(previous.tag));
    let slots = current
        .into_iter()
        .chain(previous.map(|_| PasswordSlot::Previous));
    slots.filter(|slot| !secrets.is_ruled_out(*slot)).collect()
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Expired => Reason::Expired,
        Refusal::Revoked => Reason::Revoked,
        Refusal::Suspended => Reason::Suspended,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
