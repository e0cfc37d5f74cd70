//! What failed logins add up to. Pure: the time is passed in, in milliseconds of the steady clock,
//! so a step of the wall clock neither ends a ban nor prolongs it.

use std::time::Duration;

/// How long one point takes to be forgotten.
const LEAK: i64 = 60_000;

/// Scores are kept in fifths of a point, since nonsense counts one.
const POINT: u32 = 5;

/// The score from which a client is banned.
pub(crate) const CLIENT_BAN: f64 = 10.0;
/// The score from which logins from a whole network are barred.
pub(crate) const NETWORK_BAN: f64 = 30.0;
/// The score from which refusals to a client come later and later.
const CLIENT_SLOW: f64 = 5.0;
/// The score from which refusals to a whole network come later.
const NETWORK_SLOW: f64 = 15.0;
/// How much more a client may fail where the credential it claims was used from there before.
pub(crate) const LENIENCE: f64 = 10.0;

/// No score is higher, so that even the worst is forgotten in less than two hours.
const CEILING: f64 = CLIENT_BAN * LENIENCE;

/// How long the first ban lasts; each that follows is twice as long.
const BAN: i64 = 15 * 60_000;
/// No ban is longer, and after as long a time without one, the next is a first one again.
const LONGEST: i64 = 24 * HOUR;
const HOUR: i64 = 3_600_000;

/// How many different failures are told apart.
const REMEMBERED: usize = 16;
/// For how many hours one failure that repeats itself counts as one.
const REPEATED: u16 = 24;

/// One failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// A name and password that are not right; the mark tells such pairs apart.
    Guess(u32),
    /// The right password, of a credential that may not log in. Or the same wrong one as before. That is a device somebody
    /// forgot, and no attack.
    Harmless,
    /// Something that is no login at all.
    Noise,
}

/// What a client or a network has run up.
#[derive(Clone, Debug)]
pub(crate) struct Penalty {
    fifths: u32,
    /// When that was the score. A failure leaves it within the minute, so that a point is forgotten every full one.
    at: i64,
    banned_until: i64,
    marks: [u32; REMEMBERED],
    /// When each mark was set, in hours since 1970, cut short.
    hours: [u16; REMEMBERED],
    next: u8,
    bans: u8,
    /// Whether it has changed since it was last written.
    pub(crate) unwritten: bool,
}

impl Penalty {
    /// Nothing yet.
    pub(crate) fn new(now: i64) -> Self {
        Self {
            fifths: 0,
            at: now,
            banned_until: 0,
            marks: [0; REMEMBERED],
            // Of no time that is near.
            hours: [hour(now).wrapping_sub(REPEATED); REMEMBERED],
            next: 0,
            bans: 0,
            unwritten: false,
        }
    }

    /// As it was stored.
    pub(crate) fn stored(score: f64, at: i64, bans: u8, banned_until: Option<i64>) -> Self {
        Self {
            fifths: fifths(score),
            bans,
            banned_until: banned_until.unwrap_or(0),
            ..Self::new(at)
        }
    }

    /// The score now.
    pub(crate) fn score(&self, now: i64) -> f64 {
        f64::from(self.fifths(now)) / f64::from(POINT)
    }

    fn fifths(&self, now: i64) -> u32 {
        let forgotten = u32::try_from((now - self.at).max(0) / LEAK).unwrap_or(u32::MAX);
        self.fifths.saturating_sub(forgotten.saturating_mul(POINT))
    }

    /// Until when it is banned, if it is.
    pub(crate) fn banned_until(&self, now: i64) -> Option<i64> {
        (now < self.banned_until).then_some(self.banned_until)
    }

    /// When the last ban ends or ended, if there was one.
    pub(crate) fn last_ban(&self) -> Option<i64> {
        (self.banned_until != 0).then_some(self.banned_until)
    }

    /// How many bans there were in a row.
    pub(crate) fn bans(&self) -> u8 {
        self.bans
    }

    /// When a failure last counted, to the minute.
    pub(crate) fn at(&self) -> i64 {
        self.at
    }

