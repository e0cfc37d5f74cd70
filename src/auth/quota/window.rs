//! What was sent lately: in the last hour by the minute, in the last 24 by the hour, and in the
//! calendar month.
//!
//! Spans slide by whole minutes and hours. The one that is sliding out counts in full, so that no
//! limit is ever passed.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::store::HOUR;

/// The hours of a day, and the one that is sliding out of it.
const HOURS: usize = 25;

/// A minute in milliseconds.
const MINUTE: i64 = 60_000;

/// The minutes of an hour, and the one that is sliding out of it.
const MINUTES: usize = 61;

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
}

/// Sums by spans of one length, for the newest `N` of them.
#[derive(Clone, Debug)]
struct Ring<T, const N: usize> {
    /// In milliseconds.
    length: i64,
    /// The newest span there is a sum of, counted since 1970; time never goes back behind it.
    newest: i64,
    /// Each at its number modulo `N`.
    sums: [T; N],
}

impl<T: Copy + Default, const N: usize> Ring<T, N> {
    fn new(length: i64, now: i64) -> Self {
        Self {
            length,
            newest: now.div_euclid(length),
            sums: [T::default(); N],
        }
    }

    fn advance(&mut self, now: i64) {
        let span = now.div_euclid(self.length);
        if span > self.newest {
            let passed = (span - self.newest).min(N as i64);
            for gone in 0..passed {
                self.sums[Self::place(span - gone)] = T::default();
            }
            self.newest = span;
        }
    }

    /// The sum that what was sent at `then` belongs to, if it is not too old.
    fn at(&mut self, then: i64) -> Option<&mut T> {
        let span = then.div_euclid(self.length).min(self.newest);
        let is_kept = span > self.newest - N as i64;
        is_kept.then(|| &mut self.sums[Self::place(span)])
    }

    fn place(span: i64) -> usize {
        // Below N, so the cast keeps it.
        span.rem_euclid(N as i64) as usize
    }
}

/// The sums of one sender. Times are Unix milliseconds.
#[derive(Clone, Debug)]
pub struct Window {
    /// Messages; no limit counts the recipients of an hour.
    minutes: Ring<u64, MINUTES>,
    hours: Ring<Sent, HOURS>,
    month: Month,
    in_month: Sent,
}

impl Window {
    /// Nothing was sent before `now`.
    pub fn new(now: i64) -> Self {
        Self {
            minutes: Ring::new(MINUTE, now),
            hours: Ring::new(HOUR, now),
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
        if let Some(messages) = self.minutes.at(then) {
            *messages = messages.saturating_add(sent.messages);
        }
        if let Some(sum) = self.hours.at(then) {
            sum.add(sent);
        }
        if then >= self.month.begin {
            self.in_month.add(sent);
        }
    }

    /// Adds what was sent until `now` in the hour that begins at `hour`: nobody knows when, so as if
    /// all of it were as late as can be.
    pub fn add_hour(&mut self, hour: i64, now: i64, sent: Sent) {
        let last = hour + HOUR - 1;
        self.add(last.min(now.max(hour)), sent);
    }

    /// How many messages were sent in the 60 minutes before `now`, and in the rest of the minute
    /// they begin in.
    pub fn hour(&mut self, now: i64) -> u64 {
        self.advance(now);
        let sum = |sum: u64, messages: &u64| sum.saturating_add(*messages);
        self.minutes.sums.iter().fold(0, sum)
    }

    /// What was sent in the 24 hours before `now`, and in the rest of the hour they begin in.
    pub fn day(&mut self, now: i64) -> Sent {
        self.advance(now);
        let mut sum = Sent::default();
        for sent in &self.hours.sums {
            sum.add(*sent);
        }
        sum
    }

    /// What was sent in the calendar month.
    pub fn month(&mut self, now: i64) -> Sent {
        self.advance(now);
        self.in_month
    }

    fn advance(&mut self, now: i64) {
        self.minutes.advance(now);
        self.hours.advance(now);
        if now >= self.month.end {
            self.month = Month::of(now);
            self.in_month = Sent::default();
        }
    }
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
    fn the_hour_slides_by_the_minute() {
        let begin = at("2026-11-25T10:59:00Z");
        let mut window = Window::new(begin);
        window.add(begin + MINUTE / 2, messages(60));
        window.add(begin + MINUTE, messages(1));
        assert_eq!(window.hour(begin + MINUTE), 61);
        assert_eq!(window.hour(begin + HOUR + MINUTE - 1), 61);
        assert_eq!(window.hour(begin + HOUR + MINUTE), 1);
        assert_eq!(window.hour(begin + HOUR + 2 * MINUTE), 0);
    }

    #[test]
    fn the_day_slides_by_the_hour_over_midnight() {
        let begin = at("2026-11-25T23:00:00Z");
        let mut window = Window::new(begin);
        window.add(begin, messages(24));
        window.add(begin + HOUR, messages(1));
        assert_eq!(window.day(begin + HOUR), messages(25));
        assert_eq!(window.day(begin + 25 * HOUR - 1), messages(25));
        assert_eq!(window.day(begin + 25 * HOUR), messages(1));
        assert_eq!(window.day(begin + 26 * HOUR), messages(0));
        assert_eq!(window.hour(begin + 26 * HOUR), 0);
    }

    /// Sends whenever `used` leaves room, at times a little more than `step` apart, and returns the
    /// most there was in any `span`.
    fn most_in(span: i64, step: i64, limit: u64, used: fn(&mut Window, i64) -> u64) -> u64 {
        let begin = at("2026-11-25T10:17:23.456Z");
        let mut window = Window::new(begin);
        let (mut sent, mut most) = (std::collections::VecDeque::new(), 0);
        let mut now = begin;
        // Pauses of every length up to two spans, and then all at once.
        for round in 0..60 {
            now += round * span / 30;
            for _ in 0..span / step {
                while used(&mut window, now) < limit {
                    window.add(now, messages(1));
                    sent.push_back(now);
                }
                while sent.front().is_some_and(|first| *first <= now - span) {
                    sent.pop_front();
                }
                most = most.max(sent.len() as u64);
                now += step + 7;
            }
        }
        most
    }

    #[test]
    fn no_span_has_more_than_its_limit() {
        let hour = most_in(HOUR, 20_000, 50, Window::hour);
        let day = |window: &mut Window, now| window.day(now).messages;
        assert_eq!((hour, most_in(24 * HOUR, HOUR / 4, 50, day)), (50, 50));
    }

    #[test]
    fn an_hour_from_the_store_counts_until_all_of_it_has_passed() {
        let now = at("2026-11-25T11:20:30Z");
        let mut window = Window::new(now);
        window.add_hour(at("2026-11-25T09:00:00Z"), now, messages(100));
        window.add_hour(at("2026-11-25T10:00:00Z"), now, messages(10));
        window.add_hour(at("2026-11-25T11:00:00Z"), now, messages(1));
        assert_eq!(window.hour(now), 11);
        assert_eq!(window.day(now), messages(111));
        assert_eq!(window.hour(at("2026-11-25T11:59:59.999Z")), 11);
        assert_eq!(window.hour(at("2026-11-25T12:00:00Z")), 1);
        assert_eq!(window.hour(at("2026-11-25T12:20:59.999Z")), 1);
        assert_eq!(window.hour(at("2026-11-25T12:21:00Z")), 0);
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
        assert_eq!(window.hour(begin - 3 * HOUR), 5);
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
