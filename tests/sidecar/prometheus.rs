//! A real Prometheus before the sidecar: what the dashboards and alerts ask of it, it can answer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollgate::neurons::Neurons;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{Fault, FaultRule, Settings, Trouble, traffic};

use crate::support::{Gate, LLAMA, TOKEN, client, command, config, keep_of_the_past, start_with, tool};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards");
const TOOLS: &str = "TOLLGATE_TEST_PROMETHEUS";

/// What only gates tell that share a store.
const SHARED: [&str; 3] = ["tollgate_store_", "tollgate_replicas", "tollgate_notices_"];

/// Debian's Prometheus on loopback, with the config that users are given; only addresses and intervals are the test's.
struct Prometheus {
    child: Child,
    url: String,
    client: reqwest::Client,
    _place: tempfile::TempDir,
}

// === impl Prometheus ===

impl Prometheus {
    async fn start(tools: &str, admin: std::net::SocketAddr) -> Self {
        // A port that is free now may be taken a moment later.
        for _ in 0..5 {
            let place = tempfile::tempdir().unwrap();
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            configure(place.path(), admin);
            let child = Command::new(Path::new(tools).join("prometheus"))
                .arg(format!("--web.listen-address={port}"))
                .arg(format!("--storage.tsdb.path={}", place.path().join("data").display()))
                .arg(format!("--config.file={}", place.path().join("prometheus.yml").display()))
                .arg("--log.level=error")
                .current_dir(place.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut this = Self { child, url: format!("http://{port}"), client: client(), _place: place };
            if this.is_ready().await {
                return this;
            }
        }
        panic!("Prometheus does not start");
    }

    async fn is_ready(&mut self) -> bool {
        for _ in 0..600 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let asked = self.client.get(format!("{}/-/ready", self.url)).send().await;
            if asked.is_ok_and(|reply| reply.status() == 200) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    async fn get(&self, path: &str) -> Value {
        let reply: Value = self.client.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap();
        assert_eq!(reply["status"], "success", "{path}: {reply}");
        reply["data"].clone()
    }

    /// The series of an expression, at a moment or now.
    async fn query(&self, expression: &str, at: Option<f64>) -> Vec<Value> {
        let at = at.map_or(String::new(), |at| format!("&time={at}"));
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.get(&format!("/api/v1/query?query={expression}{at}")).await;
        data["result"].as_array().unwrap().clone()
    }

    /// The one value of an expression; zero where it has none.
    async fn value(&self, expression: &str, at: Option<f64>) -> f64 {
        let series = self.query(expression, at).await;
        assert!(series.len() <= 1, "{expression} has {} series", series.len());
        series.first().map_or(0.0, figure)
    }

    async fn has_data(&self, expression: &str) -> bool {
        self.query(expression, None).await.iter().any(|series| !figure(series).is_nan())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(place: &Path, admin: std::net::SocketAddr) {
    let config = std::fs::read_to_string(format!("{HERE}/prometheus/prometheus.yml")).unwrap();
    let own = config.replace("127.0.0.1:9787", &admin.to_string()).replace("15s", "1s");
    assert!(own.contains(&admin.to_string()) && own.contains("scrape_interval: 1s"), "{own}");
    std::fs::write(place.join("prometheus.yml"), own).unwrap();
    std::fs::copy(format!("{HERE}/prometheus/rules.yml"), place.join("rules.yml")).unwrap();
}

fn figure(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

/// Every expression of every panel, by where it stands, with Grafana's variables filled in.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(format!("{HERE}/grafana/dashboards")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let dashboard: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{}: {}", dashboard["title"].as_str().unwrap(), panel["title"].as_str().unwrap());
                found.push((place, filled_in(target["expr"].as_str().unwrap())));
            }
        }
    }
    assert!(found.len() > 40, "{} expressions", found.len());
    found
}

fn filled_in(expression: &str) -> String {
    let variables = [("$model", ".*"), ("$instance", ".*"), ("$__rate_interval", "1m"), ("$__range", "1d")];
    // Subqueries are asked at whole steps of the clock: at shorter ones, the test need not wait for a minute to be over.
    let variables = variables.into_iter().chain([(":1m]", ":5s]")]);
    let filled = variables.fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!filled.contains('$'), "an unknown variable in {expression}");
    filled
}

fn expression_of(dashboard: &str, panel: &str) -> String {
    let place = format!("Tollgate: {dashboard}: {panel}");
    panels().into_iter().find(|(at, _)| *at == place).unwrap_or_else(|| panic!("no panel {place}")).1
}

