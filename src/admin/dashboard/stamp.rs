//! Times as people read them. The pages' script writes them in the browser's zone; without it they are in UTC.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// At this distance, 100 years in milliseconds, the year says more than the distance.
const FAR: i64 = 36_525 * DAY * 1_000;

/// A moment, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stamp(pub(super) i64);

impl Stamp {
    fn time(self) -> Timestamp {
        let end = match self.0 < 0 {
            true => Timestamp::MIN,
            false => Timestamp::MAX,
        };
        Timestamp::from_millisecond(self.0).unwrap_or(end)
    }

    /// As programs read it.
    pub(super) fn iso(self) -> String {
        format!("{:.3}", self.time())
    }

    /// To the second.
    pub(super) fn exact(self) -> String {
        self.time().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    /// To the minute, as a field of a form has it.
    pub(super) fn field(self) -> String {
        self.time().strftime("%Y-%m-%dT%H:%M").to_string()
    }

    /// From now.
    pub(super) fn relative(self) -> String {
        let milliseconds = self.0.saturating_sub(crate::clock::now_ms());
        match milliseconds.saturating_abs() < FAR {
            true => distance(milliseconds),
            false => self.time().strftime("in the year %-Y").to_string(),
        }
    }
}

/// In words that are right to about a tenth.
fn distance(milliseconds: i64) -> String {
    let seconds = milliseconds.saturating_abs() / 1_000;
    let (number, unit) = match seconds {
        _ if seconds < MINUTE => return "just now".to_owned(),
        _ if seconds < HOUR => (seconds / MINUTE, "minute"),
        _ if seconds < DAY => (seconds / HOUR, "hour"),
        _ if seconds < 60 * DAY => (seconds / DAY, "day"),
        _ if seconds < 730 * DAY => (seconds / (30 * DAY), "month"),
        _ => (seconds / (365 * DAY), "year"),
    };
    let plural = if number == 1 { "" } else { "s" };
    match milliseconds < 0 {
        true => format!("{number} {unit}{plural} ago"),
        false => format!("in {number} {unit}{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_form_for_each_reader() {
        let stamp = Stamp(1_800_000_000_000);
        assert_eq!(stamp.iso(), "2027-01-15T08:00:00.000Z");
        assert_eq!(stamp.exact(), "2027-01-15 08:00:00 UTC");
        assert_eq!(stamp.field(), "2027-01-15T08:00");
        assert!(Stamp(i64::MIN).iso().ends_with('Z'));
    }

    #[test]
    fn a_time_centuries_away_is_told_by_its_year() {
        let year = |text: &str| {
            let time: Timestamp = text.parse().unwrap();
            Stamp(time.as_millisecond()).relative()
        };
        assert_eq!(year("4096-02-01T00:00:00Z"), "in the year 4096");
        assert_eq!(year("1601-01-01T00:00:00Z"), "in the year 1601");
        assert_eq!(Stamp(i64::MAX).relative(), "in the year 9999");
        let before = year("1969-12-31T00:00:00Z");
        assert!(before.ends_with(" years ago"), "{before}");
        assert!(Stamp(i64::MIN).exact().starts_with("-9999-"));
    }

    #[test]
    fn distances_are_told_in_one_unit() {
        for (seconds, text) in [
            (-59, "just now"),
            (-60, "1 minute ago"),
            (-3_599, "59 minutes ago"),
            (-2 * HOUR, "2 hours ago"),
            (3 * DAY + 5, "in 3 days"),
            (-61 * DAY, "2 months ago"),
            (-800 * DAY, "2 years ago"),
        ] {
            assert_eq!(distance(seconds * 1_000), text);
        }
    }
}
