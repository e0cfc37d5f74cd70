//! The verdict of a verification: accepted, rejected or unavailable. Never a bool, because a
//! rejection is permanent for the client (535), while a failure to decide must make the client try
//! again (454).

use std::sync::Arc;

use crate::policy::Policy;

/// The identity proved by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The credential's key in the store; never reused.
    pub key: i64,
    /// The credential's username, as stored.
    pub username: Arc<str>,
    /// The slug of the credential's organization.
    pub organization: Arc<str>,
    pub policy: Arc<Policy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The credentials are right.
    Accept(Arc<Identity>),
    /// Rejected for now, regardless of the credentials; the client is told and disconnected.
    Throttled(Throttled),
    /// The credentials are wrong, or may not be used.
    Reject(Reason),
    /// No verdict was possible; the client should try again.
    Unavailable(Outage),
}

/// Why the credentials were rejected, for the log, the metrics and the dashboard. The client gets
/// the same text for every reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The client asked for an authorization identity other than its username.
    ActsForAnother,
    Expired,
    /// The client's address is outside the credential's networks.
    Network,
    /// The password is wrong now, and was right before a rotation.
    PreviousPassword,
    Revoked,
    Suspended,
    Unknown,
    WrongPassword,
}

impl Reason {
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

    /// Returns the stable name in logs and metrics.
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

    /// Describes the reason for people.
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

/// Why a client is rejected for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttled {
    /// Too many failed logins came from the client's network.
    Guard,
    /// The credential or its organization has reached the limit of sessions.
    Sessions,
}

impl Throttled {
    pub const ALL: [Self; 2] = [Self::Guard, Self::Sessions];

    /// Returns the stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Sessions => "sessions",
        }
    }

    /// Describes the reason for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Guard => "too many failed logins had come from its network",
            Self::Sessions => "too many sessions were open",
        }
    }
}

/// Why no verdict was possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outage {
    /// The argon2 queue is full, or the wait was too long.
    Busy,
    /// The stored hash is malformed or exceeds the accepted cost.
    Hash,
    Store,
}

impl Outage {
    pub const ALL: [Self; 3] = [Self::Busy, Self::Hash, Self::Store];

    /// Returns the stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Hash => "hash",
            Self::Store => "store",
        }
    }
}
