//! Batches that were queued, and who pays for them when they answer.
//!
//! A submit is paid by nobody yet: what its items may cost stays [held](Held) in its budgets, and the first poll that brings
//! answers settles it, for the one who submitted it, whoever polls. Later polls are free. A batch whose answers never come is
//! released after a time; should they come after all, they are charged to who fetches them.
//!
//! # What it does not do
//! It reads no reply and keeps nothing over a restart: the meter does the one, a [`Reader`](crate::receipt::Reader) that sees the
//! receipts' [`Note`]s the other, and a [`Journal`] before a submit is answered.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::neurons::Neurons;

/// What is held in budgets for a batch. Dropping it holds on.
pub trait Held: Send + Sync + fmt::Debug {
    /// What is held.
    fn neurons(&self) -> Neurons;
    /// Charges this in its place, once.
    fn settle(&self, cost: Neurons);
    /// Where it is held.
    fn holdings(&self) -> Vec<Holding>;
}

/// A bucket of a budget and its window, by the names that the budget's ledger has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holding {
    /// The budget.
    pub budget: String,
    /// The bucket.
    pub bucket: String,
    /// When the window began, in milliseconds since 1970, UTC.
    pub start_ms: u64,
}

/// A batch, as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// The account that pays.
    pub account: Arc<str>,
    /// The vendor's `request_id`.
    pub id: Arc<str>,
    /// The model that was asked.
    pub model: Arc<str>,
    /// The key of who submitted it, by its name.
    pub key: Option<Arc<str>>,
    /// When, in milliseconds since 1970, UTC.
    pub submitted_ms: u64,
    /// What it will likely cost, and of which tokens.
    pub likely: Neurons,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// What is held for it.
    pub held: Neurons,
    /// Where.
    pub holdings: Vec<Holding>,
}

/// What became of a batch by a call, on the call's receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The call submitted it.
    Queued(Box<Queued>),
    /// The call brought its answers first.
    Settled {
        /// The vendor's `request_id`.
        id: Arc<str>,
        /// What was held for it was charged, so that the call's own budgets are not.
        is_charged: bool,
    },
}

/// Keeps batches over a kill.
pub trait Journal: Send + Sync {
    /// Writes it soon, and says when it is written. It must not block.
    fn keep(&self, queued: &Queued) -> oneshot::Receiver<()>;
}

/// How the batches stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Those that wait for their answers.
    pub waiting: u64,
    /// Those that were released since the start.
    pub released: u64,
}

/// The latest batches, by account and `request_id`. Cloning shares it.
#[derive(Clone)]
pub struct Batches(Arc<Shared>);

struct Shared {
    release_after: Duration,
    known: Mutex<Known>,
    journal: OnceLock<Arc<dyn Journal>>,
}

#[derive(Debug, Default)]
struct Known {
    batches: HashMap<Key, State>,
    /// In the order in which they came.
    oldest_first: VecDeque<Key>,
    waiting: u64,
    released: u64,
}

type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
enum State {
    Waiting(Box<Queued>, Option<Arc<dyn Held>>),
    /// It was given up; its answers may come all the same.
    Released(Box<Queued>),
    Paid,
}

/// Who pays when answers come.
#[derive(Debug)]
pub(crate) enum Settling {
    /// This is the first time, of a batch that waited.
    Waited(Box<Queued>, Option<Arc<dyn Held>>),
    /// This is the first time, of a batch that was released or never heard of.
    Unheld(Option<Box<Queued>>),
    /// They are paid.
    Again,
}

/// More are not kept: the oldest that are paid are forgotten, and would be paid once more.
const MOST: usize = 100_000;
/// The vendor's ids are some 36 bytes.
const MOST_ID_BYTES: usize = 256;
/// The vendor has taken a batch in: its submit is answered, whether the disk is slow or not.
const JOURNAL_WAIT: Duration = Duration::from_secs(2);
/// A day.
pub const RELEASE_AFTER: Duration = Duration::from_secs(24 * 3600);

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batches").field(&self.counts()).finish()
    }
}

