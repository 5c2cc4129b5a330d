//! The gate and the simulator on real sockets, and clients for them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tollgate::catalogue::{Catalogue, Task};
use tollgate::neurons::Neurons;
use tollgate::readers::records::{self, Records};
use tollgate::receipt::{CallId, Facts, Outcome, Reader, Receipt};
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::{BaseUrl, Config, Host, Variables};
use tollgate::simulator::{self, Running};

pub const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";
pub const GEMMA: &str = "@cf/google/gemma-4-26b-a4b-it";
pub const TOKEN: &str = "t0ken-that-nobody-may-see";

/// Keeps every sealed receipt.
#[derive(Clone, Default)]
pub struct Receipts(Arc<Mutex<Vec<Facts>>>);

impl Reader for Receipts {
    fn sealed(&self, receipt: &Facts) {
        self.0.lock().unwrap().push(receipt.clone());
    }
}

impl Receipts {
    pub fn all(&self) -> Vec<Facts> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until so many calls are over.
    pub async fn after(&self, calls: usize) -> Vec<Facts> {
        for _ in 0..3000 {
            if self.all().len() >= calls {
                return self.all();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} of {calls} calls were over after 15 s", self.all().len());
    }
}

/// A sidecar before a simulator.
pub struct Gate {
    pub vendor: Running,
    pub sidecar: Sidecar,
    pub receipts: Receipts,
    pub client: reqwest::Client,
}

/// A simulator that answers at once and limits nobody.
pub fn vendor() -> Running {
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    simulator::start(settings).unwrap()
}

/// One attempt a call and no rate limits: a test that is about them asks for them.
fn unlimited() -> String {
    let mut text = String::from("[retry]\nmax_attempts = 1\n");
    for model in tollgate::catalogue::Catalogue::default().models() {
        text += &format!("[limits.models.{:?}]\nrequests = 10000000\n", model.id);
    }
    text
}

pub fn config(upstream: &str) -> Config {
    let mut config = Config::parse(&unlimited(), "test").unwrap();
    config.listen = ([127, 0, 0, 1], 0).into();
    config.admin = ([127, 0, 0, 1], 0).into();
    config.workers = 2;
    config.upstream.base_url = Some(BaseUrl::try_from(upstream.to_owned()).unwrap());
    config.upstream.account_id = Some("acc".into());
    // What tests that write their requests byte by byte call it.
    config.allowed_hosts = vec![Host::try_from("x".to_owned()).unwrap()];
    config
}

pub fn start(config: Config) -> (Sidecar, Receipts) {
    start_with(config, &Variables::new())
}

pub fn start_with(config: Config, variables: &Variables) -> (Sidecar, Receipts) {
    let receipts = Receipts::default();
    let sidecar = Sidecar::start(config, variables, vec![Arc::new(receipts.clone())]).unwrap();
    (sidecar, receipts)
}

pub fn client() -> reqwest::Client {
    client_builder().build().unwrap()
}

pub fn client_builder() -> reqwest::ClientBuilder {
    // The second caller finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

impl Gate {
    pub fn start() -> Self {
        Self::with(vendor(), |_| {})
    }

    pub fn with(vendor: Running, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&vendor.base_url());
        change(&mut config);
        let (sidecar, receipts) = start(config);
        Self { vendor, sidecar, receipts, client: client() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sidecar.listen())
    }

    pub fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        ask(&self.client, &self.url(path), body)
    }

    pub async fn run(&self, model: &str, body: &Value) -> reqwest::Response {
        self.post(&format!("/run/{model}"), body).send().await.unwrap()
    }

    /// What the admin port tells of them.
    pub async fn budgets(&self) -> Value {
        let url = format!("http://{}/budgets", self.sidecar.admin());
        serde_json::from_str(&self.client.get(url).send().await.unwrap().text().await.unwrap()).unwrap()
    }

    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.sidecar.admin());
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }
}

pub fn ask(client: &reqwest::Client, url: &str, body: &Value) -> reqwest::RequestBuilder {
    client.post(url).bearer_auth(TOKEN).header("content-type", "application/json").body(body.to_string())
}

/// Records of calls on this model that cost so much: some, so many days ago.
pub fn keep_of_the_past(path: &Path, model: &str, spent: impl IntoIterator<Item = (u64, Neurons)>) {
    let mut settings = records::Settings::default();
    settings.path = path.to_owned();
    let records = Records::open(settings).unwrap();
    let model = Catalogue::default().find(model, Task::TextGeneration);
    for (n, (days_ago, cost)) in spent.into_iter().enumerate() {
        let mut facts = Receipt::open(Arc::new([]), model.clone()).read(Clone::clone);
        facts.received_at = std::time::SystemTime::now() - Duration::from_secs(days_ago * 86_400);
        let ms = facts.received_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        facts.id = CallId::from_bytes((ms << 80 | n as u128).to_be_bytes());
        (facts.outcome, facts.account, facts.cost.neurons) = (Outcome::Ok, "acc".into(), cost);
        records.sealed(&facts);
    }
    records.close();
}

