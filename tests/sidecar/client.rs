//! The gate as a library: the builder and the typed client, before the simulator.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tollgate::client::{Chunks, Failure, Kind, Options, WorkersAi};
use tollgate::gateway::{Builder, Gateway};
use tollgate::layers::budget::{self, Period, Rule};
use tollgate::layers::rate_limit;
use tollgate::neurons::Neurons;
use tollgate::receipt::{CacheStatus, Metadatum, Outcome};
use tollgate::simulator::{Fault, FaultRule, Running};

use crate::support::{GEMMA, LLAMA, Receipts, vendor};

fn builder(vendor: &Running) -> Builder {
    let mut retry = tollgate::layers::retry::Settings::default();
    retry.max_attempts = 1;
    Gateway::builder().account("acc").token("t").base_url(&vendor.base_url()).retry(retry)
}

fn ai(vendor: &Running) -> WorkersAi {
    WorkersAi::new(builder(vendor).build().unwrap())
}

fn trouble(vendor: &Running, what: &str) {
    vendor.clear_faults();
    vendor.fault(FaultRule::always(what.parse::<Fault>().unwrap()));
}

async fn read(mut chunks: Chunks) -> (String, Chunks) {
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        text += &chunk.unwrap().text;
    }
    (text, chunks)
}

#[tokio::test]
async fn an_answer_comes_with_its_receipt_and_streamed_it_is_the_same() {
    let vendor = vendor();
    let ai = ai(&vendor);
    for model in [LLAMA, GEMMA] {
        let inputs = json!({"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 40});
        let answer = ai.run(model, &inputs).await.unwrap();
        let text = answer.text().unwrap();
        assert!(!text.is_empty() && answer.receipt.outcome == Outcome::Ok, "{:?}", answer.receipt);
        let (streamed, chunks) = read(ai.run_stream(model, &inputs).await.unwrap()).await;
        let receipt = chunks.receipt().expect("a receipt after the last piece");
        assert_eq!(streamed.trim(), text.trim(), "{model}");
        assert_eq!(receipt.usage, answer.receipt.usage);
        let paid = answer.receipt.cost.neurons + receipt.cost.neurons;
        let charged = vendor.counts().models[model].neurons;
        assert!(paid.micro().abs_diff(charged.micro()) < 10, "{model}: {paid} on the receipts, {charged} charged");
    }
}

#[tokio::test]
async fn vectors_come_in_the_order_of_their_texts_and_a_repeat_costs_nothing() {
    let vendor = vendor();
    let ai = ai(&vendor);
    let first = ai.embed("@cf/baai/bge-m3", &["one", "two"]).await.unwrap();
    let second = ai.embed("@cf/baai/bge-m3", &["two", "one"]).await.unwrap();
    assert_eq!(first.vectors[0], second.vectors[1]);
    assert_eq!((first.vectors.len(), first.receipt.cost.neurons.is_zero()), (2, false));
    assert!(second.receipt.cost.neurons.is_zero() && second.receipt.outcome == Outcome::CacheHit);
}

#[tokio::test]
async fn options_reach_cache_and_receipt() {
    let vendor = vendor();
    let ai = ai(&vendor);
    let metadata = vec![("team".into(), Metadatum::String("sûreté 🚀".into()))];
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        ai.with(options)
    };
    let tagged = with(&|options| options.metadata = metadata.clone());
    let inputs = json!({"prompt": "Hello", "temperature": 0});
    assert_eq!(*tagged.run(LLAMA, &inputs).await.unwrap().receipt.metadata, *metadata);
    assert_eq!(ai.run(LLAMA, &inputs).await.unwrap().receipt.cache, CacheStatus::Hit);
    let fresh = with(&|options| options.skip_cache = true);
    assert_eq!(fresh.run(LLAMA, &inputs).await.unwrap().receipt.cache, CacheStatus::Bypass);
}

async fn failure(ai: &WorkersAi, model: &str, prompt: &str) -> Failure {
    ai.run(model, &json!({ "prompt": prompt })).await.unwrap_err()
}

#[tokio::test]
async fn a_failure_says_what_can_be_done_and_has_the_receipt() {
    let vendor = vendor();
    let plain = ai(&vendor);
    for (what, is_expected) in [
        (
            "3021;retry-after=7",
            (|kind| *kind == Kind::RateLimited { retry_after: Some(Duration::from_secs(7)) }) as fn(&Kind) -> bool,
        ),
        ("3036", |kind| matches!(kind, Kind::FreeNeuronsUsedUp { retry_after: Some(_) })),
        ("5006", |kind| matches!(kind, Kind::Upstream { status: http::StatusCode::BAD_REQUEST, code: Some(5006) })),
        ("3040", |kind| matches!(kind, Kind::Upstream { code: Some(3040), .. })),
        ("reset", |kind| *kind == Kind::Unreachable),
    ] {
        trouble(&vendor, what);
        let failed = failure(&ai(&vendor), LLAMA, what).await;
        assert!(is_expected(&failed.kind), "{what}: {failed:?}");
        assert_eq!(failed.receipt.expect("a receipt").attempts.len(), 1, "{what}");
    }
    trouble(&vendor, "stall");
    let mut hasty = Options::default();
    hasty.deadline = Some(Duration::from_millis(50));
    assert_eq!(
        failure(&plain.with(hasty), LLAMA, "stall").await.kind,
        Kind::Timeout { after: Some(Duration::from_millis(50)) }
    );
    vendor.clear_faults();

    let mut limits = rate_limit::Settings::default();
    limits.max_wait = Duration::ZERO;
    let mut quota = rate_limit::Quota::default();
    quota.requests = Some(tollgate::catalogue::Limit::a_minute(1));
    limits.models.insert(LLAMA.into(), quota);
    let paced = WorkersAi::new(builder(&vendor).limits(limits).build().unwrap());
    paced.run(LLAMA, &json!({"prompt": "one"})).await.unwrap();
    let limited = failure(&paced, LLAMA, "two").await;
    assert!(matches!(limited.kind, Kind::RateLimited { retry_after: Some(_) }), "{limited:?}");
    assert!(limited.receipt.unwrap().attempts.is_empty());

    let mut budgets = budget::Settings::default();
    budgets.rules.push(Rule::new("tiny", Neurons::from_micro(1), Period::Hour));
    let poor = WorkersAi::new(builder(&vendor).budgets(budgets).build().unwrap());
    let broke = failure(&poor, LLAMA, "x").await;
    assert!(matches!(&broke.kind, Kind::BudgetExceeded { budget, .. } if budget == "tiny"), "{broke:?}");

    assert_eq!(plain.run("a model", &json!({})).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(plain.run_stream(LLAMA, &json!([])).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn a_stream_that_opens_with_an_error_or_breaks_off_is_a_failure() {
    let vendor = vendor();
    let ai = ai(&vendor);
    let inputs = json!({"prompt": "a tale"});
    trouble(&vendor, "stream-error=3040");
    let opening = ai.run_stream(LLAMA, &inputs).await.unwrap_err();
    assert!(matches!(opening.kind, Kind::Upstream { code: Some(3040), .. }), "{opening:?}");
    trouble(&vendor, "die-mid");
    let mut chunks = ai.run_stream(LLAMA, &inputs).await.unwrap();
    let mut last = None;
    while let Some(chunk) = chunks.next().await {
        last = Some(chunk);
    }
    let broken = last.unwrap().unwrap_err();
    assert_eq!(broken.kind, Kind::Broken);
    assert_eq!(broken.receipt.expect("a receipt").outcome, Outcome::UpstreamError);
}

#[tokio::test]
async fn two_gateways_in_one_process_do_not_see_each_other() {
    let vendor = vendor();
    let (mine, yours) = (Receipts::default(), Receipts::default());
    let gate =
        |receipts: &Receipts| WorkersAi::new(builder(&vendor).reader(Arc::new(receipts.clone())).build().unwrap());
    let (one, other) = (gate(&mine), gate(&yours));
    for n in 0..3 {
        one.run(LLAMA, &json!({"prompt": format!("{n}"), "seed": 1})).await.unwrap();
    }
    let answer = other.run(LLAMA, &json!({"prompt": "1", "seed": 1})).await.unwrap();
    assert_eq!(answer.receipt.cache, CacheStatus::Miss, "answered from the other's cache");
    assert_eq!((mine.all().len(), yours.all().len()), (3, 1));
}
