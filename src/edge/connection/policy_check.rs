//! Limits and rules applied to a running session: at MAIL, at RCPT, and on the body.

use crate::auth::quota::SessionQuota;
use crate::log::Throttle;
use crate::policy::{self, Denial, Rule};
use crate::smtp::data::{BareNewline, Refusal, Scanner};
use crate::smtp::header::{Fault, FromCheck};
use crate::smtp::session::PolicyRequest;

use super::Connection;

impl Connection<'_> {
    /// Checks the session's pending policy request.
    pub(super) async fn check_policy(&mut self) -> Result<(), Denial> {
        let Some(allowance) = &mut self.allowance else {
            return Err(Denial::Unknown);
        };
        let begins = matches!(
            self.session.policy_request(),
            Some(PolicyRequest::Mail { .. })
        );
        if begins && allowance.is_stale() {
            if let Err(error) = allowance.refresh().await {
                static UNREADABLE: Throttle = Throttle::new();
                if let Some(count) = UNREADABLE.due() {
                    tracing::error!(%error, count, "limits cannot be read, messages are put off");
                }
                return Err(Denial::Unknown);
            }
            self.session.limit_message_size(allowance.message_size());
        }
        match self.session.policy_request() {
            Some(PolicyRequest::Mail { path, size }) => allowance.reserve_message(path, size),
            Some(PolicyRequest::Recipient) => allowance.reserve_recipient(),
            None => Err(Denial::Unknown),
        }
    }
}

/// Builds the scanner for a message from the credential's rules, the instance's `bare_newline`
/// setting and the size limit.
pub(super) fn scanner(allowance: &SessionQuota, instance: BareNewline, size: u64) -> Scanner {
    let rules = &allowance.policy().rules;
    let bare_newline = match rules.bare_newline {
        None => instance,
        Some(policy::BareNewline::Normalize) => BareNewline::Normalize,
        Some(policy::BareNewline::Reject) => BareNewline::Reject,
    };
    let scanner = Scanner::new(bare_newline, size);
    if rules.header_from {
        let check = FromCheck::new(allowance.policy().clone());
        return scanner.with_from(check, rules.reports(Rule::HeaderFrom));
    }
    scanner
}

/// Logs and counts the findings of limits and rules on a finished body.
pub(super) fn body_over(allowance: &mut SessionQuota, scanner: &Scanner) {
    allowance.next_message();
    if let Some(fault) = scanner.from_fault() {
        allowance.broken(Rule::HeaderFrom, &Fault::as_str(fault));
    }
    let refused = scanner.refusal().and_then(Refusal::octet);
    if let Some(octet) = refused.or(scanner.normalized()) {
        allowance.odd_octet(octet, refused.is_some());
    }
    if matches!(scanner.refusal(), None | Some(Refusal::TooLarge)) {
        allowance.sized(scanner.octets());
    }
}
