//! Limits: how much a credential, or an organization with all its credentials, may send.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    MessageSize,
    /// Messages in the last 24 hours.
    MessagesPerDay,
    /// Messages in the last hour.
    MessagesPerHour,
    /// Messages in the calendar month, in UTC; for organizations only.
    MessagesPerMonth,
    /// Messages per second, and the burst after a pause.
    MessagesPerSecond,
    /// Recipients in the last 24 hours.
    RecipientsPerDay,
    RecipientsPerMessage,
    Sessions,
}

const COUNT: usize = 8;

/// The largest value of a limit: beyond any real traffic, and far from overflow.
const LARGEST: u64 = 1_000_000_000_000;

impl Limit {
    pub const ALL: [Self; COUNT] = [
        Self::MessageSize,
        Self::MessagesPerDay,
        Self::MessagesPerHour,
        Self::MessagesPerMonth,
        Self::MessagesPerSecond,
        Self::RecipientsPerDay,
        Self::RecipientsPerMessage,
        Self::Sessions,
    ];

    /// Returns the stable name in the store, the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageSize => "message_size",
            Self::MessagesPerDay => "messages_per_day",
            Self::MessagesPerHour => "messages_per_hour",
            Self::MessagesPerMonth => "messages_per_month",
            Self::MessagesPerSecond => "messages_per_second",
            Self::RecipientsPerDay => "recipients_per_day",
            Self::RecipientsPerMessage => "recipients_per_message",
            Self::Sessions => "sessions",
        }
    }

    /// Returns the label for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::MessageSize => "Bytes per message",
            Self::MessagesPerDay => "Messages per day",
            Self::MessagesPerHour => "Messages per hour",
            Self::MessagesPerMonth => "Messages per month",
            Self::MessagesPerSecond => "Messages per second",
            Self::RecipientsPerDay => "Recipients per day",
            Self::RecipientsPerMessage => "Recipients per message",
            Self::Sessions => "Sessions at a time",
        }
    }

    /// Whether a credential may have the limit; otherwise only an organization may.
    pub fn is_for_credentials(self) -> bool {
        self != Self::MessagesPerMonth
    }

    /// Returns the limits of credentials, or else of organizations.
    pub fn of(credentials: bool) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(move |limit| !credentials || limit.is_for_credentials())
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|limit| limit.as_str() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no limit {text:?}; there are {known}")
        })
    }
}

/// The value of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Number(u64),
    /// Unlimited, even if the instance has a default.
    Unlimited,
}

const UNLIMITED: &str = "unlimited";

impl Setting {
    /// Returns the number, unless unlimited.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Unlimited => None,
        }
    }

    fn checked(number: u64) -> Result<Self, String> {
        match number {
            1..=LARGEST => Ok(Self::Number(number)),
            _ => Err(format!(
                "{number} is out of range; write 1 to {LARGEST}, or \"{UNLIMITED}\""
            )),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Unlimited => f.write_str(UNLIMITED),
        }
    }
}

impl FromStr for Setting {
    /// The fault of the text, with the text to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            UNLIMITED => Ok(Self::Unlimited),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::checked(text.parse().unwrap_or(u64::MAX))
            }
            _ => Err(format!(
                "{text:?} is no limit; write a whole number, or \"{UNLIMITED}\""
            )),
        }
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingVisitor)
    }
}

struct SettingVisitor;

