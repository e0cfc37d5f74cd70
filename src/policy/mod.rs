//! What a credential may do once it has logged in: limits and rules, as they are stored and
//! compared. Pure: who counts, refuses and logs stands on higher floors.

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

/// Everything that holds one credential, as it was when its row was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its own limits.
    pub limits: Limits,
    /// The limits of its organization, which all credentials of it share.
    pub organization_limits: Limits,
    /// Its rules.
    pub rules: Rules,
    /// Since when it would be refused as expired (Unix milliseconds), were that not only reported.
    pub expiry_reported: Option<i64>,
    /// Whether it would be refused as its organization is suspended, were that not only reported.
    pub suspension_reported: bool,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The credential's own.
    Credential,
    /// Its organization's, shared by all credentials of it.
    Organization,
}

impl Party {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Credential, Self::Organization];

    /// The stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Organization => "organization",
        }
    }
}

/// Why a command of an authenticated client is refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A limit is reached.
    Over(Party, Limit),
    /// A rule does not allow it.
    Against(Rule),
    /// What was sent before, or what is allowed, cannot be told now.
    Unknown,
}