/// An alert's expression up to its threshold: the first comparison that is in no parentheses, braces or quotes.
fn without_threshold(expression: &str) -> &str {
    let (mut depth, mut is_quoted) = (0, false);
    for (at, letter) in expression.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            '<' | '>' | '=' | '!' if depth == 0 => return expression[..at].trim_end(),
            _ => {}
        }
    }
    panic!("{expression} has no threshold");
}

/// Without what stands for "nothing of the kind has happened yet": each ` or vector(…)`.
fn without_quiet(expression: &str) -> String {
    let mut parts = expression.split(" or vector(");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |bare, rest| {
        let mut depth = 1;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth == 0
        });
        bare + &rest[end.unwrap() + 1..]
    })
}

/// A sidecar with narrow limits and budgets, records, and a vendor that is not always well.
fn gate(records: &Path) -> Gate {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (0.05, false);
    settings.elsewhere = 0.2;
    // A model that is to go, some day.
    settings.models = serde_json::from_value(json!({LLAMA: {"deprecated": "2099-01-01"}})).unwrap();
    let vendor = tollgate::simulator::start(settings).unwrap();
    let trouble = [
        (3040, 0.3, "@cf/meta/llama-3.1-8b-instruct-fp8-fast"),
        (3021, 0.2, "@cf/baai/bge-m3"),
        (500, 0.6, "@cf/deepgram/aura-1"),
    ];
    for (code, share, model) in trouble {
        vendor.fault(FaultRule::share(Fault::new(Trouble::Error(code)), share).on(model));
    }
    let mut config = config(&vendor.base_url());
    config.account.analytics = true;
    (config.account.analytics_every, config.account.analytics_lag) = (Duration::from_secs(1), Duration::from_secs(2));
    config.catalogue.refresh = Duration::from_secs(3600);
    let own = Config::parse(CONFIG, "test").unwrap();
    (config.retry, config.budgets, config.webhooks) = (own.retry, own.budgets, own.webhooks);
    (config.otel, config.cache, config.replicas) = (own.otel, own.cache, own.replicas);
    config.limits.max_wait = own.limits.max_wait;
    config.limits.models.extend(own.limits.models);
    config.records.path = Some(records.to_owned());
    let (sidecar, receipts) = start_with(config, &vec![("CLOUDFLARE_API_TOKEN".into(), TOKEN.into())]);
    Gate { vendor, sidecar, receipts, client: client() }
}

const CONFIG: &str = "
    [retry]
    max_attempts = 2
    delay = '10ms'
    [limits]
    max_wait = '200ms'
    [limits.models.'@cf/meta/llama-3.2-1b-instruct']
    requests = 4
    per = '1s'
    [[budgets]]
    name = 'everyone'
    limit = '1000000 neurons'
    [[budgets]]
    name = 'tight'
    limit = '20 neurons'
    models = ['@cf/qwen/qwen3-30b-a3b-fp8']
    [replicas]
    secret = 'what gates of this test know'
    [cache]
    shared = true
    store = 'redis://127.0.0.1:9'
    [otel]
    endpoint = 'http://127.0.0.1:9'
    [[webhooks]]
    url = 'http://127.0.0.1:9/nobody-is-there'
";

/// The demo's clients, until they are told to stop.
struct Traffic {
    stop: CancellationToken,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn start(gate: &Gate) -> Self {
        let stop = CancellationToken::new();
        let run = |number| tokio::spawn(traffic::run(client(), gate.url(""), number, stop.clone()));
        let impatient = tokio::spawn(impatient(gate.url(&format!("/run/{LLAMA}")), stop.clone()));
        Self { clients: (0..traffic::CLIENTS).map(run).chain([impatient]).collect(), stop }
    }

