//! The policy of a credential after login: limits and rules, as stored and compared. Pure:
//! counting, rejecting and logging belong to other rooms.

mod address;
mod breach;
mod limits;
mod network;
mod rules;

pub use address::{Address, Sender};
pub use breach::{Breach, NORMALIZED, OddOctet, action};
pub use limits::{Ceilings, Limit, Limits, LimitsChange, Setting};
pub use network::Network;
pub use rules::{BareNewline, Report, Rule, Rules, RulesChange, RulesError};

/// The policy of a credential at the time its row was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The limits of the credential itself.
    pub limits: Limits,
    /// The limits of the organization, shared by all its credentials.
    pub organization_limits: Limits,
    pub rules: Rules,
    /// When the credential expired, in Unix milliseconds, if its expiry is only reported.
    pub expiry_reported: Option<i64>,
    /// Whether the organization is suspended while suspension is only reported.
    pub suspension_reported: bool,
}

/// The owner of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    Credential,
    /// Shared by all credentials of the organization.
    Organization,
}

impl Party {
    pub const ALL: [Self; 2] = [Self::Credential, Self::Organization];

    /// Returns the stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Organization => "organization",
        }
    }
}

/// Why Gatepost denies a command of an authenticated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Over(Party, Limit),
    Against(Rule),
    /// The usage or the policy cannot be read now.
    Unknown,
}
