//! The history of the offset between the wall clock and the steady clock, used to date rows that
//! were labelled while the wall clock was wrong.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::{Moment, STEP};

/// How long an ended frame is kept, in milliseconds. No limit looks back further than a calendar
/// month.
const KEPT: i64 = 32 * 24 * 3_600_000;

/// The limit of kept frames; the latest stay.
const MOST: usize = 64;

const HEAD: &str = "gatepost clock 1";

/// A period with a constant offset between the clocks, in milliseconds of the steady clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    since: i64,
    until: i64,
    /// How far the wall clock was ahead.
    offset: i64,
}

/// The known frames since the machine started; the last frame is current. More than a single frame
/// means that the wall clock was stepped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames(Vec<Frame>);

impl Frames {
    pub(super) fn beginning(now: Moment) -> Self {
        let (since, until) = (now.steady(), now.steady());
        let offset = now.offset();
        Self(vec![Frame {
            since,
            until,
            offset,
        }])
    }

    /// Whether the wall clock was never stepped.
    pub fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// For each frame in which the wall clock may have shown one of the given Unix milliseconds:
    /// the frame's offset and its last steady millisecond.
    pub fn that_showed(&self, walls: RangeInclusive<i64>, now: Moment) -> Vec<(i64, i64)> {
        let shown = self.0.iter().enumerate().filter_map(|(place, frame)| {
            let until = self.end(place, now);
            let first = frame.since.saturating_add(frame.offset);
            let last = until.saturating_add(frame.offset);
            (first <= *walls.end() && *walls.start() <= last).then_some((frame.offset, until))
        });
        shown.collect()
    }

    /// Returns the smallest known offset.
    pub fn least_offset(&self) -> i64 {
        let offsets = self.0.iter().map(|frame| frame.offset);
        offsets.min().unwrap_or_default()
    }

    pub(super) fn offset_at(&self, wall: i64, now: Moment) -> i64 {
        let shown = self.that_showed(wall..=wall, now).into_iter();
        let offsets = shown.map(|(offset, _)| offset);
        // The smallest offset means the latest moment.
        offsets.min().unwrap_or_else(|| self.present())
    }

    /// Returns the current offset, constant to the millisecond until the next step.
    pub fn present(&self) -> i64 {
        self.0.last().map_or(0, |last| last.offset)
    }

    pub(super) fn earliest(&self, now: Moment) -> i64 {
        now.steady()
            .saturating_add(self.least_offset())
            .min(now.wall)
    }

    /// Records a step of the wall clock. Returns the offset of the current frame.
    pub(super) fn step(&mut self, now: Moment) -> i64 {
        if let Some(last) = self.0.last_mut() {
            last.until = now.steady();
        }
        let offset = now.offset();
        let frame = Frame {
            since: now.steady(),
            until: now.steady(),
            offset,
        };
        self.add(frame);
        self.forget(now.steady());
        self.present()
    }

    /// Adds the frames of an earlier process. Returns the offset of the current frame.
    pub(super) fn learn(&mut self, known: Vec<Frame>) -> i64 {
        let present = self.0.pop();
        for frame in known.into_iter().chain(present) {
            self.add(frame);
        }
        if let Some(present) = present {
            self.forget(present.until);
        }
        self.present()
    }

    /// Adds a frame as the last, merged with an earlier frame of equal offset.
    fn add(&mut self, mut frame: Frame) {
        let is_same = |other: &Frame| other.offset.abs_diff(frame.offset) <= STEP.unsigned_abs();
        if let Some(place) = self.0.iter().position(is_same) {
            let known = self.0.remove(place);
            frame = Frame {
                since: known.since.min(frame.since),
                until: known.until.max(frame.until),
                offset: known.offset,
            };
        }
        self.0.push(frame);
    }

    fn forget(&mut self, now: i64) {
        let oldest = now.saturating_sub(KEPT);
        let last = self.0.len() - 1;
        let mut place = 0;
        self.0.retain(|frame| {
            let is_kept = place == last || frame.until >= oldest;
            place += 1;
            is_kept
        });
        let surplus = self.0.len().saturating_sub(MOST);
        self.0.drain(..surplus);
    }

    fn end(&self, place: usize, now: Moment) -> i64 {
        match place + 1 == self.0.len() {
            true => now.steady(),
            false => self.0[place].until,
        }
    }

