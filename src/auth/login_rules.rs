//! Rules that hold at the login: from where a credential may be used, and what is only reported.

use std::fmt::Display;

use crate::metrics::Metrics;
use crate::policy::{Breach, Rule, action};
use crate::sasl::{Identity, Reason};

use super::activity::ActivityBatch;
use super::peer::Peer;

/// Logs and counts the rules that a login breaks and that only report.
pub(super) fn report_broken_rules(
    identity: &Identity,
    peer: &Peer,
    metrics: &Metrics,
    activity: &ActivityBatch,
    now_ms: i64,
) {
    let policy = &identity.policy;
    let ends = policy.expiry_reported.is_some_and(|end| end <= now_ms);
    for (rule, is_broken) in [
        (Rule::Networks, !policy.rules.allows_network(peer.address)),
        (Rule::Expiry, ends),
        (Rule::Suspended, policy.suspension_reported),
    ] {
        if is_broken {
            let refused = false;
            let breach = Breach::Rule { rule, refused };
            metrics.breached(breach);
            activity.breached(identity.key, breach, now_ms);
            log_rule(identity, rule, &peer.address.to_canonical(), refused, 1);
        }
    }
}

/// The rule by which a login is refused, if it is one; its line in the log is that of the login.
pub(super) fn count_broken_rule(reason: Reason, metrics: &Metrics) {
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
