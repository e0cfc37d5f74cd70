//! The counter of one credential or organization: the sums sent, and the reservations.

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Moment;
use crate::policy::{Ceilings, Limit};

use super::bucket::Bucket;
use super::window::{MailCount, Window};

/// A reached limit and its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitReached {
    pub(crate) limit: Limit,
    pub(crate) ceiling: u64,
}

/// The effect of a reached limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    /// Reserve nothing.
    Reject,
    /// Report, and reserve all the same.
    Report,
}

/// The messages of one of the periods that limits count.
type Sum = fn(&mut Window, Moment) -> u64;

/// The counter of one party, shared by all its sessions.
#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bucket: Bucket,
    sessions: u64,
    /// Reservations without an answer or a note; count as sent until released.
    reserved: MailCount,
    /// The total noted here, to bridge the time in which the history is read.
    noted: MailCount,
    /// The history, read from the store at the first need.
    window: Option<Box<Window>>,
    /// The number of wall clock steps at that read.
    steps: u64,
}

impl Counter {
    /// Reserves a message, unless a limit is reached and rejects.
    pub(crate) fn take_message(
        &self,
        ceilings: &Ceilings,
        now: Moment,
        mode: Enforcement,
    ) -> Option<LimitReached> {
        let mut state = self.lock();
        let over = state.message_over(ceilings, now);
        if over.is_none() || mode == Enforcement::Report {
            state.reserved.messages += 1;
        }
        over
    }

    /// Reserves a recipient in the same way.
    pub(crate) fn take_recipient(
        &self,
        ceilings: &Ceilings,
        now: Moment,
        mode: Enforcement,
    ) -> Option<LimitReached> {
        let mut state = self.lock();
        let over = state.recipient_over(ceilings, now);
        if over.is_none() || mode == Enforcement::Report {
            state.reserved.recipients += 1;
        }
        over
    }

    /// Reserves a session in the same way.
    pub(crate) fn take_session(
        &self,
        ceilings: &Ceilings,
        mode: Enforcement,
    ) -> Option<LimitReached> {
        let mut state = self.lock();
        let over = over(ceilings, Limit::Sessions, state.sessions);
        if over.is_none() || mode == Enforcement::Report {
            state.sessions += 1;
        }
        over
    }

