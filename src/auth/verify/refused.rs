//! What a claim comes to, before it is said to anybody.

use std::sync::Arc;

use crate::auth::cache::Slot;
use crate::sasl::{Bar, Identity, Outage, Reason};
use crate::store::Retired;

/// Yes.
pub(super) struct Proven {
    pub(super) identity: Arc<Identity>,
    /// By which of its passwords.
    pub(super) slot: Slot,
    /// Whether another password is right, too.
    pub(super) overlaps: bool,
}

/// No, or could not tell.
pub(super) enum Refused {
    Barred(Bar),
    Outage(Outage),
    /// With whom the client claimed to be, if there is such a credential, and when the password that it offered was replaced,
    /// if it once was the right one.
    Reason(Reason, Option<Arc<Identity>>, Option<i64>),
    /// A stranger who had no turn, or whose turn took too long, whoever it claims to be.
    Unheard,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason, None, None)
    }
}

impl From<Outage> for Refused {
    fn from(outage: Outage) -> Self {
        Self::Outage(outage)
    }
}

impl Refused {
    /// A wrong password that once was right is not just any wrong one. `tag` tells the offered password's.
    pub(super) fn told_apart(
        reason: Reason,
        identity: Arc<Identity>,
        retired: &[Retired],
        tag: impl Fn() -> u32,
    ) -> Self {
        if reason == Reason::WrongPassword && !retired.is_empty() {
            let tag = tag();
            if let Some(one) = retired.iter().find(|retired| retired.tag == tag) {
                return Self::Reason(Reason::PreviousPassword, Some(identity), Some(one.at));
            }
        }
        Self::Reason(reason, Some(identity), None)
    }
}
