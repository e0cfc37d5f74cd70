//! Explains what would become of a login with the right password, and of mail after the login.
//!
//! The verdict is the machine's own. [`explain`] runs the machine on the stored row as if the
//! password were right. Where a run fails, the obstacle is noted and removed from the row or the
//! guard's view, and the next run shows what else stands in the way.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::{self, Moment};
use crate::policy::{Limit, Party, Rule};
use crate::sasl::{Reason, Secret, Throttled, Verdict};
use crate::smtp::reply::{self, Reply};
use crate::store::{CredentialStatus, Login, OrganizationStatus, Store, StoreError};

use super::cache::{CacheEntry, Digester, PasswordSlot};
use super::guard::{ClearTarget, Guard, HashPermit, Outcome, PenaltyView};
use super::issue;
use super::quota::{Quotas, Use};
use super::spelling;
use super::verify::cached::CachedSecrets;
use super::verify::machine::{CompareOutcome, Input, Request, Step, Verification};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) username: &'a str,
    /// Answers only for credentials of the organization with this slug.
    pub(crate) organization: Option<&'a str>,
    /// The client's address.
    pub(crate) from: IpAddr,
    /// The address the client wants to send as.
    pub(crate) sender: Option<&'a str>,
}

pub(crate) struct Sources<'a> {
    pub(crate) store: &'a Store,
    pub(crate) guard: &'a Guard,
    pub(crate) quotas: &'a Quotas,
    /// Whether usernames that Gatepost did not generate match in any case.
    pub(crate) folds_case: bool,
}

/// The result of one check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finding {
    Passes,
    /// The client gets 421, or is disconnected before the greeting.
    Bars(Throttled),
    /// The client gets 535.
    Refuses(Reason),
    /// The login is accepted, and mail is rejected.
    RefusesMail,
    /// The rule is broken, and only reports.
    Reports,
}

impl Finding {
    /// The stable name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Finding::Passes => "passes",
            Finding::Bars(_) => "bars",
            Finding::Refuses(_) => "refuses",
            Finding::RefusesMail => "refuses_mail",
            Finding::Reports => "reports",
        }
    }

    fn ends_login(self) -> bool {
        matches!(self, Finding::Bars(_) | Finding::Refuses(_))
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Check {
    /// The stable name.
    pub(crate) check: &'static str,
    pub(crate) finding: Finding,
    /// The finding for people.
    pub(crate) words: String,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Explanation {
    /// In the order in which a login meets the checks.
    pub(crate) checks: Vec<Check>,
}

impl Explanation {
    /// The first check that fails the login.
    pub(crate) fn obstacle(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.finding.ends_login())
    }

    /// The first check that fails mail after the login.
    pub(crate) fn mail_obstacle(&self) -> Option<&Check> {
        let mut checks = self.checks.iter();
        checks.find(|check| check.finding == Finding::RefusesMail)
    }

    /// The codes of the reply to a login with the right password.
    pub(crate) fn reply(&self) -> String {
        let Reply { code, enhanced, .. } = match self.obstacle().map(|check| check.finding) {
            Some(Finding::Bars(Throttled::Sessions)) => reply::TOO_MANY_SESSIONS,
            Some(Finding::Bars(Throttled::Guard)) => reply::TOO_MANY_FAILURES,
            Some(_) => reply::BAD_CREDENTIALS,
            None => reply::AUTHENTICATED,
        };
        format!("{code} {enhanced}")
    }

    /// The stable name of the reason, as in the log.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self.obstacle()?.finding {
            Finding::Bars(bar) => Some(bar.as_str()),
            Finding::Refuses(reason) => Some(reason.as_str()),
            _ => None,
        }
    }

    fn add(&mut self, check: &'static str, finding: Finding, words: impl Into<String>) {
        let words = words.into();
        self.checks.push(Check {
            check,
            finding,
            words,
        });
    }
}

