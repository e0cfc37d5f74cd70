//! Times in the forms that people write.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A date (its begin in UTC) or a time of RFC 3339, in Unix milliseconds.
///
/// # Errors
/// The expected forms.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let day = || {
        let date: Date = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
    };
    let time = text.parse::<Timestamp>().ok().or_else(day);
    time.map(Timestamp::as_millisecond)
        .ok_or_else(|| format!("{text:?} is not a time: write 2027-01-31, or 2027-01-31T12:00:00Z"))
}

/// A time in the future, or "never".
///
/// # Errors
/// The expected forms.
pub(crate) fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    let at = time(text)?;
    if at <= crate::clock::now_ms() {
        return Err(format!("{text} is over: name a time to come"));
    }
    Ok(Expiry(Some(at)))
}

/// The end, in Unix milliseconds; `None` for never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry(pub Option<i64>);
