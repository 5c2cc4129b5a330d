//! The clients that are tried in depth: each with ten things on the short routes, and then on the vendor's paths, where it sees the
//! vendor's bytes. What a client cannot do is said here; all else its test has to try.

use std::path::Path;
use std::process::Command;

use tollgate::sidecar::config::Config;
use tollgate::simulator::{self, Running};

use crate::support::{Gate, node_place, tool};
use crate::twin::Twin;

pub const THINGS: [&str; 10] = [
    "chat",
    "streams",
    "tools",
    "structured output",
    "embeddings",
    "vision",
    "errors",
    "429",
    "cancel",
    "fifty at once",
];

struct Client {
    name: &'static str,
    /// Its test, from the root of the repository.
    file: &'static str,
    /// What it has no way for, and why.
    without: &'static [(&'static str, &'static str)],
}

const fn all(name: &'static str, file: &'static str) -> Client {
    Client { name, file, without: &[] }
}

const CLIENTS: [Client; 16] = [
    all("openai for Python", "tests/clients/python/openai_client.py"),
    all("openai for Node 5", "tests/node/openai.test.js"),
    all("openai for Node 6", "tests/node/openai.test.js"),
    all("openai for Node 7", "tests/node/openai.test.js"),
    all("LiteLLM", "tests/clients/python/litellm_client.py"),
    all("langchain-openai", "tests/clients/python/langchain_client.py"),
    all("langchain-cloudflare", "tests/clients/python/langchain_cloudflare_client.py"),
    all("pydantic-ai", "tests/clients/python/pydantic_ai_client.py"),
    all("Haystack", "tests/clients/python/haystack_client.py"),
    all("llm", "tests/clients/python/llm_client.py"),
    all("AI SDK, openai-compatible", "tests/node/openai-compatible.test.js"),
    all("agents, createAI", "tests/node/agents.test.js"),
    Client {
        name: "ai-gateway-provider",
        file: "tests/node/ai-gateway.test.js",
        without: &[
            ("embeddings", "it wraps models of language alone: `createAiGateway(model)` takes a LanguageModel"),
            (
                "structured output",
                "it asks for JSON mode, whose content is an object on the vendor's paths: it reads texts",
            ),
        ],
    },
    all("async-openai", "tests/sidecar/async_openai.rs"),
    Client {
        name: "anthropic for Python",
        file: "tests/clients/python/anthropic_client.py",
        without: &[("embeddings", "Anthropic has no embeddings, and its client no method for them")],
    },
    Client {
        name: "anthropic for Node",
        file: "tests/node/anthropic.test.js",
        without: &[("embeddings", "Anthropic has no embeddings, and its client no method for them")],
    },
];

/// One call a second and none waits, for what a client makes of a refusal; no money for one model; names that clients insist on.
const SETTINGS: &str = "
    [limits]
    max_wait = '0s'
    [limits.models.'@cf/meta/llama-3.2-3b-instruct']
    requests = 1
    per = '1s'
    [[budgets]]
    name = 'nothing'
    limit = '0.001 neurons'
    window = 'month'
    models = ['@cf/meta/llama-3.1-8b-instruct-fp8']
    [aliases]
    text-embedding-3-small = '@cf/baai/bge-m3'
";

/// The stand-in, which has a model of another provider, too.
fn vendor() -> Running {
    let mut settings = simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    let gpt =
        "[models.'openai/gpt-test']\ntask = 'Text Generation'\nprices = { input_token = 1000, output_token = 4000 }";
    settings.models = Config::parse(gpt, "test").unwrap().models;
    simulator::start(settings).unwrap()
}

pub fn gate(change: impl FnOnce(&mut Config)) -> Gate {
    Gate::with(vendor(), |config| {
        let Config { limits, budgets, aliases, .. } = Config::parse(SETTINGS, "test").unwrap();
        (config.budgets, config.aliases) = (budgets, aliases);
        config.limits.max_wait = limits.max_wait;
        config.limits.models.extend(limits.models);
        change(config);
    })
}

/// A gate of which each reply is compared with the vendor's.
pub fn plain() -> Gate {
    Gate::with(vendor(), |_| {})
}

