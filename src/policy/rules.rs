//! Rules: the senders and networks of a credential.

use std::net::IpAddr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::{Address, Network, Sender};

/// The limit of senders, and of networks, per credential.
const LONGEST_LIST: usize = 100;

/// A check that may be enforced or only reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    Expiry,
    /// The From header names an allowed sender.
    HeaderFrom,
    /// All limits of the credential.
    Limits,
    /// The client's address is in an allowed network.
    Networks,
    /// The reverse-path is an allowed sender.
    Senders,
    Suspended,
}

impl Rule {
    pub const ALL: [Self; 6] = [
        Self::Expiry,
        Self::HeaderFrom,
        Self::Limits,
        Self::Networks,
        Self::Senders,
        Self::Suspended,
    ];

    /// Returns the stable name in the store, the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::HeaderFrom => "header_from",
            Self::Limits => "limits",
            Self::Networks => "networks",
            Self::Senders => "senders",
            Self::Suspended => "suspended",
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|rule| rule.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no rule {text:?}; there are {known}")
        })
    }
}

/// The rules whose violations are only logged and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report(u8);

impl Report {
    /// Whether a rule only reports.
    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u8) != 0
    }

    /// Whether every rule is enforced.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the rules that only report.
    pub fn iter(self) -> impl Iterator<Item = Rule> {
        Rule::ALL.into_iter().filter(move |rule| self.has(*rule))
    }
}

impl FromIterator<Rule> for Report {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self(rules.into_iter().fold(0, |all, rule| all | 1 << rule as u8))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Rule::as_str))
    }
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<Parsed<Rule>>::deserialize(deserializer)?;
        Ok(names.into_iter().map(|Parsed(rule)| rule).collect())
    }
}

/// The treatment of a body with a bare CR or LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// Bare line ends become CRLF.
    Normalize,
    Reject,
}

impl BareNewline {
    /// Returns the form for the store and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normalize => "normalize",
            Self::Reject => "reject",
        }
    }
}

impl FromStr for BareNewline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "normalize" => Ok(Self::Normalize),
            "reject" => Ok(Self::Reject),
            _ => Err(format!(
                "{text:?} is not known; write \"reject\" or \"normalize\""
            )),
        }
    }
}

/// The rules of a credential. The default allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The allowed senders; `None` allows any.
    pub senders: Option<Vec<Sender>>,
    /// Whether the From header must name an allowed sender as well.
    pub header_from: bool,
    /// The allowed networks; `None` allows any.
    pub networks: Option<Vec<Network>>,
    /// The treatment of odd line ends; `None` follows the instance.
    pub bare_newline: Option<BareNewline>,
    /// The rules, with limits, expiry and suspension, that only log and count.
    pub report: Report,
}

/// A change of rules: `None` keeps a rule, an inner `None` removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesChange {
    pub senders: Option<Option<Vec<Sender>>>,
    pub header_from: Option<bool>,
    pub networks: Option<Option<Vec<Network>>>,
    pub bare_newline: Option<Option<BareNewline>>,
    pub report: Option<Report>,
}

