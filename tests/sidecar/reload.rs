//! The config is read again while calls go on: nothing is lost, and what is wrong changes nothing.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::receipt::Outcome;
use tollgate::sidecar::config::{BaseUrl, Config};
use tollgate::simulator::Settings;

use crate::support::{Gate, LLAMA, Process, ask, client, command, config, start, vendor};

/// How often the config is read again under load, and how many calls a second there are meanwhile.
fn load() -> (usize, u64) {
    let figure = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    (figure("TOLLGATE_RELOADS", 40) as usize, figure("TOLLGATE_RELOAD_CALLS", 50))
}

fn with_budget(config: &Config, neurons: u64, wait: u64) -> Config {
    let text = format!(
        "[[budgets]]\nname = \"all\"\nlimit = \"{neurons} neurons\"\n[limits]\nmax_wait = \"{wait}s\"\n\
         [limits.models.{LLAMA:?}]\nrequests = {}\n",
        10_000_000 - wait
    );
    let own = Config::parse(&text, "t").unwrap();
    let mut config = config.clone();
    (config.budgets, config.limits.max_wait) = (own.budgets, own.limits.max_wait);
    config.limits.models.extend(own.limits.models);
    config
}

async fn budget(gate: &Gate) -> Value {
    let url = format!("http://{}/budgets", gate.sidecar.admin());
    let all: Value = gate.client.get(url).send().await.unwrap().json().await.unwrap();
    all["budgets"].as_array().unwrap().iter().find(|budget| budget["name"] == "all").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_call_cut_no_stream_and_keep_what_was_spent() {
    let (reloads, a_second) = load();
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (0.2, false);
    let first = std::cell::OnceCell::new();
    let gate = Gate::with(tollgate::simulator::start(settings).unwrap(), |config| {
        *config = with_budget(config, 1_000_000, 1);
        first.set(config.clone()).unwrap();
    });
    let (gate, first) = (Arc::new(gate), first.into_inner().unwrap());
    let (is_over, failed, made) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::<AtomicUsize>::default());
    let failed: Arc<std::sync::Mutex<Vec<String>>> = failed;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (gate, is_over, failed, made) = (gate.clone(), is_over.clone(), failed.clone(), made.clone());
        tasks.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let is_stream = n == 0;
                let body = json!({"prompt": format!("tale {n}"), "stream": is_stream, "max_tokens": 64});
                made.fetch_add(1, Ordering::Relaxed);
                let reply = gate.post(&format!("/run/{LLAMA}"), &body).send().await;
                let told = match reply {
                    Ok(reply) if reply.status() == 200 => match reply.text().await {
                        Ok(text) if !is_stream || text.ends_with("data: [DONE]\n\n") => None,
                        other => Some(format!("a cut reply: {other:?}")),
                    },
                    other => Some(format!("{other:?}")),
                };
                failed.lock().unwrap().extend(told);
                tokio::time::sleep(Duration::from_millis(10_000 / a_second.max(1))).await;
            }
        });
    }
    let sidecar = &gate.sidecar;
    for n in 0..reloads as u64 {
        let next = with_budget(&first, 1_000_000 + n, 1 + n % 3);
        let changed = tokio::task::block_in_place(|| sidecar.put(next)).unwrap();
        assert!(changed.changed.contains(&"budgets".to_owned()) || n == 0, "{changed:?}");
        assert!(changed.needs_restart.is_empty(), "{changed:?}");
        assert_eq!(budget(&gate).await["limit_neurons"], (1_000_000 + n) as f64);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    while tasks.join_next().await.is_some() {}
    let failed = failed.lock().unwrap().clone();
    let made = made.load(Ordering::Relaxed);
    println!("{reloads} reloads, {made} calls, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {made} failed: {}", failed.len(), failed[0]);
    let facts = gate.receipts.after(made).await;
    assert!(facts.iter().all(|facts| matches!(facts.outcome, Outcome::Ok | Outcome::CacheHit)));
    let spent: u64 = facts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    let told = budget(&gate).await;
    assert_eq!((told["spent_neurons"].as_f64().unwrap() * 1e6).round() as u64, spent, "{told}");
    assert_eq!(told["reserved_neurons"], 0.0);
    let metrics = gate.metrics().await;
    for line in [
        format!("tollgate_config_reloads_total{{result=\"ok\"}} {reloads}"),
        "tollgate_config_last_reload_successful 1".into(),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_thousand_broken_configs_never_replace_a_good_one() {
    let vendor = vendor();
    let good = format!(
        "max_body = \"1MiB\"\n[upstream]\nbase_url = {:?}\naccount_id = \"acc\"\n[limits]\nmax_wait = \"3s\"\n\
         [limits.models.{LLAMA:?}]\nrequests = 1000000\n[[budgets]]\nname = \"all\"\nlimit = \"5 USD\"\nwindow = \"day\"\n",
        vendor.base_url()
    );
    let mut config = Config::parse(&good, "t").unwrap();
    (config.listen, config.admin) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
    let (sidecar, _receipts) = start(config);
    let before = sidecar.config();
    let text = Arc::new(std::sync::Mutex::new(good.clone()));
    let read = text.clone();
    sidecar.read_again_by(
        move || {
            let mut config = Config::parse(&read.lock().unwrap(), "t")?;
            (config.listen, config.admin) = (([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into());
            Ok(config)
        },
        |_| {},
    );
    let mut random = fastrand_like(7);
    let (mut broken, mut accepted) = (0, 0);
    while broken < 1000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..1 + random() % 3 {
            let at = random() as usize % bytes.len();
            match random() % 3 {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, b"x\"[]=\n9-"[random() as usize % 8]),
                _ => bytes[at] = b"x\"[]=\n9-"[random() as usize % 8],
            }
        }
        *text.lock().unwrap() = String::from_utf8(bytes).unwrap();
        match sidecar.reload() {
            Err(error) => {
                broken += 1;
                assert!(!error.to_string().is_empty());
                assert_eq!(sidecar.config(), before, "a broken config changed something: {}", text.lock().unwrap());
            }
            // What is still a config is one.
            Ok(_) => {
                accepted += 1;
                *text.lock().unwrap() = good.clone();
                sidecar.reload().unwrap();
                assert_eq!(sidecar.config(), before);
            }
        }
    }
    println!("{broken} broken ones, {accepted} that were configs after all");
    let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
    assert_eq!(ask(&client(), &url, &json!({"prompt": "x"})).send().await.unwrap().status(), 200);
}

/// xorshift, so that a failure can be had again.
fn fastrand_like(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

#[tokio::test]
async fn a_limit_and_a_budget_that_are_lowered_count_at_once_also_for_those_who_wait() {
    let gate = Gate::start();
    let first = gate.sidecar.config();
    let limited = |requests: u32| {
        let text =
            format!("[limits.models.{LLAMA:?}]\nrequests = {requests}\nper = \"1h\"\n[limits]\nmax_wait = \"60s\"\n");
        let mut config = first.clone();
        config.limits = Config::parse(&text, "t").unwrap().limits;
        config
    };
    gate.sidecar.put(limited(4)).unwrap();
    for n in 0..2 {
        assert_eq!(gate.run(LLAMA, &json!({"prompt": n.to_string()})).await.status(), 200);
    }
    gate.sidecar.put(limited(2)).unwrap();
    let refused = gate.run(LLAMA, &json!({"prompt": "a third"})).await;
    assert_eq!(refused.status(), 429, "the window remembers, and holds to two an hour");
    gate.sidecar.put(limited(1000)).unwrap();
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "a fourth"})).await.status(), 200);
    gate.sidecar.put(with_budget(&first, 1_000_000, 1)).unwrap();
    assert_eq!(gate.run(LLAMA, &json!({"prompt": "counted"})).await.status(), 200);
    let spent = gate.receipts.after(5).await.last().unwrap().cost.neurons.as_f64();
    for _ in 0..500 {
        if budget(&gate).await["spent_neurons"] == spent {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A budget that leaves the config and comes back knows what it had spent.
    gate.sidecar.put(first.clone()).unwrap();
    gate.sidecar.put(with_budget(&first, 1, 1)).unwrap();
    assert_eq!(budget(&gate).await["spent_neurons"], spent);
    let refused = gate.run(LLAMA, &json!({"prompt": "too dear now", "max_tokens": 100_000})).await;
    assert_eq!(refused.status(), 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_again_by_signal_by_command_and_when_it_changes() {
    let vendor = vendor();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("gate.toml");
    let write = |text: &str| {
        // As editors do: another file in the place of the old one.
        let mut file = tempfile::NamedTempFile::new_in(place.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.persist(&path).unwrap();
    };
    write("watch_config = true\n[limits]\nmax_wait = \"1s\"\n");
    let process = Process::serve(&vendor.base_url(), &[("TOLLGATE_CONFIG", path.to_str().unwrap())]);
    let admin = process.admin.strip_prefix("http://").unwrap().to_owned();
    let reload = |json: bool| {
        let mut command = command();
        command.args(["reload", "--admin", &admin, "--config"]).arg(&path).args(json.then_some("--json"));
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let count = async |result: &str| {
        let metrics = client().get(format!("{}/metrics", process.admin)).send().await.unwrap().text().await.unwrap();
        let line = format!("tollgate_config_reloads_total{{result={result:?}}} ");
        let found = metrics.lines().find_map(|found| found.strip_prefix(&line)).unwrap();
        found.parse::<u64>().unwrap()
    };
    let until = async |result: &str, least: u64| {
        let began = Instant::now();
        while count(result).await < least {
            assert!(began.elapsed() < Duration::from_secs(60), "{least} times {result}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The watch.
    write("watch_config = true\n[limits]\nmax_wait = \"2s\"\n");
    until("ok", 1).await;
    // The signal.
    let pid = process.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("ok", 2).await;
    // The command, and what it exits with.
    let (code, said, _) = reload(false);
    assert!(code == 0 && said.contains("nothing has changed"), "{code} {said}");
    write("watch_config = true\nworkers = 7\n[limits]\nmax_wiat = \"2s\"\n");
    let (code, _, said) = reload(false);
    assert!(code == 2 && said.contains("gate.toml:4:1") && said.contains("max_wiat"), "{code} {said}");
    until("refused", 1).await;
    let page = client().get(&process.admin).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("the one before is in force") && page.contains("max_wiat"), "{page}");
    write("watch_config = true\nworkers = 7\n[limits]\nmax_wait = \"4s\"\n");
    until("ok", 4).await;
    let (code, said, _) = reload(true);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["needs_restart"]), (0, &json!(["workers"])), "{told}");
    let url = format!("{}/run/{LLAMA}", process.listen);
    assert_eq!(ask(&client(), &url, &json!({"prompt": "x"})).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn nobody_reloads_from_a_web_page_or_without_the_token() {
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.admin_token = Some("sesame".to_owned().into());
    config.upstream.base_url = Some(BaseUrl::try_from(vendor.base_url()).unwrap());
    let (sidecar, _receipts) = start(config);
    let url = format!("http://{}/reload", sidecar.admin());
    let post = || client().post(&url);
    assert_eq!(post().send().await.unwrap().status(), 401);
    let page = post().bearer_auth("sesame").header("origin", "http://evil.example");
    assert_eq!(page.send().await.unwrap().status(), 403);
    // This one was not started from a file.
    assert_eq!(post().bearer_auth("sesame").send().await.unwrap().status(), 409);
    assert_eq!(client().get(&url).bearer_auth("sesame").send().await.unwrap().status(), 405);
}