/// Blocks on the store. `None` if the username belongs to another organization than the question's.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn explain(
    sources: &Sources,
    question: Question,
) -> Result<Option<Explanation>, StoreError> {
    let folded = match sources.folds_case {
        true => issue::folded(question.username),
        false => question.username.into(),
    };
    let question = Question {
        username: &folded,
        ..question
    };
    let login = sources.store.lookup(question.username)?;
    if let Some(own) = question.organization
        && login.as_ref().is_none_or(|login| login.organization != own)
    {
        return Ok(None);
    }
    let limits = match &login {
        Some(login) => Limits::read(sources.quotas, login)?,
        None => Limits::default(),
    };
    let findings = findings(sources.guard, question, login.clone(), &limits);
    let mut explanation = Explanation::default();
    guard(&mut explanation, sources.guard, question.from, &findings);
    let Some(login) = login else {
        let near = spelling::near(sources.store, &[question.username])?.remove(0);
        let words = match near {
            Some(near) => format!("no credential has this username; {}", near.words()),
            None => "no credential has this username; refusals list shows the clients that try it"
                .to_owned(),
        };
        explanation.add("username", Finding::Refuses(Reason::Unknown), words);
        return Ok(Some(explanation));
    };
    let words = format!("a credential of the organization {}", login.organization);
    explanation.add("username", Finding::Passes, words);
    row(&mut explanation, &login, question.from, &findings);
    sender(&mut explanation, &login, question.sender);
    limits.explain(&mut explanation);
    Ok(Some(explanation))
}

/// The findings that fail the login, in the order in which the login meets them.
fn findings(
    guard: &Guard,
    question: Question,
    mut login: Option<Login>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut is_banned, mut is_exempt) = (true, false);
    loop {
        let mut attempt = guard.attempt(question.from);
        if !is_banned {
            attempt = attempt.unbanned();
        }
        if is_exempt {
            attempt = attempt.exempted();
        }
        let tag = login.as_ref().and_then(|login| login.tag);
        let request = Request {
            username: question.username,
            has_authzid: false,
            digest: Digester::new().digest(question.username, &Secret::new("")),
            tag: tag.unwrap_or_default(),
            address: question.from,
            may_await_poll: false,
        };
        let (machine, step) = Verification::begin(request, attempt);
        let finding = match run(machine, step, login.as_ref(), limits) {
            Verdict::Throttled(bar) => Finding::Bars(bar),
            Verdict::Reject(reason) => Finding::Refuses(reason),
            // Every step of the run succeeds, so no run ends without a verdict.
            Verdict::Accept(_) | Verdict::Unavailable(_) => return findings,
        };
        if findings.contains(&finding) {
            return findings;
        }
        findings.push(finding);
        match (finding, &mut login) {
            (Finding::Bars(Throttled::Guard), _) => is_banned = false,
            (Finding::Refuses(Reason::WrongPassword), _) => is_exempt = true,
            (Finding::Refuses(Reason::Revoked), Some(login)) => {
                login.status = CredentialStatus::Active;
            }
            (Finding::Refuses(Reason::Suspended), Some(login)) => {
                login.organization_status = OrganizationStatus::Active;
            }
            (Finding::Refuses(Reason::Expired), Some(login)) => login.expires_at = None,
            (Finding::Refuses(Reason::Network), Some(login)) => {
                Arc::make_mut(&mut login.policy).rules.networks = None;
            }
            _ => return findings,
        }
    }
}

