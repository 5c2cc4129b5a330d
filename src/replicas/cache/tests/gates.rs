//! Two gates' caches over one shelf.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Response};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt};

use super::*;
use crate::Error;
use crate::body::Body;
use crate::call::{Call, Head, Options};
use crate::layers::cache::{CacheLayer, Settings};
use crate::layers::testing::{self, LLAMA, Sealed, Vendor};
use crate::layers::{Reply, ReplyFuture};
use crate::neurons::Neurons;
use crate::receipt::{CacheStatus, Outcome, Readers};

const EMBEDDINGS: &str = "@cf/baai/bge-m3";

/// A gate's cache over a shelf, and its tier.
fn gate(shelf: &Faulty) -> (CacheLayer, SharedCache) {
    let shared = tier(shelf);
    (CacheLayer::new(Settings::default()).with_tier(Arc::new(shared.clone())), shared)
}

async fn gates(shelf: &Faulty) -> [(CacheLayer, SharedCache); 2] {
    let gates = [gate(shelf), gate(shelf)];
    for (_, shared) in &gates {
        ready(shared).await;
    }
    gates
}

fn call(readers: Readers, model: &str, body: &str) -> Call {
    let call = testing::call_read_by(readers, model, body);
    let ask = crate::call::Ask { temperature: Some(0.0), ..(*call.ask).clone() };
    Call { ask: Arc::new(ask), ..call }
}

fn ask(body: &str) -> Call {
    call(Arc::new([]), LLAMA, body)
}

/// A vendor that counts, and answers with the number of the call.
fn counting(
    count: &Arc<AtomicUsize>,
) -> impl Service<Call, Response = Reply, Error = Error, Future = ReplyFuture> + Clone + Send + use<> {
    let count = count.clone();
    Vendor(move |call: Call| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        call.receipt.note(|facts| facts.cost.neurons = Neurons::from_whole(7));
        async move { Ok::<_, Error>(answer(format!("{{\"result\":{n}}}"))) }
    })
}

fn answer(body: String) -> Reply {
    let mut reply = Response::new(Body::from(body));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert("x-tollgate-neurons", HeaderValue::from_static("7"));
    reply
}

