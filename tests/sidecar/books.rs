//! The vendor's own books over real sockets: prices that change, the account's spend, and proof that the numbers are right.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tollgate::catalogue::{Catalogue, Entry, Unit};
use tollgate::layers::budget::{FREE, FREE_A_DAY, Plan};
use tollgate::neurons::Neurons;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::{Config, Variables};
use tollgate::simulator::{self, BooksTrouble, Running, Settings};
use tollgate::usage::Usage;

use crate::support::{LLAMA, Process, Receipts, TOKEN, ask, client, command, config};

const FLUX: &str = "@cf/black-forest-labs/flux-1-schnell";
const LARGE: &str = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";
const SECOND: Duration = Duration::from_secs(1);

fn quick(change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    change(&mut settings);
    simulator::start(settings).unwrap()
}

/// A sidecar with a token of its own.
fn start(vendor: &Running, change: impl FnOnce(&mut Config)) -> (Sidecar, Receipts) {
    let mut config = config(&vendor.base_url());
    config.account.analytics_every = SECOND;
    config.account.analytics_lag = 2 * SECOND;
    // Each call is to be paid.
    config.cache.ttl = Duration::ZERO;
    change(&mut config);
    let receipts = Receipts::default();
    let variables: Variables = vec![("CLOUDFLARE_API_TOKEN".into(), TOKEN.into())];
    (Sidecar::start(config, &variables, vec![Arc::new(receipts.clone())]).unwrap(), receipts)
}

async fn metrics(sidecar: &Sidecar) -> String {
    let url = format!("http://{}/metrics", sidecar.admin());
    client().get(url).send().await.unwrap().text().await.unwrap()
}

/// A series' value, where it is there.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about within two minutes");
}

fn run(model: &str) -> String {
    format!("/run/{model}")
}

/// The n-th call of a day: twenty models, all that they take, streams in each of the vendor's ways of telling usage.
fn mixed(n: usize) -> (String, Value, &'static str) {
    const STYLES: [&str; 3] = ["end", "running", "increments"];
    let text = format!("call {n}: {}", "tell me more, and then some; ".repeat(1 + n % 7));
    let chat = |model: &str, stream| {
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 8 + n % 40, "stream": stream});
        ("/v1/chat/completions".to_owned(), body)
    };
    let prompt =
        |model: &str, stream| (run(model), json!({"prompt": text, "max_tokens": 8 + n % 40, "stream": stream}));
    let (path, body) = match n % 20 {
        0 => prompt(LLAMA, true),
        1 => chat("@cf/meta/llama-3.1-8b-instruct-fp8-fast", true),
        2 => chat("@cf/meta/llama-3.3-70b-instruct-fp8-fast", false),
        3 => chat("@cf/google/gemma-4-26b-a4b-it", true),
        4 => chat("@cf/qwen/qwen3-30b-a3b-fp8", false),
        5 => prompt("@cf/mistralai/mistral-small-3.1-24b-instruct", true),
        6 => prompt("@cf/meta/llama-3.2-3b-instruct", false),
        7 => chat("@cf/openai/gpt-oss-20b", true),
        8 => chat("@cf/meta/llama-4-scout-17b-16e-instruct", false),
        9 => prompt("@cf/qwen/qwq-32b", false),
        10 => (run("@cf/baai/bge-m3"), json!({"text": [text, "a second text"]})),
        11 => (run("@cf/baai/bge-large-en-v1.5"), json!({"text": text})),
        12 => (run("@cf/baai/bge-small-en-v1.5"), json!({"text": text})),
        13 => {
            (run("@cf/baai/bge-reranker-base"), json!({"query": text, "contexts": [{"text": "one"}, {"text": "two"}]}))
        }
        14 => (run("@cf/qwen/qwen3-embedding-0.6b"), json!({"text": text})),
        15 => (run("@cf/meta/m2m100-1.2b"), json!({"text": text, "target_lang": "french"})),
        16 => (run(FLUX), json!({"prompt": text, "steps": 1 + n / 20 % 8})),
        17 => (run("@cf/deepgram/aura-1"), json!({"text": text})),
        18 => (run("@cf/leonardo/lucid-origin"), json!({"prompt": text, "width": 512, "height": 768})),
        _ => (run("@cf/leonardo/phoenix-1.0"), json!({"prompt": text})),
    };
    (path, body, STYLES[n / 20 % STYLES.len()])
}

