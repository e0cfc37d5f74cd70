//! Who may use the store, and when: a few requests at a time, shared fairly among those who make
//! them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::{Access, ActorKind};

use super::caller::Caller;

/// Requests that may use the store at a time. Fewer than it has connections: logins come first.
const WORKERS: usize = 4;

/// Of those, how many only instance administrators and Gatepost itself may take.
const RESERVED: usize = 1;

/// How many one token may have.
const SHARE: usize = 2;

/// How many requests of one token may wait for a worker. Further ones are refused at once.
const WAITING: usize = 64;

/// How long a request waits for its worker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose request it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Claimant {
    /// Gatepost itself: looking tokens up, health, late revocations.
    Gatepost,
    /// An administrator of the instance, or with none the unix socket.
    Instance(Option<Holder>),
    /// Any other caller.
    Other(Holder),
}

/// The holder of a share.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Holder {
    Token(i64),
    /// A person whom a reverse proxy has signed in, by the hash of the name.
    Person(u64),
}

impl Holder {
    fn of(caller: &Caller) -> Option<Holder> {
        match (caller.actor.token, caller.actor.kind) {
            (Some(token), _) => Some(Holder::Token(token)),
            (None, ActorKind::Person) => {
                let hasher = BuildHasherDefault::<DefaultHasher>::new();
                Some(Holder::Person(hasher.hash_one(&caller.actor.name)))
            }
            (None, _) => None,
        }
    }
}

tokio::task_local! {
    /// Whose request the task carries out; Gatepost's own where nothing is said.
    static CLAIMANT: Claimant;
}

impl Claimant {
    fn of(caller: &Caller) -> Claimant {
        let is_instance_admin =
            caller.scope.organization.is_none() && caller.scope.access == Access::Admin;
        match Holder::of(caller) {
            Some(holder) if !is_instance_admin => Claimant::Other(holder),
            holder => Claimant::Instance(holder),
        }
    }

    fn current() -> Claimant {
        CLAIMANT
            .try_with(|claimant| *claimant)
            .unwrap_or(Claimant::Gatepost)
    }

    fn is_first(self) -> bool {
        !matches!(self, Claimant::Other(_))
    }

    /// How many workers it may have.
    fn share(self) -> usize {
        match self {
            Claimant::Gatepost | Claimant::Instance(None) => WORKERS,
            Claimant::Instance(Some(_)) | Claimant::Other(_) => SHARE,
        }
    }
}

/// Carries out `request` for `caller`: workers that it takes are the caller's.
pub(super) async fn on_behalf_of<T>(caller: &Caller, request: impl Future<Output = T>) -> T {
    CLAIMANT.scope(Claimant::of(caller), request).await
}

/// No worker for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoWorker {
    /// None became free in time.
    Late,
    /// The token has too many requests that wait.
    TooMany,
}

/// The workers.
#[derive(Debug, Default)]
pub(super) struct Workers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    busy: HashMap<Claimant, usize>,
    /// In the order in which they came.
    waiting: Vec<(Claimant, oneshot::Sender<Turn>)>,
}

/// A worker, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    workers: Arc<Workers>,
    claimant: Claimant,
}

