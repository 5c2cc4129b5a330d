//! A gate's conversation with the store.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::clock::FleetClock;
use super::store::{Answer, Away, Exchange, Store};
use crate::layers::budget::{Register, Registers, Registrant};
use crate::layers::rate_limit::{Answered, RateLimitLayer, Saying, Sharing, Word};

/// Speaks for the lanes of one gate, until it is dropped: see the [module](super).
#[derive(Debug)]
pub struct Session {
    id: Arc<str>,
    who: Arc<str>,
    store: Arc<dyn Store>,
    sharing: Arc<Sharing>,
    limits: RateLimitLayer,
    budgets: Arc<Wanted>,
    /// Buckets that have said something, the one that was asked longest ago first.
    buckets: VecDeque<Weak<dyn Registrant>>,
    known: HashSet<usize>,
    number: u64,
    seen: Arc<Seen>,
    fleet: Arc<str>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    next: HashMap<u64, Instant>,
    sent: Instant,
    /// When the last exchange was sent that was answered.
    answered: Option<Instant>,
    clock: Arc<FleetClock>,
    news_at: Instant,
    /// Each bucket says again what it has: the store may not know.
    tells_all: bool,
    /// Whether the store can be reached is known.
    has_tried: bool,
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
    registers: Vec<(Arc<dyn Registrant>, Register)>,
    began: Instant,
    answer: Result<Answer, Away>,
}

/// Buckets whose register is to be told.
#[derive(Default)]
pub struct Wanted {
    buckets: Mutex<Vec<Arc<dyn Registrant>>>,
    woken: Notify,
}

