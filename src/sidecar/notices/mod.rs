//! What one gate has learned or was told, put up for the others that share its store: a budget that was raised or reset, keys that were
//! made or revoked, what is to be forgotten of the cache, an account whose free neurons are used up, and what the vendor charges over the
//! table's prices. Beside that, each says which
//! config it has in force, so that one that lacks the last change is seen; none puts another's config in force.
//!
//! # Who is believed
//! A notice is believed where it is signed with the fleet's secret ([`Replicas::secret`](super::config::Replicas)): who may
//! write to the store may not by that make keys. Without a secret, gates tell each other of their configs alone.
//!
//! # Late, lost, repeated
//! Notices are a stream that forgets the oldest, so none may matter for good by having been heard: keys are joined by an order of their
//! own ([`key_rows`](super::key_rows)) and kept at the store beside the stream; of two raises the later one holds, by a clock that no
//! gate sets back; a purge may be done again; and a reset, which may not be done late, is left by who was away.
//!
//! # What it does not do
//! It waits for nobody: who raises a budget is answered before the others know, which look twice a second.

mod prices;
mod raises;
mod reader;
mod subjects;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::raises::Raises;
use self::reader::Reader;
pub(super) use self::subjects::Subjects;
use super::key_rows::Row;
use crate::catalogue::Prices;
use crate::layers::budget::{Budgets, ChangeError, Which};
use crate::neurons::Neurons;
use crate::replicas::{Link, Noticed};

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Fact {
    /// A budget's limit is another until a moment; its own where there is none.
    Raise {
        budget: String,
        bucket: Option<Vec<Value>>,
        to_micro: u64,
        until_ms: Option<u64>,
        who: String,
        reason: String,
    },
    Reset {
        budget: String,
        bucket: Option<Vec<Value>>,
        who: String,
        reason: String,
    },
    Purge {
        model: Option<String>,
    },
    Key {
        row: Box<Row>,
    },
    /// An account's free neurons are used up, and one call finds out whether they still are; or they are not.
    Free {
        account: String,
        is_used_up: bool,
    },
    /// What the vendor charges over what these prices come to, 1 where they are right.
    Price {
        model: String,
        ratio: f64,
        prices: Box<Prices>,
    },
}

/// A notice's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    from: String,
    /// The gate's run, so that none takes its own.
    run: String,
    /// By the teller's clock.
    at_ms: u64,
    fact: Fact,
}

/// Where a gate puts up what the others should know.
pub(super) struct Board {
    fleet: String,
    from: String,
    run: String,
    secret: Option<Hmac<Sha256>>,
    sender: mpsc::Sender<(Instant, Told)>,
    /// What waits to be put up, until the store is there.
    waiting: Mutex<Option<mpsc::Receiver<(Instant, Told)>>>,
    /// Held while a budget is raised, here or after another gate, so that both end with the same.
    raises: Mutex<Raises>,
    seen: Arc<Noticed>,
}

/// Facts that wait for the store; more are lost, and logged.
const WAITING: usize = 256;
/// The board is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What may not be done late is not done later than this.
const LATEST: Duration = Duration::from_secs(600);
/// Letters of a secret's mark.
const MARK: usize = 8;
/// No notice of ours is longer: a key may be for 256 models with names of 128 bytes.
const LONGEST: usize = 128 * 1024;

// === impl Board ===