/// Runs the machine to its verdict with nothing cached and the right password. Counts nothing.
fn run(
    mut machine: Verification,
    mut step: Step,
    login: Option<&Login>,
    limits: &Limits,
) -> Verdict {
    loop {
        let input = match step {
            Step::AcquirePermit(_) => Input::Permit(Some(HashPermit::without_hash())),
            Step::AwaitPoll => Input::Polled(None),
            Step::Compare(candidate, _) => {
                let (slot, epoch) = (PasswordSlot::Current, candidate.epoch);
                let entry = CacheEntry::new(machine.digest(), &candidate.login, slot, epoch);
                Input::Compared(CompareOutcome::Match(slot, Arc::new(entry)))
            }
            Step::Count(_) | Step::CountTimeout => Input::Counted(Outcome::default()),
            Step::Delay(_) => Input::Delayed,
            Step::Done(verdict) => return verdict,
            Step::Enter(_) => match limits.fill_sessions() {
                true => Input::Throttled(Throttled::Sessions),
                false => Input::Entered,
            },
            Step::Lookup { .. } => Input::Row(login.cloned().map(Arc::new)),
            Step::Measure(_) => Input::Measured,
            Step::Recall => Input::Cached(0, CachedSecrets::default()),
            Step::SimulateHash(_) => Input::Simulated(true),
        };
        step = machine.next(input, Moment::now());
    }
}

/// The finding of a check that fails with this reason; without that failure, a broken rule reports.
fn finding(findings: &[Finding], reason: Reason, is_broken: bool) -> Finding {
    let failure = Finding::Refuses(reason);
    match (findings.contains(&failure), is_broken) {
        (true, _) => failure,
        (false, true) => Finding::Reports,
        (false, false) => Finding::Passes,
    }
}

/// The logins that even a banned client can complete.
const CACHED: &str =
    "a right password that the running Gatepost remembers and need not look up again";

fn guard(explanation: &mut Explanation, guard: &Guard, from: IpAddr, findings: &[Finding]) {
    let penalties = guard.penalties_of(ClearTarget::Address(from));
    let mut words: Vec<_> = penalties
        .iter()
        .map(|penalty| format!("{}: {}", penalty.network, penalty.why()))
        .collect();
    let ban = Finding::Bars(Throttled::Guard);
    let finding = match findings.contains(&ban) {
        true => ban,
        false => Finding::Passes,
    };
    // The cache is asked before the guard.
    if finding == ban {
        let is_shut_out =
            |penalty: &PenaltyView| penalty.banned_until.is_some() && !penalty.network.is_network();
        words.push(match penalties.iter().any(is_shut_out) {
            true => {
                format!("On one that was open before, a login hears 421, except with {CACHED}.")
            }
            false => format!("Let in is also {CACHED}."),
        });
    }
    let words = match words.is_empty() {
        true => "nothing is held against the address or its network".to_owned(),
        false => words.join(" "),
    };
    explanation.add("guard", finding, words);
}

/// The checks of the row, in the machine's order.
fn row(explanation: &mut Explanation, login: &Login, from: IpAddr, findings: &[Finding]) {
    let revoked = finding(findings, Reason::Revoked, false);
    let words = match login.status {
        CredentialStatus::Active => "the credential is active",
        CredentialStatus::Revoked => {
            "the credential is revoked; enable it to have it accepted again"
        }
    };
    explanation.add("status", revoked, words);

    let is_suspended = login.organization_status == OrganizationStatus::Suspended;
    let words = match is_suspended {
        true => "its organization is suspended",
        false => "its organization is active",
    };
    let suspended = finding(findings, Reason::Suspended, is_suspended);
    explanation.add("organization", suspended, words);

    let (is_over, words) = match login.expires_at {
        None => (false, "it does not expire".to_owned()),
        Some(end) if end > clock::now_ms() => (false, format!("it expires at {}", time(end))),
        Some(end) => (true, format!("it expired at {}", time(end))),
    };
    let expired = finding(findings, Reason::Expired, is_over);
    explanation.add("expiry", expired, words);

    let closed = finding(findings, Reason::WrongPassword, false);
    if closed != Finding::Passes {
        let words = "too many clients guessed at its password, which people chose: for a while the password is refused wherever it was not used from before";
        explanation.add("guesses", closed, words);
    }
    explanation.add("password", Finding::Passes, password(login));

    let rules = &login.policy.rules;
    let words = match &rules.networks {
        None => "it may be used from anywhere".to_owned(),
        Some(networks) => {
            let listed: Vec<_> = networks.iter().map(ToString::to_string).collect();
            format!("it may be used from {}", listed.join(", "))
        }
    };
    let outside = finding(findings, Reason::Network, !rules.allows_network(from));
    explanation.add("networks", outside, words);
}