/// The `tollgate` command as a process, with a config of its own.
pub struct Process {
    pub child: Child,
    config: tempfile::NamedTempFile,
    command: Command,
    pub listen: String,
    pub admin: String,
}

pub fn command() -> Command {
    command_under(&[])
}

/// The same, started by another program with its arguments.
pub fn command_under(starter: &[&str]) -> Command {
    let words: Vec<_> = starter.iter().copied().chain([env!("CARGO_BIN_EXE_tollgate")]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(std::env::temp_dir())
        .env("TOLLGATE_RECORDS_PATH", "")
        .env("TOLLGATE_CATALOGUE_PATH", "")
        .env("TOLLGATE_KEYS_PATH", "");
    command
}

impl Process {
    /// `tollgate serve` before this upstream, when it listens.
    pub fn serve(upstream: &str, variables: &[(&str, &str)]) -> Self {
        Self::serve_under(&[], upstream, variables)
    }

    pub fn serve_under(starter: &[&str], upstream: &str, variables: &[(&str, &str)]) -> Self {
        Self::serve_with(starter, Stdio::inherit(), upstream, variables)
    }

    /// The same by a starter that finds a socket as its standard input.
    pub fn serve_on(
        starter: &[&str],
        socket: &std::net::TcpListener,
        upstream: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let socket = std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
        Self::serve_with(starter, socket.into(), upstream, variables)
    }

    fn serve_with(starter: &[&str], stdin: Stdio, upstream: &str, variables: &[(&str, &str)]) -> Self {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut config, unlimited().as_bytes()).unwrap();
        let mut command = command_under(starter);
        command
            .args(["serve", "--upstream", upstream])
            .env("TOLLGATE_CONFIG", config.path())
            .envs([("TOLLGATE_LISTEN", "127.0.0.1:0"), ("TOLLGATE_ADMIN", "127.0.0.1:0")])
            .envs(variables.iter().copied())
            .env("CLOUDFLARE_ACCOUNT_ID", "acc")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (child, listen, admin) = spawn(&mut command);
        Self { child, config, command, listen, admin }
    }

    /// Puts more into its config file, in the place of what was put there before, and has it read.
    pub async fn reload_with(&self, more: &str) -> reqwest::Response {
        std::fs::write(self.config.path(), unlimited() + more).unwrap();
        client().post(format!("{}/reload", self.admin)).send().await.unwrap()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same at the same addresses, once it is dead.
    pub fn start_again(&mut self) {
        let address = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
        self.command.env("TOLLGATE_LISTEN", address(&self.listen)).env("TOLLGATE_ADMIN", address(&self.admin));
        (self.child, self.listen, self.admin) = spawn(&mut self.command);
    }

    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

/// Where it listens, once it does.
fn spawn(command: &mut Command) -> (Child, String, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let address = |after: &str| {
        let rest = line.split(after).nth(1).unwrap_or_else(|| panic!("no address in {line:?}"));
        rest.split([',', '\n']).next().unwrap().trim().to_owned()
    };
    let (listen, admin) = (address("listening on "), address("admin on "));
    (child, listen, admin)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `tests/all` has put a tool, or a word on what is left out; under `tests/all` leaving out is a failure.
pub fn tool(variable: &str, what: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        assert!(std::env::var_os("TOLLGATE_TEST_ALL").is_none(), "{variable} is not set: {what} would be left out");
        // Not by println!, which is heard only where a test fails.
        let line = format!("left out: {what} (tests/all installs what it needs)\n");
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    }
    found
}

/// A copy of `tests/node` beside the installed packages, for node looks for those next to a script.
pub fn node_place(installed: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(installed.join("node_modules"), place.path().join("node_modules")).unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node")).unwrap() {
        let file = file.unwrap();
        if file.path().is_file() {
            std::fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
        }
    }
    place
}

/// Waits until it is so.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was not so after 30 s");
}

/// Runs a script of `tests/browser` with Debian's Chromium; `false` where that is not here.
pub fn browse(script: &str, arguments: &[&str]) -> bool {
    let Some(modules) = tool("TOLLGATE_TEST_BROWSER_MODULES", script) else { return false };
    let Some(chromium) = tool("TOLLGATE_TEST_CHROMIUM", script) else { return false };
    let Some(node) = tool("TOLLGATE_TEST_NODE", script) else { return false };
    // Modules are looked for beside the script.
    let place = std::path::Path::new(&modules).parent().unwrap().join(script);
    std::fs::copy(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser")).join(script), &place)
        .unwrap();
    let mut node = Command::new(std::path::Path::new(&node).join("node_modules/.bin/node"));
    let output = node.arg(place).args(arguments).arg(chromium).output().expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("done"), "{said}");
    true
}
