//! What one gate learns or is told, the others that share its store know soon, through a real Redis.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::neurons::Neurons;
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{self, Running};

use crate::books::price;
use crate::redis::Redis;
use crate::support::{LLAMA, Receipts, client, command, config, start_with, until, vendor};

const SECRET: &str = "a secret of the fleet's own, with more than sixteen bytes";

struct Fleet {
    vendor: Running,
    redis: Redis,
    place: tempfile::TempDir,
}

impl Fleet {
    fn start() -> Option<Self> {
        Self::before(vendor)
    }

    fn before(vendor: impl FnOnce() -> Running) -> Option<Self> {
        let redis = Redis::start()?;
        Some(Self { vendor: vendor(), redis, place: tempfile::tempdir().unwrap() })
    }

    fn config(&self, name: &str, more: &str, secret: &str) -> Config {
        let mut config = config(&self.vendor.base_url());
        let text = format!("{more}[replicas]\nstore = \"{}\"\nname = \"{name}\"\ntimeout = \"2s\"\n", self.redis.url());
        let mut own = Config::parse(&text, "test").unwrap();
        own.replicas.secret = Some(secret.to_owned().into());
        (config.budgets, config.replicas, config.cache) = (own.budgets, own.replicas, own.cache);
        config.keys_path = Some(self.keys(name));
        config.records.path = Some(self.place.path().join(format!("{name}.db")));
        config
    }

    fn keys(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(format!("{name}.keys.db"))
    }

    fn gate(&self, name: &str, more: &str, secret: &str) -> Sidecar {
        let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "t".to_owned())];
        let (sidecar, _): (_, Receipts) = start_with(self.config(name, more, secret), &variables);
        sidecar
    }
}

async fn admin(gate: &Sidecar, method: &str, path: &str, body: Value) -> (u16, Value) {
    let url = format!("http://{}{path}", gate.admin());
    let request = client().request(method.parse().unwrap(), url).json(&body);
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap_or_default())
}

async fn metric(gate: &Sidecar, name: &str) -> u64 {
    let url = format!("http://{}/metrics", gate.admin());
    let text = client().get(url).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    line.parse().unwrap()
}

async fn call(gate: &Sidecar, key: &str) -> u16 {
    ask(gate, key, "x").await
}

async fn ask(gate: &Sidecar, key: &str, prompt: &str) -> u16 {
    let url = format!("http://{}/run/{LLAMA}", gate.listen());
    let body = json!({"prompt": prompt, "max_tokens": 5, "temperature": 0});
    client().post(url).bearer_auth(key).json(&body).send().await.unwrap().status().as_u16()
}

/// The keys that open it, as far as they were made at run time.
async fn holding(gate: &Sidecar) -> Vec<String> {
    let all = admin(gate, "GET", "/keys", json!({})).await.1;
    let holds = all["keys"].as_array().unwrap().iter().filter(|key| key["revoked_at"].is_null());
    holds.map(|key| key["name"].as_str().unwrap().to_owned()).collect()
}

