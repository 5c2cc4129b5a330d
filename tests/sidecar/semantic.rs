//! Questions that mean the same as one before: whose answer they get, what that costs, and where they get none.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::layers::identify::keys::sha256;
use tollgate::neurons::Neurons;
use tollgate::receipt::{CacheStatus, Facts, Outcome};
use tollgate::sidecar::config::Config;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::support::{Gate, LLAMA, TOKEN, client, config, start_with, until, vendor};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDER: &str = "@cf/baai/bge-m3";
const ASK: &str = "x-tollgate-semantic-cache";

/// Two that the stand-in's vectors lie close together for, and one that they do not.
const ONE: &str = "How do I reset the password of my account on the web page?";
const SAME: &str = "On the web page, how do I reset the password of my account?";
const OTHER: &str = "Which trains leave for Vienna on Sunday morning before nine?";

fn gate(semantic: &str) -> Gate {
    Gate::with(vendor(), |config| config.cache.semantic = semantic_of(semantic))
}

fn semantic_of(text: &str) -> Option<tollgate::sidecar::config::SemanticCache> {
    Config::parse(&format!("[cache.semantic]\nthreshold = 0.9\nwait = \"20s\"\n{text}"), "test").unwrap().cache.semantic
}

fn chat(text: &str) -> Value {
    json!({"model": LLAMA, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}], "max_tokens": 20})
}

/// The reply's cache status, how near it was, and its body.
async fn told(asked: reqwest::RequestBuilder) -> (String, Option<f32>, String) {
    let reply = asked.send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let text = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, near) = (text("cf-aig-cache-status").unwrap_or_default(), text("x-tollgate-similarity"));
    (status, near.map(|near| near.parse().unwrap()), reply.text().await.unwrap())
}

async fn ask(gate: &Gate, body: &Value) -> (String, Option<f32>, String) {
    told(gate.post(CHAT, body).header(ASK, "true")).await
}

fn chats(gate: &Gate) -> usize {
    gate.vendor.seen().iter().filter(|seen| !seen.path.contains("bge")).count()
}

fn of_embedder(receipts: &[Facts]) -> Vec<&Facts> {
    receipts.iter().filter(|facts| *facts.model.id == *EMBEDDER).collect()
}

#[tokio::test]
async fn a_question_in_other_words_has_the_answer_and_what_that_cost_is_told() {
    let gate = gate("");
    let (status, near, first) = ask(&gate, &chat(ONE)).await;
    assert_eq!((&*status, near), ("MISS", None));
    let (status, near, second) = ask(&gate, &chat(SAME)).await;
    assert_eq!((&*status, &second), ("SEMANTIC_HIT", &first));
    assert!((0.9..1.0).contains(&near.unwrap()), "{near:?}");
    let (status, ..) = ask(&gate, &chat(OTHER)).await;
    assert_eq!((&*status, chats(&gate)), ("MISS", 2));
    // The very same needs no vector.
    assert_eq!(ask(&gate, &chat(ONE)).await.0, "HIT");

    let receipts = gate.receipts.after(7).await;
    let embeddings = of_embedder(&receipts);
    assert_eq!(embeddings.len(), 3);
    let paid: Neurons = embeddings.iter().map(|facts| facts.cost.neurons).sum();
    assert!(!paid.is_zero() && embeddings.iter().all(|facts| facts.outcome == Outcome::Ok && &*facts.account == "acc"));
    let of = |status| receipts.iter().find(|facts| facts.cache == status).unwrap();
    let (hit, miss) = (of(CacheStatus::SemanticHit), of(CacheStatus::Miss));
    assert_eq!((hit.outcome, hit.cost.neurons), (Outcome::CacheHit, Neurons::ZERO));
    assert_eq!(hit.saved, miss.cost.neurons.saturating_sub(hit.embedding), "net");
    assert!(hit.similarity.is_some() && !hit.embedding.is_zero() && !miss.embedding.is_zero());
    let on_calls: Neurons = receipts.iter().map(|facts| facts.embedding).sum();
    assert_eq!(on_calls, paid);

    let metrics = gate.metrics().await;
    let figure = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse::<f64>().unwrap()
    };
    assert!((figure("tollgate_semantic_cache_embedding_neurons_total") - paid.as_f64()).abs() < 1e-6);
    assert!((figure("tollgate_semantic_cache_saved_neurons_total") - miss.cost.neurons.as_f64()).abs() < 1e-6);
    assert_eq!(
        ["hit", "miss", "failed", "late"]
            .map(|result| figure(&format!("tollgate_semantic_cache_lookups_total{{result=\"{result}\"}}"))),
        [1.0, 2.0, 0.0, 0.0]
    );
    let page = client().get(format!("http://{}/", gate.sidecar.admin())).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(ONE) && page.contains(SAME) && !page.contains(OTHER), "{page}");
    let net = miss.cost.neurons.as_f64() - paid.as_f64();
    let shown = page.split("id=\"semantic-net\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!((shown.parse::<f64>().unwrap() - net).abs() < 1e-6, "{shown} of {net}");
    // Nothing of it is in the cache any more, and no text either.
    client().delete(format!("http://{}/cache", gate.sidecar.admin())).send().await.unwrap();
    let page = client().get(format!("http://{}/", gate.sidecar.admin())).send().await.unwrap().text().await.unwrap();
    assert!(!page.contains(ONE) && !page.contains(SAME), "{page}");
    assert_eq!(ask(&gate, &chat(SAME)).await.0, "MISS");
}

