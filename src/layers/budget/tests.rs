//! What the layer promises, with a vendor that is a function.

mod account;

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tower::{ServiceBuilder, ServiceExt};

use super::*;
use crate::catalogue::Catalogue;
use crate::layers::meter::MeterLayer;
use crate::layers::retry::RetryLayer;
use crate::layers::testing::{LLAMA, Sealed, Vendor, call, call_read_by, ok, refusal};
use crate::neurons::Neurons;
use crate::receipt::{Cost, Estimate, Facts, Metadatum, Reader, Receipt, Source};

/// A clock that stands still until it is moved.
struct Watch(AtomicU64);

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

const DAY_MS: u64 = 86_400_000;

fn watch() -> Arc<Watch> {
    Arc::new(Watch(AtomicU64::new(20_000 * DAY_MS + 1)))
}

fn budgets(rules: Vec<Rule>, change: impl FnOnce(&mut Settings)) -> Arc<Budgets> {
    let mut settings = Settings { rules, clock: watch(), ..Settings::default() };
    change(&mut settings);
    Arc::new(Budgets::new(settings, Catalogue::default()).unwrap())
}

fn everyone(limit: Neurons) -> Rule {
    Rule::new("everyone", limit, Period::Day)
}

/// The most that the usual call can cost.
fn upper() -> Neurons {
    Estimate::of(&call(LLAMA, "{}")).upper.unwrap()
}

fn times(neurons: Neurons, n: u64) -> Neurons {
    Neurons::from_micro(neurons.micro() * n)
}

fn charge(call: &Call, neurons: Neurons) {
    call.receipt.note(|facts| {
        facts.model = call.model.clone();
        facts.cost = Cost { neurons, source: Source::Reported, ..Cost::default() };
    });
}

/// A vendor that takes what each call may cost at most.
async fn dear(call: Call) -> Result<Reply, Error> {
    charge(&call, Estimate::of(&call).upper.unwrap());
    Ok(ok("{}"))
}

async fn ask(budgets: &Arc<Budgets>, call: Call) -> Result<Reply, Error> {
    BudgetLayer::new(budgets.clone()).layer(Vendor(dear)).oneshot(call).await
}

