//! The clocks: the only room that reads the time of day.
//!
//! The wall clock may jump: an administrator sets the clock, NTP steps it, a machine without a
//! battery starts in the past. The steady clock counts elapsed time and never jumps. Durations and
//! limits run on the steady clock. The wall clock labels stored rows and decides the calendar.

mod frames;
mod span;

#[cfg(test)]
pub mod driven;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

pub use self::frames::Frames;
pub use self::span::{ahead, span};

/// The last Unix millisecond that the room reports, a year before the calendar's end: the year
/// leaves room for durations added by callers.
const LAST: i64 = 253_370_764_799_999;

/// A smaller difference between the clocks is not a step, in milliseconds.
const STEP: i64 = 2_000;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The steady clock in microseconds. Its zero is chosen so that both clocks agree at the first
    /// reading of the process.
    pub steady_us: i64,
    /// The wall clock in Unix milliseconds.
    pub wall: i64,
}

impl Moment {
    /// Reads both clocks and detects a step of the wall clock.
    pub fn now() -> Self {
        with(Clock::observe)
    }

    /// Returns the steady clock in milliseconds.
    pub fn steady(self) -> i64 {
        self.steady_us.div_euclid(1_000)
    }

    /// Returns how far the wall clock is ahead of the steady clock, in milliseconds.
    pub fn offset(self) -> i64 {
        self.wall.saturating_sub(self.steady())
    }
}

/// Returns the wall clock in Unix milliseconds.
pub fn now_ms() -> i64 {
    Moment::now().wall
}

pub fn now() -> Timestamp {
    Timestamp::from_millisecond(now_ms()).unwrap_or(Timestamp::MAX)
}

/// Returns the steady clock in milliseconds, for durations.
pub fn steady_ms() -> i64 {
    with(|clock| clock.source.steady_us()).div_euclid(1_000)
}

/// Converts a steady millisecond to a Unix millisecond by the current wall clock.
pub fn wall_of(steady: i64) -> i64 {
    steady.saturating_add(Moment::now().offset())
}

/// Returns how far the wall clock was ahead of the steady clock when the wall clock showed `wall`.
/// The latest of several such moments counts; without any, the current offset.
pub fn offset_at(wall: i64) -> i64 {
    let now = Moment::now();
    with(|clock| clock.frames().offset_at(wall, now))
}

/// Returns the earliest possible present in Unix milliseconds, by every known offset since boot.
/// Rows are deleted for their age only by this time.
pub fn earliest_ms() -> i64 {
    let now = Moment::now();
    with(|clock| clock.frames().earliest(now))
}

/// Returns the number of wall clock steps. After a change, callers reread stored labels.
pub fn steps() -> u64 {
    Moment::now();
    with(|clock| clock.steps.load(Ordering::Acquire))
}

/// Returns the known offsets between the clocks.
pub fn frames() -> Frames {
    Moment::now();
    with(|clock| clock.frames().clone())
}

/// Restores the output of [`record`] from an earlier process. A record of another boot has no
/// effect, because the steady clock started again.
pub fn follow(record: &str) {
    let now = Moment::now();
    with(|clock| {
        let source = &clock.source;
        let known = frames::parse(record, &source.boot(), source.base(), now);
        let offset = clock.frames().learn(known);
        clock.offset.store(offset, Ordering::Release);
    });
}

/// Returns the record for [`follow`] in the next process.
pub fn record() -> String {
    let now = Moment::now();
    with(|clock| {
        clock
            .frames()
            .write(&clock.source.boot(), clock.source.base(), now)
    })
}

struct Clock {
    source: Source,
    frames: Mutex<Frames>,
    /// The offset of the current frame.
    offset: AtomicI64,
    steps: AtomicU64,
}

impl Clock {
    fn new(source: Source) -> Self {
        let now = source.read();
        Self {
            source,
            frames: Mutex::new(Frames::beginning(now)),
            offset: AtomicI64::new(now.offset()),
            steps: AtomicU64::new(0),
        }
    }

    fn observe(&self) -> Moment {
        let now = self.source.read();
        let is_step = |offset: i64| now.offset().abs_diff(offset) > STEP.unsigned_abs();
        if is_step(self.offset.load(Ordering::Acquire)) {
            let mut frames = self.frames();
            // Another thread may have recorded the same step.
            if is_step(self.offset.load(Ordering::Acquire)) {
                let offset = frames.step(now);
                let before = self.offset.swap(offset, Ordering::AcqRel);
                self.steps.fetch_add(1, Ordering::AcqRel);
                drop(frames);
                let seconds = offset.saturating_sub(before) / 1_000;
                tracing::warn!(
                    target: "gatepost::clock",
                    seconds,
                    "the wall clock was stepped; limits and bans go on by the time that passes"
                );
            }
        }
        now
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The source of both clocks.
struct Source {
    /// The difference between the steady clock and the time since boot, in microseconds.
    base_us: i64,
    hands: Hands,
}

enum Hands {
    /// The kernel's clocks with its boot id, or an empty id.
    System(String),
    #[cfg(test)]
    Driven(std::sync::Arc<driven::Hands>),
}

impl Source {
    fn new(hands: Hands) -> Self {
        let mut source = Self { base_us: 0, hands };
        let wall_us = source.wall().saturating_mul(1_000);
        source.base_us = wall_us.saturating_sub(source.since_boot_us());
        source
    }

    fn system() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self::new(Hands::System(boot.unwrap_or_default().trim().to_owned()))
    }

    fn read(&self) -> Moment {
        Moment {
            steady_us: self.steady_us(),
            wall: self.wall(),
        }
    }

    fn steady_us(&self) -> i64 {
        self.since_boot_us().saturating_add(self.base_us)
    }

    fn wall(&self) -> i64 {
        match &self.hands {
            Hands::System(_) => system_wall(),
            #[cfg(test)]
            Hands::Driven(hands) => hands.wall(),
        }
    }

    fn since_boot_us(&self) -> i64 {
        match &self.hands {
            Hands::System(_) => since_boot_us(),
            #[cfg(test)]
            Hands::Driven(hands) => hands.since_boot_us(),
        }
    }

    fn boot(&self) -> String {
        match &self.hands {
            Hands::System(boot) => boot.clone(),
            #[cfg(test)]
            Hands::Driven(hands) => hands.boot(),
        }
    }

    fn base(&self) -> i64 {
        self.base_us.div_euclid(1_000)
    }
}

fn system_wall() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks for the time of day"
    )]
    let now = std::time::SystemTime::now();
    let since_1970 = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_1970.as_millis()).map_or(LAST, |wall| wall.min(LAST))
}

/// Includes the time in which the machine is suspended.
fn since_boot_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds: i64 = now.tv_sec.saturating_mul(1_000_000);
    seconds.saturating_add(now.tv_nsec / 1_000)
}

static SYSTEM: LazyLock<Clock> = LazyLock::new(|| Clock::new(Source::system()));

#[cfg(not(test))]
fn with<T>(work: impl FnOnce(&Clock) -> T) -> T {
    work(&SYSTEM)
}

/// A test may drive the clocks of its own thread.
#[cfg(test)]
fn with<T>(work: impl FnOnce(&Clock) -> T) -> T {
    match driven::current() {
        Some(clock) => work(&clock),
        None => work(&SYSTEM),
    }
}
