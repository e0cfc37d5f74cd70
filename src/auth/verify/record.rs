//! The log line and the records of a login.

use crate::auth::peer::Peer;
use crate::auth::refusals::loggable_username;
use crate::clock;
use crate::sasl::Credentials;
use crate::store::{LastUsed, PasswordUse, RefusedLogin};

/// Logs one line for each rejected login, in the form that is documented for fail2ban.
pub(super) fn log_rejection(credentials: &Credentials, peer: &Peer, result: &str, reason: &str) {
    tracing::info!(
        target: "gatepost::auth",
        address = %peer.address.to_canonical(),
        // Bounded by SASL: at most 259 octets.
        username = loggable_username(&credentials.username),
        mechanism = credentials.mechanism.as_str(),
        result,
        reason,
        "login refused"
    );
}

pub(super) fn rejected_login(
    credentials: &Credentials,
    peer: &Peer,
    reason: &str,
    retired_at: Option<i64>,
) -> RefusedLogin {
    let now = clock::now_ms();
    RefusedLogin {
        username: credentials.username.clone(),
        reason: reason.to_owned(),
        address: peer.address.to_canonical().to_string(),
        first_at: now,
        at: now,
        count: 1,
        retired_at,
    }
}

pub(super) fn used(credentials: &Credentials, peer: &Peer) -> LastUsed {
    LastUsed {
        at: clock::now_ms(),
        address: peer.address.to_canonical().to_string(),
        tls: peer.tls.map(str::to_owned),
        mechanism: credentials.mechanism.as_str().to_owned(),
        helo: peer.helo.to_string(),
        count: 1,
    }
}

/// The part of a use that is kept for each password of an overlap.
pub(super) fn password_use(used: &LastUsed) -> PasswordUse {
    PasswordUse {
        at: used.at,
        address: used.address.clone(),
        count: used.count,
    }
}
