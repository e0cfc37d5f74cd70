//! Rules, as requests and answers have them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::field::present;
use crate::policy::{self, RulesChange as Change};

/// The rules of a credential: as whom and from where it may be used.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rules {
    /// The senders it may use; null for any.
    senders: Option<Vec<Sender>>,
    /// Whether the From header must be of these senders, too.
    header_from: bool,
    /// The networks it may be used from; null for any.
    networks: Option<Vec<Network>>,
    /// What becomes of messages with odd line ends; null for the instance's way.
    bare_newline: Option<BareNewline>,
    /// What is only logged and counted instead of refused.
    report: Vec<Rule>,
}

impl From<&policy::Rules> for Rules {
    fn from(rules: &policy::Rules) -> Rules {
        let networks = rules.networks.as_ref();
        let senders = rules.senders.as_ref();
        Rules {
            senders: senders.map(|all| all.iter().cloned().map(Sender).collect()),
            header_from: rules.header_from,
            networks: networks.map(|all| all.iter().copied().map(Network).collect()),
            bare_newline: rules.bare_newline.map(Into::into),
            report: rules.report.iter().map(Into::into).collect(),
        }
    }
}

/// What to change of a credential's rules; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = RulesChange)]
pub struct RulesChange {
    /// The senders it may use; null for any.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<Sender>>, min_items = 1, max_items = 100)]
    senders: Option<Option<Vec<Sender>>>,
    /// Whether the From header must be of these senders, too.
    header_from: Option<bool>,
    /// The networks it may be used from; null for any.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<Network>>, min_items = 1, max_items = 100)]
    networks: Option<Option<Vec<Network>>>,
    /// What becomes of messages with odd line ends; null for the instance's way.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<BareNewline>)]
    bare_newline: Option<Option<BareNewline>>,
    /// What is only logged and counted instead of refused.
    report: Option<Vec<Rule>>,
}

impl From<&RulesChange> for Change {
    fn from(change: &RulesChange) -> Change {
        let senders = |all: &Vec<Sender>| all.iter().map(|sender| sender.0.clone()).collect();
        let networks = |all: &Vec<Network>| all.iter().map(|network| network.0).collect();
        Change {
            senders: change.senders.as_ref().map(|all| all.as_ref().map(senders)),
            header_from: change.header_from,
            networks: change
                .networks
                .as_ref()
                .map(|all| all.as_ref().map(networks)),
            bare_newline: change.bare_newline.map(|way| way.map(Into::into)),
            report: change
                .report
                .as_ref()
                .map(|rules| rules.iter().copied().map(policy::Rule::from).collect()),
        }
    }
}

/// A sender: an address, a domain for every address of it, or `<>` for the empty one of bounces.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, min_length = 1, max_length = 250, example = "example.com",
    pattern = r#"^(?!.*=\?)(<>|@?([^\s\x00-,./:-@\[-^`{-\x9f]+\.)*[^\s\x00-,./:-@\[-^`{-\x9f]+|(([^\s\x00-\x1f\x7f-\x9f"(),.:;<>@\[\\\]]+\.)*[^\s\x00-\x1f\x7f-\x9f"(),.:;<>@\[\\\]]+|"[^\x00-\x1f\x7f-\x9f"\\]*")@([^\s\x00-,./:-@\[-^`{-\x9f]+\.)*[^\s\x00-,./:-@\[-^`{-\x9f]+)$"#)]
pub struct Sender(policy::Sender);

/// Addresses that begin alike, such as `10.0.0.0/8`, or a single one.
#[derive(Clone, Debug, ToSchema)]
#[schema(value_type = String, example = "192.0.2.0/24")]
pub struct Network(policy::Network);

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Network).map_err(serde::de::Error::custom)
    }
}

/// What becomes of messages with odd line ends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// They are made CRLF.
    Normalize,
    /// The message is refused.
    Reject,
}

impl From<policy::BareNewline> for BareNewline {
    fn from(way: policy::BareNewline) -> BareNewline {
        match way {
            policy::BareNewline::Normalize => BareNewline::Normalize,
            policy::BareNewline::Reject => BareNewline::Reject,
        }
    }
}

impl From<BareNewline> for policy::BareNewline {
    fn from(way: BareNewline) -> policy::BareNewline {
        match way {
            BareNewline::Normalize => policy::BareNewline::Normalize,
            BareNewline::Reject => policy::BareNewline::Reject,
        }
    }
}

/// Something that may be only reported.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The credential has expired.
    Expiry,
    /// The From header is not of a sender that is allowed.
    HeaderFrom,
    /// A limit of the credential is reached.
    Limits,
    /// The client is in no network that is allowed.
    Networks,
    /// The sender is not allowed.
    Senders,
    /// The organization is suspended.
    Suspended,
}

impl From<policy::Rule> for Rule {
    fn from(rule: policy::Rule) -> Rule {
        match rule {
            policy::Rule::Expiry => Rule::Expiry,
            policy::Rule::HeaderFrom => Rule::HeaderFrom,
            policy::Rule::Limits => Rule::Limits,
            policy::Rule::Networks => Rule::Networks,
            policy::Rule::Senders => Rule::Senders,
            policy::Rule::Suspended => Rule::Suspended,
        }
    }
}

impl From<Rule> for policy::Rule {
    fn from(rule: Rule) -> policy::Rule {
        match rule {
            Rule::Expiry => policy::Rule::Expiry,
            Rule::HeaderFrom => policy::Rule::HeaderFrom,
            Rule::Limits => policy::Rule::Limits,
            Rule::Networks => policy::Rule::Networks,
            Rule::Senders => policy::Rule::Senders,
            Rule::Suspended => policy::Rule::Suspended,
        }
    }
}

/// The rules that a new credential is to have.
///
/// # Errors
/// They contradict each other.
pub(super) fn made(change: &RulesChange) -> Result<policy::Rules, policy::RulesError> {
    policy::Rules::default().with(&change.into())
}