async fn told(reply: Reply) -> (String, Option<String>, String) {
    let header = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, tier) = (header("cf-aig-cache-status").unwrap_or_default(), header("x-tollgate-cache-tier"));
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    settle().await;
    (status, tier, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_one_gate_has_paid_for_costs_the_other_nothing() {
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, _)] = gates(&shelf).await;
    let (count, sealed) = (Arc::default(), Sealed::default());
    let [mut one, mut other] = [&one, &other].map(|layer| layer.layer(counting(&count)));
    let ask = || call(sealed.readers(), LLAMA, r#"{"prompt":"x"}"#);
    let text = || "{\"result\":0}".to_owned();
    assert_eq!(told(one.call(ask()).await.unwrap()).await, ("MISS".into(), None, text()));
    let reply = other.call(ask()).await.unwrap();
    assert_eq!(reply.headers()["x-tollgate-neurons"], "0");
    assert_eq!(reply.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(told(reply).await, ("HIT".into(), Some("shared".into()), text()));
    // From then on it is the other's own.
    assert_eq!(told(other.call(ask()).await.unwrap()).await, ("HIT".into(), None, text()));
    let facts = sealed.0.lock();
    let statuses: Vec<_> = facts.iter().map(|facts| (facts.cache, facts.outcome, facts.saved)).collect();
    let seven = Neurons::from_whole(7);
    assert_eq!(statuses[1], (CacheStatus::Shared, Outcome::CacheHit, seven));
    assert_eq!(statuses[2], (CacheStatus::Hit, Outcome::CacheHit, seven));
    assert!(facts[1..].iter().all(|facts| facts.cost.neurons == Neurons::ZERO));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_one_gate_looks_once_and_asks_once() {
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, shared)] = gates(&shelf).await;
    let (count, sealed) = (Arc::default(), Sealed::default());
    told(one.layer(counting(&count)).call(ask(r#"{"prompt":"x"}"#)).await.unwrap()).await;
    let before = shared.counts().trips();
    shelf.set(Fault::Late(Duration::from_millis(2)));
    let cache = other.layer(counting(&count));
    let calls = (0..50).map(|_| cache.clone().oneshot(call(sealed.readers(), LLAMA, r#"{"prompt":"x"}"#)));
    let replies = futures_util::future::join_all(calls).await;
    for reply in replies {
        assert_eq!(told(reply.unwrap()).await, ("HIT".into(), Some("shared".into()), "{\"result\":0}".into()));
    }
    assert_eq!((count.load(Ordering::SeqCst), shared.counts().trips() - before), (1, 1));
    assert!(sealed.0.lock().iter().all(|facts| facts.saved == Neurons::from_whole(7)));
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_no_cache_neither_looks_nor_shares() {
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, shared)] = gates(&shelf).await;
    let count = Arc::default();
    let [one, other] = [&one, &other].map(|layer| layer.layer(counting(&count)));
    let with = |options: Options| Call { options: Arc::new(options), ..ask(r#"{"prompt":"x"}"#) };
    let sampled = || testing::call(LLAMA, r#"{"prompt":"x","temperature":0.8}"#);
    let before = shared.counts().trips();
    for call in [
        with(Options { skip_cache: true, ..Options::default() }),
        with(Options { cache_ttl: Some(Duration::ZERO), ..Options::default() }),
        sampled(),
    ] {
        for cache in [&one, &other] {
            let (status, tier, _) = told(cache.clone().oneshot(call.clone()).await.unwrap()).await;
            assert_eq!((status.as_str(), tier), ("BYPASS", None));
        }
    }
    assert_eq!((shared.counts().trips(), count.load(Ordering::SeqCst)), (before, 6));
    // A request that asks to keep its own has it kept for the other gate, too, under its name.
    let named = |words: &str| {
        let options = Options { cache_key: Some("greeting".into()), ..Options::default() };
        Call { options: Arc::new(options), ..testing::call(LLAMA, words) }
    };
    told(one.clone().oneshot(named(r#"{"prompt":"x","temperature":0.8}"#)).await.unwrap()).await;
    let (_, tier, _) = told(other.clone().oneshot(named(r#"{"prompt":"y"}"#)).await.unwrap()).await;
    assert_eq!(tier.as_deref(), Some("shared"));
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_is_cut_or_is_another_models_is_not_shared() {
    let shelf = Faulty::new(1 << 20);
    let [(one, shared), (other, _)] = gates(&shelf).await;
    let turn = Arc::new(AtomicUsize::new(0));
    let vendor = Vendor(move |call: Call| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        if turn == 3 {
            let catalogue = crate::catalogue::Catalogue::default();
            let model = catalogue.find("@cf/meta/llama-3.2-3b-instruct", crate::catalogue::Task::TextGeneration);
            call.receipt.note(|facts| facts.model = model);
        }
        async move {
            match turn {
                0 => Ok(testing::refusal(500, None)),
                1 => Err(Error::Unavailable("down".into())),
                2 => Ok(answer(r#"{"errors":[{"code":3040,"message":"x"}],"success":false}"#.into())),
                _ => Ok(answer(r#"{"result":"x"}"#.into())),
            }
        }
    });
    for _ in 0..4 {
        if let Ok(reply) = one.layer(vendor.clone()).oneshot(ask(r#"{"prompt":"x"}"#)).await {
            told(reply).await;
        }
    }
    assert_eq!(written(&shared, "kept"), 0);
    let (status, ..) = told(other.layer(vendor).oneshot(ask(r#"{"prompt":"x"}"#)).await.unwrap()).await;
    assert_eq!(status, "MISS");
}

#[tokio::test(start_paused = true)]
async fn texts_that_another_gate_has_embedded_do_not_go_upstream() {
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, shared)] = gates(&shelf).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let vendor = Vendor(move |call: Call| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let texts: Vec<String> = match &body["text"] {
            serde_json::Value::String(text) => vec![text.clone()],
            texts => serde_json::from_value(texts.clone()).unwrap(),
        };
        seen.lock().push(texts.clone());
        call.receipt.note(|facts| facts.cost.neurons = Neurons::from_whole(texts.len() as u64));
        let data: Vec<_> = texts.iter().map(|text| [text.len(), usize::from(text.as_bytes()[0])]).collect();
        let reply =
            serde_json::json!({"result": {"shape": [data.len(), 2], "data": data, "pooling": "cls"}, "success": true});
        async move { Ok(answer(reply.to_string())) }
    });
    let sealed = Sealed::default();
    let ask = async |layer: &CacheLayer, body: &str| {
        let reply = layer.layer(vendor.clone()).oneshot(call(sealed.readers(), EMBEDDINGS, body)).await.unwrap();
        let (status, tier, body) = told(reply).await;
        (status, tier, serde_json::from_str::<serde_json::Value>(&body).unwrap()["result"]["data"].clone())
    };
    ask(&one, r#"{"text":["a","bb"]}"#).await;
    let before = shared.counts().trips();
    let (status, tier, data) = ask(&other, r#"{"text":["bb","ccc","a","bb"]}"#).await;
    assert_eq!((status.as_str(), tier), ("PARTIAL", None));
    assert_eq!(data, serde_json::json!([[2, 98], [3, 99], [1, 97], [2, 98]]));
    assert_eq!(shared.counts().trips() - before, 1);
    let (status, tier, data) = ask(&one, r#"{"text":["ccc","a","ccc"]}"#).await;
    assert_eq!((status.as_str(), tier.as_deref()), ("HIT", Some("shared")));
    assert_eq!(data, serde_json::json!([[3, 99], [1, 97], [3, 99]]));
    assert_eq!(sealed.0.lock().last().unwrap().cache, CacheStatus::Shared);
    ask(&one, r#"{"text":"alone"}"#).await;
    assert_eq!(ask(&other, r#"{"text":"alone"}"#).await.1.as_deref(), Some("shared"));
    let wanted: [&[&str]; 3] = [&["a", "bb"], &["ccc"], &["alone"]];
    assert_eq!(*asked.lock(), wanted);
    // Of many texts so many are looked for.
    let many: Vec<_> = (0..40).map(|n| format!("text {n}")).collect();
    let body = serde_json::json!({ "text": many }).to_string();
    ask(&one, &body).await;
    let (status, _, data) = ask(&other, &body).await;
    assert_eq!((status.as_str(), data.as_array().unwrap().len()), ("PARTIAL", 40));
    assert_eq!(asked.lock().last().unwrap(), &many[32..]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_shared_as_the_stream_that_it_was() {
    const STREAM: &str = "data: {\"response\":\"one\"}\n\ndata: [DONE]\n\n";
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, _)] = gates(&shelf).await;
    let vendor = Vendor(|_| async {
        let mut reply = Response::new(Body::from(STREAM));
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(reply)
    });
    let ask = || ask(r#"{"prompt":"x","stream":true}"#);
    told(one.layer(vendor.clone()).oneshot(ask()).await.unwrap()).await;
    let reply = other.layer(vendor).oneshot(ask()).await.unwrap();
    assert_eq!(reply.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(told(reply).await, ("HIT".into(), Some("shared".into()), STREAM.into()));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_does_at_the_store_is_a_miss_and_never_another_answer() {
    type Values = HashMap<String, (Vec<u8>, Instant)>;
    let swaps = |values: &mut Values| {
        let names: Vec<_> = values.keys().cloned().collect();
        let first = values[&names[0]].clone();
        let second = std::mem::replace(values.get_mut(&names[1]).unwrap(), first);
        values.insert(names[0].clone(), second);
    };
    let all = |change: fn(&mut Vec<u8>)| move |values: &mut Values| values.values_mut().for_each(|(v, _)| change(v));
    type Deed = Box<dyn Fn(&mut Values)>;
    let deeds: [Deed; 6] = [
        Box::new(swaps),
        Box::new(all(|value| value[0] = 2)),
        Box::new(all(|value| value.truncate(value.len() / 2))),
        Box::new(all(|value| value.push(0))),
        Box::new(all(|value| *value = b"{\"result\":\"poison\"}".to_vec())),
        Box::new(all(|value| value.fill(0))),
    ];
    for deed in deeds {
        let shelf = Faulty::new(1 << 20);
        let [(one, _), (other, shared)] = gates(&shelf).await;
        let count = Arc::default();
        let bodies = [r#"{"prompt":"x"}"#, r#"{"prompt":"y"}"#];
        for body in bodies {
            told(one.layer(counting(&count)).oneshot(ask(body)).await.unwrap()).await;
        }
        shelf.shelf.tamper(deed);
        for (n, body) in bodies.into_iter().enumerate() {
            let reply = other.layer(counting(&count)).oneshot(ask(body)).await.unwrap();
            assert_eq!(told(reply).await, ("MISS".into(), None, format!("{{\"result\":{}}}", n + 2)));
        }
        assert_eq!(looked(&shared, "unreadable"), 2);
        // What is right takes its place.
        let (third, _) = gate(&shelf);
        settle().await;
        let reply = third.layer(counting(&count)).oneshot(ask(bodies[0])).await.unwrap();
        assert_eq!(told(reply).await, ("HIT".into(), Some("shared".into()), "{\"result\":2}".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn gates_with_another_secret_or_before_another_upstream_share_nothing() {
    let shelf = Faulty::new(1 << 20);
    let (count, (one, shared)) = (Arc::default(), gate(&shelf));
    ready(&shared).await;
    told(one.layer(counting(&count)).oneshot(ask(r#"{"prompt":"x"}"#)).await.unwrap()).await;
    let stranger = SharedCache::new(Arc::new(shelf.clone()), b"another", "fleet", SharedSettings::default()).unwrap();
    let running = stranger.clone();
    tokio::spawn(async move { running.run_until(std::future::pending()).await });
    ready(&stranger).await;
    let elsewhere = |upstream: &str| Settings { upstream: upstream.into(), ..Settings::default() };
    for layer in [
        CacheLayer::new(Settings::default()).with_tier(Arc::new(stranger)),
        CacheLayer::new(elsewhere("http://127.0.0.1:1")).with_tier(Arc::new(shared.clone())),
        one.followed_by(elsewhere("http://127.0.0.1:2")),
    ] {
        layer.purge(None);
        let (status, ..) = told(layer.layer(counting(&count)).oneshot(ask(r#"{"prompt":"x"}"#)).await.unwrap()).await;
        assert_eq!(status, "MISS");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_is_looked_for_is_not_brought_back() {
    let shelf = Faulty::new(1 << 20);
    let [(one, _), (other, _)] = gates(&shelf).await;
    let count = Arc::default();
    told(one.layer(counting(&count)).oneshot(ask(r#"{"prompt":"x"}"#)).await.unwrap()).await;
    shelf.set(Fault::Late(Duration::from_millis(3)));
    let asking = tokio::spawn(other.layer(counting(&count)).oneshot(ask(r#"{"prompt":"x"}"#)));
    settle().await;
    other.purge(None);
    assert_eq!(told(asking.await.unwrap().unwrap()).await.0, "MISS");
}

/// Who asks, and for what: all that an answer must not cross.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    account: u8,
    token: u8,
    key: Option<u8>,
    gateway: u8,
    is_stream: bool,
    name: Option<u8>,
    prompt: u8,
    at: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let who = (0..2_u8, 0..2_u8, prop::option::of(0..2_u8), 0..2_u8);
    let what = (any::<bool>(), prop::option::weighted(0.2, 0..2_u8), 0..2_u8, 0..2_usize);
    (who, what).prop_map(|((account, token, key, gateway), (is_stream, name, prompt, at))| Asked {
        account,
        token,
        key,
        gateway,
        is_stream,
        name,
        prompt,
        at,
    })
}

impl Asked {
    fn call(&self) -> Call {
        let headers = [
            (header::AUTHORIZATION, format!("Bearer {}", self.token)),
            (HeaderName::from_static("cf-aig-gateway-id"), format!("g{}", self.gateway)),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(&value).unwrap()));
        let head = Head { headers: HeaderMap::from_iter(headers), ..Head::default() };
        let name = self.name.map(|name| format!("name {name}"));
        Call {
            account: format!("account {}", self.account).into(),
            key: self.key.map(|key| format!("key {key}").into()),
            stream: self.is_stream,
            head: Arc::new(head),
            options: Arc::new(Options { cache_key: name, ..Options::default() }),
            ..ask(&format!("{{\"prompt\":\"{}\"}}", self.prompt))
        }
    }

    /// What the vendor says to it, and to no other.
    fn answer(&self) -> String {
        // A key of the gate's own stands for its token; a name of the caller's, for the words.
        let token = if self.key.is_none() { self.token } else { 9 };
        let words = self.name.map_or_else(|| format!("prompt {}", self.prompt), |name| format!("name {name}"));
        let Self { account, key, gateway, is_stream, .. } = self;
        format!("{{\"result\":\"{account} {token} {key:?} {gateway} {is_stream} {words}\"}}")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_answer_crosses_accounts_keys_tokens_or_inputs_over_two_gates(all in prop::collection::vec(asked(), 2..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let shelf = Faulty::new(1 << 20);
            let gates = gates(&shelf).await;
            let mut paid = Vec::new();
            for one in &all {
                let right = one.answer();
                let vendor = Vendor({
                    let right = right.clone();
                    move |_| {
                        let right = right.clone();
                        async move { Ok(answer(right)) }
                    }
                });
                let (status, _, text) = told(gates[one.at].0.layer(vendor).oneshot(one.call()).await.unwrap()).await;
                assert_eq!(text, right, "{one:?}");
                // And whoever has asked before, at either gate, is not asked again.
                assert_eq!(status == "HIT", paid.contains(&right), "{one:?}");
                paid.push(right);
            }
        });
    }
}