    /// Writes the record of the machine's boot, which is `base` on the steady clock.
    pub(super) fn write(&self, boot: &str, base: i64, now: Moment) -> String {
        let mut text = format!("{HEAD}\nboot {boot}\nat {}\n", now.steady() - base);
        for (place, frame) in self.0.iter().enumerate() {
            let (since, until) = (frame.since - base, self.end(place, now) - base);
            let _ = writeln!(text, "frame {since} {until} {}", frame.offset + base);
        }
        text
    }
}

/// Parses the output of [`Frames::write`], perhaps of an earlier process. The boot with the id
/// `boot` is `base` on the steady clock.
pub(super) fn parse(record: &str, boot: &str, base: i64, now: Moment) -> Vec<Frame> {
    read(record, boot, base, now).unwrap_or_default()
}

fn read(record: &str, boot: &str, base: i64, now: Moment) -> Option<Vec<Frame>> {
    let mut lines = record.lines();
    if lines.next()? != HEAD || lines.next()?.strip_prefix("boot ")? != boot {
        return None;
    }
    let at: i64 = lines.next()?.strip_prefix("at ")?.parse().ok()?;
    if at.saturating_add(base) > now.steady() {
        return None; // A different boot: less time has passed since the current boot.
    }
    let mut frames = Vec::new();
    for line in lines.take(MOST) {
        let mut numbers = line.strip_prefix("frame ")?.split(' ');
        let mut number = || numbers.next()?.parse::<i64>().ok();
        let (since, until, offset) = (number()?, number()?, number()?);
        frames.push(Frame {
            since: since.saturating_add(base),
            until: until.saturating_add(base).min(now.steady()),
            offset: offset.saturating_sub(base),
        });
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn moment(steady: i64, wall: i64) -> Moment {
        Moment {
            steady_us: steady * 1_000,
            wall,
        }
    }

    #[test]
    fn wall_time_is_dated_by_its_frame() {
        let mut frames = Frames::beginning(moment(0, 0));
        frames.step(moment(HOUR, 49 * HOUR));
        let now = moment(2 * HOUR, 50 * HOUR);
        // Before the step, after the step, and never: then the current frame counts.
        for (wall, offset) in [
            (HOUR / 2, 0),
            (49 * HOUR + 1, 48 * HOUR),
            (9 * HOUR, 48 * HOUR),
        ] {
            assert_eq!(frames.offset_at(wall, now), offset, "{wall}");
        }
        assert_eq!(frames.earliest(now), 2 * HOUR);
        // Stepped back: the first frame continues, and both are known.
        frames.step(moment(2 * HOUR, 2 * HOUR));
        let now = moment(3 * HOUR, 3 * HOUR);
        assert_eq!(frames.0.len(), 2);
        assert_eq!(frames.offset_at(3 * HOUR - 1, now), 0);
        assert_eq!(frames.offset_at(49 * HOUR + 1, now), 48 * HOUR);
        assert_eq!(frames.that_showed(0..=100 * HOUR, now).len(), 2);
    }

    #[test]
    fn record_counts_within_the_same_boot_only() {
        let mut frames = Frames::beginning(moment(100, 100));
        frames.step(moment(5_000, 5_000 + HOUR));
        let record = frames.write("b", 40, moment(6_000, 6_000 + HOUR));
        // A later process has a different zero, here 1000 more.
        let later = moment(8_000, 8_000 + HOUR - 1_000);
        let mut found = Frames::beginning(later);
        found.learn(parse(&record, "b", 1_040, later));
        assert_eq!(found.offset_at(1_000, later), -1_000);
        assert_eq!(found.offset_at(5_500 + HOUR, later), HOUR - 1_000);
        assert_eq!(found.0.len(), 2);
        for (boot, base, at) in [("c", 1_040, 8_000), ("b", 1_040, 6_999)] {
            assert_eq!(parse(&record, boot, base, moment(at, at)), []);
        }
        for broken in [
            "",
            "gatepost clock 1\nboot b\nat x",
            "gatepost clock 1\nboot b\nat 1\nframe 1 2",
        ] {
            assert_eq!(parse(broken, "b", 0, moment(9, 9)), [], "{broken:?}");
        }
    }

    #[test]
    fn frames_are_bounded() {
        let mut frames = Frames::beginning(moment(0, 0));
        for step in 1..200 {
            frames.step(moment(step, step * HOUR));
        }
        assert_eq!(frames.0.len(), MOST);
        frames.step(moment(2 * KEPT, 0));
        frames.step(moment(4 * KEPT, 9 * HOUR));
        assert_eq!(frames.0.len(), 2, "those that ended long ago are forgotten");
    }
}
