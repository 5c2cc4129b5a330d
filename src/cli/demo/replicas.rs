//! `tollgate demo --replicas N`: several gates as processes of their own, which share a limit and a budget through a Valkey or a Redis
//! that is found on this machine, and of which one is killed on the way.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ACCOUNT, ScratchDir, show};
use crate::cli::{Failure, print};
use crate::simulator::{self, Running};

/// The vendor holds it to 300 requests a minute.
const LIMITED: &str = "@cf/meta/llama-3.2-1b-instruct";
const LIMIT: usize = 300;
const WINDOW: Duration = Duration::from_secs(60);
/// A budget holds it, which has an account of its own here, so that the vendor's sum tells what was spent of the budget.
const BUDGETED: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";
const PAYS: &str = "5d0c8f9e6a6b4f3f9a51f0a3b7c2d1e4";
const BUDGET_NEURONS: f64 = 60.0;
/// What a call to the budgeted model may write.
const MAX_TOKENS: u32 = 120;
/// Of ten clients so many ask the first gate, and the others in turn.
const AT_THE_FIRST: usize = 6;
const CLIENTS: usize = 10;
/// Names under which Debian, Homebrew and others install it.
const SERVERS: [&str; 2] = ["valkey-server", "redis-server"];
/// One gate is killed after so long, or halfway.
const KILLED_AFTER: Duration = Duration::from_secs(20);

/// A process that ends with the demo.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the clients saw.
#[derive(Default)]
struct ClientCounts {
    limited: Mutex<Vec<Instant>>,
    budgeted: AtomicUsize,
    refused_by_limit: AtomicUsize,
    refused_by_budget: AtomicUsize,
    failed: AtomicUsize,
    moved: AtomicUsize,
}

/// Where the gates are, and which of them has been killed.
struct Fleet {
    gates: Vec<String>,
    killed: AtomicUsize,
}

/// Runs it to its end.
pub(super) fn run(replicas: usize, lasts: Option<Duration>) -> Result<(), Failure> {
    if !(2..=16).contains(&replicas) {
        return Err(Failure::Usage("--replicas is to be from 2 to 16".into()));
    }
    let server = found()?;
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let settings = simulator::Settings { latency: 0.0, ..simulator::Settings::default() };
    let vendor = simulator::start(settings).map_err(failed)?;
    let place = ScratchDir::new().map_err(failed)?;
    let (_store, url) = start_store(&server, &place.0).map_err(failed)?;
    let mut processes = Vec::new();
    let mut gates = Vec::new();
    for number in 1..=replicas {
        let (process, listen) = start_gate(&format!("gate-{number}"), &vendor, &url, &place.0)?;
        processes.push(process);
        gates.push(listen);
    }
    print(&format!(
        "A stand-in for Workers AI, {replicas} gates before it, which share through {}, and traffic: nothing leaves this machine.\n\
         {}\nmost clients ask the first gate; the last one is killed on the way\n\n",
        server.display(),
        gates.iter().enumerate().map(|(n, url)| format!("gate-{}   {url}", n + 1)).collect::<Vec<_>>().join("\n"),
    ))?;
    let (seen, fleet) =
        (Arc::new(ClientCounts::default()), Arc::new(Fleet { gates, killed: AtomicUsize::new(usize::MAX) }));
    let kill = || {
        fleet.killed.store(replicas - 1, Ordering::Release);
        drop(processes.pop());
    };
    drive(&seen, &fleet, lasts, kill).map_err(failed)?;
    print(&told(&seen, &vendor))
}

fn told(seen: &ClientCounts, vendor: &Running) -> String {
    let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (spent, refused) = (vendor.spent(PAYS).as_f64(), vendor.counts().rate_limited);
    let limited = seen.limited.lock().clone();
    let (most, all) = (most_in_a_window(&limited), limited.len());
    let over = (spent - BUDGET_NEURONS).max(0.0);
    format!(
        "limit       {LIMIT} a minute: {most} used in the fullest minute, of {all} in all; {} refused by the gates\n\
         budget      {BUDGET_NEURONS} neurons: {spent:.3} spent in {} calls; {} refused by the gates\n\
         429s        {refused} from upstream\n\
         overspent   {over} neurons\n\
         killed      1 gate; {} calls of its clients went to another, {} failed\n",
        load(&seen.refused_by_limit),
        load(&seen.budgeted),
        load(&seen.refused_by_budget),
        load(&seen.moved),
        load(&seen.failed),
    )
}

fn most_in_a_window(times: &[Instant]) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let within = |first: usize| times[first..].iter().take_while(|at| **at < times[first] + WINDOW).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// Where a Valkey or a Redis is installed.
fn found() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let all = SERVERS.iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
    all.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        Failure::Failed(
            "gates share through a Valkey or a Redis, and neither valkey-server nor redis-server is on the PATH: \
             `apt install valkey-server` or `redis-server` on Debian and Ubuntu, `brew install valkey` on macOS, or see \
             https://valkey.io/download"
                .into(),
        )
    })
}