    /// Whether nothing is left that would have to be known: no score, no ban in a row with the next, and no mark.
    pub(crate) fn is_forgotten(&self, now: i64) -> bool {
        let last = self.at.max(self.banned_until);
        self.score(now) == 0.0 && now > last.saturating_add(LONGEST)
    }

    /// Takes a failure in. Whether it counts.
    pub(crate) fn add(&mut self, failure: Failure, now: i64) -> bool {
        let weight = match failure {
            Failure::Guess(mark) if self.is_new(mark, now) => POINT,
            Failure::Guess(_) | Failure::Harmless => 0,
            Failure::Noise => 1,
        };
        if weight > 0 {
            let left = self.fifths(now);
            self.fifths = (left + weight).min(fifths(CEILING));
            self.at = if left == 0 {
                now
            } else {
                now - (now - self.at).max(0) % LEAK
            };
            self.unwritten = true;
        }
        weight > 0
    }

    /// Bans it if the score has come to `threshold`. Returns for how long, if this did it.
    pub(crate) fn ban(&mut self, threshold: f64, doubling: bool, now: i64) -> Option<Duration> {
        if self.score(now) < threshold || self.banned_until(now).is_some() {
            return None;
        }
        if now > self.banned_until.saturating_add(LONGEST) {
            self.bans = 0;
        }
        self.bans = self.bans.saturating_add(1);
        let length = Self::length(self.bans, doubling);
        // What came in at the same moment is not held against it when the ban is over.
        (self.fifths, self.at) = (fifths(threshold), now);
        self.banned_until = now + length;
        self.unwritten = true;
        Some(Duration::from_millis(length.unsigned_abs()))
    }

    /// How long the last of so many bans in a row lasts, in milliseconds.
    pub(crate) fn length(bans: u8, doubling: bool) -> i64 {
        let times = match doubling {
            true => u32::from(bans.saturating_sub(1)),
            false => 0,
        };
        BAN.saturating_mul(1 << times.min(16)).min(LONGEST)
    }

    /// Whether this has not been seen lately; from now on it has.
    fn is_new(&mut self, mark: u32, now: i64) -> bool {
        let hour = hour(now);
        let recent = |at: u16| hour.wrapping_sub(at) < REPEATED;
        let seen = self.marks.iter().zip(&self.hours);
        if seen
            .into_iter()
            .any(|(known, at)| *known == mark && recent(*at))
        {
            return false;
        }
        let place = usize::from(self.next) % REMEMBERED;
        (self.marks[place], self.hours[place]) = (mark, hour);
        self.next = self.next.wrapping_add(1);
        true
    }
}

fn fifths(score: f64) -> u32 {
    (score.clamp(0.0, CEILING) * f64::from(POINT)).round() as u32
}

/// Hours since 1970; wraps around after seven years.
fn hour(now: i64) -> u16 {
    now.div_euclid(HOUR) as u16
}

/// How many times later than usual a refusal comes to a client with this score.
pub(crate) fn slowness(client: f64) -> u32 {
    match client {
        ..CLIENT_SLOW => 1,
        ..6.0 => 2,
        ..7.0 => 4,
        ..8.0 => 8,
        _ => 15,
    }
}