#[tokio::test]
async fn a_stream_is_answered_with_a_stream_and_twins_in_flight_pay_for_one_vector() {
    let gate = gate("");
    let stream = |text: &str| {
        let mut body = chat(text);
        body["stream"] = json!(true);
        body
    };
    let (_, _, first) = ask(&gate, &stream(ONE)).await;
    assert!(first.ends_with("data: [DONE]\n\n"), "{first}");
    assert_eq!(ask(&gate, &chat(SAME)).await.0, "MISS", "a stream is no answer to who wants it whole");
    let twin = stream(SAME);
    let twins = futures_util::future::join_all((0..8).map(|_| ask(&gate, &twin))).await;
    for (status, _, body) in &twins {
        assert_eq!((&**status, body), ("SEMANTIC_HIT", &first));
    }
    let receipts = gate.receipts.after(10).await;
    let hits = receipts.iter().filter(|facts| facts.cache == CacheStatus::SemanticHit);
    let paying = hits.filter(|facts| !facts.embedding.is_zero()).count();
    // Those that came after the first had landed look for themselves.
    assert_eq!(paying + 2, of_embedder(&receipts).len());
}

#[tokio::test]
async fn nobody_else_s_answer_is_given_and_none_to_another_setting() {
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.cache.semantic = semantic_of("");
    let key = |name: &str| json!({"name": name, "sha256": sha256(&format!("{name}-secret-of-a-key"))});
    config.keys = serde_json::from_value(json!([key("one"), key("two")])).unwrap();
    let (sidecar, receipts) = start_with(config, &vec![("CLOUDFLARE_API_TOKEN".into(), TOKEN.into())]);
    let gate = Gate { vendor, sidecar, receipts, client: client() };
    let by = |key: &str, path: &str, body: &Value| {
        let asked = gate.client.post(gate.url(path)).json(body);
        asked.bearer_auth(format!("{key}-secret-of-a-key")).header(ASK, "true")
    };
    told(by("one", CHAT, &chat(ONE))).await;
    assert_eq!(told(by("two", CHAT, &chat(SAME))).await.0, "MISS", "another key");
    assert_eq!(told(by("one", CHAT, &chat(SAME))).await.0, "SEMANTIC_HIT");
    let with = |name: &str, value: Value| {
        let mut body = chat(SAME);
        body[name] = value;
        body
    };
    let system =
        with("messages", json!([{"role": "system", "content": "Be long."}, {"role": "user", "content": SAME}]));
    let earlier = with(
        "messages",
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"}, {"role": "user", "content": SAME}]),
    );
    let model = with("model", json!("@cf/meta/llama-3.1-8b-instruct-fp8"));
    for body in [system, earlier, model, with("max_tokens", json!(21)), with("temperature", json!(0.5))] {
        let (status, near, _) = told(by("one", CHAT, &body)).await;
        assert_eq!((&*status, near), ("MISS", None), "{body}");
    }
    let native = json!({"messages": chat(SAME)["messages"], "max_tokens": 20});
    assert_eq!(told(by("one", &format!("/run/{LLAMA}"), &native)).await.0, "MISS", "another route");
    let account = gate.client.post(gate.url(&format!("/accounts/other/ai/run/{LLAMA}"))).json(&native);
    let account = account.bearer_auth("one-secret-of-a-key").header(ASK, "true").send().await.unwrap();
    assert_ne!(
        account.headers().get("cf-aig-cache-status").map(|status| status.as_bytes()),
        Some(&b"SEMANTIC_HIT"[..])
    );
}