/// On a socket in the demo's own directory, so that nobody else reaches it.
fn start_store(server: &Path, place: &Path) -> std::io::Result<(Process, String)> {
    let socket = place.join("store");
    let mut command = Command::new(server);
    command
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
        .arg(place)
        .arg("--unixsocket")
        .arg(&socket);
    let process = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return Ok((process, format!("redis+unix://{}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(std::io::Error::other(format!("{} does not answer within 10 s", server.display())))
}

fn start_gate(name: &str, vendor: &Running, store: &str, place: &Path) -> Result<(Process, String), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("{name}: {error}"));
    let records = place.join(format!("{name}.db"));
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nopen = true\nkeys_path = \"\"\nshutdown_timeout = \"2s\"\n\
         [log]\nlevel = \"error\"\n[catalogue]\npath = \"\"\nrefresh = \"0s\"\n\
         [upstream]\nbase_url = {base:?}\naccount_id = {ACCOUNT:?}\naccounts = [{PAYS:?}]\n\
         [records]\npath = {records:?}\n[limits]\nmax_wait = \"2s\"\n\
         [replicas]\nstore = {store:?}\nname = {name:?}\ntimeout = \"2s\"\n\
         [[budgets]]\nname = \"demo\"\nlimit = \"{BUDGET_NEURONS} neurons\"\nwindow = \"day\"\nmodels = [{BUDGETED:?}]\n",
        base = vendor.base_url(),
    );
    let file = place.join(format!("{name}.toml"));
    std::fs::write(&file, text).map_err(failed)?;
    let own = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(own);
    command.arg("serve").arg("--config").arg(&file).current_dir(place);
    // What the demo's caller has set is for a gate of its own.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TOLLGATE_") || variable == "CLOUDFLARE_ACCOUNT_ID" {
            command.env_remove(variable);
        }
    }
    // The simulator takes any.
    command.env("CLOUDFLARE_API_TOKEN", "demo").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().map_err(failed)?);
    let mut line = String::new();
    if let Some(stdout) = process.0.stdout.as_mut() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    let listen = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
    let listen = listen.ok_or_else(|| Failure::Failed(format!("{name} did not start: it said {line:?}")))?;
    Ok((process, listen.to_owned()))
}

fn drive(
    seen: &Arc<ClientCounts>,
    fleet: &Arc<Fleet>,
    lasts: Option<Duration>,
    kill: impl FnOnce(),
) -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stop = CancellationToken::new();
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(crate::upstream::tls());
        let client = client.build().map_err(std::io::Error::other)?;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(ask(client.clone(), number, seen.clone(), fleet.clone(), stop.clone())))
            .collect();
        let ended = watch(seen, lasts, kill).await;
        stop.cancel();
        for client in clients {
            client.await.map_err(std::io::Error::other)?;
        }
        ended
    })
}

async fn watch(seen: &ClientCounts, lasts: Option<Duration>, kill: impl FnOnce()) -> std::io::Result<()> {
    let begun = Instant::now();
    let (mut kill, kill_at) = (Some(kill), lasts.map_or(KILLED_AFTER, |lasts| KILLED_AFTER.min(lasts / 2)));
    let on_screen = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let mut signals = std::pin::pin!(crate::cli::serve::signalled());
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while lasts.is_none_or(|lasts| begun.elapsed() < lasts) {
        tokio::select! {
            stopped = &mut signals => { stopped?; break }
            _ = tick.tick() => {}
        }
        if begun.elapsed() >= kill_at
            && let Some(kill) = kill.take()
        {
            kill();
        }
        if on_screen || begun.elapsed().as_secs().is_multiple_of(5) {
            let (limited, budgeted) = (seen.limited.lock().len(), seen.budgeted.load(Ordering::Relaxed));
            show(on_screen, begun, &format!("{limited} calls under the limit, {budgeted} under the budget"));
        }
    }
    if on_screen {
        eprintln!();
    }
    Ok(())
}

/// One client: it asks one gate, and the next where that one has gone.
async fn ask(
    client: reqwest::Client,
    number: usize,
    seen: Arc<ClientCounts>,
    fleet: Arc<Fleet>,
    stop: CancellationToken,
) {
    let gates = fleet.gates.len();
    let mut gate = if number < AT_THE_FIRST { 0 } else { 1 + number % (gates - 1) };
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let is_limited = !(number + turn).is_multiple_of(4);
        let path = match is_limited {
            true => format!("/run/{LIMITED}"),
            false => format!("/client/v4/accounts/{PAYS}/ai/run/{BUDGETED}"),
        };
        let max_tokens = if is_limited { 8 } else { MAX_TOKENS };
        let body =
            json!({"prompt": format!("Question {number} {turn}: why is the sky blue?"), "max_tokens": max_tokens});
        let request = client.post(format!("{}{path}", fleet.gates[gate])).header("content-type", "application/json");
        // The gates' own token is for their own account.
        let request = if is_limited { request } else { request.bearer_auth("demo") };
        let status = match request.body(body.to_string()).send().await {
            Ok(reply) => {
                let status = reply.status().as_u16();
                reply.bytes().await.ok().map(|_| status)
            }
            Err(_) => None,
        };
        let count = |counter: &AtomicUsize| _ = counter.fetch_add(1, Ordering::Relaxed);
        match (status, is_limited) {
            (Some(200), true) => seen.limited.lock().push(Instant::now()),
            (Some(200), false) => count(&seen.budgeted),
            (Some(429), true) => count(&seen.refused_by_limit),
            (Some(402 | 429), false) => count(&seen.refused_by_budget),
            (None, _) if fleet.killed.load(Ordering::Acquire) == gate => {
                gate = (gate + 1) % gates;
                count(&seen.moved);
            }
            _ => count(&seen.failed),
        }
        let pause = if status == Some(200) { 100 } else { 300 };
        let _ = stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(pause))).await;
    }
}
