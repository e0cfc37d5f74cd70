//! Limits, as requests and answers have them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::field::present;
use crate::auth::quota::Use;
use crate::policy::{self, Limit, Limits, LimitsChange};

/// What one limit is set to.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, from = "policy::Setting", into = "policy::Setting")]
#[schema(as = LimitSetting)]
pub enum Setting {
    /// So many.
    Number(Count),
    /// No limit, whatever the instance's default says.
    Word(Unlimited),
}

/// The most there may be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = LimitCount, value_type = u64, minimum = 1, maximum = 1_000_000_000_000_u64)]
pub struct Count(u64);

/// No limit, whatever the instance's default says.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// The one word.
    Unlimited,
}

impl From<policy::Setting> for Setting {
    fn from(setting: policy::Setting) -> Setting {
        match setting {
            policy::Setting::Number(number) => Setting::Number(Count(number)),
            policy::Setting::Unlimited => Setting::Word(Unlimited::Unlimited),
        }
    }
}

impl From<Setting> for policy::Setting {
    fn from(setting: Setting) -> policy::Setting {
        match setting {
            Setting::Number(Count(number)) => policy::Setting::Number(number),
            Setting::Word(Unlimited::Unlimited) => policy::Setting::Unlimited,
        }
    }
}

/// Declares limits as they are answered with and changed; each key with its meaning.
macro_rules! limits {
    ($(#[$of:meta])* $name:ident, $(#[$of_change:meta])* $change:ident {
        $($(#[$meaning:meta])* $key:ident = $limit:ident,)*
    }) => {
        $(#[$of])*
        #[derive(Debug, Serialize, ToSchema)]
        pub struct $name {
            $($(#[$meaning])*
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false)]
            $key: Option<Setting>,)*
        }

        impl From<&Limits> for $name {
            fn from(limits: &Limits) -> $name {
                $name {
                    $($key: limits.get(Limit::$limit).map(Into::into),)*
                }
            }
        }

        $(#[$of_change])*
        #[derive(Debug, Default, Deserialize, ToSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $change {
            $($(#[$meaning])*
            #[serde(deserialize_with = "present")]
            #[schema(value_type = Option<Setting>)]
            $key: Option<Option<Setting>>,)*
        }

        impl From<&$change> for LimitsChange {
            fn from(change: &$change) -> LimitsChange {
                let named = [$((Limit::$limit, change.$key),)*];
                let named = named.into_iter().filter_map(|(limit, setting)| {
                    Some((limit, setting?.map(Into::into)))
                });
                LimitsChange(named.collect())
            }
        }
    };
}

limits! {
    /// The limits of a credential that are set; the instance's defaults hold for the others.
    CredentialLimits,
    /// What to change of a credential's limits: what is left out stays, null leaves a limit to the instance's default.
    CredentialLimitsChange {
        /// Octets of one message.
        message_size = MessageSize,
        /// Messages in the last 24 hours.
        messages_per_day = MessagesPerDay,
        /// Messages in the last 60 minutes.
        messages_per_hour = MessagesPerHour,
        /// Messages in a second, and at once after a pause.
        messages_per_second = MessagesPerSecond,
        /// Recipients in the last 24 hours.
        recipients_per_day = RecipientsPerDay,
        /// Recipients of one message.
        recipients_per_message = RecipientsPerMessage,
        /// Sessions at a time.
        sessions = Sessions,
    }
}

limits! {
    /// The limits of an organization that are set; the instance's defaults hold for the others.
    OrganizationLimits,
    /// What to change of an organization's limits: what is left out stays, null leaves a limit to the instance's default.
    OrganizationLimitsChange {
        /// Octets of one message.
        message_size = MessageSize,
        /// Messages in the last 24 hours.
        messages_per_day = MessagesPerDay,
        /// Messages in the last 60 minutes.
        messages_per_hour = MessagesPerHour,
        /// Messages in the calendar month, in UTC.
        messages_per_month = MessagesPerMonth,
        /// Messages in a second, and at once after a pause.
        messages_per_second = MessagesPerSecond,
        /// Recipients in the last 24 hours.
        recipients_per_day = RecipientsPerDay,
        /// Recipients of one message.
        recipients_per_message = RecipientsPerMessage,
        /// Sessions at a time.
        sessions = Sessions,
    }
}

/// How far a limit is used up.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitUse {
    /// Its name.
    limit: &'static str,
    /// The most there may be, be it set or the instance's default.
    ceiling: u64,
    /// How much there is now; null for what is looked at for each message alone.
    used: Option<u64>,
    /// Whether what comes next is one too many.
    over: bool,
}

impl From<&Use> for LimitUse {
    fn from(use_: &Use) -> LimitUse {
        LimitUse {
            limit: use_.limit.as_str(),
            ceiling: use_.ceiling,
            used: use_.used,
            over: use_.is_over(),
        }
    }
}

/// The limits that a new credential is to have.
pub(super) fn made(change: &CredentialLimitsChange) -> Limits {
    Limits::default().with(&change.into())
}
