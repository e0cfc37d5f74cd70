//! Times and spans of time as people type them.

use jiff::{Span, SpanRelativeTo};

pub(super) use crate::auth::import::{Expiry, expiry, time};
use crate::auth::issue::LONGEST_OVERLAP;

/// How long an old password stays valid, in milliseconds.
///
/// # Errors
/// What to write instead.
pub(super) fn overlap(text: &str) -> Result<i64, String> {
    let duration = text.parse::<Span>().ok().and_then(|span| {
        let days = SpanRelativeTo::days_are_24_hours();
        span.to_duration(days).ok()
    });
    let milliseconds = duration.and_then(|duration| i64::try_from(duration.as_millis()).ok());
    milliseconds
        .filter(|length| (1..=LONGEST_OVERLAP).contains(length))
        .ok_or_else(|| format!("{text:?} is not a span up to 31 days: write 30m, 12h or 7d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_understood() {
        assert_eq!(time("1970-01-02"), Ok(86_400_000));
        assert_eq!(time("1970-01-01T01:00:00Z"), Ok(3_600_000));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(0));
        for wrong in ["", "tomorrow", "2027-02-30", "12:00", "5"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_expiry_lies_ahead() {
        assert_eq!(expiry("never").unwrap().0, None);
        assert!(expiry("2999-01-01").unwrap().0.is_some());
        assert!(expiry("2001-01-01").is_err());
    }

    #[test]
    fn an_overlap_is_bounded() {
        assert_eq!(overlap("30m"), Ok(1_800_000));
        assert_eq!(overlap("7d"), Ok(7 * 86_400_000));
        for wrong in ["", "7", "0s", "-1h", "32d", "1 fortnight"] {
            assert!(overlap(wrong).is_err(), "{wrong:?}");
        }
    }
}
