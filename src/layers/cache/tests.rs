use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;

use http_body_util::BodyExt;

use super::*;
use crate::body::{Body, BoxError};
use crate::call::{Head, Options};
use crate::headers::CF_AIG_CACHE_STATUS;
use crate::layers::testing::{self, LLAMA, Sealed, Vendor, ok, refusal};
use crate::neurons::Neurons;
use crate::receipt::{Outcome, Readers};

type Upstream = Arc<AtomicUsize>;

/// A call whose answer is the same each time.
fn call(model: &str, body: &str) -> Call {
    call_read_by(Arc::new([]), model, body)
}

fn call_read_by(readers: Readers, model: &str, body: &str) -> Call {
    asked_with(testing::call_read_by(readers, model, body), Some(0.0), false)
}

fn asked_with(call: Call, temperature: Option<f64>, seeded: bool) -> Call {
    let ask = crate::call::Ask { temperature, seeded, ..(*call.ask).clone() };
    Call { ask: Arc::new(ask), ..call }
}

fn json(body: &'static str) -> Reply {
    let mut reply = ok(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn layer() -> CacheLayer {
    CacheLayer::new(Settings::default())
}

async fn text(reply: Reply) -> String {
    String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn status(reply: &Reply) -> &str {
    reply.headers()[&CF_AIG_CACHE_STATUS].to_str().unwrap()
}

/// A vendor that counts and answers with the number of the call.
fn counting(
    count: &Upstream,
) -> impl Service<Call, Response = Reply, Error = Error, Future = ReplyFuture> + Clone + Send + use<> {
    let count = count.clone();
    Vendor(move |call: Call| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        call.receipt.note(|facts| facts.cost.neurons = Neurons::from_whole(7));
        async move {
            let mut reply = Response::new(Body::from(format!("{{\"result\":{n}}}")));
            reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Error>(reply)
        }
    })
}

/// A stream whose pieces come by hand.
fn by_hand() -> (mpsc::UnboundedSender<Result<&'static str, &'static str>>, Reply) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pieces = stream::unfold(
        receiver,
        |mut receiver: mpsc::UnboundedReceiver<Result<&'static str, &'static str>>| async move {
            let piece = receiver.recv().await?;
            let frame = piece.map(|text: &str| Frame::data(Bytes::from_static(text.as_bytes())));
            Some((frame.map_err(BoxError::from), receiver))
        },
    );
    let mut reply = Reply::new(Body::stream(StreamBody::new(pieces)));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    (sender, reply)
}

fn with(options: Options) -> Call {
    Call { options: Arc::new(options), ..call(LLAMA, r#"{"prompt":"x"}"#) }
}

#[tokio::test]
async fn a_repeat_costs_nothing_and_asks_nobody() {
    let (count, sealed) = (Upstream::default(), Sealed::default());
    let mut cache = layer().layer(counting(&count));
    let mut answers = Vec::new();
    for body in [r#"{"prompt":"x","n":1}"#, "{\"n\": 1,\n\"prompt\": \"x\"}"] {
        let reply = cache.call(call_read_by(sealed.readers(), LLAMA, body)).await.unwrap();
        answers.push((status(&reply).to_owned(), text(reply).await));
    }
    assert_eq!(
        answers,
        [("MISS".to_owned(), "{\"result\":0}".to_owned()), ("HIT".to_owned(), "{\"result\":0}".to_owned())]
    );
    let hit = sealed.0.lock().last().unwrap().clone();
    assert_eq!((hit.outcome, hit.saved, hit.cost.neurons), (Outcome::CacheHit, Neurons::from_whole(7), Neurons::ZERO));
}

#[tokio::test]
async fn what_differs_is_not_the_same() {
    let count = Upstream::default();
    let mut cache = layer().layer(counting(&count));
    let base = || call(LLAMA, r#"{"prompt":"x"}"#);
    let authorized = |token: &'static str| {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(token))]);
        Call { head: Arc::new(Head { headers, ..Head::default() }), ..base() }
    };
    let through = |gateway: &'static str| {
        let name = HeaderName::from_static("cf-aig-gateway-id");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(gateway))]);
        Call { head: Arc::new(Head { headers, ..Head::default() }), ..base() }
    };
    let calls = [
        base(),
        call(LLAMA, r#"{"prompt":"y"}"#),
        call("@cf/meta/llama-3.2-3b-instruct", r#"{"prompt":"x"}"#),
        Call { stream: true, ..base() },
        Call { account: "other".into(), ..base() },
        Call { key: Some("team".into()), ..base() },
        Call { endpoint: crate::call::Endpoint::ChatCompletions, ..base() },
        authorized("Bearer a"),
        authorized("Bearer b"),
        through("one"),
        through("two"),
    ];
    let different = calls.len();
    for call in calls.iter().cloned().chain(calls.clone()) {
        cache.call(call).await.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(count.load(Ordering::SeqCst), different);
}

#[tokio::test]
async fn the_requests_own_wishes_go_first() {
    let count = Upstream::default();
    let off = CacheLayer::new(Settings { ttl: Duration::ZERO, ..Settings::default() });
    let mut cache = off.layer(counting(&count));
    let reply = cache.call(with(Options::default())).await.unwrap();
    assert!(!reply.headers().contains_key(&CF_AIG_CACHE_STATUS), "off is silent");
    let named = || with(Options { cache_key: Some("greeting".into()), ..Options::default() });
    assert_eq!(status(&cache.call(named()).await.unwrap()), "MISS");
    let other_words = Call { body: Bytes::from_static(b"{}"), ..named() };
    assert_eq!(status(&cache.call(other_words).await.unwrap()), "HIT");
    let skip = with(Options { skip_cache: true, cache_key: Some("greeting".into()), ..Options::default() });
    assert_eq!(status(&cache.call(skip).await.unwrap()), "BYPASS");
    let not_kept = with(Options { cache_ttl: Some(Duration::ZERO), ..Options::default() });
    assert_eq!(status(&cache.call(not_kept).await.unwrap()), "BYPASS");
}

#[tokio::test]
async fn a_call_that_would_get_another_answer_gets_one() {
    const FLUX: &str = "@cf/black-forest-labs/flux-1-schnell";
    const BGE: &str = "@cf/baai/bge-reranker-base";
    const WHISPER: &str = "@cf/openai/whisper";
    let sampled = [(LLAMA, None, false), (LLAMA, Some(0.8), false), (FLUX, None, false), (FLUX, Some(0.0), false)];
    let certain = [
        (LLAMA, Some(0.0), false),
        (LLAMA, Some(-0.0), false),
        (LLAMA, None, true),
        (LLAMA, Some(0.8), true),
        (FLUX, None, true),
        (BGE, None, false),
        (WHISPER, None, false),
    ];
    for (asks, is_sampled) in sampled.map(|ask| (ask, true)).into_iter().chain(certain.map(|ask| (ask, false))) {
        let (model, temperature, seeded) = asks;
        let ask = || asked_with(testing::call(model, r#"{"prompt":"x"}"#), temperature, seeded);
        let by_request = |options| Call { options: Arc::new(options), ..ask() };
        let twice = async |layer: CacheLayer, call: &dyn Fn() -> Call| {
            let count = Upstream::default();
            let cache = layer.layer(counting(&count));
            let (one, two) = tokio::join!(cache.clone().oneshot(call()), cache.clone().oneshot(call()));
            drop((one.unwrap(), two.unwrap()));
            let third = status(&cache.clone().oneshot(call()).await.unwrap()).to_owned();
            (third, count.load(Ordering::SeqCst))
        };
        let kept = || ("HIT".to_owned(), 1);
        let found = twice(layer(), &ask).await;
        let bypassed = || ("BYPASS".to_owned(), 3);
        assert_eq!(found, if is_sampled { bypassed() } else { kept() }, "{asks:?}");
        let all = CacheLayer::new(Settings { sampled: true, ..Settings::default() });
        assert_eq!(twice(all, &ask).await, kept(), "{asks:?}");
        let ttl = || by_request(Options { cache_ttl: Some(Duration::from_secs(60)), ..Options::default() });
        assert_eq!(twice(layer(), &ttl).await, kept(), "{asks:?}");
        let named = || by_request(Options { cache_key: Some("mine".into()), ..Options::default() });
        assert_eq!(twice(layer(), &named).await, kept(), "{asks:?}");
    }
}

#[tokio::test]
async fn twins_share_one_call_and_go_on_when_the_first_leaves() {
    let (sender, reply) = by_hand();
    let (count, reply) = (Upstream::default(), Arc::new(parking_lot::Mutex::new(Some(reply))));
    let counted = count.clone();
    let mut cache = layer().layer(Vendor(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let reply = reply.lock().take();
        async move { reply.ok_or_else(|| Error::Unavailable("twice".into())) }
    }));
    let ask = || call(LLAMA, r#"{"prompt":"x","stream":true}"#);
    let (first, second, third) = (cache.call(ask()), cache.call(ask()), cache.call(ask()));
    let (first, second, third) = tokio::join!(first, second, third);
    let (mut first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
    assert_eq!([status(&first), status(&second), status(&third)], ["MISS", "COALESCED", "COALESCED"]);
    sender.send(Ok("data: {\"response\":\"one\"}\n\n")).unwrap();
    assert_eq!(
        first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(),
        "data: {\"response\":\"one\"}\n\n"
    );
    drop(first);
    sender.send(Ok("data: [DONE]\n\n")).unwrap();
    drop(sender);
    let (second, third) = tokio::join!(text(second), text(third));
    assert_eq!(
        (second.as_str(), third.as_str()),
        ("data: {\"response\":\"one\"}\n\ndata: [DONE]\n\n", "data: {\"response\":\"one\"}\n\ndata: [DONE]\n\n")
    );
    let again = cache.call(ask()).await.unwrap();
    assert_eq!((status(&again).to_owned(), text(again).await, count.load(Ordering::SeqCst)), ("HIT".into(), second, 1));
}

#[tokio::test]
async fn a_flight_that_all_have_left_is_over() {
    let (sender, reply) = by_hand();
    let reply = Arc::new(parking_lot::Mutex::new(Some(reply)));
    let layer = layer();
    let mut cache = layer.layer(Vendor(move |_| {
        let reply = reply.lock().take();
        async move { reply.ok_or_else(|| Error::Unavailable("gone".into())) }
    }));
    let first = cache.call(call(LLAMA, r#"{"prompt":"x","stream":true}"#)).await.unwrap();
    drop(first);
    assert!(sender.send(Ok("data: late\n\n")).is_err(), "nobody reads any more");
    assert!(layer.0.flights.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_shared_call_leaves_nobody_waiting() {
    let count = Upstream::default();
    let layer = layer();
    let mut cache = layer.layer(Vendor(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            assert!(n > 0, "the first one panics");
            Ok(json(r#"{"response":"second"}"#))
        }
    }));
    let ask = || call(LLAMA, r#"{"prompt":"x"}"#);
    let (first, second) = (tokio::spawn(cache.call(ask())), tokio::spawn(cache.call(ask())));
    // Whichever of the two was driving it panics with it.
    let (panicked, answered): (Vec<_>, Vec<_>) =
        [first.await, second.await].into_iter().partition(|joined| joined.as_ref().is_err_and(|why| why.is_panic()));
    assert_eq!((panicked.len(), answered.len()), (1, 1));
    for joined in answered {
        match joined.unwrap() {
            Ok(reply) => assert_eq!(text(reply).await, r#"{"response":"second"}"#),
            // It was the one whose own call that was.
            Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(text(cache.call(ask()).await.unwrap()).await, r#"{"response":"second"}"#);
    assert!(layer.0.flights.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_stream_is_a_broken_stream_to_who_reads_along() {
    let mut cache = layer().layer(Vendor(move |_| async move {
        let pieces = stream::iter([1, 2]).then(|n| async move {
            tokio::task::yield_now().await;
            assert!(n < 2, "the second piece panics");
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"data: {\"response\":\"one\"}\n\n")))
        });
        let mut reply = ok("");
        *reply.body_mut() = Body::stream(StreamBody::new(Box::pin(pieces)));
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(reply)
    }));
    let ask = || call(LLAMA, r#"{"prompt":"x","stream":true}"#);
    let (first, second) = tokio::join!(cache.call(ask()), cache.call(ask()));
    let read =
        |reply: Result<Reply, Error>| tokio::spawn(async move { reply.unwrap().into_body().collect().await.map(drop) });
    let (first, second) = (read(first), read(second));
    let (first, second) = tokio::join!(first, second);
    let panicked = [&first, &second].into_iter().filter(|read| read.as_ref().is_err_and(|why| why.is_panic())).count();
    let told = [first, second]
        .into_iter()
        .flatten()
        .filter(|read| read.as_ref().is_err_and(|why| why.to_string().contains("panicked")))
        .count();
    assert_eq!((panicked, told), (1, 1));
}

#[tokio::test]
async fn failed_cut_and_oversize_replies_are_not_kept() {
    let layer = CacheLayer::new(Settings { max_entry_bytes: 100, ..Settings::default() });
    let turn = Upstream::default();
    let mut cache = layer.layer(Vendor(move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        let (sender, streamed) = by_hand();
        let reply = match turn {
            0 => Ok(refusal(500, None)),
            1 => Err(Error::Unavailable("down".into())),
            2 => {
                sender.send(Ok("data: begun\n\n")).unwrap();
                sender.send(Err("died")).unwrap();
                Ok(streamed)
            }
            // Cut between two chunks, which HTTP takes for an end.
            3 => {
                sender.send(Ok("data: begun\n\n")).unwrap();
                Ok(streamed)
            }
            4 => Ok(json(r#"{"errors":[{"code":3040,"message":"x"}],"success":false}"#)),
            5 => Ok(json(concat!(
                r#"{"result":""#,
                "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
                r#""}"#
            ))),
            _ => Ok(json(r#"{"result":"good"}"#)),
        };
        async move { reply }
    }));
    for turn in 0..7 {
        let reply = cache.call(call(LLAMA, r#"{"prompt":"x"}"#)).await;
        if let Ok(reply) = reply {
            assert_eq!(status(&reply), "MISS", "turn {turn}");
            let _ = reply.into_body().collect().await;
        }
    }
    assert_eq!(status(&cache.call(call(LLAMA, r#"{"prompt":"x"}"#)).await.unwrap()), "HIT");
}

#[tokio::test]
async fn another_models_answer_is_not_kept() {
    let mut cache = layer().layer(Vendor(|call: Call| {
        let other = crate::catalogue::Catalogue::default()
            .find("@cf/meta/llama-3.2-3b-instruct", crate::catalogue::Task::TextGeneration);
        call.receipt.note(|facts| facts.model = other);
        async { Ok(json(r#"{"result":1}"#)) }
    }));
    for _ in 0..2 {
        assert_eq!(status(&cache.call(call(LLAMA, r#"{"prompt":"x"}"#)).await.unwrap()), "MISS");
    }
}

#[tokio::test]
async fn a_failure_is_not_shared_and_does_not_stampede() {
    let (count, most, now) = (Upstream::default(), Upstream::default(), Upstream::default());
    let (counted, peak, current) = (count.clone(), most.clone(), now.clone());
    let mut cache = layer().layer(Vendor(move |_| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        let (peak, current) = (peak.clone(), current.clone());
        async move {
            peak.fetch_max(current.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            current.fetch_sub(1, Ordering::SeqCst);
            if n == 0 { Err(Error::Unavailable("passing".into())) } else { Ok(json(r#"{"result":"good"}"#)) }
        }
    }));
    let calls: Vec<_> = (0..100).map(|_| tokio::spawn(cache.call(call(LLAMA, r#"{"prompt":"x"}"#)))).collect();
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap().is_err());
    }
    assert_eq!((failed, count.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (1, 2, 1));
}

#[tokio::test]
async fn only_unknown_texts_go_upstream_and_each_once() {
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let mut cache = layer().layer(Vendor(move |call: Call| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let texts: Vec<String> = serde_json::from_value(body["text"].clone()).unwrap();
        seen.lock().push(texts.clone());
        // A text's vector is its length and its first byte.
        let data: Vec<_> = texts.iter().map(|t| [t.len() as f64, f64::from(t.as_bytes()[0])]).collect();
        let reply = serde_json::json!({"result": {"shape": [data.len(), 2], "data": data, "pooling": "cls", "usage": {"prompt_tokens": data.len()}}, "success": true});
        async move { Ok(Reply::new(Body::from(reply.to_string()))) }
    }));
    let mut ask = |body: &str| {
        let reply = cache.call(call("@cf/baai/bge-m3", body));
        async move {
            let reply = reply.await.unwrap();
            let status = status(&reply).to_owned();
            (status, serde_json::from_str::<serde_json::Value>(&text(reply).await).unwrap())
        }
    };
    assert_eq!(ask(r#"{"text":["a","bb"],"pooling":"cls"}"#).await.0, "MISS");
    let (status, reply) = ask(r#"{"pooling":"cls","text":["bb","ccc","a","ccc"]}"#).await;
    assert_eq!(status, "PARTIAL");
    assert_eq!(reply["result"]["data"], serde_json::json!([[2.0, 98.0], [3.0, 99.0], [1.0, 97.0], [3.0, 99.0]]));
    assert_eq!(reply["result"]["shape"], serde_json::json!([4, 2]));
    assert_eq!((&reply["result"]["pooling"], &reply["result"]["usage"]["prompt_tokens"]), (&"cls".into(), &1.into()));
    let (status, reply) = ask(r#"{"text":["ccc"],"pooling":"cls"}"#).await;
    assert_eq!((status.as_str(), &reply["result"]["usage"]["prompt_tokens"]), ("HIT", &0.into()));
    assert_eq!(ask(r#"{"text":["a"],"pooling":"mean"}"#).await.0, "MISS", "another pooling is another vector");
    let wanted: [&[&str]; 3] = [&["a", "bb"], &["ccc"], &["a"]];
    assert_eq!(*asked.lock(), wanted);
}

/// A vendor of vectors that answers the first call with this, and any other as it should.
fn vectors(
    first: &'static str,
) -> impl Service<Call, Response = Reply, Error = Error, Future = ReplyFuture> + Clone + Send + use<> {
    let count = Upstream::default();
    Vendor(move |call: Call| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let (texts, is_native) = match &body["text"] {
            serde_json::Value::Null => (body["input"].clone(), false),
            texts => (texts.clone(), true),
        };
        let texts: Vec<String> = serde_json::from_value(texts).unwrap_or_else(|_| vec!["one".into()]);
        let vector = |text: &String| serde_json::json!([text.len(), text.as_bytes()[0]]);
        let data: Vec<_> = texts.iter().map(vector).collect();
        let items: Vec<_> =
            data.iter().enumerate().map(|(n, v)| serde_json::json!({"index": n, "embedding": v})).collect();
        let reply = match is_native {
            true => serde_json::json!({"result": {"shape": [data.len(), 2], "data": data}, "success": true}),
            false => serde_json::json!({ "data": items }),
        };
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0 && !first.is_empty();
        let reply = if is_first { first.to_owned() } else { reply.to_string() };
        async move { Ok(Reply::new(Body::from(reply))) }
    })
}

fn embed(is_native: bool, body: &str) -> Call {
    let endpoint = if is_native { crate::call::Endpoint::Run } else { crate::call::Endpoint::Embeddings };
    Call { endpoint, ..call("@cf/baai/bge-m3", body) }
}

#[tokio::test]
async fn a_list_that_can_be_read_in_two_ways_teaches_no_vector() {
    for (is_native, body) in [
        (true, r#"{"text":["poison"],"text":["a","bb"]}"#),
        (true, r#"{"text":["a","bb"],"text":["poison"]}"#),
        (true, r#"{"text":["a"],"te\u0078t":["poison"]}"#),
        (true, r#"{"te\u0078t":["a"]}"#),
        (true, r#"{"text":["a"],"input":["poison"]}"#),
        (true, r#"{"text":["a"],"queries":["poison"]}"#),
        (true, r#"{"text":["a"],"pooling":"cls","pooling":"mean"}"#),
        (false, r#"{"input":["a"],"input":["poison"],"model":"m"}"#),
        (false, r#"{"input":["a"],"text":["poison"],"model":"m"}"#),
    ] {
        let layer = layer();
        let mut cache = layer.layer(vectors(""));
        cache.call(embed(is_native, body)).await.unwrap().into_body().collect().await.unwrap();
        let entries: Vec<_> = layer.0.store.all().map(|(_, entry)| entry).collect();
        assert!(entries.iter().all(|entry| matches!(entry.kind, Kind::Reply(_))), "{body}");
        for text in ["a", "poison"] {
            let field = if is_native { "text" } else { "input" };
            let reply = cache.call(embed(is_native, &format!(r#"{{"{field}":["{text}"]}}"#))).await.unwrap();
            assert_eq!(status(&reply), "MISS", "{text} after {body}");
        }
    }
}

#[tokio::test]
async fn vectors_that_are_not_one_for_each_text_are_passed_and_not_kept() {
    let two = |one: &str, two: &str| format!(r#"{{"data":[{one},{two}]}}"#);
    let item = |index: &str| format!(r#"{{"index":{index},"embedding":[1,2]}}"#);
    let native = |data: &str| format!(r#"{{"result":{{"shape":[2,2],"data":{data}}},"success":true}}"#);
    for (is_native, reply) in [
        (false, two(&item("0"), &item("0"))),
        (false, two(&item("0"), &item("2"))),
        (false, two(&item("1"), &item("2"))),
        (false, two(&item("0"), r#"{"embedding":[1,2]}"#)),
        (false, two(&item("0"), &item("1.5"))),
        (false, two(&item("0"), &item("\"1\""))),
        (false, two(&item("0"), &item("-1"))),
        (false, two(&item("0"), r#"{"index":1,"embedding":[]}"#)),
        (false, two(&item("0"), r#"{"index":1,"embedding":null}"#)),
        (false, two(&item("0"), r#"{"index":1,"embedding":[1,2,3]}"#)),
        (false, format!(r#"{{"data":[{}]}}"#, item("0"))),
        (true, native("[[1,2]]")),
        (true, native("[[1,2],[]]")),
        (true, native("[[1,2],[1,2],[1,2]]")),
        (true, native("[[1,2],[3,4]]").replace("[2,2]", "[3,2]")),
        (true, native("[[1,2],[3,4]]").replace("true", r#"false,"errors":[{"code":3040}]"#)),
    ] {
        let layer = layer();
        let reply: &'static str = Box::leak(reply.into_boxed_str());
        let mut cache = layer.layer(vectors(reply));
        let field = if is_native { "text" } else { "input" };
        let ask = || embed(is_native, &format!(r#"{{"{field}":["a","bb"]}}"#));
        assert_eq!(text(cache.call(ask()).await.unwrap()).await, reply, "it passes as it came");
        assert_eq!(layer.size().0, 0, "{reply}");
        // The other way round: one is known, and what is asked for the rest of them is no use.
        let mut cache = CacheLayer::new(Settings::default()).layer(vectors(""));
        cache.call(ask()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(status(&cache.call(ask()).await.unwrap()), "HIT");
    }
    for reply in [r#"{"data":[{"index":3,"embedding":[1]}]}"#, r#"{"data":[]}"#] {
        let layer = layer();
        let mut cache = layer.layer(vectors(reply));
        assert_eq!(text(cache.call(embed(false, r#"{"input":"a"}"#)).await.unwrap()).await, reply);
        assert_eq!(layer.size().0, 0, "{reply}");
    }
}

#[tokio::test]
async fn what_was_asked_for_in_part_and_came_odd_is_asked_for_as_a_whole() {
    let layer = layer();
    let known = || embed(true, r#"{"text":["a"]}"#);
    layer.layer(vectors("")).call(known()).await.unwrap().into_body().collect().await.unwrap();
    let mut cache = layer.layer(vectors(r#"{"result":{"data":[]},"success":true}"#));
    let reply = cache.call(embed(true, r#"{"text":["a","bb","ccc"]}"#)).await.unwrap();
    let reply: serde_json::Value = serde_json::from_str(&text(reply).await).unwrap();
    assert_eq!(reply["result"]["data"], serde_json::json!([[1, 97], [2, 98], [3, 99]]));
}

#[tokio::test]
async fn what_is_saved_is_there_after_a_restart() {
    let count = Upstream::default();
    let first = layer();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    first.layer(counting(&count)).call(call(LLAMA, r#"{"prompt":"x"}"#)).await.unwrap();
    first.save(&path).unwrap();
    let second = layer();
    assert_eq!(second.load(&path).unwrap(), 1);
    let reply = second.layer(counting(&count)).call(call(LLAMA, r#"{"prompt":"x"}"#)).await.unwrap();
    assert_eq!((status(&reply), count.load(Ordering::SeqCst)), ("HIT", 1));
    second.purge(Some("@cf/another"));
    assert_eq!(second.size().0, 1);
    second.purge(Some(LLAMA));
    assert_eq!(second.size().0, 0);
    // A file that is none is no cache, and no failure.
    std::fs::write(&path, b"{\"key\": nonsense").unwrap();
    assert_eq!(layer().load(&path).unwrap(), 0);
    assert_eq!(layer().load(&folder.path().join("absent")).unwrap(), 0);
    // A time that no clock can tell.
    first.save(&path).unwrap();
    let saved = std::fs::read(&path).unwrap();
    let at = memchr::memmem::find(&saved, b"{\"secs\":").unwrap() + b"{\"secs\":".len();
    let (begun, rest) = (&saved[..at], &saved[at + saved[at..].iter().position(|byte| *byte == b',').unwrap()..]);
    std::fs::write(&path, [begun, b"18446744073709551615", rest].concat()).unwrap();
    assert_eq!(layer().load(&path).unwrap(), 0);
}

proptest::proptest! {
    #[test]
    fn no_answer_crosses_scopes_or_inputs(
        callers in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,2}", proptest::option::of("[ab]{0,2}"), "[ab\\\\\"{}]{0,3}"), 2..6)
    ) {
        let calls: Vec<_> = callers.iter().map(|(account, token, key, prompt)| {
            let body = serde_json::json!({ "prompt": prompt }).to_string();
            let mut call = call(LLAMA, &body);
            call.account = account.as_str().into();
            call.key = key.as_deref().map(Into::into);
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(token).unwrap())]);
            call.head = Arc::new(Head { headers, ..Head::default() });
            call
        }).collect();
        let secret = super::key::Secret::random();
        for (a, x) in callers.iter().zip(&calls) {
            for (b, y) in callers.iter().zip(&calls) {
                // With a key of the gate's own, the token says nothing more.
                let scope = |c: &(String, String, Option<String>, String)| (c.0.clone(), if c.2.is_none() { c.1.clone() } else { String::new() }, c.2.clone(), c.3.clone());
                let same = scope(a) == scope(b);
                proptest::prop_assert_eq!(Scope::of(x, secret).call(x) == Scope::of(y, secret).call(y), same);
            }
        }
    }
}

#[test]
fn memory_stays_within_its_bound() {
    let max_bytes = 8 << 20;
    let store = Store::new(max_bytes);
    for n in 0..50_000u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        let body = Bytes::from(vec![0; (n * 7919 % 4000) as usize]);
        let entry = Entry {
            model: "m".into(),
            kind: Kind::Vector(None),
            body,
            cost: Neurons::ZERO,
            kept_at: SystemTime::now(),
            ttl: Duration::from_secs(86_400),
        };
        store.keep(Key(key), entry);
    }
    let (count, bytes) = store.size();
    assert!(bytes <= max_bytes && bytes > max_bytes / 2, "{count} entries of {bytes} bytes");
}