/// So many calls by a few clients, each answered and read to its end.
async fn spend(sidecar: &Sidecar, calls: usize) {
    let (url, next) = (format!("http://{}", sidecar.listen()), Arc::new(AtomicUsize::new(0)));
    let clients = (0..16).map(|_| {
        let (url, next, client) = (url.clone(), next.clone(), client());
        tokio::spawn(async move {
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < calls) {
                let (path, body, style) = mixed(n);
                let request = ask(&client, &format!("{url}{path}"), &body).header("x-simulate-usage", style);
                let reply = request.send().await.unwrap();
                let (status, text) = (reply.status(), reply.bytes().await.unwrap());
                assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&text));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// `tollgate` with this, on the vendor's account: exit code and what it printed.
fn tollgate(vendor: &Running, records: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = command();
    command
        .args(words)
        .env("TOLLGATE_UPSTREAM_BASE_URL", vendor.base_url())
        .env("TOLLGATE_RECORDS_PATH", records)
        .env("CLOUDFLARE_ACCOUNT_ID", "acc")
        .env("CLOUDFLARE_API_TOKEN", TOKEN);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

/// Yesterday and today, so that midnight breaks no test.
fn reconcile(vendor: &Running, records: &Path, more: &[&str]) -> (Option<i32>, String) {
    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let yesterday = yesterday.strftime("%Y-%m-%d").to_string();
    // What was charged in this second is in the books with the next.
    std::thread::sleep(2 * SECOND);
    tollgate(vendor, records, &[&["reconcile", "--from", &yesterday], more].concat())
}

fn json_of(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_ten_thousand_mixed_calls_of_twenty_models_agrees_model_by_model() {
    let vendor = quick(|_| {});
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let (sidecar, _) = start(&vendor, |config| config.records.path = Some(records.clone()));
    spend(&sidecar, 10_000).await;
    sidecar.join().unwrap();
    let (code, said) = reconcile(&vendor, &records, &["--tolerance", "0.01%", "--json"]);
    let report = json_of(&said);
    println!("{}", report["verdict"]);
    assert_eq!((code, &report["agrees"]), (Some(0), &json!(true)), "{said}");
    assert_eq!(report["models"].as_array().unwrap().len(), 20);
    assert_eq!((&report["ours"]["calls"], &report["theirs"]["calls"]), (&json!(10_000), &json!(10_000)));
    for row in report["models"].as_array().unwrap() {
        assert_eq!(row["ours"]["input_tokens"], row["theirs"]["input_tokens"], "{row}");
        assert_eq!(row["ours"]["output_tokens"], row["theirs"]["output_tokens"], "{row}");
        assert!(row["off"].as_f64().unwrap().abs() <= 0.0001, "{row}");
    }
    let (code, said) = reconcile(&vendor, &records, &[]);
    assert!(code == Some(0) && said.trim_end().lines().last().unwrap().starts_with("agrees: 20 models"), "{said}");
    // Today's last calls may be missing in the vendor's books.
    assert!(said.lines().next().unwrap().contains("may lack the last calls"), "{said}");
    assert_eq!(report["settled"], json!(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_workers_spend_is_told_as_outside_the_gate() {
    let vendor = quick(|settings| (settings.elsewhere, settings.analytics_lag) = (0.3, SECOND));
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let (sidecar, _) = start(&vendor, |config| {
        config.records.path = Some(records.clone());
        config.account.analytics = true;
    });
    spend(&sidecar, 2_000).await;
    let (counted, outside) = (vendor.counts().neurons().as_f64(), vendor.counts().elsewhere.as_f64());
    assert!((outside / (counted + outside) - 0.3).abs() < 0.01, "{outside} of {counted}");
    // Until the books have settled up to the last call.
    let told = until("the split", async || {
        let metrics = metrics(&sidecar).await;
        let gate = value(&metrics, "tollgate_account_neurons{via=\"gate\"}")?;
        let elsewhere = value(&metrics, "tollgate_account_neurons{via=\"elsewhere\"}")?;
        let is_whole = (gate / counted - 1.0).abs() < 0.001;
        is_whole.then_some((elsewhere, value(&metrics, "tollgate_books_agree")))
    })
    .await;
    println!("outside the gate: {outside}, told: {}", told.0);
    assert!((told.0 / outside - 1.0).abs() < 0.01 && told.1 == Some(1.0), "{told:?}, {outside}");

    let page = client().get(format!("http://{}/", sidecar.admin())).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("ours beside theirs: agrees: 20 models"), "{page}");
    let budgets =
        client().get(format!("http://{}/budgets", sidecar.admin())).send().await.unwrap().text().await.unwrap();
    let free = json_of(&budgets)["budgets"][0].clone();
    assert!((free["elsewhere_neurons"].as_f64().unwrap() / outside - 1.0).abs() < 0.01, "{free}");

    sidecar.join().unwrap();
    let (code, said) = reconcile(&vendor, &records, &["--json"]);
    let report = json_of(&said);
    assert_eq!(code, Some(0), "{said}");
    let share = report["outside_share"].as_f64().unwrap();
    assert!((share - outside / (counted + outside)).abs() < 0.01, "{share}");
    assert!((report["outside"]["neurons"].as_f64().unwrap() / outside - 1.0).abs() < 0.01, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_free_allocation_counts_what_others_spend_and_is_overshot_by_the_lag_alone() {
    const LAG: Duration = SECOND;
    let vendor = Arc::new(quick(|settings| settings.analytics_lag = LAG));
    let (sidecar, _) = start(&vendor, |config| {
        config.account.plan = Plan::Free;
        config.account.analytics = true;
        config.account.analytics_lag = LAG;
    });
    // A picture of 172.8 neurons here, and as much by a Worker, ten times a second or as fast as the machine is.
    let (client, url) = (client(), format!("http://{}{}", sidecar.listen(), run(FLUX)));
    let tokens = Usage::tokens(0, 0, 172_800_000 / 18_252);
    let (mut spent_elsewhere, mut at): (Vec<(SystemTime, Neurons)>, Neurons) = (Vec::new(), Neurons::ZERO);
    // What the gate knew when it let the last call in: it may know more by the time that it refuses the next.
    let mut seen_until = SystemTime::UNIX_EPOCH;
    loop {
        at += vendor.spend_elsewhere("acc", LLAMA, &tokens);
        spent_elsewhere.push((SystemTime::now(), at));
        // Until when the gate knows what others spent, however slow the machine is.
        let known = value(&metrics(&sidecar).await, "tollgate_account_until_timestamp_seconds").unwrap_or(0.0);
        let reply = ask(&client, &url, &json!({"prompt": "a river", "steps": 4})).send().await.unwrap();
        if reply.status() == 429 {
            assert!(reply.text().await.unwrap().contains(FREE));
            break;
        }
        seen_until = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(known);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let counts = vendor.counts();
    let overshoot = (counts.neurons() + counts.elsewhere).saturating_sub(FREE_A_DAY);
    let seen = spent_elsewhere.iter().rev().find(|(when, _)| *when < seen_until);
    let unseen = at.saturating_sub(seen.map_or(Neurons::ZERO, |(_, spent)| *spent));
    let blind = SystemTime::now().duration_since(seen_until).unwrap_or_default().as_secs_f64();
    println!("overshot by {overshoot}; others spent {unseen} in the {blind:.1} s since the books had settled");
    assert!(overshoot <= unseen, "overshot by {overshoot}; others spent {unseen} since the books had settled");
    assert!(counts.elsewhere.micro() > FREE_A_DAY.micro() / 4, "{counts:?}");
}

pub fn price(model: &str, prices: Value) -> BTreeMap<String, Entry> {
    serde_json::from_value(json!({model: {"prices": prices}})).unwrap()
}

#[tokio::test]
async fn a_price_that_rises_by_a_tenth_is_used_from_the_next_call_and_rounding_is_not() {
    let place = tempfile::tempdir().unwrap();
    let vendor = quick(|_| {});
    let (sidecar, receipts) = start(&vendor, |config| {
        config.catalogue.refresh = SECOND;
        config.catalogue.path = Some(place.path().join("models.json"));
    });
    let read = async || {
        let metrics = metrics(&sidecar).await;
        value(&metrics, "tollgate_books_read_timestamp_seconds{book=\"models\"}")
    };
    let read_again = async || {
        let before = until("the list is read", &read).await;
        // The one that is under way may have begun before.
        for _ in 0..2 {
            until("the list is read again", async || read().await.filter(|at| *at > before)).await;
        }
    };
    let calls = std::cell::Cell::new(0);
    let computed = async || {
        let url = format!("http://{}{}", sidecar.listen(), run(FLUX));
        let prompt = format!("picture {}", calls.get());
        ask(&client(), &url, &json!({"prompt": prompt, "steps": 4})).send().await.unwrap().bytes().await.unwrap();
        calls.set(calls.get() + 1);
        let facts = receipts.after(calls.get()).await.pop().unwrap();
        (facts.estimate.unwrap().likely, facts.cost.computed.unwrap())
    };
    let usual = Neurons::from_micro(172_800_000);
    assert_eq!(computed().await, (usual, usual));
    vendor.revise(&price(FLUX, json!({"tile": 4.8, "tile_step": 9.6 * 1.03})));
    read_again().await;
    assert_eq!(computed().await, (usual, usual));
    vendor.revise(&price(FLUX, json!({"tile": 4.8, "tile_step": 10.56})));
    let series = "tollgate_price_changes_total";
    until("the new price", async || value(&metrics(&sidecar).await, series).filter(|count| *count > 0.0)).await;
    // Per tile and step: 4 tiles, 4 steps. The vendor's dollars have three digits.
    let dearer = 4.0 * (4.8 + 4.0 * 10.56);
    let (likely, table) = computed().await;
    assert!(likely == table && (table.as_f64() / dearer - 1.0).abs() < 0.005, "{table}, {dearer}");
    read_again().await;
    assert_eq!(value(&metrics(&sidecar).await, series), Some(1.0), "told once");
    let page = client().get(format!("http://{}/", sidecar.admin())).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("the price of tile_step is"), "{page}");
    sidecar.join().unwrap();

    // The last good copy is in force at once in the next run, also where the vendor is silent.
    vendor.books_trouble(Some(BooksTrouble::Down));
    let (sidecar, receipts) = start(&vendor, |config| {
        config.catalogue.refresh = Duration::from_secs(3600);
        config.catalogue.path = Some(place.path().join("models.json"));
    });
    let url = format!("http://{}{}", sidecar.listen(), run(FLUX));
    ask(&client(), &url, &json!({"prompt": "once more", "steps": 4})).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(receipts.after(1).await[0].cost.computed, Some(table));
}

#[tokio::test]
async fn a_reported_price_five_percent_off_the_table_is_learned_within_twenty_calls() {
    let place = tempfile::tempdir().unwrap();
    let dearer = price(LARGE, json!({"input_token": 26_668.0 * 1.05, "output_token": 204_805.0 * 1.05}));
    let vendor = quick(|settings| {
        settings.models = dearer;
        settings.models.extend(price(FLUX, json!({"tile": 4.8 * 1.05, "tile_step": 9.6 * 1.05})));
    });
    let models = place.path().join("models.json");
    let (sidecar, receipts) = start(&vendor, |config| config.catalogue.path = Some(models.clone()));
    let url = format!("http://{}", sidecar.listen());
    for n in 0..21 {
        // Told with two decimals.
        let text = json!({"prompt": format!("call {n}"), "max_tokens": 1200});
        ask(&client(), &format!("{url}{}", run(LARGE)), &text).send().await.unwrap().bytes().await.unwrap();
        let picture = json!({"prompt": format!("call {n}"), "steps": 1 + n % 8});
        ask(&client(), &format!("{url}{}", run(FLUX)), &picture).send().await.unwrap().bytes().await.unwrap();
    }
    let facts = receipts.after(42).await;
    let real = |facts: &tollgate::receipt::Facts| facts.cost.reported.unwrap().as_f64();
    let (first, last) = (&facts[1], &facts[41]);
    assert!((first.estimate.unwrap().likely.as_f64() / real(first) - 0.952).abs() < 0.001);
    let off = last.estimate.unwrap().likely.as_f64() / real(last) - 1.0;
    println!("the 21st estimate is off by {:.3}%", off * 100.0);
    assert!(off.abs() < 0.01, "{off}");
    // What is reserved covers the dearer price, too.
    let text = &facts[40];
    assert!(text.estimate.unwrap().upper.unwrap().as_f64() >= real(text));
    let model = format!("tollgate_learned_price_ratio{{model=\"{LARGE}\"}}");
    let ratio = value(&metrics(&sidecar).await, &model).unwrap();
    assert!((ratio - 1.05).abs() < 0.005, "{ratio}");
    sidecar.join().unwrap();
    let output = command().args(["models", "flux-1"]).env("TOLLGATE_CATALOGUE_PATH", &models).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("LEARNED: the vendor charges +5.0%"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_the_books_is_no_trouble_for_calls() {
    let every_trouble = [
        BooksTrouble::Down,
        BooksTrouble::Silent,
        BooksTrouble::NotAllowed,
        BooksTrouble::Garbage,
        BooksTrouble::Endless,
        BooksTrouble::EndlessPages,
    ];
    for trouble in every_trouble {
        let vendor = quick(|_| {});
        vendor.books_trouble(Some(trouble));
        let (sidecar, receipts) = start(&vendor, |config| {
            config.catalogue.refresh = SECOND;
            config.account.analytics = true;
        });
        let url = format!("http://{}{}", sidecar.listen(), run(LLAMA));
        for n in 0..20 {
            let reply = ask(&client(), &url, &json!({"prompt": format!("call {n}")})).send().await.unwrap();
            assert_eq!(reply.status(), 200, "{trouble:?}");
        }
        assert_eq!(receipts.after(20).await.len(), 20);
        // The admin port answers meanwhile, too.
        let began = Instant::now();
        let seen = until("the trouble is told", async || {
            let metrics = metrics(&sidecar).await;
            let told = value(&metrics, "tollgate_books_up{book=\"models\"}");
            // A silent one is waited for, half a minute.
            (told.is_some() || trouble == BooksTrouble::Silent).then_some((told, metrics))
        })
        .await;
        println!("{trouble:?}: told after {:.1?}", began.elapsed());
        assert_ne!(seen.0, Some(1.0), "{trouble:?}");
        assert!(!seen.1.contains("endless"), "{trouble:?}");
        sidecar.join().unwrap();
    }
}

#[tokio::test]
async fn a_token_that_may_not_read_the_books_is_told_once_which_permission_it_lacks() {
    let vendor = quick(|_| {});
    vendor.books_trouble(Some(BooksTrouble::NotAllowed));
    let variables = [
        ("CLOUDFLARE_API_TOKEN", "s3cret-own"),
        ("TOLLGATE_CATALOGUE_REFRESH", "1s"),
        ("TOLLGATE_ACCOUNT_ANALYTICS", "true"),
        ("TOLLGATE_ACCOUNT_ANALYTICS_EVERY", "1s"),
    ];
    let mut process = Process::serve(&vendor.base_url(), &variables);
    until("both books are tried", async || {
        let metrics = client().get(format!("{}/metrics", process.admin)).send().await.unwrap().text().await.unwrap();
        let up = |book| value(&metrics, &format!("tollgate_books_up{{book=\"{book}\"}}"));
        (up("models") == Some(0.0) && up("analytics") == Some(0.0)).then_some(())
    })
    .await;
    tokio::time::sleep(SECOND).await;
    let url = format!("{}{}", process.listen, run(LLAMA));
    assert_eq!(ask(&client(), &url, &json!({"prompt": "x"})).send().await.unwrap().status(), 200);
    process.terminate();
    assert!(process.child.wait().unwrap().success());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut process.child.stderr.take().unwrap(), &mut log).unwrap();
    for permission in ["`Workers AI: Read`", "`Account Analytics: Read`"] {
        assert_eq!(log.matches(permission).count(), 1, "{permission} in {log}");
    }
    assert!(!log.contains("s3cret-own"), "{log}");
}

#[tokio::test]
async fn books_without_a_token_or_an_account_are_a_config_error_with_the_mend() {
    for (variables, wanted) in [
        (vec![("TOLLGATE_CATALOGUE_REFRESH", "24h"), ("CLOUDFLARE_ACCOUNT_ID", "acc")], "CLOUDFLARE_API_TOKEN"),
        (vec![("TOLLGATE_ACCOUNT_ANALYTICS", "true"), ("CLOUDFLARE_API_TOKEN", "t")], "CLOUDFLARE_ACCOUNT_ID"),
    ] {
        let output = command().arg("serve").envs(variables).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(wanted), "{said}");
    }
}

#[tokio::test]
async fn built_in_prices_are_shown_beside_live_ones() {
    let vendor = quick(|_| {});
    vendor.revise(&price(FLUX, json!({"tile": 4.8, "tile_step": 12.0})));
    let (code, said) = tollgate(&vendor, Path::new(""), &["models", "--diff"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("flux-1-schnell: the price of tile_step is 12") && said.contains("+25.0%"), "{said}");
    let (_, said) = tollgate(&vendor, Path::new(""), &["models", "--diff", "--json", "llama-3.2-1b"]);
    let diff = json_of(&said);
    assert_eq!((diff["prices"].as_array().unwrap().len(), diff["changes"].as_array().unwrap().len()), (2, 0), "{said}");
    vendor.books_trouble(Some(BooksTrouble::Garbage));
    let (code, said) = tollgate(&vendor, Path::new(""), &["models", "--diff"]);
    assert!(code == Some(1) && said.contains("none is kept"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_new_or_to_go_is_told_and_priced() {
    let new = "@cf/acme/new-model";
    let entries = json!({
        new: {"task": "Text Generation", "paid_plan_only": true, "prices": {"input_token": 1000, "output_token": 5000}},
        LLAMA: {"deprecated": "2099-01-01"},
    });
    let vendor = quick(|settings| settings.models = serde_json::from_value(entries).unwrap());
    let (sidecar, receipts) = start(&vendor, |config| config.catalogue.refresh = Duration::from_secs(3600));
    let leaves = until("the day on which it goes", async || {
        value(&metrics(&sidecar).await, &format!("tollgate_model_leaves_timestamp_seconds{{model=\"{LLAMA}\"}}"))
    })
    .await;
    // 2099-01-01, 00:00 UTC.
    assert_eq!(leaves, 4_070_908_800.0);
    let url = format!("http://{}{}", sidecar.listen(), run(new));
    ask(&client(), &url, &json!({"prompt": "x"})).send().await.unwrap().bytes().await.unwrap();
    let facts = receipts.after(1).await.remove(0);
    assert_eq!((facts.model.label(), facts.model.limit.requests.get()), (new, 20));
    assert_eq!(facts.model.prices.published(Unit::OutputToken), Some(5000.0));
    assert!(Catalogue::default().get(new).is_none());
    let sums = value(&metrics(&sidecar).await, &format!("tollgate_cost_usd_total{{model=\"{new}\"}}"));
    assert!(sums.is_some_and(|usd| usd > 0.0), "{sums:?}");
}
