//! The fields of requests and answers, each as it is written in JSON.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::{
    KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};

use crate::sasl::Secret;
use crate::store::{self, Page};

/// A time in RFC 3339; in answers to the millisecond and in UTC.
#[derive(Clone, Copy, Debug, PartialEq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2027-01-31T12:00:00.000Z")]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What lies outside the calendar was written by hand; the nearest time says as much.
        let end = if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        let time = Timestamp::from_millisecond(self.0).unwrap_or(end);
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let time = Timestamp::deserialize(deserializer)?;
        Ok(Time(time.as_millisecond()))
    }
}

/// A time in the past: in RFC 3339, or as a span such as `90d` for so long ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(pub(super) i64);

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Since, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(length) = crate::clock::span(&text) {
            let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
            return Ok(Since(crate::clock::now_ms().saturating_sub(length)));
        }
        let wrong =
            "write a time such as \"2027-01-31T12:00:00Z\", or how long ago, such as \"90d\"";
        let time: Result<Timestamp, _> = text.parse();
        time.map(|time| Since(time.as_millisecond()))
            .map_err(|_| serde::de::Error::custom(wrong))
    }
}

/// A time ahead, as a span from now such as `30d`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within(pub(super) i64);

impl<'de> Deserialize<'de> for Within {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Within, D::Error> {
        let text = String::deserialize(deserializer)?;
        let end = crate::clock::ahead(&text);
        let wrong = || serde::de::Error::custom("write within how long, such as \"30d\"");
        end.map(Within).ok_or_else(wrong)
    }
}

pub(super) fn within_schema() -> Schema {
    let span = ObjectBuilder::new().schema_type(Type::String);
    let span = span.pattern(Some("^[1-9][0-9]{0,3}[hdw]$"));
    span.examples(["30d"]).build().into()
}

pub(super) fn since_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let time = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let span = text().pattern(Some("^[1-9][0-9]{0,3}[hdw]$"));
    let either = OneOfBuilder::new().item(time).item(span);
    either.examples(["90d"]).build().into()
}

/// What people call something: 1 to 200 characters, none of them a control character.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$", example = "Printer")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = store::StoreError;

    fn try_from(text: String) -> Result<Name, store::StoreError> {
        store::check_name(Some(&text))?;
        Ok(Name(text))
    }
}

/// An organization's short name: 1 to 63 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 63, pattern = "^[a-z0-9-]{1,63}$", example = "acme")]
pub(super) struct Slug(pub(super) String);

impl TryFrom<String> for Slug {
    type Error = store::StoreError;

    fn try_from(text: String) -> Result<Slug, store::StoreError> {
        store::check_slug(&text)?;
        Ok(Slug(text))
    }
}

/// What a token may do: `instance:admin`, `instance:read`, `org:SLUG:admin` or `org:SLUG:read`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = "^(instance|org:[a-z0-9-]{1,63}):(admin|read)$", example = "org:acme:admin")]
pub struct Scope(pub(super) store::Scope);

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Scope, String> {
        text.parse().map(Scope)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The one moment a secret is shown.
pub(super) fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    let text = str::from_utf8(secret.expose()).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(text)
}

/// Tells a field that is null, which takes something away, from one that is not there, which leaves it as it is.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// How many items a page has: 1 to 200.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = u32, minimum = 1, maximum = 200, default = 50)]
pub(super) struct Limit(u32);

impl Default for Limit {
    fn default() -> Limit {
        Limit(50)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        match u32::deserialize(deserializer)? {
            limit @ 1..=200 => Ok(Limit(limit)),
            _ => Err(serde::de::Error::custom(
                "limit: write a number from 1 to 200",
            )),
        }
    }
}

/// Reads an integer as JSON Schema has it, to which 60.0 is one.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let whole = number as u32;
    match f64::from(whole) == number {
        true => Ok(Some(whole)),
        false => Err(serde::de::Error::custom("write a whole number")),
    }
}

/// Where a page begins: `next` of the page before.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9]{1,18}$")]
pub(super) struct Cursor(i64);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Cursor, &'static str> {
        let digits =
            (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let key = digits.then(|| text.parse().ok()).flatten();
        key.map(Cursor)
            .ok_or("after: give next of the page before, as it came")
    }
}

impl Cursor {
    pub(super) fn get(self) -> i64 {
        self.0
    }
}

/// The page that is asked for.
pub(super) fn page(limit: Limit, after: Option<Cursor>) -> Page {
    Page {
        after: after.map(|cursor| cursor.0),
        limit: limit.0,
    }
}

impl Limit {
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_to_the_millisecond_in_utc() {
        let text = |time| serde_json::to_value(Time(time)).unwrap();
        assert_eq!(text(1_800_000_000_000), "2027-01-15T08:00:00.000Z");
        assert!(text(i64::MAX).as_str().unwrap().starts_with("9999-12-3"));
        let time: Time = serde_json::from_str("\"2027-01-15T09:00:00.0005+01:00\"").unwrap();
        assert_eq!(time, Time(1_800_000_000_000));
    }

    #[test]
    fn an_integer_may_have_a_point() {
        let read = |text| whole(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(read("60"), Some(Some(60)));
        assert_eq!(read("60.0"), Some(Some(60)));
        assert_eq!(read("4294967295"), Some(Some(u32::MAX)));
        assert_eq!(read("null"), Some(None));
        for wrong in ["60.5", "-1", "4294967296", "1e300", "\"60\"", "true"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_limit_and_a_cursor_are_bounded() {
        let limit = |text| serde_json::from_str::<Limit>(text).is_ok();
        assert!(limit("1") && limit("200") && !limit("0") && !limit("201") && !limit("-1"));
        let cursor = |text: &str| Cursor::try_from(text.to_owned()).is_ok();
        assert!(cursor("7") && !cursor("") && !cursor("-7") && !cursor("+7"));
        assert!(!cursor("1234567890123456789"));
    }
}