/// Before it knows a key, a gate without any lets everybody in.
async fn opens_this_alone(gate: &Sidecar, key: &str) {
    until(async || call(gate, key).await == 200 && call(gate, "another").await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_one_gate_makes_opens_all_and_none_once_it_is_revoked() {
    let Some(fleet) = Fleet::start() else { return };
    let gates = ["a", "b"].map(|name| fleet.gate(name, "", SECRET));
    let stranger = fleet.gate("c", "", "another secret, of more than sixteen bytes");
    let (status, made) = admin(&gates[0], "POST", "/keys", json!({"name": "team"})).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap().to_owned();
    opens_this_alone(&gates[1], &key).await;
    assert_eq!(call(&gates[0], &key).await, 200);
    // A gate that starts later learns of it, too.
    let late = fleet.gate("d", "", SECRET);
    opens_this_alone(&late, &key).await;
    assert_eq!(admin(&gates[1], "DELETE", "/keys/team", json!({})).await.0, 200);
    for gate in [&gates[0], &gates[1], &late] {
        until(async || call(gate, &key).await == 401).await;
    }
    // What is not signed with a gate's own secret is nothing to it.
    until(async || metric(&stranger, "tollgate_notices_total{end=\"refused\"}").await == 2).await;
    assert_eq!(metric(&stranger, "tollgate_notices_total{end=\"taken\"}").await, 0);
    assert!(admin(&stranger, "GET", "/keys", json!({})).await.1["keys"].as_array().unwrap().is_empty());
    let at_store = fleet.redis.ask(&["XRANGE", "tollgate:{tollgate}:notices", "-", "+"])
        + &fleet.redis.ask(&["HGETALL", "tollgate:{tollgate}:keys"])
        + &fleet.redis.ask(&["HGETALL", "tollgate:{tollgate}:configs"]);
    assert!(at_store.contains("team") && !at_store.contains(&key) && !at_store.contains(SECRET), "{at_store}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_outlive_a_store_that_loses_its_memory_and_a_gate_that_was_away() {
    let Some(fleet) = Fleet::start() else { return };
    let gates = ["a", "b"].map(|name| fleet.gate(name, "", SECRET));
    let make = async |name: &str| {
        let (_, made) = admin(&gates[0], "POST", "/keys", json!({"name": name})).await;
        made["key"].as_str().unwrap().to_owned()
    };
    let goes = make("goes").await;
    make("lasts").await;
    let away = fleet.gate("away", "", SECRET);
    for gate in [&gates[1], &away] {
        opens_this_alone(gate, &goes).await;
    }
    away.stop();
    tokio::task::spawn_blocking(|| away.join()).await.unwrap().unwrap();
    assert_eq!(admin(&gates[0], "DELETE", "/keys/goes", json!({})).await.0, 200);
    until(async || call(&gates[1], &goes).await == 401).await;
    // An old notice comes again: it is signed, and a key that was revoked stays so.
    let place = ["tollgate:{tollgate}:notices", "tollgate:{tollgate}:keys"];
    let stored = fleet.redis.ask(&["--json", "XRANGE", place[0], "-", "+"]);
    let stored: Value = serde_json::from_str(&stored).unwrap();
    let made = stored.as_array().unwrap().iter().map(|entry| &entry[1]).find(|fields| {
        let body = fields[1].as_str().unwrap();
        body.contains("\"goes\"") && body.contains("\"revoked_ms\":null")
    });
    let field = |n: usize| made.unwrap()[n].as_str().unwrap().to_owned();
    fleet.redis.ask(&["FLUSHALL"]);
    fleet.redis.ask(&["XADD", place[0], "*", "body", &field(1), "signature", &field(3)]);
    fleet.redis.ask(&["HSET", place[1], "goes", &format!("{} {}", field(3), field(1))]);
    // What is no text, and what has no signature, is nobody's.
    fleet.redis.ask(&["XADD", place[0], "*", "body", "{}", "signature", "\u{1}"]);
    fleet.redis.ask(&["HSET", place[1], "junk", "junk"]);
    let late = [fleet.gate("away", "", SECRET), fleet.gate("new", "", SECRET)];
    // For a window such a store grants no call to who held none, but a key that opens nothing is refused at once.
    for gate in gates.iter().chain(&late) {
        until(async || holding(gate).await == ["lasts"] && call(gate, &goes).await == 401).await;
    }
    // What `tollgate keys` writes at one gate, all hear of.
    let mut keys = command();
    keys.env("TOLLGATE_KEYS_PATH", fleet.keys("new")).args(["keys", "new", "by-hand"]);
    let output = keys.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for gate in gates.iter().chain(&late) {
        until(async || holding(gate).await == ["by-hand", "lasts"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_is_raised_or_reset_and_a_purge_are_heard_by_all() {
    let Some(fleet) = Fleet::start() else { return };
    let budget = "[[budgets]]\nname = \"all\"\nlimit = \"40 neurons\"\nwindow = \"day\"\n";
    let gates = ["a", "b"].map(|name| fleet.gate(name, budget, SECRET));
    let standing = async |gate: &Sidecar| admin(gate, "GET", "/budgets/all", json!({})).await.1["buckets"][0].clone();
    for gate in &gates {
        // A store that was never used grants nothing for two seconds.
        until(async || call(gate, "k").await == 200).await;
        assert_eq!(standing(gate).await["limit_neurons"], 40.0);
    }
    let raise = async |gate: &Sidecar, to: &str| {
        let raise = json!({"to": to, "who": "ann", "reason": "a launch"});
        assert_eq!(admin(gate, "POST", "/budgets/all/raise", raise).await.0, 200);
    };
    raise(&gates[0], "90 neurons").await;
    until(async || standing(&gates[1]).await["limit_neurons"] == 90.0).await;
    // Raised at both at once, both end with the same.
    tokio::join!(raise(&gates[0], "70 neurons"), raise(&gates[1], "80 neurons"));
    let taken = "tollgate_notices_total{end=\"taken\"}";
    until(async || metric(&gates[0], taken).await == 1 && metric(&gates[1], taken).await == 2).await;
    until(async || standing(&gates[0]).await["limit_neurons"] == standing(&gates[1]).await["limit_neurons"]).await;
    assert!(standing(&gates[1]).await["spent_neurons"].as_f64().unwrap() > 0.0);
    let reset = json!({"who": "ann", "reason": "a mistake"});
    assert_eq!(admin(&gates[1], "POST", "/budgets/all/reset", reset).await.0, 200);
    until(async || standing(&gates[0]).await["spent_neurons"] == 0.0).await;
    let kept = async |gate: &Sidecar| admin(gate, "GET", "/cache", json!({})).await.1["entries"].as_u64().unwrap();
    assert_eq!((kept(&gates[0]).await, kept(&gates[1]).await), (1, 1));
    assert_eq!(admin(&gates[0], "DELETE", "/cache", json!({})).await.0, 200);
    until(async || kept(&gates[1]).await == 0).await;
    // Who comes after the store has lost its memory hears of the raise; and nothing is reset or raised by what is told again.
    raise(&gates[0], "95 neurons").await;
    until(async || standing(&gates[1]).await["limit_neurons"] == 95.0).await;
    fleet.redis.ask(&["FLUSHALL"]);
    let late = fleet.gate("late", budget, SECRET);
    until(async || standing(&late).await["limit_neurons"] == 95.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_has_another_config_is_told_of() {
    let Some(fleet) = Fleet::start() else { return };
    let gates = ["a", "b"].map(|name| fleet.gate(name, "", SECRET));
    let others = async |gate: &Sidecar| metric(gate, "tollgate_replicas_with_another_config").await;
    let list = || {
        let mut command = command();
        let output = command.env("TOLLGATE_REPLICAS_STORE", fleet.redis.url()).arg("replicas").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    until(async || list().matches(", config ").count() == 2).await;
    // The dashboard and the alerts ask for nothing that such a gate does not tell.
    let metrics =
        client().get(format!("http://{}/metrics", gates[0].admin())).send().await.unwrap().text().await.unwrap();
    for file in ["grafana/dashboards/limits.json", "prometheus/rules.yml"] {
        let text = std::fs::read_to_string(format!("{}/dashboards/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let names = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let shared = ["tollgate_store_", "tollgate_replicas", "tollgate_notices_"];
        let names: Vec<_> = names.filter(|name| shared.iter().any(|family| name.starts_with(family))).collect();
        assert!(names.len() > 3, "{file}: {names:?}");
        let lacking = names.iter().find(|name| !metrics.contains(&format!("# TYPE {name} ")));
        assert_eq!(lacking, None, "{file}");
    }
    assert!(!list().contains("different configs"), "{}", list());
    let mut other = fleet.config("a", "", SECRET);
    other.limits.max_wait = Duration::from_secs(3);
    tokio::task::block_in_place(|| gates[0].put(other)).unwrap();
    until(async || others(&gates[1]).await == 1 && others(&gates[0]).await == 1).await;
    assert!(list().contains("different configs"), "{}", list());
    let mut same = fleet.config("b", "", SECRET);
    same.limits.max_wait = Duration::from_secs(3);
    tokio::task::block_in_place(|| gates[1].put(same)).unwrap();
    until(async || others(&gates[1]).await == 0 && others(&gates[0]).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gate_that_finds_the_free_neurons_used_up_spares_the_others_the_question() {
    let vendor = || {
        let mut settings = simulator::Settings::default();
        (settings.latency, settings.rate_limits) = (0.0, false);
        settings.free_neurons = Some(Neurons::from_micro(1));
        simulator::start(settings).unwrap()
    };
    let Some(fleet) = Fleet::before(vendor) else { return };
    let gates = ["a", "b", "c"].map(|name| fleet.gate(name, "", SECRET));
    assert_eq!(call(&gates[0], "k").await, 200);
    assert_eq!(ask(&gates[0], "k", "y").await, 429);
    let taken = "tollgate_notices_total{end=\"taken\"}";
    until(async || metric(&gates[1], taken).await == 1 && metric(&gates[2], taken).await == 1).await;
    // One that comes later hears of it as well.
    let late = fleet.gate("d", "", SECRET);
    until(async || metric(&late, taken).await == 1).await;
    let asked = fleet.vendor.counts().attempts;
    for gate in gates.iter().chain([&late]) {
        for prompt in ["1", "2", "3"] {
            assert_eq!(ask(gate, "k", prompt).await, 429);
        }
    }
    assert_eq!(fleet.vendor.counts().attempts, asked, "the vendor was asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gate_has_learned_of_a_price_another_reserves_by_before_its_first_call() {
    const FLUX: &str = "@cf/black-forest-labs/flux-1-schnell";
    let dearer = || {
        let mut settings = simulator::Settings::default();
        (settings.latency, settings.rate_limits) = (0.0, false);
        settings.models.extend(price(FLUX, json!({"tile": 4.8 * 1.5, "tile_step": 9.6 * 1.5})));
        simulator::start(settings).unwrap()
    };
    let Some(fleet) = Fleet::before(dearer) else { return };
    let gates = ["a", "b"].map(|name| fleet.gate(name, "", SECRET));
    for n in 0..20 {
        let url = format!("http://{}/run/{FLUX}", gates[0].listen());
        let body = json!({"prompt": format!("call {n}"), "steps": 1 + n % 8});
        client().post(url).json(&body).send().await.unwrap().bytes().await.unwrap();
    }
    let estimate = async |gate: &Sidecar| {
        let url = format!("http://{}/estimate/run/{FLUX}", gate.listen());
        let reply = client().post(url).json(&json!({"prompt": "x", "steps": 4})).send().await.unwrap();
        let told: Value = reply.json().await.unwrap();
        told["at_most"]["neurons"].as_f64().unwrap_or_else(|| panic!("{told}"))
    };
    let of_a = estimate(&gates[0]).await;
    until(async || (estimate(&gates[1]).await / of_a - 1.0).abs() < 0.01).await;
    // One that starts later knows it, too.
    let late = fleet.gate("c", "", SECRET);
    until(async || (estimate(&late).await / of_a - 1.0).abs() < 0.01).await;
    let (stranger, table) = (fleet.gate("d", "", "another secret, of more than sixteen bytes"), of_a / 1.5);
    assert!((estimate(&stranger).await / table - 1.0).abs() < 0.01);
}