/// Buckets that are asked for news each time the gate says that it is there.
const MOST_NEWS: usize = 256;
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
            budgets: Arc::default(),
            buckets: VecDeque::new(),
            known: HashSet::new(),
            number: 0,
            seen: Arc::default(),
            fleet: "".into(),
            due: BinaryHeap::new(),
            next: HashMap::new(),
            sent: Instant::now(),
            answered: None,
            clock: Arc::default(),
            news_at: Instant::now(),
            tells_all: false,
            has_tried: false,
        }
    }

    /// Speaks for these budgets, too.
    pub fn with_budgets(self, budgets: Arc<Wanted>) -> Self {
        Self { budgets, ..self }
    }

    /// Tells this clock what time it is at the store.
    pub fn with_clock(self, clock: Arc<FleetClock>) -> Self {
        Self { clock, ..self }
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
        let all = self.all_buckets(false);
        for registers in all.chunks(MOST_WORDS) {
            let said = self.say(Vec::new(), registers.to_vec()).await;
            self.done(said, &mut Vec::new());
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
        under_way.push(self.say(Vec::new(), Vec::new()));
        loop {
            let sharing = self.sharing.clone();
            let is_away = sharing.is_away();
            let beat = self.sent + if is_away { AGAIN } else { BEAT };
            let due = self.due.peek().map_or(beat, |Reverse((at, _))| beat.min(*at));
            let news = if self.buckets.is_empty() { beat } else { self.news_at };
            let timer = if is_away { beat } else { due.min(news) };
            let may_say = under_way.len() < MOST_EXCHANGES;
            let (mut words, mut registers) = (Vec::new(), Vec::new());
            let budgets = self.budgets.clone();
            tokio::select! {
                biased;
                () = &mut end => break,
                Some(done) = under_way.next(), if !under_way.is_empty() => self.done(done, &mut words),
                lanes = sharing.wanted(), if may_say => self.listen(lanes, false, &mut words),
                buckets = budgets.wanted(), if may_say => registers = self.registers(buckets),
                () = sleep_until(timer), if may_say => {
                    let lanes = self.due_lanes();
                    self.listen(lanes, true, &mut words);
                    if Instant::now() >= self.news_at {
                        registers = self.all_buckets(true);
                    }
                    if words.is_empty() && registers.is_empty() && Instant::now() >= beat {
                        under_way.push(self.say(Vec::new(), Vec::new()));
                    }
                }
            }
            if std::mem::take(&mut self.tells_all) {
                registers.extend(self.all_buckets(false));
            }
            while !words.is_empty() {
                let rest = words.split_off(words.len().min(MOST_WORDS));
                under_way.push(self.say(std::mem::replace(&mut words, rest), Vec::new()));
            }
            while !registers.is_empty() {
                let rest = registers.split_off(registers.len().min(MOST_WORDS));
                under_way.push(self.say(Vec::new(), std::mem::replace(&mut registers, rest)));
            }
        }
        // What is under way is heard, or what it was granted would be nobody's.
        while let Some(done) = under_way.next().await {
            self.done(done, &mut Vec::new());
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

    /// What these buckets have to say.
    fn registers(&mut self, buckets: Vec<Arc<dyn Registrant>>) -> Vec<(Arc<dyn Registrant>, Register)> {
        let mut registers = Vec::new();
        for bucket in buckets {
            if self.known.insert(Arc::as_ptr(&bucket).cast::<()>() as usize) {
                self.buckets.push_back(Arc::downgrade(&bucket));
            }
            if self.sharing.is_away() {
                bucket.unreached();
            } else if let Some(register) = bucket.register() {
                registers.push((bucket, register));
            }
        }
        registers
    }

    /// What all buckets have to say, or the next so many of them, also where nothing has changed here.
    fn all_buckets(&mut self, is_beat: bool) -> Vec<(Arc<dyn Registrant>, Register)> {
        self.news_at = Instant::now() + BEAT;
        let mut all = Vec::new();
        let most = if is_beat { MOST_NEWS } else { usize::MAX };
        for _ in 0..self.buckets.len().min(most) {
            let Some(bucket) = self.buckets.pop_front() else { break };
            match bucket.upgrade() {
                Some(alive) => {
                    self.buckets.push_back(bucket);
                    all.push(alive);
                }
                None => drop(self.known.remove(&(bucket.as_ptr().cast::<()>() as usize))),
            }
        }
        self.registers(all)
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
            since_ms: self.answered.map_or(0, |sent| (sent.elapsed().as_millis() as u64).max(1)),
            is_leaving: false,
            words,
            registers: Vec::new(),
        }
    }

    fn say(
        &mut self,
        words: Vec<(u64, Word)>,
        registers: Vec<(Arc<dyn Registrant>, Register)>,
    ) -> impl Future<Output = Done> + use<> {
        let began = Instant::now();
        self.sent = began;
        self.seen.words.fetch_add(words.len() as u64, Ordering::Relaxed);
        let mut exchange = self.exchange(words.iter().map(|(_, word)| word.clone()).collect());
        let mut numbered = |register: &Register| {
            self.number += 1;
            (self.number, register.clone())
        };
        exchange.registers = registers.iter().map(|(_, register)| numbered(register)).collect();
        let answering = self.store.exchange(exchange);
        async move { Done { words, registers, began, answer: answering.await } }
    }

    fn done(&mut self, done: Done, words: &mut Vec<(u64, Word)>) {
        self.seen.count(&done);
        match done.answer {
            Ok(answer) => {
                // First: a lane that is away goes by what it holds, and would then go by what it was granted, too.
                let is_back = self.sharing.set_away(false);
                self.answered = self.answered.max(Some(done.began));
                self.clock.hear_now(answer.now_ms);
                if *self.fleet != *answer.fleet {
                    if !self.fleet.is_empty() {
                        self.seen.forgotten.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            "the store has lost its memory: for a window it grants nothing, and the gates go on with what they hold"
                        );
                    }
                    self.fleet = answer.fleet;
                    self.tells_all = true;
                }
                for ((lane, word), heard) in done.words.into_iter().zip(answer.heard) {
                    let answered = heard.map_or(Answered::Lost, Answered::Heard);
                    self.heard(lane, &word, &answered);
                }
                for ((bucket, register), grant) in done.registers.iter().zip(answer.grants) {
                    bucket.granted(register, grant);
                }
                self.has_tried = true;
                if is_back {
                    self.tells_all = true;
                    *self.seen.why.lock() = None;
                    tracing::info!("the store of the shared limits can be reached");
                    let lanes = self.limits.look_again();
                    self.listen(lanes, true, words);
                }
            }
            Err(away) => {
                let is_first = !std::mem::replace(&mut self.has_tried, true);
                let is_news = self.sharing.set_away(true) || is_first;
                for (bucket, register) in &done.registers {
                    bucket.granted(register, None);
                }
                for (lane, word) in &done.words {
                    self.limits.heard(*lane, word, &Answered::Lost);
                }
                *self.seen.why.lock() = Some(away.to_string());
                if is_news {
                    tracing::warn!(
                        why = %away,
                        rule = ?self.sharing.on_store_loss(),
                        "the store of [replicas] cannot be reached: limits go on by on_store_loss, budgets with what they were granted"
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

// === impl Wanted ===

impl Registers for Wanted {
    fn want(&self, bucket: Arc<dyn Registrant>) {
        self.buckets.lock().push(bucket);
        self.woken.notify_one();
    }
}

impl Wanted {
    async fn wanted(&self) -> Vec<Arc<dyn Registrant>> {
        loop {
            let woken = self.woken.notified();
            let buckets = std::mem::take(&mut *self.buckets.lock());
            if !buckets.is_empty() {
                return buckets;
            }
            woken.await;
        }
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wanted({})", self.buckets.lock().len())
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
