//! Sums of sent mail: over the last hour by the minute, over the last 24 hours by the hour, and
//! over the calendar month.
//!
//! Periods slide by whole minutes and hours. The minute or hour that slides out counts in full, so
//! that no limit is ever exceeded.
//!
//! Minutes and hours follow the steady clock, so a step of the wall clock changes no sum. The wall
//! clock only decides where a calendar month begins and ends, and dates the hours in the store.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::{Frames, Moment};
use crate::store::HOUR;

/// A day, and the hour that slides out.
const HOURS: usize = 25;

/// A minute in milliseconds.
const MINUTE: i64 = 60_000;

/// An hour, and the minute that slides out.
const MINUTES: usize = 61;

/// The longest month, in milliseconds.
const LONGEST_MONTH: i64 = 31 * 24 * HOUR;

/// Messages and recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MailCount {
    /// Messages that the upstream accepted.
    pub(crate) messages: u64,
    /// Recipients that the upstream accepted.
    pub(crate) recipients: u64,
}

impl MailCount {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.recipients = self.recipients.saturating_add(other.recipients);
    }
}

/// Sums by periods of one length, for the newest `N` periods.
#[derive(Clone, Debug)]
struct Ring<T, const N: usize> {
    /// In milliseconds.
    length: i64,
    /// The number of the newest period; never decreases.
    newest: i64,
    /// Each at its period's number modulo `N`.
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

    /// The sum of the period of `then`, unless too old.
    fn at(&mut self, then: i64) -> Option<&mut T> {
        let span = then.div_euclid(self.length).min(self.newest);
        let is_kept = span > self.newest - N as i64;
        is_kept.then(|| &mut self.sums[Self::place(span)])
    }

    fn place(span: i64) -> usize {
        // Less than N, so the cast is exact.
        span.rem_euclid(N as i64) as usize
    }
}

/// The sums of one party.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Messages; no limit counts the recipients of an hour.
    minutes: Ring<u64, MINUTES>,
    hours: Ring<MailCount, HOURS>,
    month: Month,
    in_month: MailCount,
    /// Sums from before a step of the wall clock that do not end with the present month, and the
    /// steady millisecond at which each ends.
    carried: Vec<(i64, MailCount)>,
    /// Whether the store had hours in the future.
    has_future: bool,
}

