//! Rules that hold at the login: from where a credential may be used, and what is only reported.

use std::fmt::Display;

use crate::metrics::Metrics;
use crate::policy::{Breach, Rule, action};
use crate::sasl::{Identity, Reason};

use super::Peer;
use super::noted::NotedBatch;

/// Whether who proved to be `identity` may log in from where `peer` is. What is only reported is
/// logged and counted here.
pub(super) fn contain(
    identity: &Identity,
    peer: &Peer,
    metrics: &Metrics,
    noted: &NotedBatch,
    now_ms: i64,
) -> Result<(), Reason> {
    let policy = &identity.policy;
    let report = |rule, value: &dyn Display| {
        let refused = false;
        let breach = Breach::Rule { rule, refused };
        metrics.breached(breach);
        noted.breached(identity.key, breach, now_ms);
        log_rule(identity, rule, value, refused, 1);
    };
    if !policy.rules.allows_network(peer.address) {
        if !policy.rules.reports(Rule::Networks) {
            return Err(Reason::Network);
        }
        report(Rule::Networks, &peer.address.to_canonical());
    }
    if policy.expiry_reported.is_some_and(|end| end <= now_ms) {
        report(Rule::Expiry, &peer.address.to_canonical());
    }
    if policy.suspension_reported {
        report(Rule::Suspended, &peer.address.to_canonical());
    }
    Ok(())
}

/// The rule by which a login is refused, if it is one; its line in the log is that of the login.
pub(super) fn count(reason: Reason, metrics: &Metrics) {
    let rule = match reason {
        Reason::Expired => Rule::Expiry,
        Reason::Network => Rule::Networks,
        Reason::Suspended => Rule::Suspended,
        Reason::ActsForAnother
        | Reason::PreviousPassword
        | Reason::Revoked
        | Reason::Unknown
        | Reason::WrongPassword => return,
    };
    let refused = true;
    metrics.breached(Breach::Rule { rule, refused });
}

/// Logs so many messages that were encoded anew, the last one for this octet.
pub(super) fn log_normalized(identity: &Identity, octet: &str, count: u64) {
    tracing::info!(
        target: "gatepost::session",
        username = &*identity.username,
        organization = &*identity.organization,
        octet,
        count,
        "message normalized"
    );
}

/// Logs a rule that was broken so many times.
pub(super) fn log_rule(
    identity: &Identity,
    rule: Rule,
    value: &dyn Display,
    refused: bool,
    count: u64,
) {
    tracing::info!(
        target: "gatepost::rule",
        username = &*identity.username,
        organization = &*identity.organization,
        rule = rule.as_str(),
        %value,
        action = action(refused),
        count,
        "rule broken"
    );
}