/// The client's own test, at a gate with limits and budgets, and at one without them of which each reply is compared.
fn harness(name: &str, variables: &[(&str, &str)]) {
    let client = CLIENTS.iter().find(|client| client.name == name).unwrap();
    let (gate, plain) = (gate(|_| {}), plain());
    let twin = Twin::before(&plain);
    let mut command = if let Some(file) = client.file.strip_prefix("tests/node/") {
        let Some(installed) = tool("TOLLGATE_TEST_NODE", client.file) else { return };
        let place = node_place(Path::new(&installed));
        let mut node = Command::new(Path::new(&installed).join("node_modules/.bin/node"));
        node.args(["--test", file]).current_dir(place.path());
        return tried(client, node.envs(variables.iter().copied()), &gate, &twin);
    } else {
        let script = Path::new(client.file).file_stem().unwrap().to_str().unwrap();
        if std::env::var("TOLLGATE_TEST_WITHOUT").is_ok_and(|without| without.split(',').any(|part| part == script)) {
            eprintln!("left out: {script} (TOLLGATE_TEST_WITHOUT)");
            return;
        }
        let Some(python) = tool("TOLLGATE_TEST_CLIENTS", client.file) else { return };
        let mut command = Command::new(python);
        command.arg(format!("{}/{}", env!("CARGO_MANIFEST_DIR"), client.file)).arg(gate.url(""));
        command
    };
    tried(client, &mut command, &gate, &twin);
}

fn tried(client: &Client, command: &mut Command, gate: &Gate, twin: &Twin) {
    command.env("TOLLGATE_URL", gate.url("")).env("TOLLGATE_ADMIN", format!("http://{}", gate.sidecar.admin()));
    let output = command.env("TOLLGATE_TWIN", &twin.url).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", client.name);
    is_whole(client.name, |thing| said.contains(&format!("tried: {thing};")), twin);
}

/// Each thing was tried, or there is a reason why not; and what went by the vendor's paths was the vendor's.
pub fn is_whole(name: &str, is_tried: impl Fn(&str) -> bool, twin: &Twin) {
    let client = CLIENTS.iter().find(|client| client.name == name).unwrap();
    for thing in THINGS {
        let reason = client.without.iter().find(|(without, _)| *without == thing);
        assert!(is_tried(thing) != reason.is_some(), "{name}, {thing}: tried {}, {reason:?}", is_tried(thing));
    }
    let compared = twin.compared();
    assert!(compared.len() >= 5, "{name}: only {compared:?} went by the vendor's paths");
    println!("{name}: {} replies are the vendor's to the byte", compared.len());
}

#[test]
fn each_client_tries_each_thing_or_has_a_reason_not_to() {
    for Client { name, file, without } in &CLIENTS {
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for thing in THINGS {
            let is_tried = text.contains(&format!("\"{thing}\""));
            let has_reason = without.iter().any(|(without, why)| *without == thing && !why.is_empty());
            assert!(is_tried != has_reason, "{name}, {thing}: tried {is_tried}, with a reason not to {has_reason}");
        }
    }
}

#[test]
fn openai_for_python() {
    harness("openai for Python", &[]);
}

#[test]
fn openai_for_node() {
    for (name, package) in
        [("openai for Node 5", "openai5"), ("openai for Node 6", "openai6"), ("openai for Node 7", "openai")]
    {
        harness(name, &[("TOLLGATE_OPENAI", package)]);
    }
}

#[test]
fn litellm() {
    harness("LiteLLM", &[]);
}

#[test]
fn langchain_openai() {
    harness("langchain-openai", &[]);
}

#[test]
fn langchain_cloudflare() {
    harness("langchain-cloudflare", &[]);
}

#[test]
fn pydantic_ai() {
    harness("pydantic-ai", &[]);
}

#[test]
fn haystack() {
    harness("Haystack", &[]);
}

#[test]
fn llm() {
    harness("llm", &[]);
}

#[test]
fn the_ai_sdks_provider_of_openais_form() {
    harness("AI SDK, openai-compatible", &[]);
}

#[test]
fn the_agents_sdks_create_ai() {
    harness("agents, createAI", &[]);
}

#[test]
fn the_ai_gateways_provider_and_its_list_of_steps() {
    harness("ai-gateway-provider", &[]);
}

#[test]
fn anthropic_for_python() {
    harness("anthropic for Python", &[]);
}

#[test]
fn anthropic_for_node() {
    harness("anthropic for Node", &[]);
}
