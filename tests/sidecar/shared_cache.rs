//! Gates that keep answers for each other, through a real Redis and a way to it that may be bad.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::receipt::{CacheStatus, Outcome};
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::Running;

use crate::proxy::{Proxy, Way};
use crate::redis::Redis;
use crate::support::{LLAMA, Receipts, ask, client, command, config, start, vendor};

const SECRET: &str = "what the gates of these tests know";

struct Gate {
    sidecar: Sidecar,
    receipts: Receipts,
    client: reqwest::Client,
}

/// What a call was told.
#[derive(Debug, PartialEq)]
struct Told {
    status: String,
    is_shared: bool,
    neurons: Option<String>,
    body: String,
}

impl Gate {
    /// One that shares with all others at this port, and waits for it long enough for a machine that is busy.
    async fn at(vendor: &Running, port: u16, name: &str, more: &str) -> Self {
        let gate = Self::start(vendor, port, name, &format!("shared_wait = \"1s\"\n{more}"));
        gate.is_open(true).await;
        gate
    }

    /// With a store of the cache's own.
    fn start(vendor: &Running, port: u16, name: &str, more: &str) -> Self {
        Self::start_with(vendor, name, "", &format!("store = \"redis://127.0.0.1:{port}\"\n{more}"))
    }

    fn start_with(vendor: &Running, name: &str, replicas: &str, cache: &str) -> Self {
        let mut config = config(&vendor.base_url());
        let text = format!(
            "[replicas]\nsecret = \"{SECRET}\"\nname = \"{name}\"\ntimeout = \"2s\"\n{replicas}[cache]\nshared = true\n{cache}"
        );
        let own = Config::parse(&text, "test").unwrap();
        (config.cache, config.replicas, config.budgets) = (own.cache, own.replicas, own.budgets);
        let (sidecar, receipts) = start(config);
        Self { sidecar, receipts, client: client() }
    }

    async fn admin(&self, method: reqwest::Method, path: &str) -> String {
        let url = format!("http://{}{path}", self.sidecar.admin());
        self.client.request(method, url).send().await.unwrap().text().await.unwrap()
    }

    /// Until it is done: it is given a second, which a busy machine may need longer for.
    async fn purge(&self, path: &str) {
        for _ in 0..30 {
            let purged: Value = serde_json::from_str(&self.admin(reqwest::Method::DELETE, path).await).unwrap();
            if purged["shared"] == "purged" {
                return;
            }
            assert_eq!(purged["shared"], "waits for the store", "{purged}");
        }
        panic!("{path} is not purged");
    }

