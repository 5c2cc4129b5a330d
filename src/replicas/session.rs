//! A gate's conversation with the store.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::store::{Answer, Away, Exchange, Store};
use crate::layers::rate_limit::{Answered, RateLimitLayer, Saying, Sharing, Word};

/// Speaks for the lanes of one gate, until it is dropped: see the [module](super).
#[derive(Debug)]
pub struct Session {
    id: Arc<str>,
    who: Arc<str>,
    store: Arc<dyn Store>,
    sharing: Arc<Sharing>,
    limits: RateLimitLayer,
    seen: Arc<Seen>,
    fleet: Arc<str>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    next: HashMap<u64, Instant>,
    sent: Instant,
}

/// What a session has seen of its store, for metrics.
#[derive(Debug, Default)]
pub struct Seen {
    trips: AtomicU64,
    words: AtomicU64,
    micros: AtomicU64,
    lost: AtomicU64,
    forgotten: AtomicU64,
    replicas: AtomicU64,
    why: Mutex<Option<String>>,
}

/// One exchange under way: the lanes' words, and what came of them.
struct Done {
    words: Vec<(u64, Word)>,
    began: Instant,
    answer: Result<Answer, Away>,
}

/// Words at once.
const MOST_WORDS: usize = 64;
/// Exchanges at once: more wait, and then go together.
const MOST_EXCHANGES: usize = 16;
/// A gate says that it is there at least so often.
const BEAT: Duration = Duration::from_secs(1);
/// A store that is away is tried again so often.
const AGAIN: Duration = Duration::from_millis(250);

impl Session {
    /// Of the gate of this name, which a restart keeps and no other gate has.
    pub fn new(who: &str, store: Arc<dyn Store>, sharing: Arc<Sharing>, limits: RateLimitLayer) -> Self {
        let id = format!("{who}#{:016x}", fastrand::u64(..));
        Self {
            id: id.into(),
            who: who.into(),
            store,
            sharing,
            limits,
            seen: Arc::default(),
            fleet: "".into(),
            due: BinaryHeap::new(),
            next: HashMap::new(),
            sent: Instant::now(),
        }
    }

    /// What it sees of its store.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }

    /// Speaks for ever.
    pub async fn run(mut self) {
        self.speak(std::future::pending()).await;
    }

    /// Speaks until this comes, and then says goodbye: what the gate holds comes free as it would have.
    pub async fn run_until(mut self, end: impl Future<Output = ()>) {
        self.speak(end).await;
        if self.sharing.is_away() {
            return;
        }
        let lanes = self.limits.look_again();
        for lanes in lanes.chunks(MOST_WORDS) {
            let said = lanes.iter().filter_map(|lane| match self.limits.word(*lane, true) {
                Saying::Word(mut word) => {
                    (word.ask, word.waiting) = (0, 0);
                    Some(word)
                }
                _ => None,
            });
            let exchange = Exchange { is_leaving: true, ..self.exchange(said.collect()) };
            if self.store.exchange(exchange).await.is_err() {
                return;
            }
        }
        let goodbye = Exchange { is_leaving: true, ..self.exchange(Vec::new()) };
        drop(self.store.exchange(goodbye).await);
    }

    async fn speak(&mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut under_way = FuturesUnordered::new();
        // Whether the store is there is known before the first call asks.
        under_way.push(self.say(Vec::new()));
        loop {
            let sharing = self.sharing.clone();
            let is_away = sharing.is_away();
            let beat = self.sent + if is_away { AGAIN } else { BEAT };
            let timer = self.due.peek().map_or(beat, |Reverse((at, _))| if is_away { beat } else { beat.min(*at) });
            let may_say = under_way.len() < MOST_EXCHANGES;
            let mut words = Vec::new();
            tokio::select! {
                biased;
                () = &mut end => return,
                Some(done) = under_way.next(), if !under_way.is_empty() => self.done(done, &mut words),
                lanes = sharing.wanted(), if may_say => self.listen(lanes, false, &mut words),
                () = sleep_until(timer), if may_say => {
                    let lanes = self.due_lanes();
                    self.listen(lanes, true, &mut words);
                    if words.is_empty() && Instant::now() >= beat {
                        under_way.push(self.say(Vec::new()));
                    }
                }
            }
            while !words.is_empty() {
                let rest = words.split_off(words.len().min(MOST_WORDS));
                under_way.push(self.say(std::mem::replace(&mut words, rest)));
            }
        }
    }

