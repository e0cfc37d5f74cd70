//! Rules at the login: report what does not reject, and count rejections. Also the log lines of
//! broken rules and re-encoded messages.

use std::fmt::Display;

use crate::metrics::Metrics;
use crate::policy::{Breach, Rule, action};
use crate::sasl::{Identity, Reason};

use super::activity::ActivityBatch;
use super::peer::Peer;

/// Logs and counts broken rules that only report.
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

/// Counts the rule behind a rejection; the login's log line names the reason.
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

/// Logs `count` re-encoded messages, the last because of this octet.
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

/// Logs `count` breaches of a rule.
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
