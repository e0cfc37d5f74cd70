//! What is written down of a login, in the log and for whoever asks later.

use crate::auth::Peer;
use crate::auth::refusals::claimed;
use crate::sasl::Credentials;
use crate::store::{LastUsed, PasswordUse, RefusedLogin};

use super::now_ms;

/// The one line for each refused login; its form is documented for fail2ban and the like.
pub(super) fn log_refusal(credentials: &Credentials, peer: &Peer, result: &str, reason: &str) {
    tracing::info!(
        target: "gatepost::auth",
        address = %peer.address.to_canonical(),
        // Bounded by SASL: at most 259 octets.
        username = claimed(&credentials.username),
        mechanism = credentials.mechanism.as_str(),
        result,
        reason,
        "login refused"
    );
}

/// The same for whoever asks later why.
pub(super) fn refused_login(
    credentials: &Credentials,
    peer: &Peer,
    reason: &str,
    retired_at: Option<i64>,
) -> RefusedLogin {
    let now = now_ms();
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

/// A login that succeeded.
pub(super) fn used(credentials: &Credentials, peer: &Peer) -> LastUsed {
    LastUsed {
        at: now_ms(),
        address: peer.address.to_canonical().to_string(),
        tls: peer.tls.map(str::to_owned),
        mechanism: credentials.mechanism.as_str().to_owned(),
        helo: peer.helo.to_string(),
        count: 1,
    }
}

/// The same, of one of two passwords.
pub(super) fn password_use(used: &LastUsed) -> PasswordUse {
    PasswordUse {
        at: used.at,
        address: used.address.clone(),
        count: used.count,
    }
}
