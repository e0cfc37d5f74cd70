//! What people fill in: the form as it was sent, its fields as they are shown again, and what their texts mean.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::admin::extract::read;
use crate::admin::problem::{Code, Problem};
use crate::store::check_name;

use super::error::ErrorPage;
use super::stamp::Stamp;

/// A form as it was sent. Every action takes one, and only the guard makes one.
#[derive(Clone)]
pub(super) struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads the body of a request. Browsers end the lines of a text area with CRLF.
    pub(super) async fn read(request: &mut Request) -> Result<Form, Problem> {
        let body = Zeroizing::new(read(std::mem::take(request.body_mut())).await?);
        let pairs = form_urlencoded::parse(&body).into_owned();
        Ok(Form(
            pairs
                .map(|(name, text)| (name, with_plain_line_ends(Zeroizing::new(text))))
                .collect(),
        ))
    }

    /// One of our own pages must have sent it: no other knows this text.
    pub(super) fn require_csrf(&self, csrf: &str) -> Result<(), Problem> {
        let is_equal = self.text("csrf").as_bytes().ct_eq(csrf.as_bytes());
        if !csrf.is_empty() && bool::from(is_equal) {
            return Ok(());
        }
        Err(Problem::new(
            Code::ForeignOrigin,
            "this form is too old or not from here, and nothing was changed; go back, reload the page and send it again",
        ))
    }

    /// What is in a field; nothing if there is no such field.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, text)| text)
    }

    /// All that is in fields of this name.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = self.0.iter().filter(move |(own, _)| own == name);
        own.map(|(_, text)| text.as_str())
    }

    /// Whether a box is ticked.
    pub(super) fn ticked(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// A field, to be read and perhaps to be shown again.
    pub(super) fn field(&self, name: &str) -> Field {
        Field {
            value: self.text(name).to_owned(),
            error: None,
        }
    }

    /// Under what name this form is carried out once, however often it is sent.
    pub(super) fn once(&self) -> Result<&str, Problem> {
        let once = self.text("once");
        let is_ours =
            (1..=64).contains(&once.len()) && once.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let detail = "once: send the form as the page has it";
        is_ours
            .then_some(once)
            .ok_or_else(|| Problem::new(Code::Invalid, detail))
    }

    /// A time to come and what it means; nothing means never.
    pub(super) fn expiry(&self) -> (TimeField, Option<Option<i64>>) {
        let (value, offset) = (self.text("expires_at"), self.text("offset"));
        let (meant, error) = match future(value, offset) {
            Ok(meant) => (Some(meant), None),
            Err(error) => (None, Some(error)),
        };
        let field = TimeField {
            value: value.to_owned(),
            offset: offset.to_owned(),
            error,
        };
        (field, meant)
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = ErrorPage;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Form, ErrorPage> {
        let form = parts.extensions.remove::<Form>();
        form.ok_or_else(|| Problem::internal(&"an action lies outside the guard").into())
    }
}

/// A field as it is shown: what stands in it, and what is wrong with that.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    pub(super) value: String,
    pub(super) error: Option<String>,
}

impl Field {
    /// With this in it.
    pub(super) fn of(value: impl Into<String>) -> Field {
        Field {
            value: value.into(),
            error: None,
        }
    }

    /// What it means; if that is nothing, it is noted why.
    pub(super) fn read<T>(&mut self, meaning: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match meaning(&self.value) {
            Ok(meant) => Some(meant),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

/// A [`Field`] for a time.
#[derive(Clone, Debug, Default)]
pub(super) struct TimeField {
    pub(super) value: String,
    /// By how many minutes UTC is ahead of the clock it was read from; empty if it is in UTC.
    pub(super) offset: String,
    pub(super) error: Option<String>,
}

impl TimeField {
    /// With this time in it, in UTC.
    pub(super) fn of(stamp: Option<Stamp>) -> TimeField {
        TimeField {
            value: stamp.map(Stamp::field).unwrap_or_default(),
            ..TimeField::default()
        }
    }
}

/// A name, or none.
pub(super) fn optional_name(text: &str) -> Result<Option<String>, String> {
    let name = Some(text.trim()).filter(|name| !name.is_empty());
    check_name(name).map_err(|error| error.to_string())?;
    Ok(name.map(str::to_owned))
}

/// A name that must be there.
pub(super) fn name(text: &str) -> Result<String, String> {
    optional_name(text)?.ok_or_else(|| "write a name".to_owned())
}

/// A time to come, or never. Browsers send what stands on the visitor's clock; `offset` is by how many minutes UTC is ahead of
/// that, and nothing if it was written in UTC.
fn future(text: &str, offset: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let on_clock: Option<DateTime> = text.parse().ok();
    let utc = on_clock.and_then(|time| TimeZone::UTC.to_timestamp(time).ok());
    let offset = match offset {
        "" => Some(0),
        minutes => minutes
            .parse::<i64>()
            .ok()
            .filter(|minutes| minutes.abs() <= 24 * 60),
    };
    let (Some(utc), Some(offset)) = (utc, offset) else {
        return Err("write a day and a time of day, such as 2030-01-31T12:00".to_owned());
    };
    let time = utc.as_millisecond() + offset * 60_000;
    if time <= crate::clock::now_ms() {
        return Err("this time is over; choose one to come".to_owned());
    }
    Ok(Some(time))
}

/// Pairs as they stand behind a URL's question mark.
pub(super) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn with_plain_line_ends(text: Zeroizing<String>) -> Zeroizing<String> {
    match text.contains('\r') {
        true => Zeroizing::new(text.replace("\r\n", "\n")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Form {
        let owned =
            |(name, text): &(&str, &str)| (name.to_string(), Zeroizing::new(text.to_string()));
        Form(pairs.iter().map(owned).collect())
    }

    #[test]
    fn a_form_needs_the_text_that_only_our_pages_know() {
        let sent = form(&[("name", "x"), ("csrf", "right")]);
        assert!(sent.require_csrf("right").is_ok());
        for other in ["", "righ", "right2"] {
            assert!(sent.require_csrf(other).is_err(), "{other}");
        }
        assert!(form(&[]).require_csrf("right").is_err());
        assert!(form(&[]).require_csrf("").is_err(), "nothing is no secret");
    }

    #[test]
    fn names_are_trimmed_and_may_be_left_out() {
        assert_eq!(optional_name("  "), Ok(None));
        assert_eq!(optional_name(" Printer "), Ok(Some("Printer".to_owned())));
        assert!(optional_name("a\tb").is_err());
        assert!(name("").is_err());
    }

    #[test]
    fn a_time_is_read_on_the_visitors_clock() {
        assert_eq!(future("", "nonsense"), Ok(None));
        let noon = "2100-01-31T12:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let noon = noon.as_millisecond();
        assert_eq!(future("2100-01-31T12:00", ""), Ok(Some(noon)));
        // Berlin in winter: UTC is an hour behind.
        assert_eq!(future("2100-01-31T13:00", "-60"), Ok(Some(noon)));
        for (text, offset) in [
            ("2020-01-31T12:00", ""),
            ("tomorrow", ""),
            ("2100-01-31T12:00", "x"),
            ("2100-01-31T12:00", "99999"),
            ("2100-02-31T12:00", ""),
        ] {
            assert!(future(text, offset).is_err(), "{text} {offset}");
        }
    }
}
