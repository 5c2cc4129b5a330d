//! Budgets over real sockets, counted at the vendor: many calls at once, clients who leave, and a killed process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::layers::budget::{Amount, Period, Plan, Rule, Split};
use tollgate::neurons::Neurons;
use tollgate::readers::records::Filter;
use tollgate::receipt::CallId;

use crate::support::{Gate, LLAMA, Process, ask, client, vendor};

fn body(n: u64, max_tokens: u64) -> Value {
    json!({"prompt": format!("call {n}: tell me more"), "max_tokens": max_tokens, "stream": n.is_multiple_of(2)})
}

/// A number that the whole measurement sets higher than a test needs it.
pub fn from_env(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub async fn standing(client: &reqwest::Client, admin: &str, budget: &str) -> Value {
    let reply = client.get(format!("{admin}/budgets")).send().await.unwrap();
    let reply: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    let found = reply["budgets"].as_array().unwrap().iter().find(|row| row["name"] == budget).cloned();
    found.unwrap_or_else(|| panic!("no {budget} in {reply}"))
}

#[tokio::test]
async fn two_thousand_calls_against_a_budget_for_a_hundred_never_overspend() {
    // 1,024 tokens at 18,252 micro-neurons, and what little the prompt costs.
    let limit = Neurons::from_whole(1_900);
    let gate = Gate::with(vendor(), |config| {
        config.budgets.push(Rule::new("everyone", limit, Period::Month));
        config.reservations.max_wait = Duration::from_secs(20);
        config.reservations.max_waiting = 5_000;
    });
    let gate = Arc::new(gate);
    let next = Arc::new(AtomicU64::new(0));
    let clients = (0..from_env("TOLLGATE_CLIENTS", 250)).map(|_| {
        let (gate, next) = (gate.clone(), next.clone());
        tokio::spawn(async move {
            let mut refused = 0;
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < 2_000) {
                let asked = gate.post(&format!("/run/{LLAMA}"), &body(n, 1_024)).send();
                if n.is_multiple_of(13) {
                    // Leaves, at one moment or another.
                    let _ = tokio::time::timeout(Duration::from_micros(300 * (n % 40)), asked).await;
                    continue;
                }
                let reply = asked.await.unwrap();
                refused += u64::from(reply.status() == 429);
                let _ = reply.bytes().await;
            }
            refused
        })
    });
    let mut refused = 0;
    for client in clients.collect::<Vec<_>>() {
        refused += client.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let admin = format!("http://{}", gate.sidecar.admin());
    let budget = standing(&gate.client, &admin, "everyone").await;
    let counted = gate.vendor.counts().neurons();
    let charged = budget["spent_neurons"].as_f64().unwrap();
    println!("counted {counted} of {limit}, charged {charged}, {refused} refused");
    assert!(counted <= limit, "{counted} of {limit}");
    assert!(charged >= 0.95 * limit.as_f64(), "{charged} of {limit}");
    assert!(charged >= counted.as_f64(), "{charged} charged, {counted} counted");
    assert_eq!(budget["reserved_neurons"], 0.0);
    let metrics = gate.metrics().await;
    for line in ["tollgate_budget_reserved_neurons{budget=\"everyone\"} 0", "tollgate_free_neurons_remaining"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// `TOLLGATE_BUCKETS=10000` for the full count. Each user is an account, so that the vendor counts them apart.
#[tokio::test]
async fn each_bucket_holds_for_itself_as_the_vendor_counts_it_and_is_used_up() {
    let buckets = from_env("TOLLGATE_BUCKETS", 25);
    // A call may cost 1.56 neurons and costs up to 1.2.
    let limit = Neurons::from_whole(40);
    let gate = Arc::new(Gate::with(vendor(), |config| {
        let mut rule = Rule::new("a user's", limit, Period::Month);
        rule.split_by = vec![Split::Metadata("user".into())];
        config.budgets.push(rule);
        config.reservations.max_wait = Duration::from_secs(60);
        config.reservations.max_waiting = 5_000;
    }));
    let (next, calls) = (Arc::new(AtomicU64::new(0)), 50 * buckets);
    let clients = (0..50).map(|_| {
        let (gate, next) = (gate.clone(), next.clone());
        tokio::spawn(async move {
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < calls) {
                let user = n % buckets;
                let path = format!("/client/v4/accounts/user-{user}/ai/run/{LLAMA}");
                let asked = gate.post(&path, &body(n / buckets, 64)).header("cf-aig-skip-cache", "true");
                let reply = asked.header("cf-aig-metadata", format!("{{\"user\":{user}}}")).send().await.unwrap();
                let _ = reply.bytes().await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    gate.receipts.after(calls as usize).await;
    let counted = (0..buckets).map(|user| gate.vendor.spent(&format!("user-{user}")));
    let (least, most) =
        counted.fold((limit, Neurons::ZERO), |(least, most), spent| (least.min(spent), most.max(spent)));
    println!(
        "of {limit} the vendor counts {least} to {most} in {buckets} buckets, {} in all",
        gate.vendor.counts().neurons()
    );
    assert!(most <= limit, "{most} of {limit}");
    assert!(least.as_f64() >= 0.95 * limit.as_f64(), "{least} of {limit}");
    let budget = standing(&gate.client, &format!("http://{}", gate.sidecar.admin()), "a user's").await;
    assert_eq!(budget["reserved_neurons"], 0.0);
    assert_eq!(budget["spent_neurons"].as_f64(), Some(gate.vendor.counts().neurons().as_f64()));
}

#[tokio::test]
async fn a_batch_takes_up_all_that_it_may_cost_until_it_is_fetched() {
    let gate = Gate::with(vendor(), |config| {
        config.budgets.push(Rule::new("everyone", Neurons::from_whole(60), Period::Month));
    });
    let admin = format!("http://{}", gate.sidecar.admin());
    let path = format!("/run/{LLAMA}?queueRequest=true");
    let requests: Vec<_> = (0..20).map(|n| json!({"prompt": format!("tale {n}"), "max_tokens": 100})).collect();
    let submit = || gate.post(&path, &json!({"requests": requests})).send();
    let queued = submit().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(submit().await.unwrap().status(), 429, "there is no room for a second one");
    let poll = json!({"request_id": queued["result"]["request_id"]});
    let fetched = gate.post(&path, &poll).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(fetched["result"]["responses"].as_array().unwrap().len(), 20, "{fetched}");
    gate.receipts.after(3).await;
    let counted = gate.vendor.counts().neurons().as_f64();
    let standing = standing(&gate.client, &admin, "everyone").await;
    assert_eq!((&standing["spent_neurons"], &standing["reserved_neurons"]), (&json!(counted), &json!(0.0)));
}

#[tokio::test]
async fn a_long_call_is_shortened_to_what_is_left_also_where_that_takes_a_lease() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Gate::with(vendor(), |config| {
        config.records.path = Some(directory.path().join("t.db"));
        config.budgets.push(Rule::new("everyone", Neurons::from_whole(50), Period::Month));
        config.reservations.clamp_max_tokens = true;
    });
    let reply = gate.run(LLAMA, &body(1, 100_000)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text().await.unwrap());
    let sent: Value = serde_json::from_slice(&gate.vendor.seen().pop().unwrap().body).unwrap();
    assert!((2_000..2_740).contains(&sent["max_tokens"].as_u64().unwrap()), "{sent}");
}

#[tokio::test]
async fn the_plan_says_whether_calls_stop_at_the_free_allocation() {
    // 600,000 tokens may cost 10,951 neurons; 10,000 are free.
    let dear = json!({"prompt": "a tale", "max_tokens": 600_000});
    for (plan, status) in [(Plan::Free, 429), (Plan::Paid, 200), (Plan::Auto, 200)] {
        let gate = Gate::with(vendor(), |config| config.account.plan = plan);
        let reply = gate.run(LLAMA, &dear).await;
        assert_eq!(reply.status(), status, "{plan:?}");
        let text = reply.text().await.unwrap();
        assert_eq!(text.contains("free allocation"), status == 429, "{text}");
        gate.receipts.after(1).await;
        let admin = format!("http://{}", gate.sidecar.admin());
        let free = standing(&gate.client, &admin, "free allocation").await;
        let counted = gate.vendor.counts().neurons();
        assert_eq!(free["spent_neurons"].as_f64(), Some(counted.as_f64()));
        assert_eq!(free["lasts_seconds"].is_null(), counted.is_zero(), "{free}");
        let left = Neurons::from_whole(10_000).saturating_sub(counted).as_f64();
        let left = format!("tollgate_free_neurons_remaining {left}");
        assert!(gate.metrics().await.contains(&left), "no {left}");
    }
}

#[tokio::test]
async fn on_auto_the_vendor_is_believed_when_it_says_that_nothing_is_free_any_more() {
    let mut settings = tollgate::simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    settings.free_neurons = Some(Neurons::from_micro(1));
    let gate = Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {});
    let mut refused = Vec::new();
    for n in 0..4 {
        let reply = gate.run(LLAMA, &body(n, 10)).await;
        if reply.status() == 429 {
            assert_eq!(reply.headers()["x-should-retry"], "false");
            refused.push(reply.headers().contains_key("retry-after"));
        }
    }
    assert_eq!(refused, [true; 3]);
    assert_eq!(gate.vendor.counts().attempts, 2, "the vendor is asked no more until 00:00 UTC");
}

/// How long this machine lets a thread wait that wants to run: no program can help that.
struct Pauses(Arc<AtomicU64>);

impl Pauses {
    fn watch(stop: Arc<AtomicBool>) -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let noted = longest.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let began = Instant::now();
                std::thread::sleep(Duration::from_millis(2));
                noted.fetch_max(began.elapsed().as_millis() as u64, Ordering::SeqCst);
            }
        });
        Self(longest)
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// `TOLLGATE_KILLS=50` for the full count.
#[tokio::test]
async fn what_was_spent_survives_a_kill() {
    let kills = from_env("TOLLGATE_KILLS", 8);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    // More than can be spent meanwhile, on any machine: refusals are no load.
    let (vendor, limit, clients) = (vendor(), 5_000.0 * kills as f64, 8u64);
    let next = Arc::new(AtomicU64::new(0));
    let budgets = format!("[{{name = \"all\", limit = \"{limit} neurons\", window = \"month\"}}]");
    let variables = [("TOLLGATE_BUDGETS", &*budgets), ("TOLLGATE_RECORDS_PATH", path.to_str().unwrap())];
    let (mut counted, mut known, mut settled) = (0.0, 0.0, Vec::new());
    for kill in 0..=kills {
        let mut process = Process::serve(&vendor.base_url(), &variables);
        let spent = standing(&client(), &process.admin, "all").await["spent_neurons"].as_f64().unwrap();
        let now = vendor.counts().neurons().as_f64();
        // 256 tokens and the prompt, each.
        let in_flight = clients as f64 * 5.5;
        let (more, most) = (spent - known, now - counted + in_flight + limit / 100.0);
        println!("kill {kill}: {:.1} counted, {more:.1} spent, {most:.1} allowed", now - counted);
        assert!(spent >= now, "{spent} spent, {now} counted, after kill {kill}");
        assert!(more <= most, "{more} more spent, {most} allowed, after kill {kill}");
        (counted, known) = (now, spent);
        let stop = Arc::new(AtomicBool::new(false));
        let pauses = Pauses::watch(stop.clone());
        let url = format!("{}/run/{LLAMA}", process.listen);
        let callers = (0..clients).map(|_| {
            let (url, stop, next) = (url.clone(), stop.clone(), next.clone());
            tokio::spawn(async move {
                let client = client();
                let mut seen = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let Ok(reply) = ask(&client, &url, &body(n, 256)).send().await else { continue };
                    let id = reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
                    if reply.bytes().await.is_ok() {
                        seen.push((id, Instant::now()));
                    }
                }
                seen
            })
        });
        let callers: Vec<_> = callers.collect();
        // Under load, however slow the machine is.
        let underway = vendor.counts().answered() + 20;
        for _ in 0..2000 {
            if vendor.counts().answered() >= underway {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(kill * 7919 % 700)).await;
        let killed = Instant::now();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        stop.store(true, Ordering::SeqCst);
        // The writing thread's turn may come late, and so may the thread's whose call it was.
        let old = Duration::from_millis(100) + 2 * pauses.longest();
        for caller in callers {
            let is_old = |at: &Instant| killed.saturating_duration_since(*at) > old;
            let before = caller.await.unwrap().into_iter().filter(|(_, at)| is_old(at));
            settled.extend(before.map(|(id, _)| id));
        }
    }
    // The records are all there but those of the last moments.
    let records = tollgate::readers::records::Archive::open(&path).unwrap();
    let mut good = Filter::default();
    good.success = Some(true);
    let calls = records.count(&good, usize::MAX >> 1).unwrap() as u64;
    let answered = vendor.counts().answered();
    for id in &settled {
        let id = CallId::parse(id).unwrap();
        assert!(records.get(id).unwrap().is_some(), "{id} was settled over 100 ms before a kill and is lost");
    }
    println!("{} settled over 100 ms before a kill; {calls} records of {answered} answers", settled.len());
    assert!(calls > 0 && calls <= answered + kills * clients);
}

/// `TOLLGATE_KILLS=20` for the full count.
#[tokio::test]
async fn what_was_said_survives_a_kill() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let kills = from_env("TOLLGATE_KILLS", 4);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    let (vendor, voices) = (vendor(), 6u64);
    let limit = 100_000.0 * kills as f64;
    let budgets = format!("[{{name = \"all\", limit = \"{limit} neurons\", window = \"month\"}}]");
    let variables = [("TOLLGATE_BUDGETS", &*budgets), ("TOLLGATE_RECORDS_PATH", path.to_str().unwrap())];
    let (mut counted, mut known) = (0.0, 0.0);
    for kill in 0..=kills {
        let mut process = Process::serve(&vendor.base_url(), &variables);
        let spent = standing(&client(), &process.admin, "all").await["spent_neurons"].as_f64().unwrap();
        let now = vendor.counts().neurons().as_f64();
        // Two stretches of 418.18 neurons for each voice, and what a lease runs ahead.
        let most = now - counted + voices as f64 * 2.0 * 418.18 + limit / 100.0 * 1.5;
        println!("kill {kill}: {:.1} charged, {:.1} on the books, {most:.1} allowed", now - counted, spent - known);
        assert!(spent >= now, "{spent} on the books, {now} charged, after kill {kill}");
        assert!(spent - known <= most, "{} more on the books, {most} allowed, after kill {kill}", spent - known);
        (counted, known) = (now, spent);
        let url = process.listen.replace("http", "ws") + "/run/@cf/deepgram/nova-3?encoding=linear16&sample_rate=16000";
        let talks: Vec<_> = (0..voices)
            .map(|_| {
                let mut request = url.as_str().into_client_request().unwrap();
                request.headers_mut().insert("authorization", "Bearer t".parse().unwrap());
                tokio::spawn(async move {
                    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
                    // As fast as it goes, until the gate is dead.
                    while socket.send(Message::Binary(vec![0; 3_200].into())).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + kill * 7919 % 700)).await;
        process.kill();
        for talk in talks {
            talk.await.unwrap();
        }
        // The vendor has read what was on its way, and has billed it.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(counted > 0.0);
}

#[tokio::test]
async fn a_budget_in_dollars_is_told_in_dollars() {
    let gate = Gate::with(vendor(), |config| {
        config.budgets.push(Rule::new("team", "0.001 USD".parse::<Amount>().unwrap(), Period::Month));
    });
    let reply = gate.run(LLAMA, &body(1, 8_192)).await;
    let said = reply.text().await.unwrap();
    assert!(said.contains("has 0.001 of 0.001 USD left, and this call may cost 0.001"), "{said}");
    let admin = format!("http://{}", gate.sidecar.admin());
    let team = standing(&gate.client, &admin, "team").await;
    assert_eq!((&team["currency"], &team["left_usd"]), (&json!("USD"), &team["limit_usd"]), "{team}");
    let page = gate.client.get(format!("{admin}/")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("$0 spent of $0.0010"), "{page}");
}
