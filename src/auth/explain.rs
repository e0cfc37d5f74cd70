//! What would become of a login, and why, without its password.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock;
use crate::policy::{Limits, Party, Rule};
use crate::sasl::{Bar, Reason};
use crate::store::{CredentialStatus, Login, OrganizationStatus, Store, StoreError};

use super::guard::{Charge, Guard, Target, Wanted};
use super::issue;
use super::quota::Quotas;
use super::spelling;

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whom the client claims to be.
    pub username: &'a str,
    /// Only as a credential of the organization with this slug.
    pub organization: Option<&'a str>,
    /// The client's address.
    pub from: IpAddr,
    /// Whom it wants to send as.
    pub sender: Option<&'a str>,
}

/// What all is asked.
pub struct Sources<'a> {
    /// What is stored.
    pub store: &'a Store,
    /// What is held against networks.
    pub guard: &'a Guard,
    /// What was sent.
    pub quotas: &'a Quotas,
    /// Whether usernames that Gatepost did not generate are taken without regard to case.
    pub folds_case: bool,
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Nothing stands in the way.
    Passes,
    /// The client would be told 421 and disconnected, or is before it can say anything.
    Bars(Bar),
    /// The login would be refused.
    Refuses(Reason),
    /// The login would be accepted, and mail refused.
    RefusesMail,
    /// It would be refused, were that not only reported.
    Reports,
}

impl Finding {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
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

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// What, by its stable name.
    pub check: &'static str,
    /// What it comes to.
    pub finding: Finding,
    /// The same for people.
    pub words: String,
}

/// What would happen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Explanation {
    /// In the order in which a client meets them.
    pub checks: Vec<Check>,
}

impl Explanation {
    /// The first check that the login fails at.
    pub fn obstacle(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.finding.ends_login())
    }

    /// The first check that mail fails at, once logged in.
    pub fn mail_obstacle(&self) -> Option<&Check> {
        let mut checks = self.checks.iter();
        checks.find(|check| check.finding == Finding::RefusesMail)
    }

    /// The reply to the login, were the password right.
    pub fn reply(&self) -> &'static str {
        match self.obstacle().map(|check| check.finding) {
            Some(Finding::Bars(_)) => "421 4.7.0",
            Some(_) => "535 5.7.8",
            None => "235 2.7.0",
        }
    }

    /// The stable name of why, as in the log.
    pub fn reason(&self) -> Option<&'static str> {
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

/// Goes through all that decides a login with the right password. Blocks on the store. `None` if the username is of another
/// organization than was asked about.
///
/// # Errors
/// The store cannot be read.
pub fn explain(sources: &Sources, asked: Asked) -> Result<Option<Explanation>, StoreError> {
    let mut told = Explanation::default();
    let folded = match sources.folds_case {
        true => issue::folded(asked.username),
        false => asked.username.into(),
    };
    let asked = Asked {
        username: &folded,
        ..asked
    };
    let login = sources.store.lookup(asked.username)?;
    if let Some(own) = asked.organization
        && login.as_ref().is_none_or(|login| login.organization != own)
    {
        return Ok(None);
    }
    guard(&mut told, sources, asked, login.as_ref());
    let Some(login) = login else {
        let near = spelling::near(sources.store, &[asked.username])?.remove(0);
        let words = match near {
            Some(near) => format!("no credential has this username; {}", near.words()),
            None => "nobody has this username; refusals list says who tries it, and from where"
                .to_owned(),
        };
        told.add("username", Finding::Refuses(Reason::Unknown), words);
        return Ok(Some(told));
    };
    let words = format!(
        "it is a credential of the organization {}",
        login.organization
    );
    told.add("username", Finding::Passes, words);
    status(&mut told, &login, clock::now_ms());
    network(&mut told, &login, asked.from);
    password(&mut told, &login);
    sender(&mut told, &login, asked.sender);
    limits(&mut told, sources, &login)?;
    Ok(Some(told))
}

/// What nobody is turned away with who has come as far as AUTH.
const REMEMBERED: &str =
    "a right password that the running Gatepost remembers and need not look up again";

/// Whether connections from there are closed before the greeting.
fn is_shut_out(charge: &Charge) -> bool {
    charge.banned_until.is_some() && !charge.network.is_network()
}

fn guard(told: &mut Explanation, sources: &Sources, asked: Asked, login: Option<&Login>) {
    let attempt = sources.guard.attempt(asked.from);
    let key = login.map(|login| login.key);
    let charges = sources.guard.among(Wanted::Address(asked.from));
    let mut held: Vec<_> = charges
        .iter()
        .map(|charge| format!("{}: {}", charge.network, charge.why()))
        .collect();
    let finding = match attempt.is_barred_for(key) {
        true => Finding::Bars(Bar::Guard),
        false => Finding::Passes,
    };
    if finding != Finding::Passes {
        // The cache is asked before the guard.
        held.push(match charges.iter().any(is_shut_out) {
            true => {
                format!("On one that was open before, a login hears 421, except with {REMEMBERED}.")
            }
            false => format!("Let in is also {REMEMBERED}."),
        });
    }
    let words = match held.is_empty() {
        true => "nothing is held against the address or its network".to_owned(),
        false => held.join(" "),
    };
    told.add("guard", finding, words);
    // A generated password is let in all the same.
    let chosen = login.filter(|login| login.tag.is_none());
    if chosen.is_some_and(|login| attempt.is_closed_for(Target::of(login))) {
        let words = "too many guessed at its password, which people chose: for a while it is refused wherever it was not used from before";
        told.add("guesses", Finding::Refuses(Reason::WrongPassword), words);
    }
}

