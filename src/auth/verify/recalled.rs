//! Judging by what is remembered.

use std::sync::Arc;

use crate::auth::cache::{Digest, Known, Slot};
use crate::auth::guard::{Attempt, Target};
use crate::clock::Moment;
use crate::sasl::Reason;
use crate::store::Login;

use super::refused::{Proven, Refused};

/// What is remembered of one username, by [`Slot`].
pub(super) struct Recalled {
    known: [Option<Arc<Known>>; 2],
    /// Passwords that the offered one is known not to be.
    ruled_out: [bool; 2],
}

impl Recalled {
    pub(super) fn new(known: [Option<Arc<Known>>; 2]) -> Self {
        Self {
            known,
            ruled_out: [false; 2],
        }
    }

    /// Judges by what is fresh, if that is enough. `tag` tells the offered password's.
    pub(super) fn judge(
        &mut self,
        epoch: u64,
        digest: Digest,
        now: Moment,
        tag: impl Fn() -> u32,
    ) -> Option<Result<Proven, Refused>> {
        let slots = [Slot::Current, Slot::Previous].into_iter();
        let known = self.known.iter().zip(&mut self.ruled_out);
        for ((known, ruled_out), slot) in known.zip(slots) {
            let Some(known) = known.as_ref().filter(|known| known.is_fresh(epoch)) else {
                continue;
            };
            match known.judge(digest, now) {
                None => *ruled_out = true,
                Some(judged) => {
                    let proven = |identity| Proven {
                        identity,
                        slot,
                        overlaps: known.overlaps_at(now),
                    };
                    return Some(judged.map(proven).map_err(|reason| {
                        Refused::told_apart(reason, known.identity(), known.retired(), tag)
                    }));
                }
            }
        }
        None
    }

    /// How many passwords are remembered.
    pub(super) fn count(&self) -> usize {
        self.known.iter().flatten().count()
    }

    pub(super) fn is_ruled_out(&self, slot: Slot) -> bool {
        self.ruled_out[slot as usize]
    }

    pub(super) fn stale(&self, epoch: u64) -> impl Iterator<Item = Slot> {
        let is_stale = move |known: &Option<Arc<Known>>| {
            known.as_ref().is_some_and(|known| !known.is_fresh(epoch))
        };
        let slots = [Slot::Current, Slot::Previous];
        slots
            .into_iter()
            .filter(move |slot| is_stale(&self.known[*slot as usize]))
    }

    /// Whether anything that was not fresh is so again, given the row as it was read in `epoch`.
    pub(super) fn revalidate(&self, login: &Login, epoch: u64) -> bool {
        let stale = |known: &&Arc<Known>| !known.is_fresh(epoch);
        let known = self.known.iter().flatten().filter(stale);
        known.filter(|known| known.revalidate(login, epoch)).count() > 0
    }

    /// What the guard makes of what was judged so. A right password is never held up, except where people chose it and too
    /// many guessed at it: then the guesses must not go on by what is remembered.
    pub(super) fn guarded(
        &self,
        judged: Result<Proven, Refused>,
        digest: Digest,
        attempt: &Attempt,
    ) -> Result<Proven, Refused> {
        let known = || self.known.iter().flatten();
        match judged {
            Ok(proven) => {
                let known = self.known[proven.slot as usize].as_ref();
                let chosen = known.filter(|known| !known.is_generated());
                let chosen = chosen.map(|known| target(known));
                match chosen.is_some_and(|chosen| attempt.is_closed_for(chosen)) {
                    true => {
                        let identity = Some(proven.identity);
                        Err(Refused::Reason(Reason::WrongPassword, identity, None))
                    }
                    false => Ok(proven),
                }
            }
            Err(Refused::Reason(reason, Some(identity), retired_at)) => {
                let latest = known().max_by_key(|known| known.version());
                let chosen = latest.filter(|_| known().any(|known| !known.is_generated()));
                if let Some(chosen) = chosen.filter(|_| reason == Reason::WrongPassword) {
                    attempt.guessed_wrong(target(chosen), digest);
                }
                attempt.excuse_if(known().any(|known| known.is(digest)));
                Err(Refused::Reason(reason, Some(identity), retired_at))
            }
            judged => judged,
        }
    }
}

fn target(known: &Known) -> Target {
    Target {
        key: known.identity().key,
        version: known.version(),
    }
}
