//! What verification answers: yes, no, or could not tell. Never a bool, because "no" is
//! permanent for a client (535) and "could not tell" must make it try again (454).

use std::sync::Arc;

use crate::policy::Policy;

/// Who a client proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The credential's key in the store; never reused.
    pub key: i64,
    /// The credential's username, as stored.
    pub username: Arc<str>,
    /// The slug of the organization the credential belongs to.
    pub organization: Arc<str>,
    /// What the credential may do.
    pub policy: Arc<Policy>,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The claim is true.
    Accept(Arc<Identity>),
    /// Not now, whoever it is; the client is told so and disconnected.
    Barred(Bar),
    /// The claim is false, or true of somebody who may not log in.
    Reject(Reason),
    /// Nothing is known; the client should try again.
    Unavailable(Outage),
}

/// Why a claim was refused. For the log, the metric and the dashboard; the client sees one text
/// for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An authorization identity other than the username was asked for.
    ActsForAnother,
    /// The credential has expired.
    Expired,
    /// It may not be used from the client's address.
    Network,
    /// The password is wrong, and was right before a rotation.
    PreviousPassword,
    /// The credential is revoked.
    Revoked,
    /// The organization is suspended.
    Suspended,
    /// There is no such username.
    Unknown,
    /// The password is wrong.
    WrongPassword,
}

impl Reason {
    /// Every reason, for building metrics.
    pub const ALL: [Self; 8] = [
        Self::ActsForAnother,
        Self::Expired,
        Self::Network,
        Self::PreviousPassword,
        Self::Revoked,
        Self::Suspended,
        Self::Unknown,
        Self::WrongPassword,
    ];

    /// The stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActsForAnother => "acts_for_another",
            Self::Expired => "expired",
            Self::Network => "network",
            Self::PreviousPassword => "previous_password",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
            Self::Unknown => "unknown",
            Self::WrongPassword => "wrong_password",
        }
    }

    /// What was wrong, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::ActsForAnother => "it asked to act for another",
            Self::Expired => "the credential had expired",
            Self::Network => "it may not be used from this address",
            Self::PreviousPassword => "the previous password",
            Self::Revoked => "the credential was revoked",
            Self::Suspended => "its organization was suspended",
            Self::Unknown => "nobody has this username",
            Self::WrongPassword => "a wrong password",
        }
    }
}

/// Why a client is turned away for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// Too many failed logins came from its network.
    Guard,
    /// The credential, or its organization, has as many sessions as it may have.
    Sessions,
}

impl Bar {
    /// Every bar, for building metrics.
    pub const ALL: [Self; 2] = [Self::Guard, Self::Sessions];

    /// The stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Sessions => "sessions",
        }
    }

    /// What was wrong, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Guard => "too many failed logins had come from its network",
            Self::Sessions => "too many sessions were open",
        }
    }
}

/// Why no verdict could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outage {
    /// The queue in front of argon2 is full, or waiting in it took too long.
    Busy,
    /// The stored hash cannot be used: malformed, or costlier than we are willing to pay.
    Hash,
    /// The store cannot be read.
    Store,
}

impl Outage {
    /// Every outage, for building metrics.
    pub const ALL: [Self; 3] = [Self::Busy, Self::Hash, Self::Store];

    /// The stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Hash => "hash",
            Self::Store => "store",
        }
    }
}