/// How much is added to that where the whole network has this score.
pub(crate) fn slowness_of_network(network: f64) -> u32 {
    if network < NETWORK_SLOW { 0 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const NOW: i64 = 1_800_000_000_000;

    fn scored(penalty: &mut Penalty, mark: u32, now: i64) -> f64 {
        penalty.add(Failure::Guess(mark), now);
        penalty.score(now)
    }

    /// After so many different guesses at once.
    fn guessed(times: u32) -> Penalty {
        let mut penalty = Penalty::new(NOW);
        for mark in 0..times {
            penalty.add(Failure::Guess(mark), NOW);
        }
        penalty
    }

    #[test]
    fn a_point_is_forgotten_in_a_minute() {
        let mut penalty = guessed(3);
        assert_eq!(penalty.score(NOW), 3.0);
        assert_eq!(penalty.score(NOW + MINUTE), 2.0);
        assert_eq!(penalty.score(NOW + 119_999), 2.0);
        assert_eq!(scored(&mut penalty, 9, NOW + MINUTE), 3.0);
        assert_eq!(penalty.score(NOW + 5 * MINUTE), 0.0);
        // A clock that goes back forgives nothing and adds nothing.
        assert_eq!(penalty.score(NOW - MINUTE), 3.0);
    }

    #[test]
    fn what_is_repeated_counts_once_a_day() {
        let mut penalty = Penalty::new(NOW);
        for _ in 0..1000 {
            penalty.add(Failure::Guess(7), NOW);
        }
        assert_eq!(penalty.score(NOW), 1.0);
        assert_eq!(scored(&mut penalty, 7, NOW + 23 * HOUR), 0.0);
        assert_eq!(scored(&mut penalty, 7, NOW + 24 * HOUR), 1.0);
    }

    #[test]
    fn sixteen_failures_are_told_apart() {
        let mut penalty = guessed(16);
        let later = NOW + HOUR;
        assert_eq!(scored(&mut penalty, 0, later), 0.0);
        penalty.add(Failure::Guess(99), later);
        // It took the place of the oldest.
        assert_eq!(scored(&mut penalty, 0, later), 2.0);
    }

    #[test]
    fn nonsense_counts_a_fifth_and_a_forgotten_device_nothing() {
        let mut penalty = Penalty::new(NOW);
        for _ in 0..10 {
            penalty.add(Failure::Noise, NOW);
            penalty.add(Failure::Harmless, NOW);
        }
        assert!((penalty.score(NOW) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn refusals_come_later_and_later() {
        let by_score = [0.0, 4.9, 5.0, 6.0, 7.0, 8.0, 9.0, 50.0].map(slowness);
        assert_eq!(by_score, [1, 1, 2, 4, 8, 15, 15, 15]);
        assert_eq!([14.9, 15.0].map(slowness_of_network), [0, 2]);
    }

    #[test]
    fn bans_begin_at_the_threshold_and_double_up_to_a_day() {
        assert_eq!(guessed(9).ban(CLIENT_BAN, true, NOW), None);
        let mut penalty = guessed(26);
        let mut now = NOW;
        let mut minutes = Vec::new();
        for round in 1..=9 {
            let length = penalty.ban(CLIENT_BAN, true, now).unwrap();
            minutes.push(length.as_secs() / 60);
            assert_eq!(penalty.ban(CLIENT_BAN, true, now), None, "once");
            assert!(penalty.banned_until(now).is_some());
            now += i64::try_from(length.as_millis()).unwrap();
            assert_eq!(penalty.banned_until(now), None);
            assert_eq!(penalty.score(now), 0.0, "all is served");
            for mark in 0..10 {
                penalty.add(Failure::Guess(round * 100 + mark), now);
            }
        }
        assert_eq!(minutes, [15, 30, 60, 120, 240, 480, 960, 1440, 1440]);
    }

    #[test]
    fn a_day_without_a_ban_begins_anew() {
        let mut penalty = guessed(10);
        penalty.ban(CLIENT_BAN, true, NOW);
        let later = NOW + BAN + LONGEST + 1;
        assert!(!penalty.is_forgotten(NOW + BAN) && penalty.is_forgotten(later));
        for mark in 50..60 {
            penalty.add(Failure::Guess(mark), later);
        }
        let length = penalty.ban(CLIENT_BAN, true, later).unwrap();
        assert_eq!((length.as_secs(), penalty.bans()), (900, 1));
    }

    #[test]
    fn a_networks_ban_does_not_grow_and_no_score_is_endless() {
        let mut penalty = guessed(1000);
        assert_eq!(penalty.score(NOW), CEILING);
        for start in [NOW, NOW + BAN] {
            for mark in 0..30 {
                penalty.add(Failure::Guess(5000 + mark + start as u32), start);
            }
            assert_eq!(
                penalty.ban(NETWORK_BAN, false, start),
                Some(Duration::from_secs(900))
            );
        }
    }
}
