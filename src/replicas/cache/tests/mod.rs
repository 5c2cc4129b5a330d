//! The tier by itself, over a shelf that can be late, away or full.

mod gates;

use std::sync::atomic::AtomicU64;

use futures_util::future::BoxFuture;

use super::*;

const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";
pub(super) const SECRET: &[u8] = b"what all gates of the test know";

/// A shelf behind a way that may be bad.
#[derive(Clone, Debug)]
pub(super) struct Faulty {
    pub(super) shelf: LocalShelf,
    fault: Arc<Mutex<Fault>>,
    opened: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Nobody listens.
    Away,
    /// It answers so much later.
    Late(Duration),
    /// It answers never.
    Hole,
}

impl Faulty {
    pub(super) fn new(max_bytes: usize) -> Self {
        let fault = Arc::new(Mutex::new(Fault::None));
        Self { shelf: LocalShelf::new(max_bytes), fault, opened: Arc::default() }
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    fn by_way<T: Send + 'static>(
        &self,
        answer: BoxFuture<'static, Result<T, Away>>,
    ) -> BoxFuture<'static, Result<T, Away>> {
        let fault = *self.fault.lock();
        Box::pin(async move {
            match fault {
                Fault::None => answer.await,
                Fault::Away => Err(Away("nobody listens".into())),
                Fault::Late(by) => {
                    sleep(by).await;
                    answer.await
                }
                Fault::Hole => {
                    sleep(AGAIN).await;
                    Err(Away("no answer".into()))
                }
            }
        })
    }
}

impl Shelf for Faulty {
    fn open(&self) -> BoxFuture<'static, Result<(), Away>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.by_way(self.shelf.open())
    }

    fn look(&self, look: Look) -> BoxFuture<'static, Result<Seen, Away>> {
        self.by_way(self.shelf.look(look))
    }

    fn put(&self, put: Put) -> BoxFuture<'static, Result<Stored, Away>> {
        self.by_way(self.shelf.put(put))
    }

    fn begin(&self, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        self.by_way(self.shelf.begin(mark))
    }

    fn purge(&self, model: Option<String>, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        self.by_way(self.shelf.purge(model, mark))
    }
}

/// One gate's tier, running.
pub(super) fn tier(shelf: &Faulty) -> SharedCache {
    with(shelf, SharedSettings { wait: Duration::from_millis(5), ..SharedSettings::default() })
}

fn with(shelf: &Faulty, settings: SharedSettings) -> SharedCache {
    let shared = SharedCache::new(Arc::new(shelf.clone()), SECRET, "fleet", settings).unwrap();
    let running = shared.clone();
    tokio::spawn(async move { running.run_until(std::future::pending()).await });
    shared
}

/// Until nothing is under way: the clock stands still meanwhile.
pub(super) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Ready to be put into: it is open and has its mark.
pub(super) async fn ready(shared: &SharedCache) {
    for _ in 0..3 {
        settle().await;
        shared.look(MODEL, vec![[0; 32]]).await;
    }
}

async fn one(shared: &SharedCache, key: u8) -> Option<Found> {
    shared.look(MODEL, vec![[key; 32]]).await.found.pop().flatten()
}

async fn keep(shared: &SharedCache, key: u8, bytes: &[u8]) {
    let Some(mark) = shared.look(MODEL, vec![[key; 32]]).await.mark else { return };
    shared.keep([key; 32], &mark, bytes.to_vec(), Duration::from_secs(60));
    settle().await;
}