#[tokio::test]
async fn calls_that_do_not_ask_or_have_tools_a_seed_pictures_or_a_ceiling_are_as_they_were() {
    let gate = gate("");
    ask(&gate, &chat(ONE)).await;
    let plain = told(gate.post(CHAT, &chat(SAME))).await;
    assert_eq!(plain.0, "BYPASS", "sampled, as without");
    assert_eq!(told(gate.post(CHAT, &chat(ONE)).header(ASK, "false")).await.0, "BYPASS");
    let tool =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]);
    for (name, value, status) in [("tools", tool, "BYPASS"), ("seed", json!(7), "MISS")] {
        let mut body = chat(SAME);
        body[name] = value;
        assert_eq!(ask(&gate, &body).await.0, status, "{name}");
    }
    let held = gate.post(CHAT, &chat(SAME)).header(ASK, "true").header("x-tollgate-max-neurons", "1000");
    assert_eq!(told(held).await.0, "BYPASS");
    let skips = gate.post(CHAT, &chat(SAME)).header(ASK, "true").header("cf-aig-skip-cache", "true");
    assert_eq!(told(skips).await.0, "BYPASS");
    assert_eq!(of_embedder(&gate.receipts.after(8).await).len(), 1, "no vector but the first one's");
    // The header asks for nothing where the gate has none of it, and goes no further.
    let none = Gate::start();
    assert_eq!(told(none.post(CHAT, &chat(ONE)).header(ASK, "true")).await.0, "BYPASS");
    assert!(!none.vendor.seen()[0].headers.contains_key(ASK));
}

#[tokio::test]
async fn the_config_may_ask_for_models_and_keys_and_follows_a_reload() {
    let gate = Gate::start();
    let plain = async |text: &str| told(gate.post(CHAT, &chat(text))).await.0;
    assert_eq!(plain(ONE).await, "BYPASS");
    let put = |semantic| {
        let mut config = gate.sidecar.config();
        config.cache.semantic = semantic;
        gate.sidecar.put(config)
    };
    let on = format!("models = [\"{LLAMA}\"]");
    let reloaded = put(semantic_of(&on)).unwrap();
    assert!(reloaded.needs_restart.is_empty(), "{reloaded:?}");
    assert_eq!((&*plain(ONE).await, &*plain(SAME).await), ("MISS", "SEMANTIC_HIT"));
    assert_eq!(told(gate.post(CHAT, &chat(SAME)).header(ASK, "false")).await.0, "BYPASS");
    // What is remembered is held to the new threshold.
    let mut exact = semantic_of(&on);
    exact.as_mut().unwrap().threshold = 1.0;
    put(exact).unwrap();
    assert_eq!(plain(&SAME.replace("On", "on")).await, "MISS");
    put(semantic_of("models = [\"@cf/meta/llama-3.1-8b-instruct-fp8\"]")).unwrap();
    assert_eq!(plain(SAME).await, "BYPASS");
    put(semantic_of("keys = [\"nobody\"]")).unwrap();
    assert_eq!(plain(SAME).await, "BYPASS");
    let wrong = put(semantic_of("model = \"@cf/meta/llama-3.2-1b-instruct\"")).unwrap_err().to_string();
    assert!(wrong.contains("[cache.semantic] model") && wrong.contains("makes no vectors"), "{wrong}");
    put(None).unwrap();
    assert_eq!(told(gate.post(CHAT, &chat(SAME)).header(ASK, "true")).await.0, "BYPASS");
}

#[tokio::test]
async fn where_no_vector_comes_or_not_in_time_the_call_goes_on() {
    let failing = gate("");
    failing.vendor.fault(FaultRule::always(Fault::new(Trouble::Error(500))).on(EMBEDDER));
    for _ in 0..2 {
        let (status, _, body) = ask(&failing, &chat(ONE)).await;
        assert!(status == "MISS" && body.contains("choices") || status == "HIT", "{status} {body}");
    }
    let receipts = failing.receipts.after(3).await;
    let asked = receipts.iter().find(|facts| *facts.model.id == *LLAMA).unwrap();
    assert_eq!((asked.outcome, of_embedder(&receipts)[0].outcome), (Outcome::Ok, Outcome::UpstreamError));

    let late = Gate::with(vendor(), |config| {
        config.cache.semantic = semantic_of("");
        config.cache.semantic.as_mut().unwrap().wait = Duration::from_millis(50);
    });
    late.vendor.fault(FaultRule::always(Fault::new(Trouble::Stall)).on(EMBEDDER));
    assert_eq!(ask(&late, &chat(ONE)).await.0, "MISS");
    until(async || late.metrics().await.contains("tollgate_semantic_cache_lookups_total{result=\"late\"} 1")).await;
    assert_eq!(of_embedder(&late.receipts.after(2).await)[0].outcome, Outcome::Aborted);
}
