//! Real SDKs through the sidecar. They are installed by `tests/all`; `cargo test` alone says that it leaves them out.

use std::path::Path;
use std::process::Command;

use tollgate::openai::Form;
use tollgate::sidecar::config::Config;

use crate::support::{Gate, tool, vendor};

/// One call a second and none waits, for the tests of what a client makes of a refusal.
const ONE_A_SECOND: &str = "
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
";

fn gate(v1: Form) -> Gate {
    Gate::with(vendor(), |config| {
        let Config { limits, budgets, .. } = Config::parse(ONE_A_SECOND, "test").unwrap();
        config.budgets = budgets;
        config.limits.max_wait = limits.max_wait;
        config.limits.models.extend(limits.models);
        config.compat.v1 = v1;
    })
}

/// Runs it, and fails with what it said.
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// Runs a file of tests with node's own runner, beside the packages that are installed.
fn node_test(file: &str, variables: &[(&str, &str)]) {
    let Some(installed) = tool("TOLLGATE_TEST_NODE", &format!("tests/node/{file}")) else { return };
    let place = crate::support::node_place(Path::new(&installed));
    let mut node = Command::new(Path::new(&installed).join("node_modules/.bin/node"));
    run(node.args(["--test", file]).current_dir(place.path()).envs(variables.iter().copied()));
}

fn through(gate: &Gate, file: &str) {
    node_test(file, &[("TOLLGATE_URL", &gate.url(""))]);
}

#[test]
fn the_openai_python_client() {
    let Some(python) = tool("TOLLGATE_TEST_PYTHON", "the openai Python client") else { return };
    for v1 in [Form::OpenAi, Form::Vendor] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/openai_client.py");
        run(Command::new(&python).arg(script).arg(gate(v1).url("/v1")));
    }
}

#[test]
fn the_anthropic_node_client() {
    through(&gate(Form::OpenAi), "anthropic.test.js");
}

#[test]
fn the_openai_node_client() {
    for v1 in [Form::OpenAi, Form::Vendor] {
        through(&gate(v1), "openai.test.js");
    }
}

#[test]
fn older_openai_node_clients() {
    for version in ["openai5", "openai6"] {
        let gate = gate(Form::OpenAi);
        node_test("openai.test.js", &[("TOLLGATE_URL", &gate.url("")), ("TOLLGATE_OPENAI", version)]);
    }
}

#[test]
fn the_ai_sdks_provider_of_openais_form() {
    through(&gate(Form::OpenAi), "openai-compatible.test.js");
}

/// A script of `tests/clients/python`, unless its name is left out.
fn python_client(name: &str) {
    if std::env::var("TOLLGATE_TEST_WITHOUT").is_ok_and(|without| without.split(',').any(|part| part == name)) {
        eprintln!("left out: {name} (TOLLGATE_TEST_WITHOUT)");
        return;
    }
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", &format!("tests/clients/python/{name}.py")) else { return };
    let script = format!("{}/tests/clients/python/{name}.py", env!("CARGO_MANIFEST_DIR"));
    run(Command::new(&python).arg(script).arg(gate(Form::OpenAi).url("")));
}

#[test]
fn generated_calls_hold_before_openais_own_models() {
    python_client("openai_strict");
}

#[test]
fn litellm() {
    python_client("litellm_client");
}

#[test]
fn langchain_openai() {
    python_client("langchain_client");
}

#[test]
fn langchains_own_suite_passes_as_it_does_without_a_gate() {
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", "LangChain's suite for makers of models") else { return };
    let (gate, script) =
        (Gate::start(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python/provider_suite.py"));
    run(Command::new(&python).arg(script).args([gate.url(""), gate.vendor.base_url()]));
}

#[test]
fn langchain_for_javascript() {
    through(&gate(Form::OpenAi), "langchain.test.js");
}

#[test]
fn langchain_cloudflare() {
    python_client("langchain_cloudflare_client");
}

#[test]
fn haystack() {
    python_client("haystack_client");
}

#[test]
fn llm() {
    python_client("llm_client");
}

#[test]
fn pydantic_ai() {
    python_client("pydantic_ai_client");
}

#[test]
fn websockets_and_deepgrams_sdk_for_python() {
    python_client("sockets_client");
}

#[test]
fn ws_for_node() {
    through(&gate(Form::OpenAi), "sockets.test.js");
}

#[test]
fn the_anthropic_python_client() {
    python_client("anthropic_client");
}

#[test]
fn the_ai_gateways_provider_and_its_list_of_steps() {
    let mut settings = tollgate::simulator::Settings::default();
    (settings.latency, settings.rate_limits) = (0.0, false);
    let gpt =
        "[models.'openai/gpt-test']\ntask = 'Text Generation'\nprices = { input_token = 1000, output_token = 4000 }";
    settings.models = Config::parse(gpt, "test").unwrap().models;
    through(&Gate::with(tollgate::simulator::start(settings).unwrap(), |_| {}), "ai-gateway.test.js");
}

#[test]
fn the_agents_sdks_create_ai() {
    through(&gate(Form::Vendor), "agents.test.js");
}

#[test]
fn tanstack_ai() {
    through(&gate(Form::Vendor), "tanstack.test.js");
}

#[test]
fn the_cloudflare_node_client() {
    through(&gate(Form::OpenAi), "cloudflare.test.js");
}

#[test]
fn the_vercel_ai_sdk() {
    through(&gate(Form::OpenAi), "ai.test.js");
}

#[test]
fn the_dashboards_fit_grafanas_schema_and_the_compose_file_its_paths() {
    node_test("dashboards.test.js", &[("TOLLGATE_DASHBOARDS", concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards"))]);
}