fn count(counts: impl Iterator<Item = (&'static str, u64)>, of: &str) -> u64 {
    counts.filter(|(label, _)| *label == of).map(|(_, count)| count).sum()
}

fn looked(shared: &SharedCache, of: &str) -> u64 {
    count(shared.counts().lookups(), of)
}

fn written(shared: &SharedCache, of: &str) -> u64 {
    count(shared.counts().writes(), of)
}

#[tokio::test(start_paused = true)]
async fn what_one_has_kept_another_finds_for_as_long_as_it_is_kept() {
    let shelf = Faulty::new(1 << 20);
    let [one_, other] = [tier(&shelf), tier(&shelf)];
    ready(&one_).await;
    ready(&other).await;
    assert_eq!(one(&other, 1).await, None);
    keep(&one_, 1, b"answer").await;
    sleep(Duration::from_secs(20)).await;
    let found = one(&other, 1).await.unwrap();
    assert_eq!(found.bytes, b"answer");
    assert!(found.left <= Duration::from_secs(40) && found.left > Duration::from_secs(39), "{:?}", found.left);
    sleep(Duration::from_secs(41)).await;
    assert_eq!(one(&other, 1).await, None);
    assert_eq!((written(&one_, "kept"), looked(&other, "hit")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_late_or_silent_is_waited_for_so_long_and_then_not_at_all() {
    for fault in [Fault::Late(Duration::from_millis(100)), Fault::Hole] {
        let shelf = Faulty::new(1 << 20);
        let shared = tier(&shelf);
        ready(&shared).await;
        keep(&shared, 1, b"answer").await;
        shelf.set(fault);
        let opened = shelf.opened.load(Ordering::SeqCst);
        let (began, mut waited) = (Instant::now(), Vec::new());
        while began.elapsed() < Duration::from_secs(20) {
            let asked = Instant::now();
            assert_eq!(one(&shared, 1).await, None);
            waited.push(asked.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
        assert!(waited.iter().all(|waited| *waited <= Duration::from_millis(6)), "{:?}", waited.iter().max());
        let waited = waited.iter().filter(|waited| **waited > Duration::ZERO).count();
        assert!(waited <= 3 * 20, "{fault:?}: {waited} calls waited in 20 s");
        let opened = shelf.opened.load(Ordering::SeqCst) - opened;
        assert!((1..=20).contains(&opened), "{fault:?}: opened {opened} times in 20 s");
        assert!(looked(&shared, "late") >= 3 && shared.counts().why().is_some());
        shelf.set(Fault::None);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(one(&shared, 1).await.unwrap().bytes, b"answer");
        assert_eq!(shared.counts().why(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_full_is_a_miss() {
    let shelf = Faulty::new(200);
    let shared = tier(&shelf);
    ready(&shared).await;
    keep(&shared, 1, &[1; 100]).await;
    keep(&shared, 2, &[2; 100]).await;
    assert_eq!((written(&shared, "kept"), written(&shared, "full")), (1, 1));
    assert!(one(&shared, 1).await.is_some() && one(&shared, 2).await.is_none());
    shelf.set(Fault::Away);
    assert_eq!(one(&shared, 1).await, None);
    let asked = Instant::now();
    assert_eq!(one(&shared, 1).await, None);
    assert_eq!((asked.elapsed(), shared.is_open()), (Duration::ZERO, false));
    shelf.set(Fault::None);
    sleep(2 * AGAIN).await;
    assert!(one(&shared, 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_purge_reaches_what_is_kept_also_where_a_gate_cannot_be_told() {
    let shelf = Faulty::new(1 << 20);
    let [here, there] = [tier(&shelf), tier(&shelf)];
    ready(&here).await;
    ready(&there).await;
    for (model, survives) in [(Some("@cf/another"), true), (Some(MODEL), false), (None, false)] {
        keep(&here, 1, b"old").await;
        // A call that began before the purge.
        let before = there.look(MODEL, vec![[2; 32]]).await.mark.unwrap();
        assert!(here.purge(model).await);
        assert_eq!(one(&there, 1).await.is_some(), survives, "{model:?}");
        there.keep([2; 32], &before, b"old".to_vec(), Duration::from_secs(60));
        settle().await;
        assert_eq!(one(&here, 2).await.is_some(), survives, "{model:?}");
        keep(&there, 1, b"new").await;
        assert_eq!(one(&here, 1).await.unwrap().bytes, b"new");
    }
    assert_eq!(looked(&there, "unreadable"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_waits_for_a_store_that_is_away_and_nothing_is_found_before() {
    let shelf = Faulty::new(1 << 20);
    let [here, there] = [tier(&shelf), tier(&shelf)];
    ready(&here).await;
    ready(&there).await;
    keep(&there, 1, b"old").await;
    shelf.set(Fault::Away);
    assert_eq!(one(&here, 1).await, None);
    assert!(!here.purge(Some(MODEL)).await, "it is told that it is not done");
    for n in 0..2 * MAX_PURGES {
        drop(here.purge(Some(&format!("@cf/a/{n}"))));
    }
    assert!(here.0.queue.lock().purges.len() <= MAX_PURGES);
    shelf.set(Fault::None);
    sleep(3 * AGAIN).await;
    assert_eq!((one(&here, 1).await, one(&there, 1).await), (None, None));
    assert!(here.purge(None).await);
}

#[tokio::test(start_paused = true)]
async fn more_models_than_have_a_mark_of_their_own_are_purged_as_everything() {
    let shelf = Faulty::new(1 << 20);
    let shared = tier(&shelf);
    ready(&shared).await;
    keep(&shared, 1, b"old").await;
    for n in 0..shelf::MAX_MODELS {
        assert!(shared.purge(Some(&format!("@cf/a/{n}"))).await);
        assert!(one(&shared, 1).await.is_some(), "{n}");
    }
    assert!(shared.purge(Some("@cf/a/one-more")).await);
    assert_eq!(one(&shared, 1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_forgotten_its_marks_gives_out_nothing_from_before() {
    let shelf = Faulty::new(1 << 20);
    let shared = tier(&shelf);
    ready(&shared).await;
    keep(&shared, 1, b"old").await;
    let mut saved = std::collections::HashMap::new();
    shelf.shelf.tamper(|values| saved = values.clone());
    shelf.shelf.forget();
    // The values come back, the marks do not: as where marks alone are thrown away.
    shelf.shelf.tamper(|values| *values = saved);
    for _ in 0..3 {
        assert_eq!(one(&shared, 1).await, None);
        settle().await;
    }
    keep(&shared, 1, b"new").await;
    assert_eq!(one(&shared, 1).await.unwrap().bytes, b"new");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_bounded_by_size_by_time_and_by_what_waits() {
    let shelf = Faulty::new(64 << 20);
    let settings = SharedSettings { max_entry_bytes: 10_000, max_write_bytes: 50_000, ..SharedSettings::default() };
    let shared = with(&shelf, settings);
    ready(&shared).await;
    let mark = shared.look(MODEL, vec![[1; 32]]).await.mark.unwrap();
    let put = |n: u8, bytes: usize| shared.keep([n; 32], &mark, vec![0; bytes], Duration::from_secs(60));
    put(1, 10_001);
    // What it is sealed with is part of it.
    put(1, 10_000);
    settle().await;
    assert_eq!((written(&shared, "too_large"), written(&shared, "kept")), (2, 0));
    (0..20).for_each(|n| put(n, 8000));
    settle().await;
    assert_eq!((written(&shared, "kept"), written(&shared, "too_many")), (5, 15));
    sleep(Duration::from_millis(500)).await;
    (0..20).for_each(|n| put(n, 8000));
    settle().await;
    assert_eq!(written(&shared, "kept"), 8);
    let shared = with(&shelf, SharedSettings { max_write_bytes: 1 << 30, ..SharedSettings::default() });
    ready(&shared).await;
    shelf.set(Fault::Hole);
    let put = |n: u32| shared.keep([n as u8; 32], &mark, vec![0; 200_000], Duration::from_secs(60));
    (0..100).for_each(put);
    let queue = shared.0.queue.lock();
    assert!(queue.bytes <= MAX_WAITING_BYTES && queue.puts.len() == MAX_WAITING_BYTES / 200_000, "{}", queue.bytes);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_ends_puts_what_waits_and_does_not_wait_for_a_store_that_is_silent() {
    for (fault, found) in [(Fault::None, true), (Fault::Hole, false)] {
        let shelf = Faulty::new(1 << 20);
        let (ending, other) = (tier(&shelf), tier(&shelf));
        ready(&ending).await;
        ready(&other).await;
        let settings = SharedSettings::default();
        let last = SharedCache::new(Arc::new(shelf.clone()), SECRET, "fleet", settings).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = last.clone();
        let run = tokio::spawn(async move { running.run_until(async { drop(stopped.await) }).await });
        ready(&last).await;
        let mark = last.look(MODEL, vec![[1; 32]]).await.mark.unwrap();
        shelf.set(fault);
        (1..100).for_each(|n| last.keep([n; 32], &mark, b"answer".to_vec(), Duration::from_secs(60)));
        drop(stop);
        let began = Instant::now();
        run.await.unwrap();
        assert!(began.elapsed() <= PURGED_WITHIN + AGAIN, "{:?}", began.elapsed());
        shelf.set(Fault::None);
        sleep(3 * AGAIN).await;
        assert_eq!(one(&other, 99).await.is_some(), found);
    }
}