/// Rules that contradict each other or exceed the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The header check has no senders to compare with.
    #[error("header_from compares with the senders; name at least one, or leave it out")]
    HeaderFromWithoutSenders,
    /// An empty list would block every sender or network.
    #[error("an empty list allows nothing; name at least one, or take the rule away")]
    EmptyList,
    /// The list exceeds the limit.
    #[error("the list is too long; name at most 100")]
    TooLong,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the change that produces the same rules on any credential.
    pub fn as_change(&self) -> RulesChange {
        RulesChange {
            senders: Some(self.senders.clone()),
            header_from: Some(self.header_from),
            networks: Some(self.networks.clone()),
            bare_newline: Some(self.bare_newline),
            report: Some(self.report),
        }
    }

    /// Returns the rules after a change.
    ///
    /// # Errors
    /// The result contradicts itself.
    pub fn with(&self, change: &RulesChange) -> Result<Self, RulesError> {
        let changed = Self {
            senders: change
                .senders
                .clone()
                .unwrap_or_else(|| self.senders.clone()),
            header_from: change.header_from.unwrap_or(self.header_from),
            networks: change
                .networks
                .clone()
                .unwrap_or_else(|| self.networks.clone()),
            bare_newline: change.bare_newline.unwrap_or(self.bare_newline),
            report: change.report.unwrap_or(self.report),
        };
        changed.check()?;
        Ok(changed)
    }

    fn check(&self) -> Result<(), RulesError> {
        let lengths = [
            self.senders.as_ref().map(Vec::len),
            self.networks.as_ref().map(Vec::len),
        ];
        for length in lengths.into_iter().flatten() {
            match length {
                0 => return Err(RulesError::EmptyList),
                1..=LONGEST_LIST => {}
                _ => return Err(RulesError::TooLong),
            }
        }
        if self.header_from && self.senders.is_none() {
            return Err(RulesError::HeaderFromWithoutSenders);
        }
        Ok(())
    }

    /// Whether the rules allow nothing beyond `others`.
    pub fn are_within(&self, others: &Self) -> bool {
        let senders = match (&self.senders, &others.senders) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(_)) => own.iter().all(|sender| others.allows_sender(sender)),
        };
        let networks = match (&self.networks, &others.networks) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => own
                .iter()
                .all(|own| others.iter().any(|other| other.covers(own))),
        };
        senders
            && networks
            && self.header_from >= others.header_from
            && (self.bare_newline == others.bare_newline
                || self.bare_newline == Some(BareNewline::Reject))
            && self.report.iter().all(|rule| others.report.has(rule))
    }

    fn allows_sender(&self, sender: &Sender) -> bool {
        let address = match sender {
            Sender::Address(text) => Address::parse(text),
            Sender::Domain(_) | Sender::Null => None,
        };
        let senders = self.senders.as_ref();
        senders.is_none_or(|senders| senders.contains(sender))
            || address.is_some_and(|address| self.allows_address(address))
    }

    /// Whether a client at `address` may log in.
    pub fn allows_network(&self, address: IpAddr) -> bool {
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
    }

    /// Whether the client may use a reverse-path, given in angle brackets as in MAIL. The empty
    /// path requires `<>` among the senders.
    pub fn allows_path(&self, path: &[u8]) -> bool {
        let Some(senders) = &self.senders else {
            return true;
        };
        if path == b"<>" {
            return senders.contains(&Sender::Null);
        }
        let inside = path
            .strip_prefix(b"<")
            .and_then(|rest| rest.strip_suffix(b">"));
        let text = inside.and_then(|inside| std::str::from_utf8(inside).ok());
        text.and_then(Address::parse)
            .is_some_and(|address| self.allows_address(address))
    }

    /// Whether an address may be a sender.
    pub fn allows_address(&self, address: Address) -> bool {
        self.senders
            .as_ref()
            .is_none_or(|senders| senders.iter().any(|sender| sender.allows(address)))
    }

    /// Whether violations of a rule are only reported.
    pub fn reports(&self, rule: Rule) -> bool {
        self.report.has(rule)
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored {
            senders: self.senders.clone(),
            header_from: self.header_from,
            networks: self
                .networks
                .as_ref()
                .map(|all| all.iter().copied().map(Parsed).collect()),
            bare_newline: self.bare_newline.map(Parsed),
            report: self.report,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let rules = Self {
            senders: stored.senders,
            header_from: stored.header_from,
            networks: stored
                .networks
                .map(|all| all.into_iter().map(|Parsed(network)| network).collect()),
            bare_newline: stored.bare_newline.map(|Parsed(way)| way),
            report: stored.report,
        };
        rules.check().map_err(D::Error::custom)?;
        Ok(rules)
    }
}

/// The stored form; a missing field restricts nothing.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    senders: Option<Vec<Sender>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    header_from: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<Parsed<Network>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bare_newline: Option<Parsed<BareNewline>>,
    #[serde(default, skip_serializing_if = "Report::none")]
    report: Report,
}

impl Report {
    fn none(&self) -> bool {
        self.is_empty()
    }
}

/// A value stored as text.
struct Parsed<T>(T);