fn status(told: &mut Explanation, login: &Login, now: i64) {
    match login.status {
        CredentialStatus::Active => {
            told.add("status", Finding::Passes, "the credential is active");
        }
        CredentialStatus::Revoked => {
            let words = "the credential is revoked; enable it to have it accepted again";
            told.add("status", Finding::Refuses(Reason::Revoked), words);
        }
    }
    let reports = |rule| login.policy.rules.reports(rule);
    match login.organization_status {
        OrganizationStatus::Active => {
            told.add(
                "organization",
                Finding::Passes,
                "its organization is active",
            );
        }
        OrganizationStatus::Suspended => {
            let finding = match reports(Rule::Suspended) {
                true => Finding::Reports,
                false => Finding::Refuses(Reason::Suspended),
            };
            told.add("organization", finding, "its organization is suspended");
        }
    }
    match login.expires_at {
        None => told.add("expiry", Finding::Passes, "it does not expire"),
        Some(end) if end > now => {
            let words = format!("it expires at {}", time(end));
            told.add("expiry", Finding::Passes, words);
        }
        Some(end) => {
            let finding = match reports(Rule::Expiry) {
                true => Finding::Reports,
                false => Finding::Refuses(Reason::Expired),
            };
            told.add("expiry", finding, format!("it expired at {}", time(end)));
        }
    }
}

fn network(told: &mut Explanation, login: &Login, from: IpAddr) {
    let rules = &login.policy.rules;
    let (finding, words) = match &rules.networks {
        None => (Finding::Passes, "it may be used from anywhere".to_owned()),
        Some(networks) => {
            let listed: Vec<_> = networks.iter().map(ToString::to_string).collect();
            let words = format!("it may be used from {}", listed.join(", "));
            let finding = match (rules.allows_network(from), rules.reports(Rule::Networks)) {
                (true, _) => Finding::Passes,
                (false, true) => Finding::Reports,
                (false, false) => Finding::Refuses(Reason::Network),
            };
            (finding, words)
        }
    };
    told.add("networks", finding, words);
}

fn password(told: &mut Explanation, login: &Login) {
    let now = clock::steady_ms();
    let previous = login.previous.as_ref();
    let words = match (
        previous.filter(|one| one.until > now),
        login.retired.first(),
    ) {
        (Some(previous), _) => format!(
            "with its password, or with the one before, which is right until {}",
            time(clock::wall_of(previous.until))
        ),
        (None, Some(retired)) => format!(
            "with its password; the one before was replaced at {}, and is told as previous_password",
            time(retired.at)
        ),
        (None, None) => "with its password".to_owned(),
    };
    told.add("password", Finding::Passes, words);
}

fn sender(told: &mut Explanation, login: &Login, sender: Option<&str>) {
    let rules = &login.policy.rules;
    let Some(senders) = &rules.senders else {
        told.add("sender", Finding::Passes, "it may send as anybody");
        return;
    };
    let listed: Vec<_> = senders.iter().map(ToString::to_string).collect();
    let header = match rules.header_from {
        true => ", and so must the From header be",
        false => "",
    };
    let words = format!("it may send as {}{header}", listed.join(", "));
    let finding = match sender {
        None => Finding::Passes,
        Some(sender) => {
            let bare = sender
                .strip_prefix('<')
                .and_then(|rest| rest.strip_suffix('>'));
            let path = format!("<{}>", bare.unwrap_or(sender));
            match (
                rules.allows_path(path.as_bytes()),
                rules.reports(Rule::Senders),
            ) {
                (true, _) => Finding::Passes,
                (false, true) => Finding::Reports,
                (false, false) => Finding::RefusesMail,
            }
        }
    };
    told.add("sender", finding, words);
}

fn limits(told: &mut Explanation, sources: &Sources, login: &Login) -> Result<(), StoreError> {
    let policy: &Arc<_> = &login.policy;
    let reports = policy.rules.reports(Rule::Limits);
    let of_credential = |limits: &Limits| sources.quotas.uses_of_credential(login.key, limits);
    let of_organization = |limits: &Limits| {
        sources
            .quotas
            .uses_of_organization(&login.organization, limits)
    };
    for (party, uses) in [
        (Party::Credential, of_credential(&policy.limits)?),
        (
            Party::Organization,
            of_organization(&policy.organization_limits)?,
        ),
    ] {
        let (check, whose) = match party {
            Party::Credential => ("credential_limits", "the credential"),
            Party::Organization => ("organization_limits", "its organization"),
        };
        if uses.is_empty() {
            told.add(check, Finding::Passes, format!("{whose} has no limits"));
        }
        for one in uses {
            let used = one.used.map(|used| format!("{used} of "));
            let words = format!(
                "{} of {whose}: {}{}",
                one.limit.words().to_lowercase(),
                used.unwrap_or_else(|| "at most ".to_owned()),
                one.ceiling
            );
            let finding = match (one.is_over(), one.limit) {
                (false, _) => Finding::Passes,
                // Only a credential's limits are its rules to be lenient with.
                (true, _) if reports && party == Party::Credential => Finding::Reports,
                (true, crate::policy::Limit::Sessions) => Finding::Bars(Bar::Sessions),
                (true, _) => Finding::RefusesMail,
            };
            told.add(check, finding, words);
        }
    }
    Ok(())
}

/// To the minute, in UTC.
fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "?".to_owned(), // outside jiff's years; somebody wrote it by hand
    }
}