    async fn metric(&self, line: &str) -> f64 {
        let metrics = self.admin(reqwest::Method::GET, "/metrics").await;
        let found = metrics.lines().find_map(|told| told.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_default()
    }

    async fn is_open(&self, wanted: bool) {
        self.until("tollgate_cache_store_up", |up| (up == 1.0) == wanted).await;
    }

    async fn until(&self, line: &str, is_so: impl Fn(f64) -> bool) {
        let mut last = 0.0;
        for _ in 0..1500 {
            last = self.metric(line).await;
            if is_so(last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{line} is {last}: {}", self.admin(reqwest::Method::GET, "/readyz").await);
    }

    /// Waits until so many answers of this gate's are at the store.
    async fn has_put(&self, count: f64) {
        self.until("tollgate_cache_store_writes_total{result=\"kept\"}", |kept| kept >= count).await;
    }

    async fn put(&self) -> f64 {
        self.metric("tollgate_cache_store_writes_total{result=\"kept\"}").await
    }

    async fn ask(&self, prompt: &str) -> Told {
        self.run(&json!({"prompt": prompt, "temperature": 0, "max_tokens": 8})).await
    }

    async fn run(&self, body: &Value) -> Told {
        let url = format!("http://{}/run/{LLAMA}", self.sidecar.listen());
        let reply = ask(&self.client, &url, body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let header = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let status = header("cf-aig-cache-status").unwrap_or_default();
        let is_shared = header("x-tollgate-cache-tier").is_some_and(|tier| tier == "shared");
        let neurons = header("x-tollgate-neurons");
        Told { status, is_shared, neurons, body: reply.text().await.unwrap() }
    }

    /// Asks until the store has its mark: what a store that was never used is first asked for is not put.
    async fn warm(&self) {
        for n in 0..500 {
            self.ask(&format!("warm {n} {}", self.sidecar.listen())).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.put().await > 0.0 {
                return;
            }
        }
        panic!("nothing is put: {}", self.admin(reqwest::Method::GET, "/metrics").await);
    }

    /// Asks something new, and waits until it is at the store.
    async fn keep(&self, prompt: &str) -> Told {
        let before = self.put().await;
        let told = self.ask(prompt).await;
        assert_eq!(told.status, "MISS", "{prompt}");
        self.has_put(before + 1.0).await;
        told
    }
}

async fn two(vendor: &Running, redis: &Redis) -> [Gate; 2] {
    let one = Gate::at(vendor, redis.port, "one", "").await;
    one.warm().await;
    let other = Gate::at(vendor, redis.port, "other", "").await;
    [one, other]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gate_has_paid_for_the_other_gives_out_for_nothing() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    // With limits and a budget at the same store.
    let gate = |name: &str| {
        let cache = "shared_wait = \"1s\"\n[[budgets]]\nname = \"all\"\nlimit = \"1 USD\"\nwindow = \"day\"\n";
        let replicas = format!("store = \"{}\"\n", redis.url());
        Gate::start_with(&vendor, name, &replicas, cache)
    };
    let [one, other] = ["one", "other"].map(gate);
    one.is_open(true).await;
    other.is_open(true).await;
    one.warm().await;
    let paid = one.keep("the same for both").await;
    let before = vendor.counts().attempts;
    let spent = "tollgate_budget_spent_neurons{budget=\"all\"}";
    let spent_before = other.metric(spent).await;
    let found = other.ask("the same for both").await;
    assert_eq!((found.status.as_str(), found.is_shared, found.body), ("HIT", true, paid.body));
    assert_eq!(found.neurons.as_deref(), Some("0"), "{:?}", paid.neurons);
    assert_eq!(vendor.counts().attempts, before, "nobody was asked");
    assert_eq!(other.metric(spent).await, spent_before);
    let facts = other.receipts.after(1).await.pop().unwrap();
    assert_eq!((facts.cache, facts.outcome, facts.cost.neurons.micro()), (CacheStatus::Shared, Outcome::CacheHit, 0));
    assert!(facts.saved.micro() > 0 && facts.attempts.is_empty(), "{facts:?}");
    let again = other.ask("the same for both").await;
    assert_eq!((again.status.as_str(), again.is_shared), ("HIT", false));
    let line = |status: &str| format!("tollgate_cache_requests_total{{model=\"{LLAMA}\",status=\"{status}\"}}");
    assert_eq!((other.metric(&line("SHARED")).await, other.metric(&line("HIT")).await), (1.0, 1.0));
    assert_eq!(other.metric("tollgate_cache_store_lookups_total{result=\"hit\"}").await, 1.0);
    assert!(other.admin(reqwest::Method::GET, "/readyz").await.contains("cached answers are shared"));
    // A stream is its stream again.
    let stream = json!({"prompt": "a tale", "stream": true, "seed": 7, "max_tokens": 20});
    let before = one.put().await;
    let told = one.run(&stream).await;
    one.has_put(before + 1.0).await;
    let found = other.run(&stream).await;
    assert_eq!((found.is_shared, found.body), (true, told.body));
    // Neither questions nor models nor answers can be read at the store.
    let names = redis.ask(&["KEYS", "*"]);
    assert!(names.contains("tollgate:cache:{tollgate}:marks") && !names.contains("llama\n"), "{names}");
    let name = names.lines().find(|name| name.starts_with("tollgate:cache:") && !name.ends_with(":marks")).unwrap();
    let value = redis.ask(&["GET", name]);
    assert!(value.len() > 60 && !value.contains("response") && !value.contains("llama"), "{value}");
    let ttl: i64 = redis.ask(&["--raw", "TTL", name]).trim().parse().unwrap();
    assert!((200..=300).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_the_store_is_a_miss_and_no_error() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let [one, other] = two(&vendor, &redis).await;
    redis.ask(&["CONFIG", "SET", "appendonly", "no"]);
    let names = || {
        let all = redis.ask(&["--raw", "KEYS", "tollgate:cache:*"]);
        let all = all.lines().filter(|name| !name.ends_with(":marks")).map(str::to_owned);
        all.collect::<std::collections::HashSet<_>>()
    };
    type Deed = fn(&Redis, &str, &str);
    let deeds: [(&str, Deed); 7] = [
        ("cut", |redis, name, _| {
            drop(redis.ask(&[
                "EVAL",
                "redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, 40), 'PX', 60000)",
                "1",
                name,
            ]))
        }),
        ("flipped", |redis, name, _| drop(redis.ask(&["EVAL", "redis.call('SETRANGE', KEYS[1], 70, '~')", "1", name]))),
        ("another's", |redis, name, another| {
            drop(redis.ask(&[
                "EVAL",
                "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), 'PX', 60000)",
                "2",
                name,
                another,
            ]))
        }),
        ("text", |redis, name, _| {
            drop(redis.ask(&["SET", name, "{\"result\":{\"response\":\"poison\"}}", "PX", "60000"]))
        }),
        ("of another version", |redis, name, _| {
            drop(redis.ask(&["EVAL", "redis.call('SETRANGE', KEYS[1], 0, '\\2')", "1", name]))
        }),
        ("without an end", |redis, name, _| drop(redis.ask(&["SET", name, "x"]))),
        ("a list", |redis, name, _| {
            drop(redis.ask(&["EVAL", "redis.call('DEL', KEYS[1]) redis.call('LPUSH', KEYS[1], 'x')", "1", name]))
        }),
    ];
    let known = names();
    let another = known.iter().next().unwrap();
    for (what, deed) in deeds {
        let known = names();
        let told = one.keep(what).await;
        let new: Vec<_> = names().difference(&known).cloned().collect();
        assert_eq!(new.len(), 1, "{what}");
        deed(&redis, &new[0], another);
        let answer = other.ask(what).await;
        assert_eq!((answer.status.as_str(), answer.body), ("MISS", told.body), "{what}");
        other.is_open(true).await;
    }
    // A value that is what it was is found, so that the above misses are misses for what was done.
    one.keep("untouched").await;
    assert!(other.ask("untouched").await.is_shared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_slow_or_silent_holds_no_call_up() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let [one, _] = two(&vendor, &redis).await;
    let way = Proxy::before(redis.port);
    let other = Gate::start(&vendor, way.port, "third", "shared_wait = \"20ms\"\n");
    for (number, bad) in [Way::Delay(Duration::from_millis(200)), Way::Stop, Way::Cut].into_iter().enumerate() {
        other.is_open(true).await;
        way.set(bad);
        let asked = async |from: usize| {
            let mut all = Vec::new();
            for n in from..from + 40 {
                let began = Instant::now();
                assert_eq!(other.ask(&format!("call {number} {n}")).await.status, "MISS");
                all.push(began.elapsed());
            }
            all.sort();
            all
        };
        // The first of them wait for their 20 ms; then nobody does, however busy this machine is.
        asked(0).await;
        let looks = other.metric("tollgate_cache_store_looks_total").await;
        let waited = other.metric("tollgate_cache_store_look_seconds_total").await;
        let began = Instant::now();
        let all = asked(40).await;
        let looks = other.metric("tollgate_cache_store_looks_total").await - looks;
        let waited = other.metric("tollgate_cache_store_look_seconds_total").await - waited;
        println!("{bad:?}: {looks} looks, {:.1} ms waited, half of the calls within {:?}", waited * 1e3, all[20]);
        let most = 4.0 * (began.elapsed().as_secs_f64() + 1.0);
        assert!(looks <= most, "{bad:?}: {looks} of 40 calls looked, in {:?}", began.elapsed());
        way.set(Way::Pass);
        other.is_open(true).await;
    }
    // It finds again what is there, as soon as this machine lets it have an answer within 20 ms.
    for n in 0..200 {
        one.keep(&format!("kept {n}")).await;
        if other.ask(&format!("kept {n}")).await.is_shared {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing is found: {}", other.admin(reqwest::Method::GET, "/metrics").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_told_of_and_calls_go_on() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let gate = Gate::at(&vendor, redis.port, "one", "").await;
    gate.warm().await;
    let told = gate.keep("kept").await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    assert_eq!(gate.ask("not kept").await.status, "MISS");
    gate.until("tollgate_cache_store_writes_total{result=\"full\"}", |full| full >= 1.0).await;
    let other = Gate::at(&vendor, redis.port, "other", "").await;
    let found = other.ask("kept").await;
    assert_eq!((found.is_shared, found.body), (true, told.body), "what is there is given out");
    assert_eq!(other.ask("not kept").await.status, "MISS");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    gate.keep("kept again").await;
    assert!(other.ask("kept again").await.is_shared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_reaches_the_store_for_gates_that_cannot_be_told() {
    let Some(mut redis) = Redis::start() else { return };
    let vendor = vendor();
    let [one, other] = two(&vendor, &redis).await;
    for (path, is_found) in [
        ("/cache?model=@cf/meta/llama-3.2-3b-instruct".to_owned(), true),
        (format!("/cache?model={LLAMA}"), false),
        ("/cache".to_owned(), false),
    ] {
        one.keep(&path).await;
        one.purge(&path).await;
        assert_eq!(other.ask(&path).await.is_shared, is_found, "{path}");
    }
    one.keep("before").await;
    redis.kill();
    one.ask("whatever").await;
    one.is_open(false).await;
    let purged: Value = serde_json::from_str(&one.admin(reqwest::Method::DELETE, "/cache").await).unwrap();
    assert_eq!(purged["shared"], "waits for the store", "{purged}");
    redis.start_again();
    one.is_open(true).await;
    one.warm().await;
    let third = Gate::at(&vendor, redis.port, "third", "").await;
    assert_eq!(third.ask("before").await.status, "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_while_is_shared_for_that_while() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let one = Gate::at(&vendor, redis.port, "one", "ttl = \"3s\"\n").await;
    one.warm().await;
    let other = Gate::at(&vendor, redis.port, "other", "ttl = \"1h\"\n").await;
    let began = Instant::now();
    let mut found = 0;
    one.keep("for three seconds").await;
    // The other keeps what it found for what is left of it, and no longer.
    loop {
        let told = other.ask("for three seconds").await;
        if told.status == "MISS" {
            break;
        }
        found += 1;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(found == 0 || began.elapsed() >= Duration::from_secs(3), "{found} found, {:?}", began.elapsed());
}

#[test]
fn what_the_store_of_the_cache_lacks_is_told_with_the_mend() {
    let Some(redis) = Redis::start() else { return };
    redis.ask(&["ACL", "SETUSER", "poor", "on", ">right", "~tollgate:*", "+get", "+set", "+info"]);
    let rights = ["+getrange", "+pttl", "+set", "+hmget", "+hset", "+hsetnx", "+hlen", "+del", "+info"];
    redis.ask(&[&["ACL", "SETUSER", "enough", "on", ">right", "resetkeys", "~tollgate:cache:*"][..], &rights].concat());
    let run = |words: &[&str], store: &str, own: &str| {
        let mut command = command();
        command.args(words).envs([("TOLLGATE_CACHE_SHARED", "true"), ("TOLLGATE_REPLICAS_SECRET", SECRET)]);
        command.envs([("TOLLGATE_REPLICAS_STORE", store), ("TOLLGATE_CACHE_STORE", own)]);
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(!told.contains(SECRET) && !told.contains("right@"), "{told}");
        (output.status.success(), told)
    };
    let at = |user: &str| format!("redis://{user}:right@127.0.0.1:{}", redis.port);
    for words in [&["check", "--connect"][..], &["doctor"]] {
        let (is_well, told) = run(words, "", &at("poor"));
        assert!(!is_well && told.contains("its ACL must allow GETRANGE"), "{told}");
        let (_, told) = run(words, "", &at("enough"));
        assert!(told.contains("it has no maxmemory") && told.contains("allkeys-lru"), "{told}");
        redis.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        let (_, told) = run(words, "", &at("enough"));
        assert!(told.contains("new answers are not shared until old ones end"), "{told}");
        let (_, told) = run(words, &redis.url(), "");
        assert!(told.contains("give the cache a store of its own"), "{told}");
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    }
    let (is_well, told) = run(&["check"], "", "");
    assert!(!is_well && told.contains("set [replicas] store, or [cache] store"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_gates_that_are_asked_the_same_pay_for_little_more_than_one_would() {
    const GATES: usize = 10;
    const QUESTIONS: u64 = 150;
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let mut gates = Vec::new();
    for n in 0..GATES {
        gates.push(Gate::at(&vendor, redis.port, &format!("gate {n}"), "").await);
    }
    gates[0].warm().await;
    let before = vendor.counts().attempts;
    // A few questions are asked by most: the square of an even draw.
    let asking = gates.iter().enumerate().map(|(n, gate)| async move {
        let mut draw = fastrand::Rng::with_seed(n as u64);
        let (mut asked, mut told) = (std::collections::BTreeSet::new(), Vec::new());
        for _ in 0..120 {
            let question = draw.u64(..QUESTIONS * QUESTIONS).isqrt().abs_diff(QUESTIONS - 1);
            asked.insert(question);
            told.push((question, gate.ask(&format!("question {question}")).await));
        }
        (asked, told)
    });
    let all = futures_util::future::join_all(asking).await;
    let attempts = vendor.counts().attempts - before;
    let alone: usize = all.iter().map(|(asked, _)| asked.len()).sum();
    let distinct = all.iter().flat_map(|(asked, _)| asked).collect::<std::collections::BTreeSet<_>>().len();
    let mut answers = std::collections::BTreeMap::new();
    let (mut own, mut shared, mut missed) = (0, 0, 0);
    for (question, told) in all.iter().flat_map(|(_, told)| told) {
        assert_eq!(answers.entry(question).or_insert(&told.body), &&told.body, "question {question}");
        match (told.status.as_str(), told.is_shared) {
            ("HIT", true) => shared += 1,
            ("HIT", false) => own += 1,
            _ => missed += 1,
        }
    }
    println!(
        "{GATES} gates, {} calls for {distinct} questions: {own} from their own memory, {shared} shared, {missed} missed; \
         {attempts} attempts, where each gate by itself would make {alone}",
        own + shared + missed
    );
    assert_eq!(attempts, missed);
    assert!(attempts as usize >= distinct && (attempts as usize) < alone * 7 / 10, "{attempts} of {alone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_takes_by_where_it_was_kept() {
    let Some(redis) = Redis::start() else { return };
    let vendor = vendor();
    let [one, other] = two(&vendor, &redis).await;
    let text = |n: usize| format!("question {n} {}", "and so on ".repeat(200));
    for n in 0..100 {
        one.keep(&text(n)).await;
    }
    let mut medians = Vec::new();
    let tiers = [("MISS", false, 100), ("HIT", true, 0), ("HIT", false, 0)];
    for (status, is_shared, from) in tiers {
        let mut all = Vec::new();
        for n in from..from + 100 {
            let began = Instant::now();
            let told = other.ask(&text(n)).await;
            all.push(began.elapsed());
            assert_eq!((told.status.as_str(), told.is_shared), (status, is_shared));
        }
        all.sort();
        medians.push((all[50], all[95]));
    }
    let looks = other.metric("tollgate_cache_store_looks_total").await;
    let waited = other.metric("tollgate_cache_store_look_seconds_total").await;
    println!(
        "median and p95: a miss {:?}, shared {:?}, own {:?}; a look {:.0} µs of {looks}",
        medians[0],
        medians[1],
        medians[2],
        waited / looks * 1e6
    );
}
