//! Times and spans of time as people type them.

pub(super) use crate::auth::import::{Expiry, expiry, time};
use crate::auth::issue::LONGEST_OVERLAP;

/// How long an old password stays valid, in milliseconds; 0 where it does not.
///
/// # Errors
/// What to write instead.
pub(super) fn overlap(text: &str) -> Result<i64, String> {
    if ["none", "0"].contains(&text) {
        return Ok(0);
    }
    let length = crate::clock::span(text);
    let milliseconds = length.and_then(|length| i64::try_from(length.as_millis()).ok());
    milliseconds
        .filter(|length| (1..=LONGEST_OVERLAP).contains(length))
        .ok_or_else(|| {
            format!("{text:?} is not a span up to 31 days: write 30m, 12h or 7d, or none")
        })
}

/// A point in the past: a day or time, or how long ago it was, such as "90d".
///
/// # Errors
/// What to write instead.
pub(super) fn since(text: &str) -> Result<i64, String> {
    let Some(length) = crate::clock::span(text) else {
        return time(text).map_err(|_| {
            format!("{text:?} is no time: write 2027-01-31, 2027-01-31T12:00:00Z, or 90d for 90 days ago")
        });
    };
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    Ok(crate::clock::now_ms().saturating_sub(length))
}

/// As [`since`], and not a time to come, before which every credential is unused.
///
/// # Errors
/// What to write instead.
pub(super) fn past(text: &str) -> Result<i64, String> {
    let time = since(text)?;
    match time <= crate::clock::now_ms() {
        true => Ok(time),
        false => Err(format!(
            "{text:?} is yet to come: write a day or time in the past"
        )),
    }
}

/// The end of a span from now, such as "30d".
///
/// # Errors
/// What to write instead.
pub(super) fn within(text: &str) -> Result<i64, String> {
    let end = crate::clock::ahead(text);
    end.ok_or_else(|| format!("{text:?} is no span: write 12h, 7d or 30d"))
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
    fn a_span_means_so_long_ago() {
        let days = crate::clock::now_ms() - since("90d").unwrap();
        assert!((0..60_000).contains(&(days - 90 * 86_400_000)), "{days}");
        assert_eq!(since("1970-01-02"), Ok(86_400_000));
        for wrong in ["", "90", "-1d", "1y", "soon"] {
            assert!(since(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_to_come_is_not_past() {
        assert_eq!(past("1970-01-02"), Ok(86_400_000));
        assert!(past("0s").is_ok() && past("2999-01-01").is_err());
    }

    #[test]
    fn a_span_means_so_far_ahead() {
        let days = within("30d").unwrap() - crate::clock::now_ms();
        assert!((-60_000..=0).contains(&(days - 30 * 86_400_000)), "{days}");
        for wrong in ["", "30", "-1d", "1y", "soon", "2027-01-31"] {
            assert!(within(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_overlap_is_bounded() {
        assert_eq!((overlap("none"), overlap("0")), (Ok(0), Ok(0)));
        assert_eq!(overlap("30m"), Ok(1_800_000));
        assert_eq!(overlap("7d"), Ok(7 * 86_400_000));
        for wrong in ["", "7", "0s", "-1h", "32d", "1 fortnight"] {
            assert!(overlap(wrong).is_err(), "{wrong:?}");
        }
    }
}
