//! What was sent lately, by the hour: the last hour and the last 24 as they slide, and the calendar
//! month.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::store::HOUR;

/// The hours of a day, and the one that is sliding out of it.
const HOURS: usize = 25;

/// Messages and recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages the upstream took.
    pub messages: u64,
    /// Recipients it took.
    pub recipients: u64,
}

impl Sent {
    /// Adds another one's numbers.
    pub fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.recipients = self.recipients.saturating_add(other.recipients);
    }

    /// What is left of it, to the `part` of an hour; rounded up, so that no limit is passed.
    fn part(self, part: u64) -> Self {
        let hour = HOUR.unsigned_abs();
        let scaled = |count: u64| count.saturating_mul(part).div_ceil(hour);
        Self {
            messages: scaled(self.messages),
            recipients: scaled(self.recipients),
        }
    }
}

/// The sums of one sender. Hours are counted since 1970, times are Unix milliseconds.
#[derive(Clone, Debug)]
pub struct Window {
    /// The newest hour there is a sum of; time never goes back behind it.
    newest: i64,
    /// Each at its number modulo [`HOURS`].
    hours: [Sent; HOURS],
    month: Month,
    in_month: Sent,
}

impl Window {
    /// Nothing was sent before `now`.
    pub fn new(now: i64) -> Self {
        Self {
            newest: now.div_euclid(HOUR),
            hours: [Sent::default(); HOURS],
            month: Month::of(now),
            in_month: Sent::default(),
        }
    }

    /// Since when the sums must be known: the begin of the month, or of the day that slides.
    pub fn since(now: i64) -> i64 {
        let day = (now.div_euclid(HOUR) - HOURS as i64 + 1) * HOUR;
        Month::of(now).begin.min(day)
    }

    /// Adds what was sent at `then`, which may be before now.
    pub fn add(&mut self, then: i64, sent: Sent) {
        self.advance(then);
        let hour = then.div_euclid(HOUR).min(self.newest);
        if hour > self.newest - HOURS as i64 {
            self.hours[place(hour)].add(sent);
        }
        if then >= self.month.begin {
            self.in_month.add(sent);
        }
    }

    /// What was sent in the hour before `now`.
    pub fn hour(&mut self, now: i64) -> Sent {
        self.advance(now);
        let mut sum = self.hours[place(self.newest)];
        sum.add(self.hours[place(self.newest - 1)].part(self.sliding(now)));
        sum
    }

    /// What was sent in the 24 hours before `now`.
    pub fn day(&mut self, now: i64) -> Sent {
        self.advance(now);
        let last = place(self.newest - (HOURS as i64 - 1));
        let mut sum = Sent::default();
        for (at, sent) in self.hours.iter().enumerate() {
            if at != last {
                sum.add(*sent);
            }
        }
        sum.add(self.hours[last].part(self.sliding(now)));
        sum
    }

    /// What was sent in the calendar month.
    pub fn month(&mut self, now: i64) -> Sent {
        self.advance(now);
        self.in_month
    }

    /// How much of the oldest hour is still within the span, in milliseconds.
    fn sliding(&self, now: i64) -> u64 {
        let passed = (now - self.newest * HOUR).clamp(0, HOUR);
        (HOUR - passed).unsigned_abs()
    }

    fn advance(&mut self, now: i64) {
        let hour = now.div_euclid(HOUR);
        if hour > self.newest {
            let passed = (hour - self.newest).min(HOURS as i64);
            for gone in 0..passed {
                self.hours[place(hour - gone)] = Sent::default();
            }
            self.newest = hour;
        }
        if now >= self.month.end {
            self.month = Month::of(now);
            self.in_month = Sent::default();
        }
    }
}

fn place(hour: i64) -> usize {
    // Below HOURS, so the cast keeps it.
    hour.rem_euclid(HOURS as i64) as usize
}

/// A calendar month in UTC, from its first millisecond up to and without that of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Month {
    begin: i64,
    end: i64,
}