fn password(login: &Login) -> String {
    let now = clock::steady_ms();
    let previous = login.previous.as_ref();
    match (
        previous.filter(|previous| previous.until > now),
        login.retired.first(),
    ) {
        (Some(previous), _) => format!(
            "with its password, or with the one before, which is right until {}",
            time(clock::wall_of(previous.until))
        ),
        (None, Some(retired)) => format!(
            "with its password; the one before was replaced at {}, and is logged as previous_password",
            time(retired.at)
        ),
        (None, None) => "with its password".to_owned(),
    }
}

fn sender(explanation: &mut Explanation, login: &Login, sender: Option<&str>) {
    let rules = &login.policy.rules;
    let Some(senders) = &rules.senders else {
        explanation.add("sender", Finding::Passes, "it may send as any address");
        return;
    };
    let listed: Vec<_> = senders.iter().map(ToString::to_string).collect();
    let header = match rules.header_from {
        true => ", and so must the From header be",
        false => "",
    };
    let words = format!("it may send as {}{header}", listed.join(", "));
    let is_allowed = sender.is_none_or(|sender| {
        let bare = sender
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'));
        let path = format!("<{}>", bare.unwrap_or(sender));
        rules.allows_path(path.as_bytes())
    });
    let finding = match (is_allowed, rules.reports(Rule::Senders)) {
        (true, _) => Finding::Passes,
        (false, true) => Finding::Reports,
        (false, false) => Finding::RefusesMail,
    };
    explanation.add("sender", finding, words);
}

/// The uses of all limits of a login.
#[derive(Default)]
struct Limits {
    uses: Vec<(Party, Vec<Use>)>,
    /// Whether the credential's own limits only report.
    reports: bool,
}

impl Limits {
    fn read(quotas: &Quotas, login: &Login) -> Result<Self, StoreError> {
        let policy = &login.policy;
        let own = quotas.uses_of_credential(login.key, &policy.limits)?;
        let limits = &policy.organization_limits;
        let organization = quotas.uses_of_organization(&login.organization, limits)?;
        Ok(Self {
            uses: vec![
                (Party::Credential, own),
                (Party::Organization, organization),
            ],
            reports: policy.rules.reports(Rule::Limits),
        })
    }

    fn finding(&self, party: Party, limit: &Use) -> Finding {
        match (limit.is_over(), limit.limit) {
            (false, _) => Finding::Passes,
            // Rules belong to the credential, so the organization's limits always hold.
            (true, _) if self.reports && party == Party::Credential => Finding::Reports,
            (true, Limit::Sessions) => Finding::Bars(Throttled::Sessions),
            (true, _) => Finding::RefusesMail,
        }
    }

    fn fill_sessions(&self) -> bool {
        let full = Finding::Bars(Throttled::Sessions);
        let mut uses = self.uses.iter();
        uses.any(|(party, uses)| uses.iter().any(|limit| self.finding(*party, limit) == full))
    }

    fn explain(&self, explanation: &mut Explanation) {
        for (party, uses) in &self.uses {
            let (check, owner) = match party {
                Party::Credential => ("credential_limits", "the credential"),
                Party::Organization => ("organization_limits", "its organization"),
            };
            if uses.is_empty() {
                let words = format!("{owner} has no limits");
                explanation.add(check, Finding::Passes, words);
            }
            for limit in uses {
                let used = limit.used.map(|used| format!("{used} of "));
                let words = format!(
                    "{} of {owner}: {}{}",
                    limit.limit.words().to_lowercase(),
                    used.unwrap_or_else(|| "at most ".to_owned()),
                    limit.ceiling
                );
                explanation.add(check, self.finding(*party, limit), words);
            }
        }
    }
}

/// To the minute, in UTC.
fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "?".to_owned(), // beyond the years of jiff, as only a hand writes it
    }
}