impl Serialize for Parsed<Network> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Parsed<BareNewline> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Parsed<Network> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Network::stored(&text).map(Parsed).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Parsed<BareNewline> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Parsed).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Parsed<Rule> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Parsed).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_stored_unchanged() {
        for text in [
            "{}",
            r#"{"senders":["me@ok.test","ok.test","<>"],"header_from":true,"networks":["10.0.0.0/8","192.0.2.7"],"bare_newline":"normalize","report":["expiry","senders"]}"#,
        ] {
            let read = rules(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.is_empty(), text == "{}");
        }
    }

    #[test]
    fn unstorable_rules_are_rejected() {
        for wrong in [
            r#"{"sender":["me@ok.test"]}"#,
            r#"{"senders":[]}"#,
            r#"{"senders":["a b"]}"#,
            r#"{"header_from":true}"#,
            r#"{"networks":["10.0.0.1/8"]}"#,
            r#"{"networks":[]}"#,
            r#"{"bare_newline":"keep"}"#,
            r#"{"report":["everything"]}"#,
        ] {
            assert!(rules(wrong).is_err(), "{wrong}");
        }
        let long = vec!["ok.test"; 101];
        let long = serde_json::json!({ "senders": long }).to_string();
        assert!(rules(&long).unwrap_err().contains("at most 100"));
    }

    #[test]
    fn reverse_path_must_be_an_allowed_sender() {
        let some = rules(r#"{"senders":["me@ok.test","domain.test"]}"#).unwrap();
        for allowed in ["<me@ok.test>", "<Me@OK.test>", "<x@domain.test>"] {
            assert!(some.allows_path(allowed.as_bytes()), "{allowed}");
        }
        for refused in [
            "<>",
            "<you@ok.test>",
            "<me@ok.test@evil.test>",
            "<@evil.test:me@ok.test>",
            "<\"me@ok.test\"@evil.test>",
            "<x@sub.domain.test>",
            "<x@domain.test.>",
            "<x@[domain.test]>",
            "<postmaster>",
        ] {
            assert!(!some.allows_path(refused.as_bytes()), "{refused}");
        }
        assert!(!some.allows_path(b"<x\xff@domain.test>"));
        assert!(rules(r#"{"senders":["<>"]}"#).unwrap().allows_path(b"<>"));
        assert!(Rules::default().allows_path(b"<>") && Rules::default().allows_path(b"<x>"));
    }

    #[test]
    fn client_must_be_in_an_allowed_network() {
        let some = rules(r#"{"networks":["10.0.0.0/8","2001:db8::/32"]}"#).unwrap();
        let allows = |address: &str| some.allows_network(address.parse().unwrap());
        assert!(allows("10.1.2.3") && allows("::ffff:10.1.2.3") && allows("2001:db8::1"));
        assert!(!allows("11.0.0.1") && !allows("::1"));
        assert!(Rules::default().allows_network("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn change_keeps_other_rules_and_checks_the_result() {
        let before = rules(r#"{"senders":["ok.test"],"header_from":true}"#).unwrap();
        let away = RulesChange {
            senders: Some(None),
            ..RulesChange::default()
        };
        assert_eq!(
            before.with(&away),
            Err(RulesError::HeaderFromWithoutSenders)
        );
        let both = RulesChange {
            header_from: Some(false),
            ..away
        };
        assert_eq!(before.with(&both), Ok(Rules::default()));
    }

    #[test]
    fn stricter_rules_are_within_looser_rules() {
        let rules = |senders: &[&str], networks: &[&str]| Rules {
            senders: Some(senders.iter().map(|one| one.parse().unwrap()).collect()),
            networks: Some(networks.iter().map(|one| one.parse().unwrap()).collect()),
            ..Rules::default()
        };
        let wide = rules(&["example.com", "<>"], &["10.0.0.0/8", "2001:db8::/32"]);
        let narrow = rules(&["a@example.com"], &["10.1.0.0/16"]);
        assert!(narrow.are_within(&wide) && !wide.are_within(&narrow));
        assert!(wide.are_within(&Rules::default()) && !Rules::default().are_within(&wide));
        assert!(!rules(&["a@example.net"], &["10.1.0.0/16"]).are_within(&wide));
        assert!(!rules(&["example.com"], &["10.0.0.0/7"]).are_within(&wide));
        let reports = Rules {
            report: [Rule::Senders].into_iter().collect(),
            ..narrow.clone()
        };
        assert!(narrow.are_within(&reports) && !reports.are_within(&narrow));
    }
}