    /// The lanes whose time has come.
    fn due_lanes(&mut self) -> Vec<u64> {
        let (now, mut lanes) = (Instant::now(), Vec::new());
        while let Some(Reverse((at, lane))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            if self.next.get(&lane) == Some(&at) {
                self.next.remove(&lane);
                lanes.push(lane);
            }
        }
        lanes
    }

    /// What these lanes have to say.
    fn listen(&mut self, lanes: Vec<u64>, is_due: bool, words: &mut Vec<(u64, Word)>) {
        if self.sharing.is_away() {
            return;
        }
        for lane in lanes {
            match self.limits.word(lane, is_due) {
                Saying::Word(word) => {
                    self.next.remove(&lane);
                    words.push((lane, word));
                }
                Saying::Later(at) => self.schedule(lane, at),
                Saying::Nothing => {}
            }
        }
    }

    fn schedule(&mut self, lane: u64, at: Instant) {
        if self.next.get(&lane).is_none_or(|next| at < *next) {
            self.next.insert(lane, at);
            self.due.push(Reverse((at, lane)));
        }
    }

    fn exchange(&self, words: Vec<Word>) -> Exchange {
        Exchange {
            id: self.id.clone(),
            who: self.who.clone(),
            keep_ms: self.sharing.keep_for().as_millis() as u64,
            fleet: self.fleet.clone(),
            is_leaving: false,
            words,
        }
    }

    fn say(&mut self, words: Vec<(u64, Word)>) -> impl Future<Output = Done> + use<> {
        let began = Instant::now();
        self.sent = began;
        self.seen.words.fetch_add(words.len() as u64, Ordering::Relaxed);
        let answering = self.store.exchange(self.exchange(words.iter().map(|(_, word)| word.clone()).collect()));
        async move { Done { words, began, answer: answering.await } }
    }

    fn done(&mut self, done: Done, words: &mut Vec<(u64, Word)>) {
        self.seen.count(&done);
        match done.answer {
            Ok(answer) => {
                if *self.fleet != *answer.fleet {
                    if !self.fleet.is_empty() {
                        self.seen.forgotten.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            "the store has lost its memory: for a window it grants nothing, and the gates go on with what they hold"
                        );
                    }
                    self.fleet = answer.fleet;
                }
                for ((lane, word), heard) in done.words.into_iter().zip(answer.heard) {
                    let answered = heard.map_or(Answered::Lost, Answered::Heard);
                    self.heard(lane, &word, &answered);
                }
                if self.sharing.set_away(false) {
                    *self.seen.why.lock() = None;
                    tracing::info!("the store of the shared limits can be reached");
                    let lanes = self.limits.look_again();
                    self.listen(lanes, true, words);
                }
            }
            Err(away) => {
                let is_news = self.sharing.set_away(true);
                for (lane, word) in &done.words {
                    self.limits.heard(*lane, word, &Answered::Lost);
                }
                *self.seen.why.lock() = Some(away.to_string());
                if is_news {
                    tracing::warn!(
                        why = %away,
                        rule = ?self.sharing.on_store_loss(),
                        "the store of the shared limits cannot be reached: they go on by [replicas] on_store_loss"
                    );
                    // The next exchange tells whether it is back.
                    (self.next, self.due) = Default::default();
                    self.limits.look_again();
                }
            }
        }
    }

    fn heard(&mut self, lane: u64, word: &Word, answered: &Answered) {
        if let Answered::Heard(heard) = answered {
            self.seen.replicas.store(u64::from(heard.replicas), Ordering::Relaxed);
        }
        if let Some(at) = self.limits.heard(lane, word, answered) {
            self.schedule(lane, at);
        }
    }
}

// === impl Seen ===

impl Seen {
    fn count(&self, done: &Done) {
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(done.began.elapsed().as_micros() as u64, Ordering::Relaxed);
        if done.answer.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Exchanges with the store, also those that were never answered.
    pub fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// What was said in them.
    pub fn words(&self) -> u64 {
        self.words.load(Ordering::Relaxed)
    }

    /// How long they took, all together.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Those that were never answered.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How often the store lost its memory.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Gates that hold a part of the limit that was last told of.
    pub fn replicas(&self) -> u64 {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Why the store cannot be reached, if it cannot.
    pub fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }
}
