//! What was not allowed: by which limit or rule, and whether it was refused or only reported.

use super::{Limit, Party, Rule};

/// One way of not being allowed. There are few, so that counts of them are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breach {
    /// A limit was reached.
    Limit {
        /// Whose it is.
        of: Party,
        /// Which one.
        limit: Limit,
        /// Whether that was refused, or only reported.
        refused: bool,
    },
    /// A rule was broken.
    Rule {
        /// Which one.
        rule: Rule,
        /// Whether that was refused, or only reported.
        refused: bool,
    },
}

impl Breach {
    /// The stable name of the limit or rule.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Limit { limit, .. } => limit.as_str(),
            Self::Rule { rule, .. } => rule.as_str(),
        }
    }

    /// Whose limit or rule it is; rules are the credential's.
    pub fn party(self) -> Party {
        match self {
            Self::Limit { of, .. } => of,
            Self::Rule { .. } => Party::Credential,
        }
    }

    /// Whether it was refused, or only reported.
    pub fn is_refused(self) -> bool {
        match self {
            Self::Limit { refused, .. } | Self::Rule { refused, .. } => refused,
        }
    }

    /// What was done about it, as it stands in logs, metrics and the store.
    pub fn action(self) -> &'static str {
        action(self.is_refused())
    }

    /// What was wrong with the mail or the login, for people, by the stable name of the limit or rule.
    pub fn words(reason: &str) -> Option<&'static str> {
        let limit = || reason.parse().ok().map(of_limit);
        reason.parse().ok().map(of_rule).or_else(limit)
    }
}

/// What is done about something that is not allowed, by its stable name.
pub fn action(refused: bool) -> &'static str {
    if refused { "refused" } else { "reported" }
}

fn of_limit(limit: Limit) -> &'static str {
    match limit {
        Limit::MessageSize => "a message that was too large",
        Limit::MessagesPerDay => "too many messages in a day",
        Limit::MessagesPerHour => "too many messages in an hour",
        Limit::MessagesPerMonth => "too many messages in a month",
        Limit::MessagesPerSecond => "too many messages at once",
        Limit::RecipientsPerDay => "too many recipients in a day",
        Limit::RecipientsPerMessage => "too many recipients of one message",
        Limit::Sessions => "too many sessions were open",
    }
}

fn of_rule(rule: Rule) -> &'static str {
    match rule {
        Rule::Expiry => "the credential had expired",
        Rule::HeaderFrom => "a From header that it may not send with",
        Rule::Limits => "a limit was reached",
        Rule::Networks => "it may not be used from this address",
        Rule::Senders => "a sender that it may not send as",
        Rule::Suspended => "its organization was suspended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_and_rule_has_a_name_and_words_of_its_own() {
        let limits = Limit::ALL.map(Limit::as_str).into_iter();
        let names: Vec<_> = limits.chain(Rule::ALL.map(Rule::as_str)).collect();
        let mut words: Vec<_> = names.iter().map(|name| Breach::words(name)).collect();
        assert!(words.iter().all(Option::is_some));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), names.len());
        assert_eq!(Breach::words("wrong_password"), None);
    }
}
