//! What a refused caller is told is true: when it comes then, it is let in.

use proptest::prelude::*;

use super::*;
use crate::catalogue::Limit;

/// Twice the worst of 3,000 crowds.
const MOST_WITH_OWN_TOKEN: usize = 12;

/// How a client reads what it is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reads {
    /// `retry-after-ms`.
    Millis,
    /// `retry-after`.
    Seconds,
}

#[derive(Clone, Copy, Debug)]
struct Crowd {
    limit: u32,
    seconds: u64,
    clients: usize,
    /// Each client has a token of its own, or all share one.
    own_tokens: bool,
    max_wait: Duration,
    max_queue: usize,
    reads: Reads,
}

fn crowds() -> impl Strategy<Value = Crowd> {
    let max_wait = prop::sample::select(vec![0, 1, 100, 267, 1_000, 10_000]).prop_map(Duration::from_millis);
    let reads = prop::sample::select(vec![Reads::Millis, Reads::Seconds]);
    let limit = prop_oneof![1_u32..12, 12_u32..=300];
    (limit, 1_u64..120, 1_usize..40, any::<bool>(), max_wait, prop::sample::select(vec![1, 3, 1000]), reads).prop_map(
        |(limit, seconds, clients, own_tokens, max_wait, max_queue, reads)| Crowd {
            limit,
            seconds,
            clients,
            own_tokens,
            max_wait,
            max_queue,
            reads,
        },
    )
}

fn limited(limit: u32, seconds: u64, change: impl FnOnce(&mut Settings)) -> RateLimitLayer {
    let requests = Limit { requests: std::num::NonZeroU32::new(limit).unwrap(), per: Duration::from_secs(seconds) };
    layer(1, |settings| {
        settings.models.insert(LLAMA.into(), Quota { requests: Some(requests), tokens: None });
        change(settings);
    })
}

/// Asks until it is let in, coming back when it was told to: how often it was refused.
async fn obey<S>(service: S, caller: &str, reads: Reads) -> usize
where
    S: Service<Call, Response = Reply, Error = Error> + Clone,
{
    let mut refused = 0;
    while let Err(error) = service.clone().oneshot(keyed(caller)).await {
        refused += 1;
        assert!(refused < 1000, "{error}");
        sleep(told(&error, reads)).await;
    }
    refused
}

fn told(error: &Error, reads: Reads) -> Duration {
    let reply = error.response(crate::endpoint::ErrorForm::Cloudflare);
    let header = |name: &str| reply.headers()[name].to_str().unwrap().parse::<u64>().unwrap();
    match reads {
        Reads::Millis => Duration::from_millis(header("retry-after-ms")),
        Reads::Seconds => Duration::from_secs(header("retry-after")),
    }
}

/// Each client makes three calls one after the other: how often each call was refused.
fn refusals(crowd: Crowd) -> Vec<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let layer = limited(crowd.limit, crowd.seconds, |settings| {
            (settings.max_wait, settings.max_queue) = (crowd.max_wait, crowd.max_queue);
        });
        let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
        let mut clients = JoinSet::new();
        for client in 0..crowd.clients {
            let service = service.clone();
            clients.spawn(async move {
                let caller = if crowd.own_tokens { format!("client-{client}") } else { "all".to_owned() };
                let mut refusals = Vec::new();
                for _ in 0..3 {
                    refusals.push(obey(service.clone(), &caller, crowd.reads).await);
                }
                refusals
            });
        }
        clients.join_all().await.concat()
    })
}

