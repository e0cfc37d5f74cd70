//! Strangers, and names that people chose.
//!
//! What a stranger hears must not tell which of these names there are. Where one is, its password may have to be hashed, in
//! a turn for which strangers wait; so every refusal of such a name takes a turn, and its time, whether there is something to
//! hash or not. Names that were generated nobody finds by trying, and their passwords are told by the tag.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::auth::cache::Slot;
use crate::auth::guard::{Attempt, Guard, Held, Target, Turn};
use crate::auth::issue;
use crate::policy::Rule;
use crate::sasl::{Identity, Outage, Reason};

use super::core::{Asked, Core};
use super::flight::{Flown, Offered};
use super::refused::{Proven, Refused};

/// By how much a timer may be late.
const TICK: Duration = Duration::from_millis(1);

impl Core {
    /// Compares in a stranger's turn. What takes too long goes on all the same and is remembered: the next try is answered
    /// by it.
    pub(super) async fn compare_in_turn(
        self: &Arc<Self>,
        turn: Turn,
        offered: Offered,
        candidates: Vec<Slot>,
        asked: &Asked<'_>,
    ) -> Result<Flown, Refused> {
        let (core, guard) = (self.clone(), asked.guard.clone());
        let (target, digest) = (Target::of(&offered.login), offered.digest);
        let (late, epoch) = (self.clone(), offered.epoch);
        let (counted, client) = (guard.clone(), asked.attempt.client());
        let from = asked.peer.address;
        let compare = async move {
            let flown = core.compare_each(offered, candidates, &guard).await;
            if let Ok(Flown::InVain) = flown {
                guard.found_wrong(Some(target), digest);
            }
            flown
        };
        // Nobody who guessed is let off for not waiting, and nobody who did not guess is a stranger any more.
        let unheard = move |flown| match (flown, client) {
            (Ok(Flown::InVain), _) => counted.guessed(target),
            (Ok(Flown::To(_, known)), Some(client))
                if late.store.epoch() == epoch && may_come_from(&known.identity(), from) =>
            {
                counted.proved_late(client, target);
            }
            _ => {}
        };
        match in_turn(turn, asked.cut, compare, unheard).await {
            Some(Ok(flown)) => Ok(flown),
            Some(Err(Outage::Busy)) | None => Err(Refused::Unheard),
            Some(Err(outage)) => Err(outage.into()),
        }
    }

    async fn compare_each(
        self: Arc<Self>,
        offered: Offered,
        candidates: Vec<Slot>,
        guard: &Guard,
    ) -> Result<Flown, Outage> {
        let (mut outcome, mut is_compared) = (Flown::Nowhere, true);
        for slot in candidates {
            let username = offered.login.username.clone();
            let took = |took| guard.hashed(took);
            match self.clone().compare(offered.clone(), slot, took).await {
                // It is in the log. A stranger hears what it would of a name that nobody has.
                Err(Outage::Hash) => is_compared = false,
                Err(outage) => return Err(outage),
                Ok(None) => outcome = Flown::InVain,
                Ok(Some(known)) => {
                    self.remembered(slot).insert(username, known.clone()).await;
                    return Ok(Flown::To(slot, known));
                }
            }
        }
        // What was not compared must not be remembered as wrong.
        Ok(if is_compared { outcome } else { Flown::Nowhere })
    }

    /// Has a refusal of a stranger come about as one does for which a password was hashed, unless it did.
    pub(super) async fn as_if_hashed(
        self: &Arc<Self>,
        judged: Result<Proven, Refused>,
        asked: &Asked<'_>,
    ) -> Result<Proven, Refused> {
        let key = match &judged {
            Err(Refused::Reason(Reason::ActsForAnother, ..)) => return judged,
            Err(Refused::Reason(_, claimed, _)) => claimed.as_ref().map(|identity| identity.key),
            _ => return judged,
        };
        if issue::is_generated(&asked.credentials.username) {
            return judged;
        }
        let turn = timeout_at(asked.cut, asked.attempt.idle_turn(key, asked.digest));
        let is_heard = match turn.await {
            Ok(Ok(None)) => true,
            Ok(Ok(Some(turn))) => self.pretend(turn, asked).await,
            Ok(Err(_)) | Err(_) => false,
        };
        match is_heard {
            true => judged,
            false => Err(Refused::Unheard),
        }
    }

    /// Takes as long as hashing would, and no thread's time. Whether that was soon enough.
    async fn pretend(self: &Arc<Self>, turn: Turn, asked: &Asked<'_>) -> bool {
        let (core, guard) = (self.clone(), asked.guard.clone());
        let (digest, name) = (asked.digest, self.digest_of_name(asked.credentials));
        let pretend = async move {
            core.hasher.pass().await?;
            let time = guard.hash_time(name.mark()).saturating_sub(TICK);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            guard.found_wrong(None, digest);
            Ok::<_, Outage>(())
        };
        let done = in_turn(turn, asked.cut, pretend, |_| ()).await;
        matches!(done, Some(Ok(())))
    }
}

/// Whether who proved to be `identity` is let in where it claims to be from.
fn may_come_from(identity: &Identity, address: IpAddr) -> bool {
    let rules = &identity.policy.rules;
    rules.allows_network(address) || rules.reports(Rule::Networks)
}

/// Waits for a stranger's turn to have this password hashed. `None` if there is no need to.
pub(super) async fn turn(
    offered: &Offered,
    tag: u32,
    attempt: &Attempt<'_>,
    cut: Instant,
) -> Result<Option<Turn>, Held> {
    let turn = attempt.turn(&offered.login, tag, offered.digest);
    timeout_at(cut, turn).await.unwrap_or(Err(Held::Busy))
}

/// Does something in a turn, and to its end, whoever still waits for it; `unheard` gets what it came to if nobody does. `None`
/// if that takes longer than until `cut`.
async fn in_turn<T: Send + 'static>(
    turn: Turn,
    cut: Instant,
    work: impl Future<Output = T> + Send + 'static,
    unheard: impl FnOnce(T) + Send + 'static,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let done = work.await;
        drop(turn);
        if let Err(done) = answer.send(done) {
            unheard(done);
        }
    });
    timeout_at(cut, answered).await.ok()?.ok()
}
