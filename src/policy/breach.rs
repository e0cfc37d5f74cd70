//! Violations: a reached limit, a broken rule or a forbidden octet, and whether the message was
//! refused.

use super::{Limit, Party, Rule};

/// A kind of violation, from a small set that bounds the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breach {
    Limit {
        of: Party,
        limit: Limit,
        /// Whether the limit was enforced, or only reported.
        refused: bool,
    },
    /// A message body held a forbidden octet.
    Octet {
        octet: OddOctet,
        /// Whether the message was rejected, or normalized.
        refused: bool,
    },
    Rule {
        rule: Rule,
        /// Whether the rule was enforced, or only reported.
        refused: bool,
    },
}

/// An octet in a message body that lets servers disagree about the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OddOctet {
    /// A CR or LF outside of a CRLF.
    BareNewline,
    Nul,
}

impl OddOctet {
    pub const ALL: [Self; 2] = [Self::BareNewline, Self::Nul];

    /// Returns the stable name in logs, metrics and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareNewline => "bare_newline",
            Self::Nul => "nul",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::BareNewline => "odd line ends: a bare CR or LF in a message",
            Self::Nul => "odd line ends: a NUL in a message",
        }
    }
}

/// The action on a normalized message.
pub const NORMALIZED: &str = "normalized";

impl Breach {
    /// Returns the stable name of the limit or rule.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Limit { limit, .. } => limit.as_str(),
            Self::Octet { octet, .. } => octet.as_str(),
            Self::Rule { rule, .. } => rule.as_str(),
        }
    }

    /// Returns the owner of the limit; all other violations belong to the credential.
    pub fn party(self) -> Party {
        match self {
            Self::Limit { of, .. } => of,
            Self::Octet { .. } | Self::Rule { .. } => Party::Credential,
        }
    }

    /// Whether the violation was refused, or only reported.
    pub fn is_refused(self) -> bool {
        match self {
            Self::Limit { refused, .. }
            | Self::Octet { refused, .. }
            | Self::Rule { refused, .. } => refused,
        }
    }

    /// Returns the action's name in logs, metrics and the store.
    pub fn action(self) -> &'static str {
        match self {
            Self::Octet { refused: false, .. } => NORMALIZED,
            _ => action(self.is_refused()),
        }
    }

    /// Describes a violation for people, given the stable name of a limit or rule.
    pub fn words(reason: &str) -> Option<&'static str> {
        let limit = || reason.parse().ok().map(of_limit);
        let octet = || {
            let mut octets = OddOctet::ALL.into_iter();
            octets.find(|octet| octet.as_str() == reason)
        };
        let rule = reason.parse().ok().map(of_rule);
        rule.or_else(limit).or_else(|| octet().map(OddOctet::words))
    }
}

/// Returns the action's stable name.
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
    fn every_limit_and_rule_has_its_own_name_and_text() {
        let limits = Limit::ALL.map(Limit::as_str).into_iter();
        let octets = OddOctet::ALL.map(OddOctet::as_str);
        let rules = Rule::ALL.map(Rule::as_str);
        let names: Vec<_> = limits.chain(rules).chain(octets).collect();
        let mut words: Vec<_> = names.iter().map(|name| Breach::words(name)).collect();
        assert!(words.iter().all(Option::is_some));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), names.len());
        assert_eq!(Breach::words("wrong_password"), None);
    }
}