impl Month {
    fn of(now: i64) -> Self {
        let found = || {
            let now = Timestamp::from_millisecond(now).ok()?;
            let today = TimeZone::UTC.to_datetime(now).date();
            let first = today.first_of_month();
            let next = today.last_of_month().tomorrow().ok()?;
            let midnight = |day: Date| {
                let time = TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
                Some(time.as_millisecond())
            };
            Some(Self {
                begin: midnight(first)?,
                end: midnight(next)?,
            })
        };
        // Outside the calendar there are no months; a clock so wrong has one without end.
        found().unwrap_or(Self {
            begin: i64::MIN,
            end: i64::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn messages(messages: u64) -> Sent {
        Sent {
            messages,
            recipients: 2 * messages,
        }
    }

    #[test]
    fn the_hour_slides() {
        let begin = at("2026-11-25T10:00:00Z");
        let mut window = Window::new(begin);
        window.add(begin + HOUR / 2, messages(60));
        assert_eq!(window.hour(begin + HOUR - 1), messages(60));
        assert_eq!(window.hour(begin + HOUR), messages(60));
        assert_eq!(window.hour(begin + HOUR + HOUR / 4), messages(45));
        // Rounded up.
        assert_eq!(
            window.hour(begin + 2 * HOUR - 1),
            Sent {
                messages: 1,
                recipients: 1
            }
        );
        assert_eq!(window.hour(begin + 2 * HOUR), messages(0));
    }

    #[test]
    fn the_day_slides_over_midnight() {
        let begin = at("2026-11-25T23:00:00Z");
        let mut window = Window::new(begin);
        window.add(begin, messages(24));
        window.add(begin + HOUR, messages(1));
        assert_eq!(window.day(begin + HOUR), messages(25));
        assert_eq!(window.day(begin + 24 * HOUR - 1), messages(25));
        assert_eq!(window.day(begin + 24 * HOUR + HOUR / 2), messages(13));
        assert_eq!(window.day(begin + 25 * HOUR), messages(1));
        assert_eq!(window.day(begin + 26 * HOUR), messages(0));
        assert_eq!(window.hour(begin + 26 * HOUR), messages(0));
    }

    #[test]
    fn the_month_is_the_calendars_in_utc() {
        for (last, first, since) in [
            (
                "2026-11-30T23:59:59.999Z",
                "2026-12-01T00:00:00Z",
                "2026-11-01T00:00:00Z",
            ),
            (
                "2026-12-31T23:59:59.999Z",
                "2027-01-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "2028-02-29T23:59:59.999Z",
                "2028-03-01T00:00:00Z",
                "2028-02-01T00:00:00Z",
            ),
        ] {
            let mut window = Window::new(at(last));
            assert_eq!(Window::since(at(last)), at(since));
            // What is loaded from before the month is not part of it.
            window.add(at(since) - 1, messages(100));
            window.add(at(since), messages(7));
            window.add(at(last), messages(3));
            assert_eq!(window.month(at(last)), messages(10));
            assert_eq!(window.month(at(first)), messages(0));
            window.add(at(first), messages(1));
            assert_eq!(window.month(at(first)), messages(1));
        }
        // On the first day of a month the day that slides begins in the one before.
        let first = at("2026-12-01T02:00:00Z");
        assert_eq!(Window::since(first), at("2026-11-30T02:00:00Z"));
    }

    #[test]
    fn a_clock_that_is_put_back_forgets_nothing() {
        let begin = at("2026-11-25T10:00:00Z");
        let mut window = Window::new(begin);
        window.add(begin, messages(5));
        window.add(begin - 3 * HOUR, messages(1));
        assert_eq!(window.day(begin - 3 * HOUR), messages(6));
        assert_eq!(window.hour(begin - 3 * HOUR).messages, 5);
    }

    #[test]
    fn a_long_pause_empties_every_hour() {
        let begin = at("2026-11-05T10:00:00Z");
        let mut window = Window::new(begin);
        for hour in 0..30 {
            window.add(begin + hour * HOUR, messages(1));
        }
        let later = begin + 300 * HOUR;
        assert_eq!(
            (window.day(later), window.month(later)),
            (messages(0), messages(30))
        );
    }
}