impl Visitor<'_> for SettingVisitor {
    type Value = Setting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number, or \"{UNLIMITED}\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Setting, E> {
        Setting::checked(number).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Setting, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format!(
                "{number} is out of range; write 1 to {LARGEST}, or \"{UNLIMITED}\""
            ))),
        }
    }

    /// JSON Schema counts 60.0 as an integer.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Setting, E> {
        let whole = number as u64;
        if whole as f64 == number {
            return self.visit_u64(whole);
        }
        Err(E::custom("write a whole number"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Setting, E> {
        text.parse().map_err(E::custom)
    }
}

/// The configured limits; the instance's defaults apply to all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits([Option<Setting>; COUNT]);

/// A change of limits: each named limit is set, or with `None` returns to the instance's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsChange(pub Vec<(Limit, Option<Setting>)>);

/// The limits in force; a missing number means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceilings([Option<u64>; COUNT]);

impl Limits {
    /// Returns the configured value of a limit.
    pub fn get(&self, limit: Limit) -> Option<Setting> {
        self.0[limit as usize]
    }

    /// Sets a limit, or with `None` returns to the instance's default.
    pub fn set(&mut self, limit: Limit, setting: Option<Setting>) {
        self.0[limit as usize] = setting;
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Iterates over the configured limits.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, Setting)> {
        let all = Limit::ALL.into_iter();
        all.filter_map(|limit| Some((limit, self.get(limit)?)))
    }

    /// Returns the limits after a change.
    pub fn with(&self, change: &LimitsChange) -> Self {
        let mut changed = self.clone();
        for (limit, setting) in &change.0 {
            changed.set(*limit, *setting);
        }
        changed
    }

    /// Returns the change that produces the same limits on any credential.
    pub fn as_change(&self) -> LimitsChange {
        LimitsChange(
            Limit::of(true)
                .map(|limit| (limit, self.get(limit)))
                .collect(),
        )
    }

    /// Returns the limits in force over the instance's `defaults`.
    pub fn over(&self, defaults: &Self) -> Ceilings {
        Ceilings(Limit::ALL.map(|limit| {
            let setting = self.get(limit).or(defaults.get(limit));
            setting.and_then(Setting::number)
        }))
    }
}

impl Ceilings {
    /// Returns the number of a limit, or `None` if unlimited.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0[limit as usize]
    }

    /// Whether every limit is at most the limit in `others`.
    pub fn are_within(&self, others: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&others.0);
        pairs.all(|pair| match pair {
            (_, None) => true,
            (own, Some(other)) => own.is_some_and(|own| own <= *other),
        })
    }

    /// Whether any limit depends on earlier traffic.
    pub fn look_back(&self) -> bool {
        use Limit::{MessagesPerDay, MessagesPerHour, MessagesPerMonth, RecipientsPerDay};
        let limits = [
            MessagesPerDay,
            MessagesPerHour,
            MessagesPerMonth,
            RecipientsPerDay,
        ];
        limits.iter().any(|limit| self.get(*limit).is_some())
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (limit, setting) in self.iter() {
            map.serialize_entry(limit.as_str(), &setting)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LimitsVisitor)
    }
}

struct LimitsVisitor;

impl<'de> Visitor<'de> for LimitsVisitor {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("limits, each with its name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
        let mut limits = Limits::default();
        while let Some(name) = map.next_key::<String>()? {
            let limit = name.parse().map_err(A::Error::custom)?;
            limits.set(limit, map.next_value()?);
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn only_configured_limits_are_stored() {
        let text = r#"{"messages_per_day":500,"sessions":"unlimited"}"#;
        let read = limits(text).unwrap();
        assert_eq!(read.get(Limit::MessagesPerDay), Some(Setting::Number(500)));
        assert_eq!(read.get(Limit::Sessions), Some(Setting::Unlimited));
        assert_eq!(read.get(Limit::MessageSize), None);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
    }

    #[test]
    fn malformed_limit_is_rejected() {
        for wrong in [
            r#"{"messages_per_week":5}"#,
            r#"{"sessions":0}"#,
            r#"{"sessions":-1}"#,
            r#"{"sessions":1.5}"#,
            r#"{"sessions":"many"}"#,
            r#"{"sessions":true}"#,
            r#"{"sessions":1000000000001}"#,
            "[]",
        ] {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn missing_limit_is_the_default_and_unlimited_overrides() {
        let own = limits(r#"{"sessions":"unlimited","messages_per_hour":5}"#).unwrap();
        let defaults =
            limits(r#"{"sessions":3,"messages_per_hour":9,"messages_per_day":7}"#).unwrap();
        let ceilings = own.over(&defaults);
        assert_eq!(ceilings.get(Limit::Sessions), None);
        assert_eq!(ceilings.get(Limit::MessagesPerHour), Some(5));
        assert_eq!(ceilings.get(Limit::MessagesPerDay), Some(7));
        assert_eq!(ceilings.get(Limit::MessageSize), None);
        assert!(ceilings.look_back());
        assert!(!Limits::default().over(&Limits::default()).look_back());
    }

    #[test]
    fn change_keeps_other_limits() {
        let before = limits(r#"{"sessions":3,"messages_per_hour":9}"#).unwrap();
        let change = LimitsChange(vec![
            (Limit::Sessions, None),
            (Limit::MessageSize, Some(Setting::Number(7))),
        ]);
        assert_eq!(
            before.with(&change),
            limits(r#"{"message_size":7,"messages_per_hour":9}"#).unwrap()
        );
    }
}
