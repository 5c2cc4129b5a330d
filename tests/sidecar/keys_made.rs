//! Clients' keys that are made, changed, rotated and revoked while calls go on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::Running;

use crate::support::{GEMMA, LLAMA, client, command, config, vendor};

struct Keyed {
    sidecar: Sidecar,
    client: reqwest::Client,
    path: std::path::PathBuf,
    _place: tempfile::TempDir,
    _vendor: Running,
}

impl Keyed {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let (vendor, place) = (vendor(), tempfile::tempdir().unwrap());
        let path = place.path().join("keys.db");
        let mut config = config(&vendor.base_url());
        config.keys_path = Some(path.clone());
        change(&mut config);
        let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "the-vendors-token".to_owned())];
        let sidecar = Sidecar::start(config, &variables, Vec::new()).unwrap();
        Self { sidecar, client: client(), path, _place: place, _vendor: vendor }
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.sidecar.admin());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.client.request(method.parse().unwrap(), url).body(body).send().await.unwrap();
        let status = reply.status().as_u16();
        (status, reply.json().await.unwrap_or_default())
    }

    async fn make(&self, body: Value) -> String {
        let (status, made) = self.admin("POST", "/keys", body).await;
        assert_eq!(status, 201, "{made}");
        made["key"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, model: &str, key: &str) -> u16 {
        let url = format!("http://{}/run/{model}", self.sidecar.listen());
        let asked = self.client.post(url).bearer_auth(key).body(r#"{"prompt":"x","max_tokens":4}"#);
        let reply = asked.send().await.unwrap();
        let status = reply.status().as_u16();
        reply.bytes().await.unwrap();
        status
    }

    fn keys(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = command();
        let output = command.arg("keys").args(arguments).env("TOLLGATE_KEYS_PATH", &self.path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    }

    /// Until a key is answered so; within how long that was.
    async fn until(&self, key: &str, status: u16) -> Duration {
        let began = Instant::now();
        while self.ask(LLAMA, key).await != status {
            assert!(began.elapsed() < Duration::from_secs(60), "not {status} after a minute");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }
}

#[tokio::test]
async fn a_key_is_in_force_when_it_was_told_and_the_last_one_revoked_locks_the_gate() {
    let gate = Keyed::start(|_| {});
    assert_eq!(gate.ask(LLAMA, "anything").await, 200, "no key is asked for before there is one");
    let key = gate.make(json!({"name": "app", "owner": "ops", "labels": {"team": "search"}, "models": [LLAMA]})).await;
    assert_eq!(gate.ask(LLAMA, "anything").await, 401);
    assert_eq!((gate.ask(LLAMA, &key).await, gate.ask(GEMMA, &key).await), (200, 403));
    let (status, all) = gate.admin("GET", "/keys", Value::Null).await;
    assert_eq!(
        (status, &all["keys"][0]["name"], &all["keys"][0]["labels"]["team"]),
        (200, &json!("app"), &json!("search"))
    );
    assert!(!all.to_string().contains(&key), "{all}");
    let (status, _) = gate.admin("PATCH", "/keys/app", json!({"models": [], "requests_per_minute": 1})).await;
    assert_eq!((status, gate.ask(GEMMA, &key).await, gate.ask(GEMMA, &key).await), (200, 200, 429));
    gate.admin("PATCH", "/keys/app", json!({"requests_per_minute": 0})).await;
    assert_eq!(gate.ask(GEMMA, &key).await, 200);
    let (status, rotated) = gate.admin("POST", "/keys/app/rotate", json!({"grace": "1h"})).await;
    let next = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((status, gate.ask(LLAMA, &key).await, gate.ask(LLAMA, &next).await), (200, 200, 200));
    let (_, rotated) = gate.admin("POST", "/keys/app/rotate", json!({"grace": "0s"})).await;
    let last = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((gate.ask(LLAMA, &next).await, gate.ask(LLAMA, &last).await), (401, 200));
    assert_eq!(gate.admin("DELETE", "/keys/app", Value::Null).await.0, 200);
    // On the connections that were kept, in every worker.
    for _ in 0..20 {
        assert_eq!(gate.ask(LLAMA, &last).await, 401);
    }
    assert_eq!(gate.ask(LLAMA, "anything").await, 401, "revoking the last key locks the gate");
    for (method, path, body, status) in [
        ("POST", "/keys", json!({"name": ""}), 400),
        ("POST", "/keys", json!({"name": "x", "colour": "red"}), 400),
        ("POST", "/keys", json!([]), 400),
        ("DELETE", "/keys/nobody", Value::Null, 404),
        ("PATCH", "/keys/app", json!({"owner": "x"}), 404),
        ("POST", "/keys/app/rotate", json!({"grace": "soon"}), 400),
    ] {
        let (got, said) = gate.admin(method, path, body.clone()).await;
        assert!(got == status && said["error"].is_string(), "{method} {path} {body}: {got} {said}");
    }
}

#[tokio::test]
async fn what_the_command_makes_and_revokes_counts_within_a_second_or_so() {
    let gate = Keyed::start(|_| {});
    let (code, said) = gate.keys(&["new", "app", "--json", "--label", "team=search", "--expires", "1h"]);
    assert_eq!(code, 0, "{said}");
    let made: Value = serde_json::from_str(&said).unwrap();
    let key = made["key"].as_str().unwrap();
    gate.until("anything", 401).await;
    gate.until(key, 200).await;
    let (_, listed) = gate.keys(&["list"]);
    assert!(listed.contains("app") && listed.contains("team=search") && listed.contains("until "), "{listed}");
    assert_eq!(gate.keys(&["new", "app"]).0, 2, "a name is one key's");
    assert_eq!(gate.keys(&["revoke", "nobody"]).0, 2);
    assert_eq!(gate.keys(&["revoke", "app"]).0, 0);
    let within = gate.until(key, 401).await;
    println!("revoked within {within:?}");
    let (_, expired) = gate.keys(&["new", "old", "--json", "--expires", "2020-01-01T00:00:00Z"]);
    let expired: Value = serde_json::from_str(&expired).unwrap();
    assert_eq!(gate.ask(LLAMA, expired["key"].as_str().unwrap()).await, 401);
    let (code, lines) = gate.keys(&["new", "mine", "--for-config"]);
    assert!(code == 0 && lines.contains("[[keys]]") && lines.contains("sha256"), "{lines}");
}

#[tokio::test]
async fn budgets_are_split_by_a_keys_labels() {
    let gate = Keyed::start(|config| {
        let text = "[[budgets]]\nname = \"teams\"\nlimit = \"1000 neurons\"\nsplit_by = [\"label.team\", \"model\"]\n";
        config.budgets = Config::parse(text, "t").unwrap().budgets;
    });
    let mut keys = Vec::new();
    for (name, team) in [("a", "search"), ("b", "search"), ("c", "ads")] {
        keys.push(gate.make(json!({"name": name, "labels": {"team": team}})).await);
    }
    for key in &keys {
        assert_eq!(gate.ask(LLAMA, key).await, 200);
    }
    let (_, told) = gate.admin("GET", "/budgets/teams", Value::Null).await;
    let text = told.to_string();
    assert!(text.contains("search") && text.contains("ads"), "{text}");
    let (_, all) = gate.admin("GET", "/budgets", Value::Null).await;
    let teams = all["budgets"].as_array().unwrap().iter().find(|budget| budget["name"] == "teams").unwrap();
    assert_eq!(teams["buckets"], 2, "{teams}");
}

#[tokio::test]
async fn keys_survive_a_restart_and_a_gate_that_asked_goes_on_to_ask() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("keys.db");
    let store = tollgate::sidecar::key_store::KeyStore::open(&path).unwrap();
    let key = store.create("app", &Default::default()).unwrap();
    let gate = Keyed::start(|config| config.keys_path = Some(path.clone()));
    assert_eq!((gate.ask(LLAMA, &key).await, gate.ask(LLAMA, "x").await), (200, 401));
    store.revoke("app").unwrap();
    drop(gate);
    let gate = Keyed::start(|config| config.keys_path = Some(path.clone()));
    assert_eq!((gate.ask(LLAMA, &key).await, gate.ask(LLAMA, "x").await), (401, 401));
}