impl Workers {
    /// Waits for a worker for the request that this task carries out.
    pub(super) async fn turn(self: &Arc<Self>) -> Result<Turn, NoWorker> {
        let claimant = Claimant::current();
        let waiting = {
            let mut state = self.lock();
            state.waiting.retain(|(_, turn)| !turn.is_closed());
            let own = state.waiting.iter().filter(|(own, _)| *own == claimant);
            if claimant.share() < WORKERS && own.count() >= WAITING {
                return Err(NoWorker::TooMany);
            }
            let (turn, waiting) = oneshot::channel();
            state.waiting.push((claimant, turn));
            waiting
        };
        self.give_out();
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(NoWorker::Late),
        }
    }

    /// Gives free workers to those who wait.
    fn give_out(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(next) = state.next() else {
                return;
            };
            let (claimant, waiting) = state.waiting.remove(next);
            *state.busy.entry(claimant).or_default() += 1;
            drop(state);
            // A request that was given up leaves its worker at once, by dropping it.
            let _ = waiting.send(Turn {
                workers: self.clone(),
                claimant,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Which of those that wait is next, if any may begin: instance administrators first, then the
    /// token that has the fewest workers, then the request that came first.
    fn next(&self) -> Option<usize> {
        let all: usize = self.busy.values().sum();
        let of_tokens = self
            .busy
            .iter()
            .filter(|(claimant, _)| !claimant.is_first());
        let of_tokens: usize = of_tokens.map(|(_, count)| count).sum();
        let busy = |claimant| self.busy.get(&claimant).copied().unwrap_or_default();
        let may_begin = |claimant: Claimant| {
            all < WORKERS
                && busy(claimant) < claimant.share()
                && (claimant.is_first() || of_tokens < WORKERS - RESERVED)
        };
        let waiting = self.waiting.iter().enumerate();
        let next = waiting
            .filter(|(_, (claimant, _))| may_begin(*claimant))
            .min_by_key(|(place, (claimant, _))| (!claimant.is_first(), busy(*claimant), *place));
        next.map(|(place, _)| place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.workers.lock();
        if let Some(count) = state.busy.get_mut(&self.claimant) {
            *count -= 1;
            if *count == 0 {
                state.busy.remove(&self.claimant);
            }
        }
        drop(state);
        self.workers.give_out();
    }
}

#[cfg(test)]
impl Workers {
    /// Every worker there is.
    pub(super) async fn all(self: &Arc<Self>) -> Vec<Turn> {
        let mut all = Vec::new();
        for _ in 0..WORKERS {
            all.push(self.turn().await.expect("a free worker"));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turn(workers: &Arc<Workers>, claimant: Claimant) -> Result<Turn, NoWorker> {
        CLAIMANT.scope(claimant, workers.turn()).await
    }

    fn waiting(
        workers: &Arc<Workers>,
        claimant: Claimant,
    ) -> tokio::task::JoinHandle<Result<Turn, NoWorker>> {
        let workers = workers.clone();
        tokio::spawn(async move { turn(&workers, claimant).await })
    }

    const GREEDY: Claimant = Claimant::Other(Holder::Token(1));
    const OTHER: Claimant = Claimant::Other(Holder::Token(2));
    const ADMIN: Claimant = Claimant::Instance(Some(Holder::Token(3)));
    const SOCKET: Claimant = Claimant::Instance(None);

    #[tokio::test(start_paused = true)]
    async fn a_token_leaves_workers_for_others_and_waits_and_is_refused_alone() {
        let workers = Arc::new(Workers::default());
        let mut held = vec![
            turn(&workers, GREEDY).await.unwrap(),
            turn(&workers, GREEDY).await.unwrap(),
        ];
        let greedy: Vec<_> = (0..WAITING).map(|_| waiting(&workers, GREEDY)).collect();
        while workers.lock().waiting.len() < WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(turn(&workers, GREEDY).await.unwrap_err(), NoWorker::TooMany);
        held.push(turn(&workers, OTHER).await.unwrap());
        let other = waiting(&workers, OTHER);
        tokio::task::yield_now().await;
        assert!(!other.is_finished(), "one worker is for administrators");
        let _admin = turn(&workers, ADMIN).await.unwrap();
        let socket = waiting(&workers, SOCKET);
        tokio::task::yield_now().await;
        held.remove(0);
        let _socket = socket.await.unwrap().unwrap();
        drop(held.pop());
        let _other = other.await.unwrap().unwrap();
        for late in greedy {
            assert_eq!(late.await.unwrap().unwrap_err(), NoWorker::Late);
        }
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_keeps_no_worker() {
        let workers = Arc::new(Workers::default());
        let all = workers.all().await;
        let given_up = waiting(&workers, OTHER);
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        drop(all);
        assert_eq!(workers.all().await.len(), WORKERS);
    }
}
