//! The penalty of failed logins. Pure: the caller passes the time, in milliseconds of the steady
//! clock, so a step of the wall clock neither ends nor prolongs a ban.

use std::time::Duration;

/// Milliseconds until one point is forgotten.
const LEAK: i64 = 60_000;

/// Scores are kept in fifths of a point, the weight of noise.
const POINT: u32 = 5;

/// A client with this score is banned.
pub(crate) const CLIENT_BAN: f64 = 10.0;
/// Logins from a network with this score are barred.
pub(crate) const NETWORK_BAN: f64 = 30.0;
/// Rejections of a client with this score are delayed more and more.
const CLIENT_SLOW: f64 = 5.0;
/// Rejections of a network with this score are delayed more.
const NETWORK_SLOW: f64 = 15.0;
/// The factor by which a client may fail more at a credential that was used from there before.
pub(crate) const LENIENCE: f64 = 10.0;

/// The highest score; forgotten in less than two hours.
const CEILING: f64 = CLIENT_BAN * LENIENCE;

/// The length of the first ban; each further ban is twice as long.
const BAN: i64 = 15 * 60_000;
/// The longest ban. After as long without a ban, the next ban counts as the first.
const LONGEST: i64 = 24 * HOUR;
const HOUR: i64 = 3_600_000;

/// The number of different failures remembered.
const REMEMBERED: usize = 16;
/// A repeated failure counts once in so many hours.
const REPEATED: u16 = 24;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// A wrong username and password; the mark stands for the pair.
    Guess(u32),
    /// A forgotten device: the right password of a credential that may not log in, or a password
    /// from before a rotation.
    Benign,
    /// Anything that is no login.
    Noise,
}

/// The failures of a client or a network.
#[derive(Clone, Debug)]
pub(crate) struct Penalty {
    fifths: u32,
    /// The time of the score. Failures keep the second of the minute, so that points are forgotten
    /// by full minutes.
    at: i64,
    banned_until: i64,
    marks: [u32; REMEMBERED],
    /// The hour of each mark since 1970, modulo 2^16.
    hours: [u16; REMEMBERED],
    next: u8,
    bans: u8,
    /// Whether the penalty has changed since the last write.
    pub(crate) unwritten: bool,
}

impl Penalty {
    pub(crate) fn new(now: i64) -> Self {
        Self {
            fifths: 0,
            at: now,
            banned_until: 0,
            marks: [0; REMEMBERED],
            // Older than any repetition that counts.
            hours: [hour(now).wrapping_sub(REPEATED); REMEMBERED],
            next: 0,
            bans: 0,
            unwritten: false,
        }
    }

    pub(crate) fn stored(score: f64, at: i64, bans: u8, banned_until: Option<i64>) -> Self {
        Self {
            fifths: fifths(score),
            bans,
            banned_until: banned_until.unwrap_or(0),
            ..Self::new(at)
        }
    }

    pub(crate) fn score(&self, now: i64) -> f64 {
        f64::from(self.fifths(now)) / f64::from(POINT)
    }

    fn fifths(&self, now: i64) -> u32 {
        let forgotten = u32::try_from((now - self.at).max(0) / LEAK).unwrap_or(u32::MAX);
        self.fifths.saturating_sub(forgotten.saturating_mul(POINT))
    }

    /// The end of the present ban.
    pub(crate) fn banned_until(&self, now: i64) -> Option<i64> {
        (now < self.banned_until).then_some(self.banned_until)
    }

    /// The end of the last ban, present or past.
    pub(crate) fn last_ban(&self) -> Option<i64> {
        (self.banned_until != 0).then_some(self.banned_until)
    }

    /// The number of bans in a row.
    pub(crate) fn bans(&self) -> u8 {
        self.bans
    }

    /// The time of the last counted failure, to the minute.
    pub(crate) fn at(&self) -> i64 {
        self.at
    }

    /// Whether nothing is left to know: no score, no ban that the next would follow, and no mark.
    pub(crate) fn is_forgotten(&self, now: i64) -> bool {
        let last = self.at.max(self.banned_until);
        self.score(now) == 0.0 && now > last.saturating_add(LONGEST)
    }

    /// Adds a failure. Returns whether the failure counts.
    pub(crate) fn add(&mut self, failure: Failure, now: i64) -> bool {
        let weight = match failure {
            Failure::Guess(mark) if self.is_new(mark, now) => POINT,
            Failure::Guess(_) | Failure::Benign => 0,
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

    /// Bans at a score of `threshold`. Returns the length of a new ban.
    pub(crate) fn ban(&mut self, threshold: f64, doubling: bool, now: i64) -> Option<Duration> {
        if self.score(now) < threshold || self.banned_until(now).is_some() {
            return None;
        }
        if now > self.banned_until.saturating_add(LONGEST) {
            self.bans = 0;
        }
        self.bans = self.bans.saturating_add(1);
        let length = Self::length(self.bans, doubling);
        // Simultaneous failures do not count after the ban.
        (self.fifths, self.at) = (fifths(threshold), now);
        self.banned_until = now + length;
        self.unwritten = true;
        Some(Duration::from_millis(length.unsigned_abs()))
    }

    /// The length of the last of so many bans in a row, in milliseconds.
    pub(crate) fn length(bans: u8, doubling: bool) -> i64 {
        let times = match doubling {
            true => u32::from(bans.saturating_sub(1)),
            false => 0,
        };
        BAN.saturating_mul(1 << times.min(16)).min(LONGEST)
    }

    /// Whether the mark was not seen lately; remembers the mark.
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

/// The number of refusal delays for a client with this score.
pub(crate) fn slowness(client: f64) -> u32 {
    match client {
        ..CLIENT_SLOW => 1,
        ..6.0 => 2,
        ..7.0 => 4,
        ..8.0 => 8,
        _ => 15,
    }
}

/// The number added for a network with this score.
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
    fn sixteen_failures_are_remembered() {
        let mut penalty = guessed(16);
        let later = NOW + HOUR;
        assert_eq!(scored(&mut penalty, 0, later), 0.0);
        penalty.add(Failure::Guess(99), later);
        // The new mark replaced the oldest.
        assert_eq!(scored(&mut penalty, 0, later), 2.0);
    }

    #[test]
    fn nonsense_counts_a_fifth_and_a_forgotten_device_nothing() {
        let mut penalty = Penalty::new(NOW);
        for _ in 0..10 {
            penalty.add(Failure::Noise, NOW);
            penalty.add(Failure::Benign, NOW);
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