impl Default for Batches {
    fn default() -> Self {
        Self::new(RELEASE_AFTER)
    }
}

impl Batches {
    /// None yet; those that wait longer are released.
    pub fn new(release_after: Duration) -> Self {
        Self(Arc::new(Shared { release_after, known: Mutex::default(), journal: OnceLock::new() }))
    }

    /// Has each kept before its submit is answered. Only the first journal counts.
    pub fn keep_in(&self, journal: Arc<dyn Journal>) {
        let _ = self.0.journal.set(journal);
    }

    /// Waits until it is kept over a kill, where there is a journal.
    pub(crate) async fn kept(&self, queued: &Queued) {
        let Some(journal) = self.0.journal.get() else { return };
        if !matches!(tokio::time::timeout(JOURNAL_WAIT, journal.keep(queued)).await, Ok(Ok(()))) {
            tracing::warn!(
                batch = &*queued.id,
                "a batch is not on record yet: after a kill, who fetches its answers would pay"
            );
        }
    }

    /// A batch waits for its answers. False where there is no room for it: then it is to be paid at once.
    pub(crate) fn queue(&self, queued: &Queued, held: Option<Arc<dyn Held>>) -> bool {
        self.release(SystemTime::now());
        let key = (queued.account.clone(), queued.id.clone());
        let mut known = self.0.known.lock();
        if queued.id.len() > MOST_ID_BYTES || !known.make_room() || known.batches.contains_key(&key) {
            return false;
        }
        known.insert(key, State::Waiting(Box::new(queued.clone()), held));
        known.waiting += 1;
        true
    }

    /// Takes up a batch that an earlier run knew; one that is paid where there is no `held`.
    pub fn restore(&self, queued: Queued, is_paid: bool, held: Option<Arc<dyn Held>>) {
        let key = (queued.account.clone(), queued.id.clone());
        let mut known = self.0.known.lock();
        if !known.make_room() || known.batches.contains_key(&key) {
            return;
        }
        known.waiting += u64::from(!is_paid);
        known.insert(key, if is_paid { State::Paid } else { State::Waiting(Box::new(queued), held) });
    }

    /// Whether a batch of this account has this id.
    pub(crate) fn knows(&self, account: &str, id: &str) -> bool {
        self.0.known.lock().batches.contains_key(&(account.into(), id.into()))
    }

    /// Answers have come. From here on they are paid.
    pub(crate) fn settle(&self, account: &Arc<str>, id: &str) -> Settling {
        if id.len() > MOST_ID_BYTES {
            return Settling::Unheld(None);
        }
        let key: Key = (account.clone(), id.into());
        let mut known = self.0.known.lock();
        if let Some(state) = known.batches.get_mut(&key) {
            return match std::mem::replace(state, State::Paid) {
                State::Waiting(queued, held) => {
                    known.waiting -= 1;
                    Settling::Waited(queued, held)
                }
                State::Released(queued) => Settling::Unheld(Some(queued)),
                State::Paid => Settling::Again,
            };
        }
        if known.make_room() {
            known.insert(key, State::Paid);
        }
        Settling::Unheld(None)
    }

    /// Lets go of what has waited too long, and tells of it.
    pub fn release(&self, now: SystemTime) {
        let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let is_late = |queued: &Queued| u128::from(queued.submitted_ms) + self.0.release_after.as_millis() <= now_ms;
        let mut known = self.0.known.lock();
        if known.waiting == 0 {
            return;
        }
        let mut released = Vec::new();
        for state in known.batches.values_mut() {
            if matches!(state, State::Waiting(queued, _) if is_late(queued))
                && let State::Waiting(queued, held) = std::mem::replace(state, State::Paid)
            {
                *state = State::Released(queued.clone());
                released.push((queued, held));
            }
        }
        known.waiting -= released.len() as u64;
        known.released += released.len() as u64;
        drop(known);
        for (queued, held) in released {
            tracing::warn!(
                batch = &*queued.id,
                model = &*queued.model,
                key = queued.key.as_deref(),
                held = %queued.held,
                "the answers of a batch have not come: what was held for it is free again ([reservations] release_batches)"
            );
            if let Some(held) = held {
                held.settle(Neurons::ZERO);
            }
        }
    }

