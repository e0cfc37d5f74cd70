//! Durations in text form: "30s", "5m", "1h 30m", "7d".

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Parses a duration; a day has 24 hours. Months and years are rejected for their varying length.
pub fn span(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(length).ok()
}

/// Returns the Unix millisecond a [`span`] from now.
pub fn ahead(text: &str) -> Option<i64> {
    let length = i64::try_from(span(text)?.as_millis()).unwrap_or(i64::MAX);
    Some(super::now_ms().saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_and_a_fixed_length() {
        for (text, seconds) in [
            ("7d", Some(7 * 86_400)),
            ("2w", Some(14 * 86_400)),
            ("1h 30m", Some(5_400)),
            ("90 days", Some(90 * 86_400)),
            ("0s", Some(0)),
            ("", None),
            ("7", None),
            ("-1h", None),
            ("1h ago", None),
            ("1mo", None),
            ("1y", None),
            ("soon", None),
        ] {
            let read = span(text).map(|length| length.as_secs());
            assert_eq!(read, seconds, "{text:?}");
        }
    }
}
