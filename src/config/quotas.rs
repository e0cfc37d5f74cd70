//! `[credential_limits]` and `[organization_limits]`: the limits of those that have none of their own.

use serde::{Deserialize, Deserializer};

use super::byte_size;
use crate::policy::{Limit, Limits, Setting};

/// The limits of a credential that has none of its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CredentialLimits(pub Limits);

/// The limits of an organization that has none of its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OrganizationLimits(pub Limits);

/// Declares the keys of a section, and how they are read; one that is left out is no limit.
macro_rules! keys {
    ($section:ident, $keys:ident { $($key:ident = $limit:ident,)* }) => {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $keys {
            message_size: Option<Size>,
            $($key: Option<Setting>,)*
        }

        impl<'de> Deserialize<'de> for $section {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let keys = $keys::deserialize(deserializer)?;
                let mut limits = Limits::default();
                let size = keys.message_size.map(|Size(size)| Setting::Number(size));
                limits.set(Limit::MessageSize, size);
                $(limits.set(Limit::$limit, keys.$key);)*
                Ok(Self(limits))
            }
        }
    };
}

keys!(CredentialLimits, CredentialKeys {
    messages_per_second = MessagesPerSecond,
    messages_per_hour = MessagesPerHour,
    messages_per_day = MessagesPerDay,
    recipients_per_message = RecipientsPerMessage,
    recipients_per_day = RecipientsPerDay,
    sessions = Sessions,
});

keys!(OrganizationLimits, OrganizationKeys {
    messages_per_second = MessagesPerSecond,
    messages_per_hour = MessagesPerHour,
    messages_per_day = MessagesPerDay,
    messages_per_month = MessagesPerMonth,
    recipients_per_message = RecipientsPerMessage,
    recipients_per_day = RecipientsPerDay,
    sessions = Sessions,
});

/// A size as it is written elsewhere, too.
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        byte_size::positive(deserializer).map(Self)
    }
}