    /// How they stand.
    pub fn counts(&self) -> Counts {
        let known = self.0.known.lock();
        Counts { waiting: known.waiting, released: known.released }
    }
}

impl Known {
    fn insert(&mut self, key: Key, state: State) {
        self.oldest_first.push_back(key.clone());
        self.batches.insert(key, state);
    }

    /// Forgets the oldest that does not wait. False where all wait.
    fn make_room(&mut self) -> bool {
        for _ in 0..self.oldest_first.len() {
            if self.batches.len() < MOST {
                return true;
            }
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            match self.batches.get(&oldest) {
                Some(State::Waiting(..)) => self.oldest_first.push_back(oldest),
                _ => drop(self.batches.remove(&oldest)),
            }
        }
        self.batches.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Money(AtomicU64);

    impl Held for Money {
        fn neurons(&self) -> Neurons {
            Neurons::from_whole(7)
        }
        fn settle(&self, cost: Neurons) {
            self.0.fetch_add(1_000_000 + cost.micro(), Ordering::Relaxed);
        }
        fn holdings(&self) -> Vec<Holding> {
            Vec::new()
        }
    }

    fn queued(id: &str, submitted_ms: u64) -> Queued {
        Queued {
            account: "acc".into(),
            id: id.into(),
            model: "@cf/a/b".into(),
            key: None,
            submitted_ms,
            likely: Neurons::ZERO,
            input_tokens: 0,
            output_tokens: 0,
            held: Neurons::ZERO,
            holdings: Vec::new(),
        }
    }

    fn now_ms() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    #[test]
    fn answers_are_paid_once_however_many_fetch_them() {
        let batches = Batches::default();
        assert!(
            batches.queue(&queued("a", now_ms()), None) && batches.knows("acc", "a") && !batches.knows("other", "a")
        );
        let firsts: usize = std::thread::scope(|scope| {
            let settle = || matches!(batches.settle(&"acc".into(), "a"), Settling::Waited(..));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(settle)).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!((firsts, batches.counts().waiting), (1, 0));
        assert!(matches!(batches.settle(&"acc".into(), "unheard"), Settling::Unheld(None)));
        assert!(matches!(batches.settle(&"acc".into(), "unheard"), Settling::Again));
    }

    #[test]
    fn what_never_answers_is_released_and_answers_that_come_late_are_paid_all_the_same() {
        let (batches, money) = (Batches::new(Duration::from_secs(60)), Arc::new(Money::default()));
        assert!(batches.queue(&queued("late", now_ms() - 50_000), Some(money.clone())));
        batches.release(SystemTime::now());
        assert_eq!(batches.counts(), Counts { waiting: 1, released: 0 });
        batches.release(SystemTime::now() + Duration::from_secs(11));
        assert_eq!(
            (batches.counts(), money.0.load(Ordering::Relaxed)),
            (Counts { waiting: 0, released: 1 }, 1_000_000)
        );
        assert!(matches!(batches.settle(&"acc".into(), "late"), Settling::Unheld(Some(_))));
        assert!(matches!(batches.settle(&"acc".into(), "late"), Settling::Again));
    }

    #[test]
    fn no_more_are_known_than_may_be_and_those_that_wait_stay() {
        let batches = Batches::default();
        assert!(batches.queue(&queued("waits", now_ms()), None));
        for n in 0..MOST + 10 {
            batches.settle(&"acc".into(), &n.to_string());
        }
        assert_eq!(batches.0.known.lock().batches.len(), MOST);
        assert!(batches.knows("acc", "waits") && !batches.knows("acc", "0"));
        assert!(!batches.queue(&queued(&"x".repeat(MOST_ID_BYTES + 1), now_ms()), None), "no vendor's id is so long");
    }
}