    async fn end(self) {
        self.stop.cancel();
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

/// Clients whose own deadline ends in the queue.
async fn impatient(url: String, stop: CancellationToken) {
    for n in 0u64.. {
        if stop.is_cancelled() {
            return;
        }
        let call = |part| {
            let body = json!({"prompt": format!("soon {n} {part}"), "max_tokens": 1});
            client().post(&url).header("cf-aig-request-timeout", "50").json(&body).send()
        };
        futures_util::future::join_all((0..6).map(call)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sums of a family on the sidecar's own page.
fn sum(metrics: &str, family: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(family));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..240 {
        match look().await {
            Ok(found) => return found,
            Err(why) => last = why,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{what}: {last}");
}

/// Every query gives data: of the panels, and of the alerts without their thresholds.
async fn everything_has_data(prometheus: &Prometheus, queries: &[(String, String)]) -> Result<(), String> {
    let mut silent = Vec::new();
    for (place, expression) in queries {
        if !prometheus.has_data(&without_quiet(expression)).await {
            silent.push(format!("{place}\n    {expression}"));
        }
    }
    if silent.is_empty() { Ok(()) } else { Err(format!("no data for\n{}", silent.join("\n"))) }
}

async fn rules(prometheus: &Prometheus) -> Vec<Value> {
    let data = prometheus.get("/api/v1/rules").await;
    let groups = data["groups"].as_array().unwrap().clone();
    groups.into_iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// `tollgate usage --json` of this gate's time: calls, neurons, USD and neurons saved, in all.
fn usage(records: &Path, by: &str) -> Vec<Value> {
    let output = command()
        .args(["usage", "--json", "--since", "12h", "--by", by])
        .env("TOLLGATE_RECORDS_PATH", records)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn total(rows: &[Value], field: &str) -> f64 {
    rows.iter().map(|row| row[field].as_f64().unwrap()).sum()
}

#[track_caller]
fn assert_near(what: &str, shown: f64, recorded: f64) {
    println!("{what}: {shown} on the dashboard, {recorded} in the records");
    assert!(recorded > 0.0, "{what}: nothing is recorded");
    assert!((shown / recorded - 1.0).abs() < 0.001, "{what}: {shown} on the dashboard, {recorded} in the records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_alert_has_data_and_the_costs_are_those_of_the_records() {
    let Some(tools) = tool(TOOLS, "the dashboards on a real Prometheus") else { return };
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("records.db");
    // A month is foreseen by three days and more.
    keep_of_the_past(&records, LLAMA, (1..=5).map(|day| (day, Neurons::from_whole(day))));
    let gate = Arc::new(gate(&records));
    let prometheus = Prometheus::start(&tools, gate.sidecar.admin()).await;
    until("the first scrape", async || {
        let seen = prometheus.query("tollgate_build_info", None).await;
        if seen.is_empty() { Err("nothing is scraped".to_owned()) } else { Ok(()) }
    })
    .await;

    let traffic = Traffic::start(&gate);
    let rules = until("the rules are evaluated", async || {
        let rules = rules(&prometheus).await;
        let ill: Vec<_> = rules.iter().filter(|rule| rule["health"] != "ok").cloned().collect();
        if ill.is_empty() && !rules.is_empty() { Ok(rules) } else { Err(format!("{ill:?}")) }
    })
    .await;
    let mut queries = panels();
    // This gate has no certificate: `rules_test.yml` alone tries that rule.
    let rules: Vec<_> = rules.into_iter().filter(|rule| rule["name"] != "TollgateCertificateEnds").collect();
    for rule in &rules {
        let query = rule["query"].as_str().unwrap();
        // A rule that records has no threshold.
        let bare = if rule["type"] == "alerting" { without_threshold(query) } else { query };
        queries.push((format!("rule {}", rule["name"].as_str().unwrap()), bare.to_owned()));
    }
    // This gate shares with no other: `replica_notices` looks that one that does tells all that they name.
    queries.retain(|(_, query)| !SHARED.iter().any(|family| query.contains(family)));
    println!("{} queries, {} of them rules", queries.len(), rules.len());
    until("every query", async || everything_has_data(&prometheus, &queries).await).await;
    for variable in ["model", "instance"] {
        let values = prometheus.get(&format!("/api/v1/label/{variable}/values")).await;
        assert!(!values.as_array().unwrap().is_empty(), "the variable {variable} has no values");
    }
    traffic.end().await;

    let metrics = until("the last call", async || {
        let metrics = gate.metrics().await;
        let open = sum(&metrics, "tollgate_in_flight_requests");
        if open == 0.0 { Ok(metrics) } else { Err(format!("{open} calls are in flight")) }
    })
    .await;
    promtool(&tools, &["check", "metrics"], Some(&metrics));
    let calls = sum(&metrics, "tollgate_requests_total");
    let days = until("the records", async || {
        let days = usage(&records, "day");
        let kept = total(&days, "calls");
        if kept == calls { Ok(days) } else { Err(format!("{kept} of {calls} calls are recorded")) }
    })
    .await;
    // Asked at the moment of a scrape, so that nothing is extrapolated beyond it.
    let at = until("the last scrape", async || {
        let seen = prometheus.value("sum(tollgate_requests_total)", None).await;
        let at = prometheus.value("max(timestamp(tollgate_build_info))", None).await;
        let then = prometheus.value("sum(tollgate_requests_total)", Some(at)).await;
        if seen == calls && then == calls { Ok(at) } else { Err(format!("{seen} of {calls} calls are scraped")) }
    })
    .await;

    for (panel, field) in [("Neurons today", "neurons"), ("USD today", "usd"), ("Saved today", "saved_neurons")] {
        let shown = prometheus.value(&expression_of("Cost", panel), Some(at)).await;
        assert_near(panel, shown, total(&days, field));
    }
    let by_kind = prometheus.query(&expression_of("Cost", "Neurons today by kind"), Some(at)).await;
    assert_near("Neurons today by kind", by_kind.iter().map(figure).sum(), total(&days, "neurons"));
    let by_model = prometheus.query(&expression_of("Cost", "Neurons today by model"), Some(at)).await;
    for row in usage(&records, "model").iter().filter(|row| row["neurons"].as_f64().unwrap() > 0.0) {
        let shown = by_model.iter().find(|series| series["metric"]["model"] == row["model"]);
        let shown = shown.unwrap_or_else(|| panic!("{} is not on the dashboard", row["model"]));
        assert_near(row["model"].as_str().unwrap(), figure(shown), row["neurons"].as_f64().unwrap());
    }
}

/// Every query as it is, once a gate has been scraped for a while.
async fn nothing_is_silent(gate: &Gate, tools: &str, traffic: impl AsyncFnOnce(&Gate)) {
    let prometheus = Prometheus::start(tools, gate.sidecar.admin()).await;
    traffic(gate).await;
    let rules = until("the rules are evaluated on two scrapes", async || {
        let rules = rules(&prometheus).await;
        let scrapes = prometheus.value("max(count_over_time(tollgate_build_info[1h]))", None).await;
        let is_ready = scrapes >= 5.0 && !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
        if is_ready { Ok(rules) } else { Err(format!("{scrapes} scrapes")) }
    })
    .await;
    let mut silent = Vec::new();
    for (place, expression) in panels() {
        if !prometheus.has_data(&expression).await && !says_none(&place) {
            silent.push(format!("{place}\n    {expression}"));
        }
    }
    for rule in rules.iter().filter(|rule| rule["type"] == "alerting") {
        let query = without_threshold(rule["query"].as_str().unwrap());
        if !prometheus.has_data(query).await {
            silent.push(format!("rule {}\n    {query}", rule["name"]));
        }
    }
    assert!(silent.is_empty(), "no data for\n{}", silent.join("\n"));
    assert_eq!(prometheus.value(&expression_of("Traffic", "Failed"), None).await, 0.0, "the error rate");
    let firing: Vec<_> = rules.iter().filter(|rule| rule["state"] == "firing").map(|rule| &rule["name"]).collect();
    assert!(firing.is_empty(), "{firing:?}");
}

/// The panel says in words that there is none, where a figure would be wrong.
fn says_none(place: &str) -> bool {
    ["Tollgate: Cost: Days until models go", "Tollgate: Limits: Permits left"].contains(&place)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_is_told_as_quiet_by_a_gate_without_traffic_and_by_one_that_is_well() {
    let Some(tools) = tool(TOOLS, "quiet dashboards on a real Prometheus") else { return };
    nothing_is_silent(&Gate::start(), &tools, async |_: &Gate| {}).await;
    nothing_is_silent(&Gate::start(), &tools, async |gate: &Gate| {
        for n in 0..40 {
            let body = json!({"prompt": format!("question {n}"), "max_tokens": 8});
            let reply =
                gate.client.post(gate.url(&format!("/run/{LLAMA}"))).bearer_auth(TOKEN).json(&body).send().await;
            assert_eq!(reply.unwrap().status(), 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Runs promtool, and fails with its words.
fn promtool(tools: &str, arguments: &[&str], input: Option<&str>) {
    let mut command = Command::new(Path::new(tools).join("promtool"));
    command.args(arguments).current_dir(format!("{HERE}/prometheus"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.unwrap_or_default().to_owned();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_config_and_the_rules() {
    let Some(tools) = tool(TOOLS, "promtool on the rules") else { return };
    promtool(&tools, &["check", "config", "prometheus.yml", "compose.yml"], None);
    promtool(&tools, &["check", "rules", "rules.yml"], None);
    promtool(&tools, &["test", "rules", "rules_test.yml"], None);
}