impl Window {
    /// Nothing was sent before `now`.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            minutes: Ring::new(MINUTE, now.steady()),
            hours: Ring::new(HOUR, now.steady()),
            month: Month::of(now),
            in_month: MailCount::default(),
            carried: Vec::new(),
            has_future: false,
        }
    }

    /// The earliest Unix millisecond that the sums need: the begin of the month or of the sliding
    /// day.
    pub(crate) fn since(now: Moment, frames: &Frames) -> i64 {
        let day = (now.wall.div_euclid(HOUR) - HOURS as i64 + 1) * HOUR;
        let since = Month::by_wall(now.wall).begin.min(day);
        if frames.is_one() {
            return since;
        }
        // Mail of the last month may have been dated by any relation of the clocks.
        let offset = frames.least_offset();
        let month_ago = now.steady().saturating_sub(LONGEST_MONTH);
        since.min(month_ago.saturating_add(offset))
    }

    /// Adds mail sent at `now`.
    pub(crate) fn add(&mut self, now: Moment, sent: MailCount) {
        self.advance(now);
        self.add_at(now.steady(), sent);
        self.in_month.add(sent);
    }

    /// Adds the store's sum for the hour of the wall clock that began at `hour`. The time within
    /// the hour is unknown, so the sum counts as late as possible; an hour in the future counts as
    /// now.
    pub(crate) fn add_hour(&mut self, hour: i64, sent: MailCount, now: Moment, frames: &Frames) {
        self.advance(now);
        let last = hour.saturating_add(HOUR - 1);
        let (mut at, mut counts_until) = (None, i64::MIN);
        for (offset, end) in frames.that_showed(hour..=last, now) {
            let then = last.saturating_sub(offset).min(end);
            at = at.max(Some(then));
            // A sum dated by another relation of the clocks counts to the end of the month by that
            // relation.
            let month_ends = Month::by_wall(hour).end.saturating_sub(offset);
            counts_until = counts_until.max(month_ends);
        }
        self.has_future |= at.is_none() && hour > now.wall;
        let at = at.unwrap_or(last.saturating_sub(frames.present()));
        let at = at.min(now.steady());
        self.add_at(at, sent);
        if at >= self.month.begin {
            counts_until = counts_until.max(self.month.end);
        }
        // The two ends differ a little where the wall clock was slewed.
        if (0..MINUTE).contains(&counts_until.saturating_sub(self.month.end)) {
            self.in_month.add(sent);
        } else if counts_until > now.steady() {
            self.carry(counts_until, sent);
        }
    }

    /// Takes minutes and hours from a window counted in this process, which are more exact than
    /// those from the store.
    pub(crate) fn keep_spans_of(&mut self, known: &Window) {
        // Hours of the future are dated anew, because the wall clock has changed.
        if !known.has_future {
            self.minutes = known.minutes.clone();
            self.hours = known.hours.clone();
        }
    }

    /// Messages of the last 60 minutes, and of the rest of the oldest minute.
    pub(crate) fn hour(&mut self, now: Moment) -> u64 {
        self.advance(now);
        let sum = |sum: u64, messages: &u64| sum.saturating_add(*messages);
        self.minutes.sums.iter().fold(0, sum)
    }

    /// Mail of the last 24 hours, and of the rest of the oldest hour.
    pub(crate) fn day(&mut self, now: Moment) -> MailCount {
        self.advance(now);
        let mut sum = MailCount::default();
        for sent in &self.hours.sums {
            sum.add(*sent);
        }
        sum
    }

    /// Mail of the calendar month.
    pub(crate) fn month(&mut self, now: Moment) -> MailCount {
        self.advance(now);
        let mut sum = self.in_month;
        for (until, sent) in &self.carried {
            if *until > now.steady() {
                sum.add(*sent);
            }
        }
        sum
    }

    fn add_at(&mut self, then: i64, sent: MailCount) {
        if let Some(messages) = self.minutes.at(then) {
            *messages = messages.saturating_add(sent.messages);
        }
        if let Some(sum) = self.hours.at(then) {
            sum.add(sent);
        }
    }

    fn carry(&mut self, until: i64, sent: MailCount) {
        match self.carried.iter_mut().find(|(own, _)| *own == until) {
            Some((_, sum)) => sum.add(sent),
            None => self.carried.push((until, sent)),
        }
    }

    fn advance(&mut self, now: Moment) {
        self.minutes.advance(now.steady());
        self.hours.advance(now.steady());
        if now.steady() >= self.month.end {
            self.month = Month::of(now);
            self.in_month = MailCount::default();
            self.carried.retain(|(until, _)| *until > now.steady());
        }
    }
}

/// A calendar month in UTC; `end` is the begin of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Month {
    begin: i64,
    end: i64,
}

impl Month {
    /// The present month by the wall clock, in steady milliseconds.
    fn of(now: Moment) -> Self {
        let month = Self::by_wall(now.wall);
        Self {
            begin: month.begin.saturating_sub(now.offset()),
            end: month.end.saturating_sub(now.offset()),
        }
    }

