//! What was sent lately: in the last hour by the minute, in the last 24 by the hour, and in the
//! calendar month.
//!
//! Spans slide by whole minutes and hours. The one that is sliding out counts in full, so that no
//! limit is ever passed.
//!
//! Minutes and hours are those of the steady clock, so a step of the wall clock changes no sum. The
//! wall clock decides only where a calendar month begins and ends, and dates the hours that the
//! store kept.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::{Frames, Moment};
use crate::store::HOUR;

/// The hours of a day, and the one that is sliding out of it.
const HOURS: usize = 25;

/// A minute in milliseconds.
const MINUTE: i64 = 60_000;

/// The minutes of an hour, and the one that is sliding out of it.
const MINUTES: usize = 61;

/// The longest month, in milliseconds.
const LONGEST_MONTH: i64 = 31 * 24 * HOUR;

/// Messages and recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Messages the upstream took.
    pub(crate) messages: u64,
    /// Recipients it took.
    pub(crate) recipients: u64,
}

impl Sent {
    /// Adds another one's numbers.
    pub(crate) fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.recipients = self.recipients.saturating_add(other.recipients);
    }
}

/// Sums by spans of one length, for the newest `N` of them.
#[derive(Clone, Debug)]
struct Ring<T, const N: usize> {
    /// In milliseconds.
    length: i64,
    /// The newest span there is a sum of, by its number; time never goes back behind it.
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

/// The sums of one sender.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Messages; no limit counts the recipients of an hour.
    minutes: Ring<u64, MINUTES>,
    hours: Ring<Sent, HOURS>,
    month: Month,
    in_month: Sent,
    /// Sums from before a step of the wall clock that outlast the present month, or that belong to
    /// one before it, and the steady millisecond until which they count.
    carried: Vec<(i64, Sent)>,
    /// Whether hours of the future were among those that the store kept.
    has_future: bool,
}

impl Window {
    /// Nothing was sent before `now`.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            minutes: Ring::new(MINUTE, now.steady()),
            hours: Ring::new(HOUR, now.steady()),
            month: Month::of(now),
            in_month: Sent::default(),
            carried: Vec::new(),
            has_future: false,
        }
    }

    /// The Unix millisecond since which the sums must be known: the begin of the month, or of the
    /// day that slides.
    pub(crate) fn since(now: Moment, frames: &Frames) -> i64 {
        let day = (now.wall.div_euclid(HOUR) - HOURS as i64 + 1) * HOUR;
        let since = Month::by_wall(now.wall).begin.min(day);
        if frames.is_one() {
            return since;
        }
        // What was sent in the last month may bear the label of any of the wall clock's times.
        let offset = frames.least_offset();
        let month_ago = now.steady().saturating_sub(LONGEST_MONTH);
        since.min(month_ago.saturating_add(offset))
    }

    /// Adds what is sent at `now`.
    pub(crate) fn add(&mut self, now: Moment, sent: Sent) {
        self.advance(now);
        self.add_at(now.steady(), sent);
        self.in_month.add(sent);
    }

    /// Adds what the store has for the hour that began when the wall clock showed `hour`. The store
    /// does not know when in the hour that was, so it counts as late as it can be, and an hour of
    /// the future as this moment.
    pub(crate) fn add_hour(&mut self, hour: i64, sent: Sent, now: Moment, frames: &Frames) {
        self.advance(now);
        let last = hour.saturating_add(HOUR - 1);
        let (mut at, mut counts_until) = (None, i64::MIN);
        for (offset, end) in frames.that_showed(hour..=last, now) {
            let then = last.saturating_sub(offset).min(end);
            at = at.max(Some(then));
            // In a month of its own frame, it counts until that month is really over.
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

    /// Takes over the minutes and hours of a window that was counted in this process, because they
    /// are more exact than those from the store.
    pub(crate) fn keep_spans_of(&mut self, known: &Window) {
        // Hours of the future are dated anew, because the wall clock has changed.
        if !known.has_future {
            self.minutes = known.minutes.clone();
            self.hours = known.hours.clone();
        }
    }

    /// How many messages were sent in the 60 minutes before `now`, and in the rest of the minute
    /// they begin in.
    pub(crate) fn hour(&mut self, now: Moment) -> u64 {
        self.advance(now);
        let sum = |sum: u64, messages: &u64| sum.saturating_add(*messages);
        self.minutes.sums.iter().fold(0, sum)
    }

    /// What was sent in the 24 hours before `now`, and in the rest of the hour they begin in.
    pub(crate) fn day(&mut self, now: Moment) -> Sent {
        self.advance(now);
        let mut sum = Sent::default();
        for sent in &self.hours.sums {
            sum.add(*sent);
        }
        sum
    }

    /// What was sent in the calendar month.
    pub(crate) fn month(&mut self, now: Moment) -> Sent {
        self.advance(now);
        let mut sum = self.in_month;
        for (until, sent) in &self.carried {
            if *until > now.steady() {
                sum.add(*sent);
            }
        }
        sum
    }

    fn add_at(&mut self, then: i64, sent: Sent) {
        if let Some(messages) = self.minutes.at(then) {
            *messages = messages.saturating_add(sent.messages);
        }
        if let Some(sum) = self.hours.at(then) {
            sum.add(sent);
        }
    }

    fn carry(&mut self, until: i64, sent: Sent) {
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
            self.in_month = Sent::default();
            self.carried.retain(|(until, _)| *until > now.steady());
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
    /// The month that it is by the wall clock, in milliseconds of the steady clock.
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
        // Outside the calendar there are no months; a label so wrong has one without end.
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

    fn messages(messages: u64) -> Sent {
        Sent {
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
            // What the store has from before the month is not part of it.
            window.add_hour(at(since) - HOUR, messages(100), now, &frames);
            window.add_hour(at(since), messages(7), now, &frames);
            window.add(now, messages(3));
            drop(clocks);
            assert_eq!(window.month(now), messages(10));
            assert_eq!(window.month(both(at(first))), messages(0));
            window.add(both(at(first)), messages(1));
            assert_eq!(window.month(both(at(first))), messages(1));
        }
        // On the first day of a month the day that slides begins in the one before.
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