impl Board {
    /// Of the gate `from` in this fleet. `secret` has 16 bytes at least.
    pub(super) fn new(fleet: &str, from: &str, secret: Option<&str>) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        Self {
            fleet: fleet.to_owned(),
            from: from.to_owned(),
            run: format!("{:016x}", fastrand::u64(..)),
            secret: secret.and_then(|secret| Hmac::new_from_slice(secret.as_bytes()).ok()),
            sender,
            waiting: Mutex::new(Some(waiting)),
            raises: Mutex::default(),
            seen: Arc::default(),
        }
    }

    pub(super) fn seen(&self) -> Arc<Noticed> {
        self.seen.clone()
    }

    /// Puts it up soon. Waits for nothing.
    pub(super) fn tell(&self, fact: Fact) {
        self.tell_at(fact, millis(SystemTime::now()));
    }

    fn tell_at(&self, fact: Fact, at_ms: u64) {
        if self.secret.is_none() {
            return;
        }
        let told = Told { from: self.from.clone(), run: self.run.clone(), at_ms, fact };
        if self.sender.try_send((Instant::now(), told)).is_err() {
            tracing::warn!("the other gates are not told: too much waits for the store of [replicas]");
        }
    }

    /// Raises a budget here, and tells the others. Waits for the disk.
    pub(super) fn raise(
        &self,
        budgets: &Budgets,
        (which, bucket): (&Which, Option<Vec<Value>>),
        to: Neurons,
        until: Option<SystemTime>,
    ) -> Result<SystemTime, ChangeError> {
        let mut raises = self.raises.lock();
        let until = budgets.raise(which, to, until)?;
        let at_ms = raises.now(&which.budget, bucket.as_deref(), millis(SystemTime::now()));
        let Which { budget, who, reason, .. } = which.clone();
        // A raise that ends another has no end.
        let until_ms = (until > SystemTime::now()).then(|| millis(until));
        let fact = Fact::Raise { budget, bucket, to_micro: to.micro(), until_ms, who, reason };
        raises.take(&Told { from: self.from.clone(), run: self.run.clone(), at_ms, fact: fact.clone() });
        self.tell_at(fact, at_ms);
        Ok(until)
    }

    fn sign(&self, body: &str) -> String {
        self.mac(body).map_or_else(String::new, |mac| STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn is_signed(&self, body: &str, signature: &str) -> bool {
        let signature = STANDARD.decode(signature);
        self.mac(body).zip(signature.ok()).is_some_and(|(mac, signature)| mac.verify_slice(&signature).is_ok())
    }

    /// Two fleets with one secret do not take each other's notices.
    fn mac(&self, body: &str) -> Option<Hmac<Sha256>> {
        let mut mac = self.secret.clone()?;
        mac.update(b"tollgate notices\n");
        mac.update(self.fleet.as_bytes());
        mac.update(b"\n");
        mac.update(body.as_bytes());
        Some(mac)
    }

    /// What tells gates that have one secret from others: the beginning of a digest under it.
    fn mark(&self) -> String {
        let mut mark = self.sign("which secret");
        mark.truncate(MARK);
        mark
    }

    /// What a notice says, where it is one of the fleet's.
    fn read(&self, body: &str, signature: &str) -> Option<Told> {
        let is_ours = body.len() <= LONGEST && self.is_signed(body, signature);
        is_ours.then(|| serde_json::from_str(body).ok()).flatten()
    }

    /// Puts up what there is to tell, and takes what others tell, until it is to stop.
    pub(super) async fn run(self: &Arc<Self>, link: Link, subjects: Arc<Subjects>, stop: CancellationToken) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let mut reader = Reader::default();
        let mut unsent = VecDeque::new();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(told) = waiting.recv(), if unsent.len() < WAITING => unsent.push_back(told),
                _ = ticks.tick() => {
                    reader.compare(self, &link, &subjects).await;
                    if self.secret.is_some() {
                        reader.free(self, &subjects);
                        if reader.read(self, &link, &subjects).await {
                            // Who comes after the store lost its memory is to hear of what is in force.
                            let again = self.raises.lock().in_force(millis(SystemTime::now()));
                            unsent.extend(again.into_iter().map(|told| (Instant::now(), told)));
                        }
                        reader.prices(self, &subjects);
                    }
                }
            }
            self.send(&link, &mut unsent).await;
        }
        while let Ok(told) = waiting.try_recv() {
            unsent.push_back(told);
        }
        self.send(&link, &mut unsent).await;
    }

    /// Puts up what waits, as far as the store takes it.
    async fn send(&self, link: &Link, unsent: &mut VecDeque<(Instant, Told)>) {
        while let Some((since, told)) = unsent.front() {
            let is_too_late = matches!(told.fact, Fact::Reset { .. }) && since.elapsed() > LATEST;
            if let Ok(body) = serde_json::to_string(told)
                && !is_too_late
            {
                let signature = self.sign(&body);
                // It may have been taken although no answer came: those who read it take it once.
                if link.put_up(&body, &signature).await.is_err() {
                    return;
                }
                if let Fact::Key { row } = &told.fact
                    && link.keep(&[(row.name.clone(), format!("{signature} {body}"))]).await.is_err()
                {
                    return;
                }
            }
            unsent.pop_front();
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({})", self.from)
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_of_another_fleet_or_with_another_secret_is_not_read() {
        let secret = Some("sixteen bytes or more");
        let board = |fleet, secret| Board::new(fleet, "a", secret);
        let told = Told { from: "b".into(), run: "r".into(), at_ms: 1, fact: Fact::Purge { model: None } };
        let body = serde_json::to_string(&told).unwrap();
        let signature = board("one", secret).sign(&body);
        assert!(board("one", secret).read(&body, &signature).is_some());
        for other in [board("two", secret), board("one", Some("another secret of sixteen")), board("one", None)] {
            assert!(other.read(&body, &signature).is_none());
            assert!(other.read(&body, "").is_none());
        }
        let changed = body.replace('1', "2");
        assert!(board("one", secret).read(&changed, &signature).is_none());
        let long = format!("{body}{}", " ".repeat(LONGEST));
        let signature = board("one", secret).sign(&long);
        assert!(board("one", secret).read(&long, &signature).is_none());
    }

    #[test]
    fn more_facts_than_may_wait_are_left_and_nobody_waits() {
        let board = Board::new("f", "a", Some("sixteen bytes or more"));
        for _ in 0..WAITING * 2 {
            board.tell(Fact::Purge { model: None });
        }
        let mut waiting = board.waiting.lock().take().unwrap();
        let mut all = 0;
        while waiting.try_recv().is_ok() {
            all += 1;
        }
        assert_eq!(all, WAITING);
    }
}