fn assert_nothing_is_reserved(budgets: &Budgets) {
    for status in budgets.status() {
        assert_eq!(status.reserved, Neurons::ZERO, "{status:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_told_when_to_come_back() {
    let budgets = budgets(vec![everyone(times(upper(), 2))], |_| {});
    for _ in 0..2 {
        ask(&budgets, call(LLAMA, "{}")).await.unwrap();
    }
    let error = ask(&budgets, call(LLAMA, "{}")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_millis(DAY_MS - 1)));
    assert!(error.to_string().contains("\"everyone\"") && error.to_string().contains("23 h 59 min"), "{error}");
    assert_eq!(error.response(crate::endpoint::ErrorForm::Cloudflare).headers()["x-should-retry"], "false");
    assert_eq!(budgets.status()[0].rejected, 1);
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test]
async fn all_budgets_or_none_are_reserved_in() {
    let small = Rule { split_by: vec![Split::Model], ..Rule::new("small", upper(), Period::Hour) };
    let budgets = budgets(vec![everyone(times(upper(), 10)), small], |_| {});
    ask(&budgets, call(LLAMA, "{}")).await.unwrap();
    ask(&budgets, call(LLAMA, "{}")).await.unwrap_err();
    let status = budgets.status();
    assert_eq!((status[0].spent, status[1].spent), (upper(), upper()));
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test]
async fn a_client_who_leaves_a_waiting_call_frees_what_was_reserved() {
    let budgets = budgets(vec![everyone(upper())], |_| {});
    let stack = BudgetLayer::new(budgets.clone()).layer(Vendor(|_call: Call| async move {
        let _held = _call;
        pending::<Result<Reply, Error>>().await
    }));
    let mut waiting = Box::pin(stack.oneshot(call(LLAMA, "{}")));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    assert_eq!(budgets.status()[0].reserved, upper());
    drop(waiting);
    assert_eq!((budgets.status()[0].reserved, budgets.status()[0].spent), (Neurons::ZERO, Neurons::ZERO));
}

#[tokio::test]
async fn an_attempt_given_up_on_its_way_is_charged_in_full() {
    let budgets = budgets(vec![everyone(times(upper(), 3))], |_| {});
    let meter = MeterLayer::default();
    let vendor = Vendor(|_: Call| pending::<Result<Reply, Error>>());
    let stack = BudgetLayer::new(budgets.clone()).layer(meter.layer(vendor));
    let mut waiting = Box::pin(stack.oneshot(call(LLAMA, "{}")));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    drop(waiting);
    assert_eq!(budgets.status()[0].spent, upper());
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test(start_paused = true)]
async fn a_lost_attempt_is_tried_again_only_with_room_for_both_and_both_are_paid() {
    let lost = || Error::Unreachable { host: "h".into(), why: "reset".into(), was_sent: true };
    let unsent = || Error::Unreachable { host: "h".into(), why: "refused".into(), was_sent: false };
    // What the limit is, how often the first attempts fail and how: attempts, and how many of them are paid in full.
    for (limit, failing, error, attempts, paid) in [
        (1, 1, &lost as &dyn Fn() -> Error, 1, 1),
        (2, 1, &lost, 2, 1),
        (2, 9, &lost, 2, 2),
        (9, 9, &lost, 4, 4),
        (1, 1, &unsent, 2, 0),
        (1, 9, &unsent, 4, 0),
    ] {
        let budgets = budgets(vec![everyone(times(upper(), limit))], |_| {});
        let answers: Vec<_> = (0..9).map(|n| (n < failing).then(error)).collect();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let vendor = Vendor(move |call: Call| {
            let answer = answers[counted.fetch_add(1, Ordering::SeqCst) as usize].clone();
            async move {
                drop(call);
                answer.map_or_else(|| Ok(ok("{}")), Err)
            }
        });
        let below = ServiceBuilder::new().layer(RetryLayer::default()).layer(MeterLayer::default()).service(vendor);
        let _ = BudgetLayer::new(budgets.clone()).layer(below).oneshot(call(LLAMA, "{}")).await;
        let status = &budgets.status()[0];
        let in_full = status.spent.micro() / upper().micro();
        assert_eq!((count.load(Ordering::SeqCst), in_full), (attempts, paid), "limit {limit}: {}", status.spent);
        assert_nothing_is_reserved(&budgets);
    }
}

#[tokio::test]
async fn a_panic_below_settles() {
    let budgets = budgets(vec![everyone(upper())], |_| {});
    let stack = BudgetLayer::new(budgets.clone()).layer(Vendor(|call: Call| async move {
        let _call = call;
        panic!("on purpose")
    }));
    assert!(tokio::spawn(stack.oneshot(call(LLAMA, "{}"))).await.is_err());
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test]
async fn a_failed_call_frees_all_before_another_model_is_tried() {
    let budgets = budgets(vec![everyone(upper())], |_| {});
    let stack = BudgetLayer::new(budgets.clone()).layer(Vendor(|_| async { Ok(refusal(429, Some(3040))) }));
    let first = call(LLAMA, "{}");
    let again = first.clone();
    stack.oneshot(first).await.unwrap();
    assert_nothing_is_reserved(&budgets);
    ask(&budgets, again).await.unwrap();
    assert_eq!(budgets.status()[0].spent, upper());
}

#[tokio::test]
async fn a_call_is_charged_to_the_window_it_reserved_in() {
    let clock = watch();
    let budgets = budgets(vec![everyone(upper())], |settings| settings.clock = clock.clone());
    let late = call(LLAMA, "{}");
    let held = budgets.reserve_now(&late).unwrap().unwrap();
    assert!(ask(&budgets, call(LLAMA, "{}")).await.is_err());
    clock.0.fetch_add(DAY_MS, Ordering::SeqCst);
    charge(&late, upper());
    drop((late, held));
    assert_eq!(budgets.status()[0].spent, Neurons::ZERO);
    ask(&budgets, call(LLAMA, "{}")).await.unwrap();
}

#[tokio::test]
async fn a_model_without_a_price_may_be_allowed_until_nothing_is_left() {
    let budgets = budgets(vec![everyone(Neurons::from_whole(5))], |settings| settings.unpriced = Unpriced::Allow);
    let stack = BudgetLayer::new(budgets.clone()).layer(Vendor(|call: Call| async move {
        charge(&call, Neurons::from_whole(3));
        Ok(ok("{}"))
    }));
    for _ in 0..2 {
        stack.clone().oneshot(call("@cf/acme/new", "{}")).await.unwrap();
    }
    assert_eq!(budgets.status()[0].spent, Neurons::from_whole(6));
    stack.oneshot(call("@cf/acme/new", "{}")).await.unwrap_err();
}

#[tokio::test]
async fn a_model_without_a_price_is_charged_the_ceiling_unless_the_vendor_says_what_it_cost() {
    let ceiling = Neurons::from_whole(2);
    let ask = |on_exceeded: OnExceeded, reply: &'static str| async move {
        let mut rule = everyone(Neurons::from_whole(5));
        rule.on_exceeded = on_exceeded;
        let budgets = budgets(vec![rule], |settings| settings.unpriced = Unpriced::AtMost(ceiling));
        let stack = BudgetLayer::new(budgets.clone())
            .layer(crate::layers::meter::MeterLayer::default().layer(Vendor(move |_| async move { Ok(ok(reply)) })));
        for _ in 0..2 {
            stack.clone().oneshot(call("@cf/acme/new", "{}")).await.unwrap();
        }
        (budgets.status()[0].spent, stack.oneshot(call("@cf/acme/new", "{}")).await.is_err())
    };
    let silent = r#"{"result":{"response":"hi","usage":{"prompt_tokens":5,"completion_tokens":1}}}"#;
    assert_eq!(ask(OnExceeded::Reject, silent).await, (Neurons::from_whole(4), true));
    assert_eq!(
        ask(OnExceeded::Allow, silent).await,
        (Neurons::from_whole(4), false),
        "a budget that only counts counts it, too"
    );
    let told = r#"{"result":{"response":"hi","usage":{"prompt_tokens":5,"completion_tokens":1,"neurons":0.5}}}"#;
    assert_eq!(ask(OnExceeded::Reject, told).await, (Neurons::from_whole(1), false));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_reservations_but_not_for_what_is_spent() {
    let budgets = budgets(vec![everyone(times(upper(), 2))], |settings| settings.max_wait = Duration::from_secs(5));
    let first = call(LLAMA, "{}");
    let second = call(LLAMA, "{}");
    let held = (budgets.reserve_now(&first).unwrap().unwrap(), budgets.reserve_now(&second).unwrap().unwrap());
    let (b, third) = (budgets.clone(), call(LLAMA, "{}"));
    let third = tokio::spawn(async move { ask(&b, third).await.map(drop) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!third.is_finished());
    drop(first);
    third.await.unwrap().unwrap();

    // One is spent, one reserved: a call may wait for the latter, and not for ever.
    let began = tokio::time::Instant::now();
    assert!(ask(&budgets, call(LLAMA, "{}")).await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    charge(&second, upper());
    drop((second, held));
    let began = tokio::time::Instant::now();
    assert!(ask(&budgets, call(LLAMA, "{}")).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test(start_paused = true)]
async fn a_batchs_answers_are_fetched_past_those_who_wait_for_what_it_holds() {
    let budgets = budgets(vec![everyone(upper())], |settings| settings.max_wait = Duration::from_secs(20));
    let submit = call(LLAMA, "{}");
    let held = budgets.reserve_now(&submit).unwrap().unwrap();
    let waiting = tokio::spawn({
        let budgets = budgets.clone();
        async move { ask(&budgets, call(LLAMA, "{}")).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    let mut poll = call(LLAMA, r#"{"request_id":"r"}"#);
    let ask_of = Arc::make_mut(&mut poll.ask);
    (ask_of.batch, ask_of.poll_of) = (true, Some("r".into()));
    let began = tokio::time::Instant::now();
    ask(&budgets, poll).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop((submit, held));
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_turn_and_who_leaves_holds_nobody_up() {
    let budgets = budgets(vec![everyone(upper())], |settings| settings.max_wait = Duration::from_secs(60));
    let first = call(LLAMA, "{}");
    let held = budgets.reserve_now(&first).unwrap().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for n in 0..5 {
        let (budgets, order) = (budgets.clone(), order.clone());
        waiting.push(tokio::spawn(async move {
            let call = call(LLAMA, "{}");
            let held = budgets.reserve(&call).await.unwrap();
            order.lock().push(n);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop((call, held));
        }));
        tokio::task::yield_now().await;
    }
    waiting[0].abort();
    waiting[2].abort();
    drop((first, held));
    for task in waiting {
        let _ = task.await;
    }
    assert_eq!(*order.lock(), [1, 3, 4]);
    assert_nothing_is_reserved(&budgets);
}

#[tokio::test]
async fn a_cheaper_model_is_asked_instead_and_reserves_for_itself() {
    let dear_model = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";
    let rule = Rule {
        models: vec![dear_model.into()],
        on_exceeded: OnExceeded::Model(LLAMA.into()),
        ..Rule::new("dear", Neurons::from_micro(1), Period::Day)
    };
    let budgets = budgets(vec![rule, everyone(times(upper(), 10))], |_| {});
    let sealed = Sealed::default();
    ask(&budgets, call_read_by(sealed.readers(), dear_model, "{}")).await.unwrap();
    assert_eq!(*sealed.0.lock()[0].model.id, *LLAMA);
    let status = budgets.status();
    assert_eq!((status[0].spent, status[1].spent), (Neurons::ZERO, upper()));
    assert_eq!(status[0].rejected, 0);
}

#[tokio::test]
async fn a_key_is_not_sent_to_a_model_that_it_is_not_for() {
    let rule = Rule { on_exceeded: OnExceeded::Model("@cf/a/cheap".into()), ..everyone(Neurons::from_micro(1)) };
    let budgets = budgets(vec![rule], |_| {});
    let asked = Call { models: Some([LLAMA.to_owned()].into()), ..call(LLAMA, "{}") };
    let error = ask(&budgets, asked).await.unwrap_err();
    assert_eq!(error.code(), "budget_exceeded");
}

#[tokio::test]
async fn a_call_is_shortened_only_where_that_is_allowed() {
    let long = || call(LLAMA, r#"{"prompt":"hello","max_tokens":100000}"#);
    let limit = Neurons::from_whole(50);
    assert!(ask(&budgets(vec![everyone(limit)], |_| {}), long()).await.is_err());
    let allowed = budgets(vec![everyone(limit)], |settings| settings.clamp_max_tokens = true);
    ask(&allowed, long()).await.unwrap();
    let spent = allowed.status()[0].spent;
    assert!(spent <= limit && spent.micro() > limit.micro() * 99 / 100, "{spent} of {limit}");
}

#[tokio::test]
async fn a_call_is_shortened_to_what_the_tightest_of_its_budgets_has() {
    let tight = Neurons::from_whole(5);
    // Refused first for the one in front; the call must fit into the other as well.
    let rules = vec![everyone(Neurons::from_whole(50)), Rule::new("tight", tight, Period::Month)];
    let budgets = budgets(rules, |settings| settings.clamp_max_tokens = true);
    let long = call(LLAMA, r#"{"prompt":"hello","max_tokens":100000}"#);
    ask(&budgets, long).await.unwrap();
    let spent = budgets.status()[1].spent;
    assert!(spent <= tight && spent.micro() > tight.micro() * 99 / 100, "{spent} of {tight}");
}

#[test]
fn a_sliding_budget_resets_when_the_oldest_of_its_spending_counts_no_more() {
    let rule = Rule { sliding: true, ..everyone(times(upper(), 3)) };
    let budgets = budgets(vec![rule], |_| {});
    let open = call(LLAMA, "{}");
    budgets.reserve_now(&open).unwrap().unwrap();
    let slice = Duration::from_millis(DAY_MS / 60);
    let day = Duration::from_millis(DAY_MS);
    let resets = budgets.status()[0].resets_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(resets, Duration::from_millis(20_000 * DAY_MS) + slice + day);
    drop(open);
}

#[tokio::test]
async fn values_beyond_the_last_bucket_share_one_and_nobody_has_two_limits() {
    let clock = watch();
    let rule = Rule { split_by: vec![Split::Metadata("user".into())], ..everyone(upper()) };
    let budgets = budgets(vec![rule], |settings| {
        settings.max_buckets = 3;
        settings.clock = clock.clone();
    });
    let user = |n: u32| {
        let call = call(LLAMA, "{}");
        call.receipt.note(|facts| facts.metadata = Arc::new([("user".into(), Metadatum::Number(n.into()))]));
        call
    };
    for n in 0..4 {
        ask(&budgets, user(n)).await.unwrap();
    }
    for n in 0..10 {
        ask(&budgets, user(n)).await.unwrap_err();
    }
    assert_eq!(budgets.status()[0].buckets, 4);
    // The next day there is room for others, for nothing of the day before counts.
    clock.0.fetch_add(DAY_MS, Ordering::SeqCst);
    for n in 7..10 {
        ask(&budgets, user(n)).await.unwrap();
    }
    assert_eq!(budgets.status()[0].buckets, 3);
}

#[test]
fn a_sliding_window_never_holds_more_than_the_limit() {
    use proptest::prelude::*;
    proptest!(ProptestConfig::with_cases(64), |(steps in proptest::collection::vec(0u64..40_000, 1..120))| {
        let clock = watch();
        let rule = Rule { sliding: true, ..Rule::new("m", times(upper(), 5), Period::Minute) };
        let budgets = budgets(vec![rule], |settings| settings.clock = clock.clone());
        let mut admitted: Vec<u64> = Vec::new();
        for step in steps {
            let now = clock.0.fetch_add(step / 10, Ordering::SeqCst) + step / 10;
            let call = call(LLAMA, "{}");
            if let Some(Ok(_)) = budgets.reserve_now(&call) {
                charge(&call, upper());
                admitted.push(now);
            }
            let within = admitted.iter().filter(|at| **at + 60_000 > now).count();
            prop_assert!(within <= 5, "{within} in one minute");
        }
    });
}

/// Counts at the upstream, and after each call's receipt, as the budgets must.
#[derive(Default)]
struct Spent {
    all: AtomicU64,
    by_user: parking_lot::Mutex<std::collections::HashMap<String, Neurons>>,
}

impl Reader for Spent {
    fn sealed(&self, facts: &Facts) {
        self.all.fetch_add(facts.cost.neurons.micro(), Ordering::SeqCst);
        let user = format!("{:?}", facts.metadata.first());
        *self.by_user.lock().entry(user).or_insert(Neurons::ZERO) += facts.cost.neurons;
    }
}

/// Calls from four threads, some of which leave; returns what the vendor counted, and of the user who spent most.
fn storm(budgets: &Arc<Budgets>, calls: u64, users: u32) -> (Neurons, Neurons) {
    let spent = Arc::new(Spent::default());
    let (next, usual) = (AtomicU64::new(0), call(LLAMA, "{}"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let local = tokio::task::LocalSet::new();
                for _ in 0..calls / 4 {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let (budgets, spent, usual) = (budgets.clone(), spent.clone(), usual.clone());
                    local.spawn_local(async move {
                        let receipt = Receipt::open(Arc::new([spent as Arc<dyn Reader>]), usual.model.clone());
                        let call = Call { receipt, ..usual };
                        let user = Metadatum::Number((n % u64::from(users)).into());
                        call.receipt.note(|facts| facts.metadata = Arc::new([("user".into(), user)]));
                        let stack = BudgetLayer::new(budgets).layer(Vendor(move |call: Call| async move {
                            tokio::time::sleep(Duration::from_millis(n % 7)).await;
                            // What is not known to fit must never be spent: 40% to 100% of the estimate.
                            let upper = Estimate::of(&call).upper.unwrap().micro();
                            charge(&call, Neurons::from_micro(upper * (4 + n % 7) / 10));
                            if n.is_multiple_of(3) {
                                tokio::time::sleep(Duration::from_millis(3)).await;
                            }
                            Ok(ok("{}"))
                        }));
                        let reply = stack.oneshot(call);
                        // Every eleventh client has no patience.
                        let patience = if n.is_multiple_of(11) { 5 } else { 20_000 };
                        let _ = tokio::time::timeout(Duration::from_millis(patience), reply).await;
                    });
                }
                runtime.block_on(local);
            });
        }
    });
    let most = spent.by_user.lock().values().max().copied().unwrap_or_default();
    (Neurons::from_micro(spent.all.load(Ordering::SeqCst)), most)
}

#[test]
fn two_thousand_calls_at_once_never_overspend_and_use_the_budget_up() {
    let limit = times(upper(), 100);
    let budgets = budgets(vec![everyone(limit)], |settings| {
        settings.max_wait = Duration::from_secs(10);
        settings.max_waiting = 5_000;
    });
    let (spent, _) = storm(&budgets, 2_000, 1);
    println!("spent {spent} of {limit}: {:.2}%", 100.0 * spent.as_f64() / limit.as_f64());
    assert!(spent <= limit, "{spent} of {limit}");
    assert!(spent.micro() * 100 >= limit.micro() * 95, "{spent} of {limit}");
    assert_eq!(budgets.status()[0].spent, spent);
    assert_nothing_is_reserved(&budgets);
}

#[test]
fn ten_thousand_buckets_hold_each_for_itself() {
    let rule = Rule { split_by: vec![Split::Metadata("user".into())], ..everyone(times(upper(), 2)) };
    let budgets = budgets(vec![rule, Rule::new("all", times(upper(), 15_000), Period::Month)], |settings| {
        settings.max_wait = Duration::from_secs(10);
        settings.max_waiting = 50_000;
    });
    let (spent, most) = storm(&budgets, 40_000, 10_000);
    let status = budgets.status();
    println!("spent {spent} of {}; {} buckets", times(upper(), 15_000), status[0].buckets);
    assert_eq!(status[0].buckets, 10_000);
    assert!(status[0].spent == spent && status[1].spent == spent, "{status:?}");
    assert!(spent <= times(upper(), 15_000));
    assert!(
        !most.is_zero() && most <= times(upper(), 2),
        "one user's bucket holds {}, and {most} were spent",
        times(upper(), 2)
    );
    assert_nothing_is_reserved(&budgets);
}
