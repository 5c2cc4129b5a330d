//! Batches: held when they are queued, charged once when they answer, to who submitted them, over restarts, too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tollgate::layers::budget::{Period, Rule, Split};
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Source};
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::Config;
use tollgate::simulator::Running;

use crate::support::{Gate, LLAMA, Process, Receipts, ask, client, config, start_with, vendor};

const SHAPES: [&str; 8] = ["responses", "results", "completed", "nested", "shuffled", "items", "words", "bare"];

fn path(queue: bool) -> String {
    format!("/run/{LLAMA}{}", if queue { "?queueRequest=true" } else { "" })
}

fn batch(n: usize) -> Value {
    let items: Vec<_> = (0..=n % 3)
        .map(|item| json!({"prompt": format!("Question {n} of {item}"), "max_tokens": 20 + item, "external_reference": "r"}))
        .collect();
    json!({ "requests": items })
}

fn id(ack: &Value) -> String {
    ack["result"]["request_id"].as_str().or(ack["request_id"].as_str()).unwrap().to_owned()
}

fn everyone(limit: u64) -> Rule {
    Rule::new("everyone", Neurons::from_whole(limit), Period::Month)
}

async fn budget(gate: &Gate) -> (f64, f64) {
    let metrics = gate.metrics().await;
    let figure = |family: &str| {
        let line = metrics.lines().find(|line| line.starts_with(family) && line.contains("everyone")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (figure("tollgate_budget_spent_neurons"), figure("tollgate_budget_reserved_neurons"))
}

async fn told(request: reqwest::RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_batch_is_held_when_it_is_queued_and_charged_at_the_first_poll_that_brings_answers() {
    let gate = Gate::with(vendor(), |config| config.budgets.push(everyone(1000)));
    let submit = gate.post(&path(true), &batch(2)).header("x-simulate-batch", "polls=3");
    let id = id(&told(submit).await);
    let (spent, held) = budget(&gate).await;
    assert!(spent == 0.0 && held > 0.0, "{spent} spent, {held} held");
    let poll = |queue: bool| told(gate.post(&path(queue), &json!({ "request_id": id })));
    for early in 0..3 {
        poll(early % 2 == 0).await;
    }
    assert_eq!(budget(&gate).await, (0.0, held));
    let answers = poll(false).await;
    assert_eq!(answers["result"]["responses"].as_array().unwrap().len(), 3);
    let charged = gate.vendor.spent("acc");
    for _ in 0..3 {
        poll(true).await;
    }
    let receipts = gate.receipts.after(8).await;
    let (spent, held) = budget(&gate).await;
    assert!((spent - charged.as_f64()).abs() < 1e-6 && held == 0.0, "{spent} spent of {charged}, {held} held");
    let costs: Vec<Neurons> = receipts.iter().map(|facts| facts.cost.neurons).collect();
    assert_eq!(costs.iter().filter(|cost| !cost.is_zero()).collect::<Vec<_>>(), [&charged], "{costs:?}");
    assert_eq!(costs[4], charged);
}

#[tokio::test]
async fn what_only_looks_like_a_poll_is_a_call_and_a_stranger_s_batch_is_charged_to_who_fetches_it() {
    let gate = Gate::with(vendor(), |config| config.budgets.push(everyone(1000)));
    told(gate.post(&path(false), &json!({"request_id": "never heard of", "prompt": "Hi"}))).await;
    let called = gate.receipts.after(1).await.remove(0);
    assert!(!called.cost.neurons.is_zero(), "a prompt is answered");
    // Queued around the gate.
    let direct = format!("{}/client/v4/accounts/acc/ai/run/{LLAMA}?queueRequest=true", gate.vendor.base_url());
    let id = id(&told(ask(&gate.client, &direct, &batch(1))).await);
    for _ in 0..2 {
        told(gate.post(&path(true), &json!({ "request_id": id }))).await;
    }
    let receipts = gate.receipts.after(3).await;
    let ours: u64 = receipts.iter().map(|facts| facts.cost.neurons.micro()).sum();
    assert_eq!(ours, gate.vendor.spent("acc").micro());
    assert_eq!(budget(&gate).await.0, Neurons::from_micro(ours).as_f64());
}

#[tokio::test]
async fn a_submit_is_not_sent_twice_and_where_it_was_lost_what_it_may_have_cost_is_charged() {
    for trouble in ["reset", "500", "3007", "3008", "502"] {
        let gate = Gate::with(vendor(), |config| {
            config.budgets.push(everyone(1000));
            config.retry.max_attempts = std::num::NonZeroU32::new(4).unwrap();
            config.retry.delay = std::time::Duration::ZERO;
        });
        gate.post(&path(true), &batch(2)).header("x-simulate", trouble).send().await.unwrap();
        assert_eq!(gate.vendor.seen().len(), 1, "{trouble}");
        let facts = gate.receipts.after(1).await.remove(0);
        assert_eq!(facts.attempts.len(), 1, "{trouble}");
        assert_eq!(budget(&gate).await.1, 0.0, "nothing is held on: {trouble}");
    }
    // What was surely refused is sent again.
    let gate = Gate::with(vendor(), |config| {
        config.retry.max_attempts = std::num::NonZeroU32::new(2).unwrap();
        config.retry.delay = std::time::Duration::ZERO;
    });
    gate.post(&path(true), &batch(2)).header("x-simulate", "3021").send().await.unwrap();
    assert_eq!(gate.vendor.seen().len(), 2);
}

#[tokio::test]
async fn what_never_answers_is_released_after_its_time() {
    let gate = Gate::with(vendor(), |config| {
        config.budgets.push(everyone(1000));
        config.reservations.release_batches = std::time::Duration::from_secs(1);
    });
    let late = id(&told(gate.post(&path(true), &batch(0))).await);
    assert!(budget(&gate).await.1 > 0.0);
    for _ in 0..600 {
        if budget(&gate).await.1 == 0.0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(budget(&gate).await, (0.0, 0.0));
    assert!(gate.metrics().await.contains("tollgate_batches_released 1\n"));
    told(gate.post(&path(true), &json!({ "request_id": late }))).await;
    gate.receipts.after(2).await;
    assert_eq!(budget(&gate).await.0, gate.vendor.spent("acc").as_f64(), "answers that come all the same are paid");
}

const TEAMS: usize = 4;

/// A gate with a key and a budget for each team, on the database of the one before.
fn gate(vendor: &Running, place: &Path) -> (Sidecar, Receipts) {
    let mut config: Config = config(&vendor.base_url());
    config.records.path = Some(place.join("tollgate.db"));
    config.keys = (0..TEAMS).map(|team| Key::new(format!("team-{team}"), sha256(&secret(team)))).collect();
    let mut rule = everyone(1_000_000);
    rule.split_by = vec![Split::Key];
    config.budgets.push(rule);
    start_with(config, &vec![("CLOUDFLARE_API_TOKEN".into(), "the-gates".into())])
}

fn secret(team: usize) -> String {
    format!("secret-of-team-{team}")
}

async fn send(sidecar: &Sidecar, path: &str, team: usize, body: &Value, telling: &str) -> Value {
    let url = format!("http://{}{path}", sidecar.listen());
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let client = CLIENT.get_or_init(client);
    let request = client.post(url).bearer_auth(secret(team)).header("content-type", "application/json");
    told(request.header("x-simulate-batch", telling).body(body.to_string())).await
}

/// All batches are polled by this team, many at once.
async fn poll_all(sidecar: &Sidecar, ids: &[String], team: usize) -> Vec<Value> {
    let mut replies = Vec::new();
    for some in ids.chunks(20) {
        let polls = some.iter().map(|id| async move {
            send(sidecar, &path(team.is_multiple_of(2)), team, &json!({ "request_id": id }), "polls=0").await
        });
        replies.extend(futures_util::future::join_all(polls).await);
    }
    replies
}

#[tokio::test]
async fn a_thousand_batches_in_all_shapes_polled_by_several_over_restarts_are_each_charged_once_to_who_submitted_them()
{
    let (vendor, place) = (vendor(), tempfile::tempdir().unwrap());
    let count = 1000;
    let (mut charged, mut by_key) = (0, HashMap::<String, u64>::new());
    let mut tally = |receipts: &[Facts]| {
        for facts in receipts.iter().filter(|facts| facts.cost.source != Source::None) {
            charged += 1;
            *by_key.entry(facts.key.as_deref().unwrap_or("").to_owned()).or_default() += facts.cost.neurons.micro();
        }
    };
    let (sidecar, receipts) = gate(&vendor, place.path());
    let (mut ids, mut owed) = (Vec::new(), HashMap::<String, u64>::new());
    for n in 0..count {
        let (team, before) = (n % TEAMS, vendor.spent("acc"));
        let telling = format!("polls={};shape={}", n % 3, SHAPES[n / 3 % SHAPES.len()]);
        ids.push(id(&send(&sidecar, &path(true), team, &batch(n), &telling).await));
        *owed.entry(format!("team-{team}")).or_default() += vendor.spent("acc").micro() - before.micro();
    }
    // A third answers at the first poll. Then the gate is stopped, and the others are fetched by its successors.
    poll_all(&sidecar, &ids, 1).await;
    tally(&receipts.after(2 * count).await);
    sidecar.join().unwrap();
    for _ in 0..2 {
        let (sidecar, receipts) = gate(&vendor, place.path());
        let polls = [poll_all(&sidecar, &ids, 0), poll_all(&sidecar, &ids, 2), poll_all(&sidecar, &ids, 3)];
        let replies = futures_util::future::join_all(polls).await;
        assert!(replies.iter().all(|replies| replies.len() == count));
        tally(&receipts.after(3 * count).await);
        let page =
            client().get(format!("http://{}/metrics", sidecar.admin())).send().await.unwrap().text().await.unwrap();
        assert!(page.contains("tollgate_batches_waiting 0\n"));
        let sum = |family: &str| -> f64 {
            let lines = page.lines().filter(|line| line.starts_with(family) && line.contains("everyone"));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        assert_eq!(sum("tollgate_budget_reserved_neurons"), 0.0, "nothing is held any more");
        let spent = sum("tollgate_budget_spent_neurons");
        assert!((spent - vendor.spent("acc").as_f64()).abs() < 1e-3, "{spent} of {}", vendor.spent("acc"));
        sidecar.join().unwrap();
    }
    assert_eq!(charged, count, "each is charged once");
    assert_eq!(by_key, owed, "to who submitted it");
}

#[tokio::test]
async fn a_batch_whose_submit_was_answered_is_its_submitters_also_after_a_kill() {
    let (vendor, place) = (vendor(), tempfile::tempdir().unwrap());
    let path = place.path().join("tollgate.db");
    let key = |team: usize| format!("{{name = \"team-{team}\", sha256 = \"{}\"}}", sha256(&secret(team)));
    let keys = format!("[{}, {}]", key(0), key(1));
    let variables = [("TOLLGATE_RECORDS_PATH", path.to_str().unwrap()), ("TOLLGATE_KEYS", &*keys)];
    let variables = [&variables[..], &[("CLOUDFLARE_API_TOKEN", "the-gates")]].concat();
    let mut process = Process::serve(&vendor.base_url(), &variables);
    let send = async |listen: &str, team: usize, queue: bool, body: Value| {
        let request = client().post(format!("{listen}{}", self::path(queue))).bearer_auth(secret(team));
        let request = request.header("content-type", "application/json").header("x-simulate-batch", "polls=0");
        told(request.body(body.to_string())).await
    };
    for kill in 1..=5 {
        let id = id(&send(&process.listen, 0, true, batch(kill)).await);
        process.kill();
        process.start_again();
        send(&process.listen, 1, false, json!({ "request_id": id })).await;
        let spent = vendor.spent("acc");
        let mut charged = Neurons::ZERO;
        for _ in 0..100 {
            let logs = told(client().get(format!("{}/logs?key=team-0&per_page=50", process.admin))).await;
            let of = |log: &Value| Neurons::from_f64(log["neurons"].as_f64().unwrap_or_default());
            charged = logs["result"].as_array().unwrap().iter().map(of).sum();
            if charged >= spent {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(charged, spent, "after {kill} kills");
    }
}