    /// In Unix milliseconds.
    fn by_wall(wall: i64) -> Self {
        let found = || {
            let now = Timestamp::from_millisecond(wall).ok()?;
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
        // Outside the calendar there are no months; such a time gets a month without end.
        found().unwrap_or(Self {
            begin: i64::MIN,
            end: i64::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, driven::Driven};

    fn at(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// Both clocks show the same.
    fn both(wall: i64) -> Moment {
        Moment {
            steady_us: wall * 1_000,
            wall,
        }
    }

    fn messages(messages: u64) -> MailCount {
        MailCount {
            messages,
            recipients: 2 * messages,
        }
    }

    #[test]
    fn the_hour_slides_by_the_minute() {
        let begin = at("2026-11-25T10:59:00Z");
        let mut window = Window::new(both(begin));
        window.add(both(begin + MINUTE / 2), messages(60));
        window.add(both(begin + MINUTE), messages(1));
        assert_eq!(window.hour(both(begin + MINUTE)), 61);
        assert_eq!(window.hour(both(begin + HOUR + MINUTE - 1)), 61);
        assert_eq!(window.hour(both(begin + HOUR + MINUTE)), 1);
        assert_eq!(window.hour(both(begin + HOUR + 2 * MINUTE)), 0);
    }

    #[test]
    fn the_day_slides_by_the_hour_over_midnight() {
        let begin = at("2026-11-25T23:00:00Z");
        let mut window = Window::new(both(begin));
        window.add(both(begin), messages(24));
        window.add(both(begin + HOUR), messages(1));
        assert_eq!(window.day(both(begin + HOUR)), messages(25));
        assert_eq!(window.day(both(begin + 25 * HOUR - 1)), messages(25));
        assert_eq!(window.day(both(begin + 25 * HOUR)), messages(1));
        assert_eq!(window.day(both(begin + 26 * HOUR)), messages(0));
        assert_eq!(window.hour(both(begin + 26 * HOUR)), 0);
    }

    /// Sends whenever `used` leaves room, at times a little more than `step` apart, and returns the
    /// most there was in any `span`.
    fn most_in(span: i64, step: i64, limit: u64, used: fn(&mut Window, Moment) -> u64) -> u64 {
        let begin = at("2026-11-25T10:17:23.456Z");
        let mut window = Window::new(both(begin));
        let (mut sent, mut most) = (std::collections::VecDeque::new(), 0);
        let mut now = begin;
        // Pauses of every length up to two spans, and then all at once.
        for round in 0..60 {
            now += round * span / 30;
            for _ in 0..span / step {
                while used(&mut window, both(now)) < limit {
                    window.add(both(now), messages(1));
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
        let day = |window: &mut Window, now: Moment| window.day(now).messages;
        assert_eq!((hour, most_in(24 * HOUR, HOUR / 4, 50, day)), (50, 50));
    }

    #[test]
    fn an_hour_from_the_store_counts_until_all_of_it_has_passed() {
        let clocks = Driven::at(at("2026-11-25T08:20:30Z"));
        clocks.pass(3 * HOUR);
        let (now, frames) = (at("2026-11-25T11:20:30Z"), clock::frames());
        let mut window = Window::new(both(now));
        window.add_hour(
            at("2026-11-25T09:00:00Z"),
            messages(100),
            both(now),
            &frames,
        );
        window.add_hour(at("2026-11-25T10:00:00Z"), messages(10), both(now), &frames);
        window.add_hour(at("2026-11-25T11:00:00Z"), messages(1), both(now), &frames);
        assert_eq!(window.hour(both(now)), 11);
        assert_eq!(window.day(both(now)), messages(111));
        assert_eq!(window.hour(both(at("2026-11-25T11:59:59.999Z"))), 11);
        assert_eq!(window.hour(both(at("2026-11-25T12:00:00Z"))), 1);
        assert_eq!(window.hour(both(at("2026-11-25T12:20:59.999Z"))), 1);
        assert_eq!(window.hour(both(at("2026-11-25T12:21:00Z"))), 0);
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
            let clocks = Driven::at(at(last));
            let (now, frames) = (both(at(last)), clock::frames());
            let mut window = Window::new(now);
            assert_eq!(Window::since(now, &frames), at(since));
            // Usage from before the month is no part of the month.
            window.add_hour(at(since) - HOUR, messages(100), now, &frames);
            window.add_hour(at(since), messages(7), now, &frames);
            window.add(now, messages(3));
            drop(clocks);
            assert_eq!(window.month(now), messages(10));
            assert_eq!(window.month(both(at(first))), messages(0));
            window.add(both(at(first)), messages(1));
            assert_eq!(window.month(both(at(first))), messages(1));
        }
        // On the first day of a month the sliding day begins in the last month.
        let first = both(at("2026-12-01T02:00:00Z"));
        let since = Window::since(first, &clock::frames());
        assert_eq!(since, at("2026-11-30T02:00:00Z"));
    }

    #[test]
    fn a_stepped_wall_clock_changes_no_sum_of_minutes_and_hours() {
        let begin = at("2026-11-25T10:00:00Z");
        for step in [-40 * 24 * HOUR, -2 * HOUR, 2 * HOUR, 40 * 24 * HOUR] {
            let mut window = Window::new(both(begin));
            window.add(both(begin), messages(5));
            let after = |passed: i64| Moment {
                steady_us: (begin + passed) * 1_000,
                wall: begin + passed + step,
            };
            window.add(after(MINUTE), messages(1));
            assert_eq!(window.hour(after(MINUTE)), 6, "{step}");
            assert_eq!(window.day(after(MINUTE)), messages(6), "{step}");
            assert_eq!(window.hour(after(HOUR + 2 * MINUTE)), 0, "{step}");
            assert_eq!(window.day(after(26 * HOUR)), messages(0), "{step}");
        }
    }

    #[test]
    fn a_long_pause_empties_every_hour() {
        let begin = at("2026-11-05T10:00:00Z");
        let mut window = Window::new(both(begin));
        for hour in 0..30 {
            window.add(both(begin + hour * HOUR), messages(1));
        }
        let later = begin + 300 * HOUR;
        assert_eq!(
            (window.day(both(later)), window.month(both(later))),
            (messages(0), messages(30))
        );
    }
}