fn cases() -> u32 {
    std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Every call is let in in the end, a third of them when first told and half when told twice. Clients that share a token take each
    /// other's turns, so one of them may be unlucky again and again: 23 times was the worst of 3,000 crowds, and no figure is promised.
    #[test]
    fn clients_that_obey_are_let_in(crowd in crowds()) {
        let mut refusals = refusals(crowd);
        refusals.sort_unstable();
        let at = |part: usize| refusals[(refusals.len() - 1) / part];
        let (most, median, third) = (at(1), at(2), at(3));
        prop_assert!(median <= 2 && third <= 1, "{median} in the middle: {refusals:?}");
        prop_assert!(!crowd.own_tokens || most <= MOST_WITH_OWN_TOKEN, "{most}: {refusals:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_client_that_obeys_is_let_in_the_next_time() {
    for (limit, seconds) in [(1, 1), (1, 60), (2, 10), (2, 60), (10, 60), (60, 60), (300, 60), (5, 86_400)] {
        for max_wait in [0, 50, 267, 1_000] {
            let layer = limited(limit, seconds, |settings| settings.max_wait = Duration::from_millis(max_wait));
            let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
            for call in 0..3 * limit.min(20) {
                let refused = obey(service.clone(), "a", Reads::Millis).await;
                assert!(refused <= 1, "call {call} at {limit} in {seconds} s, max_wait {max_wait}: {refused}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_no_longer_than_it_takes() {
    for (limit, seconds) in [(1, 60), (2, 60), (10, 60), (60, 60), (300, 60), (5, 86_400)] {
        let layer = limited(limit, seconds, |settings| settings.max_wait = Duration::ZERO);
        while layer.try_take(&keyed("a")) {}
        let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
        let error = service.oneshot(keyed("a")).await.unwrap_err();
        let told = told(&error, Reads::Millis);
        // It is told in whole seconds.
        sleep(told.saturating_sub(Duration::from_secs(1)) * 97 / 100).await;
        assert!(!layer.try_take(&keyed("a")), "{limit} in {seconds} s: told {told:?}, and there was a turn before");
    }
}

#[tokio::test(start_paused = true)]
async fn who_obeys_is_let_in_beside_one_who_hammers() {
    for (limit, reads) in [(2, Reads::Millis), (2, Reads::Seconds), (10, Reads::Seconds), (300, Reads::Millis)] {
        for max_wait in [0, 1_000] {
            let layer = limited(limit, 10, |settings| settings.max_wait = Duration::from_millis(max_wait));
            let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
            let mut hammers = JoinSet::new();
            for _ in 0..2 {
                let service = service.clone();
                hammers.spawn(async move {
                    loop {
                        let _ = service.clone().oneshot(keyed("hammer")).await;
                        sleep(Duration::from_millis(50)).await;
                    }
                });
            }
            sleep(Duration::from_secs(20)).await;
            for call in 0..6 {
                let refused = obey(service.clone(), "polite", reads).await;
                assert!(refused <= 2, "call {call} at {limit} in 10 s, max_wait {max_wait}, {reads:?}: {refused}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_comes_for_is_not_lost() {
    let layer = limited(60, 60, |settings| settings.max_wait = Duration::ZERO);
    let start = Instant::now();
    let mut passed = 0;
    // Two hundred who are refused and never come again, and one who takes what there is.
    while start.elapsed() < 3 * MINUTE {
        let gone = keyed(&format!("gone-{}", fastrand::u8(..200)));
        layer.limits.ask(layer.limits.request(&gone), &gone);
        passed += usize::from(layer.try_take(&keyed("stays")));
        sleep(Duration::from_millis(100)).await;
    }
    let all = 180 - layer.snapshot()[0].remaining as usize;
    assert!(all >= 150, "{all} turns were taken, {passed} of them by the one who stays");
}

#[tokio::test(start_paused = true)]
async fn the_words_of_a_refusal_follow_from_its_reason_and_agree_with_the_headers() {
    let refuse = async |layer: &RateLimitLayer, call: Call| {
        let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
        service.oneshot(call).await.unwrap_err()
    };
    let header = |error: &Error, name: &str| {
        error.response(crate::endpoint::ErrorForm::Cloudflare).headers()[name].to_str().unwrap().to_owned()
    };
    let left = |error: &Error| {
        let ratelimit = header(error, "ratelimit");
        ratelimit.split("r=").nth(1).unwrap().split(';').next().unwrap().parse::<u32>().unwrap()
    };

    // Half of the window is left and paced.
    let paced = limited(10, 60, |settings| settings.max_wait = Duration::ZERO);
    while paced.try_take(&call()) {}
    let error = refuse(&paced, call()).await;
    assert_eq!((left(&error), header(&error, "ratelimit-policy")), (5, "\"model\";q=10;w=60".into()));
    assert!(error.to_string().contains("10 requests a minute, has 5 left, which are spread over"), "{error}");
    assert!(!error.to_string().contains("used up"), "{error}");

    // Nothing is left.
    let used_up = limited(1, 60, |settings| settings.max_wait = Duration::from_secs(1));
    while used_up.try_take(&call()) {}
    let error = refuse(&used_up, call()).await;
    assert_eq!(left(&error), 0);
    assert!(error.to_string().contains("1 requests a minute, is used up, and the next turn is further off"), "{error}");
    let reset = header(&error, "ratelimit").split("t=").nth(1).unwrap().to_owned();
    assert_eq!(reset, header(&error, "retry-after"));

    // The key's own limit, and tokens.
    let own = limited(300, 60, |settings| {
        settings.max_wait = Duration::ZERO;
        let tokens = Limit { requests: std::num::NonZeroU32::new(1000).unwrap(), per: MINUTE };
        settings.keys.insert("small".into(), Quota { requests: Some(Limit::a_minute(2)), tokens: None });
        settings.keys.insert("thin".into(), Quota { requests: None, tokens: Some(tokens) });
    });
    while own.try_take(&keyed("small")) {}
    let error = refuse(&own, keyed("small")).await;
    assert_eq!((left(&error), header(&error, "ratelimit-policy")), (1, "\"key\";q=2;w=60".into()));
    assert!(error.to_string().contains("the limit of the key \"small\" for"), "{error}");
    while own.try_take(&keyed("thin")) {}
    let error = refuse(&own, keyed("thin")).await;
    assert_eq!(header(&error, "ratelimit-policy"), "\"key-tokens\";q=1000;w=60");
    assert!(error.to_string().contains(&format!("1000 tokens a minute, has {} left", left(&error))), "{error}");

    // Upstream asks for a pause.
    let held = limited(300, 60, |settings| settings.max_wait = Duration::ZERO);
    assert!(held.try_take(&call()));
    held.limits.refused_upstream(held.limits.request(&call()).lane, Some(Duration::from_secs(7)));
    let error = refuse(&held, call()).await;
    assert_eq!((left(&error), header(&error, "retry-after")), (0, "7".into()));
    assert!(error.to_string().contains("Workers AI has asked for a pause"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_counts_at_once_also_where_calls_wait() {
    let model = |limit: u32| {
        let entry = serde_json::from_value(serde_json::json!({"requests_per_minute": limit})).unwrap();
        Catalogue::with(&[(LLAMA.to_owned(), entry)].into()).find(LLAMA, Task::Unknown)
    };
    let call_on = |model: &Arc<Model>| Call { model: model.clone(), ..call() };
    let layer = RateLimitLayer::new(Settings { max_wait: MINUTE, ..Settings::default() });
    let (narrow, wide) = (model(4), model(400));
    let taken = |model: &Arc<Model>| std::iter::from_fn(|| layer.try_take(&call_on(model)).then_some(())).count();
    assert_eq!(taken(&narrow), 2);
    assert_eq!(layer.snapshot()[0].limit, 4);

    // Raised while a call waits: it has its turn now, and so have others.
    let service = layer.layer(Vendor(|_| async { Ok(ok("{}")) }));
    let mut waiting = tokio::spawn({
        let mut service = service.clone();
        let call = call_on(&narrow);
        async move { service.call(call).await }
    });
    assert!(timeout(Duration::from_millis(10), &mut waiting).await.is_err(), "it waits");
    let raised = Instant::now();
    service.clone().oneshot(call_on(&wide)).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(raised.elapsed() < Duration::from_secs(1), "{:?}", raised.elapsed());
    assert!(taken(&wide) >= 190, "half of the new limit, at once");
    assert_eq!((layer.snapshot()[0].limit, layer.len()), (400, 1));

    // Lowered while the window holds more: nothing passes before that has left.
    assert_eq!(taken(&narrow), 0);
    sleep(Duration::from_secs(50)).await;
    assert_eq!(taken(&narrow), 0);
    sleep(MINUTE).await;
    assert_eq!(taken(&narrow), 2);
}