    /// Releases a session.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.sessions = state.sessions.saturating_sub(1);
    }

    /// Releases reservations that were not sent.
    pub(crate) fn release(&self, taken: MailCount) {
        self.lock().release(taken);
    }

    /// Releases a message that another limit rejects, also in the bucket of the second. With `over`
    /// the message had no place in the bucket.
    pub(crate) fn withdraw_message(&self, ceilings: &Ceilings, over: Option<LimitReached>) {
        let mut state = self.lock();
        state.release(MailCount {
            messages: 1,
            recipients: 0,
        });
        let per_second = ceilings.get(Limit::MessagesPerSecond);
        if let Some(per_second) = per_second.filter(|_| over.is_none()) {
            state.bucket.put_back(per_second);
        }
    }

    /// Whether the history is known, and dated after so many steps of the wall clock.
    pub(crate) fn is_known(&self, steps: u64) -> bool {
        let state = self.lock();
        state.window.is_some() && state.steps == steps
    }

    /// Runs `work` while no mail is noted, and returns the total noted before.
    pub(crate) fn settled<T>(&self, work: impl FnOnce() -> T) -> (MailCount, T) {
        let state = self.lock();
        (state.noted, work())
    }

    /// Sets the history: `window`, and the mail noted since `noted`. After a step of the wall clock
    /// the new history replaces the old.
    pub(crate) fn set_history(
        &self,
        mut window: Window,
        noted: MailCount,
        now: Moment,
        steps: u64,
    ) {
        let mut state = self.lock();
        let since = MailCount {
            messages: state.noted.messages.saturating_sub(noted.messages),
            recipients: state.noted.recipients.saturating_sub(noted.recipients),
        };
        window.add(now, since);
        if let Some(known) = &state.window {
            if state.steps == steps {
                return; // Another session was first.
            }
            window.keep_spans_of(known);
        }
        state.window = Some(Box::new(window));
        state.steps = steps;
    }

    /// The use of a limit, if the limit counts over time.
    pub(crate) fn used(&self, limit: Limit, ceilings: &Ceilings, now: Moment) -> Option<u64> {
        let mut state = self.lock();
        let (messages, recipients) = (state.reserved.messages, state.reserved.recipients);
        match limit {
            Limit::MessageSize | Limit::RecipientsPerMessage => None,
            Limit::Sessions => Some(state.sessions),
            Limit::MessagesPerSecond => {
                let per_second = ceilings.get(limit)?;
                Some(state.bucket.taken(now.steady_us, per_second))
            }
            Limit::MessagesPerHour => Some(state.window.as_mut()?.hour(now) + messages),
            Limit::MessagesPerDay => Some(state.window.as_mut()?.day(now).messages + messages),
            Limit::MessagesPerMonth => Some(state.window.as_mut()?.month(now).messages + messages),
            Limit::RecipientsPerDay => {
                Some(state.window.as_mut()?.day(now).recipients + recipients)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// Notes sent mail with both parties, and releases the reservations `taken`. `record` keeps the
/// mail for the next start under both locks, so that no reader sees only one of the two.
pub(crate) fn note(
    both: [&Counter; 2],
    now: Moment,
    sent: MailCount,
    taken: MailCount,
    record: impl FnOnce(),
) {
    // The credential before its organization, always: no two threads wait for each other.
    let [first, second] = both;
    let mut states = [first.lock(), second.lock()];
    for state in &mut states {
        state.release(taken);
        state.noted.add(sent);
        if let Some(window) = &mut state.window {
            window.add(now, sent);
        }
    }
    record();
}

impl State {
    fn release(&mut self, taken: MailCount) {
        let reserved = &mut self.reserved;
        reserved.messages = reserved.messages.saturating_sub(taken.messages);
        reserved.recipients = reserved.recipients.saturating_sub(taken.recipients);
    }

    fn message_over(&mut self, ceilings: &Ceilings, now: Moment) -> Option<LimitReached> {
        let reserved = self.reserved.messages;
        if let Some(window) = &mut self.window {
            let sums: [(Limit, Sum); 3] = [
                (Limit::MessagesPerMonth, |window, now| {
                    window.month(now).messages
                }),
                (Limit::MessagesPerDay, |window, now| {
                    window.day(now).messages
                }),
                (Limit::MessagesPerHour, Window::hour),
            ];
            for (limit, sum) in sums {
                // Sums only for limits that exist.
                if ceilings.get(limit).is_some() {
                    let used = sum(window, now) + reserved;
                    if let Some(over) = over(ceilings, limit, used) {
                        return Some(over);
                    }
                }
            }
        }
        // Last, because the bucket is changed.
        let limit = Limit::MessagesPerSecond;
        let ceiling = ceilings.get(limit)?;
        let takes = self.bucket.take(now.steady_us, ceiling);
        (!takes).then_some(LimitReached { limit, ceiling })
    }

    fn recipient_over(&mut self, ceilings: &Ceilings, now: Moment) -> Option<LimitReached> {
        let limit = Limit::RecipientsPerDay;
        ceilings.get(limit)?;
        let window = self.window.as_mut()?;
        let used = window.day(now).recipients + self.reserved.recipients;
        over(ceilings, limit, used)
    }
}

fn over(ceilings: &Ceilings, limit: Limit, used: u64) -> Option<LimitReached> {
    let ceiling = ceilings.get(limit)?;
    (used >= ceiling).then_some(LimitReached { limit, ceiling })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Limits, Setting};

    fn ceilings(limits: &[(Limit, u64)]) -> Ceilings {
        let mut set = Limits::default();
        for (limit, number) in limits {
            set.set(*limit, Some(Setting::Number(*number)));
        }
        set.over(&Limits::default())
    }

    fn moment(seconds: i64) -> Moment {
        let wall = 1_795_000_000_000 + seconds * 1_000;
        Moment {
            steady_us: wall * 1_000,
            wall,
        }
    }

    fn known(now: Moment) -> Counter {
        let counter = Counter::default();
        counter.set_history(Window::new(now), MailCount::default(), now, 0);
        counter
    }

    const ONE: MailCount = MailCount {
        messages: 1,
        recipients: 0,
    };

    #[test]
    fn what_is_under_way_counts_as_sent_until_it_fails() {
        let now = moment(0);
        let counter = known(now);
        let two = ceilings(&[(Limit::MessagesPerDay, 2)]);
        let take = || counter.take_message(&two, now, Enforcement::Reject);
        assert_eq!((take(), take()), (None, None));
        let over = LimitReached {
            limit: Limit::MessagesPerDay,
            ceiling: 2,
        };
        assert_eq!(take(), Some(over));
        counter.release(ONE);
        assert_eq!(take(), None);
        note([&counter, &Counter::default()], now, ONE, ONE, || ());
        assert_eq!(take(), Some(over));
        assert_eq!(counter.used(Limit::MessagesPerDay, &two, now), Some(2));
        // Only reported: the message is taken and counts.
        assert_eq!(
            counter.take_message(&two, now, Enforcement::Report),
            Some(over)
        );
        assert_eq!(counter.used(Limit::MessagesPerDay, &two, now), Some(3));
    }

    #[test]
    fn what_is_noted_while_the_history_is_read_counts_once() {
        let now = moment(0);
        let counter = Counter::default();
        note([&counter, &Counter::default()], now, ONE, ONE, || ());
        let (noted, ()) = counter.settled(|| ());
        note([&counter, &Counter::default()], now, ONE, ONE, || ());
        let mut window = Window::new(now);
        window.add(now, ONE); // the first one, as it was recorded
        counter.set_history(window, noted, now, 0);
        let any = ceilings(&[(Limit::MessagesPerDay, 10)]);
        assert_eq!(counter.used(Limit::MessagesPerDay, &any, now), Some(2));
    }

    #[test]
    fn a_message_that_another_limit_refuses_costs_nothing() {
        let now = moment(0);
        let counter = known(now);
        let one = ceilings(&[(Limit::MessagesPerSecond, 1), (Limit::MessagesPerDay, 1)]);
        assert_eq!(counter.take_message(&one, now, Enforcement::Reject), None);
        counter.withdraw_message(&one, None);
        assert_eq!(counter.take_message(&one, now, Enforcement::Reject), None);
        counter.release(ONE);
        let limit = counter
            .take_message(&one, now, Enforcement::Reject)
            .unwrap();
        assert_eq!(limit.limit, Limit::MessagesPerSecond);
    }

    #[test]
    fn what_was_only_reported_had_no_place_in_the_second() {
        let now = moment(0);
        let counter = known(now);
        let one = ceilings(&[(Limit::MessagesPerSecond, 1)]);
        assert_eq!(counter.take_message(&one, now, Enforcement::Report), None);
        for _ in 0..3 {
            let over = counter.take_message(&one, now, Enforcement::Report);
            assert_eq!(over.map(|over| over.limit), Some(Limit::MessagesPerSecond));
            counter.withdraw_message(&one, over);
        }
        // The day has only the first message, and the second is full as before.
        let day = ceilings(&[(Limit::MessagesPerDay, 10)]);
        assert_eq!(counter.used(Limit::MessagesPerDay, &day, now), Some(1));
        assert_eq!(counter.used(Limit::MessagesPerSecond, &one, now), Some(1));
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let now = moment(0);
        let counter = known(now);
        let hundred = ceilings(&[(Limit::MessagesPerHour, 100)]);
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                let taken = (0..50).filter(|_| {
                    let over = counter.take_message(&hundred, now, Enforcement::Reject);
                    if over.is_none() {
                        note([&counter, &Counter::default()], now, ONE, ONE, || ());
                    }
                    over.is_none()
                });
                taken.count()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 100);
    }
}
